//! The client leg: how it is lost, and how the same client comes back to its pipe.
//!
//! Only where the settings have a `client_grace`; that it is the same client, the caller has found out. Until it is back
//! the pipe goes on without it: the worker stays, and what it says is kept within the bounds of the lane. What the client was
//! sent is kept until a barrier ping behind it is answered, as on the backend leg, and sent again to the link that comes.
//! Where old messages make way for newer ones anyway, nothing that was sent is kept, and no pong is asked for.
//!
//! Invariant: each link has a generation of its own, and news of an older one change nothing. Without a `client_grace`
//! there is no barrier, nothing is kept, and a client that is lost ends its pipe.

use std::time::Duration;

use super::timers::HEARTBEAT_PAYLOAD;
use super::{Action, EndedBy, Fact, LinkLoss, Loss, Peer, Pipe, link_to_client};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::{Generation, LaneName, Seq};
use crate::leg::barrier::PONG_PATIENCE;
use crate::leg::{ClientState, Link};
use crate::time::Time;

/// The code that stands for a client that vanished (RFC 6455 section 7.4.1); never sent.
const VANISHED: u16 = 1006;

/// The code of a browser whose page is left or loaded again (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;

impl Pipe {
    /// Whether a client that comes now finds its conversation here, be it only for what it was not told of the end.
    #[must_use]
    pub fn awaits_client(&self) -> bool {
        (self.client.may_come_back() || self.client.is_detached()) && self.finds_its_place()
    }

    /// Whether a client that connects again can go on where it was: not where its protocol opens each connection by words of
    /// its own, unless it numbers its messages and knows that its connection is the same.
    fn finds_its_place(&self) -> bool {
        self.is_aware() || !self.conversation.opens_each_connection()
    }

    fn may_come_back(&self) -> bool {
        self.client.may_come_back() && self.finds_its_place()
    }

    /// The client is there on another link, which `generation`, if there is one, names from now on. A link that it still
    /// has is dropped for the new one. What it has not confirmed is sent again, but for what it says that it has:
    /// everything up to `resume`.
    ///
    /// `None` if the conversation is over or was not kept for it: the link must go.
    pub fn client_attached(&mut self, resume: Option<Seq>, now: Time) -> Option<Generation> {
        if !self.awaits_client() {
            return None;
        }
        let replaced = CloseFrame::new(self.settings.replaced_code, "replaced");
        let (generation, ending) = self.swap_client(replaced, resume, now)?;
        if let Some(frame) = ending {
            self.tell_ending(*frame, now);
        }
        Some(generation)
    }

    /// Puts the client, which is awaited, on another link; one that it still has is told `replaced`. Its generation, and
    /// what its worker said at the end.
    pub(super) fn swap_client(
        &mut self,
        replaced: CloseFrame,
        resume: Option<Seq>,
        now: Time,
    ) -> Option<(Generation, Option<Box<CloseFrame>>)> {
        let away = self.client.away_since().map(|since| now.since(since));
        if let Some(link) = self.client.link() {
            let words = link.codec.words_to_replaced(&replaced, &self.down.buffer);
            self.detach_client(words, now);
        }
        if let Some(seq) = resume {
            self.down.buffer.fast_forward(seq, now);
        }
        let buffer = &self.down.buffer;
        let mut link = link_to_client(&self.settings, buffer.retention(), &mut self.draw, now);
        if self.compressed {
            link.codec.allow_compressed();
        }
        if let Some(barrier) = &mut link.barrier {
            barrier.start_at(buffer.sent());
        }
        self.down.level = link.level();
        let stalled_since = (buffer.unsent_messages() > 0).then_some(now);
        let (generation, ending) = self.client.attach(link, stalled_since)?;
        let again = buffer.again_messages();
        self.report(Fact::ClientAttached { generation, away, again });
        Some((generation, ending))
    }

    /// Closes the client with what its worker said at the end, which it may come back for.
    pub(super) fn tell_ending(&mut self, frame: CloseFrame, now: Time) {
        if !self.client.is_detached() {
            self.close_client(frame.clone(), true, now);
        }
        self.client.set_ending(frame);
    }

    /// Pings the client outside of its heartbeat; false if it is not there, closes, or could not be heard.
    pub fn ping_client(&mut self) -> bool {
        let talks = self.client.is_talking();
        let Some(link) = self.client.link_mut().filter(|link| talks && !link.paused) else { return false };
        link.codec.ping(HEARTBEAT_PAYLOAD, [0; 4]);
        true
    }

