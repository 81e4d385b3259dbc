//! Conversations that outlive their workers: a strict GraphQL worker hears the beginning again, once and in its order,
//! and its client notices nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Proxy, Said, StepWorker, Wire};

const GRAPHQL: [(&str, &str); 1] = [("Sec-WebSocket-Protocol", "graphql-transport-ws")];
const AGREED: &str = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n";

/// One connection of a worker that is as strict as graphql-ws: it closes 4429 for a second init, 4401 for a subscription
/// before the ack, and 4409 for an id that is in use.
struct Graphql {
    wire: Wire,
    acknowledged: bool,
    live: BTreeSet<String>,
}

impl Graphql {
    async fn accept(worker: &StepWorker) -> Self {
        let wire = worker.knock().await.upgrade_with(AGREED).await;
        Self { wire, acknowledged: false, live: BTreeSet::new() }
    }

    /// Hears one message and does what it asks for; an init is acknowledged by [`Self::acknowledge`].
    async fn hear(&mut self) -> Value {
        let message: Value = serde_json::from_str(&self.wire.hear().await.text()).unwrap();
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "connection_init" => assert!(!self.acknowledged, "4429: too many initialisation requests"),
            "subscribe" => {
                assert!(self.acknowledged, "4401: unauthorized");
                assert!(self.live.insert(id), "4409: subscriber already exists");
            }
            "complete" => assert!(self.live.remove(&id), "completes what is not there"),
            other => panic!("an unknown type {other}"),
        }
        message
    }

    async fn acknowledge(&mut self) {
        self.acknowledged = true;
        self.wire.text(&json!({ "type": "connection_ack" }).to_string()).await;
    }

    async fn tick(&mut self, id: &str, tick: u64) {
        assert!(self.live.contains(id));
        let next = json!({ "id": id, "type": "next", "payload": { "data": { "tick": tick } } });
        self.wire.text(&next.to_string()).await;
    }
}

fn subscribe(id: &str, query: &str) -> String {
    json!({ "id": id, "type": "subscribe", "payload": { "query": query } }).to_string()
}

/// A client whose init was acknowledged and whose subscriptions are live on worker `a`, and a worker `b`.
async fn subscribed(proxy: &Proxy, ids: &[&str]) -> (Wire, Graphql, StepWorker) {
    let (a, b) = (StepWorker::start().await, StepWorker::start().await);
    proxy.register("a", a.address).await;
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/graphql", &GRAPHQL), Graphql::accept(&a));
    proxy.register("b", b.address).await;
    client.text(&json!({ "type": "connection_init" }).to_string()).await;
    worker.hear().await;
    worker.acknowledge().await;
    assert_eq!(client.hear().await.text(), r#"{"type":"connection_ack"}"#);
    for id in ids {
        client.text(&subscribe(id, "subscription { tick }")).await;
        worker.hear().await;
    }
    let confirmed = proxy.pipe_that("the worker has confirmed it all", |pipe| {
        let count = |name: &str| pipe["up"][name].as_u64().unwrap();
        count("accepted") == ids.len() as u64 + 1 && count("confirmed") == count("accepted")
    });
    tokio::select! {
        _ = confirmed => {}
        said = worker.wire.hear() => panic!("nothing more is said: {said:?}"),
    }
    (client, worker, b)
}

async fn ticks(client: &mut Wire) -> (String, u64) {
    let message: Value = serde_json::from_str(&client.hear().await.text()).unwrap();
    assert_eq!(message["type"], "next", "{message}");
    (message["id"].as_str().unwrap().to_owned(), message["payload"]["data"]["tick"].as_u64().unwrap())
}

#[tokio::test]
async fn a_killed_graphql_worker_is_replaced_by_one_that_hears_the_init_and_the_live_subscriptions() {
    let proxy = Proxy::start("");
    let (mut client, mut old, b) = subscribed(&proxy, &["1", "2"]).await;
    old.tick("1", 1).await;
    assert_eq!(ticks(&mut client).await, ("1".into(), 1));
    let pipe = proxy.pipe_that("it is known what it is", |pipe| pipe["conversation"]["kind"] == "profile").await;
    let known = json!({ "kind": "profile", "profile": "graphql-transport-ws", "why": "subprotocol" });
    assert_eq!(pipe["conversation"], known);
    proxy.event_of(0, "route.conversation").await;
    old.wire.reset();
    let mut new = Graphql::accept(&b).await;
    assert_eq!(new.wire.head.header("holdline-prologue"), "3");
    new.hear().await;
    client.text(&subscribe("3", "subscription { tick }")).await;
    new.acknowledge().await;
    for id in ["1", "2", "3"] {
        assert_eq!(new.hear().await["id"], id);
    }
    new.tick("2", 7).await;
    assert_eq!(ticks(&mut client).await, ("2".into(), 7), "no second ack before it");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("prologue_sent_total", &[]), 3.0);
    assert_eq!(metrics.sum("prologue_swallowed_total", &[]), 1.0);
    assert!(metrics.sum("prologue_bytes", &[]) > 0.0);
    client.close(1000, "").await;
    proxy.emptied().await;
    assert_eq!(proxy.metrics().await.sum("prologue_bytes", &[]), 0.0);
}

