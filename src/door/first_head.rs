//! The first head of a connection, read on the bare socket: most are handshakes, which need no HTTP connection.
//!
//! A common handshake is parsed here, everything else is left to hyper with the bytes that were read. Invariants: no
//! byte is lost; what is taken here, hyper would have taken, and as the same request (a test holds it).

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Uri};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::handshake::check::asks_for_websocket;

/// Room for a head at first: a browser's, with its cookies.
pub(super) const ROOM_BYTES: usize = 2048;

/// A longer head is left to hyper, which knows `server.header_bytes_max`.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header lines that hyper takes by default.
const HEADERS_MAX: usize = 100;

/// How the method of a handshake and what follows it look.
const METHOD: &[u8] = b"GET ";

/// The end of a head (RFC 9112 section 2.1).
const END: &[u8] = b"\r\n\r\n";

/// What a client sent first.
#[derive(Debug)]
pub struct First {
    /// Its head, if that is a handshake.
    pub handshake: Option<Request<()>>,
    /// The bytes of the head, or of what is no handshake.
    pub head: Bytes,
    /// What came behind it.
    pub unread: BytesMut,
}

impl First {
    /// Reads a head from `stream`, behind what was `read` of it already, for no longer than `patience`.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin), read: BytesMut, patience: Duration) -> Self {
        let mut unread = read;
        if unread.is_empty() {
            unread.reserve(ROOM_BYTES);
        }
        let Ok(Some(bytes)) = timeout(patience, head_bytes(stream, &mut unread)).await else {
            return Self { handshake: None, head: Bytes::new(), unread };
        };
        let head = unread.split_to(bytes).freeze();
        Self { handshake: parse(&head), head, unread }
    }

    /// All the bytes, as they were read.
    pub fn into_bytes(self) -> Bytes {
        if self.unread.is_empty() {
            return self.head;
        }
        let mut bytes = BytesMut::from(self.head);
        bytes.unsplit(self.unread);
        bytes.freeze()
    }
}