    /// The client has left its page, and a page that is loaded again comes back to the pipe; whether that is how it is.
    pub(super) fn client_navigates(&mut self, frame: &CloseFrame, now: Time) -> bool {
        let leaves = self.settings.client_navigates && frame.code == GOING_AWAY;
        let returns = self.client.is_open() && self.may_come_back();
        let Some(link) = self.client.link().filter(|_| leaves && returns) else { return false };
        let words = link.codec.words_to_replaced(frame, &self.down.buffer);
        self.detach_client(words, now);
        true
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

    /// The client has closed its side or is gone, as was seen though it is not read: what it has left behind is read even so,
    /// up to as much again as may be held for it. What is more goes with it.
    pub const fn client_left(&mut self) {
        if let Some(link) = self.client.link_mut() {
            link.left = true;
        }
    }

    /// Whether the client is known to have left.
    #[must_use]
    pub fn has_client_left(&self) -> bool {
        self.client.link().is_some_and(|link| link.left)
    }

    /// Ends the pipe of a client that is gone without a word.
    fn client_is_gone(&mut self, now: Time) {
        self.report_ended(EndedBy::Client, &CloseFrame { code: VANISHED, reason: String::new() });
        self.release_backend("client gone", now);
    }

    /// The client leg has no link from now on; what it did not confirm waits for the next one.
    pub(super) fn detach_client(&mut self, last_words: Vec<u8>, now: Time) {
        self.discard_half_message(Side::Client);
        let generation = self.client.generation();
        self.actions.push_back(Action::DropClient { generation, last_words });
        let rewound = self.down.buffer.rewind(false);
        self.down.in_doubt += rewound.in_doubt;
        self.client.detach(now);
        self.report(Fact::ClientDetached { generation, in_doubt: rewound.in_doubt });
        self.after_down(now);
    }

    pub(super) fn drop_client(&mut self) {
        if self.client.state() == ClientState::Gone {
            return;
        }
        if self.client.end() {
            let generation = self.client.generation();
            self.actions.push_back(Action::DropClient { generation, last_words: Vec::new() });
        }
        self.leave_down_in_doubt();
        let undelivered = self.down.buffer.clear();
        self.report_lost(LaneName::Down, Loss::PeerGone, undelivered);
    }

    /// Says how many messages the client will be asked for no more; how many.
    pub(super) fn leave_down_in_doubt(&mut self) -> u64 {
        let in_doubt = self.down.buffer.held_in_doubt_messages();
        if in_doubt > 0 {
            self.down.in_doubt += in_doubt;
            self.report(Fact::LeftInDoubt { lane: LaneName::Down, messages: in_doubt });
        }
        in_doubt
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
            self.lost(Peer::Client(self.client.generation()), LinkLoss::Reset, now);
        }
        lost
    }

    /// Whether the worker is not read because the client has not confirmed what it was sent.
    pub(super) fn owes_confirmation(&self) -> bool {
        let buffer = &self.down.buffer;
        buffer.keeps_unconfirmed() && buffer.held_bytes() >= self.down_bytes_max()
    }

    /// Bytes that are kept for the client at most.
    pub(super) fn down_bytes_max(&self) -> usize {
        if self.is_aware() { self.settings.aware.retain_bytes } else { self.settings.replay_bytes_max }
    }

    pub(super) fn client_ponged(&mut self, payload: &[u8], now: Time) {
        let by_pongs = self.client.returns();
        let Some(link) = self.client.link_mut() else { return };
        let (confirmed, level) = (link.ponged(payload), link.level());
        if confirmed.is_some() || payload == HEARTBEAT_PAYLOAD {
            // One that can be waited for is not kept by what it sends, if nothing reaches it any more.
            link.answered(by_pongs);
        }
        if let Some(seq) = confirmed {
            self.down.confirm(seq, level, now);
            self.owe_delivered(now);
        }
    }

    /// The client has answered our close frame, which stood behind all that it was sent.
    pub(super) fn client_answered_close(&mut self, now: Time) {
        self.down.confirm_sent(now);
        self.drop_client();
    }

    /// When a ping to the client is due.
    pub(super) fn client_ping_due_at(&self, link: &Link) -> Option<Time> {
        link.ping_due_at(&self.down.buffer).filter(|_| self.client.is_talking())
    }

    /// When an unanswered ping of the client is given up.
    ///
    /// A client that is not read may have answered it. But if neither peer is read, each may wait for the answer that
    /// lies unread in the other's link, so that patience with the client must end.
    pub(super) fn client_patience_ends(&self, link: &Link) -> Option<Time> {
        if !self.client.is_talking() {
            return None;
        }
        let waits = match &link.barrier {
            Some(barrier) if !link.paused => return barrier.patience_ends(),
            Some(barrier) => barrier.is_waiting(),
            None => link.codec.is_aware() && link.paused && self.down.buffer.in_doubt_messages() > 0,
        };
        let stuck_since = self.backend.link().filter(|it| it.paused)?.turned_at.max(link.turned_at);
        waits.then(|| stuck_since + PONG_PATIENCE)
    }

    /// Gives up waiting for a pong of the client: what is written counts as confirmed from now on. One that numbers its
    /// messages says what it has when it comes back.
    pub(super) fn give_up_client_pong(&mut self, now: Time) {
        if self.is_aware() {
            return self.lost(Peer::Client(self.client.generation()), LinkLoss::Reset, now);
        }
        let Some(link) = self.client.link_mut() else { return };
        if let Some(barrier) = &mut link.barrier {
            barrier.give_up();
        }
        self.down.level = link.level();
        self.down.confirm_sent(now);
    }

    /// When the client has been away for too long.
    pub(super) fn client_grace_ends(&self, since: Time) -> Time {
        since + self.settings.client_grace.unwrap_or(Duration::ZERO)
    }

    /// The client has been away for too long.
    pub(super) fn client_expired(&mut self, now: Time) {
        let Some(since) = self.client.away_since() else { return };
        self.report(Fact::ClientExpired { away: now.since(since) });
        self.drop_client();
        self.client_is_gone(now);
    }
}
