//! What one client of HTTP/2 may do to the others: floods, windows, limits, and how connections are ended.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, Socket,
    WINDOW_UPDATE, block, get, give, request, websocket,
};
use crate::harness::{DemoWorker, Proxy, Said, StepWorker, Wire, ask, eventually};
use crate::http2::proxy;

const POOL: &str = "[[pools]]\nname = \"default\"\n";

/// Codes of RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The longest frame that a client may send (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 16 << 10;

/// More than all buffers between a client and a worker that reads nothing.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A socket on a connection of its own, and its worker's end, which have nothing to do with what others do.
async fn bystander(proxy: &Proxy, worker: &StepWorker) -> (Http2, Socket, Wire) {
    let http2 = Http2::connect(proxy.tls).await;
    let (socket, wire) = tokio::join!(http2.open("/ws/bystander", &[]), worker.accept());
    (http2, socket.unwrap(), wire)
}

async fn talk(socket: &mut Socket, wire: &mut Wire, rounds: usize) {
    for n in 0..rounds {
        socket.text(&n.to_string()).await;
        assert_eq!(wire.hear().await, Said::Text(n.to_string()));
        wire.text(&n.to_string()).await;
        assert_eq!(socket.hear().await, Said::Text(n.to_string()));
    }
}

#[tokio::test]
async fn a_connection_has_a_hundred_streams_and_one_more_is_refused_alone() {
    let (proxy, _files) = proxy("", "[limits]\naddress_rate = 0\n[[pools]]\nname = \"default\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut frames = Frames::connect(proxy.tls).await;
    let mut wires = VecDeque::new();
    for n in 0..100 {
        frames.send(HEADERS, END_HEADERS, 2 * n + 1, &block(&websocket("/ws"))).await.unwrap();
        wires.push_back(worker.accept().await);
    }
    frames.send(HEADERS, END_HEADERS, 201, &block(&websocket("/ws"))).await.unwrap();
    assert_eq!(frames.reset_of(201).await, REFUSED_STREAM);
    assert_eq!(proxy.metrics().await.sum("http2_streams", &[("kind", "websocket")]), 100.0);
    frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await.unwrap();
    frames.send(HEADERS, END_HEADERS, 203, &block(&websocket("/ws"))).await.unwrap();
    wires.push_back(worker.accept().await);
    let answer = frames.until(|frame| frame.stream == 203).await;
    assert_eq!(answer.kind, HEADERS, "{answer:?}");
    drop(wires);
}

#[tokio::test]
async fn streams_count_as_connections_and_a_connection_without_any_as_one() {
    let (proxy, _files) = proxy("max_connections = 3", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let connections = async || proxy.metrics().await.sum("connections", &[("listener", "public")]);
    let http2 = Http2::connect(proxy.tls).await;
    assert_eq!(connections().await, 1.0);
    let mut pairs = Vec::new();
    for n in 1..=3 {
        let (socket, wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
        pairs.push((socket.unwrap(), wire));
        assert_eq!(connections().await, f64::from(n));
    }
    assert_eq!(http2.open("/ws", &[]).await.unwrap_err().status, 503);
    ask(proxy.public, "GET", "/", &[], "").await.expect(503);
    pairs.clear();
    eventually("the connection alone", async || (connections().await == 1.0).then_some(())).await;
    let (socket, _wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
    drop(socket.unwrap());
    drop(http2);
    eventually("no connection", async || (connections().await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn an_address_has_no_more_pipes_for_having_one_connection() {
    let tables = "[limits]\naddress_connections = 2\n[[pools]]\nname = \"default\"\n";
    let (proxy, _files) = proxy("", tables);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let mut pairs = Vec::new();
    for _ in 0..2 {
        let (socket, wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
        pairs.push((socket.unwrap(), wire));
    }
    let refused = http2.open("/ws", &[]).await.unwrap_err();
    assert_eq!(refused.status, 429, "{}", refused.text());
}

#[tokio::test]
async fn requests_that_are_taken_back_by_the_thousand_end_their_connection_and_harm_no_other() {
    let (proxy, _files) = proxy("", "[limits]\naddress_rate = 0\n[[pools]]\nname = \"default\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_http2, mut socket, mut wire) = bystander(&proxy, &worker).await;
    let dials = tokio::spawn(async move {
        let mut knocks = Vec::new();
        loop {
            knocks.push(worker.knock_unbounded().await);
        }
    });
    for at_once in [1, 10, 1000] {
        let mut frames = Frames::connect(proxy.tls).await;
        let (mut stream, mut refused) = (1, false);
        while stream < 10_000 && !refused {
            let mut bytes = Vec::new();
            for _ in 0..at_once {
                bytes.extend(Frames::encode(HEADERS, END_HEADERS, stream, &block(&websocket("/ws"))));
                bytes.extend(Frames::encode(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                stream += 2;
            }
            refused = frames.send_raw(&bytes).await.is_err();
            talk(&mut socket, &mut wire, 1).await;
        }
        // What was written behind the end may have thrown the word away that tells why.
        let code = frames.goodbye().await;
        assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    }
    talk(&mut socket, &mut wire, 50).await;
    eventually("three connections that were ended", async || {
        let counted = proxy.metrics().await;
        let ends = ["taken_back", "protocol"].map(|end| counted.sum("http2_connection_ends_total", &[("reason", end)]));
        (ends.iter().sum::<f64>() == 3.0).then_some(())
    })
    .await;
    dials.abort();
}

#[tokio::test]
async fn requests_that_are_taken_back_from_their_worker_by_the_hundred_end_their_connection() {
    let (proxy, _files) = proxy("", "[limits]\naddress_rate = 0\n[[pools]]\nname = \"default\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut frames = Frames::connect(proxy.tls).await;
    let mut streams = (0_u32..).map(|n| 2 * n + 1);
    let mut knocks = Vec::new();
    // So many at once that what is forgiven meanwhile is less, however slow the machine.
    let code = loop {
        let batch: Vec<u32> = streams.by_ref().take(90).collect();
        for stream in &batch {
            frames.send(HEADERS, END_HEADERS, *stream, &block(&websocket("/ws"))).await.unwrap();
        }
        for _ in &batch {
            knocks.push(worker.knock().await);
        }
        let resets = batch.iter().flat_map(|stream| Frames::encode(RST_STREAM, 0, *stream, &CANCEL.to_be_bytes()));
        frames.send_raw(&resets.collect::<Vec<u8>>()).await.unwrap();
        eventually("all are taken back", async || {
            let counted = proxy.metrics().await.sum("http2_streams_total", &[("result", "reset")]);
            (counted == knocks.len() as f64).then_some(())
        })
        .await;
        if let Some(code) = frames.goodbye_before_pings(2).await {
            break code;
        }
    };
    assert!(knocks.len() > 200, "{} are not too many", knocks.len());
    assert_eq!(code, ENHANCE_YOUR_CALM);
    let taken_back = [("reason", "taken_back")];
    eventually("it is counted", async || {
        (proxy.metrics().await.sum("http2_connection_ends_total", &taken_back) == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn heads_without_an_end_and_heads_that_are_too_long_have_exact_answers() {
    let (proxy, _files) = proxy("header_bytes_max = \"8KiB\"", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_http2, mut socket, mut wire) = bystander(&proxy, &worker).await;
    // Many pieces, each of almost nothing.
    let mut frames = Frames::connect(proxy.tls).await;
    frames.send(HEADERS, END_STREAM, 1, &block(&get("/"))).await.unwrap();
    let mut sent = 0;
    while sent < 100_000 && frames.send(CONTINUATION, 0, 1, &[]).await.is_ok() {
        sent += 1;
        if sent % 1000 == 0 {
            talk(&mut socket, &mut wire, 1).await;
        }
    }
    let code = frames.goodbye().await;
    assert!(sent < 100_000 && code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{sent} {code:?}");
    // A head that is twice as long as it may be is answered, and the connection goes on.
    let http2 = Http2::connect(proxy.tls).await;
    let long = "x".repeat(120);
    let headers = vec![("a", long.as_str()); 100];
    http2.ask(request("GET", "/", &headers), b"", None).await.0.expect(431);
    http2.ask(request("GET", "/", &headers[..60]), b"", None).await.0.expect(431);
    let (reply, ()) = tokio::join!(http2.ask(request("GET", "/", &headers[..40]), b"", None), async {
        worker.knock().await.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    reply.0.expect(200);
    talk(&mut socket, &mut wire, 10).await;
}

#[tokio::test]
async fn games_with_windows_end_what_they_are_played_with() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_http2, mut socket, mut wire) = bystander(&proxy, &worker).await;
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let opened = async || {
        let mut frames = Frames::connect(proxy.tls).await;
        frames.send(HEADERS, END_HEADERS, 1, &block(&websocket("/ws"))).await.unwrap();
        (frames, worker.accept().await)
    };
    // A stream's window beyond all numbers resets the stream, the connection's ends it.
    let (mut frames, _first) = opened().await;
    frames.send(WINDOW_UPDATE, 0, 1, &most).await.unwrap();
    assert_eq!(frames.reset_of(1).await, FLOW_CONTROL_ERROR);
    frames.send(WINDOW_UPDATE, 0, 0, &most).await.unwrap();
    assert_eq!(frames.goodbye().await, Some(FLOW_CONTROL_ERROR));
    // By nothing.
    let (mut frames, _second) = opened().await;
    frames.send(WINDOW_UPDATE, 0, 0, &[0; 4]).await.unwrap();
    assert_eq!(frames.goodbye().await, Some(PROTOCOL_ERROR));
    // More than the window, of a body that its worker does not read.
    let mut frames = Frames::connect(proxy.tls).await;
    let mut post = get("/up");
    post[0].1 = "POST";
    frames.send(HEADERS, END_HEADERS, 1, &block(&post)).await.unwrap();
    let unread = worker.knock().await;
    let mut sent = 0;
    while sent < BODY_BYTES_MAX && frames.send(DATA, 0, 1, &[1; FRAME_BYTES]).await.is_ok() {
        sent += FRAME_BYTES;
    }
    let code = loop {
        match frames.next().await {
            Some(frame) if frame.kind == RST_STREAM => break Some(frame.payload),
            Some(frame) if frame.kind == GOAWAY => break Some(frame.payload[4..8].to_vec()),
            Some(_) => {}
            // What was written behind the end may have thrown the word away that tells why.
            None => break None,
        }
    };
    assert!(code.as_ref().is_none_or(|code| code[..] == FLOW_CONTROL_ERROR.to_be_bytes()), "{code:?}");
    drop(unread);
    talk(&mut socket, &mut wire, 10).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_nothing_until_it_does() {
    let (proxy, _files) = proxy("", POOL);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut frames = Frames::connect(proxy.tls).await;
    // INITIAL_WINDOW_SIZE = 0.
    frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await.unwrap();
    let path = "/api/sessions/s1/download";
    let before = proxy.memory_kib("VmRSS");
    for n in 0..100 {
        frames.send(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block(&get(path))).await.unwrap();
    }
    for _ in 0..100 {
        frames.until(|frame| frame.kind == HEADERS).await;
    }
    let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
    println!("100 downloads that nothing is taken of hold {grown} KiB");
    assert!(grown < 100 * 640, "{grown} KiB: each holds a window and a worker's connection at most");
    frames.send(WINDOW_UPDATE, 0, 199, &1000_u32.to_be_bytes()).await.unwrap();
    let data = frames.until(|frame| frame.kind == DATA).await;
    assert_eq!((data.stream, data.payload.len()), (199, 1000));
}

#[tokio::test]
async fn pings_and_settings_by_the_thousand_cost_no_memory_though_no_answer_is_read() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_http2, mut socket, mut wire) = bystander(&proxy, &worker).await;
    let before = proxy.memory_kib("VmRSS");
    let mut floods = Vec::new();
    for (kind, payload) in [(PING, &[7; 8][..]), (SETTINGS, &[][..])] {
        let mut frames = Frames::connect(proxy.tls).await;
        let burst = Frames::encode(kind, 0, 0, payload).repeat(1000);
        floods.push(tokio::spawn(async move {
            // Up to where it waits for the client to read, which it does not.
            for _ in 0..10_000 {
                if frames.send_unbounded(&burst).await.is_err() {
                    break;
                }
            }
            frames
        }));
    }
    for _ in 0..20 {
        talk(&mut socket, &mut wire, 50).await;
    }
    let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
    println!("two floods that are not read made resident memory {grown} KiB larger");
    assert!(grown < 16 << 10, "{grown} KiB");
    for flood in floods {
        flood.abort();
    }
}

#[tokio::test]
async fn a_connection_is_told_twice_that_it_ends_and_its_sockets_live_on() {
    let (proxy, _files) = proxy("close_spread = \"0s\"", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut frames = Frames::connect(proxy.tls).await;
    frames.send(HEADERS, END_HEADERS, 1, &block(&websocket("/ws"))).await.unwrap();
    let mut wire = worker.accept().await;
    let answer = frames.until(|frame| frame.stream == 1).await;
    assert_eq!(answer.kind, HEADERS);
    proxy.api("PUT", "/v1/drain", None).await;
    let first = frames.until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(first.payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let ping = frames.until(|frame| frame.kind == PING && frame.flags == 0).await;
    frames.send(PING, 1, 0, &ping.payload).await.unwrap();
    let second = frames.until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(second.payload, [0, 0, 0, 1, 0, 0, 0, 0]);
    frames.send(DATA, 0, 1, &Socket::encode(1, b"still here")).await.unwrap();
    assert_eq!(wire.hear().await, Said::Text("still here".into()));
    wire.text("and answered").await;
    let data = frames.until(|frame| frame.kind == DATA && frame.payload.len() > 6).await;
    assert!(data.payload.ends_with(b"and answered"));
}

/// Connections that are to go, each with a socket.
const LEAVING: usize = 20;

/// From one look at all of them to the next, of many within the spread.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A connection with one socket, and its worker's end.
struct Leaving {
    frames: Frames,
    wire: Wire,
    /// How often it was told to go.
    told: usize,
}

impl Leaving {
    async fn open(proxy: &Proxy, worker: &StepWorker) -> Self {
        let mut frames = Frames::connect(proxy.tls).await;
        frames.send(HEADERS, END_HEADERS, 1, &block(&websocket("/ws"))).await.unwrap();
        Self { wire: worker.accept().await, frames, told: 0 }
    }

    /// Both sides say something, and hear it; words of the connection that come before are taken in.
    async fn talk(&mut self, text: &str) {
        self.frames.send(DATA, 0, 1, &Socket::encode(1, text.as_bytes())).await.unwrap();
        assert_eq!(self.wire.hear().await, Said::Text(text.into()));
        self.wire.text(text).await;
        loop {
            let frame = self.frames.next().await.expect("its socket keeps it");
            match frame.kind {
                GOAWAY => {
                    assert_eq!(frame.payload[4..], [0; 4], "it did nothing wrong");
                    self.told += 1;
                }
                PING if frame.flags == 0 => self.frames.send(PING, 1, 0, &frame.payload).await.unwrap(),
                DATA if frame.payload.ends_with(text.as_bytes()) => return,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn connections_are_told_to_go_over_the_whole_spread_and_their_sockets_go_on() {
    let tables = "[limits]\naddress_rate = 0\n[[pools]]\nname = \"default\"\n";
    let (proxy, _files) = proxy("close_spread = \"8s\"", tables);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    for _ in 0..LEAVING {
        clients.push(Leaving::open(&proxy, &worker).await);
    }
    proxy.api("PUT", "/v1/drain", None).await;
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    // How many had been told at each look. Told at once, one look at most would find some of them so and others not.
    let mut told = Vec::new();
    while clients.iter().any(|client| client.told < 2) {
        looks.tick().await;
        for client in &mut clients {
            client.talk(&format!("look {}", told.len())).await;
        }
        told.push(clients.iter().filter(|client| client.told > 0).count());
    }
    let amid = told.iter().filter(|&&count| (1..LEAVING).contains(&count)).count();
    assert!(amid > 3, "told one after the other: {told:?}");
    assert!(clients.iter().all(|client| client.told == 2));
    let going = [("reason", "going_away")];
    assert_eq!(proxy.metrics().await.sum("http2_connection_ends_total", &going), 0.0, "each has its socket");
    for Leaving { mut frames, wire, .. } in clients {
        frames.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await.unwrap();
        frames.until_end().await;
        drop(wire);
    }
    eventually("they have ended", async || {
        let ended = proxy.metrics().await.sum("http2_connection_ends_total", &going);
        (ended == LEAVING as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_closes_the_sockets_and_then_the_connection() {
    let (mut proxy, _files) = proxy("close_spread = \"0s\"", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut http2 = Http2::connect(proxy.tls).await;
    let (socket, _wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
    let mut socket = socket.unwrap();
    proxy.signal(Signal::TERM);
    assert!(matches!(socket.hear().await, Said::Close(1001, _)));
    give(&mut socket.send, Socket::encode(8, &1001_u16.to_be_bytes())).await.unwrap();
    assert_eq!(socket.hear().await, Said::Gone);
    drop(socket);
    http2.ended().await;
    assert!(proxy.exited().await.success());
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_a_while_and_one_with_a_socket_is_not() {
    let (proxy, _files) = proxy("keepalive_timeout = \"2s\"", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_http2, mut socket, mut wire) = bystander(&proxy, &worker).await;
    let mut idle = Http2::connect(proxy.tls).await;
    idle.ended().await;
    let mut silent = Frames::connect(proxy.tls).await;
    assert_eq!(silent.goodbye().await, Some(0));
    // Though it answers no ping.
    silent.until_end().await;
    talk(&mut socket, &mut wire, 10).await;
    let idle = [("reason", "idle")];
    eventually("both are counted", async || {
        (proxy.metrics().await.sum("http2_connection_ends_total", &idle) == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_begin_is_closed_in_time() {
    let (proxy, _files) = proxy("handshake_timeout = \"3s\"", POOL);
    let mut silent = Frames::silent(proxy.tls).await;
    silent.until_end().await;
    let mut wrong = Frames::silent(proxy.tls).await;
    wrong.send_raw(b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n").await.unwrap();
    wrong.until_end().await;
    for reason in ["timed_out", "protocol"] {
        eventually(reason, async || {
            let counted = proxy.metrics().await.sum("http2_connection_ends_total", &[("reason", reason)]);
            (counted == 1.0).then_some(())
        })
        .await;
    }
}
