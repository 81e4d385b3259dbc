//! Lists of pipes: what is looked for is found wherever it stands, and what is shown is what they are sorted by.

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, KEYED, Proxy, StepWorker, Wire, eventually};

fn keys(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|pipe| pipe["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_pipe_that_moves_most_bytes_is_first_and_shows_how_many() {
    let proxy = Proxy::start(KEYED);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    for key in ["quiet", "loud", "louder"] {
        clients.push(Client::connect(proxy.public, &format!("/ws/{key}/echo")).await);
    }
    let page = eventually("all bytes counted", async || {
        for (client, bytes) in [(1, 10_000), (2, 100_000)] {
            clients[client].exchange(&"x".repeat(bytes)).await;
        }
        let page = proxy.get("/v1/pipes?sort=-rate").await;
        (keys(&page) == ["louder", "loud", "quiet"]).then_some(page)
    })
    .await;
    let rate = |n: usize| page["items"][n]["bytes_per_second"].as_u64().unwrap();
    assert!(rate(0) > 5 * rate(1) && rate(1) > 0 && rate(2) == 0, "{page}");
    assert_eq!((&page["total"], &page["matched"]), (&json!(3), &json!(3)));
    let found = proxy.get("/v1/pipes?q=LOUD&sort=age&limit=1").await;
    assert_eq!((keys(&found), &found["total"], &found["matched"]), (vec!["loud"], &json!(3), &json!(2)));
}

#[tokio::test]
async fn what_is_held_for_a_client_that_reads_nothing_comes_first_by_what_is_buffered() {
    let proxy = Proxy::start(KEYED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut pairs = Vec::new();
    for key in ["a", "b"] {
        let path = format!("/ws/{key}/x");
        pairs.push(tokio::join!(Wire::connect(proxy.public, &path, &[]), async {
            worker.knock().await.upgrade().await
        }));
    }
    // the worker of b answers no barrier, so that the message stays held
    pairs[1].0.text("held until it is confirmed").await;
    let page = eventually("it is held", async || {
        let page = proxy.get("/v1/pipes?sort=-buffered").await;
        (page["items"][0]["buffered_bytes"] != 0).then_some(page)
    })
    .await;
    assert_eq!(keys(&page), ["b", "a"]);
    let held = &page["items"][0];
    assert_eq!(held["buffered_bytes"], held["up"]["buffered_bytes"]);
    assert_eq!(page["items"][1]["buffered_bytes"], 0);
}
