//! A client that comes back to its pipe on another connection.

use std::net::IpAddr;

use holdline_core::aware::Position;
use holdline_core::ids::Generation;

use crate::net::Announced;
use crate::resume::Claims;
use crate::routes::Target;

/// What a client that resumes its pipe has that may be another than before.
#[derive(Debug)]
pub struct Resume {
    /// What to ask a backend for.
    pub target: Target,
    /// The client's `Host`.
    pub host: Option<Box<str>>,
    /// The client's headers, ready for each dial.
    pub head_lines: Box<[u8]>,
    /// Its address, and the port that it came to.
    pub client: Announced,
    /// The attach whose client it may take the place of; any, if none is named.
    pub over: Option<Generation>,
    /// Its place in the order in which the pipe's clients were answered.
    pub answer: u64,
}

/// An aware client that comes back with a token of ours.
#[derive(Debug)]
pub struct Returned {
    /// What may be another than before.
    pub resume: Resume,
    /// What its token says.
    pub claims: Claims,
    /// Where it says that it stands.
    pub position: Position,
    /// Whom a failure counts against.
    pub address: IpAddr,
}
