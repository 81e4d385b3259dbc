//! The process's clock: where the core's [`Time`] comes from.

use holdline_core::time::Time;
use std::time::SystemTime;
use tokio::time::Instant;

/// A monotonic clock whose origin is its own start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts a clock.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time now.
    #[must_use]
    pub fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant at `time`, for a timer; never before it, so that a timer that fires has something to do.
    #[must_use]
    pub fn instant(self, time: Time) -> Instant {
        self.0 + time.since(Time::ZERO)
    }

    /// What a clock on the wall shows, showed or will show at `time`, unless it is set.
    #[must_use]
    pub fn wall(self, time: Time) -> SystemTime {
        let now = self.now();
        if time >= now { SystemTime::now() + (time - now) } else { SystemTime::now() - (now - time) }
    }
}
