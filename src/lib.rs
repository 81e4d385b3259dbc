//! Holdline: an interruptible WebSocket reverse proxy.

pub mod admin;
pub mod backends;
pub mod blame;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod events;
pub mod front;
pub mod handshake;
pub mod http;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod phase;
pub mod pipe;
pub mod pipes;
pub mod routes;
pub mod serve;
pub mod worker;
