//! One leg's heartbeat: pings at an interval, and a verdict when a ping brought no byte back in time.
//!
//! The timeout counts from the ping, so it may be longer than the interval, and any byte is life. While the leg is
//! not read, its silence is our own doing and no verdict is spoken.

use std::time::Duration;

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

/// The heartbeat of one link.
#[derive(Debug)]
pub struct Heartbeat {
    /// The settings in microseconds: half the room of two durations.
    interval_micros: u64,
    timeout_micros: u64,
    next_ping: Time,
    /// The first ping since the peer was last heard.
    unanswered: Option<Time>,
    paused: bool,
}

impl Heartbeat {
    /// A heartbeat whose first ping is one interval from `now`.
    #[must_use]
    pub fn new(settings: Settings, now: Time) -> Self {
        Self {
            interval_micros: micros(settings.interval),
            timeout_micros: micros(settings.timeout),
            next_ping: now + settings.interval,
            unanswered: None,
            paused: false,
        }
    }

    /// Notes that bytes came from the peer.
    pub const fn heard(&mut self) {
        self.unanswered = None;
    }

    /// Says whether the leg is being read; a verdict needs it to be.
    pub const fn set_paused(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.unanswered = None;
        }
    }

    /// When [`Self::tick`] has something to say next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        if self.interval_micros == 0 {
            return None;
        }
        earliest(Some(self.next_ping), self.unanswered.map(|since| since + self.timeout()))
    }

    /// What is due at `now`.
    pub fn tick(&mut self, now: Time) -> Beat {
        if self.interval_micros == 0 {
            return Beat::Rest;
        }
        if self.unanswered.is_some_and(|since| now >= since + self.timeout()) {
            return Beat::Dead;
        }
        if now < self.next_ping {
            return Beat::Rest;
        }
        self.next_ping = now + Duration::from_micros(self.interval_micros);
        if !self.paused && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        Beat::Ping
    }

    const fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_micros)
    }

    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self { interval_micros: _, timeout_micros: _, next_ping, unanswered, paused } = self;
        out.time(*next_ping);
        out.option(*unanswered, Writer::time);
        out.flag(*paused);
    }

    pub(crate) fn thaw(input: &mut Reader<'_>, settings: Settings) -> Read<Self> {
        let next_ping = input.time()?;
        let (unanswered, paused) = (input.option(Reader::past)?, input.flag()?);
        Ok(Self { next_ping, unanswered, paused, ..Self::new(settings, Time::ZERO) })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn heartbeat(interval: u64, timeout: u64) -> Heartbeat {
        let settings = Settings { interval: Duration::from_secs(interval), timeout: Duration::from_secs(timeout) };
        Heartbeat::new(settings, at(0))
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
        beat.heard();
        assert_eq!(beat.tick(at(89)), Beat::Ping);
        assert_eq!(beat.tick(at(100)), Beat::Rest);
    }

    #[test]
    fn a_leg_that_is_not_read_gets_pings_but_no_verdict() {
        let mut beat = heartbeat(10, 20);
        assert_eq!(beat.tick(at(10)), Beat::Ping);
        beat.set_paused(true);
        for seconds in [20, 30, 40, 50] {
            assert_eq!(beat.tick(at(seconds)), Beat::Ping);
        }
        beat.set_paused(false);
        assert_eq!(beat.tick(at(60)), Beat::Ping);
        assert_eq!(beat.tick(at(80)), Beat::Dead);
    }

    #[test]
    fn an_interval_of_zero_sends_nothing() {
        let mut beat = heartbeat(0, 0);
        assert_eq!(beat.deadline(), None);
        assert_eq!(beat.tick(at(1000)), Beat::Rest);
    }
}
