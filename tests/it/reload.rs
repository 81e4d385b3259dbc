//! New configurations under live pipes: what changes, what stays, and what is said about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Barrier, watch};

use crate::harness::{Client, DemoWorker, Proxy, Said, Wire, ask, eventually};

async fn reload(proxy: &Proxy) -> Value {
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200).json()
}

fn keys(changes: &Value) -> Vec<&str> {
    changes.as_array().unwrap().iter().map(|change| change["key"].as_str().unwrap()).collect()
}

/// `server.max_connections` of a generation.
const fn connections(number: usize) -> usize {
    2000 + number
}

/// A configuration that differs from the one before in pools, routes, limits and times.
fn generation(number: usize) -> String {
    let odd = number % 2 == 1;
    let extra = if odd { "[[pools]]\nname = \"extra\"\n" } else { "" };
    let route = if odd { "[[routes]]\nname = \"extra\"\npath = \"/extra\"\npool = \"extra\"\n" } else { "" };
    format!(
        "[server]\nmax_connections = {}\nhandshake_timeout = \"{}s\"\n[replay]\ntotal_bytes_max = \"{}MiB\"\n\
         [[pools]]\nname = \"default\"\nbalance = \"{}\"\n{extra}\
         [[routes]]\nname = \"all\"\npath = \"/{{*path}}\"\npool = \"default\"\n{route}",
        connections(number),
        5 + number % 3,
        64 + number,
        if odd { "round_robin" } else { "least_pipes" },
    )
}

/// One of this many clients speaks in a round.
const TURNS: usize = 10;

/// In each round the clients whose turn it is say its number and hear it come back, which nothing may come before.
async fn converse(mut clients: Vec<Client>, mut rounds: watch::Receiver<usize>, said: Arc<AtomicU64>) {
    let mut done = 0;
    // the sender goes when the last round is over
    while rounds.changed().await.is_ok() {
        let newest = *rounds.borrow_and_update();
        for round in done + 1..=newest {
            for client in clients.iter_mut().skip(round % TURNS).step_by(TURNS) {
                client.text(round.to_string()).await;
            }
            for client in clients.iter_mut().skip(round % TURNS).step_by(TURNS) {
                assert_eq!(client.hear().await.text(), round.to_string());
                said.fetch_add(1, Relaxed);
            }
        }
        done = newest;
    }
    for client in &mut clients {
        client.close(1000, "").await;
    }
}

