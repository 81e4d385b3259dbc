//! Hostile peers: raw sockets against a real `holdline serve`, one row of the handshake's contract after the other.
//!
//! Nothing here uses a WebSocket library: what a library would never send is the point.
#![allow(clippy::unwrap_used)]

mod admin;
mod descriptors;
mod frames;
mod handshake;
mod headers;
mod http2;
mod http_ends;
mod rig;
mod series;
mod slow;
mod slow_http;
