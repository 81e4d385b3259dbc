//! What goes through unchanged, and what is made anew on purpose.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;

use crate::harness::wire::{BINARY, CLOSE, CONTINUATION, TEXT};
use crate::harness::{Proxy, Said, StepWorker, Wire, ask};

const SIZES: [usize; 6] = [15, 126, 65_536, 226_000, 1_200_000, 4 << 20];

/// Sends a message in `parts` frames.
async fn send_in_parts(wire: &mut Wire, opcode: u8, payload: &[u8], parts: usize) {
    let chunks: Vec<_> = payload.chunks(payload.len().div_ceil(parts)).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let opcode = if index == 0 { opcode } else { CONTINUATION };
        wire.frame_out(index + 1 == chunks.len(), opcode, chunk).await;
    }
}

#[tokio::test]
async fn ib_01_path_query_opcode_bytes_and_boundaries_are_the_same_on_the_other_side_both_ways() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let path = "/ws/s%201/echo;v=1/?a=1&b=%2F&&c";
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, path, &[]), worker.accept());
    assert_eq!(worker.head.line, format!("GET {path} HTTP/1.1"));
    for size in SIZES {
        let bytes: Vec<u8> = (0..size).map(|index| (index * 31 + index / 251) as u8).collect();
        let letters: String = bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        for parts in [1, 3] {
            for (opcode, payload, wanted) in [
                (BINARY, &bytes[..], Said::Binary(bytes.clone())),
                (TEXT, letters.as_bytes(), Said::Text(letters.clone())),
            ] {
                let ((), heard) = tokio::join!(send_in_parts(&mut client, opcode, payload, parts), worker.hear());
                assert!(heard == wanted, "up, {size} bytes in {parts} parts");
                let ((), heard) = tokio::join!(send_in_parts(&mut worker, opcode, payload, parts), client.hear());
                assert!(heard == wanted, "down, {size} bytes in {parts} parts");
            }
        }
    }
    client.text("").await;
    assert_eq!(worker.hear().await, Said::Text(String::new()));
}

#[tokio::test]
async fn iw_01_the_second_worker_gets_each_message_as_it_was_sent_as_the_first_did() {
    let proxy = Proxy::start("");
    let [first, second] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/client-1", &[]), first.accept());
    let messages = |size: usize| [(BINARY, vec![size as u8; size]), (TEXT, "é".repeat(size / 2).into_bytes())];
    let said = |opcode, payload: Vec<u8>| match opcode {
        TEXT => Said::Text(String::from_utf8(payload).unwrap()),
        _ => Said::Binary(payload),
    };
    let sizes = [2, 126, 65_536, 226_000];
    for (opcode, payload) in sizes.into_iter().flat_map(messages) {
        let ((), heard) = tokio::join!(send_in_parts(&mut client, opcode, &payload, 3), wire.hear());
        assert!(heard == said(opcode, payload), "from the first");
    }
    wire.pong_once().await;
    proxy.pipe_that("all is confirmed", |pipe| pipe["up"]["confirmed"] == 2 * sizes.len()).await;
    proxy.register("second", second.address).await;
    drop(first);
    wire.reset();
    for (opcode, payload) in sizes.into_iter().flat_map(messages) {
        send_in_parts(&mut client, opcode, &payload, 3).await;
    }
    let mut wire = second.accept().await;
    assert_eq!(wire.head.path(), "/client-1");
    for (opcode, payload) in sizes.into_iter().flat_map(messages) {
        assert!(wire.hear().await == said(opcode, payload), "from the second");
    }
}

#[tokio::test]
async fn st_03_a_ping_of_the_application_is_a_message_like_any_other() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    for text in ["ping", "pong", r#"{"type":"ping"}"#, "__ping__", "heartbeat"] {
        client.text(text).await;
        assert_eq!(worker.hear().await, Said::Text(text.into()));
        worker.text(text).await;
        assert_eq!(client.hear().await, Said::Text(text.into()));
    }
}

