//! The TLS session of a client, beside its bare socket: records in, records out.
//!
//! TLS itself is rustls's, by its interface without buffers; what is here moves bytes between it, the socket and whom
//! they are for. Invariant: between two calls a session holds only what it must: the beginning of a record that has not
//! come whole, what of a record its reader had no room for, and what the socket did not take. An idle session holds none
//! of these, so that it costs its keys, and all of it can go to another thread.
//!
//! An end without close_notify is an error to its reader: a third party can cut a connection, but cannot end a session
//! (RFC 8446 section 6.1).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::bare::Bare;
use super::pieces::Pieces;

/// Bytes that are read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of records that are waited for: a handshake message may be 64 KiB long and come in many of them.
const RECORDS_BYTES_MAX: usize = 128 * 1024;

/// Bytes that are sealed at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Bytes of one record (RFC 8446 section 5.1).
pub(super) const RECORD_BYTES: usize = 16 * 1024;

/// Room beside what is sealed: headers and tags of its records, and a short message of TLS's own in front.
const SEAL_BYTES: usize = 4 * 1024;

/// Room for the word that nothing follows, and a short message of TLS's own in front.
const END_BYTES: usize = 512;

/// Bytes of the greeting that one read takes.
const GREETING_READ_BYTES: usize = 4 * 1024;

/// The alert `unrecognized_name`, fatal (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

thread_local! {
    static SPACE: RefCell<Space> = RefCell::default();
}

/// What all sessions of a thread work in, one at a time.
#[derive(Default)]
struct Space {
    /// Records as they came, opened in place.
    records: Vec<u8>,
    /// Records to be written.
    sealed: Vec<u8>,
    /// Short pieces, put together to one record.
    gathered: Vec<u8>,
}

/// Why a client and we did not come together.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It went away.
    #[error("the client went away")]
    Gone,
    /// What it said is no TLS, or none that we speak.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
    /// It asked for a name that none of the certificates has.
    #[error("no certificate has the name that it asked for")]
    UnknownName,
}

/// The first message of a client.
#[derive(Debug)]
pub struct Greeting {
    bytes: Vec<u8>,
    server_name: Option<String>,
}

impl Greeting {
    /// Reads it from `socket`, behind what was `read` of that already. Nothing is done for it yet that costs anything.
    pub(super) async fn read(socket: &mut Bare, read: &[u8]) -> Result<Self, HandshakeError> {
        let (mut acceptor, mut bytes, mut seen) = (Acceptor::default(), read.to_vec(), 0);
        loop {
            // In steps, because it takes no more than so much at once.
            while seen < bytes.len() {
                seen += acceptor.read_tls(&mut &bytes[seen..]).map_err(|_| HandshakeError::Gone)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let server_name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                        return Ok(Self { bytes, server_name });
                    }
                    Err((error, mut alert)) => {
                        let mut told = Vec::new();
                        // It is written to memory; that the client hears it is not sure.
                        let _ = alert.write_all(&mut told);
                        let _ = socket.write_all(&told).await;
                        return Err(error.into());
                    }
                }
            }
            bytes.reserve(GREETING_READ_BYTES);
            if bytes.len() >= RECORDS_BYTES_MAX || !matches!(socket.read_buf(&mut bytes).await, Ok(1..)) {
                return Err(HandshakeError::Gone);
            }
        }
    }

    /// The name that the client asks for (SNI), in small letters.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

/// Tells a client that no certificate has the name that it asked for.
pub(super) async fn refuse_name(socket: &mut Bare) {
    // That the client hears it is not sure.
    let _ = socket.write_all(&UNRECOGNIZED_NAME).await;
}

/// One client's TLS session.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// The name that the client asked for.
    server_name: Option<Box<str>>,
    /// The beginning of a record, or of a message, that has not come whole.
    incoming: Vec<u8>,
    /// What was opened, and its reader had no room for.
    opened: Vec<u8>,
    /// What was sealed, and the socket had no room for.
    outgoing: Vec<u8>,
    ends: Ends,
}

/// Which side has said that nothing more follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ends {
    peers: bool,
    ours: bool,
}

