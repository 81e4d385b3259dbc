//! Clients with names: one that is lost comes back to its pipe, and of two that are there one has to go.

use serde_json::Value;

use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};

/// Routes that know their clients by path, query and header.
fn config(grace: &str, duplicate: &str) -> String {
    let route = |name: &str, path: &str, id: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\npath = \"{path}\"\npool = \"default\"\nclient_id = \"{id}\"\n\
             duplicate = \"{duplicate}\"\n"
        )
    };
    format!(
        "[resume]\ngrace = \"{grace}\"\n[[pools]]\nname = \"default\"\n{}{}{}",
        route("path", "/ws/{client}", "{client}"),
        route("query", "/query/{channel}", "{query.client}"),
        route("header", "/header", "{header.x-client}"),
    )
}

async fn started(grace: &str, duplicate: &str) -> (Proxy, StepWorker) {
    let proxy = Proxy::start(&config(grace, duplicate));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

/// A client and the worker's end of its pipe.
async fn pair(proxy: &Proxy, worker: &StepWorker, path: &str, headers: &[(&str, &str)]) -> (Wire, Wire) {
    tokio::join!(Wire::connect(proxy.public, path, headers), worker.accept())
}

/// The one pipe there is, once it is in this state.
async fn pipe_in(proxy: &Proxy, state: &str) -> Value {
    eventually(state, async || {
        let pipes = proxy.get("/v1/pipes").await["items"].as_array().unwrap().clone();
        pipes.into_iter().find(|pipe| pipe["state"] == state)
    })
    .await
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[tokio::test]
async fn a_client_that_was_lost_comes_back_to_its_worker_and_misses_nothing() {
    let (proxy, worker) = started("10m", "replace").await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    wire.text("before").await;
    assert_eq!(client.hear().await, text("before"));
    client.reset();
    let lost = pipe_in(&proxy, "client_detached").await;
    assert_eq!((&lost["generation"], &lost["down"]["level"]), (&1.into(), &"pong".into()));
    wire.text("while it was away").await;
    let mut client = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    assert_eq!(client.hear().await, text("before"), "which it had not confirmed");
    assert_eq!(client.hear().await, text("while it was away"));
    client.text("here again").await;
    assert_eq!(wire.hear().await, text("here again"));
    let back = pipe_in(&proxy, "attached").await;
    assert_eq!((&back["id"], &back["generation"]), (&lost["id"], &2.into()));
    let metrics = proxy.metrics().await;
    let down = [("route", "path"), ("lane", "down")];
    assert_eq!(
        (metrics.sum("in_doubt_messages_total", &down), metrics.sum("replayed_messages_total", &down)),
        (1.0, 1.0)
    );
    let resumed = [("route", "path"), ("transport", "websocket"), ("result", "resumed")];
    assert_eq!(metrics.sum("client_resumes_total", &resumed), 1.0);
    assert_eq!(metrics.sum("connections", &[("listener", "public")]), 1.0);
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
}

#[tokio::test]
async fn iw_08_a_client_that_closes_in_good_order_is_not_waited_for_and_its_name_is_free_at_once() {
    let (proxy, worker) = started("10m", "replace").await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    // Its name is free at once: another conversation, though the old one still has something to do.
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.text("anew").await;
    assert_eq!(wire.hear().await, text("anew"));
}

#[tokio::test]
async fn a_client_that_stays_away_ends_its_pipe_and_comes_to_a_new_one() {
    let (proxy, worker) = started("200ms", "replace").await;
    let (client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.reset();
    assert_eq!(wire.hear().await, Said::Close(1001, "client gone".into()));
    let expired = proxy.event_of(0, "pipe.client_expired").await;
    assert!(expired["away_ms"].as_u64().unwrap() >= 200, "{expired}");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("client_resumes_total", &[("result", "expired")]), 1.0);
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.text("anew").await;
    assert_eq!(wire.hear().await, text("anew"));
}

#[tokio::test]
async fn iw_15_a_second_connection_of_the_same_client_is_refused_with_409_and_let_in_once_the_first_is_lost() {
    let (proxy, worker) = started("10m", "reject").await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    let refused = Wire::open(proxy.public, "/ws/c1", &[]).await.unwrap_err();
    assert_eq!(refused.status, 409);
    client.text("untouched").await;
    assert_eq!(wire.hear().await, text("untouched"));
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &[("result", "rejected")]), 1.0);
    client.reset();
    pipe_in(&proxy, "client_detached").await;
    let mut client = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    client.text("back").await;
    assert_eq!(wire.hear().await, text("back"));
}

