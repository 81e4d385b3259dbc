//! A server of the operator's says who may connect: it is asked before any worker, and only it says what it says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::aware::AwareClient;
use crate::harness::wire::{Head, read_head};
use crate::harness::{Proxy, Said, StepWorker, Wire, ask, within};

/// The server, stepped by hand.
struct Judge {
    listener: TcpListener,
    address: SocketAddr,
}

/// A connection to it.
struct Asking {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Judge {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> Asking {
        let (stream, _) = within("a question", self.listener.accept()).await.unwrap();
        Asking { stream, buffer: BytesMut::new() }
    }

    /// Answers one question, on a connection of its own.
    async fn say(&self, answer: &str) -> (Head, Asking) {
        let mut asking = self.accept().await;
        let head = asking.question().await;
        asking.answer(answer).await;
        (head, asking)
    }
}

impl Asking {
    async fn question(&mut self) -> Head {
        within("a question", read_head(&mut self.stream, &mut self.buffer)).await.unwrap()
    }

    /// Answers with this status and these header lines, each with its end.
    async fn answer(&mut self, answer: &str) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

struct Rig {
    proxy: Proxy,
    worker: StepWorker,
    judge: Judge,
}

async fn rig(more: &str) -> Rig {
    let judge = Judge::start().await;
    let proxy = Proxy::start(&format!(
        "[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npool = \"default\"\n\
         path = \"/{{*path}}\"\nauth_url = \"http://{}/check?realm=a\"\nauth_headers = [\"x-user\", \"x-team\"]\n{more}\n",
        judge.address
    ));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    Rig { proxy, worker, judge }
}

impl Rig {
    async fn count(&self, result: &str) -> f64 {
        self.proxy.metrics().await.sum("auth_requests_total", &[("route", "ws"), ("result", result)])
    }

