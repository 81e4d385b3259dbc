//! Holdline: an interruptible WebSocket reverse proxy.

pub mod backends;
pub mod blame;
pub mod cli;
pub mod clock;
pub mod config;
pub mod events;
pub mod handshake;
pub mod http;
pub mod metrics;
pub mod pipe;
pub mod pipes;
pub mod routes;
