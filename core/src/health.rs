//! Whether a backend can be trusted with a pipe, judged from probes (active) and from what pipes lived through (passive).
//!
//! Two judgements are kept side by side. Probes decide between up and down, by `fall` and `rise`. Pipes can eject: too
//! many dials that failed or attaches that died young, and the backend rests for a while that doubles each time.
//! A refused connection is proof either way it is found, so it means down at once.
//!
//! One pipe's trouble is one pipe's trouble: what it lives through counts once, and deaths count only from several pipes.
//! What a request can provoke by itself counts only beside something that no request can.
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
//! Invariants: an ejection has incidents of `eject_after` pipes behind it, or of one more after a rest. One incident counts
//! once: what began before the last counted failure is the same incident, so a crash
//! that takes twenty young pipes along is one failure, not twenty.

use crate::ids::PipeId;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// An attach that ends sooner than this after its 101 counts against the backend.
pub const YOUNG_DEATH: Duration = Duration::from_secs(2);

/// Pipes whose deaths eject a backend at least, however small `eject_after` is.
pub const DEATHS_MIN: u32 = 2;

/// Pipes remembered of one run of incidents; beyond, the first one may count again.
const PIPES_MAX: usize = 64;

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
    /// Pipes in a row that must fare badly on it until it is ejected; zero never ejects.
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
    /// Nobody listens there, or nobody may: certain at once.
    Refused,
}

/// What a pipe lived through on a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Experience {
    /// Its 101 came.
    Connected,
    /// Nobody listens there.
    Refused,
    /// The dial failed in another way; it began at `since`.
    DialFailed {
        /// When the dial began.
        since: Time,
    },
    /// It answered, but not as it should, which the request itself may have brought about; the dial began at `since`.
    Provoked {
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
    failed_dials: Incidents,
    young_deaths: Incidents,
    provoked: Incidents,
    last_failure: Option<Time>,
}

/// A run of incidents of one kind, each of another pipe.
#[derive(Clone, Default, Debug)]
struct Incidents {
    count: u32,
    /// Whose they were.
    pipes: VecDeque<PipeId>,
    /// It has rested, and one more is enough.
    on_trial: bool,
}

impl Incidents {
    /// Whether an incident of `pipe` counts; what has no pipe is always of another one.
    fn is_new(&self, pipe: Option<PipeId>) -> bool {
        pipe.is_none_or(|pipe| !self.pipes.contains(&pipe))
    }

    fn add(&mut self, pipe: Option<PipeId>) {
        self.count = self.count.saturating_add(1);
        if self.pipes.len() == PIPES_MAX {
            self.pipes.pop_front();
        }
        self.pipes.extend(pipe);
    }

    /// Starts the count again; the pipes that were counted stay known.
    const fn try_again(&mut self) {
        self.count = 0;
        self.on_trial = true;
    }

    fn forgive(&mut self) {
        *self = Self::default();
    }

