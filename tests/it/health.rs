//! What probes find out about workers, and what workers say about themselves when they are asked.

use serde_json::{Value, json};

use crate::harness::{DemoWorker, Proxy, StepWorker, Wire, eventually};

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
        "[[pools]]\nname = \"default\"\nhealth = { kind = \"http\", path = \"/health\", interval = \"20ms\", fall = 2, rise = 2 }\n",
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
