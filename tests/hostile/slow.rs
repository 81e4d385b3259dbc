//! Peers that take their time: each phase has an end.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::rig::{Backend, PATIENCE, Proxy, Raw, connected, drip, frame, handshake, until};

#[test]
fn a_client_that_says_nothing_or_says_it_slowly_is_let_go() {
    let mut proxy = Proxy::with("handshake_timeout = \"1s\"\nkeepalive_timeout = \"300ms\"");
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
    let mut proxy = Proxy::with("close_timeout = \"300ms\"\n[message]\nincomplete_timeout = \"300ms\"");
    let backend = Backend::echo();
    proxy.register(backend.address);
    for start in [frame(0x01, b"half", true), vec![0x81, 0xfe, 0x10, 0x00, 1, 2, 3, 4, 9], vec![0x81]] {
        let mut client = connected(&proxy);
        client.send(&start);
        assert_eq!(client.close_code(true), Some(1008), "{start:?}");
    }
    proxy.assert_sound();
}

/// A header of a frame of 32 KiB with everything a header can have, and a payload that is long enough to drip for ever.
fn dripping_frame(masked: bool) -> Vec<u8> {
    let mut bytes = if masked {
        vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]
    } else {
        vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]
    };
    bytes.resize(8192, b'x');
    bytes
}

#[test]
fn a_client_that_drips_its_first_frame_is_let_go_in_the_header_and_in_the_payload() {
    for patience in ["300ms", "1s"] {
        let config = format!("close_timeout = \"300ms\"\n[message]\nincomplete_timeout = \"{patience}\"");
        let mut proxy = Proxy::with(&config);
        let backend = Backend::echo();
        proxy.register(backend.address);
        for start in [dripping_frame(true), [vec![0x89, 0xfd, 1, 2, 3, 4], vec![0; 125]].concat()] {
            assert!(drip(&connected(&proxy), &start) < Duration::from_secs(8));
        }
        until("both closes in the metrics", || close_counts(&proxy, "1008") == 2);
        proxy.assert_sound();
    }
}

fn close_counts(proxy: &Proxy, code: &str) -> u64 {
    let metrics = proxy.metrics();
    let closes = metrics.lines().filter(|line| line.starts_with("holdline_pipe_closes_total"));
    let of_code = closes.filter(|line| line.contains(&format!("code=\"{code}\"")));
    of_code.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn a_worker_that_drips_a_frame_is_left_for_another() {
    let mut proxy = Proxy::with("close_timeout = \"300ms\"\n[message]\nincomplete_timeout = \"300ms\"");
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, head, number| {
        peer.upgrade(head);
        if number > 0 {
            return peer.echo();
        }
        tell.lock().unwrap().send(drip(&peer, &dripping_frame(false))).unwrap();
    });
    proxy.register(backend.address);
    let mut client = connected(&proxy);
    assert!(told.recv().unwrap() < Duration::from_secs(8));
    client.send(frame(0x81, b"hello", true));
    assert_eq!(client.talk(true).unwrap(), (0x81, b"hello".to_vec()), "nothing of the half message came");
    proxy.assert_sound();
}

#[test]
fn a_client_that_reads_nothing_pauses_its_worker_and_is_let_go() {
    let mut proxy = Proxy::with("close_timeout = \"300ms\"\n[replay]\nstall_max = \"500ms\"");
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, head, _| {
        peer.upgrade(head);
        let chunk = frame(0x82, &[7; 60_000], false);
        while peer.send(&chunk) {}
        tell.lock().unwrap().send(()).unwrap();
    });
    proxy.register(backend.address);
    let before = proxy.rss_bytes();
    let client = connected(&proxy);
    told.recv_timeout(PATIENCE).expect("what a worker says to a client that has gone is not taken for ever");
    assert!(proxy.rss_bytes() < before + (8 << 20));
    assert!(proxy.metrics().contains("holdline_read_paused_total{lane=\"down\",route=\"default\"} "));
    assert!(!proxy.metrics().contains("holdline_read_paused_total{lane=\"down\",route=\"default\"} 0\n"));
    until("the close in the metrics", || close_counts(&proxy, "1013") == 1);
    drop(client);
    proxy.assert_sound();
}

#[test]
fn a_peer_that_pings_and_reads_no_pong_costs_nothing() {
    let mut proxy = Proxy::start();
    let backend = Backend::start(|mut peer, head, _| {
        peer.upgrade(head);
        let pings = frame(0x89, &[b'p'; 125], false).repeat(100);
        while peer.send(&pings) {}
    });
    proxy.register(backend.address);
    let before = proxy.rss_bytes();
    let mut client = connected(&proxy);
    let pings = frame(0x89, &[b'p'; 125], true).repeat(1000);
    for _ in 0..1_000 {
        client.send(&pings);
    }
    assert!(proxy.rss_bytes() < before + (8 << 20), "a million pings of each side: {}", proxy.rss_bytes() - before);
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
    until("the pipe's end", || proxy.admin("GET", "/v1/pipes", &[], "").1.contains("\"items\":[]"));
    proxy.assert_sound();
}
