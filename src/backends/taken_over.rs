//! What another process of ours knew of its backends, and how this one goes on from there.
//!
//! Both processes have one clock, so times are given as they are. Keys are each process's own: what came from the other
//! one is called by new keys here ([`Backends::key_of_other`]). Invariant: a lease or a rest ends when it would have ended
//! in the other process, and a backend that was to be left is to be left here.

use super::Backends;
use super::facts::{Leave, LeaveHow, Removal};
use super::registry::{Effects, Record, Registry};
use super::reserve::Reservation;
use super::spec::{BackendSpec, Origin};
use holdline_core::health::{Health, HealthStanding};
use holdline_core::ids::BackendKey;
use holdline_core::pool::{AdminState, Backend};
use holdline_core::time::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What one process knows of a backend and another one cannot find out. Times are microseconds of the clock that both have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// Its key in the process that wrote this.
    pub key: u64,
    /// Its id.
    pub id: Arc<str>,
    admin: Admin,
    checked: Checked,
    ejected_until: Option<u64>,
    ejections: u32,
    /// When its lease was renewed last, and when it expired, if it did.
    lease: Option<(u64, Option<u64>)>,
    leave: Option<Leave>,
    leave_deadline: Option<u64>,
    at_deadline: LeaveHow,
    removing: Option<Removal>,
    registered_at_ms: u64,
    restored: bool,
    has_been_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Admin {
    Ready,
    Drain,
    Maint,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Checked {
    Unknown,
    Up,
    Down,
}

impl From<AdminState> for Admin {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain => Self::Drain,
            AdminState::Maint => Self::Maint,
        }
    }
}

impl From<Admin> for AdminState {
    fn from(state: Admin) -> Self {
        match state {
            Admin::Ready => Self::Ready,
            Admin::Drain => Self::Drain,
            Admin::Maint => Self::Maint,
        }
    }
}

impl Checked {
    const fn of(health: Health) -> Self {
        match health {
            Health::Unknown => Self::Unknown,
            Health::Up | Health::Ejected => Self::Up,
            Health::Down => Self::Down,
        }
    }

    const fn health(self) -> Health {
        match self {
            Self::Unknown => Health::Unknown,
            Self::Up => Health::Up,
            Self::Down => Health::Down,
        }
    }
}

impl Backends {
    /// What another process has to know of the backends.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.with(|registry, _| registry.records.iter().filter_map(|(&key, it)| registry.standing(key, it)).collect())
    }

    /// Goes on from where another process stood with a backend; `spec` is what was said about it, if that is not in the
    /// configuration. False if there can be no such backend here.
    pub fn resume(&self, standing: &Standing, spec: Option<BackendSpec>) -> bool {
        self.with(|registry, fx| registry.resume(standing, spec, fx))
    }

    /// What this process calls a backend that another one called `key`. One that is unknown here is called by a key that
    /// no backend has.
    #[must_use]
    pub fn key_of_other(&self, key: BackendKey) -> BackendKey {
        self.with(|registry, _| registry.key_of_other(key))
    }

    /// Takes a place on a backend for a pipe with this route key, which came with its link from another process; nothing
    /// if there is no such backend any more.
    #[must_use]
    pub fn occupy(&self, key: BackendKey, route_key: Option<&str>) -> Option<Reservation> {
        self.with(|registry, _| registry.occupy(self, key, route_key))
    }
}

impl Registry {
    fn standing(&self, key: BackendKey, record: &Record) -> Option<Standing> {
        let backend = self.backend(key)?;
        let health = backend.standing();
        let since_epoch = record.registered_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Standing {
            key: key.0,
            id: record.id.clone(),
            admin: backend.admin().into(),
            checked: Checked::of(health.checked),
            ejected_until: health.ejected_until.map(Time::as_micros),
            ejections: health.ejections,
            lease: backend.lease().map(|it| (it.renewed().as_micros(), it.expired().map(Time::as_micros))),
            leave: record.leave,
            leave_deadline: record.leave_deadline.map(Time::as_micros),
            at_deadline: record.at_deadline,
            removing: record.removing,
            registered_at_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            restored: record.restored,
            has_been_up: record.has_been_up,
        })
    }

    fn resume(&mut self, standing: &Standing, spec: Option<BackendSpec>, fx: &mut Effects) -> bool {
        let key = match (self.ids.get(&standing.id), spec) {
            (Some(&key), _) => key,
            (None, Some(spec)) if self.pools.contains_key(&spec.pool) => {
                self.insert(standing.id.clone(), spec, Origin::Registered, fx)
            }
            (None, Some(_) | None) => return false,
        };
        self.others.insert(standing.key, key);
        let health = HealthStanding {
            checked: standing.checked.health(),
            ejected_until: standing.ejected_until.map(Time::from_micros),
            ejections: standing.ejections,
        };
        let lease = standing.lease;
        let lease = lease.map(|(renewed, expired)| (Time::from_micros(renewed), expired.map(Time::from_micros)));
        let was_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        if let Some(pool) = self.pool_of(key) {
            pool.core.set_admin(key, standing.admin.into());
            pool.core.resume(key, health, lease);
        }
        if let Some(record) = self.records.get_mut(&key) {
            record.leave = standing.leave;
            record.leave_deadline = standing.leave_deadline.map(Time::from_micros);
            record.at_deadline = standing.at_deadline;
            record.removing = standing.removing;
            record.registered_at = at(standing.registered_at_ms);
            record.restored = standing.restored;
            record.has_been_up = standing.has_been_up;
        }
        self.touched(key, was_eligible, fx);
        true
    }

    fn key_of_other(&mut self, key: BackendKey) -> BackendKey {
        if let Some(&known) = self.others.get(&key.0) {
            return known;
        }
        self.last_key += 1;
        let fresh = BackendKey(self.last_key);
        self.others.insert(key.0, fresh);
        fresh
    }

    fn occupy(&mut self, backends: &Backends, key: BackendKey, route_key: Option<&str>) -> Option<Reservation> {
        let pool = self.pool_of(key)?;
        let alias = route_key.and_then(|route_key| pool.core.get(key)?.serves().alias(route_key));
        if !pool.core.occupy(key) {
            return None;
        }
        self.occupied(backends, key, alias)
    }
}

fn at(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}
