//! Pipes beside each other on one thread: none holds it for longer than its turn (`src/pipe/budget.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::harness::{Proxy, Said, StepWorker, Wire};

const VIDEOS: usize = 4;
const FRAME_BYTES: usize = 226 * 1024;
const TAPS: usize = 100;

/// A worker that sends frames as fast as they are taken, until it is told to stop.
async fn films(mut worker: Wire, stop: Arc<AtomicBool>) {
    let frame = vec![7; FRAME_BYTES];
    while !stop.load(Relaxed) {
        worker.frame_out(true, 2, &frame).await;
    }
    worker.close(4000, "cut").await;
    while worker.hear().await != Said::Gone {}
}

async fn watches(mut client: Wire, delivered: Arc<AtomicU64>) {
    while let Said::Binary(frame) = client.hear().await {
        delivered.fetch_add(frame.len() as u64, Relaxed);
    }
}

/// In bytes instead of time, which no other load on the machine changes: what went through the videos meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_beside_four_videos_at_full_speed_waits_for_a_few_turns_of_theirs() {
    let proxy = Proxy::start("[server]\nthreads = 1\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (stop, delivered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    let (mut control, mut device) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), worker.accept());
    for _ in 0..VIDEOS {
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/video", &[]), worker.accept());
        tasks.push(tokio::spawn(films(wire, stop.clone())));
        tasks.push(tokio::spawn(watches(client, delivered.clone())));
    }
    let mut meanwhile = Vec::new();
    for n in 0..TAPS {
        let before = delivered.load(Relaxed);
        control.text(&n.to_string()).await;
        assert_eq!(device.hear().await.text(), n.to_string());
        device.text("done").await;
        assert_eq!(control.hear().await.text(), "done");
        meanwhile.push(delivered.load(Relaxed) - before);
    }
    stop.store(true, Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    meanwhile.sort_unstable();
    let (half, most, all) = (meanwhile[TAPS / 2] >> 10, meanwhile[TAPS - 1] >> 10, delivered.load(Relaxed) >> 20);
    println!("KiB of video beside a tap: {half} (p50), {most} at most; {all} MiB in all");
    assert!(all > 50, "no video to speak of: {all} MiB");
    assert!(half < 24 << 10, "a tap waits for {half} KiB of video");
}
