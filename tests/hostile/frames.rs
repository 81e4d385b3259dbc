//! Frames that break RFC 6455, from both sides: 1002 on that leg only, and nothing of them on the other leg.

use std::sync::mpsc::channel;
use std::time::Instant;

use crate::rig::{Backend, PATIENCE, Proxy, Raw, connected, frame};

/// A header by hand: first byte, second byte, extended length, mask key if the second byte says so.
fn header(first: u8, second: u8, extended: &[u8]) -> Vec<u8> {
    let mut out = vec![first, second];
    out.extend_from_slice(extended);
    if second & 0x80 != 0 {
        out.extend_from_slice(&[1, 2, 3, 4]);
    }
    out
}

/// What breaks the protocol from either side; `mask` is 0x80 for a client.
fn violations(mask: u8) -> Vec<(&'static str, Vec<u8>, u16)> {
    let masked = mask != 0;
    let len = |length: u64| length.to_be_bytes();
    vec![
        ("the wrong mask bit", frame(0x81, b"x", !masked), 1002),
        ("RSV1", frame(0xc1, b"x", masked), 1002),
        ("RSV2", frame(0xa1, b"x", masked), 1002),
        ("RSV3", frame(0x91, b"x", masked), 1002),
        ("RSV1 on a ping", frame(0xc9, b"x", masked), 1002),
        ("opcode 3", frame(0x83, b"x", masked), 1002),
        ("opcode 11", frame(0x8b, b"x", masked), 1002),
        ("a fragmented ping", frame(0x09, b"x", masked), 1002),
        ("a fragmented close", frame(0x08, &[3, 232], masked), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126], masked), 1002),
        ("a ping of 2^62 bytes", header(0x89, mask | 127, &len(1 << 62)), 1002),
        ("2^63 bytes", header(0x82, mask | 127, &len(1 << 63)), 1002),
        ("2^64-1 bytes", header(0x82, mask | 127, &len(u64::MAX)), 1002),
        ("2^62 bytes", header(0x82, mask | 127, &len(1 << 62)), 1009),
        ("just over the limit", header(0x82, mask | 127, &len((16 << 20) + 1)), 1009),
        ("5 bytes said in 16 bits", header(0x82, mask | 126, &[0, 5]), 1002),
        ("200 bytes said in 64 bits", header(0x82, mask | 127, &len(200)), 1002),
        ("65,535 bytes said in 64 bits", header(0x82, mask | 127, &len(65_535)), 1002),
        ("125 bytes said in 16 bits", header(0x81, mask | 126, &[0, 125]), 1002),
        ("nothing said in 64 bits", header(0x82, mask | 127, &len(0)), 1002),
        ("a continuation of nothing", frame(0x80, b"x", masked), 1002),
        ("a message inside of a message", [frame(0x01, b"a", masked), frame(0x81, b"b", masked)].concat(), 1002),
        ("a close of one byte", frame(0x88, &[3], masked), 1002),
        ("close code 999", frame(0x88, &999_u16.to_be_bytes(), masked), 1002),
        ("close code 1005", frame(0x88, &1005_u16.to_be_bytes(), masked), 1002),
        ("close code 1015", frame(0x88, &1015_u16.to_be_bytes(), masked), 1002),
        ("close code 5000", frame(0x88, &5000_u16.to_be_bytes(), masked), 1002),
        ("a close reason that is no text", frame(0x88, &[3, 232, 0xff, 0xfe], masked), 1002),
    ]
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_and_its_worker_sees_nothing_of_it() {
    for mut proxy in Proxy::both_ways() {
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let backend = Backend::start(move |mut peer, head, _| {
            peer.upgrade(head);
            let mut got = Vec::new();
            let code = loop {
                match peer.talk(false) {
                    Some((0x88, payload)) => break Some(payload),
                    Some((_, payload)) => got.push(payload),
                    None => break None,
                }
            };
            tell.lock().unwrap().send((got, code)).unwrap();
        });
        proxy.register(backend.address);
        for (what, bytes, expected) in violations(0x80) {
            let mut client = connected(&proxy);
            client.send(frame(0x81, b"good", true));
            client.send(&bytes);
            let code = client.close_code(true);
            let invalid_reason = what.contains("no text") && code == Some(1007);
            assert!(code == Some(expected) || invalid_reason, "{what}: {code:?}");
            let (got, closed) = told.recv().unwrap();
            assert_eq!(got, [b"good"], "{what}");
            assert_eq!(closed.map(|payload| u16::from_be_bytes([payload[0], payload[1]])), Some(1001), "{what}");
        }
        proxy.assert_sound();
    }
}

