//! Pipes whose worker is lost: what their clients say waits for another, which finds out whether all of it was kept.

use serde_json::json;
use tokio::task::JoinHandle;

use super::{Proxy, Said, StepWorker, Wire, eventually};

/// With which a worker of [`heirs`] closes a pipe of which it has heard everything.
pub const ALL_THERE: Said = Said::Close(4000, String::new());

/// The clients of `count` pipes for `path` with a number behind it, of a pool whose one worker is lost.
pub async fn orphans(proxy: &Proxy, pool: &str, path: &str, count: usize) -> Vec<Wire> {
    let worker = StepWorker::start().await;
    proxy.register_as("lost", json!({ "url": format!("ws://{}", worker.address), "pool": pool })).await;
    let (mut clients, mut wires) = (Vec::new(), Vec::new());
    for n in 0..count {
        let path = format!("{path}{n}");
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, &path, &[]), worker.accept());
        clients.push(client);
        wires.push(wire);
    }
    let before = detached(proxy).await;
    drop(worker);
    wires.into_iter().for_each(Wire::reset);
    eventually("all have lost their worker", async || (detached(proxy).await == before + count as f64).then_some(()))
        .await;
    clients
}

async fn detached(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("pipes", &[("state", "detached")])
}

/// Workers of `pool` for all that wait: each hears so many messages of so many bytes, each of them the message's number,
/// and then closes with [`ALL_THERE`]; a pipe with anything else in it is left without an answer.
pub async fn heirs(proxy: &Proxy, pool: &str, messages: usize, bytes: usize) -> JoinHandle<()> {
    let worker = StepWorker::start().await;
    proxy.register_as("heir", json!({ "url": format!("ws://{}", worker.address), "pool": pool })).await;
    tokio::spawn(async move {
        loop {
            let wire = worker.knock_unbounded().await.upgrade().await;
            tokio::spawn(hear_all(wire, messages, bytes));
        }
    })
}

async fn hear_all(mut wire: Wire, messages: usize, bytes: usize) {
    for n in 0..messages {
        match wire.hear_unbounded().await {
            Said::Binary(message) if message == vec![n as u8; bytes] => {}
            Said::Binary(_) | Said::Text(_) | Said::Close(..) | Said::Gone => return,
        }
    }
    wire.close(4000, "").await;
    while wire.hear_unbounded().await != Said::Gone {}
}
