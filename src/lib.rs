//! Holdline: an interruptible WebSocket reverse proxy.

pub mod config;
pub mod events;
pub mod metrics;
