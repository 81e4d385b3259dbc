//! One shared stream where its pipe and its viewers' pipes meet, whichever threads they live on.
//!
//! The lock is held for one message or one question and never across an await; a task that has to hear of what was done is
//! woken after it is released, once for as many messages as one write brought.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::shared::held::Held;
use holdline_core::shared::{Seat, Stream, StreamSettings, Taken, ViewerId};
use holdline_core::time::Time;

use super::StreamKey;
use crate::clock::Clock;
use crate::pipes::{Command, MEMORY_STEP, PipeEntry};

/// One shared stream.
#[derive(Debug)]
pub struct Hub {
    /// What newcomers find it by.
    pub key: StreamKey,
    /// Its own pipe, whose backend leg is the one that all viewers share.
    pub pipe: Arc<PipeEntry>,
    pub(super) clock: Clock,
    inner: Mutex<Inner>,
    /// What is held of the worker's messages, wherever they are.
    held: Held,
    /// What is held of what viewers said, after the last change of it.
    up_bytes: AtomicUsize,
    /// What its pipe has in its books for both.
    booked: AtomicUsize,
    /// Viewers that came while it was there, the first not counted.
    reused: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    stream: Stream,
    /// The stream's pipe, when it waits for something to send to the worker, or for its time.
    up: Option<Waker>,
    /// The stream's pipe, when it has messages of the worker that it may not hand over yet.
    paced: Option<Waker>,
    /// Viewers that have taken everything.
    down: HashMap<ViewerId, Waker>,
    /// Viewers that wait for room.
    held_up: HashMap<ViewerId, Waker>,
}

impl Inner {
    /// The stream's pipe, if it may go on handing over.
    fn unpaced(&mut self) -> Option<Waker> {
        if self.paced.is_some() && self.stream.room_down() > 0 { self.paced.take() } else { None }
    }
}

/// A look at one stream for lists and metrics.
#[derive(Clone, Copy, Debug)]
pub struct HubView {
    /// Viewers now.
    pub viewers: usize,
    /// Viewers that came while it was there, the first not counted.
    pub reused: u64,
    /// How long it has had no viewer, in milliseconds.
    pub idle_ms: Option<u64>,
    /// How long it goes on without a viewer, in milliseconds.
    pub linger_ms: Option<u64>,
    /// Bytes held, both ways.
    pub held_bytes: usize,
}

/// What the stream's pipe has to do next.
#[derive(Debug)]
pub enum Turn {
    /// Send this message to the worker.
    Send(Bytes),
    /// Say goodbye: it has had no viewer for long enough.
    Leave,
    /// Nothing, until woken or until this time.
    Wait(Option<Time>),
}

impl Hub {
    /// A stream with its pipe, without a viewer yet.
    #[must_use]
    pub fn new(key: StreamKey, pipe: Arc<PipeEntry>, settings: StreamSettings, clock: Clock) -> Self {
        let inner = Inner {
            stream: Stream::new(settings, clock.now()),
            up: None,
            paced: None,
            down: HashMap::new(),
            held_up: HashMap::new(),
        };
        Self {
            key,
            pipe,
            clock,
            held: inner.stream.held().clone(),
            up_bytes: AtomicUsize::new(0),
            booked: AtomicUsize::new(0),
            inner: Mutex::new(inner),
            reused: AtomicU64::new(0),
        }
    }

    /// A panic elsewhere left whole messages and numbers behind: they are as good as before.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer; none if the stream is over.
    #[must_use]
    pub fn join(&self, first: bool) -> Option<Seat> {
        let mut inner = self.lock();
        let seat = inner.stream.join()?;
        self.pipe.set_viewers(inner.stream.viewers());
        drop(inner);
        self.reused.fetch_add(u64::from(!first), Relaxed);
        Some(seat)
    }

    /// Gives a place back; how many messages of that viewer are lost.
    pub(super) fn leave(&self, seat: Seat) -> u64 {
        let mut inner = self.lock();
        inner.down.remove(&seat.id());
        inner.held_up.remove(&seat.id());
        let lost = inner.stream.leave(seat, self.clock.now());
        self.up_bytes.store(inner.stream.up_bytes(), Relaxed);
        self.pipe.set_viewers(inner.stream.viewers());
        let idle = if inner.stream.idle_since().is_some() { inner.up.take() } else { None };
        let paced = inner.unpaced();
        drop(inner);
        wake(idle);
        wake(paced);
        lost
    }

