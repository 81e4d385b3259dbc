//! The headers that cross the proxy, in both directions, for upgrades and plain HTTP alike.
//!
//! Refuses hop-by-hop headers, whatever `Connection` names, client-sent `Holdline-*` and forwarding headers that no
//! trusted proxy vouches for. Invariant: what the client's `Connection` names is gone before our own headers are set,
//! so a client cannot strip `X-Forwarded-For`.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use ipnet::IpNet;

/// The networks whose forwarding headers are believed (`server.trusted_proxies`).
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// Who a request comes from, through which hops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    /// The client: the first address, walking back from our peer, that is not a trusted proxy. Limits count by it.
    pub address: IpAddr,
    /// The trusted hops between the client and us, client side first; the last one is our peer.
    pub hops: Vec<IpAddr>,
    /// Whether the client's own connection was TLS.
    pub https: bool,
    /// The host the client asked for, port included.
    pub host: Option<String>,
}

impl TrustedProxies {
    /// Believes the proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Walks the forwarding headers of `parts` back from `peer`.
    ///
    /// A peer on a Unix socket counts as `127.0.0.1`: pass that.
    #[must_use]
    pub fn trace(&self, peer: IpAddr, parts: &Parts) -> ClientAddress {
        todo!("{peer} {parts:?}")
    }
}

/// The end-to-end headers of a request, with our forwarding headers set; without `Host` and framing headers' owners.
#[must_use]
pub fn request_headers(parts: &Parts, client: &ClientAddress) -> HeaderMap {
    todo!("{parts:?} {client:?}")
}

/// The same for an upgrade, without the `Sec-WebSocket-*` that each dial makes anew, written out as head lines.
///
/// Kept by a pipe for its reattaches: one allocation instead of a map.
#[must_use]
pub fn upgrade_head_lines(parts: &Parts, client: &ClientAddress) -> Bytes {
    todo!("{parts:?} {client:?}")
}

/// Takes out of a backend's answer what must not reach the client: hop-by-hop headers and `Holdline-*`.
pub fn clean_response(headers: &mut HeaderMap) {
    todo!("{headers:?}")
}
