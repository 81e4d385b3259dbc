//! TLS on public listeners: conversations over it, whom a client is shown, and what is no TLS.

use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::aware::AwareClient;
use crate::harness::tls::{Pem, TlsFiles, Tunnel, believing, connect, params, shown, signed_by_itself};
use crate::harness::{DemoWorker, Proxy, Said, StepWorker, Wire, ask, within};

const POOL: &str = "[[pools]]\nname = \"default\"\n";

/// A proxy with a TLS listener that shows `certificates`, with more lines of `[server]`, and other tables behind.
pub fn proxy(certificates: &str, server: &str, tables: &str) -> Proxy {
    Proxy::start(&format!(
        "[server]\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{certificates}]\n{server}\n{tables}"
    ))
}

fn example() -> Pem {
    signed_by_itself(&params(&["example.test"]))
}

#[tokio::test]
async fn a_conversation_goes_over_tls_and_its_worker_hears_that() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(tunnel.address, "/ws", &[]), worker.accept());
    assert_eq!(wire.head.header("x-forwarded-proto"), "https");
    assert!(wire.head.header("forwarded").contains("proto=https"), "{:?}", wire.head);
    for size in [0, 1, 200, 70_000, 3_000_000] {
        let message = "m".repeat(size);
        client.text(&message).await;
        assert_eq!(wire.hear().await, Said::Text(message.clone()));
        wire.text(&message).await;
        assert_eq!(client.hear().await, Said::Text(message));
    }
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    let counted = proxy.metrics().await;
    let full = [("listener", "public"), ("result", "full"), ("version", "1.3")];
    assert_eq!(counted.sum("tls_handshakes_total", &full), 1.0);
}

#[tokio::test]
async fn plain_requests_and_large_answers_go_over_tls_on_kept_connections() {
    let (files, worker) = (TlsFiles::new(), DemoWorker::start("w", &[]));
    let proxy = proxy(&files.pair("own", &example()), "", POOL);
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    ask(tunnel.address, "GET", "/health", &[], "").await.expect(200);
    let mut stream = connect(proxy.tls, "example.test", &believing(None)).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: example.test\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = within("an answer", stream.read(&mut answer)).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer[..read]));
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    within("the end", stream.read_to_end(&mut rest)).await.expect("it is told the end");
    assert!(rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_client_that_was_cut_off_comes_back_by_tls_to_its_pipe_on_another_thread() {
    let files = TlsFiles::new();
    let route = "[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\n\
                 path = \"/ws/{client}\"\npool = \"default\"\nclient_id = \"{client}\"\n";
    let proxy = proxy(&files.pair("own", &example()), "threads = 4", route);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(tunnel.address, "/ws/c1", &[]), worker.accept());
    // With four threads, some of so many come in on another one than the pipe's.
    for round in 0..16 {
        // The end of the tunnel is an end without close_notify, which is no goodbye.
        let next = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
        drop(std::mem::replace(&mut tunnel, next));
        proxy.pipe_that("it waits for its client", |pipe| pipe["state"] == "client_detached").await;
        let sent = format!("{round} {}", "x".repeat(100_000));
        wire.text(&sent).await;
        client = Wire::connect(tunnel.address, "/ws/c1", &[]).await;
        // What it had not confirmed may come again before.
        while client.hear().await != Said::Text(sent.clone()) {}
        client.text(&sent).await;
        while wire.hear().await != Said::Text(sent.clone()) {}
    }
    client.close(1000, "bye").await;
    assert_eq!(wire.hear().await, Said::Close(1000, "bye".into()));
    let counted = proxy.metrics().await;
    assert_eq!(counted.sum("client_resumes_total", &[("result", "resumed")]), 16.0);
}

