//! How many connections an agent keeps parked, and when it opens another.
//!
//! Each one that is taken is replaced at once. One that was lost or refused is not: the proxy may be gone, or in trouble, so
//! the next try waits, each time longer and by chance, and goes alone until one succeeds. While the worker does
//! not listen, and once the agent drains, none is opened.
//!
//! ```text
//!   Open ── lost, refused ──▶ Waiting ── its time ──▶ Trying (one) ── parked ──▶ Open
//!                                ▲                        │
//!                                └──────── refused ───────┘
//! ```
//!
//! Invariant: parked ones and those that are being opened are never more than [`Bounds::parked_max`].

use std::time::Duration;

use crate::backoff::{self, Draw};
use crate::time::Time;

/// The shortest and the longest wait after a failure.
pub const WAIT_MIN: Duration = Duration::from_millis(100);
/// The longest one.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// How many are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Until the proxy says how many it wants.
    pub parked: u32,
    /// At most, however many it wants.
    pub parked_max: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Waiting { until: Time, round: u32 },
    Trying { round: u32 },
}

/// What an agent knows of its parked connections.
#[derive(Debug)]
pub struct Keeping {
    bounds: Bounds,
    phase: Phase,
    want: u32,
    parked: u32,
    opening: u32,
    worker_listens: bool,
    drains: bool,
    draw: Draw,
}

impl Keeping {
    /// None parked, and the worker not seen yet.
    #[must_use]
    pub const fn new(bounds: Bounds, seed: u64) -> Self {
        Self {
            bounds,
            phase: Phase::Open,
            want: bounds.parked,
            parked: 0,
            opening: 0,
            worker_listens: false,
            drains: false,
            draw: Draw::new(seed),
        }
    }

    /// Parked connections.
    #[must_use]
    pub const fn parked(&self) -> u32 {
        self.parked
    }

    /// Whether the last look found the worker listening.
    #[must_use]
    pub const fn worker_listens(&self) -> bool {
        self.worker_listens
    }

    /// How many to open now; they count as being opened from then on.
    pub fn open(&mut self, now: Time) -> u32 {
        if let Phase::Waiting { until, round } = self.phase
            && now >= until
        {
            self.phase = Phase::Trying { round };
        }
        let missing = self.target().saturating_sub(self.parked + self.opening);
        let opened = match self.phase {
            Phase::Open => missing,
            Phase::Trying { .. } => missing.min(1_u32.saturating_sub(self.opening)),
            Phase::Waiting { .. } => 0,
        };
        self.opening += opened;
        opened
    }

