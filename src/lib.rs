//! Holdline: an interruptible WebSocket reverse proxy.

pub mod config;
pub mod handshake;
pub mod http;
pub mod routes;
