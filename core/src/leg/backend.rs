//! The backend leg: what it may be doing, and every step from one state to another.
//!
//! ```text
//!                   +------------------- attach -------------------+
//!                   v                                              |
//!     open ---> Attached ----- detach ----> Detached --- dial ---> Dialing
//!                |    ^                      ^  ^  ^               |
//!          leave |    | stay                 |  |  +- dial_failed -+
//!                v    |                      |  |
//!               Settling ----- detach -------+  |
//!                |                           |  |
//!                | part                      |  |
//!                v                           |  |
//!               Parting ------ detach -------+  |
//!                                               |
//!     Attached or Settling -- close --> Closing-+  detach: a client's last messages go to another worker,
//!     Detached or Dialing -- attach --> Closing    which is attached only for them
//!
//!     any of them -- end --> Gone
//! ```
//!
//! While a worker is Settling or Parting, another may be dialled or wait beside it. It is taken out with `take_next`
//! before its worker is detached; `dial_goes_on` and `attach` then lead on from Detached.
//!
//! The variants are private: another file asks for a [`BackendState`], and calls the method of a step. A step that the state
//! does not allow changes nothing.
//!
//! Invariant: no two attaches have one number. News that bear another number than the current one are late and change
//! nothing.

mod snapshot;

use crate::frame::Kind;
use crate::ids::{Attachment, BackendKey, Seq};
use crate::leg::link::Link;
use crate::leg::outage::{Cause, Outage};
use crate::time::Time;

/// A worker's word on what it knows of the pipe (`Holdline-Resume` in its 101).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeAnswer {
    /// It has the pipe's state up to this message.
    Ok(Seq),
    /// It has no state.
    New,
    /// It wants the pipe to attach elsewhere.
    Refuse,
}

impl ResumeAnswer {
    /// The name by which an aware client is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::New => "new",
            Self::Refuse => "refuse",
        }
    }
}

/// The worker on a live link.
#[derive(Debug)]
pub(crate) struct Worker {
    pub attachment: Attachment,
    pub link: Link,
    pub backend: BackendKey,
    /// Since when it gets messages: its attach, or the end of the replay's delay.
    pub fed_from: Time,
    /// First message that was sent again to this worker.
    pub first_again: Option<Seq>,
    /// Whether it has sent a data message.
    pub talked: bool,
    /// Whether it has outlived a quick death, by time or by talking.
    pub settled: bool,
    /// Until when the replay waits for an old worker to finish its queue.
    pub delayed_until: Option<Time>,
    /// The outage that it ends, until it has shown that it works.
    pub outage: Option<Box<Outage>>,
}

/// What takes over from a worker that is being left.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing yet: another worker is looked for once the old one is gone.
    Nothing,
    /// The dial of the last attach ordered; the old worker is told nothing before it has succeeded.
    Dial { first_seq: Seq },
    /// A worker that has answered.
    Waiting(Box<Waiting>),
}

/// A worker that has answered while the old one is still there.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub attachment: Attachment,
    pub backend: BackendKey,
    pub resume: Option<ResumeAnswer>,
    /// The message that it was told it would be sent first.
    pub first_seq: Seq,
    /// When it has proven itself, if it is still there then.
    pub proven_at: Time,
    /// What it was told of the conversation already.
    pub foretold: Vec<(Kind, Box<[u8]>)>,
    /// Whether it numbers its messages.
    pub numbers: bool,
}

/// What the backend leg is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BackendState {
    /// Messages flow to a worker.
    Attached,
    /// The worker is to be left, once it has confirmed what it was sent.
    Settling,
    /// The worker was told 1001 for this cause, and finishes what it has to say.
    Parting(Cause),
    /// There is no worker, and none is dialled.
    Detached,
    /// There is no worker, and one is dialled.
    Dialing,
    /// The pipe ends, and the worker has still to get its messages, or to answer our close frame.
    Closing,
    /// There is no worker, and none is wanted.
    Gone,
}

/// What was left of the leg when it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// A link to be dropped.
    Link(Attachment),
    /// A dial to be cancelled.
    Dial(Attachment),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct BackendLeg {
    /// The last attach ordered.
    last: Attachment,
    state: Backend,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a pipe is linked nearly all its life, and a box would stand in the way of each message"
)]
enum Backend {
    Linked { worker: Worker, stage: Stage },
    Detached { outage: Box<Outage>, retry_at: Option<Time> },
    Dialing { outage: Box<Outage> },
    Gone,
}

