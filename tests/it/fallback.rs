//! Clients that can't use WebSockets: the same pipes by long poll, server-sent events and POSTs (PROTOCOL section 8).

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, Reply, Said, StepWorker, Wire, ask, eventually, within};

const HELLO: &str = "application/vnd.holdline+json";

const ROUTE: &str = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/ws/{*rest}\"\npool = \"default\"\n\
                     http_fallback = true\norigins = [\"https://app.example\"]\n\
                     [[routes]]\nname = \"rest\"\npath = \"/{*rest}\"\npool = \"default\"\n";

/// A client that is on no socket.
struct Poller<'a> {
    proxy: &'a Proxy,
    pipe: String,
    token: String,
    after: u64,
}

impl<'a> Poller<'a> {
    /// A new pipe, and the worker's end of it.
    async fn open(proxy: &'a Proxy, worker: &StepWorker) -> (Self, Wire) {
        let (welcome, wire) = tokio::join!(hello(proxy), worker.accept());
        let welcome = welcome.expect(200).json();
        assert_eq!(welcome["t"], "welcome", "{welcome}");
        (Self::of(proxy, &welcome), wire)
    }

    fn of(proxy: &'a Proxy, welcome: &Value) -> Self {
        let word = |name: &str| welcome[name].as_str().unwrap_or_default().to_owned();
        Self { proxy, pipe: word("id"), token: word("token"), after: 0 }
    }

    async fn post(&self, lines: &str) -> Reply {
        let token = format!("Holdline {}", self.token);
        let headers = [("holdline-pipe", self.pipe.as_str()), ("authorization", &token)];
        ask(self.proxy.public, "POST", "/ws/a", &headers, lines.to_owned()).await
    }

    async fn get(&self, after: impl std::fmt::Display, wait: &str) -> Reply {
        let token = format!("Holdline {}", self.token);
        let path = format!("/ws/a?pipe={}&after={after}&wait={wait}", self.pipe);
        ask(self.proxy.public, "GET", &path, &[("authorization", &token)], "").await
    }

    /// The next answer's lines, all of which are acknowledged with the next poll.
    async fn lines(&mut self) -> Vec<Value> {
        let reply = self.get(self.after, "25s").await.expect(200);
        let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.after = lines.iter().filter_map(|line| line["seq"].as_u64()).fold(self.after, u64::max);
        lines
    }

    /// The next messages, without the words between them.
    async fn messages(&mut self, count: usize) -> Vec<Value> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(self.lines().await.into_iter().filter(|line| line.get("seq").is_some()));
        }
        messages
    }
}

/// The words in an answer.
fn words(reply: &Reply) -> Vec<Value> {
    let lines = reply.text();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("t").is_some()).collect()
}

