//! Memory that runs out: who is refused, who goes, who notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{ALL_THERE, Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually, heirs, orphans};
use crate::measure::{alone, percentiles};

const MIB: u64 = 1 << 20;
const LIMIT_MIB: u64 = 64;
/// What resident memory may exceed the limit by: what each data thread takes in during one turn, and what is no pipe's.
const OVERHEAD_MIB: u64 = 12;
const FLOODERS: usize = 26;
const MESSAGES: usize = 70;
const MESSAGE_BYTES: usize = 64 << 10;

fn config(evict: &str) -> String {
    format!(
        "[memory]\nprocess_max = \"{LIMIT_MIB}MiB\"\nevict = \"{evict}\"\n[reattach]\ngrace = \"10m\"\n\
         [[pools]]\nname = \"default\"\n[[pools]]\nname = \"lost\"\n\
         [[routes]]\nname = \"shared\"\npath = \"/ws/shared/{{channel}}\"\nkey = \"{{channel}}\"\npool = \"default\"\n\
         share = true\nshare_linger = \"10m\"\n\
         [[routes]]\nname = \"lost\"\npath = \"/lost/{{n}}\"\npool = \"lost\"\n\
         [[routes]]\nname = \"rest\"\npath = \"/{{*path}}\"\npool = \"default\"\n"
    )
}

/// Clients whose worker is lost, and which send more than there is memory for. One that is evicted may be cut off.
async fn flood(proxy: &Proxy) -> Vec<Wire> {
    let clients = orphans(proxy, "lost", "/lost/", FLOODERS).await;
    let sending = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            for n in 0..MESSAGES {
                let bytes = client.encode(0x82, &[n as u8; MESSAGE_BYTES]);
                if client.send_raw(&bytes).await.is_err() {
                    break;
                }
            }
            client
        })
    });
    let sending: Vec<_> = sending.collect();
    let mut sent = Vec::new();
    for task in sending {
        sent.push(task.await.unwrap());
    }
    sent
}

/// Exchanges messages until it is told to stop; how long each took.
async fn chat(mut client: Client, stop: Arc<AtomicBool>) -> (Client, Vec<Duration>) {
    let mut times = Vec::new();
    let text = "x".repeat(2000);
    while !stop.load(Relaxed) {
        let asked = Instant::now();
        assert_eq!(client.exchange(&text).await, text);
        times.push(asked.elapsed());
    }
    (client, times)
}

/// Floods a proxy with this policy, and looks at everything that has to hold.
async fn survives(evict: &str) {
    let proxy = Proxy::start(&config(evict));
    let echo = DemoWorker::start("echo", &[]);
    proxy.register("echo", echo.address).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut healthy = Vec::new();
    for n in 0..4 {
        let client = Client::connect(proxy.public, &format!("/ws/s{n}/echo")).await;
        healthy.push(tokio::spawn(chat(client, stop.clone())));
    }
    lingers(&proxy).await;
    let flooders = flood(&proxy).await;
    short(&proxy).await;
    let evicted = recovers(&proxy, flooders).await;
    let highest = proxy.memory_kib("VmHWM") / 1024;
    println!("{evict}: {evicted} of {FLOODERS} evicted, {highest} MiB at most under a limit of {LIMIT_MIB}");
    assert!(highest <= LIMIT_MIB + OVERHEAD_MIB, "{highest}");
    assert!((1..FLOODERS).contains(&evicted), "{evicted}");
    assert_eq!(proxy.metrics().await.sum("evictions_total", &[("policy", evict)]), evicted as f64);
    stop.store(true, Relaxed);
    let mut times = Vec::new();
    for task in healthy {
        times.extend(task.await.unwrap().1);
    }
    let count = times.len();
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("{evict}: {count} exchanges of healthy pipes meanwhile, {half:?} (p50), {last:?} (p99)");
    assert!(count > 20 && half < Duration::from_secs(1), "{count} exchanges, {half:?}");
}

/// A shared stream without viewers, which would linger for long if there were memory for it.
async fn lingers(proxy: &Proxy) {
    let mut viewer = Client::connect(proxy.public, "/ws/shared/echo").await;
    assert_eq!(viewer.exchange("watched").await, "watched");
    viewer.close(1000, "").await;
    eventually("it lingers", async || (proxy.get("/v1/stats").await["shared_streams"]["idle"] == 1).then_some(()))
        .await;
}