    /// When to ask [`Keeping::open`] again, if nothing happens before.
    #[must_use]
    pub const fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Waiting { until, .. } if self.worker_listens && !self.drains => Some(until),
            Phase::Waiting { .. } | Phase::Open | Phase::Trying { .. } => None,
        }
    }

    /// One that was being opened is parked.
    pub const fn is_parked(&mut self) {
        self.opening = self.opening.saturating_sub(1);
        self.parked += 1;
        self.phase = Phase::Open;
    }

    /// One that was being opened was refused, or could not be opened.
    pub fn is_refused(&mut self, now: Time) {
        self.opening = self.opening.saturating_sub(1);
        self.back_off(now);
    }

    /// A parked one was taken.
    pub const fn is_taken(&mut self) {
        self.parked = self.parked.saturating_sub(1);
    }

    /// A parked one was lost.
    pub fn is_lost(&mut self, now: Time) {
        self.parked = self.parked.saturating_sub(1);
        self.back_off(now);
    }

    /// A parked one was closed by the agent itself.
    pub const fn is_closed(&mut self) {
        self.parked = self.parked.saturating_sub(1);
    }

    /// The proxy wants so many.
    pub const fn wants(&mut self, count: u32) {
        self.want = count;
    }

    /// Whether the worker listens.
    pub const fn set_worker(&mut self, listens: bool) {
        self.worker_listens = listens;
    }

    /// Opens none from now on.
    pub const fn drain(&mut self) {
        self.drains = true;
    }

    fn target(&self) -> u32 {
        if self.drains || !self.worker_listens {
            return 0;
        }
        self.want.min(self.bounds.parked_max)
    }

    fn back_off(&mut self, now: Time) {
        let round = match self.phase {
            Phase::Open => 0,
            Phase::Trying { round } => round + 1,
            // Those that were on their way when it began are no further failure.
            Phase::Waiting { .. } => return,
        };
        let until = now + backoff::wait(round, WAIT_MIN, WAIT_MAX, &mut self.draw);
        self.phase = Phase::Waiting { until, round };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { parked: 8, parked_max: 20 };

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn keeping() -> Keeping {
        let mut keeping = Keeping::new(BOUNDS, 7);
        keeping.set_worker(true);
        keeping
    }

    fn full() -> Keeping {
        let mut keeping = keeping();
        for _ in 0..keeping.open(at(0)) {
            keeping.is_parked();
        }
        keeping
    }

    #[test]
    fn as_many_are_opened_as_are_missing_and_each_one_taken_is_replaced() {
        let mut keeping = keeping();
        assert_eq!(keeping.open(at(0)), 8);
        assert_eq!(keeping.open(at(0)), 0, "they are on their way");
        let mut keeping = full();
        assert_eq!((keeping.parked(), keeping.open(at(0))), (8, 0));
        keeping.is_taken();
        keeping.is_taken();
        assert_eq!(keeping.open(at(0)), 2);
    }

    #[test]
    fn what_the_proxy_wants_holds_within_the_bounds() {
        let mut keeping = full();
        keeping.wants(16);
        assert_eq!(keeping.open(at(0)), 8);
        keeping.wants(1000);
        assert_eq!(keeping.open(at(0)), 4, "20 at most");
        let mut keeping = full();
        keeping.wants(4);
        keeping.is_taken();
        assert_eq!(keeping.open(at(0)), 0, "what is too many is not replaced");
    }

    #[test]
    fn after_a_loss_one_try_goes_alone_and_each_wait_may_be_longer() {
        let mut keeping = full();
        for _ in 0..8 {
            keeping.is_lost(at(0));
        }
        assert_eq!(keeping.open(at(0)), 0);
        let (mut now, mut longest) = (Time::ZERO, Duration::ZERO);
        for round in 0..12_u32 {
            let until = keeping.deadline().unwrap();
            let ceiling = (WAIT_MIN * (1 << round)).min(WAIT_MAX);
            assert!(until.since(now) <= ceiling && until.since(now) >= ceiling / 10, "{round}");
            longest = longest.max(until.since(now));
            now = until;
            assert_eq!(keeping.open(now), 1);
            assert_eq!(keeping.open(now), 0);
            keeping.is_refused(now);
        }
        assert!(longest > Duration::from_secs(1) && longest <= WAIT_MAX);
        now = keeping.deadline().unwrap();
        assert_eq!(keeping.open(now), 1);
        keeping.is_parked();
        assert_eq!(keeping.open(now), 7, "the rest follows at once");
        keeping.is_refused(now);
        assert!(keeping.deadline().unwrap().since(now) <= WAIT_MIN, "the wait begins anew");
    }

    #[test]
    fn nothing_is_opened_while_the_worker_does_not_listen_or_once_it_drains() {
        let mut keeping = full();
        keeping.set_worker(false);
        for _ in 0..8 {
            keeping.is_closed();
        }
        assert_eq!((keeping.open(at(0)), keeping.deadline()), (0, None));
        keeping.set_worker(true);
        assert_eq!(keeping.open(at(0)), 8);
        keeping.is_parked();
        keeping.drain();
        keeping.is_taken();
        assert_eq!(keeping.open(at(1)), 0);
    }
}
