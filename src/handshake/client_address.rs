//! Who a request comes from, as far as trusted proxies say.
//!
//! Invariant: an address counts only if every hop between it and us is in `server.trusted_proxies`; what stands left of
//! it in the chain was written by a stranger and goes nowhere.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::request::Parts;
use ipnet::IpNet;

use super::check::{elements, host, host_name, is_host};
use crate::net::{Announced, Peer};

/// The networks whose forwarding headers are believed (`server.trusted_proxies`).
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// Who a request comes from, through which hops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientAddress {
    /// The client: the first address, walking back from our peer, that is not a trusted proxy. Limits count by it.
    pub address: IpAddr,
    /// The trusted hops between the client and us, client side first: the last one is our peer. Empty if the client is.
    pub hops: Vec<IpAddr>,
    /// Whether our peer is a trusted proxy, so that its other `X-Forwarded-*` may pass.
    pub peer_trusted: bool,
    /// Whether the client's own connection was TLS.
    pub https: bool,
    /// The host the client asked for, port included.
    pub host: Option<String>,
    /// The port that the client connected to, as far as a proxy or the socket says.
    pub port: u16,
    /// What logs call the request: a trusted proxy's word, or one of our own.
    pub request_id: String,
}

impl TrustedProxies {
    /// Believes the proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Walks the forwarding headers of a request back from `peer`; `X-Forwarded-For` if there is one, else `Forwarded`.
    #[must_use]
    pub fn trace(&self, peer: Peer, parts: &Parts) -> ClientAddress {
        let Peer { address: peer, secure } = peer;
        let peer = peer.to_canonical();
        let peer_trusted = self.trusts(peer);
        let asked = host(parts).map(str::to_owned);
        if !peer_trusted {
            let port = port_of(asked.as_deref(), secure);
            let (hops, request_id) = (Vec::new(), new_request_id());
            return ClientAddress { address: peer, hops, peer_trusted, https: secure, host: asked, port, request_id };
        }
        let said = Said::new(parts);
        let mut address = peer;
        let mut hops = Vec::new();
        for hop in said.chain.into_iter().rev() {
            let Some(hop) = hop.filter(|_| self.trusts(address)) else {
                break;
            };
            hops.push(address);
            address = hop;
        }
        hops.reverse();
        let (https, host) = (said.https, said.host.or(asked));
        let port = said.port.unwrap_or_else(|| port_of(host.as_deref(), https));
        let request_id = said.request_id.unwrap_or_else(new_request_id);
        ClientAddress { address, hops, peer_trusted, https, host, port, request_id }
    }

    /// Whether the proxy at this address is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl ClientAddress {
    /// What a worker may be told of it by the PROXY protocol.
    #[must_use]
    pub const fn announced(&self) -> Announced {
        Announced { address: self.address, port: self.port }
    }

    /// The client's address as text.
    #[must_use]
    pub fn address_text(&self) -> String {
        let IpAddr::V4(address) = self.address else { return self.address.to_string() };
        // Each handshake says it several times, and what formats it otherwise takes ten times as long.
        let (mut text, mut end) = ([b'.'; "255.255.255.255".len()], 0);
        for octet in address.octets() {
            for (least, place) in [(100, 100), (10, 10), (0, 1)] {
                if octet >= least {
                    text[end] = b'0' + octet / place % 10;
                    end += 1;
                }
            }
            // Behind each a dot, the last of which is left out.
            end += 1;
        }
        String::from_utf8_lossy(&text[..end - 1]).into_owned()
    }

    /// `X-Forwarded-For` for the backend: the client and the hops after it; `address` is the client's as text.
    pub(super) fn forwarded_for<'a>(&self, address: &'a str) -> Cow<'a, str> {
        let mut list = Cow::Borrowed(address);
        for hop in &self.hops {
            let _ = write!(list.to_mut(), ", {hop}"); // Writing to a String cannot fail.
        }
        list
    }

    /// `Forwarded` (RFC 7239) for the backend: the same chain, the client's element first.
    pub(super) fn forwarded(&self, address: &str) -> String {
        let mut list = String::with_capacity(128);
        push_node(&mut list, self.address, address);
        if let Some(host) = &self.host {
            list.extend([";host=\"", host, "\""]); // `is_host` lets no quote through.
        }
        list.push_str(if self.https { ";proto=https" } else { ";proto=http" });
        for &hop in &self.hops {
            list.push_str(", ");
            push_node(&mut list, hop, &hop.to_string());
        }
        list
    }
}

