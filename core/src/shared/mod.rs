//! A shared stream: one worker's messages for many viewers, and what the viewers say merged into one lane.
//!
//! Both ends of it are ordinary pipes ([`crate::pipe`]). The stream's own pipe has a worker on its backend leg and
//! this in place of a client; each viewer's pipe has its client, and this in place of a worker. So losing a worker,
//! replay, limits and closing need nothing here: what is left is the fan-out ([`ring`]), the merging of what viewers
//! say ([`merge`]), the cutting of bytes into whole messages ([`cutter`]), and how long a stream without viewers
//! lives.
//!
//! Invariants: a viewer is given whole messages, each once and in order, and is told of each that it was too slow for;
//! no viewer holds up another, and the worker waits for the quickest of them alone; the ring is bounded by
//! [`StreamSettings::bytes_max`], what a viewer's pipe keeps of it by its window, and what viewers say by
//! [`merge::INBOX_BYTES_MAX`] each; a message is charged once however many hold it ([`held`]); behind the end there is
//! nothing.

pub mod cutter;
pub mod held;
pub mod merge;
pub mod ring;

use std::time::Duration;

use bytes::Bytes;

use crate::close::CloseFrame;
use crate::settings::{
    BackendLoss, CodeSet, DownPolicy, Heartbeat, LimitedLanes, PipeLimits, PipeSettings, ReplayPolicy, ReplayTail,
};
use crate::time::Time;
use held::Held;
use merge::Merge;
use ring::{Cursor, Next, Ring};

/// What is charged for a message beside its bytes: its place in a list that may be twice as long as it is full, the count
/// of those that hold it, and what an allocator keeps of its own for each.
pub const MESSAGE_OVERHEAD_BYTES: usize = 160;

/// What a message is charged wherever a stream holds it.
const fn charge(message: &Bytes) -> usize {
    message.len() + MESSAGE_OVERHEAD_BYTES
}

/// One viewer of a stream, never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ViewerId(pub u64);

/// What an operator decides about a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamSettings {
    /// Bytes of messages kept for viewers that are behind and for newcomers; a quarter of it and the newest, if that is
    /// more.
    pub bytes_max: usize,
    /// Messages that a newcomer is given first, if they are still there.
    pub catch_up: u32,
    /// How long the stream lives without a viewer.
    pub linger: Duration,
}

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// No pings: the peer is in the same process.
const NO_HEARTBEAT: Heartbeat = Heartbeat { interval: Duration::ZERO, timeout: Duration::ZERO };

/// What a stream's own pipe lives by on a route whose pipes live by `route`.
///
/// Its client is the stream, which never dies and takes everything at once, or waits for viewers that are judged
/// themselves.
#[must_use]
pub fn stream_pipe(route: &PipeSettings) -> PipeSettings {
    let limits = PipeLimits { lanes: LimitedLanes::Down, ..route.limits };
    PipeSettings { down: DownPolicy::Keep, stall_max: NEVER, client_heartbeat: NO_HEARTBEAT, limits, ..route.clone() }
}

/// What a viewer's pipe lives by on a route whose pipes live by `route`.
///
/// Its worker is the stream, which never has to be replaced: what the stream ends with is the end, and what it took, it
/// has.
#[must_use]
pub fn viewer_pipe(route: &PipeSettings) -> PipeSettings {
    PipeSettings {
        replay: ReplayPolicy::None,
        replay_tail: ReplayTail::default(),
        replay_delay: Duration::ZERO,
        on_backend_loss: BackendLoss::Close,
        first_message_timeout: None,
        backend_heartbeat: NO_HEARTBEAT,
        interrupt_codes: CodeSet::default(),
        wrong_worker_codes: CodeSet::default(),
        // What comes down was held to the limits once, for all viewers.
        limits: PipeLimits { lanes: LimitedLanes::Up, ..route.limits },
        ..route.clone()
    }
}

/// A viewer's place in a stream; it goes back with [`Stream::leave`].
#[derive(Debug)]
pub struct Seat {
    id: ViewerId,
    cursor: Cursor,
}

impl Seat {
    /// Whose place it is.
    #[must_use]
    pub const fn id(&self) -> ViewerId {
        self.id
    }
}

/// What a viewer is given next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// A whole message, as the worker's frames had it.
    Message(Bytes),
    /// So many messages went before the viewer took them.
    Skipped(u64),
    /// Nothing comes any more, and this is why.
    End(CloseFrame),
    /// Nothing yet.
    Nothing,
}

/// Where a stream is in its life.
#[derive(Debug)]
enum Life {
    Watched,
    Idle {
        since: Time,
    },
    /// It was told to go, because no viewer was left.
    Leaving,
    Ended(CloseFrame),
}

/// One shared stream, between its own pipe and those of its viewers.
#[derive(Debug)]
pub struct Stream {
    settings: StreamSettings,
    ring: Ring,
    /// What the worker said and the ring or a viewer's pipe still holds.
    held: Held,
    merge: Merge,
    life: Life,
    last_viewer: ViewerId,
}

impl Stream {
    /// A stream without viewers.
    #[must_use]
    pub fn new(settings: StreamSettings, now: Time) -> Self {
        Self {
            held: Held::default(),
            ring: Ring::new(settings.bytes_max, settings.catch_up),
            merge: Merge::new(),
            life: Life::Idle { since: now },
            last_viewer: ViewerId(0),
            settings,
        }
    }

