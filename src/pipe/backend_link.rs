//! What a pipe's backend leg hangs on: a worker's socket, or the end of a shared stream that has the worker for many.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdline_core::frame::{self, Opcode};
use holdline_core::ids::{BackendKey, PipeId};
use holdline_core::pipe::{Input, Peer, Pipe};
use holdline_core::shared::Taken;
use holdline_core::time::Time;
use tokio::io::AsyncWrite;

use super::reading::Came;
use crate::backends::{Leave, Outcome, Reservation};
use crate::net::BackendStream;
use crate::share::ViewerLink;

/// The live transport of a backend leg.
#[derive(Debug)]
pub enum BackendLink {
    /// A worker's socket.
    Worker(BackendStream),
    /// A viewer's end of a shared stream.
    Stream(Box<ViewerLink>),
}

/// Stands for the stream where a viewer's pipe names its backend; no pool gives this key to anybody.
const STREAM_KEY: BackendKey = BackendKey(u64::MAX);

/// Bytes from which on a message of a stream is kept as it is held for all viewers; below, a copy costs less.
const SHARE_BYTES_MIN: usize = 512;

/// Bytes that a viewer's pipe takes from its stream before it writes again.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What a pipe holds while it is attached.
#[derive(Debug)]
pub enum Place {
    /// A place on a worker.
    Worker(Reservation),
    /// A seat in a shared stream, which has the place on the worker; what the stream is called.
    Stream(Arc<str>),
}

impl Place {
    /// Who the backend is.
    #[must_use]
    pub fn key(&self) -> BackendKey {
        match self {
            Self::Worker(reservation) => reservation.key(),
            Self::Stream(_) => STREAM_KEY,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::Worker(reservation) => reservation.id(),
            Self::Stream(name) => name,
        }
    }

    /// Says how it went with a worker.
    pub fn report(&self, pipe: PipeId, outcome: Outcome) {
        match self {
            Self::Worker(reservation) => reservation.report(Some(pipe), outcome),
            // The stream's own pipe has its experience with the worker.
            Self::Stream(_) => {}
        }
    }

    /// Whether the pipe has to leave.
    #[must_use]
    pub fn must_leave(&self) -> Option<Leave> {
        match self {
            Self::Worker(reservation) => reservation.must_leave(),
            Self::Stream(_) => None,
        }
    }
}

impl BackendLink {
    /// Writes as much as the link takes now; TLS keeps what the socket did not take, so it is pushed on.
    ///
    /// # Errors
    /// The link is broken.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = match self {
            Self::Worker(stream) => stream,
            Self::Stream(link) => return link.poll_write_vectored(cx, slices),
        };
        let written = Pin::new(&mut *stream).poll_write_vectored(cx, slices);
        if let BackendStream::Tls(_) = stream {
            // What it cannot push on now, the next write or read of this link does.
            let _ = Pin::new(stream).poll_flush(cx);
        }
        written
    }
}

/// Gives `pipe` what its stream has for it, as far as its budget allows.
pub(super) fn read_stream(
    link: &mut ViewerLink,
    peer: Peer,
    budget: usize,
    pipe: &mut Pipe,
    cx: &mut Context<'_>,
    now: Time,
) -> Came {
    if budget == 0 {
        return Came::Unread;
    }
    let mut came = 0;
    for _ in 0..link.batch() {
        match link.take(cx) {
            Taken::Message(message) => {
                came += message.len();
                let short = message.len() < SHARE_BYTES_MIN;
                pipe.receive(peer, if short { Input::Copy(&message) } else { Input::Share(&message) }, now);
            }
            Taken::Skipped(messages) => {
                // Something was done, so the turn goes on.
                came += 1;
                pipe.passed_over(messages, now);
            }
            Taken::End(frame) => {
                let mut bytes = Vec::new();
                frame::encode(&mut bytes, Opcode::Close, &frame.payload(), None);
                pipe.receive(peer, Input::Copy(&bytes), now);
                return Came::Bytes(came + bytes.len());
            }
            Taken::Nothing if came == 0 => return Came::Nothing,
            Taken::Nothing => break,
        }
        if came >= BATCH_BYTES_MAX.min(budget) {
            break;
        }
    }
    Came::Bytes(came)
}
