//! The numbers of live upgrades.

use std::time::Duration;

use serde::Serialize;

use super::Metrics;
use super::labels::label;

label! {
    /// What an upgrade came to.
    UpgradeResult {
        /// The new process has taken over from this one.
        Done = "done",
        /// This process has taken over from another one.
        Taken = "taken",
        /// It was refused before anything was touched.
        Refused = "refused",
        /// It broke off.
        Failed = "failed",
    }
}

label! {
    /// What became of a pipe in an upgrade.
    UpgradePipe {
        /// It went to the new process.
        Moved = "moved",
        /// It came from the old process.
        Taken = "taken",
        /// It cannot go, and is closed.
        Left = "left",
        /// It has no place in the configuration of the new process.
        Refused = "refused",
    }
}

impl Metrics {
    /// Counts an upgrade.
    pub fn upgrade(&self, result: UpgradeResult) {
        self.families().upgrades_total.with_label_values(&[result.as_str()]).inc();
    }

    /// Counts so many pipes of an upgrade.
    pub fn upgrade_pipes(&self, result: UpgradePipe, count: u64) {
        self.families().upgrade_pipes_total.with_label_values(&[result.as_str()]).inc_by(count);
    }

    /// Notes for how long a pipe stood still.
    pub fn upgrade_pause(&self, pause: Duration) {
        let none: [&str; 0] = [];
        self.families().upgrade_pause_seconds.with_label_values(&none).observe(pause.as_secs_f64());
    }
}
