//! `confirm = "commit"`: a message is confirmed once the worker's application says so, and by nothing before.

use serde_json::{Value, json};

use crate::harness::{Proxy, Said, StepWorker, Wire};

const ROUTE: &str = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/{*rest}\"\npool = \"default\"\n\
                     confirm = \"commit\"\n";

/// Messages that a worker's library has read when its worker is killed.
const QUEUED: usize = 7;

async fn started() -> (Proxy, StepWorker) {
    let proxy = Proxy::start(ROUTE);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

fn text(text: impl Into<String>) -> Said {
    Said::Text(text.into())
}

/// The worker's application has committed everything up to `seq`.
async fn commit(wire: &mut Wire, seq: usize) {
    wire.frame_out(true, 0x0A, format!("A{seq}").as_bytes()).await;
}

fn confirmed(pipe: &Value, seq: usize) -> bool {
    pipe["up"]["confirmed"] == seq
}

#[tokio::test]
async fn only_the_application_s_own_word_confirms_by_a_pong_or_over_http_and_is_exported() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    for number in 1..=3 {
        client.text(&number.to_string()).await;
        assert_eq!(wire.hear().await, text(number.to_string()));
    }
    // Its library has read all three, and answers the ping behind them before the application says anything.
    wire.pong_once().await;
    commit(&mut wire, 1).await;
    let pipe = proxy.pipe_that("one is committed", |pipe| confirmed(pipe, 1)).await;
    assert_eq!((&pipe["up"]["sent"], &pipe["up"]["level"]), (&3.into(), &"app".into()), "the pong confirmed nothing");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("holdline_pipe_levels", &[("lane", "up"), ("level", "app")]), 1.0);
    let path = format!("/v1/pipes/{}/commit", pipe["id"].as_str().unwrap());
    let committed = proxy.api("POST", &path, Some(json!({ "attachment": 1, "seq": 2 }))).await.expect(200).json();
    assert_eq!(committed, json!({ "confirmed": 2 }));
    wire.reset();
    let mut again = worker.accept().await;
    assert_eq!((again.hear().await, again.head.header("holdline-confirmed")), (text("3"), "2; level=app"));
    drop(client);
}

#[tokio::test]
async fn a_queueing_worker_that_commits_loses_nothing_and_does_nothing_twice_without_a_tail() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    // What each life of the worker has done, and nothing of what its library had only read.
    let mut done: Vec<String> = Vec::new();
    let (mut said, mut heard) = (0, 0);
    for life in 1..=5 {
        while said < done.len() + QUEUED {
            said += 1;
            client.text(&format!("order {said}")).await;
        }
        let mut queue = Vec::new();
        while heard < said {
            queue.push(wire.hear().await.text());
            heard += 1;
        }
        if life == 1 {
            wire.pong_once().await;
        }
        done.extend(queue.into_iter().take(life % 3 + 1));
        commit(&mut wire, done.len()).await;
        proxy.pipe_that("it is committed", |pipe| confirmed(pipe, done.len())).await;
        wire.reset();
        wire = worker.accept().await;
        assert_eq!(wire.head.header("holdline-first-seq"), (done.len() + 1).to_string());
        heard = done.len();
    }
    for _ in heard..said {
        done.push(wire.hear().await.text());
    }
    let all: Vec<String> = (1..=said).map(|number| format!("order {number}")).collect();
    assert_eq!(done, all, "each once, in order");
    assert_eq!(proxy.metrics().await.sum("lost_messages_total", &[]), 0.0);
    drop(client);
}
