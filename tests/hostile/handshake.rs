//! The strict handshake (SPEC section 6), as it is and by TLS: what is refused before a backend is dialled, and what a
//! backend may answer. The same over HTTP/2 is in `http2`.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::rig::{Backend, KEY, Proxy, Raw, connected, frame, handshake, switching};

const MIB: u64 = 1 << 20;

/// The good handshake with `from` replaced by `to`.
fn with(from: &str, to: &str) -> String {
    let good = handshake("/ws/x", "");
    assert!(good.contains(from), "{from}");
    good.replace(from, to)
}

#[test]
fn a_malformed_handshake_is_refused_before_any_backend_is_dialled() {
    for mut proxy in Proxy::both_ways() {
        let backend = Backend::echo();
        proxy.register(backend.address);
        let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
        let version = "Sec-WebSocket-Version: 13\r\n";
        for (request, expected) in [
            (with(&key, ""), 400),
            (with(&key, "Sec-WebSocket-Key: c2hvcnQ=\r\n"), 400),
            (with(&key, &format!("{key}{key}")), 400),
            (with(version, ""), 426),
            (with(version, "Sec-WebSocket-Version: 8\r\n"), 426),
            (with(version, &format!("{version}{version}")), 426),
            (with("Upgrade: websocket", "Upgrade: websocket, h2c"), 400),
            (with("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c"), 400),
            (with("Connection: Upgrade", "Connection: keep-alive"), 400),
            (handshake("/ws/x", "Content-Length: 5\r\n") + "hello", 400),
            (handshake("/ws/x", "Content-Length: 0\r\nContent-Length: 5\r\n") + "hello", 400),
            (handshake("/ws/../x", ""), 400),
            (handshake("/ws/%2e%2E/x", ""), 400),
            (handshake("/ws/a%2fb", ""), 400),
            (handshake("/ws/x", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400),
            (handshake("/ws/x", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "0\r\n\r\n", 400),
            (with("GET ", "POST "), 405),
            (with("HTTP/1.1", "HTTP/1.0"), 400),
            (with("Host: app.example\r\n", ""), 400),
            (with("Host: app.example\r\n", "Host: a.example\r\nHost: b.example\r\n"), 400),
            (with("Host: app.example\r\n", "Host: a.example, b.example\r\n"), 400),
            (with("Host: app.example", "Host : app.example"), 400),
            (with("Host: app.example", "Host: app.example\r\n folded"), 400),
            (handshake("/ws/x", "X-Odd: a\rb\r\n"), 400),
            (handshake("/ws/x", "X-Odd: a\0b\r\n"), 400),
            (handshake("/ws/x", "X Odd: a\r\n"), 400),
            (handshake("/ws/x\x01", ""), 400),
            (with("GET ", "CONNECT "), 405),
            (with("GET ", "TRACE "), 405),
        ] {
            let mut client = Raw::to(proxy.public);
            client.send(&request);
            let (status, head) = client.head();
            assert_eq!(status, expected, "{request:?} was answered {head}");
            if expected == 426 {
                assert!(head.to_ascii_lowercase().contains("sec-websocket-version: 13"), "{head}");
            }
        }
        for other_protocol in ["\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let mut client = Raw::to(proxy.public);
            client.send(other_protocol);
            let answer = client.try_head();
            assert!(answer.as_ref().is_none_or(|head| head.contains(" 400 ")), "{answer:?}");
        }
        assert_eq!(backend.heads(), [""; 0]);
        proxy.assert_sound();
    }
}

#[test]
fn twenty_megabytes_of_headers_are_431_and_cost_no_memory() {
    for mut proxy in Proxy::both_ways() {
        let backend = Backend::echo();
        proxy.register(backend.address);
        drop(connected(&proxy));
        let before = proxy.rss_bytes();
        let many = format!("X-Filler: {}\r\n", "x".repeat(1000));
        let filler = "x".repeat(1000);
        let starts =
            ["GET /ws/x HTTP/1.1\r\nHost: app.example\r\n", "GET /ws/x HTTP/1.1\r\nX-Filler: ", "GET /ws/", ""];
        for (start, more) in starts.into_iter().zip([&many, &filler, &filler, &filler]) {
            let mut client = Raw::to(proxy.public);
            client.send(start);
            let mut sent = 0;
            while sent < 20 * MIB && client.send(more) {
                sent += more.len() as u64;
            }
            assert!(sent < 20 * MIB, "all of it was taken behind {start:?}");
            assert!(proxy.rss_bytes() < before + 4 * MIB);
        }

        let mut client = Raw::to(proxy.public);
        client.send("GET /ws/x HTTP/1.1\r\nHost: app.example\r\n");
        client.send(format!("X-Filler: {}\r\n", "x".repeat(33 << 10)));
        assert_eq!(client.head().0, 431);
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", &"X-Filler: 1\r\n".repeat(1500)));
        assert_eq!(client.head().0, 431, "many small headers");
        assert_eq!(backend.heads().len(), 1);
        proxy.assert_sound();
    }
}

#[test]
fn nothing_is_pipelined_behind_an_upgrade_that_was_refused() {
    for refusal in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno way",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nno way",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nno way\r\n0\r\n\r\n",
    ] {
        for mut proxy in Proxy::both_ways() {
            let backend = Backend::answering(refusal);
            proxy.register(backend.address);
            let mut client = Raw::to(proxy.public);
            let secret = "GET /secret HTTP/1.1\r\nHost: app.example\r\n\r\n";
            client.send(handshake("/ws/x", "") + secret);
            let answer = String::from_utf8(client.rest()).unwrap();
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "the connection is not used again: {answer}");
            assert!(answer.contains("no way"), "{answer}");
            assert_eq!(backend.heads().len(), 1, "{refusal}");
            assert!(backend.heads()[0].starts_with("GET /ws/x "));
            proxy.assert_sound();
        }
    }
}

