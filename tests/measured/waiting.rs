//! New clients while no worker can take them: held, bounded, and woken by the pool.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::{KEYED, Proxy, Reply, StepWorker, Wire, ask, eventually, within};
use crate::measure::alone;

const PATH: &str = "/ws/s1/control";

fn opening(proxy: &Proxy) -> JoinHandle<Result<Wire, Reply>> {
    let address = proxy.public;
    tokio::spawn(async move { Wire::open(address, PATH, &[]).await })
}

async fn waiting(proxy: &Proxy, wanted: f64) {
    eventually("so many wait", async || {
        let waiting = proxy.metrics().await.sum("requests_waiting", &[]);
        (waiting == wanted).then_some(())
    })
    .await;
}

async fn waits(proxy: &Proxy, result: &str, wanted: f64) {
    eventually(result, async || {
        let waited = proxy.metrics().await.sum("waits_total", &[("result", result)]);
        (waited == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_client_waits_while_the_only_worker_starts_again() {
    let _alone = alone();
    let proxy =
        Proxy::start(&KEYED.replace("name = \"default\"\n", "name = \"default\"\nhealth.interval = \"100ms\"\n"));
    let worker = StepWorker::start_alone().await;
    let address = worker.address;
    proxy.register("w", address).await;
    proxy.event_of(0, "backend.up").await;
    drop(worker);
    let opening = opening(&proxy);
    let public = proxy.public;
    let asking = tokio::spawn(async move { ask(public, "GET", PATH, &[], "").await });
    waiting(&proxy, 2.0).await;
    proxy.event_of(0, "backend.down").await;
    assert!(proxy.metrics().await.sum("backend_connects_total", &[]) <= 2.0, "it is not dialled in a loop");
    let worker = StepWorker::at(address).await;
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut knock = worker.knock().await;
        if knock.head.has("sec-websocket-key") {
            wires.push(knock.upgrade().await);
        } else {
            knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
    let mut client = within("the 101", opening).await.unwrap().unwrap();
    client.text("hello").await;
    assert_eq!(wires[0].hear().await.text(), "hello");
    assert_eq!(within("the answer", asking).await.unwrap().expect(200).text(), "ok");
    waits(&proxy, "served", 2.0).await;
    waiting(&proxy, 0.0).await;
}

#[tokio::test]
async fn a_worker_that_registers_gets_those_that_wait_for_it() {
    let _alone = alone();
    let proxy = Proxy::start(KEYED);
    let opening = opening(&proxy);
    waiting(&proxy, 1.0).await;
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let _wire = worker.accept().await;
    within("the 101", opening).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_no_worker_will_take_does_not_wait() {
    let _alone = alone();
    let proxy = Proxy::start(KEYED);
    let began = Instant::now();
    ask(proxy.public, "POST", PATH, &[], "{}").await.expect(503);
    let worker = StepWorker::start().await;
    proxy.register_as("w", json!({ "url": format!("ws://{}", worker.address), "serves": ["s2"] })).await;
    Wire::open(proxy.public, PATH, &[]).await.unwrap_err().expect(404);
    let at_once = Proxy::start(&format!("{KEYED}wait = 0\n"));
    Wire::open(at_once.public, PATH, &[]).await.unwrap_err().expect(503);
    ask(at_once.public, "GET", PATH, &[], "").await.expect(503);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_wait_is_as_long_as_the_route_says_and_ends_when_the_process_takes_nothing_new() {
    let _alone = alone();
    let proxy = Proxy::start(&format!("{KEYED}wait = \"300ms\"\n"));
    let began = Instant::now();
    Wire::open(proxy.public, PATH, &[]).await.unwrap_err().expect(503);
    assert!((300..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    waits(&proxy, "expired", 1.0).await;
    let mut proxy = Proxy::start(&format!("{KEYED}wait = \"1h\"\n"));
    let opening = opening(&proxy);
    waiting(&proxy, 1.0).await;
    proxy.signal(Signal::TERM);
    within("the answer", opening).await.unwrap().unwrap_err().expect(503);
    proxy.exited().await;
}

#[tokio::test]
async fn so_many_wait_at_once_and_a_client_that_leaves_makes_room() {
    let _alone = alone();
    let proxy = Proxy::start(&format!("[server]\nwaiting_max = 2\n{KEYED}wait = \"1h\"\n"));
    let _first = opening(&proxy);
    waiting(&proxy, 1.0).await;
    let mut second = TcpStream::connect(proxy.public).await.unwrap();
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut second, request.as_bytes()).await.unwrap();
    waiting(&proxy, 2.0).await;
    Wire::open(proxy.public, PATH, &[]).await.unwrap_err().expect(503);
    waits(&proxy, "full", 1.0).await;
    drop(second);
    waits(&proxy, "gone", 1.0).await;
    waiting(&proxy, 1.0).await;
    let _third = opening(&proxy);
    waiting(&proxy, 2.0).await;
}

#[tokio::test]
async fn a_handshake_that_waits_counts_for_the_limits() {
    let _alone = alone();
    let limits = "key_connections = 0\nkey_rate = 0\naddress_connections = 1\n";
    let proxy = Proxy::start(&KEYED.replace("key_connections = 0\nkey_rate = 0\n", limits));
    let opening = opening(&proxy);
    waiting(&proxy, 1.0).await;
    Wire::open(proxy.public, PATH, &[]).await.unwrap_err().expect(429);
    opening.abort();
    waits(&proxy, "gone", 1.0).await;
}
