//! Which worker a pipe may go to, how often, and how many at once.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, StepWorker, Wire, eventually};

async fn register_owner(proxy: &Proxy, id: &str, worker: &StepWorker, serves: Value) {
    proxy.register_as(id, json!({ "url": format!("ws://{}", worker.address), "serves": serves })).await;
}

#[tokio::test]
async fn ib_08_the_pipes_of_a_lost_worker_go_to_an_owner_of_their_key_and_to_nobody_else() {
    let proxy = Proxy::start(&format!("{KEYED}[reattach]\ngrace = \"5s\"\n"));
    let [a, b, c] = [StepWorker::start().await, StepWorker::start().await, StepWorker::start().await];
    register_owner(&proxy, "a", &a, json!(["s1"])).await;
    register_owner(&proxy, "b", &b, json!(["s2"])).await;
    let mut clients = Vec::new();
    let mut on_a = Vec::new();
    for _ in 0..3 {
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), a.accept());
        clients.push(client);
        on_a.push(wire);
    }
    register_owner(&proxy, "c", &c, json!(["s1"])).await;
    drop(a);
    on_a.into_iter().for_each(Wire::reset);
    let mut on_c = Vec::new();
    for _ in 0..3 {
        let mut wire = c.accept().await;
        // one that has talked has ended the outage
        wire.text("here").await;
        on_c.push(wire);
    }
    for client in &mut clients {
        assert_eq!(client.hear().await.text(), "here");
    }
    drop(c);
    let lost = Instant::now();
    on_c.into_iter().for_each(Wire::reset);
    for mut client in clients {
        assert_eq!(client.hear().await, Said::Close(1013, "no backend within grace".into()));
        assert!(lost.elapsed() >= Duration::from_secs(5), "they wait for an owner");
    }
    assert_eq!(proxy.metrics().await.sum("backend_connects_total", &[("backend", "b")]), 0.0, "B is never asked");
    assert_eq!(Wire::open(proxy.public, "/ws/s1/control", &[]).await.unwrap_err().status / 100, 5);
    let (_client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s2/control", &[]), b.accept());
    assert_eq!(wire.head.path(), "/ws/s2/control");
}

#[tokio::test]
async fn ib_08_an_alias_is_the_new_workers_own_name_for_the_key() {
    let config = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/ws/{udid}/{channel}\"\n\
                  key = \"{udid}\"\npool = \"default\"\nbackend_path = \"/ws/{alias}/{channel}\"\n";
    let proxy = Proxy::start(config);
    let [a, c] = [StepWorker::start().await, StepWorker::start().await];
    register_owner(&proxy, "a", &a, json!({ "udid-1": "session-of-a" })).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/udid-1/control?x=1", &[]), a.accept());
    assert_eq!(wire.head.path().split('?').next(), Some("/ws/session-of-a/control"));
    register_owner(&proxy, "c", &c, json!({ "udid-1": "session-of-c" })).await;
    wire.reset();
    let mut wire = c.accept().await;
    assert_eq!(wire.head.path().split('?').next(), Some("/ws/session-of-c/control"));
    client.text("tap").await;
    assert_eq!(wire.hear().await.text(), "tap");
}

#[tokio::test]
async fn ib_09_a_4004_right_after_a_reattach_tries_the_next_candidate() {
    let proxy = Proxy::start(KEYED);
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), first.accept());
    let [wrong, right] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("wrong", wrong.address).await;
    drop(first);
    wire.reset();
    let mut wire = wrong.accept().await;
    proxy.register("right", right.address).await;
    client.text("tap").await;
    wire.close(4004, "Session not found").await;
    let mut wire = right.accept().await;
    assert_eq!(wire.hear().await.text(), "tap", "what the wrong worker may have read comes again");
    wire.text("here").await;
    assert_eq!(client.hear().await.text(), "here");
}

#[tokio::test]
async fn ib_09_a_4004_is_passed_on_when_no_candidate_is_left() {
    let proxy = Proxy::start(KEYED);
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), first.accept());
    let [wrong, wrong_too] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("wrong", wrong.address).await;
    proxy.register("wrong-too", wrong_too.address).await;
    proxy.api("PUT", "/v1/backends/first/state", Some(json!({ "state": "maint", "pipes": "keep" }))).await;
    drop(first);
    wire.reset();
    for _ in 0..2 {
        let knock = tokio::select! { knock = wrong.knock() => knock, knock = wrong_too.knock() => knock };
        knock.upgrade().await.close(4004, "Session not found").await;
    }
    assert_eq!(client.hear().await, Said::Close(4004, "Session not found".into()));
}

