//! A client's bare socket: what there is below TLS, if TLS is spoken on it.

use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A client's bare socket.
#[derive(Debug)]
pub(super) enum Bare {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a `unix:PATH` listener.
    Unix(UnixStream),
}

/// `MSG_MORE` of Linux: more comes at once, so that this need not be a packet of its own.
const MORE: i32 = 0x8000;

impl Bare {
    /// Writes what stands at the end of the connection. The socket is to be shut down next: both go in one packet then,
    /// and the peer is woken once.
    ///
    /// # Errors
    /// The link is broken.
    pub(super) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self::Tcp(stream) = self else { return Pin::new(self).poll_write_vectored(cx, slices) };
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let send = || SockRef::from(&*stream).send_vectored_with_flags(slices, MORE);
            match stream.try_io(Interest::WRITABLE, send) {
                // It was noted, so that the next look waits for room.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Whether there is room for something to be written.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// The same socket by another descriptor.
    pub(super) fn share(&self) -> io::Result<Self> {
        let shared = match self {
            Self::Tcp(stream) => LooseBare::Tcp(stream.as_fd().try_clone_to_owned()?.into()),
            Self::Unix(stream) => LooseBare::Unix(stream.as_fd().try_clone_to_owned()?.into()),
        };
        shared.bind()
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Whether the peer has closed its side, as far as the runtime has heard.
    pub(super) fn is_read_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(Interest::READABLE)).poll(&mut cx),
            Self::Unix(stream) => pin!(stream.ready(Interest::READABLE)).poll(&mut cx),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Waits for the next event, though there are bytes to be read.
    pub(super) fn forget_readable(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // That it would block is what it is told.
        let _ = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
        };
    }
}

/// A client's bare socket between two threads: it belongs to no runtime.
#[derive(Debug)]
pub(super) enum LooseBare {
    /// From a TCP listener.
    Tcp(std::net::TcpStream),
    /// From a `unix:PATH` listener.
    Unix(std::os::unix::net::UnixStream),
}

impl LooseBare {
    pub(super) fn loosen(socket: Bare) -> io::Result<Self> {
        match socket {
            Bare::Tcp(stream) => stream.into_std().map(Self::Tcp),
            Bare::Unix(stream) => stream.into_std().map(Self::Unix),
        }
    }

    pub(super) fn bind(self) -> io::Result<Bare> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Bare::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Bare::Unix),
        }
    }
}

impl AsyncRead for Bare {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Bare {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
