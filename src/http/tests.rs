//! Real sockets on both sides: a client that writes bytes, a front that relays, workers that follow a script.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::health::HealthSettings;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::backends::{Ask, BackendSpec, Backends, Bounds, PoolSpec, ProbeSettings, Reservation, Setup, StateChange};
use crate::clock::Clock;
use crate::config::Config;
use crate::handshake::client_address::TrustedProxies;
use crate::net::Networks;
use crate::routes::{RouteSpec, RouteTable};

mod kept;
mod passing;

/// A worker that the test plays by hand.
struct Worker {
    listener: TcpListener,
    address: SocketAddr,
}

impl Worker {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { listener, address }
    }

    async fn accept(&self) -> Connection {
        let stream = self.listener.accept().await.expect("a connection").0;
        stream.set_nodelay(true).expect("each write leaves at once");
        Connection(stream)
    }

    /// Takes one connection and one request, answers it and closes.
    async fn answer(&self, answer: &str) -> String {
        let mut connection = self.accept().await;
        let head = connection.head().await;
        connection.write(answer).await;
        head
    }
}

/// Either end of a connection, spoken by hand.
struct Connection(TcpStream);

impl Connection {
    /// A message's head, without the empty line.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a whole head"));
        }
        String::from_utf8(head).expect("text").trim_end().to_owned()
    }

    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.expect("as many bytes");
        bytes
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("written");
    }

    /// Everything up to the other side's end if there is to be one.
    async fn rest_if(&mut self, ends: bool) -> String {
        if ends { self.rest().await } else { String::new() }
    }

    /// Everything up to the other side's end, an RST counting as one.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).expect("text")
    }
}

/// What stands between: the public listener's part of the work.
struct Front {
    address: SocketAddr,
    backends: Backends,
    server: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    /// A front before `workers`, called w0, w1…; `change` says what is not as usual.
    async fn new(workers: &[&Worker], change: impl FnOnce(&mut RouteSpec, &mut PoolSpec, &mut HttpTimeouts)) -> Self {
        let config = Config::default();
        let mut route = config.route_specs().remove(0);
        let mut pool = pool(workers);
        let mut timeouts = HttpTimeouts { connect: Duration::from_secs(5), answer: Duration::from_secs(20) };
        change(&mut route, &mut pool, &mut timeouts);
        let bounds = Bounds { deaths_per_window: 0, ..Bounds::default() };
        let setup = Setup { pools: vec![pool], networks: Networks::new(Vec::new()), bounds };
        let backends = Backends::new(&setup, Clock::start(), |_| {}, |_, _| {});
        let phase = crate::phase::PhaseCell::default().watch();
        let waiting = crate::waiting::Waiting::new(backends.clone(), Arc::default(), phase, 0);
        let context = HttpContext::new(backends.clone(), timeouts, Arc::new(waiting));
        let table = Arc::new(RouteTable::compile(vec![route]).expect("a good route"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, context.clone(), table.clone()));
            }
        });
        Self { address, backends, server }
    }

    async fn plain(workers: &[&Worker]) -> Self {
        Self::new(workers, |_, _, _| {}).await
    }

    async fn keyed(workers: &[&Worker]) -> Self {
        Self::new(workers, |route, _, _| route.key = Some("{query.k}".into())).await
    }

    async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.expect("the front listens"))
    }

    /// Sends a request that is the connection's last, and gives everything that comes back.
    async fn ask(&self, method: &str, path: &str, more: &str) -> String {
        let mut connection = self.connect().await;
        connection
            .write(&format!("{method} {path} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{more}\r\n"))
            .await;
        connection.rest().await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await
    }

    fn pipe(&self, key: &str) -> Reservation {
        self.backends.choose("default", &Ask { key: Some(key), ..Ask::default() }).expect("a backend")
    }
}

fn pool(workers: &[&Worker]) -> PoolSpec {
    let backend = |(index, worker): (usize, &&Worker)| {
        let url = format!("ws://{}", worker.address).parse().expect("a URL");
        (Arc::from(format!("w{index}")), BackendSpec::new(url, "default"))
    };
    PoolSpec {
        probes: ProbeSettings { interval: Duration::ZERO, ..ProbeSettings::default() },
        health: HealthSettings { eject_after: 100, ..HealthSettings::default() },
        backends: workers.iter().enumerate().map(backend).collect(),
        ..PoolSpec::new("default")
    }
}

