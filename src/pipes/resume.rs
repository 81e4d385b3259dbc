//! A client that comes back to its pipe on another connection.

use crate::routes::Target;

/// What a client that has come back, and been answered, has that may be another than before.
#[derive(Debug)]
pub struct Resume {
    /// Its place in the order in which clients of the pipe were answered; the first client's is 0.
    pub order: u64,
    /// Its address.
    pub client: String,
    /// What to ask a backend for.
    pub target: Target,
    /// The client's `Host`.
    pub host: Option<Box<str>>,
    /// The client's headers, ready for each dial.
    pub head_lines: Box<[u8]>,
}
