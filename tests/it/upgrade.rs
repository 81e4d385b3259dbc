//! A new process takes over: its clients keep their sockets, and neither they nor their workers see anything of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::wire::{BINARY, CONTINUATION, PONG, TEXT};
use crate::harness::{Client, KEYED, Proxy, Said, StepWorker, Wire, eventually};

/// A worker that answers each message with the same one and then with one of its own numbers.
struct Counting {
    address: SocketAddr,
    /// Connections that it was given.
    accepted: Arc<AtomicUsize>,
    _serving: JoinHandle<()>,
}

impl Counting {
    async fn start() -> Self {
        let worker = StepWorker::start().await;
        let (address, accepted) = (worker.address, Arc::new(AtomicUsize::new(0)));
        let counted = accepted.clone();
        let serving = tokio::spawn(async move {
            loop {
                let wire = worker.knock_unbounded().await.upgrade().await;
                counted.fetch_add(1, SeqCst);
                tokio::spawn(count(wire.mortal()));
            }
        });
        Self { address, accepted, _serving: serving }
    }
}

async fn count(mut wire: Wire) {
    let mut own = 0;
    while let Said::Text(text) = wire.hear_unbounded().await {
        wire.text(&text).await;
        wire.text(&format!("own {own}")).await;
        own += 1;
    }
}

/// Numbers to and fro until it is told to end; how many rounds there were. Anything missing, twice or in another order fails.
async fn converse(mut client: Client, end: watch::Receiver<bool>) -> (Client, u64) {
    let mut round = 0;
    while !*end.borrow() {
        assert_eq!(client.exchange(&format!("number {round}")).await, format!("number {round}"));
        assert_eq!(client.hear().await, Said::Text(format!("own {round}")));
        round += 1;
    }
    (client, round)
}

