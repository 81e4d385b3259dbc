//! Plain requests over HTTP/2: what their workers see, what their clients are answered, and what is refused.

use http::HeaderMap;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::http2::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Http2, NAME, block, get, handshake, only_http2, request, websocket,
};
use crate::harness::tls::{TlsFiles, authority, connect, params, signed_by, signed_by_itself};
use crate::harness::{DemoWorker, Proxy, Said, StepWorker, eventually, within};
use crate::http2::proxy;
use crate::tls;

const POOL: &str = "[[pools]]\nname = \"default\"\n";

/// RFC 9113 section 7.
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

#[tokio::test]
async fn requests_with_bodies_and_trailers_go_to_workers_as_http_1_1() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "5".parse().unwrap());
    let asking = http2.ask(request("POST", "/up?q=1", &[("trailer", "x-sum")]), b"hello", Some(trailers));
    let answering = async {
        let mut knock = worker.knock().await;
        assert_eq!(knock.head.line, "POST /up?q=1 HTTP/1.1");
        assert_eq!(knock.head.header("host"), NAME);
        assert_eq!(knock.head.header("transfer-encoding"), "chunked");
        assert_eq!(knock.head.header("x-forwarded-proto"), "https");
        let wanted = b"5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n";
        within("the body", async {
            while knock.buffer.len() < wanted.len() {
                tokio::io::AsyncReadExt::read_buf(&mut knock.stream, &mut knock.buffer).await.unwrap();
            }
        })
        .await;
        assert_eq!(&knock.buffer[..], wanted);
        let head = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\nConnection: keep-alive\r\n";
        knock.answer(&format!("{head}X-Own: 1\r\n\r\n3\r\nyes\r\n0\r\nx-end: 7\r\n\r\n")).await;
    };
    let ((reply, trailers), ()) = tokio::join!(asking, answering);
    assert_eq!((reply.status, &reply.body[..], reply.header("x-own")), (201, &b"yes"[..], "1"));
    assert_eq!(trailers["x-end"], "7");
    for gone in ["connection", "transfer-encoding", "keep-alive"] {
        assert!(!reply.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn downloads_heads_and_several_answers_at_once_come_through() {
    let (proxy, _files) = proxy("", POOL);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let downloads = ["", "?chunked=1"].map(|query| format!("/api/sessions/s1/download{query}"));
    let (one, other, health) = tokio::join!(http2.get(&downloads[0]), http2.get(&downloads[1]), http2.get("/health"));
    assert_eq!(health.status, 200);
    for reply in [one, other] {
        let reply = reply.expect(200);
        assert_eq!(reply.body.len(), 2_700_000);
        let digest: String = Sha256::digest(&reply.body).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(reply.header("x-checksum-sha256"), digest);
    }
    let (head, _) = http2.ask(request("HEAD", &downloads[0], &[]), b"", None).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "2700000"));
    let counted = proxy.metrics().await;
    assert_eq!(counted.sum("http2_streams_total", &[("result", "answered")]), 4.0);
    assert_eq!(counted.sum("http2_connections", &[]), 1.0);
}

#[tokio::test]
async fn a_request_that_is_taken_back_is_taken_back_from_its_worker() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let (answer, mut send) = http2.send(request("GET", "/parked", &[]), true).await;
    let mut knock = worker.knock().await;
    send.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let read = within("the end", tokio::io::AsyncReadExt::read_buf(&mut knock.stream, &mut knock.buffer)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert_eq!(proxy.metrics().await.sum("http2_streams_total", &[("result", "reset")]), 1.0);
}

#[tokio::test]
async fn an_answer_before_its_upload_is_over_is_heard_and_the_rest_is_taken_and_forgotten() {
    let (proxy, _files) = proxy("", POOL);
    let http2 = Http2::connect(proxy.tls).await;
    // More than every window, so that it could not be said if nothing took it.
    let upload = vec![7; 3 << 20];
    http2.ask(request("TRACE", "/x", &[]), &upload, None).await.0.expect(405);
}

#[tokio::test]
async fn a_worker_that_refuses_an_upload_and_closes_is_heard_before_the_upload_is_over() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let upload = vec![7; 3 << 20];
    for closes in ["by a reset", "by its last word", "once it has read some"] {
        let asking = http2.ask(request("POST", "/up", &[]), &upload, None);
        let refusing = async {
            let mut knock = worker.knock().await;
            if closes == "once it has read some" {
                while knock.buffer.len() < 300_000 {
                    let read = tokio::io::AsyncReadExt::read_buf(&mut knock.stream, &mut knock.buffer);
                    assert!(within("some of the upload", read).await.unwrap() > 0);
                }
            }
            knock.answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large").await;
            if closes == "by its last word" {
                tokio::io::AsyncWriteExt::shutdown(&mut knock.stream).await.unwrap();
            }
            // What it has not read makes of this a reset.
            drop(knock);
        };
        let ((reply, _), ()) = tokio::join!(asking, refusing);
        assert_eq!((reply.status, &reply.body[..]), (413, &b"too large"[..]), "{closes}");
    }
    let counted = proxy.metrics().await;
    assert_eq!(counted.sum("http2_streams_total", &[("result", "answered")]), 3.0);
}

