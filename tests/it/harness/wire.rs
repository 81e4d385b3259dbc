//! A WebSocket at the level of frames: exact bytes out, exact frames in, no opinion in between.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Reply, within};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// What a peer said, control frames between messages left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Close(u16, String),
    /// FIN or RST without a close frame.
    Gone,
}

impl Said {
    /// The text, or a panic.
    #[track_caller]
    pub fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => panic!("wanted text, heard {other:?}"),
        }
    }
}

/// One frame as it came, unmasked.
#[derive(Clone, Debug)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

/// The head of a request or of an answer.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Its first line.
    pub line: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header; empty without it.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Whether the header is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The request's path and query.
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// The raw connection of a client, or of a worker that is stepped by hand.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    /// The head that the other side sent.
    pub head: Head,
    /// Whether pings are answered while something is awaited.
    pub pongs: bool,
    /// Pings that were heard.
    pub pings: Vec<Vec<u8>>,
    /// Opcode and payload of a message that is not whole yet.
    partial: Option<(u8, Vec<u8>)>,
    buffer: BytesMut,
    masks: bool,
    /// Whether it is a worker's end that neither side has ended.
    lives_on: bool,
}

/// Reads a head; nothing if the connection ends before it.
pub async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Head> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut lines = text.trim_end().split("\r\n");
            let line = lines.next()?.to_owned();
            let headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            return Some(Head { line, headers });
        }
        if !matches!(stream.read_buf(buffer).await, Ok(read) if read > 0) {
            return None;
        }
    }
}

impl Wire {
    /// The worker's end of a connection that has been upgraded.
    pub fn of_worker(stream: TcpStream, head: Head, buffer: BytesMut) -> Self {
        Self { stream, head, pongs: true, pings: Vec::new(), partial: None, buffer, masks: false, lives_on: true }
    }

    /// A client that has been answered 101.
    #[track_caller]
    pub fn connect<'a>(
        address: SocketAddr,
        path: &'a str,
        headers: &'a [(&str, &str)],
    ) -> impl Future<Output = Self> + 'a {
        let opening = Self::open(address, path, headers);
        async move { opening.await.unwrap_or_else(|reply| panic!("{path}: {reply:?}")) }
    }

    /// A client that is answered 101, or the other answer.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, Reply> {
        Self::open_behind(b"", address, path, headers).await
    }

    /// The same for one that says these bytes before all else.
    pub async fn open_behind(
        before: &[u8],
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Reply> {
        let mut stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(&[before, request.as_bytes()].concat()).await.unwrap();
        let mut buffer = BytesMut::new();
        let head = within("the answer to a handshake", read_head(&mut stream, &mut buffer)).await.unwrap();
        if !head.line.starts_with("HTTP/1.1 101 ") {
            return Err(refused(head, stream, buffer).await);
        }
        assert_eq!(head.header("sec-websocket-accept"), derive_accept_key(key.as_bytes()));
        Ok(Self { stream, head, pongs: true, pings: Vec::new(), partial: None, buffer, masks: true, lives_on: false })
    }

    /// The bytes of a frame, masked if this end is a client's.
    pub fn encode(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let mask = if self.masks { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..=125 => bytes.push(mask | length as u8),
            length @ 126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if self.masks {
            let key: [u8; 4] = rand::random();
            bytes.extend_from_slice(&key);
            let start = bytes.len();
            bytes.extend_from_slice(payload);
            bytes[start..].iter_mut().enumerate().for_each(|(index, byte)| *byte ^= key[index % 4]);
        } else {
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    /// Sends these bytes and no others.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        within("room to write", self.stream.write_all(bytes)).await
    }

    /// Sends one frame, the last of its message if `fin`.
    pub async fn frame_out(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        let bytes = self.encode(if fin { 0x80 | opcode } else { opcode }, payload);
        self.send_raw(&bytes).await.unwrap();
    }

    /// Sends a text message in one frame.
    pub async fn text(&mut self, text: &str) {
        self.frame_out(true, TEXT, text.as_bytes()).await;
    }

    /// Sends a close frame.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        self.frame_out(true, CLOSE, &payload).await;
    }

    /// The next frame; nothing once the connection has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        within("a frame", self.frame_unbounded()).await
    }

    async fn frame_unbounded(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parse() {
                self.lives_on &= frame.opcode != CLOSE;
                return Some(frame);
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0) {
                self.lives_on = false;
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return None };
        let (first, masked) = (*first, second & 0x80 != 0);
        let (length, extended) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 2),
            127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?) as usize, 8),
            short => (usize::from(short), 0),
        };
        let header = 2 + extended + if masked { 4 } else { 0 };
        if self.buffer.len() < header + length {
            self.buffer.reserve(header + length - self.buffer.len());
            return None;
        }
        let key: [u8; 4] = if masked { self.buffer[header - 4..header].try_into().ok()? } else { [0; 4] };
        self.buffer.advance(header);
        let mut payload = self.buffer.split_to(length).to_vec();
        if masked {
            payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= key[index % 4]);
        }
        Some(Frame { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 15, masked, payload })
    }

    /// The next message or close; pings before it are kept, and answered if `pongs` says so.
    pub async fn hear(&mut self) -> Said {
        within("a message", self.hear_unbounded()).await
    }

    /// The same without an end: for tasks that serve until they are dropped.
    pub async fn hear_unbounded(&mut self) -> Said {
        loop {
            if let Some(said) = self.hear_or_ping().await {
                return said;
            }
        }
    }

    /// The next message or close, or nothing if a ping came before it.
    pub async fn hear_or_ping(&mut self) -> Option<Said> {
        loop {
            let Some(frame) = self.frame_unbounded().await else { return Some(Said::Gone) };
            assert_eq!(frame.masked, !self.masks, "masked exactly from client to server");
            assert_eq!(frame.rsv, 0, "nothing was negotiated that needs a reserved bit");
            match frame.opcode {
                PING => {
                    if self.pongs {
                        let pong = self.encode(0x80 | PONG, &frame.payload);
                        // a peer that is gone needs no pong; the next read says so
                        let _ = self.stream.write_all(&pong).await;
                    }
                    self.pings.push(frame.payload);
                    return None;
                }
                PONG => {}
                CLOSE => return Some(close_of(&frame.payload)),
                opcode => {
                    assert_eq!(opcode == CONTINUATION, self.partial.is_some(), "a frame out of place");
                    let (_, payload) = self.partial.get_or_insert_with(|| (opcode, Vec::new()));
                    payload.extend_from_slice(&frame.payload);
                    if frame.fin {
                        return self.partial.take().map(whole);
                    }
                }
            }
        }
    }

    /// Reads until a ping comes, and answers it: everything that was sent before it is confirmed then.
    pub async fn pong_once(&mut self) {
        loop {
            let frame = self.frame().await.unwrap();
            if frame.opcode == PING {
                return self.frame_out(true, PONG, &frame.payload).await;
            }
        }
    }

    /// Whether nothing at all comes for this long.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.hear_unbounded()).await.is_err()
    }

    /// The same end of a worker that dies with the task that has it.
    pub fn mortal(mut self) -> Self {
        self.lives_on = false;
        self
    }

    /// Answers pings, if `pongs` says so, until the other side closes or goes.
    async fn await_end(mut self) {
        while let Some(frame) = self.frame_unbounded().await {
            match frame.opcode {
                CLOSE => return,
                PING if self.pongs => {
                    let pong = self.encode(0x80 | PONG, &frame.payload);
                    // a peer that is gone needs no pong; the next read says so
                    let _ = self.stream.write_all(&pong).await;
                }
                _ => {}
            }
        }
    }

    /// Ends the connection with an RST.
    pub fn reset(mut self) {
        self.lives_on = false;
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Ends the connection with a FIN, everything written before it delivered.
    pub async fn fin(mut self) {
        self.lives_on = false;
        // the peer may be gone already
        let _ = self.stream.shutdown().await;
        // unread bytes would turn the FIN into an RST
        let mut rest = [0; 4096];
        while matches!(within("the other FIN", self.stream.read(&mut rest)).await, Ok(read) if read > 0) {}
    }
}

