//! HTTP/2: WebSockets on streams (RFC 8441), and what a pipe makes of a stream's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use h2::client::Builder;

use crate::harness::aware::AwareClient;
use crate::harness::http2::{Bridge, Http2, NAME, Socket, give};
use crate::harness::tls::{TlsFiles, params, signed_by_itself};
use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually, within};
use crate::tls;

/// A route whose clients have names, and come back by them.
const NAMED: &str = "[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
                     path = \"/ws/{client}\"\npool = \"default\"\nclient_id = \"{client}\"\n";

const POOL: &str = "[[pools]]\nname = \"default\"\n";

/// A proxy that speaks HTTP/2, with more lines of `[server]`, and other tables behind.
pub fn proxy(server: &str, tables: &str) -> (Proxy, TlsFiles) {
    let files = TlsFiles::new();
    let own = signed_by_itself(&params(&["example.test"]));
    (tls::proxy(&files.pair("own", &own), &format!("http2 = true\n{server}"), tables), files)
}

#[tokio::test]
async fn a_conversation_goes_over_a_stream_and_its_worker_sees_an_ordinary_handshake() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let bridge = Bridge::over(&http2).await;
    let offers = [("sec-websocket-protocol", "chat, other"), ("cookie", "a=1"), ("x-own", "kept")];
    let (mut client, mut wire) = tokio::join!(Wire::connect(bridge.address, "/ws?q=1", &offers), async {
        worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\nX-Worker: w\r\n").await
    });
    assert_eq!(wire.head.line, "GET /ws?q=1 HTTP/1.1");
    for (name, value) in [
        ("host", "example.test"),
        ("x-forwarded-proto", "https"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, other"),
        ("cookie", "a=1"),
        ("x-own", "kept"),
    ] {
        assert!(wire.head.header(name).eq_ignore_ascii_case(value), "{name}: {:?}", wire.head);
    }
    assert!(!wire.head.headers.iter().any(|(name, _)| name.starts_with(':')), "{:?}", wire.head);
    assert_eq!(client.head.header("sec-websocket-protocol"), "chat");
    assert_eq!(client.head.header("x-worker"), "w");
    for size in [0, 1, 200, 70_000, 3_000_000] {
        let message = "m".repeat(size);
        client.text(&message).await;
        assert_eq!(wire.hear().await, Said::Text(message.clone()));
        wire.text(&message).await;
        assert_eq!(client.hear().await, Said::Text(message));
    }
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    wire.close(1000, "bye").await;
    assert_eq!(client.hear().await, Said::Close(1000, "bye".into()));
    assert_eq!(client.hear().await, Said::Gone, "the stream ends behind the close frame");
    assert_eq!(proxy.metrics().await.sum("http2_streams_total", &[("result", "websocket")]), 1.0);
}

#[tokio::test]
async fn the_answer_to_an_extended_connect_has_nothing_of_an_upgrade() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let (socket, _wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
    let mut socket = socket.unwrap();
    let names: Vec<_> = socket.head.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["date"], "no Upgrade, no Connection, no key");
    socket.reset();
}