    /// Adds a viewer; `None` if the stream is over, or about to be.
    pub fn join(&mut self) -> Option<Seat> {
        match self.life {
            Life::Watched | Life::Idle { .. } => self.life = Life::Watched,
            Life::Leaving | Life::Ended(_) => return None,
        }
        self.last_viewer = ViewerId(self.last_viewer.0 + 1);
        self.merge.join(self.last_viewer);
        Some(Seat { id: self.last_viewer, cursor: self.ring.join() })
    }

    /// Takes a viewer out. What it said goes on its way; the messages for which there is no room are counted.
    pub fn leave(&mut self, seat: Seat, now: Time) -> u64 {
        self.ring.leave(seat.cursor);
        if self.ring.readers() == 0
            && let Life::Watched = self.life
        {
            self.life = Life::Idle { since: now };
        }
        self.merge.leave(seat.id)
    }

    /// Adds a message of the worker.
    pub fn push(&mut self, message: Bytes) {
        match self.life {
            Life::Watched | Life::Idle { .. } | Life::Leaving => self.ring.push(self.held.count(message)),
            Life::Ended(_) => {}
        }
    }

    /// Bytes of the worker that may be pushed now; after 0, [`Self::take`] and [`Self::leave`] change that.
    ///
    /// There is none while not even the quickest viewer has taken a quarter of what the stream may hold: then the worker is
    /// faster than all of them, and those who keep up with each other would all be passed over. A stream without viewers
    /// and one with a viewer that takes everything always have room.
    #[must_use]
    pub const fn room_down(&self) -> usize {
        self.ring.room()
    }

    /// Ends the stream: each viewer is told `frame` behind the last message. Only the first end counts.
    pub fn end(&mut self, frame: CloseFrame) {
        match self.life {
            Life::Watched | Life::Idle { .. } | Life::Leaving => self.life = Life::Ended(frame),
            Life::Ended(_) => {}
        }
    }

    /// What the viewer of `seat` is given next.
    pub fn take(&mut self, seat: &mut Seat) -> Taken {
        match (self.ring.take(&mut seat.cursor), &self.life) {
            (Next::Message(bytes), _) => Taken::Message(bytes),
            (Next::Skipped(messages), _) => Taken::Skipped(messages),
            (Next::Nothing, Life::Ended(frame)) => Taken::End(frame.clone()),
            (Next::Nothing, Life::Watched | Life::Idle { .. } | Life::Leaving) => Taken::Nothing,
        }
    }

    /// Bytes that may be taken in from the viewer of `seat`; after 0, [`Self::take_up`] says when there is room.
    pub fn room(&mut self, seat: &Seat) -> usize {
        match self.life {
            Life::Watched | Life::Idle { .. } | Life::Leaving => self.merge.room(seat.id),
            // It will not be taken: the viewer is about to be told so.
            Life::Ended(_) => 0,
        }
    }

    /// Takes in a whole message of a viewer.
    pub fn offer(&mut self, seat: &Seat, message: Bytes) {
        self.merge.offer(seat.id, message);
    }

    /// The next message for the worker, and the viewer that waits for the room it leaves.
    pub fn take_up(&mut self) -> Option<(Bytes, Option<ViewerId>)> {
        self.merge.take()
    }

    /// Whether a viewer said something that was not taken yet.
    #[must_use]
    pub fn has_up(&self) -> bool {
        !self.merge.is_empty()
    }

    /// When [`Self::expire`] has something to say, if no viewer comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.life {
            Life::Idle { since } if self.merge.is_empty() => Some(since + self.settings.linger),
            // What the last viewers said has to go first.
            Life::Idle { .. } => None,
            Life::Watched | Life::Leaving | Life::Ended(_) => None,
        }
    }

    /// Whether the stream has to go because it had no viewer for `linger`. True once.
    pub fn expire(&mut self, now: Time) -> bool {
        let over = self.deadline().is_some_and(|at| now >= at);
        if over {
            self.life = Life::Leaving;
        }
        over
    }

    /// Lets the stream linger no longer; whether it lingers.
    pub fn shed(&mut self) -> bool {
        match self.life {
            Life::Idle { .. } => {
                self.settings.linger = Duration::ZERO;
                true
            }
            Life::Watched | Life::Leaving | Life::Ended(_) => false,
        }
    }

    /// Since when it has no viewer, while the stream lingers.
    #[must_use]
    pub const fn idle_since(&self) -> Option<Time> {
        match self.life {
            Life::Idle { since } => Some(since),
            Life::Watched | Life::Leaving | Life::Ended(_) => None,
        }
    }

    /// Whether a newcomer would be let in.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match self.life {
            Life::Watched | Life::Idle { .. } => true,
            Life::Leaving | Life::Ended(_) => false,
        }
    }

    /// Viewers.
    #[must_use]
    pub const fn viewers(&self) -> usize {
        self.ring.readers()
    }

    /// What is held of the worker's messages, by the ring and by viewers' pipes.
    #[must_use]
    pub const fn held(&self) -> &Held {
        &self.held
    }

    /// Bytes held of what viewers said.
    #[must_use]
    pub const fn up_bytes(&self) -> usize {
        self.merge.bytes()
    }

    /// Bytes held, both ways.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.bytes() + self.up_bytes()
    }
}

#[cfg(test)]
mod tests;
