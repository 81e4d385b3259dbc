//! Workers that come, go, freeze, stay silent and come back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, StepWorker, Wire, eventually};

async fn control_video_screenshot_logs(proxy: &Proxy) -> [Client; 4] {
    let connect = |path: &'static str| Client::connect(proxy.public, path);
    let (control, video, screenshot, logs) = tokio::join!(
        connect("/ws/s1/control"),
        connect("/ws/s1/video?fps=20"),
        connect("/ws/s1/screenshot"),
        connect("/ws/s1/logs?rate=50"),
    );
    [control, video, screenshot, logs]
}

/// Waits until all four sockets have heard, or been heard by, the worker called `name`.
async fn served_by(proxy: &Proxy, clients: &mut [Client; 4], worker: &DemoWorker, name: &str, tap: u64) {
    let [control, video, screenshot, logs] = clients;
    eventually("all four are there", async || {
        proxy.pipes().await.iter().all(|pipe| pipe["backend"] == name).then_some(())
    })
    .await;
    control.text(json!({ "t": "tap", "n": tap }).to_string()).await;
    worker.journal("session=s1&commands=1").await;
    for (what, client) in [("video", video), ("screenshot", screenshot), ("logs", logs)] {
        loop {
            let said: Value = serde_json::from_str(&client.hear().await.text()).unwrap();
            assert_eq!(said["session"], "s1", "{what}");
            if said["worker"] == name {
                break;
            }
            if what == "screenshot" {
                client.text("next").await;
            }
        }
    }
}

#[tokio::test]
async fn ib_03_control_video_screenshot_and_logs_outlive_sigkill_and_sigterm_of_their_worker() {
    let proxy = Proxy::start("");
    let mut a = DemoWorker::start("a", &[]);
    proxy.register("a", a.address).await;
    let mut clients = control_video_screenshot_logs(&proxy).await;
    served_by(&proxy, &mut clients, &a, "a", 1).await;
    let b = DemoWorker::start("b", &[]);
    proxy.register("b", b.address).await;
    a.kill();
    served_by(&proxy, &mut clients, &b, "b", 2).await;
    let c = DemoWorker::start("c", &[]);
    proxy.register("c", c.address).await;
    b.signal(rustix::process::Signal::TERM);
    served_by(&proxy, &mut clients, &c, "c", 3).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("reattach_total", &[("result", "attached")]), 8.0, "four sockets, two losses");
    assert_eq!(metrics.sum("reattach_duration_seconds_count", &[]), 8.0, "each with its time");
    for pipe in proxy.pipes().await {
        assert_eq!((&pipe["interruptions"], &pipe["backend"]), (&json!(2), &json!("c")), "{pipe}");
    }
}

#[tokio::test]
async fn ib_10_a_silent_attach_is_given_up_on_video_and_not_on_control() {
    let video = "[[routes]]\nname = \"video\"\npath = \"/ws/{session}/video\"\nkey = \"{session}\"\npool = \"default\"\n\
                 first_message_timeout = \"3s\"\n";
    let proxy = Proxy::start(&format!("{KEYED}{video}"));
    let first = DemoWorker::start("first", &["--fps", "20"]);
    proxy.register("first", first.address).await;
    let mut video = Client::connect(proxy.public, "/ws/s1/video").await;
    let mut control = Client::connect(proxy.public, "/ws/s1/control").await;
    video.hear().await.text();
    let silent = DemoWorker::start("silent", &[]);
    silent.knob("reject?mode=silent").await;
    proxy.register("silent", silent.address).await;
    drop(first);
    let given_up = |event: &Value| event["type"] == "pipe.interrupted" && event["reason"] == "silent";
    let event = proxy.event(0, "the silent attach is given up", given_up).await;
    assert_eq!((&event["backend"], &event["route"]), (&json!("silent"), &json!("video")));
    let talking = DemoWorker::start("talking", &["--fps", "20"]);
    proxy.register("talking", talking.address).await;
    loop {
        let frame: Value = serde_json::from_str(&video.hear().await.text()).unwrap();
        if frame["worker"] == "talking" {
            break;
        }
    }
    let on_control = |pipe: &Value| pipe["route"] == "ws";
    let pipe = proxy.pipe_that("the control pipe", on_control).await;
    assert_eq!((&pipe["backend"], &pipe["interruptions"]), (&json!("silent"), &json!(1)), "silence is normal there");
    control.text("{}").await;
    silent.journal("messages=1").await;
}

#[tokio::test]
async fn ib_15_a_worker_that_freezes_for_ten_seconds_keeps_its_pipes_by_default() {
    let proxy = Proxy::start("");
    let [a, b] = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("a", a.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    proxy.register("b", b.address).await;
    a.knob("freeze?ms=10000").await;
    let frozen = Instant::now();
    assert_eq!(client.exchange("are you there?").await, "are you there?");
    assert!(frozen.elapsed() > Duration::from_secs(9), "{:?}", frozen.elapsed());
    let pipe = proxy.pipes().await.remove(0);
    assert_eq!((&pipe["interruptions"], &pipe["backend"]), (&json!(0), &json!("a")));
}

#[tokio::test]
async fn iw_13_a_half_open_worker_is_found_by_its_heartbeat() {
    let proxy = Proxy::start("[heartbeat]\nbackend_interval = \"100ms\"\nbackend_timeout = \"500ms\"\n");
    let [a, b] = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("a", a.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    proxy.register("b", b.address).await;
    a.knob("halfopen").await;
    assert_eq!(client.exchange("kept").await, "kept");
    assert_eq!(proxy.event_of(0, "pipe.interrupted").await["reason"], "heartbeat");
}

#[tokio::test]
async fn a_drained_worker_hands_its_pipes_over_with_nothing_lost_and_nothing_twice() {
    let proxy = Proxy::start("");
    let [a, b] = [DemoWorker::start("a", &["--command-ms", "2"]), DemoWorker::start("b", &[])];
    proxy.register("a", a.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/control").await;
    proxy.register("b", b.address).await;
    for n in 1..=200 {
        if n == 100 {
            let reply = proxy.api("PUT", "/v1/backends/a/state", Some(json!({ "state": "drain" }))).await;
            assert_eq!(reply.status, 202, "{}", reply.text());
        }
        client.text(json!({ "n": n }).to_string()).await;
    }
    proxy.event_of(0, "backend.drained").await;
    // The move has its turn when it comes: how much the old worker still gets is not said.
    let mut all = eventually("the last command", async || {
        let executed = [a.executed(0).await, b.executed(0).await].concat();
        executed.contains(&200).then_some(executed)
    })
    .await;
    all.sort_unstable();
    assert_eq!(all, Vec::from_iter(1..=200));
    assert_eq!(proxy.get("/v1/backends/a").await["pipes"], 0);
    client.close(1000, "").await;
    proxy.emptied().await;
}

#[tokio::test]
async fn st_01_a_worker_is_pinged_and_dead_only_after_the_timeout_since_the_ping() {
    let proxy = Proxy::start("[heartbeat]\nbackend_interval = \"300ms\"\nbackend_timeout = \"5s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    wire.pongs = false;
    // longer than the interval and shorter than the timeout
    assert!(wire.is_quiet_for(Duration::from_millis(800)).await);
    assert!(!wire.pings.is_empty());
    wire.text("alive").await;
    let alive = Instant::now();
    assert_eq!(client.hear().await.text(), "alive", "any byte is life");
    assert_eq!(wire.hear().await, Said::Gone, "and then silence is death");
    assert!(alive.elapsed() >= Duration::from_millis(4_990), "{:?}", alive.elapsed());
}
