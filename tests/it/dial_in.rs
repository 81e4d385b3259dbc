//! Workers that dial in: a worker behind a NAT parks connections, and is given work on them like any other.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::agent::{Agent, MiddleBox, backend_that, parked};
use crate::harness::step::Knock;
use crate::harness::tls::{TlsFiles, authority, params, pem, signed_by};
use crate::harness::wire::{Head, read_head};
use crate::harness::{Client, DemoWorker, Proxy, StepWorker, Wire, ask, eventually, within};

/// A listener for workers, beside one pool and a route by session.
fn config(attach: &str) -> String {
    format!("[attach]\nlisten = [\"127.0.0.1:0\"]\n{attach}{}", crate::harness::KEYED)
}

#[tokio::test]
async fn lp_09_a_worker_behind_a_nat_dials_in_parks_and_is_given_websockets_and_requests() {
    let proxy = Proxy::start(&config(""));
    let worker = DemoWorker::start("camera", &[]);
    let mut agent = Agent::start(
        &format!("http://{}", proxy.attach),
        &worker.address.to_string(),
        "camera",
        &["--serves", "s1", "--serves", "s2=front", "--label", "rack=7", "--max-pipes", "5", "--weight", "2"],
    );
    agent.says("dialled in").await;
    let backend = parked(&proxy, "camera", 8).await;
    assert_eq!((&backend["url"], &backend["lease_state"]), (&json!("attach:camera"), &json!("live")), "{backend}");
    assert_eq!((&backend["max_pipes"], &backend["weight"]), (&json!(5), &json!(2)), "{backend}");
    assert_eq!((&backend["labels"]["rack"], &backend["serves"]["s2"]), (&json!("7"), &json!("front")), "{backend}");
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    // What was taken is replaced at once.
    parked(&proxy, "camera", 8).await;
    let health = ask(proxy.public, "GET", "/ws/s1/health", &[], "").await;
    assert_ne!(health.status, 502, "{}", health.text());
    let metrics = eventually("eight are parked again", async || {
        let metrics = proxy.metrics().await;
        let parked = metrics.sum("attach_requests_total", &[("result", "parked")]);
        (metrics.sum("attach_parked", &[("pool", "default")]) >= 8.0 && parked >= 10.0).then_some(metrics)
    })
    .await;
    assert!(metrics.sum("attach_taken_total", &[("pool", "default"), ("result", "taken")]) >= 2.0);
    assert_eq!(metrics.sum("attach_taken_total", &[("result", "lost")]), 0.0);
    assert_eq!(proxy.pipes().await[0]["backend"], "camera");
}

/// A connection that is parked by hand.
async fn park(proxy: &Proxy, id: &str, instance: &str) -> (TcpStream, BytesMut) {
    let mut stream = TcpStream::connect(proxy.attach).await.unwrap();
    let request = format!(
        "GET /v1/attach?id={id}&instance={instance} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: holdline-attach/1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = BytesMut::new();
    let head = within("the answer", read_head(&mut stream, &mut buffer)).await.unwrap();
    assert!(head.line.starts_with("HTTP/1.1 101 "), "{head:?}");
    assert_eq!((head.header("upgrade"), head.has("holdline-parked-want")), ("holdline-attach/1", true));
    (stream, buffer)
}

#[tokio::test]
async fn a_worker_may_dial_in_by_itself_and_empty_lines_either_way_are_not_part_of_what_is_said() {
    let proxy = Proxy::start(&config("heartbeat = \"2s\"\n"));
    let (mut stream, mut buffer) = park(&proxy, "w1", "a").await;
    let mut second = park(&proxy, "w1", "a").await;
    parked(&proxy, "w1", 2).await;
    within("a sign of life", second.0.read_buf(&mut second.1)).await.unwrap();
    assert!(second.1.iter().all(|byte| b"\r\n".contains(byte)), "{:?}", second.1);
    second.0.write_all(b"\r\n").await.unwrap();
    let client = tokio::spawn({
        let public = proxy.public;
        async move { Wire::connect(public, "/ws/s1/x", &[]).await }
    });
    let taken = async {
        stream.write_all(b"\r\n").await.unwrap();
        tokio::select! {
            head = next_request(&mut stream, &mut buffer) => (true, head),
            head = next_request(&mut second.0, &mut second.1) => (false, head),
        }
    };
    let (is_first, head) = within("a request", taken).await;
    assert!(head.has("holdline-parked-want") && head.has("sec-websocket-key"), "{head:?}");
    let (stream, buffer) = if is_first { (stream, buffer) } else { second };
    let mut knock = Knock { head, stream, buffer };
    knock.stream.write_all(b"\r\n\r\n").await.unwrap();
    let mut worker = knock.upgrade().await;
    let mut client = within("the client's 101", client).await.unwrap();
    client.text("up").await;
    assert_eq!(worker.hear().await.text(), "up");
    worker.text("down").await;
    assert_eq!(client.hear().await.text(), "down");
}

/// The head of the request that comes behind empty lines.
async fn next_request(stream: &mut TcpStream, buffer: &mut BytesMut) -> Head {
    loop {
        let blank = buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        drop(buffer.split_to(blank));
        if buffer.windows(4).any(|end| end == b"\r\n\r\n") {
            return read_head(stream, buffer).await.unwrap();
        }
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "closed");
    }
}

