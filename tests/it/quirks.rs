//! What real clients and workers do a little differently, and what attackers do with the same liberties.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::wire::read_head;
use crate::harness::{Proxy, Said, StepWorker, Wire, ask, within};

/// A route for one key with an origin, and one for all the rest.
const GUARDED: &str = r#"
[[pools]]
name = "default"
[[routes]]
name = "control"
path = "/ws/{session}/control"
key = "{session}"
origins = ["https://farm.example"]
[[routes]]
name = "devices"
path = "/devices"
backend_path = "/devices/{query.device}/control"
[[routes]]
name = "rest"
path = "/{*path}"
"#;

#[tokio::test]
async fn an_upgrade_that_says_it_has_no_body_is_one() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let length = [("Content-Length", "0")];
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &length), worker.accept());
    assert!(!worker.head.has("content-length"));
    client.text("hi").await;
    assert_eq!(worker.hear().await.text(), "hi");
    let refused = Wire::open(proxy.public, "/ws", &[("Content-Length", "5")]).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().status, 400);
}

#[tokio::test]
async fn an_offer_of_another_protocol_is_ignored_and_the_request_relayed_on_a_connection_that_is_kept() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut stream = TcpStream::connect(proxy.public).await.unwrap();
    let mut buffer = BytesMut::new();
    for (method, upgrade) in [("GET", "h2c"), ("POST", "h2c"), ("GET", "TLS/1.2")] {
        let request = format!(
            "{method} /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        );
        let relayed = async {
            let mut knock = worker.knock().await;
            for gone in ["upgrade", "http2-settings"] {
                assert!(!knock.head.has(gone), "{:?}", knock.head);
            }
            knock.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        };
        let answered = async {
            stream.write_all(request.as_bytes()).await.unwrap();
            within("an answer", read_head(&mut stream, &mut buffer)).await.unwrap()
        };
        let ((), head) = tokio::join!(relayed, answered);
        assert_eq!((head.line.as_str(), head.has("connection")), ("HTTP/1.1 200 OK", false), "{upgrade}");
    }
}

#[tokio::test]
async fn a_worker_that_names_an_empty_subprotocol_names_none_and_our_101_has_the_usual_spelling() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let offer = [("Sec-WebSocket-Protocol", "chat"), ("Nats-No-Masking", "true"), ("X-Request-Id", "mine")];
    let (client, worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &offer), async {
        worker.knock().await.upgrade_with("Sec-WebSocket-Protocol:\r\nX-Mine: 1\r\n").await
    });
    let mut names: Vec<_> = client.head.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Connection", "Sec-WebSocket-Accept", "Upgrade", "X-Mine"]);
    assert!(!worker.head.has("nats-no-masking"));
    let (id, port) = (worker.head.header("x-request-id"), worker.head.header("x-forwarded-port"));
    assert_eq!((id.len(), port), (32, proxy.public.port().to_string().as_str()));
    assert_eq!(proxy.logged("pipe.open", 1).await[0]["request"], id);
}

#[tokio::test]
async fn raw_quotes_and_angle_brackets_in_a_query_go_through_in_each_request_of_a_connection() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut stream = TcpStream::connect(proxy.public).await.unwrap();
    let mut buffer = BytesMut::new();
    let asked = "/x?q={\"a\":<1>}";
    for _ in 0..3 {
        let relayed = async {
            let mut knock = worker.knock().await;
            assert_eq!(knock.head.path(), "/x?q={%22a%22:%3C1%3E}");
            knock.answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        };
        let answered = async {
            stream.write_all(format!("GET {asked} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
            within("an answer", read_head(&mut stream, &mut buffer)).await.unwrap()
        };
        let ((), head) = tokio::join!(relayed, answered);
        assert_eq!(head.line, "HTTP/1.1 200 OK");
    }
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, asked, &[]), worker.accept());
    client.text("?\"<>").await;
    assert_eq!(worker.hear().await.text(), "?\"<>");
}

