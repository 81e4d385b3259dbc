//! Real sockets: a backend that answers with what the test says, byte for byte.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::net::{Addresses, DialFailure, TlsClient, TlsFiles};

const TIMEOUTS: DialTimeouts = DialTimeouts { connect: Duration::from_secs(5), handshake: Duration::from_secs(5) };

fn plain<'a>(addresses: &'a Addresses, protocols: &'a [String], expected: ExpectedProtocol<'a>) -> Dial<'a> {
    Dial {
        addresses,
        tls: None,
        proxy_header: b"",
        host: "app.example",
        path: "/ws/s1?q=1",
        head_lines: b"Cookie: a=1\r\n",
        protocols,
        numbered: false,
        expected,
        compression: Asked::Nothing,
        attach: &[],
        timeouts: TIMEOUTS,
    }
}

async fn listener() -> (TcpListener, Addresses) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, vec![address].into())
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

fn line<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A correct 101 for a request, with `more` lines.
fn good(request: &str, more: &str) -> String {
    let accept = accept_key(line(request, "Sec-WebSocket-Key").expect("a key"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Dials a backend that answers with `answer(request head)` and then closes; gives the dial's outcome.
async fn dialed(
    protocols: &[&str],
    expected: ExpectedProtocol<'_>,
    answer: impl FnOnce(&str) -> String,
) -> Result<Dialed, DialError> {
    let protocols: Vec<_> = protocols.iter().map(|&name| name.to_owned()).collect();
    let (listener, addresses) = listener().await;
    let backend = async {
        let (mut stream, _) = listener.accept().await.expect("a dial");
        let request = read_head(&mut stream).await;
        stream.write_all(answer(&request).as_bytes()).await.expect("the answer goes out");
    };
    tokio::join!(dial(plain(&addresses, &protocols, expected)), backend).0
}

async fn answered(answer: impl FnOnce(&str) -> String) -> Result<Dialed, DialError> {
    dialed(&[], ExpectedProtocol::Offered, answer).await
}

#[tokio::test]
async fn a_correct_101_gives_the_socket_what_followed_and_the_clients_headers() {
    let outcome = answered(|request| {
        good(request, "Set-Cookie: a=1\r\nHoldline-Resume: ok; rx=7\r\nX-Hop: 1\r\nConnection: X-Hop\r\n")
            + "\u{1}frame"
    });
    let mut dialed = outcome.await.expect("attached");
    assert_eq!(&dialed.leftover[..], b"\x01frame");
    assert_eq!(dialed.resume, Some(HoldlineResume::Ok { rx: 7 }));
    assert_eq!(dialed.protocol, None);
    assert_eq!(dialed.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["set-cookie"]);
    assert_eq!(dialed.stream.read(&mut [0; 8]).await.expect("the backend's end"), 0);
}

#[tokio::test]
async fn the_request_is_spelled_as_old_peers_want_it_with_a_fresh_key() {
    let protocols = ["chat".to_owned(), "superchat".to_owned()];
    let attach = [
        ("Holdline-Pipe", "p1".to_owned()),
        ("Holdline-Attach", "2".to_owned()),
        ("Holdline-Cause", "a\r\nX: y".to_owned()),
    ];
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (listener, addresses) = listener().await;
        let backend = async {
            let (mut stream, _) = listener.accept().await.expect("a dial");
            let request = read_head(&mut stream).await;
            stream.write_all(good(&request, "Sec-WebSocket-Protocol: superchat\r\n").as_bytes()).await.expect("sent");
            request
        };
        let ask = Dial { attach: &attach, ..plain(&addresses, &protocols, ExpectedProtocol::Offered) };
        let (dialed, request) = tokio::join!(dial(ask), backend);
        assert_eq!(dialed.expect("attached").protocol.as_deref(), Some("superchat"));
        let key = line(&request, "Sec-WebSocket-Key").expect("a key").to_owned();
        assert_eq!(
            request.lines().collect::<Vec<_>>(),
            [
                "GET /ws/s1?q=1 HTTP/1.1",
                "Host: app.example",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                &format!("Sec-WebSocket-Key: {key}"),
                "Sec-WebSocket-Protocol: chat, superchat",
                "Cookie: a=1",
                "Holdline-Pipe: p1",
                "Holdline-Attach: 2",
                "",
            ]
        );
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn an_answer_in_pieces_and_after_interim_ones_is_put_together() {
    let (listener, addresses) = listener().await;
    let backend = async {
        let (mut stream, _) = listener.accept().await.expect("a dial");
        let request = read_head(&mut stream).await;
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".to_owned()
            + &good(&request, "")
            + "xyz";
        for byte in answer.as_bytes() {
            stream.write_all(&[*byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        stream
    };
    let (dialed, mut stream) = tokio::join!(dial(plain(&addresses, &[], ExpectedProtocol::Offered)), backend);
    let mut dialed = dialed.expect("attached");
    stream.shutdown().await.expect("closed");
    let mut rest = dialed.leftover.to_vec();
    dialed.stream.read_to_end(&mut rest).await.expect("the rest");
    assert_eq!(rest, b"xyz");
}

#[tokio::test]
async fn a_101_that_is_no_proof_is_refused() {
    let without = |answer: String, name: &str| {
        answer.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect::<String>()
    };
    for name in ["Upgrade", "Connection", "Sec-WebSocket-Accept"] {
        let outcome = answered(|request| without(good(request, ""), name)).await;
        assert!(matches!(outcome, Err(DialError::BadAccept(missing)) if missing == name), "{name}: {outcome:?}");
    }
    for (from, to, name) in [
        ("Upgrade: websocket", "Upgrade: h2c", "Upgrade"),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", "Upgrade"),
        ("Connection: Upgrade", "Connection: close", "Connection"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Accept"),
        ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept: ", "Sec-WebSocket-Accept"),
    ] {
        let outcome = answered(|request| good(request, "").replace(from, to)).await;
        assert!(matches!(outcome, Err(DialError::BadAccept(wrong)) if wrong == name), "{to}: {outcome:?}");
        assert_eq!(outcome.expect_err("refused").refusal().expect("ours").status, 502);
    }
}

#[tokio::test]
async fn ib_14_an_extension_that_nobody_offered_is_refused() {
    let outcome = answered(|request| good(request, "Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
    assert!(matches!(outcome, Err(DialError::BadExtension)), "{outcome:?}");
}

#[tokio::test]
async fn a_subprotocol_must_be_offered_and_stay_the_same() {
    use ExpectedProtocol::{Exactly, Offered};
    for (offered, expected, picked, good_pick) in [
        (&["a", "b"] as &[&str], Offered, Some("b"), true),
        (&["a", "b"], Offered, None, true),
        (&["a", "b"], Offered, Some("c"), false),
        (&["a", "b"], Offered, Some("b\r\nSec-WebSocket-Protocol:"), true),
        (&["a", "b"], Offered, Some("A"), false),
        (&["a", "b"], Offered, Some("a, b"), false),
        (&["a", "b"], Offered, Some("a\r\nSec-WebSocket-Protocol: a"), false),
        (&[], Offered, Some("a"), false),
        (&[], Offered, Some(""), true),
        (&["a", "b"], Exactly(None), Some(" "), true),
        (&["a", "b"], Exactly(Some("b")), Some(""), false),
        (&["a", "b"], Exactly(Some("b")), Some("b"), true),
        (&["a", "b"], Exactly(Some("b")), Some("a"), false),
        (&["a", "b"], Exactly(Some("b")), None, false),
        (&["a", "b"], Exactly(None), None, true),
        (&["a", "b"], Exactly(None), Some("a"), false),
    ] {
        let more = picked.map(|picked| format!("Sec-WebSocket-Protocol: {picked}\r\n")).unwrap_or_default();
        let outcome = dialed(offered, expected, |request| good(request, &more)).await;
        match outcome {
            Ok(dialed) => {
                let name = picked.map(|picked| picked.split('\r').next().unwrap_or_default().trim());
                let name = name.filter(|name| !name.is_empty());
                assert!(good_pick && dialed.protocol.as_deref() == name, "{offered:?} {expected:?} {picked:?}")
            }
            Err(DialError::BadProtocol) => {
                assert!(!good_pick, "{offered:?} {expected:?} {picked:?}")
            }
            Err(other) => panic!("{offered:?} {expected:?} {picked:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn the_resume_word_is_understood_or_refused() {
    for (word, expected) in [
        ("ok; rx=0", Some(HoldlineResume::Ok { rx: 0 })),
        ("ok;rx=9007199254740991", Some(HoldlineResume::Ok { rx: (1 << 53) - 1 })),
        ("new", Some(HoldlineResume::New)),
        ("refuse", Some(HoldlineResume::Refuse)),
        ("ok", None),
        ("ok; rx=-1", None),
        ("ok; rx=x", None),
        ("maybe", None),
    ] {
        let outcome = answered(|request| good(request, &format!("Holdline-Resume: {word}\r\n"))).await;
        match outcome {
            Ok(dialed) => assert_eq!(dialed.resume, expected, "{word}"),
            Err(error) => {
                assert!(expected.is_none() && matches!(error, DialError::MalformedResponse(_)), "{word}: {error}")
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_an_answer_is_malformed_or_lost() {
    let long = format!("HTTP/1.1 101 x\r\nX: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
    let many = format!("HTTP/1.1 101 x\r\n{}\r\n", "X: a\r\n".repeat(129));
    let interim = "HTTP/1.1 103 x\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n".repeat(1000);
    for answer in ["SSH-2.0-x\r\n\r\n", "HTTP/2 101\r\n\r\n", &long, &many, &interim] {
        let outcome = answered(|_| answer.to_owned()).await;
        let shown = answer.get(..20);
        assert!(matches!(outcome, Err(DialError::MalformedResponse(_))), "{shown:?}: {outcome:?}");
    }
    let old = answered(|request| good(request, "").replace("HTTP/1.1", "HTTP/1.0")).await;
    assert!(matches!(old, Err(DialError::MalformedResponse(_))), "{old:?}");
    for answer in ["", "HTTP/1.1 101 Switching Protocols\r\nUpgr"] {
        let outcome = answered(|_| answer.to_owned()).await;
        assert!(matches!(outcome, Err(DialError::HandshakeLost(_))), "{answer}: {outcome:?}");
        assert_eq!(outcome.expect_err("lost").refusal().expect("ours").status, 502);
    }
}

async fn relayed(answer: &str) -> (StatusCode, Vec<String>, Result<String, io::Error>) {
    let Err(error @ DialError::NotUpgraded(_)) = answered(|_| answer.to_owned()).await else {
        panic!("it was not refused")
    };
    let NotUpgraded { status, headers, body } = *error.refusal().expect_err("the worker's own");
    let names = headers.keys().map(|name| name.as_str().to_owned()).collect();
    let body = body.collect().await.map(|body| String::from_utf8(body.to_bytes().to_vec()).expect("text"));
    (status, names, body)
}

#[tokio::test]
async fn ib_20_a_refusal_reaches_the_client_as_it_is() {
    for (answer, status, headers, body) in [
        (
            "HTTP/1.1 403 No\r\nContent-Length: 4\r\nX-Why: z\r\nHoldline-X: 1\r\nConnection: close\r\n\r\nnope!!",
            403,
            &["content-length", "x-why"] as &[_],
            "nope",
        ),
        (
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            401,
            &["www-authenticate", "content-length"],
            "",
        ),
        ("HTTP/1.0 500 No\r\n\r\nuntil the end", 500, &[], "until the end"),
        (
            "HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
            429,
            &[],
            "abc0123456789",
        ),
        ("HTTP/1.1 204 No\r\n\r\n", 204, &[], ""),
        ("HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, &["location", "content-length"], ""),
    ] {
        let (seen_status, seen_headers, seen_body) = relayed(answer).await;
        assert_eq!(seen_status.as_u16(), status, "{answer}");
        assert_eq!(seen_headers, headers, "{answer}");
        assert_eq!(seen_body.expect("a whole body"), body, "{answer}");
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_is_not_passed_as_whole() {
    for answer in [
        "HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n",
        "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        assert!(relayed(answer).await.2.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn a_closed_port_is_refused_and_the_next_address_is_tried() {
    let (closed, _) = listener().await;
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let error = dial(plain(&vec![address].into(), &[], ExpectedProtocol::Offered)).await.expect_err("nobody listens");
    assert!(matches!(&error, DialError::ConnectFailed(error) if error.kind == DialFailure::Refused), "{error:?}");
    assert_eq!(error.refusal().expect("ours").status, 502);

    let (listener, _) = listener().await;
    let open = listener.local_addr().expect("an address");
    let backend = async {
        let (mut stream, _) = listener.accept().await.expect("a dial");
        let request = read_head(&mut stream).await;
        stream.write_all(good(&request, "").as_bytes()).await.expect("sent");
    };
    let addresses = vec![address, open].into();
    let (dialed, ()) = tokio::join!(dial(plain(&addresses, &[], ExpectedProtocol::Offered)), backend);
    dialed.expect("the second address answers");
}

#[tokio::test]
async fn a_backend_that_stays_silent_times_out() {
    let (_listener, addresses) = listener().await;
    let timeouts = DialTimeouts { handshake: Duration::from_millis(10), ..TIMEOUTS };
    let ask = Dial { timeouts, ..plain(&addresses, &[], ExpectedProtocol::Offered) };
    let error = dial(ask).await.expect_err("silence");
    assert!(matches!(error, DialError::HandshakeTimeout), "{error:?}");
    assert_eq!(error.refusal().expect("ours").status, 504);
}

/// A server with a certificate for `name`, and the only one that trusts it.
fn certificate(name: &str) -> (TlsClient, tokio_rustls::TlsAcceptor) {
    let key = || rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let own = key();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&own, &authority).expect("a certificate");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = STANDARD.encode(authority.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(file.path(), pem).expect("written");
    let files = TlsFiles { ca: Some(file.path()), ..TlsFiles::default() };
    let (client, _) = TlsClient::read(&files, std::time::SystemTime::now()).expect("a client");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let key = PrivateKeyDer::try_from(own.serialize_der()).expect("a key");
    let server = server.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).expect("a server");
    (client, tokio_rustls::TlsAcceptor::from(Arc::new(server)))
}

async fn secured<T>(
    client: &TlsClient,
    name: &str,
    backend: impl AsyncFnOnce(TcpStream) -> T,
) -> (Result<Dialed, DialError>, T) {
    let (listener, addresses) = listener().await;
    let peer = TlsPeer::of(&format!("wss://{name}").parse().expect("a URL"), client);
    let ask = Dial { tls: peer.as_ref(), ..plain(&addresses, &[], ExpectedProtocol::Offered) };
    let serve = async { backend(listener.accept().await.expect("a dial").0).await };
    tokio::join!(within(dial(ask)), serve)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("the dial ends by itself")
}

#[tokio::test]
async fn iw_10_a_wss_backend_is_dialled_over_tls() {
    let (client, acceptor) = certificate("worker.example");
    let (dialed, _stream) = secured(&client, "worker.example", async |stream| {
        let mut stream = acceptor.accept(stream).await.expect("TLS");
        let request = read_head(&mut stream).await;
        stream.write_all((good(&request, "") + "frame").as_bytes()).await.expect("sent");
        stream.flush().await.expect("sent");
        stream
    })
    .await;
    let mut dialed = dialed.expect("attached");
    let mut frame = dialed.leftover.to_vec();
    while frame.len() < 5 {
        frame.push(dialed.stream.read_u8().await.expect("the frame"));
    }
    assert_eq!(frame, b"frame");
    assert!(matches!(dialed.stream, BackendStream::Tls(_)));
}

#[tokio::test]
async fn a_certificate_for_another_name_or_from_a_stranger_is_refused() {
    let (client, acceptor) = certificate("worker.example");
    let (stranger, _) = certificate("worker.example");
    for (client, name) in [(&client, "other.example"), (&client, "127.0.0.1"), (&stranger, "worker.example")] {
        let (outcome, _) = secured(client, name, async |stream| acceptor.accept(stream).await.map(|_| ())).await;
        let error = outcome.expect_err("not trusted");
        assert!(
            matches!(&error, DialError::ConnectFailed(error) if error.kind == DialFailure::Tls),
            "{name}: {error:?}"
        );
    }
}
