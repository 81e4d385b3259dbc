//! The admin API against web pages, rebound names, and registrations that point somewhere else.

use crate::rig::{Backend, Proxy, Raw, handshake, until};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Registers a backend, if it gets through.
const BODY: &str = r#"{"url":"ws://127.0.0.1:1"}"#;

#[test]
fn a_page_of_another_origin_or_under_a_rebound_name_changes_nothing() {
    let mut proxy = Proxy::start();
    let own = proxy.admin.to_string();
    let evil: [&[(&str, &str)]; 22] = [
        &[JSON, ("Host", "localhost."), ("Origin", "http://evil.example")],
        &[JSON, ("Host", "[::1].evil.example")],
        &[JSON, ("Host", "[::1]@evil.example")],
        &[JSON, ("Host", "127.0.0.1, evil.example")],
        &[JSON, ("Host", "localhost"), ("Host", "evil.example")],
        &[JSON, ("Host", &own), ("Origin", "http://localhost@evil.example")],
        &[JSON, ("X-Forwarded-Host", "localhost"), ("Host", "evil.example")],
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
        for path in ["/v1/backends", "/v1/pipes", "/v1/pools", "/v1/events", "/v1/config", "/v1/stats", "/v1/log"] {
            let (status, answer) = proxy.admin("GET", path, &[("Host", host)], "");
            assert_eq!(status, 403, "a rebound name reads nothing of {path}: {answer}");
        }
    }
    for disguise in ["/v1/backends?_method=POST", "/v1/drain?method=PUT"] {
        let (_, answer) = proxy.admin("GET", disguise, &[("X-HTTP-Method-Override", "PUT")], "");
        assert!(!answer.starts_with("HTTP/1.1 2") || answer.contains("\"items\":[]"), "{answer}");
    }
    assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200);
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
        "ws://100.64.0.1",
        "ws://192.0.0.8",
        "ws://[2002:808:808::1]",
        "ws://[::8.8.8.8]",
        "ws://0177.0.0.1",
        "ws://017700000001",
        "ws://127.0.0.1%2f@8.8.8.8",
        "ws://\u{ff11}27.0.0.1",
        "ws://127\u{3002}0.0.1",
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
        for (method, path) in [("POST", "/v1/backends"), ("PUT", "/v1/backends/w")] {
            let (status, answer) = proxy.admin(method, path, &[JSON], &body);
            assert!(matches!(status, 400 | 403 | 422), "{url}: {answer}");
        }
    }
    assert!(proxy.admin("GET", "/v1/backends", &[], "").1.contains("\"items\":[]"));
    proxy.assert_sound();
}

#[test]
fn a_name_that_leads_to_a_forbidden_place_is_never_dialled_nor_probed() {
    for health in ["tcp", "http", "ws"] {
        let backend = Backend::echo();
        let mut proxy = Proxy::guarded(&format!(
            "backend_networks = [\"10.0.0.0/8\"]\n[[pools]]\nname = \"default\"\nhealth.kind = \"{health}\"\nhealth.interval = \"10ms\"\n[[routes]]\nwait = 0"
        ));
        let body = format!("{{\"url\":\"ws://localhost:{}\"}}", backend.address.port());
        let (status, answer) = proxy.admin("POST", "/v1/backends", &[JSON], &body);
        assert_eq!(status, 201, "what a name resolves to is judged when it is dialled: {answer}");
        // A probe must have been tried and refused before this shows anything.
        until("a probe's verdict", || {
            proxy.admin("GET", "/v1/backends", &[], "").1.contains("outside of admin.backend_networks")
        });
        for request in [handshake("/ws/x", ""), "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()] {
            let mut client = Raw::to(proxy.public);
            client.send(request);
            let status = client.head().0;
            assert!(matches!(status, 502..=504), "{status}");
        }
        assert_eq!(backend.accepted(), 0, "neither a dial nor a probe");
        proxy.assert_sound();
    }
}

#[test]
fn a_registration_cannot_write_into_a_request_the_log_or_the_metrics() {
    let mut proxy =
        Proxy::with("[[routes]]\nname = \"ws\"\npath = \"/ws/{key}\"\nkey = \"{key}\"\nbackend_path = \"/at/{alias}\"");
    let backend = Backend::echo();
    let alias = "a b\r\nHoldline-Forged: 1\r\n/../x?y#z%";
    let body = serde_json::json!({
        "url": format!("ws://{}", backend.address),
        "serves": { "x": alias },
        "labels": { "note\"\n": "holdline_forged 1\nERROR" },
    });
    let (status, answer) = proxy.admin("PUT", "/v1/backends/w", &[JSON], &body.to_string());
    if status == 201 {
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", ""));
        client.head();
    } else {
        assert_eq!(status, 422, "{answer}");
    }
    for head in backend.heads() {
        assert!(!head.to_ascii_lowercase().contains("\nholdline-forged"), "{head}");
        assert_eq!(head.lines().next().unwrap().split(' ').count(), 3, "{head}");
    }
    assert!(!proxy.metrics().contains("\nholdline_forged"));
    for id in ["a%0ab", "a%22b", "a%20b", "%00", &"a".repeat(65), "..%2f..", "a%7d%0aholdline_forged%201"] {
        let (status, answer) = proxy.admin("PUT", &format!("/v1/backends/{id}"), &[JSON], BODY);
        assert!(matches!(status, 400 | 404 | 422), "{id}: {answer}");
    }
    proxy.assert_sound();
}

#[test]
fn a_caller_that_says_too_much_is_refused_and_costs_nothing() {
    let mut proxy = Proxy::start();
    let before = proxy.rss_bytes();
    let huge = format!("{{\"url\":\"ws://127.0.0.1:1\",\"labels\":{{\"a\":\"{}\"}}}}", "x".repeat(20 << 20));
    let mut client = Raw::to(proxy.admin);
    client.send(format!(
        "POST /v1/backends HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        proxy.admin,
        huge.len()
    ));
    client.send(huge);
    assert_eq!(client.head().0, 413);
    let mut client = Raw::to(proxy.admin);
    client.send("GET /health/live HTTP/1.1\r\n");
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    let taken = (0..20_000).take_while(|_| client.send(&line)).count();
    assert!(taken < 20_000, "all of it was taken");
    let deep = format!("{{\"url\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let (status, answer) = proxy.admin("POST", "/v1/backends", &[JSON], &deep);
    assert!(matches!(status, 400 | 422), "{answer}");
    assert!(proxy.rss_bytes() < before + (8 << 20));
    proxy.assert_sound();
}
