//! The PROXY protocol: whose connection it is, as a trusted proxy says it, and as workers are told.

use std::net::{Ipv4Addr, SocketAddr};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::harness::tls::{TlsFiles, believing, params, signed_by_itself};
use crate::harness::{Proxy, StepWorker, Wire, eventually, within};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Version 2 with this command and family, for 203.0.113.9.
fn block(command: u8, family: u8) -> Vec<u8> {
    [SIGNATURE, &[command, family, 0, 12, 203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb]].concat()
}

fn behind(mode: &str, trusted: &str) -> String {
    format!("[server]\nproxy_protocol = \"{mode}\"\ntrusted_proxies = [\"{trusted}\"]\nhandshake_timeout = \"2s\"\n")
}

async fn started(config: &str) -> (Proxy, StepWorker) {
    let proxy = Proxy::start(config);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    (proxy, worker)
}

/// The client that a worker is told of, where a connection begins with `header`.
async fn told(proxy: &Proxy, worker: &StepWorker, header: &[u8]) -> String {
    let (client, worker) = tokio::join!(
        Wire::open_behind(header, proxy.public, "/ws", &[("X-Forwarded-For", "6.6.6.6")]),
        worker.accept()
    );
    client.unwrap();
    worker.head.header("x-forwarded-for").to_owned()
}

