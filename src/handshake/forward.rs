//! The headers that cross the proxy, in both directions, for upgrades and plain HTTP alike.
//!
//! Refuses hop-by-hop headers, whatever `Connection` names, client-sent `Holdline-*`, and forwarding headers that no
//! trusted proxy vouches for; also their spellings with `_`, which CGI-like workers take for the same. Invariant: what
//! the client's `Connection` names is gone before our own headers are set, so a client cannot strip `X-Forwarded-For`.
//!
//! The backend gets the client's own `Host`, as behind HAProxy and Traefik: an origin check in the worker then works
//! as if no proxy were there. Only a `wss://` backend with a name gets its own, because its certificate and virtual
//! host go by that name; `X-Forwarded-Host` carries the client's either way.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use super::check::elements;
use super::client_address::ClientAddress;

/// The end-to-end headers of a request with our forwarding headers set, and without `Host`, which [`backend_host`]
/// decides.
#[must_use]
pub fn request_headers(parts: &Parts, client: &ClientAddress) -> HeaderMap {
    let mut headers = parts.headers.clone();
    strip_hop_by_hop(&mut headers);
    let forged = |name: &HeaderName| match guarded(name) {
        Guarded::Never => true,
        Guarded::Forwarding => !client.peer_trusted,
        Guarded::Not => false,
    };
    remove_where(&mut headers, forged);
    headers.remove(HOST);
    headers.remove(EXPECT);
    set_forwarding(&mut headers, client);
    headers
}

/// The same for an upgrade, as head lines and without the `Sec-WebSocket-*` that each dial makes anew.
///
/// Kept by a pipe for its reattaches: one allocation instead of a map.
#[must_use]
pub fn upgrade_head_lines(parts: &Parts, client: &ClientAddress) -> Box<[u8]> {
    let mut headers = request_headers(parts, client);
    strip_handshake(&mut headers);
    let mut lines = Vec::with_capacity(headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum());
    for (name, value) in &headers {
        write_line(&mut lines, name.as_str(), value.as_bytes());
    }
    lines.into()
}

/// The `Host` for a backend: the client's, unless the backend is `wss://` and `named` (not an address).
///
/// `backend` is the backend's own host, with its port if that is not the scheme's.
#[must_use]
pub fn backend_host<'a>(client: Option<&'a str>, backend: &'a str, tls_named: bool) -> &'a str {
    client.filter(|_| !tls_named).unwrap_or(backend)
}

/// Takes out of a backend's answer what must not reach the client: hop-by-hop headers, `Holdline-*`, and a length beside
/// a coding, which counts for nothing (RFC 9112 section 6.3).
pub fn clean_response(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    remove_where(headers, |name| name.as_str().starts_with("holdline-"));
}

/// The same for a backend's 101, whose handshake headers and framing are ours to make as well.
pub(super) fn clean_switching(headers: &mut HeaderMap) {
    clean_response(headers);
    strip_handshake(headers);
}

/// Appends one header line, its name in the case that old peers look for.
pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    match name.strip_prefix("sec-websocket-") {
        Some(rest) => {
            out.extend_from_slice(b"Sec-WebSocket-");
            write_title_case(out, rest);
        }
        None if name == "x-real-ip" => out.extend_from_slice(b"X-Real-IP"),
        None => write_title_case(out, name),
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_title_case(out: &mut Vec<u8>, name: &str) {
    let mut start = true;
    for byte in name.bytes() {
        out.push(if start { byte.to_ascii_uppercase() } else { byte });
        start = byte == b'-';
    }
}

/// RFC 9110 section 7.6.1, and what is spoken between neighbours only.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = elements(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
}

fn strip_handshake(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    remove_where(headers, |name| name.as_str().starts_with("sec-websocket-"));
}