#[test]
fn a_worker_that_breaks_the_protocol_is_told_and_its_client_goes_on_with_another_unless_a_message_was_too_big() {
    for (what, bytes, expected) in violations(0) {
        let mut proxy = Proxy::start();
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let backend = Backend::start(move |mut peer, head, number| {
            peer.upgrade(head);
            if number > 0 {
                return peer.echo();
            }
            assert_eq!(peer.talk(false).unwrap().1, b"first");
            peer.send(&bytes);
            tell.lock().unwrap().send(peer.close_code(false)).unwrap();
        });
        proxy.register(backend.address);
        let mut client = connected(&proxy);
        client.send(frame(0x81, b"first", true));
        assert_eq!(told.recv().unwrap(), Some(expected), "{what}");
        if expected == 1009 {
            // The next worker would say it again: the client is told, and the pipe ends.
            assert_eq!(client.close_code(true), Some(1009), "{what}");
            proxy.assert_sound();
            continue;
        }
        client.send(frame(0x81, b"second", true));
        // `first` is sent again when its pong did not come before the end; nothing else may come between.
        let mut echo = client.talk(true);
        if echo.as_ref().is_some_and(|(_, payload)| payload == b"first") {
            echo = client.talk(true);
        }
        assert_eq!(echo, Some((0x81, b"second".to_vec())), "{what}");
        proxy.assert_sound();
    }
}

#[test]
fn a_million_tiny_continuations_end_at_the_default_bound() {
    let mut proxy = Proxy::start();
    let backend = Backend::echo();
    proxy.register(backend.address);
    for payload in [&b""[..], b"x"] {
        let before = proxy.rss_bytes();
        let mut client = connected(&proxy);
        let mut writer = Raw::new(client.stream().try_clone().unwrap());
        client.send(frame(0x01, payload, true));
        let tiny = frame(0x00, payload, true).repeat(1_000_000);
        let writing = std::thread::spawn(move || writer.send(&tiny));
        assert_eq!(client.close_code(true), Some(1008));
        assert!(proxy.rss_bytes() < before + (8 << 20));
        drop(client);
        // Whether all was taken into sockets is no matter; that the peer is not waited for is.
        writing.join().unwrap();
    }
    proxy.assert_sound();
}

#[test]
fn tiny_fragments_that_never_end_are_bounded() {
    let mut proxy = Proxy::with("close_timeout = \"300ms\"\n[message]\nfragments_max = 1000");
    let backend = Backend::echo();
    proxy.register(backend.address);
    for payload in [&b""[..], b"x"] {
        let mut client = connected(&proxy);
        client.send(frame(0x01, payload, true));
        let tiny = frame(0x00, payload, true).repeat(100);
        let before = proxy.rss_bytes();
        // Without end, as far as the client is concerned.
        let began = Instant::now();
        while client.send(&tiny) {
            assert!(began.elapsed() < PATIENCE, "they are still taken");
        }
        assert!(proxy.rss_bytes() < before + (8 << 20));
        proxy.assert_sound();
        let mut client = connected(&proxy);
        client.send(frame(0x01, payload, true));
        client.send(frame(0x00, payload, true).repeat(1000));
        assert_eq!(client.close_code(true), Some(1008));
    }
    let mut client = connected(&proxy);
    client.send(frame(0x01, b"x", true));
    client.send(frame(0x00, b"x", true).repeat(998));
    client.send(frame(0x80, b"x", true));
    let mut whole = Vec::new();
    while whole.len() < 1000 {
        whole.extend(client.talk(true).unwrap().1);
    }
    assert_eq!(whole, [b'x'; 1000], "as many as allowed are a message");
    proxy.assert_sound();
}
