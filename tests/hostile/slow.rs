//! Peers that take their time: each phase has an end.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::rig::{Backend, PATIENCE, Proxy, Raw, connected, frame, handshake};

/// The rhythm of a slow writer.
const BETWEEN_BYTES: Duration = Duration::from_millis(40);

/// Writes a byte at a time, and listens in between, until the peer has had enough; how long it took.
fn drip(peer: &Raw, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = peer.stream();
    stream.set_read_timeout(Some(BETWEEN_BYTES)).unwrap();
    for byte in bytes.iter().cycle() {
        assert!(began.elapsed() < PATIENCE, "it is still listened to");
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        match stream.read(&mut [0; 1024]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    began.elapsed()
}

#[test]
fn a_client_that_says_nothing_or_says_it_slowly_is_let_go() {
    let mut proxy = Proxy::with("handshake_timeout = \"300ms\"");
    let backend = Backend::echo();
    proxy.register(backend.address);
    let silent = Raw::to(proxy.public);
    let slow = Raw::to(proxy.public);
    assert!(drip(&slow, b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") < Duration::from_secs(5));
    let headers = Raw::to(proxy.public);
    let mut stream = headers.stream();
    stream.write_all(b"GET /ws/x HTTP/1.1\r\nHost: app.example\r\n").unwrap();
    assert!(drip(&headers, b"X-A: b\r\n") < Duration::from_secs(5));
    let mut silent = silent;
    silent.rest();
    let mut again = Raw::to(proxy.public);
    again.send("GET /ws/x HTTP/1.1\r\n\r\n");
    assert_eq!(again.head().0, 400);
    again.rest();
    assert_eq!(backend.heads(), [""; 0]);
    proxy.assert_sound();
}

#[test]
fn a_message_that_does_not_get_finished_ends_its_leg() {
    let mut proxy = Proxy::with("[message]\nincomplete_timeout = \"300ms\"");
    let backend = Backend::echo();
    proxy.register(backend.address);
    for start in [frame(0x01, b"half", true), vec![0x81, 0xfe, 0x10, 0x00, 1, 2, 3, 4, 9], vec![0x81]] {
        let mut client = connected(&proxy);
        client.send(&start);
        let code = client.close_code(true);
        assert!(matches!(code, Some(1002 | 1008)), "{start:?}: {code:?}");
    }
    let dripping = connected(&proxy);
    let mut stream = dripping.stream();
    stream.write_all(&[0x82, 0xfe, 0x80, 0x00, 1, 2, 3, 4]).unwrap();
    assert!(drip(&dripping, b"x") < Duration::from_secs(8));
    proxy.assert_sound();
}

#[test]
fn a_worker_that_answers_slowly_or_not_at_all_is_504() {
    let mut proxy = Proxy::with("backend_handshake_timeout = \"300ms\"");
    let backend = Backend::start(|mut peer, _, _| {
        peer.send("HTTP/1.1 101 Switching");
        peer.rest();
    });
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send(handshake("/ws/x", ""));
    assert_eq!(client.head().0, 504);
    proxy.assert_sound();
}

#[test]
fn a_worker_that_drips_its_answer_is_504() {
    let mut proxy = Proxy::with("backend_handshake_timeout = \"300ms\"");
    let backend = Backend::start(|mut peer, _, _| {
        peer.send("HTTP/1.1 101 Switching Protocols\r\n");
        drip(&peer, b"X-A: b\r\n");
    });
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send(handshake("/ws/x", ""));
    assert_eq!(client.head().0, 504);
    proxy.assert_sound();
}

#[test]
fn a_peer_that_never_answers_a_close_is_let_go() {
    let mut proxy = Proxy::with("close_timeout = \"300ms\"");
    let backend = Backend::start(|mut peer, head, _| {
        peer.upgrade(head);
        peer.rest();
    });
    proxy.register(backend.address);
    let mut client = connected(&proxy);
    client.send(frame(0x88, &1000_u16.to_be_bytes(), true));
    assert_eq!(client.close_code(true), Some(1000), "the worker stays silent, so the client is answered for it");
    assert_eq!(client.rest(), b"");
    crate::rig::until("the pipe's end", || proxy.admin("GET", "/v1/pipes", &[], "").1.contains("\"items\":[]"));
    proxy.assert_sound();
}