fn remove_where(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let names: Vec<_> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

enum Guarded {
    /// Anybody may send it.
    Not,
    /// Only a trusted proxy may send it.
    Forwarding,
    /// Nobody may send it.
    Never,
}

fn guarded(name: &HeaderName) -> Guarded {
    let spelled = name.as_str();
    let plain = spelled.replace('_', "-");
    if plain.starts_with("holdline-") {
        return Guarded::Never;
    }
    let forwarding = plain.starts_with("x-forwarded-") || plain == "x-real-ip" || plain == "forwarded";
    match forwarding {
        true if spelled != plain => Guarded::Never,
        true => Guarded::Forwarding,
        false => Guarded::Not,
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

fn set_forwarding(headers: &mut HeaderMap, client: &ClientAddress) {
    let proto = if client.https { "https" } else { "http" };
    set(headers, X_FORWARDED_FOR, &client.forwarded_for());
    set(headers, X_REAL_IP, &client.address.to_string());
    set(headers, FORWARDED, &client.forwarded());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    match &client.host {
        Some(host) => set(headers, X_FORWARDED_HOST, host),
        None => drop(headers.remove(X_FORWARDED_HOST)),
    }
}

/// A value that is no header value takes the old one along: better none than a stranger's.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::handshake::client_address::TrustedProxies;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request =
            headers.iter().fold(Request::builder().uri("/ws"), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("the request is good").into_parts().0
    }

    /// What a client at 203.0.113.9 (a trusted proxy if `trusted`) sends, as a backend gets it.
    fn forwarded(headers: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut all = vec![("host", "app.example")];
        all.extend_from_slice(headers);
        let parts = parts(&all);
        let networks = if trusted { vec!["203.0.113.0/24".parse().expect("a network")] } else { Vec::new() };
        let client = TrustedProxies::new(networks).trace("203.0.113.9".parse().expect("an address"), &parts);
        request_headers(&parts, &client)
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is there twice");
        headers.get(name).map(|value| value.to_str().expect("text"))
    }

    #[test]
    fn end_to_end_headers_go_through_and_hop_by_hop_ones_do_not() {
        let kept = [
            ("cookie", "a=1"),
            ("authorization", "Bearer x"),
            ("origin", "https://app.example"),
            ("content-length", "5"),
            ("accept-encoding", "gzip"),
            ("x_custom", "1"),
        ];
        let gone = [
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("expect", "100-continue"),
            ("host", "app.example"),
        ];
        let headers = forwarded(&[&kept[..], &gone[..11]].concat(), false);
        for (name, sent) in kept {
            assert_eq!(value(&headers, name), Some(sent), "{name}");
        }
        for (name, _) in gone {
            assert_eq!(value(&headers, name), None, "{name}");
        }
    }

    #[test]
    fn ib_13_spoofed_forwarding_headers_are_replaced() {
        let headers = forwarded(
            &[
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-for", "5.6.7.8"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-port", "443"),
                ("x-real-ip", "1.2.3.4"),
                ("forwarded", "for=1.2.3.4"),
                ("x_forwarded_for", "1.2.3.4"),
                ("x-forwarded_for", "1.2.3.4"),
                ("x_real_ip", "1.2.3.4"),
            ],
            false,
        );
        assert_eq!(value(&headers, "x-forwarded-for"), Some("203.0.113.9"));
        assert_eq!(value(&headers, "x-real-ip"), Some("203.0.113.9"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("app.example"));
        assert_eq!(value(&headers, "forwarded"), Some("for=203.0.113.9;host=\"app.example\";proto=http"));
        for gone in ["x-forwarded-port", "x_forwarded_for", "x-forwarded_for", "x_real_ip"] {
            assert_eq!(value(&headers, gone), None, "{gone}");
        }
    }

    #[test]
    fn ib_13_a_trusted_proxys_headers_are_extended() {
        let sent = [
            ("x-forwarded-for", "9.9.9.9, 198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "public.example"),
            ("x-forwarded-port", "443"),
            ("x_forwarded_for", "1.2.3.4"),
        ];
        let headers = forwarded(&sent, true);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("198.51.100.7, 203.0.113.9"));
        assert_eq!(value(&headers, "x-real-ip"), Some("198.51.100.7"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("https"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("public.example"));
        assert_eq!(value(&headers, "x-forwarded-port"), Some("443"));
        assert_eq!(value(&headers, "x_forwarded_for"), None);
        let forwarded = "for=198.51.100.7;host=\"public.example\";proto=https, for=203.0.113.9";
        assert_eq!(value(&headers, "forwarded"), Some(forwarded));
    }

    #[test]
    fn a_connection_header_cannot_strip_what_we_set() {
        let headers =
            forwarded(&[("connection", "x-forwarded-for, X-Real-IP, forwarded, host, cookie"), ("cookie", "a")], false);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("203.0.113.9"));
        assert_eq!(value(&headers, "x-real-ip"), Some("203.0.113.9"));
        assert_eq!(value(&headers, "cookie"), None);
    }

    #[test]
    fn nobody_sends_holdline_headers_through_us() {
        for trusted in [false, true] {
            let headers =
                forwarded(&[("holdline-pipe", "x"), ("Holdline-Anything", "x"), ("holdline_pipe", "x")], trusted);
            assert!(headers.keys().all(|name| !name.as_str().starts_with("holdline")), "{headers:?}");
        }
        let mut answer = parts(&[
            ("holdline-resume", "new"),
            ("connection", "x-a"),
            ("x-a", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ])
        .headers;
        clean_response(&mut answer);
        assert_eq!(answer.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["set-cookie", "set-cookie"]);
    }

    #[test]
    fn an_upgrades_head_lines_keep_their_spelling_and_leave_the_handshake_out() {
        let parts = parts(&[
            ("host", "app.example"),
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("sec-websocket-protocol", "chat"),
            ("cookie", "a=1"),
            ("user-agent", "t"),
        ]);
        let client = TrustedProxies::default().trace("::ffff:192.0.2.1".parse().expect("an address"), &parts);
        let lines = upgrade_head_lines(&parts, &client);
        let lines = std::str::from_utf8(&lines).expect("text");
        let mut lines: Vec<_> = lines.split_terminator("\r\n").collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "Cookie: a=1",
                "Forwarded: for=192.0.2.1;host=\"app.example\";proto=http",
                "User-Agent: t",
                "X-Forwarded-For: 192.0.2.1",
                "X-Forwarded-Host: app.example",
                "X-Forwarded-Proto: http",
                "X-Real-IP: 192.0.2.1",
            ]
        );
    }

    #[test]
    fn a_backend_gets_the_clients_host_unless_its_certificate_names_it() {
        assert_eq!(backend_host(Some("app.example"), "10.0.0.1:9001", false), "app.example");
        assert_eq!(backend_host(Some("app.example"), "worker.example", true), "worker.example");
        assert_eq!(backend_host(None, "10.0.0.1:9001", false), "10.0.0.1:9001");
    }
}
