//! What can happen, each kind with its level; the table in `docs/events.md` says when.
//!
//! Invariant: a name never changes its meaning, since programs wait for it.

use std::sync::Arc;

use holdline_core::ids::PipeId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::backends::BackendEvent;

/// How much an event matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It goes as it should.
    #[default]
    Info,
    /// It may become trouble, or was and is over.
    Warn,
    /// Clients felt it, or it has to be mended.
    Error,
}

/// Makes the enum of all facts, and what is known of each by its name. A variant reads `LEVEL "type" Name { fields }`.
macro_rules! facts {
    ($($(#[doc = $doc:literal])+ $level:ident $kind:literal $name:ident $({ $($fields:tt)* })?,)+) => {
        /// What can happen. The `type` of the JSON form is what [`Fact::kind`] says.
        #[derive(Debug, Clone, Serialize, JsonSchema)]
        #[serde(tag = "type")]
        pub enum Fact {
            $(
                $(#[doc = $doc])+
                #[serde(rename = $kind)]
                $name $({ $($fields)* })?,
            )+
        }

        /// Every kind of fact, in the order of the table.
        pub const KINDS: &[&str] = &[$($kind),+];

        #[cfg(test)]
        const LEVELS: &[Level] = &[$(Level::$level),+];

        impl Fact {
            /// Its `type`.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => $kind,)+
                }
            }

            /// The level of its kind.
            const fn level_of_kind(&self) -> Level {
                match self {
                    $(Self::$name { .. } => Level::$level,)+
                }
            }
        }
    };
}

facts! {
    /// A backend came into a pool.
    Info "backend.registered" BackendRegistered { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend came back under its id with something changed.
    Info "backend.replaced" BackendReplaced { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend left its pool.
    Info "backend.removed" BackendRemoved { pool: Arc<str>, backend: Arc<str>, reason: &'static str },
    /// Health checks see the backend again.
    Info "backend.up" BackendUp { pool: Arc<str>, backend: Arc<str> },
    /// Health checks no longer see the backend.
    Warn "backend.down" BackendDown { pool: Arc<str>, backend: Arc<str>, reason: String },
    /// A backend failed its pipes so often that it gets no new ones for a while.
    Warn "backend.ejected" BackendEjected { pool: Arc<str>, backend: Arc<str>, reason: &'static str, for_ms: u64 },
    /// An ejected backend may take pipes again.
    Info "backend.readmitted" BackendReadmitted { pool: Arc<str>, backend: Arc<str> },
    /// An operator, or the backend itself, changed its admin state.
    Info "backend.state_changed" BackendStateChanged { pool: Arc<str>, backend: Arc<str>, state: &'static str },
    /// A backend takes nothing new and its pipes are to leave it.
    Info "backend.drain_started" DrainStarted { pool: Arc<str>, backend: Arc<str>, pipes: u64 },
    /// The last pipe left a draining backend.
    Info "backend.drained" Drained { pool: Arc<str>, backend: Arc<str> },
    /// A lease was not renewed in time.
    Warn "backend.lease_expired" LeaseExpired { pool: Arc<str>, backend: Arc<str> },
    /// A lease was renewed after it had expired.
    Info "backend.lease_revived" LeaseRevived { pool: Arc<str>, backend: Arc<str> },
    /// More than half of a pool's leases would expire at once: they are kept, since the fault is probably ours.
    Warn "pool.self_preservation" SelfPreservation { pool: Arc<str>, late: usize, live: usize },
    /// A pool that had enough eligible backends has fewer than `pools.min_backends`.
    Warn "pool.short" PoolShort { pool: Arc<str>, eligible: usize, min_backends: u32 },
    /// A pool that was short of eligible backends has enough again.
    Info "pool.enough" PoolEnough { pool: Arc<str>, eligible: usize, min_backends: u32 },
    /// A pipe's backend leg detached and the pipe looks for another.
    Warn "pipe.interrupted" PipeInterrupted {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        backend: Arc<str>,
        attachment: u64,
        reason: &'static str,
    },
    /// Something keeps a pipe from the backend that it wants.
    Warn "pipe.held" PipeHeld {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        reason: &'static str,
        /// When it is tried again if nothing changes before.
        retry_ms: Option<u64>,
    },
    /// A pipe has a backend again.
    Info "pipe.reattached" PipeReattached {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        backend: Arc<str>,
        attachment: u64,
        replayed: u64,
        took_ms: f64,
    },
    /// A pipe's client was lost, and may come back.
    Info "pipe.client_detached" ClientDetached {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        generation: u64,
        in_doubt: u64,
    },
    /// A pipe's client is back.
    Info "pipe.client_attached" ClientAttached {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        generation: u64,
        replayed: u64,
        replaced: bool,
        away_ms: u64,
    },
    /// A connection of a pipe's client was refused, because such ones had replaced each other too often.
    Warn "pipe.client_taken" ClientTaken {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
    },
    /// A pipe's client did not come back in time.
    Warn "pipe.client_expired" ClientExpired {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        away_ms: u64,
    },
    /// No backend took the pipe within its grace.
    Error "pipe.expired" PipeExpired {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        waited_ms: u64,
    },
    /// The pipe ended because no worker would do: it was refused, its route closes with its worker, or a message of it
    /// ends workers.
    Error "pipe.given_up" PipeGivenUp {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        code: u16,
        reason: Box<str>,
    },
    /// The first viewer of a key opened a shared stream.
    Info "shared.opened" SharedOpened {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        key: Option<Arc<str>>,
    },
    /// A shared stream ended: `viewers` were told so, and `reused` had come while it was there.
    Info "shared.closed" SharedClosed {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        key: Option<Arc<str>>,
        code: u16,
        viewers: usize,
        reused: u64,
    },
    /// A pipe that had been interrupted ended, by whom and with which code its client was told.
    Warn "pipe.ended" PipeEnded {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        code: u16,
        reason: Box<str>,
        /// `client`, `backend`, `operator` or `holdline`.
        blame: &'static str,
        interruptions: u64,
        lived_ms: u64,
    },
    /// An operator looks on at the pipe's messages, for so long at most.
    Info "pipe.tapped" PipeTapped {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        by: Box<str>,
        bytes_max: usize,
        for_ms: u64,
    },
    /// An operator closed the pipe.
    Info "pipe.closed_by_operator" PipeClosedByOperator {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        code: u16,
    },
    /// The replay buffer was full.
    Warn "pipe.overflowed" ReplayOverflow {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        policy: &'static str,
    },
    /// Messages were given up, and this is where it is said.
    Error "pipe.messages_lost" MessagesLost {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        lane: &'static str,
        messages: u64,
        reason: &'static str,
    },
    /// A client that numbers its messages was told that some are missing, or said so; without a number if that is not known.
    Warn "pipe.gap" Gap {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        lane: &'static str,
        why: &'static str,
        messages: Option<u64>,
    },
    /// A route's conversations turned out to be of this kind: said once for each kind, and what it was known by.
    Info "route.conversation" Conversation {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        kind: &'static str,
        profile: Option<Arc<str>>,
        why: &'static str,
    },
    /// A conversation could not be said again to another worker, or not all of it.
    Warn "pipe.prologue_failed" PrologueFailed {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        why: &'static str,
    },
    /// The pipe was closed to free memory.
    Error "pipe.evicted" Evicted {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        policy: &'static str,
        bytes: u64,
    },
    /// A worker that Holdline runs was started.
    Info "worker.started" WorkerStarted { group: Arc<str>, worker: Arc<str>, pid: u32, reason: &'static str },
    /// A worker could not be started.
    Error "worker.start_failed" WorkerStartFailed { group: Arc<str>, worker: Arc<str>, error: String },
    /// The pool's health check finds a worker that was started.
    Info "worker.ready" WorkerReady { group: Arc<str>, worker: Arc<str>, took_ms: u64 },
    /// A worker did not become ready in time, and is stopped.
    Warn "worker.not_ready" WorkerNotReady { group: Arc<str>, worker: Arc<str>, after_ms: u64 },
    /// A worker is being replaced.
    Info "worker.recycled" WorkerRecycled { group: Arc<str>, worker: Arc<str>, reason: &'static str },
    /// A worker did not end when it was asked to.
    Warn "worker.killed" WorkerKilled { group: Arc<str>, worker: Arc<str> },
    /// A worker's process ended, `expected` if it was asked to.
    Info "worker.exited" WorkerExited { group: Arc<str>, worker: Arc<str>, status: String, expected: bool },
    /// Workers fail one after another; the next one waits so long.
    Error "worker.crash_loop" WorkerCrashLoop { group: Arc<str>, worker: Arc<str>, failures: u32, wait_ms: u64 },
    /// A new configuration is in force; `needs_restart` names the keys that are not.
    Info "config.reloaded" ConfigReloaded { needs_restart: Vec<String> },
    /// A new configuration was refused and the old one stays.
    Error "config.reload_failed" ConfigReloadFailed { error: String },
    /// New handshakes show other certificates than before.
    Info "tls_reloaded" TlsReloaded { certificates: Vec<String> },
    /// The files of certificates have changed and are bad; the old ones stay.
    Error "tls_reload_failed" TlsReloadFailed { error: String },
    /// A certificate expires in so many days, or has expired; `not_after` is in Unix time.
    Warn "tls_expires" TlsExpires { name: String, file: String, days: u64, not_after: u64 },
    /// The process takes nothing new.
    Info "process.drain_started" ProcessDrainStarted,
    /// The process takes new pipes again.
    Info "process.drain_cancelled" ProcessDrainCancelled,
    /// A new process has taken over, so many pipes went there, and so many could not.
    Info "process.upgraded" Upgraded { pid: Option<u32>, moved: u64, left: u64 },
    /// A new process could not take over, and this one serves on.
    Warn "process.upgrade_failed" UpgradeFailed { reason: String },
    /// This process has taken over from another one, with so many pipes; so many have no place in its configuration.
    Info "process.taken_over" TakenOver { pid: u32, moved: u64, refused: u64 },
}

impl Fact {
    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        // The pipe had been interrupted, and ended as its peers or its operator wanted all the same.
        if let Self::PipeEnded { blame: "client" | "backend" | "operator", .. } = self {
            return Level::Info;
        }
        self.level_of_kind()
    }
}

/// What a kind is about: what stands before its dot.
#[must_use]
pub fn subject(kind: &str) -> &str {
    kind.split(['.', '_']).next().unwrap_or(kind)
}

/// Whether pipes make such events by the thousand.
pub(super) fn is_of_pipes(kind: &str) -> bool {
    matches!(subject(kind), "pipe" | "shared")
}

pub(super) fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl From<BackendEvent> for Fact {
    fn from(event: BackendEvent) -> Self {
        match event {
            BackendEvent::Registered { pool, backend, url } => Self::BackendRegistered { pool, backend, url },
            BackendEvent::Replaced { pool, backend, url } => Self::BackendReplaced { pool, backend, url },
            BackendEvent::Removed { pool, backend, reason } => {
                Self::BackendRemoved { pool, backend, reason: reason.as_str() }
            }
            BackendEvent::Up { pool, backend } => Self::BackendUp { pool, backend },
            BackendEvent::Down { pool, backend, reason } => Self::BackendDown { pool, backend, reason },
            BackendEvent::Ejected { pool, backend, reason, lasts } => {
                let for_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                Self::BackendEjected { pool, backend, reason: reason.as_str(), for_ms }
            }
            BackendEvent::Readmitted { pool, backend } => Self::BackendReadmitted { pool, backend },
            BackendEvent::StateChanged { pool, backend, state } => {
                Self::BackendStateChanged { pool, backend, state: state.as_str() }
            }
            BackendEvent::Draining { pool, backend, pipes } => {
                Self::DrainStarted { pool, backend, pipes: u64::from(pipes) }
            }
            BackendEvent::Drained { pool, backend } => Self::Drained { pool, backend },
            BackendEvent::LeaseExpired { pool, backend } => Self::LeaseExpired { pool, backend },
            BackendEvent::LeaseRevived { pool, backend } => Self::LeaseRevived { pool, backend },
            BackendEvent::SelfPreservation { pool, late, live } => Self::SelfPreservation { pool, late, live },
            BackendEvent::PoolShort { pool, eligible, min_backends } => {
                Self::PoolShort { pool, eligible, min_backends }
            }
            BackendEvent::PoolEnough { pool, eligible, min_backends } => {
                Self::PoolEnough { pool, eligible, min_backends }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Rows of `docs/events.md`: the level and the fields of each type.
    fn documented() -> BTreeMap<String, (String, String)> {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")).unwrap();
        let table = page.split("| type | level |").nth(1).unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>());
        cells.map(|cells| (cells[1].replace('`', ""), (cells[2].clone(), cells[3].replace('`', "")))).collect()
    }

    #[test]
    fn every_event_is_documented_with_its_level_and_its_fields() {
        let schema = schemars::schema_for!(Fact).to_value();
        let variants = schema["oneOf"].as_array().unwrap();
        assert_eq!(variants.len(), KINDS.len());
        let mut written = documented();
        for variant in variants {
            let fields = variant["properties"].as_object().unwrap();
            let kind = fields["type"]["const"].as_str().unwrap();
            assert!(KINDS.contains(&kind), "{kind}");
            let names: Vec<&str> = fields.keys().map(String::as_str).filter(|name| *name != "type").collect();
            let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
            let (_, fields) = written.remove(kind).unwrap_or_else(|| panic!("docs/events.md lacks {kind}: {names}"));
            let mut of_page: Vec<&str> = fields.split(", ").collect();
            let mut of_fact: Vec<&str> = names.split(", ").collect();
            of_page.sort_unstable();
            of_fact.sort_unstable();
            assert_eq!(of_page, of_fact, "{kind}");
        }
        assert!(written.is_empty(), "docs/events.md tells of what never happens: {written:?}");
    }

    #[test]
    fn the_levels_that_are_documented_are_those_that_events_have() {
        let written = documented();
        for (&kind, level) in KINDS.iter().zip(LEVELS) {
            let level = serde_json::to_value(level).unwrap();
            assert_eq!(written[kind].0.split(' ').next(), level.as_str(), "{kind}");
        }
        let ended = |blame| Fact::PipeEnded {
            pipe: PipeId::from_bytes([0; 16]),
            route: "r".into(),
            pool: "p".into(),
            code: 1000,
            reason: "".into(),
            blame,
            interruptions: 1,
            lived_ms: 1,
        };
        assert_eq!((ended("client").level(), ended("holdline").level()), (Level::Info, Level::Warn));
    }
}
