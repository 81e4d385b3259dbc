//! Messages that cost their sender little and their holder much: fragments without a byte, with one, tiny messages, and
//! pings between all of them.

use tokio::io::AsyncWriteExt;

use crate::books::Books;
use crate::harness::{Proxy, StepWorker, Wire, eventually};
use crate::measure::alone;

/// Bytes that one lane may hold here.
const LANE_BYTES: usize = 24 << 20;

/// What is read beyond that: the rest of a message, and 16 for each that one read brought.
const BEYOND: f64 = 0.25;

fn config() -> String {
    format!(
        "[replay]\npipe_bytes_max = \"{LANE_BYTES}B\"\nwindow = \"{LANE_BYTES}B\"\nstall_max = \"10m\"\n\
         [reattach]\ngrace = \"10m\"\n[heartbeat]\nclient_interval = \"0s\"\nbackend_interval = \"0s\"\n\
         [[pools]]\nname = \"default\"\n"
    )
}

/// The frame of a client, or of a worker, with this first byte; a client's key is zero.
fn frame(first: u8, payload: usize, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload {
        0..=125 => bytes.push(bit | payload as u8),
        126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend((payload as u16).to_be_bytes());
        }
        _ => {
            bytes.push(bit | 127);
            bytes.extend((payload as u64).to_be_bytes());
        }
    }
    bytes.extend(if masked { &[0; 4][..] } else { &[] });
    bytes.resize(bytes.len() + payload, b'.');
    bytes
}

/// A message of so many fragments with so many bytes each, and behind each of them a ping if `pinged`.
fn fragments(count: usize, payload: usize, pinged: bool, masked: bool) -> Vec<u8> {
    let mut bytes = frame(0x02, payload, masked);
    for n in 1..count {
        if pinged {
            bytes.extend(frame(0x89, 0, masked));
        }
        bytes.extend(frame(if n + 1 == count { 0x80 } else { 0 }, payload, masked));
    }
    bytes
}

/// What is sent over and over, half a megabyte or so of each.
fn shapes(masked: bool) -> Vec<(&'static str, Vec<u8>)> {
    let many = |payload: usize| frame(0x82, payload, masked).repeat((512 << 10) / (payload + 6));
    vec![
        ("empty fragments", fragments(60_000, 0, false, masked)),
        ("fragments of a byte", fragments(50_000, 1, false, masked)),
        ("fragments of a byte with a ping behind each", fragments(30_000, 1, true, masked)),
        ("empty messages", many(0)),
        ("messages of a byte", many(1)),
        ("messages of 17 bytes", many(17)),
        ("large messages", many(100_000)),
        ("4 KiB between 100 KiB of pings", pings_around(4096, masked)),
    ]
}

/// Messages of so many bytes, in a crowd of pings that nothing is kept of.
fn pings_around(payload: usize, masked: bool) -> Vec<u8> {
    [frame(0x82, payload, masked), frame(0x89, 125, masked).repeat(800)].concat().repeat(4)
}

/// Sends `bytes` over and over until the peer takes no more of them, which is when this is dropped.
async fn send_on(mut wire: Wire, bytes: Vec<u8>) {
    while wire.stream.write_all(&bytes).await.is_ok() {}
}

/// Fills a lane with one shape: its books are held against resident memory while it fills and once its sender is paused.
async fn fill(
    proxy: &Proxy,
    books: &Books<'_>,
    lane: &'static str,
    (what, sender): (&'static str, Wire),
    bytes: Vec<u8>,
) {
    let sending = tokio::spawn(send_on(sender, bytes));
    eventually(what, async || {
        books.check(what).await;
        (proxy.metrics().await.sum("read_paused_total", &[("lane", lane)]) >= 1.0).then_some(())
    })
    .await;
    let grown = books.check(what).await;
    let held = proxy.metrics().await.sum("replay_buffer_bytes", &[("lane", lane)]);
    println!("{lane} {what}: {:.1} MiB resident, {:.1} said", grown.resident / 1048576.0, grown.said / 1048576.0);
    assert!(grown.resident <= LANE_BYTES as f64 * 1.3 * (1.0 + BEYOND), "{what}: {grown:?}");
    assert!(held <= LANE_BYTES as f64 * (1.0 + BEYOND), "{what}: {held}");
    sending.abort();
}

/// A proxy, a client and its worker.
async fn pair(proxy: &Proxy) -> (StepWorker, Wire, Wire) {
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    (worker, client, wire)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_worker_is_charged_what_it_costs_whatever_its_shape() {
    let _alone = alone();
    for (what, bytes) in shapes(true) {
        let proxy = Proxy::start(&config());
        let books = Books::open(&proxy).await;
        let (worker, client, wire) = pair(&proxy).await;
        drop(worker);
        wire.reset();
        proxy.event_of(0, "pipe.interrupted").await;
        fill(&proxy, &books, "up", (what, client), bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_does_not_take_is_charged_what_it_costs_whatever_its_shape() {
    let _alone = alone();
    for (what, bytes) in shapes(true) {
        let proxy = Proxy::start(&config());
        let books = Books::open(&proxy).await;
        let (_worker, client, _wire) = pair(&proxy).await;
        fill(&proxy, &books, "up", (what, client), bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_does_not_take_is_charged_what_it_costs_whatever_its_shape() {
    let _alone = alone();
    for (what, bytes) in shapes(false) {
        let proxy = Proxy::start(&config());
        let books = Books::open(&proxy).await;
        let (_worker, _client, wire) = pair(&proxy).await;
        fill(&proxy, &books, "down", (what, wire), bytes).await;
    }
}
