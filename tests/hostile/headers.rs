//! Headers that try to be something else: hop-by-hop, forwarding, injected, and origins.

use crate::rig::{Backend, Proxy, Raw, connected, frame, handshake, switching};

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
    for forged in
        ["6.6.6.6", "x-hop", "forged", "attach: 99", "attach: 98", "keep-alive", "proxy-authorization", "trailers"]
    {
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
    let mut client = Raw::to(proxy.public);
    client.send(
        "POST /ws/%0aERROR HTTP/1.1\r\nHost: a\r\nAuthorization: topsecret\r\nContent-Length: 9\r\n\r\ntopsecret",
    );
    client.head();
    let odd_id = "/v1/backends/a%0a%7b%22level%22%3a%22ERROR%22%7d";
    let json = ("Content-Type", "application/json");
    let (status, answer) = proxy.admin("PUT", odd_id, &[json], "{\"url\":\"ws://127.0.0.1:1\"}");
    assert_eq!(status, 422, "an id that would be a line of the metrics or the log: {answer}");
    for line in proxy.log() {
        let entry: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("not one record: {line:?}"));
        assert_ne!(entry["level"], "ERROR", "{line}");
        assert!(!line.contains("topsecret") && !line.chars().any(char::is_control), "{line:?}");
    }
    proxy.assert_sound();
}

#[test]
fn what_is_said_in_a_pipe_is_not_logged_and_a_reason_stays_on_its_line() {
    let mut proxy = Proxy::with("close_timeout = \"300ms\"");
    let backend = Backend::start(|mut peer, head, number| {
        peer.upgrade(head);
        peer.talk(false);
        peer.send(frame(0x81, b"topsecret", false));
        if number == 0 {
            peer.send(frame(0x88, b"\x0f\xa0\r\n{\"level\":\"ERROR\"}", false));
        }
        peer.rest();
    });
    proxy.register(backend.address);
    for number in 0..2 {
        let mut client = connected(&proxy);
        client.send(frame(0x81, b"topsecret", true));
        client.talk(true);
        if number == 1 {
            client.send(frame(0x88, b"\x0b\xb8\r\n\x1b[2J{\"level\":\"ERROR\"}", true));
        }
        client.close_code(true);
    }
    crate::rig::until("both records", || proxy.log().iter().filter(|line| line.contains("pipe.close")).count() == 2);
    for line in proxy.log() {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "not one record: {line:?}");
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
        ("HTTPS://APP.EXAMPLE", 403),
        ("https://App.Example", 403),
        ("https://user@app.example", 403),
        ("https://app.example:443", 101),
        ("https://app.example:0443", 403),
        ("https://app.example:", 403),
        ("https://app.example#", 403),
        ("https://app.example?", 403),
        ("https://app.example\\.evil.example", 403),
        ("https://app.example%2eevil.example", 403),
        ("https://app.example\t.evil.example", 403),
        ("https:app.example", 403),
        ("//app.example", 403),
        ("app.example", 403),
        ("file://", 403),
        ("NULL", 403),
        ("http://127.0.0.1:3000.evil.example", 403),
        ("http://127.0.0.1.:3000", 403),
        ("http://[::ffff:127.0.0.1]:3000", 403),
        ("http://localhost:3000", 403),
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
    assert_eq!(backend.heads().len(), 3);
    proxy.assert_sound();
}

#[test]
fn a_workers_answer_cannot_smuggle_a_header_or_a_second_answer() {
    type Answer = fn(&str) -> String;
    let answers: [(Answer, &[u16]); 7] = [
        (|head| switching(head, "X-Odd: a\rSet-Cookie: forged=1\r\n"), &[502]),
        (|head| switching(head, "X-Odd: a\0Set-Cookie: forged=1\r\n"), &[502]),
        (|head| switching(head, "X-Odd: a\r\n Set-Cookie: forged=1\r\n"), &[502]),
        (|head| switching(head, "Set-Cookie : forged=1\r\n"), &[502]),
        (|head| switching(head, "Connection: Set-Cookie\r\nSet-Cookie: forged=1\r\n"), &[101]),
        (|head| switching(head, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), &[101, 502]),
        (|_| "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nforged: 1\r\n\r\n".into(), &[403]),
    ];
    for (number, (answer, expected)) in answers.into_iter().enumerate() {
        let mut proxy = Proxy::start();
        let backend = Backend::start(move |mut peer, head, _| {
            peer.send(answer(head));
            peer.rest();
        });
        proxy.register(backend.address);
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", ""));
        let (status, head) = client.head();
        assert!(expected.contains(&status), "answer {number}: {head}");
        let lower = head.to_ascii_lowercase();
        assert!(
            !["forged", "transfer-encoding", "\0"].iter().any(|odd| lower.contains(odd)),
            "answer {number}: {head}"
        );
        if status != 101 {
            let rest = String::from_utf8(client.rest()).unwrap();
            assert!(!rest.contains("forged"), "answer {number}: {rest}");
        }
        proxy.assert_sound();
    }
}
