//! The hand-over: a new process takes over from an old one, with its listeners, what it knows and its live pipes.
//!
//! In reading order: `words` (what they say to each other), `wire` (the socket that it is said on), `sections` (what is
//! too long for it), `state` (what a process knows), `estate` (listeners and locks), `batch` (pipes on their way), [`giving`]
//! (the side of the old process) and [`taking`] (that of the new one). How a pipe stands still and begins anew is the pipe's
//! own ([`crate::pipe`]). Invariant: no pipe is ever run by both: it is the old process's until that says `Commit`, and the
//! new one's from then on. If one of them dies before, the other one has all pipes of the batch.

mod batch;
mod estate;
pub mod giving;
mod sections;
mod state;
pub mod taking;
mod wire;
mod words;

pub use estate::Estate;
pub use wire::Listener;