    const fn are_enough(&self, wanted: u32) -> bool {
        self.count >= wanted || self.on_trial && self.count > 0
    }
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
    pub fn new() -> Self {
        Self {
            checked: Checked::Unknown { failures: 0 },
            ejection: None,
            ejections: 0,
            failed_dials: Incidents::default(),
            young_deaths: Incidents::default(),
            provoked: Incidents::default(),
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

    /// Takes in what `pipe`, or else a plain request, lived through; `may_eject` is the pool's word on whether one more
    /// may rest.
    pub fn experienced(
        &mut self,
        experience: Experience,
        pipe: Option<PipeId>,
        settings: &HealthSettings,
        may_eject: bool,
        now: Time,
    ) -> Option<HealthChange> {
        match experience {
            Experience::Connected => {
                self.failed_dials.forgive();
                self.provoked.forgive();
                self.succeeded(settings)
            }
            Experience::Refused => self.refused(),
            Experience::DialFailed { since } => {
                if self.failed_dials.is_new(pipe) && self.is_news(since, now) {
                    self.failed_dials.add(pipe);
                }
                self.judge(settings, may_eject, now)
            }
            Experience::Provoked { since } => {
                if self.provoked.is_new(pipe) && self.is_news(since, now) {
                    self.provoked.add(pipe);
                }
                self.judge(settings, may_eject, now)
            }
            Experience::Died { lived } if lived >= YOUNG_DEATH => {
                self.young_deaths.forgive();
                self.ejections = 0;
                None
            }
            Experience::Died { lived } => {
                let lived_micros = u64::try_from(lived.as_micros()).unwrap_or(u64::MAX);
                let attached = Time::from_micros(now.as_micros().saturating_sub(lived_micros));
                if self.young_deaths.is_new(pipe) && self.is_news(attached, now) {
                    self.young_deaths.add(pipe);
                }
                self.judge(settings, may_eject, now)
            }
        }
    }

    /// Lets an ejected backend back in when its time has come, on trial: the next incident ejects it again.
    pub fn tick(&mut self, now: Time) -> Option<HealthChange> {
        if self.ejection.is_none_or(|ejection| now < ejection.until) {
            return None;
        }
        self.ejection = None;
        // Its rest was no good conduct: the memory starts here, else the longest rest would wipe it.
        self.last_failure = Some(now);
        self.failed_dials.try_again();
        self.young_deaths.try_again();
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
                self.failed_dials.forgive();
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
        self.failed_dials.forgive();
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
                self.failed_dials.forgive();
                self.young_deaths.forgive();
                self.provoked.forgive();
                self.ejections = 0;
            }
            Some(_) | None => {}
        }
        self.last_failure = Some(now);
        true
    }

    fn judge(&mut self, settings: &HealthSettings, may_eject: bool, now: Time) -> Option<HealthChange> {
        if !self.deserves_rest(settings) || !may_eject || self.health() == Health::Down || self.ejection.is_some() {
            return None;
        }
        let factor = 1_u32.checked_shl(self.ejections).unwrap_or(u32::MAX);
        let until = now + settings.eject_min.saturating_mul(factor).min(settings.eject_max);
        self.ejections = self.ejections.saturating_add(1).min(31);
        self.ejection = Some(Ejection { until, successes: 0 });
        for incidents in [&mut self.failed_dials, &mut self.young_deaths, &mut self.provoked] {
            incidents.count = 0;
        }
        Some(HealthChange::Ejected { until })
    }

