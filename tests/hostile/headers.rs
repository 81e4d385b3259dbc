//! Headers that try to be something else: hop-by-hop, forwarding, injected, and origins.

use crate::rig::{Backend, Proxy, Raw, handshake};

#[test]
fn what_connection_names_goes_and_our_own_headers_stay() {
    let mut proxy = Proxy::start();
    let backend = Backend::echo();
    proxy.register(backend.address);
    let more = "X-Hop: hop\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
                Holdline-Attach: 99\r\nHoldline-Pipe: forged\r\nholdline_attach: 98\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic eA==\r\n\
                TE: trailers\r\nX-Stays: yes\r\n";
    let request = handshake("/ws/x", more).replace(
        "Connection: Upgrade",
        "Connection: Upgrade, X-Hop, X-Forwarded-For, Holdline-Attach, Sec-WebSocket-Key, Host",
    );
    let mut client = Raw::to(proxy.public);
    client.send(request);
    assert_eq!(client.head().0, 101);
    let head = backend.heads().remove(0).to_ascii_lowercase();
    for forged in ["6.6.6.6", "x-hop", "forged", "99", "98", "keep-alive", "proxy-authorization", "trailers"] {
        assert!(!head.contains(forged), "{forged} in {head}");
    }
    for line in
        ["x-forwarded-for: 127.0.0.1\r\n", "holdline-attach: 1\r\n", "x-stays: yes\r\n", "\r\nhost: app.example\r\n"]
    {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    assert_eq!(head.matches("sec-websocket-key: ").count(), 1, "{head}");
    proxy.assert_sound();
}

#[test]
fn nothing_a_peer_writes_makes_a_log_line_or_shows_a_secret() {
    let mut proxy = Proxy::start();
    let backend =
        Backend::answering("HTTP/1.1 403 \x1b[2Jcleared\r\nX-Reply: topsecret\r\nContent-Length: 9\r\n\r\ntopsecret");
    proxy.register(backend.address);
    for (path, more) in [
        (
            "/ws/x?token=topsecret&%0a%0d{\"level\":\"ERROR\"}",
            "Cookie: topsecret\r\nAuthorization: Bearer topsecret\r\n",
        ),
        ("/ws/%1b%5b2J%0aERROR", "User-Agent: \u{9b}2J\x7f\r\n"),
        ("/ws/x", "Origin: http://evil.example/\"\\\r\nX-Request-Id: \"},{\"level\":\"ERROR\"\r\n"),
        ("/ws/x", "Sec-WebSocket-Protocol: a\", b\r\n"),
    ] {
        let mut client = Raw::to(proxy.public);
        client.send(handshake(path, more));
        client.head();
    }
    for line in proxy.log() {
        let entry: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("not one record: {line:?}"));
        assert_ne!(entry["level"], "ERROR", "{line}");
        assert!(!line.contains("topsecret") && !line.chars().any(char::is_control), "{line:?}");
    }
    proxy.assert_sound();
}

#[test]
fn an_origin_is_compared_whole() {
    let route = "[[routes]]\nname = \"app\"\npath = \"/{*path}\"\norigins = [\"https://app.example\", \"http://127.0.0.1:3000\"]";
    let mut proxy = Proxy::with(route);
    let backend = Backend::echo();
    proxy.register(backend.address);
    for (origin, expected) in [
        ("https://app.example", 101),
        ("http://127.0.0.1:3000", 101),
        ("https://app.example.evil.example", 403),
        ("https://evil-app.example", 403),
        ("https://sub.app.example", 403),
        ("https://app.example@evil.example", 403),
        ("https://evil.example/https://app.example", 403),
        ("https://app.example:8443", 403),
        ("http://app.example", 403),
        ("https://app.example.", 403),
        ("https://app.example/", 403),
        ("https://app.example evil", 403),
        ("https://app.example, https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1", 403),
        ("http://2130706433:3000", 403),
    ] {
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", &format!("Origin: {origin}\r\n")));
        assert_eq!(client.head().0, expected, "{origin}");
    }
    let mut client = Raw::to(proxy.public);
    client.send(handshake("/ws/x", "Origin: https://app.example\r\nOrigin: https://evil.example\r\n"));
    assert_eq!(client.head().0, 403, "two origins");
    assert_eq!(backend.heads().len(), 2);
    proxy.assert_sound();
}
