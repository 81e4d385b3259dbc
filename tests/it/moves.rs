//! Planned moves: what the old worker, the new one and the client see of them, and how fast they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Proxy, Said, StepWorker, Wire, eventually};

const MOVING: &str = "moving to another worker";

async fn set_state(proxy: &Proxy, id: &str, body: Value) {
    let reply = proxy.api("PUT", &format!("/v1/backends/{id}/state"), Some(body)).await;
    assert!(matches!(reply.status, 200 | 202), "{}", reply.text());
}

async fn drain(proxy: &Proxy, id: &str) {
    set_state(proxy, id, json!({ "state": "drain" })).await;
}

/// A client on worker `a`, and a worker `b` that has room for it.
async fn on_a(config: &str) -> (Proxy, Wire, Wire, StepWorker, StepWorker) {
    let proxy = Proxy::start(config);
    let (a, b) = (StepWorker::start().await, StepWorker::start().await);
    proxy.register("a", a.address).await;
    let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), a.accept());
    proxy.register("b", b.address).await;
    (proxy, client, wire, a, b)
}

/// Waits until exactly these planned moves have been counted: `moved`, `left`, `stayed`.
async fn moves(proxy: &Proxy, wanted: [f64; 3]) {
    eventually("the moves are counted", async || {
        let metrics = proxy.metrics().await;
        let counted = ["moved", "left", "stayed"].map(|result| metrics.sum("moves_total", &[("result", result)]));
        (counted == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn iw_16_a_drained_worker_is_told_to_go_when_it_has_confirmed_everything_and_the_next_one_is_there() {
    let (proxy, mut client, mut old, _a, b) = on_a("").await;
    old.pongs = false;
    client.text("1").await;
    assert_eq!(old.hear().await.text(), "1");
    drain(&proxy, "a").await;
    let knock = b.knock().await;
    client.text("2").await;
    let told = |name: &str| knock.head.header(name).to_owned();
    assert_eq!([told("holdline-cause"), told("holdline-previous"), told("holdline-attach")], ["drain", "a", "2"]);
    assert_eq!(
        [told("holdline-first-seq"), told("holdline-replay"), told("holdline-gap")],
        ["2", "0; bytes=0", "none"]
    );
    assert_eq!(proxy.pipes().await[0]["backend"], "a");
    let mut new = knock.upgrade().await;
    old.pong_once().await;
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    old.text("result of 1").await;
    new.text("from the new one").await;
    old.close(1001, "").await;
    assert_eq!(new.hear().await.text(), "2", "nothing lost and nothing twice");
    assert_eq!(client.hear().await.text(), "result of 1");
    assert_eq!(client.hear().await.text(), "from the new one", "behind everything that the old one said");
    proxy.event_of(0, "backend.drained").await;
    let pipe = proxy.pipe_that("it moved", |pipe| pipe["backend"] == "b").await;
    assert_eq!(pipe["up"]["in_doubt"], 0);
    moves(&proxy, [1.0, 0.0, 0.0]).await;
}

#[tokio::test]
async fn iw_16_a_deregistered_worker_is_drained_and_gone_with_its_last_pipe() {
    let (proxy, _client, mut old, _a, b) = on_a("").await;
    let reply = proxy.api("DELETE", "/v1/backends/a", None).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let _new = b.accept().await;
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    old.close(1001, "").await;
    proxy.event_of(0, "backend.removed").await;
    assert_eq!(proxy.api("GET", "/v1/backends/a", None).await.status, 404);
    assert_eq!(proxy.api("DELETE", "/v1/backends/a", None).await.status, 204);
}

#[tokio::test]
async fn a_pipe_that_an_operator_moves_tells_the_new_worker_so() {
    let (proxy, mut client, mut old, _a, b) = on_a("").await;
    let id = proxy.pipes().await[0]["id"].as_str().unwrap().to_owned();
    proxy.api("POST", &format!("/v1/pipes/{id}/reattach"), Some(json!({}))).await.expect(202);
    let mut new = b.accept().await;
    assert_eq!(new.head.header("holdline-cause"), "admin");
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    old.fin().await;
    client.text("here").await;
    assert_eq!(new.hear().await.text(), "here");
    assert_eq!(proxy.event_of(0, "pipe.interrupted").await["reason"], "admin");
}

#[tokio::test]
async fn a_move_whose_dial_fails_leaves_the_pipe_where_it_was_until_there_is_a_better_worker() {
    let (proxy, mut client, mut old, _a, b) = on_a("[reattach]\nbackoff_min = \"30s\"\nbackoff_max = \"30s\"\n").await;
    drain(&proxy, "a").await;
    let mut knock = b.knock().await;
    client.text("while it is dialled").await;
    knock.answer("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(old.hear().await.text(), "while it is dialled");
    moves(&proxy, [0.0, 0.0, 1.0]).await;
    let pipe = proxy.pipes().await.remove(0);
    assert_eq!(
        (&pipe["backend"], &pipe["state"], &pipe["interruptions"]),
        (&json!("a"), &json!("attached"), &json!(0))
    );
}

#[tokio::test]
async fn a_new_worker_that_refuses_the_clients_old_ticket_leaves_the_pipe_where_it_was_and_ends_nothing() {
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let (proxy, mut client, mut old, _a, b) =
        on_a("[reattach]\nbackoff_min = \"10ms\"\nbackoff_max = \"10ms\"\n").await;
    set_state(&proxy, "a", json!({ "state": "drain", "deadline": "3s" })).await;
    b.knock().await.answer(REFUSED).await;
    client.text("still here").await;
    assert_eq!(old.hear().await.text(), "still here");
    let parts = async { assert_eq!(old.hear().await, Said::Close(1001, MOVING.into())) };
    let refuses = async {
        loop {
            b.knock_unbounded().await.answer(REFUSED).await;
        }
    };
    tokio::select! {
        () = parts => {}
        () = refuses => {}
    }
    old.close(1001, "").await;
    client.text("without a worker").await;
    b.knock().await.answer(REFUSED).await;
    let mut new = b.accept().await;
    assert_eq!(new.hear().await.text(), "without a worker");
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("moves_total", &[("result", "stayed")]) >= 1.0);
    assert_eq!(metrics.sum("pipe_closes_total", &[]), 0.0);
}

#[tokio::test]
async fn ib_06_a_conversation_that_ends_with_its_worker_is_kept_through_every_planned_move_until_the_deadline() {
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/{*rest}\"\npool = \"default\"\non_backend_loss = \"close\"\n";
    let (proxy, mut client, mut old, a, b) = on_a(route).await;
    let id = proxy.pipes().await[0]["id"].as_str().unwrap().to_owned();
    proxy.api("POST", &format!("/v1/pipes/{id}/reattach"), Some(json!({}))).await.expect(409);
    set_state(&proxy, "b", json!({ "state": "drain" })).await;
    let (_second, _wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), a.accept());
    set_state(&proxy, "b", json!({ "state": "ready" })).await;
    let reply = proxy.api("POST", "/v1/pools/default/rebalance", Some(json!({}))).await.expect(200);
    assert_eq!(reply.json()["moves"], 0, "two on one and none on the other: {}", reply.text());
    drain(&proxy, "a").await;
    assert!(b.is_left_alone_for(Duration::from_millis(200)).await);
    proxy.pipe_that("it says what holds it", |pipe| pipe["id"] == *id && pipe["held"] == "stateful").await;
    client.text("still here").await;
    assert_eq!(old.hear().await.text(), "still here");
    set_state(&proxy, "a", json!({ "state": "ready" })).await;
    proxy.pipe_that("nothing holds it", |pipe| pipe["id"] == *id && pipe["held"].is_null()).await;
    let ordered = Instant::now();
    set_state(&proxy, "a", json!({ "state": "drain", "deadline": "400ms" })).await;
    assert_eq!(client.hear().await, Said::Close(1012, "backend is going away".into()));
    assert!(ordered.elapsed() >= Duration::from_millis(400), "{:?}", ordered.elapsed());
    assert_eq!(proxy.metrics().await.sum("backend_connects_total", &[("result", "attached")]), 2.0, "no reattach");
}

#[tokio::test]
async fn ib_06_maintenance_ends_a_conversation_that_no_other_worker_can_carry_on() {
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/{*rest}\"\npool = \"default\"\non_backend_loss = \"close\"\n";
    let (proxy, mut client, _old, _a, b) = on_a(route).await;
    set_state(&proxy, "a", json!({ "state": "maint" })).await;
    assert_eq!(client.hear().await, Said::Close(1012, "backend is going away".into()));
    assert!(b.is_left_alone_for(Duration::from_millis(200)).await);
}

#[tokio::test]
async fn a_new_worker_that_dies_or_disowns_the_pipe_while_it_waits_is_replaced_by_another() {
    let (proxy, mut client, mut old, _a, b) = on_a("").await;
    old.pongs = false;
    client.text("1").await;
    assert_eq!(old.hear().await.text(), "1");
    drain(&proxy, "a").await;
    let dies = b.accept().await;
    let c = StepWorker::start().await;
    proxy.register("c", c.address).await;
    // a change of the pool gives each worker another chance, and this is not about those
    set_state(&proxy, "b", json!({ "state": "drain", "pipes": "keep" })).await;
    dies.reset();
    let mut disowns = c.accept().await;
    let d = StepWorker::start().await;
    proxy.register("d", d.address).await;
    set_state(&proxy, "c", json!({ "state": "drain", "pipes": "keep" })).await;
    disowns.close(4004, "not mine").await;
    let mut new = d.accept().await;
    assert_eq!(new.head.header("holdline-attach"), "4");
    old.pong_once().await;
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    old.close(1001, "").await;
    client.text("2").await;
    assert_eq!(new.hear().await.text(), "2");
    proxy.pipe_that("it moved once", |pipe| pipe["interruptions"] == 1).await;
}

#[tokio::test]
async fn an_old_worker_that_dies_amid_a_move_is_replaced_with_a_replay_of_what_it_had_not_confirmed() {
    let (proxy, mut client, mut old, _a, b) = on_a("").await;
    old.pongs = false;
    client.text("1").await;
    assert_eq!(old.hear().await.text(), "1");
    drain(&proxy, "a").await;
    let mut waits = b.accept().await;
    old.reset();
    assert_eq!(waits.hear().await, Said::Close(1001, "not needed after all".into()), "it expected message 2");
    let mut new = b.accept().await;
    let told = |name: &str| new.head.header(name).to_owned();
    assert_eq!([told("holdline-cause"), told("holdline-first-seq")], ["crash", "1"]);
    assert_eq!(new.hear().await.text(), "1");
    drop(proxy);
}

#[tokio::test]
async fn a_pool_that_forbids_two_at_once_lets_the_old_worker_go_first() {
    let config = "[[pools]]\nname = \"default\"\nmove_order = \"leave_first\"\n";
    let (proxy, mut client, mut old, _a, b) = on_a(config).await;
    drain(&proxy, "a").await;
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    assert!(b.is_left_alone_for(Duration::from_millis(200)).await, "the old one is still there");
    old.text("last words").await;
    old.close(1001, "").await;
    let mut new = b.accept().await;
    client.text("1").await;
    assert_eq!(new.hear().await.text(), "1");
    assert_eq!(client.hear().await.text(), "last words");
    moves(&proxy, [0.0, 1.0, 0.0]).await;
}

#[tokio::test]
async fn at_its_deadline_a_drain_detaches_the_pipes_that_had_nowhere_to_go() {
    let proxy = Proxy::start("");
    let a = StepWorker::start().await;
    proxy.register("a", a.address).await;
    let (mut client, mut old) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), a.accept());
    let ordered = Instant::now();
    set_state(&proxy, "a", json!({ "state": "drain", "deadline": "400ms" })).await;
    assert_eq!(old.hear().await, Said::Close(1001, MOVING.into()));
    assert!(ordered.elapsed() >= Duration::from_millis(400), "{:?}", ordered.elapsed());
    old.close(1001, "").await;
    proxy.pipe_that("it waits for a worker", |pipe| pipe["state"] == "detached").await;
    client.text("kept").await;
    let b = StepWorker::start().await;
    proxy.register("b", b.address).await;
    assert_eq!(b.accept().await.hear().await.text(), "kept");
}

#[tokio::test]
async fn at_its_deadline_a_drain_closes_the_pipes_that_have_not_ended_if_that_was_the_wish() {
    let (proxy, mut client, mut old, a, _b) = on_a("").await;
    proxy.api("DELETE", "/v1/backends/b", None).await.expect(204);
    let (ends, _wire) = tokio::join!(Client::connect(proxy.public, "/ws"), a.accept());
    let ordered = Instant::now();
    set_state(&proxy, "a", json!({ "state": "drain", "pipes": "close", "deadline": "3s" })).await;
    drop(ends);
    client.text("still served").await;
    assert_eq!(old.hear().await.text(), "still served");
    assert_eq!(client.hear().await, Said::Close(1001, "backend is going away".into()));
    assert!(ordered.elapsed() >= Duration::from_secs(3), "{:?}", ordered.elapsed());
}

#[tokio::test]
async fn a_drain_that_is_taken_back_moves_nobody() {
    let proxy = Proxy::start("");
    let a = StepWorker::start().await;
    proxy.register("a", a.address).await;
    let (mut client, mut old) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), a.accept());
    drain(&proxy, "a").await;
    set_state(&proxy, "a", json!({ "state": "ready" })).await;
    let b = StepWorker::start().await;
    proxy.register("b", b.address).await;
    assert!(b.is_left_alone_for(Duration::from_millis(200)).await);
    client.text("still here").await;
    assert_eq!(old.hear().await.text(), "still here");
}

