//! The demo worker as a process: its endpoints, its journal, its knobs and its stop.

// the helpers here are tests too, which clippy only sees of functions marked as such
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, process::Stdio, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

/// Nothing here takes this long; a hang fails instead of waiting for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

struct Worker {
    process: Child,
    address: SocketAddr,
}

type Socket = WebSocketStream<TcpStream>;

impl Worker {
    async fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_holdline"))
            .args(["worker", "--name", "w-1", "--command-ms", "0"])
            .args(arguments)
            .env("HOLDLINE_TOKEN", "t-1")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["listening"].as_str().unwrap().parse().unwrap();
        Self { process, address }
    }

    async fn connect(&self, path: &str) -> Socket {
        self.try_connect(path).await.unwrap()
    }

    async fn try_connect(&self, path: &str) -> Result<Socket, Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        request.headers_mut().insert("holdline-pipe", "p".repeat(22).parse().unwrap());
        request.headers_mut().insert("holdline-attach", "3".parse().unwrap());
        let stream = TcpStream::connect(self.address).await?;
        timeout(PATIENCE, client_async(request, stream)).await.unwrap().map(|(socket, _)| socket)
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (http::response::Parts, Bytes) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let request = http::Request::builder().method(method).uri(path).header("host", self.address.to_string());
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let exchange = async move {
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            (head, body.collect().await.unwrap().to_bytes())
        };
        timeout(PATIENCE, async { tokio::join!(exchange, connection).0 }).await.unwrap()
    }

    async fn knob(&self, knob: &str) {
        let (head, body) = self.ask("POST", knob, b"").await;
        assert_eq!(head.status, 200, "{knob}: {body:?}");
    }

    async fn journal(&self, wanted: &str) -> Value {
        let (head, body) = self.ask("GET", &format!("/__journal?{wanted}"), b"").await;
        assert_eq!(head.status, 200, "{wanted}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap().code()
    }
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(PATIENCE, socket.next()).await.unwrap()
}

async fn next_text(socket: &mut Socket) -> String {
    next(socket).await.unwrap().unwrap().into_text().unwrap().to_string()
}

async fn closed_with(socket: &mut Socket) -> (u16, String) {
    loop {
        match next(socket).await.unwrap().unwrap() {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => panic!("closed without a code"),
            _ => {}
        }
    }
}

async fn is_silent(socket: &mut Socket) -> bool {
    timeout(SILENCE, socket.next()).await.is_err()
}

fn tap(number: u64) -> Message {
    json!({ "t": "tap", "x": 100, "y": 200, "n": number }).to_string().into()
}

fn numbers(journal: &Value) -> Vec<u64> {
    journal["commands"].as_array().unwrap().iter().map(|entry| entry["n"].as_u64().unwrap()).collect()
}

fn connection<'a>(journal: &'a Value, channel: &str) -> &'a Value {
    let connections = journal["connections"].as_array().unwrap();
    connections.iter().find(|entry| entry["channel"] == channel).unwrap()
}

