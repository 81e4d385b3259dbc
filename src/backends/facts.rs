//! What this module tells others: events for people, and orders to leave for pipes.

use holdline_core::pool::{AdminState, NoCandidate};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Something that happened to a backend or a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendEvent {
    /// A backend came into a pool.
    Registered { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend came back under its id with something changed.
    Replaced { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend left its pool.
    Removed { pool: Arc<str>, backend: Arc<str>, reason: Removal },
    /// It is proven to be there.
    Up { pool: Arc<str>, backend: Arc<str> },
    /// It is proven not to be.
    Down { pool: Arc<str>, backend: Arc<str>, reason: String },
    /// Pipes fared badly on it, so it rests for a while.
    Ejected { pool: Arc<str>, backend: Arc<str>, reason: EjectCause, lasts: Duration },
    /// Its rest is over.
    Readmitted { pool: Arc<str>, backend: Arc<str> },
    /// Its admin state changed.
    StateChanged { pool: Arc<str>, backend: Arc<str>, state: AdminState },
    /// Its pipes are to leave; so many are there.
    Draining { pool: Arc<str>, backend: Arc<str>, pipes: u32 },
    /// The last pipe left it.
    Drained { pool: Arc<str>, backend: Arc<str> },
    /// Its lease was not renewed in time.
    LeaseExpired { pool: Arc<str>, backend: Arc<str> },
    /// Its lease was renewed after it had expired.
    LeaseRevived { pool: Arc<str>, backend: Arc<str> },
    /// Leases are kept although they ran out, since the fault is probably ours.
    SelfPreservation { pool: Arc<str>, late: usize, live: usize },
    /// A pool that had enough eligible backends has fewer than it should.
    PoolShort { pool: Arc<str>, eligible: usize, min_backends: u32 },
    /// It has enough again.
    PoolEnough { pool: Arc<str>, eligible: usize, min_backends: u32 },
}

impl BackendEvent {
    /// Writes the event to the log, with its reason; what costs pipes a worker is a warning.
    pub fn log(&self) {
        match self {
            Self::Registered { pool, backend, url } => tracing::info!(%pool, %backend, url, "backend.registered"),
            Self::Replaced { pool, backend, url } => tracing::info!(%pool, %backend, url, "backend.replaced"),
            Self::Removed { pool, backend, reason } => {
                tracing::info!(%pool, %backend, reason = reason.as_str(), "backend.removed");
            }
            Self::Up { pool, backend } => tracing::info!(%pool, %backend, "backend.up"),
            Self::Down { pool, backend, reason } => tracing::warn!(%pool, %backend, reason, "backend.down"),
            Self::Ejected { pool, backend, reason, lasts } => {
                let for_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%pool, %backend, reason = reason.as_str(), for_ms, "backend.ejected");
            }
            Self::Readmitted { pool, backend } => tracing::info!(%pool, %backend, "backend.readmitted"),
            Self::StateChanged { pool, backend, state } => {
                tracing::info!(%pool, %backend, state = state.as_str(), "backend.state_changed");
            }
            Self::Draining { pool, backend, pipes } => tracing::info!(%pool, %backend, pipes, "backend.drain_started"),
            Self::Drained { pool, backend } => tracing::info!(%pool, %backend, "backend.drained"),
            Self::LeaseExpired { pool, backend } => tracing::warn!(%pool, %backend, "backend.lease_expired"),
            Self::LeaseRevived { pool, backend } => tracing::info!(%pool, %backend, "backend.lease_revived"),
            Self::SelfPreservation { pool, late, live } => {
                tracing::warn!(%pool, late, live, "pool.self_preservation");
            }
            Self::PoolShort { pool, eligible, min_backends } => {
                tracing::warn!(%pool, eligible, min_backends, "pool.short");
            }
            Self::PoolEnough { pool, eligible, min_backends } => {
                tracing::info!(%pool, eligible, min_backends, "pool.enough");
            }
        }
    }
}

/// Why a backend left its pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Removal {
    /// An operator or the worker itself deleted it.
    Deleted,
    /// Its lease expired and was not renewed.
    LeaseExpired,
    /// Its URL or pool changed, so it counts as another one.
    Replaced,
    /// The configuration no longer names it.
    Unconfigured,
    /// The supervisor has no more use for it.
    Retired,
    /// Its process has ended.
    Exited,
}

