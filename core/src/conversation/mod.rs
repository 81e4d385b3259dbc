//! What a conversation is beyond its messages: what another worker must know to go on with it.
//!
//! A stateless one goes on anywhere. A stateful one lives in its worker and ends with it. A profiled one has a
//! [`Prologue`]: what of it a worker keeps in its head is kept here too, and said again to the next ([`Profile`]).
//!
//! ```text
//!   client -- message --> profile.up   --> keep, forget        \
//!                                                               prologue: entries, in first-seen order
//!   worker -- message --> profile.down --> answer, forget      /
//!
//!   attach:  entries that the replay does not bring --> sent, one gate at a time --> answers swallowed --> the replay
//! ```
//!
//! In reading order: [`json`] finds values, `words` are what messages mean, [`rules`] read JSON, `messages` and
//! `streams` what is not JSON, [`profile`] knows the protocols, `builtin` has their rules, [`prologue`] is the engine, and
//! `aliases` its names for what each worker names anew; [`first`] knows a first message, which `inflate` makes plain. The pipe asks it in `pipe::conversing`.

use std::sync::Arc;

mod aliases;
mod builtin;
pub mod first;
mod inflate;
pub mod json;
mod messages;
pub mod profile;
pub mod prologue;
pub mod rules;
mod snapshot;
mod streams;
pub mod words;

pub(crate) use inflate::inflate;
pub use profile::{Profile, Profiles};
pub(crate) use prologue::{Heard, Said};
pub use prologue::{Prologue, PrologueBounds};

/// What a pipe knows of its conversation.
#[derive(Debug)]
pub enum Conversation {
    /// The first message decides.
    Undecided,
    /// It goes on with any worker.
    Stateless,
    /// What a worker must hear again is kept.
    Profiled(Box<Prologue>),
    /// It ends with its worker.
    Stateful {
        /// Whether a client opens each of its connections by words of its own, or waits for the worker's.
        opens_each_connection: bool,
    },
}

/// What a conversation is, by name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConversationKind {
    /// The first message decides.
    Undecided,
    /// It goes on with any worker.
    Stateless,
    /// What a worker must hear again is kept.
    Profile,
    /// It ends with its worker.
    Stateful,
}

impl ConversationKind {
    /// The name in the API, the log and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Stateless => "stateless",
            Self::Profile => "profile",
            Self::Stateful => "stateful",
        }
    }
}

impl Conversation {
    /// What it is, and by which profile.
    #[must_use]
    pub fn kind(&self) -> (ConversationKind, Option<&Arc<str>>) {
        match self {
            Self::Undecided => (ConversationKind::Undecided, None),
            Self::Stateless => (ConversationKind::Stateless, None),
            Self::Profiled(prologue) => (ConversationKind::Profile, Some(prologue.profile())),
            Self::Stateful { .. } => (ConversationKind::Stateful, None),
        }
    }

    /// Whether whole messages are looked at.
    pub(crate) const fn reads(&self) -> bool {
        match self {
            Self::Stateless | Self::Stateful { .. } => false,
            Self::Undecided | Self::Profiled(_) => true,
        }
    }

    /// Whether another worker can carry it on.
    pub(crate) const fn moves(&self) -> bool {
        match self {
            Self::Undecided | Self::Stateless => true,
            Self::Profiled(prologue) => prologue.is_repeatable(),
            Self::Stateful { .. } => false,
        }
    }

    /// Whether a client opens each of its connections by words of its own.
    pub(crate) fn opens_each_connection(&self) -> bool {
        match self {
            Self::Undecided | Self::Stateless => false,
            Self::Profiled(prologue) => prologue.opens_each_connection(),
            Self::Stateful { opens_each_connection } => *opens_each_connection,
        }
    }

    pub(crate) const fn prologue(&self) -> Option<&Prologue> {
        match self {
            Self::Profiled(prologue) => Some(prologue),
            Self::Undecided | Self::Stateless | Self::Stateful { .. } => None,
        }
    }

    pub(crate) const fn prologue_mut(&mut self) -> Option<&mut Prologue> {
        match self {
            Self::Profiled(prologue) => Some(prologue),
            Self::Undecided | Self::Stateless | Self::Stateful { .. } => None,
        }
    }

    /// Memory that it occupies, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.prologue().map_or(0, |prologue| size_of_val(prologue) + prologue.memory_bytes())
    }
}
