//! What messages mean to a prologue, in whatever protocol they are written.

use std::ops::Range;

use super::json::quote;

/// The rule that something was kept by.
pub type Class = u8;

/// Some of the rules of a profile, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classes(u32);

impl Classes {
    /// Those that are listed; a profile has [`CLASSES_MAX`] at most.
    #[must_use]
    pub fn of(classes: &[Class]) -> Self {
        Self(classes.iter().fold(0, |bits, class| bits | 1 << class))
    }

    pub(super) const fn has(self, class: Class) -> bool {
        self.0 >> class & 1 == 1
    }
}

/// Classes that there are at most: those of rules from 0 on, those of a protocol's own reader from the top down.
pub const CLASSES_MAX: usize = 32;

/// Rules that a profile has at most.
pub const RULES_MAX: usize = 24;

/// The class of what a conversation begins with: a login, a connection, an init.
pub(super) const BEGINNING: Class = 31;

/// The class of what a client listens to.
pub(super) const SUBSCRIPTION: Class = 30;

/// The class of what else a protocol's own reader keeps.
pub(super) const OTHER: Class = 29;

/// What tells one kept message from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub class: Class,
    pub key: Box<[u8]>,
}

/// Which of the messages with one name are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The newest, in the place of the first.
    Last,
    /// Each.
    All,
    /// None: only that it was said. It must not be said to a second worker, and if its worker is lost before the exchange
    /// is over, its client is told so in this form.
    Once(Regret),
}

/// How a client is told that an exchange came to no end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regret {
    /// `graphql-transport-ws`: an `error` with a list.
    GraphqlTransport,
    /// `graphql-ws`: an `error` with an object.
    GraphqlLegacy,
    /// tRPC: an answer with an `error`.
    Trpc,
}

/// What the client is told.
const REGRET: &str = "the worker was lost before it answered; this operation is not repeated, since it may have run";

impl Regret {
    /// The message for the exchange that the client calls `key`.
    pub(super) fn message(self, key: &[u8]) -> Vec<u8> {
        let id = raw_of(key);
        let text = String::from_utf8_lossy(&id);
        let why = REGRET;
        let message = match self {
            Self::GraphqlTransport => format!(r#"{{"id":{text},"type":"error","payload":[{{"message":"{why}"}}]}}"#),
            Self::GraphqlLegacy => format!(r#"{{"id":{text},"type":"error","payload":{{"message":"{why}"}}}}"#),
            Self::Trpc => format!(
                r#"{{"id":{text},"error":{{"code":-32603,"message":"{why}","data":{{"code":"INTERNAL_SERVER_ERROR","httpStatus":500}}}}}}"#
            ),
        };
        message.into_bytes()
    }
}

/// A key as JSON again; see [`super::json::Value::name`].
fn raw_of(key: &[u8]) -> Vec<u8> {
    match key.strip_prefix(b"\"").map(str::from_utf8) {
        Some(Ok(text)) => quote(text),
        Some(Err(_)) | None => key.to_vec(),
    }
}

/// Whether the worker answers a kept message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaits {
    /// It does not.
    Nothing,
    /// It does.
    Answer,
    /// It does, and is sent nothing more before.
    Gate,
}

/// A message, or a part of one, that the next worker must hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Keep {
    pub name: Name,
    pub bytes: Box<[u8]>,
    pub how: How,
    pub awaits: Awaits,
    /// What the answer calls it.
    pub answer: Box<[u8]>,
}

impl Keep {
    /// What is kept under a name, by which it is answered too if it is.
    pub fn new(class: Class, key: &[u8], bytes: &[u8], how: How, awaits: Awaits) -> Self {
        Self { name: Name { class, key: key.into() }, bytes: bytes.into(), how, awaits, answer: key.into() }
    }
}

/// What a client's message means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Up {
    Keep(Keep),
    /// What was kept under this key is superfluous.
    Forget(Classes, Box<[u8]>),
}

/// What a worker's message, or the part of it that stands there, means.
pub(super) type Told = (Down, Range<usize>);

/// What a worker's message means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Down {
    /// It is what a worker says first of all.
    Greeting,
    /// It answers what was kept of this class and is called so.
    Answer(Class, Box<[u8]>),
    /// It says where the client stands: the next worker is told so in what is kept under this name.
    Note(Name, Vec<u8>),
    /// What was kept under this key is over.
    Forget(Classes, Box<[u8]>),
}
