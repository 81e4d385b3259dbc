//! The headers that cross the proxy, in both directions, for upgrades and plain HTTP alike.
//!
//! Refuses hop-by-hop headers, whatever `Connection` names, client-sent `Holdline-*` but for the hops of another Holdline, and forwarding headers that no
//! trusted proxy vouches for; also their spellings with `_`, which CGI-like workers take for the same. Invariant: what
//! the client's `Connection` names is gone before our own headers are set, so a client cannot strip `X-Forwarded-For`.
//!
//! The backend gets the client's own `Host`, as behind HAProxy and Traefik, unless `routes.host` says otherwise: an origin check in the worker then works
//! as if no proxy were there. Only a `wss://` backend with a name gets its own, because its certificate and virtual
//! host go by that name; `X-Forwarded-Host` carries the client's either way.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Frame;

use super::check::elements;
use super::client_address::ClientAddress;
use crate::hops::{HOPS, own_id};
use crate::net::TlsIdentity;
use crate::routes::{HeaderRules, HostRule};

/// The end-to-end headers of a request with our forwarding headers set, and without `Host`, which [`backend_host`]
/// decides.
#[must_use]
pub fn request_headers(parts: &Parts, client: &ClientAddress) -> HeaderMap {
    let named = named_by_connection(&parts.headers);
    // The client's own host makes room for the one that is set later.
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + OURS.len() + 1);
    for (name, value) in &parts.headers {
        // Copied, because a value of the client's keeps the whole buffer that its head was read into.
        if goes_on(name, &named, client)
            && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
        {
            headers.append(name, value);
        }
    }
    if elements(&parts.headers, TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers")) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    for (name, value) in OURS.into_iter().zip(forwarding(client, &client.address_text())) {
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if let Some(certificate) = TlsIdentity::certificate(&parts.extensions)
        && let Ok(value) = HeaderValue::from_str(&certificate.header)
    {
        headers.remove(CLIENT_CERT_CHAIN);
        headers.insert(CLIENT_CERT, value);
    }
    headers.append(HOPS.clone(), HeaderValue::from_static(own_id()));
    headers
}

/// The same for an upgrade, as head lines and without the `Sec-WebSocket-*` that each dial makes anew.
///
/// Kept by a pipe for its reattaches: one allocation instead of a map.
#[must_use]
pub fn upgrade_head_lines(parts: &Parts, client: &ClientAddress) -> Box<[u8]> {
    let named = named_by_connection(&parts.headers);
    let certificate = TlsIdentity::certificate(&parts.extensions);
    let mut lines = Vec::with_capacity(HEAD_LINES_BYTES);
    for (name, value) in &parts.headers {
        let is_said_anew = certificate.is_some() && is_certificate(name.as_str());
        if goes_on(name, &named, client) && !is_of_handshake(name) && !is_said_anew {
            write_line(&mut lines, name.as_str(), value.as_bytes());
        }
    }
    for (name, value) in OURS.into_iter().zip(forwarding(client, &client.address_text())) {
        if let Some(value) = value.filter(|value| is_header_value(value)) {
            write_line(&mut lines, name, value.as_bytes());
        }
    }
    if let Some(certificate) = certificate {
        write_line(&mut lines, CLIENT_CERT, certificate.header.as_bytes());
    }
    lines.into()
}

/// A client's certificate, and those that lead from it to an authority (RFC 9440).
const CLIENT_CERT: &str = "client-cert";
const CLIENT_CERT_CHAIN: &str = "client-cert-chain";

fn is_certificate(name: &str) -> bool {
    name == CLIENT_CERT || name == CLIENT_CERT_CHAIN
}

/// Room that the lines of most clients find enough.
const HEAD_LINES_BYTES: usize = 1024;

/// Whether a header of a client's request goes on to the backend as it is.
fn goes_on(name: &HeaderName, named: &HashSet<HeaderName>, client: &ClientAddress) -> bool {
    let is_forged = || match guarded(name) {
        // What it says has been judged, and our own id comes to it with each dial.
        Guarded::Never => *name != HOPS,
        Guarded::Forwarding => !client.peer_trusted,
        Guarded::Not => false,
    };
    let is_ours_to_say = matches!(name.as_str(), "host" | "expect") || OURS.contains(&name.as_str());
    !is_ours_to_say && !is_hop_by_hop(name, named) && !is_forged()
}

/// The `Host` for a backend: by default the client's, unless the backend is `wss://` and `named` (not an address).
///
/// `backend` is the backend's own host, with its port if that is not the scheme's.
#[must_use]
pub fn backend_host<'a>(rule: &'a HostRule, client: Option<&'a str>, backend: &'a str, tls_named: bool) -> &'a str {
    match rule {
        HostRule::Client => client.filter(|_| !tls_named).unwrap_or(backend),
        HostRule::Backend => backend,
        HostRule::Literal(literal) => literal,
    }
}

