//! A worker's socket while HTTP is spoken on it: what it says too early, and what it says at last.
//!
//! - Bytes that wait on an idle connection are no answer to anything: the next request would take them for its own. They
//!   are looked for before the first byte of a request leaves; a connection that has some is given up.
//! - A worker that answers before it has read a whole upload, and closes, resets the connection. What it said waits in
//!   our kernel: so a write that fails is taken for done, and what comes is read to its end.
//!
//! Invariant: a connection on which a write failed is never used again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::BackendStream;

/// What a connection's user knows of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// A byte of the present request has been written.
    asked: AtomicBool,
    /// A byte has come since.
    heard: AtomicBool,
    /// A write failed.
    broken: AtomicBool,
}

impl Wire {
    /// A request follows.
    pub fn begin(&self) {
        self.0.asked.store(false, Relaxed);
        self.0.heard.store(false, Relaxed);
    }

    /// Whether a byte came in answer to the present request.
    pub fn has_heard(&self) -> bool {
        self.0.heard.load(Relaxed)
    }

    /// Whether the connection cannot be used again.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Relaxed)
    }
}

/// A worker's socket.
#[derive(Debug)]
pub(super) struct WorkerSocket {
    stream: BackendStream,
    wire: Wire,
}

impl WorkerSocket {
    pub const fn new(stream: BackendStream, wire: Wire) -> Self {
        Self { stream, wire }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.wire.0.asked.store(true, Relaxed);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(_)) => {
                self.wire.0.broken.store(true, Relaxed);
                Poll::Ready(Ok(length))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether nothing has to be written any more: all would be lost.
    fn is_lost(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.wire.is_broken() {
            return Ok(true);
        }
        if !self.wire.0.asked.load(Relaxed) && self.stream.has_said_more(cx) {
            self.wire.0.broken.store(true, Relaxed);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(false)
    }
}

impl AsyncRead for WorkerSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.wire.0.heard.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for WorkerSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_lost(cx)? {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(written, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if this.is_lost(cx)? {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.wrote(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.wire.is_broken() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
