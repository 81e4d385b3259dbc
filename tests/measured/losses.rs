//! How soon workers that are lost are replaced, given up, or used again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, StepWorker, Wire, eventually};
use crate::measure::{alone, percentiles};

/// What the benchmark measures is what loses nothing.
const BENCH: &str = include_str!("../../benches/load/holdline.toml");

/// Probes often, so that a probe's delay is short.
const PROBED: &str = "[[pools]]\nname = \"default\"\nhealth = { interval = \"50ms\", timeout = \"1s\" }\n";

#[tokio::test]
async fn ib_15_past_the_heartbeat_limit_a_stopped_worker_is_left_for_another() {
    let _alone = alone();
    let proxy = Proxy::start("[heartbeat]\nbackend_interval = \"100ms\"\nbackend_timeout = \"1s\"\n");
    let [a, b] = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("a", a.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    proxy.pipe_that("it is confirmed", |pipe| pipe["up"]["confirmed"] == 1).await;
    proxy.register("b", b.address).await;
    a.stop().await;
    let stopped = Instant::now();
    assert_eq!(client.exchange("after").await, "after");
    assert!(stopped.elapsed() >= Duration::from_secs(1) - Duration::from_millis(200), "{:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(5), "a silent worker is not tried first: {:?}", stopped.elapsed());
    let event = proxy.event_of(0, "pipe.interrupted").await;
    assert_eq!((&event["reason"], &event["backend"]), (&json!("heartbeat"), &json!("a")));
    assert_eq!(proxy.pipes().await[0]["backend"], "b");
}

#[tokio::test]
async fn ib_15_a_refused_port_is_out_within_one_probe_and_returns_by_itself() {
    let _alone = alone();
    let proxy = Proxy::start(PROBED);
    let worker = StepWorker::start_alone().await;
    let address = worker.address;
    proxy.register("w", address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let idle = proxy.event_of(0, "backend.registered").await["seq"].as_u64().unwrap();
    drop(worker);
    let gone = Instant::now();
    proxy.event_of(idle, "backend.down").await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    assert_eq!(proxy.get("/v1/backends/w").await["eligible"], false);
    wire.reset();
    client.text("kept").await;
    let worker = StepWorker::at(address).await;
    let back = Instant::now();
    let mut wire = worker.accept().await;
    assert_eq!(wire.hear().await.text(), "kept");
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
}

#[tokio::test]
async fn iw_11_a_backend_that_refused_a_thousand_dials_is_used_within_a_probe_of_its_return() {
    let _alone = alone();
    let proxy = Proxy::start(
        "[[pools]]\nname = \"default\"\nhealth = { interval = \"10ms\", timeout = \"1s\" }\n[[routes]]\nwait = 0\n",
    );
    let worker = StepWorker::start_alone().await;
    let address = worker.address;
    drop(worker);
    proxy.register("w", address).await;
    let refused = async || proxy.get("/v1/backends/w").await;
    eventually("the first refusal", async || (refused().await["health"] == "down").then_some(())).await;
    // a thousand clients ask for it, and a thousand probes more or less
    for _ in 0..1_000 {
        let status = Wire::open(proxy.public, "/ws", &[]).await.unwrap_err().status;
        assert!(matches!(status, 502 | 503), "{status}");
    }
    let again = proxy.api("PUT", "/v1/backends/w", Some(json!({ "url": format!("ws://{address}") }))).await;
    assert_eq!(again.status, 200, "registering again changes nothing");
    let worker = StepWorker::at(address).await;
    let back = Instant::now();
    proxy.event_of(0, "backend.up").await;
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    for _ in 0..3 {
        proxy.register("w", address).await;
    }
    client.text("undisturbed").await;
    assert_eq!(wire.hear().await.text(), "undisturbed");
    assert_eq!(proxy.pipes().await[0]["interruptions"], 0);
}

#[tokio::test]
async fn iw_12_an_idle_pipe_that_found_nobody_at_once_hears_of_a_registration() {
    const ROUNDS: usize = 5;
    let _alone = alone();
    let proxy = Proxy::start("");
    let mut worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (client, mut wire) = tokio::join!(Client::connect(proxy.public, "/ws"), worker.accept());
    for turn in 1..=ROUNDS {
        let path = format!("/v1/backends/w{}/state", turn - 1);
        proxy.api("PUT", &path, Some(json!({ "state": "drain", "pipes": "keep" }))).await.expect(202);
        wire.reset();
        eventually("the pipe waits", async || {
            (proxy.get("/v1/pipes").await["items"][0]["state"] == "detached").then_some(())
        })
        .await;
        worker = StepWorker::start().await;
        proxy.register(&format!("w{turn}"), worker.address).await;
        let knock = tokio::time::timeout(Duration::from_secs(1), worker.knock());
        let knock = knock.await.expect("a pipe that waits is told at once");
        wire = knock.upgrade().await;
        proxy.pipe_that("attached", |pipe| pipe["state"] == "attached").await;
    }
    drop(client);
}

#[tokio::test]
async fn ib_05_replay_delay_holds_the_flush_back_and_not_the_attach() {
    const DELAY: Duration = Duration::from_millis(700);
    let _alone = alone();
    let proxy = Proxy::start("[replay]\ndelay = \"700ms\"\n");
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Client::connect(proxy.public, "/ws"), first.accept());
    let second = StepWorker::start().await;
    proxy.register("second", second.address).await;
    drop(first);
    let lost = Instant::now();
    wire.reset();
    let mut wire = second.accept().await;
    let attached = lost.elapsed();
    wire.text("welcome").await;
    assert_eq!(client.hear().await.text(), "welcome", "the other way is open at once");
    client.text("held back").await;
    assert_eq!(wire.hear().await.text(), "held back");
    assert!(attached < DELAY && lost.elapsed() >= DELAY, "attached {attached:?}, flushed {:?}", lost.elapsed());
    client.text("at once").await;
    assert_eq!(wire.hear().await.text(), "at once");
}

#[tokio::test]
async fn iw_02_buffered_messages_reach_the_new_worker_within_50_ms_of_its_upgrade_the_client_idle() {
    let _alone = alone();
    let proxy = Proxy::start(BENCH);
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let (client, wire) = tokio::join!(Client::connect(proxy.public, "/ws"), first.accept());
        clients.push((number, client, wire));
    }
    drop(first);
    let mut idle = Vec::new();
    for (number, mut client, wire) in clients {
        wire.reset();
        for n in 0..5 {
            client.text(format!("{number}-{n}")).await;
        }
        idle.push(client);
    }
    eventually("all messages are buffered", async || {
        let waiting = |pipe: &Value| pipe["state"] == "detached";
        proxy.pipes().await.iter().all(|pipe| waiting(pipe) && pipe["up"]["accepted"] == 5).then_some(())
    })
    .await;
    let second = StepWorker::start().await;
    proxy.register("second", second.address).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let mut wire = second.accept().await;
        let upgraded = Instant::now();
        let first = wire.hear().await.text();
        let number = first.split('-').next().unwrap().to_owned();
        for n in 1..5 {
            assert_eq!(wire.hear().await.text(), format!("{number}-{n}"));
        }
        times.push(upgraded.elapsed());
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("IW-02: from the upgrade to the last buffered message: p50 {half:?}, p99 {last:?}");
    assert!(half < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn ib_06_a_route_that_closes_on_loss_says_1012_within_a_second_and_never_reattaches() {
    let _alone = alone();
    let proxy = Proxy::start(&format!("{KEYED}on_backend_loss = \"close\"\n"));
    let [first, second] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/webrtc", &[]), first.accept());
    proxy.register("second", second.address).await;
    let lost = Instant::now();
    wire.reset();
    assert!(matches!(client.hear().await, Said::Close(1012, _)));
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());
    client.close(1012, "").await;
    proxy.emptied().await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("backend_connects_total", &[("result", "attached")]), 1.0, "no reattach");
    assert_eq!(metrics.sum("reattach_total", &[]), 1.0);
    assert_eq!(metrics.sum("reattach_total", &[("result", "close_route")]), 1.0, "it is not a failure to reattach");
    drop(first);
    let (mut fresh, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/webrtc", &[]), second.accept());
    assert_eq!(wire.head.header("holdline-attach"), "1");
    fresh.text("offer").await;
    assert_eq!(wire.hear().await.text(), "offer");
}

#[tokio::test]
async fn iw_13_without_a_backend_a_pipe_is_closed_1013_when_its_grace_is_over() {
    let _alone = alone();
    let proxy = Proxy::start("[reattach]\ngrace = \"600ms\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    drop(worker);
    let lost = Instant::now();
    wire.reset();
    client.text("never delivered").await;
    assert_eq!(client.hear().await, Said::Close(1013, "no backend within grace".into()));
    assert!(lost.elapsed() >= Duration::from_millis(600), "{:?}", lost.elapsed());
    assert!(lost.elapsed() < Duration::from_secs(3), "{:?}", lost.elapsed());
    let lost = proxy.event_of(0, "pipe.messages_lost").await;
    assert_eq!((&lost["messages"], &lost["reason"]), (&1.into(), &"grace".into()), "what is given up is said");
    assert!(proxy.event_of(0, "pipe.expired").await["waited_ms"].as_u64().unwrap() >= 600);
}

#[tokio::test]
async fn a_reattach_that_every_worker_refuses_is_the_end_at_once() {
    const NOT_FOUND: &str = "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    const GONE: &str = "HTTP/1.1 410 No\r\nContent-Length: 0\r\n\r\n";
    let _alone = alone();
    let proxy = Proxy::start(KEYED);
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), a.accept());
    proxy.register("b", b.address).await;
    wire.reset();
    let began = Instant::now();
    b.knock().await.answer(NOT_FOUND).await;
    a.knock().await.answer(GONE).await;
    let Said::Close(1012, reason) = client.hear().await else { panic!("another end") };
    assert!(reason.starts_with("refused by every worker: 4"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    client.close(1012, "").await;
    proxy.emptied().await;
    let event = proxy.event_of(0, "pipe.given_up").await;
    assert_eq!((&event["code"], &event["reason"]), (&1012.into(), &reason.into()));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("backend_connects_total", &[]), 3.0, "each was asked once");
    assert_eq!(metrics.sum("reattach_total", &[("result", "refused")]), 1.0);
    assert_eq!(metrics.sum("backend_ejections_total", &[]), 0.0);
}
