//! The way to the worker that an agent stands beside.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::ctl::Misuse;
use crate::net::reset_at_drop;

/// Where a worker listens.
#[derive(Clone, Debug)]
pub(super) enum Worker {
    /// `HOST:PORT`.
    Tcp(String),
    /// A socket file.
    Unix(PathBuf),
}

/// What a look at a worker found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// It listens.
    Listens,
    /// It does not.
    Away,
    /// It says neither: it may be busy.
    Silent,
}

impl Worker {
    /// Reads `--forward`.
    pub(super) fn parse(text: &str) -> Result<Self, Misuse> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let authority: Option<http::uri::Authority> = text.parse().ok();
        match authority.filter(|authority| authority.port_u16().is_some() && !text.contains('@')) {
            Some(_) => Ok(Self::Tcp(text.to_owned())),
            None => Err(Misuse(format!("--forward {text}: write it like 127.0.0.1:9001 or unix:/run/w.sock"))),
        }
    }

    /// Connects to it within `patience`.
    pub(super) async fn connect(&self, patience: Duration) -> io::Result<WorkerStream> {
        let connecting = async {
            Ok(match self {
                Self::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await?;
                    stream.set_nodelay(true)?;
                    WorkerStream::Tcp(stream)
                }
                Self::Unix(path) => WorkerStream::Unix(UnixStream::connect(path).await?),
            })
        };
        timeout(patience, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether it listens.
    pub(super) async fn look(&self, patience: Duration) -> Look {
        match self.connect(patience).await {
            Ok(_) => Look::Listens,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Look::Silent,
            Err(_) => Look::Away,
        }
    }
}

/// A connection to a worker.
#[derive(Debug)]
pub(super) enum WorkerStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl WorkerStream {
    /// Has it end with a reset when it is dropped.
    pub(super) fn reset_at_drop(&self) {
        match self {
            Self::Tcp(stream) => reset_at_drop(stream.as_fd()),
            // A socket file knows no reset.
            Self::Unix(_) => {}
        }
    }
}

impl AsyncRead for WorkerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WorkerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_at_a_port_or_a_socket_file() {
        for text in ["127.0.0.1:9001", "[::1]:9001", "localhost:1", "unix:/run/w.sock"] {
            assert!(Worker::parse(text).is_ok(), "{text}");
        }
        for text in ["", "9001", "localhost", "unix:", "ws://127.0.0.1:9001", "a@b:1"] {
            assert!(Worker::parse(text).is_err(), "{text}");
        }
    }
}