#[tokio::test]
async fn taps_are_executed_in_order_and_journalled_with_their_attachment() {
    let worker = Worker::start(&[]).await;
    let mut control = worker.connect("/ws/s1/control?echo=1&x=y").await;
    for number in 1..=50 {
        control.send(tap(number)).await.unwrap();
    }
    for number in 1..=50 {
        assert_eq!(next_text(&mut control).await, format!("{{\"ack\":{number}}}"));
    }
    let journal = worker.journal("session=s1&commands=50").await;
    assert_eq!(numbers(&journal), (1..=50).collect::<Vec<_>>());
    assert_eq!((&journal["commands"][0]["attach"], &journal["commands"][0]["connection"]), (&json!(3), &json!(1)));
    let page = connection(&journal, "control");
    assert_eq!(
        (&page["query"], &page["messages"], &page["headers"]["holdline-attach"]),
        (&json!("echo=1&x=y"), &json!(50), &json!("3"))
    );
    let mut digest = Sha256::new();
    for number in 1..=50 {
        let text = tap(number).into_text().unwrap();
        digest.update([1]);
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(page["sha256"], digest);
}

#[tokio::test]
async fn an_unanswered_tap_stays_unanswered() {
    let worker = Worker::start(&[]).await;
    let mut control = worker.connect("/ws/s1/control").await;
    control.send(tap(1)).await.unwrap();
    worker.journal("commands=1").await;
    assert!(is_silent(&mut control).await);
}

#[tokio::test]
async fn video_frames_are_whole_json_of_a_real_frames_size() {
    let worker = Worker::start(&[]).await;
    let mut video = worker.connect("/ws/s1/video?fps=60&sha=1&big=50&big_bytes=1200000").await;
    let mut last = 0;
    for count in 1..=4 {
        let text = next_text(&mut video).await;
        let frame: Value = serde_json::from_str(&text).unwrap();
        let wanted = if count % 2 == 0 { 1_200_000..1_200_001 } else { 224_000..230_000 };
        assert!(wanted.contains(&text.len()), "frame {count}: {}", text.len());
        let jpeg = STANDARD.decode(frame["data"].as_str().unwrap()).unwrap();
        let digest: String = Sha256::digest(&jpeg).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(frame["sha"], digest);
        assert_eq!((&frame["worker"], &frame["session"]), (&json!("w-1"), &json!("s1")));
        let seq = frame["seq"].as_u64().unwrap();
        assert!(seq > last);
        last = seq;
    }
}

#[tokio::test]
async fn echo_keeps_kinds_and_bytes_and_answers_pings() {
    let worker = Worker::start(&[]).await;
    let mut echo = worker.connect("/ws/s1/echo?record=1").await;
    let big = vec![7_u8; 4 << 20];
    let sent =
        [Message::text("hello"), Message::binary(big), Message::binary(Vec::new()), Message::text("ü".repeat(65_536))];
    let (mut sink, mut source) = (&mut echo).split();
    let send = async {
        for message in sent.clone() {
            sink.send(message).await.unwrap();
        }
        sink.send(Message::Ping("p1".into())).await.unwrap();
    };
    let receive = async {
        let mut got = Vec::new();
        while got.len() < 5 {
            got.push(timeout(PATIENCE, source.next()).await.unwrap().unwrap().unwrap());
        }
        got
    };
    let ((), got) = tokio::join!(send, receive);
    let (pongs, data): (Vec<_>, Vec<_>) = got.into_iter().partition(Message::is_pong);
    assert_eq!(pongs, [Message::Pong("p1".into())]);
    assert_eq!(data, sent);
    let journal = worker.journal("messages=4").await;
    assert_eq!(connection(&journal, "echo")["recorded"][1]["bytes"], 4 << 20);
}

#[tokio::test]
async fn a_draining_worker_waits_for_its_queue_and_lets_nobody_in() {
    let worker = Worker::start(&[]).await;
    let mut control = worker.connect("/ws/s1/control?echo=1").await;
    let mut video = worker.connect("/ws/s1/video?fps=60").await;
    worker.knob("/__hold").await;
    for number in 1..=10 {
        control.send(tap(number)).await.unwrap();
    }
    worker.journal("messages=10").await;
    worker.knob("/__step?n=3").await;
    for _ in 1..=3 {
        next_text(&mut control).await;
    }
    worker.knob("/__term").await;
    assert_eq!(closed_with(&mut video).await.0, 1012);
    assert!(is_silent(&mut control).await, "the queue is not empty yet");
    assert!(TcpStream::connect(worker.address).await.is_err(), "no new client is let in");
}

#[tokio::test]
async fn sigterm_drains_a_queue_of_slow_commands() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let mut worker = Worker::start(&["--journal", path]).await;
    let mut control = worker.connect("/ws/s1/control?command_ms=20").await;
    for number in 1..=20 {
        control.send(tap(number)).await.unwrap();
    }
    worker.journal("messages=20").await;
    let pid = worker.process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(closed_with(&mut control).await, (1012, "Service Restart".into()));
    control.next().await;
    assert_eq!(worker.exit_code().await, Some(0));
    let lines = std::fs::read_to_string(path).unwrap();
    let executed: Vec<_> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap()).collect();
    assert_eq!(executed, (1..=20).collect::<Vec<_>>(), "the file has them all, too");
}

