//! The admin API against web pages, rebound names, and registrations that point somewhere else.

use crate::rig::{Backend, Proxy, Raw, handshake};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Registers a backend, if it gets through.
const BODY: &str = r#"{"url":"ws://127.0.0.1:1"}"#;

#[test]
fn a_page_of_another_origin_or_under_a_rebound_name_changes_nothing() {
    let mut proxy = Proxy::start();
    let own = proxy.admin.to_string();
    let evil: [&[(&str, &str)]; 15] = [
        &[JSON, ("Host", "evil.example")],
        &[JSON, ("Host", "127.0.0.1.evil.example")],
        &[JSON, ("Host", "localhost.evil.example:9000")],
        &[JSON, ("Host", "localhost@evil.example")],
        &[JSON, ("Host", "0.0.0.0")],
        &[JSON, ("Host", "")],
        &[JSON, ("Origin", "https://evil.example")],
        &[JSON, ("Origin", "null")],
        &[JSON, ("Origin", "http://127.0.0.1:1")],
        &[JSON, ("Origin", "http://localhost.evil.example")],
        &[JSON, ("Sec-Fetch-Site", "cross-site")],
        &[JSON, ("Sec-Fetch-Site", "same-site")],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "text/plain; application/json")],
    ];
    for headers in evil {
        for (method, path) in [("POST", "/v1/backends"), ("PUT", "/v1/backends/evil")] {
            let (status, answer) = proxy.admin(method, path, headers, BODY);
            assert!(matches!(status, 400 | 403 | 415), "{headers:?}: {answer}");
            assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
        }
    }
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        let (status, answer) = proxy.admin("GET", "/v1/backends", &[("Host", host)], "");
        assert_eq!(status, 403, "a rebound name reads nothing: {answer}");
    }
    let preflight = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "PUT")];
    let (_, answer) = proxy.admin("OPTIONS", "/v1/backends", &preflight, "");
    assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
    let mut smuggler = Raw::to(proxy.admin);
    smuggler.send(format!(
        "POST http://evil.example/v1/backends HTTP/1.1\r\nHost: {own}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    ));
    assert_eq!(smuggler.head().0, 403, "a target of another host");
    assert!(proxy.admin("GET", "/v1/backends", &[], "").1.contains("\"items\":[]"));
    let origin = format!("http://{own}");
    assert_eq!(proxy.admin("POST", "/v1/backends", &[JSON, ("Origin", &origin)], BODY).0, 201, "its own page may");
    proxy.assert_sound();
}

#[test]
fn a_backend_in_a_forbidden_place_is_not_registered() {
    let mut proxy = Proxy::start();
    for url in [
        "ws://8.8.8.8",
        "ws://169.254.169.254/latest/meta-data",
        "ws://[::ffff:169.254.169.254]",
        "ws://[::ffff:8.8.8.8]:80",
        "ws://[64:ff9b::169.254.169.254]",
        "ws://0.0.0.0:80",
        "ws://[::]:80",
        "ws://224.0.0.1:80",
        "ws://255.255.255.255:80",
        "ws://[fe80::1]:80",
        "ws://134744072",
        "ws://0x8.0x8.0x8.0x8",
        "ws://127.0.0.1@8.8.8.8",
        "ws://user:secret@127.0.0.1",
        "ws://127.0.0.1:80#8.8.8.8",
        "ws://127.0.0.1\\@8.8.8.8",
        "ws://127.0.0.1\r\nX: y",
        "file:///etc/passwd",
        "http://127.0.0.1:0",
        "ws://",
        "ws://127.0.0.1:99999",
        "gopher://127.0.0.1",
    ] {
        let body = serde_json::json!({ "url": url }).to_string();
        let (status, answer) = proxy.admin("POST", "/v1/backends", &[JSON], &body);
        assert!(matches!(status, 400 | 403 | 422), "{url}: {answer}");
    }
    assert!(proxy.admin("GET", "/v1/backends", &[], "").1.contains("\"items\":[]"));
    proxy.assert_sound();
}

#[test]
fn a_name_that_leads_to_a_forbidden_place_is_never_dialled() {
    let backend = Backend::echo();
    let mut proxy = Proxy::guarded("backend_networks = [\"10.0.0.0/8\"]");
    let body = format!("{{\"url\":\"ws://localhost:{}\"}}", backend.address.port());
    let (status, answer) = proxy.admin("POST", "/v1/backends", &[JSON], &body);
    assert!(matches!(status, 201 | 400 | 403 | 422), "{answer}");
    let mut client = Raw::to(proxy.public);
    client.send(handshake("/ws/x", ""));
    let status = client.head().0;
    assert!(matches!(status, 502..=504), "{status}");
    assert_eq!(backend.accepted(), 0, "neither a dial nor a probe");
    proxy.assert_sound();
}
