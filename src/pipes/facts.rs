//! Who a pipe is: what is said when it opens, and what is found out about it once.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use holdline_core::conversation::ConversationKind;
use holdline_core::ids::PipeId;

use super::PipeEntry;
use crate::handshake::deflate::Compression;
use crate::routes::Route;

/// Whether a pipe has its worker for itself ([`crate::share`]).
#[derive(Debug)]
pub enum Sharing {
    /// It has.
    Alone,
    /// It is the pipe of a shared stream, and its clients are that stream's viewers: so many.
    Stream(AtomicUsize),
    /// It is a viewer of the stream that has this pipe.
    Viewer(Arc<PipeEntry>),
}

/// What kind of conversation a pipe is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// What it is.
    pub kind: ConversationKind,
    /// Its profile, if it has one.
    pub profile: Option<Arc<str>>,
    /// What it is known by.
    pub why: Cow<'static, str>,
}

/// Who a new pipe is.
#[derive(Debug)]
pub struct PipeFacts {
    /// Its name.
    pub id: PipeId,
    /// The route it is opened on.
    pub route: Arc<Route>,
    /// Its route key.
    pub key: Option<Arc<str>>,
    /// Its client's address.
    pub client: String,
    /// Whether its client has a name to come back under.
    pub named: bool,
    /// The subprotocol that is spoken on it.
    pub protocol: Option<Box<str>>,
    /// Whether its client speaks the aware protocol.
    pub aware: bool,
    /// Whether its peers compress.
    pub compression: Compression,
    /// Whether it has its worker for itself.
    pub sharing: Sharing,
    /// What the log calls the request that it is opened by; empty for the pipe of a shared stream.
    pub request_id: String,
}
