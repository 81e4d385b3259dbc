//! One backend of a pool: what was said about it, and the three states that decide whether it may get a pipe.
//!
//! Where it is and what it is called by people is not decided upon here: the address, labels and so on live with
//! the caller that dials. Only `Pool` changes a backend.

use crate::health::{Health, HealthStanding, Monitor};
use crate::ids::BackendKey;
use crate::lease::{Lease, LeaseState};
use crate::time::Time;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What the operator wants of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum AdminState {
    /// Take pipes.
    #[default]
    Ready,
    /// Take no new ones.
    Drain,
    /// Take none and don't even be probed.
    Maint,
}

impl AdminState {
    /// Its name in the API, the log and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// Which keys a backend takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Serves {
    /// Any key, and pipes without one.
    #[default]
    Any,
    /// Of those that have a key, these and no others, each with what the backend itself calls it if that differs.
    Keys(BTreeMap<Arc<str>, Option<Arc<str>>>),
}

impl Serves {
    /// The keys of a list or a map; none of them means any key.
    #[must_use]
    pub fn from_keys(keys: impl IntoIterator<Item = (Arc<str>, Option<Arc<str>>)>) -> Self {
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        if keys.is_empty() { Self::Any } else { Self::Keys(keys) }
    }

    /// Whether a pipe of this key may come here; only a key restricts.
    #[must_use]
    pub fn takes(&self, key: Option<&str>) -> bool {
        key.is_none_or(|key| self.owns(key))
    }

    /// Whether a pipe that has this key may come here.
    #[must_use]
    pub fn owns(&self, key: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Keys(keys) => keys.contains_key(key),
        }
    }

    /// What the backend calls `key`, if it has another name for it.
    #[must_use]
    pub fn alias(&self, key: &str) -> Option<Arc<str>> {
        match self {
            Self::Any => None,
            Self::Keys(keys) => keys.get(key).cloned().flatten(),
        }
    }
}

/// What is said about a backend when it is registered or changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendSettings {
    /// Its share of the pipes, relative to the others of its pool.
    pub weight: NonZeroU32,
    /// Pipes it takes at most, instead of what the pool says; zero is no limit.
    pub max_pipes: Option<u32>,
    /// The keys it takes.
    pub serves: Serves,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// How long it may go without a renewal, if it promised any.
    pub lease: Option<Duration>,
}

impl Default for BackendSettings {
    fn default() -> Self {
        Self { weight: NonZeroU32::MIN, max_pipes: None, serves: Serves::Any, admin: AdminState::Ready, lease: None }
    }
}

/// All of a backend's weight counts, in percent.
const SHARE_MAX: u8 = 100;

/// A backend in its pool's table.
#[derive(Clone, Debug)]
pub struct Backend {
    key: BackendKey,
    id: Arc<str>,
    settings: BackendSettings,
    pub(super) monitor: Monitor,
    pub(super) lease: Option<Lease>,
    pipes: u32,
    /// How much of its weight counts now, in percent.
    share: u8,
    /// Until when it is asked last: a pipe was lost there without a word, or could not be connected.
    pub(super) doubted_until: Option<Time>,
    /// What smooth weighted round robin owes it.
    pub(super) credit: i64,
}

impl Backend {
    pub(super) fn new(key: BackendKey, id: Arc<str>, settings: BackendSettings, now: Time) -> Self {
        let lease = settings.lease.map(|length| Lease::new(length, now));
        Self {
            key,
            id,
            settings,
            monitor: Monitor::new(),
            lease,
            pipes: 0,
            share: SHARE_MAX,
            doubted_until: None,
            credit: 0,
        }
    }

    /// Its place in the table.
    #[must_use]
    pub const fn key(&self) -> BackendKey {
        self.key
    }

    /// Its name; rendezvous hashing is done on it, so that it finds its keys again after a restart.
    #[must_use]
    pub const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What was said about it.
    #[must_use]
    pub const fn settings(&self) -> &BackendSettings {
        &self.settings
    }

    /// The keys it takes.
    #[must_use]
    pub const fn serves(&self) -> &Serves {
        &self.settings.serves
    }

    /// What the operator wants of it.
    #[must_use]
    pub const fn admin(&self) -> AdminState {
        self.settings.admin
    }