    /// A handshake that the server answers so and the worker takes.
    async fn let_in(&self, path: &str, headers: &[(&str, &str)], answer: &str) -> (Head, Wire, Wire) {
        let ((asked, _), client, worker) =
            tokio::join!(self.judge.say(answer), Wire::connect(self.proxy.public, path, headers), self.worker.accept());
        (asked, client, worker)
    }
}

#[tokio::test]
async fn the_server_is_asked_about_the_request_and_its_words_reach_the_worker() {
    let rig = rig("key = \"{auth.x-team}\"").await;
    let headers = [("authorization", "Bearer abc"), ("x-forwarded-uri", "/admin"), ("cookie", "a=1")];
    let (asked, mut client, mut wire) =
        rig.let_in("/ws/a?b=c", &headers, "204 No Content\r\nX-User: eve\r\nX-Team: red").await;
    assert_eq!(asked.line, "GET /check?realm=a HTTP/1.1");
    for (name, value) in [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/ws/a?b=c"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("authorization", "Bearer abc"),
        ("cookie", "a=1"),
        ("host", &rig.judge.address.to_string()),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(asked.header("x-forwarded-host"), rig.proxy.public.to_string());
    assert_eq!((wire.head.header("x-user"), wire.head.header("x-team")), ("eve", "red"));
    client.text("in").await;
    assert_eq!(wire.hear().await, Said::Text("in".into()));
    assert_eq!(rig.proxy.pipes().await[0]["key"], "red");
    assert_eq!(rig.count("allowed").await, 1.0);
}

#[tokio::test]
async fn what_a_client_says_in_the_servers_name_reaches_nobody() {
    let rig = rig("").await;
    let headers = [
        ("x-user", "root"),
        ("X_Team", "root"),
        // Would have the server's own word removed as one of a single hop.
        ("connection", "x-user, keep-alive"),
    ];
    let (asked, _client, wire) = rig.let_in("/ws", &headers, "200 OK\r\nX-User: eve").await;
    assert!(!asked.has("x-user") && !asked.has("x_team"), "{asked:?}");
    assert_eq!(wire.head.header("x-user"), "eve");
    assert!(!wire.head.has("x-team") && !wire.head.has("x_team"), "{:?}", wire.head);
}

#[tokio::test]
async fn a_client_that_may_not_come_in_is_answered_by_the_server_and_no_worker_is_dialled() {
    let rig = rig("").await;
    for (answer, status, name, value) in [
        (
            "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\nX-Secret: s\r\n\r\nwho are you",
            401,
            "www-authenticate",
            "Basic realm=\"a\"",
        ),
        ("403 Forbidden\r\nContent-Type: text/plain\r\n\r\nno", 403, "content-type", "text/plain"),
        (
            "302 Found\r\nLocation: https://login.example/\r\nSet-Cookie: state=1",
            302,
            "location",
            "https://login.example/",
        ),
    ] {
        let ((_, _), refused) = tokio::join!(rig.judge.say(answer), Wire::open(rig.proxy.public, "/ws", &[]));
        let refused = refused.unwrap_err();
        assert_eq!((refused.status, refused.header(name)), (status, value));
        assert_eq!(refused.text(), answer.split_once("\r\n\r\n").map_or("", |(_, body)| body));
        assert!(!format!("{refused:?}").to_lowercase().contains("x-secret"), "{refused:?}");
        let ((_, _), plain) =
            tokio::join!(rig.judge.say(answer), ask(rig.proxy.public, "POST", "/api", &[], "body".to_owned()));
        assert_eq!((plain.status, plain.header(name)), (status, value));
    }
    assert!(rig.worker.is_left_alone_for(Duration::from_millis(50)).await);
    assert_eq!(rig.count("denied").await, 6.0);
}

#[tokio::test]
async fn a_plain_request_is_let_in_as_a_handshake_is_and_its_body_is_its_workers() {
    let rig = rig("").await;
    let answering = async {
        let mut knock = rig.worker.knock().await;
        knock.answer("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone").await;
        knock
    };
    let ((asked, _), reply, knock) = tokio::join!(
        rig.judge.say("200 OK\r\nX-User: eve"),
        ask(rig.proxy.public, "POST", "/api/x", &[("x-user", "root")], "12345".to_owned()),
        answering
    );
    assert_eq!((asked.header("x-forwarded-method"), asked.header("x-forwarded-uri")), ("POST", "/api/x"));
    assert!(!asked.has("transfer-encoding") && matches!(asked.header("content-length"), "" | "0"), "{asked:?}");
    assert_eq!((knock.head.header("x-user"), knock.head.header("content-length")), ("eve", "5"));
    assert_eq!((reply.status, reply.text().as_str()), (201, "done"));
}

#[tokio::test]
async fn a_server_that_fails_or_says_nothing_lets_nobody_in() {
    let rig = rig("auth_timeout = \"1s\"").await;
    let ((_, _), refused) =
        tokio::join!(rig.judge.say("500 Internal Server Error"), Wire::open(rig.proxy.public, "/ws", &[]));
    assert_eq!(refused.unwrap_err().status, 503);
    let refused = Wire::open(rig.proxy.public, "/ws", &[]).await.unwrap_err();
    assert_eq!(refused.status, 503, "it is silent");
    drop(rig.judge);
    let refused = Wire::open(rig.proxy.public, "/ws", &[]).await.unwrap_err();
    assert_eq!(refused.status, 503, "it is gone");
    assert!(rig.worker.is_left_alone_for(Duration::from_millis(50)).await);
    let metrics = rig.proxy.metrics().await;
    let count = |result| metrics.sum("auth_requests_total", &[("route", "ws"), ("result", result)]);
    assert_eq!((count("failed"), count("timeout"), count("allowed")), (2.0, 1.0, 0.0));
}

#[tokio::test]
async fn so_many_are_asked_about_at_once_and_connections_are_used_again() {
    let rig = rig("auth_requests_max = 1").await;
    let (mut asking, (client, _wire)) = tokio::join!(
        async {
            let mut asking = rig.judge.accept().await;
            asking.question().await;
            let refused = Wire::open(rig.proxy.public, "/ws", &[]).await.unwrap_err();
            assert_eq!(refused.status, 503, "one is being asked about");
            asking.answer("200 OK").await;
            asking
        },
        async { tokio::join!(Wire::connect(rig.proxy.public, "/ws", &[]), rig.worker.accept()) }
    );
    let again = async {
        asking.question().await;
        asking.answer("200 OK").await;
    };
    let ((), _second, _wire) = tokio::join!(again, Wire::connect(rig.proxy.public, "/ws", &[]), rig.worker.accept());
    drop(client);
    assert_eq!((rig.count("full").await, rig.count("allowed").await), (1.0, 2.0));
}

#[tokio::test]
async fn a_client_is_named_by_what_the_server_says_of_it() {
    let rig = rig("client_id = \"{auth.x-user}\"").await;
    let (_, client, mut wire) = rig.let_in("/ws", &[], "200 OK\r\nX-User: eve").await;
    client.reset();
    rig.proxy.event_of(0, "pipe.client_detached").await;
    let (_, _other, _wire) = rig.let_in("/ws", &[("x-user", "eve")], "200 OK\r\nX-User: mallory").await;
    let ((_, _), mut client) = tokio::join!(
        rig.judge.say("200 OK\r\nX-User: eve"),
        Wire::connect(rig.proxy.public, "/ws", &[("x-user", "mallory")])
    );
    client.text("back").await;
    assert_eq!(wire.hear().await, Said::Text("back".into()));
}

#[tokio::test]
async fn a_token_is_good_for_the_user_that_the_server_names_and_for_no_other() {
    let rig = rig("").await;
    let answering = async { rig.worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\n").await };
    let ((_, _), mut client, mut wire) =
        tokio::join!(rig.judge.say("200 OK\r\nX-User: eve"), AwareClient::open(rig.proxy.public, "/ws"), answering);
    client.cut();
    rig.proxy.event_of(0, "pipe.client_detached").await;
    let hello = client.hello();
    let ((_, _), mut mallory) = tokio::join!(rig.judge.say("200 OK\r\nX-User: mallory"), client.knock(&hello));
    assert_eq!(mallory.hear().await, Said::Text(r#"!{"t":"reject","why":"unknown"}"#.into()));
    let ((_, _), ()) = tokio::join!(rig.judge.say("200 OK\r\nX-User: eve"), client.come_back());
    client.say("back").await;
    assert_eq!(wire.hear().await, Said::Text("back".into()));
}

#[tokio::test]
async fn a_client_without_a_socket_is_asked_about_when_it_says_hello_and_then_its_token_speaks_for_it() {
    let rig = rig("http_fallback = true").await;
    let hello = |body: &'static str| {
        let headers = [("content-type", "application/vnd.holdline+json"), ("cookie", "a=1")];
        async move { ask(rig.proxy.public, "POST", "/ws/a", &headers, body).await }
    };
    const HELLO: &str = r#"{"t":"hello","v":1}"#;
    let (denied, (asked, _)) = tokio::join!(hello(HELLO), rig.judge.say("401 Unauthorized\r\nX-User: eve"));
    assert_eq!((denied.status, denied.header("x-user")), (401, ""));
    assert_eq!((asked.header("x-forwarded-method"), asked.header("cookie")), ("POST", "a=1"));

    let judge = rig.judge.say("204 No Content\r\nX-User: eve");
    let (welcome, _, mut wire) = tokio::join!(hello(HELLO), judge, rig.worker.accept());
    assert_eq!(wire.head.header("x-user"), "eve", "the first request that reached the worker");
    let welcome = welcome.expect(200).json();
    let (pipe, token) = (welcome["id"].as_str().unwrap(), format!("Holdline {}", welcome["token"].as_str().unwrap()));
    let headers = [("holdline-pipe", pipe), ("authorization", &token)];
    ask(rig.proxy.public, "POST", "/ws/a", &headers, "{\"seq\":1,\"text\":\"in\"}").await.expect(200);
    assert_eq!(wire.hear().await, Said::Text("in".into()));
    let poll = format!("/ws/a?pipe={pipe}&after=0&wait=1ms");
    ask(rig.proxy.public, "GET", &poll, &headers, "").await.expect(204);
    assert_eq!((rig.count("allowed").await, rig.count("denied").await), (1.0, 1.0), "what follows is not asked about");
}
