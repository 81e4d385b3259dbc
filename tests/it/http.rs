//! Plain HTTP on the same routes.

use std::time::Duration;

use bytes::BytesMut;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::wire::read_head;
use crate::harness::{Client, DemoWorker, KEYED, Proxy, StepWorker, ask, within};

/// The keyed route, and another for plain requests of the same key.
fn keyed() -> String {
    format!(
        "{KEYED}[[routes]]\nname = \"api\"\npath = \"/api/sessions/{{session}}/{{*rest}}\"\nkey = \"{{session}}\"\n\
         pool = \"default\"\n[[routes]]\nname = \"rest\"\npath = \"/{{*path}}\"\npool = \"default\"\n"
    )
}

#[tokio::test]
async fn ib_18_a_download_of_2_7_mb_comes_through_byte_for_byte() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    for query in ["", "?chunked=1"] {
        let reply = ask(proxy.public, "GET", &format!("/api/sessions/s1/download{query}"), &[], "").await.expect(200);
        assert_eq!(reply.body.len(), 2_700_000);
        let digest: String = Sha256::digest(&reply.body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(reply.header("x-checksum-sha256"), digest);
    }
}

#[tokio::test]
async fn ib_19_a_post_is_never_tried_twice() {
    let proxy = Proxy::start("");
    let [first, second] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let posting = ask(proxy.public, "POST", "/commands", &[], "tap");
    let dying = async {
        let knock = first.knock().await;
        proxy.register("second", second.address).await;
        drop(knock);
    };
    let (reply, ()) = tokio::join!(posting, dying);
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(second.is_left_alone_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn ib_19_requests_and_sockets_of_one_key_are_on_the_same_worker() {
    let proxy = Proxy::start(&keyed());
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[]), DemoWorker::start("c", &[])];
    for (id, worker) in ["a", "b", "c"].iter().zip(&workers) {
        proxy.register(id, worker.address).await;
    }
    let mut clients = Vec::new();
    for n in 0..9 {
        clients.push(Client::connect(proxy.public, &format!("/ws/s{n}/echo")).await);
    }
    for pipe in proxy.pipes().await {
        let path = format!("/api/sessions/{}/screenshot", pipe["key"].as_str().unwrap());
        for _ in 0..2 {
            let reply = ask(proxy.public, "GET", &path, &[], "").await.expect(200);
            assert_eq!(reply.header("x-worker"), pipe["backend"].as_str().unwrap(), "{path}");
        }
    }
}

#[tokio::test]
async fn ib_20_what_a_worker_refuses_stays_what_it_said() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let reply = ask(proxy.public, "GET", "/api/forbidden", &[], "").await.expect(403);
    assert_eq!(reply.json(), json!({ "detail": "Forbidden" }));
    let reply = ask(proxy.public, "GET", "/api/private", &[], "").await.expect(401);
    assert_eq!(reply.header("www-authenticate"), "Basic realm=\"worker\"");
    ask(proxy.public, "DELETE", "/api/sessions/s1/upload", &[], "").await.expect(405);
    ask(proxy.public, "GET", "/nowhere", &[], "").await.expect(404);
    worker.knob("reject?mode=403").await;
    assert_eq!(Client::open(proxy.public, "/ws/s1/control").await.unwrap_err(), 403, "on a first attach too");
}

#[tokio::test]
async fn ib_21_a_whole_worker_works_through_the_proxy() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    for path in ["/", "/static/worker.js", "/static/worker.css", "/status", "/api/sessions/s1/screenshot"] {
        let through = ask(proxy.public, "GET", path, &[], "").await.expect(200);
        let straight = ask(worker.address, "GET", path, &[], "").await.expect(200);
        assert_eq!(through.header("content-type"), straight.header("content-type"), "{path}");
        assert!(path.ends_with("screenshot") || path == "/status" || through.body == straight.body, "{path}");
    }
    assert_eq!(ask(proxy.public, "GET", "/health", &[], "").await.json()["worker"], "w", "the worker's, not ours");
    let sent = ask(proxy.public, "POST", "/api/sessions/s1/upload", &[], vec![1; 100_000]).await.expect(200);
    assert_eq!(sent.json()["bytes"], 100_000);
    let mut video = Client::connect(proxy.public, "/ws/s1/video?fps=20").await;
    assert!(video.hear().await.text().contains("\"type\":\"frame\""));
    let mut webrtc = Client::connect(proxy.public, "/ws/s1/webrtc").await;
    assert!(webrtc.exchange(r#"{"type":"offer","sdp":""}"#).await.contains("\"answer\""));
    let mut screenshot = Client::connect(proxy.public, "/ws/s1/screenshot").await;
    screenshot.hear().await.text();
    let mut echo = Client::connect(proxy.public, "/ws/s1/echo").await;
    echo.binary(vec![0, 1, 2]).await;
    assert_eq!(echo.hear().await, crate::harness::Said::Binary(vec![0, 1, 2]));
}

#[tokio::test]
async fn lp_01_a_get_held_60_s_by_its_worker_passes_untouched_with_basic_auth() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut client = TcpStream::connect(proxy.public).await.unwrap();
    let request = "GET /poll?timeout=60 HTTP/1.1\r\nHost: cam\r\nAuthorization: Basic ZGVtbzpkZW1v\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut knock = worker.knock().await;
    assert_eq!(knock.head.line, "GET /poll?timeout=60 HTTP/1.1");
    assert_eq!(knock.head.header("authorization"), "Basic ZGVtbzpkZW1v");
    // this is the worker's time, not ours
    tokio::time::sleep(Duration::from_secs(60)).await;
    knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Event: yes\r\n\r\nwake").await;
    let mut buffer = BytesMut::new();
    let head = within("the answer", read_head(&mut client, &mut buffer)).await.unwrap();
    assert_eq!((head.line.as_str(), head.header("x-event")), ("HTTP/1.1 200 OK", "yes"));
    while buffer.len() < 4 {
        assert!(within("the body", client.read_buf(&mut buffer)).await.unwrap() > 0);
    }
    assert_eq!(&buffer[..], b"wake");
}

/// Answers each request of `worker` once its body has come.
async fn answers(worker: StepWorker) {
    loop {
        let mut knock = worker.knock_unbounded().await;
        let length: usize = knock.head.header("content-length").parse().unwrap_or(0);
        let in_chunks = knock.head.has("transfer-encoding");
        while knock.buffer.len() < length || in_chunks && !knock.buffer.ends_with(b"0\r\n\r\n") {
            assert!(knock.stream.read_buf(&mut knock.buffer).await.unwrap() > 0, "the body broke off");
        }
        knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    }
}

/// The statuses of the answers to what is sent on one connection, up to its end.
async fn statuses(proxy: &Proxy, sent: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(proxy.public).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answers = String::new();
    within("the end of the connection", stream.read_to_string(&mut answers)).await.unwrap();
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[tokio::test]
async fn a_bare_lf_is_400_in_whichever_head_of_a_connection_it_stands() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let answering = tokio::spawn(answers(worker));
    let get = "GET /?q=<a> HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab\n\ncd";
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\n\n\r\n0\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let sound = [post, get, chunks, get, post, last].concat();
    assert_eq!(statuses(&proxy, &sound).await, ["200"; 6]);
    for before in [get, post, chunks] {
        let bad = format!("{before}GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n");
        assert_eq!(statuses(&proxy, &bad).await, ["200", "400"], "{bad:?}");
    }
    answering.abort();
}
