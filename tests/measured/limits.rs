//! Bounds: what a pipe may hold, what it costs, and whom a full one harms.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually};
use crate::measure::{alone, percentiles};

/// Room for sixty-four messages that are charged 1 KiB, and one pipe for each backend, so that a lost one is not replaced by its neighbour.
fn bounded(overflow: &str) -> String {
    format!(
        "[replay]\npipe_bytes_max = \"64KiB\"\noverflow = \"{overflow}\"\n[[pools]]\nname = \"default\"\n\
         max_pipes_per_backend = 1\n"
    )
}

/// A message that is charged a kibibyte: with a header of 8 bytes and 16 beside them.
fn kibibyte(n: usize) -> String {
    format!("{n:>1000}")
}

/// A client whose worker is gone and whose buffer is filled to the last byte, and a bystander with its worker.
async fn filled(proxy: &Proxy) -> (Client, (Wire, Wire)) {
    let [lost, kept] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("lost", lost.address).await;
    let (mut client, wire) = tokio::join!(Client::connect(proxy.public, "/ws"), lost.accept());
    proxy.register("kept", kept.address).await;
    let bystander = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), kept.accept());
    drop(lost);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    for n in 0..64 {
        client.text(kibibyte(n)).await;
    }
    let full = |pipe: &serde_json::Value| pipe["up"]["buffered_bytes"] == 65_536;
    proxy.pipe_that("the buffer is full", full).await;
    (client, bystander)
}

/// A client whose worker is gone, whose buffer is full, and of whose 80 messages some wait in its socket.
async fn unread(proxy: &Proxy) -> Wire {
    let lost = StepWorker::start().await;
    proxy.register("lost", lost.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), lost.accept());
    drop(lost);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    for n in 0..80 {
        client.text(&kibibyte(n)).await;
    }
    proxy.pipe_that("the buffer is full", |pipe| pipe["up"]["accepted"].as_u64() >= Some(63)).await;
    client
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_not_read_is_noticed_at_once() {
    let _alone = alone();
    for reset in [false, true] {
        let proxy = Proxy::start(&bounded("pause"));
        let client = unread(&proxy).await;
        let left = Instant::now();
        if reset {
            client.reset()
        } else {
            client.fin().await
        }
        let closed = proxy.logged("pipe.close", 1).await[0].clone();
        assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
        assert_eq!((&closed["by"], &closed["code"]), (&json!("client"), &json!(1006)));
        assert!(reset || closed["up_lost"] == 80, "what it had said before was read: {closed}");
    }
}

#[tokio::test]
async fn what_a_client_that_left_had_said_last_reaches_the_next_worker_though_it_was_not_read() {
    let _alone = alone();
    let proxy = Proxy::start(&bounded("pause"));
    let mut client = unread(&proxy).await;
    client.close(1000, "bye").await;
    client.fin().await;
    proxy.pipe_that("all is read", |pipe| pipe["up"]["accepted"] == 80).await;
    let next = StepWorker::start().await;
    proxy.register("next", next.address).await;
    let mut wire = next.accept().await;
    for n in 0..80 {
        assert_eq!(wire.hear().await.text(), kibibyte(n));
    }
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
}

#[tokio::test]
async fn iw_06_exactly_the_limit_survives_an_outage() {
    let _alone = alone();
    let proxy = Proxy::start(&bounded("close"));
    let (_client, _bystander) = filled(&proxy).await;
    let next = StepWorker::start().await;
    proxy.register("next", next.address).await;
    let mut wire = next.accept().await;
    for n in 0..64 {
        assert_eq!(wire.hear().await.text(), kibibyte(n));
    }
}

#[tokio::test]
async fn iw_06_one_byte_more_closes_the_client_1013_within_100_ms_and_harms_nobody_else() {
    let _alone = alone();
    let proxy = Proxy::start(&bounded("close"));
    let (mut client, (mut other, mut its_worker)) = filled(&proxy).await;
    let over = Instant::now();
    client.text("x").await;
    assert_eq!(client.hear().await, Said::Close(1013, "replay buffer overflow".into()));
    assert!(over.elapsed() < Duration::from_millis(100), "{:?}", over.elapsed());
    other.text("undisturbed").await;
    assert_eq!(its_worker.hear().await.text(), "undisturbed");
    its_worker.text("undisturbed").await;
    assert_eq!(other.hear().await.text(), "undisturbed");
    assert_eq!(proxy.metrics().await.sum("replay_overflows_total", &[("policy", "close")]), 1.0);
    let lost = proxy.event_of(0, "pipe.messages_lost").await;
    assert_eq!((&lost["messages"], &lost["reason"]), (&json!(65), &json!("overflow")));
}