#[tokio::test]
async fn a_worker_dies_under_several_sockets_of_one_connection_and_nothing_is_lost() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let mut pairs = Vec::new();
    for n in 0..5 {
        let path = format!("/ws/{n}");
        let (socket, wire) = tokio::join!(http2.open(&path, &[]), worker.accept());
        pairs.push((path, socket.unwrap(), wire));
    }
    for (path, socket, wire) in &mut pairs {
        socket.text(&format!("first on {path}")).await;
        assert_eq!(wire.hear().await, Said::Text(format!("first on {path}")));
        wire.pong_once().await;
        // This one is read, and not confirmed.
        wire.pongs = false;
        socket.text(&format!("second on {path}")).await;
        assert_eq!(wire.hear().await, Said::Text(format!("second on {path}")));
    }
    let mut clients = Vec::new();
    for (path, socket, wire) in pairs {
        wire.reset();
        clients.push((path, socket));
    }
    let mut again = Vec::new();
    for _ in 0..clients.len() {
        again.push(worker.accept().await);
    }
    for (path, socket) in &mut clients {
        let wire = again.iter_mut().find(|wire| wire.head.path() == path).unwrap();
        assert_eq!(wire.hear().await, Said::Text(format!("second on {path}")));
        wire.text(&format!("answer on {path}")).await;
        assert_eq!(socket.hear().await, Said::Text(format!("answer on {path}")));
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_a_close_frame_is_a_lost_link_however_it_ends() {
    let (proxy, _files) = proxy("threads = 4", NAMED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut http2 = Http2::connect(proxy.tls).await;
    let (socket, mut wire) = tokio::join!(http2.open("/ws/c1", &[]), worker.accept());
    let mut socket = Some(socket.unwrap());
    // With four threads, some of so many connections come in on another one than the pipe's.
    for round in 0..12 {
        let mut lost = socket.take().unwrap();
        match round % 3 {
            0 => lost.reset(),
            1 => lost.end(),
            // With the whole connection, without a word.
            _ => http2 = Http2::connect(proxy.tls).await,
        }
        proxy.pipe_that("it waits for its client", |pipe| pipe["state"] == "client_detached").await;
        let sent = format!("{round} {}", "x".repeat(100_000));
        wire.text(&sent).await;
        let mut back = http2.open("/ws/c1", &[]).await.unwrap();
        // What it had not confirmed may come again before.
        while back.hear().await != Said::Text(sent.clone()) {}
        back.text(&sent).await;
        socket = Some(back);
        while wire.hear().await != Said::Text(sent.clone()) {}
    }
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &[("result", "resumed")]), 12.0);
    // By HTTP/1.1, and back, in place of the link that there is.
    let mut plain = Wire::connect(proxy.public, "/ws/c1", &[]).await;
    plain.text("by HTTP/1.1").await;
    while wire.hear().await != Said::Text("by HTTP/1.1".into()) {}
    let mut back = http2.open("/ws/c1", &[]).await.unwrap();
    back.text("by HTTP/2").await;
    while wire.hear().await != Said::Text("by HTTP/2".into()) {}
    assert_eq!(proxy.metrics().await.sum("client_resumes_total", &[]), 14.0);
}

#[tokio::test]
async fn a_stream_that_stands_still_holds_up_no_other_and_costs_its_worker_nothing() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    // Else what stands still would be all that the client takes on the connection.
    let http2 = Http2::by(proxy.tls, NAME, Builder::new().initial_connection_window_size(1 << 20)).await;
    let (stalled, mut first) = tokio::join!(http2.open("/ws/stalled", &[]), worker.accept());
    let mut stalled = stalled.unwrap();
    let (socket, mut second) = tokio::join!(http2.open("/ws/live", &[]), worker.accept());
    let mut socket = socket.unwrap();
    // Down: the client takes nothing of it, so that the worker cannot send more at some point.
    let flood = first.encode(0x82, &[7; 1 << 20]);
    let down = tokio::spawn(async move {
        let mut sent = 0_u64;
        while sent < 64 && tokio::io::AsyncWriteExt::write_all(&mut first.stream, &flood).await.is_ok() {
            sent += 1;
        }
        (first, sent)
    });
    for n in 0..200 {
        socket.text(&format!("{n}")).await;
        assert_eq!(second.hear().await, Said::Text(format!("{n}")));
        second.text(&"y".repeat(10_000)).await;
        assert_eq!(socket.hear().await, Said::Text("y".repeat(10_000)));
    }
    assert!(!down.is_finished(), "the worker waits for the client");
    let mut taken = 0;
    while taken < 64 {
        let Said::Binary(bytes) = stalled.hear().await else { panic!("a message") };
        assert_eq!(bytes.len(), 1 << 20);
        taken += 1;
    }
    let (mut first, sent) = within("the worker", down).await.unwrap();
    assert_eq!(sent, 64);
    // Up: the worker reads nothing, so that the client's window closes.
    let unread = Socket::encode(2, &vec![1; 3 << 20]).repeat(4);
    let mut up = stalled.send;
    let (taken, total) = (Arc::new(AtomicUsize::new(0)), unread.len());
    let counting = taken.clone();
    let giving = tokio::spawn(async move {
        for piece in unread.chunks(32 << 10) {
            give(&mut up, Bytes::copy_from_slice(piece)).await.unwrap();
            counting.fetch_add(piece.len(), Relaxed);
        }
        up
    });
    let is_full = |pipe: &serde_json::Value| pipe["up"]["buffered_bytes"].as_u64() >= Some(3 << 20);
    proxy.pipe_that("it has no room", is_full).await;
    // Until it does not get on any more while the other does.
    let mut before = 0;
    while before < taken.load(Relaxed) {
        before = taken.load(Relaxed);
        for n in 0..200 {
            socket.text(&format!("again {n}")).await;
            assert_eq!(second.hear().await, Said::Text(format!("again {n}")));
        }
    }
    assert!(before < total, "the client waits for the worker");
    for _ in 0..4 {
        assert_eq!(first.hear().await, Said::Binary(vec![1; 3 << 20]));
    }
    within("the client", giving).await.unwrap();
}

