//! Time as the core sees it: microseconds since an origin that the caller picked.
//!
//! The core never reads a clock. Whoever drives it passes `now` with each event, never going backwards within one
//! machine; a simulator passes virtual time. A time may lie before the origin: a pipe that another process handed over
//! can be older than the clock of this one.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in microseconds since the caller's origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(i64);

impl Time {
    /// The caller's origin.
    pub const ZERO: Self = Self(0);

    /// The time `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > i64::MAX as u64 { i64::MAX } else { micros as i64 })
    }

    /// Microseconds since the origin; zero for a time before it.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        if self.0 < 0 { 0 } else { self.0 as u64 }
    }

    /// How long ago `earlier` was; zero if it is not in the past.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(if micros < 0 { 0 } else { micros as u64 })
    }

    /// Microseconds from `origin` to here, below zero for an earlier time.
    pub(crate) const fn offset_from(self, origin: Self) -> i64 {
        self.0.saturating_sub(origin.0)
    }

    /// The time `micros` microseconds after this one, or before it if they are below zero.
    pub(crate) const fn at_offset(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// The earlier of two deadlines, where either may be absent.
#[must_use]
pub fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, None) => a,
        (None, b) => b,
    }
}
