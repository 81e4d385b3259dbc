//! The two legs of a pipe, and what belongs to one link and goes with it.
//!
//! In reading order: what each leg may be doing (`state`), what it writes to its link (`outbox`), how it learns what the
//! peer has read ([`barrier`]) and whether the peer lives ([`heartbeat`]).

pub mod barrier;
pub mod heartbeat;
pub(crate) mod outbox;
mod state;

pub use state::Cause;
pub(crate) use state::{Attached, BackendLeg, ClientLeg, Held, Leaving, Next};
