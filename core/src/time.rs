//! Time as the core sees it: microseconds since an origin that the caller picked.
//!
//! The core never reads a clock. The caller passes `now` with each event, never going backwards within one
//! machine; a simulator passes virtual time. A time may lie before the origin: a pipe that another process handed over
//! can be older than the clock of this one.

use std::fmt;
use std::num::NonZeroI64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in microseconds since the caller's origin.
///
/// A pipe holds a dozen deadlines that are mostly absent: an `Option<Time>` is no larger than a `Time`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroI64);

impl Time {
    /// The caller's origin.
    pub const ZERO: Self = Self::at(0);

    /// From the origin on, one is added: zero stands for no time at all.
    const fn at(micros: i64) -> Self {
        let number = if micros < 0 { micros } else { micros.saturating_add(1) };
        match NonZeroI64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroI64::MIN),
        }
    }

    const fn micros(self) -> i64 {
        let number = self.0.get();
        if number < 0 { number } else { number - 1 }
    }

    /// The time `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self::at(if micros > i64::MAX as u64 { i64::MAX } else { micros as i64 })
    }

    /// Microseconds since the origin; zero for a time before it.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        let micros = self.micros();
        if micros < 0 { 0 } else { micros as u64 }
    }

    /// How long ago `earlier` was; zero if it is not in the past.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.micros().saturating_sub(earlier.micros());
        Duration::from_micros(if micros < 0 { 0 } else { micros as u64 })
    }

    /// Microseconds from `origin` to here, below zero for an earlier time.
    pub(crate) const fn offset_from(self, origin: Self) -> i64 {
        self.micros().saturating_sub(origin.micros())
    }

    /// The time `micros` microseconds after this one, or before it if they are below zero.
    pub(crate) const fn at_offset(self, micros: i64) -> Self {
        Self::at(self.micros().saturating_add(micros))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({})", self.micros())
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        Self::at(self.micros().saturating_add(micros))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_order_on_both_sides_of_the_origin_and_no_time_costs_nothing() {
        let times: Vec<Time> = [i64::MIN, -2, -1, 0, 1, i64::MAX - 1].map(|micros| Time::ZERO.at_offset(micros)).into();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        assert_eq!(times[4].offset_from(times[1]), 3);
        assert_eq!(times[4].as_micros(), 1);
        assert_eq!(Time::from_micros(u64::MAX).as_micros(), i64::MAX as u64 - 1);
        assert_eq!(size_of::<Option<Time>>(), size_of::<Time>());
    }
}