/// Answers every handshake and every close, with so many handshakes at once at most as it has seen.
async fn serve(worker: StepWorker, at_once: Arc<AtomicUsize>, most: Arc<AtomicUsize>) {
    loop {
        let knock = worker.knock_unbounded().await;
        let (at_once, most) = (at_once.clone(), most.clone());
        most.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
        tokio::spawn(async move {
            // the other knocks that are on their way come in first
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            at_once.fetch_sub(1, SeqCst);
            let mut wire = knock.upgrade().await;
            while let said @ (Said::Text(_) | Said::Binary(_) | Said::Close(..)) = wire.hear_unbounded().await {
                if matches!(said, Said::Close(..)) {
                    let frame = wire.encode(0x88, &1001_u16.to_be_bytes());
                    // a peer that is gone needs no answer
                    let _ = wire.send_raw(&frame).await;
                }
            }
        });
    }
}

/// A worker that is served, and the most handshakes that it had at once.
async fn served(proxy: &Proxy, id: &str) -> (tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
    let worker = StepWorker::start().await;
    proxy.register(id, worker.address).await;
    let most = Arc::new(AtomicUsize::new(0));
    (tokio::spawn(serve(worker, Arc::default(), most.clone())), most)
}

async fn all_on(proxy: &Proxy, id: &str, count: usize) {
    eventually("all pipes are there", async || {
        let backend = proxy.get(&format!("/v1/backends/{id}")).await;
        let attached = proxy.metrics().await.sum("pipes", &[("state", "attached")]);
        (backend["pipes"] == count && attached == count as f64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pipes_of_a_drained_worker_and_then_of_a_lost_one_do_not_fall_upon_the_next_one_together() {
    const PIPES: usize = 1_000;
    let proxy = Proxy::start("[reattach]\ndials_at_once = 8\nmoves_per_second = 0\n");
    let (serving_a, _) = served(&proxy, "a").await;
    let mut clients = Vec::new();
    for _ in 0..PIPES {
        clients.push(Wire::connect(proxy.public, "/ws", &[]).await);
    }
    let (serving_b, most) = served(&proxy, "b").await;
    drain(&proxy, "a").await;
    all_on(&proxy, "b", PIPES).await;
    assert!(most.load(SeqCst) <= 8, "{} dials at once", most.load(SeqCst));
    moves(&proxy, [PIPES as f64, 0.0, 0.0]).await;
    let (_serving_c, most) = served(&proxy, "c").await;
    serving_b.abort();
    let lost = serving_b.await;
    assert!(lost.unwrap_err().is_cancelled());
    // the tasks of its connections live on, as a process's would not
    proxy.api("PUT", "/v1/backends/b/state", Some(json!({ "state": "maint" }))).await.expect(202);
    all_on(&proxy, "c", PIPES).await;
    assert!(most.load(SeqCst) <= 8, "{} dials at once", most.load(SeqCst));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("reattach_dials", &[]), 0.0);
    assert_eq!(metrics.sum("pipe_closes_total", &[]), 0.0);
    serving_a.abort();
}

/// Drains twenty pipes from one worker to another; how long that took.
async fn drain_twenty(config: &str, order: Value) -> (Duration, Proxy) {
    let proxy = Proxy::start(config);
    let (_serving_a, _) = served(&proxy, "a").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Wire::connect(proxy.public, "/ws", &[]).await);
    }
    let (_serving_b, _) = served(&proxy, "b").await;
    let began = Instant::now();
    set_state(&proxy, "a", order).await;
    all_on(&proxy, "b", 20).await;
    (began.elapsed(), proxy)
}

#[tokio::test]
async fn the_pipes_of_a_drained_worker_move_one_after_the_other_at_the_pace_of_their_pool() {
    let pace = "[reattach]\nmoves_per_second = 20\n";
    let (took, _proxy) = drain_twenty(pace, json!({ "state": "drain" })).await;
    assert!(took >= Duration::from_millis(950), "{took:?}");
}

#[tokio::test]
async fn a_deadline_goes_before_the_pace() {
    let pace = "[reattach]\nmoves_per_second = 1\n";
    let (_took, proxy) = drain_twenty(pace, json!({ "state": "drain", "deadline": "10s" })).await;
    // in good order, and in time
    moves(&proxy, [20.0, 0.0, 0.0]).await;
}

#[tokio::test]
async fn dials_that_wait_for_their_turn_are_counted() {
    let proxy = Proxy::start("[reattach]\ndials_at_once = 2\n");
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    let mut pipes = Vec::new();
    for _ in 0..5 {
        pipes.push(tokio::join!(Wire::connect(proxy.public, "/ws", &[]), a.accept()));
    }
    proxy.register("b", b.address).await;
    drop(a);
    let mut clients = Vec::new();
    for (client, wire) in pipes {
        clients.push(client);
        wire.reset();
    }
    let mut knocks = vec![b.knock().await, b.knock().await];
    let dials = async |state| proxy.metrics().await.sum("reattach_dials", &[("state", state)]);
    eventually("two run and three wait", async || {
        (dials("running").await == 2.0 && dials("waiting").await == 3.0).then_some(())
    })
    .await;
    assert!(b.is_left_alone_for(Duration::from_millis(100)).await);
    let mut wires = Vec::new();
    while let Some(knock) = knocks.pop() {
        wires.push(knock.upgrade().await);
        if wires.len() + knocks.len() < 5 {
            knocks.push(b.knock().await);
        }
    }
    all_on(&proxy, "b", 5).await;
}
