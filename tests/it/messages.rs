//! What an operator says to clients, and how pipes are spread.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, StepWorker, Wire, eventually};

async fn post(proxy: &Proxy, path: &str, body: Value) -> Value {
    proxy.api("POST", path, Some(body)).await.expect(200).json()
}

fn missed(told: &Value) -> u64 {
    told["not_reached"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn st_15_a_message_reaches_one_client_or_a_group_or_all_but_those_excluded() {
    let other = "[[pools]]\nname = \"other\"\n[[routes]]\nname = \"logs\"\npath = \"/logs/{session}\"\nkey = \"{session}\"\npool = \"other\"\n";
    let proxy = Proxy::start(&format!("{KEYED}{other}"));
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    proxy.register_as("o", json!({ "url": format!("ws://{}/ws/x/echo", worker.address), "pool": "other" })).await;
    let mut clients = Vec::new();
    for path in ["/ws/s1/echo", "/ws/s1/echo?2", "/ws/s2/echo", "/logs/s1"] {
        clients.push(Client::connect(proxy.public, path).await);
    }
    let ids = {
        let mut pipes = proxy.pipes().await;
        pipes.sort_by_key(|pipe| pipe["opened_at"].as_str().unwrap().to_owned());
        pipes.into_iter().map(|pipe| pipe["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let told = post(&proxy, &format!("/v1/pipes/{}/messages", ids[2]), json!({ "text": "only you" })).await;
    assert_eq!((&told["matched"], &told["reached"]), (&json!(1), &json!(1)), "{told}");
    let told = post(&proxy, &format!("/v1/pipes/{}/messages", ids[2]), json!({ "base64": "/wA=" })).await;
    assert_eq!(told["reached"], 1);
    for (text, filter, reached) in [
        ("key", json!({ "key": "s1" }), vec![0, 1, 3]),
        ("route", json!({ "route": "ws" }), vec![0, 1, 2]),
        ("pool", json!({ "pool": "other" }), vec![3]),
        ("both", json!({ "route": "ws", "key": "s1", "exclude": [ids[0]] }), vec![1]),
        ("no pipe", json!({ "key": "s9" }), vec![]),
        ("all", json!({}), vec![0, 1, 2, 3]),
    ] {
        let mut body = filter;
        body["text"] = json!(text);
        let told = post(&proxy, "/v1/broadcast", body).await;
        assert_eq!(told["reached"], reached.len(), "{text}: {told}");
        assert_eq!((told["matched"].as_u64().unwrap(), missed(&told)), (reached.len() as u64, 0), "{text}: {told}");
        for index in reached {
            if text == "route" && index == 2 {
                assert_eq!(clients[2].hear().await.text(), "only you");
                assert_eq!(clients[2].hear().await, Said::Binary(vec![0xFF, 0]));
            }
            assert_eq!(clients[index].hear().await.text(), text, "client {index}");
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.exchange("still relayed").await, "still relayed", "client {index}");
    }
    let unknown = proxy.api("POST", "/v1/pipes/AAAAAAAAAAAAAAAAAAAAAA/messages", Some(json!({ "text": "" }))).await;
    assert_eq!(unknown.status, 404);
    for (body, pointer) in [
        (json!({}), "/text"),
        (json!({ "text": "a", "base64": "" }), "/text"),
        (json!({ "base64": "*" }), "/base64"),
        (json!({ "text": "a", "exclude": ["x"] }), "/exclude/0"),
        (json!({ "text": "a", "pipes": 1 }), "/pipes"),
    ] {
        let refused = proxy.api("POST", "/v1/broadcast", Some(body.clone())).await.expect(422).json();
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_16_broadcasts_into_a_storm_of_connects_and_disconnects_stay_bounded_and_add_up() {
    const CLIENTS: usize = 24;
    const CYCLES: usize = 25;
    let proxy = Arc::new(Proxy::start(""));
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let storm: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let proxy = proxy.clone();
            tokio::spawn(async move {
                for cycle in 0..CYCLES {
                    let mut wire = Wire::connect(proxy.public, "/ws/storm/echo", &[]).await;
                    wire.text("mine").await;
                    while wire.hear().await.text() != "mine" {}
                    if (client + cycle) % 2 == 0 {
                        wire.close(1000, "").await;
                        while !matches!(wire.hear().await, Said::Close(..) | Said::Gone) {}
                    } else {
                        wire.reset();
                    }
                }
            })
        })
        .collect();
    let speakers: Vec<_> = (0..16)
        .map(|_| {
            let proxy = proxy.clone();
            tokio::spawn(async move {
                let (mut told, mut refused) = (0, 0);
                for _ in 0..20 {
                    let reply = proxy.api("POST", "/v1/broadcast", Some(json!({ "text": "order" }))).await;
                    if reply.status == 503 {
                        refused += 1;
                        continue;
                    }
                    let body = reply.expect(200).json();
                    let reached = body["reached"].as_u64().unwrap();
                    assert_eq!(body["matched"].as_u64().unwrap(), reached + missed(&body), "{body}");
                    assert_eq!(body["not_reached"]["unanswered"], 0, "{body}");
                    told += 1;
                }
                (told, refused)
            })
        })
        .collect();
    let mut told = 0;
    for speaker in speakers {
        let (heard, refused) = speaker.await.unwrap();
        assert_eq!(heard + refused, 20);
        told += heard;
    }
    for client in storm {
        client.await.unwrap();
    }
    assert!(told > 0);
    proxy.emptied().await;
    eventually("nothing is left of the storm", async || {
        let metrics = proxy.metrics().await;
        let left = ["pipes", "backend_pipes", "replay_buffer_bytes"].map(|gauge| metrics.sum(gauge, &[]));
        (left == [0.0; 3]).then_some(())
    })
    .await;
    assert_eq!(proxy.metrics().await.sum("pipes_total", &[]), (CLIENTS * CYCLES) as f64);
    drop(Arc::into_inner(proxy));
}

#[tokio::test]
async fn a_commit_over_http_confirms_what_a_pong_would() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    wire.pongs = false;
    client.text("1").await;
    client.text("2").await;
    assert_eq!((wire.hear().await.text(), wire.hear().await.text()), ("1".into(), "2".into()));
    let pipe = proxy.pipe_that("both are sent", |pipe| pipe["up"]["sent"] == 2).await;
    assert_eq!(pipe["up"]["confirmed"], 0);
    let path = format!("/v1/pipes/{}/commit", pipe["id"].as_str().unwrap());
    let committed = post(&proxy, &path, json!({ "attachment": 1, "seq": 1 })).await;
    assert_eq!(committed, json!({ "confirmed": 1 }));
    let stale = proxy.api("POST", &path, Some(json!({ "attachment": 7, "seq": 2 }))).await;
    assert_eq!(stale.status, 409, "{}", stale.text());
    wire.reset();
    let mut again = worker.accept().await;
    assert_eq!((again.hear().await.text(), again.head.header("holdline-confirmed")), ("2".into(), "1; level=app"));
}

#[tokio::test]
async fn a_rebalance_moves_what_is_too_much_and_loses_nothing() {
    let proxy = Proxy::start("");
    let workers = ["a", "b", "c"].map(|name| DemoWorker::start(name, &[]));
    proxy.register("a", workers[0].address).await;
    let mut clients = Vec::new();
    for number in 0..12 {
        clients.push(Client::connect(proxy.public, &format!("/ws/{number}/echo")).await);
    }
    let even = post(&proxy, "/v1/pools/default/rebalance", json!({})).await;
    assert_eq!(even["moves"], 0, "{even}");
    proxy.register("b", workers[1].address).await;
    proxy.register("c", workers[2].address).await;
    let answer = proxy.api("POST", "/v1/pools/default/rebalance", Some(json!({}))).await.expect(202).json();
    assert_eq!(answer["moves"], 8, "{answer}");
    for (number, client) in clients.iter_mut().enumerate() {
        client.text(format!("during {number}")).await;
    }
    eventually("four pipes on each", async || {
        let backends = proxy.get("/v1/backends").await;
        backends["items"].as_array().unwrap().iter().all(|backend| backend["pipes"] == 4).then_some(())
    })
    .await;
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.hear().await.text(), format!("during {number}"));
        assert_eq!(client.exchange("after").await, "after", "once and no more");
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("interruptions_total", &[("reason", "admin")]), 8.0);
    assert_eq!(metrics.sum("in_doubt_messages_total", &[]) + metrics.sum("lost_messages_total", &[]), 0.0);
    let pool = proxy.get("/v1/pools/default").await;
    assert_eq!((&pool["pipes"], &pool["waiting"], &pool["states"]["health"]["up"]), (&json!(12), &json!(0), &json!(3)));
    assert_eq!((&pool["balance"], &pool["health"]["type"]), (&json!("least_pipes"), &json!("tcp")));
}
