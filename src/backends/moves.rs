//! How fast pipes may move from backend to backend: planned moves begin one after the other, dials wait their turn.
//!
//! Two bounds, both of the configuration's `[reattach]`: a pool begins at most `moves_per_second` planned moves, with jitter, so that
//! the others see a trickle instead of a herd; and at most `dials_at_once` dials of one backend run at a time, whether
//! the pipes were moved or lost their worker. Invariant: a drain's deadline goes before the pace, not before the dials.

use super::registry::Registry;
use super::{Backends, Bounds};
use holdline_core::ids::BackendKey;
use holdline_core::pool::Backend;
use holdline_core::settings::MoveOrder;
use holdline_core::time::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// The part of the time until a drain's deadline in which its moves begin; the rest is for them to end.
const DEADLINE_SHARE: f64 = 0.8;

/// When the next planned move of a pool may begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    next: Time,
}

impl Pace {
    /// The beginning of one more move, `interval` after the one before it; `jitter`, from 0 to 1, delays it within its interval.
    fn slot(&mut self, interval: Duration, jitter: f64, now: Time) -> Time {
        let slot = self.next.max(now);
        self.next = slot + interval;
        slot + interval.mul_f64(jitter)
    }
}

/// One permit for each of so many dials; zero is no limit.
pub(super) fn permits(dials_at_once: u32) -> Arc<Semaphore> {
    let permits = if dials_at_once == 0 { Semaphore::MAX_PERMITS } else { dials_at_once as usize };
    Arc::new(Semaphore::new(permits))
}

impl Backends {
    /// When a pipe may begin to leave `backend`. Each question takes the next place in the pool's row.
    #[must_use]
    pub fn move_slot(&self, backend: BackendKey) -> Instant {
        self.with(|registry, _| {
            let at = registry.move_slot(backend, rand::random_range(0.0..1.0));
            registry.clock.instant(at)
        })
    }

    /// How a pipe is moved off a backend of `pool`.
    #[must_use]
    pub fn move_order(&self, pool: &str) -> MoveOrder {
        self.with(|registry, _| registry.pools.get(pool).map(|entry| entry.move_order)).unwrap_or_default()
    }

    /// Whether `backend` may take a pipe now.
    #[must_use]
    pub fn is_eligible(&self, backend: BackendKey) -> bool {
        self.with(|registry, _| registry.backend(backend).is_some_and(Backend::is_eligible))
    }
}

impl Registry {
    pub(super) fn bound(&mut self, bounds: Bounds) {
        self.deaths.limit(bounds.deaths_per_window);
        if bounds.dials_at_once != self.bounds.dials_at_once {
            // Dials that run hold a permit of before; the new bound holds once they have ended.
            self.records.values_mut().for_each(|record| record.dials = permits(bounds.dials_at_once));
        }
        self.bounds = bounds;
    }

    fn move_slot(&mut self, key: BackendKey, jitter: f64) -> Time {
        let (now, interval) = (self.clock.now(), self.move_interval(key));
        // A backend that is gone from the tables paces its pipes no more.
        self.pool_of(key).map_or(now, |entry| entry.pace.slot(interval, jitter, now))
    }

    /// From one move off this backend to the next.
    fn move_interval(&self, key: BackendKey) -> Duration {
        let usual = match self.bounds.moves_per_second {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        let deadline = self.records.get(&key).and_then(|record| record.leave_deadline);
        let pipes = self.backend(key).map_or(0, Backend::pipes);
        deadline.map_or(usual, |deadline| {
            usual.min(deadline.since(self.clock.now()).mul_f64(DEADLINE_SHARE) / pipes.max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn moves_begin_an_interval_apart_and_a_pause_is_not_made_up_for() {
        let mut pace = Pace::default();
        let slots: Vec<_> = [5, 5, 5, 100, 100].map(|now| pace.slot(INTERVAL, 0.0, at(now))).to_vec();
        assert_eq!(slots, [at(5), at(15), at(25), at(100), at(110)]);
    }

    #[test]
    fn jitter_stays_within_the_interval() {
        let mut pace = Pace::default();
        assert_eq!(pace.slot(INTERVAL, 0.5, at(0)), at(5));
        assert_eq!(pace.slot(INTERVAL, 0.0, at(0)), at(10), "and delays nobody else");
    }

    #[test]
    fn no_limit_is_no_wait() {
        let mut pace = Pace::default();
        assert!((0..10).all(|_| pace.slot(Duration::ZERO, 0.9, at(7)) == at(7)));
    }
}