    /// Takes in what the worker said, and its end if it said so; `woken` is room for the wakers of those who hear of it.
    pub(super) fn push(&self, messages: &mut Vec<Bytes>, end: Option<CloseFrame>, woken: &mut Vec<Waker>) {
        let mut inner = self.lock();
        messages.drain(..).for_each(|message| inner.stream.push(message));
        let ended = end.is_some();
        if let Some(frame) = end {
            inner.stream.end(frame);
        }
        woken.extend(inner.down.drain().map(|(_, waker)| waker));
        if ended {
            woken.extend(inner.held_up.drain().map(|(_, waker)| waker));
        }
        drop(inner);
        woken.drain(..).for_each(Waker::wake);
    }

    /// Bytes of the worker that may be handed over; if none, `waker` hears when that changes.
    pub(super) fn room_down(&self, waker: &Waker) -> usize {
        let mut inner = self.lock();
        let room = inner.stream.room_down();
        if room == 0 {
            inner.paced = Some(waker.clone());
        }
        room
    }

    /// What the stream's pipe has to do; if nothing, `waker` hears when that changes.
    pub(super) fn turn(&self, waker: &Waker) -> Turn {
        let mut inner = self.lock();
        if let Some((message, freed)) = inner.stream.take_up() {
            self.up_bytes.store(inner.stream.up_bytes(), Relaxed);
            let freed = freed.and_then(|viewer| inner.held_up.remove(&viewer));
            drop(inner);
            wake(freed);
            return Turn::Send(message);
        }
        if inner.stream.expire(self.clock.now()) {
            return Turn::Leave;
        }
        inner.up = Some(waker.clone());
        Turn::Wait(inner.stream.deadline())
    }

    /// What a viewer is given next; if nothing, `waker` hears when that changes.
    pub(super) fn take(&self, seat: &mut Seat, waker: &Waker) -> Taken {
        let mut inner = self.lock();
        let taken = inner.stream.take(seat);
        if taken == Taken::Nothing {
            inner.down.insert(seat.id(), waker.clone());
        }
        let paced = inner.unpaced();
        drop(inner);
        wake(paced);
        taken
    }

    /// Bytes that a viewer may say; if none, `waker` hears when that changes.
    pub(super) fn room(&self, seat: &Seat, waker: &Waker) -> usize {
        let mut inner = self.lock();
        let room = inner.stream.room(seat);
        if room == 0 {
            inner.held_up.insert(seat.id(), waker.clone());
        }
        room
    }

    /// Takes in what a viewer said.
    pub(super) fn offer(&self, seat: &Seat, messages: &mut Vec<Bytes>) {
        let mut inner = self.lock();
        messages.drain(..).for_each(|message| inner.stream.offer(seat, message));
        self.up_bytes.store(inner.stream.up_bytes(), Relaxed);
        let waker = inner.up.take();
        drop(inner);
        wake(waker);
    }

    /// Ends a linger at once; whether it lingered.
    pub(super) fn shed(&self) -> bool {
        let mut inner = self.lock();
        let shed = inner.stream.shed();
        let waker = if shed { inner.up.take() } else { None };
        drop(inner);
        wake(waker);
        shed
    }

    /// Closes the stream, and with it all its viewers.
    pub(super) fn go_away(&self) {
        // One with a full mailbox has been told to close already, or ends with the process.
        self.pipe.order(Command::going_away());
    }

    /// Since when it has no viewer, while it lingers.
    pub(super) fn idle_since(&self) -> Option<Time> {
        self.lock().stream.idle_since()
    }

    /// Its numbers now.
    #[must_use]
    pub fn view(&self) -> HubView {
        let now = self.clock.now();
        let inner = self.lock();
        let stream = &inner.stream;
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        HubView {
            viewers: stream.viewers(),
            reused: self.reused.load(Relaxed),
            idle_ms: stream.idle_since().map(|since| ms(now.since(since))),
            linger_ms: stream.deadline().map(|at| ms(at.since(now))),
            held_bytes: self.held_bytes(),
        }
    }

    /// Bytes held, both ways. Takes no lock.
    fn held_bytes(&self) -> usize {
        self.held.bytes() + self.up_bytes.load(Relaxed)
    }

    /// Bytes held, both ways, which its pipe books now.
    pub(super) fn book(&self) -> usize {
        let held = self.held_bytes();
        self.booked.store(held, Relaxed);
        held
    }

    /// Has its pipe book what viewers have passed on since it did last, if that is worth a turn.
    pub(super) fn settle(&self) {
        if self.held_bytes().abs_diff(self.booked.load(Relaxed)) as u64 >= MEMORY_STEP {
            self.pipe.wake();
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
