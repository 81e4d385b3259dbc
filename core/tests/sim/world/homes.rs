//! One or two Holdlines, each with a pool and a clock of its own, and how a pipe goes from one to the other.

use std::sync::Arc;
use std::time::Duration;

use holdline_core::health::HealthSettings;
use holdline_core::ids::{BackendKey, PipeId};
use holdline_core::pool::{BackendSettings, Pool, PoolSettings, Serves, YoungDeaths};
use holdline_core::time::Time;

use super::{Event, World};
use crate::driver::Clock;
use crate::marks::Mark;
use crate::plan::Fault;

/// The second Holdline's keys begin here: the same worker has another key in each.
const KEYS: u64 = 100;

/// One Holdline.
pub struct Home {
    clock: Clock,
    pub pool: Pool,
    pub deaths: YoungDeaths,
}

/// The key of `worker` in the Holdline `home`.
pub fn key_of(home: usize, worker: usize) -> BackendKey {
    BackendKey(home as u64 * KEYS + worker as u64)
}

/// The worker behind a key.
pub fn worker_of(key: BackendKey) -> usize {
    (key.0 % KEYS) as usize
}

/// Young deaths that hold a pipe back, where they are counted.
pub const YOUNG_DEATHS: u32 = 4;

/// The route key of this number.
fn route_key(number: usize) -> String {
    format!("device-{number}")
}

/// What the tables call a pipe.
pub fn id_of(pipe: usize) -> PipeId {
    PipeId::from_bytes((pipe as u128).to_be_bytes())
}

impl World {
    /// A Holdline that begins now, and knows the workers that are registered.
    pub(super) fn begin_home(&mut self, max_pipes_per_backend: u32) {
        let settings =
            PoolSettings { balance: self.plan.balance, max_pipes_per_backend, health: HealthSettings::default() };
        let deaths = YoungDeaths::new(if self.plan.may(Fault::Budget) { YOUNG_DEATHS } else { 0 });
        let clock = Clock(if self.homes.is_empty() { Time::ZERO } else { self.now });
        self.homes.push(Home { clock, pool: Pool::new(settings), deaths });
        let home = self.homes.len() - 1;
        for worker in 0..self.workers.len() {
            if self.workers[worker].registered {
                self.introduce(home, worker);
            }
        }
    }

    /// Tells one Holdline of a worker.
    pub(super) fn introduce(&mut self, home: usize, worker: usize) {
        let mut settings = self.registration(worker);
        if let Some(known) = self.homes[0].pool.get(key_of(0, worker)).filter(|_| home > 0) {
            settings.admin = known.admin();
        }
        let id: Arc<str> = format!("worker-{worker}").into();
        self.homes[home].pool.insert(key_of(home, worker), id, settings, self.now);
    }

    /// A worker that started again says anew what it calls the keys.
    pub(super) fn registers_anew(&mut self, worker: usize) {
        if !self.plan.may(Fault::Keys) {
            return;
        }
        self.workers[worker].generation += 1;
        for home in 0..self.homes.len() {
            let mut settings = self.registration(worker);
            let key = key_of(home, worker);
            if let Some(known) = self.homes[home].pool.get(key) {
                self.marks.hit(Mark::Reregistered);
                settings.admin = known.admin();
                self.homes[home].pool.update(key, settings, self.now);
            }
        }
    }

    fn registration(&self, worker: usize) -> BackendSettings {
        let keys = (0..self.plan.pipes).filter(|&pipe| self.serves(worker, pipe));
        let named = |pipe| (route_key(self.plan.key_number(pipe)).into(), self.alias(worker, pipe).map(Arc::from));
        let keys = keys.map(named);
        // A list without a key would mean any key.
        let keys = keys.chain([("device-of-no-pipe".into(), None)]);
        let serves = if self.plan.may(Fault::Keys) { Serves::from_keys(keys) } else { Serves::Any };
        BackendSettings { serves, ..BackendSettings::default() }
    }

