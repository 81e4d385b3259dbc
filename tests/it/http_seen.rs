//! Plain HTTP as operators see it: numbers, the access log, and limits of one route.

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::wire::Wire;
use crate::harness::{Proxy, StepWorker, ask, eventually};

const ROUTES: &str = "[[pools]]\nname = \"default\"\n\
    [[routes]]\nname = \"capture\"\npath = \"/capture\"\nlimits = { address_rate = \"2 per minute\", headers = true }\n\
    [[routes]]\nname = \"rest\"\npath = \"/{*path}\"\nwait = 0\n";

/// Answers each request with `answer` until it is dropped.
async fn answering(worker: StepWorker, answer: &str) {
    loop {
        worker.knock_unbounded().await.answer(answer).await;
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole";

#[tokio::test]
async fn requests_are_counted_by_route_and_code_and_timed() {
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let serving = tokio::spawn(answering(worker, OK));
    for _ in 0..3 {
        ask(proxy.public, "GET", "/a", &[], "").await.expect(200);
    }
    ask(proxy.public, "GET", "/capture", &[], "").await.expect(200);
    serving.abort();
    let _ended = serving.await;
    ask(proxy.public, "GET", "/a", &[], "").await.expect(502);
    eventually("the books", async || {
        let metrics = proxy.metrics().await;
        let of = |route, code| metrics.sum("http_requests_total", &[("route", route), ("code", code)]);
        let timed = metrics.sum("http_request_duration_seconds_count", &[("route", "rest")]);
        let in_flight = metrics.sum("http_requests", &[]);
        ((of("rest", "200"), of("rest", "502"), of("capture", "200"), timed, in_flight) == (3.0, 1.0, 1.0, 4.0, 0.0))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_its_answer_is_counted_as_499() {
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut client = TcpStream::connect(proxy.public).await.unwrap();
    client.write_all(b"GET /poll HTTP/1.1\r\nHost: cam\r\n\r\n").await.unwrap();
    let _held = worker.knock().await;
    drop(client);
    eventually("the books", async || {
        let gone = [("route", "rest"), ("code", "499")];
        (proxy.metrics().await.sum("http_requests_total", &gone) == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_says_what_is_left_of_its_routes_limit_too() {
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    for left in ["1", "0"] {
        let attach = async { worker.knock().await.upgrade().await };
        let (client, _worker) = tokio::join!(Wire::connect(proxy.public, "/capture", &[]), attach);
        assert_eq!(client.head.header("x-ratelimit-remaining"), left);
        assert_eq!(client.head.header("ratelimit-policy"), "\"address_rate\";q=2;w=60");
    }
    let refused = Wire::open(proxy.public, "/capture", &[]).await.expect_err("the limit is met");
    assert_eq!((refused.status, refused.header("x-ratelimit-remaining")), (429.try_into().unwrap(), "0"));
}

#[tokio::test]
async fn a_limit_of_one_route_does_not_hit_another_and_answers_say_what_is_left() {
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let serving = tokio::spawn(answering(worker, OK));
    for left in ["1", "0"] {
        let reply = ask(proxy.public, "GET", "/capture", &[], "").await.expect(200);
        assert_eq!(reply.header("x-ratelimit-remaining"), left);
        assert_eq!(reply.header("ratelimit-policy"), "\"address_rate\";q=2;w=60");
        assert!(reply.header("ratelimit").starts_with(&format!("\"address_rate\";r={left};t=")), "{reply:?}");
    }
    let reply = ask(proxy.public, "GET", "/capture", &[], "").await.expect(429);
    assert_eq!(reply.header("x-ratelimit-remaining"), "0");
    for _ in 0..10 {
        let reply = ask(proxy.public, "GET", "/health", &[], "").await.expect(200);
        assert_eq!(reply.header("ratelimit"), "");
    }
    serving.abort();
}

#[tokio::test]
async fn the_access_log_says_each_answer_once_in_the_wanted_form() {
    for form in ["combined", "json"] {
        let proxy = Proxy::start(&format!("[log]\naccess = \"{form}\"\n{ROUTES}"));
        let worker = StepWorker::start().await;
        proxy.register("w", worker.address).await;
        let serving = tokio::spawn(answering(worker, OK));
        let headers = [("user-agent", "test/1 \"x\""), ("referer", "https://a.example/")];
        ask(proxy.public, "POST", "/a/b?token=secret", &headers, "abc").await.expect(200);
        let line = eventually("a line", async || {
            let lines: Vec<_> = proxy.log().into_iter().filter(|line| line.contains("/a/b")).collect();
            assert!(lines.len() < 2, "{lines:?}");
            lines.into_iter().next()
        })
        .await;
        assert!(!line.contains("secret"), "{line}");
        if form == "json" {
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&value["method"], &value["status"], &value["bytes"]), (&"POST".into(), &200.into(), &5.into()));
            assert_eq!((&value["route"], &value["client"]), (&"rest".into(), &"127.0.0.1".into()));
        } else {
            assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
            let end = "\"POST /a/b HTTP/1.1\" 200 5 \"https://a.example/\" \"test/1 \\x22x\\x22\"";
            assert!(line.ends_with(end), "{line}");
        }
        serving.abort();
    }
}

#[tokio::test]
async fn plain_requests_are_refused_when_memory_is_short() {
    let proxy = Proxy::start(&format!("[memory]\nprocess_max = \"48MiB\"\n{ROUTES}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut parked = Vec::new();
    let refused = eventually("a refusal", async || {
        let mut client = TcpStream::connect(proxy.public).await.unwrap();
        client.write_all(b"GET /poll HTTP/1.1\r\nHost: cam\r\n\r\n").await.unwrap();
        tokio::select! {
            knock = worker.knock_unbounded() => {
                parked.push((client, knock));
                None
            }
            ready = client.readable() => Some(ready),
        }
    })
    .await;
    refused.unwrap();
    assert!(parked.len() > 100, "{}", parked.len());
    assert!(proxy.memory_kib("VmRSS") < 56 << 10);
}
