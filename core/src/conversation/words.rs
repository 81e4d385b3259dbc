//! What messages mean to a prologue, in whatever protocol they are written.

use std::ops::Range;

use super::json::quote;

/// The rule that something was kept by.
pub type Class = u8;

/// Some of the rules of a profile, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classes(u32);

impl Classes {
    /// The first `count` rules.
    pub(super) const fn first(count: usize) -> Self {
        Self((1 << count) - 1)
    }

    /// The same rules where `count` others stand before them.
    pub(super) const fn behind(self, count: usize) -> Self {
        Self(self.0 << count)
    }

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

/// Rules that an operator's own profile has at most, and that a route adds to one at most: with those of the largest built-in
/// profile they stay below the classes of a protocol's own reader.
pub const RULES_MAX: usize = 12;

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
    /// JSON-RPC 2.0: an answer with an `error`.
    JsonRpc,
    /// JSON-RPC 2.0: the answer `true`, since what was to end has ended with its worker.
    JsonRpcDone,
}

/// What the client is told of what may have run.
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
            Self::JsonRpc => format!(r#"{{"jsonrpc":"2.0","id":{text},"error":{{"code":-32603,"message":"{why}"}}}}"#),
            Self::JsonRpcDone => format!(r#"{{"jsonrpc":"2.0","id":{text},"result":true}}"#),
        };
        message.into_bytes()
    }
}

/// A key as JSON again; see [`super::json::Value::name`].
pub(super) fn raw_of(key: &[u8]) -> Vec<u8> {
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
    /// It does, and the replay waits for that.
    Start,
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
    /// Whether the answer says how the worker calls what was asked for; see `aliases`.
    pub named_by_worker: bool,
}

impl Keep {
    /// What is kept under a name, by which it is answered too if it is.
    pub fn new(class: Class, key: &[u8], bytes: &[u8], how: How, awaits: Awaits) -> Self {
        let (name, answer) = (Name { class, key: key.into() }, key.into());
        Self { name, bytes: bytes.into(), how, awaits, answer, named_by_worker: false }
    }
}

/// What a client's message means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Up {
    Keep(Keep),
    /// What was kept under this key, which stands at this place, is superfluous.
    Forget(Classes, Box<[u8]>, Range<usize>),
    /// Everything that was kept within this scope is superfluous.
    Leave(Box<[u8]>),
}

/// The key of what is kept within a part of the conversation that can be left as a whole.
pub(super) fn scoped(scope: &[u8], key: &[u8]) -> Box<[u8]> {
    if scope.is_empty() { key.into() } else { [scope, SCOPE_END, key].concat().into() }
}

/// Whether `key` was kept within `scope`.
pub(super) fn is_within(key: &[u8], scope: &[u8]) -> bool {
    key.strip_prefix(scope).is_some_and(|rest| rest.starts_with(SCOPE_END))
}

/// What no scope and no key holds.
const SCOPE_END: &[u8] = b"\0";

/// Bytes that stand in the place of others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Edit {
    pub place: Range<usize>,
    pub bytes: Vec<u8>,
}

/// `payload` with these edits; of two that overlap the one that begins first counts, or else the one that takes out.
pub(super) fn edited(payload: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| (edit.place.start, edit.bytes.len()));
    let (mut out, mut at) = (Vec::with_capacity(payload.len()), 0);
    for Edit { place, bytes } in edits {
        if place.start >= at {
            out.extend_from_slice(&payload[at..place.start]);
            out.extend_from_slice(&bytes);
            at = place.end;
        }
    }
    out.extend_from_slice(&payload[at..]);
    out
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
    /// It answers too, and says what the worker calls what was asked for: a name and its place, or none if it refuses.
    Named(Class, Box<[u8]>, Option<(Box<[u8]>, Range<usize>)>),
    /// It mentions something by the worker's name for it, which is all that the place holds.
    Mention(Box<[u8]>),
    /// The client must not hear it so, but in these words.
    Instead(Vec<u8>),
    /// It says where the client stands: the next worker is told so in what is kept under this name.
    Note(Name, Vec<u8>),
    /// What was kept under this key is over.
    Forget(Classes, Box<[u8]>),
    /// Everything that was kept within this scope is over.
    Leave(Box<[u8]>),
}
