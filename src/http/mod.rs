//! Plain HTTP on a route: relayed to a backend, streamed both ways.

mod body;

pub use body::Body;
