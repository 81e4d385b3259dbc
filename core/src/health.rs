//! Whether a backend can be trusted with a pipe, judged from probes (active) and from what pipes lived through (passive).
//!
//! Two judgements are kept side by side. Probes decide between up and down, by `fall` and `rise`. Pipes can eject: too
//! many dials that failed or attaches that died young, and the backend rests for a while that doubles each time.
//! A refused connection is proof either way it is found, so it means down at once.
//!
//! ```text
//!            ok                     refused, or `fall` failures in a row
//! Unknown ────────▶ Up ───────────────────────────────────────────────▶ Down
//!    │               ▲                                                   │ ▲
//!    │               └───────────── `rise` successes in a row ───────────┘ │
//!    └───────────────── refused, or `fall` failures in a row ──────────────┘
//! Beside it, while not down:  trusted ──`eject_after` incidents──▶ ejected ──time, or `rise` successes──▶ trusted
//! ```
//!
//! Invariant: one incident counts once. What began before the last counted failure is the same incident, so a crash
//! that takes twenty young pipes along is one failure, not twenty.

use crate::time::Time;
use std::time::Duration;

/// An attach that ends sooner than this after its 101 counts against the backend.
pub const YOUNG_DEATH: Duration = Duration::from_secs(2);

/// Passive failures and the length of the last ejection are forgotten after this long, in use, without a new failure.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(60);

/// What the outside is told about a backend's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Health {
    /// Not proven either way yet.
    Unknown,
    /// Proven by a probe or an attach.
    Up,
    /// Disproven by a refused connection or by `fall` failed probes.
    Down,
    /// Resting, because pipes fared badly on it.
    Ejected,
}

/// How many results it takes to change one's mind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthSettings {
    /// Failed probes in a row until a backend is down; at least 1.
    pub fall: u32,
    /// Successes in a row until it is up again; at least 1.
    pub rise: u32,
    /// Incidents in a row until it is ejected; zero never ejects.
    pub eject_after: u32,
    /// How long the first ejection lasts; each further one doubles.
    pub eject_min: Duration,
    /// The longest ejection.
    pub eject_max: Duration,
}

impl Default for HealthSettings {
    /// Long enough to let the others take the load, short enough that a lone mistake costs a second.
    fn default() -> Self {
        Self { fall: 3, rise: 1, eject_after: 3, eject_min: Duration::from_secs(1), eject_max: Duration::from_secs(60) }
    }
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probed {
    /// It answered as it should.
    Ok,
    /// It answered wrongly or not in time.
    Failed,
    /// Nothing listens there, or nothing may: certain at once.
    Refused,
}

/// What a pipe lived through on a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Experience {
    /// Its 101 came.
    Connected,
    /// Nothing listens there.
    Refused,
    /// The dial failed in another way; it began at `since`.
    DialFailed {
        /// When the dial began.
        since: Time,
    },
    /// The attach ended without the pipe wanting it.
    Died {
        /// How long it had lasted since its 101.
        lived: Duration,
    },
}

/// A change of mind, to be told as an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthChange {
    /// It may be used (again).
    Up,
    /// It may not be used.
    Down,
    /// It rests until then.
    Ejected {
        /// When it is let back in at the latest.
        until: Time,
    },
    /// Its rest is over.
    Readmitted,
}

/// The judgement of one backend.
#[derive(Clone, Debug)]
pub struct Monitor {
    checked: Checked,
    ejection: Option<Ejection>,
    /// Ejections since the last good time: the exponent of the next one.
    ejections: u32,
    failed_dials: u32,
    young_deaths: u32,
    last_failure: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Checked {
    Unknown { failures: u32 },
    Up { failures: u32 },
    Down { successes: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    until: Time,
    successes: u32,
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// A backend of which nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            checked: Checked::Unknown { failures: 0 },
            ejection: None,
            ejections: 0,
            failed_dials: 0,
            young_deaths: 0,
            last_failure: None,
        }
    }

