//! The strict checks of a client's request (SPEC section 6), before anything is dialled.
//!
//! A pure function of the request's head. Invariant: what comes out as [`Checked::Upgrade`] is a valid RFC 6455
//! section 4.2.1 handshake and carries no body.

use http::request::Parts;

use super::refusal::Refusal;

/// What a request's head asks for.
#[derive(Debug)]
pub enum Checked {
    /// A WebSocket handshake.
    Upgrade(UpgradeRequest),
    /// Plain HTTP.
    Plain,
    /// Neither, or not properly.
    Refused(Refusal),
}

/// What the handshake's answer depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpgradeRequest {
    /// The client's `Sec-WebSocket-Key`, for [`accept_key`](super::accept::accept_key).
    pub key: String,
    /// The subprotocols it offers, in its order; may be empty.
    pub protocols: Vec<String>,
}

/// Judges a request's head.
#[must_use]
pub fn check(parts: &Parts) -> Checked {
    todo!("{parts:?}")
}

/// The host that the request is for, as sent, port included: the target's authority if it has one, else `Host`.
///
/// `None` only for an HTTP/1.0 request without one, once [`check`] has passed.
#[must_use]
pub fn host(parts: &Parts) -> Option<&str> {
    todo!("{parts:?}")
}