#[tokio::test]
async fn st_06_replaced_as_often_as_it_may_be_the_newest_connection_always_survives() {
    const ROUNDS: usize = 3;
    let (proxy, worker) = started("10m", "replace").await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    for round in 0..ROUNDS {
        let newer = Wire::connect(proxy.public, "/ws/c1", &[]).await;
        assert_eq!(client.hear().await, Said::Close(1000, "replaced".into()), "round {round}");
        client = newer;
    }
    let refused = Wire::open(proxy.public, "/ws/c1", &[]).await.unwrap_err();
    assert_eq!(refused.status, 409);
    client.text("alive").await;
    assert_eq!(wire.hear().await, text("alive"));
    wire.text("so am I").await;
    assert_eq!(client.hear().await, text("so am I"));
    let pipe = pipe_in(&proxy, "attached").await;
    assert_eq!((&pipe["generation"], &pipe["attachment"]), (&(ROUNDS + 1).into(), &1.into()));
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &[("result", "replaced")]), ROUNDS as f64);
}

#[tokio::test]
async fn a_client_is_known_by_query_or_header_and_on_each_path_for_itself() {
    let (proxy, worker) = started("10m", "replace").await;
    for (path, headers) in [("/query/a?client=c1", vec![]), ("/header", vec![("x-client", "c1")])] {
        let (client, mut wire) = pair(&proxy, &worker, path, &headers).await;
        client.reset();
        pipe_in(&proxy, "client_detached").await;
        let mut client = Wire::connect(proxy.public, path, &headers).await;
        client.text("back").await;
        assert_eq!(wire.hear().await, text("back"), "{path}");
        client.close(1000, "").await;
        proxy.emptied().await;
    }
    let (mut a, mut wire_a) = pair(&proxy, &worker, "/query/a?client=c1", &[]).await;
    let (_b, _wire_b) = pair(&proxy, &worker, "/query/b?client=c1", &[]).await;
    a.text("two conversations").await;
    assert_eq!(wire_a.hear().await, text("two conversations"));
}

#[tokio::test]
async fn without_a_name_a_lost_client_ends_its_pipe_as_ever() {
    let (proxy, worker) = started("10m", "replace").await;
    let (client, mut wire) = pair(&proxy, &worker, "/query/a", &[]).await;
    client.reset();
    assert_eq!(wire.hear().await, Said::Close(1001, "client gone".into()));
}

#[tokio::test]
async fn st_05_a_client_that_comes_back_is_let_in_at_the_limit() {
    let proxy = Proxy::start(&format!("[server]\nmax_connections = 1\n{}", config("10m", "replace")));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.reset();
    pipe_in(&proxy, "client_detached").await;
    let mut client = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    client.text("back").await;
    assert_eq!(wire.hear().await, text("back"));
    let refused = Wire::open(proxy.public, "/ws/somebody-else", &[]).await.unwrap_err();
    assert_eq!(refused.status, 503, "no pipe is without its client, so none makes room");
    client.reset();
    pipe_in(&proxy, "client_detached").await;
    let (_other, _wire) = pair(&proxy, &worker, "/ws/somebody-else", &[]).await;
    assert_eq!(wire.hear().await, Said::Close(1001, "going away".into()), "its worker is told so");
}