#[tokio::test]
async fn a_numbered_client_comes_back_over_another_connection() {
    let (proxy, _files) = proxy("threads = 4", &format!("[resume]\ngrace = \"10m\"\n{POOL}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut http2 = Http2::connect(proxy.tls).await;
    let mut bridge = Bridge::over(&http2).await;
    let accepting = async { worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\n").await };
    let (mut client, mut wire) = tokio::join!(AwareClient::open(bridge.address, "/ws"), accepting);
    for round in 0..8 {
        let text = format!("round {round}");
        client.say(&text).await;
        assert_eq!(wire.hear().await, Said::Text(text.clone()));
        http2 = Http2::connect(proxy.tls).await;
        bridge = Bridge::over(&http2).await;
        client.address = bridge.address;
        client.come_back().await;
        wire.text(&text).await;
        client.until(&text, |it| it.got.contains(&text)).await;
    }
    drop(bridge);
}

#[tokio::test]
async fn a_browser_comes_back_by_its_cookie_though_it_splits_the_line() {
    let tables = "[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
                  path = \"/{*rest}\"\npool = \"default\"\nresume = \"cookie\"\n";
    let (proxy, _files) = proxy("threads = 4", tables);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let (socket, mut wire) = tokio::join!(http2.open("/ws", &[("cookie", "a=1"), ("cookie", "b=2")]), worker.accept());
    assert_eq!(wire.head.header("cookie"), "a=1; b=2");
    let mut socket = socket.unwrap();
    let set = socket.head.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    socket.reset();
    proxy.pipe_that("it waits for its client", |pipe| pipe["state"] == "client_detached").await;
    let again = Http2::connect(proxy.tls).await;
    let mut back = again.open("/ws", &[("cookie", "a=1"), ("cookie", cookie)]).await.unwrap();
    wire.text("still here").await;
    assert_eq!(back.hear().await, Said::Text("still here".into()));
}

#[tokio::test]
async fn an_independent_client_talks_to_real_workers_over_streams_while_they_are_replaced() {
    let (proxy, _files) = proxy("", POOL);
    let mut worker = DemoWorker::start("w0", &[]);
    proxy.register("w0", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let bridge = Bridge::over(&http2).await;
    let mut clients = Vec::new();
    for n in 0..4 {
        clients.push(Client::connect(bridge.address, &format!("/ws/s{n}/echo")).await);
    }
    for round in 1..5 {
        for client in &mut clients {
            let text = format!("round {round}");
            client.text(text.as_str()).await;
            // Those that the worker had not confirmed when it died may come again before.
            while client.hear().await.text() != text {}
        }
        // A message that is in doubt under each of several deaths in a row would be blamed for them.
        eventually("all is confirmed", async || {
            proxy.pipes().await.iter().all(|pipe| pipe["up"]["buffered_bytes"] == 0).then_some(())
        })
        .await;
        let name = format!("w{round}");
        let next = DemoWorker::start(&name, &[]);
        proxy.register(&name, next.address).await;
        std::mem::replace(&mut worker, next).kill();
    }
    for client in &mut clients {
        client.text("the last").await;
        while client.hear().await.text() != "the last" {}
        client.close(1000, "bye").await;
    }
}
