//! Slow clients with a worker of their own, and the figures that an operator watches.

use serde_json::json;

use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};

/// A video frame as large as the seed's.
const FRAME_BYTES: usize = 226 * 1024;

const ROUTES: &str = r#"
[[pools]]
name = "default"
[[routes]]
name = "video"
path = "/ws/{device}/video"
down = "latest:3"
[[routes]]
name = "rest"
path = "/{*path}"
"#;

/// Frame `n`: its number, then bytes that only it has.
fn frame(n: u32) -> Vec<u8> {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(FRAME_BYTES, n as u8);
    bytes
}

fn number(said: Said) -> u32 {
    let Said::Binary(bytes) = said else { panic!("{said:?}") };
    let n = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    assert!(bytes.len() == FRAME_BYTES && bytes[4..].iter().all(|&byte| byte == n as u8), "frame {n} is spliced");
    n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_16_a_client_that_takes_nothing_for_a_while_gets_the_newest_three_whole_and_the_worker_never_waits() {
    const FRAMES: u32 = 400;
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/cam/video", &[]), worker.accept());
    let mut early = 0;
    for n in 1..=FRAMES {
        wire.frame_out(true, 2, &frame(n)).await;
        if n == FRAMES / 4 {
            early = proxy.memory_kib("VmRSS");
        }
    }
    let grown = proxy.memory_kib("VmRSS").saturating_sub(early);
    assert!(grown < 8 * 1024, "{grown} KiB for {} MB more", (FRAMES * 3 / 4) as usize * FRAME_BYTES / 1_000_000);
    let mut heard = Vec::new();
    while heard.last() != Some(&FRAMES) {
        heard.push(number(client.hear().await));
    }
    assert!(heard.is_sorted() && heard.ends_with(&[FRAMES - 2, FRAMES - 1, FRAMES]), "{heard:?}");
    let metrics = proxy.metrics().await;
    let dropped = metrics.sum("dropped_messages_total", &[("route", "video"), ("lane", "down"), ("reason", "latest")]);
    assert_eq!(dropped as usize, FRAMES as usize - heard.len(), "each drop is counted: {heard:?}");
    assert_eq!(metrics.sum("lost_messages_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_16_control_and_logs_wait_for_their_client_and_none_is_dropped() {
    const LINES: u32 = 30_000;
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/cam/logs", &[]), worker.accept());
    let logging = tokio::spawn(async move {
        for n in 0..LINES {
            wire.text(&format!("{n:0800}")).await;
        }
        wire
    });
    eventually("the worker is held up", async || {
        (proxy.metrics().await.sum("read_paused_total", &[("route", "rest"), ("lane", "down")]) >= 1.0).then_some(())
    })
    .await;
    for n in 0..LINES {
        assert_eq!(client.hear().await.text().parse(), Ok(n));
    }
    logging.await.unwrap();
    assert_eq!(proxy.metrics().await.sum("dropped_messages_total", &[]), 0.0);
}

#[tokio::test]
async fn ib_23_the_five_figures_to_watch_are_metrics_and_move_when_things_are_bad() {
    let proxy = Proxy::start(
        "[limits]\nkey_connections = 2\nkey_rate = 0\n[memory]\nprocess_max = \"4GiB\"\n\
         [[pools]]\nname = \"default\"\nhealth.interval = \"0s\"\n[[routes]]\nname = \"ws\"\n\
         path = \"/ws/{device}/video\"\nkey = \"{device}\"\nshare = true\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let turned_away = async {
        let refused = Wire::open(proxy.public, "/ws/door/video", &[]).await.unwrap_err();
        assert!((502..=504).contains(&refused.status), "{refused:?}");
    };
    tokio::join!(turned_away, async { drop(worker.knock().await) });
    let metrics = proxy.metrics().await;
    let failed =
        metrics.sum("backend_connects_total", &[]) - metrics.sum("backend_connects_total", &[("result", "attached")]);
    assert_eq!(failed, 1.0, "connect failures");
    assert_eq!(proxy.get("/stats").await["counters"]["connect_failures_total"], 1);
    let opening = Wire::connect(proxy.public, "/ws/cam/video", &[]);
    let (_first, _wire) = tokio::join!(opening, worker.accept());
    let _second = Wire::connect(proxy.public, "/ws/cam/video", &[]).await;
    Wire::open(proxy.public, "/ws/cam/video", &[]).await.unwrap_err().expect(429);
    eventually("those who were turned away are gone", async || {
        (proxy.metrics().await.sum("connections", &[("listener", "public")]) == 2.0).then_some(())
    })
    .await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("shared_streams", &[]), 1.0, "pool size");
    assert_eq!(metrics.sum("rate_limited_total", &[("limit", "key_connections")]), 1.0, "rate-limit violations");
    let limit = metrics.sum("memory_limit_bytes", &[]);
    assert!(limit > 0.0 && metrics.sum("memory_bytes", &[]) > 0.0, "memory against its limit");
    let seen = proxy.get("/stats").await;
    assert_eq!((&seen["total_connections"], &seen["rate_limits"]["limited_total"]), (&json!(2), &json!(1)));
    assert_eq!(seen["memory"]["limit_bytes"].as_f64(), Some(limit));
    let health = proxy.get("/health").await;
    assert!(health["memory"]["rss_mb"].as_f64().unwrap() > 0.0 && health["memory"]["limit_mb"].as_f64().unwrap() > 0.0);
    assert!(health["memory"]["percent"].as_f64().unwrap() < 100.0, "{health}");
}