const SPOOFED: [(&str, &str); 8] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("Forwarded", "for=6.6.6.6"),
    ("Holdline-Pipe", "mine"),
    ("Cookie", "a=1"),
    ("Authorization", "Bearer t"),
];

#[tokio::test]
async fn ib_13_forwarding_headers_of_strangers_are_replaced() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_client, worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &SPOOFED), worker.accept());
    let head = &worker.head;
    assert_eq!((head.header("x-forwarded-for"), head.header("x-real-ip")), ("127.0.0.1", "127.0.0.1"));
    assert_eq!(head.header("x-forwarded-proto"), "http");
    assert_eq!(head.header("x-forwarded-host"), proxy.public.to_string());
    assert!(!head.header("forwarded").contains("6.6.6.6"), "{head:?}");
    assert!(!head.headers.iter().any(|(_, value)| value.contains("6.6.6.6") || value == "mine"), "{head:?}");
    assert_eq!(head.header("holdline-pipe").len(), 22);
    assert_eq!(head.header("holdline-attach"), "1");
    assert_eq!((head.header("cookie"), head.header("authorization")), ("a=1", "Bearer t"));
}

#[tokio::test]
async fn ib_13_forwarding_headers_of_a_trusted_proxy_are_extended() {
    let proxy = Proxy::start("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (_client, worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &SPOOFED), worker.accept());
    assert_eq!(worker.head.header("x-forwarded-for"), "6.6.6.6, 127.0.0.1");
    assert_eq!(worker.head.header("x-real-ip"), "6.6.6.6");
    assert_eq!(worker.head.header("x-forwarded-proto"), "https");
    assert_eq!(worker.head.header("x-forwarded-host"), "evil.example");
}

#[tokio::test]
async fn ib_14_no_compression_is_negotiated_on_either_leg_where_it_is_off_and_rsv1_is_answered_1002() {
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"r\"\npath = \"/{*path}\"\npool = \"default\"\n";
    let proxy = Proxy::start(&format!("{route}compression = \"off\"\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
    let (mut client, mut worker) = tokio::join!(Wire::connect(proxy.public, "/ws", &offer), worker.accept());
    assert!(!worker.head.has("sec-websocket-extensions"), "{:?}", worker.head);
    assert!(!client.head.has("sec-websocket-extensions"), "{:?}", client.head);
    let frame = client.encode(0x80 | 0x40 | TEXT, b"compressed?");
    client.send_raw(&frame).await.unwrap();
    assert!(matches!(client.hear().await, Said::Close(1002, _)));
    assert_eq!(worker.hear().await, Said::Close(1001, "client at fault".into()));
}

#[tokio::test]
async fn ib_14_a_worker_that_sends_rsv1_is_told_1002_and_the_client_keeps_its_socket() {
    let proxy = Proxy::start("");
    let [first, second] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("first", first.address).await;
    let (mut client, mut first) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), first.accept());
    proxy.register("second", second.address).await;
    let frame = first.encode(0x80 | 0x40 | TEXT, b"compressed?");
    first.send_raw(&frame).await.unwrap();
    assert!(matches!(first.hear().await, Said::Close(1002, _)));
    let mut second = second.accept().await;
    second.text("plain").await;
    assert_eq!(client.hear().await.text(), "plain");
}

/// Registers `url`, connects, and answers what path the worker was asked for.
async fn path_through(proxy: &Proxy, url: String, worker: &StepWorker) -> String {
    proxy.register_as("w", json!({ "url": url })).await;
    let (mut client, mut end) = tokio::join!(Wire::connect(proxy.public, "/a/b?c=d", &[]), worker.accept());
    client.text("up").await;
    assert_eq!(end.hear().await.text(), "up", "{url}");
    end.text("down").await;
    assert_eq!(client.hear().await.text(), "down", "{url}");
    // gone before the next URL is registered, or this pipe would move there
    drop(client);
    proxy.emptied().await;
    end.head.path().to_owned()
}

#[tokio::test]
async fn iw_10_ipv4_ipv6_a_hostname_a_prefix_and_a_trailing_slash_all_reach_the_worker() {
    let proxy = Proxy::start("");
    let four = StepWorker::start().await;
    let six = StepWorker::at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).await;
    let (port4, port6) = (four.address.port(), six.address.port());
    assert_eq!(path_through(&proxy, format!("ws://127.0.0.1:{port4}"), &four).await, "/a/b?c=d");
    assert_eq!(path_through(&proxy, format!("ws://127.0.0.1:{port4}/"), &four).await, "/a/b?c=d");
    assert_eq!(path_through(&proxy, format!("ws://localhost:{port4}"), &four).await, "/a/b?c=d");
    assert_eq!(path_through(&proxy, format!("ws://[::1]:{port6}"), &six).await, "/a/b?c=d");
    assert_eq!(path_through(&proxy, format!("ws://127.0.0.1:{port4}/prefix/ws"), &four).await, "/prefix/ws?c=d");
    assert_eq!(path_through(&proxy, format!("ws://127.0.0.1:{port4}/prefix/"), &four).await, "/prefix/?c=d");
    assert_eq!(path_through(&proxy, format!("ws://127.0.0.1:{port4}/prefix?own=1"), &four).await, "/prefix?own=1");
}

