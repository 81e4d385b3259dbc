//! A pool: the backends that may stand in for each other, and which of them gets the next pipe.
//!
//! Three things about a backend are kept apart: its admin state (what the operator wants), its health (what we found)
//! and its lease (what it promised); it is eligible only when all three allow it. Health that is still unknown allows
//! it: a backend that registers while pipes wait must be used at once, and the first dial is as good a probe as any.
//!
//! `Pool` is the only one that changes a backend. It never reads a clock and draws no random number. Whatever changed
//! comes back as a value from the call that changed it.
//!
//! Invariant: `pipes` of a backend counts its reservations; each success of `choose` or `occupy` adds one
//! and its `release` takes it back.

pub mod backend;
pub mod balance;
pub mod deaths;
mod leases;

pub use backend::{AdminState, Backend, BackendSettings, Serves};
pub use deaths::YoungDeaths;
pub use leases::LeaseChange;

use crate::health::{Experience, Health, HealthChange, HealthSettings, HealthStanding, Monitor, Probed};
use crate::ids::{BackendKey, PipeId};
use crate::lease::Lease;
use crate::settings::Balance;
use crate::time::{Time, earliest};
use balance::Room;
use std::sync::Arc;
use std::time::Duration;

/// How long a backend that lost a pipe without a word is asked last, unless it is heard of before.
pub const DOUBT: Duration = Duration::from_secs(5);

/// What an operator decides about a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolSettings {
    /// How one of several eligible backends is picked.
    pub balance: Balance,
    /// Pipes per backend unless the backend has its own limit; zero is no limit.
    pub max_pipes_per_backend: u32,
    /// How health is judged.
    pub health: HealthSettings,
}

/// What a pipe asks of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choose<'a> {
    /// The route key, if the route has one.
    pub key: Option<&'a str>,
    /// Backends that this pipe does not want now (tried in this round, wrong worker, on back-off).
    pub exclude: &'a [BackendKey],
    /// A backend taken only if there is no other: the one that the pipe comes from.
    pub avoid: Option<BackendKey>,
    /// A backend taken if it is among the candidates, whatever the balance: the one that has the key's session.
    pub prefer: Option<BackendKey>,
    /// A fresh random number, which breaks ties.
    pub random: u64,
}

/// A backend that was picked, with a place on it reserved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// Which one.
    pub key: BackendKey,
    /// What it calls the asked key, if it said so in its `serves` map.
    pub alias: Option<Arc<str>>,
}

/// Why no backend was picked; the reason nearest to success.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NoCandidate {
    /// The pool has no backend.
    Empty,
    /// No backend serves this key.
    NoOwner,
    /// Those that serve it are down, ejected, draining, in maintenance or expired.
    NotEligible,
    /// Those that are eligible have as many pipes as they may.
    Full,
    /// All that would do are excluded by the asker.
    Excluded,
}

/// What a release did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Released {
    /// Pipes that are left on the backend.
    pub pipes: u32,
    /// Whether the backend had been full, so that a waiting pipe may now have it.
    pub was_full: bool,
}

