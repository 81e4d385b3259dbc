//! The strict checks of a client's request (SPEC section 6), before anything is dialled.
//!
//! A pure function of the request's head. Invariant: what comes out as [`Checked::Upgrade`] is a valid RFC 6455
//! section 4.2.1 handshake and carries no body; what comes out as [`Checked::Plain`] names one host at most.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::refusal::Refusal;
use crate::hops::{self, Astray};

/// What a request's head asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
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

/// Judges a request's head; nothing may be dialled for one that is refused.
///
/// `head_bytes_max` is checked here as well, because a server that reads in large pieces lets a longer head slip through.
#[must_use]
pub fn check(parts: &Parts, head_bytes_max: usize) -> Checked {
    let outcome = check_size(parts, head_bytes_max)
        .and_then(|()| check_host(parts))
        .and_then(|()| check_hops(parts))
        .and_then(|()| check_method(parts))
        .and_then(|()| check_target(parts))
        .and_then(|()| check_framing(parts))
        .and_then(|()| {
            if asks_for_websocket(&parts.headers) {
                check_upgrade(parts).map(Checked::Upgrade)
            } else {
                Ok(Checked::Plain)
            }
        });
    outcome.unwrap_or_else(Checked::Refused)
}

/// Judges the head of an extended CONNECT (RFC 8441): the subprotocols that it offers, if it is a WebSocket handshake.
///
/// # Errors
/// What is wrong with it.
pub fn check_connect(parts: &Parts, protocol: &str, head_bytes_max: usize) -> Result<Vec<String>, Refusal> {
    check_size(parts, head_bytes_max)?;
    check_host(parts)?;
    check_hops(parts)?;
    check_target(parts)?;
    if !protocol.eq_ignore_ascii_case("websocket") {
        let detail = "no :protocol but websocket is served here";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "protocol", detail));
    }
    if parts.headers.contains_key(CONTENT_LENGTH) {
        // Not even 0: what the client says on the stream would be more than that.
        let detail = "a WebSocket on a stream has no body: send no Content-Length";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "body", detail));
    }
    if !is_version_13(&parts.headers) {
        return Err(Refusal::version());
    }
    check_subprotocols(&parts.headers)
}

/// Whether a client wants to speak WebSocket. An offer of anything else, `h2c` or `TLS/1.2`, may be ignored (RFC 9110
/// section 7.8), and is.
#[must_use]
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    elements(headers, UPGRADE).any(|protocol| {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
        name.eq_ignore_ascii_case(b"websocket")
    })
}

/// What is answered to a [`Checked::Plain`] request on a WebSocket-only route: 426, or 405 for what is no GET.
#[must_use]
pub fn refuse_plain(parts: &Parts) -> Refusal {
    if matches!(parts.method, Method::GET | Method::HEAD) { Refusal::websocket_only() } else { Refusal::method() }
}

/// The host that the request is for, as sent, port included: the target's authority if it has one (RFC 9112 section
/// 3.2.2), else `Host`.
///
/// `None` only for an HTTP/1.0 request without one, once [`check`] has passed.
#[must_use]
pub fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::trim),
    }
}

/// Whether `text` is a host with an optional port, and nothing that could be read as two hosts.
pub(super) fn is_host(text: &str) -> bool {
    host_name(text).is_some()
}

/// The host of a `Host` header's value, without its port; an IPv6 address keeps its brackets.
///
/// By hand, because what parses as an authority may still be `[::1].elsewhere.example` or `user@host`.
pub(crate) fn host_name(text: &str) -> Option<&str> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (name, port) = text.split_at(end);
    let known = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    // An empty port is one (RFC 3986 section 3.2.3).
    let digits = port.strip_prefix(':').unwrap_or_default();
    let port_is_good =
        digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    let nothing_else = port.is_empty() || port.starts_with(':');
    (known && port_is_good && nothing_else).then_some(name)
}

/// The comma-separated elements of all lines of a header.
pub(super) fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

fn check_size(parts: &Parts, head_bytes_max: usize) -> Result<(), Refusal> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    let path = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let head = path + parts.headers.iter().map(line).sum::<usize>();
    if head <= head_bytes_max {
        return Ok(());
    }
    let detail = "the request's head is longer than server.header_bytes_max";
    Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-size", detail))
}

