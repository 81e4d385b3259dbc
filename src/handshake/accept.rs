//! Our own 101 to the client, sent only after the backend's.

use http::{HeaderMap, Response};

use super::check::UpgradeRequest;
use crate::http::Body;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2): 28 characters of base64.
#[must_use]
pub fn accept_key(key: &str) -> String {
    todo!("{key}")
}

/// The 101 for `request`: the chosen subprotocol and the backend's own headers (already cleaned by the dial).
#[must_use]
pub fn switching_protocols(
    request: &UpgradeRequest,
    protocol: Option<&str>,
    headers: &HeaderMap,
) -> Response<Body> {
    todo!("{request:?} {protocol:?} {headers:?}")
}
