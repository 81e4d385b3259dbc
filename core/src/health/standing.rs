//! What was found out about a backend, for another process that takes over.
//!
//! Failures that were not enough for anything yet are left out: the other process counts them anew. Invariant: a monitor
//! made of a standing shows the same health, and lets the backend back in at the same time.

use super::{Checked, Ejection, Health, Monitor};
use crate::time::Time;

/// What is known of a backend's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthStanding {
    /// What probes have found; never [`Health::Ejected`].
    pub checked: Health,
    /// Until when it rests, if it does.
    pub ejected_until: Option<Time>,
    /// Rests in a row so far: each is longer than the one before.
    pub ejections: u32,
}

impl Monitor {
    /// What another process has to know.
    #[must_use]
    pub fn standing(&self) -> HealthStanding {
        let checked = match self.checked {
            Checked::Unknown { .. } => Health::Unknown,
            Checked::Up { .. } => Health::Up,
            Checked::Down { .. } => Health::Down,
        };
        HealthStanding { checked, ejected_until: self.deadline(), ejections: self.ejections }
    }

    /// A monitor that goes on from there.
    #[must_use]
    pub fn resumed(standing: HealthStanding) -> Self {
        let checked = match standing.checked {
            Health::Unknown => Checked::Unknown { failures: 0 },
            Health::Up | Health::Ejected => Checked::Up { failures: 0 },
            Health::Down => Checked::Down { successes: 0 },
        };
        let ejection = standing.ejected_until.map(|until| Ejection { until, successes: 0 });
        Self { checked, ejection, ejections: standing.ejections.min(31), ..Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Experience, HealthSettings, Probed};
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_rest_ends_at_the_same_time_in_another_process() {
        let (settings, now) = (HealthSettings::default(), Time::from_micros(7));
        let mut monitor = Monitor::new();
        monitor.probed(Probed::Ok, &settings);
        for failure in 1..=settings.eject_after {
            let since = now + Duration::from_secs(failure.into());
            monitor.experienced(Experience::DialFailed { since }, None, &settings, true, since);
        }
        let until = monitor.deadline();
        let mut resumed = Monitor::resumed(monitor.standing());
        assert_eq!((resumed.health(), resumed.deadline()), (Health::Ejected, until));
        let end = until.unwrap_or(now);
        assert_eq!(resumed.tick(end), monitor.tick(end));
        assert_eq!(resumed.health(), monitor.health());
    }

    #[test]
    fn what_probes_have_found_stays_found() {
        for probed in [None, Some(Probed::Ok), Some(Probed::Refused)] {
            let mut monitor = Monitor::new();
            if let Some(probed) = probed {
                monitor.probed(probed, &HealthSettings::default());
            }
            assert_eq!(Monitor::resumed(monitor.standing()).health(), monitor.health(), "{probed:?}");
        }
    }
}
