//! Plain HTTP on a route: relayed to a backend, streamed both ways.

mod body;
mod connections;
mod exchange;
mod relayed;
mod request_body;

pub use body::Body;
pub use connections::Connections;
pub use relayed::RelayedBody;
