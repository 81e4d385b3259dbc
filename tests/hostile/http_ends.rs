//! How HTTP connections end: idle ones, those whose client still sends behind its answer, and half-closed ones.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::rig::{Backend, PATIENCE, Proxy, Raw, drip, until};

/// The worker keeps no connection, so that each request finds one of its scripts.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const GET: &str = "GET /x HTTP/1.1\r\nHost: app.example\r\n\r\n";
/// More than the kernel holds for two sockets.
const LARGE: usize = 16 << 20;

fn connections(proxy: &Proxy, result: &str) -> u64 {
    let line = format!("holdline_connections_total{{listener=\"public\",result=\"{result}\"}} ");
    let metrics = proxy.metrics();
    metrics.lines().find_map(|known| known.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// Sends a whole request before it reads a byte, as Python's `http.client` does.
fn upload(proxy: &Proxy, bytes: usize) -> Option<(u16, Vec<u8>)> {
    let mut client = Raw::to(proxy.public);
    client.send(format!("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: {bytes}\r\n\r\n"));
    if !client.send(vec![b'x'; bytes]) {
        return None;
    }
    let head = client.try_head()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = client.body(&head);
    Some((status, body))
}

#[test]
fn a_kept_connection_waits_for_its_next_request_longer_than_for_a_head() {
    let mut proxy = Proxy::with("handshake_timeout = \"600ms\"\nkeepalive_timeout = \"2s\"");
    let backend = Backend::answering(OK);
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    for _ in 0..2 {
        client.send(GET);
        let (status, head) = client.head();
        assert_eq!((status, client.body(&head)), (200, b"ok".to_vec()));
        // longer than for a head, shorter than for a next request
        std::thread::sleep(Duration::from_millis(900));
    }
    let began = Instant::now();
    assert_eq!(client.rest(), b"");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(connections(&proxy, "timed_out"), 0, "that it came to its end is no trouble");
    proxy.assert_sound();
}

#[test]
fn a_later_head_that_drips_has_the_time_of_a_first_one() {
    let mut proxy = Proxy::with("handshake_timeout = \"1s\"");
    let backend = Backend::answering(OK);
    proxy.register(backend.address);
    let mut client = Raw::to(proxy.public);
    client.send(GET);
    let (_, head) = client.head();
    client.body(&head);
    let began = Instant::now();
    assert!(drip(&client, b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") < Duration::from_secs(5));
    assert!(began.elapsed() >= Duration::from_secs(1));
    until("its place in the metrics", || connections(&proxy, "timed_out") == 1);
    proxy.assert_sound();
}

#[test]
fn an_answer_of_our_own_reaches_a_client_that_is_still_uploading() {
    let mut proxy = Proxy::start();
    for _ in 0..10 {
        let (status, body) = upload(&proxy, LARGE).expect("an answer instead of a reset");
        assert_eq!(status, 503);
        assert!(String::from_utf8(body).unwrap().contains("urn:holdline:problem:"));
    }
    proxy.assert_sound();
}

#[test]
fn a_workers_answer_reaches_a_client_that_is_still_uploading_whatever_the_worker_does_then() {
    const ANSWER: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large";
    for stays in [false, true] {
        let mut proxy = Proxy::start();
        let backend = Backend::start(move |mut peer, _, _| {
            peer.send(ANSWER);
            if stays {
                peer.stream().shutdown(Shutdown::Write).unwrap();
                peer.rest();
            }
        });
        proxy.register(backend.address);
        for round in 0..10 {
            let answer = upload(&proxy, LARGE);
            assert_eq!(answer, Some((413, b"too large".to_vec())), "round {round}, the worker stays: {stays}");
        }
        proxy.assert_sound();
    }
}

#[test]
fn what_is_read_behind_an_answer_is_bounded_in_bytes_and_in_time() {
    for limits in ["linger_bytes_max = \"1MiB\"", "linger_timeout = \"300ms\""] {
        let mut proxy = Proxy::with(limits);
        let mut client = Raw::to(proxy.public);
        client.send("POST /up HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000000000000\r\n\r\n");
        let more = vec![b'x'; 1 << 16];
        let began = Instant::now();
        while client.send(&more) {
            assert!(began.elapsed() < PATIENCE, "it is still read: {limits}");
        }
        until("its place in the metrics", || connections(&proxy, "cut") == 1);
        proxy.assert_sound();
    }
}

#[test]
fn a_client_that_ends_its_side_behind_its_request_is_answered() {
    let mut proxy = Proxy::start();
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let backend = Backend::start(move |mut peer, head, _| {
        if head.contains("/slow") {
            told.lock().unwrap().recv().unwrap();
        }
        if head.contains("/whole") {
            // It answers a whole request only, and this one never becomes whole.
        } else if head.contains("/parts") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\no");
            std::thread::sleep(Duration::from_millis(300));
            peer.send("k");
        } else {
            peer.send(OK);
        }
        peer.rest();
    });
    proxy.register(backend.address);
    for (request, expected) in [
        (GET.to_owned(), 200),
        (GET.replace("1.1", "1.0"), 200),
        (GET.replace("/x", "/parts"), 200),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 200),
        ("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(), 200),
        ("POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab".to_owned(), 400),
    ] {
        let mut client = Raw::to(proxy.public);
        client.send(&request);
        client.stream().shutdown(Shutdown::Write).unwrap();
        let (mut status, mut head) = client.head();
        if status == 100 {
            (status, head) = client.head();
        }
        assert_eq!(status, expected, "{request}: {head}");
        assert_eq!(client.rest().ends_with(b"ok"), expected == 200, "{request}");
    }
    let mut client = Raw::to(proxy.public);
    client.send(GET.replace("/x", "/slow"));
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.head().1, "HTTP/1.1 100 Continue\r\n\r\n", "it is asked whether it is there");
    tell.send(()).unwrap();
    assert_eq!(client.head().0, 200);
    assert!(client.rest().ends_with(b"ok"));
    proxy.assert_sound();
}

#[test]
fn a_client_that_goes_away_takes_its_workers_request_along_whatever_it_has_heard() {
    let mut proxy = Proxy::start();
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::start(move |mut peer, head, _| {
        if head.contains("/begun") {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        }
        tell.lock().unwrap().send(()).unwrap();
        peer.rest();
        tell.lock().unwrap().send(()).unwrap();
    });
    proxy.register(backend.address);
    for (path, version) in [("/poll", "1.1"), ("/poll", "1.0"), ("/begun", "1.1"), ("/begun", "1.0")] {
        let mut client = Raw::to(proxy.public);
        client.stream().write_all(format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        if path == "/begun" {
            assert_eq!(client.head().0, 200);
        }
        let gone = Instant::now();
        drop(client);
        told.recv_timeout(PATIENCE).unwrap();
        let heard_at_once = path == "/poll" && version == "1.1";
        let bound = Duration::from_millis(if heard_at_once { 1000 } else { 5000 });
        assert!(gone.elapsed() < bound, "{path} HTTP/{version}: {:?}", gone.elapsed());
    }
    proxy.assert_sound();
}