impl Session {
    /// Comes together with the client that said `greeting`.
    pub(super) async fn accept(
        socket: &mut Bare,
        greeting: Greeting,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        let Greeting { bytes: mut records, server_name } = greeting;
        let mut session = Self {
            tls: UnbufferedServerConnection::new(config)?,
            server_name: server_name.map(String::into_boxed_str),
            incoming: Vec::new(),
            opened: Vec::new(),
            outgoing: Vec::new(),
            ends: Ends::default(),
        };
        loop {
            let opened = session.open(&mut records, &mut ReadBuf::new(&mut []));
            // The alert that tells of an error goes out as well.
            let pushed = poll_fn(|cx| session.poll_push(socket, cx)).await;
            let used = opened?;
            pushed.map_err(|_| HandshakeError::Gone)?;
            records.drain(..used);
            if !session.tls.is_handshaking() {
                session.incoming = shrunk(records);
                return Ok(session);
            }
            records.reserve(GREETING_READ_BYTES);
            if records.len() >= RECORDS_BYTES_MAX || !matches!(socket.read_buf(&mut records).await, Ok(1..)) {
                return Err(HandshakeError::Gone);
            }
        }
    }

    /// The version of TLS that is spoken.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls.protocol_version()
    }

    /// Whether HTTP/2 was agreed on (ALPN).
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"h2")
    }

    /// Whether the client has brought a ticket of an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The name that the client asked for.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The certificate that the client has shown, now or when the session that it resumes began.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates()?.first()
    }

    /// Bytes that were sealed, and that the socket has not taken.
    pub(super) const fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Reads what the client says; nothing is its end.
    pub(super) fn poll_read(
        &mut self,
        socket: &mut Bare,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            if !self.opened.is_empty() {
                let bytes = self.opened.len().min(into.remaining());
                into.put_slice(&self.opened[..bytes]);
                self.opened.drain(..bytes);
                if self.opened.is_empty() {
                    self.opened = Vec::new();
                }
            }
            if into.filled().len() > before || self.ends.peers || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let opened = ready!(self.poll_open(socket, cx, into));
            // What cannot be written now is with the next call; an error is found again by who writes.
            let _ = self.poll_push(socket, cx);
            opened?;
        }
    }

    /// Reads from the socket once, and opens what has come whole.
    fn poll_open(&mut self, socket: &mut Bare, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SPACE.with_borrow_mut(|space| {
            space.records.resize(RECORDS_BYTES_MAX + READ_BYTES, 0);
            let kept = self.incoming.len();
            let (front, room) = space.records.split_at_mut(kept);
            let mut room = ReadBuf::new(&mut room[..READ_BYTES]);
            ready!(Pin::new(socket).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            front.copy_from_slice(&self.incoming);
            let records = &mut space.records[..kept + read];
            let used = self.open(records, into).map_err(io::Error::other)?;
            let rest = &records[used..];
            if rest.len() > RECORDS_BYTES_MAX {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.incoming = rest.to_vec();
            Poll::Ready(Ok(()))
        })
    }

    /// Opens all whole records; how many bytes of them are done with.
    fn open(&mut self, records: &mut [u8], into: &mut ReadBuf<'_>) -> Result<usize, rustls::Error> {
        let (mut used, all) = (0, records.len());
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut records[used..]);
            let error = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        let room = if self.opened.is_empty() { into.remaining() } else { 0 };
                        let bytes = record.payload.len().min(room);
                        into.put_slice(&record.payload[..bytes]);
                        self.opened.extend_from_slice(&record.payload[bytes..]);
                        used += record.discard;
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing).err(),
                Ok(ConnectionState::TransmitTlsData(transmitted)) => {
                    transmitted.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ends.peers = true;
                    None
                }
                // Nothing behind the end counts.
                Ok(_) => return Ok(if self.ends.peers { all } else { used + discard }),
                Err(error) => Some(error),
            };
            used += discard;
            if let Some(error) = error {
                self.tell_alert(&mut records[used..]);
                return Err(error);
            }
        }
    }

    /// Takes the alert that TLS has for the peer.
    fn tell_alert(&mut self, records: &mut [u8]) {
        while let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process_tls_records(records).state {
            if encode(data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }

    /// Writes to the client, and with `last` that nothing follows, if all of `slices` is taken. What the socket does not
    /// take at once is with the next call.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut Bare,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        last: bool,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_push(socket, cx))?;
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes == 0 {
            // A socket that was reset says so.
            return Pin::new(socket).poll_write(cx, &[]);
        }
        if self.ends.ours {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(socket.poll_write_ready(cx))?;
        SPACE.with_borrow_mut(|space| {
            let (taken, sealed) = self.seal(slices, last.then_some(bytes), space)?;
            self.send(&space.sealed[..sealed], socket, cx)?;
            Poll::Ready(Ok(taken))
        })
    }

    /// Writes what was sealed before; if that says that nothing follows, it closes our side of the socket as well.
    pub(super) fn poll_flush(&mut self, socket: &mut Bare, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(socket, cx))?;
        if self.ends.ours { Pin::new(socket).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Says that nothing follows, and closes our side of the socket.
    pub(super) fn poll_shutdown(&mut self, socket: &mut Bare, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ends.ours {
            self.ends.ours = true;
            let mut notify = [0; END_BYTES];
            let bytes = self.writable()?.queue_close_notify(&mut notify).map_err(io::Error::other)?;
            self.outgoing.extend_from_slice(&notify[..bytes]);
        }
        ready!(self.poll_push(socket, cx))?;
        Pin::new(socket).poll_shutdown(cx)
    }

    /// Seals as much of `slices` as goes at once; the bytes taken, and those that they have become. If those taken are
    /// `all` that ever comes, it says so.
    fn seal(&mut self, slices: &[IoSlice<'_>], all: Option<usize>, space: &mut Space) -> io::Result<(usize, usize)> {
        let Space { sealed, gathered, .. } = space;
        // Once for each thread: what is in it does not matter.
        sealed.resize(WRITE_BYTES + SEAL_BYTES, 0);
        let mut tls = self.writable()?;
        let (mut pieces, mut taken, mut at) = (Pieces::new(slices), 0, 0);
        while taken < WRITE_BYTES {
            let piece = pieces.next(WRITE_BYTES - taken, gathered);
            if piece.is_empty() {
                break;
            }
            at += tls.encrypt(piece, &mut sealed[at..]).map_err(io::Error::other)?;
            taken += piece.len();
        }
        let ends = all == Some(taken);
        if ends {
            at += tls.queue_close_notify(&mut sealed[at..]).map_err(io::Error::other)?;
        }
        self.ends.ours |= ends;
        Ok((taken, at))
    }

    /// TLS, ready to seal; what it has to say before is to be written before.
    fn writable(&mut self) -> io::Result<WriteTraffic<'_, ServerConnectionData>> {
        // What has not come whole is shown again: some of it may be known already.
        loop {
            match self.tls.process_tls_records(&mut self.incoming).state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(_) => break,
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.outgoing).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(transmitted) => transmitted.done(),
                ConnectionState::PeerClosed => self.ends.peers = true,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
        match self.tls.process_tls_records(&mut self.incoming).state {
            Ok(ConnectionState::WriteTraffic(tls)) => Ok(tls),
            Ok(_) | Err(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes `sealed` behind what has to be written before; what the socket does not take is kept.
    fn send(&mut self, sealed: &[u8], socket: &mut Bare, cx: &mut Context<'_>) -> io::Result<()> {
        let pushed = self.poll_push(socket, cx)?;
        let sent = if pushed.is_ready() { write_some(sealed, socket, cx)? } else { 0 };
        self.outgoing.extend_from_slice(&sealed[sent..]);
        Ok(())
    }

    /// Writes what the socket did not take before.
    fn poll_push(&mut self, socket: &mut Bare, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let sent = write_some(&self.outgoing, socket, cx)?;
        if sent < self.outgoing.len() {
            self.outgoing.drain(..sent);
            return Poll::Pending;
        }
        self.outgoing = Vec::new();
        Poll::Ready(Ok(()))
    }
}

/// Writes as much of `bytes` as `socket` takes; the task is woken when it takes more.
fn write_some(bytes: &[u8], socket: &mut Bare, cx: &mut Context<'_>) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match Pin::new(&mut *socket).poll_write(cx, &bytes[sent..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(taken)) => sent += taken,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(sent)
}

/// Shows what is held: the rest is keys.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { incoming, opened, outgoing, ends, .. } = self;
        let held = [incoming, opened, outgoing].map(Vec::len);
        f.debug_struct("Session").field("held", &held).field("ends", ends).finish_non_exhaustive()
    }
}

/// Puts a message of TLS's own behind `sealed`.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, sealed: &mut Vec<u8>) -> Result<(), rustls::Error> {
    use rustls::unbuffered::EncodeError::{AlreadyEncoded, InsufficientSize};
    let at = sealed.len();
    loop {
        match data.encode(&mut sealed[at..]) {
            Ok(bytes) => {
                sealed.truncate(at + bytes);
                return Ok(());
            }
            Err(InsufficientSize(wanted)) => sealed.resize(at + wanted.required_size, 0),
            Err(error @ AlreadyEncoded) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}

/// The same bytes without room for more.
fn shrunk(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.shrink_to_fit();
    bytes
}

#[cfg(test)]
mod tests;
