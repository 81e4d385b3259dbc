//! A client's socket while HTTP is spoken on it: how long it may stay silent, and what it means that it has ended.
//!
//! Two waits have an end: for a whole head (`server.handshake_timeout`, slowloris) and, between two requests, for the
//! first byte of the next one (`server.keepalive_timeout`). The first ends in an error, the second in a quiet end.
//! While a request is answered, hyper reads nothing; the socket is watched here, one byte ahead, so that a client that
//! has gone is noticed. Invariant: no byte is lost by that; what was read ahead is what the next read begins with.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::half_closed::HalfClosed;
use super::talk::{Step, Talk};

/// How long a client may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// From the start of the connection, or from the first byte of a later request, to a whole head.
    pub head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub next: Duration,
}

/// A client's socket.
#[derive(Debug)]
pub struct ClientSocket<S> {
    stream: S,
    talk: Arc<Talk>,
    patience: Patience,
    /// What is left of it for the first head.
    first: Duration,
    wait: Option<(Wait, Pin<Box<Sleep>>)>,
    /// Read while the last request was being answered.
    ahead: Option<u8>,
    half_closed: Option<HalfClosed>,
    timed_out: bool,
}

/// What is waited for, and in which request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    Head(u64),
    Next(u64),
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientSocket<S> {
    /// `stream`, on which `talk` is spoken; its first head may take `first` from now on.
    pub const fn new(stream: S, talk: Arc<Talk>, patience: Patience, first: Duration) -> Self {
        Self { stream, talk, patience, first, wait: None, ahead: None, half_closed: None, timed_out: false }
    }

    /// Whether the client took too long for a head.
    #[must_use]
    pub const fn has_timed_out(&self) -> bool {
        self.timed_out
    }

    /// The bare socket, and what was read of it behind `read`.
    pub fn into_parts(self, read: Bytes) -> (S, Bytes) {
        let first = match self.ahead {
            None => read,
            Some(byte) => {
                let mut first = BytesMut::from(&*read);
                first.extend_from_slice(&[byte]);
                first.freeze()
            }
        };
        (self.stream, first)
    }

    /// Ends the wait for a client that is silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wait = match self.talk.step() {
            (Step::Idle, 0) => Wait::Head(0),
            (Step::Head, requests) => Wait::Head(requests),
            (Step::Idle | Step::Left, requests) => Wait::Next(requests),
            (Step::Asked(_) | Step::Answering | Step::Answered, _) => {
                self.wait = None;
                return Poll::Pending;
            }
        };
        let patience = match wait {
            Wait::Head(0) => self.first,
            Wait::Head(_) => self.patience.head,
            Wait::Next(_) => self.patience.next,
        };
        let timer = match &mut self.wait {
            Some((armed, timer)) if *armed == wait => timer,
            other => &mut other.insert((wait, Box::pin(tokio::time::sleep(patience)))).1,
        };
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match wait {
            Wait::Next(_) => Poll::Ready(Ok(())),
            Wait::Head(_) => {
                self.timed_out = true;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Reads one byte ahead while the request is answered; an error is the end of the client.
    fn poll_end(&mut self, step: Step, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ahead.is_some() {
            return Ok(());
        }
        if let Some(half_closed) = &mut self.half_closed {
            return half_closed.check(&mut self.stream, step, cx);
        }
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => match buf.filled().first() {
                Some(&byte) => {
                    self.ahead = Some(byte);
                    Ok(())
                }
                None => self.half_closed.insert(HalfClosed::begin(step)?).check(&mut self.stream, step, cx),
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(byte) = this.ahead.take() {
            buf.put_slice(&[byte]);
            this.talk.heard();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.poll_silence(cx),
            Poll::Ready(Ok(())) => {
                if buf.filled().len() > before {
                    this.talk.heard();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.moved(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.moved(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes each time it has nothing left to write, and behind each look at the service.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = &mut this.stream;
        ready!(this.talk.poll_tell(cx, |cx, heads| Pin::new(&mut *stream).poll_write(cx, heads)))?;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.talk.flushed();
        match this.talk.step().0 {
            Step::Idle | Step::Head | Step::Left => {}
            // hyper reads the rest of the body itself, and hears the end from that.
            Step::Asked(_) | Step::Answering | Step::Answered if this.talk.is_unread() => {}
            step @ (Step::Asked(_) | Step::Answering | Step::Answered) => this.poll_end(step, cx)?,
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S> ClientSocket<S> {
    fn moved(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(_)), Some(half_closed)) = (&written, &mut self.half_closed) {
            half_closed.moved();
        }
        written
    }
}
