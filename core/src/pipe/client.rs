//! The client leg: how it is lost, and how the same client comes back to its pipe.
//!
//! Only where the settings have a `client_grace`, and by whoever can tell that it is the same client. Until it is back the
//! pipe goes on without it: the worker stays, and what it says is kept within the bounds of the lane. What the client was
//! sent is kept until a barrier ping behind it is answered, as on the backend leg, and sent again to the link that comes.
//! Where old messages make way for newer ones anyway, nothing that was sent is kept, and nobody is asked.
//!
//! Invariant: each link has a generation of its own, and news of an older one change nothing. Without a `client_grace`
//! there is no barrier, nothing is kept, and a client that is lost ends its pipe.

use std::time::Duration;

use super::{Action, EndedBy, Fact, LinkLoss, Loss, Peer, Pipe};
use crate::assembler::Assembler;
use crate::backoff::Draw;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::{Generation, LaneName};
use crate::leg::ClientLeg;
use crate::leg::barrier::{Barrier, Level, PONG_PATIENCE};
use crate::leg::heartbeat::Heartbeat;
use crate::replay::Retention;
use crate::settings::{DownPolicy, PipeSettings, ReplayTail};
use crate::time::{Time, earliest};

/// The code that stands for a client that vanished (RFC 6455 section 7.4.1); never sent.
const VANISHED: u16 = 1006;

/// What a pipe needs whose client may come back.
#[derive(Debug)]
pub(super) struct Comeback {
    /// Absent where old messages make way for newer ones: those are not sent twice.
    pub barrier: Option<Barrier>,
    /// Messages that a lost link may or may not have delivered, all of them together.
    pub in_doubt: u64,
    /// What the worker said at its end, until the client has been told.
    pub ending: Option<CloseFrame>,
    /// Since when neither link is read.
    pub stuck_since: Option<Time>,
}

impl Comeback {
    pub fn of(settings: &PipeSettings, draw: &mut Draw, now: Time) -> Option<Box<Self>> {
        settings.client_grace?;
        let barrier = match settings.down {
            DownPolicy::Keep => Some(Barrier::new(draw.key(), now)),
            DownPolicy::Latest(_) => None,
        };
        Some(Box::new(Self { barrier, in_doubt: 0, ending: None, stuck_since: None }))
    }
}

/// When a message of the worker may be forgotten.
pub(super) fn retention_down(settings: &PipeSettings) -> Retention {
    match (settings.client_grace, settings.down) {
        (Some(_), DownPolicy::Keep) => Retention::UntilConfirmed(ReplayTail::default()),
        (Some(_), DownPolicy::Latest(_)) | (None, _) => Retention::UntilSent,
    }
}

