//! What workers and operators may change: register, replace, patch, renew, drain, delete, and a new configuration.

use super::Setup;
use super::facts::{BackendEvent, Leave, LeaveCause, LeaveHow, Removal};
use super::registry::{Effects, PoolEntry, Record, Registry, core_settings, pool_settings};
use super::spec::{
    BACKENDS_MAX, BackendError, BackendSpec, Directive, Expect, ID_BYTES_MAX, INSTANCE_BYTES_MAX, LABELS_MAX,
    LEASE_RANGE, Origin, PROBE_INTERVAL_MIN, PipesWish, PoolSpec, Progress, Put, Renewal, SERVES_KEYS_MAX, StateChange,
    WEIGHT_MAX, WORD_BYTES_MAX,
};
use crate::net::{BackendUrl, Host};
use crate::routes::leaves_its_place;
use holdline_core::health::Health;
use holdline_core::ids::BackendKey;
use holdline_core::lease::LeaseState;
use holdline_core::pool::{AdminState, Backend, Serves};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// After which the pipes of a deleted backend are detached if they found no other by then, and its requests are not
/// waited for any more.
pub const REMOVAL_DEADLINE: Duration = Duration::from_secs(30);

impl Registry {
    pub(super) fn register(&mut self, spec: BackendSpec, fx: &mut Effects) -> Result<Arc<str>, BackendError> {
        self.check(&spec)?;
        check_attach_id(&spec, None)?;
        let taken = self
            .records
            .values()
            .find(|record| record.spec.pool == spec.pool && record.spec.url == spec.url && record.removing.is_none());
        if let Some(record) = taken {
            return Err(BackendError::UrlTaken(record.id.clone()));
        }
        self.check_room(&spec, None)?;
        let id: Arc<str> = format!("b-{:016x}", rand::random::<u64>()).into();
        self.add(id.clone(), spec, Origin::Registered, fx);
        Ok(id)
    }

    pub(super) fn restore(&mut self, id: &str, spec: BackendSpec, fx: &mut Effects) -> Result<(), BackendError> {
        check_id(id)?;
        self.check(&spec)?;
        self.check_room(&spec, None)?;
        let id: Arc<str> = id.into();
        if self.ids.contains_key(&id) {
            return Err(BackendError::Static(id));
        }
        let key = self.add(id, spec, Origin::Registered, fx);
        if let Some(record) = self.records.get_mut(&key) {
            record.restored = true;
        }
        Ok(())
    }

    pub(super) fn put(
        &mut self,
        id: &str,
        spec: BackendSpec,
        expect: Expect,
        fx: &mut Effects,
    ) -> Result<Put, BackendError> {
        check_id(id)?;
        self.check(&spec)?;
        check_attach_id(&spec, Some(id))?;
        let id: Arc<str> = id.into();
        let Some(&key) = self.ids.get(&id) else {
            check_absence(&id, expect)?;
            self.check_room(&spec, None)?;
            self.add(id, spec, Origin::Registered, fx);
            return Ok(Put::Created);
        };
        self.check_expectation(key, expect)?;
        self.check_replaceable(key, &spec)?;
        self.check_room(&spec, Some(key))?;
        Ok(self.replace(key, spec, fx))
    }

    pub(super) fn patch(
        &mut self,
        id: &str,
        expect: Expect,
        change: impl FnOnce(&mut BackendSpec),
        fx: &mut Effects,
    ) -> Result<Put, BackendError> {
        let key = self.find(id)?;
        self.check_expectation(key, expect)?;
        let Some(record) = self.records.get(&key) else {
            return Err(BackendError::NotFound(id.into()));
        };
        check_own(record)?;
        if record.removing.is_some() {
            return Err(BackendError::NotFound(id.into()));
        }
        let mut spec = BackendSpec::clone(&record.spec);
        change(&mut spec);
        self.check(&spec)?;
        check_attach_id(&spec, Some(id))?;
        self.check_room(&spec, Some(key))?;
        Ok(self.replace(key, spec, fx))
    }

