//! What a pipe looks like from outside.

use super::Pipe;
use crate::conversation::Prologue;
use crate::ids::{Attachment, BackendKey, Generation, LaneName, Seq};
use crate::leg::barrier::Level;
use crate::leg::{BackendState, ClientState, Link};
use crate::replay::HeldMessage;

/// A pipe's state as the API names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PipeState {
    /// Messages flow both ways.
    Attached,
    /// The pipe is being moved off its worker.
    Leaving,
    /// The pipe waits for a worker.
    Detached,
    /// The pipe has a worker and waits for its client.
    ClientDetached,
    /// The pipe is ending.
    Closing,
}

impl PipeState {
    /// Every state, for metrics that list them.
    pub const ALL: [Self; 5] = [Self::Attached, Self::Leaving, Self::Detached, Self::ClientDetached, Self::Closing];

    /// The name in the API and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Leaving => "leaving",
            Self::Detached => "detached",
            Self::ClientDetached => "client_detached",
            Self::Closing => "closing",
        }
    }
}

/// One lane's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneView {
    /// Last message that came in whole.
    pub accepted: Seq,
    /// Last message handed to the link whole.
    pub sent: Seq,
    /// Last message confirmed.
    pub confirmed: Seq,
    /// What a confirmation means.
    pub level: Level,
    /// Charge of the messages held, in bytes, without what is charged to a shared stream.
    pub buffered_bytes: usize,
    /// Payload bytes of all messages accepted.
    pub payload_bytes: u64,
    /// Messages that were in doubt when a worker was lost, in all interruptions together.
    pub in_doubt: u64,
    /// Messages given up.
    pub lost: u64,
    /// Messages that made way for newer ones.
    pub dropped: u64,
}

/// A pipe's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipeView {
    /// What the pipe is doing.
    pub state: PipeState,
    /// The attached backend, if any.
    pub backend: Option<BackendKey>,
    /// The last attach ordered.
    pub attachment: Attachment,
    /// How often a worker was lost.
    pub interruptions: u64,
    /// The client's last attach.
    pub generation: Generation,
    /// Whether a client that comes now finds its conversation here.
    pub awaits_client: bool,
    /// Whether there is a client to write to.
    pub has_client: bool,
    /// Whether it speaks the aware protocol.
    pub aware: bool,
    /// Client to backend.
    pub up: LaneView,
    /// Backend to client.
    pub down: LaneView,
    /// Whether another worker can carry the conversation on.
    pub moves: bool,
    /// Bytes of the prologue.
    pub prologue_bytes: usize,
    /// Memory that the pipe occupies beyond itself, in bytes.
    pub memory_bytes: usize,
}

impl Pipe {
    /// Whole messages that have come in, both ways together.
    #[must_use]
    pub fn messages_in(&self) -> u64 {
        self.up.buffer.accepted().0 + self.down.buffer.accepted().0
    }

    /// The messages of a lane behind `seq` that are held, the newest first.
    pub fn newest(&self, lane: LaneName, seq: Seq) -> impl Iterator<Item = HeldMessage<'_>> {
        let buffer = match lane {
            LaneName::Up => &self.up.buffer,
            LaneName::Down => &self.down.buffer,
        };
        buffer.newest(seq)
    }

    /// The last message of a lane that came in whole.
    #[must_use]
    pub fn accepted(&self, lane: LaneName) -> Seq {
        match lane {
            LaneName::Up => self.up.buffer.accepted(),
            LaneName::Down => self.down.buffer.accepted(),
        }
    }

    /// The pipe's numbers now.
    #[must_use]
    pub fn view(&self) -> PipeView {
        let lane = |lane: &super::Lane| LaneView {
            accepted: lane.buffer.accepted(),
            sent: lane.buffer.sent(),
            confirmed: lane.buffer.confirmed(),
            level: lane.level,
            buffered_bytes: lane.buffer.held_bytes().saturating_sub(lane.buffer.common_bytes()),
            payload_bytes: lane.payload_bytes,
            in_doubt: lane.in_doubt,
            lost: lane.lost,
            dropped: lane.dropped,
        };
        PipeView {
            state: self.state(),
            backend: self.backend.worker().map(|worker| worker.backend),
            attachment: self.backend.last(),
            interruptions: u64::from(self.interruptions),
            up: lane(&self.up),
            down: lane(&self.down),
            generation: self.client.generation(),
            awaits_client: self.awaits_client(),
            has_client: self.client.is_linked(),
            aware: self.is_aware(),
            moves: self.moves(),
            prologue_bytes: self.conversation.prologue().map_or(0, Prologue::held_bytes),
            memory_bytes: self.memory_bytes(),
        }
    }

    /// What the pipe is doing.
    #[must_use]
    pub const fn state(&self) -> PipeState {
        match (self.client.state(), self.backend.state()) {
            (ClientState::SaidClose | ClientState::Closing | ClientState::Gone, _)
            | (_, BackendState::Closing | BackendState::Gone) => PipeState::Closing,
            (_, BackendState::Settling | BackendState::Parting(_)) => PipeState::Leaving,
            (_, BackendState::Detached | BackendState::Dialing) => PipeState::Detached,
            (ClientState::Detached, BackendState::Attached) => PipeState::ClientDetached,
            (ClientState::Open, BackendState::Attached) => PipeState::Attached,
        }
    }

    /// Bytes that count against `replay.total_bytes_max`: both lanes' messages, and what is not whole yet.
    #[must_use]
    pub fn charged_bytes(&self) -> usize {
        self.up.charged_bytes() + self.down.charged_bytes()
    }

    /// Memory that the pipe occupies beyond itself, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let link = |link: Option<&Link>| link.map_or(0, Link::memory_bytes);
        self.up.memory_bytes()
            + self.down.memory_bytes()
            + link(self.client.link())
            + link(self.backend.link())
            + self.suspects.memory_bytes()
            + self.conversation.memory_bytes()
            + self.aware.as_ref().map_or(0, |aware| aware.memory_bytes())
            + self.labels.as_ref().map_or(0, |labels| labels.memory_bytes())
            + self.numbered.as_ref().map_or(0, |numbered| numbered.memory_bytes())
            + self.actions.capacity() * size_of::<super::Action>()
    }

    /// Whether both legs are gone.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!((self.client.state(), self.backend.state()), (ClientState::Gone, BackendState::Gone))
    }
}
