//! Holdline: an interruptible WebSocket reverse proxy.

pub mod events;
pub mod metrics;