#[tokio::test]
async fn flows_survive_a_box_in_the_middle_that_forgets_what_is_idle() {
    let beat = "heartbeat = \"1s\"\n[heartbeat]\nbackend_interval = \"1s\"\n";
    let proxy = Proxy::start(&config(beat));
    let middle = MiddleBox::start(proxy.attach, Duration::from_secs(5)).await;
    let worker = DemoWorker::start("w", &[]);
    let _agent = Agent::start(&format!("http://{}", middle.address), &worker.address.to_string(), "w1", &[]);
    parked(&proxy, "w1", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    parked(&proxy, "w1", 8).await;
    // Without signs of life each flow would be forgotten by the time that a flow of the test's own is.
    let mut own = TcpStream::connect(middle.address).await.unwrap();
    own.write_all(b"GET").await.unwrap();
    eventually("an idle flow is forgotten", async || (middle.forgotten.load(Relaxed) == 1).then_some(())).await;
    assert_eq!(client.exchange("after").await, "after");
    parked(&proxy, "w1", 8).await;
    assert_eq!(middle.forgotten.load(Relaxed), 1, "no other was");
    assert_eq!(proxy.metrics().await.sum("interruptions_total", &[]), 0.0);
}

#[tokio::test]
async fn flows_that_were_forgotten_all_the_same_are_noticed_and_opened_anew() {
    let proxy = Proxy::start(&config("heartbeat = \"2s\"\n"));
    // Forgets each flow between two signs of life.
    let middle = MiddleBox::start(proxy.attach, Duration::from_millis(500)).await;
    let worker = DemoWorker::start("w", &[]);
    let _agent = Agent::start(&format!("http://{}", middle.address), &worker.address.to_string(), "w1", &[]);
    eventually("flows are forgotten, and opened anew", async || {
        (middle.forgotten.load(Relaxed) >= 16 && middle.flows.load(Relaxed) >= 16).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_and_uploads_pass_through_an_agent_as_they_would_without() {
    let proxy = Proxy::start(&config(""));
    let worker = StepWorker::start().await;
    let _agent = Agent::of(&proxy, worker.address, "w1");
    parked(&proxy, "w1", 8).await;
    // An upload that is larger than what anything on its way holds.
    let upload = vec![b'u'; 3 << 20];
    let asking = tokio::spawn(ask_of(proxy.public, upload.clone()));
    let mut knock = worker.knock().await;
    assert!(knock.head.line.starts_with("POST /ws/s1/up "), "{:?}", knock.head);
    while knock.buffer.len() < upload.len() {
        within("more of the upload", knock.stream.read_buf(&mut knock.buffer)).await.unwrap();
    }
    knock.answer("HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    assert_eq!(within("the answer", asking).await.unwrap(), (201, "ok".to_owned()));
    // A worker that answers before it has read everything, and closes.
    let asking = tokio::spawn(ask_of(proxy.public, upload));
    let mut knock = worker.knock().await;
    knock.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge").await;
    drop(knock);
    assert_eq!(within("the early answer", asking).await.unwrap(), (413, "large".to_owned()));
}

async fn ask_of(address: std::net::SocketAddr, upload: Vec<u8>) -> (u16, String) {
    let reply = ask(address, "POST", "/ws/s1/up", &[], upload).await;
    (reply.status, reply.text())
}

#[tokio::test]
async fn half_an_answer_is_not_passed_on_as_a_whole_one() {
    let proxy = Proxy::start(&config(""));
    let worker = StepWorker::start().await;
    let _agent = Agent::of(&proxy, worker.address, "w1");
    parked(&proxy, "w1", 8).await;
    let mut client = TcpStream::connect(proxy.public).await.unwrap();
    client.write_all(b"GET /ws/s1/x HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut knock = worker.knock().await;
    knock.answer("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf").await;
    let mut read = BytesMut::new();
    while !read.ends_with(b"half\r\n") && !read.ends_with(b"half") {
        assert_ne!(within("half an answer", client.read_buf(&mut read)).await.unwrap(), 0, "{read:?}");
    }
    // A reset: the worker was cut off.
    socket2::SockRef::from(&knock.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(knock);
    let mut rest = Vec::new();
    let ended = within("the end", client.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "the last chunk says that the answer is whole: {rest:?}");
}

#[tokio::test]
async fn an_agent_dials_in_by_tls_and_trusts_only_whom_it_is_told_to() {
    let files = TlsFiles::new();
    let ours = authority("ours");
    let pair = files.pair("server", &signed_by(&ours, &params(&["127.0.0.1", "localhost"])));
    let trusted = files.write("ca.pem", &pem("CERTIFICATE", ours.der()));
    let token = ("HOLDLINE_TOKEN", "test2");
    let tokens = "worker 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 rack\noperator 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 me\n";
    let tokens = files.write("tokens", tokens);
    let text = format!(
        "[server]\ntls.certificates = [{pair}]\n[admin]\ntokens_file = {tokens:?}\n[attach]\nlisten = [\"0.0.0.0:0\"]\n{}",
        crate::harness::KEYED
    );
    let proxy = Proxy::start(&text);
    let worker = DemoWorker::start("w", &[]);
    let (to, forward) = (format!("https://127.0.0.1:{}", proxy.attach.port()), worker.address.to_string());
    let mut stranger = Agent::start_with(&to, &forward, "w1", &[], &[token]);
    stranger.says("the TLS handshake failed").await;
    let mut agent = Agent::start_with(&to, &forward, "w1", &["--ca", &trusted], &[token]);
    agent.says("dialled in").await;
    let mut client = eventually("a pipe", async || Client::open(proxy.public, "/ws/s1/echo").await.ok()).await;
    let long = "x".repeat(1 << 20);
    for text in ["short", &long, "again"] {
        assert_eq!(client.exchange(text).await, text);
    }
}

#[tokio::test]
async fn many_pipes_at_once_find_an_agent_that_parks_eight_and_has_it_park_more() {
    let proxy = Proxy::start(&config("wait = \"30s\"\n"));
    let worker = DemoWorker::start("w", &[]);
    let agent = Agent::of(&proxy, worker.address, "w1");
    parked(&proxy, "w1", 8).await;
    // It stands still, so that all that is parked is taken before any is replaced.
    agent.signal(Signal::STOP);
    let opening = (0..100).map(|name| {
        let public = proxy.public;
        tokio::spawn(async move { Client::connect(public, &format!("/ws/s{name}/echo")).await })
    });
    let (mut clients, opening) = (Vec::new(), opening.collect::<Vec<_>>());
    eventually("all are taken", async || (proxy.metrics().await.sum("attach_parked", &[]) == 0.0).then_some(())).await;
    agent.signal(Signal::CONT);
    for opened in opening {
        clients.push(within("a client", opened).await.unwrap());
    }
    for client in &mut clients {
        assert_eq!(client.exchange("all").await, "all");
    }
    let wanted = backend_that(&proxy, "w1", "more are parked", |backend| backend["parked"].as_u64() > Some(8)).await;
    assert_eq!(wanted["eligible"], true);
}
