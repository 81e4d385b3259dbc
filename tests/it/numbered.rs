//! Workers that speak `holdline.v1` (`pools.resume = "aware"`): what they are offered, and what their state is worth.

use serde_json::{Value, json};

use crate::harness::aware::AwareClient;
use crate::harness::{Proxy, Said, StepWorker, Wire};

const POOL: &str = "[[pools]]\nname = \"default\"\nresume = \"aware\"\n";
const NUMBERED: &str = "Sec-WebSocket-Protocol: holdline.v1+chat\r\n";

async fn started() -> (Proxy, StepWorker) {
    let proxy = Proxy::start(POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

fn text(text: impl Into<String>) -> Said {
    Said::Text(text.into())
}

/// The next control word to a worker.
async fn word(wire: &mut Wire) -> Value {
    let said = wire.hear().await.text();
    serde_json::from_str(said.strip_prefix('!').unwrap_or_else(|| panic!("not a word: {said}"))).unwrap()
}

async fn say(wire: &mut Wire, word: Value) {
    wire.text(&format!("!{word}")).await;
}

/// A worker's end of the next attach, which speaks the protocol, and the hello that it heard.
async fn attach(worker: &StepWorker) -> (Wire, Value) {
    let mut wire = worker.knock().await.upgrade_with(NUMBERED).await;
    assert_eq!(wire.head.header("sec-websocket-protocol"), "holdline.v1+chat, chat");
    let hello = word(&mut wire).await;
    assert_eq!((&hello["t"], &hello["v"]), (&json!("hello"), &json!(1)));
    (wire, hello)
}

async fn pair(proxy: &Proxy, worker: &StepWorker) -> (Wire, Wire) {
    let offer = [("sec-websocket-protocol", "chat")];
    let (client, (mut wire, hello)) = tokio::join!(Wire::connect(proxy.public, "/ws", &offer), attach(worker));
    assert!(hello.get("resume").is_none(), "a new pipe: {hello}");
    assert_eq!(hello["id"], wire.head.header("holdline-pipe"));
    say(&mut wire, json!({"t": "welcome"})).await;
    (client, wire)
}

#[tokio::test]
async fn a_worker_that_picks_the_protocol_hears_numbers_and_its_client_none() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    assert_eq!(
        client.head.header("sec-websocket-protocol"),
        "chat",
        "what is between us and the worker is not the client's"
    );
    client.text("tap").await;
    assert_eq!(wire.hear().await, text("1;tap"));
    wire.text("1;pong").await;
    assert_eq!(client.hear().await, text("pong"));
    let ack = word(&mut wire).await;
    assert_eq!((&ack["t"], &ack["n"]), (&json!("ack"), &json!(1)));
    say(&mut wire, json!({"t": "ack", "n": 1})).await;
    proxy.pipe_that("it is committed", |pipe| pipe["up"]["level"] == "app" && pipe["up"]["confirmed"] == 1).await;
    say(&mut wire, json!({"t": "fin", "code": 4001, "reason": "done", "n": 1})).await;
    assert_eq!(client.hear().await, Said::Close(4001, "done".into()));
}

#[tokio::test]
async fn a_worker_that_picks_the_application_s_own_protocol_is_served_as_ever() {
    let (proxy, worker) = started().await;
    let offer = [("sec-websocket-protocol", "chat")];
    let plain = async { worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\n").await };
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &offer), plain);
    client.text("tap").await;
    assert_eq!(wire.hear().await, text("tap"));
    wire.reset();
    let mut again = worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\n").await;
    assert_eq!(again.head.header("sec-websocket-protocol"), "chat", "a pipe keeps to what its first worker spoke");
    assert_eq!(again.hear().await, text("tap"));
    drop(client);
}

#[tokio::test]
async fn a_worker_that_stores_the_last_number_with_its_effect_has_each_message_once() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = pair(&proxy, &worker).await;
    let mut done: Vec<String> = Vec::new();
    let mut said = 0;
    for life in 0..6 {
        for _ in 0..5 {
            said += 1;
            client.text(&format!("order {said}")).await;
        }
        // It does some of what it hears, says nothing of that, and dies.
        for _ in 0..=life % 4 {
            let heard = wire.hear().await.text();
            let (number, order) = heard.split_once(';').unwrap();
            assert_eq!(number, (done.len() + 1).to_string());
            done.push(order.to_owned());
        }
        wire.reset();
        let (next, hello) = attach(&worker).await;
        wire = next;
        assert_eq!(hello["resume"]["tx"][1], said + 1, "{hello}");
        say(&mut wire, json!({"t": "resumed", "rx": done.len(), "tx": [1, 1]})).await;
    }
    while done.len() < said {
        done.push(wire.hear().await.text().split_once(';').unwrap().1.to_owned());
    }
    let all: Vec<String> = (1..=said).map(|number| format!("order {number}")).collect();
    assert_eq!(done, all, "each once, in order");
    drop(client);
}

#[tokio::test]
async fn numbers_on_both_legs_are_each_leg_s_own() {
    let (proxy, worker) = started().await;
    let (mut client, (mut wire, _)) = tokio::join!(AwareClient::open(proxy.public, "/ws"), attach(&worker));
    say(&mut wire, json!({"t": "welcome"})).await;
    client.say("one").await;
    assert_eq!(wire.hear().await, text("1;one"));
    client.until("received, and not in the worker's state", |it| it.acked == (1, 0)).await;
    say(&mut wire, json!({"t": "ack", "n": 1})).await;
    client.until("it is in the worker's state", |it| it.acked == (1, 1)).await;
    wire.text("1;a").await;
    client.until("a message", |it| it.got == ["a"]).await;
    wire.reset();
    let (mut wire, hello) = attach(&worker).await;
    assert_eq!(hello["resume"], json!({"id": client.id, "token": "", "epoch": 1, "rx": 1, "tx": [2, 2]}));
    say(&mut wire, json!({"t": "resumed", "rx": 1, "tx": [1, 2]})).await;
    wire.text("1;a").await;
    wire.text("2;b").await;
    client.until("what is new", |it| it.got == ["a", "b"]).await;
}