#[tokio::test]
async fn a_queue_is_finished_after_its_client_has_gone() {
    let worker = Worker::start(&[]).await;
    let mut control = worker.connect("/ws/s1/control").await;
    worker.knob("/__hold").await;
    for number in 1..=5 {
        control.send(tap(number)).await.unwrap();
    }
    worker.journal("messages=5").await;
    drop(control);
    worker.knob("/__release").await;
    let journal = worker.journal("commands=5&closed=1").await;
    assert_eq!(numbers(&journal), [1, 2, 3, 4, 5]);
    assert_eq!(connection(&journal, "control")["closed"]["by"], "broken");
}

#[tokio::test]
async fn a_killed_workers_file_tells_what_it_executed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut worker = Worker::start(&["--journal", file.path().to_str().unwrap()]).await;
    let mut control = worker.connect("/ws/s1/control").await;
    worker.knob("/__hold").await;
    for number in 1..=9 {
        control.send(tap(number)).await.unwrap();
    }
    worker.knob("/__step?n=4").await;
    worker.journal("commands=4&messages=9").await;
    let stream = TcpStream::connect(worker.address).await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(b"POST /__kill HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // EOF or reset, but no answer
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty());
    assert!(!matches!(next(&mut control).await, Some(Ok(_))), "no close frame either");
    assert_ne!(worker.exit_code().await, Some(0));
    let lines = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(lines.lines().count(), 4);
}

#[tokio::test]
async fn pull_style_answers_pings_only_after_what_came_before() {
    let worker = Worker::start(&["--pull"]).await;
    let mut control = worker.connect("/ws/s1/control").await;
    worker.knob("/__hold").await;
    control.send(tap(1)).await.unwrap();
    control.send(Message::Ping("p".into())).await.unwrap();
    worker.journal("messages=1").await;
    assert!(is_silent(&mut control).await);
    worker.knob("/__step").await;
    assert_eq!(next(&mut control).await.unwrap().unwrap(), Message::Pong("p".into()));
    assert_eq!(numbers(&worker.journal("commands=1").await), [1]);
}

#[tokio::test]
async fn queue_style_answers_pings_while_a_command_waits() {
    let worker = Worker::start(&[]).await;
    let mut control = worker.connect("/ws/s1/control").await;
    worker.knob("/__hold").await;
    control.send(tap(1)).await.unwrap();
    control.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut control).await.unwrap().unwrap(), Message::Pong("p".into()));
    assert_eq!(numbers(&worker.journal("").await), [0; 0]);
}

#[tokio::test]
async fn closes_and_ends_reach_only_what_they_are_meant_for() {
    let worker = Worker::start(&[]).await;
    let mut a = worker.connect("/ws/s1/echo").await;
    let mut b = worker.connect("/ws/s2/echo").await;
    let mut c = worker.connect("/ws/s2/control?echo=1").await;
    worker.knob("/__close?code=4321&reason=so%20it%20is&session=s1").await;
    assert_eq!(closed_with(&mut a).await, (4321, "so it is".into()));
    worker.knob("/__fin?path=echo").await;
    assert!(!matches!(next(&mut b).await, Some(Ok(_))), "ends without a close frame");
    c.send(tap(1)).await.unwrap();
    assert_eq!(next_text(&mut c).await, "{\"ack\":1}");
    drop(b);
    let journal = worker.journal("closed=2").await;
    assert_eq!(journal["connections"][0]["closed"]["code"], 4321);
    assert_eq!(journal["connections"][1]["closed"]["code"], Value::Null);
}

