//! A token bucket: so many things in so much time, of which all may come at once after a rest.
//!
//! It is one number, the time at which the bucket would be full again; taking moves it on. More may be taken than is
//! there, which later ones wait for: a reader of bytes learns only afterwards what they were.

use std::time::Duration;

use super::Rate;
use crate::time::Time;

/// A bucket that holds `rate.count` tokens and is refilled at that rate; the rate comes with each call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// Nanoseconds since the clock's origin.
    full_at: u64,
}

impl Bucket {
    /// Takes `count` tokens, whether they are there or not.
    pub fn take(&mut self, rate: Rate, count: u64, now: Time) {
        self.full_at = self.full_at.max(nanos(now)).saturating_add(cost(rate, count));
    }

    /// Tokens that are there.
    #[must_use]
    pub fn tokens(&self, rate: Rate, now: Time) -> u64 {
        let missing = self.full_at.saturating_sub(nanos(now));
        let per = rate.per.as_nanos();
        let have = per.saturating_sub(u128::from(missing)) * u128::from(rate.count) / per.max(1);
        u64::try_from(have).unwrap_or(u64::MAX)
    }

    /// Whether more was taken than there was.
    #[must_use]
    pub fn is_overdrawn(&self, rate: Rate, now: Time) -> bool {
        u128::from(self.full_at.saturating_sub(nanos(now))) > rate.per.as_nanos()
    }

    /// When there will be as many as `tokens`, if none is taken.
    #[must_use]
    pub fn has_at(&self, rate: Rate, tokens: u64) -> Time {
        let empty_at = u128::from(self.full_at).saturating_sub(rate.per.as_nanos());
        // Rounded up, so that they are there then.
        let wait = u128::from(tokens.min(rate.count)) * rate.per.as_nanos();
        let at = empty_at + wait.div_ceil(u128::from(rate.count.max(1)));
        Time::from_micros(u64::try_from(at.div_ceil(1000)).unwrap_or(u64::MAX))
    }
}

/// Time that so many tokens take to come, in nanoseconds; rounded down, so that a full bucket is exactly full.
fn cost(rate: Rate, count: u64) -> u64 {
    let nanos = u128::from(count) * rate.per.as_nanos();
    u64::try_from(nanos / u128::from(rate.count.max(1))).unwrap_or(u64::MAX)
}

const fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(1000)
}

/// How long a waiting reader rests at least: it then has a handful of tokens to come back for.
const REST: Duration = Duration::from_millis(20);

/// Tokens that a reader which ran out waits for: what comes in [`REST`], and at least one.
#[must_use]
pub fn worth_waking(rate: Rate) -> u64 {
    let count = u128::from(rate.count) * REST.as_nanos() / rate.per.as_nanos().max(1);
    u64::try_from(count).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn all_tokens_may_be_taken_at_once_and_come_back_one_by_one() {
        let rate = Rate::new(100, Duration::from_secs(1));
        let mut bucket = Bucket::default();
        assert_eq!(bucket.tokens(rate, at(5000)), 100);
        bucket.take(rate, 100, at(5000));
        assert!(!bucket.is_overdrawn(rate, at(5000)));
        assert_eq!((bucket.tokens(rate, at(5000)), bucket.has_at(rate, 1)), (0, at(5010)));
        assert_eq!((bucket.tokens(rate, at(5009)), bucket.tokens(rate, at(5010))), (0, 1));
        bucket.take(rate, 50, at(5010));
        assert!(bucket.is_overdrawn(rate, at(5010)));
        assert_eq!(bucket.has_at(rate, 1), at(5510));
        assert_eq!(bucket.tokens(rate, at(6500)), 100);
    }

    #[test]
    fn a_reader_rests_twenty_milliseconds_or_one_token() {
        assert_eq!(worth_waking(Rate::new(1 << 20, Duration::from_secs(1))), 20_971);
        assert_eq!(worth_waking(Rate::new(10, Duration::from_secs(60))), 1);
    }

    proptest! {
        #[test]
        fn over_any_stretch_no_more_is_let_through_than_a_full_bucket_and_the_rate(
            count in 1u64..1_000_000,
            takes in proptest::collection::vec((0u64..200, 1u64..1_000_000), 1..100),
        ) {
            let rate = Rate::new(count, Duration::from_secs(1));
            let mut bucket = Bucket::default();
            let (mut now, mut taken) = (0, 0u128);
            for (step, wanted) in takes {
                now += step;
                let take = wanted.min(bucket.tokens(rate, at(now)));
                bucket.take(rate, take, at(now));
                taken += u128::from(take);
                let most = u128::from(count) + u128::from(count) * u128::from(now) / 1000;
                // a take may be rounded down by less than a nanosecond
                prop_assert!(taken <= most + 1, "{taken} of {most} at {now}");
                let when = bucket.has_at(rate, 1);
                prop_assert!(bucket.tokens(rate, when) >= 1);
            }
        }
    }
}
