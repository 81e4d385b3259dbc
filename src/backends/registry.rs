//! What is known of every pool and backend, changed only under the lock of `Backends`.
//!
//! Each change leaves what the world must hear in `Effects`, which is told after the lock is released: no
//! callback can wait for us while we wait for them. Invariants: `ids` names every backend that is not being replaced;
//! a record and its entry in a core pool come and go together; a pool is woken whenever one of its backends turns
//! eligible or stops being full.

use super::Bounds;
use super::facts::{BackendEvent, EjectCause, Leave, LeaveCause, LeaveHow, Removal};
use super::moves::{self, Pace};
use super::owners::Owners;
use super::report::{ReportPointers, WorkerReport};
use super::reserve::Picked;
use super::shortage::Shortage;
use super::spec::{BackendSpec, LastProbe, Origin, PipesWish, PoolSpec, ProbeSettings, Progress, StateChange};
use super::sticky::Tag;
use crate::clock::Clock;
use crate::net::{Networks, OwnListeners, ParkedLines, SendProxy, TlsClient};
use holdline_core::health::HealthChange;
use holdline_core::ids::BackendKey;
use holdline_core::pool::{AdminState, Backend, BackendSettings, Pool, PoolSettings, YoungDeaths};
use holdline_core::settings::{MoveOrder, WeightFrom};
use holdline_core::time::Time;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};

/// What a change means for the world.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) events: Vec<BackendEvent>,
    pub(super) leaves: Vec<(BackendKey, Leave)>,
    /// Whether a list or a single backend reads differently now.
    pub(super) changed: bool,
    /// Whether the keeper has to look at its deadlines anew.
    pub(super) keeper: bool,
}

pub(super) struct Registry {
    pub(super) clock: Clock,
    pub(super) where_to: WhereTo,
    pub(super) pools: BTreeMap<Arc<str>, PoolEntry>,
    pub(super) records: HashMap<BackendKey, Record>,
    pub(super) ids: BTreeMap<Arc<str>, BackendKey>,
    pub(super) deaths: YoungDeaths,
    pub(super) bounds: Bounds,
    /// Memory that is taken by what is said about all of them.
    pub(super) held_bytes: usize,
    pub(super) last_key: u64,
    pub(super) last_version: u64,
    /// What this process calls the backends that another one called so, if it has taken over from one.
    pub(super) others: HashMap<u64, BackendKey>,
}

/// Where backends may be, and where none may.
pub(super) struct WhereTo {
    pub(super) networks: Arc<Networks>,
    pub(super) own: Arc<OwnListeners>,
    /// Where connections are that workers have parked; nothing where none can dial in.
    pub(super) parked: Option<ParkedLines>,
}

pub(super) struct PoolEntry {
    pub(super) core: Pool,
    /// Where the sessions of route keys are.
    pub(super) owners: Owners,
    /// When the next planned move may begin.
    pub(super) pace: Pace,
    pub(super) move_order: MoveOrder,
    pub(super) weight_from: WeightFrom,
    pub(super) worker_memory_max: u64,
    /// Eligible backends that it should have.
    pub(super) min_backends: u32,
    pub(super) shortage: Shortage,
    pub(super) tls: TlsClient,
    pub(super) send_proxy: SendProxy,
    pub(super) numbers: bool,
    pub(super) report: ReportPointers,
    pub(super) probes: ProbeSettings,
    /// A generation: waiting pipes are woken by its change.
    pub(super) wake: watch::Sender<u64>,
    /// False once the configuration no longer names it: it lives on until its last backend is gone.
    pub(super) configured: bool,
}

pub(super) struct Record {
    pub(super) id: Arc<str>,
    /// What the cookies of clients call it.
    pub(super) tag: Tag,
    /// As it was said last; `state` is always nothing here, the core has the one in force.
    pub(super) spec: Arc<BackendSpec>,
    pub(super) origin: Origin,
    pub(super) registered_at: SystemTime,
    /// When what is known of its health changed last.
    pub(super) health_since: SystemTime,
    pub(super) version: u64,
    pub(super) leave: Option<Leave>,
    pub(super) leave_deadline: Option<Time>,
    /// What becomes of the pipes that are still there at the deadline.
    pub(super) at_deadline: LeaveHow,
    pub(super) removing: Option<Removal>,
    /// Plain requests that it is answering.
    pub(super) requests: u32,
    /// Whether they are not waited for any more.
    pub(super) requests_overdue: bool,
    /// An earlier process knew it, and it has not been heard of since.
    pub(super) restored: bool,
    /// A probe has found it since it came.
    pub(super) has_been_up: bool,
    pub(super) probe: ProbeState,
    /// Connections that its worker has parked, if it dials in.
    pub(super) parked: usize,
    /// One permit per dial of a pipe that lost or leaves another backend.
    pub(super) dials: Arc<Semaphore>,
    /// What reservations share, made by the first one.
    pub(super) picked: Option<Arc<Picked>>,
}

