//! The supervisor's decisions about one group of workers: which process to start, to give pipes to, to empty and to stop.
//!
//! A caller says what happened (a process became ready, was emptied, ended; what it uses; what an operator wants) and then
//! asks [`Group::settle`] what to do now and [`Group::deadline`] when to ask again. What is ready is the caller's finding: the
//! health check of the pool, never that a process exists.
//!
//! Invariants: a worker that is to be replaced keeps its pipes until another is ready ([`Replace::First`]), or its
//! successor waits until its process has ended ([`Replace::After`]); only one worker of a group is being replaced at a time; a
//! process that failed is followed by another no sooner than its back-off says; an index belongs to one process at a time.

mod settings;
mod worker;

pub use settings::{GroupSettings, Limits, Recycle, Replace, StartReason};
pub use worker::{Phase, Worker, WorkerKey};

use crate::backoff::{self, Draw};
use crate::time::{Time, earliest};
use std::time::Duration;

/// After so long as a ready process, its earlier failures are forgotten.
pub const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// Failures in a row that make a crash loop.
pub const CRASH_LOOP_FAILURES: u32 = 5;

/// How long past its own deadline the emptying of a worker is waited for.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// What the caller has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start a process, and let it take no pipes yet. To be answered by [`Group::start_failed`] if that cannot be done.
    Start {
        /// What it is called from now on.
        worker: WorkerKey,
        /// Its place in the group, from 1.
        index: u32,
        /// What it is started for.
        reason: StartReason,
    },
    /// Give it pipes.
    Serve(WorkerKey),
    /// Give it no more pipes and have those that it has leave. To be answered by [`Group::emptied`].
    Empty {
        /// Which one.
        worker: WorkerKey,
        /// After which pipes that are still there are taken away.
        within: Duration,
    },
    /// Ask its process to end.
    Stop(WorkerKey),
    /// End its process and all that it has started.
    Kill(WorkerKey),
    /// Say that a worker is being replaced.
    SayRecycled(WorkerKey, Recycle),
    /// Say that it did not become ready in time.
    SayNeverReady(WorkerKey),
    /// Say that processes of this index fail again and again.
    SayCrashLoop {
        /// The index.
        index: u32,
        /// How often in a row.
        failures: u32,
        /// How long until the next is started.
        wait: Duration,
    },
}

/// A process that failed and will be followed by another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vacancy {
    /// The place that is kept for it.
    pub index: u32,
    /// Failures in a row.
    pub failures: u32,
    /// When it is due.
    pub at: Time,
}

/// The workers of one group.
#[derive(Debug)]
pub struct Group {
    settings: GroupSettings,
    /// In the order of their starts.
    workers: Vec<Worker>,
    vacancies: Vec<Vacancy>,
    last_key: u64,
    draw: Draw,
    /// One that was due has ended, and what takes its place was not started.
    owed: bool,
    stopping: bool,
    actions: Vec<Action>,
}

