//! The registry of backends, filled to its bound and listed over and over: those who want in notice little of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{DemoWorker, Proxy, Wire, ask};
use crate::measure::{alone, percentiles};

const BACKENDS_MAX: usize = 1_000;
const KEYS: usize = 1_000;
const HANDSHAKES: usize = 60;
const LISTERS: usize = 2;

/// How many times as long the middle handshake takes beside the listings, beyond what a busy machine does to any.
const SLOWER_MAX: u32 = 8;
const BUSY: Duration = Duration::from_millis(40);

/// Registers backends until there is no room for another.
async fn fill(proxy: &Proxy) {
    let serves: Vec<String> = (0..KEYS).map(|key| format!("{key:0>60}")).collect();
    for n in 0..BACKENDS_MAX {
        let said = json!({
            "url": format!("ws://127.0.0.1:7/{n}"), "pool": "other", "serves": serves,
            "health": { "type": "tcp", "interval": "0s" },
        });
        match proxy.api("PUT", &format!("/v1/backends/b{n}"), Some(said)).await {
            full if full.status == 507 => return,
            registered => registered.expect(201),
        };
    }
    panic!("there is no bound");
}

/// What the middle one of some handshakes takes.
async fn handshake(proxy: &Proxy) -> Duration {
    let mut times = Vec::new();
    for n in 0..HANDSHAKES {
        let began = Instant::now();
        drop(Wire::connect(proxy.public, &format!("/ws/{n}/echo"), &[]).await);
        times.push(began.elapsed());
    }
    percentiles(&mut times, [50])[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_a_full_registry_keeps_no_handshake_waiting() {
    let _alone = alone();
    let proxy = Arc::new(Proxy::start("[[pools]]\nname = \"default\"\n[[pools]]\nname = \"other\"\n"));
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    fill(&proxy).await;
    let held = proxy.metrics().await.sum("memory_bytes", &[("kind", "backends")]);
    assert!(held > (48 << 20) as f64, "{held} bytes are no full registry");
    let alone = handshake(&proxy).await;
    let (stop, lists) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let listers: Vec<_> = (0..LISTERS)
        .map(|_| {
            let (proxy, stop, lists) = (proxy.clone(), stop.clone(), lists.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    ask(proxy.admin, "GET", "/v1/backends?limit=1000", &[], "").await.expect(200);
                    lists.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let beside = handshake(&proxy).await;
    stop.store(true, Relaxed);
    for lister in listers {
        lister.await.unwrap();
    }
    let lists = lists.load(Relaxed);
    println!("a handshake takes {alone:?} alone and {beside:?} beside {lists} lists");
    assert!(lists >= LISTERS, "nothing was listed");
    assert!(beside <= alone * SLOWER_MAX + BUSY, "{beside:?} beside {lists} lists, {alone:?} alone");
}