async fn hello(proxy: &Proxy) -> Reply {
    ask(proxy.public, "POST", "/ws/a", &[("content-type", HELLO)], r#"{"t":"hello","v":1}"#).await
}

async fn started() -> (Proxy, StepWorker) {
    let proxy = Proxy::start(ROUTE);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

/// Waits until so many requests are being answered.
async fn in_flight(proxy: &Proxy, gauge: &str, count: usize) {
    eventually(gauge, async || (proxy.metrics().await.sum(gauge, &[]) >= count as f64).then_some(())).await;
}

/// Waits until the one aware client is counted under this transport.
async fn reached_by(proxy: &Proxy, transport: &str) {
    eventually(transport, async || {
        let metrics = proxy.metrics().await;
        let by = ["websocket", "longpoll", "sse"].map(|it| metrics.sum("aware_pipes", &[("transport", it)]));
        let wanted = ["websocket", "longpoll", "sse"].map(|it| f64::from(it == transport));
        (by == wanted).then_some(())
    })
    .await;
}

fn text(text: &str) -> Said {
    Said::Text(text.into())
}

#[tokio::test]
async fn lp_08_a_client_without_a_socket_has_the_whole_pipe() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = Poller::open(&proxy, &worker).await;
    let sent = client.post("{\"seq\":1,\"text\":\"one\"}\n{\"seq\":2,\"base64\":\"AAE=\"}\n").await.expect(200);
    assert_eq!(sent.json()["ack"], 2);
    assert_eq!(wire.hear().await, text("one"));
    assert_eq!(wire.hear().await, Said::Binary(vec![0, 1]));
    wire.text("an answer").await;
    assert_eq!(client.messages(1).await, [json!({ "seq": 1, "text": "an answer" })]);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_given_again_until_it_is_acknowledged() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    wire.text("once").await;
    for _ in 0..3 {
        let reply = client.get(0, "25s").await.expect(200);
        assert!(reply.text().contains("once"), "{}", reply.text());
    }
    assert_eq!(client.get(1, "1ms").await.status, 204);
    assert_eq!(client.get(2, "1ms").await.status, 400, "message 2 was never sent");
}

#[tokio::test]
async fn a_repeat_is_harmless_an_early_message_waits_and_a_hole_is_told() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    let (early, first) = tokio::join!(client.post("{\"seq\":2,\"text\":\"two\"}"), async {
        in_flight(&proxy, "http_requests", 1).await;
        client.post("{\"seq\":1,\"text\":\"one\"}").await
    });
    assert!(first.expect(200).json()["ack"].as_u64() >= Some(1), "the other may be taken in before this is answered");
    assert_eq!(early.expect(200).json()["ack"], 2);
    assert_eq!(client.post("{\"seq\":1,\"text\":\"one\"}").await.expect(200).json()["ack"], 2);
    for wanted in ["one", "two"] {
        assert_eq!(wire.hear().await, text(wanted));
    }
    let hole = client.post("{\"seq\":3,\"text\":\"three\"}\n{\"seq\":5,\"text\":\"five\"}").await;
    assert_eq!((hole.status, &hole.json()["ack"]), (409, &3.into()));
    assert_eq!(wire.hear().await, text("three"));
}

#[tokio::test]
async fn lp_08_the_worker_dies_and_the_client_polls_on() {
    let (proxy, worker) = started().await;
    let (mut client, wire) = Poller::open(&proxy, &worker).await;
    client.post("{\"seq\":1,\"text\":\"kept\"}").await.expect(200);
    let (mut next, ()) = tokio::join!(worker.accept(), async { wire.reset() });
    assert_eq!(next.hear().await, text("kept"));
    next.text("from the next worker").await;
    let mut words = Vec::new();
    loop {
        let lines = client.lines().await;
        words.extend(lines.iter().filter_map(|line| line["state"].as_str().map(str::to_owned)));
        if lines.iter().any(|line| line["text"] == "from the next worker") {
            break;
        }
    }
    // An answer without a message may have been lost for all we know, so that its words are told twice.
    assert_eq!((words[0].as_str(), words.contains(&"attached".to_owned())), ("lost", true), "{words:?}");
}

#[tokio::test]
async fn a_word_is_told_until_its_line_is_acknowledged_and_then_no_more() {
    let (proxy, worker) = started().await;
    let (client, wire) = Poller::open(&proxy, &worker).await;
    let (_next, ()) = tokio::join!(worker.accept(), async { wire.reset() });
    let mut line = 0;
    let mut told = Vec::new();
    while told.last() != Some(&json!("attached")) {
        let at = format!("0.{line}");
        let first = words(&client.get(&at, "25s").await.expect(200));
        // The answer may be lost as often as it likes.
        for _ in 0..3 {
            let again = words(&client.get(&at, "25s").await.expect(200));
            assert_eq!(again[..first.len()], first[..]);
        }
        line = first.last().unwrap()["line"].as_u64().unwrap();
        told.extend(first.into_iter().map(|word| word["state"].clone()));
    }
    assert_eq!(told, ["lost", "attached"], "once each");
    assert_eq!(client.get(format!("0.{line}"), "1ms").await.status, 204);
}

