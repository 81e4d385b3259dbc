//! A backend's socket: TCP, plain or TLS, a socket file's, or a connection that its worker has parked with us.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::client_stream::ClientStream;
use super::connect::acknowledge_the_answer_at_once;
use super::parked::ParkedStream;
use super::send::poll_send;

/// A backend's socket.
#[derive(Debug)]
pub enum BackendStream {
    /// `ws://`.
    Tcp(TcpStream),
    /// `unix:`.
    Unix(UnixStream),
    /// `wss://`.
    Tls(Box<ClientStream>),
    /// `attach:`.
    Parked(Box<ParkedStream>),
}

impl BackendStream {
    /// Whether the peer has said something that was not read, its end included; what it said is gone then. Below TLS there
    /// may be records that say nothing, such as the tickets that follow a handshake.
    #[must_use]
    pub fn has_said_more(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let socket = match self {
            Self::Tcp(stream) => TcpStream::as_fd(stream),
            Self::Unix(stream) => UnixStream::as_fd(stream),
            Self::Tls(stream) => return Pin::new(stream).poll_read(cx, &mut ReadBuf::uninit(&mut byte)).is_ready(),
            Self::Parked(stream) => return stream.has_said_more(cx),
        };
        let peeked = SockRef::from(&socket).peek(&mut byte);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Has the answer acknowledged as soon as it comes ([`acknowledge_the_answer_at_once`]).
    pub fn acknowledge_the_answer_at_once(&self) {
        if let Some(socket) = self.socket() {
            acknowledge_the_answer_at_once(&socket);
        }
    }

    /// Goes on with what was taken to be written, and the socket has not taken, on a connection that was parked.
    ///
    /// # Errors
    /// It is broken.
    pub fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Self::Parked(stream) = self else { return Ok(()) };
        stream.push(cx)
    }

    /// How many connections its worker is asked to keep parked, where this was one.
    #[must_use]
    pub fn parked_want(&self) -> Option<u32> {
        let Self::Parked(stream) = self else { return None };
        Some(stream.want())
    }

    /// Whether it was parked, and not a byte has come on it: its worker may never have heard what was said.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        matches!(self, Self::Parked(stream) if stream.is_unheard())
    }

    /// The socket, if there is nothing between it and its frames, so that another process can go on with it alone.
    #[must_use]
    pub fn movable(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Tls(_) => None,
            Self::Parked(stream) => stream.movable(),
        }
    }

    /// The socket below, unless it has none.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Tls(stream) => stream.socket(),
            Self::Parked(stream) => stream.socket(),
        }
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Parked(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Parked(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_send(stream, cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Parked(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Parked(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Parked(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Parked(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