/// The backends of one pool.
#[derive(Clone, Debug)]
pub struct Pool {
    settings: PoolSettings,
    /// In the order of their registration.
    backends: Vec<Backend>,
    /// When leases that were kept although they ran out are looked at again.
    preserved_until: Option<Time>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub const fn new(settings: PoolSettings) -> Self {
        Self { settings, backends: Vec::new(), preserved_until: None }
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Changes the settings; nothing is judged anew.
    pub const fn configure(&mut self, settings: PoolSettings) {
        self.settings = settings;
    }

    /// Adds a backend; `key` must be new.
    pub fn insert(&mut self, key: BackendKey, id: Arc<str>, settings: BackendSettings, now: Time) {
        debug_assert!(self.get(key).is_none(), "a backend key is never reused");
        self.backends.push(Backend::new(key, id, settings, now));
    }

    /// Changes what was said about a backend; a lease named in it starts anew. False if there is no such backend.
    pub fn update(&mut self, key: BackendKey, settings: BackendSettings, now: Time) -> bool {
        self.get_mut(key).map(|backend| backend.update(settings, now)).is_some()
    }

    /// Takes a backend out; its pipes' releases are ignored from now on.
    pub fn remove(&mut self, key: BackendKey) -> Option<Backend> {
        let index = self.backends.iter().position(|backend| backend.key() == key)?;
        Some(self.backends.remove(index))
    }

    /// The backend of this key.
    #[must_use]
    pub fn get(&self, key: BackendKey) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.key() == key)
    }

    /// All backends, in the order of their registration.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter()
    }

    /// Changes a backend's admin state; true if that changed anything.
    pub fn set_admin(&mut self, key: BackendKey, admin: AdminState) -> bool {
        self.get_mut(key).is_some_and(|backend| backend.set_admin(admin))
    }

    /// Forgets what is known of a backend's health: another process answers at its address now.
    pub fn forget_health(&mut self, key: BackendKey) {
        if let Some(backend) = self.get_mut(key) {
            backend.forget_health();
        }
    }

    /// Goes on with a backend from where another process stood with it: its health, and its lease as that was renewed last.
    pub fn resume(&mut self, key: BackendKey, health: HealthStanding, lease: Option<(Time, Option<Time>)>) {
        let Some(backend) = self.get_mut(key) else { return };
        backend.monitor = Monitor::resumed(health);
        if let (Some(own), Some((renewed, expired))) = (backend.lease, lease) {
            backend.lease = Some(Lease::taken_over(own.length(), renewed, expired));
        }
    }

    /// Picks a backend and reserves a place on it.
    ///
    /// A backend with a list of keys takes those and no other key; one without a list takes every key. A pipe without a
    /// key goes to either.
    ///
    /// # Errors
    /// The reason why there is none now.
    pub fn choose(&mut self, ask: &Choose<'_>) -> Result<Chosen, NoCandidate> {
        let limit = self.settings.max_pipes_per_backend;
        let picked = balance::pick(&mut self.backends, self.settings.balance, Room::Below(limit), ask)?;
        picked.reserve();
        Ok(Chosen { key: picked.key(), alias: ask.key.and_then(|key| picked.serves().alias(key)) })
    }

    /// Picks a backend for one plain request, which takes no place on it, so that a full backend will do.
    ///
    /// The preferred one will also do while it drains or rests, as long as it has pipes and is not known to be down:
    /// the key's session is still there.
    ///
    /// # Errors
    /// The reason why there is none now.
    pub fn choose_request(&mut self, ask: &Choose<'_>) -> Result<Chosen, NoCandidate> {
        let holds_session = |backend: &&Backend| {
            Some(backend.key()) == ask.prefer
                && backend.serves().takes(ask.key)
                && backend.pipes() > 0
                && backend.health() != Health::Down
                && backend.admin() != AdminState::Maint
                && !ask.exclude.contains(&backend.key())
        };
        let key = match self.backends.iter().find(holds_session) {
            Some(backend) => backend.key(),
            None => balance::pick(&mut self.backends, self.settings.balance, Room::Any, ask)?.key(),
        };
        let serves = self.get(key).map(Backend::serves);
        Ok(Chosen { key, alias: serves.zip(ask.key).and_then(|(serves, key)| serves.alias(key)) })
    }

    /// Whether a backend that would do is only out for now: down, resting or full, and not taken out by an operator.
    #[must_use]
    pub fn awaits(&self, ask: &Choose<'_>) -> bool {
        self.backends.iter().any(|backend| {
            backend.serves().takes(ask.key) && backend.is_offered() && !ask.exclude.contains(&backend.key())
        })
    }

    /// Counts a pipe that has its place already: it came with its link from another process. False if the backend is gone.
    pub fn occupy(&mut self, key: BackendKey) -> bool {
        self.get_mut(key).map(Backend::reserve).is_some()
    }

    /// Gives a reserved place back; `None` if the backend is gone, which is no error.
    pub fn release(&mut self, key: BackendKey) -> Option<Released> {
        let limit = self.settings.max_pipes_per_backend;
        let backend = self.get_mut(key)?;
        let was_full = backend.is_full(limit);
        Some(Released { pipes: backend.release(), was_full })
    }

    /// How many pipes each backend has more than its share, among eligible ones that take any key: those that a
    /// rebalancing moves.
    pub fn surplus(&self) -> impl Iterator<Item = (BackendKey, u32)> {
        let sharing =
            || self.backends.iter().filter(|backend| backend.is_eligible() && *backend.serves() == Serves::Any);
        let pipes: u64 = sharing().map(|backend| u64::from(backend.pipes())).sum();
        let weights: u64 = sharing().map(Backend::weight).sum();
        sharing().filter_map(move |backend| {
            let share = (pipes * backend.weight()).div_ceil(weights);
            let surplus = u64::from(backend.pipes()).saturating_sub(share);
            Some((backend.key(), u32::try_from(surplus).ok().filter(|&surplus| surplus > 0)?))
        })
    }

    /// Lets only so many percent of a backend's weight count, 1 to 100, but for `Balance::Hash`.
    pub fn set_share(&mut self, key: BackendKey, percent: u8) {
        if let Some(backend) = self.get_mut(key) {
            backend.set_share(percent);
        }
    }

    /// Takes in a probe's result.
    pub fn probed(&mut self, key: BackendKey, probed: Probed) -> Option<HealthChange> {
        let settings = self.settings.health;
        let backend = self.get_mut(key)?;
        if probed == Probed::Ok {
            backend.doubted_until = None;
        }
        backend.monitor.probed(probed, &settings)
    }

    /// Takes in what `pipe`, or else a plain request, lived through on a backend. Such reports eject at most half of the
    /// pool, and never the last backend that may take pipes, of all or of some key.
    pub fn experienced(
        &mut self,
        key: BackendKey,
        experience: Experience,
        pipe: Option<PipeId>,
        now: Time,
    ) -> Option<HealthChange> {
        let settings = self.settings.health;
        let may_eject = self.may_eject(key);
        let backend = self.get_mut(key)?;
        match experience {
            Experience::Connected => backend.doubted_until = None,
            Experience::Died { .. } | Experience::Refused | Experience::DialFailed { .. } => {
                backend.doubted_until = Some(now + DOUBT);
            }
            Experience::Provoked { .. } => {}
        }
        backend.monitor.experienced(experience, pipe, &settings, may_eject, now)
    }

    /// Whether the pool can do without this backend for a while.
    fn may_eject(&self, key: BackendKey) -> bool {
        let ejected = self.backends.iter().filter(|backend| backend.health() == Health::Ejected).count();
        let others = || self.backends.iter().filter(|backend| backend.key() != key && backend.is_eligible());
        let can_be_missed = self.get(key).is_some_and(|backend| match backend.serves() {
            Serves::Any => others().any(|other| *other.serves() == Serves::Any),
            Serves::Keys(keys) => keys.keys().all(|key| others().any(|other| other.serves().owns(key))),
        });
        can_be_missed && (ejected + 1) * 2 <= self.backends.len()
    }

    /// Ends the ejections and doubts whose time has come.
    pub fn readmit(&mut self, now: Time) -> Vec<BackendKey> {
        for backend in &mut self.backends {
            backend.doubted_until = backend.doubted_until.filter(|&until| now < until);
        }
        let readmitted = |backend: &mut Backend| backend.monitor.tick(now).map(|_| backend.key());
        self.backends.iter_mut().filter_map(readmitted).collect()
    }

    /// When `readmit` or `expire_leases` has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let ejections = self.backends.iter().filter_map(|backend| backend.monitor.deadline()).min();
        let doubts = self.backends.iter().filter_map(|backend| backend.doubted_until).min();
        earliest(earliest(ejections, doubts), self.lease_deadline())
    }

    fn get_mut(&mut self, key: BackendKey) -> Option<&mut Backend> {
        self.backends.iter_mut().find(|backend| backend.key() == key)
    }
}

#[cfg(test)]
mod tests;
