//! What probes find out about workers, what pipes find out, what workers say about themselves when they are asked, and
//! what becomes of those that say nothing any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{DemoWorker, Proxy, Said, StepWorker, Wire, eventually};

const MIB: f64 = 1_048_576.0;

/// A pool whose workers are asked for their health page.
const ASKED: &str = "[[pools]]\nname = \"default\"\nweight_from = \"memory\"\nworker_memory_max = \"1000MiB\"\n\
                     health = { kind = \"http\", path = \"/health\", interval = \"50ms\", timeout = \"5s\" }\n";

async fn backend_that(proxy: &Proxy, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || Some(proxy.get(&format!("/v1/backends/{id}")).await).filter(|backend| holds(backend)))
        .await
}

/// Answers probes with so many MiB in use, in the shape that names no limit, and takes every WebSocket.
async fn serve(worker: StepWorker, used_mb: u32) {
    let page =
        json!({ "status": "healthy", "checks": { "memory_usage_mb": used_mb, "cpu_percent": 12.4 } }).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let mut wires = Vec::new();
    loop {
        let mut knock = worker.knock_unbounded().await;
        if knock.head.line.starts_with("GET /health ") {
            knock.answer(&answer).await;
        } else {
            wires.push(knock.upgrade().await);
        }
    }
}

