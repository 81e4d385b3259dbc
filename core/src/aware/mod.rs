//! What is said in the aware protocol `holdline.v1` (PROTOCOL section 7): numbers before messages, and control words.
//!
//! Both ends number what they send, so that after a loss either can say where it stands and the other goes on from there.
//! `number` reads and writes the number before a message, [`words`] the control words, which are `json`; [`first`] is the
//! word that a client begins with when it comes back. What a pipe does about them is in `pipe/aware`, and how they come over
//! a link in `leg/aware`.
//!
//! Invariant: nothing is guessed. A message that is not exactly in the form is refused with a reason of its own.

pub mod first;
pub(crate) mod json;
pub(crate) mod number;
pub mod words;

pub use words::{Answer, Heard, Hello, Malformed, Position, Reject, Said, Standing};

/// Close codes of Holdline's own (PROTOCOL section 4); none of them is an end that the worker chose.
pub mod codes {
    /// The resume was rejected; the client begins anew or gives up.
    pub const REJECTED: u16 = 4900;
    /// Another connection of the client took its place; it must not come back by itself.
    pub const SUPERSEDED: u16 = 4901;
    /// The client broke the protocol.
    pub const PROTOCOL: u16 = 4905;
}

/// The highest number of a message: what a JavaScript number still counts by ones.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
