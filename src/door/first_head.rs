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
const ROOM_BYTES: usize = 2048;

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
pub enum First {
    /// A handshake.
    Handshake {
        /// Its head.
        request: Request<()>,
        /// The bytes of the head.
        head: Bytes,
        /// What came behind it.
        unread: BytesMut,
    },
    /// Something else, or not all of it: the bytes so far.
    Other(Bytes),
}

impl First {
    /// Reads a head from `stream`, for no longer than `patience`.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin), patience: Duration) -> Self {
        let mut read = BytesMut::with_capacity(ROOM_BYTES);
        let Ok(Some(bytes)) = timeout(patience, head_bytes(stream, &mut read)).await else {
            return Self::Other(read.freeze());
        };
        let head = read.split_to(bytes).freeze();
        match parse(&head) {
            Some(request) => Self::Handshake { request, head, unread: read },
            None => Self::Other(joined(head, read)),
        }
    }
}

/// `head` and `unread` as they were read.
pub fn joined(head: Bytes, unread: BytesMut) -> Bytes {
    if unread.is_empty() {
        return head;
    }
    let mut bytes = BytesMut::from(head);
    bytes.unsplit(unread);
    bytes.freeze()
}

/// Reads up to the end of a head; its length, if it may be that of a handshake.
async fn head_bytes(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> Option<usize> {
    loop {
        let looked_at = read.len().saturating_sub(END.len() - 1);
        // An end or an error is found again by who reads next.
        if stream.read_buf(read).await.ok()? == 0 || !begins_as_a_handshake(read) {
            return None;
        }
        if let Some(end) = read[looked_at..].windows(END.len()).position(|bytes| bytes == END) {
            return Some(looked_at + end + END.len());
        }
        if read.len() >= HEAD_BYTES_MAX {
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
