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
        Self {
            per_window,
            recent: VecDeque::new(),
            pairs: HashMap::new(),
        }
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