/// Goes on with the pipe by another hello; what is said to it.
async fn come_again(client: &mut Poller<'_>) -> Value {
    let back = resume(client, &client.token, 0, 1).to_string();
    let word = ask(client.proxy.public, "POST", "/ws/a", &[("content-type", HELLO)], back).await.json();
    if let Some(token) = word["token"].as_str() {
        client.token = token.to_owned();
    }
    word
}

#[tokio::test]
async fn a_client_whose_answers_are_cut_off_comes_back_as_often_as_it_has_to() {
    let (proxy, worker) = started().await;
    let (mut client, _wire) = Poller::open(&proxy, &worker).await;
    for time in 1..=5 {
        drop(stream(&client, "").await);
        eventually("no stream", async || (proxy.metrics().await.sum("polls_parked", &[]) == 0.0).then_some(())).await;
        assert_eq!(come_again(&mut client).await["t"], "resumed", "time {time}");
    }
    let mut streams = vec![stream(&client, "").await];
    for time in 1..=3 {
        assert_eq!(come_again(&mut client).await["t"], "resumed", "time {time} that it takes the place of a live one");
        streams.push(stream(&client, "").await);
    }
    assert_eq!(come_again(&mut client).await["why"], "taken");
}

#[tokio::test]
async fn a_newer_poll_takes_the_place_of_an_older_one() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    let older = async {
        let older = client.get(0, "25s").await;
        wire.text("for the newer one").await;
        older
    };
    let (older, newer) = tokio::join!(older, async {
        in_flight(&proxy, "polls_parked", 1).await;
        client.get(0, "25s").await
    });
    assert_eq!(older.status, 204);
    assert!(newer.expect(200).text().contains("for the newer one"));
}