#[tokio::test]
async fn another_spelling_of_a_path_evades_no_route() {
    let proxy = Proxy::start(GUARDED);
    let evil = [("Origin", "https://evil.example")];
    for (path, status) in [
        ("/ws/s1/control", 403),
        ("/ws/s1/%63ontrol", 403),
        ("/%77s/%73%31/contro%6c", 403),
        ("/ws/s1%2fcontrol", 400),
        ("/ws/s1%5ccontrol", 400),
        ("/ws/s1/control%00", 400),
        ("/x/../ws/s1/control", 400),
        ("/ws/./s1/control", 400),
        ("/ws/%2e%2e/ws/s1/control", 400),
    ] {
        let refused = Wire::open(proxy.public, path, &evil).await;
        assert_eq!(refused.map(|_| ()).unwrap_err().status, status, "{path}");
    }
}

#[tokio::test]
async fn what_a_client_puts_into_a_backend_path_stays_one_segment_of_it() {
    let proxy = Proxy::start(GUARDED);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    // A worker that is lost before its client would be followed by another dial, which the next accept would take.
    let mut pairs = Vec::new();
    for (device, path) in [
        ("d1", "/devices/d1/control?device=d1"),
        ("my+phone", "/devices/my%20phone/control?device=my+phone"),
        ("x?admin=1", "/devices/x%3Fadmin%3D1/control?device=x?admin=1"),
        ("a/b%23", "/devices/a%2Fb%23/control?device=a/b%23"),
    ] {
        let asked = format!("/devices?device={device}");
        let pair = tokio::join!(Wire::connect(proxy.public, &asked, &[]), worker.accept());
        assert_eq!(pair.1.head.path(), path);
        pairs.push(pair);
    }
    for device in ["..", ".", "%2e%2e", "a/../../admin/shutdown%23", "..%2f..", "..%5c.."] {
        let refused = Wire::open(proxy.public, &format!("/devices?device={device}"), &[]).await;
        assert_eq!(refused.map(|_| ()).unwrap_err().status, 400, "{device}");
    }
}

#[tokio::test]
async fn a_refusal_of_a_worker_keeps_its_status_though_its_body_is_broken() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    for body in ["zz\r\n", "5\r\nhelloxx", "", "ffffffffffffffffff\r\n"] {
        let asking = async {
            let mut stream = TcpStream::connect(proxy.public).await.unwrap();
            let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            within("a status", read_head(&mut stream, &mut BytesMut::new())).await
        };
        let refusing = async {
            let mut knock = worker.knock().await;
            knock.answer(&format!("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
        };
        let (head, ()) = tokio::join!(asking, refusing);
        assert_eq!(head.expect("a status").line, "HTTP/1.1 403 Forbidden", "{body:?}");
    }
}

#[tokio::test]
async fn four_thousand_subprotocols_are_refused_before_any_worker_is_asked() {
    let proxy = Proxy::start("[[routes]]\nwait = 0\n");
    let names: Vec<_> = (0..4_000).map(|n| format!("p{n}")).collect();
    let refused = Wire::open(proxy.public, "/ws", &[("Sec-WebSocket-Protocol", &names.join(","))]).await;
    let reply = refused.map(|_| ()).unwrap_err();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("up to 100"), "{}", reply.text());
    ask(proxy.public, "GET", "/x", &[], "").await.expect(503);
}

#[tokio::test]
async fn a_workers_message_that_is_too_big_ends_its_pipe_with_1009_and_is_never_silent() {
    let proxy = Proxy::start("[message]\nmax_bytes = \"1KiB\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut first) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    first.text(&"x".repeat(1024)).await;
    first.text(&"x".repeat(1025)).await;
    assert_eq!(client.hear().await, Said::Text("x".repeat(1024)));
    assert_eq!(client.hear().await, Said::Close(1009, "message too big".into()));
    assert_eq!(first.hear().await, Said::Close(1009, "message too big".into()));
    let lost = proxy.event_of(0, "pipe.messages_lost").await;
    assert_eq!((&lost["lane"], &lost["reason"]), (&"down".into(), &"too_big".into()));
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("holdline_lost_messages_total", &[("lane", "down"), ("reason", "too_big")]) == 1.0);
}