/// The port in a host, or the usual one.
fn port_of(host: Option<&str>, https: bool) -> u16 {
    let port = host.and_then(|host| host[host_name(host)?.len()..].strip_prefix(':')?.parse().ok());
    port.unwrap_or(if https { 443 } else { 80 })
}

/// 128 random bits, as 32 digits.
fn new_request_id() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = [0; 32];
    for (digits, byte) in id.chunks_exact_mut(2).zip(rand::random::<[u8; 16]>()) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xF)]]);
    }
    String::from_utf8_lossy(&id).into_owned()
}

/// The longest id of a request that is taken over, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether `text` may stand in headers and logs as it is.
fn is_request_id(text: &str) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=~@".contains(&byte))
}

/// RFC 7239 section 6: an IPv6 address is quoted and in brackets.
fn push_node(list: &mut String, address: IpAddr, text: &str) {
    match address {
        IpAddr::V4(_) => list.extend(["for=", text]),
        IpAddr::V6(_) => list.extend(["for=\"[", text, "]\""]),
    }
}

/// What a trusted peer says; where something comes twice, the nearest proxy's word counts, which is the last one.
struct Said {
    /// Client side first; `None` where an entry is no address.
    chain: Vec<Option<IpAddr>>,
    https: bool,
    host: Option<String>,
    port: Option<u16>,
    request_id: Option<String>,
}

impl Said {
    fn new(parts: &Parts) -> Self {
        let texts = |name: &'static str| {
            let lines = elements(&parts.headers, HeaderName::from_static(name));
            lines.map(|element| std::str::from_utf8(element).unwrap_or_default()).collect::<Vec<_>>()
        };
        let addresses = texts("x-forwarded-for");
        let standard = if addresses.is_empty() { forwarded_elements(parts) } else { Vec::new() };
        let last = |name: &str| standard.last().and_then(|element| parameter(element, name));
        let proto = texts("x-forwarded-proto").pop().map(str::to_owned).or_else(|| last("proto"));
        let host = texts("x-forwarded-host").pop().map(str::to_owned).or_else(|| last("host"));
        let chain = if standard.is_empty() {
            addresses.into_iter().map(parse_address).collect()
        } else {
            standard.iter().map(|element| parse_address(&parameter(element, "for")?)).collect()
        };
        Self {
            chain,
            https: proto.is_some_and(|proto| ["https", "wss"].iter().any(|known| proto.eq_ignore_ascii_case(known))),
            host: host.filter(|host| is_host(host)),
            port: texts("x-forwarded-port").pop().and_then(|port| port.parse().ok()).filter(|&port| port != 0),
            request_id: texts("x-request-id").pop().filter(|id| is_request_id(id)).map(str::to_owned),
        }
    }
}

fn forwarded_elements(parts: &Parts) -> Vec<String> {
    let lines = parts.headers.get_all(FORWARDED).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| split_unquoted(line, ',')).map(str::to_owned).collect()
}

/// The value of one parameter of a `Forwarded` element, unquoted; what needs escapes in its quotes is no address.
fn parameter(element: &str, wanted: &str) -> Option<String> {
    split_unquoted(element, ';').into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    let pieces = text.split(|c| {
        quoted ^= c == '"';
        c == separator && !quoted
    });
    pieces.map(str::trim).filter(|piece| !piece.is_empty()).collect()
}

