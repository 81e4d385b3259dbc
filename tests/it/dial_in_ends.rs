//! Workers that dial in, and how each part of that ends: the agent, the worker behind it, the proxy, and all that is wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::agent::{Agent, backend_that, parked};
use crate::harness::{Client, DemoWorker, KEYED, Proxy, eventually, within};
use crate::rolling::executed;

const ATTACH: &str = "[attach]\nlisten = [\"127.0.0.1:0\"]\n";

fn config() -> String {
    format!("{ATTACH}{KEYED}")
}

#[tokio::test]
async fn pipes_of_an_agent_that_is_killed_go_on_at_another_and_its_backend_is_down_at_once() {
    let proxy = Proxy::start(&config());
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let mut first = Agent::of(&proxy, workers[0].address, "a");
    parked(&proxy, "a", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("on a").await, "on a");
    let _second = Agent::of(&proxy, workers[1].address, "b");
    parked(&proxy, "b", 8).await;
    proxy.pipe_that("what it said is confirmed", |pipe| pipe["up"]["confirmed"] == 1).await;
    first.kill().await;
    assert_eq!(client.exchange("on b").await, "on b");
    let gone = backend_that(&proxy, "a", "it is down", |backend| backend["health"] == "down").await;
    assert_eq!((&gone["eligible"], &gone["parked"]), (&json!(false), &json!(0)), "{gone}");
    // The same worker again, by another process of its agent.
    let _again = Agent::of(&proxy, workers[0].address, "a");
    parked(&proxy, "a", 8).await;
}