impl Group {
    /// A group without a process; `seed` decides its jitter.
    #[must_use]
    pub fn new(settings: GroupSettings, seed: u64) -> Self {
        let (workers, vacancies, actions) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, workers, vacancies, last_key: 0, draw: Draw::new(seed), owed: false, stopping: false, actions }
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// The workers, in the order of their starts.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter()
    }

    /// The worker of this key.
    #[must_use]
    pub fn worker(&self, key: WorkerKey) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.key() == key)
    }

    /// Those that failed and will be followed.
    #[must_use]
    pub fn vacancies(&self) -> &[Vacancy] {
        &self.vacancies
    }

    /// Whether there is no process left, and none will be started.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.workers.is_empty() && (self.stopping || self.settings.total() == 0)
    }

    /// Changes the settings; those that run are replaced one by one if they are `outdated`.
    pub fn configure(&mut self, settings: GroupSettings, outdated: bool) {
        self.settings = settings;
        if outdated {
            self.vacancies.clear();
            self.all_due(Recycle::Config);
        }
    }

    /// Has so many workers serve.
    pub const fn scale(&mut self, count: u32) {
        self.settings.count = count;
    }

    /// Replaces all that run, one after another; how many.
    pub fn restart(&mut self) -> usize {
        // An operator who has mended what failed does not wait for a back-off.
        for vacancy in &mut self.vacancies {
            (vacancy.failures, vacancy.at) = (0, Time::ZERO);
        }
        self.all_due(Recycle::Restart)
    }

    /// Replaces one; false if it is on its way out already.
    pub fn recycle(&mut self, key: WorkerKey) -> bool {
        self.get_mut(key).is_some_and(|worker| worker.make_due(Recycle::Request))
    }

    /// Ends them all without replacement, where no pipe has to be thought of any more.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.vacancies.clear();
    }

    /// Ends them all at once.
    pub fn kill(&mut self) {
        self.stop();
        for worker in &mut self.workers {
            if worker.kill() {
                self.actions.push(Action::Kill(worker.key()));
            }
        }
    }

    /// The pool's health check finds it.
    pub fn ready(&mut self, key: WorkerKey, now: Time) {
        if let Some(worker) = self.get_mut(key) {
            worker.become_ready(now);
        }
    }

    /// No pipe and no request is on it any more, and none will come.
    pub fn emptied(&mut self, key: WorkerKey, now: Time) {
        let until = now + self.settings.stop_timeout;
        if let Some(worker) = self.get_mut(key)
            && worker.phase() == Phase::Draining
            && worker.stop(until)
        {
            self.actions.push(Action::Stop(key));
        }
    }

    /// What it uses and how many pipes it has had by now.
    pub fn measured(&mut self, key: WorkerKey, rss_bytes: Option<u64>, pipes: u64) {
        if let Some(worker) = self.get_mut(key) {
            worker.measured(rss_bytes, pipes);
        }
    }

    /// Its process could not be started.
    pub fn start_failed(&mut self, key: WorkerKey, now: Time) {
        self.ended(key, now);
    }

    /// Its process has ended, for whatever reason; true if it should not have.
    pub fn ended(&mut self, key: WorkerKey, now: Time) -> bool {
        let Some(at) = self.workers.iter().position(|worker| worker.key() == key) else {
            return false;
        };
        let worker = self.workers.remove(at);
        let unexpected = !worker.is_leaving();
        self.owed |= self.settings.replace == Replace::After && worker.due().is_some() && !unexpected;
        if !self.stopping && (unexpected || worker.has_failed()) {
            self.failed(&worker, now);
        }
        unexpected
    }

    fn failed(&mut self, worker: &Worker, now: Time) {
        let failures = worker.failures_before(now) + 1;
        let (min, max) = (self.settings.backoff_min, self.settings.backoff_max);
        let wait = backoff::wait(failures - 1, min, max, &mut self.draw);
        self.vacancies.push(Vacancy { index: worker.index(), failures, at: now + wait });
        if failures == CRASH_LOOP_FAILURES {
            self.actions.push(Action::SayCrashLoop { index: worker.index(), failures, wait });
        }
    }

    /// What to do now, in this order.
    pub fn settle(&mut self, now: Time) -> Vec<Action> {
        self.time_out(now);
        if self.stopping {
            self.stop_all(now);
        } else {
            self.find_due(now);
            self.promote();
            self.replace(now);
            self.dismiss(now);
            self.fill(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// When to ask again, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let workers = self.workers.iter().filter_map(Worker::deadline).min();
        earliest(workers, self.vacancies.iter().map(|vacancy| vacancy.at).min())
    }

    /// Those whose time is up are helped on to what comes next.
    fn time_out(&mut self, now: Time) {
        let until = now + self.settings.stop_timeout;
        for worker in self.workers.iter_mut().filter(|worker| worker.is_late(now)) {
            match worker.phase() {
                Phase::Starting => {
                    self.actions.push(Action::SayNeverReady(worker.key()));
                    worker.fail();
                    worker.stop(until);
                    self.actions.push(Action::Stop(worker.key()));
                }
                Phase::Draining => {
                    worker.stop(until);
                    self.actions.push(Action::Stop(worker.key()));
                }
                Phase::Stopping => {
                    worker.kill();
                    self.actions.push(Action::Kill(worker.key()));
                }
                Phase::Standby | Phase::Serving | Phase::Killed => {}
            }
        }
    }

    fn stop_all(&mut self, now: Time) {
        let until = now + self.settings.stop_timeout;
        for worker in &mut self.workers {
            if worker.stop(until) {
                self.actions.push(Action::Stop(worker.key()));
            }
        }
    }

    fn find_due(&mut self, now: Time) {
        for worker in &mut self.workers {
            worker.exhausted(now);
        }
    }

    /// Ready workers take the places that are free, those that are to be replaced last.
    fn promote(&mut self) {
        while self.count(Phase::Serving) < self.settings.count() {
            let standby = |worker: &&mut Worker| worker.phase() == Phase::Standby;
            let Some(worker) = self.workers.iter_mut().filter(standby).min_by_key(|worker| worker.due().is_some())
            else {
                return;
            };
            worker.serve();
            self.actions.push(Action::Serve(worker.key()));
        }
    }

    /// Begins to replace one worker that is due, if none is being replaced.
    fn replace(&mut self, now: Time) {
        self.drop_outdated(now);
        if self.is_replacing() {
            return;
        }
        let due = |worker: &&Worker| worker.phase() == Phase::Serving && worker.due().is_some();
        let Some(old) = self.workers.iter().find(due).map(Worker::key) else {
            return;
        };
        match self.settings.replace {
            Replace::First => {
                let fresh = |worker: &&mut Worker| worker.phase() == Phase::Standby && worker.due().is_none();
                let Some(next) = self.workers.iter_mut().find(fresh) else {
                    return;
                };
                next.serve();
                self.actions.push(Action::Serve(next.key()));
                self.empty(old, now);
            }
            // The one before it serves again before the next one goes.
            Replace::After if self.count(Phase::Serving) < self.settings.count() => {}
            Replace::After => self.empty(old, now),
        }
    }

    /// Those that are due and have no pipes need no replacement to go.
    fn drop_outdated(&mut self, now: Time) {
        let without_pipes: Vec<_> = self
            .workers
            .iter()
            .filter(|worker| worker.due().is_some() && matches!(worker.phase(), Phase::Starting | Phase::Standby))
            .map(Worker::key)
            .collect();
        for key in without_pipes {
            self.empty(key, now);
        }
    }

    /// Whether a worker that was due is on its way out.
    fn is_replacing(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_leaving() && worker.due().is_some() && worker.has_served())
    }

    /// Takes away what is more than is wanted: waiting ones first, then those that serve, then those that have no pipes.
    fn dismiss(&mut self, now: Time) {
        while !self.vacancies.is_empty() && self.live() + self.vacancies.len() > self.wanted() {
            self.vacancies.pop();
        }
        while self.count(Phase::Serving) > self.settings.count() {
            let serving = |worker: &&Worker| worker.phase() == Phase::Serving;
            let last = self.workers.iter().filter(serving).max_by_key(|worker| worker.index()).map(Worker::key);
            let Some(key) = last else { return };
            self.let_go(key, now);
        }
        while self.live() > self.wanted() {
            let idle = |worker: &&Worker| matches!(worker.phase(), Phase::Starting | Phase::Standby);
            let rank = |worker: &&Worker| (worker.phase() == Phase::Standby, std::cmp::Reverse(worker.index()));
            let Some(key) = self.workers.iter().filter(idle).min_by_key(rank).map(Worker::key) else {
                return;
            };
            self.let_go(key, now);
        }
    }

    /// Empties one that gets no replacement.
    fn let_go(&mut self, key: WorkerKey, now: Time) {
        if let Some(worker) = self.get_mut(key) {
            worker.not_due();
        }
        self.empty(key, now);
    }

    /// Starts as many as are missing.
    fn fill(&mut self, now: Time) {
        while self.live() + self.failing() + self.waiting(now) < self.wanted() {
            let vacancy = self.vacancies.iter().position(|vacancy| vacancy.at <= now);
            let (index, failures, reason) = match vacancy.map(|at| self.vacancies.remove(at)) {
                Some(vacancy) => (vacancy.index, vacancy.failures, StartReason::Failure),
                None => (self.free_index(), 0, self.start_reason()),
            };
            self.start(index, failures, reason, now);
        }
    }

    fn start(&mut self, index: u32, failures: u32, reason: StartReason, now: Time) {
        self.last_key += 1;
        let worker = WorkerKey(self.last_key);
        let limits = self.settings.limits.drawn(&mut self.draw);
        self.workers.push(Worker::new(worker, index, failures, limits, now, now + self.settings.start_timeout));
        self.actions.push(Action::Start { worker, index, reason });
        self.owed = false;
    }

    /// What a process is started for that follows no failure.
    fn start_reason(&self) -> StartReason {
        if self.workers.iter().any(|worker| worker.due().is_some()) || self.owed {
            StartReason::Replacement
        } else {
            StartReason::Count
        }
    }

    fn empty(&mut self, key: WorkerKey, now: Time) {
        let within = self.settings.drain_timeout;
        let until = now + within + DRAIN_SLACK;
        let Some(worker) = self.get_mut(key) else {
            return;
        };
        let due = worker.due().filter(|_| worker.has_served());
        if worker.empty(until) {
            self.actions.extend(due.map(|why| Action::SayRecycled(key, why)));
            self.actions.push(Action::Empty { worker: key, within });
        }
    }

    /// Processes that there should be: those that serve, those that stand by, and one that takes the place of a due one.
    fn wanted(&self) -> usize {
        let standby = match self.settings.replace {
            Replace::First if self.awaits_replacement() => self.settings.standby.max(1),
            Replace::First | Replace::After => self.settings.standby,
        };
        (self.settings.count + standby) as usize
    }

    fn awaits_replacement(&self) -> bool {
        let due = |worker: &Worker| worker.phase() == Phase::Serving && worker.due().is_some();
        !self.is_replacing() && self.workers.iter().any(due)
    }

    /// Processes that count as there. One that leaves counts where its successor has to wait for its end.
    fn live(&self) -> usize {
        let waits = self.settings.replace == Replace::After;
        self.workers.iter().filter(|worker| !worker.is_leaving() || waits).count()
    }

    /// Those that are stopped because they never became ready: their successors wait for a back-off.
    fn failing(&self) -> usize {
        let counted = self.settings.replace == Replace::After;
        self.workers.iter().filter(|worker| worker.has_failed() && !counted).count()
    }

    /// Vacancies that are not due yet.
    fn waiting(&self, now: Time) -> usize {
        self.vacancies.iter().filter(|vacancy| vacancy.at > now).count()
    }

    fn free_index(&self) -> u32 {
        let taken = |index: u32| {
            self.workers.iter().any(|worker| worker.index() == index)
                || self.vacancies.iter().any(|vacancy| vacancy.index == index)
        };
        (1..).find(|&index| !taken(index)).unwrap_or(u32::MAX)
    }

    fn count(&self, phase: Phase) -> usize {
        self.workers.iter().filter(|worker| worker.phase() == phase).count()
    }

    fn all_due(&mut self, why: Recycle) -> usize {
        self.workers.iter_mut().map(|worker| worker.make_due(why)).filter(|&due| due).count()
    }

    fn get_mut(&mut self, key: WorkerKey) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.key() == key)
    }
}

#[cfg(test)]
mod tests;
