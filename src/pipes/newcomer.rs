//! A client that comes back to its pipe on another connection.

use bytes::Bytes;

use crate::net::LooseStream;
use crate::routes::Target;

/// A client that has been answered and comes to its pipe.
#[derive(Debug)]
pub struct Newcomer {
    /// Its socket, of no thread yet.
    pub stream: LooseStream,
    /// What it sent behind its handshake.
    pub first: Bytes,
    /// What workers are told of it from now on.
    pub plan: Return,
}

/// What a client that comes back has that may be another than before.
#[derive(Debug)]
pub struct Return {
    /// What to ask a backend for.
    pub target: Target,
    /// The client's `Host`.
    pub host: Option<Box<str>>,
    /// The client's headers, ready for each dial.
    pub head_lines: Box<[u8]>,
    /// Its address.
    pub client: String,
    /// Its place in the order in which clients were answered.
    pub arrival: u64,
}
