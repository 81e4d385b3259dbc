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

mod standing;

pub use standing::HealthStanding;

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
mod tests;