#[tokio::test]
async fn a_client_that_numbers_its_messages_is_welcomed_resumed_and_refused_by_tls() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "threads = 4", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let attach = async { worker.knock().await.upgrade_with("Sec-WebSocket-Protocol: chat\r\n").await };
    let (mut client, mut wire) = tokio::join!(AwareClient::open(tunnel.address, "/ws"), attach);
    for round in 0..8 {
        client.say(&format!("up {round}")).await;
        assert_eq!(wire.hear().await.text(), format!("up {round}"));
        client.cut();
        let large = format!("down {round} {}", "x".repeat(200_000));
        wire.text(&large).await;
        client.come_back().await;
        client.until("what was said meanwhile", |it| it.got.last() == Some(&large)).await;
    }
    let mut hello = client.hello();
    hello["resume"]["token"] = "forged".into();
    let mut refused = client.knock(&hello).await;
    assert_eq!(refused.hear().await, Said::Text(r#"!{"t":"reject","why":"unknown"}"#.into()));
    // An end without close_notify would be an error of the tunnel's, and no end here.
    assert!(matches!(refused.hear().await, Said::Close(..)), "the word is followed by a goodbye");
    client.say("still there").await;
    assert_eq!(wire.hear().await.text(), "still there");
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_its_name_and_the_first_one_otherwise() {
    let files = TlsFiles::new();
    let made = [&["example.test"][..], &["*.a.test"], &["b.a.test", "127.0.0.1"]].map(params);
    let pairs = made.map(|params| signed_by_itself(&params));
    let [first, wild, exact] = &pairs;
    let list = [("first", first), ("wild", wild), ("exact", exact)].map(|(name, pem)| files.pair(name, pem)).join(", ");
    let lenient = proxy(&list, "", POOL);
    let strict = proxy(&list, "tls.sni_strict = true", POOL);
    for (name, own) in [
        ("example.test", Some(first)),
        ("EXAMPLE.test", Some(first)),
        ("x.a.test", Some(wild)),
        ("b.a.test", Some(exact)),
        ("x.b.a.test", None),
        ("a.test", None),
        ("127.0.0.1", None),
    ] {
        let stream = connect(lenient.tls, name, &believing(None)).await.unwrap();
        assert_eq!(shown(&stream), own.unwrap_or(first).der, "{name}");
        match (connect(strict.tls, name, &believing(None)).await, own) {
            (Ok(stream), Some(own)) => assert_eq!(shown(&stream), own.der, "{name}"),
            (Err(error), None) => assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}"),
            (done, own) => panic!("{name}: {done:?} instead of {own:?}"),
        }
    }
    let refused = [("result", "unknown_name"), ("version", "none")];
    assert_eq!(strict.metrics().await.sum("tls_handshakes_total", &refused), 3.0);
}

#[tokio::test]
async fn what_is_no_tls_or_never_gets_there_costs_a_connection_and_is_counted() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "handshake_timeout = \"2s\"", POOL);
    let mut plain = TcpStream::connect(proxy.tls).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    within("the end", plain.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said.first(), Some(&21), "an alert: {said:?}");
    let mut slow = TcpStream::connect(proxy.tls).await.unwrap();
    slow.write_all(&[22, 3, 1]).await.unwrap();
    within("the end", slow.read_to_end(&mut Vec::new())).await.unwrap();
    drop(TcpStream::connect(proxy.tls).await.unwrap());
    proxy.idle().await;
    let counted = proxy.metrics().await;
    for result in ["bad", "timed_out", "gone"] {
        assert_eq!(counted.sum("tls_handshakes_total", &[("result", result)]), 1.0, "{result}");
    }
}

#[tokio::test]
async fn many_handshakes_wait_for_their_turn_and_those_that_stall_keep_none_out() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "tls.handshakes_at_once = 2", POOL);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(proxy.tls).await.unwrap();
        // The beginning of a greeting that never comes.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
        stalled.push(stream);
    }
    let mut clients = JoinSet::new();
    for _ in 0..300 {
        let (address, config) = (proxy.tls, believing(None));
        clients.spawn(async move { connect(address, "example.test", &config).await.map(drop) });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_session_is_resumed_by_its_ticket() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "", POOL);
    let config = believing(None);
    for (result, count) in [("full", 1.0), ("resumed", 1.0)] {
        let mut stream = connect(proxy.tls, "example.test", &config).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        // The ticket comes with the answer.
        within("the answer", stream.read_to_end(&mut Vec::new())).await.unwrap();
        let counted = proxy.metrics().await;
        assert_eq!(counted.sum("tls_handshakes_total", &[("result", result)]), count, "{result}");
    }
}

