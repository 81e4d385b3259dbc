//! What a pipe wants done, and what it says has happened.

use std::sync::Arc;
use std::time::Duration;

use crate::aware::words::GapWhy;
use crate::conversation::ConversationKind;
use crate::ids::{Attachment, BackendKey, Generation, LaneName, Seq};
use crate::leg::Cause;
use crate::leg::barrier::Level;
use crate::limits::PipeLimit;
use crate::settings::OverflowPolicy;
use crate::suspects::Tried;

/// An order to the pipe's driver, or a fact for its log and metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Choose a backend, dial it, and answer with `attached` or `dial_failed`.
    Dial(DialOrder),
    /// This dial is not waited for any more.
    CancelDial(Attachment),
    /// Write `bytes` to the link of this attach, which waits beside the old one: they are the first that it is given.
    Foretell {
        /// The link that waits.
        attachment: Attachment,
        /// Whole frames.
        bytes: Vec<u8>,
    },
    /// The link of this attach, which waited beside the old one, is the pipe's from now on.
    TakeOver(Attachment),
    /// Leave `last_words` on the link if it takes them at once, and drop it.
    DropBackend {
        /// The link to drop: the pipe's, or the one that waits to take over.
        attachment: Attachment,
        /// A close frame, or nothing.
        last_words: Vec<u8>,
        /// Whether the worker failed the pipe, and was not left or told to go.
        died: bool,
    },
    /// Send a FIN: nothing more is said to the client, but it may still be reading.
    ShutdownClient,
    /// Leave `last_words` on the client's link, as far as it takes them, and drop it.
    DropClient {
        /// The link to drop: the pipe's, or the one that another has just replaced.
        generation: Generation,
        /// The rest of a message and a close frame, or nothing.
        last_words: Vec<u8>,
    },
    /// Something worth counting.
    Report(Fact),
    /// Both legs are gone; the pipe is over.
    Finish,
}

/// What a dial has to know and to tell the worker (PROTOCOL section 6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialOrder {
    /// The number of this attach.
    pub attachment: Attachment,
    /// A backend to choose only if there is no other.
    pub avoid: Option<BackendKey>,
    /// Why the last one was lost.
    pub cause: Cause,
    /// The backend of the last attachment.
    pub previous: BackendKey,
    /// The first message that will be sent.
    pub first_seq: Seq,
    /// Messages waiting that an earlier worker was given too.
    pub again: u64,
    /// Bytes of all messages waiting, headers included.
    pub bytes: u64,
    /// The last confirmed message.
    pub confirmed: Seq,
    /// What its confirmation means.
    pub level: Level,
    /// Messages that will never come, first and last.
    pub gap: Option<(Seq, Seq)>,
    /// Messages that are said again before them.
    pub prologue: u64,
}

/// Why a dial brought no attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DialFailure {
    /// No backend may be chosen now; `retry_after` says when that might change by itself.
    NoCandidate {
        /// Time until a dial budget or the like allows the next try.
        retry_after: Option<Duration>,
    },
    /// No backend may be chosen now, but one that would do is only out: down, resting or full.
    Out {
        /// Time until it is worth another look where a wrong worker's word waits, if the pool does not change before.
        recheck: Duration,
    },
    /// This backend could not be attached; the next candidate is tried at once.
    Failed(BackendKey),
    /// Nothing listens where this backend should be: the same, and it has no say in what the others refuse.
    Absent(BackendKey),
    /// This backend is there and does not want the pipe (a 4xx that is not about now or about credentials).
    Refused {
        /// Which one.
        backend: BackendKey,
        /// Its HTTP status.
        status: u16,
    },
    /// This backend refused the client's credentials (401, 403): the pipe ends, or the next candidate is tried.
    Unauthorized {
        /// Which one.
        backend: BackendKey,
        /// Its HTTP status.
        status: u16,
    },
}

impl DialFailure {
    /// What it says about one backend; nothing if it is about none, or is the last word on the pipe.
    pub(crate) const fn of_one(self) -> Option<(BackendKey, Tried)> {
        match self {
            Self::Failed(backend) => Some((backend, Tried::Failed)),
            Self::Absent(backend) => Some((backend, Tried::Absent)),
            Self::Refused { backend, status } => Some((backend, Tried::Refused(status))),
            Self::NoCandidate { .. } | Self::Out { .. } | Self::Unauthorized { .. } => None,
        }
    }
}