    /// The judgement; down outweighs ejected.
    #[must_use]
    pub const fn health(&self) -> Health {
        match (self.checked, self.ejection) {
            (Checked::Down { .. }, _) => Health::Down,
            (Checked::Unknown { .. } | Checked::Up { .. }, Some(_)) => Health::Ejected,
            (Checked::Unknown { .. }, None) => Health::Unknown,
            (Checked::Up { .. }, None) => Health::Up,
        }
    }

    /// When the rest of an ejected backend ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.ejection.map(|ejection| ejection.until)
    }

    /// Takes in a probe's result.
    pub fn probed(&mut self, probed: Probed, settings: &HealthSettings) -> Option<HealthChange> {
        match probed {
            Probed::Ok => self.succeeded(settings),
            Probed::Failed => self.check_failed(settings),
            Probed::Refused => self.refused(),
        }
    }

    /// Takes in what a pipe lived through; `may_eject` is the pool's word on whether one more may rest.
    pub fn experienced(
        &mut self,
        experience: Experience,
        settings: &HealthSettings,
        may_eject: bool,
        now: Time,
    ) -> Option<HealthChange> {
        match experience {
            Experience::Connected => {
                self.failed_dials = 0;
                self.succeeded(settings)
            }
            Experience::Refused => self.refused(),
            Experience::DialFailed { since } => {
                if self.is_news(since, now) {
                    self.failed_dials = self.failed_dials.saturating_add(1);
                }
                self.judge(settings, may_eject, now)
            }
            Experience::Died { lived } if lived >= YOUNG_DEATH => {
                self.young_deaths = 0;
                self.ejections = 0;
                None
            }
            Experience::Died { lived } => {
                let lived_micros = u64::try_from(lived.as_micros()).unwrap_or(u64::MAX);
                let attached = Time::from_micros(now.as_micros().saturating_sub(lived_micros));
                if self.is_news(attached, now) {
                    self.young_deaths = self.young_deaths.saturating_add(1);
                }
                self.judge(settings, may_eject, now)
            }
        }
    }

    /// Lets an ejected backend back in when its time has come, on trial: the next incident ejects it again.
    pub fn tick(&mut self, settings: &HealthSettings, now: Time) -> Option<HealthChange> {
        if self.ejection.is_none_or(|ejection| now < ejection.until) {
            return None;
        }
        self.ejection = None;
        // Its rest was no good conduct: the memory starts here, else the longest rest would wipe it.
        self.last_failure = Some(now);
        self.failed_dials = settings.eject_after.saturating_sub(1);
        self.young_deaths = settings.eject_after.saturating_sub(1);
        match self.checked {
            Checked::Unknown { .. } | Checked::Up { .. } => Some(HealthChange::Readmitted),
            Checked::Down { .. } => None,
        }
    }

    fn succeeded(&mut self, settings: &HealthSettings) -> Option<HealthChange> {
        match self.checked {
            Checked::Up { .. } => {
                self.checked = Checked::Up { failures: 0 };
                self.readmit(settings)
            }
            Checked::Unknown { .. } => {
                self.checked = Checked::Up { failures: 0 };
                self.ejection = None;
                Some(HealthChange::Up)
            }
            Checked::Down { successes } if successes + 1 < settings.rise => {
                self.checked = Checked::Down { successes: successes + 1 };
                None
            }
            Checked::Down { .. } => {
                self.checked = Checked::Up { failures: 0 };
                self.ejection = None;
                self.failed_dials = 0;
                Some(HealthChange::Up)
            }
        }
    }

    fn readmit(&mut self, settings: &HealthSettings) -> Option<HealthChange> {
        let ejection = self.ejection.as_mut()?;
        ejection.successes += 1;
        if ejection.successes < settings.rise {
            return None;
        }
        self.ejection = None;
        self.failed_dials = 0;
        Some(HealthChange::Readmitted)
    }

    fn check_failed(&mut self, settings: &HealthSettings) -> Option<HealthChange> {
        if let Some(ejection) = self.ejection.as_mut() {
            ejection.successes = 0;
        }
        let failures = match self.checked {
            Checked::Unknown { failures } | Checked::Up { failures } => failures + 1,
            Checked::Down { .. } => {
                self.checked = Checked::Down { successes: 0 };
                return None;
            }
        };
        if failures >= settings.fall {
            return self.refused();
        }
        self.checked = match self.checked {
            Checked::Unknown { .. } => Checked::Unknown { failures },
            Checked::Up { .. } => Checked::Up { failures },
            Checked::Down { .. } => Checked::Down { successes: 0 },
        };
        None
    }

    fn refused(&mut self) -> Option<HealthChange> {
        let was_down = matches!(self.checked, Checked::Down { .. });
        self.checked = Checked::Down { successes: 0 };
        (!was_down).then_some(HealthChange::Down)
    }

    /// Whether what began at `since` is another incident than the last one; marks it as the last one if so.
    fn is_news(&mut self, since: Time, now: Time) -> bool {
        match self.last_failure {
            Some(last) if since <= last => return false,
            Some(last) if now.since(last) > FAILURE_MEMORY => {
                self.failed_dials = 0;
                self.young_deaths = 0;
                self.ejections = 0;
            }
            Some(_) | None => {}
        }
        self.last_failure = Some(now);
        true
    }

    fn judge(&mut self, settings: &HealthSettings, may_eject: bool, now: Time) -> Option<HealthChange> {
        let incidents = self.failed_dials.max(self.young_deaths);
        let enough = settings.eject_after > 0 && incidents >= settings.eject_after;
        if !enough || !may_eject || self.health() == Health::Down || self.ejection.is_some() {
            return None;
        }
        let factor = 1_u32.checked_shl(self.ejections).unwrap_or(u32::MAX);
        let until = now + settings.eject_min.saturating_mul(factor).min(settings.eject_max);
        self.ejections = self.ejections.saturating_add(1).min(31);
        self.ejection = Some(Ejection { until, successes: 0 });
        self.failed_dials = 0;
        self.young_deaths = 0;
        Some(HealthChange::Ejected { until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn settings(fall: u32, rise: u32) -> HealthSettings {
        HealthSettings { fall, rise, ..HealthSettings::default() }
    }

    fn died(monitor: &mut Monitor, lived_millis: u64, now_millis: u64) -> Option<HealthChange> {
        let lived = Duration::from_millis(lived_millis);
        monitor.experienced(Experience::Died { lived }, &HealthSettings::default(), true, at(now_millis))
    }

    fn dial_failed(monitor: &mut Monitor, now_millis: u64) -> Option<HealthChange> {
        let since = at(now_millis);
        monitor.experienced(Experience::DialFailed { since }, &HealthSettings::default(), true, at(now_millis))
    }

    #[test]
    fn probes_turn_a_backend_by_fall_and_rise() {
        use Health::{Down, Unknown, Up};
        use Probed::{Failed, Ok, Refused};
        let cases: [(u32, u32, &[Probed], &[Health]); 7] = [
            (3, 1, &[Ok], &[Up]),
            (3, 1, &[Failed, Failed, Failed, Ok], &[Unknown, Unknown, Down, Up]),
            (3, 1, &[Ok, Failed, Failed, Ok, Failed, Failed, Failed], &[Up, Up, Up, Up, Up, Up, Down]),
            (3, 1, &[Ok, Refused, Ok], &[Up, Down, Up]),
            (3, 1, &[Refused], &[Down]),
            (1, 3, &[Failed, Ok, Ok, Failed, Ok, Ok, Ok], &[Down, Down, Down, Down, Down, Down, Up]),
            (3, 2, &[Refused, Ok, Refused, Ok, Ok], &[Down, Down, Down, Down, Up]),
        ];
        for (fall, rise, probes, expected) in cases {
            let mut monitor = Monitor::new();
            for (&probe, &health) in probes.iter().zip(expected) {
                let before = monitor.health();
                let change = monitor.probed(probe, &settings(fall, rise));
                assert_eq!(monitor.health(), health, "{probes:?}");
                assert_eq!(change.is_some(), before != health, "a change is told exactly once: {probes:?}");
            }
        }
    }

    #[test]
    fn a_refused_dial_is_as_good_as_a_refused_probe() {
        let mut monitor = Monitor::new();
        let refused =
            |monitor: &mut Monitor| monitor.experienced(Experience::Refused, &HealthSettings::default(), true, at(0));
        assert_eq!(refused(&mut monitor), Some(HealthChange::Down));
        assert_eq!(refused(&mut monitor), None);
        assert_eq!(monitor.probed(Probed::Ok, &HealthSettings::default()), Some(HealthChange::Up));
    }

    #[test]
    fn a_crash_that_takes_many_young_pipes_along_is_one_incident() {
        let mut monitor = Monitor::new();
        for _ in 0..20 {
            assert_eq!(died(&mut monitor, 500, 1000), None);
        }
        assert_eq!(died(&mut monitor, 100, 2000), None);
        assert!(matches!(died(&mut monitor, 100, 3000), Some(HealthChange::Ejected { .. })));
    }

    #[test]
    fn an_attach_that_lived_long_enough_is_no_failure_and_forgives() {
        for (lived, forgives) in [(1999, false), (2000, true), (2001, true)] {
            let mut monitor = Monitor::new();
            died(&mut monitor, 1, 10_000);
            died(&mut monitor, 1, 11_000);
            let change = died(&mut monitor, lived, 14_000);
            assert_eq!(change.is_none(), forgives, "{lived}");
        }
    }

    #[test]
    fn a_success_between_failed_dials_forgives_them() {
        let mut monitor = Monitor::new();
        for second in 0..10 {
            assert_eq!(dial_failed(&mut monitor, second * 2000), None);
            monitor.experienced(Experience::Connected, &HealthSettings::default(), true, at(second * 2000 + 1000));
        }
    }

    #[test]
    fn each_ejection_is_twice_as_long_up_to_the_limit() {
        let mut monitor = Monitor::new();
        let mut now = 0;
        let mut lengths = Vec::new();
        while lengths.len() < 8 {
            now += 10;
            if let Some(HealthChange::Ejected { until }) = dial_failed(&mut monitor, now) {
                lengths.push((until - at(now)).as_secs());
                now = until.as_micros() / 1000;
                assert_eq!(monitor.tick(&HealthSettings::default(), until), Some(HealthChange::Readmitted));
            }
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn failures_far_apart_are_not_in_a_row() {
        let mut monitor = Monitor::new();
        for minute in 0..10 {
            assert_eq!(dial_failed(&mut monitor, minute * 61_000), None);
        }
    }

    #[test]
    fn probes_that_succeed_readmit_by_rise() {
        let mut monitor = Monitor::new();
        monitor.probed(Probed::Ok, &settings(3, 2));
        for now in [1, 2, 3] {
            dial_failed(&mut monitor, now);
        }
        assert_eq!(monitor.health(), Health::Ejected);
        assert_eq!(monitor.probed(Probed::Ok, &settings(3, 2)), None);
        assert_eq!(monitor.probed(Probed::Ok, &settings(3, 2)), Some(HealthChange::Readmitted));
        assert_eq!(monitor.health(), Health::Up);
    }

    #[test]
    fn without_leave_to_eject_the_backend_stays() {
        let mut monitor = Monitor::new();
        for second in 1..20 {
            let since = at(second * 1000);
            let change =
                monitor.experienced(Experience::DialFailed { since }, &HealthSettings::default(), false, since);
            assert_eq!(change, None);
        }
        assert_eq!(monitor.health(), Health::Unknown);
    }

    #[test]
    fn an_ejected_backend_that_is_refused_is_down_and_comes_up_free_of_its_ejection() {
        let mut monitor = Monitor::new();
        for now in [1, 2, 3] {
            dial_failed(&mut monitor, now);
        }
        assert_eq!(monitor.probed(Probed::Refused, &settings(3, 1)), Some(HealthChange::Down));
        assert_eq!(monitor.health(), Health::Down);
        assert_eq!(monitor.probed(Probed::Ok, &settings(3, 1)), Some(HealthChange::Up));
        assert_eq!(monitor.health(), Health::Up);
    }
}
