//! Workers that the proxy runs itself: started, replaced under traffic, and counted.

use std::sync::Arc;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::crew::{demo, gone, group, pid, settled, shell, workers};
use crate::harness::{Client, Proxy, Said, ask, eventually, within};
use crate::rolling::{executed, talk};

const PIPES: usize = 200;
const WORKERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn px_03_a_rolling_restart_by_the_supervisor_closes_loses_and_doubles_nothing_under_200_pipes() {
    let files = tempfile::tempdir().unwrap();
    let journal = files.path().join("w{index}.jsonl").display().to_string();
    let config = group(&demo(&["--journal", &journal]), &format!("count = {WORKERS}"));
    let proxy = Arc::new(Proxy::start(&config));
    let before = settled(&proxy, "serving", WORKERS).await;
    let (stop, stopped) = watch::channel(false);
    let talks: Vec<_> = (0..PIPES).map(|name| tokio::spawn(talk(proxy.clone(), name, stopped.clone()))).collect();
    eventually("all talk", async || {
        (proxy.metrics().await.sum("pipes", &[("state", "attached")]) == PIPES as f64).then_some(())
    })
    .await;
    let told = proxy.api("POST", "/v1/workers/w/restart", Some(json!({}))).await.expect(202).json();
    assert_eq!((&told["name"], &told["due"]), (&json!("w"), &json!(WORKERS)), "{told}");
    let after = settled(&proxy, "serving", WORKERS).await;
    assert!(after.iter().all(|worker| before.iter().all(|old| old["pid"] != worker["pid"])), "{after:?}");
    for old in &before {
        gone(pid(old)).await;
    }
    stop.send(true).unwrap();
    let mut sent = Vec::new();
    for talk in talks {
        sent.push(within("a client's last answer", talk).await.unwrap());
    }
    let journals: Vec<_> = std::fs::read_dir(files.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let executed = executed(&journals);
    for (name, &count) in sent.iter().enumerate() {
        assert_eq!(executed[&format!("s{name}")], Vec::from_iter(1..=count), "s{name}: each once, in order");
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("moves_total", &[("result", "moved")]) >= PIPES as f64, "every pipe was moved");
    for counter in ["in_doubt_messages_total", "lost_messages_total", "replayed_messages_total"] {
        assert_eq!(metrics.sum(counter, &[]), 0.0, "{counter}");
    }
    assert_eq!(metrics.sum("pipe_closes_total", &[("side", "client")]), PIPES as f64);
    assert_eq!(metrics.sum("worker_recycles_total", &[("group", "w"), ("reason", "restart")]), WORKERS as f64);
    assert_eq!(metrics.sum("worker_starts_total", &[("group", "w"), ("reason", "replacement")]), WORKERS as f64);
}

#[tokio::test]
async fn px_02_workers_that_are_due_together_are_replaced_one_at_a_time_and_each_after_its_replacement_is_ready() {
    const DUE: usize = 3;
    let proxy = Proxy::start(&group(&demo(&[]), &format!("count = {DUE}")));
    settled(&proxy, "serving", DUE).await;
    let before = proxy.get("/v1/events?limit=1000").await["last"].clone();
    proxy.api("POST", "/v1/workers/w/restart", Some(json!({}))).await.expect(202);
    settled(&proxy, "serving", DUE).await;
    let page = proxy.get(&format!("/v1/events?after={before}&limit=1000")).await;
    let steps = ["worker.started", "worker.ready", "worker.recycled", "worker.exited"];
    let events = page["items"].as_array().unwrap().iter();
    let seen: Vec<_> = events.filter_map(|event| event["type"].as_str()).filter(|kind| steps.contains(kind)).collect();
    assert_eq!(seen, steps.repeat(DUE));
}

/// The reason for which a worker of a group with these keys is replaced, while a client stays on its socket.
async fn recycled(keys: &str) -> Value {
    let proxy = Proxy::start(&group(&demo(&[]), &format!("recycle_jitter = 0\n{keys}")));
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    let mut others = Vec::new();
    for number in 2..4 {
        others.push(Client::connect(proxy.public, &format!("/ws/s{number}/echo")).await);
    }
    let event = proxy.event_of(0, "worker.recycled").await;
    let exited = proxy.event_of(event["seq"].as_u64().unwrap(), "worker.exited").await;
    assert_eq!((&exited["expected"], &exited["status"]), (&json!(true), &json!("exit status 0")), "{exited}");
    assert_eq!(client.exchange("still here").await, "still here");
    for client in &mut others {
        assert_eq!(client.exchange("and here").await, "and here");
    }
    event["reason"].clone()
}

#[tokio::test]
async fn px_02_a_worker_is_replaced_after_as_many_pipes_as_it_may_have() {
    assert_eq!(recycled("recycle_pipes = 3").await, "pipes");
}

#[tokio::test]
async fn px_02_a_worker_is_replaced_at_the_age_that_it_may_have() {
    assert_eq!(recycled("recycle_age = \"2s\"").await, "age");
}

#[tokio::test]
async fn px_02_a_worker_is_replaced_when_all_its_processes_use_the_memory_that_it_may_have() {
    assert_eq!(recycled("recycle_rss = \"1MiB\"").await, "rss");
}

#[tokio::test]
async fn a_crash_costs_no_start_up_time_where_one_stands_by() {
    let proxy = Proxy::start(&group(&demo(&[]), "count = 1\nstandby = 1\nrestart_backoff = \"1h..1h\""));
    let ready = eventually("one serves and one stands by", async || {
        let workers = workers(&proxy).await;
        let state = |state: &str| workers.iter().find(|worker| worker["state"] == state).cloned();
        state("serving").zip(state("standby"))
    });
    let (serving, standby) = ready.await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    kill_process(pid(&serving), Signal::KILL).unwrap();
    client.text("after").await;
    // What the dead one had not confirmed is said again, and answered again.
    eventually("the next one answers", async || (client.hear().await == Said::Text("after".into())).then_some(()))
        .await;
    let exited = proxy.event_of(0, "worker.exited").await;
    assert_eq!((&exited["status"], &exited["expected"]), (&json!("signal 9"), &json!(false)));
    let workers = workers(&proxy).await;
    let now: Vec<_> = workers.iter().map(|worker| (&worker["id"], &worker["state"], &worker["pid"])).collect();
    let expected =
        [(&serving["id"], &json!("waiting"), &Value::Null), (&standby["id"], &json!("serving"), &standby["pid"])];
    assert!(expected.iter().all(|worker| now.contains(worker)), "{now:?}");
}

#[tokio::test]
async fn a_group_grows_and_shrinks_and_is_listed_by_the_command_line() {
    let proxy = Proxy::start(&group(&demo(&[]), ""));
    settled(&proxy, "serving", 1).await;
    let scaled = ctl(&proxy, &["workers", "scale", "w", "3"]).await;
    assert_eq!(scaled, "group w: 3 workers should serve\n");
    let three = settled(&proxy, "serving", 3).await;
    let table = ctl(&proxy, &["workers", "list"]).await;
    for worker in &three {
        let line = table.lines().find(|line| line.starts_with(worker["id"].as_str().unwrap())).unwrap();
        assert!(line.contains("serving") && line.contains(&worker["pid"].to_string()), "{line}");
    }
    let one = ctl(&proxy, &["workers", "show", "w-2", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["pid"], three[1]["pid"]);
    assert!(ctl(&proxy, &["workers", "recycle", "w-1"]).await.starts_with("worker w-1: is replaced"));
    eventually("another process serves", async || {
        let workers = workers(&proxy).await;
        let replaced = workers.iter().all(|worker| worker["pid"] != three[0]["pid"] && worker["state"] == "serving");
        (workers.len() == 3 && replaced).then_some(())
    })
    .await;
    proxy.api("PATCH", "/v1/workers/w", Some(json!({ "count": 1 }))).await.expect(200);
    settled(&proxy, "serving", 1).await;
    for (path, body) in [("/v1/workers/x", json!({ "count": 1 })), ("/v1/workers/x/restart", json!({}))] {
        let method = if path.ends_with('x') { "PATCH" } else { "POST" };
        let refused = proxy.api(method, path, Some(body)).await.expect(404).json();
        assert_eq!(refused["detail"], "there is no group \"x\" in [[workers]]");
    }
    proxy.api("PATCH", "/v1/workers/w", Some(json!({ "count": 1001 }))).await.expect(422);
    proxy.api("POST", "/v1/workers/w-9/recycle", Some(json!({}))).await.expect(404);
}

async fn ctl(proxy: &Proxy, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.arg("ctl").args(arguments).env("HOLDLINE_ADMIN", proxy.admin.to_string()).kill_on_drop(true);
    let done = within("the end of a command", command.output()).await.unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn another_command_replaces_the_workers_and_another_limit_does_not() {
    let config = group(&demo(&[]), "");
    let proxy = Proxy::start(&config);
    let before = settled(&proxy, "serving", 1).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    let reload = async |config: &str| {
        proxy.rewrite(config);
        proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200).json()
    };
    reload(&format!("{config}recycle_pipes = 1000\n")).await;
    assert_eq!(settled(&proxy, "serving", 1).await[0]["pid"], before[0]["pid"]);
    let other = config.replace("\"--command-ms\", \"0\"", "\"--command-ms\", \"1\"");
    reload(&other).await;
    let event = proxy.event_of(0, "worker.recycled").await;
    assert_eq!(event["reason"], "config");
    gone(pid(&before[0])).await;
    assert_eq!(client.exchange("on another").await, "on another");
    let without = &other[..other.find("[[workers]]").unwrap()];
    let last = settled(&proxy, "serving", 1).await;
    client.close(1000, "").await;
    reload(without).await;
    gone(pid(&last[0])).await;
    eventually("no group is left", async || workers(&proxy).await.is_empty().then_some(())).await;
    assert!(!proxy.get("/v1/backends").await["items"].to_string().contains("w-"));
}

#[tokio::test]
async fn a_worker_that_owns_a_device_has_ended_before_the_next_one_has_its_place() {
    let proxy = Proxy::start(&group(
        &demo(&[]),
        "count = 2\nreplace = \"after\"\nserves = [\"s{index}\"]\ndrain_timeout = \"500ms\"",
    ));
    let before = settled(&proxy, "serving", 2).await;
    let mut client = Client::connect(proxy.public, "/ws/s2/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    proxy.api("POST", "/v1/workers/w-2/recycle", Some(json!({}))).await.expect(202);
    let exited = proxy.event(0, "the old one has ended", |event| event["type"] == "worker.exited").await;
    let started = proxy.event_of(exited["seq"].as_u64().unwrap(), "worker.started").await;
    assert_eq!((&exited["worker"], &started["worker"]), (&json!("w-2"), &json!("w-2")));
    assert_eq!(client.exchange("after").await, "after");
    let after = settled(&proxy, "serving", 2).await;
    assert_eq!(after[0]["pid"], before[0]["pid"]);
    assert_ne!(after[1]["pid"], before[1]["pid"]);
}

#[tokio::test]
async fn a_worker_may_be_given_a_socket_that_listens_already() {
    let command = demo(&[]).replace("127.0.0.1:{port}", "127.0.0.1:0");
    let proxy = Proxy::start(&group(&command, "listen = \"fd\""));
    let worker = settled(&proxy, "serving", 1).await.remove(0);
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("by its socket").await, "by its socket");
    let environment = std::fs::read(format!("/proc/{}/environ", worker["pid"])).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let variables: Vec<&str> = environment.split('\0').collect();
    assert!(variables.contains(&format!("LISTEN_PID={}", worker["pid"]).as_str()), "{variables:?}");
    assert!(variables.contains(&"LISTEN_FDS=1"), "{variables:?}");
    assert!(!variables.iter().any(|variable| variable.starts_with("HOLDLINE_")), "settings may be secrets");
}

#[tokio::test]
async fn a_connection_that_comes_before_the_worker_accepts_waits_instead_of_being_refused() {
    let files = tempfile::tempdir().unwrap();
    let gate = files.path().join("gate");
    let words: Vec<String> = serde_json::from_str(&demo(&[]).replace("{port}", "0")).unwrap();
    let command = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.1; done; exec {command}", gate.display());
    let proxy = Proxy::start(&group(&shell(&script), "listen = \"fd\""));
    let worker = eventually("it is started", async || workers(&proxy).await.into_iter().next()).await;
    let address = worker["url"].as_str().unwrap().trim_start_matches("ws://").parse().unwrap();
    let asked = tokio::spawn(async move { ask(address, "GET", "/health", &[], "").await });
    // The handshake of TCP is through, and the worker has not begun.
    drop(within("a connection", tokio::net::TcpStream::connect(address)).await.unwrap());
    assert!(!asked.is_finished());
    std::fs::write(&gate, "").unwrap();
    within("an answer", asked).await.unwrap().expect(200);
}

#[tokio::test]
async fn backends_of_supervised_workers_are_not_changed_by_the_api() {
    let proxy = Proxy::start(&group(&demo(&[]), ""));
    settled(&proxy, "serving", 1).await;
    let backend = proxy.get("/v1/backends/w-1").await;
    assert_eq!((&backend["static"], &backend["labels"]["group"]), (&json!(true), &json!("w")), "{backend}");
    let refused = proxy.api("DELETE", "/v1/backends/w-1", Some(json!({}))).await.expect(409).json();
    assert_eq!(refused["type"], "urn:holdline:problem:supervised-backend");
    let url = json!({ "url": "ws://127.0.0.1:9" });
    proxy.api("PUT", "/v1/backends/w-1", Some(url)).await.expect(409);
}
