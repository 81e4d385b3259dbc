//! The pipe: one client's conversation, which outlives its workers.
//!
//! A pipe never does anything by itself. Whoever drives it tells it what happened and when, then carries out what it
//! wants, until it wants nothing more:
//!
//! ```
//! use std::sync::Arc;
//! use holdline_core::ids::{BackendKey, Generation};
//! use holdline_core::pipe::{Action, Input, Peer, Pipe};
//! use holdline_core::frame::Side;
//! use holdline_core::settings::PipeSettings;
//! use holdline_core::time::Time;
//!
//! let now = Time::ZERO;
//! let mut pipe = Pipe::open(Arc::new(PipeSettings::default()), BackendKey(1), 42, now);
//! // 1. Something happened: here, the client sent the text "hi", masked with a key of zeros.
//! pipe.receive(Peer::Client(Generation::FIRST), Input::Copy(b"\x81\x82\0\0\0\0hi"), now);
//! // 2. Give each link what it is due, and say how much of it the link took.
//! assert!(pipe.wants_write(Side::Backend, now) && !pipe.wants_write(Side::Client, now));
//! let taken = pipe.gather(Side::Backend, now).len();
//! assert_eq!(taken, 8);
//! pipe.transmitted(Side::Backend, taken, now);
//! // 3. Carry out the actions.
//! while let Some(action) = pipe.next_action() {
//!     match action {
//!         Action::Dial(_) | Action::CancelDial(_) | Action::TakeOver(_) | Action::DropBackend { .. } => {}
//!         Action::ShutdownClient | Action::DropClient { .. } | Action::Report(_) | Action::Finish => {}
//!     }
//! }
//! // 4. Read again while `read_budget` allows it, and come back at the deadline at the latest.
//! assert!(pipe.read_budget(Side::Client, usize::MAX) > 0);
//! assert!(pipe.deadline().is_some());
//! ```
//!
//! The files follow a message: `receive` takes it in, `transmit` hands it on; `backend` is how the backend leg is lost
//! and found, `moving` how it moves on purpose, `client` how a client is lost and comes back, `ending` how it all ends,
//! `deadline` what time does, `throttle` how a lane is slowed down, `say` what others bring in, `snapshot` how it goes to
//! another process.

mod action;
mod backend;
mod client;
mod deadline;
mod ending;
mod moving;
mod receive;
mod say;
mod snapshot;
mod throttle;
mod transmit;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::leg::Cause;
pub use action::{Action, DialFailure, DialOrder, EndedBy, Fact, Interruption, LinkLoss, Loss, ResumeAnswer};
pub use say::{Speech, Unsaid};
pub use view::{LaneView, PipeState, PipeView};

use crate::assembler::Assembler;
use crate::backoff::Draw;
use crate::barrier::Barrier;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::heartbeat::Heartbeat;
use crate::ids::{Attachment, BackendKey, Generation, LaneName, Seq};
use crate::leg::{Attached, BackendLeg, ClientLeg};
use crate::outbox::Outbox;
use crate::replay::{ReplayBuffer, Retention};
use crate::settings::{PipeSettings, ReplayPolicy};
use crate::suspects::Suspects;
use crate::time::Time;
use client::{Comeback, retention_down};
use throttle::Throttle;

/// Whom bytes came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// The client on the other end of this attach.
    Client(Generation),
    /// The worker on the other end of this attach.
    Backend(Attachment),
}

impl Peer {
    const fn side(self) -> Side {
        match self {
            Self::Client(_) => Side::Client,
            Self::Backend(_) => Side::Backend,
        }
    }
}

/// Bytes that a link was read for.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The pipe copies what it keeps.
    Copy(&'a [u8]),
    /// The pipe keeps parts of it alive instead of copying them.
    Share(&'a Bytes),
    /// The same, but only until [`Pipe::own_borrowed`]: what has been passed on by then was never copied.
    Borrow(&'a Bytes),
}

impl Input<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copy(bytes) => bytes,
            Self::Share(bytes) | Self::Borrow(bytes) => bytes,
        }
    }
}

/// One direction of the pipe.
#[derive(Debug)]
struct Lane {
    assembler: Assembler,
    buffer: ReplayBuffer,
    /// When the message, header or control frame that is not whole yet began.
    began: Option<Time>,
    /// Reading of its sender is paused.
    paused: bool,
    /// Since when its sender is read again, if it was paused before.
    read_since: Time,
    /// What its sender says no longer counts.
    deaf: bool,
    lost: u64,
    dropped: u64,
    payload_bytes: u64,
    /// Only with limits, and only once something came.
    throttle: Option<Box<Throttle>>,
}

impl Lane {
    fn new(sender: Side, retention: Retention) -> Self {
        Self {
            assembler: Assembler::new(sender),
            buffer: ReplayBuffer::new(retention),
            began: None,
            paused: false,
            read_since: Time::ZERO,
            deaf: false,
            lost: 0,
            dropped: 0,
            payload_bytes: 0,
            throttle: None,
        }
    }
}

