//! The TLS session of a connection, beside its bare socket: records in, records out.
//!
//! TLS itself is rustls's (`library`), by its interface without buffers, or that of our own record layer (`records`), where
//! the session has come from another process as `frozen`. What is here moves bytes between it, the socket and whom they
//! are for. Invariant: between two calls a session holds only what it must: the beginning of a record that has not come
//! whole, what of a record its reader had no room for, and what the socket did not take. An idle session holds none of
//! these, so that it costs its keys, and all of it can go to another thread, or be frozen at any moment.
//!
//! An end without close_notify is an error to its reader: a third party can cut a connection, but cannot end a session
//! (RFC 8446 section 6.1).

mod frozen;
mod library;
mod records;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use zeroize::Zeroizing;

use frozen::FrozenTls;
use library::{Library, Side};
use records::Records;

use super::bare::Bare;
use super::hand_over::HandOverError;
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

/// Why the other side and we did not come together.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It went away.
    #[error("the other side went away")]
    Gone,
    /// What it said is no TLS, or none that we speak or trust.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
    /// A client asked for a name that none of the certificates has.
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

/// One connection's TLS session.
pub struct Session {
    tls: Tls,
    /// The name that the client asked for.
    server_name: Option<Box<str>>,
    held: Held,
}

/// Who has the keys of a session.
enum Tls {
    /// The library, which has shaken hands with a client.
    Server(Library<UnbufferedServerConnection>),
    /// The same with a worker.
    Client(Library<UnbufferedClientConnection>),
    /// Our record layer: the session has come from another process, or was to go to one.
    HandedOver(Box<Records>),
}

/// What a session holds between two calls, besides its keys.
#[derive(Clone, Default)]
struct Held {
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

/// What was sealed at once: the bytes that were taken, and those that they have become.
#[derive(Clone, Copy)]
struct Sealed {
    taken: usize,
    bytes: usize,
}

impl Session {
    /// Comes together with the client that said `greeting`.
    pub(super) async fn accept(
        socket: &mut Bare,
        greeting: Greeting,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        let Greeting { bytes, server_name } = greeting;
        let mut tls = Library(UnbufferedServerConnection::new(config)?);
        let held = shake_hands(&mut tls, socket, bytes).await?;
        Ok(Self { tls: Tls::Server(tls), server_name: server_name.map(String::into_boxed_str), held })
    }

    /// Comes together with the worker that has to prove to be called `name`.
    pub(super) async fn connect(
        socket: &mut Bare,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<Self, HandshakeError> {
        let mut tls = Library(UnbufferedClientConnection::new(config, name)?);
        let held = shake_hands(&mut tls, socket, Vec::new()).await?;
        Ok(Self { tls: Tls::Client(tls), server_name: None, held })
    }

    /// Goes on with a session that another process has frozen into these bytes.
    pub(super) fn thaw(frozen: &[u8]) -> io::Result<Self> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let FrozenTls { keys, held } = FrozenTls::from_bytes(frozen).map_err(invalid)?;
        Ok(Self { tls: Tls::HandedOver(Box::new(Records::new(keys))), server_name: None, held })
    }

    /// The session as it stands, as bytes for another process. It can go on here as well, by our own record layer, unless it has
    /// gone on there.
    pub(super) fn freeze(&mut self) -> Result<Zeroizing<Vec<u8>>, HandOverError> {
        if let Some(why) = self.stays() {
            return Err(why);
        }
        let records = match mem::replace(&mut self.tls, Tls::HandedOver(Box::new(Records::lost()))) {
            Tls::Server(tls) => Box::new(Records::new(tls.take_apart(&mut self.held)?)),
            Tls::Client(tls) => Box::new(Records::new(tls.take_apart(&mut self.held)?)),
            Tls::HandedOver(records) => records,
        };
        let frozen = FrozenTls { keys: records.keys(), held: self.held.clone() };
        self.tls = Tls::HandedOver(records);
        Ok(frozen.to_bytes())
    }

