//! Clients that speak HTTP/2: by a library of its own, over a bridge for those that do not, and frame by frame.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::tls::{believing, connect};
use super::wire::{Head, read_head};
use super::{Reply, Said, eventually, within};

/// The name that the proxy of a test has.
pub const NAME: &str = "example.test";

/// A client's TLS that asks for nothing but HTTP/2.
pub fn only_http2() -> Arc<ClientConfig> {
    let mut config = (*believing(None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection, with an error if it was told one.
    pub driving: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// A connection that has heard that WebSockets are served on it.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::by(address, NAME, &Builder::new()).await
    }

    /// The same to a host of this name, by these settings.
    pub async fn by(address: SocketAddr, name: &str, builder: &Builder) -> Self {
        let stream = connect(address, name, &only_http2()).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = within("a preface", builder.handshake::<_, Bytes>(stream)).await.unwrap();
        let driving = tokio::spawn(connection);
        eventually("settings that allow WebSockets", async || {
            sender.is_extended_connect_protocol_enabled().then_some(())
        })
        .await;
        Self { sender, driving }
    }

    /// Sends the head of a request.
    pub async fn send(&self, request: Request<()>, ends: bool) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut sender = within("room for a stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, ends).unwrap()
    }

    /// Asks, and reads the whole answer and its trailers.
    pub async fn ask(&self, request: Request<()>, body: &[u8], trailers: Option<HeaderMap>) -> (Reply, HeaderMap) {
        let (answer, mut send) = self.send(request, body.is_empty() && trailers.is_none()).await;
        let sending = async {
            if !body.is_empty() {
                give(&mut send, Bytes::copy_from_slice(body)).await.unwrap();
            }
            match trailers {
                Some(trailers) => send.send_trailers(trailers).unwrap(),
                None if body.is_empty() => {}
                None => send.send_data(Bytes::new(), true).unwrap(),
            }
        };
        let (answer, ()) = within("an answer", async { tokio::join!(answer, sending) }).await;
        let (parts, receive) = answer.unwrap().into_parts();
        let (body, trailers) = rest_of(receive).await;
        (Reply { status: parts.status.as_u16(), headers: parts.headers, body }, trailers)
    }

    /// The same for one without a body.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(request("GET", path, &[]), b"", None).await.0
    }

    /// A WebSocket on a stream, or the other answer.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, Reply> {
        self.open_as(handshake(path, headers)).await
    }

    /// The same for this handshake.
    pub async fn open_as(&self, request: Request<()>) -> Result<Socket, Reply> {
        let (answer, send) = self.send(request, false).await;
        let (head, receive) = within("the answer to a handshake", answer).await.unwrap().into_parts();
        if head.status != 200 {
            let (body, _) = rest_of(receive).await;
            return Err(Reply { status: head.status.as_u16(), headers: head.headers, body });
        }
        let head = Response::from_parts(head, ());
        Ok(Socket { head, send, receive, buffer: BytesMut::new() })
    }

    /// Waits until the connection has ended, as agreed.
    pub async fn ended(&mut self) {
        if let Err(error) = within("the end of a connection", &mut self.driving).await.unwrap() {
            // A goodbye of its own may find that the other side has left.
            assert!(error.is_io() || error.reason() == Some(Reason::NO_ERROR), "{error}");
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

/// The head of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("https://{NAME}{path}"));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

/// The head of an extended CONNECT.
pub fn handshake(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = request(Method::CONNECT.as_str(), path, headers);
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// Sends all of `data` as the peer takes it.
pub async fn give(send: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = match send.capacity() {
            0 => match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Reason::STREAM_CLOSED.into()),
            },
            room => room,
        };
        send.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

async fn rest_of(mut receive: RecvStream) -> (Bytes, HeaderMap) {
    let mut body = BytesMut::new();
    while let Some(data) = within("data", receive.data()).await {
        let data = data.unwrap();
        receive.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let trailers = within("trailers", receive.trailers()).await.unwrap_or_default().unwrap_or_default();
    (body.freeze(), trailers)
}

/// A WebSocket on a stream, frame by frame.
#[derive(Debug)]
pub struct Socket {
    /// The answer to its handshake.
    pub head: Response<()>,
    pub send: SendStream<Bytes>,
    pub receive: RecvStream,
    buffer: BytesMut,
}

impl Socket {
    /// The bytes of a whole message, masked by zeros.
    pub fn encode(opcode: u8, payload: &[u8]) -> Bytes {
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes.into()
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: &str) {
        within("room to write", give(&mut self.send, Self::encode(1, text.as_bytes()))).await.unwrap();
    }

    /// Resets the stream.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Says that nothing follows.
    pub fn end(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// The next message or close; pings are left out, and a reset counts as the end.
    pub async fn hear(&mut self) -> Said {
        loop {
            if let Some((opcode, payload)) = self.parse() {
                match opcode {
                    1 => return Said::Text(String::from_utf8(payload).unwrap()),
                    2 => return Said::Binary(payload),
                    8 => {
                        let (code, reason) = payload.split_at(2);
                        let code = u16::from_be_bytes(code.try_into().unwrap());
                        return Said::Close(code, String::from_utf8_lossy(reason).into_owned());
                    }
                    9 | 10 => {}
                    other => panic!("opcode {other}"),
                }
                continue;
            }
            let Some(Ok(data)) = within("a message", self.receive.data()).await else { return Said::Gone };
            self.receive.flow_control().release_capacity(data.len()).unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    fn parse(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return None };
        assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "whole, plain and not masked");
        let (opcode, length) = (first & 15, second & 0x7f);
        let (length, extended) = match length {
            126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 2),
            127 => (u64::from_be_bytes(rest.get(..8)?.try_into().ok()?) as usize, 8),
            short => (usize::from(short), 0),
        };
        if self.buffer.len() < 2 + extended + length {
            return None;
        }
        self.buffer.advance(2 + extended);
        Some((opcode, self.buffer.split_to(length).to_vec()))
    }
}

/// A port whose WebSockets go on to the proxy, each on a stream of one connection: for clients that speak HTTP/1.1.
#[derive(Debug)]
pub struct Bridge {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Bridge {
    pub async fn over(http2: &Http2) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sender = http2.sender.clone();
        let serving = tokio::spawn(async move {
            let mut sockets = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                sockets.spawn(carry(stream, sender.clone()));
            }
        });
        Self { address, serving }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Carries one WebSocket.
async fn carry(mut stream: TcpStream, sender: SendRequest<Bytes>) {
    stream.set_nodelay(true).unwrap();
    let mut unread = BytesMut::new();
    let Some(head) = read_head(&mut stream, &mut unread).await else { return };
    let Ok(mut sender) = sender.ready().await else { return };
    let (answer, mut send) = sender.send_request(as_connect(&head), false).unwrap();
    let Ok(answer) = answer.await else { return };
    let (parts, mut receive) = answer.into_parts();
    let mut lines = String::new();
    for (name, value) in &parts.headers {
        lines.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let first = if parts.status == 200 {
        let accept = derive_accept_key(head.header("sec-websocket-key").as_bytes());
        format!(
            "101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}"
        )
    } else {
        format!("{} Refused\r\nconnection: close", parts.status.as_u16())
    };
    stream.write_all(format!("HTTP/1.1 {first}\r\n{lines}\r\n").as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let up = async {
        loop {
            if !unread.is_empty() && give(&mut send, unread.split().freeze()).await.is_err() {
                return;
            }
            match read.read_buf(&mut unread).await {
                Ok(0) => return drop(send.send_data(Bytes::new(), true)),
                Ok(_) => {}
                Err(_) => return send.send_reset(Reason::CANCEL),
            }
        }
    };
    let down = async {
        while let Some(Ok(data)) = receive.data().await {
            if write.write_all(&data).await.is_err() {
                break;
            }
            receive.flow_control().release_capacity(data.len()).unwrap();
        }
        // The client may be gone.
        let _ = write.shutdown().await;
    };
    tokio::join!(up, down);
}

/// What a handshake of HTTP/1.1 is in HTTP/2.
fn as_connect(head: &Head) -> Request<()> {
    let is_of_one_connection = |name: &str| {
        ["host", "connection", "upgrade", "sec-websocket-key"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let headers: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| !is_of_one_connection(name) && !name.eq_ignore_ascii_case("sec-websocket-version"))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    handshake(head.path(), &headers)
}

/// A connection whose frames are written by hand (RFC 9113 section 4.1).
#[derive(Debug)]
pub struct Frames {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

impl Frames {
    /// A connection on which both prefaces were said.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address).await;
        frames.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(SETTINGS, 0, 0, &[]).await.unwrap();
        frames.until(|frame| frame.kind == SETTINGS && frame.flags == 1).await;
        frames
    }

    /// A connection on which nothing was said but TLS.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = connect(address, NAME, &only_http2()).await.unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// The bytes of a frame.
    pub fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.send_raw(&Self::encode(kind, flags, stream, payload)).await
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("room to write", self.stream.write_all(bytes)).await
    }

    /// The same without an end: for floods that are held up.
    pub async fn send_unbounded(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads until nothing comes any more.
    pub async fn until_end(&mut self) {
        while self.next().await.is_some() {}
    }

    /// The next frame; nothing at the end.
    pub async fn next(&mut self) -> Option<RawFrame> {
        loop {
            if let Some(frame) = self.parse() {
                return Some(frame);
            }
            if !matches!(within("a frame", self.stream.read_buf(&mut self.buffer)).await, Ok(1..)) {
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<RawFrame> {
        let [a, b, c, kind, flags, stream @ ..] = &self.buffer[..] else { return None };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (kind, flags, stream) = (*kind, *flags, u32::from_be_bytes(stream.get(..4)?.try_into().ok()?));
        if self.buffer.len() < 9 + length {
            return None;
        }
        self.buffer.advance(9);
        Some(RawFrame { kind, flags, stream, payload: self.buffer.split_to(length).to_vec() })
    }

    /// The first frame that fits; none may be missing.
    pub async fn until(&mut self, fits: impl Fn(&RawFrame) -> bool) -> RawFrame {
        loop {
            let frame = self.next().await.expect("the connection goes on");
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// With which code the connection ends; nothing if it is closed without a word.
    pub async fn goodbye(&mut self) -> Option<u32> {
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        None
    }

    /// With which code the connection ends, if that is said before so many pings, one after the other, are answered.
    pub async fn goodbye_before_pings(&mut self, pings: usize) -> Option<u32> {
        for _ in 0..pings {
            // A connection that has ended takes none.
            let _ = self.send(PING, 0, 0, &[1; 8]).await;
            let said = self.until(|frame| frame.kind == GOAWAY || frame.kind == PING && frame.flags == 1).await;
            if said.kind == GOAWAY {
                return Some(u32::from_be_bytes(said.payload[4..8].try_into().unwrap()));
            }
        }
        None
    }

    /// With which code a stream is reset.
    pub async fn reset_of(&mut self, stream: u32) -> u32 {
        let frame = self.until(|frame| frame.kind == RST_STREAM && frame.stream == stream).await;
        u32::from_be_bytes(frame.payload.try_into().unwrap())
    }
}

/// A header block of these fields, each as a literal with a new name (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte says the length");
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// The fields of a good request.
pub fn get(path: &'static str) -> [(&'static str, &'static str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", path)]
}

/// The fields of a good handshake.
pub fn websocket(path: &'static str) -> [(&'static str, &'static str); 6] {
    [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", path),
        ("sec-websocket-version", "13"),
    ]
}