#[tokio::test]
async fn a_frozen_worker_answers_nothing_and_comes_back() {
    let worker = Worker::start(&[]).await;
    let mut echo = worker.connect("/ws/s1/echo").await;
    worker.knob("/__freeze?ms=1500").await;
    echo.send(Message::Ping("p".into())).await.unwrap();
    echo.send(Message::text("hello")).await.unwrap();
    assert!(is_silent(&mut echo).await);
    assert_eq!(next(&mut echo).await.unwrap().unwrap(), Message::Pong("p".into()));
    assert_eq!(next_text(&mut echo).await, "hello");
    assert_eq!(worker.ask("GET", "/health", b"").await.0.status, 200);
}

#[tokio::test]
async fn half_open_and_mute_sockets_are_silent_others_are_not() {
    let worker = Worker::start(&[]).await;
    let mut before = worker.connect("/ws/s1/echo").await;
    worker.knob("/__mute").await;
    let mut muted = worker.connect("/ws/s1/echo").await;
    worker.knob("/__mute?mode=off").await;
    let mut after = worker.connect("/ws/s2/echo").await;
    muted.send(Message::Ping("p".into())).await.unwrap();
    assert!(is_silent(&mut muted).await);
    before.send(Message::text("1")).await.unwrap();
    assert_eq!(next_text(&mut before).await, "1");
    worker.knob("/__halfopen?session=s1").await;
    before.send(Message::text("2")).await.unwrap();
    assert!(is_silent(&mut before).await);
    after.send(Message::text("3")).await.unwrap();
    assert_eq!(next_text(&mut after).await, "3");
}

#[tokio::test]
async fn rejections_come_as_asked_for_and_run_out() {
    let worker = Worker::start(&[]).await;
    for (mode, status) in [("403", 403), ("429", 429)] {
        worker.knob(&format!("/__reject?mode={mode}&count=1")).await;
        match worker.try_connect("/ws/s1/echo").await {
            Err(Error::Http(response)) => assert_eq!(response.status(), status),
            other => panic!("{mode}: {other:?}"),
        }
    }
    worker.knob("/__reject?mode=4004&count=1").await;
    assert_eq!(closed_with(&mut worker.connect("/ws/s1/video").await).await.0, 4004);
    worker.knob("/__reject?mode=drop&count=1").await;
    assert!(worker.try_connect("/ws/s1/echo").await.is_err());
    worker.knob("/__reject?mode=silent&path=video").await;
    let mut silent = worker.connect("/ws/s1/video?fps=60").await;
    silent.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut silent).await.unwrap().unwrap(), Message::Pong("p".into()), "the library lives");
    assert!(is_silent(&mut silent).await, "the application does not");
    worker.knob("/__reject?mode=off").await;
    next_text(&mut worker.connect("/ws/s1/video?fps=60").await).await;
}

#[tokio::test]
async fn a_slow_reader_pushes_back() {
    let worker = Worker::start(&[]).await;
    let mut echo = worker.connect("/ws/s1/echo").await;
    worker.knob("/__slow?bps=20000&path=echo").await;
    let begun = std::time::Instant::now();
    echo.send(Message::binary(vec![0; 8_000])).await.unwrap();
    assert_eq!(next(&mut echo).await.unwrap().unwrap().len(), 8_000);
    assert!(begun.elapsed() > Duration::from_millis(300), "8 kB at 20 kB/s came in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_session_of_another_worker_is_4004_after_the_accept() {
    let worker = Worker::start(&["--serves", "s1,udid-9=mine"]).await;
    for session in ["s2", "udid-9"] {
        let mut socket = worker.connect(&format!("/ws/{session}/video")).await;
        assert_eq!(closed_with(&mut socket).await, (4004, "Session not found".into()));
    }
    next_text(&mut worker.connect("/ws/mine/screenshot").await).await;
    assert_eq!(worker.ask("GET", "/api/sessions/s2", b"").await.0.status, 404);
}

#[tokio::test]
async fn rest_streams_both_ways_and_tells_digests() {
    let worker = Worker::start(&[]).await;
    let (head, body) = worker.ask("GET", "/api/sessions/s1/download?bytes=2700000", b"").await;
    assert_eq!(body.len(), 2_700_000);
    let digest = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(head.headers["x-checksum-sha256"], digest(&body).as_str());
    let (_, answer) = worker.ask("POST", "/api/sessions/s1/upload", &body).await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer, json!({ "bytes": 2_700_000, "sha256": digest(&body) }));
    let (head, jpeg) = worker.ask("GET", "/api/sessions/s1/screenshot", b"").await;
    assert_eq!(head.headers["content-type"], "image/jpeg");
    assert_eq!(jpeg[..2], [0xff, 0xd8]);
    for (path, status) in [
        ("/", 200),
        ("/static/worker.js", 200),
        ("/api/forbidden", 403),
        ("/api/private", 401),
        ("/ws/s1/video", 426),
        ("/nowhere", 404),
    ] {
        assert_eq!(worker.ask("GET", path, b"").await.0.status, status, "{path}");
    }
    assert_eq!(worker.ask("POST", "/__freeze?sm=1", b"").await.0.status, 400);
}