/// Reads up to the end of a head; its length, if it may be that of a handshake.
async fn head_bytes(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> Option<usize> {
    let mut looked_at = 0;
    loop {
        if !begins_as_a_handshake(read) {
            return None;
        }
        if let Some(end) = read[looked_at..].windows(END.len()).position(|bytes| bytes == END) {
            return Some(looked_at + end + END.len());
        }
        looked_at = read.len().saturating_sub(END.len() - 1);
        if read.len() >= HEAD_BYTES_MAX {
            return None;
        }
        // An end or an error is found again by who reads next.
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

fn begins_as_a_handshake(read: &[u8]) -> bool {
    let bytes = read.len().min(METHOD.len());
    read[..bytes] == METHOD[..bytes]
}

/// `head` as a request, if it is a common handshake.
fn parse(head: &Bytes) -> Option<Request<()>> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let complete = parsed.parse_with_uninit_headers(head, &mut lines).ok()?.is_complete();
    if !complete || parsed.version != Some(1) || has_bare_line_feed(head) {
        return None;
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(parsed.path?.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        if [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT].contains(&name) {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(head.slice_ref(line.value)).ok()?);
    }
    if !asks_for_websocket(&headers) {
        return None;
    }
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some(request)
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    head.split_inclusive(|&byte| byte == b'\n').any(|line| !line.ends_with(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::request::Parts;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    const GOOD: &str = "GET /ws/a%20b?x=1&y={2} HTTP/1.1\r\nHost: app.example:80\r\nUPGRADE: WebSocket\r\n\
        connection:keep-alive, Upgrade  \r\nCookie: a=1\r\ncookie: b=\u{e4}\r\nX-Empty:\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    async fn ours(sent: &[u8]) -> First {
        let (mut client, mut stream) = duplex(1 << 20);
        client.write_all(sent).await.expect("there is room");
        drop(client);
        First::read(&mut stream, BytesMut::new(), PATIENCE).await
    }

    async fn hypers(sent: &[u8]) -> Option<Parts> {
        let (mut client, stream) = duplex(1 << 20);
        client.write_all(sent).await.expect("there is room");
        client.shutdown().await.expect("it is open");
        let (seen, mut sees) = mpsc::unbounded_channel();
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            seen.send(request.into_parts().0).expect("it is read");
            std::future::ready(Ok::<_, Infallible>(http::Response::new(String::new())))
        });
        // How the connection ends is not looked at.
        let _ = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service).await;
        sees.try_recv().ok()
    }

    /// The good handshake with one change.
    fn changed(from: &str, to: &str) -> Vec<u8> {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1).into_bytes()
    }

    #[tokio::test]
    async fn what_is_taken_is_the_request_that_hyper_reads() {
        let many = "X: y\r\n".repeat(HEADERS_MAX);
        for (sent, taken) in [
            (GOOD.as_bytes().to_vec(), true),
            (changed("/ws/a%20b", "http://b.example/ws"), true),
            (changed("/ws/a%20b", "ws"), false),
            (changed("{2}", "\"2\""), false),
            (changed("{2}", "\u{e4}"), true),
            (changed("GET ", "GET  "), false),
            (changed("GET", "\r\nGET"), false),
            (changed("GET", "POST"), false),
            (changed("GET", "get"), false),
            (changed("HTTP/1.1", "HTTP/1.0"), false),
            (changed("HTTP/1.1", "HTTP/2.0"), false),
            (changed("UPGRADE: WebSocket", "Upgrade: h2c"), false),
            (changed("UPGRADE: WebSocket\r\n", ""), false),
            (changed("X-Empty:", "Content-Length: 0"), false),
            (changed("X-Empty:", "Transfer-Encoding: chunked"), false),
            (changed("X-Empty:", "Expect: 100-continue"), false),
            (changed("X-Empty:", "X-Empty :"), false),
            (changed("X-Empty:", " folded"), false),
            (changed("X-Empty:", "X\u{0}: y"), false),
            (changed("X-Empty:\r\n", "X-Empty:\n"), false),
            (changed("X-Empty:\r\n", &many), false),
            (changed("Cookie: a=1", "Cookie: a=\u{1}"), false),
        ] {
            let (ours, hypers) = (ours(&sent).await, hypers(&sent).await);
            let said = String::from_utf8_lossy(&sent);
            let Some(request) = ours.handshake else {
                assert!(!taken, "not taken: {said}");
                continue;
            };
            assert!(taken && ours.unread.is_empty() && *ours.head == *sent, "taken: {said}");
            let (ours, hypers) = (request.into_parts().0, hypers.expect("hyper takes it"));
            assert_eq!((&ours.method, &ours.uri, ours.version), (&hypers.method, &hypers.uri, hypers.version));
            assert_eq!(ours.headers, hypers.headers);
        }
    }

    #[tokio::test]
    async fn no_byte_is_lost_however_a_handshake_comes() {
        let mut sent = GOOD.as_bytes().to_vec();
        sent.extend_from_slice(b"\x81\x80....");
        for piece in [1, 3, 100, sent.len()] {
            let (mut client, mut stream) = duplex(piece);
            let bytes = sent.clone();
            let writing = tokio::spawn(async move { client.write_all(&bytes).await });
            let first = First::read(&mut stream, BytesMut::new(), PATIENCE).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("it is open");
            writing.await.expect("it does not panic").expect("it is read");
            assert!(first.handshake.is_some(), "not taken in pieces of {piece}");
            assert_eq!([&first.into_bytes()[..], &rest].concat(), sent, "{piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_whole_handshake_is_given_back_as_far_as_it_was_read() {
        for sent in [&b"PUT / HTTP/1.1\r\n"[..], b"G", b"GET / HTTP/1.1\r\nHost: a", b"\x16\x03\x01", b""] {
            let (mut client, mut stream) = duplex(1 << 20);
            client.write_all(sent).await.expect("there is room");
            let first = First::read(&mut stream, BytesMut::new(), PATIENCE).await;
            assert!(first.handshake.is_none());
            assert_eq!(first.into_bytes(), sent);
        }
        let endless = [METHOD, &[b'a'; 2 * HEAD_BYTES_MAX]].concat();
        let read = ours(&endless).await.into_bytes();
        assert!(endless.starts_with(&read) && (HEAD_BYTES_MAX..2 * HEAD_BYTES_MAX).contains(&read.len()));
    }
}
