//! Plain HTTP on a route: relayed to a backend, streamed both ways (SPEC section 5).
//!
//! In reading order: [`relay`] picks a backend and retries what may be retried, `exchange` is one request to one
//! backend, `connections` keeps its connections alive (`bound` those that belong to one client, `worker_socket` is what
//! they read and write), `request_body` (`stream_body` of HTTP/2) and `relayed` are the two bodies on their way, `learn` reads along in some answers,
//! `body` is the body of every response that leaves the public listener, `answer` makes one of a refusal. Nothing is
//! collected: at most a few reads are in memory per request.
//! On the client's side, `talk` is where its conversation stands, `client_socket` and `half_closed` what its silence and
//! its end mean, `linger` how its connection ends, `exchanges` the requests that a stop waits for, and `access`
//! what is written of each.

mod access;
mod answer;
mod body;
mod bound;
mod client_socket;
mod connections;
mod exchange;
mod exchanges;
mod half_closed;
mod learn;
mod linger;
mod relay;
mod relayed;
mod request_body;
mod stream_body;
mod talk;
mod worker_socket;

pub use access::Access;
pub use body::Body;
pub use client_socket::{ClientSocket, Patience};
pub use connections::IDLE_TIMEOUT;
pub use exchange::HttpTimeouts;
pub use exchanges::{Counted, Exchange, Exchanges};
pub use linger::{LingerLimits, linger};
pub use relay::{Caller, HttpContext, relay};
pub use request_body::RequestBody;
pub use stream_body::{Rest, StreamBody};
pub use talk::{AnswerBody, Talk};

#[cfg(test)]
mod tests;