#[test]
fn nothing_is_smuggled_behind_a_body_of_two_lengths() {
    for mut proxy in Proxy::both_ways() {
        let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        proxy.register(backend.address);
        let smuggled = "0\r\n\r\nGET /secret HTTP/1.1\r\nHost: app.example\r\n\r\n";
        let length = format!("Content-Length: {}\r\n", smuggled.len());
        let coding = "Transfer-Encoding: chunked\r\n";
        for framing in [format!("{length}{coding}"), format!("{coding}{length}")] {
            let mut client = Raw::to(proxy.public);
            client.send(format!("POST /up HTTP/1.1\r\nHost: app.example\r\n{framing}\r\n{smuggled}"));
            let answer = String::from_utf8(client.rest()).unwrap();
            assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
        }
        for head in backend.heads() {
            assert!(head.starts_with("POST /up ") && !head.to_ascii_lowercase().contains("content-length"), "{head}");
        }
        assert_eq!(backend.heads().len(), 2);
        proxy.assert_sound();
    }
}

#[test]
fn what_came_with_a_handshake_that_was_refused_goes_nowhere() {
    for refusal in ["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        for mut proxy in Proxy::both_ways() {
            let (tell, told) = channel();
            let tell = Mutex::new(tell);
            let backend = Backend::start(move |mut peer, _, _| {
                peer.send(refusal);
                tell.lock().unwrap().send(peer.rest().len()).unwrap();
            });
            proxy.register(backend.address);
            let mut client = Raw::to(proxy.public);
            let mut writer = Raw::new(client.stream().try_clone().unwrap());
            let writing = std::thread::spawn(move || {
                let behind =
                    [frame(0x82, &vec![7; MIB as usize], true), b"GET /secret HTTP/1.1\r\n\r\n".to_vec()].concat();
                // until it is no longer taken
                writer.send(handshake("/ws/x", "")) && (0..10).all(|_| writer.send(&behind))
            });
            assert!(matches!(client.head().0, 403 | 502));
            assert_eq!(told.recv().unwrap(), 0, "bytes that came behind the handshake");
            client.rest();
            writing.join().unwrap();
            assert_eq!(backend.heads().len(), 1);
            proxy.assert_sound();
        }
    }
}