impl Pipe {
    /// Whether a client that comes now finds its conversation here, be it only for what it was not told of the end.
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        self.may_come_back() || self.client.is_detached()
    }

    /// The client is there on another link, which `generation`, if there is one, names from now on. A link that it still
    /// has is dropped for the new one. What it has not confirmed is sent again.
    ///
    /// `None` if the conversation is over or was not kept for it: the link must go.
    pub fn client_attached(&mut self, now: Time) -> Option<Generation> {
        if !self.awaits_client() {
            return None;
        }
        let away = match self.client {
            ClientLeg::Detached { since } => Some(now.since(since)),
            ClientLeg::Open | ClientLeg::SaidClose(_) | ClientLeg::Closing { .. } | ClientLeg::Gone => None,
        };
        if away.is_none() {
            let words = self.to_client.parting_words(&CloseFrame::new(1000, "replaced"), &self.down.buffer);
            self.detach_client(words, now);
        }
        self.generation = self.generation.next();
        self.client = ClientLeg::Open;
        self.client_beat = Heartbeat::new(self.settings.client_heartbeat, now);
        let key = self.draw.key();
        let buffer = &self.down.buffer;
        let ending = self.comeback.as_mut().and_then(|comeback| {
            if let Some(barrier) = &mut comeback.barrier {
                *barrier = Barrier::new(key, now);
                barrier.start_at(buffer.sent());
            }
            comeback.ending.clone()
        });
        self.stalled_since = (buffer.unsent_messages() > 0).then_some(now);
        let again = buffer.again_messages();
        self.report(Fact::ClientAttached { generation: self.generation, away, again });
        if let Some(frame) = ending {
            self.close_client(frame, true, now);
        }
        Some(self.generation)
    }

    /// Whether `generation` is the link that is live now.
    pub(super) fn is_current_client(&self, generation: Generation) -> bool {
        self.generation == generation && self.client.is_linked()
    }

    /// Whether a client whose link is lost now may come back.
    fn may_come_back(&self) -> bool {
        let Some(comeback) = &self.comeback else { return false };
        match &self.client {
            ClientLeg::Open => true,
            // It has not been told that its worker has ended the conversation, nor all that came before.
            ClientLeg::Closing { said_close: false, .. } => {
                comeback.ending.is_some() && !self.up.deaf && !self.to_client.is_close_written()
            }
            ClientLeg::Closing { said_close: true, .. }
            | ClientLeg::Detached { .. }
            | ClientLeg::SaidClose(_)
            | ClientLeg::Gone => false,
        }
    }

    /// The client's link died.
    pub(super) fn client_vanished(&mut self, now: Time) {
        if self.may_come_back() {
            return self.detach_client(Vec::new(), now);
        }
        let was_open = self.client.is_open();
        self.discard_half_message(Side::Client);
        self.drop_client();
        if was_open {
            self.client_is_gone(now);
        }
    }

    /// Ends the pipe of a client that is gone without a word.
    fn client_is_gone(&mut self, now: Time) {
        self.report_ended(EndedBy::Client, &CloseFrame { code: VANISHED, reason: String::new() });
        self.release_backend("client gone", now);
    }

    /// The client leg has no link from now on; what it did not confirm waits for the next one.
    fn detach_client(&mut self, last_words: Vec<u8>, now: Time) {
        self.discard_half_message(Side::Client);
        self.up.assembler = Assembler::new(Side::Client);
        self.up.paused = false;
        self.actions.push_back(Action::DropClient { generation: self.generation, last_words });
        let rewound = self.down.buffer.rewind(false);
        if let Some(comeback) = &mut self.comeback {
            comeback.in_doubt += rewound.in_doubt;
        }
        self.to_client.reset();
        self.stalled_since = None;
        self.is_no_longer_stuck();
        self.client = ClientLeg::Detached { since: now };
        self.report(Fact::ClientDetached { generation: self.generation, in_doubt: rewound.in_doubt });
        self.after_down(now);
    }

    pub(super) fn drop_client(&mut self) {
        match &self.client {
            ClientLeg::Gone => return,
            ClientLeg::Detached { .. } => {}
            ClientLeg::Open | ClientLeg::SaidClose(_) | ClientLeg::Closing { .. } => {
                self.actions.push_back(Action::DropClient { generation: self.generation, last_words: Vec::new() });
            }
        }
        self.client = ClientLeg::Gone;
        self.leave_down_in_doubt();
        let undelivered = self.down.buffer.clear();
        self.report_lost(LaneName::Down, Loss::PeerGone, undelivered);
        self.stalled_since = None;
        self.to_client.reset();
    }

    /// Says how many messages the client will be asked for no more.
    pub(super) fn leave_down_in_doubt(&mut self) {
        let in_doubt = self.down.buffer.held_in_doubt_messages();
        if let Some(comeback) = self.comeback.as_mut().filter(|_| in_doubt > 0) {
            comeback.in_doubt += in_doubt;
            self.report(Fact::LeftInDoubt { lane: LaneName::Down, messages: in_doubt });
        }
    }

    /// Drops a client that has not been told everything; it may come back for the rest.
    pub(super) fn cut_client_off(&mut self, now: Time) {
        if self.may_come_back() { self.detach_client(Vec::new(), now) } else { self.drop_client() }
    }

    /// A client that takes nothing, or stops amid a message, may have lost its link without either end being told. Where
    /// it may come back, it is taken to have; whether it was.
    pub(super) fn is_taken_for_lost(&mut self, now: Time) -> bool {
        let lost = self.may_come_back();
        if lost {
            self.lost(Peer::Client(self.generation), LinkLoss::Reset, now);
        }
        lost
    }

    pub(super) fn client_heard(&mut self, now: Time) {
        self.client_beat.heard();
        if let Some(barrier) = self.barrier_down() {
            barrier.heard(now);
        }
    }

    /// One of the links is read from now on, or no longer. A client that is not read may have answered its ping; but if
    /// neither is, each may wait for the answer that lies unread in the other, so that patience with the client must end.
    pub(super) fn reading_changed(&mut self, side: Side, now: Time) {
        let stuck = self.up.paused && self.down.paused;
        let Some(comeback) = &mut self.comeback else { return };
        comeback.stuck_since = stuck.then(|| comeback.stuck_since.unwrap_or(now));
        if let Some(barrier) = comeback.barrier.as_mut().filter(|_| side == Side::Client) {
            barrier.unread();
        }
    }

    /// One of the links is gone: whatever the other waits for, it is not the answer in that one.
    pub(super) fn is_no_longer_stuck(&mut self) {
        if let Some(comeback) = &mut self.comeback {
            comeback.stuck_since = None;
        }
    }

    /// Whether the worker is not read because the client has not confirmed what it was sent.
    pub(super) fn owes_confirmation(&self) -> bool {
        let asked = self.comeback.as_ref().is_some_and(|comeback| comeback.barrier.is_some());
        asked && self.down.buffer.held_bytes() >= self.settings.replay_bytes_max
    }

    pub(super) fn client_ponged(&mut self, payload: &[u8], now: Time) {
        if let Some(seq) = self.barrier_down().and_then(|barrier| barrier.ponged(payload)) {
            self.down.buffer.confirm(seq, now);
        }
    }

    /// The client has answered our close frame, which stood behind all that it was sent.
    pub(super) fn client_answered_close(&mut self, now: Time) {
        let sent = self.down.buffer.sent();
        self.down.buffer.confirm(sent, now);
        self.drop_client();
    }

    fn barrier_down(&mut self) -> Option<&mut Barrier> {
        self.comeback.as_mut()?.barrier.as_mut()
    }

    /// What a confirmation by the client means.
    pub(super) fn down_level(&self) -> Level {
        let barrier = self.comeback.as_ref().and_then(|comeback| comeback.barrier.as_ref());
        barrier.map_or(Level::Written, Barrier::level)
    }

    /// Deadlines of the client's barrier.
    pub(super) fn client_barrier_deadline(&self) -> Option<Time> {
        let barrier = self.comeback.as_ref()?.barrier.as_ref()?;
        if !matches!(self.client, ClientLeg::Open) {
            return None;
        }
        let due = barrier.due_at(self.down.buffer.sent()).filter(|_| self.to_client.may_ping(&self.down.buffer));
        earliest(due, self.client_patience_ends())
    }

    /// When an unanswered ping of the client is given up.
    fn client_patience_ends(&self) -> Option<Time> {
        let comeback = self.comeback.as_ref()?;
        let barrier = comeback.barrier.as_ref()?;
        match self.up.paused {
            false => barrier.patience_ends(),
            true => comeback.stuck_since.filter(|_| barrier.is_waiting()).map(|since| since + PONG_PATIENCE),
        }
    }

    /// Gives up waiting for a pong; from then on, what is written counts as confirmed.
    pub(super) fn tick_client_barrier(&mut self, now: Time) {
        if self.client_patience_ends().is_some_and(|end| now >= end)
            && let Some(barrier) = self.barrier_down()
        {
            barrier.give_up();
            let sent = self.down.buffer.sent();
            self.down.buffer.confirm(sent, now);
        }
    }

    /// When the client has been away for too long.
    pub(super) fn client_grace_ends(&self, since: Time) -> Time {
        since + self.settings.client_grace.unwrap_or(Duration::ZERO)
    }

    /// The client has been away for too long.
    pub(super) fn client_expired(&mut self, since: Time, now: Time) {
        self.report(Fact::ClientExpired { away: now.since(since) });
        self.drop_client();
        self.client_is_gone(now);
    }
}
