//! What a server of the operator's is told of the life of pipes: signed, in order, and never in the way of a message.

use std::net::SocketAddr;

use bytes::BytesMut;
use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::wire::{Head, read_head};
use crate::harness::{Proxy, Said, StepWorker, Wire, eventually, within};

const SECRET: &str = "a secret of sixteen bytes and more";

/// The server, stepped by hand.
struct Hook {
    listener: TcpListener,
    address: SocketAddr,
}

/// One request to it.
struct Told {
    stream: TcpStream,
    head: Head,
    body: Vec<u8>,
}

impl Hook {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next request, on a connection of its own.
    async fn hear(&self) -> Told {
        let (stream, _) = within("a connection to the hook", self.listener.accept()).await.unwrap();
        Told::read(stream).await.unwrap()
    }
}

impl Told {
    /// The request on a connection; nothing if it ends first.
    async fn read(mut stream: TcpStream) -> Option<Self> {
        let mut buffer = BytesMut::new();
        let head = within("the head", read_head(&mut stream, &mut buffer)).await?;
        let length: usize = head.header("content-length").parse().unwrap();
        while buffer.len() < length {
            within("the body", stream.read_buf(&mut buffer)).await.unwrap();
        }
        Some(Self { stream, head, body: buffer.to_vec() })
    }

    async fn answer(&mut self, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }

    fn events(&self) -> Vec<Value> {
        serde_json::from_slice::<Value>(&self.body).unwrap()["events"].as_array().unwrap().clone()
    }

    /// Whether it is signed as the guide says.
    fn is_signed(&self) -> bool {
        let signature = self.head.header("holdline-signature");
        let (time, mac) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        let expected = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let expected = expected.chain_update(format!("{time}.")).chain_update(&self.body).finalize().into_bytes();
        mac == expected.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    }
}

struct Rig {
    proxy: Proxy,
    worker: StepWorker,
    hook: Hook,
    _secret: tempfile::NamedTempFile,
}

async fn rig(more: &str) -> Rig {
    let (hook, secret) = (Hook::start().await, tempfile::NamedTempFile::new().unwrap());
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let proxy = Proxy::start(&format!(
        "[hooks]\nurl = \"http://{}/hook\"\nsecret_file = {:?}\n{more}\n[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n\
         [[routes]]\nname = \"ws\"\npath = \"/ws/{{client}}\"\npool = \"default\"\nclient_id = \"{{client}}\"\nkey = \"{{client}}\"\n",
        hook.address,
        secret.path().to_str().unwrap()
    ));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    Rig { proxy, worker, hook, _secret: secret }
}

impl Rig {
    async fn pair(&self, path: &str) -> (Wire, Wire) {
        tokio::join!(Wire::connect(self.proxy.public, path, &[]), self.worker.accept())
    }

    async fn count(&self, name: &str, result: &str, wanted: f64) {
        eventually(result, async || {
            (self.proxy.metrics().await.sum(name, &[("result", result)]) == wanted).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_life_of_a_pipe_is_told_in_order_and_signed() {
    let rig = rig("").await;
    let (client, mut wire) = rig.pair("/ws/c1").await;
    client.reset();
    rig.proxy.event_of(0, "pipe.client_detached").await;
    let mut client = Wire::connect(rig.proxy.public, "/ws/c1", &[]).await;
    client.text("back").await;
    assert_eq!(wire.hear().await, Said::Text("back".into()));
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    wire.close(1000, "bye").await;
    let mut events: Vec<Value> = Vec::new();
    while events.last().is_none_or(|event| event["type"] != "pipe.ended") {
        let mut told = rig.hook.hear().await;
        assert!(told.is_signed(), "{:?}", told.head);
        assert_eq!(told.head.line, "POST /hook HTTP/1.1");
        events.extend(told.events());
        told.answer("204 No Content").await;
    }
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["pipe.opened", "pipe.client_detached", "pipe.client_attached", "pipe.ended"]);
    let (opened, ended) = (&events[0], &events[3]);
    assert_eq!((&opened["route"], &opened["key"], &opened["backend"]), (&"ws".into(), &"c1".into(), &"w".into()));
    assert_eq!((&ended["by"], &ended["code"], &ended["up"]["accepted"]), (&"client".into(), &1000.into(), &1.into()));
    assert!(events.iter().all(|event| event["pipe"] == opened["pipe"]));
    rig.count("hook_events_total", "delivered", 4.0).await;
    assert_eq!(rig.proxy.metrics().await.sum("hook_queue_events", &[]), 0.0);
    assert!(rig.proxy.log().iter().all(|line| !line.contains(SECRET)));
}

#[tokio::test]
async fn a_server_that_fails_is_told_again_and_the_events_keep_their_ids() {
    let rig = rig("timeout = \"2s\"").await;
    let (_client, _wire) = rig.pair("/ws/c1").await;
    let mut failed = rig.hook.hear().await;
    failed.answer("503 Service Unavailable").await;
    let mut moved = rig.hook.hear().await;
    let elsewhere = Hook::start().await;
    moved.answer(&format!("307 Temporary Redirect\r\nLocation: http://{}/", elsewhere.address)).await;
    let stalled = rig.hook.hear().await;
    let mut taken = rig.hook.hear().await;
    taken.answer("200 OK").await;
    assert!(failed.body == taken.body && moved.body == taken.body && stalled.body == taken.body);
    assert!(taken.is_signed());
    rig.count("hook_events_total", "delivered", 1.0).await;
    assert_eq!(rig.proxy.metrics().await.sum("hook_attempts_total", &[("result", "failed")]), 3.0);
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), elsewhere.listener.accept()).await;
    assert!(asked.is_err(), "no redirect is followed");
}

#[tokio::test]
async fn events_that_the_server_refuses_are_counted_and_not_told_again() {
    let rig = rig("").await;
    let (_first, _wire) = rig.pair("/ws/c1").await;
    rig.hook.hear().await.answer("410 Gone").await;
    rig.count("hook_events_total", "refused", 1.0).await;
    let (_second, _wire) = rig.pair("/ws/c2").await;
    let mut told = rig.hook.hear().await;
    assert_eq!(told.events()[0]["key"], "c2");
    told.answer("200 OK").await;
    rig.count("hook_events_total", "delivered", 1.0).await;
}

#[tokio::test]
async fn a_server_that_stands_still_keeps_no_message_waiting_and_what_does_not_fit_is_counted() {
    let rig = rig("queue_max = 2\ntimeout = \"10m\"").await;
    let (_first, _wire) = rig.pair("/ws/c0").await;
    let _stands_still = rig.hook.hear().await;
    let mut open = Vec::new();
    for number in 1..=5 {
        let (mut client, mut wire) = rig.pair(&format!("/ws/c{number}")).await;
        client.text("through").await;
        assert_eq!(wire.hear().await, Said::Text("through".into()));
        open.push((client, wire));
    }
    rig.count("hook_events_total", "dropped", 3.0).await;
    assert_eq!(rig.proxy.metrics().await.sum("hook_queue_events", &[]), 3.0, "one is under way");
}

#[tokio::test]
async fn what_is_queued_is_told_when_the_process_ends() {
    let mut rig = rig("").await;
    let (_client, _wire) = rig.pair("/ws/c1").await;
    rig.proxy.signal(Signal::TERM);
    let mut types = Vec::new();
    while !types.contains(&Value::from("pipe.ended")) {
        let mut told = rig.hook.hear().await;
        types.extend(told.events().iter().map(|event| event["type"].clone()));
        told.answer("200 OK").await;
    }
    assert!(rig.proxy.exited().await.success());
}