/// How a link died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkLoss {
    /// FIN without a close frame.
    Eof,
    /// RST or another error of the socket.
    Reset,
}

/// Why a pipe lost its worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interruption {
    /// FIN without a close frame.
    Eof,
    /// RST or another error of the socket.
    Reset,
    /// Its heartbeat went unanswered.
    Heartbeat,
    /// It sent a close frame with a code that interrupts.
    Close,
    /// It said that the key is not its own, or that it does not want the pipe.
    WrongWorker,
    /// It broke RFC 6455, the aware protocol or a limit.
    Protocol,
    /// It never said anything though the route expects it.
    Silent,
    /// It did not answer its greeting, or what it was told again of the conversation.
    Unanswered,
    /// It is being drained.
    Drain,
    /// An operator moved the pipe.
    Admin,
    /// Holdline moved the pipe by itself.
    Handover,
}

impl Interruption {
    /// Every interruption, for metrics that list them.
    pub const ALL: [Self; 11] = [
        Self::Eof,
        Self::Reset,
        Self::Heartbeat,
        Self::Close,
        Self::WrongWorker,
        Self::Protocol,
        Self::Silent,
        Self::Unanswered,
        Self::Drain,
        Self::Admin,
        Self::Handover,
    ];

    /// The name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::Heartbeat => "heartbeat",
            Self::Close => "close",
            Self::WrongWorker => "wrong_worker",
            Self::Protocol => "protocol",
            Self::Silent => "silent",
            Self::Unanswered => "unanswered",
            Self::Drain => "drain",
            Self::Admin => "admin",
            Self::Handover => "handover",
        }
    }

    /// The interruption that ends a planned move for `cause`.
    #[must_use]
    pub(crate) const fn planned(cause: Cause) -> Self {
        match cause {
            Cause::Admin => Self::Admin,
            Cause::Handover => Self::Handover,
            Cause::Drain | Cause::Crash | Cause::Close => Self::Drain,
        }
    }

    /// Whether the worker failed the pipe: it went without a word, or was silent, or broke the protocol. A close is no death.
    #[must_use]
    pub const fn is_death(self) -> bool {
        match self {
            Self::Eof | Self::Reset | Self::Heartbeat | Self::Protocol | Self::Silent | Self::Unanswered => true,
            Self::Close | Self::WrongWorker | Self::Drain | Self::Admin | Self::Handover => false,
        }
    }

    /// What the next worker is told.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Eof | Self::Reset | Self::Heartbeat | Self::Protocol | Self::Silent | Self::Unanswered => {
                Cause::Crash
            }
            Self::Close | Self::WrongWorker => Cause::Close,
            Self::Drain => Cause::Drain,
            Self::Admin => Cause::Admin,
            Self::Handover => Cause::Handover,
        }
    }
}

/// Why messages were given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Loss {
    /// The replay policy keeps nothing.
    Policy,
    /// The pipe ended before they could be sent on.
    Closed,
    /// The peer they were meant for is gone.
    PeerGone,
    /// The route closes with its worker, and the worker was lost.
    CloseRoute,
    /// No backend came within grace.
    Grace,
    /// The replay buffer was full.
    Overflow,
    /// The process was out of memory.
    Evicted,
    /// One message was over the limit.
    TooBig,
}

impl Loss {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 8] = [
        Self::Policy,
        Self::Closed,
        Self::PeerGone,
        Self::CloseRoute,
        Self::Grace,
        Self::Overflow,
        Self::Evicted,
        Self::TooBig,
    ];

    /// The name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Closed => "closed",
            Self::PeerGone => "peer_gone",
            Self::CloseRoute => "close_route",
            Self::Grace => "grace",
            Self::Overflow => "overflow",
            Self::Evicted => "evicted",
            Self::TooBig => "too_big",
        }
    }
}

/// Why a conversation is not said again, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PrologueFailure {
    /// The worker did not answer in time: the next candidate is tried.
    Unanswered,
    /// The client said more than is kept: the conversation ends with its worker from now on.
    Overflow,
    /// An exchange was under way that must not begin again: its client was told so.
    Exchange,
    /// The worker was lost amid an element of a stream that it was sending: no other could send the rest.
    Cut,
}

impl PrologueFailure {
    /// Every failure, for metrics that list them.
    pub const ALL: [Self; 4] = [Self::Unanswered, Self::Overflow, Self::Exchange, Self::Cut];

    /// The name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Overflow => "overflow",
            Self::Exchange => "exchange",
            Self::Cut => "cut",
        }
    }
}

