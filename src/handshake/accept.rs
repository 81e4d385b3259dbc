//! Our own 101 to the client, sent only after the backend's.
//!
//! Refuses to negotiate anything that the backend did not: no extension and no subprotocol of our own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use sha1::{Digest, Sha1};

use super::deflate::Agreed;
use super::forward::{clean_switching, write_line};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2): 28 characters of base64.
#[must_use]
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// What a client is told that is let in, by whichever version of HTTP: the chosen subprotocol, the compression that was
/// agreed on, and what the backend's 101 has for it.
#[must_use]
pub fn agreed_headers(protocol: Option<&str>, compression: Option<Agreed>, backend: &HeaderMap) -> HeaderMap {
    let mut headers = backend.clone();
    clean_switching(&mut headers);
    if let Some(Ok(protocol)) = protocol.map(HeaderValue::from_str) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(agreed) = compression {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, agreed.header());
    }
    headers
}

/// The headers of the 101 for a client of HTTP/1.1 that sent this `key`: with them, what was `agreed`.
#[must_use]
pub fn switching_headers(key: &str, agreed: HeaderMap) -> HeaderMap {
    let mut headers = agreed;
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers
}

/// Room that most heads find enough.
const HEAD_BYTES: usize = 256;

/// The bytes of a 101 with these headers, their names in the case that clients on small devices compare them with.
#[must_use]
pub fn switching_head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in headers {
        write_line(&mut head, name.as_str(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn the_accept_key_is_the_rfcs() {
        assert_eq!(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn our_101_has_the_backends_headers_and_our_handshake() {
        let mut backend = HeaderMap::new();
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("sec-websocket-accept", "stale"),
            ("sec-websocket-extensions", "permessage-deflate"),
            ("holdline-resume", "new"),
            ("content-length", "0"),
            ("connection", "upgrade, x-hop"),
            ("x-hop", "1"),
        ] {
            backend.insert(name, HeaderValue::from_static(value));
        }
        let headers = switching_headers(KEY, agreed_headers(Some("chat"), None, &backend));
        let mut seen: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                "connection: Upgrade",
                "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "sec-websocket-protocol: chat",
                "set-cookie: a=1",
                "upgrade: websocket"
            ]
        );
    }

    #[test]
    fn a_101_is_spelled_as_clients_expect_it() {
        let headers = switching_headers(KEY, agreed_headers(Some("chat"), None, &HeaderMap::new()));
        let head = String::from_utf8(switching_head(&headers)).expect("text");
        let mut lines: Vec<_> = head.strip_suffix("\r\n\r\n").expect("an end").split("\r\n").collect();
        lines[1..].sort_unstable();
        assert_eq!(
            lines,
            [
                "HTTP/1.1 101 Switching Protocols",
                "Connection: Upgrade",
                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "Sec-WebSocket-Protocol: chat",
                "Upgrade: websocket",
            ]
        );
    }
}
