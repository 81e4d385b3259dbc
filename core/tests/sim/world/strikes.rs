//! What strikes from outside, and how it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use holdline_core::close::CloseFrame;
use holdline_core::frame::Kind;
use holdline_core::ids::{Attachment, BackendKey};
use holdline_core::pipe::{Cause, EndedBy, LinkLoss, PipeState, Unsaid};
use holdline_core::pool::{AdminState, PoolSettings, YoungDeaths};

use super::{Event, World, key_of, worker_of};
use crate::driver::Driver;
use crate::marks::Mark;
use crate::plan::Fault;
use crate::worker::Conn;

impl World {
    /// What the operator, the machine and bad luck do.
    pub(super) fn strike(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        let pause = self.pause();
        self.at(pause, Event::Strike);
        let rarity = self.plan.rarity;
        if self.plan.may(Fault::ClockJumps) && self.rng.once_in(rarity) {
            // The process slept: every timer is late, and what came meanwhile is found together.
            self.marks.hit(Mark::ClockJumped);
            self.now = self.now + self.rng.pick(&[self.plan.pace * 3, Duration::from_secs(3), Duration::from_secs(40)]);
        }
        let (pipe, worker) = (self.rng.size(0, self.plan.pipes - 1), self.rng.size(0, self.plan.workers - 1));
        let now = self.now;
        if self.plan.may(Fault::LateRegistration) && self.rng.once_in(rarity) {
            self.registers(worker);
        }
        if self.plan.may(Fault::WorkerCrash) && self.rng.once_in(rarity) {
            self.restart(worker);
        }
        if self.plan.may(Fault::Drain) && self.rng.once_in(rarity / 2) {
            self.drain(worker);
        }
        if self.plan.may(Fault::OperatorMoves) && self.rng.once_in(rarity) {
            let cause = self.rng.pick(&[Cause::Admin, Cause::Handover]);
            self.moves(pipe, cause);
        }
        if self.plan.may(Fault::OperatorCloses) && self.rng.once_in(rarity * 4) {
            let frame = CloseFrame::new(1001, "by order");
            self.drivers[pipe].model.ended_by_order();
            self.drivers[pipe].call(now, &mut self.marks, |it, now| it.close(EndedBy::Operator, frame, now));
        }
        if self.plan.may(Fault::OperatorSays) && self.rng.once_in(rarity.min(20)) {
            self.operator_says(pipe);
        }
        if self.plan.may(Fault::MemoryPressure) && self.rng.once_in(10) {
            self.marks.hit(Mark::MemoryPressure);
            self.room = self.rng.pick(&[0, 100, usize::MAX]);
            if self.rng.once_in(rarity) {
                self.evict(pipe);
            }
        }
        if self.plan.may(Fault::MemoryPressure) && self.serial.is_multiple_of(2) {
            self.evict_an_ending_one();
        }
        if self.plan.may(Fault::HandOver) && self.rng.once_in(rarity / 4) {
            self.hand_over(pipe);
        }
        if self.plan.may(Fault::HandOver) && self.rng.once_in(rarity / 4) {
            self.hand_over(pipe);
        }
        self.settle_all();
    }

    fn evict(&mut self, pipe: usize) {
        let now = self.now;
        self.drivers[pipe].model.ended_by_order();
        self.drivers[pipe].call(now, &mut self.marks, |it, now| it.evict(now));
    }

    /// An end waits behind messages for a short time only, which most evictions would miss.
    fn evict_an_ending_one(&mut self) {
        let waits = |driver: &Driver| {
            let view = driver.pipe.view();
            view.state == PipeState::Closing && view.down.accepted > view.down.sent
        };
        if let Some(pipe) = self.drivers.iter().position(waits) {
            self.evict(pipe);
        }
    }

    /// A worker's process ends, with all its connections, and comes back later without its memory.
    fn restart(&mut self, worker: usize) {
        self.marks.hit(Mark::WorkerRestarted);
        self.workers[worker].up = false;
        self.workers[worker].knows.clear();
        for driver in &mut self.drivers {
            let here = |reserved: &BTreeMap<_, BackendKey>, it: &Attachment| {
                reserved.get(it).is_some_and(|&key| worker_of(key) == worker)
            };
            let attachments: Vec<_> = driver.conns.keys().filter(|it| here(&driver.reserved, it)).copied().collect();
            for attachment in attachments {
                let keep = self.rng.once_in(2);
                if let Some(conn) = driver.conns.get_mut(&attachment) {
                    conn.die(LinkLoss::Reset, keep);
                }
            }
        }
        let wait = self.rng.millis(5, 3_000).min(self.plan.pace * 40);
        self.at(wait, Event::WorkerReturns(worker));
    }

    fn operator_says(&mut self, pipe: usize) {
        let (now, driver) = (self.now, &mut self.drivers[pipe]);
        let payload = format!("by order {}", self.rng.bits()).into_bytes();
        let amid = driver.model.worker_is_amid_message();
        match driver.call(now, &mut self.marks, |it, now| it.say(Kind::Binary, &payload, now)) {
            Ok(_) => {
                self.marks.hit(if amid { Mark::OperatorSpokeAmid } else { Mark::OperatorSpoke });
                driver.model.operator_said(payload);
            }
            Err(Unsaid::Closing | Unsaid::TooBig | Unsaid::Full) => self.marks.hit(Mark::OperatorUnheard),
        }
    }

    fn drain(&mut self, worker: usize) {
        let drains = self.homes[0].pool.get(key_of(0, worker)).is_some_and(|it| it.admin() == AdminState::Drain);
        let admin = if drains { AdminState::Ready } else { AdminState::Drain };
        for home in 0..self.homes.len() {
            self.homes[home].pool.set_admin(key_of(home, worker), admin);
            if drains {
                self.pool_changed(home);
            }
        }
        let here = |key: BackendKey| !drains && worker_of(key) == worker;
        for pipe in 0..self.drivers.len() {
            if self.drivers[pipe].pipe.view().backend.is_some_and(here) {
                self.moves(pipe, Cause::Drain);
            }
        }
    }

    /// An operator wants a pipe moved: mostly with the new worker there first, and now and then the old one dies over it.
    fn moves(&mut self, pipe: usize, cause: Cause) {
        let (now, first) = (self.now, !self.rng.once_in(3));
        if self.plan.may(Fault::WorkerCrash) && self.rng.once_in(4) {
            let keep = self.rng.once_in(2);
            if let Some(conn) = self.drivers[pipe].conn() {
                conn.die(LinkLoss::Reset, keep);
            }
        }
        self.drivers[pipe].call(now, &mut self.marks, |it, now| match first {
            true => it.move_on(cause, now),
            false => it.leave(cause, now),
        });
    }

    /// The disaster is over: everything that can heal heals.
    pub(super) fn calm(&mut self) {
        self.calm_since = Some(self.now);
        self.room = usize::MAX;
        for home in &mut self.homes {
            home.deaths = YoungDeaths::new(0);
            home.pool.configure(PoolSettings { max_pipes_per_backend: 0, ..*home.pool.settings() });
        }
        for index in 0..self.workers.len() {
            self.workers[index].up = true;
            self.registers(index);
            for home in 0..self.homes.len() {
                self.homes[home].pool.set_admin(key_of(home, index), AdminState::Ready);
            }
        }
        for driver in &mut self.drivers {
            if driver.finished {
                self.marks.hit(Mark::FinishedByCalm);
            }
            driver.client.calm();
            driver.conns.values_mut().for_each(Conn::calm);
            driver.widen_links();
        }
        (0..self.homes.len()).for_each(|home| self.pool_changed(home));
        self.settle_all();
    }
}
