//! WebSockets on streams of HTTP/2 (RFC 8441), several on each connection as a page has them.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes};
use h2::client::{Builder, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::link::{Link, NAME};

/// What is agreed on inside TLS.
pub const PROTOCOL: &[u8] = b"h2";

/// WebSockets of one page.
const SOCKETS_EACH: usize = 5;

/// What a browser allows to be sent to it ahead, on a stream and on a connection: Chromium's.
const STREAM_BYTES: u32 = 6 << 20;
const CONNECTION_BYTES: u32 = 15 << 20;

/// Bytes for which there should be room before more is written.
const ROOM_BYTES: usize = 16 << 10;

/// From one look for the peer's settings to the next.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The connections of a run.
pub struct Connections {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// The newest one, and how many sockets it takes yet.
    newest: Mutex<Option<(SendRequest<Bytes>, usize)>>,
}

impl Connections {
    pub fn new(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self { address, tls, newest: Mutex::new(None) }
    }

    /// A WebSocket on a stream of its own.
    pub async fn open(&self, path: &str) -> anyhow::Result<Link> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://{NAME}{path}"))
            .header("sec-websocket-version", "13")
            .body(())?;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let mut sender = self.sender().await?.ready().await?;
        let (answer, send) = sender.send_request(request, false)?;
        let answer = answer.await?;
        ensure!(answer.status() == StatusCode::OK, "answered {}", answer.status());
        let receive = answer.into_body();
        Ok(Link::Stream(Box::new(Stream { send, receive, unread: Bytes::new(), is_over: false })))
    }

    async fn sender(&self) -> anyhow::Result<SendRequest<Bytes>> {
        let mut newest = self.newest.lock().await;
        if let Some((sender, left)) = &mut *newest
            && *left > 0
        {
            *left -= 1;
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *newest = Some((sender.clone(), SOCKETS_EACH - 1));
        Ok(sender)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Bytes>> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector.connect(ServerName::try_from(NAME)?, stream).await.context("a TLS handshake")?;
        let mut builder = Builder::new();
        builder.initial_window_size(STREAM_BYTES).initial_connection_window_size(CONNECTION_BYTES);
        let (sender, connection) = builder.handshake(stream).await?;
        tokio::task::spawn_local(connection);
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(sender)
    }
}

/// The bytes of one WebSocket.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    unread: Bytes,
    is_over: bool,
}

impl Stream {
    pub async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        poll_fn(|cx| self.poll_ready(interest, cx)).await
    }

    fn poll_ready(&mut self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let mut ready = Ready::EMPTY;
        if interest.is_readable() && self.has_bytes(cx)? {
            ready |= Ready::READABLE;
        }
        if interest.is_writable() && self.has_room(cx)? {
            ready |= Ready::WRITABLE;
        }
        if ready.is_empty() { Poll::Pending } else { Poll::Ready(Ok(ready)) }
    }

    fn has_bytes(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.unread.is_empty() && !self.is_over {
            match self.receive.poll_data(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => self.is_over = true,
                Poll::Ready(Some(data)) => {
                    self.unread = data.map_err(io::Error::other)?;
                    self.receive.flow_control().release_capacity(self.unread.len()).map_err(io::Error::other)?;
                }
            }
        }
        Ok(true)
    }

    fn has_room(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        self.send.reserve_capacity(ROOM_BYTES);
        while self.send.capacity() == 0 {
            match self.send.poll_capacity(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => return Err(ErrorKind::BrokenPipe.into()),
                Poll::Ready(Some(room)) => room.map(drop).map_err(io::Error::other)?,
            }
        }
        Ok(true)
    }

    /// Reads what has come by the last time that it was ready. Nothing is the end.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && !self.is_over {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.unread.len().min(into.len());
        self.unread.copy_to_slice(&mut into[..count]);
        Ok(count)
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send.reserve_capacity(bytes.len());
        let count = self.send.capacity().min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.send.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(io::Error::other)?;
        Ok(count)
    }
}
