//! The numbers of workers that dial in.

use prometheus::{Histogram, IntCounter, IntGauge};
use serde::Serialize;

use super::labels::label;
use super::{GaugeGuard, Metrics};

label! {
    /// What came of taking a parked connection.
    TakeResult {
        /// It was given out.
        Taken = "taken",
        /// It was, and ended without a byte.
        Lost = "lost",
        /// The worker was there, and parked none in time.
        Late = "late",
        /// The worker was not there.
        Absent = "absent",
        /// `attach.waiting_max` dials waited for one already.
        Crowded = "crowded",
    }
}

label! {
    /// What became of a request of a worker that dials in.
    AttachResult {
        /// Its connection is parked.
        Parked = "parked",
        /// It drains.
        Drained = "drained",
        /// No token, or an unknown one.
        Unauthorized = "unauthorized",
        /// The token has another role.
        Forbidden = "forbidden",
        /// A newer process has the id.
        Superseded = "superseded",
        /// There are as many parked connections as may be.
        Full = "full",
        /// What it says cannot be.
        Invalid = "invalid",
        /// It did not say it in time, or is no HTTP.
        Broken = "broken",
    }
}

/// What a pool counts of its workers that dial in.
#[derive(Debug)]
pub struct DialInMetrics {
    parked: IntGauge,
    taken: [IntCounter; TakeResult::ALL.len()],
    /// How long dials waited.
    pub wait_seconds: Histogram,
}

impl DialInMetrics {
    /// Counts a connection as parked until the value returned goes.
    #[must_use]
    pub fn park(&self) -> GaugeGuard {
        GaugeGuard::new(self.parked.clone())
    }

    /// The counter of takes that ended so.
    #[must_use]
    pub fn taken(&self, result: TakeResult) -> &IntCounter {
        &self.taken[result as usize]
    }
}

impl Metrics {
    /// What `pool` counts of its workers that dial in.
    #[must_use]
    pub fn dial_in(&self, pool: &str) -> DialInMetrics {
        let families = self.families();
        DialInMetrics {
            parked: families.attach_parked.with_label_values(&[pool]),
            taken: TakeResult::ALL
                .map(|result| families.attach_taken_total.with_label_values(&[pool, result.as_str()])),
            wait_seconds: families.attach_wait_seconds.with_label_values(&[pool]),
        }
    }

    /// Counts a request of a worker that dials in.
    pub fn attach_request(&self, result: AttachResult) {
        self.families().attach_requests_total.with_label_values(&[result.as_str()]).inc();
    }
}