async fn pair(proxy: &Proxy, worker: &StepWorker, path: &str) -> (Wire, Wire) {
    tokio::join!(Wire::connect(proxy.public, path, &[]), worker.accept())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_new_processes_take_over_one_after_another_amid_numbered_traffic_both_ways() {
    const CLIENTS: usize = 60;
    let mut proxy = Proxy::start(KEYED);
    let worker = Counting::start().await;
    proxy.register("w", worker.address).await;
    let (end, ended) = watch::channel(false);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let client = Client::connect(proxy.public, &format!("/ws/s{n}/control")).await;
        clients.push(tokio::spawn(converse(client, ended.clone())));
    }
    let before: Vec<Value> = proxy.pipes().await;
    for _ in 0..3 {
        let report = proxy.upgrade().await;
        assert_eq!((&report["moved"], &report["left"]), (&CLIENTS.into(), &0.into()), "{report}");
    }
    assert!(proxy.exited().await.success(), "the first one has nothing more to do");
    end.send(true).unwrap();
    for client in clients {
        let (mut client, rounds) = client.await.unwrap();
        assert!(rounds > 0);
        client.close(1000, "").await;
    }
    let ids = |pipes: &[Value]| pipes.iter().map(|pipe| pipe["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before).len(), CLIENTS);
    assert_eq!(worker.accepted.load(SeqCst), CLIENTS, "no worker was dialled again");
    proxy.emptied().await;
    let report = proxy.get("/v1/upgrade").await;
    assert_eq!((&report["phase"], &report["moved"]), (&"taken".into(), &CLIENTS.into()), "{report}");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("upgrades_total", &[("result", "taken")]), 1.0);
    assert_eq!(metrics.sum("upgrade_pipes_total", &[("result", "taken")]), CLIENTS as f64);
    assert_eq!(metrics.sum("interruptions_total", &[]), 0.0);
}

#[tokio::test]
async fn half_messages_both_ways_and_a_ping_on_its_way_come_along() {
    let mut proxy = Proxy::start(KEYED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/s1/control").await;
    let (up, down) = (client.encode(0x80 | BINARY, &[7; 3000]), wire.encode(0x80 | BINARY, &[9; 3000]));
    wire.pongs = false;
    client.text("unconfirmed").await;
    assert_eq!(wire.hear().await.text(), "unconfirmed");
    client.frame_out(false, TEXT, b"one ").await;
    client.send_raw(&client.encode(0x80 | CONTINUATION, b"message")).await.unwrap();
    client.send_raw(&up[..1000]).await.unwrap();
    wire.send_raw(&down[..1000]).await.unwrap();
    assert_eq!(wire.hear().await.text(), "one message", "so that the half one behind it was read");
    proxy.upgrade().await;
    client.send_raw(&up[1000..]).await.unwrap();
    wire.send_raw(&down[1000..]).await.unwrap();
    assert_eq!(wire.hear().await, Said::Binary(vec![7; 3000]));
    assert_eq!(client.hear().await, Said::Binary(vec![9; 3000]));
    // The ping that the old process sent is answered to the new one.
    for ping in std::mem::take(&mut wire.pings) {
        wire.frame_out(true, PONG, &ping).await;
    }
    wire.pongs = true;
    let is_confirmed = |pipe: &Value| pipe["up"]["confirmed"] == pipe["up"]["accepted"];
    let pipe = tokio::select! {
        pipe = proxy.pipe_that("all is confirmed", is_confirmed) => pipe,
        said = wire.hear_unbounded() => panic!("nothing more was said: {said:?}"),
    };
    assert_eq!(pipe["up"]["accepted"], 3, "{pipe}");
    assert_eq!((&pipe["interruptions"], &pipe["attachment"]), (&0.into(), &1.into()));
}

#[tokio::test]
async fn a_pipe_whose_worker_is_lost_is_taken_over_with_what_waits_for_the_next_one() {
    let mut proxy = Proxy::start(KEYED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, wire) = pair(&proxy, &worker, "/ws/s1/control").await;
    proxy.api("DELETE", "/v1/backends/w", None).await;
    drop(worker);
    wire.reset();
    proxy.pipe_that("it has no worker", |pipe| pipe["state"] == "detached").await;
    client.text("kept").await;
    proxy.pipe_that("it is kept", |pipe| pipe["up"]["accepted"] == 1).await;
    let report = proxy.upgrade().await;
    assert_eq!(report["moved"], 1, "{report}");
    let heir = StepWorker::start().await;
    proxy.register("heir", heir.address).await;
    let mut wire = heir.accept().await;
    assert_eq!(wire.hear().await.text(), "kept");
    wire.text("answered").await;
    assert_eq!(client.hear().await.text(), "answered");
    let pipe = proxy.pipe_that("it has a worker", |pipe| pipe["state"] == "attached").await;
    // The dials that found no worker have had numbers too.
    assert!(pipe["interruptions"] == 1 && pipe["attachment"].as_u64() > Some(1), "{pipe}");
}

#[tokio::test]
async fn a_client_that_is_away_comes_back_to_its_pipe_in_the_new_process() {
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"r\"\npath = \"/ws/{client}\"\npool = \"default\"\nclient_id = \"{client}\"\n";
    let mut proxy = Proxy::start(route);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (client, mut wire) = pair(&proxy, &worker, "/ws/c1").await;
    let (mut here, mut heres) = pair(&proxy, &worker, "/ws/c2").await;
    client.reset();
    let away = proxy.pipe_that("it is away", |pipe| pipe["state"] == "client_detached").await;
    wire.text("while it was away").await;
    proxy.pipe_that("it is kept", |pipe| pipe["down"]["accepted"] == 1).await;
    let report = proxy.upgrade().await;
    assert_eq!(report["moved"], 2, "{report}");
    let mut client = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    assert_eq!(client.hear().await.text(), "while it was away");
    let back = proxy.pipe_that("it is back", |pipe| pipe["id"] == away["id"]).await;
    assert_eq!((&back["state"], &back["generation"]), (&"attached".into(), &2.into()), "{back}");
    // One that is there has its name still: another connection of it takes its place.
    let mut again = Wire::connect(proxy.public, "/ws/c2", &[]).await;
    assert!(matches!(here.hear().await, Said::Close(..)));
    heres.text("to the second").await;
    assert_eq!(again.hear().await.text(), "to the second");
    assert_eq!(proxy.pipes().await.len(), 2);
    // Both are on their second connections now, which a third process has to know.
    let report = proxy.upgrade().await;
    assert_eq!(report["moved"], 2, "{report}");
    for (client, wire) in [(&mut client, &mut wire), (&mut again, &mut heres)] {
        client.text("from the second").await;
        assert_eq!(wire.hear().await.text(), "from the second");
    }
}

#[tokio::test]
async fn a_drained_worker_is_drained_and_its_lease_goes_on_in_the_new_process() {
    let mut proxy = Proxy::start(KEYED);
    let (leaving, staying) = (StepWorker::start().await, StepWorker::start().await);
    proxy.register("leaving", leaving.address).await;
    let (mut client, mut wire) = pair(&proxy, &leaving, "/ws/s1/control").await;
    let drain = json!({"state": "drain", "pipes": "reattach"});
    let reply = proxy.api("PUT", "/v1/backends/leaving/state", Some(drain)).await;
    assert_eq!(reply.status, 202, "it has a pipe: {}", reply.text());
    proxy
        .register_as("staying", json!({"url": format!("ws://{}", staying.address), "lease": "1h", "state": "maint"}))
        .await;
    let report = proxy.upgrade().await;
    assert_eq!(report["moved"], 1, "{report}");
    let backend = proxy.get("/v1/backends/leaving").await;
    assert_eq!((&backend["state"], &backend["pipes"]), (&"drain".into(), &1.into()), "{backend}");
    let ready = proxy.api("PUT", "/v1/backends/staying/state", Some(json!({"state": "ready"}))).await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    let mut next = staying.accept().await;
    client.text("moved").await;
    assert_eq!(next.hear().await.text(), "moved");
    assert!(matches!(wire.hear().await, Said::Close(..) | Said::Gone));
    let renewed = proxy.api("PUT", "/v1/backends/staying/lease", Some(json!({}))).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
}

#[tokio::test]
async fn a_process_comes_by_itself_to_the_socket_that_the_old_one_names() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("upgrade.sock");
    let mut proxy = Proxy::start(&format!("[upgrade]\nsocket = {:?}\n{KEYED}", socket));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/s1/control").await;
    for _ in 0..2 {
        let mut heir = proxy.comer(&socket);
        let report = eventually("the new one has taken over", async || {
            let report = proxy.get("/v1/upgrade").await;
            (report["phase"] == "taken" && proxy.get("/v1/info").await["pid"] == heir.id()).then_some(report)
        })
        .await;
        assert_eq!(report["moved"], 1, "{report}");
        proxy.is_replaced_by(&json!(heir.id()));
        client.text("up").await;
        assert_eq!(wire.hear().await.text(), "up");
        wire.text("down").await;
        assert_eq!(client.hear().await.text(), "down");
        assert!(heir.try_wait().unwrap().is_none());
        proxy.keeps(heir);
    }
    assert!(proxy.exited().await.success());
}

#[tokio::test]
async fn a_program_that_cannot_take_over_changes_nothing() {
    let mut proxy = Proxy::start(KEYED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/s1/control").await;
    for (binary, reason) in [
        ("/bin/false", "/bin/false ended with exit status: 1"),
        ("/nowhere/holdline", "No such file or directory"),
        ("holdline", "must be named by an absolute path"),
    ] {
        let reply = proxy.api("POST", "/v1/upgrade", Some(json!({"binary": binary}))).await;
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(reply.json()["detail"].as_str().unwrap().contains(reason), "{}", reply.text());
    }
    // A configuration that the new process would refuse.
    let good = std::fs::read_to_string(proxy.config_file()).unwrap();
    proxy.rewrite("[server]\nnonsense = 1\n");
    let reply = proxy.api("POST", "/v1/upgrade", Some(json!({}))).await;
    assert!(reply.json()["detail"].as_str().unwrap().contains("ended with exit status: 2"), "{}", reply.text());
    let report = proxy.get("/v1/upgrade").await;
    assert_eq!((&report["phase"], &report["moved"]), (&"failed".into(), &0.into()), "{report}");
    client.text("up").await;
    assert_eq!(wire.hear().await.text(), "up");
    assert_eq!(proxy.metrics().await.sum("upgrades_total", &[("result", "refused")]), 2.0);
    proxy.rewrite(&good);
    let report = proxy.upgrade().await;
    assert_eq!(report["moved"], 1, "{report}");
    wire.text("down").await;
    assert_eq!(client.hear().await.text(), "down");
}
