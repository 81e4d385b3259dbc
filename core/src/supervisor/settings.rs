//! What an operator decides about a group of workers, as far as the supervisor's decisions go.

use crate::backoff::Draw;
use std::time::Duration;

/// How a group is kept.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupSettings {
    /// Workers that serve.
    pub count: u32,
    /// Ready ones besides, that take no pipes until they are needed.
    pub standby: u32,
    /// What comes first when a worker is replaced.
    pub replace: Replace,
    /// How long a process has to become ready.
    pub start_timeout: Duration,
    /// How long the pipes of a worker that leaves have to find another.
    pub drain_timeout: Duration,
    /// From the signal that asks a process to end to the one that it cannot refuse.
    pub stop_timeout: Duration,
    /// The wait after a first failure.
    pub backoff_min: Duration,
    /// The longest wait after many.
    pub backoff_max: Duration,
    /// What makes a worker due for replacement.
    pub limits: Limits,
}

impl GroupSettings {
    pub(super) const fn total(&self) -> u32 {
        self.count + self.standby
    }

    pub(super) const fn count(&self) -> usize {
        self.count as usize
    }
}

/// What comes first when a worker is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replace {
    /// The replacement is ready before the old one is emptied.
    #[default]
    First,
    /// The old one has ended before the replacement is started: both cannot have what they need at once.
    After,
}

/// What a worker may have used before it is replaced; zero is no limit.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Limits {
    /// Pipes that were attached to it, all together.
    pub pipes: u64,
    /// Time since it was started.
    pub age: Duration,
    /// Resident memory of its process and all that it has started.
    pub rss_bytes: u64,
    /// By which part, 0 to 1, these may be lower for one worker than for another, so that not all are due at once.
    pub jitter: f64,
}

impl Limits {
    /// The limits of one worker: each up to `jitter` lower, never higher.
    pub(super) fn drawn(&self, draw: &mut Draw) -> Self {
        let mut part = || 1.0 - self.jitter * ((draw.bits() >> 11) as f64 / (1_u64 << 53) as f64);
        let lower = |limit: u64, part: f64| if limit == 0 { 0 } else { ((limit as f64 * part) as u64).max(1) };
        let (pipes, rss_bytes) = (lower(self.pipes, part()), lower(self.rss_bytes, part()));
        Self { pipes, rss_bytes, age: self.age.mul_f64(part()), jitter: 0.0 }
    }
}

/// Why a worker is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recycle {
    /// It has had as many pipes as it may.
    Pipes,
    /// It is as old as it may be.
    Age,
    /// It uses as much memory as it may.
    Rss,
    /// An operator asked for this one.
    Request,
    /// An operator asked for all of the group.
    Restart,
    /// It was started by a configuration that is no longer in force.
    Config,
}

impl Recycle {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 6] = [Self::Pipes, Self::Age, Self::Rss, Self::Request, Self::Restart, Self::Config];

    /// Its name in metrics, events and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipes => "pipes",
            Self::Age => "age",
            Self::Rss => "rss",
            Self::Request => "request",
            Self::Restart => "restart",
            Self::Config => "config",
        }
    }
}

/// What a process is started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartReason {
    /// There are fewer than there should be.
    Count,
    /// One before it failed.
    Failure,
    /// It takes the place of one that is due.
    Replacement,
}

impl StartReason {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 3] = [Self::Count, Self::Failure, Self::Replacement];

    /// Its name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Failure => "failure",
            Self::Replacement => "replacement",
        }
    }
}
