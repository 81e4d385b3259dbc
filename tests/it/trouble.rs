//! One pipe's trouble is one pipe's trouble: what puts a worker aside, and what never does.

use serde_json::json;

use crate::harness::{KEYED, Proxy, Said, StepWorker, Wire};

/// A route whose pipes end with their worker, so that each death is of another pipe.
fn closing() -> String {
    format!("{KEYED}on_backend_loss = \"close\"\n")
}

async fn register(proxy: &Proxy, id: &str, worker: &StepWorker, more: serde_json::Value) {
    let mut body = json!({ "url": format!("ws://{}", worker.address) });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    proxy.register_as(id, body).await;
}

/// A client of session `s1` and its worker's side, on whichever of `workers` it meets.
async fn pair(proxy: &Proxy, workers: [&StepWorker; 2]) -> (Wire, Wire) {
    let accepted = async {
        tokio::select! { wire = workers[0].accept() => wire, wire = workers[1].accept() => wire }
    };
    tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), accepted)
}

/// So many pipes, one after the other, whose worker goes without a word as soon as it has answered.
async fn die_young(proxy: &Proxy, workers: [&StepWorker; 2], pipes: usize) {
    for _ in 0..pipes {
        let (mut client, wire) = pair(proxy, workers).await;
        wire.reset();
        assert!(matches!(client.hear().await, Said::Close(1012, _)));
    }
}

async fn ejections(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("backend_ejections_total", &[])
}

#[tokio::test]
async fn a_worker_on_which_several_pipes_die_young_rests_while_there_is_another() {
    let proxy = Proxy::start(&closing());
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    register(&proxy, "a", &a, json!({})).await;
    register(&proxy, "b", &b, json!({})).await;
    die_young(&proxy, [&a, &b], 6).await;
    proxy.event_of(0, "backend.ejected").await;
}

#[tokio::test]
async fn the_last_worker_that_takes_pipes_never_rests_whatever_keeps_the_others_out() {
    for out in ["drain", "maint", "down"] {
        let proxy = Proxy::start(&closing());
        let [a, b] = [StepWorker::start().await, StepWorker::start_alone().await];
        register(&proxy, "a", &a, json!({})).await;
        let address = b.address;
        if out == "down" {
            drop(b);
            proxy.register("b", address).await;
            proxy.event_of(0, "backend.down").await;
        } else {
            register(&proxy, "b", &b, json!({ "state": out })).await;
        }
        die_young(&proxy, [&a, &a], 8).await;
        assert_eq!(ejections(&proxy).await, 0.0, "{out}");
        assert_eq!(proxy.get("/v1/backends/a").await["eligible"], true, "{out}");
        let (mut client, mut wire) = pair(&proxy, [&a, &a]).await;
        client.text("served").await;
        assert_eq!(wire.hear().await.text(), "served", "{out}");
    }
}

#[tokio::test]
async fn the_last_worker_of_a_key_never_rests_though_others_take_other_keys() {
    let proxy = Proxy::start(&closing());
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    register(&proxy, "a", &a, json!({ "serves": ["s1"] })).await;
    register(&proxy, "b", &b, json!({ "serves": ["s2"] })).await;
    die_young(&proxy, [&a, &a], 8).await;
    assert_eq!(ejections(&proxy).await, 0.0);
    assert_eq!(proxy.get("/v1/backends/a").await["eligible"], true);
}

#[tokio::test]
async fn a_clean_close_is_no_death_however_young_and_whatever_its_code() {
    let proxy = Proxy::start(&closing());
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    register(&proxy, "a", &a, json!({})).await;
    register(&proxy, "b", &b, json!({})).await;
    for code in [1011, 1012, 1001, 1000, 4000].into_iter().cycle().take(15) {
        let (mut client, mut wire) = pair(&proxy, [&a, &b]).await;
        client.text("not the JSON that it expects").await;
        assert_eq!(wire.hear().await.text(), "not the JSON that it expects");
        wire.close(code, "").await;
        assert!(matches!(client.hear().await, Said::Close(..)));
    }
    assert_eq!(ejections(&proxy).await, 0.0);
}

#[tokio::test]
async fn one_crash_that_takes_many_young_pipes_along_puts_no_worker_aside() {
    let proxy = Proxy::start(&closing());
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    register(&proxy, "a", &a, json!({})).await;
    let mut pipes = Vec::new();
    for _ in 0..10 {
        pipes.push(pair(&proxy, [&a, &a]).await);
    }
    register(&proxy, "b", &b, json!({})).await;
    let (clients, wires): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    wires.into_iter().for_each(Wire::reset);
    for mut client in clients {
        assert!(matches!(client.hear().await, Said::Close(1012, _)));
    }
    assert_eq!(ejections(&proxy).await, 0.0);
    assert_eq!(proxy.get("/v1/backends/a").await["eligible"], true);
}
