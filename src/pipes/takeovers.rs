//! How often connections of one client have taken each other's place lately.
//!
//! Two tabs with one name that both reconnect would replace each other for ever, and neither would have a conversation.
//! Invariant: in any [`WINDOW`] at most [`TAKEOVERS_MAX`] connections replace another; one more is refused and counts for
//! nothing, so that the one that is there stays.

use std::sync::Mutex;
use std::time::Duration;

use holdline_core::time::Time;

use super::lock;

/// Connections that may replace another one within [`WINDOW`].
pub const TAKEOVERS_MAX: usize = 3;

/// The span over which they are counted.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The takeovers of one pipe within the last [`WINDOW`]; without memory of its own as long as there was none.
#[derive(Debug, Default)]
pub struct Takeovers(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// In their order.
    times: Box<[Time]>,
    /// Whether a refusal was told since the last of them.
    told: bool,
}

/// A connection that has to wait until another one may be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// How long it has to wait.
    pub wait: Duration,
    /// Whether it is the first one that is refused since the last takeover.
    pub is_first: bool,
}

impl Takeovers {
    /// Notes that a connection takes the place of another.
    ///
    /// # Errors
    /// There were as many as there may be.
    pub fn take(&self, now: Time) -> Result<(), Taken> {
        let mut recent = lock(&self.0);
        let mut times: Vec<Time> = recent.times.iter().copied().filter(|&at| now < at + WINDOW).collect();
        if times.len() >= TAKEOVERS_MAX {
            let wait = times.first().map_or(WINDOW, |&first| (first + WINDOW).since(now));
            let is_first = !std::mem::replace(&mut recent.told, true);
            return Err(Taken { wait, is_first });
        }
        times.push(now);
        *recent = Recent { times: times.into(), told: false };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn three_takeovers_in_ten_seconds_are_enough_whenever_they_were() {
        let takeovers = Takeovers::default();
        for second in [0, 4, 8] {
            assert_eq!(takeovers.take(at(second)), Ok(()));
        }
        let taken = |seconds, is_first| Err(Taken { wait: Duration::from_secs(seconds), is_first });
        assert_eq!(takeovers.take(at(8)), taken(2, true));
        assert_eq!(takeovers.take(at(9)), taken(1, false));
        assert_eq!(takeovers.take(at(10)), Ok(()), "a refusal counts for nothing");
        assert_eq!(takeovers.take(at(10)), taken(4, true));
        assert_eq!(takeovers.take(at(30)), Ok(()));
    }
}
