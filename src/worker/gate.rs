//! A TCP stream that obeys the fault knobs: frozen, half-open and slow sockets are made here, below HTTP and WebSocket.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use super::faults::{Faults, Link};

/// A slow reader takes its bytes in this many portions a second.
const PORTIONS_PER_SECOND: u64 = 20;

/// The socket of one connection.
pub(super) struct Gate {
    socket: TcpStream,
    link: Arc<Link>,
    faults: Arc<Faults>,
    read_wait: Option<Pin<Box<Sleep>>>,
    write_wait: Option<Pin<Box<Sleep>>>,
    next_portion: Option<Instant>,
}

impl Gate {
    /// Puts a gate before `socket`.
    pub(super) fn new(socket: TcpStream, link: Arc<Link>, faults: Arc<Faults>) -> Self {
        Self { socket, link, faults, read_wait: None, write_wait: None, next_portion: None }
    }

    fn poll_open(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.link.is_half_open() {
                // never woken for this again: the task only hears orders now
                return Poll::Pending;
            }
            let portion = match side {
                Side::Read => self.next_portion.and_then(|at| at.checked_duration_since(Instant::now())),
                Side::Write => None,
            };
            let wait = match side {
                Side::Read => &mut self.read_wait,
                Side::Write => &mut self.write_wait,
            };
            if let Some(sleep) = wait {
                ready!(sleep.as_mut().poll(cx));
                *wait = None;
            }
            let Some(time) = self.faults.frozen_for(&self.link).or(portion.filter(|left| !left.is_zero())) else {
                return Poll::Ready(());
            };
            *wait = Some(Box::pin(tokio::time::sleep(time)));
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl AsyncRead for Gate {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        ready!(gate.poll_open(Side::Read, cx));
        let rate = gate.link.read_bytes_per_second();
        if rate == 0 {
            gate.next_portion = None;
            return Pin::new(&mut gate.socket).poll_read(cx, buf);
        }
        let portion = (rate / PORTIONS_PER_SECOND).max(1) as usize;
        let room = portion.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut gate.socket).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        gate.next_portion = Some(Instant::now() + Duration::from_micros(read as u64 * 1_000_000 / rate));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gate {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        ready!(gate.poll_open(Side::Write, cx));
        Pin::new(&mut gate.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        ready!(gate.poll_open(Side::Write, cx));
        Pin::new(&mut gate.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
