//! One supervised worker: where its process is in its life, and what it has used.
//!
//! ```text
//! Starting ──▶ Standby ──▶ Serving
//!     │           │            │
//!     ├───────────┴────────────┴──▶ Draining
//!     │                                │
//!     └──▶ Stopping ◀──────────────────┘
//!              │
//!              └──▶ Killed
//! ```
//! A process may end in every phase, which takes the worker out of its group. At the end of the whole group, each phase
//! leads to `Stopping`.

use super::PROVEN_AFTER;
use super::settings::{Limits, Recycle};
use crate::time::{Time, earliest};

/// A worker from its start to its end; never reused within a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerKey(pub u64);

/// Where a worker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Its process was started, and it is not ready.
    Starting,
    /// It is ready and has no pipes.
    Standby,
    /// It may have pipes.
    Serving,
    /// Its pipes are to leave.
    Draining,
    /// Its process was asked to end.
    Stopping,
    /// Its process was killed.
    Killed,
}

impl Phase {
    /// Every phase, for metrics that list them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Standby, Self::Serving, Self::Draining, Self::Stopping, Self::Killed];

    /// Its name in metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Killed => "killed",
        }
    }
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Worker {
    key: WorkerKey,
    index: u32,
    phase: Phase,
    /// When its phase has lasted too long.
    until: Option<Time>,
    started: Time,
    ready: Option<Time>,
    served: bool,
    failures: u32,
    failed: bool,
    due: Option<Recycle>,
    limits: Limits,
    rss_bytes: Option<u64>,
    pipes: u64,
}

impl Worker {
    pub(super) const fn new(
        key: WorkerKey,
        index: u32,
        failures: u32,
        limits: Limits,
        started: Time,
        ready_until: Time,
    ) -> Self {
        Self {
            key,
            index,
            phase: Phase::Starting,
            until: Some(ready_until),
            started,
            ready: None,
            served: false,
            failures,
            failed: false,
            due: None,
            limits,
            rss_bytes: None,
            pipes: 0,
        }
    }

    /// What it is called.
    #[must_use]
    pub const fn key(&self) -> WorkerKey {
        self.key
    }

    /// Its place in the group, from 1.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// When it was started.
    #[must_use]
    pub const fn started(&self) -> Time {
        self.started
    }

    /// When it became ready, if it did.
    #[must_use]
    pub const fn ready_at(&self) -> Option<Time> {
        self.ready
    }

    /// Failures in a row of those before it.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Why it is to be replaced, if it is.
    #[must_use]
    pub const fn due(&self) -> Option<Recycle> {
        self.due
    }

    /// Memory of its processes when that was last measured.
    #[must_use]
    pub const fn rss_bytes(&self) -> Option<u64> {
        self.rss_bytes
    }

    /// Pipes that it has had.
    #[must_use]
    pub const fn pipes(&self) -> u64 {
        self.pipes
    }

    pub(super) const fn has_served(&self) -> bool {
        self.served
    }

    /// Whether it ends because it never became ready.
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) const fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether its process is meant to end.
    pub(super) const fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Stopping | Phase::Killed)
    }

    /// Failures in a row that count when it fails now.
    pub(super) fn failures_before(&self, now: Time) -> u32 {
        let proven = self.ready.is_some_and(|ready| now.since(ready) >= PROVEN_AFTER);
        if proven { 0 } else { self.failures }
    }

    pub(super) fn is_late(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// When its phase has lasted too long, or it is too old.
    pub(super) fn deadline(&self) -> Option<Time> {
        let aged = (!self.limits.age.is_zero() && self.due.is_none() && !self.is_leaving())
            .then(|| self.started + self.limits.age);
        earliest(self.until, aged)
    }

    pub(super) const fn become_ready(&mut self, now: Time) {
        if matches!(self.phase, Phase::Starting) {
            (self.phase, self.until, self.ready) = (Phase::Standby, None, Some(now));
        }
    }

    pub(super) const fn serve(&mut self) {
        if matches!(self.phase, Phase::Standby) {
            (self.phase, self.served) = (Phase::Serving, true);
        }
    }

    /// Begins to empty it; false if it is on its way out already.
    pub(super) const fn empty(&mut self, until: Time) -> bool {
        match self.phase {
            Phase::Starting | Phase::Standby | Phase::Serving => {
                (self.phase, self.until) = (Phase::Draining, Some(until));
                true
            }
            Phase::Draining | Phase::Stopping | Phase::Killed => false,
        }
    }

    /// Asks its process to end; false if that was done already.
    pub(super) const fn stop(&mut self, until: Time) -> bool {
        match self.phase {
            Phase::Starting | Phase::Standby | Phase::Serving | Phase::Draining => {
                (self.phase, self.until) = (Phase::Stopping, Some(until));
                true
            }
            Phase::Stopping | Phase::Killed => false,
        }
    }

    /// Kills its process; false if that was done already.
    pub(super) const fn kill(&mut self) -> bool {
        let alive = !matches!(self.phase, Phase::Killed);
        (self.phase, self.until) = (Phase::Killed, None);
        alive
    }

    /// Has it replaced; false if it is to be replaced already, or on its way out.
    pub(super) const fn make_due(&mut self, why: Recycle) -> bool {
        if self.is_leaving() || self.due.is_some() {
            return false;
        }
        self.due = Some(why);
        true
    }

    /// It goes without a replacement.
    pub(super) const fn not_due(&mut self) {
        if !self.is_leaving() {
            self.due = None;
        }
    }

    pub(super) const fn measured(&mut self, rss_bytes: Option<u64>, pipes: u64) {
        if rss_bytes.is_some() {
            self.rss_bytes = rss_bytes;
        }
        self.pipes = pipes;
    }

    /// Has it replaced if it has used what it may.
    pub(super) fn exhausted(&mut self, now: Time) {
        let Limits { pipes, age, rss_bytes, .. } = self.limits;
        if pipes > 0 && self.pipes >= pipes {
            self.make_due(Recycle::Pipes);
        } else if rss_bytes > 0 && self.rss_bytes.is_some_and(|used| used >= rss_bytes) {
            self.make_due(Recycle::Rss);
        } else if !age.is_zero() && now.since(self.started) >= age {
            self.make_due(Recycle::Age);
        }
    }
}