#[tokio::test]
async fn an_agent_that_vanishes_without_a_word_is_noticed_within_three_heartbeats() {
    let proxy = Proxy::start(&format!("{ATTACH}heartbeat = \"500ms\"\n{KEYED}"));
    let worker = DemoWorker::start("w", &[]);
    let agent = Agent::of(&proxy, worker.address, "w");
    parked(&proxy, "w", 8).await;
    agent.signal(Signal::STOP);
    backend_that(&proxy, "w", "it is down", |backend| backend["health"] == "down" && backend["parked"] == 0).await;
    agent.signal(Signal::CONT);
    parked(&proxy, "w", 8).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_behind_its_agent_is_down_and_comes_back_with_its_pipes() {
    let proxy = Proxy::start(&config());
    let mut worker = DemoWorker::start("w", &[]);
    let address = worker.address;
    let mut agent = Agent::of(&proxy, address, "w");
    parked(&proxy, "w", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    proxy.pipe_that("all is confirmed", |pipe| pipe["up"]["confirmed"] == pipe["up"]["accepted"]).await;
    worker.kill();
    backend_that(&proxy, "w", "nothing is parked for it", |backend| backend["parked"] == 0).await;
    agent.says("the worker does not listen, so nothing is parked").await;
    client.text("meanwhile").await;
    let _again = DemoWorker::start("w", &["--listen", &address.to_string()]);
    parked(&proxy, "w", 8).await;
    assert_eq!(client.hear().await.text(), "meanwhile");
    assert_eq!(client.exchange("after").await, "after");
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_lets_its_pipes_move_first_and_closes_what_is_parked_last() {
    let proxy = Proxy::start(&config());
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let mut first = Agent::of(&proxy, workers[0].address, "a");
    parked(&proxy, "a", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("on a").await, "on a");
    first.signal(Signal::TERM);
    first.says("draining").await;
    // It has nowhere to go yet, and stays.
    backend_that(&proxy, "a", "it is being removed", |backend| backend["removing"] == true).await;
    assert_eq!(client.exchange("still on a").await, "still on a");
    let _second = Agent::of(&proxy, workers[1].address, "b");
    let (code, said) = first.ended().await;
    assert_eq!(code, Some(0), "{said:#?}");
    assert!(said.iter().any(|line| line.contains("drained")), "{said:#?}");
    proxy.pipe_that("the pipe has moved", |pipe| pipe["backend"] == "b").await;
    assert_eq!(client.exchange("on b").await, "on b");
    assert_eq!(proxy.api("GET", "/v1/backends/a", None).await.status, 404);
    assert_eq!(proxy.metrics().await.sum("moves_total", &[("result", "moved")]), 1.0, "it was a planned move");
}

#[tokio::test]
async fn of_two_agents_with_one_id_the_newer_one_has_it_and_the_older_one_stops() {
    let proxy = Proxy::start(&config());
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let older = Agent::of(&proxy, workers[0].address, "w");
    let before = parked(&proxy, "w", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("on the older").await, "on the older");
    let _newer = Agent::of(&proxy, workers[1].address, "w");
    let (code, said) = older.ended().await;
    assert_eq!(code, Some(0), "{said:#?}");
    let exact = "a newer instance has dialled in as \"w\"; this one stops. Give each worker its own id (409)";
    assert!(said.iter().any(|line| line.contains(exact)), "{said:#?}");
    let after = parked(&proxy, "w", 8).await;
    assert_ne!(before["instance"], after["instance"]);
    assert_eq!(client.exchange("on the newer").await, "on the newer");
    assert_eq!(proxy.records("attach.superseded").len(), 1);
}

/// Speaks to the listener of workers, and hears the whole answer.
async fn say(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn an_older_instance_is_answered_409_and_what_is_no_request_400() {
    let proxy = Proxy::start(&config());
    let park = |instance: &str, more: &str| {
        format!(
            "GET /v1/attach?id=w&instance={instance} HTTP/1.1\r\nHost: h\r\n{more}Connection: Upgrade\r\nUpgrade: holdline-attach/1\r\n\r\n"
        )
    };
    let mut held = Vec::new();
    for instance in ["first", "second"] {
        let mut stream = TcpStream::connect(proxy.attach).await.unwrap();
        stream.write_all(park(instance, "").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        within("its 101", stream.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        parked(&proxy, "w", 1).await;
        held.push(stream);
    }
    let refused = say(proxy.attach, &park("first", "")).await;
    assert!(refused.starts_with("HTTP/1.1 409 ") && refused.contains("instance-superseded"), "{refused}");
    for (request, status) in [("nonsense\r\n\r\n", 400), ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 404)] {
        let answer = say(proxy.attach, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let elsewhere = park("x", "").replace("id=w", "id=w&pool=none");
    let answer = say(proxy.attach, &elsewhere).await;
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("unknown-pool"), "{answer}");
    let drained = say(proxy.attach, "DELETE /v1/attach?id=w&instance=second HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(drained.starts_with("HTTP/1.1 204 "), "{drained}");
    let late = say(proxy.attach, &park("second", "")).await;
    assert!(late.starts_with("HTTP/1.1 409 ") && late.contains("instance-draining"), "{late}");
}

#[tokio::test]
async fn an_agent_with_a_wrong_token_is_told_so_and_ends() {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    let text = "worker 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 rack\n\
                viewer 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 eve\n";
    std::fs::write(&tokens, text).unwrap();
    let proxy = Proxy::start(&format!("[admin]\ntokens_file = {tokens:?}\n{}", config()));
    let worker = DemoWorker::start("w", &[]);
    let (to, forward) = (format!("http://{}", proxy.attach), worker.address.to_string());
    let missing = "send Authorization: Bearer and a token of admin.tokens_file with the role worker (401)";
    for (token, expected) in [
        ("", missing),
        ("nonsense", missing),
        ("test", "this is not for the role viewer; use a token with the role worker (403)"),
    ] {
        let agent = Agent::start_with(&to, &forward, "w", &[], &[("HOLDLINE_TOKEN", token)]);
        let (code, said) = agent.ended().await;
        assert_eq!(code, Some(1), "{said:#?}");
        assert!(said.iter().any(|line| line.contains(expected)), "{token}: {said:#?}");
    }
    let mut good = Agent::start_with(&to, &forward, "w", &[], &[("HOLDLINE_TOKEN", "test2")]);
    good.says("dialled in").await;
    let metrics = proxy.metrics().await;
    // Each of them asks for several connections at once.
    for (result, least) in [("unauthorized", 2.0), ("forbidden", 1.0), ("parked", 1.0)] {
        assert!(metrics.sum("attach_requests_total", &[("result", result)]) >= least, "{result}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_said_before_anything_is_dialled() {
    for (arguments, expected) in [
        (["--to", "127.0.0.1:1", "--forward", "127.0.0.1:2"], "write it like https://holdline.example:9443"),
        (["--to", "http://127.0.0.1:1", "--forward", "9001"], "write it like 127.0.0.1:9001 or unix:/run/w.sock"),
    ] {
        let [_, to, _, forward] = arguments;
        let (code, said) = Agent::start(to, forward, "w", &[]).ended().await;
        assert!(code == Some(2) && said.concat().contains(expected), "{code:?} {said:?}");
    }
    let (code, said) = Agent::start("http://127.0.0.1:1", "127.0.0.1:2", "w", &["--parked", "300"]).ended().await;
    assert!(code == Some(2) && said.concat().contains("--parked is more than --parked-max"), "{said:?}");
}

#[tokio::test]
async fn an_agent_dials_in_again_at_a_proxy_that_was_restarted() {
    // A loopback address of the test's own, so that no other process takes the port meanwhile.
    let [low, high, ..] = std::process::id().to_le_bytes();
    let own = format!("127.200.{high}.{}", low.max(1));
    let port = std::net::TcpListener::bind((own.as_str(), 0)).unwrap().local_addr().unwrap().port();
    let text = config().replace("127.0.0.1:0", &format!("{own}:{port}"));
    let mut proxy = Proxy::start(&text);
    let worker = DemoWorker::start("w", &[]);
    let mut agent = Agent::of(&proxy, worker.address, "w");
    parked(&proxy, "w", 8).await;
    proxy.signal(Signal::KILL);
    proxy.exited().await;
    agent.says("is not reached").await;
    let proxy = Proxy::start(&text);
    parked(&proxy, "w", 8).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("again").await, "again");
}

#[tokio::test]
async fn what_is_registered_by_the_api_waits_for_its_worker_to_dial_in() {
    let proxy = Proxy::start(&config());
    let said = json!({ "url": "attach:w", "serves": ["s1"], "labels": { "rack": "7" }, "lease": "15s" });
    proxy.register_as("w", said.clone()).await;
    backend_that(&proxy, "w", "it is down", |backend| backend["health"] == "down").await;
    let worker = DemoWorker::start("w", &[]);
    let _agent = Agent::of(&proxy, worker.address, "w");
    let backend = parked(&proxy, "w", 8).await;
    assert_eq!((&backend["labels"]["rack"], &backend["serves"]["s1"]), (&json!("7"), &Value::Null), "{backend}");
    let other = proxy.api("PUT", "/v1/backends/other", Some(said)).await;
    assert_eq!((other.status, &other.json()["errors"][0]["pointer"]), (422, &json!("/url")), "{}", other.text());
    let plain = Proxy::start(KEYED);
    let refused = plain.api("PUT", "/v1/backends/w", Some(json!({ "url": "attach:w" }))).await.expect(422);
    assert!(refused.text().contains("attach.listen is not set"), "{}", refused.text());
}

const PIPES: usize = 200;
const KILLS: u64 = 10;

/// Every pipe says its next number, and hears its answer.
async fn round(clients: &mut [Client], number: u64) {
    for client in &mut *clients {
        client.text(json!({ "t": "tap", "n": number }).to_string()).await;
    }
    for (name, client) in clients.iter_mut().enumerate() {
        let answer: Value = serde_json::from_str(&client.hear().await.text()).unwrap();
        assert_eq!(answer["ack"], number, "s{name}: nothing lost and nothing twice on the way down");
    }
}

/// Waits until nothing is in doubt: workers have confirmed all that they were sent.
async fn settled(proxy: &Proxy) {
    eventually("all is confirmed", async || {
        let pipes = proxy.pipes().await;
        let is_settled =
            |pipe: &Value| pipe["state"] == "attached" && pipe["up"]["confirmed"] == pipe["up"]["accepted"];
        (pipes.len() == PIPES && pipes.iter().all(is_settled)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_pipes_over_one_agent_outlive_ten_kills_with_nothing_lost_or_doubled() {
    let proxy = Arc::new(Proxy::start(&config()));
    let files = tempfile::tempdir().unwrap();
    let journals = [files.path().join("w.jsonl")];
    let start =
        |listen: &str| DemoWorker::start("w", &["--listen", listen, "--journal", journals[0].to_str().unwrap()]);
    let mut worker = start("127.0.0.1:0");
    let address = worker.address;
    let mut agent = Agent::of(&proxy, address, "w");
    parked(&proxy, "w", 8).await;
    let mut clients = Vec::new();
    for name in 0..PIPES {
        clients.push(Client::connect(proxy.public, &format!("/ws/s{name}/control?pull=1&echo=1&command_ms=0")).await);
    }
    round(&mut clients, 1).await;
    for kill in 1..=KILLS {
        settled(&proxy).await;
        if kill % 2 == 0 {
            worker.kill();
            worker = start(&address.to_string());
        } else {
            agent.kill().await;
            agent = Agent::of(&proxy, address, "w");
        }
        // What is said before the loss is noticed would be in doubt.
        let lost = (PIPES as u64 * kill) as f64;
        eventually("all have lost their worker", async || {
            (proxy.metrics().await.sum("interruptions_total", &[]) >= lost).then_some(())
        })
        .await;
        round(&mut clients, kill + 1).await;
    }
    drop(worker);
    let executed = executed(&journals);
    for name in 0..PIPES {
        assert_eq!(executed[&format!("s{name}")], Vec::from_iter(1..=KILLS + 1), "s{name}: each once, in order");
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("interruptions_total", &[]) >= (PIPES as u64 * KILLS) as f64);
    assert_eq!(metrics.sum("lost_messages_total", &[]), 0.0);
    drop(agent);
}
