//! Holdline: an interruptible WebSocket reverse proxy.

pub mod config;
