//! The two legs of a pipe, and the links that are attached to them.
//!
//! In reading order: what the `backend` leg and the `client` leg may be doing, and the `outage` between two workers; the
//! `link`, which holds what goes with it: the `codec` that turns its bytes into messages and messages into bytes, the
//! `outbox` of the frames that go out, or both directions of the `aware` protocol, and how either comes to its `end`; the
//! [`barrier`] by which it is known what the peer has read, and the [`heartbeat`] by which it is known to live.

mod aware;
mod backend;
pub mod barrier;
mod client;
mod codec;
mod end;
pub mod heartbeat;
mod link;
mod outage;
mod outbox;

pub(crate) use aware::{AwareReader, Broken, Came, Head};
pub use backend::ResumeAnswer;
pub(crate) use backend::{BackendLeg, BackendState, Left, Next, Waiting, Worker};
pub(crate) use client::{ClientLeg, ClientState};
pub(crate) use codec::{Aware, Codec};
pub(crate) use link::Link;
pub use outage::Cause;