pub(super) struct ProbeState {
    pub(super) next: Time,
    pub(super) running: bool,
    /// Probes since it went down, which come in quick succession at first.
    pub(super) since_down: u32,
    pub(super) last: Option<LastProbe>,
    /// What the worker said about itself last.
    pub(super) report: Option<WorkerReport>,
}

impl Registry {
    pub(super) fn pool_of(&mut self, key: BackendKey) -> Option<&mut PoolEntry> {
        let record = self.records.get(&key)?;
        self.pools.get_mut(&record.spec.pool)
    }

    pub(super) fn backend(&self, key: BackendKey) -> Option<&Backend> {
        self.pools.get(&self.records.get(&key)?.spec.pool)?.core.get(key)
    }

    pub(super) fn names(&self, key: BackendKey) -> Option<(Arc<str>, Arc<str>)> {
        let record = self.records.get(&key)?;
        Some((record.spec.pool.clone(), record.id.clone()))
    }

    /// Marks a backend as changed, and wakes its pool's waiting pipes if it turned eligible by that.
    pub(super) fn touched(&mut self, key: BackendKey, was_eligible: bool, fx: &mut Effects) {
        fx.changed = true;
        fx.keeper = true;
        self.last_version += 1;
        let version = self.last_version;
        if let Some(record) = self.records.get_mut(&key) {
            record.version = version;
        }
        let is_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        if is_eligible
            && !was_eligible
            && let Some(pool) = self.pool_of(key)
        {
            pool.wake();
        }
    }

    pub(super) fn insert(&mut self, id: Arc<str>, spec: BackendSpec, origin: Origin, fx: &mut Effects) -> BackendKey {
        let now = self.clock.now();
        self.last_key += 1;
        let key = BackendKey(self.last_key);
        if let Some(pool) = self.pools.get_mut(&spec.pool) {
            pool.core.insert(key, id.clone(), core_settings(&spec, spec.state.unwrap_or_default()), now);
        }
        self.ids.insert(id.clone(), key);
        let record = Record {
            tag: Tag::of(&id),
            id,
            spec: Arc::new(BackendSpec { state: None, ..spec }),
            origin,
            registered_at: SystemTime::now(),
            health_since: SystemTime::now(),
            version: 0,
            leave: None,
            leave_deadline: None,
            at_deadline: LeaveHow::Detach,
            removing: None,
            requests: 0,
            requests_overdue: false,
            restored: false,
            has_been_up: false,
            probe: ProbeState { next: now, running: false, since_down: 0, last: None, report: None },
            parked: 0,
            dials: moves::permits(self.bounds.dials_at_once),
            picked: None,
        };
        self.held_bytes += record.spec.held_bytes();
        self.records.insert(key, record);
        self.touched(key, false, fx);
        key
    }

    /// Lets a backend take no more pipes and removes it when the last one is gone.
    pub(super) fn remove(
        &mut self,
        key: BackendKey,
        why: Removal,
        leave: Leave,
        deadline: Option<Time>,
        fx: &mut Effects,
    ) -> Progress {
        let Some(pool) = self.pool_of(key) else {
            return Progress::Done;
        };
        pool.core.set_admin(key, AdminState::Drain);
        if let Some(record) = self.records.get_mut(&key) {
            record.removing = Some(why);
        }
        let progress = self.progress(key);
        if progress == Progress::Done {
            self.forget(key, why, fx);
            return progress;
        }
        self.order_to_leave(key, leave, deadline, fx);
        self.touched(key, true, fx);
        progress
    }

    /// What is still on a backend.
    pub(super) fn progress(&self, key: BackendKey) -> Progress {
        let pipes = self.backend(key).map_or(0, Backend::pipes);
        let awaited = self.records.get(&key).filter(|record| !record.requests_overdue);
        match (pipes, awaited.map_or(0, |record| record.requests)) {
            (0, 0) => Progress::Done,
            (pipes, requests) => Progress::Leaving { pipes, requests },
        }
    }