#[tokio::test]
async fn st_05_limits_of_key_and_address_let_a_client_back_in_and_nobody_else() {
    let proxy = Proxy::start(
        "[limits]\nkey_connections = 1\nkey_rate = \"1/h\"\naddress_connections = 1\naddress_rate = \"1/h\"\n\
         [[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/ws/{key}/{client}\"\npool = \"default\"\n\
         key = \"{key}\"\nclient_id = \"{client}\"\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/k/c1", &[]).await;
    for n in 0..5 {
        client.reset();
        pipe_in(&proxy, "client_detached").await;
        let refused = Wire::open(proxy.public, "/ws/k/somebody-else", &[]).await.unwrap_err();
        assert_eq!(refused.status, 429, "a pipe whose client is away still counts");
        client = Wire::connect(proxy.public, "/ws/k/c1", &[]).await;
        client.text(&n.to_string()).await;
        assert_eq!(wire.hear().await, text(&n.to_string()));
    }
}

#[tokio::test]
async fn both_ends_of_a_pipe_may_be_lost_and_found() {
    let (proxy, worker) = started("10m", "replace").await;
    let (mut client, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    client.text("for the next worker").await;
    wire.text("for the client").await;
    assert_eq!(wire.hear().await, text("for the next worker"));
    assert_eq!(client.hear().await, text("for the client"));
    client.reset();
    pipe_in(&proxy, "client_detached").await;
    wire.reset();
    let mut wire = worker.accept().await;
    assert_eq!(wire.hear().await, text("for the next worker"));
    let mut client = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    assert_eq!(client.hear().await, text("for the client"));
    client.text("and on").await;
    assert_eq!(wire.hear().await, text("and on"));
}

/// A tab that connects again whenever it is closed: how often it was let in before it was refused, and with which status.
async fn tab(proxy: &Proxy) -> (usize, u16) {
    let mut let_in = 0;
    loop {
        let mut client = match Wire::open(proxy.public, "/ws/both", &[]).await {
            Ok(client) => client,
            Err(refused) => {
                assert!(refused.json()["type"].as_str().unwrap().ends_with("taken"), "{refused:?}");
                assert!(!refused.header("retry-after").is_empty());
                return (let_in, refused.status);
            }
        };
        let_in += 1;
        match client.hear_unbounded().await {
            Said::Close(1000, reason) if reason == "replaced" => {}
            said => panic!("{said:?}"),
        }
    }
}

#[tokio::test]
async fn two_tabs_with_one_name_do_not_replace_each_other_for_ever() {
    let (proxy, worker) = started("10m", "replace").await;
    let serving = tokio::spawn(async move {
        let wire = worker.accept().await;
        std::future::pending::<()>().await;
        drop(wire);
    });
    let first = tab(&proxy);
    let second = tab(&proxy);
    // One of them is refused; the other one stays, and hears nothing more.
    let (let_in, status) = tokio::select! { outcome = first => outcome, outcome = second => outcome };
    assert!((1..=2).contains(&let_in) && status == 409, "{let_in} {status}");
    let metrics = proxy.metrics().await;
    let resumes = |result: &str| metrics.sum("client_resumes_total", &[("result", result)]);
    assert_eq!((resumes("replaced"), resumes("taken")), (3.0, 1.0));
    assert_eq!(proxy.event_of(0, "pipe.client_taken").await["route"], "path");
    assert_eq!(proxy.logged("pipe.client_taken", 1).await[0]["level"], "WARN");
    serving.abort();
}

#[tokio::test]
async fn a_connection_that_is_replaced_may_be_told_a_code_of_the_routes_own() {
    let proxy = Proxy::start(&config("10m", "replace").replacen("duplicate", "replaced_code = 4901\nduplicate", 1));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut first, mut wire) = pair(&proxy, &worker, "/ws/c1", &[]).await;
    let mut second = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    assert_eq!(first.hear().await, Said::Close(4901, "replaced".into()));
    second.text("there").await;
    assert_eq!(wire.hear().await, text("there"));
}