fn check_host(parts: &Parts) -> Result<(), Refusal> {
    let bad = |detail: &'static str| Refusal::new(StatusCode::BAD_REQUEST, "host", detail);
    match parts.headers.get_all(HOST).iter().count() {
        0 if parts.version < Version::HTTP_11 => return Ok(()),
        0 => return Err(bad("send a Host header")),
        1 => {}
        _ => return Err(bad("send one Host header, not several")),
    }
    let sent = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::trim);
    if sent.is_some_and(is_host) && host(parts).is_some_and(is_host) {
        Ok(())
    } else {
        Err(bad("the Host header must be one host, with a port if need be"))
    }
}

/// A request that has been here before would go round until descriptors run out.
fn check_hops(parts: &Parts) -> Result<(), Refusal> {
    hops::judge(&parts.headers).map_err(|astray| match astray {
        Astray::Loop => Refusal::looped(),
        Astray::TooMany => {
            Refusal::new(StatusCode::LOOP_DETECTED, "loop", "this request has been through too many proxies already")
        }
        Astray::Malformed => {
            Refusal::new(StatusCode::BAD_REQUEST, "hops", "Holdline-Hops is for Holdline alone to say")
        }
    })
}

fn check_method(parts: &Parts) -> Result<(), Refusal> {
    if asks_for_websocket(&parts.headers) && parts.method != Method::GET {
        return Err(Refusal::method());
    }
    // Neither a tunnel nor an echo of headers that only we and the backend should see.
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "CONNECT and TRACE are not served here")
            .allow("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    Ok(())
}

fn check_target(parts: &Parts) -> Result<(), Refusal> {
    let is_asterisk = parts.method == Method::OPTIONS && parts.uri.path() == "*";
    if parts.uri.path().starts_with('/') || is_asterisk {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::BAD_REQUEST, "target", "the request's target must be a path that starts with /"))
}

/// One coding that all servers read alike (RFC 9112 section 6.1). A length beside it never comes here: hyper drops it.
fn check_framing(parts: &Parts) -> Result<(), Refusal> {
    let mut codings = elements(&parts.headers, TRANSFER_ENCODING);
    let Some(first) = codings.next() else { return Ok(()) };
    let bad = |status, detail: &'static str| Err(Refusal::new(status, "body", detail));
    if !first.eq_ignore_ascii_case(b"chunked") {
        return bad(StatusCode::NOT_IMPLEMENTED, "no Transfer-Encoding but chunked is known here");
    }
    if codings.next().is_some() {
        return bad(StatusCode::BAD_REQUEST, "chunked is the one Transfer-Encoding that may be sent, and once");
    }
    Ok(())
}

fn check_upgrade(parts: &Parts) -> Result<UpgradeRequest, Refusal> {
    let headers = &parts.headers;
    let bad = |slug: &'static str, detail: &'static str| Err(Refusal::new(StatusCode::BAD_REQUEST, slug, detail));
    if parts.version != Version::HTTP_11 {
        return bad("http-version", "a WebSocket handshake needs HTTP/1.1");
    }
    let mut upgrades = elements(headers, UPGRADE);
    let websocket = upgrades.next().is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"));
    if !websocket || upgrades.next().is_some() {
        return bad("upgrade", "ask for one upgrade, Upgrade: websocket, and no other");
    }
    if !elements(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return bad("connection", "send Connection: Upgrade; a proxy in between may have removed it");
    }
    // Some clients say that they send nothing.
    let sends_body = headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    if sends_body || headers.contains_key(TRANSFER_ENCODING) {
        return bad("body", "a WebSocket handshake has no body: send no Content-Length and no Transfer-Encoding");
    }
    if !is_version_13(headers) {
        return Err(Refusal::version());
    }
    let Some(key) = websocket_key(headers) else {
        return bad("websocket-key", "send one Sec-WebSocket-Key: 16 random bytes in base64");
    };
    Ok(UpgradeRequest { key, protocols: check_subprotocols(headers)? })
}

fn check_subprotocols(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let detail = "Sec-WebSocket-Protocol must list up to 100 different tokens, separated by commas";
    subprotocols(headers).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "subprotocol", detail))
}

