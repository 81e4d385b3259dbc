//! The pipe: one client's conversation, which outlives its workers.
//!
//! A pipe never does anything by itself. Its driver tells it what happened and when, then carries out what it wants,
//! until it wants nothing more:
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
//!         Action::Dial(_) | Action::CancelDial(_) | Action::Foretell { .. } | Action::TakeOver(_) => {}
//!         Action::DropBackend { .. } => {}
//!         Action::ShutdownClient | Action::DropClient { .. } | Action::Report(_) | Action::Finish => {}
//!     }
//! }
//! // 4. Read again while `read_budget` allows it, and come back at the deadline at the latest.
//! assert!(pipe.read_budget(Side::Client, usize::MAX) > 0);
//! assert!(pipe.deadline().is_some());
//! ```
//!
//! The files follow a message: `receive` takes it in, `transmit` hands it on; `backend` is how the backend leg is lost
//! and found, `moving` how it moves on purpose, `client` how a client is lost and comes back, `aware` what is done for peers
//! that number their messages, `ending` how it all ends, `timers` what time does, `throttle` how a lane is slowed down, `say` what others bring in, `conversing` what the next
//! worker hears again, `snapshot` how it goes to another process.

mod action;
mod aware;
mod backend;
mod client;
mod conversing;
mod ending;
mod moving;
mod receive;
mod say;
mod snapshot;
mod throttle;
mod timers;
mod transmit;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

pub use crate::leg::{Cause, ResumeAnswer};
pub use action::{Action, DialFailure, DialOrder, EndedBy, Fact, Interruption, LinkLoss, Loss, PrologueFailure};
pub use aware::{Introduction, Returning};
pub use say::Unsaid;
pub use view::{LaneView, PipeState, PipeView};

use self::aware::{AwarePipe, NumberedWorkers};
use crate::backoff::Draw;
use crate::close::CloseFrame;
use crate::conversation::Conversation;
use crate::frame::Side;
use crate::ids::{Attachment, BackendKey, Generation, LaneName};
use crate::labels::Labels;
use crate::lane::Lane;
use crate::leg::barrier::Barrier;
use crate::leg::{BackendLeg, ClientLeg, Link, Worker};
use crate::replay::Retention;
use crate::settings::{DownPolicy, PipeSettings, ReplayPolicy, ReplayTail};
use crate::suspects::Suspects;
use crate::time::Time;

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
    /// Whole messages that others keep alive too. They are charged where they come from, and not here.
    Common(&'a Bytes),
}

impl Input<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copy(bytes) => bytes,
            Self::Share(bytes) | Self::Borrow(bytes) | Self::Common(bytes) => bytes,
        }
    }
}

/// When a message of the client may be forgotten.
const fn retention_up(settings: &PipeSettings) -> Retention {
    match settings.replay {
        ReplayPolicy::Unconfirmed => Retention::UntilConfirmed(settings.replay_tail),
        ReplayPolicy::Unsent | ReplayPolicy::None => Retention::UntilSent,
    }
}

/// When a message of the worker may be forgotten.
fn retention_down(settings: &PipeSettings) -> Retention {
    match (settings.client_grace, settings.down) {
        (Some(_), DownPolicy::Keep) => Retention::UntilConfirmed(ReplayTail::default()),
        // Where old messages make way for newer ones anyway, nothing that was sent is kept, and no pong is asked for.
        (Some(_), DownPolicy::Latest(_)) | (None, _) => Retention::UntilSent,
    }
}

/// How far the end of a pipe has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It goes on.
    NotYet,
    /// It was reported.
    Reported,
    /// Both legs are gone, and the driver has been told.
    Over,
}

/// One client's conversation. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Pipe {
    settings: Arc<PipeSettings>,
    draw: Draw,
    client: ClientLeg,
    backend: BackendLeg,
    up: Lane,
    down: Lane,
    /// When a worker was last given a whole message.
    fed_at: Time,
    suspects: Suspects,
    conversation: Conversation,
    /// Only of a client that speaks the aware protocol.
    aware: Option<Box<AwarePipe>>,
    /// Only once a worker has spoken it.
    numbered: Option<Box<NumberedWorkers>>,
    /// Whether its peers have agreed on permessage-deflate without context takeover, so that each message stands alone.
    compressed: bool,
    /// What a client that is gone said at the end, for the worker that gets its last messages.
    farewell: Option<Box<CloseFrame>>,
    /// The groups that it belongs to, if to any.
    labels: Option<Arc<Labels>>,
    interruptions: u32,
    end: End,
    actions: VecDeque<Action>,
}

