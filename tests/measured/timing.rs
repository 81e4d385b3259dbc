//! How long things take, and what waiting costs. The figures are printed; the bounds are those of the contract.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Proxy, Said, StepWorker, Wire, ask, eventually};
use crate::measure::{alone, calm, percent_of_a_core, percentiles};

#[tokio::test]
async fn iw_12_with_a_spare_backend_a_reattach_takes_less_than_20_ms_p50_and_100_ms_p99() {
    const REATTACHES: usize = 60;
    let _alone = alone();
    let proxy = Proxy::start("");
    let mut worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Client::connect(proxy.public, "/ws"), worker.accept());
    let mut times = Vec::new();
    for turn in 1..=REATTACHES {
        let spare = StepWorker::start().await;
        proxy.register(&format!("w{turn}"), spare.address).await;
        drop(std::mem::replace(&mut worker, spare));
        let lost = Instant::now();
        wire.reset();
        client.text(turn.to_string()).await;
        wire = worker.accept().await;
        assert_eq!(wire.hear().await.text(), turn.to_string());
        times.push(lost.elapsed());
        wire.pong_once().await;
        proxy.pipe_that("confirmed", |pipe| pipe["up"]["confirmed"] == turn).await;
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("IW-12: from the loss of a worker to the next message at another: p50 {half:?}, p99 {last:?}");
    assert!(half < Duration::from_millis(20), "{times:?}");
    assert!(last < Duration::from_millis(100), "{times:?}");
    assert_eq!(proxy.metrics().await.sum("reattach_duration_seconds_count", &[]), REATTACHES as f64);
}

#[tokio::test]
async fn iw_12_a_backend_registered_while_pipes_wait_is_used_within_50_ms() {
    const ROUNDS: usize = 15;
    let _alone = alone();
    let proxy = Proxy::start("");
    let mut worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Client::connect(proxy.public, "/ws"), worker.accept());
    let mut times = Vec::new();
    let mut seen = 0;
    for turn in 1..=ROUNDS {
        drop(worker);
        wire.reset();
        seen = proxy.event_of(seen, "pipe.interrupted").await["seq"].as_u64().unwrap();
        eventually("no worker is left", async || (proxy.get("/v1/pools/default").await["eligible"] == 0).then_some(()))
            .await;
        worker = StepWorker::start().await;
        let id = format!("w{turn}");
        let registered = Instant::now();
        let (knock, ()) = tokio::join!(
            async {
                let knock = worker.knock().await;
                times.push(registered.elapsed());
                knock
            },
            proxy.register(&id, worker.address)
        );
        wire = knock.upgrade().await;
        client.text(turn.to_string()).await;
        assert_eq!(wire.hear().await.text(), turn.to_string());
        wire.pong_once().await;
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("IW-12: from a registration to its first handshake: p50 {half:?}, p99 {last:?}");
    assert!(half < Duration::from_millis(50), "{times:?}");
}

#[tokio::test]
async fn the_first_message_of_a_worker_with_nagles_algorithm_waits_for_no_late_acknowledgement() {
    /// The kernel acknowledges after 40 ms if it is not told otherwise.
    const LATE: Duration = Duration::from_millis(30);
    const ROUNDS: usize = 5;
    let _alone = alone();
    let proxy = Proxy::start("");
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (worker, spare) = (StepWorker::start().await, StepWorker::start().await);
        proxy.register(&format!("w{round}"), worker.address).await;
        let (mut client, (wire, said)) = tokio::join!(Client::connect(proxy.public, "/ws"), greet(&worker));
        assert_eq!(client.hear().await, Said::Text("hello".to_owned()));
        first.push(said.elapsed());
        proxy.register(&format!("s{round}"), spare.address).await;
        drop(worker);
        wire.reset();
        let (mut wire, said) = greet(&spare).await;
        assert_eq!(client.hear().await, Said::Text("hello".to_owned()));
        again.push(said.elapsed());
        client.close(1000, "").await;
        wire.hear().await;
        drop(spare);
        for id in [format!("w{round}"), format!("s{round}")] {
            proxy.api("DELETE", &format!("/v1/pools/default/backends/{id}"), None).await;
        }
    }
    println!("from a worker's first words behind its 101 to the client: {first:?}, at a reattach {again:?}");
    for times in [first, again] {
        assert!(times.iter().min().is_some_and(|best| *best < LATE), "{times:?}");
    }
}

/// Answers 101 and says something in a packet of its own; when.
async fn greet(worker: &StepWorker) -> (Wire, Instant) {
    let mut wire = worker.knock_with_nagle().await.upgrade().await;
    let said = Instant::now();
    wire.text("hello").await;
    (wire, said)
}