fn is_version_13(headers: &HeaderMap) -> bool {
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    let first = versions.next().is_some_and(|version| version.as_bytes().trim_ascii() == b"13");
    first && versions.next().is_none()
}

/// Sixteen bytes leave four bits over in base64, which careless clients fill at random and no server looks at.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

fn websocket_key(headers: &HeaderMap) -> Option<String> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next()?.to_str().ok()?.trim();
    let decoded = KEY_BASE64.decode(key).ok()?;
    (keys.next().is_none() && decoded.len() == 16).then(|| key.to_owned())
}

/// Subprotocols that a client may offer.
const SUBPROTOCOLS_MAX: usize = 100;

fn subprotocols(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut protocols: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for element in elements(headers, SEC_WEBSOCKET_PROTOCOL) {
        let name = std::str::from_utf8(element).ok().filter(|name| is_token(name))?;
        if known.len() == SUBPROTOCOLS_MAX || !known.insert(name) {
            return None;
        }
        protocols.push(name.to_owned());
    }
    Some(protocols)
}

/// RFC 9110 section 5.6.2.
pub fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::ALLOW;

    use super::*;

    const HEAD_BYTES_MAX: usize = 4096;
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// A good handshake, as header lines.
    fn good() -> Vec<(&'static str, String)> {
        [
            ("host", "app.example:8000"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    }

    /// The good handshake with one header replaced by `values`.
    fn with(name: &'static str, values: &[&str]) -> Vec<(&'static str, String)> {
        let mut headers = good();
        headers.retain(|(known, _)| *known != name);
        headers.extend(values.iter().map(|&value| (name, value.to_owned())));
        headers
    }

    fn parts(method: &str, version: Version, uri: &str, headers: &[(&'static str, String)]) -> Parts {
        let request = Request::builder().method(method).version(version).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        request.body(()).expect("the request is good").into_parts().0
    }

    fn judge(headers: &[(&'static str, String)]) -> Checked {
        check(&parts("GET", Version::HTTP_11, "/ws", headers), HEAD_BYTES_MAX)
    }

    fn status(checked: Checked) -> u16 {
        match checked {
            Checked::Upgrade(_) => 101,
            Checked::Plain => 200,
            Checked::Refused(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn a_proper_handshake_passes_with_its_key_and_protocols() {
        let mut headers = good();
        headers.push(("sec-websocket-protocol", "chat, superchat".into()));
        headers.push(("sec-websocket-protocol", "third".into()));
        headers.push(("sec-websocket-extensions", "permessage-deflate".into()));
        let protocols = ["chat", "superchat", "third"].map(str::to_owned).to_vec();
        assert_eq!(judge(&headers), Checked::Upgrade(UpgradeRequest { key: KEY.into(), protocols }));
    }

    #[test]
    fn each_header_that_makes_a_handshake_is_judged() {
        for (name, values, expected) in [
            ("upgrade", &["WebSocket"] as &[_], 101),
            ("upgrade", &["websocket,"], 101),
            ("upgrade", &["h2c"], 200),
            ("upgrade", &["TLS/1.2"], 200),
            ("upgrade", &["TLS/1.2, HTTP/2.0"], 200),
            ("upgrade", &["HTTP/2.0", "h2c"], 200),
            ("upgrade", &["websockets"], 200),
            ("upgrade", &["websocket, h2c"], 400),
            ("upgrade", &["h2c, websocket"], 400),
            ("upgrade", &["websocket", "h2c"], 400),
            ("upgrade", &["websocket", "websocket"], 400),
            ("upgrade", &["websocket/13"], 400),
            ("upgrade", &[""], 200),
            ("upgrade", &[], 200),
            ("connection", &["keep-alive, Upgrade"], 101),
            ("connection", &["keep-alive", "UPGRADE"], 101),
            ("connection", &["keep-alive"], 400),
            ("connection", &["close, upgraded"], 400),
            ("connection", &[], 400),
            ("sec-websocket-version", &[" 13 "], 101),
            ("sec-websocket-version", &["8"], 426),
            ("sec-websocket-version", &["14"], 426),
            ("sec-websocket-version", &["013"], 426),
            ("sec-websocket-version", &["13, 8"], 426),
            ("sec-websocket-version", &["13", "13"], 426),
            ("sec-websocket-version", &[], 426),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZR=="], 101),
            ("sec-websocket-key", &[], 400),
            ("sec-websocket-key", &[""], 400),
            ("sec-websocket-key", &["abc"], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ"], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25j"], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZSE="], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=!"], 400),
            ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ==, x"], 400),
            ("sec-websocket-key", &[KEY, KEY], 400),
        ] {
            assert_eq!(status(judge(&with(name, values))), expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn each_other_header_of_a_handshake_is_judged() {
        for (name, values, expected) in [
            ("content-length", &["5"] as &[_], 400),
            ("content-length", &["0"], 101),
            ("content-length", &["00"], 400),
            ("content-length", &["+0"], 400),
            ("content-length", &[""], 400),
            ("content-length", &["0, 0"], 400),
            ("content-length", &["0", "5"], 400),
            ("transfer-encoding", &["chunked"], 400),
            ("host", &[], 400),
            ("host", &[""], 400),
            ("host", &["a.example", "b.example"], 400),
            ("host", &["a.example", "a.example"], 400),
            ("host", &["a.example, b.example"], 400),
            ("host", &["a.example,b.example"], 400),
            ("host", &["user@a.example"], 400),
            ("host", &["a.example/x"], 400),
            ("host", &["[::1]:80"], 101),
            ("host", &["a_b-c.example.:"], 101),
            ("host", &["[::1].b.example"], 400),
            ("host", &["[::1]b.example"], 400),
            ("host", &["[b.example]"], 400),
            ("host", &["[::1"], 400),
            ("host", &["[]"], 400),
            ("host", &[":80"], 400),
            ("host", &["a.example:x"], 400),
            ("host", &["a.example:+8"], 400),
            ("host", &["a.example:65536"], 400),
            ("host", &["a.example:80:80"], 400),
            ("host", &["a%2eexample"], 400),
            ("host", &["a\\b.example"], 400),
            ("host", &["a.example;b"], 400),
            ("sec-websocket-protocol", &["a b"], 400),
            ("sec-websocket-protocol", &["a, a"], 400),
            ("sec-websocket-protocol", &["a", "a"], 400),
            ("sec-websocket-protocol", &["a@"], 400),
            ("sec-websocket-protocol", &[""], 101),
        ] {
            assert_eq!(status(judge(&with(name, values))), expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn a_hundred_subprotocols_may_be_offered() {
        for (count, expected) in [(SUBPROTOCOLS_MAX, 101), (SUBPROTOCOLS_MAX + 1, 400)] {
            let names: Vec<_> = (0..count).map(|n| format!("p{n}")).collect();
            assert_eq!(status(judge(&with("sec-websocket-protocol", &[&names.join(",")]))), expected, "{count}");
        }
    }

    #[test]
    fn method_and_version_are_judged() {
        let plain = with("upgrade", &[]);
        let h2c = with("upgrade", &["h2c"]);
        let no_host: Vec<_> = plain.iter().filter(|(name, _)| *name != "host").cloned().collect();
        for (method, version, headers, expected) in [
            ("POST", Version::HTTP_11, &good(), 405),
            ("HEAD", Version::HTTP_11, &good(), 405),
            ("GET", Version::HTTP_10, &good(), 400),
            ("POST", Version::HTTP_10, &good(), 405),
            ("POST", Version::HTTP_11, &plain, 200),
            ("POST", Version::HTTP_11, &h2c, 200),
            ("GET", Version::HTTP_10, &h2c, 200),
            ("GET", Version::HTTP_10, &plain, 200),
            ("GET", Version::HTTP_10, &no_host, 200),
            ("GET", Version::HTTP_11, &no_host, 400),
            ("TRACE", Version::HTTP_11, &plain, 405),
            ("CONNECT", Version::HTTP_11, &plain, 405),
        ] {
            let uri = if method == "CONNECT" { "a.example:80" } else { "/ws" };
            assert_eq!(
                status(check(&parts(method, version, uri, headers), HEAD_BYTES_MAX)),
                expected,
                "{method} {version:?}"
            );
        }
    }

    #[test]
    fn a_target_is_a_path() {
        let plain = with("upgrade", &[]);
        for (method, target, expected) in [
            ("GET", "/", 200),
            ("GET", "http://b.example", 200),
            ("GET", "ws", 400),
            ("GET", "*", 400),
            ("OPTIONS", "*", 200),
        ] {
            let parts = parts(method, Version::HTTP_11, target, &plain);
            assert_eq!(status(check(&parts, HEAD_BYTES_MAX)), expected, "{method} {target}");
        }
    }

    #[test]
    fn a_body_has_one_framing() {
        let plain = with("upgrade", &[]);
        for (codings, expected) in [
            (&["chunked"] as &[&str], 200),
            (&["Chunked"], 200),
            (&[], 200),
            (&["chunked", "chunked"], 400),
            (&["chunked, chunked"], 400),
            (&["chunked, gzip"], 400),
            (&["gzip, chunked"], 501),
            (&["gzip", "chunked"], 501),
            (&["identity"], 501),
        ] {
            let mut headers = plain.clone();
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", (*coding).to_owned())));
            let parts = parts("POST", Version::HTTP_11, "/", &headers);
            assert_eq!(status(check(&parts, HEAD_BYTES_MAX)), expected, "{codings:?}");
        }
    }

    #[test]
    fn the_length_of_a_head_is_bounded() {
        let mut headers = good();
        headers.push(("x", "a".repeat(1000)));
        let parts = parts("GET", Version::HTTP_11, "/ws", &headers);
        let bytes = 3 + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        for (max, expected) in [(bytes - 1, 431), (bytes, 101), (bytes + 1, 101)] {
            assert_eq!(status(check(&parts, max)), expected);
        }
    }

    #[test]
    fn a_refusal_carries_the_headers_of_its_status() {
        let Checked::Refused(version) = judge(&with("sec-websocket-version", &["8"])) else { panic!("not refused") };
        assert!(version.headers.iter().any(|(name, value)| name == SEC_WEBSOCKET_VERSION && value == "13"));
        assert!(version.headers.iter().any(|(name, value)| name == UPGRADE && value == "websocket"));
        let Checked::Refused(method) = check(&parts("POST", Version::HTTP_11, "/", &good()), HEAD_BYTES_MAX) else {
            panic!("not refused")
        };
        assert!(method.headers.iter().any(|(name, value)| name == ALLOW && value == "GET"));
    }

    #[test]
    fn iw_18_a_plain_request_on_a_websocket_only_route_is_426() {
        for (method, expected) in [("GET", 426), ("HEAD", 426), ("POST", 405), ("DELETE", 405)] {
            let refusal = refuse_plain(&parts(method, Version::HTTP_11, "/", &good()));
            assert_eq!(refusal.status.as_u16(), expected, "{method}");
        }
        let refusal = refuse_plain(&parts("GET", Version::HTTP_11, "/", &good()));
        assert!(refusal.headers.iter().any(|(name, value)| name == UPGRADE && value == "websocket"));
    }

    #[test]
    fn the_targets_authority_comes_before_the_host_header() {
        let absolute = parts("GET", Version::HTTP_11, "http://b.example:81/ws", &good());
        assert_eq!(host(&absolute), Some("b.example:81"));
        assert_eq!(host(&parts("GET", Version::HTTP_11, "/ws", &good())), Some("app.example:8000"));
    }

    #[test]
    fn an_extended_connect_needs_no_key_and_is_judged_as_a_handshake_otherwise() {
        let judged = |protocol: &str, headers: &[(&'static str, String)]| {
            let mut parts = parts("GET", Version::HTTP_2, "/ws", headers);
            parts.method = Method::CONNECT;
            check_connect(&parts, protocol, HEAD_BYTES_MAX).map_err(|refusal| refusal.status.as_u16())
        };
        let good: Vec<_> =
            good().into_iter().filter(|(name, _)| matches!(*name, "host" | "sec-websocket-version")).collect();
        assert_eq!(judged("websocket", &good), Ok(Vec::new()));
        assert_eq!(judged("WebSocket", &good), Ok(Vec::new()));
        assert_eq!(judged("connect-udp", &good), Err(501));
        assert_eq!(judged("websocket", &good[..1]), Err(426));
        assert_eq!(judged("websocket", &good[1..]), Err(400));
        let offers = |value: &str| [&good[..], &[("sec-websocket-protocol", value.to_owned())]].concat();
        assert_eq!(judged("websocket", &offers("a, b")), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(judged("websocket", &offers("a, a")), Err(400));
    }
}
