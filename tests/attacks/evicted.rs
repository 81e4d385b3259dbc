//! Memory that attackers use up: they go, and the innocent keep their conversations, though they are detached.

use crate::harness::{ALL_THERE, Proxy, Wire, eventually, heirs, orphans};
use crate::measure::alone;

const INNOCENTS: usize = 20;
const THEIR_MESSAGES: usize = 10;
const THEIR_BYTES: usize = 20_000;
const ATTACKERS: usize = 8;
const LIMIT_MIB: u64 = 128;
/// What resident memory may exceed the limit by: what each data thread takes in during one turn, and what is no pipe's.
const BEYOND_PERCENT: u64 = 10;
/// The same after some floods of different shapes: an allocator uses what the one has left only in part for the other.
const WAVES_BEYOND_PERCENT: u64 = 25;

fn config(evict: &str) -> String {
    format!(
        "[memory]\nprocess_max = \"{LIMIT_MIB}MiB\"\nevict = \"{evict}\"\n[reattach]\ngrace = \"10m\"\n\
         [replay]\npipe_bytes_max = \"64MiB\"\n[[pools]]\nname = \"default\"\n"
    )
}

/// Messages of the plainest kind.
fn large_messages() -> Vec<u8> {
    let mut bytes = vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.resize(bytes.len() + (1 << 16), b'.');
    bytes.repeat(4)
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

#[track_caller]
fn assert_within_the_limit(proxy: &Proxy, what: &str, beyond_percent: u64) {
    let highest = proxy.memory_kib("VmHWM") / 1024;
    println!("{what}: {highest} MiB at most under a limit of {LIMIT_MIB}");
    assert!(highest * 100 <= LIMIT_MIB * (100 + beyond_percent), "{what}: {highest} MiB under a limit of {LIMIT_MIB}");
}

async fn innocents_stay(evict: &str) {
    let proxy = Proxy::start(&config(evict));
    let mut clients = orphans(&proxy, "default", "/ws/", INNOCENTS + ATTACKERS).await;
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
    assert_within_the_limit(&proxy, evict, BEYOND_PERCENT);
    attacks.iter().for_each(tokio::task::JoinHandle::abort);
    let serving = heirs(&proxy, "default", THEIR_MESSAGES, THEIR_BYTES).await;
    for mut client in clients {
        assert_eq!(client.hear().await, ALL_THERE, "an innocent pipe was evicted");
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_innocents_keep_their_messages_beside_attackers_under_lru() {
    let _alone = alone();
    innocents_stay("lru").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_innocents_keep_their_messages_beside_attackers_under_largest() {
    let _alone = alone();
    innocents_stay("largest").await;
}

/// Each wave leaves an allocator full of what was given back, which the next one must not be promised a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wave_upon_wave_of_floods_stays_within_a_quarter_beyond_the_limit() {
    const WAVES: usize = 6;
    const FLOODERS: usize = 24;
    let _alone = alone();
    let proxy = Proxy::start(&config("largest"));
    for wave in 0..WAVES {
        let bytes = if wave % 2 == 0 { large_messages() } else { empty_fragments() };
        let before = proxy.metrics().await.sum("evictions_total", &[]);
        let clients = orphans(&proxy, "default", &format!("/ws/{wave}/"), FLOODERS).await;
        let floods: Vec<_> = clients.into_iter().map(|wire| tokio::spawn(send_on(wire, bytes.clone()))).collect();
        eventually("pipes of this wave are evicted", async || {
            (proxy.metrics().await.sum("evictions_total", &[]) >= before + 3.0).then_some(())
        })
        .await;
        floods.iter().for_each(tokio::task::JoinHandle::abort);
        for flood in floods {
            // It was cut off, or is now.
            let _ = flood.await;
        }
        proxy.emptied().await;
        eventually("newcomers are taken again", async || {
            let ready = proxy.api("GET", "/health/ready", None).await;
            (ready.json()["memory"]["pressure"] == "low").then_some(())
        })
        .await;
        assert_within_the_limit(&proxy, &format!("wave {wave}"), WAVES_BEYOND_PERCENT);
    }
}