/// What `openssl s_client` says, asked with these arguments and told `input`.
fn openssl(arguments: &[&str], input: &str) -> (bool, String) {
    use std::io::Write;
    let mut command = Command::new("openssl");
    command.arg("s_client").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn openssl_finds_no_old_version_no_compression_and_no_renegotiation() {
    let files = TlsFiles::new();
    let proxy = Arc::new(proxy(&files.pair("own", &example()), "", POOL));
    let at = proxy.tls.to_string();
    let probe = async |arguments: &[&str], input: &str| {
        let arguments: Vec<String> = ["-connect", &at, "-servername", "example.test"]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).to_owned())
            .collect();
        let input = input.to_owned();
        let asking = tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            openssl(&arguments, &input)
        });
        within("openssl", asking).await.unwrap()
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let (good, said) = probe(&[version, "-alpn", "h2,http/1.1"], "").await;
        assert!(good && said.contains("ALPN protocol: http/1.1"), "{version}: {said}");
        assert!(said.contains("Compression: NONE") && said.contains("Expansion: NONE"), "{said}");
    }
    let (_, said) = probe(&["-tls1_2"], "").await;
    assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
    for version in ["-tls1", "-tls1_1"] {
        let (good, said) = probe(&[version, "-cipher", "ALL:@SECLEVEL=0"], "").await;
        assert!(!good, "{version}: {said}");
    }
    assert!(said.contains("Extended master secret: yes"), "{said}");
    let (_, said) = probe(&["-tls1_2"], "R\n").await;
    assert!(said.contains("no renegotiation"), "{said}");
    for (what, cipher) in [
        ("without forward secrecy", "AES128-SHA:AES128-GCM-SHA256:AES256-GCM-SHA384"),
        ("in CBC mode", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:DHE-RSA-AES128-SHA"),
        ("without encryption or without a certificate", "NULL:aNULL:eNULL"),
        ("of finite fields", "DHE"),
    ] {
        let (good, said) = probe(&["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")], "").await;
        assert!(!good, "no cipher {what}: {said}");
    }
    let (_, said) = probe(&["-tls1_3"], "Q\n").await;
    assert!(!said.contains("Max Early Data:") || said.contains("Max Early Data: 0"), "no early data: {said}");
    let (good, said) = probe(&["-alpn", "h2"], "").await;
    assert!(!good, "no protocol in common: {said}");
}

#[tokio::test]
async fn python_and_node_speak_tls_with_us() {
    let (files, worker) = (TlsFiles::new(), DemoWorker::start("w", &[]));
    let own = example();
    let proxy = proxy(&files.pair("own", &own), "", POOL);
    proxy.register("w", worker.address).await;
    let ca = files.path("own.pem").display().to_string();
    let port = proxy.tls.port();
    let python = format!(
        "import http.client, ssl\nc = ssl.create_default_context(cafile='{ca}')\n\
         h = http.client.HTTPSConnection('127.0.0.1', {port}, context=c)\n\
         h._create_connection = lambda a, *r: __import__('socket').create_connection(('127.0.0.1', {port}))\n\
         h.host = 'example.test'\nh.request('GET', '/health')\nprint(h.getresponse().status)"
    );
    let node = format!(
        "require('https').get({{ host: '127.0.0.1', port: {port}, servername: 'example.test', path: '/health', \
         ca: require('fs').readFileSync('{ca}') }}, r => {{ console.log(r.statusCode); process.exit() }})"
    );
    for (program, option, text) in [("python3", "-c", python), ("node", "-e", node)] {
        let asking = tokio::task::spawn_blocking(move || Command::new(program).args([option, &text]).output().unwrap());
        let output = within(program, asking).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.trim(), "200", "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_slow_client_gets_all_of_what_its_worker_said_and_the_goodbye() {
    let files = TlsFiles::new();
    let proxy = proxy(&files.pair("own", &example()), "", POOL);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut stream = connect(proxy.tls, "example.test", &believing(None)).await.unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut wire = worker.accept().await;
    let message = "z".repeat(4_000_000);
    let telling = async {
        wire.text(&message).await;
        wire.close(1000, "that was all").await;
        wire.hear().await
    };
    let listening = async {
        let (mut heard, mut part) = (Vec::new(), vec![0; 1000]);
        while !heard.ends_with(b"that was all") {
            // It takes little at a time.
            let read = within("more", stream.read(&mut part)).await.unwrap();
            assert!(read > 0, "the end comes behind {} bytes", heard.len());
            heard.extend_from_slice(&part[..read]);
        }
        // Its answer to the close, masked by zeros.
        stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await.unwrap();
        within("the end", stream.read_to_end(&mut Vec::new())).await.expect("with close_notify");
        heard.len()
    };
    let (answer, heard) = tokio::join!(telling, listening);
    assert_eq!(answer, Said::Close(1000, "that was all".into()));
    assert!(heard > message.len());
}