#[tokio::test]
async fn a_token_that_is_no_good_has_one_answer_whatever_the_reason() {
    let (proxy, worker) = started().await;
    let (client, _wire) = Poller::open(&proxy, &worker).await;
    let (other, _other_wire) = Poller::open(&proxy, &worker).await;
    let mut forged = client.token.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let cases = [
        (client.pipe.as_str(), ""),
        (client.pipe.as_str(), "hl1.x.y.z"),
        (client.pipe.as_str(), forged.as_str()),
        (client.pipe.as_str(), other.token.as_str()),
        ("AAAAAAAAAAAAAAAAAAAAAA", client.token.as_str()),
    ];
    let mut answers = Vec::new();
    for (pipe, token) in cases {
        let token = format!("Holdline {token}");
        let path = format!("/ws/a?pipe={pipe}&after=0&wait=1s");
        let reply = ask(proxy.public, "GET", &path, &[("authorization", &token)], "").await;
        answers.push((reply.status, reply.text()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0].0, 404);
}

#[tokio::test]
async fn each_malformed_request_has_its_exact_answer_and_nothing_reaches_the_worker() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    let lines = [
        ("nonsense", "line 1 is not a JSON object"),
        ("{\"seq\":1,\"text\":\"a\"}\n{\"seq\":0,\"text\":\"b\"}", "line 2 has a seq that is no whole number"),
        ("{\"seq\":1,\"base64\":\"*\"}", "line 1 has a base64 that is none"),
        ("{\"t\":\"hello\",\"v\":1}", "line 1 has to be"),
    ];
    for (body, reason) in lines {
        let reply = client.post(body).await.expect(400);
        assert!(reply.json()["detail"].as_str().unwrap().contains(reason), "{body}: {}", reply.text());
    }
    let hellos = ["", "[]", "{}", r#"{"t":"hello"}"#, r#"{"t":"hello","v":"1"}"#, r#"{"t":"welcome","v":1}"#];
    for body in hellos {
        let reply = ask(proxy.public, "POST", "/ws/a", &[("content-type", HELLO)], body).await;
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
    }
    for query in ["pipe=short", "pipe=AAAAAAAAAAAAAAAAAAAAAA&after=x", "pipe=AAAAAAAAAAAAAAAAAAAAAA&wait=soon"] {
        let reply = ask(proxy.public, "GET", &format!("/ws/a?{query}"), &[], "").await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.text());
    }
    let long = format!("{{\"seq\":1,\"text\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(client.post(&long).await.status, 413);
    client.post("{\"seq\":1,\"text\":\"good\"}").await.expect(200);
    assert_eq!(wire.hear().await, text("good"));
}

#[tokio::test]
async fn a_stream_of_events_goes_on_where_its_client_left_it() {
    let (proxy, worker) = started().await;
    let (client, mut wire) = Poller::open(&proxy, &worker).await;
    reached_by(&proxy, "longpoll").await;
    let mut events = stream(&client, "").await;
    reached_by(&proxy, "sse").await;
    wire.text("one").await;
    let id = event(&mut events, "\"text\":\"one\"").await;
    wire.text("two").await;
    event(&mut events, "\"text\":\"two\"").await;
    drop(events);
    let mut events = stream(&client, &format!("Last-Event-ID: {id}\r\n")).await;
    let next = event(&mut events, "\"text\":\"two\"").await;
    assert!(next.ends_with("-2"), "the event before was acknowledged by its id: {next}");
    client.post("{\"t\":\"ack\",\"n\":2}").await.expect(200);
    assert_eq!(client.get(2, "1ms").await.status, 204);
}

/// A word that goes on with a client's pipe.
fn resume(client: &Poller<'_>, token: &str, received: u64, next: u64) -> Value {
    let resume = json!({ "id": client.pipe, "token": token, "epoch": 1, "rx": received, "tx": [next, next] });
    json!({ "t": "hello", "v": 1, "resume": resume })
}

/// The next word about messages on a socket.
async fn word(socket: &mut Wire) -> Value {
    let said = socket.hear().await;
    match &said {
        Said::Text(text) if text.starts_with('!') => serde_json::from_str(&text[1..]).unwrap(),
        _ => panic!("no word: {said:?}"),
    }
}

/// The next message on a socket, without the words between them.
async fn message(socket: &mut Wire) -> Said {
    loop {
        match socket.hear().await {
            Said::Text(text) if text.starts_with('!') => {}
            said => return said,
        }
    }
}

#[tokio::test]
async fn lp_08_a_client_changes_from_polls_to_a_socket_and_back_without_loss() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = Poller::open(&proxy, &worker).await;
    client.post("{\"seq\":1,\"text\":\"by post\"}").await.expect(200);
    assert_eq!(wire.hear().await, text("by post"));
    wire.text("by poll").await;
    assert_eq!(client.messages(1).await[0]["text"], "by poll");
    wire.text("on the way").await;

    let offer = format!("holdline.v1, holdline.pipe.{}", client.pipe);
    let mut socket = Wire::connect(proxy.public, "/ws/a", &[("Sec-WebSocket-Protocol", &offer)]).await;
    socket.text(&format!("!{}", resume(&client, &client.token, 1, 2))).await;
    let resumed = word(&mut socket).await;
    assert_eq!((&resumed["t"], &resumed["rx"]), (&"resumed".into(), &1.into()), "{resumed}");
    assert_eq!(message(&mut socket).await, text("2;on the way"));
    reached_by(&proxy, "websocket").await;
    assert!(client.get(1, "1ms").await.text().contains("4901"), "what is left of its polls says where it went");
    reached_by(&proxy, "websocket").await;
    socket.text("2;by socket").await;
    assert_eq!(wire.hear().await, text("by socket"));

    let token = resumed["token"].as_str().unwrap();
    let back = resume(&client, token, 2, 3);
    let reply = ask(proxy.public, "POST", "/ws/a", &[("content-type", HELLO)], back.to_string()).await.expect(200);
    let resumed = reply.json();
    assert_eq!((&resumed["t"], &resumed["rx"]), (&"resumed".into(), &2.into()), "{resumed}");
    let mut client = Poller { token: resumed["token"].as_str().unwrap().to_owned(), after: 2, ..client };
    client.post("{\"seq\":3,\"text\":\"by post again\"}").await.expect(200);
    assert_eq!(wire.hear().await, text("by post again"));
    wire.text("by poll again").await;
    assert_eq!(client.messages(1).await, [json!({ "seq": 3, "text": "by poll again" })]);
    reached_by(&proxy, "longpoll").await;
    let metrics = proxy.metrics().await;
    for transport in ["websocket", "longpoll"] {
        assert_eq!(metrics.sum("client_resumes_total", &[("transport", transport), ("result", "replaced")]), 1.0);
    }
}

