//! How the client of a pipe is lost, left unread, and back again.

use holdline_core::aware::{Position, Reject};
use holdline_core::frame::Side;
use holdline_core::ids::{Generation, PipeId};
use holdline_core::pipe::{Introduction, LinkLoss, Peer, PipeState, PipeView, Returning};
use holdline_core::time::Time;

use super::Driver;
use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::numbers::{Claim, EPOCH};
use crate::plan::Plan;

/// Who an aware client is told that its pipe is.
pub(super) fn introduction() -> Introduction {
    Introduction { id: PipeId::from_bytes([0; 16]), epoch: EPOCH, token: "t1".to_owned() }
}

impl Driver {
    /// Nor did the client's.
    pub(super) fn lose_client(&mut self, now: Time, marks: &mut Marks) {
        if self.client_link.is_some() {
            marks.hit(Mark::ClientLostWithFreeze);
            self.client_is_lost(LinkLoss::Reset, now, marks);
        }
    }

    pub(super) fn client_is_lost(&mut self, loss: LinkLoss, now: Time, marks: &mut Marks) {
        let generation = self.generation;
        self.model.client_gone(marks);
        self.call(now, marks, |pipe, now| pipe.lost(Peer::Client(generation), loss, now));
        assert!(self.client_link.is_none(), "a client's dead link is kept");
    }

    /// Whether the client knows what will never arrive.
    pub fn client_knows(&self) -> bool {
        self.client.numbers.as_ref().is_none_or(|numbers| numbers.knows(self.model.gaps()))
    }

    /// The client is there on another link, while its pipe may still believe in the old one.
    pub fn client_returns(&mut self, plan: &Plan, capacity: usize, now: Time, marks: &mut Marks) {
        let before = self.pipe.view();
        self.model.client_returns();
        let generation = self.call(now, marks, |pipe, now| pipe.client_attached(None, now));
        self.is_on_another_link(generation.expect("it is awaited"), &before, plan, capacity, marks);
    }

    /// An aware client says where it stands, on another link; why it may not go on, if so.
    pub fn client_claims(
        &mut self,
        claim: &Claim,
        plan: &Plan,
        capacity: usize,
        now: Time,
        marks: &mut Marks,
    ) -> Option<Reject> {
        let before = self.pipe.view();
        let expected = self.model.judges(claim, now);
        if expected.is_none() {
            self.model.client_resumes(claim, now);
        }
        let token = format!("t{}", self.pipe.next_generation().0);
        let [tx_first, tx_next] = claim.tx;
        let position = Position { epoch: claim.epoch, rx: claim.rx, tx_first, tx_next };
        let returning = Returning { generation: Generation(claim.token), position, token: &token, is_contested: true };
        let resumed = self.pipe.client_resumes(&returning, self.clock.shows(now));
        assert_eq!(resumed.err(), expected, "what becomes of a client that says {claim:?}");
        self.call(now, marks, |_, _| ());
        if let Ok(generation) = resumed {
            if claim.token < before.generation.0 {
                marks.hit(Mark::AwareOldToken);
            }
            if before.has_client {
                marks.hit(Mark::AwareTookOver);
            }
            self.is_on_another_link(generation, &before, plan, capacity, marks);
        }
        expected
    }

    fn is_on_another_link(
        &mut self,
        generation: Generation,
        before: &PipeView,
        plan: &Plan,
        capacity: usize,
        marks: &mut Marks,
    ) {
        self.generation = generation;
        assert!(self.client_link.is_none(), "two links of one client");
        self.client_link = Some(Link::new(capacity));
        self.client.comes_back(plan);
        match before.state {
            PipeState::Detached => marks.hit(Mark::CameBackInOutage),
            PipeState::Leaving => marks.hit(Mark::CameBackAmidMove),
            PipeState::Closing => marks.hit(Mark::CameBackForTheEnd),
            PipeState::Attached | PipeState::ClientDetached => {}
        }
    }

    /// A client that is not read is looked at all the same; whether anything came of that.
    pub(super) fn leaves_client_unread(&mut self, room: usize, now: Time, marks: &mut Marks) -> bool {
        let left = self.client_link.as_ref().is_some_and(|link| link.from_peer.has_ended());
        if !left || !self.pipe.leaves_client_unread() && !self.pipe.has_client_left() {
            return false;
        }
        let knew = self.pipe.has_client_left();
        self.call(now, marks, |pipe, _| pipe.client_left());
        if !knew && self.pipe.read_budget(Side::Client, room) > 0 {
            marks.hit(Mark::LeftUnread);
            return true;
        }
        marks.hit(Mark::LeftTooMuch);
        self.client_is_lost(LinkLoss::Reset, now, marks);
        true
    }
}
