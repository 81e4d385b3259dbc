//! The numbers of one group of workers that Holdline runs.

use holdline_core::supervisor::{Recycle, StartReason};
use prometheus::{Histogram, IntCounter, IntGauge};

use super::Families;
use super::labels::{WorkerFailure, WorkerStateLabel};

/// What a group counts; its series go when it goes.
#[derive(Debug)]
pub struct GroupMetrics {
    families: Families,
    name: String,
    states: [IntGauge; WorkerStateLabel::ALL.len()],
    starts: [IntCounter; StartReason::ALL.len()],
    recycles: [IntCounter; Recycle::ALL.len()],
    failures: [IntCounter; WorkerFailure::ALL.len()],
    /// Indexes whose processes fail one after another.
    pub crash_loops: IntCounter,
    /// Lines of output that were not logged.
    pub output_dropped: IntCounter,
    /// From the start of a process to its being ready.
    pub start_seconds: Histogram,
}

impl GroupMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        let both = |label: &'static str| [name.to_owned(), label.to_owned()];
        Self {
            states: WorkerStateLabel::ALL.map(|it| families.workers.with_label_values(&both(it.as_str()))),
            starts: StartReason::ALL.map(|it| families.worker_starts_total.with_label_values(&both(it.as_str()))),
            recycles: Recycle::ALL.map(|it| families.worker_recycles_total.with_label_values(&both(it.as_str()))),
            failures: WorkerFailure::ALL.map(|it| families.worker_failures_total.with_label_values(&both(it.as_str()))),
            crash_loops: families.worker_crash_loops_total.with_label_values(&[name]),
            output_dropped: families.worker_output_dropped_total.with_label_values(&[name]),
            start_seconds: families.worker_start_duration_seconds.with_label_values(&[name]),
            families: families.clone(),
            name: name.to_owned(),
        }
    }

    /// Counts a process that was started.
    pub fn started(&self, reason: StartReason) {
        self.starts[reason as usize].inc();
    }

    /// Counts a worker that is being replaced.
    pub fn recycled(&self, reason: Recycle) {
        self.recycles[reason as usize].inc();
    }

    /// Counts a worker that failed.
    pub fn failed(&self, failure: WorkerFailure) {
        self.failures[failure as usize].inc();
    }

    /// Shows how many workers are in each state, which `count` knows by its name.
    pub fn set(&self, count: impl Fn(&str) -> usize) {
        for state in WorkerStateLabel::ALL {
            self.states[state as usize].set(i64::try_from(count(state.as_str())).unwrap_or(i64::MAX));
        }
    }

    /// Shows what memory a worker uses, with all that it has started.
    pub fn rss(&self, worker: &str, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.families.worker_rss_bytes.with_label_values(&[&*self.name, worker]).set(bytes);
    }

    /// Forgets a worker that is gone.
    pub fn forget(&self, worker: &str) {
        // One that was never measured has no series.
        let _ = self.families.worker_rss_bytes.remove_label_values(&[&*self.name, worker]);
    }
}