#[tokio::test]
async fn iw_10_a_bad_url_is_refused_when_it_is_registered() {
    let proxy = Proxy::start("");
    for url in
        ["", "127.0.0.1:9000", "http://127.0.0.1", "ws://", "ws://127.0.0.1:0", "ws://127.0.0.1:70000", "ws://a b/"]
    {
        let reply = proxy.api("POST", "/v1/backends", Some(json!({ "url": url }))).await;
        assert!(matches!(reply.status, 400 | 422), "{url}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "application/problem+json", "{url}");
    }
    assert_eq!(proxy.get("/v1/backends").await["items"], json!([]));
}

#[tokio::test]
async fn iw_10_a_worker_behind_tls_is_reached_and_its_certificate_is_checked() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let trusted = files.path().join("ca.pem");
    let pem = STANDARD.encode(certified.cert.der());
    std::fs::write(&trusted, format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { continue };
            while let Some(Ok(message)) = socket.next().await {
                let over = message.is_close() || (!message.is_ping() && socket.send(message).await.is_err());
                if over {
                    break;
                }
            }
        }
    });
    let proxy = Proxy::start_with("", &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    proxy.register_as("w", json!({ "url": format!("wss://localhost:{port}") })).await;
    let mut client = Wire::connect(proxy.public, "/ws", &[]).await;
    client.text("secret").await;
    assert_eq!(client.hear().await.text(), "secret");
    client.frame_out(true, CLOSE, &1000_u16.to_be_bytes()).await;
    proxy.register_as("w", json!({ "url": format!("wss://127.0.0.1:{port}") })).await;
    let refused = Wire::open(proxy.public, "/ws", &[]).await.unwrap_err();
    assert_eq!(refused.status, 502, "the certificate does not name the address: {}", refused.text());
    serving.abort();
}

#[tokio::test]
async fn iw_18_a_plain_get_on_a_route_for_websockets_only_is_answered_426() {
    let proxy =
        Proxy::start("[[routes]]\nname = \"ws\"\npath = \"/ws\"\npool = \"default\"\nupgrade = \"websocket\"\n");
    let reply = ask(proxy.public, "GET", "/ws", &[], "").await.expect(426);
    assert_eq!(reply.header("upgrade").to_ascii_lowercase(), "websocket");
    assert_eq!(ask(proxy.public, "GET", "/elsewhere", &[], "").await.status, 404);
}
