//! Holdline: an interruptible WebSocket reverse proxy.

pub mod cli;
pub mod worker;
