//! Plain requests while the process or their worker is on its way out: they are answered first.

use std::net::SocketAddr;

use bytes::BytesMut;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::step::Knock;
use crate::harness::wire::{Head, read_head};
use crate::harness::{Proxy, StepWorker, eventually, within};

/// A client that reads its answers in parts.
struct Asker {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Asker {
    /// Sends the beginning of a request, and gives it as its worker sees it.
    async fn ask(to: SocketAddr, worker: &StepWorker, request: &str) -> (Self, Knock) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        (Self { stream, buffer: BytesMut::new() }, worker.knock().await)
    }

    async fn head(&mut self) -> Head {
        within("a head", read_head(&mut self.stream, &mut self.buffer)).await.expect("an answer")
    }

    /// What comes until the proxy closes.
    async fn rest(mut self) -> Vec<u8> {
        within("the end", async { while self.stream.read_buf(&mut self.buffer).await.unwrap() > 0 {} }).await;
        self.buffer.to_vec()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn a_stop_lets_plain_requests_be_answered_and_says_how_many() {
    let mut proxy = Proxy::start("[server]\nclose_spread = \"0s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut idle, mut knock) = Asker::ask(proxy.public, &worker, &get("/idle")).await;
    knock.answer("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert!(!idle.head().await.has("connection"));
    let (mut download, mut downloading) = Asker::ask(proxy.public, &worker, &get("/download")).await;
    downloading.answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
    assert_eq!(download.head().await.line, "HTTP/1.1 200 OK");
    let (mut poll, mut polled) = Asker::ask(proxy.public, &worker, &get("/poll")).await;
    let post = "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab";
    let (mut upload, mut uploading) = Asker::ask(proxy.public, &worker, post).await;

    proxy.signal(Signal::TERM);
    assert_eq!(proxy.logged("stopping", 1).await[0]["requests"], 3);
    assert_eq!(idle.rest().await, b"", "no request comes there");
    downloading.answer("cd").await;
    assert_eq!(download.rest().await, b"abcd");
    polled.answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwake").await;
    assert_eq!(poll.head().await.header("connection"), "close");
    assert_eq!(poll.rest().await, b"wake");
    upload.stream.write_all(b"cd").await.unwrap();
    while uploading.buffer.len() < 4 {
        assert!(within("the body", uploading.stream.read_buf(&mut uploading.buffer)).await.unwrap() > 0);
    }
    uploading.answer("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    let head = upload.head().await;
    assert_eq!((head.line.as_str(), head.header("connection")), ("HTTP/1.1 201 Created", "close"));
    drop(upload);
    assert_eq!(proxy.exited().await.code(), Some(0));
    let report = proxy.logged("stopped", 1).await.remove(0);
    assert_eq!((&report["failed"], &report["requests_cut"]), (&json!(0), &json!(0)), "{report}");
}

#[tokio::test]
async fn a_request_that_is_not_answered_by_the_end_of_the_grace_is_cut_and_counted() {
    let mut proxy = Proxy::start("[server]\nshutdown_grace = \"300ms\"\nclose_spread = \"0s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (poll, _held) = Asker::ask(proxy.public, &worker, &get("/poll")).await;
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await.code(), Some(0));
    let report = proxy.logged("stopped", 1).await.remove(0);
    assert_eq!(report["requests_cut"], 1, "{report}");
    assert!(report["seconds"].as_f64().unwrap() >= 0.3, "{report}");
    drop(poll);
}

#[tokio::test]
async fn a_drained_process_answers_and_keeps_no_connection() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut poll, mut polled) = Asker::ask(proxy.public, &worker, &get("/poll")).await;
    let (mut idle, mut knock) = Asker::ask(proxy.public, &worker, &get("/idle")).await;
    knock.answer("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    idle.head().await;
    proxy.api("PUT", "/v1/drain", None).await.expect(200);
    assert_eq!(idle.rest().await, b"");
    polled.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    assert_eq!(poll.head().await.header("connection"), "close");
    assert_eq!(poll.rest().await, b"ok");
    let (mut late, mut knock) = Asker::ask(proxy.public, &worker, &get("/late")).await;
    knock.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(late.head().await.header("connection"), "close", "a new connection is served once");
    assert_eq!(late.rest().await, b"");
}

#[tokio::test]
async fn the_drain_and_the_removal_of_a_backend_wait_for_its_requests() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    for removed in [false, true] {
        proxy.register("w", worker.address).await;
        let (mut poll, mut polled) = Asker::ask(proxy.public, &worker, &get("/poll")).await;
        let answer = if removed {
            proxy.api("DELETE", "/v1/backends/w", None).await
        } else {
            proxy.api("PUT", "/v1/backends/w/state", Some(json!({ "state": "drain" }))).await
        };
        assert_eq!(answer.expect(202).json()["requests"], 1);
        polled.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(poll.head().await.line, "HTTP/1.1 200 OK");
        if removed {
            let gone = async || (proxy.api("GET", "/v1/backends/w", None).await.status == 404).then_some(());
            eventually("its removal", gone).await;
        } else {
            proxy.event_of(0, "backend.drained").await;
            assert_eq!(proxy.get("/v1/backends/w").await["requests"], 0);
            proxy.api("PUT", "/v1/backends/w/state", Some(json!({ "state": "ready" }))).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_removal_does_not_wait_for_a_request_for_ever() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_poll, _polled) = Asker::ask(proxy.public, &worker, &get("/poll")).await;
    let drain = json!({ "state": "drain", "deadline": "200ms" });
    proxy.api("PUT", "/v1/backends/w/state", Some(drain)).await.expect(202);
    proxy.event_of(0, "backend.drained").await;
    assert_eq!(proxy.get("/v1/backends/w").await["requests"], 1);
    proxy.api("DELETE", "/v1/backends/w", None).await.expect(204);
}