#[test]
fn ten_megabytes_before_the_101_wait_outside() {
    for mut proxy in Proxy::both_ways() {
        let (dialled, is_dialled) = channel();
        let (release, released) = channel::<()>();
        let gates = Mutex::new((dialled, released));
        let backend = Backend::start(move |mut peer, head, _| {
            let gates = gates.lock().unwrap();
            gates.0.send(()).unwrap();
            gates.1.recv().unwrap();
            peer.assert_silent();
            peer.upgrade(head);
            let mut bytes = 0;
            while bytes < 10 * MIB as usize {
                bytes += peer.talk(false).unwrap().1.len();
            }
            peer.send(frame(0x81, b"all there", false));
            peer.rest();
        });
        proxy.register(backend.address);
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", ""));
        is_dialled.recv().unwrap();
        let before = proxy.rss_bytes();
        let mut writer = Raw::new(client.stream().try_clone().unwrap());
        let writing = std::thread::spawn(move || {
            let chunk = frame(0x82, &vec![7; MIB as usize], true);
            (0..10).all(|_| writer.send(&chunk))
        });
        // Each of these goes through the proxy's threads, so they had every chance to read on.
        for _ in 0..200 {
            assert_eq!(proxy.admin("GET", "/health/live", &[], "").0, 200);
        }
        assert!(proxy.rss_bytes() < before + 2 * MIB, "{} over {before}", proxy.rss_bytes());
        release.send(()).unwrap();
        assert_eq!(client.head().0, 101);
        assert_eq!(client.talk(true).unwrap().1, b"all there");
        assert!(writing.join().unwrap());
        proxy.assert_sound();
    }
}

/// What a worker answers to a request with this head.
type Answer = fn(&str) -> String;

/// Answers that are no answer to a handshake.
pub const NO_PROOFS: [Answer; 11] = [
    |head| switching(head, "").replace("Accept: ", "Accept: x"),
    |_| "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".into(),
    |head| switching(head, "").replace("Upgrade: websocket", "Upgrade: h2c"),
    |head| switching(head, "").replace("Connection: Upgrade", "Connection: close"),
    |head| switching(head, "").replace("HTTP/1.1", "HTTP/1.0"),
    |head| switching(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
    |head| switching(head, "Sec-WebSocket-Protocol: never-offered\r\n"),
    |head| switching(head, &format!("X-Filler: {}\r\n", "x".repeat(10 << 20))),
    |_| "SSH-2.0-OpenSSH_9.6\r\n\r\n".into(),
    |_| String::new(),
    |head| switching(head, "Holdline-Resume: nonsense\r\n"),
];

#[test]
fn a_backends_101_that_proves_nothing_is_502() {
    for (number, answer) in NO_PROOFS.into_iter().enumerate() {
        let mut proxy = Proxy::start();
        let backend = Backend::start(move |mut peer, head, _| {
            peer.send(answer(head));
        });
        proxy.register(backend.address);
        let mut client = Raw::to(proxy.public);
        client.send(handshake("/ws/x", ""));
        let (status, head) = client.head();
        assert_eq!(status, 502, "answer {number}: {head}");
        proxy.assert_sound();
    }
}

#[test]
fn a_bare_line_feed_in_a_head_is_refused_wherever_it_stands() {
    for mut proxy in Proxy::both_ways() {
        let backend = Backend::echo();
        proxy.register(backend.address);
        let good = handshake("/ws/x", "X-More: y\r\n");
        let lines = good.matches("\r\n").count();
        let bare = |number: usize| {
            let at = good.match_indices("\r\n").nth(number).unwrap().0;
            format!("{}\n{}", &good[..at], &good[at + 2..])
        };
        let plain = "GET /x HTTP/1.1\nHost: a\r\n\r\n".to_owned();
        let after_another = "GET /health HTTP/1.1\r\nHost: a\r\nX: a\nb: c\r\n\r\n".to_owned();
        for request in (0..lines).map(bare).chain([plain, after_another]) {
            let mut client = Raw::to(proxy.public);
            client.send(&request);
            assert_eq!(client.head().0, 400, "{request:?}");
        }
        assert_eq!(backend.heads().len(), 0);
        let mut client = Raw::to(proxy.public);
        client.send(good);
        assert_eq!(client.head().0, 101);
        proxy.assert_sound();
    }
}
