//! Where this process itself listens: addresses that must never be dialled as a worker's.
//!
//! A backend that leads to a public listener would have one request take every descriptor, each round one more; one that
//! leads to the admin listener would publish its API. Invariant: what is asked about is an address that is about to be
//! connected to, after its name was resolved, and a listener on a wildcard address counts for every address of this
//! machine. A socket file is known by its place on the disk and not by its name. A loop through another proxy is not seen here but in [`hops`](crate::hops).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use socket2::SockRef;

/// One listener of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OwnListener {
    /// At an address.
    Address {
        /// Where.
        address: SocketAddr,
        /// Whether it is an IPv6 socket that hears IPv4 as well.
        is_dual: bool,
    },
    /// A socket file.
    File(PathBuf),
}

impl OwnListener {
    /// A listener at `address` that hears nothing but its own family.
    #[must_use]
    pub const fn at(address: SocketAddr) -> Self {
        Self::Address { address, is_dual: false }
    }

    /// What `listener` is bound to; nothing for a socket file.
    #[must_use]
    pub fn of(listener: &impl AsFd) -> Option<Self> {
        let socket = SockRef::from(listener);
        let address = socket.local_addr().ok()?.as_socket()?;
        let is_dual = address.is_ipv6() && !socket.only_v6().unwrap_or(true);
        Some(Self::Address { address, is_dual })
    }

    fn hears(&self, to: IpAddr, port: u16) -> bool {
        let Self::Address { address, is_dual } = self else { return false };
        let at = address.ip().to_canonical();
        if address.port() != port || !at.is_unspecified() {
            return address.port() == port && at == to;
        }
        let speaks_its_family = at.is_ipv4() == to.is_ipv4() || *is_dual && to.is_ipv4();
        speaks_its_family && is_of_this_machine(to)
    }

    fn is_file(&self, other: &Path) -> bool {
        let Self::File(own) = self else { return false };
        let place = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        own == other || place(own).is_some_and(|own| place(other) == Some(own))
    }
}

/// The listeners of this process.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct OwnListeners(Vec<OwnListener>);

impl OwnListeners {
    /// Whether a connection to `to` would reach one of them.
    #[must_use]
    pub fn hear(&self, to: SocketAddr) -> bool {
        let address = destination(to.ip());
        self.0.iter().any(|own| own.hears(address, to.port()))
    }

    /// Whether a connection to the socket file at `path` would reach one of them.
    #[must_use]
    pub fn hear_at(&self, path: &Path) -> bool {
        self.0.iter().any(|own| own.is_file(path))
    }
}

impl FromIterator<OwnListener> for OwnListeners {
    fn from_iter<I: IntoIterator<Item = OwnListener>>(listeners: I) -> Self {
        Self(listeners.into_iter().collect())
    }
}

/// Where a connection to `address` goes: Linux takes the wildcard address for the loopback one.
fn destination(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Whether `address` belongs to this machine: the kernel speaks to an address of its own from that same address. Choosing
/// the way of a datagram socket sends nothing.
fn is_of_this_machine(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    // An address to which there is no way cannot be dialled either.
    source.is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn own(addresses: &[&str]) -> OwnListeners {
        addresses.iter().map(|address| OwnListener::at(address.parse().unwrap())).collect()
    }

    #[test]
    fn a_listener_is_known_by_every_spelling_of_its_address_and_by_its_port() {
        let own = own(&["127.0.0.1:8000", "[::1]:9000"]);
        for (address, hears) in [
            ("127.0.0.1:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("0.0.0.0:8000", true),
            ("127.0.0.1:8001", false),
            ("127.0.0.2:8000", false),
            ("[::1]:8000", false),
            ("[::1]:9000", true),
            ("[::]:9000", true),
            ("127.0.0.1:9000", false),
        ] {
            assert_eq!(own.hear(address.parse().unwrap()), hears, "{address}");
        }
    }

    #[test]
    fn a_wildcard_counts_for_every_address_of_this_machine_and_for_no_other() {
        let own = own(&["0.0.0.0:8000"]);
        for (address, hears) in [
            ("127.0.0.1:8000", true),
            ("127.1.2.3:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("[::1]:8000", false),
            ("192.0.2.1:8000", false),
            ("127.0.0.1:8001", false),
        ] {
            assert_eq!(own.hear(address.parse().unwrap()), hears, "{address}");
        }
        // The address that this machine would speak from is one of its own.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let address = SocketAddr::new(socket.local_addr().unwrap().ip(), 8000);
            assert!(own.hear(address), "{address}");
        }
    }

    #[test]
    fn a_socket_file_of_ours_is_known_by_every_name_that_leads_to_it() {
        let home = tempfile::tempdir().unwrap();
        let (ours, link, other) = (home.path().join("ours"), home.path().join("link"), home.path().join("other"));
        let _listening = [&ours, &other].map(|path| std::os::unix::net::UnixListener::bind(path).unwrap());
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        let own: OwnListeners = [OwnListener::File(ours.clone())].into_iter().collect();
        for (path, hears) in [(&ours, true), (&link, true), (&other, false), (&home.path().join("gone"), false)] {
            assert_eq!(own.hear_at(path), hears, "{path:?}");
        }
    }

    #[test]
    fn a_bound_listener_says_where_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let own: OwnListeners = OwnListener::of(&listener).into_iter().collect();
        assert!(own.hear(address));
        assert!(!own.hear(SocketAddr::new(address.ip(), address.port() ^ 1)));
        let dual = OwnListener::Address { address: "[::]:8000".parse().unwrap(), is_dual: true };
        assert!(OwnListeners(vec![dual]).hear("127.0.0.1:8000".parse().unwrap()));
    }
}
