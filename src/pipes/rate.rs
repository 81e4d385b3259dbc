//! How many bytes of messages a pipe has moved lately, in both directions together.
//!
//! Bytes are counted into spans of [`RATE_WINDOW`]. The rate at a moment is that of the span that fills now, and of as much of
//! the span before as lies within one window. The pipe's own task writes, once in a turn; a reader that comes between two
//! of the numbers may count one span twice or not at all, which the next look mends.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use holdline_core::time::Time;

/// The time that a rate is taken over.
const RATE_WINDOW: Duration = Duration::from_secs(5);

const WINDOW_MICROS: u64 = RATE_WINDOW.as_secs() * 1_000_000;

/// What one pipe has moved within the last two spans.
#[derive(Debug, Default)]
pub struct Rate {
    /// The span that fills, counted in windows from the start of the clock.
    span: AtomicU64,
    /// Bytes in it.
    filling: AtomicU64,
    /// Bytes in the span before it.
    before: AtomicU64,
}

impl Rate {
    /// Counts bytes that were moved just now.
    pub(crate) fn moved(&self, bytes: u64, now: Time) {
        let (filling, before) = self.at(now);
        self.span.store(now.as_micros() / WINDOW_MICROS, Relaxed);
        self.filling.store(filling + bytes, Relaxed);
        self.before.store(before, Relaxed);
    }

    /// Bytes a second over the last [`RATE_WINDOW`].
    #[must_use]
    pub fn bytes_per_second(&self, now: Time) -> u64 {
        let (filling, before) = self.at(now);
        let within = WINDOW_MICROS - now.as_micros() % WINDOW_MICROS;
        let of_before = u128::from(before) * u128::from(within) / u128::from(WINDOW_MICROS);
        let bytes = filling.saturating_add(u64::try_from(of_before).unwrap_or(u64::MAX));
        bytes / RATE_WINDOW.as_secs()
    }

    /// Bytes in the span of `now`, and in the one before it.
    fn at(&self, now: Time) -> (u64, u64) {
        let age = (now.as_micros() / WINDOW_MICROS).saturating_sub(self.span.load(Relaxed));
        match age {
            0 => (self.filling.load(Relaxed), self.before.load(Relaxed)),
            1 => (0, self.filling.load(Relaxed)),
            _ => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_flow_has_its_rate_wherever_it_is_looked_at() {
        let rate = Rate::default();
        for tenth in 0..200 {
            rate.moved(100, at(tenth * 100));
        }
        for millis in [19_900, 20_000, 21_000] {
            let per_second = rate.bytes_per_second(at(millis));
            let expected = if millis == 21_000 { 800 } else { 1000 };
            assert!(per_second.abs_diff(expected) <= 20, "{per_second} at {millis}");
        }
    }

    #[test]
    fn a_burst_is_forgotten_within_two_windows() {
        let rate = Rate::default();
        assert_eq!(rate.bytes_per_second(at(0)), 0);
        rate.moved(5000, at(1000));
        assert_eq!(rate.bytes_per_second(at(1000)), 1000);
        assert_eq!(rate.bytes_per_second(at(7500)), 500, "half of its span is within the window");
        assert_eq!(rate.bytes_per_second(at(10_000)), 0);
        rate.moved(50, at(60_000));
        assert_eq!(rate.bytes_per_second(at(60_000)), 10, "what was before the silence is gone");
    }
}