/// All that comes back for these bytes, sent one by one.
async fn answer(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy.public).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in bytes {
        // A connection that is closed meanwhile takes no more, which is what is looked at.
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn counted(proxy: &Proxy, result: &str) -> f64 {
    proxy.metrics().await.sum("proxy_headers_total", &[("listener", "public"), ("result", result)])
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_connection_it_passes_on_in_both_versions_and_byte_by_byte() {
    for mode in ["accept", "require"] {
        let (proxy, worker) = started(&behind(mode, "127.0.0.0/8")).await;
        for header in [LINE.to_vec(), block(0x21, 0x11)] {
            assert_eq!(told(&proxy, &worker, &header).await, "203.0.113.9", "its own word is not believed");
            let plain = async {
                let mut knock = worker.knock().await;
                knock.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
                knock.head.header("x-real-ip").to_owned()
            };
            let sent = [&header[..], GET].concat();
            let (answer, address) = tokio::join!(answer(&proxy, &sent), plain);
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
            assert_eq!(address, "203.0.113.9");
        }
        assert_eq!(counted(&proxy, "accepted").await, 4.0);
    }
}

#[tokio::test]
async fn a_connection_of_the_proxys_own_keeps_its_address_whatever_its_header_says() {
    let (proxy, worker) = started(&behind("require", "127.0.0.0/8")).await;
    for header in [b"PROXY UNKNOWN 203.0.113.9 x\r\n".to_vec(), block(0x20, 0x11), block(0x21, 0x00)] {
        assert_eq!(told(&proxy, &worker, &header).await, "6.6.6.6, 127.0.0.1", "a trusted proxy asks for itself");
    }
    assert_eq!(counted(&proxy, "local").await, 3.0);
}

#[tokio::test]
async fn without_a_header_accept_goes_on_and_require_closes_without_a_word() {
    let (proxy, worker) = started(&behind("accept", "127.0.0.0/8")).await;
    assert_eq!(told(&proxy, &worker, b"").await, "6.6.6.6, 127.0.0.1");
    assert_eq!(counted(&proxy, "missing").await, 1.0);
    let proxy = Proxy::start(&behind("require", "127.0.0.0/8"));
    assert_eq!(answer(&proxy, GET).await, "");
    assert_eq!(counted(&proxy, "missing").await, 1.0);
}

#[tokio::test]
async fn a_peer_that_is_no_trusted_proxy_is_not_heard_or_not_served_at_all() {
    let (proxy, worker) = started(&behind("accept", "192.0.2.0/24")).await;
    let refused = answer(&proxy, &[LINE, GET].concat()).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert_eq!(told(&proxy, &worker, b"").await, "127.0.0.1");
    let proxy = Proxy::start(&behind("require", "192.0.2.0/24"));
    for bytes in [&[LINE, GET].concat()[..], GET] {
        assert_eq!(answer(&proxy, bytes).await, "");
    }
    assert_eq!(counted(&proxy, "untrusted").await, 2.0);
}

#[tokio::test]
async fn a_malformed_header_closes_its_connection_and_half_of_one_waits_no_longer_than_a_handshake() {
    let proxy = Proxy::start(&behind("accept", "127.0.0.0/8"));
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
    let bad: [&[u8]; 5] = [
        b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
        b"PROXY TCP6 203.0.113.9 10.0.0.1 4711 443\r\n",
        &long,
        &block(0x22, 0x11),
        &[SIGNATURE, &[0x21, 0x11, 0x10, 0x01]].concat(),
    ];
    for header in bad {
        assert_eq!(answer(&proxy, header).await, "", "{header:?}");
    }
    assert_eq!(counted(&proxy, "malformed").await, 5.0);
    assert_eq!(answer(&proxy, &LINE[..20]).await, "");
    assert_eq!(answer(&proxy, SIGNATURE).await, "");
    assert_eq!(counted(&proxy, "timed_out").await, 2.0);
}

#[tokio::test]
async fn a_header_stands_before_tls() {
    let files = TlsFiles::new();
    let pair = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let tls = format!("tls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{pair}]\n");
    let (proxy, worker) = started(&(behind("require", "127.0.0.0/8") + &tls)).await;
    let mut stream = TcpStream::connect(proxy.tls).await.unwrap();
    stream.write_all(&block(0x21, 0x11)).await.unwrap();
    let name = ServerName::try_from("example.test").unwrap();
    let mut stream = TlsConnector::from(believing(None)).connect(name, stream).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let knock = worker.knock().await;
    let said = ["x-real-ip", "x-forwarded-proto"].map(|name| knock.head.header(name));
    assert_eq!(said, ["203.0.113.9", "https"]);
}

#[tokio::test]
async fn workers_are_told_whose_connection_they_get_and_after_a_loss_that_of_the_newest_client() {
    let sends = "[[pools]]\nname = \"default\"\nsend_proxy = \"v1\"\nhealth.interval = \"0s\"\n[[routes]]\nname = \"r\"\n\
                 path = \"/{*path}\"\npool = \"default\"\nclient_id = \"{query.client}\"\n";
    let (proxy, first) = started(&(behind("accept", "127.0.0.0/8") + sends)).await;
    let line = |address: &str| format!("PROXY TCP4 {address} 10.0.0.1 4711 443\r\n").into_bytes();
    let port = proxy.public.port();
    let told = |address: &str| format!("PROXY TCP4 {address} 0.0.0.0 0 {port}");
    let old = line("203.0.113.1");
    let (client, worker) = tokio::join!(Wire::open_behind(&old, proxy.public, "/ws?client=a", &[]), first.accept());
    assert_eq!(worker.head.line, told("203.0.113.1"));
    client.unwrap().reset();
    let back = line("203.0.113.2");
    let client = Wire::open_behind(&back, proxy.public, "/ws?client=a", &[]).await.unwrap();
    eventually("the pipe has its newest client", async || {
        proxy.pipes().await.iter().any(|pipe| pipe["client"] == "203.0.113.2").then_some(())
    })
    .await;
    let second = StepWorker::start().await;
    proxy.register("second", second.address).await;
    drop(first);
    worker.reset();
    let next = second.accept().await;
    assert_eq!(next.head.line, told("203.0.113.2"));
    drop(client);
}

#[tokio::test]
async fn each_plain_request_has_a_connection_that_says_whose_it_is() {
    let sends = "[[pools]]\nname = \"default\"\nsend_proxy = \"v1\"\nhealth.interval = \"0s\"\n";
    let (proxy, worker) = started(&(behind("accept", "127.0.0.0/8") + sends)).await;
    for address in ["203.0.113.1", "203.0.113.2"] {
        let line = format!("PROXY TCP4 {address} 10.0.0.1 4711 443\r\n");
        let plain = async {
            let mut knock = worker.knock().await;
            knock.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            knock.head.line
        };
        let sent = [line.as_bytes(), GET].concat();
        let (answer, line) = tokio::join!(answer(&proxy, &sent), plain);
        assert!(answer.ends_with("ok"), "{answer}");
        assert_eq!(line, format!("PROXY TCP4 {address} 0.0.0.0 0 80"));
    }
}

#[tokio::test]
async fn probes_and_shared_streams_are_the_proxys_own_connections() {
    let sends = "[[pools]]\nname = \"default\"\nsend_proxy = \"v2\"\nhealth.interval = \"100ms\"\n[[routes]]\nname = \"r\"\n\
                 path = \"/{*path}\"\npool = \"default\"\nshare = true\n";
    let proxy = Proxy::start(sends);
    let worker = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    proxy.register("w", worker.local_addr().unwrap()).await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    let mut viewer = TcpStream::connect(proxy.public).await.unwrap();
    viewer
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
    let (mut probed, mut streamed) = (false, false);
    while !(probed && streamed) {
        let (mut stream, _) = within("a connection", worker.accept()).await.unwrap();
        let mut header = [0; 16];
        within("a header", stream.read_exact(&mut header)).await.unwrap();
        assert_eq!(header, local[..]);
        let mut behind = [0; 16];
        let is_stream = within("what follows", stream.read(&mut behind)).await.unwrap() > 0;
        (probed, streamed) = (probed || !is_stream, streamed || is_stream);
    }
}