/// A stream of events, behind its head.
async fn stream(client: &Poller<'_>, extra: &str) -> TcpStream {
    let mut stream = TcpStream::connect(client.proxy.public).await.unwrap();
    let head = format!(
        "GET /ws/a?pipe={} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAuthorization: Holdline {}\r\n{extra}\r\n",
        client.pipe, client.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await.to_lowercase();
    for line in ["http/1.1 200", "content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"]
    {
        assert!(head.contains(line), "{line}: {head}");
    }
    stream
}

/// Reads up to the event with this in it; its id.
async fn event(stream: &mut TcpStream, what: &str) -> String {
    loop {
        let event = until(stream, "\n\n").await;
        if event.contains(what) {
            let id = event.lines().find_map(|line| line.strip_prefix("id: "));
            return id.unwrap_or_else(|| panic!("no id in {event}")).to_owned();
        }
    }
}

async fn until(stream: &mut TcpStream, end: &str) -> String {
    within(end, async {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            read.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(read).unwrap()
    })
    .await
}

#[tokio::test]
async fn a_page_of_a_named_origin_may_ask_and_no_other() {
    let (proxy, worker) = started().await;
    let preflight = |origin: &'static str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        async move { headers }
    };
    for (origin, status, allowed) in
        [("https://app.example", 204, "https://app.example"), ("https://evil.example", 403, "")]
    {
        let reply = ask(proxy.public, "OPTIONS", "/ws/a", &preflight(origin).await, "").await.expect(status);
        assert_eq!(reply.header("access-control-allow-origin"), allowed);
        assert_eq!(reply.header("access-control-max-age"), if status == 204 { "600" } else { "" });
        assert_eq!(reply.header("access-control-allow-credentials"), if status == 204 { "true" } else { "" });
    }
    let evil = [("content-type", HELLO), ("origin", "https://evil.example")];
    let hello = r#"{"t":"hello","v":1}"#;
    let refused = ask(proxy.public, "POST", "/ws/a", &evil, hello).await.expect(403);
    assert_eq!(refused.header("access-control-allow-credentials"), "");
    let good = [("content-type", HELLO), ("origin", "https://app.example")];
    let (reply, _wire) = tokio::join!(ask(proxy.public, "POST", "/ws/a", &good, hello), worker.accept());
    let reply = reply.expect(200);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
    assert_eq!(reply.header("access-control-allow-credentials"), "true", "its cookies count, as at a handshake");
}

#[tokio::test]
async fn a_route_without_the_key_relays_such_requests_to_its_workers() {
    let (proxy, worker) = started().await;
    let asked = ask(proxy.public, "POST", "/other", &[("content-type", HELLO)], r#"{"t":"hello","v":1}"#);
    let (reply, ()) = tokio::join!(asked, async {
        let mut knock = worker.knock().await;
        knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    assert_eq!(reply.expect(200).text(), "ok");
}

#[tokio::test]
async fn the_workers_own_end_is_told_and_then_the_pipe_is_gone() {
    let (proxy, worker) = started().await;
    let (mut client, mut wire) = Poller::open(&proxy, &worker).await;
    wire.text("last").await;
    wire.close(4100, "enough").await;
    let mut told = Vec::new();
    while !told.iter().any(|line: &Value| line["t"] == "close") {
        told.extend(client.lines().await);
    }
    assert!(told.iter().any(|line| line["text"] == "last"), "{told:?}");
    let end = told.iter().find(|line| line["code"] == 4100).unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(end["reason"], "enough");
    while client.get(client.after, "1ms").await.status == 200 {}
    assert_eq!(client.get(client.after, "1ms").await.status, 410);
}
