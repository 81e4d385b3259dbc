//! Ten thousand clients that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};
use crate::measure::alone;

/// Serves every WebSocket as an echo that answers closes.
async fn echo_for_ever(worker: StepWorker) {
    loop {
        let knock = worker.knock_unbounded().await;
        tokio::spawn(async move {
            let mut wire = knock.upgrade().await;
            loop {
                match wire.hear_unbounded().await {
                    Said::Text(text) if text == "close" => return close(wire, 4000).await,
                    Said::Text(text) => {
                        let frame = wire.encode(0x81, text.as_bytes());
                        if wire.send_raw(&frame).await.is_err() {
                            return;
                        }
                    }
                    Said::Close(code, _) => return close(wire, code).await,
                    Said::Binary(_) | Said::Gone => return,
                }
            }
        });
    }
}

async fn close(mut wire: Wire, code: u16) {
    let frame = wire.encode(0x88, &code.to_be_bytes());
    // a peer that is gone needs no answer
    let _ = wire.send_raw(&frame).await;
    while !matches!(wire.hear_unbounded().await, Said::Close(..) | Said::Gone) {}
}

/// Connects, exchanges a message and goes: in good order, told to, or without a word.
async fn cycle(proxy: &Proxy, number: u64) {
    let mut client = Wire::connect(proxy.public, "/ws/same-id", &[]).await;
    client.text("hello").await;
    assert_eq!(client.hear().await.text(), "hello");
    match number % 3 {
        0 => {
            client.close(1000, "").await;
            assert!(matches!(client.hear().await, Said::Close(1000, _)));
        }
        1 => {
            client.text("close").await;
            assert!(matches!(client.hear().await, Said::Close(4000, _)));
            client.close(4000, "").await;
            assert_eq!(client.hear().await, Said::Gone);
        }
        _ => client.reset(),
    }
}

async fn cycles(proxy: &Arc<Proxy>, count: u64) {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (proxy, next) = (proxy.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        return;
                    }
                    cycle(&proxy, number).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eventually("everything is closed", async || {
        let metrics = proxy.metrics().await;
        (metrics.sum("connections", &[("listener", "public")]) == 0.0 && metrics.sum("backend_pipes", &[]) == 0.0)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn iw_08_after_ten_thousand_connects_and_closes_gauges_are_at_zero_and_descriptors_and_memory_flat() {
    const WARM: u64 = 2_000;
    const REST: u64 = 8_000;
    let _alone = alone();
    let proxy = Arc::new(Proxy::start(""));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let serving = tokio::spawn(echo_for_ever(worker));
    let began = Instant::now();
    cycles(&proxy, WARM).await;
    let (descriptors, kib) = (proxy.descriptors(), proxy.memory_kib("VmRSS"));
    cycles(&proxy, REST).await;
    let (after, kib_after) = (proxy.descriptors(), proxy.memory_kib("VmRSS"));
    let grown = kib_after as i64 - kib as i64;
    println!(
        "IW-08: 10,000 cycles in {:?}; descriptors {descriptors} then {after}; memory {kib} KiB, {grown:+} KiB after",
        began.elapsed()
    );
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("pipes_total", &[]), (WARM + REST) as f64);
    for gauge in ["pipes", "backend_pipes", "replay_buffer_bytes"] {
        assert_eq!(metrics.sum(gauge, &[]), 0.0, "{gauge}");
    }
    assert!(after.abs_diff(descriptors) <= 4, "descriptors: {descriptors} then {after}");
    assert!(grown < 4 << 10, "memory grew by {grown} KiB");
    serving.abort();
    drop(Arc::into_inner(proxy));
}
