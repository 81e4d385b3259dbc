//! Who can take a pipe: the pools and their backends, kept by one task and asked by every pipe.
//!
//! In reading order: `spec` (the vocabulary), `configured` (the same from the configuration file), `facts` (what is told to others), `registry` (the tables), `writes` (what workers and
//! operators change), `supervised` (what the supervisor says about processes of its own), `dialed_in` (what workers say that dial in), `reserve`, `owners` and `sticky` (what pipes and requests ask), `moves` (how fast pipes may be moved), `shortage` (whether a pool has enough), `views` (how it reads), `taken_over` (what another process knew), `keeper` (probes, leases and deadlines),
//! `probe` (what a probe does).
//!
//! Every decision is `holdline_core::pool`'s. One `std` mutex guards the tables; it is held for pure calls only, never
//! across an await and never while a callback runs. Nothing here polls: pipes wait for a pool's generation, the keeper
//! waits for its next deadline.

mod configured;
mod dialed_in;
mod facts;
mod keeper;
mod moves;
mod owners;
mod probe;
mod registry;
mod report;
mod reserve;
mod shortage;
mod spec;
mod sticky;
mod supervised;
mod taken_over;
mod views;
mod writes;

pub use dialed_in::DialIn;
pub use facts::{BackendEvent, EjectCause, Hold, Leave, LeaveCause, LeaveHow};
pub use report::WorkerReport;
pub use reserve::{Ask, NoBackend, Outcome, PoolWatch, Reservation};
pub use spec::{
    BACKENDS_MAX, BackendError, BackendSpec, BackendView, Directive, Expect, Origin, PipesWish, PoolSpec, PoolView,
    ProbeKind, ProbeSettings, Progress, Put, Renewal, StateChange, StateCounts,
};
pub use taken_over::Standing;

use crate::clock::Clock;
use crate::net::{Networks, OwnListeners};
use holdline_core::ids::BackendKey;
use holdline_core::pool::deaths::DEATHS_PER_WINDOW;
use holdline_core::pool::{AdminState, YoungDeaths};
use registry::{Effects, Registry, WhereTo};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};

/// Backends that are looked at under one lock, where all are wanted.
const LIST_STEP: usize = 256;

/// What is said about the backends of one page may take so many bytes, give or take one backend.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// The pools of this process; a cheap handle.
#[derive(Clone)]
pub struct Backends(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    /// Grows with every change that a reader could see; counts of pipes excepted.
    index: watch::Sender<u64>,
    keeper: Notify,
    on_event: Box<dyn Fn(BackendEvent) + Send + Sync>,
    on_leave: Box<dyn Fn(BackendKey, Leave) + Send + Sync>,
}

/// What a set of pools is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configured pools with their static backends.
    pub pools: Vec<PoolSpec>,
    /// Where registered backends may be.
    pub networks: Networks,
    /// How hard pipes may press on backends.
    pub bounds: Bounds,
}

/// How hard pipes that lost or leave a backend may press on the others, where zero is no limit; and how much may be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Attaches that died young per minute, pipe and backend.
    pub deaths_per_window: u32,
    /// Dials of one backend at a time.
    pub dials_at_once: u32,
    /// Planned moves that one pool begins in a second.
    pub moves_per_second: u32,
    /// Bytes that what is said about one registered backend may take.
    pub backend_bytes_max: usize,
    /// The same for all backends.
    pub registry_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            deaths_per_window: DEATHS_PER_WINDOW,
            dials_at_once: 64,
            moves_per_second: 100,
            backend_bytes_max: 2 << 20,
            registry_bytes_max: 64 << 20,
        }
    }
}

impl Backends {
    /// The pools that `setup` describes.
    ///
    /// `on_event` hears what happens and `on_leave` hears that the pipes on a backend must leave it. Both are called on
    /// the thread that caused it, without a lock held, and must not block.
    pub fn new(
        setup: &Setup,
        clock: Clock,
        on_event: impl Fn(BackendEvent) + Send + Sync + 'static,
        on_leave: impl Fn(BackendKey, Leave) + Send + Sync + 'static,
    ) -> Self {
        let registry = Registry {
            clock,
            where_to: WhereTo { networks: Arc::new(setup.networks.clone()), own: Arc::default(), parked: None },
            pools: BTreeMap::new(),
            records: HashMap::new(),
            ids: BTreeMap::new(),
            deaths: YoungDeaths::new(setup.bounds.deaths_per_window),
            bounds: setup.bounds,
            held_bytes: 0,
            last_key: 0,
            last_version: 0,
            others: HashMap::new(),
        };
        let backends = Self(Arc::new(Inner {
            registry: Mutex::new(registry),
            index: watch::Sender::new(1),
            keeper: Notify::new(),
            on_event: Box::new(on_event),
            on_leave: Box::new(on_leave),
        }));
        backends.configure(setup);
        backends
    }

    /// Makes the pools, static backends and limits what a new configuration says; pipes are moved only off backends that it
    /// no longer names.
    pub fn configure(&self, setup: &Setup) {
        self.with(|registry, fx| registry.configure(setup, fx));
    }

    /// Says where this process listens, which is known later than its pools: no backend is dialled there from now on.
    pub fn keep_off(&self, own: OwnListeners) {
        self.with(|registry, _| registry.where_to.own = Arc::new(own));
    }

    /// Registers a backend under an id that is made up.
    ///
    /// # Errors
    /// When what is said about it can't be, or its URL is in the pool already.
    pub fn register(&self, spec: BackendSpec) -> Result<BackendView, BackendError> {
        self.with(|registry, fx| {
            let id = registry.register(spec, fx)?;
            registry.view_of(&id)
        })
    }

