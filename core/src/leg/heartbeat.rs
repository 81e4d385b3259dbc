//! One leg's heartbeat: pings at an interval, and a verdict when a ping brought no byte back in time.
//!
//! The timeout counts from the ping, so it may be longer than the interval, and any byte is life. While the leg is
//! not read, its silence is our own doing and no verdict is spoken.

use crate::settings::Heartbeat as Settings;
use crate::snapshot::{Read, Reader, Writer};
use crate::time::{Time, earliest};

/// What the heartbeat wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// Nothing yet.
    Rest,
    /// Send a ping.
    Ping,
    /// The peer is dead.
    Dead,
}

/// The heartbeat of one link. The settings come with each call: a pipe has them anyway.
#[derive(Debug)]
pub struct Heartbeat {
    next_ping: Time,
    /// The first ping since the peer was last heard.
    unanswered: Option<Time>,
}

impl Heartbeat {
    /// A heartbeat whose first ping is one interval from `now`.
    #[must_use]
    pub fn new(settings: Settings, now: Time) -> Self {
        Self { next_ping: now + settings.interval, unanswered: None }
    }

    /// Notes that bytes came from the peer, or that it is read from now on or no longer: its silence begins anew.
    pub const fn heard(&mut self) {
        self.unanswered = None;
    }

    /// When [`Self::tick`] has something to say next.
    #[must_use]
    pub fn deadline(&self, settings: Settings) -> Option<Time> {
        if settings.interval.is_zero() {
            return None;
        }
        earliest(Some(self.next_ping), self.unanswered.map(|since| since + settings.timeout))
    }

    /// What is due at `now`; a verdict needs a peer that `is_read`.
    pub fn tick(&mut self, settings: Settings, is_read: bool, now: Time) -> Beat {
        if settings.interval.is_zero() {
            return Beat::Rest;
        }
        if self.unanswered.is_some_and(|since| now >= since + settings.timeout) {
            return Beat::Dead;
        }
        if now < self.next_ping {
            return Beat::Rest;
        }
        self.next_ping = now + settings.interval;
        if is_read && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        Beat::Ping
    }

    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self { next_ping, unanswered } = self;
        out.time(*next_ping);
        out.option(*unanswered, Writer::time);
    }

    pub(crate) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        Ok(Self { next_ping: input.time()?, unanswered: input.option(Reader::past)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// A heartbeat, its settings, and whether its peer is read.
    struct Rig(Heartbeat, Settings, bool);

    impl Rig {
        fn tick(&mut self, now: Time) -> Beat {
            self.0.tick(self.1, self.2, now)
        }

        fn set_read(&mut self, is_read: bool) {
            self.0.heard();
            self.2 = is_read;
        }
    }

    fn heartbeat(interval: u64, timeout: u64) -> Rig {
        let settings = Settings { interval: Duration::from_secs(interval), timeout: Duration::from_secs(timeout) };
        Rig(Heartbeat::new(settings, at(0)), settings, true)
    }

    #[test]
    fn a_peer_is_dead_only_after_the_timeout_since_the_ping() {
        let mut beat = heartbeat(20, 75);
        assert_eq!(beat.tick(at(19)), Beat::Rest);
        assert_eq!(beat.tick(at(20)), Beat::Ping);
        assert_eq!(beat.tick(at(40)), Beat::Ping);
        assert_eq!(beat.tick(at(60)), Beat::Ping);
        assert_eq!(beat.tick(at(80)), Beat::Ping);
        assert_eq!(beat.tick(at(94)), Beat::Rest);
        assert_eq!(beat.tick(at(95)), Beat::Dead);
    }

    #[test]
    fn any_byte_is_life() {
        let mut beat = heartbeat(30, 60);
        assert_eq!(beat.tick(at(30)), Beat::Ping);
        beat.0.heard();
        assert_eq!(beat.tick(at(89)), Beat::Ping);
        assert_eq!(beat.tick(at(100)), Beat::Rest);
    }

    #[test]
    fn a_leg_that_is_not_read_gets_pings_but_no_verdict() {
        let mut beat = heartbeat(10, 20);
        assert_eq!(beat.tick(at(10)), Beat::Ping);
        beat.set_read(false);
        for seconds in [20, 30, 40, 50] {
            assert_eq!(beat.tick(at(seconds)), Beat::Ping);
        }
        beat.set_read(true);
        assert_eq!(beat.tick(at(60)), Beat::Ping);
        assert_eq!(beat.tick(at(80)), Beat::Dead);
    }

    #[test]
    fn an_interval_of_zero_sends_nothing() {
        let mut beat = heartbeat(0, 0);
        assert_eq!(beat.0.deadline(beat.1), None);
        assert_eq!(beat.tick(at(1000)), Beat::Rest);
    }
}
