//! Viewers of a shared stream that take nothing: what all of them hold is there once.

use futures_util::future::join_all;

use crate::books::{Books, assert_not_counted_twice};
use crate::harness::{Proxy, StepWorker, Wire, eventually};
use crate::measure::alone;

const VIEWERS: usize = 60;
const FRAMES: usize = 40;
const FRAME_BYTES: usize = 1_200_000;

const CONFIG: &str = r#"
[limits]
key_connections = 0
key_rate = 0
[replay]
stall_max = "10m"
[[pools]]
name = "default"
[[routes]]
name = "ws"
path = "/ws/{device}/{kind}"
key = "{device}"
share = true
down = "latest:2"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_slow_viewers_share_are_charged_once_and_the_watch_does_not_forget_what_is_used() {
    let _alone = alone();
    let proxy = Proxy::start(CONFIG);
    let books = Books::open(&proxy).await;
    let before = proxy.get("/v1/stats").await["memory"]["used_bytes"].as_f64().unwrap();
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let opening = async { join_all((0..VIEWERS).map(|_| Wire::connect(proxy.public, "/ws/cam/video", &[]))).await };
    let (viewers, mut wire) = tokio::join!(opening, worker.accept());
    for n in 0..FRAMES {
        wire.frame_out(true, 2, &vec![n as u8; FRAME_BYTES]).await;
        books.check("slow viewers").await;
    }
    // Newer frames take the place of older ones once the viewers' sockets are full.
    eventually("every viewer lags", async || {
        let dropped = proxy.metrics().await.sum("dropped_messages_total", &[("lane", "down")]);
        (dropped >= (VIEWERS * FRAMES / 4) as f64).then_some(())
    })
    .await;
    let grown = books.check("slow viewers").await;
    println!("{VIEWERS} viewers: {:.1} MiB resident, {:.1} said", grown.resident / 1048576.0, grown.said / 1048576.0);
    assert_not_counted_twice("slow viewers", grown);
    drop(viewers);
    // Without its viewers, a stream waits for others as long as it has its worker.
    wire.reset();
    proxy.emptied().await;
    let used = proxy.get("/v1/stats").await["memory"]["used_bytes"].as_f64().unwrap();
    assert!(used >= before * 0.8, "{used} used, and {before} before any of them came");
}
