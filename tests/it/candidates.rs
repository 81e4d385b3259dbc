//! Which worker is asked next, and whose trouble counts against it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{KEYED, Proxy, StepWorker, Wire, ask};

const HEALTH: &str = "health = { interval = \"100ms\", timeout = \"1s\" }\n";

/// `KEYED` with probes that come often.
fn probed() -> String {
    KEYED.replace("name = \"default\"\n", &format!("name = \"default\"\n{HEALTH}"))
}

async fn eligible(proxy: &Proxy, id: &str) -> bool {
    proxy.get(&format!("/v1/backends/{id}")).await["eligible"] == true
}

async fn set_state(proxy: &Proxy, id: &str, state: &str) {
    proxy.api("PUT", &format!("/v1/backends/{id}/state"), Some(json!({ "state": state, "pipes": "keep" }))).await;
}

#[tokio::test]
async fn ib_09_a_wrong_worker_is_passed_over_on_the_first_attach_and_is_not_to_blame() {
    let proxy = Proxy::start(KEYED);
    let [wrong, right] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("wrong", wrong.address).await;
    proxy.register("right", right.address).await;
    let mut pipes = Vec::new();
    for session in ["s1", "s2", "s3", "s4", "s5"] {
        set_state(&proxy, "right", "drain").await;
        let path = format!("/ws/{session}/control");
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, &path, &[]), wrong.accept());
        client.text("tap").await;
        set_state(&proxy, "right", "ready").await;
        wire.close(4004, "Session not found").await;
        let mut wire = right.accept().await;
        assert_eq!(wire.hear().await.text(), "tap");
        wire.text("here").await;
        assert_eq!(client.hear().await.text(), "here", "and nothing of the wrong worker");
        let again = tokio::join!(Wire::connect(proxy.public, &path, &[]), right.accept());
        pipes.push((client, wire, again));
        assert!(eligible(&proxy, "wrong").await, "{session}");
    }
    assert_eq!(proxy.metrics().await.sum("backend_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn ib_09_a_4004_is_not_the_last_word_while_the_true_owner_only_restarts() {
    let proxy = Proxy::start(&probed());
    let owner = StepWorker::start_alone().await;
    let address = owner.address;
    proxy.register("owner", address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), owner.accept());
    let wrong = StepWorker::start().await;
    proxy.register("wrong", wrong.address).await;
    drop(owner);
    proxy.event_of(0, "backend.down").await;
    wire.reset();
    wrong.accept().await.close(4004, "Session not found").await;
    let held = proxy.pipe_that("it waits", |pipe| pipe["held"] == "tried").await;
    assert_eq!(held["state"], "detached");
    let logged = proxy.logged("backend.down", 1).await.remove(0);
    assert_eq!((&logged["backend"], &logged["level"]), (&json!("owner"), &json!("WARN")));
    assert!(logged["reason"].as_str().unwrap().contains("refused"), "{logged}");
    let owner = StepWorker::at(address).await;
    let mut wire = owner.accept().await;
    wire.text("back again").await;
    assert_eq!(client.hear().await.text(), "back again");
    assert!(eligible(&proxy, "wrong").await);
}

#[tokio::test]
async fn a_reattach_asks_the_worker_that_was_just_lost_last() {
    let proxy = Proxy::start(KEYED);
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    let (_client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), a.accept());
    proxy.register("b", b.address).await;
    wire.reset();
    let mut wire = b.accept().await;
    wire.text("of b").await;
    proxy.pipe_that("it is on b", |pipe| pipe["backend"] == "b").await;
    assert_eq!(proxy.metrics().await.sum("backend_connects_total", &[("backend", "a")]), 1.0, "its first attach");
}