    /// Takes a backend out of every table.
    pub(super) fn forget(&mut self, key: BackendKey, reason: Removal, fx: &mut Effects) {
        let Some(record) = self.records.remove(&key) else {
            return;
        };
        self.held_bytes -= record.spec.held_bytes();
        if self.ids.get(&record.id) == Some(&key) {
            self.ids.remove(&record.id);
        }
        let pool = record.spec.pool.clone();
        if let Some(entry) = self.pools.get_mut(&pool) {
            entry.core.remove(key);
            if !entry.configured && entry.core.iter().next().is_none() {
                self.pools.remove(&pool);
            }
        }
        fx.changed = true;
        fx.events.push(BackendEvent::Removed { pool, backend: record.id, reason });
    }

    pub(super) fn set_state(&mut self, key: BackendKey, change: StateChange, fx: &mut Effects) -> Progress {
        let (Some((pool, backend)), now) = (self.names(key), self.clock.now()) else {
            return Progress::Done;
        };
        let was_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        let changed = self.pool_of(key).is_some_and(|entry| entry.core.set_admin(key, change.state));
        if changed {
            fx.events.push(BackendEvent::StateChanged {
                pool: pool.clone(),
                backend: backend.clone(),
                state: change.state,
            });
        }
        let progress = match (change.state, self.progress(key)) {
            (AdminState::Ready, _) => {
                if let Some(record) = self.records.get_mut(&key) {
                    (record.leave, record.leave_deadline, record.removing) = (None, None, None);
                    record.requests_overdue = false;
                    // What was known may be stale after a maintenance.
                    record.probe.next = now;
                }
                Progress::Done
            }
            (AdminState::Drain | AdminState::Maint, Progress::Done) => {
                self.order_to_leave(key, leave_of(change), None, fx);
                if changed {
                    fx.events.push(BackendEvent::Drained { pool, backend });
                }
                Progress::Done
            }
            (AdminState::Drain | AdminState::Maint, leaving @ Progress::Leaving { .. }) => {
                let deadline = change.deadline.map(|wait| now + wait);
                match change.pipes {
                    PipesWish::Keep => self.plan_to_leave(key, None, deadline),
                    PipesWish::Close if deadline.is_some() => {
                        self.plan_to_leave(key, None, deadline);
                        if let Some(record) = self.records.get_mut(&key) {
                            record.at_deadline = LeaveHow::Close;
                        }
                    }
                    PipesWish::Reattach | PipesWish::Close => self.order_to_leave(key, leave_of(change), deadline, fx),
                }
                leaving
            }
        };
        self.touched(key, was_eligible, fx);
        progress
    }

    /// Tells a backend's pipes to leave, and remembers it for those that are just being attached.
    pub(super) fn order_to_leave(&mut self, key: BackendKey, leave: Leave, deadline: Option<Time>, fx: &mut Effects) {
        let pipes = self.backend(key).map_or(0, Backend::pipes);
        self.plan_to_leave(key, Some(leave), deadline);
        if pipes == 0 {
            return;
        }
        fx.keeper = true;
        fx.leaves.push((key, leave));
        if let Some((pool, backend)) = self.names(key) {
            fx.events.push(BackendEvent::Draining { pool, backend, pipes });
        }
    }

    fn plan_to_leave(&mut self, key: BackendKey, leave: Option<Leave>, deadline: Option<Time>) {
        if let Some(record) = self.records.get_mut(&key) {
            record.leave = leave;
            record.leave_deadline = deadline;
            record.at_deadline = LeaveHow::Detach;
        }
    }

    pub(super) fn release(&mut self, key: BackendKey, fx: &mut Effects) {
        let Some(pool) = self.pool_of(key) else {
            return;
        };
        let Some(released) = pool.core.release(key) else {
            return;
        };
        if released.was_full {
            pool.wake();
        }
        self.left(key, fx);
    }

    /// A plain request was answered, or given up.
    pub(super) fn answered(&mut self, key: BackendKey, fx: &mut Effects) {
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        record.requests = record.requests.saturating_sub(1);
        // What is not waited for is not missed.
        if record.requests == 0 && !record.requests_overdue {
            self.left(key, fx);
        }
    }

