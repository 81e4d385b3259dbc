//! What happened: past facts, numbered from 1, the newest [`EVENTS_MAX`] of them kept.
//!
//! Facts that a person would want to be told about; the opening and closing of every pipe is not among them (the log
//! has those), so that a connect storm can't wash an outage out of the ring. Any thread may push; readers wait
//! without polling. The invariant: a reader that always asks for what comes after the last number it saw either
//! gets every event in order or is told that it came too late.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdline_core::ids::PipeId;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::backends::BackendEvent;

/// Events kept; older ones are forgotten.
pub const EVENTS_MAX: usize = 10_000;

/// One fact with its number and its time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Event {
    /// Place in the order of events of this process; the first is 1.
    pub seq: u64,
    /// When it was pushed.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What can happen. The `type` of the JSON form is the serde name of the variant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type")]
pub enum Fact {
    /// A backend came into a pool.
    #[serde(rename = "backend.registered")]
    BackendRegistered { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend came back under its id with something changed.
    #[serde(rename = "backend.replaced")]
    BackendReplaced { pool: Arc<str>, backend: Arc<str>, url: String },
    /// A backend left its pool.
    #[serde(rename = "backend.removed")]
    BackendRemoved { pool: Arc<str>, backend: Arc<str>, reason: &'static str },
    /// Health checks see the backend again.
    #[serde(rename = "backend.up")]
    BackendUp { pool: Arc<str>, backend: Arc<str> },
    /// Health checks no longer see the backend.
    #[serde(rename = "backend.down")]
    BackendDown { pool: Arc<str>, backend: Arc<str>, reason: String },
    /// A backend failed its pipes so often that it gets no new ones for a while.
    #[serde(rename = "backend.ejected")]
    BackendEjected { pool: Arc<str>, backend: Arc<str>, reason: &'static str, for_ms: u64 },
    /// An ejected backend may take pipes again.
    #[serde(rename = "backend.readmitted")]
    BackendReadmitted { pool: Arc<str>, backend: Arc<str> },
    /// An operator, or the backend itself, changed its admin state.
    #[serde(rename = "backend.state_changed")]
    BackendStateChanged { pool: Arc<str>, backend: Arc<str>, state: &'static str },
    /// A backend takes nothing new and its pipes are to leave it.
    #[serde(rename = "backend.drain_started")]
    DrainStarted { pool: Arc<str>, backend: Arc<str>, pipes: u64 },
    /// The last pipe left a draining backend.
    #[serde(rename = "backend.drained")]
    Drained { pool: Arc<str>, backend: Arc<str> },
    /// A lease was not renewed in time.
    #[serde(rename = "backend.lease_expired")]
    LeaseExpired { pool: Arc<str>, backend: Arc<str> },
    /// A lease was renewed after it had expired.
    #[serde(rename = "backend.lease_revived")]
    LeaseRevived { pool: Arc<str>, backend: Arc<str> },
    /// More than half of a pool's leases would expire at once: they are kept, since the fault is probably ours.
    #[serde(rename = "pool.self_preservation")]
    SelfPreservation { pool: Arc<str>, late: usize, live: usize },
    /// A pipe's backend leg detached and the pipe looks for another.
    #[serde(rename = "pipe.interrupted")]
    PipeInterrupted {
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
    #[serde(rename = "pipe.held")]
    PipeHeld {
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
    #[serde(rename = "pipe.reattached")]
    PipeReattached {
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
    #[serde(rename = "pipe.client_detached")]
    ClientDetached {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        generation: u64,
        in_doubt: u64,
    },
    /// A pipe's client is back.
    #[serde(rename = "pipe.client_attached")]
    ClientAttached {
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
    #[serde(rename = "pipe.client_taken")]
    ClientTaken {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
    },
    /// A pipe's client did not come back in time.
    #[serde(rename = "pipe.client_expired")]
    ClientExpired {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        away_ms: u64,
    },
    /// No backend took the pipe within its grace.
    #[serde(rename = "pipe.expired")]
    PipeExpired {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        waited_ms: u64,
    },
    /// The pipe ended because no worker would do: it was refused, its route closes with its worker, or a message of it
    /// ends workers.
    #[serde(rename = "pipe.given_up")]
    PipeGivenUp {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        pool: Arc<str>,
        code: u16,
        reason: Box<str>,
    },
    /// The first viewer of a key opened a shared stream.
    #[serde(rename = "shared.opened")]
    SharedOpened {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        key: Option<Arc<str>>,
    },
    /// A shared stream ended: `viewers` were told so, and `reused` had come while it was there.
    #[serde(rename = "shared.closed")]
    SharedClosed {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        key: Option<Arc<str>>,
        code: u16,
        viewers: usize,
        reused: u64,
    },
    /// An operator closed the pipe.
    #[serde(rename = "pipe.closed_by_operator")]
    PipeClosedByOperator {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        code: u16,
    },
    /// The replay buffer was full.
    #[serde(rename = "pipe.overflowed")]
    ReplayOverflow {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        policy: &'static str,
    },
    /// Messages were given up, and this is where it is said.
    #[serde(rename = "pipe.messages_lost")]
    MessagesLost {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        lane: &'static str,
        messages: u64,
        reason: &'static str,
    },
    /// A client that numbers its messages was told that some are missing, or said so; without a number if that is not known.
    #[serde(rename = "pipe.gap")]
    Gap {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        lane: &'static str,
        why: &'static str,
        messages: Option<u64>,
    },
    /// A route's conversations turned out to be of this kind: said once for each kind, and what it was known by.
    #[serde(rename = "route.conversation")]
    Conversation {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        kind: &'static str,
        profile: Option<Arc<str>>,
        why: &'static str,
    },
    /// A conversation could not be said again to another worker, or not all of it.
    #[serde(rename = "pipe.prologue_failed")]
    PrologueFailed {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        why: &'static str,
    },
    /// The pipe was closed to free memory.
    #[serde(rename = "pipe.evicted")]
    Evicted {
        #[serde(serialize_with = "as_text")]
        #[schemars(with = "String")]
        pipe: PipeId,
        route: Arc<str>,
        policy: &'static str,
        bytes: u64,
    },
    /// A worker that Holdline runs was started.
    #[serde(rename = "worker.started")]
    WorkerStarted { group: Arc<str>, worker: Arc<str>, pid: u32, reason: &'static str },
    /// A worker could not be started.
    #[serde(rename = "worker.start_failed")]
    WorkerStartFailed { group: Arc<str>, worker: Arc<str>, error: String },
    /// The pool's health check finds a worker that was started.
    #[serde(rename = "worker.ready")]
    WorkerReady { group: Arc<str>, worker: Arc<str>, took_ms: u64 },
    /// A worker did not become ready in time, and is stopped.
    #[serde(rename = "worker.not_ready")]
    WorkerNotReady { group: Arc<str>, worker: Arc<str>, after_ms: u64 },
    /// A worker is being replaced.
    #[serde(rename = "worker.recycled")]
    WorkerRecycled { group: Arc<str>, worker: Arc<str>, reason: &'static str },
    /// A worker did not end when it was asked to.
    #[serde(rename = "worker.killed")]
    WorkerKilled { group: Arc<str>, worker: Arc<str> },
    /// A worker's process ended, `expected` if it was asked to.
    #[serde(rename = "worker.exited")]
    WorkerExited { group: Arc<str>, worker: Arc<str>, status: String, expected: bool },
    /// Workers fail one after another; the next one waits so long.
    #[serde(rename = "worker.crash_loop")]
    WorkerCrashLoop { group: Arc<str>, worker: Arc<str>, failures: u32, wait_ms: u64 },
    /// A new configuration is in force; `needs_restart` names the keys that are not.
    #[serde(rename = "config.reloaded")]
    ConfigReloaded { needs_restart: Vec<String> },
    /// A new configuration was refused and the old one stays.
    #[serde(rename = "config.reload_failed")]
    ConfigReloadFailed { error: String },
    /// New handshakes show other certificates than before.
    #[serde(rename = "tls_reloaded")]
    TlsReloaded { certificates: Vec<String> },
    /// The files of certificates have changed and are bad; the old ones stay.
    #[serde(rename = "tls_reload_failed")]
    TlsReloadFailed { error: String },
    /// A certificate expires in so many days, or has expired; `not_after` is in Unix time.
    #[serde(rename = "tls_expires")]
    TlsExpires { name: String, file: String, days: u64, not_after: u64 },
    /// The process takes nothing new.
    #[serde(rename = "process.drain_started")]
    ProcessDrainStarted,
    /// The process takes new pipes again.
    #[serde(rename = "process.drain_cancelled")]
    ProcessDrainCancelled,
}

/// The asked-for position is not in the ring: forgotten, or from another life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the oldest event kept is {oldest}, the newest is {newest}")]
pub struct TooOld {
    /// The oldest number that can still be read (one more than `newest` while there is none).
    pub oldest: u64,
    /// The newest number.
    pub newest: u64,
}

/// The ring of events; share it by `Arc`.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Arc<Event>>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// An empty ring.
    #[must_use]
    pub fn new() -> Self {
        Self { ring: Mutex::new(VecDeque::new()), newest: watch::Sender::new(0) }
    }

    /// Adds a fact, wakes the tasks that wait for it, and returns its number.
    pub fn push(&self, fact: Fact) -> u64 {
        let mut ring = self.ring();
        let seq = *self.newest.borrow() + 1;
        if ring.len() == EVENTS_MAX {
            ring.pop_front();
        }
        ring.push_back(Arc::new(Event { seq, at: Timestamp::now(), fact }));
        // Under the lock, so that numbers are announced in order and never before their event can be read.
        self.newest.send_replace(seq);
        seq
    }

    /// The number of the newest event; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The events after number `after`, oldest first, at most `limit` of them; 0 asks for the whole ring as it is.
    ///
    /// # Errors
    /// [`TooOld`] when an event after `after` was forgotten already, or when `after` was never reached.
    pub fn read_after(&self, after: u64, limit: usize) -> Result<Vec<Arc<Event>>, TooOld> {
        let ring = self.ring();
        let newest = self.newest();
        let oldest = newest + 1 - ring.len() as u64;
        if after > newest || (after != 0 && after + 1 < oldest) {
            return Err(TooOld { oldest, newest });
        }
        let skip = usize::try_from((after + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        Ok(ring.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Waits until there is an event after number `after`; returns at once if there is one.
    pub async fn wait_after(&self, after: u64) {
        let mut newest = self.newest.subscribe();
        // The sender lives as long as `self`, so the only way out is the condition.
        let _ = newest.wait_for(|&newest| newest > after).await;
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(n: u64) -> Fact {
        Fact::PipeExpired { pipe: PipeId::from_bytes([0; 16]), route: "r".into(), pool: "p".into(), waited_ms: n }
    }

    #[test]
    fn events_are_numbered_from_one_and_read_after_a_number() {
        let events = Events::new();
        assert_eq!(events.read_after(0, 10).unwrap().len(), 0);
        for n in 1..=3 {
            assert_eq!(events.push(fact(n)), n);
        }
        let seqs = |after, limit| -> Vec<u64> {
            events.read_after(after, limit).unwrap().iter().map(|event| event.seq).collect()
        };
        assert_eq!(seqs(0, 10), [1, 2, 3]);
        assert_eq!(seqs(1, 1), [2]);
        assert!(seqs(3, 10).is_empty());
    }

    #[test]
    fn what_the_ring_forgot_and_what_never_was_is_too_old() {
        let events = Events::new();
        for n in 1..=EVENTS_MAX as u64 + 2 {
            events.push(fact(n));
        }
        let too_old = TooOld { oldest: 3, newest: EVENTS_MAX as u64 + 2 };
        assert_eq!(events.read_after(1, 1).unwrap_err(), too_old);
        assert_eq!(events.read_after(too_old.newest + 1, 1).unwrap_err(), too_old);
        assert_eq!(events.read_after(2, 1).unwrap()[0].seq, 3);
        assert_eq!(events.read_after(0, usize::MAX).unwrap().len(), EVENTS_MAX);
    }

    #[test]
    fn an_event_is_one_flat_json_object() {
        let events = Events::new();
        events.push(Fact::PipeInterrupted {
            pipe: PipeId::from_bytes([0; 16]),
            route: "all".into(),
            pool: "default".into(),
            backend: "a".into(),
            attachment: 1,
            reason: "reset",
        });
        let json = serde_json::to_value(&*events.read_after(0, 1).unwrap()[0]).unwrap();
        assert_eq!(json["seq"], 1);
        assert_eq!(json["type"], "pipe.interrupted");
        assert_eq!(json["pipe"], "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(json["reason"], "reset");
        assert!(json["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[tokio::test]
    async fn a_reader_misses_nothing_while_other_threads_push() {
        const PUSHERS: u64 = 4;
        const EACH: u64 = 1000;
        let events = Arc::new(Events::new());
        let threads: Vec<_> = (0..PUSHERS)
            .map(|_| {
                let events = Arc::clone(&events);
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        events.push(fact(n));
                    }
                })
            })
            .collect();
        let mut after = 0;
        while after < PUSHERS * EACH {
            events.wait_after(after).await;
            for event in events.read_after(after, 7).unwrap() {
                assert_eq!(event.seq, after + 1);
                after = event.seq;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