async fn serve(stream: TcpStream, context: HttpContext, table: Arc<RouteTable>) {
    let peer = stream.peer_addr().expect("a peer").ip();
    let talk: Arc<Talk> = Arc::default();
    let service = service_fn(async |request: Request<Incoming>| {
        talk.asked(request.version(), false);
        let (parts, body) = request.map(|body| RequestBody::new(body, &talk)).into_parts();
        let client = TrustedProxies::default().trace(crate::net::Peer::plain(peer), &parts);
        let found = table.find(None, &parts, Ipv4Addr::LOCALHOST.into()).expect("every path has a route");
        let caller = Caller { address: &client, talk: &talk };
        let response = relay(Request::from_parts(parts, body), &context, &found, caller).await;
        let status = response.status();
        Ok::<_, std::convert::Infallible>(response.map(|body| talk.answering(status, body)))
    });
    let patience = Patience { head: Duration::from_secs(30), next: Duration::from_secs(30) };
    let socket = TokioIo::new(ClientSocket::new(stream, talk.clone(), patience, patience.head));
    // A client that goes away is an error here, and daily life.
    let _ = http1::Builder::new().half_close(true).header_read_timeout(None).serve_connection(socket, service).await;
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body)
}

fn has_line(head: &str, wanted: &str) -> bool {
    head.lines().any(|line| line.eq_ignore_ascii_case(wanted))
}

/// Fails instead of hanging; nothing here takes a hundredth of it.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it ends by itself")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn ib_20_status_headers_and_body_are_the_workers() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let (head, answer) = tokio::join!(
        worker.answer("HTTP/1.1 403 Keep Out\r\nX-Why: z\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nHoldline-X: 1\r\nContent-Length: 4\r\n\r\nnope"),
        front.ask("GET", "/a%20b//c?x=1", "Cookie: a=1\r\nTE: gzip\r\nX-Forwarded-For: 6.6.6.6\r\nHoldline-Pipe: x\r\nExpect: x\r\n"),
    );
    assert_eq!((status(&answer), body(&answer)), ("403", "nope"));
    assert!(has_line(&answer, "x-why: z") && !answer.contains("x-hop") && !answer.contains("holdline"), "{answer}");
    assert!(head.starts_with("GET /a%20b//c?x=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: app.example", "cookie: a=1", "x-forwarded-for: 127.0.0.1", "x-forwarded-host: app.example"] {
        assert!(has_line(&head, line), "{line} is missing: {head}");
    }
    for gone in ["te:", "holdline-pipe", "6.6.6.6", "connection: close", "expect"] {
        assert!(
            !head.to_lowercase().lines().any(|line| line.starts_with(gone)) && !head.contains("6.6.6.6"),
            "{gone}: {head}"
        );
    }
}

#[tokio::test]
async fn answers_without_a_body_and_of_unknown_length_pass() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for (method, sent, expected_status, expected_body) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "200", ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", "304", ""),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nuntil the end", "200", "D\r\nuntil the end\r\n0\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "200",
            "2\r\nok\r\n0\r\n\r\n",
        ),
    ] {
        let (_, answer) = tokio::join!(worker.answer(sent), front.ask(method, "/", ""));
        assert_eq!((status(&answer), body(&answer)), (expected_status, expected_body), "{sent}");
        assert_eq!(has_line(&answer, "content-length: 5000"), method == "HEAD");
    }
}

