//! How the client of a pipe is lost, left unread, and back again.

use holdline_core::frame::Side;
use holdline_core::pipe::{LinkLoss, Peer, PipeState};
use holdline_core::time::Time;

use super::Driver;
use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::plan::Plan;

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

    /// The client is there on another link, while its pipe may still believe in the old one.
    pub fn client_returns(&mut self, plan: &Plan, capacity: usize, now: Time, marks: &mut Marks) {
        let before = self.pipe.view();
        self.model.client_returns();
        let generation = self.call(now, marks, |pipe, now| pipe.client_attached(None, now));
        self.generation = generation.expect("it is awaited");
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
