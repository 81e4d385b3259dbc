//! A client's socket while HTTP is spoken on it: one that takes nothing of an answer for too long is an error.
//!
//! Without it, a client that asks for something large and never reads would hold a worker's connection for ever.
//! Invariant: the time counts only while bytes wait for the peer, and begins anew with each byte that it takes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A socket whose writes may stand still for so long and no longer.
#[derive(Debug)]
pub struct SendTimeout<S> {
    stream: S,
    patience: Duration,
    /// Set while a write waits for the peer.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> SendTimeout<S> {
    /// `stream`, whose peer may take nothing for `patience`.
    pub const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    /// The bare socket.
    pub fn into_inner(self) -> S {
        self.stream
    }

    fn bounded(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SendTimeout<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SendTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.bounded(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.bounded(written, cx)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_an_error_after_the_time_and_not_before() {
        let (ours, mut peer) = duplex(10);
        let mut ours = SendTimeout::new(ours, PATIENCE);
        ours.write_all(&[1; 10]).await.unwrap();
        tokio::time::advance(PATIENCE * 3).await;
        let began = tokio::time::Instant::now();
        let error = ours.write(&[2]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
        peer.read_exact(&mut [0; 10]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_that_is_taken_in_time_buys_the_whole_time_again() {
        let (ours, mut peer) = duplex(1);
        let mut ours = SendTimeout::new(ours, PATIENCE);
        let sending = async { ours.write_all(&[7; 20]).await };
        let taking = async {
            for _ in 0..20 {
                tokio::time::advance(PATIENCE - Duration::from_secs(1)).await;
                peer.read_exact(&mut [0]).await.unwrap();
            }
        };
        let (sent, ()) = tokio::join!(sending, taking);
        assert!(sent.is_ok());
    }
}