#[tokio::test]
async fn iw_06_under_pause_the_client_is_not_read_beyond_the_limit_and_nothing_is_lost() {
    const MORE: usize = 3_000;
    let _alone = alone();
    let proxy = Proxy::start(&bounded("pause"));
    let (mut client, (mut other, mut its_worker)) = filled(&proxy).await;
    let sending = tokio::spawn(async move {
        for n in 64..64 + MORE {
            client.text(kibibyte(n)).await;
        }
        client
    });
    eventually("reading is paused", async || {
        (proxy.metrics().await.sum("read_paused_total", &[("lane", "up")]) >= 1.0).then_some(())
    })
    .await;
    other.text("undisturbed").await;
    assert_eq!(its_worker.hear().await.text(), "undisturbed");
    let held = proxy.metrics().await.sum("replay_buffer_bytes", &[("lane", "up")]);
    // What is read is bounded by its bytes, and each message is charged a little more.
    assert!((65_536.0..66_600.0).contains(&held), "{held}");
    let next = StepWorker::start().await;
    proxy.register("next", next.address).await;
    let mut wire = next.accept().await;
    for n in 0..64 + MORE {
        assert_eq!(wire.hear().await.text(), kibibyte(n));
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn iw_07_an_idle_pipe_costs_little_and_memory_is_charged_as_it_is_used() {
    const PIPES: u64 = 500;
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let warm = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let before = proxy.memory_kib("VmRSS");
    let mut pipes = Vec::new();
    for _ in 0..PIPES {
        pipes.push(tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept()));
    }
    let each_kib = (proxy.memory_kib("VmRSS") - before) as f64 / PIPES as f64;
    println!("IW-07: {each_kib:.1} KiB of resident memory for each idle pipe");
    assert!(each_kib < 24.0, "{each_kib}");
    assert_eq!(proxy.metrics().await.sum("replay_buffer_bytes", &[]), 0.0);
    let idle_bytes = proxy.pipes().await[0]["memory_bytes"].as_u64().unwrap();
    assert!(idle_bytes < 16 << 10, "{idle_bytes}");
    let (mut client, wire) = pipes.pop().unwrap();
    drop(worker);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    for _ in 0..10 {
        client.frame_out(true, 2, &[0; 99_970]).await;
    }
    let holds = |pipe: &serde_json::Value| pipe["up"]["buffered_bytes"] == 1_000_000;
    let pipe = proxy.pipe_that("a megabyte is held", holds).await;
    assert!((1_000_000..1_400_000).contains(&pipe["memory_bytes"].as_u64().unwrap()), "{pipe}");
    assert_eq!(proxy.metrics().await.sum("replay_buffer_bytes", &[("lane", "up")]), 1_000_000.0);
    let next = StepWorker::start().await;
    proxy.register("next", next.address).await;
    let mut wire = next.accept().await;
    for _ in 0..10 {
        assert!(matches!(wire.hear().await, Said::Binary(_)));
    }
    wire.pong_once().await;
    eventually("nothing is held", async || {
        (proxy.metrics().await.sum("replay_buffer_bytes", &[]) == 0.0).then_some(())
    })
    .await;
    drop(warm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_11_a_slow_receiver_hurts_only_itself() {
    let _alone = alone();
    let proxy = Proxy::start("[replay]\nstall_max = \"2s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("flood", worker.address).await;
    let (slow, mut flood) = tokio::join!(Wire::connect(proxy.public, "/ws/slow", &[]), worker.accept());
    drop(worker);
    let echo = DemoWorker::start("echo", &[]);
    proxy.register("echo", echo.address).await;
    let flooding = tokio::spawn(async move {
        let line = "x".repeat(64 << 10);
        loop {
            let frame = flood.encode(0x81, line.as_bytes());
            if flood.send_raw(&frame).await.is_err() {
                return;
            }
        }
    });
    eventually("the worker of the slow client is paused", async || {
        (proxy.metrics().await.sum("read_paused_total", &[("lane", "down")]) >= 1.0).then_some(())
    })
    .await;
    let mut other = Client::connect(proxy.public, "/ws/s1/echo").await;
    let mut times = Vec::new();
    for n in 0..300 {
        let asked = Instant::now();
        assert_eq!(other.exchange(&n.to_string()).await, n.to_string());
        times.push(asked.elapsed());
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("ST-11: an echo beside a slow receiver takes {half:?} (p50), {last:?} (p99)");
    assert!(half < Duration::from_millis(20), "{half:?}");
    let held = proxy.metrics().await.sum("replay_buffer_bytes", &[("lane", "down")]);
    assert!(held < (1 << 20) as f64, "{held}");
    let stalled = |line: &serde_json::Value| line["route"] == "default" && line["code"] == 1013;
    let closed = proxy.logged("pipe.close", 1).await;
    assert!(closed.iter().any(stalled), "{closed:?}");
    flooding.await.unwrap();
    assert_eq!(other.exchange("still here").await, "still here");
    drop(slow);
}