/// What is left holds nearly all there is: no new client is wanted.
async fn short(proxy: &Proxy) {
    let ready = proxy.api("GET", "/health/ready", None).await;
    // The pool of the flooded pipes has no worker, which is another reason.
    assert_eq!((ready.status, &ready.json()["reasons"][0]), (503, &json!("memory is short")));
    assert_ne!(ready.json()["memory"]["pressure"], "low");
    let refused = Wire::open(proxy.public, "/ws/s9/echo", &[]).await.unwrap_err();
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert_eq!(refused.json()["detail"], "memory is short");
    assert_eq!(proxy.records("memory is short: new pipes are refused").len(), 1, "said once");
    assert!(!proxy.records("memory is out: pipes are evicted").is_empty());
    assert_eq!(proxy.metrics().await.sum("shared_streams", &[]), 0.0, "it does not linger when memory is short");
    // An eviction between the two looks makes them differ.
    let (stats, metrics) = eventually("both see the same", async || {
        let (stats, metrics) = (proxy.get("/v1/stats").await, proxy.metrics().await);
        let lost = stats["memory"]["by_route"]["lost"].as_f64().unwrap();
        let all = metrics.sum("memory_bytes", &[("kind", "pipes")]);
        (lost > all * 0.9 && lost <= all).then_some((stats, metrics))
    })
    .await;
    assert_eq!(stats["memory"]["limit_bytes"], LIMIT_MIB * MIB);
    assert_eq!(metrics.sum("memory_limit_bytes", &[]), (LIMIT_MIB * MIB) as f64);
    assert!(stats["memory"]["evictions_total"].as_u64().unwrap() <= metrics.sum("evictions_total", &[]) as u64);
    let (rss, used) = (stats["memory"]["rss_bytes"].as_u64(), stats["memory"]["used_bytes"].as_u64());
    assert!(used <= rss && used > Some(LIMIT_MIB * MIB / 100 * 74), "{used:?} of {rss:?}");
}

/// A worker comes: a client that is not evicted is served all that it said, and memory is there again. How many were evicted.
async fn recovers(proxy: &Proxy, flooders: Vec<Wire>) -> usize {
    let event = proxy.event_of(0, "pipe.evicted").await;
    assert!(event["bytes"].as_u64().unwrap() > 16 << 10, "{event}");
    let serving = heirs(proxy, "lost", MESSAGES, MESSAGE_BYTES).await;
    let mut evicted = 0;
    for mut client in flooders {
        match client.hear().await {
            said if said == ALL_THERE => {}
            said => {
                evicted += 1;
                assert!(said == Said::Gone || said == Said::Close(1013, "out of memory".into()), "{said:?}");
            }
        }
    }
    serving.abort();
    eventually("it is ready again", async || {
        let ready = proxy.api("GET", "/health/ready", None).await;
        (!ready.json()["reasons"].to_string().contains("memory")).then_some(())
    })
    .await;
    let mut newcomer = Client::connect(proxy.public, "/ws/s9/echo").await;
    assert_eq!(newcomer.exchange("let in").await, "let in");
    assert!(!proxy.records("there is enough memory again").is_empty());
    newcomer.close(1000, "").await;
    evicted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_07_px_09_ib_24_a_flood_stays_under_the_limit_by_evicting_the_pipe_that_was_idle_longest() {
    let _alone = alone();
    survives("lru").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_07_px_09_a_flood_stays_under_the_limit_by_evicting_the_oldest_pipe() {
    let _alone = alone();
    survives("oldest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_07_px_09_a_flood_stays_under_the_limit_by_evicting_the_largest_pipe() {
    let _alone = alone();
    survives("largest").await;
}

#[tokio::test]
async fn st_07_what_pipes_are_charged_comes_back_to_nothing() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let idle = proxy.get("/v1/stats").await["memory"]["total_bytes"].as_u64().unwrap();
    drop(worker);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    for _ in 0..20 {
        client.frame_out(true, 2, &[7; 50_000]).await;
    }
    // real bytes, with the blocks that they are packed into, and not a count of objects
    eventually("a million bytes are charged", async || {
        let charged = proxy.get("/v1/stats").await["memory"]["total_bytes"].as_u64().unwrap() - idle;
        (1_000_000..1_200_000).contains(&charged).then_some(())
    })
    .await;
    drop(client);
    proxy.emptied().await;
    let memory = &proxy.get("/v1/stats").await["memory"];
    assert_eq!((&memory["total_bytes"], &memory["replay_bytes"]), (&json!(0), &json!(0)));
    let metrics = proxy.metrics().await;
    for kind in ["pipes", "replay"] {
        assert_eq!(metrics.sum("memory_bytes", &[("kind", kind)]), 0.0, "{kind}");
    }
}
