//! Holdline: an interruptible WebSocket reverse proxy.

pub mod backends;
pub mod blame;
pub mod config;
pub mod events;
pub mod handshake;
pub mod http;
pub mod metrics;
pub mod routes;
