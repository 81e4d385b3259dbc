//! `/v1/stats` beside `/metrics`: one truth, told twice.

use serde_json::{Value, json};

use crate::harness::metrics::Metrics;
use crate::harness::{Proxy, StepWorker, Wire, eventually};

/// A figure of the statistics, and the series that say the same: a family and labels.
type Same = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const SAME: &[Same] = &[
    ("/total_connections", "pipes", &[]),
    ("/connections/public", "connections", &[("listener", "public")]),
    ("/connections/by_route/keyed", "pipes", &[("route", "keyed")]),
    ("/connections/by_route/shared", "pipes", &[("route", "shared")]),
    ("/pipes/attached", "pipes", &[("state", "attached")]),
    ("/pipes/detached", "pipes", &[("state", "detached")]),
    ("/pipes/client_detached", "pipes", &[("state", "client_detached")]),
    ("/pipes/leaving", "pipes", &[("state", "leaving")]),
    ("/pipes/closing", "pipes", &[("state", "closing")]),
    ("/rate_limits/limited_total", "rate_limited_total", &[]),
    ("/rate_limits/buckets", "rate_limit_entries", &[]),
    ("/rate_limit_buckets", "rate_limit_entries", &[]),
    ("/memory/total_bytes", "memory_bytes", &[("kind", "pipes")]),
    ("/memory/replay_bytes", "memory_bytes", &[("kind", "replay")]),
    ("/memory/limit_bytes", "memory_limit_bytes", &[]),
    ("/memory/evictions_total", "evictions_total", &[]),
    ("/services/0/connections", "backend_pipes", &[("backend", "w0")]),
    ("/shared_streams/open", "shared_streams", &[]),
    ("/counters/pipes_total", "pipes_total", &[]),
    ("/counters/interruptions_total", "interruptions_total", &[]),
    ("/counters/reattached_total", "reattach_total", &[("result", "attached")]),
];

/// The figures of one lane, which bear their metrics' names.
const OF_EACH_LANE: [&str; 7] = [
    "messages_total",
    "message_bytes_total",
    "replayed_messages_total",
    "in_doubt_messages_total",
    "lost_messages_total",
    "dropped_messages_total",
    "read_paused_total",
];

/// What the two tell differently.
fn differences(stats: &Value, metrics: &Metrics) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |pointer: &str, metric: f64| {
        let told = stats.pointer(pointer).and_then(Value::as_f64);
        if told != Some(metric) {
            differences.push(format!("{pointer}: {told:?}, and by the metrics {metric}"));
        }
    };
    for (pointer, family, labels) in SAME {
        compare(pointer, metrics.sum(family, labels));
    }
    for lane in ["up", "down"] {
        for figure in OF_EACH_LANE {
            compare(&format!("/counters/{lane}/{figure}"), metrics.sum(figure, &[("lane", lane)]));
        }
    }
    let attached = metrics.sum("backend_connects_total", &[("result", "attached")]);
    compare("/counters/connect_failures_total", metrics.sum("backend_connects_total", &[]) - attached);
    differences
}

#[tokio::test]
async fn st_08_the_statistics_tell_what_the_metrics_tell() {
    let proxy = Proxy::start(
        "[limits]\nkey_connections = 2\nkey_rate = 0\n[memory]\nprocess_max = \"4GiB\"\n\
         [[pools]]\nname = \"default\"\nhealth.interval = \"0s\"\n\
         [[routes]]\nname = \"keyed\"\npath = \"/keyed/{k}\"\nkey = \"{k}\"\n\
         [[routes]]\nname = \"shared\"\npath = \"/shared/{k}\"\nkey = \"{k}\"\nshare = true\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let turned_away = async { Wire::open(proxy.public, "/keyed/a", &[]).await.unwrap_err() };
    tokio::join!(turned_away, async { drop(worker.knock().await) });
    let (mut first, wire) = tokio::join!(Wire::connect(proxy.public, "/keyed/a", &[]), worker.accept());
    let (mut second, mut other) = tokio::join!(Wire::connect(proxy.public, "/keyed/a", &[]), worker.accept());
    Wire::open(proxy.public, "/keyed/a", &[]).await.unwrap_err().expect(429);
    let (mut viewer, mut stream) = tokio::join!(Wire::connect(proxy.public, "/shared/b", &[]), worker.accept());
    stream.text("to the viewer").await;
    assert_eq!(viewer.hear().await.text(), "to the viewer");
    second.text("to the worker").await;
    assert_eq!(other.hear().await.text(), "to the worker");
    other.text("and back").await;
    assert_eq!(second.hear().await.text(), "and back");
    wire.reset();
    let mut again = worker.accept().await;
    first.text("to the next one").await;
    assert_eq!(again.hear().await.text(), "to the next one");
    first.close(1000, "").await;
    again.close(1000, "").await;
    first.hear().await;
    // Between one answer and the other something may happen, and at last nothing does.
    let stats = eventually("both tell the same", async || {
        let (stats, metrics) = (proxy.get("/v1/stats").await, proxy.metrics().await);
        let differences = differences(&stats, &metrics);
        let settled = stats["total_sessions"] == 2 && stats["connections"]["public"] == 2;
        if settled && !differences.is_empty() {
            println!("{differences:#?}");
        }
        (settled && differences.is_empty()).then_some(stats)
    })
    .await;
    let seen = ["interruptions_total", "reattached_total", "connect_failures_total", "pipes_total"]
        .map(|figure| stats["counters"][figure].clone());
    assert_eq!(seen, [json!(1), json!(1), json!(1), json!(3)]);
    assert_eq!(
        (&stats["counters"]["up"]["messages_total"], &stats["rate_limits"]["limited_total"]),
        (&json!(2), &json!(1))
    );
    assert!(stats["counters"]["down"]["message_bytes_total"].as_u64() > Some(10));
    let key = &stats["keys"]["a"];
    assert_eq!((&key["total"], &key["active"], &key["by_route"]), (&json!(2), &json!(1), &json!({ "keyed": 2 })));
    assert!(key["first_connection_at"].as_str() <= key["last_connection_at"].as_str(), "{key}");
    let megabytes = |name: &str| stats["memory"][name].as_f64().unwrap();
    assert!(megabytes("vms_mb") > 1.0 && (1.0..4096.0).contains(&megabytes("available_mb")), "{}", stats["memory"]);
}