/// Who ended a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndedBy {
    /// The client closed, vanished or broke a rule.
    Client,
    /// The worker closed with a code that ends.
    Backend,
    /// An operator, or the process on its way down.
    Operator,
    /// Holdline had to.
    Holdline,
}

impl EndedBy {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Operator => "operator",
            Self::Holdline => "holdline",
        }
    }
}

/// Something that happened to a pipe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fact {
    /// The backend leg was detached.
    Interrupted {
        /// The lost attach.
        attachment: Attachment,
        /// Whose it was.
        backend: BackendKey,
        /// Why.
        reason: Interruption,
        /// Messages that it may or may not have seen.
        in_doubt: u64,
        /// Messages among them that will not be sent again.
        gap: Option<(Seq, Seq)>,
    },
    /// The pipe ended while a peer had messages that it never confirmed.
    LeftInDoubt {
        /// Which way they were going.
        lane: LaneName,
        /// How many.
        messages: u64,
    },
    /// A planned move was given up, and the pipe is where it was: no other worker could be attached.
    Stayed {
        /// Where it is.
        backend: BackendKey,
    },
    /// A backend is attached again.
    Reattached {
        /// The new attach.
        attachment: Attachment,
        /// Whose it is.
        backend: BackendKey,
        /// Time since the interruption.
        outage: Duration,
        /// Messages that will be sent again.
        again: u64,
    },
    /// The client was lost, and may come back.
    ClientDetached {
        /// The lost attach.
        generation: Generation,
        /// Messages that it may or may not have seen.
        in_doubt: u64,
    },
    /// The client is back.
    ClientAttached {
        /// The new attach.
        generation: Generation,
        /// Time since it was lost; nothing if it took the place of a link that was not lost yet.
        away: Option<Duration>,
        /// Messages that will be sent again.
        again: u64,
    },
    /// The client did not come back in time, and the pipe ends for it.
    ClientExpired {
        /// Time since it was lost.
        away: Duration,
    },
    /// Messages were sent again.
    Replayed {
        /// Which way they are going.
        lane: LaneName,
        /// How many.
        messages: u64,
    },
    /// Messages were given up.
    Lost {
        /// Which way they were going.
        lane: LaneName,
        /// Why.
        reason: Loss,
        /// How many.
        messages: u64,
    },
    /// Old messages made way for newer ones, as the route wants it.
    Dropped {
        /// Which way they were going.
        lane: LaneName,
        /// How many.
        messages: u64,
    },
    /// Messages came that had come before, and were not passed on.
    Repeated {
        /// Which way they were going.
        lane: LaneName,
        /// How many.
        messages: u64,
    },
    /// An aware peer was told that messages are missing, or said so.
    Gap {
        /// Which way they were going.
        lane: LaneName,
        /// Why.
        why: GapWhy,
        /// How many, if that is known.
        messages: Option<u64>,
    },
    /// The replay buffer was full while no worker was attached.
    Overflowed(OverflowPolicy),
    /// A lane used up its limit; said once a second at most while its reader is slowed down.
    Limited {
        /// Which lane.
        lane: LaneName,
        /// Which limit.
        limit: PipeLimit,
    },
    /// Reading of a lane's sender was paused.
    ReadPaused(LaneName),
    /// No backend was attached within grace, and the pipe ends for it.
    Expired {
        /// Time since the interruption.
        outage: Duration,
    },
    /// The worker answers no pings; confirmed now means written.
    PongsMissing(BackendKey),
    /// It is known now what kind of conversation this is.
    Conversation {
        /// What it is.
        kind: ConversationKind,
        /// Its profile, if it has one.
        profile: Option<Arc<str>>,
        /// What it was known by.
        why: &'static str,
    },
    /// A worker was told again what it must know of the conversation.
    PrologueSent {
        /// How many messages.
        messages: u64,
    },
    /// A worker's answer was held back that the client had had from another.
    PrologueSwallowed,
    /// The conversation was not said again as it should be.
    PrologueFailed(PrologueFailure),
    /// The client sent a control frame without a mask.
    Unmasked,
    /// The pipe began to end. Said once more if its client is told another end than this one, behind which it would not
    /// have seen that messages before it were given up.
    Ended {
        /// Who ended it.
        by: EndedBy,
        /// The close code that stands for the end; 1006 for a client that vanished.
        code: u16,
        /// The reason in the close frame.
        reason: String,
    },
}
