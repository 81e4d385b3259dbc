//! What a client may get wrong in `holdline.v1` and over HTTP, in one table a kind: each mistake has its exact answer, and
//! no worker hears of it.

use serde_json::{Value, json};

use crate::harness::aware::{AwareClient, OFFER};
use crate::harness::wire::{BINARY, TEXT};
use crate::harness::{Proxy, Reply, Said, StepWorker, Wire, ask};

const CONFIG: &str = "[limits]\nresume_failures = \"1000/min\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
                      path = \"/{*rest}\"\npool = \"default\"\nhttp_fallback = true\n";

const CHAT: &str = "Sec-WebSocket-Protocol: chat\r\n";
const HELLO: &str = r#"!{"t":"hello","v":1}"#;
const HELLO_TYPE: &str = "application/vnd.holdline+json";

async fn started() -> (Proxy, StepWorker) {
    let proxy = Proxy::start(CONFIG);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

fn closed(code: u16, reason: &str) -> Said {
    Said::Close(code, reason.into())
}

fn broken(reason: &str) -> Vec<Said> {
    vec![closed(4905, reason)]
}

fn rejected(why: &str) -> Vec<Said> {
    vec![Said::Text(format!(r#"!{{"t":"reject","why":"{why}"}}"#)), closed(4900, why)]
}

/// What a client says, as a frame.
enum Says {
    Text(String),
    Binary(&'static [u8]),
    /// Bytes as they are.
    Raw(&'static [u8]),
}

impl Says {
    async fn to(&self, wire: &mut Wire) {
        match self {
            Self::Text(text) => wire.frame_out(true, TEXT, text.as_bytes()).await,
            Self::Binary(bytes) => wire.frame_out(true, BINARY, bytes).await,
            Self::Raw(bytes) => wire.send_raw(bytes).await.unwrap(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.chars().take(80).collect(),
            Self::Binary(bytes) | Self::Raw(bytes) => format!("{bytes:x?}"),
        }
    }
}

fn says(text: impl Into<String>) -> Says {
    Says::Text(text.into())
}

/// What is wrong at any time.
fn never() -> Vec<(Says, Vec<Said>)> {
    let malformed = [
        "!",
        "!{",
        "! {}",
        "!{}",
        "!null",
        "![]",
        r#"!{"t":7}"#,
        r#"!{"t":"ack"}"#,
        r#"!{"t":"ack","n":"1"}"#,
        r#"!{"t":"ack","n":-1}"#,
        r#"!{"t":"ack","n":1.5}"#,
        r#"!{"t":"ack","n":9007199254740992}"#,
        r#"!{"t":"hb"}"#,
        r#"!{"t":"hb","n":null}"#,
        r#"!{"t":"fin","code":1000,"reason":""}"#,
        r#"!{"t":"fin","code":1006,"reason":"","n":0}"#,
        r#"!{"t":"fin","code":70000,"reason":"","n":0}"#,
        r#"!{"t":"fin","code":1000,"reason":7,"n":0}"#,
        r#"!{"t":"fin","code":1005,"reason":"words","n":0}"#,
        r#"!{"t":"gap","from":1,"count":1,"why":"ttl"}"#,
        r#"!{"t":"gap","lane":"down","from":1,"count":1,"why":"ttl"}"#,
        r#"!{"t":"gap","lane":"up","from":0,"count":1,"why":"ttl"}"#,
        r#"!{"t":"gap","lane":"up","from":1,"count":0,"why":"ttl"}"#,
        r#"!{"t":"gap","lane":"up","from":1,"why":"ttl"}"#,
        r#"!{"t":"gap","lane":"up","from":1,"count":1,"why":"boredom"}"#,
        r#"!{"t":"gap","lane":"up","from":9007199254740991,"count":2,"why":"ttl"}"#,
        r#"!{"t":"hello"}"#,
        r#"!{"t":"hello","v":"1"}"#,
        r#"!{"t":"hello","v":1,"resume":{}}"#,
        r#"!{"t":"hello","v":1,"resume":null}"#,
    ];
    let mut all: Vec<_> = malformed.map(|text| (says(text), broken("malformed control message"))).into();
    for (text, reason) in [
        (r#"!{"t":"welcome"}"#, "unknown control message"),
        (r#"!{"t":"resumed"}"#, "unknown control message"),
        (r#"!{"t":"live"}"#, "unknown control message"),
        ("", "text without a number"),
        ("x", "text without a number"),
        (";x", "text without a number"),
        ("-1;x", "text without a number"),
        ("1", "text without a number"),
        ("0;x", "number with a leading zero"),
        ("01;x", "number with a leading zero"),
        ("9007199254740992;x", "number over 2^53-1"),
    ] {
        all.push((says(text), broken(reason)));
    }
    all.push((says(format!("!{}", " ".repeat(4096))), broken("control message too long")));
    for (bytes, reason) in [
        (&b""[..], "binary message without a number"),
        (b"x", "binary message without a number"),
        (b"\0", "binary message without a number"),
        (b"\0\x00x", "number not in its shortest form"),
        (b"\0\x81\x00x", "number not in its shortest form"),
        (b"\0\x80\x80\x80\x80\x80\x80\x80\x10", "number over 2^53-1"),
    ] {
        all.push((Says::Binary(bytes), broken(reason)));
    }
    all
}

/// A client that was answered and has said nothing, and the worker's end of its pipe.
async fn unheard(proxy: &Proxy, worker: &StepWorker) -> (Wire, Wire) {
    let offer = [("sec-websocket-protocol", OFFER)];
    let answer = async { worker.knock().await.upgrade_with(CHAT).await };
    tokio::join!(Wire::connect(proxy.public, "/ws", &offer), answer)
}

/// Says it, and holds what both ends hear to what they should.
async fn is_answered(mut client: Wire, mut worker: Wire, said: &[Says], answers: &[Said]) {
    let mut shown = String::new();
    for says in said {
        says.to(&mut client).await;
        shown = says.shown();
    }
    for answer in answers {
        let mut heard = client.hear().await;
        // What was right before the mistake may be acknowledged meanwhile, and the client asked whether it is there.
        let is_aside = |text: &str| text.starts_with(r#"!{"t":"ack""#) || text.starts_with(r#"!{"t":"hb""#);
        while matches!(&heard, Said::Text(text) if is_aside(text)) {
            heard = client.hear().await;
        }
        assert_eq!(&heard, answer, "{shown}");
    }
    assert_eq!(worker.hear().await, closed(1001, "client at fault"), "{shown}");
}

#[tokio::test]
async fn each_mistake_before_the_greeting_has_its_exact_answer_and_reaches_no_worker() {
    let (proxy, worker) = started().await;
    let mut table = never();
    table.extend([
        (says("1;x"), broken("hello expected")),
        (Says::Binary(b"\0\x01x"), broken("hello expected")),
        (says(r#"!{"t":"ack","n":0}"#), broken("hello expected")),
        (says(r#"!{"t":"hb","n":0}"#), broken("hello expected")),
        (says(r#"!{"t":"hello","v":2}"#), rejected("version")),
        (says(format!("!{}", resume(&json!({})))), broken("resume without a pipe entry")),
    ]);
    for (said, answers) in table {
        let (client, wire) = unheard(&proxy, &worker).await;
        is_answered(client, wire, &[said], &answers).await;
    }
}

#[tokio::test]
async fn each_mistake_behind_the_greeting_has_its_exact_answer_and_reaches_no_worker() {
    let (proxy, worker) = started().await;
    let mut table: Vec<_> = never().into_iter().map(|(said, answers)| (vec![said], answers)).collect();
    let gap = |from: u64| says(format!(r#"!{{"t":"gap","lane":"up","from":{from},"count":1,"why":"ttl"}}"#));
    table.extend([
        (vec![says("2;x")], broken("number skipped without a gap")),
        (vec![Says::Binary(b"\0\x02x")], broken("number skipped without a gap")),
        (vec![gap(2)], broken("number skipped without a gap")),
        (vec![says(r#"!{"t":"fin","code":1000,"reason":"","n":3}"#)], broken("fin with another number")),
        (vec![says(HELLO)], broken("hello twice")),
        (vec![says(r#"!{"t":"hello","v":2}"#)], broken("hello twice")),
        (vec![says(r#"!{"t":"ack","n":1}"#)], rejected("epoch")),
    ]);
    for (said, answers) in table {
        let (mut client, wire) = unheard(&proxy, &worker).await;
        client.text(HELLO).await;
        assert!(client.hear().await.text().starts_with(r#"!{"t":"welcome""#));
        is_answered(client, wire, &said, &answers).await;
    }
}

/// A hello that goes on with a pipe, with these members instead.
fn resume(change: &Value) -> Value {
    let mut resume = json!({ "id": "AAAAAAAAAAAAAAAAAAAAAA", "token": "hl1.x.y.z", "epoch": 1, "rx": 0, "tx": [1, 1] });
    for (name, value) in change.as_object().unwrap() {
        resume[name] = value.clone();
    }
    json!({ "t": "hello", "v": 1, "resume": resume })
}

#[tokio::test]
async fn each_mistake_of_a_client_that_comes_back_has_its_exact_answer_and_leaves_the_pipe_alone() {
    let (proxy, worker) = started().await;
    let answer = async { worker.knock().await.upgrade_with(CHAT).await };
    let (mut owner, mut wire) = tokio::join!(AwareClient::open(proxy.public, "/ws"), answer);
    let mut table = never();
    table.extend([
        (says("1;x"), broken("hello expected")),
        (says(r#"!{"t":"ack","n":0}"#), broken("hello expected")),
        (says(HELLO), broken("hello without resume")),
        (says(r#"!{"t":"hello","v":2}"#), rejected("version")),
        (Says::Raw(b"\xff\xff"), vec![closed(1002, "malformed frame")]),
    ]);
    for change in [
        json!({ "id": "short" }),
        json!({ "id": 7 }),
        json!({ "token": null }),
        json!({ "epoch": "1" }),
        json!({ "rx": -1 }),
        json!({ "tx": [] }),
        json!({ "tx": [1] }),
        json!({ "tx": [0, 1] }),
        json!({ "tx": [2, 1] }),
        json!({ "tx": [1, "2"] }),
        json!({ "tx": [1, 9_007_199_254_740_992_u64] }),
    ] {
        table.push((says(format!("!{}", resume(&change))), broken("malformed control message")));
    }
    for change in [json!({}), json!({ "id": owner.id }), json!({ "id": owner.id, "token": "" })] {
        table.push((says(format!("!{}", resume(&change))), rejected("unknown")));
    }
    let offer = format!("holdline.v1+chat, holdline.pipe.{}, chat", owner.id);
    for (said, answers) in table {
        let mut client = Wire::connect(proxy.public, "/ws", &[("sec-websocket-protocol", &offer)]).await;
        said.to(&mut client).await;
        for answer in answers {
            assert_eq!(client.hear().await, answer, "{}", said.shown());
        }
    }
    owner.say("still here").await;
    assert_eq!(wire.hear().await, Said::Text("still here".into()), "the first that the worker hears");
}

/// A client without a socket.
struct Poller {
    pipe: String,
    token: String,
}

impl Poller {
    async fn open(proxy: &Proxy, worker: &StepWorker) -> (Self, Wire) {
        let headers = [("content-type", HELLO_TYPE)];
        let (reply, wire) = tokio::join!(ask(proxy.public, "POST", "/ws", &headers, &HELLO[1..]), worker.accept());
        let welcome = reply.expect(200).json();
        let word = |name: &str| welcome[name].as_str().unwrap().to_owned();
        (Self { pipe: word("id"), token: word("token") }, wire)
    }

    async fn post(&self, proxy: &Proxy, body: impl Into<bytes::Bytes>) -> Reply {
        let token = format!("Holdline {}", self.token);
        ask(proxy.public, "POST", "/ws", &[("holdline-pipe", &self.pipe), ("authorization", &token)], body).await
    }
}

/// Holds a refusal to its status and to what its reason begins with.
#[track_caller]
fn is_refused(reply: &Reply, status: u16, reason: &str, what: &str) {
    let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(reply.status, status, "{what}: {detail}");
    assert!(detail.starts_with(reason), "{what}: {detail}");
}

#[tokio::test]
async fn each_malformed_line_is_refused_with_its_place_and_the_pipe_goes_on() {
    const FORM: &str = r#"has to be {"seq":n,"text":"…"}"#;
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    for (line, reason) in [
        ("nonsense", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        (r#"{"seq":1,"text":"a"}{"seq":2,"text":"b"}"#, "is not a JSON object"),
        ("{}", FORM),
        (r#"{"seq":1}"#, FORM),
        (r#"{"text":"a"}"#, FORM),
        (r#"{"seq":1,"text":"a","base64":"YQ=="}"#, FORM),
        (r#"{"seq":1,"text":"a","more":1}"#, FORM),
        (r#"{"seq":1,"text":7}"#, FORM),
        (r#"{"t":"hello","v":1}"#, FORM),
        (r#"{"t":"welcome"}"#, FORM),
        (r#"{"t":7}"#, FORM),
        (r#"{"t":"ack"}"#, FORM),
        (r#"{"t":"ack","n":"1"}"#, FORM),
        (r#"{"seq":0,"text":"a"}"#, "has a seq that is no whole number"),
        (r#"{"seq":-1,"text":"a"}"#, "has a seq that is no whole number"),
        (r#"{"seq":1.5,"text":"a"}"#, "has a seq that is no whole number"),
        (r#"{"seq":"1","text":"a"}"#, "has a seq that is no whole number"),
        (r#"{"seq":9007199254740992,"text":"a"}"#, "has a seq that is no whole number"),
        (r#"{"seq":1,"base64":"*"}"#, "has a base64 that is none"),
        (r#"{"seq":1,"base64":"YQ"}"#, "has a base64 that is none"),
        (r#"{"t":"hb"}"#, "is a malformed control message"),
        (r#"{"t":"fin","code":1000}"#, "is a malformed control message"),
        (r#"{"t":"fin","code":1006,"reason":"","n":0}"#, "is a malformed control message"),
        (r#"{"t":"gap","lane":"down","from":1,"count":1,"why":"ttl"}"#, "is a malformed control message"),
        (r#"{"t":"gap","lane":"up","from":1,"count":0,"why":"ttl"}"#, "is a malformed control message"),
    ] {
        // A good line before it is not taken either: a request is taken as a whole.
        let body = format!("{{\"seq\":1,\"text\":\"before\"}}\n{line}\n");
        is_refused(&client.post(&proxy, body).await, 400, &format!("line 2 {reason}"), line);
    }
    let invalid = client.post(&proxy, &b"{\"seq\":1,\"text\":\"\xff\"}"[..]).await;
    is_refused(&invalid, 400, "line 1 is not a JSON object", "no UTF-8");
    let ahead = client.post(&proxy, r#"{"t":"ack","n":1}"#).await;
    is_refused(&ahead, 400, "this acknowledges what was never sent", "an ack from the future");
    client.post(&proxy, "{\"seq\":1,\"text\":\"good\"}\n\n").await.expect(200);
    assert_eq!(wire.hear().await, Said::Text("good".into()), "the first that the worker hears");
}

#[tokio::test]
async fn each_malformed_hello_is_refused_before_a_worker_is_asked() {
    let (proxy, worker) = started().await;
    let many: Vec<String> = (0..33).map(|number| format!("p{number}")).collect();
    for (body, reason) in [
        (String::new(), "a hello is a JSON object"),
        ("[]".to_owned(), "a hello is a JSON object"),
        ("{".to_owned(), "a hello is a JSON object"),
        ("{}".to_owned(), r#"the first word has to be {"t":"hello","v":1}"#),
        (r#"{"t":"welcome","v":1}"#.to_owned(), r#"the first word has to be {"t":"hello","v":1}"#),
        (r#"{"t":"hello"}"#.to_owned(), "this proxy speaks version 1"),
        (r#"{"t":"hello","v":"1"}"#.to_owned(), "this proxy speaks version 1"),
        (r#"{"t":"hello","v":2}"#.to_owned(), "this proxy speaks version 1"),
        (json!({ "t": "hello", "v": 1, "protocols": "chat" }).to_string(), "protocols has to be a list"),
        (json!({ "t": "hello", "v": 1, "protocols": [7] }).to_string(), "protocols has to be a list"),
        (json!({ "t": "hello", "v": 1, "protocols": ["a b"] }).to_string(), "protocols has to be a list"),
        (json!({ "t": "hello", "v": 1, "protocols": many }).to_string(), "protocols has to be a list"),
        (json!({ "t": "hello", "v": 1, "resume": null }).to_string(), "the hello is malformed"),
        (json!({ "t": "hello", "v": 1, "resume": {} }).to_string(), "the hello is malformed"),
        (resume(&json!({ "id": "short" })).to_string(), "the hello is malformed"),
        (resume(&json!({ "tx": [2, 1] })).to_string(), "the hello is malformed"),
        (resume(&json!({ "epoch": "1" })).to_string(), "the hello is malformed"),
    ] {
        let reply = ask(proxy.public, "POST", "/ws", &[("content-type", HELLO_TYPE)], body.clone()).await;
        is_refused(&reply, 400, reason, &body);
    }
    let long = ask(proxy.public, "POST", "/ws", &[("content-type", HELLO_TYPE)], " ".repeat(20 << 10)).await;
    is_refused(&long, 413, "a request may have 16384 bytes", "a long hello");
    let (_client, wire) = Poller::open(&proxy, &worker).await;
    assert_eq!(wire.head.header("holdline-attach"), "1", "the first that the worker is asked for");
    assert_eq!(proxy.metrics().await.sum("pipes_total", &[]), 1.0);
}

#[tokio::test]
async fn each_malformed_poll_is_refused_with_its_reason() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    let token = format!("Holdline {}", client.token);
    let pipe = &client.pipe;
    let named = "the pipe has to be named by the id of its welcome";
    let event_stream = ("accept", "text/event-stream");
    for (query, headers, status, reason) in [
        ("pipe=".to_owned(), vec![], 400, named),
        ("pipe=short".to_owned(), vec![], 400, named),
        (format!("pipe={pipe}x"), vec![], 400, named),
        (format!("pipe={pipe}&after="), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=-1"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=+1"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=0."), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=.0"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=0.0.0"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=0.x"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=99999999999999999999"), vec![], 400, "after has to be the number of a message"),
        (format!("pipe={pipe}&after=1"), vec![], 400, "this acknowledges what was never sent"),
        (format!("pipe={pipe}&after=0.99"), vec![], 400, "this acknowledges what was never sent"),
        (format!("pipe={pipe}&wait="), vec![], 400, "wait has to be a time"),
        (format!("pipe={pipe}&wait=25"), vec![], 400, "wait has to be a time"),
        (format!("pipe={pipe}&wait=soon"), vec![], 400, "wait has to be a time"),
        (format!("pipe={pipe}&after=0&after=1"), vec![], 400, "pipe, after and wait may come once"),
        (format!("pipe={pipe}&pipe={pipe}"), vec![], 400, "pipe, after and wait may come once"),
        (format!("pipe={pipe}"), vec![event_stream, ("last-event-id", "5")], 400, "Last-Event-ID has to be"),
        (format!("pipe={pipe}"), vec![event_stream, ("last-event-id", "1-x")], 400, "Last-Event-ID has to be"),
        (format!("pipe={pipe}"), vec![event_stream, ("last-event-id", "x-1")], 400, "Last-Event-ID has to be"),
        (format!("pipe={pipe}"), vec![event_stream, ("last-event-id", "2-0")], 400, "Last-Event-ID is of another"),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([("authorization", token.as_str())]).collect();
        let reply = ask(proxy.public, "GET", &format!("/ws?{query}"), &headers, "").await;
        is_refused(&reply, status, reason, &query);
    }
    for (authorization, what) in
        [("", "none"), ("Bearer x", "another scheme"), ("Holdline", "nothing"), ("Holdline a b", "two")]
    {
        let reply =
            ask(proxy.public, "GET", &format!("/ws?pipe={pipe}"), &[("authorization", authorization)], "").await;
        assert_eq!(reply.status, 404, "{what}: {}", reply.text());
    }
    client.post(&proxy, "{\"seq\":1,\"text\":\"good\"}").await.expect(200);
    assert_eq!(wire.hear().await, Said::Text("good".into()), "the first that the worker hears");
}
