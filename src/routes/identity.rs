//! How a route tells its clients apart.
//!
//! Invariant: the pipes of clients that have a name wait for them, and no others do.

use std::sync::Arc;
use std::time::Duration;

use holdline_core::settings::PipeSettings;

use super::Duplicate;
use super::template::Template;

/// How a route tells its clients apart, so that each can come back to its pipe.
#[derive(Debug)]
pub struct Identity {
    pub(super) naming: Naming,
    /// What a second connection of the same client does.
    pub duplicate: Duplicate,
    /// What pipes of clients with a name are opened with.
    pub settings: Arc<PipeSettings>,
}

/// What a client is known by.
#[derive(Debug)]
pub(super) enum Naming {
    /// What its request says.
    Template(Template),
    /// A cookie of ours.
    Cookie,
}

impl Naming {
    pub const fn template(&self) -> Option<&Template> {
        match self {
            Self::Template(template) => Some(template),
            Self::Cookie => None,
        }
    }
}

impl Identity {
    pub(super) fn new(naming: Naming, duplicate: Duplicate, grace: Duration, base: &PipeSettings) -> Self {
        let client_navigates = matches!(naming, Naming::Cookie);
        // Which of a browser's clients is another one is found out before, and that one is never replaced.
        let duplicate = if client_navigates { Duplicate::Replace } else { duplicate };
        let settings = PipeSettings { client_grace: Some(grace), client_navigates, ..base.clone() };
        Self { naming, duplicate, settings: Arc::new(settings) }
    }
}