impl Removal {
    /// Its name in the log and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::LeaseExpired => "lease_expired",
            Self::Replaced => "replaced",
            Self::Unconfigured => "unconfigured",
            Self::Retired => "retired",
            Self::Exited => "exited",
        }
    }
}

/// Why a backend was ejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EjectCause {
    /// Dials failed in a row.
    FailedDials,
    /// Attaches died young.
    YoungDeaths,
    /// It answered dials with 5xx.
    ServerErrors,
}

impl EjectCause {
    /// Every cause, in the order of their numbers, for metrics that list them.
    pub const ALL: [Self; 3] = [Self::FailedDials, Self::YoungDeaths, Self::ServerErrors];

    /// Its name in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailedDials => "failed_dials",
            Self::YoungDeaths => "young_deaths",
            Self::ServerErrors => "server_errors",
        }
    }
}

/// What keeps a pipe from the worker that it wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// The pool has no backend.
    NoBackend,
    /// No backend serves the key.
    NoOwner,
    /// Those that serve it are down, ejected, draining, in maintenance or expired.
    NotEligible,
    /// Those that are eligible have as many pipes as they may.
    Full,
    /// Those that would do failed this pipe in this round, disowned its key, or rest after quick deaths.
    Tried,
    /// Those that would do killed as many attaches of this pipe in a minute as `reattach.dials_per_minute` allows.
    DiesYoung,
    /// `reattach.dials_at_once` dials of the chosen one run already.
    DialsAtOnce,
    /// Its conversation ends with its worker (`routes.conversation`, `routes.on_backend_loss`), so it stays on one that is
    /// to be left.
    Stateful,
}

impl Hold {
    /// Every reason, in the order of their numbers, for metrics that list them.
    pub const ALL: [Self; 8] = [
        Self::NoBackend,
        Self::NoOwner,
        Self::NotEligible,
        Self::Full,
        Self::Tried,
        Self::DiesYoung,
        Self::DialsAtOnce,
        Self::Stateful,
    ];

    /// Its name in the API, in metrics and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::NoOwner => "no_owner",
            Self::NotEligible => "not_eligible",
            Self::Full => "full",
            Self::Tried => "tried",
            Self::DiesYoung => "dies_young",
            Self::DialsAtOnce => "dials_at_once",
            Self::Stateful => "stateful",
        }
    }
}

impl From<NoCandidate> for Hold {
    fn from(reason: NoCandidate) -> Self {
        match reason {
            NoCandidate::Empty => Self::NoBackend,
            NoCandidate::NoOwner => Self::NoOwner,
            NoCandidate::NotEligible => Self::NotEligible,
            NoCandidate::Full => Self::Full,
            NoCandidate::Excluded => Self::Tried,
        }
    }
}

/// An order to a pipe to leave its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leave {
    /// In which manner.
    pub how: LeaveHow,
    /// For which reason.
    pub cause: LeaveCause,
}

/// In which manner a pipe leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaveHow {
    /// Choose another (with this one as `avoid`), keep the old link until the new one stands; if there is no other,
    /// stay and try again when the pool changes.
    Reattach,
    /// Let go now and wait for another as after a loss.
    Detach,
    /// Close the client.
    Close,
}

/// Why a pipe has to leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LeaveCause {
    /// The operator drains it.
    Drain,
    /// The operator works on it.
    Maint,
    /// It is being removed.
    Removed,
    /// Its lease expired.
    LeaseExpired,
    /// Others have fewer pipes for their weight.
    Rebalance,
}
