//! The process's clock: where the core's [`Time`] comes from.

use holdline_core::time::Time;
use std::time::{Duration, SystemTime};
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

    /// A clock that shows `time` now, as that of another process does; nothing if this machine has not run for so long.
    #[must_use]
    pub fn showing(time: Time) -> Option<Self> {
        let age = time.since(Time::ZERO);
        let booted = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let booted = Duration::from_secs(u64::try_from(booted.tv_sec).unwrap_or(0) + 1);
        (age <= booted).then(|| Instant::now().checked_sub(age))?.map(Self)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_by_another_goes_on_from_there() {
        let time = Time::ZERO + Duration::from_secs(3);
        let clock = Clock::showing(time).unwrap();
        assert!(clock.now() >= time && clock.instant(time) <= Instant::now());
        assert!(Clock::showing(Time::from_micros(u64::MAX)).is_none(), "no machine has run for so long");
    }
}
