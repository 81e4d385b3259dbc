//! The backend side of a handshake: connect, ask for an upgrade, judge the answer.
//!
//! Written by hand over httparse, so that header names keep the case that old peers look for and the socket comes out
//! bare. Invariant: a [`Dialed`] is a correct RFC 6455 section 4.1 answer without extensions; everything else is a
//! [`DialError`] that knows whose fault it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// One attempt to attach a backend.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Addresses to try in their order, already checked against the allowed networks.
    pub addresses: &'a [SocketAddr],
    /// The name to verify if the backend is `wss://`; `None` for `ws://`.
    pub tls_name: Option<&'a str>,
    /// The `Host` to send.
    pub host: &'a str,
    /// Path and query to ask for.
    pub path: &'a str,
    /// The client's headers, from [`upgrade_head_lines`](super::forward::upgrade_head_lines).
    pub head_lines: &'a [u8],
    /// Subprotocols to offer.
    pub protocols: &'a [String],
    /// What the answer may pick of them.
    pub expected: ExpectedProtocol<'a>,
    /// `Holdline-*` headers of this attach.
    pub attach: &'a [(&'static str, String)],
    /// Bounds of the attempt.
    pub timeouts: DialTimeouts,
}

/// Which subprotocol a backend may pick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedProtocol<'a> {
    /// Any that was offered, or none: a first attach.
    Offered,
    /// Exactly what the first backend picked: a reattach.
    Exactly(Option<&'a str>),
}

/// How long the parts of a dial may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DialTimeouts {
    /// All addresses together, TLS handshake included.
    pub connect: Duration,
    /// From the connection to the end of the answer's head.
    pub handshake: Duration,
}

/// An upgraded connection to a backend.
#[derive(Debug)]
pub struct Dialed {
    /// The socket.
    pub stream: BackendStream,
    /// What was read beyond the head: the backend's first frames.
    pub leftover: Bytes,
    /// The subprotocol it picked.
    pub protocol: Option<String>,
    /// What it says about this pipe's state.
    pub resume: Option<HoldlineResume>,
    /// What goes back to the client with our 101: `Set-Cookie` and other end-to-end headers.
    pub headers: HeaderMap,
}

/// A backend's `Holdline-Resume` (PROTOCOL section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldlineResume {
    /// It has the pipe's state up to this sequence number.
    Ok {
        /// The last message it has.
        rx: u64,
    },
    /// It has no state.
    New,
    /// It wants the pipe to attach elsewhere.
    Refuse,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection.
    #[error("connecting failed: {0}")]
    ConnectFailed(ConnectFailure),
    /// Connected, but no whole answer in time.
    #[error("no answer to the handshake in time")]
    HandshakeTimeout,
    /// Connected, but the connection ended before a whole answer.
    #[error("the connection ended during the handshake")]
    HandshakeLost(#[source] Option<io::Error>),
    /// An answer other than 101.
    #[error("answered {} instead of 101", .0.status.as_u16())]
    NotUpgraded(Box<NotUpgraded>),
    /// 101 with a missing or wrong `Sec-WebSocket-Accept`, `Upgrade` or `Connection`.
    #[error("101 with a wrong {0}")]
    BadAccept(&'static str),
    /// A subprotocol that was not offered, or not the one the pipe has.
    #[error("101 with a subprotocol that was not asked for")]
    BadProtocol,
    /// 101 with an extension, though none was offered.
    #[error("101 with an extension that was not offered")]
    BadExtension,
    /// Not HTTP/1.1, or a head over the limit.
    #[error("malformed answer: {0}")]
    MalformedResponse(&'static str),
}

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// The port is closed.
    #[error("refused")]
    Refused,
    /// Nobody answered in time.
    #[error("timed out")]
    Timeout,
    /// No route, or another network error.
    #[error("unreachable")]
    Unreachable,
    /// The name has no address.
    #[error("name not found")]
    Dns,
    /// Its addresses are outside `admin.backend_networks`.
    #[error("address not allowed")]
    Forbidden,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    Tls,
    /// We are out of descriptors or ports.
    #[error("out of local resources")]
    Local,
}

/// A backend's answer that is no upgrade; the client gets it as it is.
#[derive(Debug)]
pub struct NotUpgraded {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, cleaned of hop-by-hop ones.
    pub headers: HeaderMap,
}

/// A backend's socket.
#[derive(Debug)]
pub enum BackendStream {
    /// `ws://` and `http://`.
    Tcp(TcpStream),
    /// `wss://` and `https://`.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Upgrades one backend.
///
/// # Errors
/// Each way in which this backend is not attached; see [`DialError`].
pub async fn dial(dial: Dial<'_>) -> Result<Dialed, DialError> {
    todo!("{dial:?}")
}
