//! How often a pipe may be attached again to a worker that kills its attaches: a strict sliding window per pipe and backend.
//!
//! Only an attach that died young counts: not a dial that failed, not a planned move, and not what happens to other pipes.
//! A worker that dies under all its pipes is ejected by its health; this book is about one that dies under one pipe.
//!
//! Invariant: every death that counts stands once in `recent`, in order of time, and once in its pair's list.

use crate::ids::{BackendKey, PipeId};
use crate::time::Time;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The span over which deaths are counted.
pub const DEATH_WINDOW: Duration = Duration::from_secs(60);

/// Deaths remembered at most; beyond, the oldest is forgotten early, which errs on the side of dialling.
pub const REMEMBERED_DEATHS_MAX: usize = 65_536;

/// Default of young deaths per window, pipe and backend.
pub const DEATHS_PER_WINDOW: u32 = 15;

type Pair = (PipeId, BackendKey);

/// The young deaths of the last window.
#[derive(Debug)]
pub struct YoungDeaths {
    per_window: u32,
    recent: VecDeque<(Time, Pair)>,
    pairs: HashMap<Pair, VecDeque<Time>>,
}

impl YoungDeaths {
    /// Allows `per_window` deaths in any `DEATH_WINDOW`; zero is no limit.
    #[must_use]
    pub fn new(per_window: u32) -> Self {
        Self { per_window, recent: VecDeque::new(), pairs: HashMap::new() }
    }

    /// Changes the limit; the deaths so far still count.
    pub const fn limit(&mut self, per_window: u32) {
        self.per_window = per_window;
    }

    /// Counts an attach of `pipe` to `backend` that died young.
    pub fn died(&mut self, pipe: PipeId, backend: BackendKey, now: Time) {
        if self.per_window == 0 {
            return;
        }
        self.forget(now);
        self.pairs.entry((pipe, backend)).or_default().push_back(now);
        self.recent.push_back((now, (pipe, backend)));
    }

    /// Until when `backend` has killed so many attaches of `pipe` that it must not get another one; nothing if it may.
    pub fn held_until(&mut self, pipe: PipeId, backend: BackendKey, now: Time) -> Option<Time> {
        if self.per_window == 0 || self.recent.is_empty() {
            return None;
        }
        self.forget(now);
        let times = self.pairs.get(&(pipe, backend))?;
        // The one that has to be forgotten first for the number to fall below the limit.
        let surplus = times.len().checked_sub(self.per_window as usize)?;
        times.get(surplus).map(|&death| death + DEATH_WINDOW)
    }

    /// Deaths remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recent.len()
    }

    /// Whether no death is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }

    fn forget(&mut self, now: Time) {
        while let Some((at, _)) = self.recent.front() {
            if self.recent.len() < REMEMBERED_DEATHS_MAX && now < *at + DEATH_WINDOW {
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

    const fn pipe(number: u128) -> PipeId {
        PipeId::from_bytes(number.to_be_bytes())
    }

    /// Attaches once if that is allowed, and dies of it.
    fn attach_and_die(deaths: &mut YoungDeaths, number: u128, second: u64) -> Result<(), Time> {
        if let Some(until) = deaths.held_until(pipe(number), BACKEND, at(second)) {
            return Err(until);
        }
        deaths.died(pipe(number), BACKEND, at(second));
        Ok(())
    }

    #[test]
    fn ib_11_no_window_of_a_minute_holds_more_deaths_of_one_pipe_than_allowed() {
        let mut deaths = YoungDeaths::new(15);
        let died: Vec<u64> = (0..180).filter(|&second| attach_and_die(&mut deaths, 1, second).is_ok()).collect();
        for start in 0..120 {
            let within = died.iter().filter(|&&second| (start..start + 60).contains(&second)).count();
            assert!(within <= 15, "{within} from {start}");
        }
        assert_eq!(died.len(), 45, "and what is allowed is used");
    }

    #[test]
    fn a_refusal_names_the_time_of_the_next_attach_and_costs_nothing() {
        let mut deaths = YoungDeaths::new(2);
        assert_eq!(attach_and_die(&mut deaths, 1, 0), Ok(()));
        assert_eq!(attach_and_die(&mut deaths, 1, 5), Ok(()));
        for _ in 0..3 {
            assert_eq!(attach_and_die(&mut deaths, 1, 10), Err(at(60)));
        }
        assert_eq!(attach_and_die(&mut deaths, 1, 60), Ok(()));
        assert_eq!(attach_and_die(&mut deaths, 1, 60), Err(at(65)));
    }

    #[test]
    fn pipes_and_backends_are_counted_apart() {
        let mut deaths = YoungDeaths::new(1);
        for number in 0..300 {
            assert_eq!(attach_and_die(&mut deaths, number, 0), Ok(()), "a crash that takes 300 pipes along holds none");
        }
        assert_eq!(attach_and_die(&mut deaths, 7, 1), Err(at(60)));
        assert_eq!(deaths.held_until(pipe(7), BackendKey(2), at(1)), None);
    }

    #[test]
    fn a_changed_limit_counts_what_was_before() {
        let mut deaths = YoungDeaths::new(2);
        attach_and_die(&mut deaths, 1, 0).unwrap();
        attach_and_die(&mut deaths, 1, 3).unwrap();
        deaths.limit(3);
        assert_eq!(attach_and_die(&mut deaths, 1, 5), Ok(()));
        deaths.limit(1);
        assert_eq!(attach_and_die(&mut deaths, 1, 6), Err(at(65)), "until the last of the three is forgotten");
    }

    #[test]
    fn zero_is_no_limit() {
        let mut deaths = YoungDeaths::new(0);
        assert!((0..100).all(|_| attach_and_die(&mut deaths, 1, 0).is_ok()));
        assert!(deaths.is_empty());
    }

    #[test]
    fn a_minute_later_nothing_is_remembered() {
        let mut deaths = YoungDeaths::new(15);
        for number in 0..100 {
            deaths.died(pipe(number), BACKEND, at(0));
        }
        deaths.died(pipe(100), BACKEND, at(60));
        assert_eq!((deaths.len(), deaths.pairs.len()), (1, 1));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_death_is_forgotten_first() {
        let mut deaths = YoungDeaths::new(1);
        deaths.died(pipe(0), BACKEND, at(0));
        for number in 1..REMEMBERED_DEATHS_MAX {
            deaths.died(pipe(number as u128), BACKEND, at(1));
        }
        assert_eq!(deaths.len(), REMEMBERED_DEATHS_MAX);
        assert_eq!(deaths.held_until(pipe(0), BACKEND, at(2)), None, "forgotten early");
        assert_eq!(deaths.len(), REMEMBERED_DEATHS_MAX - 1);
    }
}