#[derive(Debug)]
enum Stage {
    Attached,
    Leaving { step: Leaving, cause: Cause, deadline: Time, next: Next },
    Closing { deadline: Time },
}

/// How far a planned move has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    Settling,
    Parting,
}

/// What there is.
impl BackendLeg {
    /// The leg of a pipe that `worker` has just answered.
    pub const fn open(worker: Worker) -> Self {
        Self { last: worker.attachment, state: Backend::Linked { worker, stage: Stage::Attached } }
    }

    /// The last attach ordered.
    pub const fn last(&self) -> Attachment {
        self.last
    }

    /// The worker on the live link, whatever the leg is doing.
    pub const fn worker(&self) -> Option<&Worker> {
        match &self.state {
            Backend::Linked { worker, .. } => Some(worker),
            Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    pub const fn worker_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.state {
            Backend::Linked { worker, .. } => Some(worker),
            Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    pub const fn link(&self) -> Option<&Link> {
        match self.worker() {
            Some(worker) => Some(&worker.link),
            None => None,
        }
    }

    pub const fn link_mut(&mut self) -> Option<&mut Link> {
        match self.worker_mut() {
            Some(worker) => Some(&mut worker.link),
            None => None,
        }
    }

    /// The outage that goes on, or whose end is not proven yet.
    pub fn outage(&self) -> Option<&Outage> {
        match &self.state {
            Backend::Linked { worker, .. } => worker.outage.as_deref(),
            Backend::Detached { outage, .. } | Backend::Dialing { outage } => Some(outage),
            Backend::Gone => None,
        }
    }

    pub fn outage_mut(&mut self) -> Option<&mut Outage> {
        match &mut self.state {
            Backend::Linked { worker, .. } => worker.outage.as_deref_mut(),
            Backend::Detached { outage, .. } | Backend::Dialing { outage } => Some(outage),
            Backend::Gone => None,
        }
    }

    pub const fn state(&self) -> BackendState {
        match &self.state {
            Backend::Linked { stage: Stage::Attached, .. } => BackendState::Attached,
            Backend::Linked { stage: Stage::Leaving { step: Leaving::Settling, .. }, .. } => BackendState::Settling,
            Backend::Linked { stage: Stage::Leaving { step: Leaving::Parting, cause, .. }, .. } => {
                BackendState::Parting(*cause)
            }
            Backend::Linked { stage: Stage::Closing { .. }, .. } => BackendState::Closing,
            Backend::Detached { .. } => BackendState::Detached,
            Backend::Dialing { .. } => BackendState::Dialing,
            Backend::Gone => BackendState::Gone,
        }
    }

    /// Whether client messages flow to a worker.
    pub const fn is_attached(&self) -> bool {
        matches!(self.state, Backend::Linked { stage: Stage::Attached, .. })
    }

    /// Whether `attachment` is the link that is live now.
    pub fn is_current(&self, attachment: Attachment) -> bool {
        self.worker().is_some_and(|worker| worker.attachment == attachment)
    }

    /// Whether the dial of `attachment` is under way, and there is no worker meanwhile.
    pub fn dials(&self, attachment: Attachment) -> bool {
        self.last == attachment && matches!(self.state, Backend::Dialing { .. })
    }

    /// Whether the dial of `attachment` is under way for the worker after the one that is being left.
    pub fn dials_next(&self, attachment: Attachment) -> bool {
        self.last == attachment && self.next_is_dialled()
    }

    /// Whether a dial is under way for the worker after the one that is being left.
    pub const fn next_is_dialled(&self) -> bool {
        matches!(self.next(), Some(Next::Dial { .. }))
    }

    /// Whether `attachment` is the one that waits to take over.
    pub fn has_waiting(&self, attachment: Attachment) -> bool {
        matches!(self.next(), Some(Next::Waiting(waiting)) if waiting.attachment == attachment)
    }

    /// When the worker that waits to take over has proven itself, if there is one.
    pub fn next_proven_at(&self) -> Option<Time> {
        match self.next()? {
            Next::Waiting(waiting) => Some(waiting.proven_at),
            Next::Nothing | Next::Dial { .. } => None,
        }
    }

    /// Why the worker is being left, if it is.
    pub const fn leaves_for(&self) -> Option<Cause> {
        match &self.state {
            Backend::Linked { stage: Stage::Leaving { cause, .. }, .. } => Some(*cause),
            Backend::Linked { .. } | Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    const fn next(&self) -> Option<&Next> {
        match &self.state {
            Backend::Linked { stage: Stage::Leaving { next, .. }, .. } => Some(next),
            Backend::Linked { .. } | Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    const fn next_mut(&mut self) -> Option<&mut Next> {
        match &mut self.state {
            Backend::Linked { stage: Stage::Leaving { next, .. }, .. } => Some(next),
            Backend::Linked { .. } | Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    /// When the step of a move or of an end that is under way takes too long.
    pub const fn step_ends_at(&self) -> Option<Time> {
        match &self.state {
            Backend::Linked { stage: Stage::Leaving { deadline, .. } | Stage::Closing { deadline }, .. } => {
                Some(*deadline)
            }
            Backend::Linked { .. } | Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    /// When another dial is worth it.
    pub const fn retry_at(&self) -> Option<Time> {
        match &self.state {
            Backend::Detached { retry_at, .. } => *retry_at,
            Backend::Linked { .. } | Backend::Dialing { .. } | Backend::Gone => None,
        }
    }

    /// Calls each backend by the name that `rename` gives it.
    pub fn rename(&mut self, mut rename: impl FnMut(BackendKey) -> BackendKey) {
        if let Some(worker) = self.worker_mut() {
            worker.backend = rename(worker.backend);
        }
        if let Some(outage) = self.outage_mut() {
            outage.previous = rename(outage.previous);
        }
    }
}

/// The steps.
impl BackendLeg {
    /// Detached to Dialing: the number of the dial, and the outage that it is to end.
    pub fn dial(&mut self) -> Option<(Attachment, &Outage)> {
        let outage = match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Detached { outage, .. } => outage,
            state @ (Backend::Linked { .. } | Backend::Dialing { .. } | Backend::Gone) => {
                self.state = state;
                return None;
            }
        };
        self.last = self.last.next();
        self.state = Backend::Dialing { outage };
        Some((self.last, self.outage()?))
    }

    /// Detached to Dialing, where the dial of the last attach ordered is under way already.
    pub fn dial_goes_on(&mut self) {
        self.state = match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Detached { outage, .. } => Backend::Dialing { outage },
            state @ (Backend::Linked { .. } | Backend::Dialing { .. } | Backend::Gone) => state,
        };
    }

    /// Dialing to Detached.
    pub fn dial_failed(&mut self) {
        self.state = match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Dialing { outage } => Backend::Detached { outage, retry_at: None },
            state @ (Backend::Linked { .. } | Backend::Detached { .. } | Backend::Gone) => state,
        };
    }

    /// Detached to Detached: another dial is worth it at `until`, or when the pool changes.
    pub const fn wait(&mut self, until: Option<Time>) {
        if let Backend::Detached { retry_at, .. } = &mut self.state {
            *retry_at = until;
        }
    }

    /// Dialing or Detached to Attached, or to Closing where `closes_at` says until when it has to end. The outage is over
    /// when the worker has shown that it works.
    pub fn attach(&mut self, worker: Worker, closes_at: Option<Time>) {
        let stage = closes_at.map_or(Stage::Attached, |deadline| Stage::Closing { deadline });
        self.state = match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Detached { outage, .. } | Backend::Dialing { outage } => {
                Backend::Linked { worker: Worker { outage: Some(outage), ..worker }, stage }
            }
            state @ (Backend::Linked { .. } | Backend::Gone) => state,
        };
    }

    /// Linked to Detached: the worker, without the outage that it had not proven to be over, which goes on. What was to
    /// come next must have been taken out.
    pub fn detach(&mut self, cause: Cause, gap: Option<(Seq, Seq)>, now: Time) -> Option<Worker> {
        match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Linked { mut worker, .. } => {
                let before = worker.outage.take();
                let outage = Outage {
                    since: before.as_ref().map_or(now, |outage| outage.since),
                    cause,
                    previous: worker.backend,
                    gap,
                    round: 0,
                    changed: false,
                    wrong_worker: before.and_then(|outage| outage.wrong_worker),
                };
                self.state = Backend::Detached { outage: Box::new(outage), retry_at: None };
                Some(worker)
            }
            state @ (Backend::Detached { .. } | Backend::Dialing { .. } | Backend::Gone) => {
                self.state = state;
                None
            }
        }
    }

    /// Attached to Leaving; whether there was a worker that could be left.
    pub fn leave(&mut self, cause: Cause, deadline: Time) -> bool {
        let Backend::Linked { stage: stage @ Stage::Attached, .. } = &mut self.state else { return false };
        *stage = Stage::Leaving { step: Leaving::Settling, cause, deadline, next: Next::Nothing };
        true
    }

    /// Orders the dial of the worker that is to take over: its number, why, and from which worker.
    pub fn dial_next(&mut self, first_seq: Seq) -> Option<(Attachment, Cause, BackendKey)> {
        let attachment = self.last.next();
        let Backend::Linked { worker, stage: Stage::Leaving { cause, next, .. } } = &mut self.state else {
            return None;
        };
        *next = Next::Dial { first_seq };
        self.last = attachment;
        Some((attachment, *cause, worker.backend))
    }

    /// The worker that was dialled to take over has answered, and waits.
    pub fn let_wait(
        &mut self,
        backend: BackendKey,
        resume: Option<ResumeAnswer>,
        proven_at: Time,
        foretold: Vec<(Kind, Box<[u8]>)>,
    ) {
        let attachment = self.last;
        if let Some(next) = self.next_mut()
            && let Next::Dial { first_seq } = *next
        {
            let waiting = Waiting { attachment, backend, resume, first_seq, proven_at, foretold, numbers: false };
            *next = Next::Waiting(Box::new(waiting));
        }
    }

    /// The worker that waits numbers its messages.
    pub fn waiting_numbers(&mut self) {
        if let Some(Next::Waiting(waiting)) = self.next_mut() {
            waiting.numbers = true;
        }
    }

    /// The worker that waits has proven itself at `now`.
    pub fn prove(&mut self, now: Time) {
        if let Some(Next::Waiting(waiting)) = self.next_mut() {
            waiting.proven_at = waiting.proven_at.min(now);
        }
    }

    /// What would take over now, taken out of the leg.
    pub const fn take_next(&mut self) -> Next {
        match self.next_mut() {
            Some(next) => std::mem::replace(next, Next::Nothing),
            None => Next::Nothing,
        }
    }

    /// Settling to Parting.
    pub const fn part(&mut self, until: Time) {
        if let Backend::Linked { stage: Stage::Leaving { step, deadline, .. }, .. } = &mut self.state {
            (*step, *deadline) = (Leaving::Parting, until);
        }
    }

    /// Settling to Attached: the worker that the pipe stays with.
    pub fn stay(&mut self) -> Option<&mut Worker> {
        let Backend::Linked { worker, stage } = &mut self.state else { return None };
        let Stage::Leaving { step: Leaving::Settling, next: Next::Nothing, .. } = stage else { return None };
        *stage = Stage::Attached;
        Some(worker)
    }

    /// Attached or Settling to Closing. What was to come next must have been taken out.
    pub fn close(&mut self, deadline: Time) {
        if let Backend::Linked { stage, .. } = &mut self.state {
            *stage = Stage::Closing { deadline };
        }
    }

    /// Closing to Closing: our close frame has left, and is to be answered until then.
    pub const fn close_written(&mut self, until: Time) {
        if let Backend::Linked { stage: Stage::Closing { deadline }, .. } = &mut self.state {
            *deadline = until;
        }
    }

    /// Any to Gone; what was left. What was to come next must have been taken out.
    pub fn end(&mut self) -> Left {
        match std::mem::replace(&mut self.state, Backend::Gone) {
            Backend::Linked { worker, .. } => Left::Link(worker.attachment),
            Backend::Dialing { .. } => Left::Dial(self.last),
            Backend::Detached { .. } | Backend::Gone => Left::Nothing,
        }
    }
}
