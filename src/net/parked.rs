//! Connections that workers have parked with us (`attach:ID`), from the side of those that dial: one is taken instead.
//!
//! Who is given which is decided elsewhere; here is only the way there. A connection that was parked is an ordinary one from
//! then on: the worker, or its agent, is the server on it. Invariant: the empty lines by which the other end has shown that it lives
//! (RFC 9112 section 2.2) are read and forgotten here, so that an answer begins with its first byte.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use holdline_core::dialin::parking::Wants;

use super::client_stream::{ClientStream, LooseStream};
use super::failure::{ConnectError, DialFailure};

/// The answer to a take: a connection, or nothing where only a look was wanted.
pub type Taken = Result<Option<TakenLine>, ConnectError>;

/// What is asked of those who know the parked connections.
#[derive(Debug)]
pub struct TakeOrder {
    /// The backend.
    pub backend: Arc<str>,
    /// What for.
    pub wants: Wants,
    /// Where to answer.
    pub answer: oneshot::Sender<Taken>,
}

/// A parked connection on its way to who takes it.
#[derive(Debug)]
pub struct TakenLine {
    /// The connection.
    pub stream: LooseStream,
    /// How many its worker is asked to keep parked.
    pub want: u32,
    /// Counts it as lost if it ends without a byte.
    pub lost: IntCounter,
}

/// The way to all parked connections; a cheap handle.
#[derive(Clone, Debug)]
pub struct ParkedLines(mpsc::Sender<TakeOrder>);

/// The same for one backend.
#[derive(Debug)]
pub struct ParkedOf {
    lines: ParkedLines,
    backend: Arc<str>,
}

impl ParkedLines {
    /// A way that leads to the other end of `orders`.
    #[must_use]
    pub const fn new(orders: mpsc::Sender<TakeOrder>) -> Self {
        Self(orders)
    }

    /// The connections of `backend`.
    #[must_use]
    pub fn of(&self, backend: &str) -> ParkedOf {
        ParkedOf { lines: self.clone(), backend: backend.into() }
    }
}

impl ParkedOf {
    /// Takes a connection.
    ///
    /// # Errors
    /// [`DialFailure::Refused`] where the worker is not there, [`DialFailure::Timeout`] where it parks none in time.
    pub(super) async fn take(&self, deadline: Instant) -> Result<ParkedStream, ConnectError> {
        loop {
            let taken = self.ask(Wants::Line, deadline).await?.ok_or(ConnectError::new(DialFailure::Local))?;
            let TakenLine { stream, want, lost } = taken;
            let stream = ParkedStream { stream: stream.bind()?, want, unheard: Some(lost) };
            if !stream.has_ended() {
                return Ok(stream);
            }
        }
    }

    /// Whether the worker is there to be taken a connection of; none is.
    ///
    /// # Errors
    /// As for a take.
    pub async fn look(&self, deadline: Instant) -> Result<(), ConnectError> {
        self.ask(Wants::Look, deadline).await.map(drop)
    }

    async fn ask(&self, wants: Wants, deadline: Instant) -> Taken {
        let (answer, answered) = oneshot::channel();
        let order = TakeOrder { backend: self.backend.clone(), wants, answer };
        let asking = async {
            // Both ends go only with the process.
            self.lines.0.send(order).await.map_err(|_| ConnectError::new(DialFailure::Refused))?;
            answered.await.map_err(|_| ConnectError::new(DialFailure::Refused))?
        };
        timeout_at(deadline, asking).await.map_err(|_| ConnectError::new(DialFailure::Timeout))?
    }
}

/// A connection that was parked.
#[derive(Debug)]
pub struct ParkedStream {
    stream: ClientStream,
    want: u32,
    /// Until a byte comes: counts this as lost if none does.
    unheard: Option<IntCounter>,
}

impl ParkedStream {
    /// How many connections its worker is asked to keep parked.
    #[must_use]
    pub const fn want(&self) -> u32 {
        self.want
    }

    /// Goes on with what was taken to be written, and the socket has not taken.
    pub(super) fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.stream.unsent() == 0 {
            return Ok(());
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// The socket, unless it has none.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.stream.socket()
    }

    /// The socket, if nothing is spoken on it but what its worker says, and that has begun.
    pub(super) fn movable(&self) -> Option<BorrowedFd<'_>> {
        let is_plain = self.stream.session().is_none() && self.unheard.is_none();
        if is_plain { self.stream.socket() } else { None }
    }

    /// Whether something waits to be read that is no empty line; what it is is gone then.
    pub(super) fn has_said_more(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_ready()
    }

    /// Whether nothing was heard on it that is no empty line.
    pub(super) const fn is_unheard(&self) -> bool {
        self.unheard.is_some()
    }

    /// Whether it has ended by now, as far as that can be told without reading.
    fn has_ended(&self) -> bool {
        let Some(socket) = self.socket() else { return false };
        match SockRef::from(&socket).peek(&mut [MaybeUninit::uninit()]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for ParkedStream {
    fn drop(&mut self) {
        if let Some(lost) = self.unheard.take() {
            lost.inc();
        }
    }
}

impl AsyncRead for ParkedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begin = buf.filled().len();
        loop {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let came = buf.filled_mut().get_mut(begin..).unwrap_or_default();
            if this.unheard.is_none() || came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let blank = came.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let said = came.len() - blank;
            came.copy_within(blank.., 0);
            buf.set_filled(begin + said);
            if said > 0 {
                this.unheard = None;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for ParkedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
