//! The protocols that a prologue can be kept of.
//!
//! A profile is how the messages of one protocol are read ([`Dialect`]), and rules over those that are JSON. Refused:
//! to guess. What a profile does not know is passed on and not kept.

use std::sync::{Arc, LazyLock};

use super::builtin;
use super::rules::Rules;
use super::words::{Awaits, Down, How, Keep, Name, Up};
use crate::frame::Kind;

/// How the messages of a protocol are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Each text message is a JSON document.
    Json,
    /// SockJS over a raw WebSocket: a worker says `o` first, and knows nothing of its client beyond its messages.
    SockJs,
    /// The first messages of a client are kept as they are, so many.
    First(u32),
}

/// A protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name in the configuration, the API and the log.
    pub name: &'static str,
    /// How its messages are read.
    pub dialect: Dialect,
    /// What is kept and forgotten of those that are JSON.
    pub rules: Rules,
}

/// The built-in profiles.
static BUILT_IN: LazyLock<Vec<Arc<Profile>>> = LazyLock::new(builtin::profiles);

impl Profile {
    /// Every built-in profile.
    #[must_use]
    pub fn built_in() -> &'static [Arc<Self>] {
        &BUILT_IN
    }

    /// The built-in profile called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Arc<Self>> {
        Self::built_in().iter().find(|profile| profile.name == name).cloned()
    }

    /// The profile of `routes.prologue.first`: the client's first `count` messages, whatever they are.
    #[must_use]
    pub fn first(count: u32) -> Arc<Self> {
        Arc::new(Self { name: FIRST, dialect: Dialect::First(count), rules: Rules::default() })
    }

    /// First messages of workers that show the profile for certain: how they look, and its name.
    pub const GREETINGS: &[(&str, &str)] = &[];

    /// The profile of a conversation that its worker begins with this message, where that is certain.
    #[must_use]
    pub fn greeted_with(_payload: &[u8]) -> Option<Arc<Self>> {
        None
    }

    /// Whether a worker speaks before its client does, and the client is sent nothing before.
    #[must_use]
    pub(super) const fn greets(&self) -> bool {
        match self.dialect {
            Dialect::Json | Dialect::First(_) => false,
            Dialect::SockJs => true,
        }
    }

    /// What a client's message means, when so many have been kept.
    pub(super) fn up(&self, kind: Kind, payload: &[u8], kept: usize) -> Vec<Up> {
        let mut out = Vec::new();
        match self.dialect {
            Dialect::Json if kind == Kind::Text => self.rules.up(payload, payload, &mut out),
            Dialect::Json | Dialect::SockJs => {}
            Dialect::First(count) if kept < count as usize => {
                let name = Name { class: 0, key: Box::default() };
                out.push(Up::Keep(Keep { name, bytes: payload.into(), how: How::All, awaits: Awaits::Nothing }));
            }
            Dialect::First(_) => {}
        }
        out
    }

    /// What a worker's message means.
    pub(super) fn down(&self, kind: Kind, payload: &[u8]) -> Vec<Down> {
        let mut out = Vec::new();
        match self.dialect {
            Dialect::Json if kind == Kind::Text => self.rules.down(payload, &mut out),
            Dialect::SockJs if payload == b"o" => out.push(Down::Greeting),
            Dialect::Json | Dialect::SockJs | Dialect::First(_) => {}
        }
        out
    }
}

/// The name of [`Profile::first`].
pub const FIRST: &str = "first";