/// An address, with or without a port, an IPv6 one with or without brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn trace(peer: &str, headers: &[(&str, &str)]) -> ClientAddress {
        let trusted =
            TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).to_vec());
        let request = headers
            .iter()
            .fold(Request::builder().header("host", "h.example"), |r, (name, value)| r.header(*name, *value));
        let parts = request.body(()).expect("the request is good").into_parts().0;
        trusted.trace(Peer::plain(peer.parse().expect("an address")), &parts)
    }

    #[test]
    fn an_address_reads_as_everywhere() {
        for address in ["0.0.0.0", "1.20.100.255", "9.10.99.200", "255.255.255.255", "10.0.0.1", "2001:db8::1"] {
            assert_eq!(trace(address, &[]).address_text(), address);
        }
    }

    #[test]
    fn ib_13_the_client_is_the_first_untrusted_address_from_the_right() {
        for (peer, chain, client, sent) in [
            ("192.0.2.1", "1.1.1.1", "192.0.2.1", "192.0.2.1"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1", "1.1.1.1, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, unknown", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "unknown, 10.0.0.2", "10.0.0.2", "10.0.0.2, 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1:5555", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("fd00::1", "[2001:db8::1]:443", "2001:db8::1", "2001:db8::1, fd00::1"),
            ("fd00::1", "2001:db8::1", "2001:db8::1", "2001:db8::1, fd00::1"),
            ("::ffff:10.0.0.1", "::ffff:1.1.1.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1", "10.0.0.1"),
        ] {
            let traced = trace(peer, &[("x-forwarded-for", chain)]);
            assert_eq!(traced.address.to_string(), client, "{peer} says {chain}");
            assert_eq!(traced.forwarded_for(&traced.address.to_string()), sent, "{peer} says {chain}");
        }
    }

    #[test]
    fn several_lines_are_one_chain() {
        let traced = trace("10.0.0.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1, 10.0.0.2")]);
        assert_eq!(traced.forwarded_for(&traced.address.to_string()), "1.1.1.1, 10.0.0.2, 10.0.0.1");
    }

    #[test]
    fn the_standard_header_counts_where_the_other_is_missing() {
        let forwarded = ("forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:443\";Proto=HTTPS;host=\"a.example:1\"");
        let traced = trace("10.0.0.1", &[forwarded]);
        assert_eq!(traced.address.to_string(), "2001:db8::1");
        assert!(traced.https);
        assert_eq!(traced.host.as_deref(), Some("a.example:1"));
        assert_eq!(
            traced.forwarded(&traced.address.to_string()),
            "for=\"[2001:db8::1]\";host=\"a.example:1\";proto=https, for=10.0.0.1"
        );
        assert_eq!(trace("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), forwarded]).address.to_string(), "1.1.1.1");
        assert_eq!(trace("192.0.2.1", &[forwarded]).address.to_string(), "192.0.2.1");
    }

    #[test]
    fn a_host_that_is_none_is_not_believed() {
        for bad in ["a\"b", "a b", "u@a", "a/b", ""] {
            assert_eq!(trace("10.0.0.1", &[("x-forwarded-host", bad)]).host.as_deref(), Some("h.example"), "{bad}");
        }
        assert_eq!(trace("10.0.0.1", &[("x-forwarded-host", "p.example")]).host.as_deref(), Some("p.example"));
        assert_eq!(trace("192.0.2.1", &[("x-forwarded-host", "p.example")]).host.as_deref(), Some("h.example"));
    }

    #[test]
    fn the_port_is_what_a_trusted_proxy_says_or_the_hosts_or_the_schemes() {
        for (peer, headers, port) in [
            ("10.0.0.1", &[("x-forwarded-port", "8443")] as &[_], 8443),
            ("10.0.0.1", &[("x-forwarded-port", "0")], 80),
            ("10.0.0.1", &[("x-forwarded-port", "x"), ("x-forwarded-proto", "https")], 443),
            ("10.0.0.1", &[("x-forwarded-host", "p.example:81"), ("x-forwarded-proto", "https")], 81),
            ("10.0.0.1", &[("x-forwarded-host", "[2001:db8::1]:82")], 82),
            ("192.0.2.1", &[("x-forwarded-port", "8443")], 80),
        ] {
            assert_eq!(trace(peer, headers).port, port, "{peer} {headers:?}");
        }
    }

    #[test]
    fn the_id_of_a_request_is_a_trusted_proxys_or_a_new_one() {
        for (peer, sent, kept) in [
            ("10.0.0.1", "4bf92f35-77b3.4da6:a/3", true),
            ("10.0.0.1", "two words", false),
            ("10.0.0.1", "\"quoted\"", false),
            ("192.0.2.1", "4bf92f35", false),
        ] {
            assert_eq!(trace(peer, &[("x-request-id", sent)]).request_id == sent, kept, "{peer} {sent}");
        }
        let long = "a".repeat(REQUEST_ID_BYTES_MAX + 1);
        assert_ne!(trace("10.0.0.1", &[("x-request-id", &long)]).request_id, long);
        assert_ne!(trace("192.0.2.1", &[]).request_id, trace("192.0.2.1", &[]).request_id);
    }
}
