//! The decisions of Holdline as pure state machines: events and time in, decisions out.
//!
//! Nothing here opens a socket, reads a clock or draws a random number; whoever drives it does, and passes in what
//! it found. That is what lets a simulator put a pipe through a thousand disasters in a second.

pub mod health;
pub mod ids;
pub mod lease;
pub mod pool;
pub mod settings;
pub mod time;
