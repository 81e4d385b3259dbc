//! Who may connect how often: refused before any worker hears of it, with an answer that says when to come back.

use std::time::Instant;

use serde_json::json;

use crate::harness::{KEYED, Proxy, Reply, Said, StepWorker, Wire, ask, eventually};

/// The keyed route under the limits that hold by default.
fn limited() -> String {
    let limits = "[limits]\nkey_connections = 0\nkey_rate = 0\n";
    assert!(KEYED.contains(limits), "the harness switches the limits off");
    KEYED.replace(limits, "")
}

/// Checks everything that a 429 has to say; its seconds until the next try.
#[track_caller]
fn limit_met(reply: &Reply, limit: &str, quota: u64, window: Option<u64>) -> u64 {
    assert_eq!(reply.status, 429, "{reply:?}");
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    let policy = window.map_or(format!("\"{limit}\";q={quota}"), |window| format!("\"{limit}\";q={quota};w={window}"));
    assert_eq!(reply.header("ratelimit-policy"), policy);
    assert_eq!(reply.header("ratelimit"), format!("\"{limit}\";r=0;t={wait}"));
    assert_eq!(reply.header("x-ratelimit-limit"), quota.to_string());
    assert_eq!((reply.header("x-ratelimit-remaining"), reply.header("x-ratelimit-reset")), ("0", &*wait.to_string()));
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let body = reply.json();
    assert_eq!((&body["type"], &body["status"]), (&json!("urn:holdline:problem:rate-limited"), &json!(429)));
    assert!(body["detail"].as_str().unwrap().contains(&format!("limits.{limit}")), "{body}");
    wait
}

/// A client as a trusted proxy forwards it.
async fn come(proxy: &Proxy, path: &str, from: &str) -> Result<Wire, Reply> {
    Wire::open(proxy.public, path, &[("X-Forwarded-For", from)]).await
}

/// The same, expected to be let in; with its worker's end.
async fn let_in(proxy: &Proxy, worker: &StepWorker, path: &str, from: &str) -> (Wire, Wire) {
    let (client, wire) = tokio::join!(come(proxy, path, from), worker.accept());
    assert_eq!(wire.head.path(), path, "no other client has reached the worker before");
    (client.unwrap(), wire)
}

const TRUST: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";

#[tokio::test]
async fn ib_12_ten_connections_at_once_and_twenty_a_minute_of_a_key_and_address_and_the_worker_sees_no_more() {
    let proxy = Proxy::start(&format!("{TRUST}{}", limited()));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let client = "203.0.113.7";
    let mut inside = Vec::new();
    for _ in 0..10 {
        inside.push(let_in(&proxy, &worker, "/ws/s1/control", client).await);
    }
    for _ in 0..5 {
        let refused = come(&proxy, "/ws/s1/video", client).await.unwrap_err();
        limit_met(&refused, "key_connections", 10, None);
    }
    // Others are let in, and what the worker sees next is them.
    inside.push(let_in(&proxy, &worker, "/ws/s2/control", client).await);
    inside.push(let_in(&proxy, &worker, "/ws/s1/control", "203.0.113.8").await);
    inside.push(let_in(&proxy, &worker, "/ws/s1/control", "2001:db8:0:1::1").await);
    drop(inside);
    proxy.idle().await;
    for _ in 0..10 {
        drop(let_in(&proxy, &worker, "/ws/s1/control", client).await);
        proxy.idle().await;
    }
    let refused = come(&proxy, "/ws/s1/control", client).await.unwrap_err();
    let wait = limit_met(&refused, "key_rate", 20, Some(60));
    assert!((1..=60).contains(&wait), "{wait}");
    let _still = let_in(&proxy, &worker, "/ws/s1/control", "203.0.113.9").await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("rate_limited_total", &[("route", "ws"), ("limit", "key_connections")]), 5.0);
    assert_eq!(metrics.sum("rate_limited_total", &[("route", "ws"), ("limit", "key_rate")]), 1.0);
    assert_eq!(metrics.sum("handshakes_total", &[("route", "ws"), ("code", "429")]), 6.0);
    let stats = proxy.get("/v1/stats").await;
    assert_eq!(stats["rate_limits"]["limited_total"], 6);
    assert_eq!(stats["rate_limits"]["buckets"], metrics.sum("rate_limit_entries", &[]) as u64);
    assert_eq!(stats["rate_limits"]["buckets"], 5);
    assert_eq!(proxy.get("/health").await["rate_limit_buckets"], 5);
}

#[tokio::test]
async fn ib_12_a_route_without_a_key_has_no_key_limits() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut inside = Vec::new();
    for _ in 0..25 {
        inside.push(let_in(&proxy, &worker, "/ws/s1/control", "203.0.113.7").await);
    }
    assert_eq!(proxy.metrics().await.sum("rate_limit_entries", &[]), 0.0);
}

