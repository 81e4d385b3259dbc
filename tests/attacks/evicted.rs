//! Memory that attackers use up: they go, and the innocent keep their conversations, though they are detached.

use serde_json::json;

use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};

const INNOCENTS: usize = 20;
const THEIR_MESSAGES: usize = 10;
const THEIR_BYTES: usize = 20_000;
const ATTACKERS: usize = 8;
const LIMIT_MIB: u64 = 128;
/// What resident memory may exceed the limit by: what each data thread takes in during one turn, and what is no pipe's.
const BEYOND_PERCENT: u64 = 10;

fn config(evict: &str) -> String {
    format!(
        "[memory]\nprocess_max = \"{LIMIT_MIB}MiB\"\nevict = \"{evict}\"\n[reattach]\ngrace = \"10m\"\n\
         [replay]\npipe_bytes_max = \"64MiB\"\n[[pools]]\nname = \"default\"\n"
    )
}

/// A message of 60,000 fragments without a byte.
fn empty_fragments() -> Vec<u8> {
    let frame = |first: u8| [first, 0x80, 0, 0, 0, 0];
    [&frame(0x02)[..], &frame(0).repeat(60_000), &frame(0x80)].concat()
}

async fn send_on(mut wire: Wire, bytes: Vec<u8>) -> Wire {
    // An attacker that is evicted is cut off.
    while wire.send_raw(&bytes).await.is_ok() {}
    wire
}

async fn innocents_stay(evict: &str) {
    let proxy = Proxy::start(&config(evict));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut clients, mut wires) = (Vec::new(), Vec::new());
    for n in 0..INNOCENTS + ATTACKERS {
        let path = format!("/ws/{n}");
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, &path, &[]), worker.accept());
        clients.push(client);
        wires.push(wire);
    }
    drop(worker);
    wires.into_iter().for_each(Wire::reset);
    eventually("all have lost their worker", async || {
        let detached = proxy.metrics().await.sum("pipes", &[("state", "detached")]);
        (detached == (INNOCENTS + ATTACKERS) as f64).then_some(())
    })
    .await;
    let attackers = clients.split_off(INNOCENTS);
    for client in &mut clients {
        for n in 0..THEIR_MESSAGES {
            client.frame_out(true, 2, &[n as u8; THEIR_BYTES]).await;
        }
    }
    let attacks: Vec<_> = attackers.into_iter().map(|wire| tokio::spawn(send_on(wire, empty_fragments()))).collect();
    eventually("attackers are evicted", async || {
        (proxy.metrics().await.sum("evictions_total", &[("policy", evict)]) >= 3.0).then_some(())
    })
    .await;
    let highest = proxy.memory_kib("VmHWM") / 1024;
    println!("{evict}: {highest} MiB at most under a limit of {LIMIT_MIB}");
    assert!(highest * 100 <= LIMIT_MIB * (100 + BEYOND_PERCENT), "{highest} MiB under a limit of {LIMIT_MIB}");
    attacks.iter().for_each(tokio::task::JoinHandle::abort);
    serve_all(&proxy, clients).await;
}

/// A worker comes, and gets every message of every innocent.
async fn serve_all(proxy: &Proxy, clients: Vec<Wire>) {
    let worker = StepWorker::start().await;
    proxy.register_as("new", json!({ "url": format!("ws://{}", worker.address) })).await;
    let serving = tokio::spawn(async move {
        loop {
            let wire = worker.knock_unbounded().await.upgrade().await;
            tokio::spawn(take_all(wire));
        }
    });
    for mut client in clients {
        assert_eq!(client.hear().await, Said::Close(4000, "all there".into()), "an innocent pipe was evicted");
    }
    serving.abort();
}

async fn take_all(mut wire: Wire) {
    for n in 0..THEIR_MESSAGES {
        match wire.hear_unbounded().await {
            Said::Binary(message) if message == [n as u8; THEIR_BYTES] => {}
            // An attacker that was not evicted.
            _ => return,
        }
    }
    wire.close(4000, "all there").await;
    while wire.hear_unbounded().await != Said::Gone {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_innocents_keep_their_messages_beside_attackers_under_lru() {
    innocents_stay("lru").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_innocents_keep_their_messages_beside_attackers_under_largest() {
    innocents_stay("largest").await;
}