#[tokio::test]
async fn a_drained_graphql_worker_hands_its_conversation_on_in_the_same_way() {
    let proxy = Proxy::start("");
    let (mut client, mut old, b) = subscribed(&proxy, &["1"]).await;
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({ "state": "drain" }))).await.expect(202);
    let mut new = Graphql::accept(&b).await;
    assert_eq!(old.wire.hear().await, Said::Close(1001, "moving to another worker".into()));
    old.wire.close(1001, "").await;
    new.hear().await;
    new.acknowledge().await;
    new.hear().await;
    new.tick("1", 2).await;
    assert_eq!(ticks(&mut client).await, ("1".into(), 2));
}

#[tokio::test]
async fn a_mutation_that_its_worker_may_have_run_is_answered_with_an_error_and_not_run_again() {
    let proxy = Proxy::start("");
    let (mut client, mut old, b) = subscribed(&proxy, &["1"]).await;
    client.text(&subscribe("m", "mutation { pay }")).await;
    old.hear().await;
    old.wire.reset();
    let error: Value = serde_json::from_str(&client.hear().await.text()).unwrap();
    assert_eq!((&error["id"], &error["type"]), (&json!("m"), &json!("error")));
    let mut new = Graphql::accept(&b).await;
    new.hear().await;
    new.acknowledge().await;
    assert_eq!(new.hear().await["id"], "1");
    assert!(new.wire.is_quiet_for(Duration::from_millis(200)).await);
    assert_eq!(proxy.metrics().await.sum("prologue_failures_total", &[("why", "exchange")]), 1.0);
}

#[tokio::test]
async fn a_worker_that_does_not_acknowledge_in_time_is_given_up_for_the_next_candidate() {
    let proxy = Proxy::start("[prologue]\nwithin = \"2s\"\n");
    let (mut client, old, b) = subscribed(&proxy, &["1"]).await;
    old.wire.reset();
    let mut silent = Graphql::accept(&b).await;
    silent.hear().await;
    let mut next = Graphql::accept(&b).await;
    next.hear().await;
    next.acknowledge().await;
    next.hear().await;
    next.tick("1", 3).await;
    assert_eq!(ticks(&mut client).await, ("1".into(), 3));
    proxy.event(0, "it says so", |event| event["type"] == "pipe.prologue_failed" && event["why"] == "unanswered").await;
}

#[tokio::test]
async fn a_byte_stream_is_stateful_by_its_subprotocol_and_ends_with_its_worker_at_once() {
    let proxy = Proxy::start("");
    let (a, b) = (StepWorker::start().await, StepWorker::start().await);
    proxy.register("a", a.address).await;
    let offer = [("Sec-WebSocket-Protocol", "binary")];
    let (mut client, worker) = tokio::join!(Wire::connect(proxy.public, "/vnc", &offer), async {
        a.knock().await.upgrade_with("Sec-WebSocket-Protocol: binary\r\n").await
    });
    proxy.register("b", b.address).await;
    let pipe = proxy.pipe_that("it is known what it is", |pipe| pipe["conversation"]["kind"] == "stateful").await;
    let id = pipe["id"].as_str().unwrap().to_owned();
    proxy.api("POST", &format!("/v1/pipes/{id}/reattach"), Some(json!({}))).await.expect(409);
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({ "state": "drain" }))).await.expect(202);
    proxy.pipe_that("it stays", |pipe| pipe["held"] == "stateful").await;
    worker.reset();
    assert_eq!(client.hear().await, Said::Close(1012, "backend lost".into()));
    assert!(b.is_left_alone_for(Duration::from_millis(200)).await);
    client.close(1012, "").await;
    proxy.emptied().await;
    assert_eq!(proxy.metrics().await.sum("reattach_total", &[("result", "close_route")]), 1.0);
}

#[tokio::test]
async fn a_route_may_say_that_its_conversations_are_stateful_or_stateless_against_every_rule() {
    let route = |word: &str| {
        format!(
            "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/{{*rest}}\"\npool = \"default\"\nconversation = \"{word}\"\n"
        )
    };
    let proxy = Proxy::start(&route("stateful"));
    let (mut client, old, _b) = subscribed(&proxy, &[]).await;
    old.wire.reset();
    assert_eq!(client.hear().await, Said::Close(1012, "backend lost".into()));
    let proxy = Proxy::start(&route("stateless"));
    let (mut client, old, b) = subscribed(&proxy, &["1"]).await;
    old.wire.reset();
    let mut new = Graphql::accept(&b).await;
    new.wire.text("hello").await;
    assert_eq!(client.hear().await.text(), "hello");
    assert_eq!(new.wire.head.header("holdline-prologue"), "");
}
