//! Reading one leg: bytes go into a buffer that belongs to the thread, and from there into the pipe.
//!
//! Invariant: an idle pipe holds no buffer. A message may hold a part of one, which keeps all of it alive; a thread has
//! at most [`PINNED_BUFFERS_MAX`] buffers of which that is so for longer than a turn, and with as many it copies what it
//! reads. It keeps at most [`SPARE_BUFFERS_MAX`] more for its next reads.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
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

/// Buffers of one thread that messages may hold parts of at a time. What such a part keeps alive beside itself is charged
/// to no pipe, so there is a bound on it.
const PINNED_BUFFERS_MAX: usize = 8;

/// Buffers of one thread that are kept for its next reads though no message holds a part of them: the system takes long to
/// make their pages anew.
const SPARE_BUFFERS_MAX: usize = 2;

/// Read buffers of all threads.
static BUFFERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static READ_BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Bytes of the read buffers of all threads: what pipes keep alive of them is part of it.
#[must_use]
pub fn read_buffers_bytes() -> u64 {
    (BUFFERS.load(Relaxed) * READ_BYTES_MAX) as u64
}

/// Gives back the buffers of this thread of which no message holds a part; the next read makes another.
pub fn shed_read_buffers() {
    READ_BUFFERS.with_borrow_mut(Buffers::shed);
}

/// Gives back those that this thread has kept for later reads.
pub fn shed_spare_read_buffers() {
    READ_BUFFERS.with_borrow_mut(Buffers::shed_spare);
}

/// The buffers of one thread.
#[derive(Default)]
struct Buffers {
    /// Used over and over while no message holds a part of it.
    current: Option<BytesMut>,
    /// Those before it of which messages hold parts. Each is here until its last part is gone.
    pinned: Vec<BytesMut>,
    /// Those of which no message holds a part any more; the last one is likeliest to be in the processor's cache.
    spare: Vec<BytesMut>,
}

impl Buffers {
    /// A buffer with room for a read.
    fn current(&mut self) -> &mut BytesMut {
        // From its start again, which is still in the processor's cache, if no message holds a part of it.
        let has_room = |buffer: &mut BytesMut| buffer.try_reclaim(READ_BYTES_MAX) || buffer.capacity() >= READ_ROOM_MIN;
        if let Some(used) = self.current.take_if(|buffer| !has_room(buffer)) {
            self.pinned.push(used);
            self.release();
            self.current = self.spare.pop();
        }
        self.current.get_or_insert_with(|| {
            BUFFERS.fetch_add(1, Relaxed);
            BytesMut::with_capacity(READ_BYTES_MAX)
        })
    }

    /// The buffer that was read into.
    fn filled(&mut self) -> &mut BytesMut {
        self.current.get_or_insert_default()
    }

    /// Makes spare ones of the pinned ones of which no message holds a part any more, as many as are kept.
    fn release(&mut self) {
        let is_free = |buffer: &mut BytesMut| buffer.try_reclaim(READ_BYTES_MAX);
        self.spare.extend(self.pinned.extract_if(.., is_free));
        let given_back = self.spare.drain(SPARE_BUFFERS_MAX.min(self.spare.len())..).count();
        BUFFERS.fetch_sub(given_back, Relaxed);
    }

    /// Whether a message may hold a part of the current buffer.
    fn may_pin(&mut self) -> bool {
        if self.pinned.len() >= PINNED_BUFFERS_MAX {
            self.release();
        }
        self.pinned.len() < PINNED_BUFFERS_MAX
    }

    fn shed(&mut self) {
        self.pinned.extend(self.current.take());
        self.shed_spare();
    }

    fn shed_spare(&mut self) {
        self.release();
        BUFFERS.fetch_sub(self.spare.drain(..).count(), Relaxed);
    }
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
    READ_BUFFERS.with_borrow_mut(|buffers| {
        let buffer = buffers.current();
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
                if keep == Keep::UntilConfirmed && count >= SHARE_BYTES_MIN && buffers.may_pin() {
                    let bytes = buffers.filled().split().freeze();
                    pipe.receive(peer, Input::Share(&bytes), now);
                } else if keep == Keep::UntilWritten && count >= BORROW_BYTES_MIN {
                    let bytes = buffers.filled().split().freeze();
                    pipe.receive(peer, Input::Borrow(&bytes), now);
                } else {
                    let buffer = buffers.filled();
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
