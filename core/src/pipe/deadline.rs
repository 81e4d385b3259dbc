//! What time does to a pipe. A timer may fire early: [`Pipe::tick`] acts only on what is really due.

use super::{EndedBy, Fact, Interruption, Loss, Peer, Pipe};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::heartbeat::Beat;
use crate::leg::{Attached, BackendLeg, ClientLeg};
use crate::settings::{DownPolicy, ReplayPolicy};
use crate::suspects::QUICK_DEATH;
use crate::time::{Time, earliest};

/// The payload of a heartbeat ping: no barrier's payload has its length.
const HEARTBEAT_PAYLOAD: &[u8] = b"holdline";

const _: () = assert!(HEARTBEAT_PAYLOAD.len() == 8, "the barrier's nonce tells the two apart, not the length");

impl Pipe {
    /// When [`Self::tick`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        earliest(self.client_deadline(), self.backend_deadline())
    }

    fn client_deadline(&self) -> Option<Time> {
        match &self.client {
            ClientLeg::Gone => None,
            ClientLeg::Detached { since } => Some(self.client_grace_ends(*since)),
            ClientLeg::Closing { deadline, .. } => Some(*deadline),
            ClientLeg::Open | ClientLeg::SaidClose(_) => earliest(
                self.or_throttle(Side::Client, self.client_beat.deadline()),
                earliest(
                    earliest(self.message_deadline(Side::Client), self.stall_deadline()),
                    self.client_barrier_deadline(),
                ),
            ),
        }
    }

    fn backend_deadline(&self) -> Option<Time> {
        let outage =
            self.outage.as_ref().filter(|_| self.backend.link().is_none()).map(|it| it.since + self.settings.grace);
        match &self.backend {
            BackendLeg::Gone => None,
            BackendLeg::Closing { link, deadline } => earliest(Some(*deadline), link.hold_until),
            BackendLeg::Detached { retry_at } => earliest(outage, *retry_at),
            BackendLeg::Dialing { .. } => outage,
            BackendLeg::Leaving { deadline, .. } => {
                earliest(Some(*deadline), earliest(self.parts_at(), self.link_deadline()))
            }
            BackendLeg::Attached(link) => {
                let settle = (!link.settled).then(|| link.fed_from + QUICK_DEATH);
                earliest(earliest(settle, self.silence_ends(link)), earliest(link.hold_until, self.link_deadline()))
            }
        }
    }

    /// When a worker that has said nothing is given up. One that is not read may have said something.
    fn silence_ends(&self, link: &Attached) -> Option<Time> {
        let wait = self.settings.first_message_timeout.filter(|_| !link.talked && !self.down.paused)?;
        Some(link.fed_from.max(self.down.read_since) + wait)
    }

    /// Deadlines that every live backend link has.
    fn link_deadline(&self) -> Option<Time> {
        let ping = if self.settings.replay == ReplayPolicy::None {
            None
        } else {
            let due = self.barrier.due_at(self.up.buffer.sent());
            let due = due.filter(|_| self.to_backend.may_ping(&self.up.buffer));
            earliest(due, self.barrier.patience_ends())
        };
        let beat = self.or_throttle(Side::Backend, self.backend_beat.deadline());
        earliest(earliest(beat, ping), self.message_deadline(Side::Backend))
    }

    fn message_deadline(&self, side: Side) -> Option<Time> {
        let lane = match side {
            Side::Client => &self.up,
            Side::Backend => &self.down,
        };
        lane.began.filter(|_| !lane.paused).map(|began| began + self.settings.message_incomplete_timeout)
    }

    fn stall_deadline(&self) -> Option<Time> {
        match self.settings.down {
            DownPolicy::Keep => self.stalled_since.map(|since| since + self.settings.stall_max),
            DownPolicy::Latest(_) => None,
        }
    }

    /// Does what has become due at `now`.
    pub fn tick(&mut self, now: Time) {
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| now >= at);
        if !due(self.deadline()) {
            return;
        }
        self.tick_client(now);
        self.tick_backend(now);
        self.finish_if_over();
    }

    fn tick_client(&mut self, now: Time) {
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| now >= at);
        match &self.client {
            ClientLeg::Gone => {}
            ClientLeg::Detached { since } => {
                let since = *since;
                if now >= self.client_grace_ends(since) {
                    self.client_expired(since, now);
                }
            }
            ClientLeg::Closing { deadline, .. } => {
                if now >= *deadline {
                    self.cut_client_off(now);
                }
            }
            ClientLeg::Open | ClientLeg::SaidClose(_) => {
                self.tick_throttle(Side::Client, now);
                let stands_still = due(self.message_deadline(Side::Client)) || due(self.stall_deadline());
                if stands_still && self.is_taken_for_lost(now) {
                    return;
                }
                self.tick_client_barrier(now);
                if due(self.message_deadline(Side::Client)) {
                    self.discard_half_message(Side::Client);
                    return self.client_at_fault(CloseFrame::new(1008, "message not finished in time"), now);
                }
                if due(self.stall_deadline()) {
                    return self.client_too_slow(now);
                }
                match self.client_beat.tick(now) {
                    Beat::Rest => {}
                    Beat::Ping => self.to_client.ping(HEARTBEAT_PAYLOAD, [0; 4]),
                    Beat::Dead => self.lost(Peer::Client(self.generation), super::LinkLoss::Reset, now),
                }
            }
        }
    }

    /// Ends the pipe because its client does not take what it is sent.
    pub(super) fn client_too_slow(&mut self, now: Time) {
        self.give_up_down(Loss::PeerGone, now);
        self.client_at_fault(CloseFrame::new(1013, "client too slow"), now);
    }

    fn tick_backend(&mut self, now: Time) {
        match &self.backend {
            BackendLeg::Gone => {}
            BackendLeg::Detached { .. } | BackendLeg::Dialing { .. } => self.tick_detached(now),
            BackendLeg::Closing { deadline, .. } => {
                if now >= *deadline {
                    return self.closing_took_too_long(now);
                }
                self.lift_hold(now);
            }
            BackendLeg::Leaving { deadline, .. } => {
                if now >= *deadline {
                    return self.leaving_took_too_long(now);
                }
                self.part_if_settled(now);
                self.tick_link(now);
            }
            BackendLeg::Attached(_) => {
                self.lift_hold(now);
                self.tick_attached(now);
                self.tick_link(now);
            }
        }
    }

    fn tick_detached(&mut self, now: Time) {
        if let Some(outage) = self.outage.as_deref().copied().filter(|outage| now >= outage.since + self.settings.grace)
        {
            self.report(Fact::Expired { outage: now.since(outage.since) });
            if let Some(frame) = self.wrong_worker.take() {
                self.report_ended(EndedBy::Backend, &frame);
                return self.give_up(*frame, Loss::Grace, now);
            }
            return self.give_up(CloseFrame::new(1013, "no backend within grace"), Loss::Grace, now);
        }
        if matches!(self.backend, BackendLeg::Detached { retry_at: Some(at) } if now >= at) {
            self.retry();
        }
    }

    /// Lets the replay go when its delay is over.
    fn lift_hold(&mut self, now: Time) {
        if let Some(link) = self.backend.link_mut()
            && link.hold_until.is_some_and(|until| now >= until)
        {
            link.hold_until = None;
            self.to_backend.set_held(false);
        }
    }

    fn tick_attached(&mut self, now: Time) {
        let BackendLeg::Attached(link) = &self.backend else { return };
        if self.silence_ends(link).is_some_and(|end| now >= end) {
            let frame = CloseFrame::new(1001, "nothing was said in time");
            return self.interrupt(Interruption::Silent, Some(&frame), now);
        }
        self.settle_if_outlived(now);
    }

    fn tick_link(&mut self, now: Time) {
        if self.backend.link().is_none() {
            return;
        }
        self.tick_throttle(Side::Backend, now);
        if self.settings.replay != ReplayPolicy::None && self.barrier.patience_ends().is_some_and(|end| now >= end) {
            self.barrier.tick(now);
            if let Some(link) = self.backend.link() {
                let backend = link.backend;
                self.report(Fact::PongsMissing(backend));
            }
            let sent = self.up.buffer.sent();
            self.up.buffer.confirm(sent, now);
            self.part_if_settled(now);
        }
        if self.message_deadline(Side::Backend).is_some_and(|at| now >= at) {
            let frame = CloseFrame::new(1008, "message not finished in time");
            return self.interrupt(Interruption::Protocol, Some(&frame), now);
        }
        match self.backend_beat.tick(now) {
            Beat::Rest => {}
            Beat::Ping => {
                let key = self.draw.key();
                self.to_backend.ping(HEARTBEAT_PAYLOAD, key);
            }
            Beat::Dead => self.interrupt(Interruption::Heartbeat, None, now),
        }
    }

    /// The worker did not answer our close frame, or did not take what came before it.
    fn closing_took_too_long(&mut self, now: Time) {
        self.settle_up(Loss::Closed);
        self.farewell = None;
        self.drop_backend(Vec::new(), false);
        if let ClientLeg::SaidClose(frame) = &self.client {
            let frame = frame.clone();
            self.answer_client_close(frame, now);
        }
    }
}