#[tokio::test]
async fn px_04_requests_and_upgrades_of_an_address_share_its_rate_and_the_next_comes_through_when_it_is_said() {
    let proxy = Proxy::start(&format!("{TRUST}[limits]\naddress_rate = \"3/s\"\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let get = async |address| {
        let headers = [("x-forwarded-for", address)];
        let answer = async {
            worker.knock().await.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        };
        tokio::join!(ask(proxy.public, "GET", "/page", &headers, ""), answer).0.expect(200)
    };
    let served = get("203.0.113.7").await;
    assert!(!served.headers.contains_key("ratelimit"), "what a worker answers stays what it said");
    // Three at least in one second, however slow this machine: until one is refused.
    let mut refused = None;
    for _ in 0..1000 {
        let opened = tokio::select! {
            opened = come(&proxy, "/ws", "203.0.113.7") => opened,
            mut knock = worker.knock() => {
                knock.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                continue;
            }
        };
        refused = opened.err().filter(|reply| reply.status == 429);
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(limit_met(&refused.unwrap(), "address_rate", 3, Some(1)), 1);
    let other = get("203.0.113.8").await;
    assert_eq!(other.body, "ok");
    let again = [("x-forwarded-for", "203.0.113.7")];
    // It gets in again without doing anything but waiting.
    eventually("the address is let in again", async || {
        let reply = tokio::select! {
            reply = ask(proxy.public, "GET", "/page", &again, "") => reply,
            mut knock = worker.knock() => {
                knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                return Some(());
            }
        };
        limit_met(&reply, "address_rate", 3, Some(1));
        None
    })
    .await;
}

#[tokio::test]
async fn px_04_connections_of_an_address_are_counted_by_the_64_of_ipv6_and_given_back() {
    let proxy = Proxy::start(&format!("{TRUST}[limits]\naddress_connections = 2\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let one = let_in(&proxy, &worker, "/ws/1", "2001:db8::1").await;
    let _two = let_in(&proxy, &worker, "/ws/2", "2001:db8::ffff:2").await;
    let refused = come(&proxy, "/ws/3", "2001:db8:0:0:5::3").await.unwrap_err();
    assert_eq!(limit_met(&refused, "address_connections", 2, None), 5);
    let _neighbour = let_in(&proxy, &worker, "/ws/4", "2001:db8:0:1::1").await;
    drop(one);
    eventually("the place is free again", async || {
        tokio::select! {
            opened = come(&proxy, "/ws/5", "2001:db8::1") => {
                limit_met(&opened.unwrap_err(), "address_connections", 2, None);
                None
            }
            knock = worker.knock() => Some(knock.upgrade().await),
        }
    })
    .await;
}

#[tokio::test]
async fn st_05_beyond_max_connections_a_client_is_told_503_and_when_to_come_back_before_any_worker_is() {
    let proxy = Proxy::start("[server]\nmax_connections = 2\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let one = let_in(&proxy, &worker, "/ws/1", "").await;
    let _two = let_in(&proxy, &worker, "/ws/2", "").await;
    for _ in 0..3 {
        let refused = come(&proxy, "/ws/3", "").await.unwrap_err();
        assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
        assert_eq!(refused.json()["type"], "urn:holdline:problem:busy");
    }
    drop(one);
    let _four = eventually("the place is free again", async || {
        tokio::select! {
            opened = come(&proxy, "/ws/4", "") => {
                assert_eq!(opened.unwrap_err().status, 503);
                None
            }
            knock = worker.knock() => {
                assert_eq!(knock.head.path(), "/ws/4", "the worker saw no other client in between");
                Some(knock.upgrade().await)
            }
        }
    })
    .await;
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("connections_total", &[("listener", "public"), ("result", "refused")]) >= 3.0);
}

#[tokio::test]
async fn a_client_over_pipe_messages_is_slowed_down_to_its_rate_and_loses_nothing() {
    const RATE: usize = 20;
    const SENT: usize = 70;
    let proxy = Proxy::start("[limits]\npipe_messages = \"20/s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = let_in(&proxy, &worker, "/ws", "").await;
    let began = Instant::now();
    for n in 0..SENT {
        client.text(&n.to_string()).await;
    }
    for n in 0..SENT {
        assert_eq!(wire.hear().await.text(), n.to_string());
        let most = RATE as f64 * (1.0 + began.elapsed().as_secs_f64());
        assert!(n as f64 <= most, "{n} messages of at most {most}");
    }
    // The other lane has a rate of its own, with all its tokens.
    for n in 0..RATE {
        wire.text(&n.to_string()).await;
    }
    for n in 0..RATE {
        assert_eq!(client.hear().await.text(), n.to_string());
    }
    let limited = proxy.metrics().await.sum("rate_limited_total", &[("limit", "pipe_messages")]);
    assert!((1.0..=4.0).contains(&limited), "once a second: {limited}");
}

#[tokio::test]
async fn a_pipe_over_pipe_bytes_is_closed_1008_and_its_neighbour_is_not() {
    let proxy = Proxy::start("[limits]\npipe_bytes = \"64KiB/s\"\non_exceed = \"close\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = let_in(&proxy, &worker, "/ws/1", "").await;
    let (mut other, mut others_wire) = let_in(&proxy, &worker, "/ws/2", "").await;
    client.frame_out(true, 2, &[7; 60 << 10]).await;
    assert!(matches!(wire.hear().await, Said::Binary(_)));
    // More than it may say before this machine could have waited a second.
    let frame = client.encode(0x82, &[7; 200 << 10]);
    client.send_raw(&frame).await.unwrap();
    assert_eq!(client.hear().await, Said::Close(1008, "too many bytes".into()));
    assert_eq!(wire.hear().await, Said::Close(1001, "client at fault".into()));
    other.text("undisturbed").await;
    assert_eq!(others_wire.hear().await.text(), "undisturbed");
    assert_eq!(proxy.metrics().await.sum("rate_limited_total", &[("limit", "pipe_bytes")]), 1.0);
}
