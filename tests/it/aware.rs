//! Clients that number their messages (`holdline.v1`): the greeting, what is refused and how, and how they come back.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::aware::{AwareClient, OFFER};
use crate::harness::{Proxy, Said, StepWorker, Wire, eventually};

const CHAT: &str = "Sec-WebSocket-Protocol: chat\r\n";

/// Messages of a run of traffic, each way.
const MESSAGES: usize = 200;

async fn started(config: &str) -> (Proxy, StepWorker) {
    let proxy = Proxy::start(&format!("{config}\n[[pools]]\nname = \"default\"\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

/// The worker's end of the next attach, which speaks `chat`.
async fn attach(worker: &StepWorker) -> Wire {
    worker.knock().await.upgrade_with(CHAT).await
}

/// A client that has been welcomed, and the worker's end of its pipe.
async fn pair(proxy: &Proxy, worker: &StepWorker) -> (AwareClient, Wire) {
    tokio::join!(AwareClient::open(proxy.public, "/ws"), attach(worker))
}

/// A client that has been answered and has not said hello, and the worker's end of its pipe.
async fn unheard(proxy: &Proxy, worker: &StepWorker) -> (Wire, Wire) {
    let offer = [("sec-websocket-protocol", OFFER)];
    tokio::join!(Wire::connect(proxy.public, "/ws", &offer), attach(worker))
}

async fn pipe_in(proxy: &Proxy, state: &str) -> Value {
    eventually(state, async || {
        let pipes = proxy.get("/v1/pipes").await["items"].as_array().unwrap().clone();
        pipes.into_iter().find(|pipe| pipe["state"] == state)
    })
    .await
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

fn closed(code: u16, reason: &str) -> Said {
    Said::Close(code, reason.into())
}

#[tokio::test]
async fn a_worker_sees_an_ordinary_client_and_the_client_sees_numbers_and_acknowledgements() {
    let (proxy, worker) = started("").await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    assert_eq!(wire.head.header("sec-websocket-protocol"), "chat", "nothing of ours is offered to a backend");
    client.say("hello").await;
    assert_eq!(wire.hear().await, text("hello"));
    wire.text("welcome").await;
    client.until("a message", |it| it.got == ["welcome"]).await;
    // The worker answers the ping behind the message while it is waited for.
    let (_, ()) = tokio::join!(wire.pong_once(), client.until("its confirmation", |it| it.acked == (1, 1)));
    client.ack().await;
    let pipe = eventually("the level", async || {
        let pipe = pipe_in(&proxy, "attached").await;
        (pipe["down"]["level"] == "app" && pipe["down"]["confirmed"] == 1).then_some(pipe)
    })
    .await;
    assert_eq!((&pipe["aware"], &pipe["id"]), (&true.into(), &client.id.clone().into()));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("aware_pipes", &[("route", "default"), ("transport", "websocket")]), 1.0);
    client.word(&json!({"t": "fin", "code": 4000, "reason": "bye", "n": 1})).await;
    assert_eq!(wire.hear().await, closed(4000, "bye"));
}

#[tokio::test]
async fn what_was_not_offered_is_not_picked() {
    let (proxy, worker) = started("").await;
    // A worker's end that went would be looked for again.
    let mut ends = Vec::new();
    for (offer, picks, picked) in [
        ("holdline.v1", "", "holdline.v1"),
        ("holdline.v1, chat", CHAT, "chat"),
        ("holdline.v1+other, chat", CHAT, "chat"),
        ("holdline.v2+chat, chat", CHAT, "chat"),
        ("holdline.v1+chat", CHAT, "holdline.v1+chat"),
        ("chat", CHAT, "chat"),
    ] {
        let headers = [("sec-websocket-protocol", offer)];
        let answer = async { worker.knock().await.upgrade_with(picks).await };
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &headers), answer);
        assert_eq!(client.head.header("sec-websocket-protocol"), picked, "{offer}");
        assert!(!wire.head.header("sec-websocket-protocol").contains("holdline"), "{offer}");
        ends.push((client, wire));
    }
}

#[tokio::test]
async fn each_mistake_has_its_exact_answer_and_nothing_of_it_reaches_a_worker() {
    let (proxy, worker) = started("").await;
    let hello = r#"!{"t":"hello","v":1}"#;
    for (greets, said, reason) in [
        (false, "1;x", "hello expected"),
        (false, "x", "text without a number"),
        (false, "!{", "malformed control message"),
        (false, r#"!{"t":"hello","v":1,"resume":{}}"#, "malformed control message"),
        (true, "2;x", "number skipped without a gap"),
        (true, "01;x", "number with a leading zero"),
        (true, "9007199254740992;x", "number over 2^53-1"),
        (true, hello, "hello twice"),
        (true, r#"!{"t":"welcome"}"#, "unknown control message"),
        (true, r#"!{"t":"ack","n":"1"}"#, "malformed control message"),
        (true, r#"!{"t":"fin","code":1000,"reason":"","n":3}"#, "fin with another number"),
    ] {
        let (mut client, mut wire) = unheard(&proxy, &worker).await;
        if greets {
            client.text(hello).await;
            assert!(client.hear().await.text().starts_with(r#"!{"t":"welcome""#));
        }
        client.text(said).await;
        assert_eq!(client.hear().await, closed(4905, reason), "{said}");
        assert_eq!(wire.hear().await, closed(1001, "client at fault"), "{said}");
    }
    let (mut client, mut wire) = unheard(&proxy, &worker).await;
    client.text(hello).await;
    client.hear().await;
    client.frame_out(true, crate::harness::wire::BINARY, b"\x00\x80\x00x").await;
    assert_eq!(client.hear().await, closed(4905, "number not in its shortest form"));
    assert_eq!(wire.hear().await, closed(1001, "client at fault"));
}

#[tokio::test]
async fn a_client_that_says_no_hello_is_closed_after_its_time_on_a_new_pipe_and_on_an_old_one() {
    let (proxy, worker) = started("[aware]\nhello_timeout = \"100ms\"").await;
    let (mut silent, _wire) = unheard(&proxy, &worker).await;
    assert_eq!(silent.hear().await, closed(4905, "no hello in time"));
    let offer = [("sec-websocket-protocol", "holdline.v1, holdline.pipe.AAAAAAAAAAAAAAAAAAAAAA")];
    let mut silent = Wire::connect(proxy.public, "/ws", &offer).await;
    assert_eq!(silent.hear().await, closed(4905, "no hello in time"));
}

#[tokio::test]
async fn st_10_a_client_that_was_cut_off_goes_on_and_nothing_is_lost_or_doubled() {
    let (proxy, worker) = started("[server]\nthreads = 3").await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    let mut heard = Vec::new();
    for number in 0..MESSAGES {
        client.say(&format!("up {number}")).await;
        wire.text(&format!("down {number}")).await;
        if number % 20 == 19 {
            // What is on its way both ways at this moment is the point.
            client.cut();
            pipe_in(&proxy, "client_detached").await;
            client.come_back().await;
            client.next_word("live").await;
            client.ack().await;
        }
        heard.push(wire.hear().await.text());
    }
    let wanted = |way: &str| (0..MESSAGES).map(|number| format!("{way} {number}")).collect::<Vec<_>>();
    assert_eq!(heard, wanted("up"));
    client.until("all messages", |it| it.got.len() == MESSAGES).await;
    assert_eq!(client.got, wanted("down"));
}

#[tokio::test]
async fn ib_03_a_worker_that_is_killed_amid_traffic_costs_an_aware_client_nothing() {
    let (proxy, worker) = started("").await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    let mut heard: Vec<String> = Vec::new();
    for number in 0..MESSAGES {
        client.say(&format!("up {number}")).await;
        if number % 40 == 39 {
            wire.reset();
            wire = attach(&worker).await;
            let attached = client.next_word("backend").await;
            assert_eq!(attached["state"], "lost");
            assert_eq!(client.next_word("backend").await["state"], "attached");
        }
        while heard.last() != client.sent.last() {
            let message = wire.hear().await.text();
            // At least once: what was sent and not confirmed when a worker was lost comes again.
            if !heard.contains(&message) {
                heard.push(message);
            }
        }
        wire.text(&format!("down {number}")).await;
    }
    assert_eq!(heard, client.sent);
    client.until("all messages", |it| it.got.len() == MESSAGES).await;
    assert_eq!(client.got, (0..MESSAGES).map(|number| format!("down {number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_newest_connection_wins_and_the_old_one_is_told_4901() {
    let (proxy, worker) = started("").await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    let newer = client.knock(&client.hello()).await;
    let mut old = std::mem::replace(&mut client.wire, newer);
    client.next_word("resumed").await;
    assert_eq!(old.hear().await, closed(4901, "superseded"));
    client.say("still here").await;
    assert_eq!(wire.hear().await, text("still here"));
}

#[tokio::test]
async fn st_10_whatever_is_wrong_with_a_resume_the_answer_is_the_same() {
    let (proxy, worker) = started("[limits]\nresume_failures = \"100/min\"").await;
    let (client, _wire) = pair(&proxy, &worker).await;
    let (other, _other_wire) = pair(&proxy, &worker).await;
    let mut wrong = Vec::new();
    for change in [
        |hello: &mut Value| hello["resume"]["token"] = "hl1.x.y.z".into(),
        |hello: &mut Value| hello["resume"]["token"] = "".into(),
        |hello: &mut Value| hello["resume"]["id"] = "AAAAAAAAAAAAAAAAAAAAAA".into(),
    ] {
        let mut hello = client.hello();
        change(&mut hello);
        wrong.push(hello);
    }
    let mut hello = client.hello();
    hello["resume"]["token"] = other.token.clone().into();
    wrong.push(hello);
    for hello in wrong {
        let mut wire = client.knock(&hello).await;
        assert_eq!(wire.hear().await, text(r#"!{"t":"reject","why":"unknown"}"#), "{hello}");
        assert_eq!(wire.hear().await, closed(4900, "unknown"));
    }
    let mut ahead = client.hello();
    ahead["resume"]["rx"] = 7.into();
    let mut wire = client.knock(&ahead).await;
    assert_eq!(wire.hear().await, text(r#"!{"t":"reject","why":"epoch"}"#));
    assert_eq!(wire.hear().await, closed(4900, "epoch"));
    let rejected = proxy.metrics().await.sum("client_resumes_total", &[("result", "rejected")]);
    assert_eq!(rejected, 5.0);
}

#[tokio::test]
async fn st_10_an_address_whose_resumes_fail_too_often_is_told_429_before_it_is_heard() {
    let (proxy, worker) = started("[limits]\nresume_failures = \"2/min\"").await;
    let (client, _wire) = pair(&proxy, &worker).await;
    let mut hello = client.hello();
    hello["resume"]["token"] = "hl1.x.y.z".into();
    for _ in 0..2 {
        assert_eq!(client.knock(&hello).await.hear().await, text(r#"!{"t":"reject","why":"unknown"}"#));
    }
    let offer = format!("holdline.v1+chat, holdline.pipe.{}", client.id);
    let refused = eventually("a refusal", async || {
        Wire::open(proxy.public, "/ws", &[("sec-websocket-protocol", &offer)]).await.err()
    })
    .await;
    assert_eq!(refused.status, 429);
}

#[tokio::test]
async fn after_three_takeovers_in_ten_seconds_the_newcomer_is_refused() {
    let (proxy, worker) = started("").await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    for _ in 0..3 {
        let newer = client.knock(&client.hello()).await;
        let _old = std::mem::replace(&mut client.wire, newer);
        let resumed = client.next_word("resumed").await;
        client.token = resumed["token"].as_str().unwrap().to_owned();
    }
    let mut newcomer = client.knock(&client.hello()).await;
    assert_eq!(newcomer.hear().await, text(r#"!{"t":"reject","why":"taken"}"#));
    client.say("untouched").await;
    assert_eq!(wire.hear().await, text("untouched"));
}

#[tokio::test]
async fn what_made_way_for_newer_messages_is_a_gap() {
    let config = "[[routes]]\nname = \"video\"\npath = \"/ws\"\npool = \"default\"\ndown = \"latest:1\"\n[aware]\nwindow = \"1KiB\"";
    let (proxy, worker) = started(config).await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    let frame = "f".repeat(2000);
    wire.text(&frame).await;
    client.until("the first", |it| it.rx == 1).await;
    // Nothing goes out before that is acknowledged.
    for _ in 0..4 {
        wire.text(&frame).await;
    }
    eventually("three dropped", async || {
        (proxy.metrics().await.sum("dropped_messages_total", &[]) == 3.0).then_some(())
    })
    .await;
    client.ack().await;
    let gap = client.next_word("gap").await;
    assert_eq!(gap, json!({"t": "gap", "lane": "down", "from": 2, "count": 3, "bytes": null, "why": "policy"}));
    client.rx = 4;
    client.until("the newest", |it| it.rx == 5).await;
    assert_eq!(proxy.metrics().await.sum("gaps_total", &[("lane", "down"), ("why", "policy")]), 1.0);
}

#[tokio::test]
async fn a_server_that_goes_says_so_before_it_closes() {
    let (proxy, worker) = started("").await;
    let (mut client, _wire) = pair(&proxy, &worker).await;
    proxy.signal(Signal::TERM);
    let goaway = client.next_word("goaway").await;
    assert_eq!(goaway["why"], "shutdown");
    assert!(matches!(client.end().await, Said::Close(1001 | 1012, _)));
    assert!(client.words.iter().all(|word| word["t"] != "fin"), "it is no end: {:?}", client.words);
}
