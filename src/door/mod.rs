//! The public door: connections are accepted, their requests are judged, and those that may are let in.
//!
//! ```text
//! listen ──▶ http1, http2 ──▶ judge ──▶ admit ──▶ share   each decides in values, which http1 and http2 alone
//!            http1, http2 ◀── Verdict ◀───┘               turn into HTTP and a link
//! ```
//! In reading order: [`listen`] accepts, `announced` hears from proxies whose connection it is, [`secure`] comes together with clients that speak TLS, `first_head` reads what is a
//! handshake at once, `request_line` is lenient with what is read otherwise and `body_end` finds the next head, [`http1`]
//! speaks HTTP/1 on one connection and [`http2`] HTTP/2, [`judge`] says what becomes of a request (`authorize` asks who may connect), `admit` lets
//! a good handshake in, to the pipe that its client left or to a new one (`cookie` knows browsers again, `greet` hears one
//! out that names its pipe), `challenge` answers certificate authorities, `share` lets into a stream that others watch, and [`outcome`] is what they decide. `fallback` serves clients that
//! are on no socket. A protocol more is a neighbour of these two: it makes an [`judge::Asked`] of what it reads, and says a
//! [`outcome::Verdict`] in its own words.

mod admit;
mod announced;
mod authorize;
mod body_end;
mod challenge;
mod cookie;
mod fallback;
mod first_head;
mod greet;
pub mod http1;
pub mod http2;
pub mod judge;
pub mod listen;
pub mod outcome;
mod request_line;
pub mod secure;
mod share;

use std::sync::Arc;

use crate::http::HttpContext;
use crate::process::Process;

/// The door of one data thread.
#[derive(Debug)]
pub struct Door {
    /// The services of the process.
    pub process: Arc<Process>,
    /// Plain HTTP of this thread.
    pub http: HttpContext,
}