    pub(super) fn renew_lease(&mut self, id: &str, fx: &mut Effects) -> Result<Renewal, BackendError> {
        let key = self.find(id)?;
        let now = self.clock.now();
        let lapsed = self.records.get(&key).and_then(|record| record.removing) == Some(Removal::LeaseExpired);
        if lapsed {
            return Err(BackendError::NotFound(id.into()));
        }
        self.heard_of(key);
        let was_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        let revived = self.pool_of(key).and_then(|pool| pool.core.renew_lease(key, now));
        let Some(revived) = revived else {
            return Err(BackendError::NoLease(id.into()));
        };
        if revived {
            self.revived(key, was_eligible, fx);
        }
        self.renewal(key).ok_or_else(|| BackendError::NotFound(id.into()))
    }

    pub(super) fn change_state(
        &mut self,
        id: &str,
        expect: Expect,
        change: StateChange,
        fx: &mut Effects,
    ) -> Result<Progress, BackendError> {
        let key = self.find(id)?;
        self.check_expectation(key, expect)?;
        // What is being removed comes back only by being registered again.
        if self.records.get(&key).is_none_or(|record| record.removing.is_some()) {
            return Err(BackendError::NotFound(id.into()));
        }
        Ok(self.set_state(key, change, fx))
    }

    pub(super) fn delete(&mut self, id: &str, expect: Expect, fx: &mut Effects) -> Result<Progress, BackendError> {
        let Some(&key) = self.ids.get(id) else {
            check_absence(&id.into(), expect)?;
            return Ok(Progress::Done);
        };
        self.check_expectation(key, expect)?;
        let Some(record) = self.records.get(&key) else {
            return Ok(Progress::Done);
        };
        check_own(record)?;
        if record.removing.is_some() {
            return Ok(self.progress(key));
        }
        let leave = Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed };
        let deadline = self.clock.now() + REMOVAL_DEADLINE;
        Ok(self.remove(key, Removal::Deleted, leave, Some(deadline), fx))
    }

    /// Makes the pools and their static backends what the configuration says; what did not change is left alone.
    pub(super) fn configure(&mut self, setup: &Setup, fx: &mut Effects) {
        let pools = &setup.pools;
        self.where_to.networks = Arc::new(setup.networks.clone());
        self.bound(setup.bounds);
        for entry in self.pools.values_mut() {
            entry.configured = false;
        }
        for pool in pools {
            let entry = self.pools.entry(pool.name.clone()).or_insert_with(|| PoolEntry::new(pool));
            entry.configured = true;
            entry.core.configure(pool_settings(pool));
            entry.probes = pool.probes.clone();
            entry.move_order = pool.move_order;
            (entry.weight_from, entry.worker_memory_max) = (pool.weight_from, pool.worker_memory_max);
            entry.min_backends = pool.min_backends;
            entry.report = pool.report.clone();
            entry.tls = pool.tls.clone();
            entry.send_proxy = pool.send_proxy;
            entry.numbers = pool.numbers;
            // A pipe may wait for a raised limit.
            entry.wake();
        }
        self.retire_unconfigured(pools, fx);
        for (id, spec) in pools.iter().flat_map(|pool| &pool.backends) {
            match self.ids.get(id).copied() {
                None => {
                    self.add(id.clone(), spec.clone(), Origin::Static, fx);
                }
                Some(key) => self.adopt(key, spec, fx),
            }
        }
        fx.changed = true;
        fx.keeper = true;
    }

    fn retire_unconfigured(&mut self, pools: &[PoolSpec], fx: &mut Effects) {
        let named: HashSet<&Arc<str>> = pools.iter().flat_map(|pool| pool.backends.iter().map(|(id, _)| id)).collect();
        // Without a deadline: a reload takes no pipe away that has nowhere else to go.
        let leave = Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed };
        let unconfigured: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| {
                let pool_is_gone = self.pools.get(&record.spec.pool).is_none_or(|pool| !pool.configured);
                pool_is_gone || record.origin == Origin::Static && !named.contains(&record.id)
            })
            .map(|(&key, _)| key)
            .collect();
        for key in unconfigured {
            self.remove(key, Removal::Unconfigured, leave, None, fx);
        }
        self.pools.retain(|_, pool| pool.configured || pool.core.iter().next().is_some());
    }

    /// Takes a configured backend over whose id is there already.
    fn adopt(&mut self, key: BackendKey, spec: &BackendSpec, fx: &mut Effects) {
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        let kept = BackendSpec { state: None, ..spec.clone() };
        let unchanged = *record.spec == kept && record.removing.is_none();
        record.origin = Origin::Static;
        if !unchanged {
            // The state in the file is the one to start in; a reload doesn't undo an operator's drain.
            self.replace(key, kept, fx);
        }
    }

    pub(super) fn add(&mut self, id: Arc<str>, spec: BackendSpec, origin: Origin, fx: &mut Effects) -> BackendKey {
        let event =
            BackendEvent::Registered { pool: spec.pool.clone(), backend: id.clone(), url: spec.url.to_string() };
        fx.events.push(event);
        self.insert(id, spec, origin, fx)
    }

    /// Makes a backend what `spec` says. Another URL or pool makes it another backend that inherits the id.
    pub(super) fn replace(&mut self, key: BackendKey, spec: BackendSpec, fx: &mut Effects) -> Put {
        let (Some(record), Some(backend)) = (self.records.get(&key), self.backend(key)) else {
            return Put::Same;
        };
        let was_removing = record.removing.is_some();
        let old_admin = if was_removing { AdminState::Ready } else { backend.admin() };
        let admin = spec.state.unwrap_or(old_admin);
        if record.spec.url != spec.url || record.spec.pool != spec.pool {
            self.supersede(key, spec, fx);
            return Put::Replaced;
        }
        let replaced =
            BackendEvent::Replaced { pool: spec.pool.clone(), backend: record.id.clone(), url: spec.url.to_string() };
        let spec = BackendSpec { state: None, ..spec };
        let same = *record.spec == spec && admin == backend.admin() && !was_removing;
        if same {
            self.said_again(key, fx);
            return Put::Same;
        }
        self.update(key, spec, fx);
        if was_removing || admin != old_admin {
            self.set_state(key, StateChange { state: admin, pipes: PipesWish::Reattach, deadline: None }, fx);
        }
        fx.events.push(replaced);
        Put::Replaced
    }

    /// A worker that says the same again renews its lease; if it is not known to be up, it is looked at now.
    fn said_again(&mut self, key: BackendKey, fx: &mut Effects) {
        self.heard_of(key);
        let now = self.clock.now();
        let Some(backend) = self.backend(key) else { return };
        let (was_eligible, up) = (backend.is_eligible(), backend.health() == Health::Up);
        let revived = self.pool_of(key).and_then(|pool| pool.core.renew_lease(key, now));
        if revived == Some(true) {
            self.revived(key, was_eligible, fx);
        }
        if !up {
            self.look_now(key, fx);
        }
    }

    fn update(&mut self, key: BackendKey, spec: BackendSpec, fx: &mut Effects) {
        let now = self.clock.now();
        let (Some(backend), Some(record)) = (self.backend(key), self.records.get(&key)) else { return };
        let (was_eligible, admin) = (backend.is_eligible(), backend.admin());
        let had_expired = backend.lease_state() == LeaseState::Expired;
        let another_instance = record.spec.instance != spec.instance;
        let settings = core_settings(&spec, admin);
        let Some(pool) = self.pool_of(key) else { return };
        pool.core.update(key, settings, now);
        if another_instance {
            pool.core.forget_health(key);
        }
        // A pipe may wait for a raised limit or another key.
        pool.wake();
        if let Some(record) = self.records.get_mut(&key) {
            self.held_bytes = self.held_bytes + spec.held_bytes() - record.spec.held_bytes();
            record.spec = Arc::new(spec);
            record.restored = false;
            if record.removing.take().is_some() {
                (record.leave, record.leave_deadline) = (None, None);
                record.requests_overdue = false;
            }
        }
        self.look_now(key, fx);
        if had_expired {
            self.revived(key, was_eligible, fx);
        } else {
            self.touched(key, was_eligible, fx);
        }
    }

    fn heard_of(&mut self, key: BackendKey) {
        if let Some(record) = self.records.get_mut(&key) {
            record.restored = false;
        }
    }

    pub(super) fn look_now(&mut self, key: BackendKey, fx: &mut Effects) {
        let now = self.clock.now();
        if let Some(record) = self.records.get_mut(&key) {
            record.probe.next = now;
        }
        fx.keeper = true;
    }

    fn revived(&mut self, key: BackendKey, was_eligible: bool, fx: &mut Effects) {
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        if record.leave.is_some_and(|leave| leave.cause == LeaveCause::LeaseExpired) {
            record.leave = None;
        }
        if let Some((pool, backend)) = self.names(key) {
            fx.events.push(BackendEvent::LeaseRevived { pool, backend });
        }
        self.touched(key, was_eligible, fx);
    }

    /// Drops a backend whose id lives on elsewhere; its pipes move as soon as another takes them.
    pub(super) fn move_away(&mut self, key: BackendKey, fx: &mut Effects) {
        if self.backend(key).is_some_and(|backend| backend.pipes() > 0) {
            fx.leaves.push((key, Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed }));
        }
        self.forget(key, Removal::Replaced, fx);
    }

    fn renewal(&self, key: BackendKey) -> Option<Renewal> {
        let backend = self.backend(key)?;
        let lease = backend.lease()?;
        let directives = match backend.admin() {
            AdminState::Ready => Vec::new(),
            AdminState::Drain => vec![Directive::Drain],
            AdminState::Maint => vec![Directive::Maint],
        };
        Some(Renewal { expires_at: self.clock.wall(lease.expires()), renew_after: lease.renew_after(), directives })
    }

    fn find(&self, id: &str) -> Result<BackendKey, BackendError> {
        self.ids.get(id).copied().ok_or_else(|| BackendError::NotFound(id.into()))
    }

    fn check_expectation(&self, key: BackendKey, expect: Expect) -> Result<(), BackendError> {
        let Some(record) = self.records.get(&key) else {
            return Ok(());
        };
        let met = match expect {
            Expect::Anything | Expect::Present => true,
            Expect::Absent => false,
            Expect::Version(version) => record.version == version,
            Expect::AnotherThan(version) => record.version != version,
        };
        if met { Ok(()) } else { Err(BackendError::PreconditionFailed(record.id.clone())) }
    }

    /// A live worker keeps its id. One that is proven down or whose lease expired is not live, so a worker that was
    /// killed and started again gets its id back as soon as that was noticed; so does one that was started again while
    /// we were.
    fn check_replaceable(&self, key: BackendKey, spec: &BackendSpec) -> Result<(), BackendError> {
        let (Some(record), Some(backend)) = (self.records.get(&key), self.backend(key)) else {
            return Ok(());
        };
        check_own(record)?;
        let differs = matches!((&record.spec.instance, &spec.instance), (Some(old), Some(new)) if old != new);
        let live = backend.health() != Health::Down
            && backend.lease_state() != LeaseState::Expired
            && record.removing.is_none()
            && !record.restored;
        if differs && live { Err(BackendError::InstanceConflict(record.id.clone())) } else { Ok(()) }
    }

    /// Whether there is room for what `spec` says, in the place of what was said about a backend before.
    pub(super) fn check_room(&self, spec: &BackendSpec, before: Option<BackendKey>) -> Result<(), BackendError> {
        let (bytes, max) = (spec.held_bytes(), self.bounds.backend_bytes_max);
        if bytes > max {
            return Err(BackendError::TooLarge(bytes, max));
        }
        let replaced = before.and_then(|key| self.records.get(&key));
        let replaced_bytes = replaced.map_or(0, |record| record.spec.held_bytes());
        // What says less than before fits, though there may be too much of the others.
        if bytes > replaced_bytes && self.held_bytes - replaced_bytes + bytes > self.bounds.registry_bytes_max {
            return Err(BackendError::NoRoom(self.bounds.registry_bytes_max));
        }
        if replaced.is_some() || self.records.len() < BACKENDS_MAX { Ok(()) } else { Err(BackendError::TooMany) }
    }

    pub(super) fn check(&self, spec: &BackendSpec) -> Result<(), BackendError> {
        let configured = self.pools.get(&spec.pool).is_some_and(|pool| pool.configured);
        if !configured {
            return Err(BackendError::UnknownPool(spec.pool.clone()));
        }
        if let Some(listener) = self.own_listener(&spec.url) {
            return Err(BackendError::OwnListener(listener));
        }
        match spec.url.host() {
            Host::Address(address) if !self.where_to.networks.allow(*address) => {
                return Err(BackendError::AddressNotAllowed(*address));
            }
            Host::Socket(path) if !self.where_to.networks.sockets.allow(path) => {
                return Err(BackendError::SocketNotAllowed(path.display().to_string()));
            }
            Host::Parked(_) if self.where_to.parked.is_none() => return Err(BackendError::NoDialIn),
            Host::Name(_) | Host::Address(_) | Host::Socket(_) | Host::Parked(_) => {}
        }
        check_bounds(spec)
    }

    /// The listener of this process that `url` leads to, as far as that is known without asking a resolver.
    fn own_listener(&self, url: &BackendUrl) -> Option<SocketAddr> {
        let addresses = url.host().known_addresses();
        addresses.into_iter().map(|ip| SocketAddr::new(ip, url.port())).find(|&to| self.where_to.own.hear(to))
    }
}