    /// Says that a backend which takes nothing new is empty, if it is, and removes it if that is what it waits for.
    pub(super) fn left(&mut self, key: BackendKey, fx: &mut Effects) {
        if self.progress(key) != Progress::Done {
            return;
        }
        let Some(pool) = self.pool_of(key) else {
            return;
        };
        let admin = pool.core.get(key).map_or(AdminState::Ready, Backend::admin);
        let (Some((pool, backend)), Some(record)) = (self.names(key), self.records.get_mut(&key)) else {
            return;
        };
        match admin {
            AdminState::Ready => return,
            AdminState::Drain | AdminState::Maint => {
                record.leave_deadline = None;
                fx.events.push(BackendEvent::Drained { pool, backend });
            }
        }
        if let Some(reason) = record.removing {
            self.forget(key, reason, fx);
        }
    }

    /// Spreads the news of a change of health; `was_eligible` is from before it.
    pub(super) fn health_changed(
        &mut self,
        key: BackendKey,
        change: HealthChange,
        why: &Why,
        was_eligible: bool,
        fx: &mut Effects,
    ) {
        let (Some((pool, backend)), now) = (self.names(key), self.clock.now()) else {
            return;
        };
        let starting = self.records.get(&key).is_some_and(Record::is_starting);
        if let Some(record) = self.records.get_mut(&key) {
            record.health_since = SystemTime::now();
            record.has_been_up |= change == HealthChange::Up;
        }
        let news = match change {
            HealthChange::Up => BackendEvent::Up { pool, backend },
            HealthChange::Readmitted => BackendEvent::Readmitted { pool, backend },
            HealthChange::Down => BackendEvent::Down { pool, backend, reason: why.text.clone() },
            HealthChange::Ejected { until } => {
                BackendEvent::Ejected { pool, backend, reason: why.eject, lasts: until - now }
            }
        };
        // A process that does not listen yet is no loss.
        if !(starting && change == HealthChange::Down) {
            fx.events.push(news);
        }
        if let (HealthChange::Down, Some(record)) = (change, self.records.get_mut(&key)) {
            record.probe.since_down = 0;
            record.probe.next = record.probe.next.min(now + super::keeper::QUICK_PROBE_MIN);
        }
        self.touched(key, was_eligible, fx);
    }
}

/// What changed the judgement about a backend.
pub(super) struct Why {
    pub(super) text: String,
    pub(super) eject: EjectCause,
}

impl PoolEntry {
    pub(super) fn new(spec: &PoolSpec) -> Self {
        Self {
            core: Pool::new(pool_settings(spec)),
            owners: Owners::default(),
            pace: Pace::default(),
            move_order: spec.move_order,
            weight_from: spec.weight_from,
            worker_memory_max: spec.worker_memory_max,
            min_backends: spec.min_backends,
            shortage: Shortage::default(),
            tls: spec.tls.clone(),
            send_proxy: spec.send_proxy,
            numbers: spec.numbers,
            report: spec.report.clone(),
            probes: spec.probes.clone(),
            wake: watch::Sender::new(0),
            configured: true,
        }
    }

    pub(super) fn wake(&self) {
        self.wake.send_modify(|generation| *generation += 1);
    }
}

pub(super) const fn pool_settings(spec: &PoolSpec) -> PoolSettings {
    PoolSettings { balance: spec.balance, max_pipes_per_backend: spec.max_pipes_per_backend, health: spec.health }
}

pub(super) fn core_settings(spec: &BackendSpec, admin: AdminState) -> BackendSettings {
    BackendSettings {
        weight: spec.weight,
        max_pipes: spec.max_pipes,
        serves: spec.serves.clone(),
        admin,
        lease: spec.lease,
    }
}

/// Maintenance detaches at once where a drain may wait: who asks for it is about to pull the plug.
const fn leave_of(change: StateChange) -> Leave {
    let (how, cause) = match (change.pipes, change.state) {
        (PipesWish::Close, AdminState::Maint) => (LeaveHow::Close, LeaveCause::Maint),
        (PipesWish::Close, AdminState::Drain | AdminState::Ready) => (LeaveHow::Close, LeaveCause::Drain),
        (PipesWish::Reattach | PipesWish::Keep, AdminState::Maint) => (LeaveHow::Detach, LeaveCause::Maint),
        (PipesWish::Reattach | PipesWish::Keep, AdminState::Drain | AdminState::Ready) => {
            (LeaveHow::Reattach, LeaveCause::Drain)
        }
    };
    Leave { how, cause }
}

/// The interval of a backend's probes, if it has any.
pub(super) fn probes_of<'a>(record: &'a Record, pool: &'a PoolEntry) -> Option<&'a ProbeSettings> {
    let probes = record.spec.probes.as_ref().unwrap_or(&pool.probes);
    (probes.interval > Duration::ZERO).then_some(probes)
}