    /// Registers a backend that an earlier process knew; a worker that says it is that backend is believed.
    ///
    /// # Errors
    /// When it can't be any more, or the id is taken.
    pub fn restore(&self, id: &str, spec: BackendSpec) -> Result<(), BackendError> {
        self.with(|registry, fx| registry.restore(id, spec, fx))
    }

    /// Makes the backend `id` what `spec` says, and renews its lease; saying the same again changes nothing else.
    ///
    /// # Errors
    /// When what is said can't be, or another live instance holds the id, or `expect` is not met.
    pub fn put(&self, id: &str, spec: BackendSpec, expect: Expect) -> Result<(Put, BackendView), BackendError> {
        self.with(|registry, fx| {
            let put = registry.put(id, spec, expect, fx)?;
            Ok((put, registry.view_of(id)?))
        })
    }

    /// Changes parts of what is said about a backend; `change` gets the spec as it is, with `state` at nothing.
    ///
    /// # Errors
    /// When the result can't be, the backend is static or unknown, or `expect` is not met.
    pub fn patch(
        &self,
        id: &str,
        expect: Expect,
        change: impl FnOnce(&mut BackendSpec),
    ) -> Result<BackendView, BackendError> {
        self.with(|registry, fx| {
            registry.patch(id, expect, change, fx)?;
            registry.view_of(id)
        })
    }

    /// Renews a lease.
    ///
    /// # Errors
    /// `NotFound` means: register again.
    pub fn renew_lease(&self, id: &str) -> Result<Renewal, BackendError> {
        self.with(|registry, fx| registry.renew_lease(id, fx))
    }

    /// Changes a backend's admin state and says what becomes of its pipes.
    ///
    /// # Errors
    /// When there is no such backend or `expect` is not met.
    pub fn set_state(
        &self,
        id: &str,
        expect: Expect,
        change: StateChange,
    ) -> Result<(Progress, BackendView), BackendError> {
        self.with(|registry, fx| {
            let progress = registry.change_state(id, expect, change, fx)?;
            Ok((progress, registry.view_of(id)?))
        })
    }

    /// Drains a backend and removes it when its last pipe is gone; `Done` if it is gone or never was.
    ///
    /// # Errors
    /// When it is static or `expect` is not met.
    pub fn delete(&self, id: &str, expect: Expect) -> Result<Progress, BackendError> {
        self.with(|registry, fx| registry.delete(id, expect, fx))
    }

    /// The backend of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<BackendView> {
        self.with(|registry, _| registry.view_of(id).ok())
    }

    /// All backends, by id. The lock is held for [`LIST_STEP`] of them at a time: one that comes or goes meanwhile may be
    /// missing or not.
    #[must_use]
    pub fn list(&self) -> Vec<BackendView> {
        let mut all: Vec<BackendView> = Vec::new();
        loop {
            let after = all.last().map(|last| last.id.clone());
            let (page, more) = self.with(|registry, _| registry.page(after.as_deref(), LIST_STEP, |_, _| true));
            all.extend(page);
            if !more {
                return all;
            }
        }
    }

    /// At most `count` backends behind the one called `after`, by id, of those that are `wanted`; fewer where what is said
    /// about them takes more than [`PAGE_BYTES_MAX`]. And whether there are more.
    pub fn page(
        &self,
        after: Option<&str>,
        count: usize,
        wanted: impl Fn(&BackendSpec, AdminState) -> bool,
    ) -> (Vec<BackendView>, bool) {
        let (mut page, mut more) = self.with(|registry, _| registry.page(after, count, wanted));
        let mut bytes = 0;
        let enough = page.iter().position(|view| {
            let is_full = bytes >= PAGE_BYTES_MAX;
            bytes += view.spec.held_bytes();
            is_full
        });
        if let Some(end) = enough {
            page.truncate(end);
            more = true;
        }
        (page, more)
    }

    /// Memory that is taken by what is said about backends, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.with(|registry, _| registry.held_bytes)
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolView> {
        self.with(|registry, _| registry.pool_views())
    }

    /// How many pipes each backend of `pool` has more than its share; nothing if there is no such pool.
    #[must_use]
    pub fn surplus(&self, pool: &str) -> Option<Vec<(BackendKey, u32)>> {
        self.with(|registry, _| registry.pools.get(pool).map(|pool| pool.core.surplus().collect()))
    }

    /// A number that grows with every visible change, and the way to wait for it.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<u64> {
        self.0.index.subscribe()
    }

    /// Runs a pure call under the lock, then tells the world about it.
    fn with<R>(&self, call: impl FnOnce(&mut Registry, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let result = {
            // A panic inside a call is a bug, but the tables stay usable: every call leaves them whole or nearly so,
            // and a proxy that stops choosing backends is of no use.
            let mut registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
            let result = call(&mut registry, &mut effects);
            if effects.changed {
                registry.judge_pools(&mut effects);
            }
            result
        };
        self.tell(effects);
        result
    }

    fn tell(&self, effects: Effects) {
        if effects.changed {
            self.0.index.send_modify(|index| *index += 1);
        }
        if effects.keeper {
            self.0.keeper.notify_one();
        }
        for event in effects.events {
            (self.0.on_event)(event);
        }
        for (key, leave) in effects.leaves {
            (self.0.on_leave)(key, leave);
        }
    }
}

impl Registry {
    fn view_of(&self, id: &str) -> Result<BackendView, BackendError> {
        let view = self.ids.get(id).and_then(|&key| self.view(key));
        view.ok_or_else(|| BackendError::NotFound(id.into()))
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backends")
    }
}

#[cfg(test)]
mod tests;