    /// What was found out about it.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.monitor.health()
    }

    /// What was found out about it, for another process.
    #[must_use]
    pub fn standing(&self) -> HealthStanding {
        self.monitor.standing()
    }

    /// When an ejected one is let back in at the latest.
    #[must_use]
    pub fn ejected_until(&self) -> Option<Time> {
        self.monitor.deadline()
    }

    /// What it promised.
    #[must_use]
    pub const fn lease_state(&self) -> LeaseState {
        match &self.lease {
            None => LeaseState::None,
            Some(lease) => lease.state(),
        }
    }

    /// Its lease, if it has one.
    #[must_use]
    pub const fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Pipes that are attached or being attached.
    #[must_use]
    pub const fn pipes(&self) -> u32 {
        self.pipes
    }

    /// Whether admin state, health and lease all allow a new pipe.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        let health = match self.health() {
            Health::Up | Health::Unknown => true,
            Health::Down | Health::Ejected => false,
        };
        health && self.is_offered()
    }

    /// Whether a rest is all that keeps it from new pipes.
    #[must_use]
    pub fn only_rests(&self) -> bool {
        self.health() == Health::Ejected && self.is_offered()
    }

    /// Whether admin state and lease allow a new pipe.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        let admin = match self.admin() {
            AdminState::Ready => true,
            AdminState::Drain | AdminState::Maint => false,
        };
        let lease = match self.lease_state() {
            LeaseState::None | LeaseState::Live => true,
            LeaseState::Expired => false,
        };
        admin && lease
    }

    /// Whether it has as many pipes as it may, where `pool_limit` holds unless it has its own.
    #[must_use]
    pub const fn is_full(&self, pool_limit: u32) -> bool {
        let limit = match self.settings.max_pipes {
            Some(own) => own,
            None => pool_limit,
        };
        limit != 0 && self.pipes >= limit
    }

    /// Its weight as far as it counts now, in hundredths.
    #[must_use]
    pub fn weight(&self) -> u64 {
        u64::from(self.settings.weight.get()) * u64::from(self.share)
    }

    /// How much of its weight counts now, in percent: 1 to 100.
    #[must_use]
    pub const fn share(&self) -> u8 {
        self.share
    }

    pub(super) fn set_share(&mut self, percent: u8) {
        // One that has nothing left still takes what no other can.
        self.share = percent.clamp(1, SHARE_MAX);
    }

    pub(super) const fn reserve(&mut self) {
        self.pipes = self.pipes.saturating_add(1);
    }

    pub(super) const fn release(&mut self) -> u32 {
        self.pipes = self.pipes.saturating_sub(1);
        self.pipes
    }

    pub(super) fn set_admin(&mut self, admin: AdminState) -> bool {
        let changed = self.settings.admin != admin;
        if changed && self.settings.admin == AdminState::Maint {
            // It was not probed meanwhile, so what was known is stale.
            self.forget_health();
        }
        self.settings.admin = admin;
        changed
    }

    pub(super) fn forget_health(&mut self) {
        self.monitor = Monitor::new();
        self.doubted_until = None;
    }

    pub(super) fn update(&mut self, settings: BackendSettings, now: Time) {
        self.lease = settings.lease.map(|length| Lease::new(length, now));
        self.set_admin(settings.admin);
        self.settings = settings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_keys_means_any_key() {
        assert_eq!(Serves::from_keys([]), Serves::Any);
        assert!(Serves::Any.takes(None) && Serves::Any.takes(Some("s1")));
    }

    #[test]
    fn a_list_of_keys_takes_those_and_what_has_no_key() {
        let serves = Serves::from_keys([(Arc::from("udid"), Some(Arc::from("session"))), (Arc::from("s2"), None)]);
        for (key, takes) in [(Some("udid"), true), (Some("s2"), true), (Some("s3"), false), (None, true)] {
            assert_eq!(serves.takes(key), takes, "{key:?}");
        }
        assert_eq!(serves.alias("udid").as_deref(), Some("session"));
        assert_eq!(serves.alias("s2"), None);
    }

    #[test]
    fn coming_back_from_maintenance_forgets_what_was_known() {
        let mut backend = Backend::new(BackendKey(1), Arc::from("a"), BackendSettings::default(), Time::ZERO);
        backend.monitor.probed(crate::health::Probed::Refused, &crate::health::HealthSettings::default());
        backend.set_admin(AdminState::Maint);
        assert_eq!(backend.health(), Health::Down);
        backend.set_admin(AdminState::Ready);
        assert_eq!(backend.health(), Health::Unknown);
        assert!(backend.is_eligible());
    }
}