#[tokio::test]
async fn ib_18_bodies_are_streamed_both_ways() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let mut client = front.connect().await;
    client.write("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
    let mut backend = soon(worker.accept()).await;
    let head = backend.head().await;
    assert!(has_line(&head, "content-length: 6"), "{head}");
    assert_eq!(soon(backend.read(3)).await, b"one", "it does not wait for the rest");
    client.write("two").await;
    assert_eq!(soon(backend.read(3)).await, b"two");
    backend.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nthr").await;
    assert_eq!(status(&soon(client.head()).await), "200");
    assert_eq!(soon(client.read(3)).await, b"thr");
    backend.write("ee!").await;
    assert_eq!(soon(client.read(3)).await, b"ee!");
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_whatever_the_method() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for method in ["GET", "POST", "DELETE"] {
        let serve = async {
            let mut connection = worker.accept().await;
            let head = connection.head().await;
            assert!(has_line(&head, "transfer-encoding: chunked"), "{method}: {head}");
            let mut sent = Vec::new();
            while !sent.ends_with(b"0\r\n\r\n") {
                sent.extend(connection.read(1).await);
            }
            connection.write(OK).await;
            String::from_utf8(sent).expect("text")
        };
        let ask = front.ask(method, "/", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n");
        let (sent, answer) = soon(async { tokio::join!(serve, ask) }).await;
        assert_eq!((status(&answer), sent.as_str()), ("200", "3\r\nabc\r\n0\r\n\r\n"), "{method}");
    }
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_reach_the_backend() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for order in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"]
    {
        let serve = async {
            let mut connection = worker.accept().await;
            let head = connection.head().await;
            assert_eq!(connection.read(5).await, b"0\r\n\r\n");
            connection.write(OK).await;
            head
        };
        let more = format!("{order}\r\n0\r\n");
        let (head, answer) = soon(async { tokio::join!(serve, front.ask("POST", "/", &more)) }).await;
        assert!(!head.to_lowercase().contains("content-length"), "{head}");
        assert_eq!(status(&answer), "200");
    }
}

#[tokio::test]
async fn ib_18_large_bodies_keep_every_byte() {
    const BYTES: usize = 8 << 20;
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let pattern: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
    let echo = async {
        let mut connection = worker.accept().await;
        connection.head().await;
        let body = connection.read(BYTES).await;
        connection.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")).await;
        connection.0.write_all(&body).await.expect("written");
    };
    let ask = async {
        let mut client = front.connect().await;
        client.write(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n")).await;
        client.0.write_all(&pattern).await.expect("written");
        assert_eq!(status(&client.head().await), "200");
        assert!(client.read(BYTES).await == pattern);
    };
    soon(async { tokio::join!(echo, ask) }).await;
}

#[tokio::test]
async fn lp_03_a_client_that_goes_away_cancels_the_backend_request() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for answered in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"] {
        let mut client = front.connect().await;
        client.write("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut backend = soon(worker.accept()).await;
        backend.head().await;
        backend.write(answered).await;
        if !answered.is_empty() {
            client.head().await;
        }
        drop(client);
        assert_eq!(soon(backend.rest()).await, "", "the backend's connection is closed: {answered:?}");
    }
}

#[tokio::test]
async fn px_08_a_client_that_goes_away_amid_its_upload_cancels_it() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let mut client = front.connect().await;
    client.write("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut backend = soon(worker.accept()).await;
    backend.head().await;
    drop(client);
    assert_eq!(soon(backend.rest()).await, "half");
}

#[tokio::test]
async fn lp_04_a_worker_that_dies_while_it_holds_a_poll_is_502_at_once() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for sent in ["", "HTTP/1.1 200 OK\r\nContent-"] {
        let (_, answer) = soon(async { tokio::join!(worker.answer(sent), front.get("/poll")) }).await;
        assert_eq!(status(&answer), "502", "{sent:?}: {answer}");
        assert!(answer.contains("urn:holdline:problem:backend-"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_passed_as_whole() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    let sent = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    let (_, answer) = soon(async { tokio::join!(worker.answer(sent), front.get("/")) }).await;
    assert!(answer.contains("200") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_length_beside_chunks_does_not_reach_the_client() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for lengths in
        ["Content-Length: 2\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 2"]
    {
        let sent = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n5\r\nwhole\r\n0\r\n\r\n");
        let (_, answer) = soon(async { tokio::join!(worker.answer(&sent), front.get("/")) }).await;
        assert_eq!((status(&answer), body(&answer)), ("200", "5\r\nwhole\r\n0\r\n\r\n"), "{lengths}");
        assert!(!answer.to_lowercase().contains("content-length"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_502() {
    let worker = Worker::new().await;
    let front = Front::plain(&[&worker]).await;
    for sent in
        ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"]
    {
        let (_, answer) = soon(async { tokio::join!(worker.answer(sent), front.get("/")) }).await;
        assert_eq!(status(&answer), "502", "{sent}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_504() {
    let worker = Worker::new().await;
    let front = Front::new(&[&worker], |_, _, timeouts| timeouts.answer = Duration::from_millis(20)).await;
    let hold = async {
        let mut connection = worker.accept().await;
        connection.head().await;
        connection.rest().await
    };
    let (held, answer) = soon(async { tokio::join!(hold, front.get("/")) }).await;
    assert_eq!((status(&answer), held.as_str()), ("504", ""));
}

#[tokio::test]
async fn an_upload_that_stands_still_is_408() {
    let worker = Worker::new().await;
    let front = Front::new(&[&worker], |_, _, timeouts| timeouts.answer = Duration::from_millis(20)).await;
    let mut client = front.connect().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut backend = soon(worker.accept()).await;
    backend.head().await;
    assert_eq!(status(&soon(client.head()).await), "408");
    assert_eq!(soon(backend.rest()).await, "half");
}

#[tokio::test]
async fn ib_19_requests_follow_the_pipes_of_their_key() {
    let workers = [Worker::new().await, Worker::new().await, Worker::new().await];
    let front = Front::new(&[&workers[0], &workers[1], &workers[2]], |route, pool, _| {
        route.key = Some("{query.k}".into());
        pool.max_pipes_per_backend = 1;
    })
    .await;
    let pipes = ["a", "b", "c"].map(|key| (key, front.pipe(key)));
    for (key, pipe) in &pipes {
        let owner = &workers[pipe.id()[1..].parse::<usize>().expect("a number")];
        for drained in [false, true] {
            if drained {
                let drain = StateChange {
                    state: holdline_core::pool::AdminState::Drain,
                    pipes: crate::backends::PipesWish::Keep,
                    deadline: None,
                };
                front.backends.set_state(pipe.id(), crate::backends::Expect::Anything, drain).expect("drained");
            }
            let path = format!("/?k={key}");
            let post = front.ask("POST", &path, "Content-Length: 0\r\n");
            let (_, answer) = soon(async { tokio::join!(owner.answer(OK), post) }).await;
            assert_eq!(status(&answer), "200", "full backends and drained ones keep their keys' requests");
        }
    }
}

#[tokio::test]
async fn a_pipe_follows_the_requests_of_its_key() {
    let workers = [Worker::new().await, Worker::new().await, Worker::new().await, Worker::new().await];
    let front = Front::keyed(&[&workers[0], &workers[1], &workers[2], &workers[3]]).await;
    let serve = async |index: usize| {
        workers[index].answer(OK).await;
        index
    };
    for key in ["a", "b", "c", "d", "e", "f"] {
        let first = async {
            tokio::select! {
                index = serve(0) => index,
                index = serve(1) => index,
                index = serve(2) => index,
                index = serve(3) => index,
            }
        };
        let path = format!("/?k={key}");
        let (owner, _) = soon(async { tokio::join!(first, front.ask("POST", &path, "Content-Length: 0\r\n")) }).await;
        assert_eq!(front.pipe(key).id().as_ref(), format!("w{owner}"));
    }
}

#[tokio::test]
async fn ib_08_a_request_is_rewritten_to_the_alias_of_its_key() {
    let worker = Worker::new().await;
    let front = Front::new(&[&worker], |route, pool, _| {
        route.paths = vec!["/sessions/{udid}/{*rest}".into()];
        route.key = Some("{udid}".into());
        pool.backends[0].1.serves = holdline_core::pool::Serves::from_keys([(Arc::from("u1"), Some(Arc::from("s-9")))]);
        pool.backends[0].1.weight = NonZeroU32::MIN;
    })
    .await;
    let (head, answer) = soon(async { tokio::join!(worker.answer(OK), front.get("/sessions/u1/shot?x=1")) }).await;
    assert!(head.starts_with("GET /sessions/s-9/shot?x=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(status(&answer), "200");
    let nobody = soon(front.get("/sessions/u2/shot")).await;
    assert_eq!(status(&nobody), "404", "no backend serves this key");
    assert!(has_line(&nobody, "content-type: application/problem+json"), "{nobody}");
}
