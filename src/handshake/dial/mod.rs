//! The backend side of a handshake: connect, ask for an upgrade, judge the answer.
//!
//! Written by hand over httparse, so that header names keep the case that old peers look for and the socket comes out
//! bare. Invariant: a [`Dialed`] is a correct RFC 6455 section 4.1 answer with nothing that was not asked for; everything else is a
//! [`DialError`] that knows whose fault it is. A dial ends within its [`DialTimeouts`].

mod answer;
mod error;
mod labels;
mod refused_body;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWriteExt;

pub use answer::HEAD_BYTES_MAX;
pub use error::{DialError, connect_refusal};
pub use labels::SaidLabels;
pub use refused_body::{NotUpgraded, REFUSED_BODY_TIMEOUT, RefusedBody};

use super::accept::accept_key;
use super::aware::with_numbers;
use super::deflate::{Agreed, Asked};
use super::forward::{is_header_value, write_line};
use crate::net::{Addresses, BackendStream, Connected, TlsPeer, connect_asking};
use answer::{Expected, Head};

/// The header that says how many connections a worker that dials in is to keep parked.
pub const PARKED_WANT: &str = "holdline-parked-want";

/// Parked connections that one dial tries, each of which ends without a byte.
pub const PARKED_TRIES_MAX: u32 = 16;

/// One attempt to attach a backend.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Where the backend is, already checked against what is allowed.
    pub addresses: &'a Addresses,
    /// What to verify if the backend is `wss://`; `None` for `ws://`.
    pub tls: Option<&'a TlsPeer>,
    /// What to say before all else: [`SendProxy::header`](crate::net::SendProxy::header).
    pub proxy_header: &'a [u8],
    /// The `Host` to send: [`backend_host`](super::forward::backend_host).
    pub host: &'a str,
    /// Path and query to ask for: [`Target::for_backend`](crate::routes::Target::for_backend).
    pub path: &'a str,
    /// The client's headers: [`upgrade_head_lines`](super::forward::upgrade_head_lines).
    pub head_lines: &'a [u8],
    /// Subprotocols to offer.
    pub protocols: &'a [String],
    /// Whether they are offered with the aware protocol too, which this backend may speak.
    pub numbered: bool,
    /// What the answer may pick of them.
    pub expected: ExpectedProtocol<'a>,
    /// Which compression to ask for.
    pub compression: Asked,
    /// `Holdline-*` headers of this attach.
    pub attach: &'a [(&'a str, String)],
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

impl Default for DialTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), handshake: Duration::from_secs(60) }
    }
}

/// An upgraded connection to a backend.
#[derive(Debug)]
pub struct Dialed {
    /// The socket.
    pub stream: BackendStream,
    /// What was read beyond the head: the backend's first frames.
    pub leftover: Bytes,
    /// The application's own subprotocol that it picked.
    pub protocol: Option<String>,
    /// Whether it speaks the aware protocol.
    pub numbers: bool,
    /// The compression that it agreed to.
    pub compression: Option<Agreed>,
    /// What it says about this pipe's state.
    pub resume: Option<HoldlineResume>,
    /// What it says of the groups that the pipe belongs to.
    pub labels: Option<SaidLabels>,
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

/// Upgrades one backend.
///
/// # Errors
/// Each way in which this backend is not attached; see [`DialError`].
pub async fn dial(dial: Dial<'_>) -> Result<Dialed, DialError> {
    let mut tries = PARKED_TRIES_MAX;
    loop {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let request = head(&dial, &key, None);
        let connecting = connect_asking(dial.addresses, dial.tls, dial.proxy_header, &request, dial.timeouts.connect);
        let Connected { mut stream, asked } = connecting.await?;
        let request = match stream.parked_want() {
            _ if asked => Vec::new(),
            None => request,
            want => head(&dial, &key, want),
        };
        let asking = ask(&request, &mut stream);
        let asked = tokio::time::timeout(dial.timeouts.handshake, asking).await;
        tries -= 1;
        let head = match asked.map_err(|_| DialError::HandshakeTimeout)? {
            // A connection that was parked, and ended before it could be used.
            Err(DialError::HandshakeLost(_)) if stream.is_unheard() && tries > 0 => continue,
            head => head?,
        };
        let accept = accept_key(&key);
        let Dial { protocols: offered, numbered, expected: protocol, compression, .. } = dial;
        return answer::judge(head, stream, &Expected { accept: &accept, offered, numbered, protocol, compression });
    }
}

/// Says what is still to be said, and hears the answer.
async fn ask(request: &[u8], stream: &mut BackendStream) -> Result<Head, DialError> {
    if !request.is_empty() {
        stream.write_all(request).await.map_err(|error| DialError::HandshakeLost(Some(error)))?;
        stream.flush().await.map_err(|error| DialError::HandshakeLost(Some(error)))?;
    }
    stream.acknowledge_the_answer_at_once();
    answer::read(stream).await
}

/// The request's head; our own handshake first, so that a peer that reads only so much finds it.
fn head(dial: &Dial<'_>, key: &str, parked_want: Option<u32>) -> Vec<u8> {
    let mut head = Vec::with_capacity(512 + dial.path.len() + dial.head_lines.len());
    head.extend_from_slice(b"GET ");
    head.extend_from_slice(dial.path.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    write_line(&mut head, "host", dial.host.as_bytes());
    write_line(&mut head, "upgrade", b"websocket");
    write_line(&mut head, "connection", b"Upgrade");
    write_line(&mut head, "sec-websocket-version", b"13");
    write_line(&mut head, "sec-websocket-key", key.as_bytes());
    if dial.numbered {
        write_line(&mut head, "sec-websocket-protocol", with_numbers(dial.protocols).join(", ").as_bytes());
    } else if !dial.protocols.is_empty() {
        write_line(&mut head, "sec-websocket-protocol", dial.protocols.join(", ").as_bytes());
    }
    if let Some(offer) = dial.compression.header() {
        write_line(&mut head, "sec-websocket-extensions", offer.as_bytes());
    }
    if let Some(want) = parked_want {
        write_line(&mut head, PARKED_WANT, want.to_string().as_bytes());
    }
    head.extend_from_slice(dial.head_lines);
    for (name, value) in dial.attach {
        // A value that could break out of its line stays away: ids and counts never do.
        if is_header_value(value) {
            write_line(&mut head, name, value.as_bytes());
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests;
