//! How often a pipe may dial the same backend again: a strict sliding window per (dialer, backend).
//!
//! Workers of the first seed limit connections per session and address, and go silent over their limit; a proxy that
//! reattaches in a loop would use up a session's allowance. Pipes with the same route key share one allowance.
//!
//! Invariant: every dial that counts stands once in `recent`, in order of time, and once in its pair's list.

use crate::ids::{BackendKey, PipeId};
use crate::time::Time;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The span over which dials are counted.
pub const DIAL_WINDOW: Duration = Duration::from_secs(60);

/// Dials remembered at most; beyond, the oldest is forgotten early, which errs on the side of dialling.
pub const REMEMBERED_DIALS_MAX: usize = 65_536;

/// Default of dials per window, dialer and backend.
pub const DIALS_PER_WINDOW: u32 = 15;

/// Who shares an allowance.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Dialer {
    /// All pipes of a route key.
    Key(Arc<str>),
    /// A pipe without a key.
    Pipe(PipeId),
}

type Pair = (Dialer, BackendKey);

/// The dials of the last window.
#[derive(Debug)]
pub struct DialBudget {
    per_window: u32,
    recent: VecDeque<(Time, Pair)>,
    pairs: HashMap<Pair, VecDeque<Time>>,
}

impl DialBudget {
    /// Allows `per_window` dials in any `DIAL_WINDOW`; zero is no limit.
    #[must_use]
    pub fn new(per_window: u32) -> Self {
        Self { per_window, recent: VecDeque::new(), pairs: HashMap::new() }
    }

    /// Changes the allowance; what was dialled still counts.
    pub const fn limit(&mut self, per_window: u32) {
        self.per_window = per_window;
    }

    /// Counts a dial.
    ///
    /// # Errors
    /// When the allowance is used up, the time at which the next dial is allowed; nothing was counted.
    pub fn spend(&mut self, dialer: &Dialer, backend: BackendKey, now: Time) -> Result<(), Time> {
        if self.per_window == 0 {
            return Ok(());
        }
        self.forget(now);
        let pair = (dialer.clone(), backend);
        let times = self.pairs.entry(pair.clone()).or_default();
        if times.len() >= self.per_window as usize {
            return Err(times.front().map_or(now, |&oldest| oldest + DIAL_WINDOW));
        }
        times.push_back(now);
        self.recent.push_back((now, pair));
        Ok(())
    }

    /// Dials remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recent.len()
    }

    /// Whether no dial is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    fn forget(&mut self, now: Time) {
        while let Some((at, _)) = self.recent.front() {
            if self.recent.len() < REMEMBERED_DIALS_MAX && now < *at + DIAL_WINDOW {
                return;
            }
            let Some((_, pair)) = self.recent.pop_front() else {
                return;
            };
            if let Some(times) = self.pairs.get_mut(&pair) {
                times.pop_front();
                if times.is_empty() {
                    self.pairs.remove(&pair);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: BackendKey = BackendKey(1);

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn key(name: &str) -> Dialer {
        Dialer::Key(name.into())
    }

    #[test]
    fn ib_11_no_window_of_a_minute_holds_more_dials_than_allowed() {
        let mut budget = DialBudget::new(15);
        let allowed: Vec<u64> =
            (0..180).filter(|&second| budget.spend(&key("s1"), BACKEND, at(second)).is_ok()).collect();
        for start in 0..120 {
            let within = allowed.iter().filter(|&&second| (start..start + 60).contains(&second)).count();
            assert!(within <= 15, "{within} from {start}");
        }
        assert_eq!(allowed.len(), 45, "and what is allowed is used");
    }

    #[test]
    fn a_refusal_names_the_time_of_the_next_dial_and_costs_nothing() {
        let mut budget = DialBudget::new(2);
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(0)), Ok(()));
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(5)), Ok(()));
        for _ in 0..3 {
            assert_eq!(budget.spend(&key("s1"), BACKEND, at(10)), Err(at(60)));
        }
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(60)), Ok(()));
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(60)), Err(at(65)));
    }

    #[test]
    fn dialers_and_backends_have_allowances_of_their_own() {
        let mut budget = DialBudget::new(1);
        let pipe = Dialer::Pipe(PipeId::from_bytes([7; 16]));
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(0)), Ok(()));
        assert_eq!(budget.spend(&key("s2"), BACKEND, at(0)), Ok(()));
        assert_eq!(budget.spend(&pipe, BACKEND, at(0)), Ok(()));
        assert_eq!(budget.spend(&key("s1"), BackendKey(2), at(0)), Ok(()));
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(0)), Err(at(60)));
    }

    #[test]
    fn a_changed_limit_counts_what_was_dialled_before() {
        let mut budget = DialBudget::new(2);
        budget.spend(&key("s1"), BACKEND, at(0)).unwrap();
        budget.spend(&key("s1"), BACKEND, at(0)).unwrap();
        budget.limit(3);
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(1)), Ok(()));
        budget.limit(1);
        assert_eq!(budget.spend(&key("s1"), BACKEND, at(2)), Err(at(60)));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut budget = DialBudget::new(0);
        assert!((0..100).all(|_| budget.spend(&key("s1"), BACKEND, at(0)).is_ok()));
        assert!(budget.is_empty());
    }

    #[test]
    fn a_minute_later_nothing_is_remembered() {
        let mut budget = DialBudget::new(15);
        for number in 0..100 {
            budget.spend(&key(&number.to_string()), BACKEND, at(0)).unwrap();
        }
        budget.spend(&key("last"), BACKEND, at(60)).unwrap();
        assert_eq!((budget.len(), budget.pairs.len()), (1, 1));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_dial_is_forgotten_first() {
        let mut budget = DialBudget::new(1);
        budget.spend(&key("first"), BACKEND, at(0)).unwrap();
        for number in 1..REMEMBERED_DIALS_MAX {
            budget.spend(&Dialer::Pipe(PipeId::from_bytes((number as u128).to_be_bytes())), BACKEND, at(1)).unwrap();
        }
        assert_eq!(budget.len(), REMEMBERED_DIALS_MAX);
        assert_eq!(budget.spend(&key("first"), BACKEND, at(2)), Ok(()), "forgotten early");
        assert_eq!(budget.len(), REMEMBERED_DIALS_MAX);
    }
}
