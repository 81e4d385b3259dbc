//! What becomes of a pipe's dials.

use std::time::Duration;

use holdline_core::health::{Experience, HealthChange};
use holdline_core::ids::{Attachment, BackendKey, Seq};
use holdline_core::pipe::{DialFailure, DialOrder, LinkLoss, ResumeAnswer};
use holdline_core::pool::{Choose, Chosen};
use holdline_core::settings::ReplayPolicy;
use holdline_core::time::Time;

use super::{Answer, Event, World, id_of, worker_of};
use crate::marks::Mark;
use crate::plan::{Fault, Rng};
use crate::state::State;
use crate::worker::Conn;

impl World {
    pub(super) fn dial(&mut self, pipe: usize, order: &DialOrder) {
        let now = self.now;
        let exclude = self.drivers[pipe].excluded(now);
        if exclude.contains(&order.previous) && self.drivers[pipe].model.is_first_after_death(order) {
            self.marks.hit(Mark::Suspended);
        }
        let key = self.key_asked(pipe);
        let random = self.rng.bits();
        let ask = Choose { key: key.as_deref(), exclude: &exclude, avoid: order.avoid, prefer: None, random };
        let home = self.drivers[pipe].home;
        let chosen = match self.homes[home].pool.choose(&ask) {
            Ok(chosen) => chosen,
            Err(_) => {
                self.marks.hit(Mark::NoCandidate);
                return self.no_candidate(pipe, order.attachment, None);
            }
        };
        self.check_chosen(pipe, &chosen);
        let backend = chosen.key;
        let held = self.homes[home].deaths.held_until(id_of(pipe), backend, now);
        if self.plan.may(Fault::Budget) && self.calm_since.is_none() {
            self.young.check(pipe, backend, held, now, &mut self.marks);
        }
        if let Some(at) = held {
            self.homes[home].pool.release(backend);
            self.marks.hit(Mark::RetryAfter);
            let wait = if self.rng.once_in(2) { at.since(now) } else { Duration::ZERO };
            return self.no_candidate(pipe, order.attachment, Some(wait));
        }
        self.drivers[pipe].reserved.insert(order.attachment, backend);
        self.asked.insert((pipe, order.attachment), chosen.alias.as_deref().map(str::to_owned));
        let answer = self.draw_answer(worker_of(backend), pipe);
        let wait = match answer {
            Some(Answer::Refused | Answer::Upgraded | Answer::Unauthorized | Answer::NotFound) => {
                self.rng.millis(0, 30)
            }
            Some(Answer::TimedOut) => self.rng.millis(500, 4_000),
            None => return self.marks.hit(Mark::DialHung),
        };
        let event = Event::DialDone(pipe, order.attachment, answer.unwrap_or(Answer::Refused));
        self.at(wait, event);
    }

    /// The pool knows what the chosen worker serves, and what it calls it today.
    fn check_chosen(&mut self, pipe: usize, chosen: &Chosen) {
        let worker = worker_of(chosen.key);
        assert!(self.serves(worker, pipe), "worker {worker} does not serve the key of pipe {pipe}");
        let alias = self.alias(worker, pipe);
        assert_eq!(chosen.alias.as_deref(), alias.as_deref(), "what worker {worker} calls the key of pipe {pipe}");
        let before = self.asked.range((pipe, Attachment(0))..(pipe + 1, Attachment(0))).next_back();
        if self.plan.may(Fault::Keys) {
            self.marks.hit(Mark::Keyed);
            if before.is_some_and(|(_, asked)| *asked != alias) {
                self.marks.hit(Mark::AliasChanged);
            }
        }
    }

