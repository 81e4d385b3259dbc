//! Plain HTTP with peers that take their time: slow bodies up, slow heads and slow readers down.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::rig::{Backend, PATIENCE, Proxy, Raw, drip, until};

const MIB: u64 = 1 << 20;
/// More than the kernel holds for two sockets.
const LARGE: u64 = 64 * MIB;

/// A backend that answers with [`LARGE`] bytes, and says when it could not get rid of them.
fn download() -> (Backend, std::sync::mpsc::Receiver<bool>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, _, _| {
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let chunk = vec![7; MIB as usize];
        let whole = (0..LARGE / MIB).all(|_| peer.send(&chunk));
        tell.lock().unwrap().send(whole).unwrap();
    });
    (backend, told)
}

#[test]
fn a_client_that_reads_nothing_of_an_answer_is_let_go_and_so_is_its_worker() {
    let mut proxy = Proxy::with("send_timeout = \"500ms\"");
    let (backend, told) = download();
    proxy.register(backend.address);
    let before = proxy.rss_bytes();
    let mut client = Raw::to(proxy.public);
    client.send("GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n");
    assert!(!told.recv_timeout(PATIENCE).unwrap(), "the worker's connection is closed, not kept waiting");
    assert!(proxy.rss_bytes() < before + 4 * MIB);
    let timed_out = "holdline_connections_total{listener=\"public\",result=\"timed_out\"} 1";
    until("its place in the metrics", || proxy.metrics().contains(timed_out));
    assert!((client.rest().len() as u64) < LARGE);
    proxy.assert_sound();
}

#[test]
fn a_client_that_reads_slowly_but_does_read_gets_everything() {
    let patience = Duration::from_secs(2);
    let mut proxy = Proxy::with("send_timeout = \"2s\"");
    let (backend, told) = download();
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send("GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n");
    client.head();
    let (began, mut left) = (Instant::now(), LARGE as usize - client.buffered());
    let mut chunk = vec![0; MIB as usize];
    while left > 0 {
        // as slow as it takes for the whole to last longer than the patience with a client that takes nothing
        std::thread::sleep(patience / 40);
        let most = left.min(chunk.len());
        client.stream().read_exact(&mut chunk[..most]).unwrap();
        left -= most;
    }
    assert!(began.elapsed() > patience);
    assert!(told.recv().unwrap());
    proxy.assert_sound();
}

#[test]
fn a_body_that_drips_is_passed_on_as_it_comes_and_is_408_when_it_stands_still() {
    let mut proxy = Proxy::with("response_header_timeout = \"2s\"");
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, _, _| {
        let came = peer.rest().len();
        tell.lock().unwrap().send(came).unwrap();
    });
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000\r\n\r\n");
    // longer than the timeout, and never still
    let bytes = 60;
    for _ in 0..bytes {
        client.send(b"x");
        std::thread::sleep(Duration::from_millis(40));
    }
    let (status, head) = client.head();
    assert_eq!(status, 408, "{head}");
    assert_eq!(told.recv().unwrap(), bytes, "each byte was there, and the end is an end of the connection");
    proxy.assert_sound();
}

#[test]
fn chunk_headers_that_drip_or_never_end_move_nothing() {
    let mut proxy = Proxy::with("response_header_timeout = \"500ms\"");
    let backend = Backend::start(|mut peer, _, _| {
        peer.rest();
    });
    proxy.register(backend.address);
    let head = "POST /up HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let client = Raw::to(proxy.public);
    client.stream().write_all(head.as_bytes()).unwrap();
    client.stream().write_all(b"5;").unwrap();
    assert!(drip(&client, b"extension") < Duration::from_secs(10), "a chunk's head is no progress");
    for endless in ["5;extension", "0\r\nX-Trailer: 1\r\nX-"] {
        let before = proxy.rss_bytes();
        let mut client = Raw::to(proxy.public);
        client.send(head.to_owned() + endless);
        let more = "x".repeat(1 << 16);
        let began = Instant::now();
        while client.send(&more) {
            assert!(began.elapsed() < PATIENCE, "they are still taken");
        }
        assert!(proxy.rss_bytes() < before + 4 * MIB, "{endless}");
    }
    proxy.assert_sound();
}

#[test]
fn a_worker_that_drips_the_head_of_its_answer_is_504() {
    let mut proxy = Proxy::with("response_header_timeout = \"300ms\"");
    let backend = Backend::start(|mut peer, _, _| {
        peer.send("HTTP/1.1 200 OK\r\n");
        drip(&peer, b"X-A: b\r\n");
    });
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n");
    let (status, head) = client.head();
    assert_eq!(status, 504, "{head}");
    proxy.assert_sound();
}

#[test]
fn a_client_that_drips_on_behind_its_answer_is_let_go() {
    let mut proxy = Proxy::with("handshake_timeout = \"1s\"\nresponse_header_timeout = \"1s\"");
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(client.head().0, 200);
    assert!(drip(&client, b"x") < Duration::from_secs(10));
    proxy.assert_sound();
}

#[test]
fn a_worker_that_answers_with_megabytes_of_headers_is_502() {
    let mut proxy = Proxy::start();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, _, _| {
        peer.send("HTTP/1.1 200 OK\r\n");
        let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
        let taken = (0..20_000).take_while(|_| peer.send(&line)).count();
        tell.lock().unwrap().send(taken).unwrap();
    });
    proxy.register(backend.address);
    let before = proxy.rss_bytes();
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), crate::rig::handshake("/ws/x", "")] {
        let mut client = Raw::to(proxy.public);
        client.send(request);
        assert_eq!(client.head().0, 502);
        assert!(told.recv().unwrap() < 20_000, "all of it was taken");
    }
    assert!(proxy.rss_bytes() < before + 4 * MIB);
    proxy.assert_sound();
}