    fn deserves_rest(&self, settings: &HealthSettings) -> bool {
        let wanted = settings.eject_after;
        let checks_fail = match self.checked {
            Checked::Unknown { failures } | Checked::Up { failures } => failures > 0,
            Checked::Down { .. } => true,
        };
        let unprovoked = self.failed_dials.count.max(self.young_deaths.count);
        let beside = unprovoked > 0 || checks_fail;
        wanted > 0
            && (self.failed_dials.are_enough(wanted)
                || self.young_deaths.are_enough(wanted.max(DEATHS_MIN))
                || beside && unprovoked.saturating_add(self.provoked.count) >= wanted.max(DEATHS_MIN))
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

    const fn pipe(number: u64) -> Option<PipeId> {
        Some(PipeId::from_bytes((number as u128).to_be_bytes()))
    }

    fn experienced(
        monitor: &mut Monitor,
        experience: Experience,
        number: u64,
        now_millis: u64,
    ) -> Option<HealthChange> {
        monitor.experienced(experience, pipe(number), &HealthSettings::default(), true, at(now_millis))
    }

    /// A pipe of its own dies, so long after its 101.
    fn died(monitor: &mut Monitor, lived_millis: u64, now_millis: u64) -> Option<HealthChange> {
        let lived = Duration::from_millis(lived_millis);
        experienced(monitor, Experience::Died { lived }, now_millis, now_millis)
    }

    fn dial_failed(monitor: &mut Monitor, now_millis: u64) -> Option<HealthChange> {
        experienced(monitor, Experience::DialFailed { since: at(now_millis) }, now_millis, now_millis)
    }

    #[test]
    fn what_one_pipe_lives_through_over_and_over_counts_once() {
        let (lived, mut monitor) = (Duration::from_millis(1), Monitor::new());
        for second in 1..20 {
            assert_eq!(experienced(&mut monitor, Experience::Died { lived }, 7, second * 1000), None);
            let since = at(second * 1000 + 500);
            assert_eq!(experienced(&mut monitor, Experience::DialFailed { since }, 7, second * 1000 + 500), None);
        }
        assert_eq!(died(&mut monitor, 1, 20_000), None, "the second pipe");
        assert!(matches!(died(&mut monitor, 1, 21_000), Some(HealthChange::Ejected { .. })), "the third");
    }

    #[test]
    fn after_its_rest_a_backend_is_not_put_aside_again_by_the_pipes_that_were_counted() {
        let (lived, mut monitor) = (Duration::from_millis(1), Monitor::new());
        for second in 1..=3 {
            experienced(&mut monitor, Experience::Died { lived }, second, second * 1000);
        }
        assert_eq!(monitor.tick(at(4000)), Some(HealthChange::Readmitted));
        for second in 5..10 {
            assert_eq!(experienced(&mut monitor, Experience::Died { lived }, second % 3 + 1, second * 1000), None);
        }
        let another = experienced(&mut monitor, Experience::Died { lived }, 4, 10_000);
        assert!(matches!(another, Some(HealthChange::Ejected { .. })), "one more is enough");
    }

    #[test]
    fn deaths_of_a_single_pipe_never_eject_however_little_is_asked() {
        let settings = HealthSettings { eject_after: 1, ..HealthSettings::default() };
        let (died, mut monitor) = (Experience::Died { lived: Duration::from_millis(1) }, Monitor::new());
        assert_eq!(monitor.experienced(died, pipe(1), &settings, true, at(1000)), None);
        assert_eq!(monitor.experienced(died, pipe(1), &settings, true, at(2000)), None);
        let second = monitor.experienced(died, pipe(2), &settings, true, at(3000));
        assert!(matches!(second, Some(HealthChange::Ejected { .. })));
    }

    #[test]
    fn what_a_request_can_provoke_counts_only_beside_something_that_none_can() {
        let provoked =
            |monitor: &mut Monitor, now| experienced(monitor, Experience::Provoked { since: at(now) }, now, now);
        let mut monitor = Monitor::new();
        for second in 1..50 {
            assert_eq!(provoked(&mut monitor, second * 1000), None, "alone it never counts");
        }
        assert!(matches!(dial_failed(&mut monitor, 50_000), Some(HealthChange::Ejected { .. })), "beside it does");
        let mut monitor = Monitor::new();
        monitor.probed(Probed::Failed, &HealthSettings::default());
        assert_eq!([provoked(&mut monitor, 1000), provoked(&mut monitor, 2000)], [None, None]);
        assert!(matches!(provoked(&mut monitor, 3000), Some(HealthChange::Ejected { .. })), "a probe fails too");
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
        let refused = |monitor: &mut Monitor| experienced(monitor, Experience::Refused, 1, 0);
        assert_eq!(refused(&mut monitor), Some(HealthChange::Down));
        assert_eq!(refused(&mut monitor), None);
        assert_eq!(monitor.probed(Probed::Ok, &HealthSettings::default()), Some(HealthChange::Up));
    }

    #[test]
    fn a_crash_that_takes_many_young_pipes_along_is_one_incident() {
        let mut monitor = Monitor::new();
        let crash = Experience::Died { lived: Duration::from_millis(500) };
        for number in 0..20 {
            assert_eq!(experienced(&mut monitor, crash, number, 1000), None);
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
            experienced(&mut monitor, Experience::Connected, second, second * 2000 + 1000);
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
                assert_eq!(monitor.tick(until), Some(HealthChange::Readmitted));
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
            let failed = Experience::DialFailed { since };
            let change = monitor.experienced(failed, pipe(second), &HealthSettings::default(), false, since);
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
