//! A client's bare socket: what there is below TLS, if TLS is spoken on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use socket2::{Domain, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::memory_stream::{MemoryStream, MemoryWatch};
use super::send::poll_send;

/// A client's bare socket.
#[derive(Debug)]
pub(super) enum Bare {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a `unix:PATH` listener.
    Unix(UnixStream),
    /// From a session of requests.
    Memory(MemoryStream),
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
            Self::Memory(stream) => stream.poll_room(cx).map(Ok),
        }
    }

    /// The socket's descriptor; none for a stream in memory.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Memory(_) => None,
        }
    }

    /// A watch on whether the peer closes its side or goes away, beside what is read.
    pub(super) fn watch(&self) -> io::Result<Watch> {
        // A descriptor of its own: to wait for the next event on this one would forget that bytes are there to be read.
        let shared = match self {
            Self::Tcp(stream) => LooseBare::Tcp(stream.as_fd().try_clone_to_owned()?.into()),
            Self::Unix(stream) => LooseBare::Unix(stream.as_fd().try_clone_to_owned()?.into()),
            Self::Memory(stream) => return Ok(Watch::Memory(stream.watch())),
        };
        shared.bind().map(Watch::Socket)
    }

    /// Bytes that are held for this end of a stream in memory.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Tcp(_) | Self::Unix(_) => 0,
            Self::Memory(stream) => stream.held_bytes(),
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Memory(_) => Poll::Pending,
        }
    }

    /// Whether the peer has closed its side, as far as the runtime has heard.
    fn is_read_closed(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(Interest::READABLE)).poll(&mut cx),
            Self::Unix(stream) => pin!(stream.ready(Interest::READABLE)).poll(&mut cx),
            Self::Memory(_) => return false,
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    /// Waits for the next event, though there are bytes to be read.
    fn forget_readable(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // That it would block is what it is told.
        let _ = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Memory(_) => return,
        };
    }
}

/// Hears that a peer has closed its side or is gone, whatever there still is to be read.
#[derive(Debug)]
pub(super) enum Watch {
    /// A second descriptor of its socket.
    Socket(Bare),
    /// The way that it writes.
    Memory(MemoryWatch),
}

impl Watch {
    /// Whether the peer has left; the task is woken when it does.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> bool {
        let socket = match self {
            Self::Socket(socket) => socket,
            Self::Memory(watch) => return watch.poll(cx),
        };
        loop {
            match socket.poll_read_ready(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if !socket.is_read_closed() => socket.forget_readable(),
                Poll::Ready(_) => return true,
            }
        }
    }
}

/// A client's bare socket between two threads: it belongs to no runtime.
#[derive(Debug)]
pub(super) enum LooseBare {
    /// From a TCP listener.
    Tcp(std::net::TcpStream),
    /// From a `unix:PATH` listener.
    Unix(std::os::unix::net::UnixStream),
    /// From a session of requests, which is of no thread.
    Memory(MemoryStream),
}

impl LooseBare {
    pub(super) fn loosen(socket: Bare) -> io::Result<Self> {
        match socket {
            Bare::Tcp(stream) => stream.into_std().map(Self::Tcp),
            Bare::Unix(stream) => stream.into_std().map(Self::Unix),
            Bare::Memory(stream) => Ok(Self::Memory(stream)),
        }
    }

    /// The socket that has come from another process.
    pub(super) fn of_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&descriptor);
        socket.set_nonblocking(true)?;
        let is_unix = socket.domain()? == Domain::UNIX;
        Ok(if is_unix { Self::Unix(descriptor.into()) } else { Self::Tcp(descriptor.into()) })
    }

    pub(super) fn bind(self) -> io::Result<Bare> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Bare::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Bare::Unix),
            Self::Memory(stream) => Ok(Bare::Memory(stream)),
        }
    }
}

impl AsyncRead for Bare {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Bare {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_send(stream, cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
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
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