impl Pipe {
    /// A pipe whose client has just been answered, because `backend` has: attachment 1.
    ///
    /// `seed` decides every draw that the pipe ever makes.
    #[must_use]
    pub fn open(settings: Arc<PipeSettings>, backend: BackendKey, seed: u64, now: Time) -> Self {
        let mut draw = Draw::new(seed);
        let to_worker = link_to_worker(&settings, &mut draw, now);
        let retention_down = retention_down(&settings);
        let to_client = link_to_client(&settings, retention_down, &mut draw, now);
        let worker = Worker {
            attachment: Attachment::FIRST,
            backend,
            fed_from: now,
            first_again: None,
            talked: false,
            settled: false,
            delayed_until: None,
            outage: None,
            link: to_worker,
        };
        Self {
            up: Lane::new(retention_up(&settings), worker.link.level()),
            down: Lane::new(retention_down, to_client.level()),
            client: ClientLeg::open(to_client, settings.client_grace.is_some()),
            backend: BackendLeg::open(worker),
            fed_at: now,
            suspects: Suspects::default(),
            conversation: Conversation::Stateless,
            aware: None,
            numbered: None,
            compressed: false,
            farewell: None,
            labels: None,
            interruptions: 0,
            end: End::NotYet,
            actions: VecDeque::new(),
            settings,
            draw,
        }
    }

    /// Lets both peers send compressed messages, which are passed on as they are, over these links and all that follow.
    /// For a pipe that has taken in nothing yet.
    pub fn allow_compressed(&mut self) {
        self.compressed = true;
        for link in [self.client.link_mut(), self.backend.link_mut()].into_iter().flatten() {
            link.codec.allow_compressed();
        }
    }

    /// The groups that the pipe belongs to, if to any.
    #[must_use]
    pub const fn labels(&self) -> Option<&Arc<Labels>> {
        self.labels.as_ref()
    }

    /// Puts the pipe into these groups, and into no others.
    pub fn set_labels(&mut self, labels: Labels) {
        self.labels = (!labels.is_empty()).then(|| Arc::new(labels));
    }

    /// What is to be done next; `None` when everything has been said.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes a copy of what is still held of borrowed input, so that its buffer can be used again.
    pub fn own_borrowed(&mut self) {
        self.up.buffer.own_borrowed();
        self.down.buffer.own_borrowed();
    }

    /// The link of `side`, and the lane of what comes over it.
    const fn incoming(&mut self, side: Side) -> Option<(&mut Link, &mut Lane)> {
        let (link, lane) = match side {
            Side::Client => (self.client.link_mut(), &mut self.up),
            Side::Backend => (self.backend.link_mut(), &mut self.down),
        };
        match link {
            Some(link) => Some((link, lane)),
            None => None,
        }
    }

    /// The lane that `side` sends into.
    const fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.up,
            Side::Backend => &mut self.down,
        }
    }

    fn report(&mut self, fact: Fact) {
        if self.aware.is_some() {
            self.tell_aware(&fact);
        }
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

    /// Says `Finish` once, when both legs are gone.
    fn finish_if_over(&mut self) {
        if self.end != End::Over && self.is_finished() {
            self.end = End::Over;
            self.actions.push_back(Action::Finish);
        }
    }
}

/// A link to a worker: with replay, it is asked what it has read.
fn link_to_worker(settings: &PipeSettings, draw: &mut Draw, now: Time) -> Link {
    let nonce = draw.key();
    let barrier = match settings.replay {
        ReplayPolicy::None => None,
        ReplayPolicy::Unsent | ReplayPolicy::Unconfirmed => Some(Barrier::new(nonce, now)),
    };
    checked(Link::new(Side::Backend, barrier, settings.backend_heartbeat, now), Side::Backend, settings)
}

/// A link to a client, which is asked what it has read where `retention` keeps that for it.
fn link_to_client(settings: &PipeSettings, retention: Retention, draw: &mut Draw, now: Time) -> Link {
    let barrier = match retention {
        Retention::UntilSent => None,
        Retention::UntilConfirmed(_) => Some(Barrier::new(draw.key(), now)),
    };
    checked(Link::new(Side::Client, barrier, settings.client_heartbeat, now), Side::Client, settings)
}

/// `link`, its text held to UTF-8 where the settings say so.
fn checked(mut link: Link, side: Side, settings: &PipeSettings) -> Link {
    if settings.check_utf8 {
        link.check_text(side);
    }
    link
}