#[tokio::test]
async fn ib_11_a_worker_that_dies_right_after_each_attach_is_put_on_back_off() {
    const GRACE: Duration = Duration::from_secs(5);
    let proxy = Proxy::start("[reattach]\ngrace = \"5s\"\ndials_per_minute = 0\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let lost = Instant::now();
    wire.reset();
    let mut attaches = Vec::new();
    let heard = loop {
        tokio::select! {
            said = client.hear() => break said,
            wire = async { worker.knock_unbounded().await.upgrade().await } => {
                attaches.push(lost.elapsed());
                wire.reset();
            }
        }
    };
    assert_eq!(heard, Said::Close(1013, "no backend within grace".into()));
    assert!(lost.elapsed() >= GRACE);
    // three at once, a second's rest, three more, two seconds' rest, three more
    assert!((3..=12).contains(&attaches.len()), "{attaches:?}");
}

#[tokio::test]
async fn ib_11_a_pipe_whose_worker_kills_its_attaches_is_held_and_everybody_can_read_why() {
    let proxy = Proxy::start(&format!("{KEYED}[reattach]\ngrace = \"20s\"\ndials_per_minute = 4\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), worker.accept());
    let (mut other, mut healthy) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/logs", &[]), worker.accept());
    for _ in 0..3 {
        wire.reset();
        wire = worker.accept().await;
    }
    wire.reset();
    let is_held = |event: &Value| event["type"] == "pipe.held" && event["reason"] == "dies_young";
    let event = proxy.event(0, "the pipe is held", is_held).await;
    assert!(event["retry_ms"].as_u64().unwrap() > 50_000, "until its first death is a minute past: {event}");
    let held = proxy.pipe_that("it says so itself", |pipe| pipe["held"] == "dies_young").await;
    assert_eq!((&held["id"], &held["state"]), (&event["pipe"], &json!("detached")));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("reattach_held", &[("reason", "dies_young")]), 1.0);
    assert!(worker.is_left_alone_for(Duration::from_millis(1500)).await, "beyond the rest that three deaths earn");
    other.text("not my trouble").await;
    assert_eq!(healthy.hear().await.text(), "not my trouble");
    let spare = StepWorker::start().await;
    proxy.register("spare", spare.address).await;
    let _wire = spare.accept().await;
    proxy.pipe_that("it has a worker again", |pipe| pipe["held"].is_null() && pipe["backend"] == "spare").await;
    assert_eq!(proxy.metrics().await.sum("reattach_held", &[]), 0.0);
}

/// Answers every handshake, echoes, and takes part in closes, until it is dropped.
async fn serve(worker: StepWorker) {
    let mut wires = tokio::task::JoinSet::new();
    loop {
        let wire = worker.knock_unbounded().await.upgrade().await;
        wires.spawn(converse(wire.mortal()));
    }
}

async fn converse(mut wire: Wire) {
    loop {
        let answer = match wire.hear_unbounded().await {
            Said::Text(text) => wire.encode(0x81, text.as_bytes()),
            Said::Close(..) => wire.encode(0x88, &1001_u16.to_be_bytes()),
            Said::Binary(_) | Said::Gone => return,
        };
        if wire.send_raw(&answer).await.is_err() {
            return;
        }
    }
}

async fn served(proxy: &Proxy, id: &str) -> tokio::task::JoinHandle<()> {
    let worker = StepWorker::start().await;
    proxy.register(id, worker.address).await;
    tokio::spawn(serve(worker))
}

async fn all_echo(clients: &mut [Wire], text: &str) {
    for client in clients.iter_mut() {
        client.text(text).await;
    }
    for client in clients {
        assert_eq!(client.hear().await.text(), text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_11_three_hundred_pipes_of_one_key_reattach_and_are_drained_at_once() {
    const PIPES: usize = 300;
    let proxy = Proxy::start(KEYED);
    let a = served(&proxy, "a").await;
    let mut clients = Vec::new();
    for _ in 0..PIPES {
        clients.push(Wire::connect(proxy.public, "/ws/s1/logs", &[]).await);
    }
    let _b = served(&proxy, "b").await;
    // young, and the worker dies under all of them
    a.abort();
    assert!(a.await.unwrap_err().is_cancelled());
    all_echo(&mut clients, "after the crash").await;
    let _c = served(&proxy, "c").await;
    let order = json!({ "state": "drain", "deadline": "10s" });
    proxy.api("PUT", "/v1/backends/b/state", Some(order)).await.expect(202);
    eventually("they have moved", async || {
        let metrics = proxy.metrics().await;
        (metrics.sum("moves_total", &[("result", "moved")]) == PIPES as f64).then_some(())
    })
    .await;
    all_echo(&mut clients, "after the drain").await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("moves_total", &[("result", "stayed")]), 0.0);
    assert_eq!(metrics.sum("pipe_closes_total", &[]), 0.0);
    assert_eq!(metrics.sum("reattach_held", &[]), 0.0);
}

#[tokio::test]
async fn ib_17_each_pipe_has_exactly_one_worker_socket_whatever_happens() {
    const PIPES: usize = 20;
    let proxy = Proxy::start("[reattach]\ndials_per_minute = 0\n");
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[]), DemoWorker::start("c", &[])];
    for (id, worker) in ["a", "b", "c"].iter().zip(&workers) {
        proxy.register(id, worker.address).await;
    }
    let mut clients = Vec::new();
    for _ in 0..PIPES {
        clients.push(Client::connect(proxy.public, "/ws/s1/echo").await);
    }
    for worker in [&workers[0], &workers[1], &workers[2], &workers[0]] {
        worker.knob("fin").await;
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.exchange(&number.to_string()).await, number.to_string());
        }
        // A message that three workers in a row had not confirmed when they went would be taken for what ended them.
        eventually("all is confirmed", async || {
            let confirmed = |pipe: &Value| pipe["up"]["confirmed"] == pipe["up"]["accepted"];
            proxy.pipes().await.iter().all(confirmed).then_some(())
        })
        .await;
    }
    eventually("one socket for each pipe", async || {
        let mut open: HashMap<String, usize> = HashMap::new();
        let mut attaches = HashSet::new();
        for worker in &workers {
            for page in worker.journal("").await["connections"].as_array().unwrap() {
                let pipe = page["pipe"].as_str().unwrap().to_owned();
                assert!(attaches.insert((pipe.clone(), page["attach"].as_u64())), "attached twice: {page}");
                *open.entry(pipe).or_default() += usize::from(page["closed"].is_null());
            }
        }
        assert_eq!(open.len(), PIPES);
        open.values().all(|&count| count == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn iw_09_one_pipe_for_each_backend_is_the_originals_rule() {
    let proxy = Proxy::start("[[pools]]\nname = \"default\"\nmax_pipes_per_backend = 1\n[[routes]]\nwait = 0\n");
    let [a, b] = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("a", a.address).await;
    proxy.register("b", b.address).await;
    let mut first = Client::connect(proxy.public, "/ws/s1/echo").await;
    let mut second = Client::connect(proxy.public, "/ws/s1/echo").await;
    let backends: HashSet<_> = proxy.pipes().await.iter().map(|pipe| pipe["backend"].to_string()).collect();
    assert_eq!(backends.len(), 2);
    assert_eq!(Client::open(proxy.public, "/ws/s1/echo").await.unwrap_err(), 503);
    first.close(1000, "").await;
    let mut third =
        eventually("the place that is free again", async || Client::open(proxy.public, "/ws/s1/echo").await.ok()).await;
    assert_eq!(third.exchange("third").await, "third");
    assert_eq!(second.exchange("second").await, "second");
}

#[tokio::test]
async fn ib_08_a_key_that_no_worker_owns_goes_to_any_where_the_route_says_so() {
    let routes = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"sessions\"\nkey = \"{session}\"\nno_owner = \"any\"\n\
                  path = [\"/api/sessions/{session}\", \"/ws/{session}/logs\"]\n";
    let proxy = Proxy::start(routes);
    let [a, b] = [StepWorker::start().await, StepWorker::start().await];
    register_owner(&proxy, "a", &a, json!(["s1"])).await;
    register_owner(&proxy, "b", &b, json!(["s2"])).await;
    // Kept open: a worker that goes before its client is asked again, and would take that for the plain request.
    let mut kept = Vec::new();
    for (path, owner) in [("/ws/s2/logs", &b), ("/ws/s1/logs", &a), ("/ws/s2/logs", &b)] {
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, path, &[]), owner.accept());
        assert_eq!(wire.head.path(), path);
        kept.push((client, wire));
    }
    let any = async {
        tokio::select! { knock = a.knock() => knock, knock = b.knock() => knock }
    };
    let asking = crate::harness::ask(proxy.public, "POST", "/api/sessions/create", &[], "");
    let (reply, ()) = tokio::join!(asking, async {
        any.await.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    assert_eq!((reply.status, reply.text()), (200, "ok".to_owned()));
}
