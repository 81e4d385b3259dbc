//! The other end of an accepted connection, as far as the connection itself tells.

use std::net::{IpAddr, Ipv4Addr};

/// Who is at the other end of a connection. What proxies in between say of the client behind it is another matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether what it says is encrypted up to here.
    pub secure: bool,
}

impl Peer {
    /// The peer of a connection on a socket file: it counts as this machine.
    pub const LOCAL: Self = Self::plain(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The peer of a connection from `address` that is not encrypted.
    #[must_use]
    pub const fn plain(address: IpAddr) -> Self {
        Self { address, secure: false }
    }
}
