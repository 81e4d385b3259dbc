//! A sliding window: how many things happened in the time that just passed.
//!
//! Up to [`MARKS_MAX`] things it is a list of when each happened, and exact. Beyond, things that happened close together
//! share a mark which stands for the latest of them, so a place may become free up to a thirty-second of the window
//! late. It is never free early: in no window of any position are more than `count` things let through.

use std::collections::VecDeque;
use std::time::Duration;

use super::Rate;
use crate::time::Time;

/// Marks that one window holds, one aside that is being begun.
pub const MARKS_MAX: u64 = 32;

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// When the last of its things may have happened.
    at: Time,
    count: u64,
}

/// What happened lately; it holds no memory when nothing did.
#[derive(Debug, Default)]
pub struct Window {
    marks: VecDeque<Mark>,
    total: u64,
}

impl Window {
    /// Counts one thing at `now`, or says how long until the next one may happen.
    ///
    /// # Errors
    /// The wait, when `rate.count` things have happened in the last `rate.per`; nothing is counted then.
    pub fn count(&mut self, rate: Rate, now: Time) -> Result<(), Duration> {
        if rate.is_off() {
            return Ok(());
        }
        self.prune(rate.per, now);
        if self.total >= rate.count {
            let oldest = self.marks.front().map_or(now, |mark| mark.at);
            return Err((oldest + rate.per).since(now));
        }
        self.total += 1;
        match self.marks.back_mut() {
            Some(last) if last.at >= now => last.count += 1,
            Some(_) | None => self.marks.push_back(Mark { at: now + grain(rate), count: 1 }),
        }
        Ok(())
    }

    /// How many more may happen now, and how long until there is one place more.
    pub fn left(&mut self, rate: Rate, now: Time) -> (u64, Duration) {
        self.prune(rate.per, now);
        let wait = self.marks.front().map_or(Duration::ZERO, |oldest| (oldest.at + rate.per).since(now));
        (rate.count.saturating_sub(self.total), wait)
    }

    /// Takes back what was counted last.
    pub fn undo(&mut self) {
        let Some(last) = self.marks.back_mut() else { return };
        self.total -= 1;
        last.count -= 1;
        if last.count == 0 {
            self.marks.pop_back();
        }
    }

    /// Whether nothing has happened in the last `per`.
    pub fn is_idle(&mut self, per: Duration, now: Time) -> bool {
        self.prune(per, now);
        self.marks.is_empty()
    }

    /// Memory behind the window, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>()
    }

    fn prune(&mut self, per: Duration, now: Time) {
        while let Some(mark) = self.marks.front().filter(|mark| mark.at + per <= now) {
            self.total -= mark.count;
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
    }
}

/// How long one mark takes in further things.
fn grain(rate: Rate) -> Duration {
    if rate.count <= MARKS_MAX { Duration::ZERO } else { rate.per / MARKS_MAX as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn twenty_a_minute_are_twenty_in_any_minute() {
        let rate = Rate::new(20, Duration::from_secs(60));
        let mut window = Window::default();
        for n in 0..20 {
            assert_eq!(window.count(rate, at(n * 1000)), Ok(()), "{n}");
        }
        assert_eq!(window.left(rate, at(20_000)), (0, Duration::from_secs(40)));
        assert_eq!(window.count(rate, at(20_000)), Err(Duration::from_secs(40)));
        assert_eq!(window.count(rate, at(59_999)), Err(Duration::from_millis(1)));
        assert_eq!(window.left(rate, at(60_000)), (1, Duration::from_secs(1)));
        assert_eq!(window.count(rate, at(60_000)), Ok(()), "the first one is a minute old");
        assert_eq!(window.count(rate, at(60_000)), Err(Duration::from_secs(1)));
    }

    #[test]
    fn what_is_refused_is_not_counted_and_what_is_taken_back_neither() {
        let rate = Rate::new(1, Duration::from_secs(1));
        let mut window = Window::default();
        assert_eq!(window.count(rate, at(0)), Ok(()));
        for millis in 1..1000 {
            assert!(window.count(rate, at(millis)).is_err());
        }
        assert_eq!(window.count(rate, at(1000)), Ok(()));
        window.undo();
        assert_eq!(window.count(rate, at(1001)), Ok(()));
        assert!(!window.is_idle(rate.per, at(2000)));
        assert!(window.is_idle(rate.per, at(2001)) && window.memory_bytes() == 0);
    }

    proptest! {
        #[test]
        fn no_window_of_any_position_holds_more_than_the_rate_and_the_wait_is_enough(
            count in 1u64..200,
            steps in proptest::collection::vec(0u64..3_000, 1..600),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1));
            let mut window = Window::default();
            let mut taken: Vec<u64> = Vec::new();
            let mut now = 0;
            for step in steps {
                // in tenths of a millisecond, so that many fall into one mark
                now += step / 10;
                match window.count(rate, at(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= rate.per + grain(rate));
                        let lately = taken.iter().filter(|&&then| then + 1000 + 1000 / MARKS_MAX + 1 > now).count();
                        prop_assert!(lately as u64 >= count, "refused at {now} after {lately}");
                    }
                }
                prop_assert!(window.marks.len() as u64 <= MARKS_MAX + 1);
                let in_window = taken.iter().filter(|&&then| then + 1000 > now).count();
                prop_assert!(in_window as u64 <= count, "{in_window} at {now}");
            }
        }
    }
}
