//! What an operator can decide about a pipe, already parsed and checked.
//!
//! A pipe keeps the settings it was opened with: a reload makes new ones and never touches a live pipe.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::close;
pub use crate::close::CodeSet;
use crate::conversation::{Profiles, PrologueBounds};
use crate::limits::Rate;

/// What is kept of the messages a worker may or may not have seen (PROTOCOL section 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayPolicy {
    /// Keep only what was not handed to the worker: at most once.
    Unsent,
    /// Keep everything until it is confirmed: at least once.
    Unconfirmed,
    /// Keep nothing over an interruption: what arrives meanwhile is counted as lost.
    None,
}

/// What happens when the replay buffer is full while no worker is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverflowPolicy {
    /// Stop reading the client.
    Pause,
    /// Close the client with 1013 `replay buffer overflow`.
    Close,
}

/// What happens to a pipe that is over its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExceed {
    /// Its reader is slowed down.
    Throttle,
    /// It is closed with 1008.
    Close,
}

/// What a worker's message over [`PipeSettings::message_bytes_max`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnTooBig {
    /// It ends the pipe with 1009.
    Close,
    /// It is lost, and said to be; the pipe goes on.
    Drop,
}

/// Which lanes of a pipe have limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitedLanes {
    /// Each of the two.
    Both,
    /// What the client says.
    Up,
    /// What the worker says.
    Down,
}

/// How much each lane of a pipe may carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipeLimits {
    /// Data messages.
    pub messages: Rate,
    /// Bytes on the wire.
    pub bytes: Rate,
    /// What happens to more.
    pub on_exceed: OnExceed,
    /// Which lanes are meant.
    pub lanes: LimitedLanes,
}

impl PipeLimits {
    /// No limits.
    pub const OFF: Self =
        Self { messages: Rate::OFF, bytes: Rate::OFF, on_exceed: OnExceed::Throttle, lanes: LimitedLanes::Both };

    /// Whether there are none.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.messages.is_off() && self.bytes.is_off()
    }
}

/// What happens to messages that a slow client has not taken yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DownPolicy {
    /// Stop reading the worker; nothing is dropped.
    Keep,
    /// Keep the newest whole messages and count the rest as dropped.
    Latest(NonZeroU32),
}

/// What happens to the client when its worker is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendLoss {
    /// Attach another worker.
    Reattach,
    /// Close the client with 1012.
    Close,
}

/// What it means when each worker that may be asked turns a pipe down in an outage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is an answer: the client is closed with 1012.
    End,
    /// The pipe goes on asking until its grace is over.
    Wait,
}

/// What it means when a worker refuses a client's credentials at a reattach (401, 403).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnRefused {
    /// It is the last word: the client is closed with 1008.
    Close,
    /// It is that worker's word alone: the next one is asked, and [`Refusal`] says what it means if all refuse.
    Next,
}

/// What confirms a message to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirm {
    /// The pong to a ping behind it: the worker's library has read it.
    Pong,
    /// A commit alone: its application has done with it.
    Commit,
}

/// How often a peer is pinged, and how long after a ping without a byte from it it counts as dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// From one ping to the next; zero sends none.
    pub interval: Duration,
    /// From a ping to the verdict; any byte received in between is life.
    pub timeout: Duration,
}

/// How a client is spoken with that numbers its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AwareSettings {
    /// How long its hello may take.
    pub hello_timeout: Duration,
    /// Bytes that may be sent and not acknowledged.
    pub window_bytes: usize,
    /// Bytes that are kept for it while it is away.
    pub retain_bytes: usize,
    /// How long what it sent waits for its acknowledgement.
    pub ack_delay: Duration,
    /// Messages that are acknowledged at once.
    pub ack_messages: u32,
    /// How long it waits at random before it comes back.
    pub jitter: Duration,
}

impl Default for AwareSettings {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            window_bytes: 256 << 10,
            retain_bytes: 256 << 10,
            ack_delay: Duration::from_millis(200),
            ack_messages: 16,
            jitter: Duration::from_secs(1),
        }
    }
}

/// How long the last words of a client that is gone wait for a worker, where `grace` has no end.
pub const FAREWELL_MAX: Duration = Duration::from_secs(30);