/// Whether the API may change what is said about a backend.
fn check_own(record: &Record) -> Result<(), BackendError> {
    match record.origin {
        Origin::Registered => Ok(()),
        Origin::Static => Err(BackendError::Static(record.id.clone())),
        Origin::Supervised => Err(BackendError::Supervised(record.id.clone())),
    }
}

/// Whether there may be no such backend.
fn check_absence(id: &Arc<str>, expect: Expect) -> Result<(), BackendError> {
    match expect {
        Expect::Anything | Expect::Absent | Expect::AnotherThan(_) => Ok(()),
        Expect::Present | Expect::Version(_) => Err(BackendError::PreconditionFailed(id.clone())),
    }
}

fn check_id(id: &str) -> Result<(), BackendError> {
    let sound = !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if sound {
        return Ok(());
    }
    let message = format!("an id is 1 to {ID_BYTES_MAX} letters, digits, dots, dashes and underscores");
    Err(BackendError::Invalid { pointer: "/id", message })
}

/// A worker dials in under the id of its backend.
fn check_attach_id(spec: &BackendSpec, id: Option<&str>) -> Result<(), BackendError> {
    let attach = spec.url.attach_id();
    if attach.is_none() || attach == id {
        return Ok(());
    }
    let message =
        "names another backend: a worker that dials in has the id of its URL, as in PUT /v1/backends/w1 with attach:w1"
            .to_owned();
    Err(BackendError::Invalid { pointer: "/url", message })
}