/// The time since a worker was lost, until the next one has shown that it works.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Time,
    cause: Cause,
    previous: BackendKey,
    gap: Option<(Seq, Seq)>,
    round: u32,
}

/// When a message of the client may be forgotten.
const fn retention_up(settings: &PipeSettings) -> Retention {
    match settings.replay {
        ReplayPolicy::Unconfirmed => Retention::UntilConfirmed(settings.replay_tail),
        ReplayPolicy::Unsent | ReplayPolicy::None => Retention::UntilSent,
    }
}

/// One client's conversation. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Pipe {
    settings: Arc<PipeSettings>,
    draw: Draw,
    client: ClientLeg,
    /// The client's last attach.
    generation: Generation,
    /// Only where the client may come back.
    comeback: Option<Box<Comeback>>,
    backend: BackendLeg,
    last_attachment: Attachment,
    up: Lane,
    down: Lane,
    to_client: Outbox,
    to_backend: Outbox,
    /// When a worker was last given a whole message.
    fed_at: Time,
    barrier: Barrier,
    client_beat: Heartbeat,
    backend_beat: Heartbeat,
    /// Boxed, as what follows: most pipes are never without a worker.
    outage: Option<Box<Outage>>,
    suspects: Suspects,
    /// What a wrong worker said, to be passed on when no right one is left.
    wrong_worker: Option<Box<CloseFrame>>,
    /// What a client that is gone said at the end, for the worker that gets its last messages.
    farewell: Option<Box<CloseFrame>>,
    /// Since when the client has taken nothing of what waits for it.
    stalled_since: Option<Time>,
    interruptions: u64,
    in_doubt: u64,
    ended: bool,
    finished: bool,
    /// Among the actions is a `TakeOver` that the driver has not been told of.
    switching: bool,
    actions: VecDeque<Action>,
}

impl Pipe {
    /// A pipe whose client has just been answered, because `backend` has: attachment 1.
    ///
    /// `seed` decides every draw that the pipe ever makes.
    #[must_use]
    pub fn open(settings: Arc<PipeSettings>, backend: BackendKey, seed: u64, now: Time) -> Self {
        let retention = retention_up(&settings);
        let retention_down = retention_down(&settings);
        let mut draw = Draw::new(seed);
        let link = Attached {
            attachment: Attachment::FIRST,
            backend,
            fed_from: now,
            first_again: None,
            talked: false,
            settled: false,
            hold_until: None,
        };
        Self {
            client: ClientLeg::Open,
            backend: BackendLeg::Attached(link),
            last_attachment: Attachment::FIRST,
            up: Lane::new(Side::Client, retention),
            down: Lane::new(Side::Backend, retention_down),
            to_client: Outbox::new(false),
            to_backend: Outbox::new(true),
            fed_at: now,
            barrier: Barrier::new(draw.key(), now),
            comeback: Comeback::of(&settings, &mut draw, now),
            generation: Generation::FIRST,
            client_beat: Heartbeat::new(settings.client_heartbeat, now),
            backend_beat: Heartbeat::new(settings.backend_heartbeat, now),
            outage: None,
            suspects: Suspects::default(),
            wrong_worker: None,
            farewell: None,
            stalled_since: None,
            interruptions: 0,
            in_doubt: 0,
            ended: false,
            finished: false,
            switching: false,
            actions: VecDeque::new(),
            settings,
            draw,
        }
    }

    /// What is to be done next; `None` when everything has been said.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if matches!(action, Some(Action::TakeOver(_))) {
            self.switching = false;
        }
        action
    }

    /// Takes a copy of what is still held of borrowed input, so that whoever lent its buffer has it back.
    pub fn own_borrowed(&mut self) {
        self.up.buffer.own_borrowed();
        self.down.buffer.own_borrowed();
    }

    fn report(&mut self, fact: Fact) {
        self.actions.push_back(Action::Report(fact));
    }

    fn report_lost(&mut self, lane: LaneName, reason: Loss, messages: u64) {
        if messages == 0 {
            return;
        }
        match lane {
            LaneName::Up => self.up.lost += messages,
            LaneName::Down => self.down.lost += messages,
        }
        self.report(Fact::Lost { lane, reason, messages });
    }

    /// Whether messages count as confirmed once they are written: nobody will be asked.
    fn confirms_when_written(&self) -> bool {
        match self.settings.replay {
            ReplayPolicy::None => true,
            ReplayPolicy::Unsent | ReplayPolicy::Unconfirmed => {
                matches!(self.barrier.level(), crate::barrier::Level::Written)
            }
        }
    }

    /// Says `Finish` once, when both legs are gone.
    fn finish_if_over(&mut self) {
        if !self.finished && matches!((&self.client, &self.backend), (ClientLeg::Gone, BackendLeg::Gone)) {
            self.finished = true;
            self.actions.push_back(Action::Finish);
        }
    }
}