#[tokio::test]
async fn a_workers_message_that_is_too_big_is_lost_by_itself_where_its_route_says_so() {
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = \"/{*rest}\"\npool = \"default\"\n";
    let proxy = Proxy::start(&format!("[message]\nmax_bytes = \"1KiB\"\n{route}on_too_big = \"drop\"\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    for text in ["before", &"x".repeat(1025), &"x".repeat(300_000), "after"] {
        wire.text(text).await;
    }
    assert_eq!(client.hear().await, Said::Text("before".into()));
    assert_eq!(client.hear().await, Said::Text("after".into()));
    client.text("still here").await;
    assert_eq!(wire.hear().await, Said::Text("still here".into()));
    let lost = proxy.event_of(0, "pipe.messages_lost").await;
    assert_eq!((&lost["lane"], &lost["reason"]), (&"down".into(), &"too_big".into()));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("holdline_lost_messages_total", &[("lane", "down"), ("reason", "too_big")]), 2.0);
}

#[tokio::test]
async fn a_commit_is_seen_as_the_level_of_its_lane() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.text("tap").await;
    assert_eq!(wire.hear().await, Said::Text("tap".into()));
    wire.send_raw(b"\x8a\x02A1").await.unwrap();
    proxy.pipe_that("it is committed", |pipe| pipe["up"]["level"] == "app" && pipe["up"]["confirmed"] == 1).await;
    let metrics = proxy.metrics().await;
    let pipes = |lane, level| metrics.sum("holdline_pipe_levels", &[("lane", lane), ("level", level)]);
    assert_eq!((pipes("up", "app"), pipes("up", "pong"), pipes("down", "written")), (1.0, 0.0, 1.0));
}

#[tokio::test]
async fn an_unmasked_pong_is_taken_and_counted_and_an_unmasked_message_is_1002() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.send_raw(b"\x8a\x08holdline").await.unwrap();
    client.text("masked").await;
    assert_eq!(worker.hear().await, Said::Text("masked".into()));
    client.send_raw(b"\x81\x01x").await.unwrap();
    assert_eq!(client.hear().await, Said::Close(1002, "client frame not masked".into()));
    assert_eq!(proxy.metrics().await.sum("holdline_unmasked_control_frames_total", &[]), 1.0);
}

#[tokio::test]
async fn a_message_that_goes_on_takes_longer_than_the_timeout_and_one_that_stops_does_not() {
    let proxy = Proxy::start("[message]\nincomplete_timeout = \"2s\"\nincomplete_rate = \"100/s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let whole = "y".repeat(400);
    let message = client.encode(0x81, whole.as_bytes());
    let mut beat = tokio::time::interval(std::time::Duration::from_millis(110));
    for piece in message.chunks(20) {
        beat.tick().await;
        client.send_raw(piece).await.unwrap();
    }
    assert_eq!(worker.hear().await, Said::Text(whole));
    client.send_raw(&message[..300]).await.unwrap();
    assert_eq!(client.hear().await, Said::Close(1008, "message not finished in time".into()));
}

#[tokio::test]
async fn a_pipe_whose_credentials_one_worker_refuses_is_shown_to_the_next_where_its_route_says_so() {
    let proxy = Proxy::start(
        "[[routes]]\nname = \"all\"\npath = \"/{*path}\"\npool = \"default\"\non_refused = \"next\"\nrefusal = \"wait\"\n",
    );
    let [first, refuses, takes] = [StepWorker::start().await, StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), first.accept());
    proxy.register("refuses", refuses.address).await;
    drop(first);
    wire.reset();
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    refuses.knock().await.answer(REFUSED).await;
    proxy.register("takes", takes.address).await;
    let mut wire = loop {
        tokio::select! {
            mut knock = refuses.knock() => knock.answer(REFUSED).await,
            wire = takes.accept() => break wire,
        }
    };
    client.text("still here").await;
    assert_eq!(wire.hear().await.text(), "still here");
}

#[tokio::test]
async fn a_pipe_that_is_refused_at_a_reattach_has_an_event_of_its_end() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, first) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    first.reset();
    worker.knock().await.answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert!(matches!(client.hear().await, Said::Close(1008, _)));
    let event = proxy.event_of(0, "pipe.given_up").await;
    assert_eq!((&event["code"], &event["reason"]), (&1008.into(), &"the backend refused the credentials: 403".into()));
}
