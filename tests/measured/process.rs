//! How soon the process is gone, and says what has become of its workers.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, ask, eventually};
use crate::measure::alone;

#[tokio::test]
async fn st_09_a_shutdown_says_1001_to_all_is_bounded_despite_stuck_peers_and_reports() {
    const WILLING: usize = 10;
    let _alone = alone();
    let mut proxy = Proxy::start("[server]\nshutdown_grace = \"3s\"\nclose_spread = \"200ms\"\n");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    for _ in 0..WILLING {
        clients.push(Client::connect(proxy.public, "/ws/s1/echo").await);
    }
    // two that never answer anything, not even a close frame
    let stuck = [(); 2].map(|()| Wire::connect(proxy.public, "/ws/s1/echo", &[]));
    let [one, two] = stuck;
    let stuck = tokio::join!(one, two);
    assert_eq!(ask(proxy.admin, "GET", "/health/ready", &[], "").await.status, 200);
    proxy.signal(Signal::TERM);
    let told = Instant::now();
    eventually("not ready any more", async || {
        (ask(proxy.admin, "GET", "/health/ready", &[], "").await.status == 503).then_some(())
    })
    .await;
    for mut client in clients {
        assert!(matches!(client.hear().await, Said::Close(1001, _)));
        // the answer leaves with the next read
        assert_eq!(client.hear().await, Said::Gone);
    }
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    let report = proxy.logged("stopped", 1).await.remove(0);
    assert_eq!((&report["closed"], &report["failed"]), (&json!(WILLING), &json!(2)), "{report}");
    assert!(report["seconds"].as_f64().unwrap() >= 2.9, "{report}");
    drop(stuck);
}

#[tokio::test]
async fn st_09_a_shutdown_with_willing_peers_is_over_as_soon_as_they_have_gone() {
    let _alone = alone();
    let mut proxy = Proxy::start("[server]\nclose_spread = \"0s\"\n");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    proxy.signal(Signal::TERM);
    let told = Instant::now();
    assert!(matches!(client.hear().await, Said::Close(1001, _)));
    assert_eq!(client.hear().await, Said::Gone);
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let report = proxy.logged("stopped", 1).await.remove(0);
    assert_eq!((&report["closed"], &report["failed"]), (&json!(1), &json!(0)), "{report}");
    let totals = proxy.logged("totals", 1).await.remove(0);
    let seen = ["pipes", "messages_up", "messages_down", "lost", "interruptions"].map(|name| totals[name].clone());
    assert_eq!(seen, [1, 1, 1, 0, 0].map(|count| json!(count)), "{totals}");
}

#[tokio::test]
async fn px_01_live_ready_and_health_tell_the_truth() {
    let _alone = alone();
    let proxy = Proxy::start("[[pools]]\nname = \"default\"\nhealth = { interval = \"50ms\", timeout = \"1s\" }\n");
    let status = async |path: &str| ask(proxy.admin, "GET", path, &[], "").await.status;
    for (live, ready) in [("/health/live", "/health/ready"), ("/livez", "/readyz")] {
        assert_eq!((status(live).await, status(ready).await), (200, 503), "no backend yet");
    }
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    eventually("ready", async || (status("/readyz").await == 200).then_some(())).await;
    let health = proxy.get("/health").await;
    assert_eq!((&health["status"], &health["backends"]["eligible"]), (&json!("ok"), &json!(1)), "{health}");
    assert!(health["memory"]["rss_mb"].as_f64().unwrap() > 1.0, "{health}");
    assert!(health["uptime_s"].as_f64().is_some() && health["version"].is_string(), "{health}");
    drop(worker);
    let dead = Instant::now();
    eventually("not ready", async || (status("/readyz").await == 503).then_some(())).await;
    assert!(dead.elapsed() < Duration::from_secs(1), "{:?}", dead.elapsed());
    assert_eq!(status("/livez").await, 200);
}