    /// What a dial will come to; `None` if it is never answered.
    fn draw_answer(&mut self, worker: usize, pipe: usize) -> Option<Answer> {
        if self.calm_since.is_some() {
            return Some(if self.workers[worker].up { Answer::Upgraded } else { Answer::Refused });
        }
        if !self.workers[worker].up || self.plan.may(Fault::DialRefused) && self.rng.once_in(3) {
            return Some(Answer::Refused);
        }
        if self.plan.may(Fault::DialHangs) && self.rng.once_in(6) {
            return self.rng.once_in(2).then_some(Answer::TimedOut);
        }
        if self.workers[worker].refuses.contains(&pipe) {
            return Some(Answer::NotFound);
        }
        let unauthorized = self.plan.may(Fault::DialUnauthorized) && self.rng.once_in(30);
        Some(if unauthorized { Answer::Unauthorized } else { Answer::Upgraded })
    }

    fn no_candidate(&mut self, pipe: usize, attachment: Attachment, retry_after: Option<Duration>) {
        let now = self.now;
        let failure = DialFailure::NoCandidate { retry_after };
        let driver = &mut self.drivers[pipe];
        let settings = &self.plan.settings;
        let must_end = retry_after.is_none()
            && driver.current().is_none()
            && !self.plan.may(Fault::WrongWorker)
            && driver.round.must_end(settings, &driver.excluded(now));
        if driver.round.is_refused_by_some() {
            self.marks.hit(Mark::RefusedBySome);
        }
        driver.call(now, &mut self.marks, |it, now| it.dial_failed(attachment, failure, now));
        assert!(!must_end || driver.model.ended.is_some(), "all refused, and it goes on: {:?}", driver.round);
        driver.round.begins();
    }

    pub(super) fn dial_done(&mut self, pipe: usize, attachment: Attachment, answer: Answer) {
        let cancelled = self.cancelled.contains(&(pipe, attachment));
        if cancelled && !self.plan.may(Fault::LateAttach) {
            return;
        }
        let Some(backend) =
            self.drivers[pipe].reserved.get(&attachment).copied().or(cancelled.then_some(BackendKey(0)))
        else {
            return;
        };
        let (now, home) = (self.now, self.drivers[pipe].home);
        let asked = self.asked.get(&(pipe, attachment));
        let stale = asked.is_some_and(|asked| *asked != self.alias(worker_of(backend), pipe));
        let failure = match answer {
            Answer::Upgraded if stale => {
                // It has started again since it was chosen, and knows the key by another name.
                self.marks.hit(Mark::OldAliasRefused);
                DialFailure::Failed(backend)
            }
            Answer::Upgraded => return self.upgraded(pipe, attachment, backend, cancelled),
            Answer::Refused => {
                self.marks.hit(Mark::DialRefused);
                self.homes[home].pool.experienced(backend, Experience::Refused, Some(id_of(pipe)), now);
                let is_up = self.workers[worker_of(backend)].up;
                if is_up { DialFailure::Failed(backend) } else { DialFailure::Absent(backend) }
            }
            Answer::TimedOut => {
                self.marks.hit(Mark::DialTimedOut);
                let since = Time::from_micros(now.as_micros().saturating_sub(500_000));
                self.experienced(home, backend, Experience::DialFailed { since }, pipe);
                DialFailure::Failed(backend)
            }
            Answer::Unauthorized => DialFailure::Unauthorized { backend, status: 403 },
            Answer::NotFound => {
                self.experienced(home, backend, Experience::Connected, pipe);
                DialFailure::Refused { backend, status: 404 }
            }
        };
        if !cancelled && self.drivers[pipe].current().is_none() {
            self.drivers[pipe].round.hears(failure);
        }
        self.release(pipe, attachment);
        self.drivers[pipe].call(now, &mut self.marks, |it, now| it.dial_failed(attachment, failure, now));
        self.settle(pipe);
    }

    pub(super) fn experienced(&mut self, home: usize, backend: BackendKey, experience: Experience, pipe: usize) {
        let pool = &mut self.homes[home].pool;
        if let Some(HealthChange::Ejected { .. }) = pool.experienced(backend, experience, Some(id_of(pipe)), self.now) {
            self.marks.hit(Mark::Ejected);
        }
    }