/// Whether `text` may be kept and shown as it is; it grows little when it is written as JSON.
fn is_word(text: &str) -> bool {
    text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control)
}

fn check_bounds(spec: &BackendSpec) -> Result<(), BackendError> {
    let invalid = |pointer, message| Err(BackendError::Invalid { pointer, message });
    if spec.weight.get() > WEIGHT_MAX {
        return invalid("/weight", format!("a weight is 1 to {WEIGHT_MAX}"));
    }
    if let Some(lease) = spec.lease
        && !LEASE_RANGE.contains(&lease)
    {
        return invalid("/lease", "a lease is 1s to 1h".to_owned());
    }
    if spec.labels.len() > LABELS_MAX {
        return invalid("/labels", format!("there are at most {LABELS_MAX} labels"));
    }
    if !spec.labels.iter().all(|(name, value)| is_word(name) && is_word(value)) {
        return invalid("/labels", format!("a label has up to {WORD_BYTES_MAX} bytes and no control characters"));
    }
    if spec.instance.as_ref().is_some_and(|instance| instance.len() > INSTANCE_BYTES_MAX || !is_word(instance)) {
        let message = format!("an instance has up to {INSTANCE_BYTES_MAX} bytes and no control characters");
        return invalid("/instance", message);
    }
    if let Some(probes) = &spec.probes
        && probes.interval > Duration::ZERO
        && probes.interval < PROBE_INTERVAL_MIN
    {
        let message = format!("is 0s, which never probes, or at least {}ms", PROBE_INTERVAL_MIN.as_millis());
        return invalid("/health/interval", message);
    }
    match &spec.serves {
        Serves::Keys(keys) if keys.len() > SERVES_KEYS_MAX => {
            invalid("/serves", format!("a backend serves at most {SERVES_KEYS_MAX} keys by name"))
        }
        Serves::Keys(keys) if !keys.keys().chain(keys.values().flatten()).all(|word| is_word(word)) => {
            invalid("/serves", format!("a key has up to {WORD_BYTES_MAX} bytes and no control characters"))
        }
        Serves::Keys(keys) if keys.values().flatten().any(|alias| leaves_its_place(alias)) => {
            invalid("/serves", "an alias stands in a path: it must not hold `.` or `..` as a part of one".to_owned())
        }
        Serves::Any | Serves::Keys(_) => Ok(()),
    }
}