#[tokio::test]
async fn one_pipe_that_dies_over_and_over_ejects_no_worker() {
    let proxy = Proxy::start(KEYED);
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    proxy.register("b", b.address).await;
    let next = async || tokio::select! { wire = a.accept() => wire, wire = b.accept() => wire };
    let (_client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), next());
    for _ in 0..5 {
        wire.reset();
        wire = next().await;
    }
    wire.reset();
    proxy.pipe_that("both rest for this pipe", |pipe| pipe["interruptions"] == 6).await;
    assert!(eligible(&proxy, "a").await && eligible(&proxy, "b").await);
    assert_eq!(proxy.metrics().await.sum("backend_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn what_a_request_can_provoke_ejects_nobody() {
    let proxy = Proxy::start(KEYED);
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    proxy.register("b", b.address).await;
    for number in 0..12 {
        let knock = async || tokio::select! { knock = a.knock() => knock, knock = b.knock() => knock };
        let answered = async {
            let mut knock = knock().await;
            if number % 2 == 0 {
                knock.answer("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
                return None;
            }
            Some(knock.upgrade_with("Sec-WebSocket-Protocol: foreign\r\n").await)
        };
        let path = format!("/ws/s{number}/logs");
        let (refused, _wire) = tokio::join!(Wire::open(proxy.public, &path, &[]), answered);
        assert_eq!(refused.unwrap_err().status / 100, 5, "{number}");
    }
    assert!(eligible(&proxy, "a").await && eligible(&proxy, "b").await);
    assert_eq!(proxy.metrics().await.sum("backend_ejections_total", &[]), 0.0);
}

#[tokio::test]
async fn a_slow_101_is_not_asked_for_twice() {
    let proxy = Proxy::start("[server]\nbackend_handshake_timeout = \"300ms\"\n");
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    proxy.register("b", b.address).await;
    let slow = async || {
        let knock = tokio::select! { knock = a.knock() => knock, knock = b.knock() => knock };
        // it is at it for as long as the client waits
        (
            knock,
            a.is_left_alone_for(Duration::from_secs(1)).await && b.is_left_alone_for(Duration::from_millis(1)).await,
        )
    };
    let (refused, (_knock, alone)) = tokio::join!(Wire::open(proxy.public, "/ws", &[]), slow());
    assert_eq!(refused.unwrap_err().status, 504);
    assert!(alone, "one client, one launch");
}

#[tokio::test]
async fn a_worker_that_is_at_a_lost_pipes_request_is_not_asked_twice_while_there_is_no_other() {
    let proxy = Proxy::start("[reattach]\ngrace = \"20s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, first) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    first.reset();
    let slow = worker.knock().await;
    client.text("in the outage").await;
    assert!(worker.is_left_alone_for(Duration::from_millis(4500)).await, "one pipe, one launch");
    assert_eq!(slow.upgrade().await.hear().await.text(), "in the outage");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_leaves_another_a_part_of_the_grace() {
    let proxy = Proxy::start("[reattach]\ngrace = \"9s\"\n");
    let [frozen, other] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("frozen", frozen.address).await;
    let (mut client, first) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), frozen.accept());
    first.reset();
    let _asked = frozen.knock().await;
    proxy.register("other", other.address).await;
    assert!(other.is_left_alone_for(Duration::from_millis(1500)).await, "the first is at it");
    let mut wire = other.accept().await;
    client.text("here").await;
    assert_eq!(wire.hear().await.text(), "here");
}

#[tokio::test]
async fn a_connection_that_dies_before_its_101_lets_the_next_worker_be_asked() {
    let proxy = Proxy::start("");
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    proxy.register("b", b.address).await;
    let second = async {
        let knock = async || tokio::select! { knock = a.knock() => knock, knock = b.knock() => knock };
        drop(knock().await);
        knock().await.upgrade().await
    };
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), second);
    client.text("here").await;
    assert_eq!(wire.hear().await.text(), "here");
}

/// Answers one plain request with what it was asked for.
async fn answer(worker: &StepWorker) {
    let mut knock = worker.knock().await;
    let path = knock.head.path().to_owned();
    knock.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
}

#[tokio::test]
async fn only_a_key_restricts_and_a_key_that_nobody_serves_is_said_to_be_one() {
    let rest = "[[routes]]\nname = \"rest\"\nwait = 0\npath = \"/{*rest}\"\npool = \"default\"\n";
    let proxy = Proxy::start(&format!("{KEYED}{rest}"));
    let worker = StepWorker::start().await;
    let url = format!("ws://{}", worker.address);
    proxy.register_as("w", json!({ "url": url, "serves": ["s1"] })).await;
    for path in ["/", "/web", "/static/app.js", "/api/sessions/"] {
        let (reply, ()) = tokio::join!(ask(proxy.public, "GET", path, &[], ""), answer(&worker));
        assert_eq!((reply.status, reply.text().as_str()), (200, path));
    }
    let (_client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), worker.accept());
    for reply in [
        ask(proxy.public, "GET", "/ws/s9/logs", &[], "").await,
        Wire::open(proxy.public, "/ws/s9/logs", &[]).await.unwrap_err(),
    ] {
        let problem: Value = reply.json();
        assert_eq!((reply.status, &problem["detail"]), (404, &json!("no backend serves this key")));
    }
    set_state(&proxy, "w", "drain").await;
    let none = ask(proxy.public, "GET", "/web", &[], "").await;
    assert_eq!(none.status, 503, "there is one, but not now");
    assert!(none.text().contains("can take this now"), "{}", none.text());
    wire.reset();
    proxy.pipe_that("it waits for its worker", |pipe| pipe["held"] == "not_eligible").await;
}