/// The head lines of a client as its route wants them for workers.
#[must_use]
pub fn changed_lines(lines: Box<[u8]>, rules: &HeaderRules) -> Box<[u8]> {
    if rules.is_empty() {
        return lines;
    }
    let mut changed = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if !str::from_utf8(name).is_ok_and(|name| rules.takes_away(name)) {
            changed.extend_from_slice(line);
        }
    }
    for (name, value) in rules.brought() {
        write_line(&mut changed, name.as_str(), value.as_bytes());
    }
    changed.into()
}

/// Takes out of a backend's answer what must not reach the client: hop-by-hop headers, `Holdline-*`, and a length beside
/// a coding, which counts for nothing (RFC 9112 section 6.3).
///
/// A 426 keeps what it wants to be upgraded to (RFC 9110 section 15.5.22), and a 407 its challenge (15.5.8).
pub fn clean_response(status: StatusCode, headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let kept = match status {
        StatusCode::UPGRADE_REQUIRED => UPGRADE,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => PROXY_AUTHENTICATE,
        _ => return clean(headers, |_| false),
    };
    let values: Vec<_> = headers.get_all(&kept).iter().cloned().collect();
    clean(headers, |_| false);
    if kept == UPGRADE && !values.is_empty() {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    for value in values {
        headers.append(&kept, value);
    }
}

/// The head of a provisional answer of a backend (1xx) as the client gets it.
#[must_use]
pub fn provisional_head(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut headers = headers.clone();
    clean(&mut headers, |_| false);
    let mut head =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in &headers {
        write_line(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Takes out of trailers what must not stand there: what is spoken between neighbours, framing, and what only we say.
#[must_use]
pub fn clean_trailers<D>(frame: Frame<D>) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean(&mut trailers, |name| {
                *name == CONTENT_LENGTH || *name == HOST || !matches!(guarded(name), Guarded::Not)
            });
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The same for a backend's 101, whose handshake headers and framing are ours to make as well.
pub(super) fn clean_switching(headers: &mut HeaderMap) {
    clean(headers, is_of_handshake);
}

/// Removes what no client may see, and what `goes` besides.
fn clean(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let named = named_by_connection(headers);
    let gone =
        |name: &&HeaderName| is_hop_by_hop(name, &named) || matches!(guarded(name), Guarded::Never) || goes(name);
    let names: Vec<_> = headers.keys().filter(gone).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whether `text` may stand behind a header's name: what [`HeaderValue::from_str`] takes, without making one.
pub(super) fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != 0x7f || byte == b'\t')
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
    let from = out.len();
    out.extend_from_slice(name.as_bytes());
    let mut start = true;
    for byte in &mut out[from..] {
        if start {
            byte.make_ascii_uppercase();
        }
        start = *byte == b'-';
    }
}

/// The headers there are that `Connection` alone makes hop-by-hop: a set, since it may name thousands, and most name none.
fn named_by_connection(headers: &HeaderMap) -> HashSet<HeaderName> {
    let names = elements(headers, CONNECTION).filter_map(|token| HeaderName::from_bytes(token).ok());
    names.filter(|name| !is_between_neighbours(name) && headers.contains_key(name)).collect()
}

/// RFC 9110 section 7.6.1, what is spoken between neighbours only, and what `Connection` has `named`.
fn is_hop_by_hop(name: &HeaderName, named: &HashSet<HeaderName>) -> bool {
    is_between_neighbours(name) || named.contains(name)
}

fn is_between_neighbours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn is_of_handshake(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || name.as_str().starts_with("sec-websocket-")
}

enum Guarded {
    /// Every client may send it.
    Not,
    /// Only a trusted proxy may send it.
    Forwarding,
    /// No client may send it.
    Never,
}

fn guarded(name: &HeaderName) -> Guarded {
    let spelled = name.as_str();
    let plain = if spelled.contains('_') { Cow::Owned(spelled.replace('_', "-")) } else { Cow::Borrowed(spelled) };
    // What a worker of NATS agrees to by the second changes how frames are read, on the leg where it is said.
    if plain.starts_with("holdline-") || plain == "nats-no-masking" {
        return Guarded::Never;
    }
    let forwarding = plain.starts_with("x-forwarded-") || is_certificate(&plain) || OURS.contains(&plain.as_ref());
    match forwarding {
        true if spelled != plain => Guarded::Never,
        true => Guarded::Forwarding,
        false => Guarded::Not,
    }
}

/// The headers that are ours alone to say, in the order of [`forwarding`].
const OURS: [&str; 7] = [
    "x-forwarded-for",
    "x-real-ip",
    "forwarded",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-request-id",
];

/// What they say, `address` being the client's as text; one that is no header value is left out: better none than a
/// stranger's.
fn forwarding<'a>(client: &'a ClientAddress, address: &'a str) -> [Option<Cow<'a, str>>; OURS.len()] {
    let proto = if client.https { "https" } else { "http" };
    [
        Some(client.forwarded_for(address)),
        Some(address.into()),
        Some(client.forwarded(address).into()),
        Some(proto.into()),
        client.host.as_deref().map(Cow::Borrowed),
        Some(client.port.to_string().into()),
        Some(Cow::Borrowed(&client.request_id)),
    ]
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::handshake::client_address::TrustedProxies;
    use crate::net::Peer;
    use crate::routes::HeaderSpec;

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
        let client =
            TrustedProxies::new(networks).trace(Peer::plain("203.0.113.9".parse().expect("an address")), &parts);
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
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("expect", "100-continue"),
            ("host", "app.example"),
        ];
        let headers = forwarded(&[&kept[..], &gone[..10]].concat(), false);
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
                ("x-request-id", "mine"),
                ("x_request_id", "mine"),
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
        assert_eq!(value(&headers, "x-forwarded-port"), Some("80"));
        assert_eq!(value(&headers, "x-request-id").map(str::len), Some(32), "one of our own");
        for gone in ["x_forwarded_for", "x-forwarded_for", "x_real_ip", "x_request_id"] {
            assert_eq!(value(&headers, gone), None, "{gone}");
        }
    }

    #[test]
    fn ib_13_a_trusted_proxys_headers_are_extended() {
        let sent = [
            ("x-forwarded-for", "9.9.9.9, 198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "public.example"),
            ("x-forwarded-port", "8443"),
            ("x-request-id", "from-the-edge/1"),
            ("x_forwarded_for", "1.2.3.4"),
        ];
        let headers = forwarded(&sent, true);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("198.51.100.7, 203.0.113.9"));
        assert_eq!(value(&headers, "x-real-ip"), Some("198.51.100.7"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("https"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("public.example"));
        assert_eq!(value(&headers, "x-forwarded-port"), Some("8443"));
        assert_eq!(value(&headers, "x-request-id"), Some("from-the-edge/1"));
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
    fn no_holdline_header_is_sent_through_us() {
        let sent = [
            ("holdline-pipe", "x"),
            ("Holdline-Anything", "x"),
            ("holdline_pipe", "x"),
            ("Nats-No-Masking", "true"),
            ("holdline_hops", "x"),
        ];
        for trusted in [false, true] {
            let headers = forwarded(&sent, trusted);
            let gone = |name: &HeaderName| {
                *name == HOPS || !["holdline", "nats"].iter().any(|mine| name.as_str().starts_with(mine))
            };
            assert!(headers.keys().all(gone), "{headers:?}");
            assert_eq!(value(&headers, HOPS.as_str()), Some(own_id()), "what we say ourselves");
        }
        let mut answer = parts(&[
            ("holdline-resume", "new"),
            ("connection", "x-a"),
            ("x-a", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ])
        .headers;
        clean_response(StatusCode::OK, &mut answer);
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
        let client =
            TrustedProxies::default().trace(Peer::plain("::ffff:192.0.2.1".parse().expect("an address")), &parts);
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
                "X-Forwarded-Port: 80",
                "X-Forwarded-Proto: http",
                "X-Real-IP: 192.0.2.1",
                &format!("X-Request-Id: {}", client.request_id),
            ]
        );
    }

    #[test]
    fn a_backend_gets_the_clients_host_unless_its_certificate_names_it() {
        assert_eq!(backend_host(&HostRule::Client, Some("app.example"), "10.0.0.1:9001", false), "app.example");
        assert_eq!(backend_host(&HostRule::Client, Some("app.example"), "worker.example", true), "worker.example");
        assert_eq!(backend_host(&HostRule::Client, None, "10.0.0.1:9001", false), "10.0.0.1:9001");
        assert_eq!(backend_host(&HostRule::Backend, Some("app.example"), "10.0.0.1:9001", false), "10.0.0.1:9001");
        let literal = HostRule::Literal("site.example".into());
        assert_eq!(backend_host(&literal, Some("app.example"), "worker.example", true), "site.example");
    }

    #[test]
    fn head_lines_are_changed_as_a_map_is() {
        let spec = HeaderSpec {
            set: [("x-a".to_owned(), "2".to_owned())].into(),
            add: [("x-b".to_owned(), "2".to_owned())].into(),
            remove: vec!["x-c".into()],
        };
        let rules = HeaderRules::compile(&spec).expect("good rules");
        let lines: Box<[u8]> = (*b"X-A: 1\r\nX-B: 1\r\nX-C: 1\r\nX-C-D: 1\r\n").into();
        let changed = changed_lines(lines.clone(), &rules);
        assert_eq!(&*changed, b"X-B: 1\r\nX-C-D: 1\r\nX-A: 2\r\nX-B: 2\r\n");
        assert_eq!(changed_lines(lines.clone(), &HeaderRules::default()), lines);
    }
}
