//! The decisions of Holdline as pure state machines: events and time in, decisions out.
//!
//! Nothing here opens a socket, reads a clock or draws a random number; the caller does, and passes in what
//! it found. That is what lets a simulator put a pipe through a thousand disasters in a second.
//!
//! In reading order: what things are called and counted in ([`time`], [`ids`], [`settings`]); the wire ([`frame`],
//! [`close`], [`assembler`], `text`, [`aware`]); the messages that are kept ([`byte_queue`], [`replay`]); the two legs with their links
//! ([`leg`]), and the two lanes between them (`lane`, `throttle`); what a pipe remembers of its workers ([`backoff`],
//! [`suspects`]); the [`pipe`] that joins them; what many pipes [`shared`] make of one worker; and beside it the [`pool`]
//! that backends are chosen from, with their [`health`] and their [`lease`], the [`limits`] on who may connect how often,
//! and who goes when [`memory`] is short. Which worker processes are started, emptied and stopped, the [`supervisor`] decides.
//! How workers that cannot be dialled dial in is in [`dialin`].
//! What a worker must hear again is in [`conversation`], and the groups that a pipe belongs to in [`labels`]. A pipe can be frozen into a
//! [`snapshot`].

pub mod assembler;
pub mod aware;
pub mod backoff;
pub mod byte_queue;
pub mod close;
pub mod conversation;
pub mod dialin;
pub mod frame;
pub mod health;
pub mod ids;
pub mod labels;
mod lane;
pub mod lease;
pub mod leg;
pub mod limits;
pub mod memory;
pub mod pipe;
pub mod pool;
pub mod replay;
pub mod settings;
pub mod shared;
pub mod snapshot;
pub mod supervisor;
pub mod suspects;
mod text;
mod throttle;
pub mod time;
