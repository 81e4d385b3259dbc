//! Clients that are lost and come back: in time or too late, to a pipe that knows of it or not, one time too many or never.

use std::time::Duration;

use holdline_core::aware::Reject;
use holdline_core::ids::Generation;
use holdline_core::pipe::{Input, LinkLoss, Peer};
use holdline_core::settings::DownPolicy;

use super::{Event, World};
use crate::marks::Mark;
use crate::plan::Fault;
use crate::wire;

impl World {
    /// A client has noticed that its link is gone; decides when it tries again, if ever.
    pub(super) fn client_is_gone(&mut self, pipe: usize) {
        let Some(grace) = self.plan.settings.client_grace else { return };
        if !self.drivers[pipe].client.wants_back() {
            return;
        }
        let wait = match self.rng.below(8) {
            0 => return,
            1 => grace * 2,
            2 | 3 => self.rng.millis(0, 5),
            _ => Duration::from_micros(self.rng.below(grace.as_micros() as u64)),
        };
        self.at(wait, Event::ClientReturns(pipe));
    }

    /// A client connects a second time: over a link that is dead and does not know it, or for no good reason.
    pub(super) fn client_tries_again(&mut self, pipe: usize) {
        let client = &self.drivers[pipe].client;
        if self.plan.returns.is_none() || client.gone || !client.wants_back() {
            return;
        }
        let rarity = if client.half_open { 15 } else { self.plan.rarity };
        if (client.half_open || self.calm_since.is_none()) && self.rng.once_in(rarity) {
            self.client_returns(pipe);
        }
    }

    /// A client comes under its name, as it does before its pipe was looked at.
    pub(super) fn client_returns(&mut self, pipe: usize) {
        let (now, calm) = (self.now, self.calm_since.is_some());
        let driver = &mut self.drivers[pipe];
        if !driver.pipe.awaits_client() {
            return self.marks.hit(Mark::CameTooLate);
        }
        let was_gone = driver.client.gone;
        let rejects = self.plan.returns.is_some_and(|it| it.rejects) && driver.client.numbers.is_none();
        if driver.pipe.view().has_client && rejects {
            self.marks.hit(Mark::Rejected);
            if was_gone {
                let pause = self.pause();
                self.at(pause, Event::ClientReturns(pipe));
            }
            return;
        }
        let capacity = if calm { 1 << 20 } else { self.plan.link_bytes };
        if let Some(numbers) = &driver.client.numbers {
            let may_lie_of_rx = self.plan.settings.down == DownPolicy::Keep;
            let claim = numbers.claim(may_lie_of_rx, &mut self.rng, &mut self.marks);
            if let Some(reject) = driver.client_claims(&claim, &self.plan, capacity, now, &mut self.marks) {
                return self.client_is_rejected(pipe, reject, was_gone);
            }
        } else {
            driver.client_returns(&self.plan, capacity, now, &mut self.marks);
        }
        if was_gone {
            self.at(Duration::ZERO, Event::ClientActs(pipe));
        }
        self.settle(pipe);
    }

    /// An aware client may not go on as it said; it tries again.
    fn client_is_rejected(&mut self, pipe: usize, reject: Reject, was_gone: bool) {
        self.marks.hit(match reject {
            Reject::Unknown => Mark::AwareUnknown,
            Reject::Epoch => Mark::AwareEpoch,
            Reject::Taken => Mark::AwareTaken,
            Reject::Busy | Reject::Version => panic!("{reject:?} is none of the pipe's"),
        });
        if was_gone {
            let pause = self.pause();
            self.at(pause, Event::ClientReturns(pipe));
        }
    }

    /// A client's link was dropped, which may still bring news.
    pub(super) fn client_dropped(&mut self, pipe: usize, generation: Generation) {
        if self.plan.returns.is_some() && self.plan.may(Fault::LateNews) && self.rng.once_in(2) {
            let wait = self.rng.millis(0, 500);
            self.at(wait, Event::LateClientNews(pipe, generation));
        }
    }

    pub(super) fn late_client_news(&mut self, pipe: usize, generation: Generation) {
        let now = self.now;
        let driver = &mut self.drivers[pipe];
        let before = driver.pipe.view();
        let from = Peer::Client(generation);
        self.marks.hit(Mark::LateClientNews);
        if self.rng.once_in(2) {
            let bytes = wire::frame(0x81, b"from the tunnel", Some([1, 2, 3, 4]));
            driver.call(now, &mut self.marks, |it, now| it.receive(from, Input::Copy(&bytes), now));
        } else {
            driver.call(now, &mut self.marks, |it, now| it.lost(from, LinkLoss::Reset, now));
        }
        assert_eq!(driver.pipe.view(), before, "late news of a client's link changed something");
        self.settle(pipe);
    }
}
