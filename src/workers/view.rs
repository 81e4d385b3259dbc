//! How groups and their workers read from outside.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdline_core::ids::BackendKey;
use holdline_core::supervisor::Phase;

/// A group as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupView {
    /// Its name.
    pub name: Arc<str>,
    /// The pool of its workers.
    pub pool: Arc<str>,
    /// Workers that should serve.
    pub count: u32,
    /// Workers that should stand by.
    pub standby: u32,
    /// Its workers, by their index.
    pub workers: Vec<WorkerView>,
}

impl GroupView {
    /// Workers in this state.
    #[must_use]
    pub fn count_of(&self, state: WorkerState) -> usize {
        self.workers.iter().filter(|worker| worker.state == state).count()
    }

    /// Workers that are to be replaced.
    #[must_use]
    pub fn due(&self) -> usize {
        self.workers.iter().filter(|worker| worker.due.is_some()).count()
    }
}

/// Where a worker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerState {
    /// It has a process.
    Live(Phase),
    /// Its process failed, and the next one waits.
    Waiting,
}

impl WorkerState {
    /// Every state, for metrics that list them.
    pub const ALL: [Self; 7] = [
        Self::Live(Phase::Starting),
        Self::Live(Phase::Standby),
        Self::Live(Phase::Serving),
        Self::Live(Phase::Draining),
        Self::Live(Phase::Stopping),
        Self::Live(Phase::Killed),
        Self::Waiting,
    ];

    /// Its name in metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live(phase) => phase.as_str(),
            Self::Waiting => "waiting",
        }
    }
}

/// A worker as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerView {
    /// What it is called, as a backend too.
    pub id: Arc<str>,
    /// Its place in its group, from 1.
    pub index: u32,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Why it is to be replaced, if it is.
    pub due: Option<&'static str>,
    /// Failures in a row of those before it.
    pub failures: u32,
    /// What runs; nothing while the next process waits.
    pub process: Option<ProcessView>,
    /// When the next process is started.
    pub retry_at: Option<SystemTime>,
}

/// What runs as a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessView {
    /// The number of the process.
    pub pid: u32,
    /// Where it is reached.
    pub url: Arc<str>,
    /// Its place among the backends.
    pub backend: BackendKey,
    /// When it was started.
    pub started_at: SystemTime,
    /// How long it took to become ready, if it did.
    pub ready_after: Option<Duration>,
    /// Pipes that it has had.
    pub pipes: u64,
    /// Resident memory with all that it has started, when that was last measured.
    pub rss_bytes: Option<u64>,
}
