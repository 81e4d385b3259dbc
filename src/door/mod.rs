//! The public door: connections are accepted, their requests are judged, and those that may are let in.
//!
//! In reading order: [`listen`] accepts, `request_line` is lenient with what is read, [`http1`] speaks with one
//! connection, `comeback` lets a client back to its pipe, and `share` into a stream that others watch.

mod comeback;
pub mod http1;
pub mod listen;
mod request_line;
mod share;