#[tokio::test]
async fn lp_06_a_long_poll_of_events_wakes_within_10_ms() {
    const ROUNDS: u32 = 30;
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut after = proxy.event_of(0, "backend.up").await["seq"].as_u64().unwrap();
    let mut times = Vec::new();
    for weight in 2..2 + ROUNDS {
        let body = json!({ "url": format!("ws://{}", worker.address), "weight": weight });
        let path = format!("/v1/events?after={after}&wait=25s");
        let (woken, told) = tokio::join!(
            async {
                let page = proxy.get(&path).await;
                (page, Instant::now())
            },
            async {
                proxy.register_as("w", body).await;
                Instant::now()
            }
        );
        assert_eq!(woken.0["items"][0]["type"], "backend.replaced", "{}", woken.0);
        after = woken.0["last"].as_u64().unwrap();
        times.push(woken.1.saturating_duration_since(told));
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("LP-06: a poll is answered {half:?} (p50), {last:?} (p99) after the write it waits for is (0: before it)");
    assert!(half < Duration::from_millis(10), "{times:?}");
}

#[tokio::test]
async fn lp_06_a_reader_of_events_misses_nothing() {
    const WRITES: usize = 300;
    let _alone = alone();
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    let write = async {
        for n in 0..WRITES {
            let body = json!({ "url": format!("ws://{}", worker.address), "weight": n % 900 + 1 });
            proxy.register_as("w", body).await;
        }
    };
    let read = async {
        let (mut after, mut weights) = (0, 0);
        while weights < WRITES {
            let page = proxy.get(&format!("/v1/events?after={after}&wait=25s&limit=7")).await;
            for event in page["items"].as_array().unwrap() {
                assert_eq!(event["seq"], after + 1, "{event}");
                after += 1;
                let kind = event["type"].as_str().unwrap();
                weights += usize::from(matches!(kind, "backend.registered" | "backend.replaced"));
            }
        }
    };
    tokio::join!(write, read);
    let gone = proxy.api("GET", "/v1/events?after=999999", None).await;
    assert_eq!(gone.status, 410, "a number of another life is not answered with silence");
}

/// What pipes and polls that only wait may use of a core, in percent, in a debug build.
const ACCEPTED_PERCENT: f64 = 3.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lp_07_five_hundred_pipes_that_wait_for_a_backend_use_no_cpu_to_speak_of() {
    const PIPES: usize = 500;
    let _alone = alone();
    let proxy = Proxy::start("[reattach]\ngrace = \"5m\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    let mut wires = Vec::new();
    for _ in 0..PIPES {
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        clients.push(client);
        wires.push(wire);
    }
    drop(worker);
    wires.into_iter().for_each(Wire::reset);
    eventually("all wait", async || {
        let detached = proxy.metrics().await.sum("pipes", &[("state", "detached")]);
        (detached == PIPES as f64).then_some(())
    })
    .await;
    // until then each pipe looks at the worker again, ever less often
    eventually("the worker is out", async || (proxy.get("/v1/backends/w").await["health"] == "down").then_some(()))
        .await;
    calm(&proxy).await;
    let used = percent_of_a_core(&proxy, ACCEPTED_PERCENT).await;
    println!("LP-07: {PIPES} waiting pipes use {used:.2} % of a core");
    assert!(used < ACCEPTED_PERCENT, "{used} % of a core");
    let still: Vec<Value> = proxy.pipes().await;
    assert_eq!(still.len(), PIPES);
}

#[tokio::test]
async fn lp_08_parked_polls_use_no_cpu_to_speak_of() {
    const POLLS: usize = 200;
    let _alone = alone();
    let proxy = Proxy::start(
        "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npool = \"default\"\npath = \"/{*rest}\"\nhttp_fallback = true\n",
    );
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let hello = [("content-type", "application/vnd.holdline+json")];
    let mut wires = Vec::new();
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..POLLS {
        let opened = ask(proxy.public, "POST", "/ws", &hello, r#"{"t":"hello","v":1}"#);
        let (welcome, wire) = tokio::join!(opened, worker.accept());
        wires.push(wire);
        let (welcome, public) = (welcome.expect(200).json(), proxy.public);
        polls.spawn(async move {
            let path = format!("/ws?pipe={}&after=0&wait=30s", welcome["id"].as_str().unwrap());
            let token = format!("Holdline {}", welcome["token"].as_str().unwrap());
            ask(public, "GET", &path, &[("authorization", &token)], "").await
        });
    }
    eventually("all are parked", async || {
        (proxy.metrics().await.sum("polls_parked", &[]) == POLLS as f64).then_some(())
    })
    .await;
    calm(&proxy).await;
    let used = percent_of_a_core(&proxy, ACCEPTED_PERCENT).await;
    println!("LP-08: {POLLS} parked polls use {used:.2} % of a core");
    assert!(used < ACCEPTED_PERCENT, "{used} % of a core");
    assert_eq!(polls.len(), POLLS);
}
