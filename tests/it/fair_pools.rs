//! `replay.total_bytes_max` among pools: the outage of one leaves the pipes of another their part.

use serde_json::json;

use crate::harness::{ALL_THERE, Client, DemoWorker, Proxy, Wire, eventually, heirs, orphans};

const MIB: usize = 1 << 20;
/// Much more than each thread may have taken in and not booked yet: a turn of a pipe moves up to a mebibyte.
const TOTAL: usize = 32 * MIB;
const MESSAGES: usize = 10;
const MESSAGE_BYTES: usize = 100_000;

const CONFIG: &str = r#"
[replay]
total_bytes_max = "32MiB"
pipe_bytes_max = "8MiB"
[reattach]
grace = "10m"
[[pools]]
name = "out"
[[pools]]
name = "farm"
[[pools]]
name = "other"
[[routes]]
name = "out"
path = "/out/{n}"
pool = "out"
[[routes]]
name = "farm"
path = "/farm/{n}"
pool = "farm"
[[routes]]
name = "other"
path = "/ws/{session}/{channel}"
pool = "other"
"#;

/// Says more than may be kept for it, for as long as it is read.
async fn flood(mut wire: Wire) {
    let bytes = wire.encode(0x82, &vec![b'.'; MESSAGE_BYTES]);
    while wire.send_raw(&bytes).await.is_ok() {}
}

/// Bytes of messages that all pipes hold.
async fn held(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("memory_bytes", &[("kind", "replay")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outage_of_one_pool_neither_pauses_nor_slows_the_pipes_of_another() {
    let proxy = Proxy::start(CONFIG);
    let worker = DemoWorker::start("w", &[]);
    let url = format!("ws://{}", worker.address);
    proxy.register_as("w", json!({ "url": url, "pool": "other" })).await;
    let mut talker = Client::connect(proxy.public, "/ws/s1/echo").await;
    let flooders = orphans(&proxy, "out", "/out/", 6).await;
    let floods: Vec<_> = flooders.into_iter().map(|wire| tokio::spawn(flood(wire))).collect();
    // Four fifths, less what no message fits into any more.
    eventually("the pool that is out has its part", async || (held(&proxy).await >= TOTAL as f64 * 0.75).then_some(()))
        .await;
    let large = "x".repeat(200_000);
    for n in 0..20 {
        assert_eq!(talker.exchange(&format!("{n} {large}")).await, format!("{n} {large}"));
    }
    let mut farmers = orphans(&proxy, "farm", "/farm/", 1).await;
    for n in 0..MESSAGES {
        farmers[0].frame_out(true, 2, &vec![n as u8; MESSAGE_BYTES]).await;
    }
    eventually("all that another pool's client says in an outage is taken", async || {
        let pipes = proxy.pipes().await;
        let farmer = pipes.iter().find(|pipe| pipe["route"] == "farm").unwrap();
        (farmer["up"]["accepted"] == MESSAGES).then_some(())
    })
    .await;
    assert!(held(&proxy).await <= TOTAL as f64 * 1.1, "{}", held(&proxy).await);
    let heirs = heirs(&proxy, "farm", MESSAGES, MESSAGE_BYTES).await;
    assert_eq!(farmers[0].hear().await, ALL_THERE);
    heirs.abort();
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}
