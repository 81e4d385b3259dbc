//! Reading one leg: bytes go into a buffer that belongs to the thread, and from there into the pipe.
//!
//! Invariant: an idle pipe holds no buffer, and a thread at most one that no pipe holds a part of.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use holdline_core::pipe::{Input, LinkLoss, Peer, Pipe};
use holdline_core::time::Time;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that one read takes at most: the size of each thread's read buffer.
pub const READ_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one read from which on the pipe keeps its part of the thread's buffer instead of a copy. Below, a copy is
/// cheap, and a buffer that a small message holds on to would be a waste.
const SHARE_BYTES_MIN: usize = 32 * 1024;

/// Bytes of one read from which on a message that is passed on within the same turn is passed on from the thread's
/// buffer; only what its peer does not take at once is copied. Below, keeping count costs more than the copy.
const BORROW_BYTES_MIN: usize = 2 * 1024;

/// Room that is left in the thread's buffer at least before a read; with less, the next buffer is taken.
const READ_ROOM_MIN: usize = 128 * 1024;

thread_local! {
    /// Used over and over while no message holds a part of it; one that is held goes when its last part does.
    static READ_BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Gives back the buffer that this thread reads into, if no message holds a part of it; the next read makes another.
pub fn shed_read_buffer() {
    READ_BUFFER.set(BytesMut::new());
}

/// How a leg is read.
pub(super) struct Reading {
    pub(super) peer: Peer,
    /// Bytes that may be read.
    pub(super) budget: usize,
    pub(super) keep: Keep,
    /// What it means if there is nothing any more.
    pub(super) end: LinkLoss,
}

/// How the pipe keeps what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// As a copy: it may be kept for long.
    Copy,
    /// As it is, if it is long: it is kept until the peer has confirmed it.
    UntilConfirmed,
    /// As it is, if the peer takes it at once, which is all that it is kept for.
    UntilWritten,
}

impl Keep {
    /// Bytes of one read from which on they are not copied.
    const fn as_it_is_from(self) -> usize {
        match self {
            Self::Copy => usize::MAX,
            Self::UntilConfirmed => SHARE_BYTES_MIN,
            Self::UntilWritten => BORROW_BYTES_MIN,
        }
    }
}

/// What a look at one leg brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// It is not read now.
    Unread,
    /// Nothing yet; the task is woken when there is.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// There is nothing to come any more, which the pipe has been told.
    End,
}

impl Came {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Unread | Self::Nothing | Self::End => 0,
        }
    }
}

/// Reads one leg once, as far as its budget allows.
pub(super) fn read(
    stream: &mut (impl AsyncRead + Unpin),
    reading: Reading,
    pipe: &mut Pipe,
    cx: &mut Context<'_>,
    now: Time,
) -> Came {
    let Reading { peer, budget, keep, end } = reading;
    if budget == 0 {
        return Came::Unread;
    }
    READ_BUFFER.with_borrow_mut(|buffer| {
        // From its start again, which is still in the processor's cache, if no message holds a part of it.
        if !buffer.try_reclaim(READ_BYTES_MAX) && buffer.capacity() < READ_ROOM_MIN {
            buffer.reserve(READ_BYTES_MAX);
        }
        let room = buffer.capacity().min(budget);
        let mut space = (&mut *buffer).limit(room);
        let result = pin!(stream.read_buf(&mut space)).poll(cx);
        match result {
            Poll::Pending => Came::Nothing,
            Poll::Ready(Ok(0)) => {
                pipe.lost(peer, end, now);
                Came::End
            }
            Poll::Ready(Ok(count)) => {
                if count >= keep.as_it_is_from() {
                    let bytes = buffer.split().freeze();
                    let short = count < SHARE_BYTES_MIN;
                    pipe.receive(peer, if short { Input::Borrow(&bytes) } else { Input::Share(&bytes) }, now);
                } else {
                    pipe.receive(peer, Input::Copy(buffer), now);
                    buffer.clear();
                }
                Came::Bytes(count)
            }
            Poll::Ready(Err(_)) => {
                pipe.lost(peer, LinkLoss::Reset, now);
                Came::End
            }
        }
    })
}
