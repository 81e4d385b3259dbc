//! Claims for tests to sign.

use holdline_core::ids::{Generation, PipeId};

use super::{Claims, Home, NodeName, Place, Principal, UnixTime};

/// Claims made by a node of this name.
pub(super) fn claims(node: &str) -> Claims {
    Claims {
        pipe: PipeId::from_bytes(*b"0123456789abcdef"),
        epoch: 3,
        fence: 1 << 40,
        generation: Generation(7),
        home: Home { node: NodeName::parse(node).unwrap(), incarnation: 9 },
        issued: UnixTime { ms: 1_764_400_000_000 },
        expires: UnixTime { ms: 1_764_400_060_000 },
        principal: Principal::of([b"Bearer x".as_slice()]),
        place: Place::of(Some("a.example"), "/ws", Some("chat")),
    }
}
