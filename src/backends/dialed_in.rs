//! Workers that dial in: what is said about them by the connections that they park, and whether any is parked.
//!
//! Such a backend has the URL `attach:ID`. It comes by dialling in, or registers by the API before that. A parked connection
//! is to it what an open port is to others: with the first one it is up, and with the last one that closes it is down.
//! Invariant: pipes of a worker's earlier process move to its newer one.

use super::Backends;
use super::facts::{BackendEvent, EjectCause};
use super::registry::{Effects, Registry, Why, probes_of};
use super::spec::{BackendError, BackendSpec, Expect, Origin, ProbeKind, Put};
use crate::net::{BackendUrl, ParkedLines, UrlError};
use holdline_core::health::Probed;
use holdline_core::ids::BackendKey;
use holdline_core::pool::{AdminState, Backend, Serves};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What a worker says about itself with each connection that it parks; what it leaves out stays as it was said before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DialIn {
    /// Its id.
    pub id: Arc<str>,
    /// The pool it stands in.
    pub pool: Arc<str>,
    /// Which process of the worker this is.
    pub instance: Arc<str>,
    /// Its share.
    pub weight: Option<NonZeroU32>,
    /// Pipes it takes at most.
    pub max_pipes: Option<u32>,
    /// The keys it takes.
    pub serves: Option<Serves>,
    /// Free text for people and filters.
    pub labels: Option<BTreeMap<String, String>>,
}

impl DialIn {
    fn over(self, before: Option<&BackendSpec>, lease: Duration) -> Result<BackendSpec, UrlError> {
        let spec = match before {
            Some(before) => BackendSpec {
                pool: self.pool,
                lease: Some(before.lease.map_or(lease, |said| said.max(lease))),
                ..before.clone()
            },
            None => BackendSpec { lease: Some(lease), ..BackendSpec::new(BackendUrl::attach(&self.id)?, self.pool) },
        };
        Ok(BackendSpec {
            weight: self.weight.unwrap_or(spec.weight),
            max_pipes: self.max_pipes.or(spec.max_pipes),
            serves: self.serves.unwrap_or(spec.serves),
            labels: self.labels.unwrap_or(spec.labels),
            instance: Some(self.instance),
            ..spec
        })
    }
}

impl Backends {
    /// Says where connections are taken from that workers have parked; before that, none can dial in.
    pub fn take_from(&self, lines: ParkedLines) {
        self.with(|registry, _| registry.where_to.parked = Some(lines));
    }

    /// A worker has dialled in: it is registered, or its lease renewed, which lasts for `lease`. Another instance than
    /// before takes its place.
    ///
    /// # Errors
    /// When what is said can't be, or a backend of another kind has the id.
    pub fn dial_in(&self, said: DialIn, lease: Duration) -> Result<(), BackendError> {
        self.with(|registry, fx| registry.dial_in(said, lease, fx))
    }

    /// So many connections of a worker are parked.
    pub fn set_parked(&self, id: &str, count: usize) {
        self.with(|registry, _| {
            let record = registry.ids.get(id).and_then(|key| registry.records.get_mut(key));
            if let Some(record) = record {
                record.parked = count;
            }
        });
    }

    /// A connection of a worker is parked again.
    pub fn came(&self, id: &str) {
        self.with(|registry, fx| registry.came(id, fx));
    }

    /// No connection of a worker is parked any more, though none was taken last.
    pub fn went(&self, id: &str) {
        self.with(|registry, fx| registry.went(id, fx));
    }
}

impl Registry {
    fn dial_in(&mut self, said: DialIn, lease: Duration, fx: &mut Effects) -> Result<(), BackendError> {
        let id = said.id.clone();
        let Some(&key) = self.ids.get(&id) else {
            self.put(&id, said.over(None, lease)?, Expect::Anything, fx)?;
            return Ok(());
        };
        let record = self.records.get(&key).ok_or_else(|| BackendError::NotFound(id.clone()))?;
        match record.origin {
            Origin::Static => return Err(BackendError::Static(id)),
            Origin::Supervised => return Err(BackendError::Supervised(id)),
            Origin::Registered if record.spec.url.attach_id().is_none() => {
                return Err(BackendError::InstanceConflict(id));
            }
            Origin::Registered => {}
        }
        let is_another = record.spec.instance.as_ref().is_some_and(|instance| *instance != said.instance);
        let spec = said.over(Some(&record.spec), lease)?;
        self.check(&spec)?;
        self.check_room(&spec, Some(key))?;
        if is_another {
            self.supersede(key, spec, fx);
        } else {
            let _: Put = self.replace(key, spec, fx);
        }
        Ok(())
    }

    /// Makes a backend another one that inherits the id; the pipes of the one before it move.
    pub(super) fn supersede(&mut self, key: BackendKey, spec: BackendSpec, fx: &mut Effects) {
        let (Some(record), Some(backend)) = (self.records.get(&key), self.backend(key)) else {
            return;
        };
        let kept = if record.removing.is_some() { AdminState::Ready } else { backend.admin() };
        let (id, origin, admin) = (record.id.clone(), record.origin, spec.state.unwrap_or(kept));
        let replaced =
            BackendEvent::Replaced { pool: spec.pool.clone(), backend: id.clone(), url: spec.url.to_string() };
        self.move_away(key, fx);
        fx.events.push(replaced);
        self.insert(id, BackendSpec { state: Some(admin), ..spec }, origin, fx);
    }

    fn came(&mut self, id: &str, fx: &mut Effects) {
        let Some(key) = self.of_dialed_in(id) else { return };
        let Some(record) = self.records.get(&key) else { return };
        let Some(pool) = self.pools.get(&record.spec.pool) else { return };
        let is_enough = match probes_of(record, pool).map(|probes| &probes.kind) {
            None | Some(ProbeKind::Tcp) => true,
            // The connection says nothing about the page.
            Some(ProbeKind::Http(_) | ProbeKind::Ws(_)) => false,
        };
        if is_enough {
            self.found(key, Probed::Ok, String::new(), fx);
        }
        self.look_now(key, fx);
    }

    fn went(&mut self, id: &str, fx: &mut Effects) {
        if let Some(key) = self.of_dialed_in(id) {
            self.found(key, Probed::Refused, "no connection is parked".to_owned(), fx);
        }
    }

    fn of_dialed_in(&self, id: &str) -> Option<BackendKey> {
        let key = *self.ids.get(id)?;
        self.records.get(&key)?.spec.url.attach_id().map(|_| key)
    }

    fn found(&mut self, key: BackendKey, probed: Probed, text: String, fx: &mut Effects) {
        let was_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        let change = self.pool_of(key).and_then(|pool| pool.core.probed(key, probed));
        if let Some(change) = change {
            self.health_changed(key, change, &Why { text, eject: EjectCause::FailedDials }, was_eligible, fx);
        }
    }
}