    /// Why the session cannot go to another process just now; nothing if it can.
    pub(super) fn stays(&self) -> Option<HandOverError> {
        match &self.tls {
            Tls::Server(tls) => tls.stays(&self.held),
            Tls::Client(tls) => tls.stays(&self.held),
            Tls::HandedOver(records) => records.failed().map(|error| HandOverError::Keys(error.to_string())),
        }
    }

    /// That of a client, if it began in this process.
    const fn server(&self) -> Option<&Library<UnbufferedServerConnection>> {
        match &self.tls {
            Tls::Server(tls) => Some(tls),
            Tls::Client(_) | Tls::HandedOver(_) => None,
        }
    }

    /// The version of TLS that is spoken.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        match &self.tls {
            Tls::Server(tls) => tls.version(),
            Tls::Client(tls) => tls.version(),
            Tls::HandedOver(_) => Some(ProtocolVersion::TLSv1_3),
        }
    }

    /// Whether HTTP/2 was agreed on (ALPN).
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        self.server().is_some_and(Library::speaks_http2)
    }

    /// Whether the client has brought a ticket of an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.server().is_some_and(Library::is_resumed)
    }

    /// The name that the client asked for; it is known where the session began.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The certificate that the client has shown, now or when the session that it resumes began; it is known where the
    /// session began.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.server()?.peers_certificate()
    }

    /// Bytes that were sealed, and that the socket has not taken.
    pub(super) const fn unsent(&self) -> usize {
        self.held.outgoing.len()
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
            self.held.give_opened(into);
            if into.filled().len() > before || self.held.ends.peers || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let opened = ready!(self.poll_open(socket, cx, into));
            // What cannot be written now is with the next call; an error is found again by who writes.
            let _ = self.held.poll_push(socket, cx);
            opened?;
        }
    }

    /// Reads from the socket once, and opens what has come whole.
    fn poll_open(&mut self, socket: &mut Bare, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Tls::HandedOver(records) = &self.tls
            && let Some(error) = records.failed()
        {
            return Poll::Ready(Err(io::Error::other(error)));
        }
        SPACE.with_borrow_mut(|space| {
            space.records.resize(RECORDS_BYTES_MAX + READ_BYTES, 0);
            let kept = self.held.incoming.len();
            let (front, room) = space.records.split_at_mut(kept);
            let mut room = ReadBuf::new(&mut room[..READ_BYTES]);
            ready!(Pin::new(socket).poll_read(cx, &mut room))?;
            let read = room.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            front.copy_from_slice(&self.held.incoming);
            let records = &mut space.records[..kept + read];
            let used = self.open(records, into)?;
            let rest = &records[used..];
            if rest.len() > RECORDS_BYTES_MAX {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.held.incoming = rest.to_vec();
            Poll::Ready(Ok(()))
        })
    }

    /// Opens all whole records; how many bytes of them are done with.
    fn open(&mut self, records: &mut [u8], into: &mut ReadBuf<'_>) -> io::Result<usize> {
        match &mut self.tls {
            Tls::Server(tls) => tls.open(records, into, &mut self.held).map_err(io::Error::other),
            Tls::Client(tls) => tls.open(records, into, &mut self.held).map_err(io::Error::other),
            Tls::HandedOver(tls) => tls.open(records, into, &mut self.held).map_err(io::Error::other),
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
        ready!(self.held.poll_push(socket, cx))?;
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes == 0 {
            // A socket that was reset says so.
            return Pin::new(socket).poll_write(cx, &[]);
        }
        if self.held.ends.ours {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(socket.poll_write_ready(cx))?;
        SPACE.with_borrow_mut(|space| {
            let (all, held) = (last.then_some(bytes), &mut self.held);
            let sealed = match &mut self.tls {
                Tls::Server(tls) => tls.seal(slices, all, space, held),
                Tls::Client(tls) => tls.seal(slices, all, space, held),
                Tls::HandedOver(tls) => tls.seal(slices, all, space, held),
            };
            let Sealed { taken, bytes } = sealed?;
            held.send(&space.sealed[..bytes], socket, cx)?;
            Poll::Ready(Ok(taken))
        })
    }

    /// Writes what was sealed before; if that says that nothing follows, it closes our side of the socket as well.
    pub(super) fn poll_flush(&mut self, socket: &mut Bare, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.held.poll_push(socket, cx))?;
        if self.held.ends.ours { Pin::new(socket).poll_shutdown(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Says that nothing follows, and closes our side of the socket.
    pub(super) fn poll_shutdown(&mut self, socket: &mut Bare, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = &mut self.held;
        if !held.ends.ours {
            held.ends.ours = true;
            let mut notify = [0; END_BYTES];
            let bytes = match &mut self.tls {
                Tls::Server(tls) => tls.end(&mut notify, held)?,
                Tls::Client(tls) => tls.end(&mut notify, held)?,
                Tls::HandedOver(tls) => tls.end(&mut notify)?,
            };
            held.outgoing.extend_from_slice(&notify[..bytes]);
        }
        ready!(held.poll_push(socket, cx))?;
        Pin::new(socket).poll_shutdown(cx)
    }
}

impl Held {
    /// Takes what was opened: what its reader has room for is given to it at once.
    fn take_opened(&mut self, payload: &[u8], into: &mut ReadBuf<'_>) {
        let room = if self.opened.is_empty() { into.remaining() } else { 0 };
        let (given, kept) = payload.split_at(payload.len().min(room));
        into.put_slice(given);
        self.opened.extend_from_slice(kept);
    }

    /// Gives a reader what there was no room for before.
    fn give_opened(&mut self, into: &mut ReadBuf<'_>) {
        if self.opened.is_empty() {
            return;
        }
        let bytes = self.opened.len().min(into.remaining());
        into.put_slice(&self.opened[..bytes]);
        self.opened.drain(..bytes);
        if self.opened.is_empty() {
            self.opened = Vec::new();
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

/// Comes together by the `records` that have come, and those that follow; what of them is not for the handshake is held.
async fn shake_hands<S: Side>(
    tls: &mut Library<S>,
    socket: &mut Bare,
    mut records: Vec<u8>,
) -> Result<Held, HandshakeError> {
    let mut held = Held::default();
    loop {
        let opened = tls.open(&mut records, &mut ReadBuf::new(&mut []), &mut held);
        // The alert that tells of an error goes out as well.
        let pushed = poll_fn(|cx| held.poll_push(socket, cx)).await;
        let used = opened?;
        pushed.map_err(|_| HandshakeError::Gone)?;
        records.drain(..used);
        if !tls.is_handshaking() {
            held.incoming = shrunk(records);
            return Ok(held);
        }
        records.reserve(GREETING_READ_BYTES);
        if records.len() >= RECORDS_BYTES_MAX || !matches!(socket.read_buf(&mut records).await, Ok(1..)) {
            return Err(HandshakeError::Gone);
        }
    }
}

/// Seals as much of `slices` as goes at once, piece by piece, into the thread's space.
fn seal_pieces<E>(
    slices: &[IoSlice<'_>],
    space: &mut Space,
    mut seal: impl FnMut(&[u8], &mut [u8]) -> Result<usize, E>,
) -> Result<Sealed, E> {
    let Space { sealed, gathered, .. } = space;
    // Once for each thread: what is in it does not matter.
    sealed.resize(WRITE_BYTES + SEAL_BYTES, 0);
    let (mut pieces, mut done) = (Pieces::new(slices), Sealed { taken: 0, bytes: 0 });
    while done.taken < WRITE_BYTES {
        let piece = pieces.next(WRITE_BYTES - done.taken, gathered);
        if piece.is_empty() {
            break;
        }
        done.bytes += seal(piece, &mut sealed[done.bytes..])?;
        done.taken += piece.len();
    }
    Ok(done)
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
        f.debug_struct("Session").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Shows how much it is, and not what.
impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { incoming, opened, outgoing, ends } = self;
        let bytes = [incoming, opened, outgoing].map(Vec::len);
        f.debug_struct("Held").field("bytes", &bytes).field("ends", ends).finish()
    }
}

/// The same bytes without room for more.
fn shrunk(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.shrink_to_fit();
    bytes
}

#[cfg(test)]
mod tests;
