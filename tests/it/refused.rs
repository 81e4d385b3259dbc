//! What workers refuse: an answer at a reattach, and no more than that at a planned move.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::wire::CLOSE;
use crate::harness::{KEYED, Proxy, Said, StepWorker, Wire, eventually};

const PATH: &str = "/ws/s1/control";

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n")
}

/// A client on worker `a`, which then loses it, and a worker `b` beside.
async fn lost(config: &str) -> (Proxy, Wire, StepWorker, StepWorker) {
    let proxy = Proxy::start(config);
    let [a, b] = [StepWorker::start_alone().await, StepWorker::start_alone().await];
    proxy.register("a", a.address).await;
    let (client, wire) = tokio::join!(Wire::connect(proxy.public, PATH, &[]), a.accept());
    proxy.register("b", b.address).await;
    wire.reset();
    (proxy, client, a, b)
}

#[tokio::test]
async fn a_worker_that_was_killed_has_no_say_in_what_the_others_refuse() {
    let (_proxy, mut client, a, b) = lost(KEYED).await;
    drop(a);
    b.knock().await.answer(&answer(404)).await;
    assert_eq!(client.hear().await, Said::Close(1012, "refused by every worker: 404".into()));
}

#[tokio::test]
async fn an_answer_that_may_be_another_next_time_is_no_refusal() {
    for status in [408, 421, 425, 429, 500, 503, 302] {
        let (_proxy, mut client, a, b) = lost(KEYED).await;
        b.knock().await.answer(&answer(404)).await;
        a.knock().await.answer(&answer(status)).await;
        let mut wire = tokio::select! {
            wire = a.accept() => wire,
            wire = b.accept() => wire,
        };
        wire.text("here again").await;
        assert_eq!(client.hear().await.text(), "here again", "{status}");
    }
}

#[tokio::test]
async fn a_route_may_wait_though_every_worker_refuses() {
    let (_proxy, mut client, a, b) = lost(&format!("{KEYED}refusal = \"wait\"\n")).await;
    b.knock().await.answer(&answer(404)).await;
    a.knock().await.answer(&answer(404)).await;
    let mut wire = tokio::select! {
        wire = a.accept() => wire,
        wire = b.accept() => wire,
    };
    wire.text("the session is known now").await;
    assert_eq!(client.hear().await.text(), "the session is known now");
}

/// A pipe whose worker `a` is being drained, and the only other worker.
async fn drained(proxy: &Proxy) -> (Wire, Wire, StepWorker) {
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("a", a.address).await;
    let (client, old) = tokio::join!(Wire::connect(proxy.public, PATH, &[]), a.accept());
    proxy.register("b", b.address).await;
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({ "state": "drain" }))).await;
    (client, old, b)
}

#[tokio::test]
async fn a_new_worker_that_answers_and_closes_leaves_a_drained_pipe_where_it_was() {
    // The next try is a long way off.
    let config = format!("{KEYED}[reattach]\nbackoff_min = \"30s\"\nbackoff_max = \"30s\"\n");
    for closes in [true, false] {
        let proxy = Proxy::start(&config);
        let (mut client, mut old, b) = drained(&proxy).await;
        let mut new = b.accept().await;
        if closes {
            new.frame_out(true, CLOSE, b"").await;
        }
        new.fin().await;
        eventually("the move is given up", async || {
            let stayed = proxy.metrics().await.sum("moves_total", &[("result", "stayed")]);
            (stayed == 1.0).then_some(())
        })
        .await;
        client.text("still with the old one").await;
        assert_eq!(old.hear().await.text(), "still with the old one", "and it was told nothing");
        old.text("so it is").await;
        assert_eq!(client.hear().await.text(), "so it is");
        assert_eq!(proxy.pipes().await[0]["backend"], "a");
    }
}

#[tokio::test]
async fn the_old_worker_of_a_move_is_kept_until_the_new_one_has_proven_itself() {
    let proxy = Proxy::start(&format!("{KEYED}[reattach]\nprove = \"700ms\"\n"));
    let (mut client, mut old, b) = drained(&proxy).await;
    let _new = b.accept().await;
    let began = Instant::now();
    old.text("meanwhile").await;
    assert_eq!(client.hear().await.text(), "meanwhile");
    assert!(matches!(old.hear().await, Said::Close(1001, _)));
    assert!(began.elapsed() >= Duration::from_millis(690), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_new_worker_that_says_something_has_proven_itself_and_its_word_comes_behind_the_old_ones() {
    let proxy = Proxy::start(&format!("{KEYED}[reattach]\nprove = \"1h\"\nmove_timeout = \"1h\"\n"));
    let (mut client, mut old, b) = drained(&proxy).await;
    let mut new = b.accept().await;
    let long = "a first word that is longer than what is read to see that there is one. ".repeat(9);
    new.text(&long).await;
    assert!(matches!(old.hear().await, Said::Close(1001, _)));
    old.text("last").await;
    old.close(1001, "").await;
    assert_eq!(client.hear().await.text(), "last");
    assert_eq!(client.hear().await.text(), long);
    client.text("here").await;
    assert_eq!(new.hear().await.text(), "here");
}
