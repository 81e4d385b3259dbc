//! What goes with a pipe's snapshot to another process, and the order to freeze a pipe for that.
//!
//! The snapshot is the core's and knows of no route, address or socket; all of that is here. Both processes have one clock,
//! so times are given as they are. Invariants: a pipe that is frozen does nothing until it has heard a [`Verdict`], and goes on
//! if none comes; unknown words are refused, because what is not understood would be lost.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use holdline_core::ids::PipeId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{PipeEntry, PipeFacts, Pipes, Registration};
use crate::handshake::deflate::{Asked, Compression};
use crate::net::Announced;
use crate::routes::Target;

/// All that another process needs of a pipe beside its snapshot, its sockets and some bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passport {
    /// Its name.
    pub pipe: String,
    /// The name of its route.
    pub route: Box<str>,
    /// Which of the route's settings it lives by.
    pub settings: LivesBy,
    /// Its route key.
    pub key: Option<Arc<str>>,
    /// What to ask a backend for.
    pub target: Target,
    /// Its client's `Host`.
    pub host: Option<Box<str>>,
    /// Whose connections its workers are told that they get.
    pub announced: Option<Announced>,
    /// The subprotocols that its client offered.
    pub protocols: Box<[String]>,
    /// The one that is spoken.
    pub protocol: Option<Box<str>>,
    /// Whether its workers speak the aware protocol.
    pub numbers: bool,
    /// The compression that later workers are asked for.
    pub asked: Asked,
    /// Whether its peers compress.
    pub compression: Compression,
    /// Its client's address.
    pub address: String,
    /// Whether its client speaks the aware protocol.
    pub aware: bool,
    /// Its client's name, as one digest, if it has one.
    pub name: Option<[u8; 32]>,
    /// What the log calls the request that it was opened by.
    pub request_id: Box<str>,
    /// What it was, when, and how it stands in the books.
    pub past: Past,
    /// When it was frozen, in microseconds.
    pub frozen_at: u64,
    /// Its client's link, if it has one.
    pub client: Option<ClientPassport>,
    /// Its worker's link, if it has one.
    pub backend: Option<BackendPassport>,
    /// The worker that was attached last, by its key in the process that wrote this, and its id.
    pub last: Option<(u64, Arc<str>)>,
}

/// Which settings of its route a pipe lives by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LivesBy {
    /// Those of any pipe.
    Route,
    /// Those of clients that have a name to come back under.
    Named,
    /// Those of clients that number their messages.
    Aware,
}

/// The kind of a conversation, its profile, and what it is known by.
pub type KnownKind = (Box<str>, Option<Arc<str>>, Box<str>);

/// What a pipe's books say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// When its client was answered, in milliseconds since 1970.
    pub opened_at_ms: u64,
    /// The same in microseconds of the clock.
    pub opened_at: u64,
    /// When it last took a message, or changed, in microseconds of the clock.
    pub active_at: u64,
    /// Clients that were answered for it.
    pub answers: u64,
    /// The number of its client's transport.
    pub transport: u8,
    /// What kind of conversation it is, once that is known.
    pub conversation: Option<KnownKind>,
    /// Whether it looks for another worker.
    pub searching: bool,
    /// Whether its grace was over.
    pub expired: bool,
    /// By whom it was ended, with which code and reason, if it was.
    pub ended: Option<(Box<str>, u16, Box<str>)>,
}

/// A client's link.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPassport {
    /// The inode of its socket; nothing if the link does not come along, and the client has to come back.
    pub inode: Option<u64>,
    /// Which of the client's attaches it is.
    pub generation: u64,
    /// Its place in the order in which the pipe's clients were answered.
    pub answer: u64,
    /// Whether writing failed, so that only what the client had said is to be read.
    pub broken: bool,
}

/// A worker's link.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPassport {
    /// The inode of its socket; nothing if the link does not come along, and is lost.
    pub inode: Option<u64>,
    /// The worker's key in the process that wrote this.
    pub key: u64,
    /// Which attach it is.
    pub attachment: u64,
    /// Since when, in microseconds.
    pub since: u64,
    /// How writing failed, if it did, so that only what the worker had said is to be read.
    pub broken: Option<Broken>,
}

/// How writing to a link failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Broken {
    /// The peer had ended it.
    Eof,
    /// It was reset.
    Reset,
}

/// A socket, and what was read of it and not taken in yet.
#[derive(Debug)]
pub struct Carried {
    /// A descriptor of its own.
    pub socket: OwnedFd,
    /// What was read.
    pub unread: Bytes,
}

/// A pipe that stands still until it has heard what becomes of it.
#[derive(Debug)]
pub struct Frozen {
    /// Its name.
    pub pipe: PipeId,
    /// What goes with its snapshot.
    pub passport: Passport,
    /// The snapshot.
    pub snapshot: Vec<u8>,
    /// Its client's headers, ready for each dial.
    pub head_lines: Box<[u8]>,
    /// Its client's socket.
    pub client: Option<Carried>,
    /// Its worker's socket.
    pub backend: Option<Carried>,
    /// Where it hears what becomes of it; it goes on if this is dropped.
    pub verdict: oneshot::Sender<Verdict>,
}

/// What becomes of a frozen pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Another process has it: nothing of it is to be touched here.
    Gone,
    /// It goes on here.
    Stays,
}

/// Why a pipe cannot go to another process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unmovable {
    /// Its client speaks TLS 1.2.
    Tls12,
    /// Its client speaks TLS 1.3.
    Tls13,
    /// Its client is on a stream of HTTP/2, or on requests.
    Http2,
    /// Its client is on requests of HTTP.
    Http,
    /// Its worker connection is shared.
    Shared,
    /// Its worker's connection cannot come along, and its conversation ends with it.
    Worker,
    /// It is about to end.
    Ends,
    /// The system does not let its sockets be copied.
    Descriptors,
}

/// What a pipe says to the order to freeze.
pub type Answer = Result<Box<Frozen>, (PipeId, Unmovable)>;

/// The order to a pipe to freeze at the end of its turn.
#[derive(Debug)]
pub struct Freeze {
    /// Where the pipe goes, frozen; there is room for it.
    pub answer: mpsc::Sender<Answer>,
}

impl PipeEntry {
    /// Clients that were answered for this pipe.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    /// Has the pipe freeze at the end of its next turn. Beyond [`super::COMMANDS_MAX`], because there is one such order at a
    /// time.
    pub fn order_to_freeze(&self, freeze: Freeze) {
        self.mailbox.insist(super::Command::Freeze(Box::new(freeze)));
    }
}

impl Pipes {
    /// Adds a pipe that has come from another process; it stays until the guard is dropped.
    #[must_use]
    pub fn adopt(self: &Arc<Self>, facts: PipeFacts, past: &Past) -> Registration {
        let mut entry = PipeEntry::new(facts);
        entry.opened_at = UNIX_EPOCH + Duration::from_millis(past.opened_at_ms);
        entry.answers = AtomicU64::new(past.answers);
        entry.active_micros = AtomicU64::new(past.active_at);
        entry.transport = AtomicU8::new(past.transport);
        self.enter(Arc::new(entry))
    }

    /// Waits until no pipe is expected any more.
    pub async fn expected(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.expected.subscribe().wait_for(|&expected| expected == 0).await;
    }
}