/// Puts the next generation in force, by signal and by request in turn.
async fn next_generation(proxy: &Proxy, number: usize) {
    proxy.rewrite(&generation(number));
    if number.is_multiple_of(2) {
        let answer = reload(proxy).await;
        assert!(keys(&answer["changes"]).contains(&"server.max_connections"), "{answer}");
        return;
    }
    proxy.signal(Signal::HUP);
    eventually("the reload", async || {
        let config = proxy.get("/v1/config").await;
        (config["server"]["max_connections"] == connections(number)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_a_thousand_talking_pipes_close_none_and_lose_nothing() {
    const TALKERS: usize = 4;
    const EACH: usize = 250;
    const PIPES: usize = TALKERS * EACH;
    const RELOADS: usize = 100;
    let proxy = Arc::new(Proxy::start(&generation(0)));
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    for (name, worker) in ["a", "b"].iter().zip(&workers) {
        proxy.register(name, worker.address).await;
    }
    let (rounds, said) = (watch::Sender::new(0), Arc::new(AtomicU64::new(0)));
    let ready = Arc::new(Barrier::new(TALKERS + 1));
    let talkers: Vec<_> = (0..TALKERS)
        .map(|_| {
            let (proxy, ready, said, rounds) = (proxy.clone(), ready.clone(), said.clone(), rounds.subscribe());
            tokio::spawn(async move {
                let mut clients = Vec::new();
                for number in 0..EACH {
                    clients.push(Client::connect(proxy.public, &format!("/ws/{number}/echo")).await);
                }
                ready.wait().await;
                converse(clients, rounds, said).await;
            })
        })
        .collect();
    ready.wait().await;
    for number in 1..=RELOADS {
        let before = said.load(Relaxed);
        rounds.send_replace(number);
        next_generation(&proxy, number).await;
        eventually("traffic goes on", async || (said.load(Relaxed) > before).then_some(())).await;
    }
    assert_eq!(proxy.pipes().await.len(), PIPES);
    drop(rounds);
    for talker in talkers {
        talker.await.unwrap();
    }
    proxy.emptied().await;
    let metrics = proxy.metrics().await;
    let total = (PIPES * RELOADS / TURNS) as f64;
    assert_eq!(metrics.sum("messages_total", &[("lane", "up")]), total);
    assert_eq!(metrics.sum("messages_total", &[("lane", "down")]), total);
    assert_eq!(metrics.sum("pipe_closes_total", &[]), PIPES as f64);
    assert_eq!(metrics.sum("pipe_closes_total", &[("side", "client"), ("code", "1000")]), PIPES as f64);
    for bad in ["interruptions_total", "lost_messages_total", "in_doubt_messages_total"] {
        assert_eq!(metrics.sum(bad, &[]), 0.0, "{bad}");
    }
    assert_eq!(proxy.records("config.reloaded").len(), RELOADS);
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_configuration_and_is_named_with_line_and_column() {
    let proxy = Proxy::start("[reattach]\ngrace = \"7s\"\n");
    proxy.rewrite("[reattach]\ngrace = \"7 parsecs\"\n[log]\nlevel = \"loud\"\n");
    let refused = proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(422).json();
    assert_eq!(refused["type"], "urn:holdline:problem:invalid-config");
    let file = proxy.config_file().display().to_string();
    let message = refused["errors"][0]["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{file}:2:9: reattach.grace: ")), "{message}");
    assert_eq!(refused["errors"][0]["pointer"], "/reattach/grace");
    assert_eq!(refused["errors"][1]["pointer"], "/log/level");
    let verdict = proxy.api("POST", "/v1/config/validate", Some(json!({}))).await.expect(200).json();
    assert_eq!((&verdict["valid"], &verdict["errors"][0]["line"]), (&json!(false), &json!(2)), "{verdict}");
    proxy.signal(Signal::HUP);
    let said = proxy.logged("the configuration was not reloaded; the old one stays", 2).await;
    assert!(said[1]["error"].as_str().unwrap().contains(":2:9: "), "{said:?}");
    assert_eq!(proxy.get("/v1/config").await["reattach"]["grace"], "7s");
    assert_eq!(proxy.metrics().await.sum("config_last_reload_successful", &[]), 0.0);
    let event = proxy.event_of(0, "config.reload_failed").await;
    assert!(event["error"].as_str().unwrap().contains("reattach.grace"), "{event}");
    proxy.rewrite("[reattach]\ngrace = \"8s\"\n");
    assert_eq!(keys(&reload(&proxy).await["changes"]), ["reattach.grace"]);
    assert_eq!(proxy.get("/v1/config").await["reattach"]["grace"], "8s");
    assert_eq!(proxy.metrics().await.sum("config_last_reload_successful", &[]), 1.0);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_each_time_and_runs_on_as_it_was() {
    let proxy = Proxy::start("");
    proxy.rewrite("[server]\nthreads = 7\nmax_connections = 77\n[admin]\nstate_file = \"/nowhere/state\"\n");
    for round in 0..2 {
        let answer = reload(&proxy).await;
        let mut waiting: Vec<_> = answer["needs_restart"].as_array().unwrap().iter().collect();
        waiting.sort_by_key(|key| key.to_string());
        assert_eq!(waiting, [&json!("admin.state_file"), &json!("server.threads")], "round {round}");
        assert_eq!(keys(&answer["changes"]).contains(&"server.max_connections"), round == 0);
    }
    let config = proxy.get("/v1/config").await;
    assert_eq!((&config["server"]["threads"], &config["server"]["max_connections"]), (&json!(0), &json!(77)));
    let event = proxy.event_of(0, "config.reloaded").await;
    assert_eq!(event["needs_restart"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_live_pipe_keeps_its_route_and_new_ones_get_the_new_one() {
    let config = |bytes: &str, connections: u32, backend: &str| {
        format!(
            "[server]\nmax_connections = {connections}\n[message]\nmax_bytes = \"{bytes}\"\n[[pools]]\nname = \"default\"\n{backend}"
        )
    };
    let [a, b] = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let fixed = |worker: &DemoWorker, id: &str| {
        format!("[[pools.backends]]\nid = \"{id}\"\nurl = \"ws://{}\"\n", worker.address)
    };
    let proxy = Proxy::start(&config("1MiB", 10, &fixed(&a, "a")));
    let mut old = Client::connect(proxy.public, "/ws/1/echo").await;
    proxy.rewrite(&config("1KiB", 2, &fixed(&b, "b")));
    reload(&proxy).await;
    let mut new = Client::connect(proxy.public, "/ws/2/echo").await;
    let large = "x".repeat(100 << 10);
    assert_eq!(old.exchange(&large).await, large, "it was opened with a megabyte");
    proxy
        .pipe_that("moved off the worker that is no longer configured", |pipe| {
            pipe["key"].is_null() && pipe["backend"] == "b" && pipe["attachment"] == 2
        })
        .await;
    assert_eq!(old.exchange("still there").await, "still there");
    assert_eq!(Client::open(proxy.public, "/ws/3/echo").await.err(), Some(503), "two are too many by now");
    new.text(large).await;
    assert!(matches!(new.hear().await, Said::Close(1009, _)));
}

#[tokio::test]
async fn a_pipe_whose_worker_is_no_longer_configured_stays_where_it_has_nowhere_to_go() {
    let a = DemoWorker::start("a", &[]);
    let backend = format!("[[pools.backends]]\nid = \"a\"\nurl = \"ws://{}\"\n", a.address);
    let proxy = Proxy::start(&format!("[[pools]]\nname = \"default\"\n{backend}"));
    let mut client = Client::connect(proxy.public, "/ws/1/echo").await;
    proxy.rewrite("[[pools]]\nname = \"default\"\n[[routes]]\nwait = 0\n");
    reload(&proxy).await;
    assert_eq!(client.exchange("on").await, "on");
    assert_eq!(Client::open(proxy.public, "/ws/2/echo").await.err(), Some(503));
    assert_eq!(proxy.get("/v1/backends/a").await["removing"], true);
    client.close(1000, "").await;
    proxy.event_of(0, "backend.removed").await;
}

#[tokio::test]
async fn new_limits_count_who_is_inside_already() {
    let config = |at_once: u32| {
        format!(
            "[limits]\nkey_connections = {at_once}\n[[pools]]\nname = \"default\"\n\
             [[routes]]\nname = \"all\"\npath = \"/ws/{{session}}/echo\"\npool = \"default\"\nkey = \"{{session}}\"\n"
        )
    };
    let proxy = Proxy::start(&config(1));
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut first = Client::connect(proxy.public, "/ws/1/echo").await;
    assert_eq!(Client::open(proxy.public, "/ws/1/echo").await.err(), Some(429));
    proxy.rewrite(&config(2));
    assert_eq!(keys(&reload(&proxy).await["changes"]), ["limits.key_connections"]);
    let _second = Client::connect(proxy.public, "/ws/1/echo").await;
    assert_eq!(Client::open(proxy.public, "/ws/1/echo").await.err(), Some(429), "the first one counts");
    assert_eq!(first.exchange("inside").await, "inside");
}

#[tokio::test]
async fn tokens_are_read_again_and_a_broken_tokens_file_changes_nothing() {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    let line = |role: &str, token: &str| {
        let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{role} {digest}\n")
    };
    std::fs::write(&tokens, line("operator", "old")).unwrap();
    let proxy = Proxy::start(&format!("[admin]\ntokens_file = {:?}\n", tokens.to_str().unwrap()));
    let try_post = async |path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        ask(proxy.admin, "POST", path, &headers, "{}").await
    };
    let try_reload = async |token: &str| try_post("/v1/config/reload", token).await;
    std::fs::write(&tokens, "nonsense\n").unwrap();
    let refused = try_reload("old").await.expect(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/admin/tokens_file");
    let verdict = try_post("/v1/config/validate", "old").await.expect(200).json();
    assert_eq!((&verdict["valid"], &verdict["errors"][0]["key"]), (&json!(false), &json!("admin.tokens_file")));
    std::fs::write(&tokens, line("operator", "new")).unwrap();
    try_reload("new").await.expect(401);
    try_reload("old").await.expect(200);
    try_reload("old").await.expect(401);
    try_reload("new").await.expect(200);
}

#[tokio::test]
async fn px_05_the_effective_configuration_says_what_the_environment_set_and_masks_secrets() {
    let file = "[reattach]\ngrace = \"9s\"\n[replay]\ndelay = \"1s\"\n[[pools]]\nname = \"default\"\n\
                [[pools.backends]]\nurl = \"ws://127.0.0.1:1/?token=hunter2\"\n";
    let proxy =
        Proxy::start_with(file, &[("HOLDLINE_REPLAY__PIPE_BYTES_MAX", "1MiB"), ("HOLDLINE_REPLAY__DELAY", "2s")]);
    let reply = proxy.api("GET", "/v1/config", None).await.expect(200);
    assert!(!reply.text().contains("hunter2"), "{}", reply.text());
    let config = reply.json();
    assert_eq!((&config["replay"]["pipe_bytes_max"], &config["replay"]["delay"]), (&json!("1MiB"), &json!("2s")));
    assert_eq!(config["pools"][0]["backends"][0]["url"], "ws://127.0.0.1:1/?***");
    let keys = &config["sources"]["keys"];
    assert_eq!(keys["replay.pipe_bytes_max"]["variable"], "HOLDLINE_REPLAY__PIPE_BYTES_MAX");
    assert_eq!(keys["replay.delay"]["variable"], "HOLDLINE_REPLAY__DELAY", "the environment wins");
    assert_eq!((&keys["reattach.grace"]["line"], &keys["reattach.grace"]["column"]), (&json!(2), &json!(9)));
    assert_eq!(keys["reattach.backoff_min"], Value::Null, "a default was written nowhere");
    assert_eq!(config["sources"]["file"], proxy.config_file().display().to_string());
    proxy.rewrite("[reattach]\ngrace = \"3s\"\n");
    let answer = reload(&proxy).await;
    assert!(!answer.to_string().contains("hunter2"));
    let config = proxy.get("/v1/config").await;
    assert_eq!((&config["replay"]["delay"], &config["reattach"]["grace"]), (&json!("2s"), &json!("3s")));
}

#[tokio::test]
async fn a_drained_process_takes_no_new_pipes_until_it_is_told_otherwise() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut client = Client::connect(proxy.public, "/ws/1/echo").await;
    let drain = proxy.api("PUT", "/v1/drain", Some(json!({}))).await.expect(200).json();
    assert_eq!((&drain["phase"], &drain["pipes"]), (&json!("draining"), &json!(1)));
    let ready = proxy.api("GET", "/health/ready", None).await.expect(503).json();
    assert_eq!(ready["reasons"], json!(["draining"]));
    proxy.api("GET", "/health/live", None).await.expect(200);
    let refused = Wire::open(proxy.public, "/ws/2/echo", &[]).await.err().unwrap();
    assert_eq!(refused.status, 503);
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(client.exchange("live pipes go on").await, "live pipes go on");
    proxy.api("DELETE", "/v1/drain", None).await.expect(200);
    proxy.api("GET", "/health/ready", None).await.expect(200);
    assert_eq!(Client::connect(proxy.public, "/ws/2/echo").await.exchange("again").await, "again");
}

#[tokio::test]
async fn an_emptied_file_and_dropped_guards_need_force_and_leave_a_warning() {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    let digest: String = Sha256::digest("rule").iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&tokens, format!("operator {digest}\n")).unwrap();
    let guard = format!("[admin]\ntokens_file = {:?}\n", tokens.to_str().unwrap());
    let route = |origins: &str| {
        format!(
            "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/ws/{{s}}/echo\"\npool = \"default\"\n{origins}"
        )
    };
    let origins = "origins = [\"https://app.example\"]\n";
    let proxy = Proxy::start(&format!("{guard}{}", route(origins)));
    let worker = DemoWorker::start("w", &[]);
    let say = async |method: &str, path: &str, body: String| {
        let headers = [("content-type", "application/json"), ("authorization", "Bearer rule")];
        ask(proxy.admin, method, path, &headers, body).await
    };
    let reload = async |body: Value| say("POST", "/v1/config/reload", body.to_string()).await;
    say("PUT", "/v1/backends/w", json!({ "url": format!("ws://{}", worker.address) }).to_string()).await.expect(201);
    let evil = async || Wire::open(proxy.public, "/ws/1/echo", &[("origin", "https://evil.example")]).await;
    let is_guarded = async || {
        ask(proxy.admin, "GET", "/v1/config", &[], "").await.expect(401);
        assert_eq!(evil().await.expect_err("a foreign origin").status, 403);
    };
    for (text, names) in [
        (String::new(), "sets nothing"),
        ("# [admin]\n\n".to_owned(), "sets nothing"),
        (route(origins), "drops admin.tokens_file"),
        (format!("{guard}{}", route("")), "drops origins of route \"ws\""),
        (format!("{guard}[[pools]]\nname = \"default\"\n"), "drops origins of route \"ws\""),
        (
            format!("{guard}backend_networks = [\"0.0.0.0/0\"]\n{}", route(origins)),
            "drops the bounds of admin.backend_networks",
        ),
        (format!("{guard}[limits]\nkey_rate = 0\n{}", route(origins)), "drops limits.key_rate of route \"ws\""),
    ] {
        proxy.rewrite(&text);
        let refused = reload(json!({})).await.expect(409).json();
        assert_eq!(refused["type"], "urn:holdline:problem:guards-dropped");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(names) && detail.contains("--force"), "{detail}");
        let verdict = say("POST", "/v1/config/validate", "{}".to_owned()).await.expect(200).json();
        assert_eq!(verdict["valid"], false);
        proxy.signal(Signal::HUP);
        is_guarded().await;
    }
    assert!(proxy.records("config.guards_dropped").is_empty());
    proxy.rewrite("");
    reload(json!({"force": true})).await.expect(200);
    ask(proxy.admin, "GET", "/v1/config", &[], "").await.expect(200);
    assert!(evil().await.is_ok(), "as it was wished");
    let warned = proxy.logged("config.guards_dropped", 1).await;
    assert_eq!(
        (&warned[0]["level"], &warned[0]["guards"]),
        (&json!("WARN"), &json!("admin.tokens_file, origins of route \"ws\""))
    );
    assert!(proxy.logged("the configuration was not reloaded; the old one stays", 8).await.len() >= 8);
}