    /// The key that a pipe asks for, where pipes have keys.
    pub(super) fn key_asked(&self, pipe: usize) -> Option<String> {
        self.plan.may(Fault::Keys).then(|| route_key(self.plan.key_number(pipe)))
    }

    /// Whether a worker takes the key of a pipe; worker 0 takes every key, so that everything can heal.
    pub(super) fn serves(&self, worker: usize, pipe: usize) -> bool {
        let key = self.plan.key_number(pipe);
        !self.plan.may(Fault::Keys) || worker == 0 || !(worker * 5 + key * 7).is_multiple_of(3)
    }

    /// What a worker calls the key of a pipe today, if it has another name for it.
    pub(super) fn alias(&self, worker: usize, pipe: usize) -> Option<String> {
        let key = self.plan.key_number(pipe);
        let renames = self.plan.may(Fault::Keys) && !(worker + key).is_multiple_of(3);
        renames.then(|| format!("session-{worker}-{}-{key}", self.workers[worker].generation))
    }

    /// One Holdline hands a pipe to the other, which takes a moment in which nothing else happens.
    pub(super) fn hand_over(&mut self, pipe: usize) {
        self.settle(pipe);
        if self.drivers[pipe].finished {
            return;
        }
        if self.homes.len() == 1 {
            let max = self.homes[0].pool.settings().max_pipes_per_backend;
            self.begin_home(max);
        }
        let (from, to) = (self.drivers[pipe].home, 1 - self.drivers[pipe].home);
        self.marks.hit(if to == 1 { Mark::HandedOver } else { Mark::HandedBack });
        let (frozen_at, clock) = (self.now, self.homes[to].clock);
        let bytes = self.drivers[pipe].frozen(frozen_at, clock, &mut self.marks);
        if self.rng.once_in(3) {
            self.marks.hit(Mark::HandOverTookTime);
            self.now = self.now + self.rng.pick(&[Duration::from_millis(5), Duration::from_secs(1)]);
        }
        let seed = self.rng.bits();
        let driver = &mut self.drivers[pipe];
        driver.home = to;
        driver.thaw(bytes, clock, frozen_at, seed, |key| key_of(to, worker_of(key)));
        self.move_places(pipe, from, to);
        let now = self.now;
        self.drivers[pipe].call(now, &mut self.marks, |_, _| ());
        if self.plan.may(Fault::FreezeLosesLink) && self.rng.once_in(3) {
            self.drivers[pipe].lose_link(now, &mut self.marks);
        }
        self.settle(pipe);
    }

    /// The place of a link that came along is counted in the new pool; a dial stays behind, and its end is late news.
    fn move_places(&mut self, pipe: usize, from: usize, to: usize) {
        let current = self.drivers[pipe].current();
        let places: Vec<_> = self.drivers[pipe].reserved.iter().map(|(&it, &key)| (it, key)).collect();
        for (attachment, old) in places {
            self.release_place(from, old);
            if Some(attachment) == current {
                let key = key_of(to, worker_of(old));
                self.drivers[pipe].reserved.insert(attachment, key);
                self.homes[to].pool.occupy(key);
                let full = self.homes[to].pool.settings().max_pipes_per_backend;
                let pipes = self.homes[to].pool.get(key).map_or(0, |backend| backend.pipes());
                if full > 0 && pipes > full {
                    self.marks.hit(Mark::HandedOverFull);
                }
            } else {
                self.drivers[pipe].reserved.remove(&attachment);
                self.cancelled.push((pipe, attachment));
                if self.plan.may(Fault::LateNews) {
                    let wait = self.rng.millis(0, 500);
                    self.at(wait, Event::LateNews(pipe, attachment));
                }
            }
        }
    }

    /// Gives a place back in one Holdline's pool.
    pub(super) fn release_place(&mut self, home: usize, backend: BackendKey) {
        if self.homes[home].pool.release(backend).is_some_and(|released| released.was_full) {
            self.pool_changed(home);
        }
    }
}
