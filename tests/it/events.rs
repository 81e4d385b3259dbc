//! Events that an operator needs in an incident: how a pipe that was interrupted ended, and which pool is short of workers.

use serde_json::json;

use crate::harness::{KEYED, Proxy, Said, StepWorker, Wire, ask, eventually};

const PATH: &str = "/ws/s1/control";

#[tokio::test]
async fn a_pipe_that_is_refused_at_its_reattach_leaves_an_event_that_says_how_it_ended() {
    let proxy = Proxy::start(KEYED);
    let [a, b] = [StepWorker::start_alone().await, StepWorker::start_alone().await];
    proxy.register("a", a.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, PATH, &[]), a.accept());
    let pipe = proxy.pipe_that("the pipe", |_| true).await["id"].clone();
    proxy.register("b", b.address).await;
    wire.reset();
    b.knock().await.answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await;
    let Said::Close(1008, reason) = client.hear().await else { panic!("not closed with 1008") };
    let ended = proxy.event_of(0, "pipe.ended").await;
    assert_eq!((&ended["pipe"], &ended["code"], &ended["blame"]), (&pipe, &json!(1008), &json!("holdline")), "{ended}");
    assert_eq!(
        (&ended["reason"], &ended["interruptions"], &ended["level"]),
        (&json!(reason), &json!(1), &json!("warn"))
    );
}

#[tokio::test]
async fn a_pipe_that_was_never_interrupted_ends_without_an_event_and_one_that_was_by_its_clients_close() {
    let proxy = Proxy::start(KEYED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let open = async || tokio::join!(Wire::connect(proxy.public, PATH, &[]), worker.accept());
    let (mut quiet, _wire) = open().await;
    quiet.close(1000, "").await;
    proxy.emptied().await;
    let (mut client, wire) = open().await;
    wire.reset();
    let _again = worker.accept().await;
    proxy.pipe_that("it is attached again", |pipe| pipe["attachment"] == 2 && pipe["state"] == "attached").await;
    client.close(1000, "bye").await;
    let ended = proxy.event_of(0, "pipe.ended").await;
    assert_eq!((&ended["blame"], &ended["code"], &ended["level"]), (&json!("client"), &json!(1000), &json!("info")));
    assert_eq!(ended["interruptions"], 1, "{ended}");
    let all = proxy.get("/v1/events?type=pipe.ended").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
}

async fn scraped(proxy: &Proxy, line: &str) {
    eventually(line, async || {
        let text = ask(proxy.admin, "GET", "/metrics", &[], "").await.expect(200).text().to_owned();
        text.lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_runs_short_of_workers_tells_by_event_by_metric_and_by_its_readiness() {
    let proxy = Proxy::start("[[pools]]\nname = \"default\"\nmin_backends = 2\n[[routes]]\npool = \"default\"\n");
    let eligible = |count: u32| format!("holdline_pool_backends{{pool=\"default\",state=\"eligible\"}} {count}");
    scraped(&proxy, &eligible(0)).await;
    scraped(&proxy, "holdline_ready 0").await;
    let workers = [StepWorker::start_alone().await, StepWorker::start_alone().await];
    for (id, worker) in ["a", "b"].iter().zip(&workers) {
        proxy.register(id, worker.address).await;
    }
    scraped(&proxy, &eligible(2)).await;
    scraped(&proxy, "holdline_ready 1").await;
    assert_eq!(proxy.get("/health/ready").await["status"], "ok");

    proxy.api("PUT", "/v1/backends/a/state", Some(json!({ "state": "drain" }))).await.expect(200);
    let short = proxy.event_of(0, "pool.short").await;
    assert_eq!((&short["pool"], &short["eligible"], &short["min_backends"]), (&json!("default"), &json!(1), &json!(2)));
    scraped(&proxy, "holdline_pool_backends{pool=\"default\",state=\"draining\"} 1").await;
    let health = proxy.get("/health/ready").await;
    assert_eq!(
        (&health["status"], &health["reasons"][0]),
        (&json!("degraded"), &json!("1 of 2 backends in pool default are eligible"))
    );

    // all deregister: the series stay, at zero
    for id in ["a", "b"] {
        proxy.api("DELETE", &format!("/v1/backends/{id}"), Some(json!({}))).await.expect(204);
    }
    scraped(&proxy, &eligible(0)).await;
    scraped(&proxy, "holdline_pool_backends{pool=\"default\",state=\"up\"} 0").await;
    scraped(&proxy, "holdline_ready 0").await;
    for (id, worker) in ["c", "d"].iter().zip(&workers) {
        proxy.register(id, worker.address).await;
    }
    proxy.event_of(0, "pool.enough").await;
    let told = proxy.get("/v1/events?type=pool").await;
    assert_eq!(told["items"].as_array().unwrap().len(), 2, "once short, once enough: {told}");
    proxy.rewrite("[[pools]]\nname = \"other\"\n[[routes]]\npool = \"other\"\n");
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    eventually("the series of the pool are gone", async || {
        let text = ask(proxy.admin, "GET", "/metrics", &[], "").await.expect(200).text().to_owned();
        (!text.contains("holdline_pool_backends{pool=\"default\"")
            && text.contains("pool=\"other\",state=\"eligible\"} 0"))
        .then_some(())
    })
    .await;
}