/// A worker's end that its test lets go lives on, silent, until the proxy ends it: the proxy would dial a worker that goes
/// before its client once more, and the next client's handshake would be taken for that dial. A worker that dies says so,
/// by [`Wire::reset`], [`Wire::fin`] or [`Wire::mortal`].
impl Drop for Wire {
    fn drop(&mut self) {
        if !std::mem::take(&mut self.lives_on) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Ok(socket) = socket2::SockRef::from(&self.stream).try_clone() else { return };
        // a runtime that ends takes no more sockets, and its test needs none
        let Ok(stream) = TcpStream::from_std(socket.into()) else { return };
        let mut heir = Self::of_worker(stream, Head::default(), std::mem::take(&mut self.buffer));
        (heir.pongs, heir.lives_on) = (self.pongs, false);
        runtime.spawn(heir.await_end());
    }
}

fn whole((opcode, payload): (u8, Vec<u8>)) -> Said {
    match opcode {
        TEXT => Said::Text(String::from_utf8(payload).unwrap()),
        BINARY => Said::Binary(payload),
        other => panic!("opcode {other}"),
    }
}

fn close_of(payload: &[u8]) -> Said {
    match payload {
        [] => Said::Close(1005, String::new()),
        [high, low, reason @ ..] => {
            Said::Close(u16::from_be_bytes([*high, *low]), String::from_utf8(reason.to_vec()).unwrap())
        }
        [_] => panic!("a close frame of one byte"),
    }
}

async fn refused(head: Head, mut stream: TcpStream, mut buffer: BytesMut) -> Reply {
    let status = head.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let length: usize = head.header("content-length").parse().unwrap_or(0);
    while buffer.len() < length {
        assert!(within("a body", stream.read_buf(&mut buffer)).await.unwrap() > 0, "the body broke off");
    }
    let headers = head.headers.iter().map(|(name, value)| {
        (http::HeaderName::try_from(name.as_str()).unwrap(), http::HeaderValue::try_from(value.as_str()).unwrap())
    });
    Reply { status, headers: headers.collect(), body: buffer.freeze() }
}