#[tokio::test]
async fn a_poll_that_its_client_gave_up_is_journalled_as_cancelled() {
    let worker = Worker::start(&[]).await;
    worker.ask("GET", "/api/poll?hold_ms=1", b"").await;
    let mut stream = TcpStream::connect(worker.address).await.unwrap();
    stream.write_all(b"GET /api/poll?hold_ms=150000 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    worker.journal("requests=2").await;
    drop(stream);
    let journal = worker.journal("requests=2&ended=2").await;
    let outcomes: Vec<_> =
        journal["requests"].as_array().unwrap().iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["answered", "cancelled"]);
}

/// One request to the stub of an admin API: its first line and body, answered with `status` and `answer`.
async fn admin_call(admin: &TcpListener, status: &str, answer: &Value) -> (String, Value) {
    let (stream, _) = timeout(PATIENCE, admin.accept()).await.unwrap().unwrap();
    let mut stream = BufReader::new(stream);
    let (mut line, mut bytes) = (String::new(), 0);
    stream.read_line(&mut line).await.unwrap();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.unwrap();
        match header.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", length)) => bytes = length.parse().unwrap(),
            Some(("authorization", token)) => assert_eq!(token, "bearer t-1"),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).await.unwrap();
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let request = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    (request, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_worker_registers_renews_comes_back_after_404_and_says_goodbye() {
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", admin.local_addr().unwrap());
    let arguments = ["--register", &url, "--serves", "u1=s1", "--pool", "p", "--label", "zone=a", "--lease", "300ms"];
    let mut worker = Worker::start(&arguments).await;
    let (request, body) = admin_call(&admin, "201 Created", &json!({})).await;
    assert_eq!(request, "PUT /v1/backends/w-1");
    let instance = body["instance"].clone();
    let wanted = json!({
        "url": format!("ws://{}", worker.address), "pool": "p", "serves": { "u1": "s1" },
        "labels": { "zone": "a" }, "lease": "300ms", "instance": instance,
    });
    assert_eq!(body, wanted);
    let renewed = json!({ "expires_at": "2030-01-01T00:00:00Z", "renew_after": "60ms", "directives": [] });
    let lease = "PUT /v1/backends/w-1/lease".to_owned();
    assert_eq!(admin_call(&admin, "200 OK", &renewed).await, (lease.clone(), json!({})));
    assert_eq!(admin_call(&admin, "503 Service Unavailable", &json!({})).await.0, lease);
    assert_eq!(admin_call(&admin, "404 Not Found", &json!({})).await.0, lease);
    assert_eq!(admin_call(&admin, "200 OK", &json!({})).await, ("PUT /v1/backends/w-1".into(), wanted));
    worker.knob("/__term").await;
    loop {
        let (request, _) = admin_call(&admin, "204 No Content", &json!({})).await;
        if request == "DELETE /v1/backends/w-1" {
            break;
        }
        assert_eq!(request, lease, "at most a renewal comes in between");
    }
    assert_eq!(worker.exit_code().await, Some(0));
}