#[tokio::test]
async fn px_07_what_a_device_bridge_says_of_its_memory_is_shown_and_exported() {
    let proxy = Proxy::start(ASKED);
    let mut worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let backend = backend_that(&proxy, "w", "a report", |backend| backend["reported"].is_object()).await;
    let reported = &backend["reported"];
    assert_eq!(reported["memory_limit_bytes"].as_f64(), Some(2_048.0 * MIB), "its own limit, not ours: {backend}");
    assert!(reported["memory_bytes"].as_f64().unwrap() > MIB, "{backend}");
    assert!((90..=100).contains(&backend["weight_percent"].as_u64().unwrap()), "{backend}");
    let metrics = proxy.metrics().await;
    let of_w = [("pool", "default"), ("backend", "w")];
    assert!(metrics.sum("backend_reported_memory_bytes", &of_w) > MIB);
    assert_eq!(metrics.sum("backend_reported_memory_limit_bytes", &of_w), 2_048.0 * MIB);
    worker.kill();
    backend_that(&proxy, "w", "it is down", |backend| backend["health"] == "down").await;
    proxy.api("DELETE", "/v1/backends/w", None).await.expect(204);
    eventually("its series go", async || {
        (proxy.metrics().await.sum("backend_reported_memory_limit_bytes", &[]) == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn px_07_who_has_little_memory_left_gets_fewer_pipes() {
    let proxy = Proxy::start(ASKED);
    let mut serving = Vec::new();
    for (id, used_mb, left) in [("tight", 800, 20), ("free", 200, 80)] {
        let worker = StepWorker::start().await;
        proxy.register(id, worker.address).await;
        serving.push(tokio::spawn(serve(worker, used_mb)));
        let backend = backend_that(&proxy, id, "a report", |backend| backend["reported"].is_object()).await;
        assert_eq!((&backend["weight"], &backend["weight_percent"]), (&json!(1), &json!(left)), "{backend}");
        assert_eq!(backend["reported"]["cpu_percent"], 12);
    }
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Wire::connect(proxy.public, "/ws", &[]).await);
    }
    let mut pipes = Vec::new();
    for id in ["tight", "free"] {
        pipes.push(proxy.get(&format!("/v1/backends/{id}")).await["pipes"].as_u64().unwrap());
    }
    assert_eq!(pipes, [4, 16]);
    serving.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn px_07_a_worker_whose_page_says_503_is_down_after_fall_and_up_after_rise_by_itself() {
    let proxy = Proxy::start(
        "[[pools]]\nname = \"default\"\nhealth = { kind = \"http\", path = \"/health\", interval = \"20ms\", fall = 2, rise = 2 }\n\
         [[routes]]\nwait = 0\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    for (answer, times) in
        [("200 OK", 1), ("503 Service Unavailable", 1), ("200 OK", 1), ("503 Service Unavailable", 2)]
    {
        for _ in 0..times {
            worker.knock().await.answer(&format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n")).await;
        }
    }
    let down = proxy.event_of(0, "backend.down").await;
    assert_eq!(down["reason"], "answered 503", "{down}");
    assert_eq!(Wire::open(proxy.public, "/ws", &[]).await.unwrap_err().status, 503);
    for _ in 0..2 {
        worker.knock().await.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
    backend_that(&proxy, "w", "it is up again", |backend| backend["health"] == "up").await;
}

#[tokio::test]
async fn px_07_a_probe_may_be_a_websocket_handshake_and_a_page_that_answers_is_no_websocket() {
    let proxy = Proxy::start(
        "[[pools]]\nname = \"default\"\nhealth = { kind = \"ws\", path = \"/probe\", interval = \"20ms\", fall = 2 }\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut wire = worker.accept().await;
    assert_eq!(wire.head.path(), "/probe");
    assert!(matches!(wire.hear().await, Said::Close(..)), "it says goodbye");
    drop(wire);
    backend_that(&proxy, "w", "it is up", |backend| backend["health"] == "up").await;
    for _ in 0..2 {
        worker.knock().await.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
    let down = proxy.event_of(0, "backend.down").await;
    assert_eq!(down["reason"], "answered 200 instead of 101", "{down}");
}

#[tokio::test]
async fn px_07_a_page_asked_of_a_server_that_speaks_websocket_alone_says_how_to_probe_it_instead() {
    let health = "health = { kind = \"http\", path = \"/\", interval = \"20ms\", fall = 1 }";
    let proxy = Proxy::start(&format!("[[pools]]\nname = \"default\"\n{health}\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let head = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n";
    worker.knock().await.answer(head).await;
    let down = proxy.event_of(0, "backend.down").await;
    let expected = "answered 426: it speaks WebSocket alone; probe it by \"ws\" or \"tcp\"";
    assert_eq!(down["reason"], expected, "{down}");
}

/// A worker that drops every connection unanswered for as long as it is ill.
#[derive(Default)]
struct Patient {
    well: AtomicBool,
    refused: AtomicUsize,
    served: AtomicUsize,
}

async fn be_ill(worker: StepWorker, patient: Arc<Patient>) {
    let mut wires = Vec::new();
    loop {
        let knock = worker.knock_unbounded().await;
        if patient.well.load(Relaxed) {
            wires.push(knock.upgrade().await);
            patient.served.fetch_add(1, Relaxed);
        } else {
            drop(knock);
            patient.refused.fetch_add(1, Relaxed);
        }
    }
}

/// How many backends rested at once at most, by the events so far.
async fn most_at_rest(proxy: &Proxy) -> usize {
    let events = proxy.get("/v1/events?limit=1000").await;
    let (mut resting, mut most) = (HashSet::new(), 0);
    for event in events["items"].as_array().unwrap() {
        let backend = event["backend"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "backend.ejected" => assert!(resting.insert(backend), "{event}"),
            "backend.readmitted" | "backend.up" => drop(resting.remove(&backend)),
            _ => {}
        }
        most = most.max(resting.len());
    }
    most
}

#[tokio::test]
async fn of_four_workers_that_fail_everybody_two_are_ejected_at_most_and_all_come_back_by_themselves() {
    // never probed: pipes are all that can tell
    let pool =
        "[[pools]]\nname = \"default\"\nbalance = \"round_robin\"\nhealth.interval = \"0s\"\n[[routes]]\nwait = 0\n";
    let proxy = Proxy::start(pool);
    let patients: [Arc<Patient>; 4] = Default::default();
    let mut serving = Vec::new();
    for (number, patient) in patients.iter().enumerate() {
        let worker = StepWorker::start().await;
        proxy.register(&format!("w{number}"), worker.address).await;
        serving.push(tokio::spawn(be_ill(worker, patient.clone())));
    }
    let refuses = async || {
        let asked = || patients.iter().map(|patient| patient.refused.load(Relaxed)).sum::<usize>();
        let before = asked();
        assert_eq!(Wire::open(proxy.public, "/ws", &[]).await.unwrap_err().status, 502);
        assert!(asked() >= before + 2, "one of them is always asked");
    };
    let resting = async || proxy.get("/v1/pools/default").await["states"]["health"]["ejected"].as_u64().unwrap();
    eventually("two rest", async || {
        refuses().await;
        (resting().await == 2).then_some(())
    })
    .await;
    eventually("all would deserve it", async || {
        refuses().await;
        patients.iter().all(|patient| patient.refused.load(Relaxed) >= 3).then_some(())
    })
    .await;
    for _ in 0..20 {
        refuses().await;
        assert!(resting().await <= 2);
    }
    assert!(proxy.metrics().await.sum("backend_ejections_total", &[("reason", "failed_dials")]) >= 2.0);
    patients.iter().for_each(|patient| patient.well.store(true, Relaxed));
    let mut clients = Vec::new();
    eventually("all four are back", async || {
        clients.push(Wire::connect(proxy.public, "/ws", &[]).await);
        patients.iter().all(|patient| patient.served.load(Relaxed) > 0).then_some(())
    })
    .await;
    assert_eq!(most_at_rest(&proxy).await, 2);
    assert_eq!(resting().await, 0);
    serving.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Renews the leases of these backends until it is dropped.
async fn renew(proxy: &Proxy, ids: &[&str]) {
    let mut beats = tokio::time::interval(Duration::from_millis(200));
    loop {
        beats.tick().await;
        for id in ids {
            proxy.api("PUT", &format!("/v1/backends/{id}/lease"), Some(json!({}))).await.expect(200);
        }
    }
}

#[tokio::test]
async fn leases_that_run_out_together_are_kept_and_a_lone_one_costs_its_worker_new_pipes_and_if_it_is_dead_the_rest() {
    let proxy = Proxy::start("[[pools]]\nname = \"default\"\nhealth.interval = \"1h\"\n");
    let leased =
        |worker: &StepWorker| json!({ "url": format!("ws://{}", worker.address), "lease": "3s", "instance": "i" });
    let lone = StepWorker::start().await;
    proxy.register_as("lone", leased(&lone)).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), lone.accept());
    let others = [StepWorker::start().await, StepWorker::start().await, StepWorker::start().await];
    for (id, worker) in ["a", "b", "c"].iter().zip(&others) {
        proxy.register_as(id, leased(worker)).await;
    }
    // who says the same again renews: the four leases end within the same moment
    proxy.register_as("lone", leased(&lone)).await;
    // no lease is renewed: it is more likely that we have a fault than that all of them have
    let kept = proxy.event_of(0, "pool.self_preservation").await;
    assert!(kept["late"].as_u64().unwrap() * 2 > kept["live"].as_u64().unwrap(), "{kept}");
    let pool = proxy.get("/v1/pools/default").await;
    assert_eq!((&pool["eligible"], &pool["states"]["lease"]["live"]), (&json!(4), &json!(4)), "{pool}");
    let steps = async {
        // the others may expire too where this machine stalls for as long as a lease lasts; they are renewed all the same
        let of_lone = |kind: &'static str| move |event: &Value| event["type"] == kind && event["backend"] == "lone";
        proxy.event(0, "the lone lease expires", of_lone("backend.lease_expired")).await;
        let backend = proxy.get("/v1/backends/lone").await;
        assert_eq!((&backend["lease_state"], &backend["eligible"]), (&json!("expired"), &json!(false)), "{backend}");
        assert_eq!(proxy.pipes().await[0]["backend"], "lone", "its worker answers probes: the pipe stays");
        proxy.api("PUT", "/v1/backends/lone/lease", Some(json!({}))).await.expect(200);
        let revived = proxy.event(0, "it is revived", of_lone("backend.lease_revived")).await;
        assert_eq!(proxy.get("/v1/backends/lone").await["eligible"], true);
        drop(lone);
        let after = revived["seq"].as_u64().unwrap();
        proxy.event(after, "it expires again", of_lone("backend.lease_expired")).await;
        let [a, b, c] = &others;
        let mut next =
            tokio::select! { next = a.accept() => next, next = b.accept() => next, next = c.accept() => next };
        client.text("on").await;
        assert_eq!(next.hear().await.text(), "on");
    };
    tokio::select! {
        () = renew(&proxy, &["a", "b", "c"]) => {}
        () = steps => {}
    }
    assert!(proxy.metrics().await.sum("leases_expired_total", &[("pool", "default")]) >= 2.0);
    proxy.api("PUT", "/v1/backends/stranger/lease", Some(json!({}))).await.expect(404);
    drop(wire);
}