#[tokio::test]
async fn an_upload_that_goes_on_behind_its_answer_is_cut_beyond_a_bound_without_blame() {
    let (proxy, _files) = proxy("linger_bytes_max = \"20KiB\"", POOL);
    let mut frames = Frames::connect(proxy.tls).await;
    let mut trace = get("/x");
    trace[0].1 = "TRACE";
    frames.send(HEADERS, END_HEADERS, 1, &block(&trace)).await.unwrap();
    let answer = frames.until(|frame| frame.stream == 1).await;
    assert_eq!(answer.kind, HEADERS);
    for _ in 0..3 {
        frames.send(DATA, 0, 1, &[7; 10 << 10]).await.unwrap();
    }
    assert_eq!(frames.reset_of(1).await, NO_ERROR);
}

#[tokio::test]
async fn handshakes_that_are_not_good_have_exact_answers() {
    let (proxy, _files) = proxy("", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let mut other = handshake("/ws", &[]);
    other.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    assert_eq!(http2.open_as(other).await.unwrap_err().status, 501);
    let mut old = handshake("/ws", &[]);
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let refused = http2.open_as(old).await.unwrap_err();
    assert_eq!((refused.status, refused.header("sec-websocket-version")), (426, "13"));
    assert!(!refused.headers.contains_key("upgrade"), "{refused:?}");
    let mut twice = handshake("/ws", &[]);
    twice.headers_mut().insert("host", "elsewhere.test".parse().unwrap());
    assert_eq!(http2.open_as(twice).await.unwrap_err().status, 400);
    assert_eq!(http2.open("/ws", &[("sec-websocket-protocol", "a, a")]).await.unwrap_err().status, 400);
    // A worker's own refusal is the client's.
    let (refused, ()) = tokio::join!(http2.open("/ws", &[]), async {
        worker.knock().await.answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: so\r\n\r\nno").await;
    });
    let refused = refused.unwrap_err();
    assert_eq!((refused.status, refused.header("x-why"), &refused.body[..]), (403, "so", &b"no"[..]));
    // A good one is served all the same on this connection.
    let (socket, mut wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
    let mut socket = socket.unwrap();
    socket.text("x").await;
    assert_eq!(wire.hear().await, Said::Text("x".into()));
}

#[tokio::test]
async fn pseudo_headers_that_are_not_as_they_must_be_reset_their_stream_alone() {
    let (proxy, _files) = proxy("", POOL);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let without = |name: &str| get("/").into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let with = |more: &[(&'static str, &'static str)]| [&get("/")[..], more].concat();
    let connect_without =
        |name: &str| websocket("/ws").into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let cases = [
        without(":method"),
        without(":scheme"),
        with(&[(":path", "/twice")]),
        [&[("a", "b")], &get("/late")[..]].concat(),
        with(&[(":status", "200")]),
        with(&[(":protocol", "websocket")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        connect_without(":path"),
        connect_without(":scheme"),
    ];
    let mut frames = Frames::connect(proxy.tls).await;
    let mut stream = 1;
    for fields in cases {
        frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&fields)).await.unwrap();
        assert_eq!(frames.reset_of(stream).await, PROTOCOL_ERROR, "{fields:?}");
        stream += 2;
    }
    frames.send(HEADERS, END_STREAM | END_HEADERS, stream, &block(&get("/health"))).await.unwrap();
    let answer = frames.until(|frame| frame.stream == stream).await;
    assert_eq!(answer.kind, HEADERS, "the connection goes on: {answer:?}");
    // What is no name of a header at all ends the connection.
    for name in ["Capital", ":unknown", "a b"] {
        let mut frames = Frames::connect(proxy.tls).await;
        frames.send(HEADERS, END_STREAM | END_HEADERS, 1, &block(&with(&[(name, "x")]))).await.unwrap();
        assert_eq!(frames.goodbye().await, Some(PROTOCOL_ERROR), "{name}");
    }
}

#[tokio::test]
async fn a_host_that_asks_for_certificates_in_another_way_is_misdirected_on_each_stream() {
    let files = TlsFiles::new();
    let authority = authority("clients");
    let ca = files.write("ca.pem", &crate::harness::tls::pem("CERTIFICATE", authority.der()));
    let open = files.pair("open", &signed_by_itself(&params(&["example.test"])));
    let closed = files.pair("closed", &signed_by(&authority, &params(&["closed.test"])));
    let closed = closed.replace(" }", ", client_auth = \"require\" }");
    let proxy = tls::proxy(&format!("{open}, {closed}"), &format!("http2 = true\ntls.client_ca = \"{ca}\""), POOL);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    http2.get("/health").await.expect(200);
    let elsewhere = http::Request::get("https://closed.test/health").body(()).unwrap();
    http2.ask(elsewhere, b"", None).await.0.expect(421);
    http2.get("/health").await.expect(200);
}

#[tokio::test]
async fn clients_without_a_socket_are_served_on_streams() {
    let tables = "[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
                  path = \"/{*rest}\"\npool = \"default\"\nhttp_fallback = true\n";
    let (proxy, _files) = proxy("", tables);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let hello = request("POST", "/chat", &[("content-type", "application/vnd.holdline+json")]);
    let ((welcome, _), mut wire) = tokio::join!(http2.ask(hello, br#"{"t":"hello","v":1}"#, None), worker.accept());
    let welcome = welcome.expect(200).json();
    let (pipe, token) = (welcome["id"].as_str().unwrap(), welcome["token"].as_str().unwrap());
    let token = format!("Holdline {token}");
    let own = [("authorization", token.as_str()), ("holdline-pipe", pipe)];
    let (sent, _) = http2.ask(request("POST", "/chat", &own), b"{\"seq\":1,\"text\":\"up\"}\n", None).await;
    sent.expect(200);
    assert_eq!(wire.hear().await, Said::Text("up".into()));
    let polling = request("GET", &format!("/chat?pipe={pipe}&wait=25s"), &own[..1]);
    let ((polled, _), ()) = tokio::join!(http2.ask(polling, b"", None), wire.text("down"));
    assert!(polled.expect(200).text().contains("down"));
    // An answer that goes on, until its client takes it back.
    let events = [own[0], ("accept", "text/event-stream")];
    let (answer, mut send) = http2.send(request("GET", &format!("/chat?pipe={pipe}&after=1"), &events), true).await;
    let mut events = within("events", answer).await.unwrap().into_body();
    for text in ["one", "two"] {
        wire.text(text).await;
        let mut told = String::new();
        while !told.contains(text) {
            let data = within("an event", events.data()).await.unwrap().unwrap();
            events.flow_control().release_capacity(data.len()).unwrap();
            told.push_str(&String::from_utf8_lossy(&data));
        }
    }
    let parked = async || proxy.metrics().await.sum("polls_parked", &[]);
    assert_eq!(parked().await, 1.0);
    send.send_reset(h2::Reason::CANCEL);
    eventually("nothing is parked", async || (parked().await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn the_access_log_names_the_protocol() {
    let (proxy, _files) = proxy("", &format!("[log]\naccess = \"json\"\n{POOL}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let http2 = Http2::connect(proxy.tls).await;
    let (socket, _wire) = tokio::join!(http2.open("/ws", &[]), worker.accept());
    let _socket = socket.unwrap();
    let told = proxy.logged("request", 1).await;
    assert_eq!(
        (&told[0]["version"], &told[0]["method"], &told[0]["status"]),
        (&"HTTP/2.0".into(), &"CONNECT".into(), &200.into())
    );
    let (reply, ()) = tokio::join!(http2.get("/p?secret=1"), async {
        worker.knock().await.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    reply.expect(200);
    let told = proxy.logged("request", 2).await;
    assert_eq!(
        (&told[1]["version"], &told[1]["path"], &told[1]["bytes"]),
        (&"HTTP/2.0".into(), &"/p".into(), &2.into())
    );
}

#[tokio::test]
async fn a_reload_switches_it_on_for_new_connections() {
    let files = TlsFiles::new();
    let pair = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let config = |http2: bool| {
        let tls = format!("tls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{pair}]");
        format!("[server]\nhttp2 = {http2}\n{tls}\n{POOL}")
    };
    let proxy = Proxy::start(&config(false));
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    assert!(connect(proxy.tls, NAME, &only_http2()).await.is_err(), "no protocol in common");
    proxy.rewrite(&config(true));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    let http2 = Http2::connect(proxy.tls).await;
    http2.get("/health").await.expect(200);
    proxy.rewrite(&config(false));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    assert!(connect(proxy.tls, NAME, &only_http2()).await.is_err(), "no protocol in common");
    http2.get("/health").await.expect(200);
}
