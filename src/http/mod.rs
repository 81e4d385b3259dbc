//! Plain HTTP on a route: relayed to a backend, streamed both ways (SPEC section 5).
//!
//! In reading order: [`relay`] picks a backend and retries what may be retried, `exchange` is one request to one
//! backend, `connections` keeps its connections alive, `request_body` and `relayed` are the two bodies on their way,
//! `body` is the body of every response that leaves the public listener, `answer` makes one of a refusal. Nothing is collected: at most a few reads are in memory per request.

mod answer;
mod body;
mod connections;
mod exchange;
mod relay;
mod relayed;
mod request_body;

pub use body::Body;
pub use connections::IDLE_TIMEOUT;
pub use exchange::HttpTimeouts;
pub use relay::{HttpContext, relay};

#[cfg(test)]
mod tests;