    fn upgraded(&mut self, pipe: usize, attachment: Attachment, backend: BackendKey, cancelled: bool) {
        let now = self.now;
        let worker = worker_of(backend);
        let known = self.workers[worker].knows.get(&pipe).copied();
        let numbers = self.plan.is_numbered(pipe) && !Rng::new(attachment.0 ^ (pipe as u64) << 20).once_in(5);
        if self.plan.is_numbered(pipe) && !numbers {
            self.marks.hit(Mark::NumberedFellBack);
        }
        let resume = if numbers { None } else { self.draw_resume(known) };
        let driver = &mut self.drivers[pipe];
        let before = driver.pipe.view().up.sent.0;
        let refused = resume == Some(ResumeAnswer::Refuse);
        if !driver.attached(attachment, backend, resume, numbers, now, &mut self.marks) {
            assert!(cancelled || refused, "an attach that was waited for was turned away");
            if cancelled {
                self.marks.hit(Mark::LateAttach);
            }
            if self.drivers[pipe].is_foreign(attachment) {
                self.marks.hit(Mark::LateNewsOfTheOld);
            }
            self.release(pipe, attachment);
            return self.settle(pipe);
        }
        assert!(!cancelled && !refused, "an attach that is not waited for was taken");
        self.experienced(self.drivers[pipe].home, backend, Experience::Connected, pipe);
        let rx = match resume {
            Some(ResumeAnswer::Ok(seq)) => seq.0,
            Some(ResumeAnswer::New | ResumeAnswer::Refuse) | None => 0,
        };
        let first = self.drivers[pipe].model.promised(attachment).map_or(before, |first| first - 1).max(rx) + 1;
        let wrong = self.workers[worker].disowns.contains(&pipe);
        let stale = self.workers[worker].stale_ping.clone();
        let mut conn = Conn::new(pipe, first, wrong, stale, now, &self.plan, &mut self.rng);
        if numbers {
            conn.state = Some(State::new(known));
        }
        if self.calm_since.is_some() {
            conn.calm();
            if self.plan.settings.first_message_timeout.is_some() && !wrong {
                conn.say(&self.plan, &mut self.rng);
            }
        }
        if self.plan.settings.replay_delay > Duration::ZERO {
            self.marks.hit(Mark::ReplayDelayed);
        }
        self.drivers[pipe].conns.insert(attachment, conn);
        if self.calm_since.is_some() {
            self.drivers[pipe].widen_links();
        }
        if self.drivers[pipe].holds(attachment) {
            self.die_amid_a_move(pipe, attachment);
        }
        self.at(Duration::from_millis(1), Event::WorkerActs(pipe, attachment));
        self.settle(pipe);
    }

    /// Two workers hold the pipe for a moment: now and then the new one dies, or the old one, or both.
    fn die_amid_a_move(&mut self, pipe: usize, held: Attachment) {
        if !self.plan.may(Fault::WorkerCrash) || self.calm_since.is_some() {
            return;
        }
        let (new, old) = self.rng.pick(&[(true, false), (false, true), (true, true), (false, false), (false, false)]);
        let keep = self.rng.once_in(2);
        let driver = &mut self.drivers[pipe];
        if let Some(conn) = driver.conns.get_mut(&held).filter(|_| new) {
            conn.die(LinkLoss::Reset, false);
        }
        if let Some(conn) = driver.conn().filter(|_| old) {
            conn.die(LinkLoss::Reset, keep);
        }
    }

    /// A worker that remembers the pipe may say so, truthfully.
    fn draw_resume(&mut self, known: Option<u64>) -> Option<ResumeAnswer> {
        match (self.rng.below(4), known) {
            (0, Some(seq)) if self.plan.settings.replay != ReplayPolicy::None => {
                self.marks.hit(Mark::ResumedOk);
                Some(ResumeAnswer::Ok(Seq(seq)))
            }
            (1, _) => {
                self.marks.hit(Mark::ResumeNew);
                Some(ResumeAnswer::New)
            }
            (2, _) if self.calm_since.is_none() && self.rng.once_in(3) => {
                self.marks.hit(Mark::ResumeRefused);
                Some(ResumeAnswer::Refuse)
            }
            _ => None,
        }
    }
}
