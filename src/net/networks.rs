//! Where a backend may be: the guard against registrations that point our dials at foreign services.
//!
//! A registration names a host; what counts is the address that it has when it is dialled, so the check is done on the
//! resolved address at every dial and every probe, and only checked addresses are handed out (no second look-up for a
//! rebinding name to answer differently). Backends of the configuration file are trusted: who writes that file also
//! writes the list of networks. No backend may be where this process itself listens, one of the file neither.

use super::failure::{ConnectError, DialFailure};
use super::own::OwnListeners;
use super::parked::ParkedOf;
use super::sockets::{SocketDirectories, SocketFile};
use super::url::{BackendUrl, Host};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a name may take to resolve.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried at most.
pub const ADDRESSES_MAX: usize = 16;

/// Where a registered backend may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Networks {
    /// Where its address may be.
    networks: Vec<IpNet>,
    /// Where its socket file may be.
    pub sockets: SocketDirectories,
}

/// Where one backend is, ready to connect to.
#[derive(Debug)]
pub enum Addresses {
    /// To try in their order.
    Network(Vec<SocketAddr>),
    /// A socket file.
    Socket(SocketFile),
    /// Connections that the worker has parked with us.
    Parked(ParkedOf),
}

impl From<Vec<SocketAddr>> for Addresses {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self::Network(addresses)
    }
}

impl Networks {
    /// Exactly these networks, and no socket file.
    #[must_use]
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self { networks, sockets: SocketDirectories::new(Vec::new()) }
    }

    /// The same, with socket files in these directories.
    #[must_use]
    pub fn with_sockets(self, sockets: SocketDirectories) -> Self {
        Self { sockets, ..self }
    }

    /// Whether a backend may be at `address`; an IPv4 address in IPv6 clothes is judged as what it is.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Where `url` leads, in the resolver's order and never to one of our `own` listeners; `None` for `allowed` trusts every
/// other address.
///
/// # Errors
/// When nothing is left to dial.
pub async fn resolve(
    url: &BackendUrl,
    allowed: Option<&Networks>,
    own: &OwnListeners,
) -> Result<Addresses, ConnectError> {
    let found = match url.host() {
        Host::Socket(path) => {
            let file = SocketFile::find(path, allowed.map(|allowed| &allowed.sockets))?;
            if own.hear_at(file.path()) {
                return Err(ConnectError::with(DialFailure::OwnListener, path.display().to_string()));
            }
            return Ok(Addresses::Socket(file));
        }
        // What is parked has no address; the backends know the way there.
        Host::Parked(_) => return Err(ConnectError::new(DialFailure::Resolve)),
        Host::Address(address) => vec![SocketAddr::new(*address, url.port())],
        Host::Name(name) => look_up(name, url.port()).await?,
    };
    let first = found.first().ok_or(ConnectError::new(DialFailure::Resolve))?.ip();
    let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|&found| own.hear(found));
    let kept: Vec<_> =
        others.into_iter().filter(|found| allowed.is_none_or(|allowed| allowed.allow(found.ip()))).collect();
    match ours.first() {
        _ if !kept.is_empty() => Ok(Addresses::Network(kept)),
        Some(listener) => Err(ConnectError::with(DialFailure::OwnListener, listener.to_string())),
        None => Err(ConnectError::with(DialFailure::NotAllowed, first.to_string())),
    }
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, port))).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
        Ok(Err(_)) => Err(ConnectError::new(DialFailure::Resolve)),
        Err(_) => {
            let late = format!("the name did not resolve in {}s", RESOLVE_TIMEOUT.as_secs());
            Err(ConnectError::with(DialFailure::Timeout, late))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::own::OwnListener;
    use super::*;

    fn networks(networks: &[&str]) -> Networks {
        Networks::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_judged_as_ipv4() {
        let networks = networks(&["127.0.0.0/8", "fc00::/7"]);
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", false),
            ("fd00::1", true),
            ("::1", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(networks.allow(address.parse().unwrap()), allowed, "{address}");
        }
    }

    fn none() -> OwnListeners {
        OwnListeners::default()
    }

    #[tokio::test]
    async fn an_own_listener_is_never_handed_out_however_it_is_spelled() {
        let own = [OwnListener::at("0.0.0.0:9".parse().unwrap())].into_iter().collect();
        for text in ["ws://127.0.0.1:9", "ws://localhost:9", "ws://0.0.0.0:9", "ws://[::ffff:127.0.0.1]:9"] {
            let url: BackendUrl = text.parse().unwrap();
            match resolve(&url, None, &own).await {
                Err(error) => assert_eq!(error.kind, DialFailure::OwnListener, "{text}"),
                Ok(Addresses::Network(others)) => {
                    assert!(others.iter().all(SocketAddr::is_ipv6), "{text}: {others:?}");
                }
                Ok(other) => panic!("{text}: {other:?}"),
            }
        }
        let elsewhere: BackendUrl = "ws://127.0.0.1:10".parse().unwrap();
        assert!(resolve(&elsewhere, None, &own).await.is_ok());
    }

    #[tokio::test]
    async fn only_allowed_addresses_are_handed_out() {
        let literal: BackendUrl = "ws://127.0.0.1:9".parse().unwrap();
        let elsewhere = networks(&["10.0.0.0/8"]);
        let error = resolve(&literal, Some(&elsewhere), &none()).await.unwrap_err();
        assert_eq!(error.to_string(), "the address is outside of admin.backend_networks (127.0.0.1)");
        let home = networks(&["127.0.0.0/8"]);
        for allowed in [None, Some(&home)] {
            let found = resolve(&literal, allowed, &none()).await.unwrap();
            let Addresses::Network(found) = found else { panic!("no address") };
            assert_eq!(found, ["127.0.0.1:9".parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let name: BackendUrl = "ws://localhost:9".parse().unwrap();
        let elsewhere = networks(&["10.0.0.0/8"]);
        assert_eq!(resolve(&name, Some(&elsewhere), &none()).await.unwrap_err().kind, DialFailure::NotAllowed);
        let home = networks(&["127.0.0.0/8", "::1/128"]);
        assert!(resolve(&name, Some(&home), &none()).await.is_ok());
    }
}