/// Everything a pipe has to know of its route's configuration.
#[derive(Clone, Debug)]
pub struct PipeSettings {
    /// What is kept for another worker.
    pub replay: ReplayPolicy,
    /// Bytes of messages held while no worker is attached.
    pub replay_bytes_max: usize,
    /// Bytes sent and unconfirmed while a worker is attached, after which the client is paused.
    pub window_bytes: usize,
    /// What a full replay buffer does.
    pub overflow: OverflowPolicy,
    /// Confirmed messages kept a little longer for workers whose library answers pings before the application reads.
    pub replay_tail: ReplayTail,
    /// How long a new worker waits for its replay, so that an old one can finish its queue.
    pub replay_delay: Duration,
    /// What a slow client does to its worker.
    pub down: DownPolicy,
    /// How long a client may take nothing while messages wait for it.
    pub stall_max: Duration,
    /// What a lost worker does to its client.
    pub on_backend_loss: BackendLoss,
    /// What refusals by all workers do to its client.
    pub refusal: Refusal,
    /// What a worker's refusal of its credentials does to it.
    pub on_refused: OnRefused,
    /// Payload bytes of one message; over it, a client is closed with 1009.
    pub message_bytes_max: usize,
    /// What a worker's message over it does.
    pub on_too_big: OnTooBig,
    /// What confirms a message to the worker.
    pub confirm: Confirm,
    /// How long a message may take that has not ended, unless it goes on at [`Self::message_rate_min`].
    pub message_incomplete_timeout: Duration,
    /// How fast a message goes on that takes longer; off means by one byte.
    pub message_rate_min: Rate,
    /// Frames of one message.
    pub fragments_max: u32,
    /// Whether text that is not UTF-8 closes its sender with 1007; else it goes on as it is.
    pub check_utf8: bool,
    /// How much each lane may carry.
    pub limits: PipeLimits,
    /// How long a pipe waits for a worker; without an end if absent.
    pub grace: Option<Duration>,
    /// How long a pipe waits for a client that was lost, if it may come back; what it has not confirmed is kept for it.
    pub client_grace: Option<Duration>,
    /// The code of the close frame that a client's link gets when another one takes its place.
    pub replaced_code: u16,
    /// Whether a client that closes with 1001 has only left its page, and may come back as one that was lost.
    pub client_navigates: bool,
    /// First wait between two rounds of dials.
    pub backoff_min: Duration,
    /// Longest wait between two rounds of dials.
    pub backoff_max: Duration,
    /// How long an attached worker may stay silent before it is given up, if at all.
    pub first_message_timeout: Option<Duration>,
    /// How long a planned move waits for the old worker, for each of its two steps.
    pub move_timeout: Duration,
    /// How long after its last message a worker that has confirmed it is left alone before a planned move tells it to
    /// go; `move_timeout` at most.
    pub settle: Duration,
    /// How long the new worker of a planned move must have been there, or said something, before the old one is told to
    /// go; `move_timeout` at most.
    pub prove: Duration,
    /// How long a close frame waits for its answer.
    pub close_timeout: Duration,
    /// Pings to the client.
    pub client_heartbeat: Heartbeat,
    /// Pings to the worker.
    pub backend_heartbeat: Heartbeat,
    /// How a client is spoken with that numbers its messages.
    pub aware: AwareSettings,
    /// Close codes of a worker that interrupt the pipe instead of ending it.
    pub interrupt_codes: CodeSet,
    /// Close codes that mean "this key is not mine" right after a reattach.
    pub wrong_worker_codes: CodeSet,
    /// What a prologue may hold.
    pub prologue: PrologueBounds,
    /// The profiles of the route, with its own rules.
    pub profiles: Profiles,
}

impl PipeSettings {
    /// Bytes of a message that must come in [`Self::message_incomplete_timeout`] for it to go on.
    #[must_use]
    pub fn message_bytes_due(&self) -> usize {
        let Rate { count, per } = self.message_rate_min;
        let due = u128::from(count) * self.message_incomplete_timeout.as_micros() / per.as_micros().max(1);
        u32::try_from(due).unwrap_or(u32::MAX).max(1) as usize
    }

    /// How long what a client said before it left waits for a worker: `grace`, and [`FAREWELL_MAX`] where that has no
    /// end, so that pipes of clients that are gone do not gather.
    #[must_use]
    pub fn farewell_grace(&self) -> Duration {
        self.grace.unwrap_or(FAREWELL_MAX)
    }
}

impl Default for PipeSettings {
    /// What a route has that says nothing.
    fn default() -> Self {
        Self {
            replay: ReplayPolicy::Unconfirmed,
            replay_bytes_max: 5 << 20,
            window_bytes: 256 << 10,
            overflow: OverflowPolicy::Pause,
            replay_tail: ReplayTail::default(),
            replay_delay: Duration::ZERO,
            down: DownPolicy::Keep,
            stall_max: Duration::from_secs(15),
            on_backend_loss: BackendLoss::Reattach,
            refusal: Refusal::End,
            on_refused: OnRefused::Close,
            message_bytes_max: 16 << 20,
            on_too_big: OnTooBig::Close,
            confirm: Confirm::Pong,
            message_incomplete_timeout: Duration::from_secs(30),
            message_rate_min: Rate::new(1024, Duration::from_secs(1)),
            fragments_max: 65_536,
            check_utf8: false,
            limits: PipeLimits::OFF,
            grace: Some(Duration::from_secs(30)),
            client_grace: None,
            replaced_code: 1000,
            client_navigates: false,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            first_message_timeout: None,
            move_timeout: Duration::from_secs(10),
            settle: Duration::from_millis(200),
            prove: Duration::from_millis(500),
            close_timeout: Duration::from_secs(5),
            client_heartbeat: Heartbeat { interval: Duration::from_secs(30), timeout: Duration::from_secs(60) },
            backend_heartbeat: Heartbeat { interval: Duration::from_secs(20), timeout: Duration::from_secs(75) },
            aware: AwareSettings::default(),
            interrupt_codes: close::default_interrupt_codes(),
            wrong_worker_codes: close::default_wrong_worker_codes(),
            prologue: PrologueBounds::default(),
            profiles: Profiles::default(),
        }
    }
}

/// How much confirmed traffic is kept for a replay after an unclean loss; each bound is off at zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayTail {
    /// Bytes kept at most.
    pub bytes: usize,
    /// Messages kept at most.
    pub messages: u32,
    /// Age of the oldest message kept.
    pub age: Duration,
}

/// How a pipe is moved off a worker that is still there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MoveOrder {
    /// Another worker is attached before this one is let go, so that the pipe has two for a moment.
    #[default]
    AttachFirst,
    /// This one is let go before another is looked for: workers whose devices have room for one connection.
    LeaveFirst,
}

/// What decides how much of a backend's weight counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WeightFrom {
    /// Nothing but the weight itself.
    #[default]
    Config,
    /// The part of its memory that the worker reports as free.
    Memory,
}

/// How a pool picks one of its eligible backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Balance {
    /// The one with the fewest pipes for its weight.
    LeastPipes,
    /// Each in its turn, by weight.
    RoundRobin,
    /// The less loaded of two drawn at random.
    Random2,
    /// Rendezvous hashing on the route key: the same key lands on the same backend while it is eligible.
    Hash,
}
