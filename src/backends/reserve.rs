//! A pipe's side: ask for a backend, hold a place on it, say how it went, hear when the pool changes.

use super::Backends;
use super::facts::{EjectCause, Hold, Leave, LeaveCause, LeaveHow};
use super::keeper::QUICK_PROBE_MIN;
use super::registry::{Effects, Record, Registry, Why, probes_of};
use super::spec::Origin;
use super::sticky;
use crate::net::{
    Addresses, Announced, BackendUrl, ConnectError, DialFailure, Networks, OwnListeners, ParkedLines, SendProxy,
    TlsClient, TlsPeer, resolve,
};
use holdline_core::health::{Experience, YOUNG_DEATH};
use holdline_core::ids::{BackendKey, PipeId};
use holdline_core::pool::{Backend, Choose, Chosen, NoCandidate};
use holdline_core::time::Time;
use http::{HeaderMap, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// What a pipe asks of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// The route key, if the route has one.
    pub key: Option<&'a str>,
    /// Backends that this pipe does not want now.
    pub exclude: &'a [BackendKey],
    /// A backend taken only if there is no other.
    pub avoid: Option<BackendKey>,
    /// The pipe that asks; nothing if a plain request does.
    pub pipe: Option<PipeId>,
    /// The backend that the client had before, as it says itself.
    pub prefer: Option<BackendKey>,
}

/// Why there is no backend now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoBackend {
    /// The reason nearest to success.
    pub reason: NoCandidate,
    /// When a backend that would do may be dialled again, if only the young deaths of this pipe there stand in the way.
    pub retry_at: Option<Instant>,
    /// Whether a backend that would do is only out for now, so that it is worth waiting for.
    pub awaited: bool,
}

impl NoBackend {
    const EMPTY: Self = Self { reason: NoCandidate::Empty, retry_at: None, awaited: false };

    /// Whether that may change soon: only a key that no backend serves is not worth waiting for.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.reason != NoCandidate::NoOwner
    }

    /// The same as what keeps the pipe waiting.
    #[must_use]
    pub fn hold(&self) -> Hold {
        if self.retry_at.is_some() { Hold::DiesYoung } else { self.reason.into() }
    }
}

/// How a dial or an attach went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Its 101 came.
    Connected,
    /// The dial failed.
    DialFailed(DialFailure),
    /// The attach ended without the pipe wanting it, so long after its 101.
    Died(Duration),
}

/// Where to connect to, with the networks that it may be in, and how its pool speaks TLS.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address.
    pub url: Arc<BackendUrl>,
    /// Nothing for a backend of the configuration file, which is trusted.
    pub(super) allowed: Option<Arc<Networks>>,
    pub(super) tls: TlsClient,
    pub(super) send_proxy: SendProxy,
    pub(super) numbers: bool,
    /// Where no backend may be.
    pub(super) own: Arc<OwnListeners>,
    /// Where the connections are of workers that dial in.
    pub(super) parked: Option<ParkedLines>,
}

impl Target {
    /// The addresses to try in their order, every one checked.
    ///
    /// # Errors
    /// When there is none.
    pub async fn resolve(&self) -> Result<Addresses, ConnectError> {
        let Some(id) = self.url.attach_id() else {
            return resolve(&self.url, self.allowed.as_deref(), &self.own).await;
        };
        let none = || ConnectError::with(DialFailure::Refused, "attach.listen is not set");
        self.parked.as_ref().map(|lines| Addresses::Parked(lines.of(id))).ok_or_else(none)
    }

    /// Whether it may speak the aware protocol.
    #[must_use]
    pub const fn may_number(&self) -> bool {
        self.numbers
    }

    /// What a new connection begins with: whose it is, or that it is our own.
    #[must_use]
    pub fn proxy_header(&self, client: Option<Announced>) -> Vec<u8> {
        self.send_proxy.header(client)
    }

    /// Whom a TLS handshake must prove to have reached; nothing where none is made.
    #[must_use]
    pub fn tls_peer(&self) -> Option<TlsPeer> {
        TlsPeer::of(&self.url, &self.tls)
    }
}

/// A backend that was picked, for a pipe with a place on it that is given back when this is dropped.
pub struct Reservation {
    backends: Backends,
    picked: Arc<Picked>,
    alias: Option<Arc<str>>,
    since: Time,
    what: What,
}

/// What a backend was picked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A pipe, which holds a place.
    Pipe,
    /// A plain request, which holds none, but is waited for by a drain.
    Request,
}

/// What is the same for all who are on a backend, shared until something of it changes.
#[derive(Debug)]
pub(super) struct Picked {
    key: BackendKey,
    id: Arc<str>,
    pool: Arc<str>,
    target: Target,
    dials: Arc<Semaphore>,
}

impl Picked {
    fn new(key: BackendKey, record: &Record, target: Target) -> Self {
        Self { key, id: record.id.clone(), pool: record.spec.pool.clone(), target, dials: record.dials.clone() }
    }

    /// Whether all of it still holds; the id of a record and its key never change.
    fn is_of(&self, record: &Record, target: &Target) -> bool {
        let same_networks = match (&self.target.allowed, &target.allowed) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_networks
            && self.target.tls == target.tls
            && Arc::ptr_eq(&self.target.own, &target.own)
            && Arc::ptr_eq(&self.target.url, &target.url)
            && Arc::ptr_eq(&self.pool, &record.spec.pool)
            && Arc::ptr_eq(&self.dials, &record.dials)
    }
}

/// Leave to dial a backend, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Nothing only if the semaphore were closed, which never happens.
    _permit: Option<OwnedSemaphorePermit>,
    /// Whether others had to be waited for, so that what was known of the backend may be stale.
    pub waited: bool,
}

impl Reservation {
    /// The backend's place in the tables.
    #[must_use]
    pub fn key(&self) -> BackendKey {
        self.picked.key
    }

    /// The backend's name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.picked.id
    }

    /// The pool it was chosen from.
    #[must_use]
    pub fn pool(&self) -> &Arc<str> {
        &self.picked.pool
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &BackendUrl {
        &self.picked.target.url
    }

    /// What it calls the route key, if it has another name for it.
    #[must_use]
    pub fn alias(&self) -> Option<&str> {
        self.alias.as_deref()
    }

    /// Where to dial.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.picked.target
    }

    /// Leave to dial at once, unless `reattach.dials_at_once` dials of this backend run.
    #[must_use]
    pub fn turn_now(&self) -> Option<Turn> {
        let permit = self.picked.dials.clone().try_acquire_owned().ok()?;
        Some(Turn { _permit: Some(permit), waited: false })
    }

    /// Waits until fewer of them run; cancel-safe, first come first served.
    pub async fn turn(&self) -> Turn {
        Turn { _permit: self.picked.dials.clone().acquire_owned().await.ok(), waited: true }
    }

    /// Says how it went with `pipe`, or else with a plain request. `Connected` once after the 101, `Died` if the attach
    /// ended against the pipe's will.
    pub fn report(&self, pipe: Option<PipeId>, outcome: Outcome) {
        self.backends.with(|registry, fx| registry.experienced(self, pipe, outcome, fx));
    }

    /// Whether the pipe has to leave. To be asked once after the attach, since an order to leave may have been given
    /// between the choice and the 101; later orders come through `on_leave`.
    #[must_use]
    pub fn must_leave(&self) -> Option<Leave> {
        self.backends.must_leave(self.key())
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} in {}, {})", self.id(), self.pool(), self.url())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.backends.with(|registry, fx| match self.what {
            What::Pipe => registry.release(self.key(), fx),
            What::Request => registry.answered(self.key(), fx),
        });
    }
}

/// Hears when a pool changed in a way that may help a waiting pipe.
///
/// Take it before asking for a backend: a change between the question and the wait then ends the wait at once.
#[derive(Clone, Debug)]
pub struct PoolWatch(watch::Receiver<u64>);

impl PoolWatch {
    /// Waits for a change since this watch was taken or last waited for; cancel-safe. For ever if the pool is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Backends {
    /// The key to ask `pool` for: `key`, or none where no backend there serves it and its route lets any take it then.
    #[must_use]
    pub fn key_of<'k>(&self, pool: &str, key: Option<&'k str>, any_without_owner: bool) -> Option<&'k str> {
        if !any_without_owner {
            return key;
        }
        let is_served = |registry: &Registry| {
            let entry = registry.pools.get(pool)?;
            entry.core.iter().any(|backend| backend.serves().takes(key)).then_some(())
        };
        self.with(|registry, _| is_served(registry)).and(key)
    }

    /// Picks a backend of `pool` and reserves a place on it.
    ///
    /// # Errors
    /// When there is none now; wait for `watch` (and for `retry_at`) and ask again.
    pub fn choose(&self, pool: &str, ask: &Ask<'_>) -> Result<Reservation, NoBackend> {
        self.with(|registry, _| {
            let chosen = registry.choose(pool, ask)?;
            registry.reservation(self, chosen, What::Pipe).ok_or(NoBackend::EMPTY)
        })
    }

    /// Whether there is a backend of `pool` to go to, and not only one that rests; nothing is reserved.
    #[must_use]
    pub fn has_another(&self, pool: &str, ask: &Ask<'_>) -> bool {
        self.with(|registry, _| registry.has_another(pool, ask))
    }

    /// Picks a backend of `pool` for one plain request, which takes no place: `own`, which its client is logged in at, or
    /// the one that has the key's pipes, if any.
    ///
    /// # Errors
    /// When there is none now.
    pub fn choose_request(&self, pool: &str, ask: &Ask<'_>, own: Option<BackendKey>) -> Result<Reservation, NoBackend> {
        self.with(|registry, _| {
            let chosen = registry.choose_request(pool, ask, own)?;
            registry.reservation(self, chosen, What::Request).ok_or(NoBackend::EMPTY)
        })
    }

    /// Remembers that `backend` has made `key` up, for `ttl` and as long after each use.
    pub fn learn(&self, pool: &str, key: &str, backend: BackendKey, ttl: Duration) {
        self.with(|registry, _| {
            let now = registry.clock.now();
            if let Some(entry) = registry.pools.get_mut(pool) {
                entry.owners.learn(key, backend, ttl, now);
            }
        });
    }

    /// The backend of `pool` that the cookie in `headers` names.
    #[must_use]
    pub fn had_before(&self, pool: &str, headers: &HeaderMap) -> Option<BackendKey> {
        let tag = sticky::sent(headers, pool)?;
        self.with(|registry, _| {
            let mut backends = registry.pools.get(pool)?.core.iter().map(Backend::key);
            backends.find(|key| registry.records.get(key).is_some_and(|record| record.tag.is(tag)))
        })
    }

    /// The header that has a client of `pool` come back to `backend`.
    #[must_use]
    pub fn sticky_cookie(&self, pool: &str, backend: BackendKey, secure: bool) -> Option<HeaderValue> {
        let tag = self.with(|registry, _| registry.records.get(&backend).map(|record| record.tag))?;
        sticky::set(pool, tag, secure)
    }

    /// A watch on `pool`; nothing if there is no such pool.
    #[must_use]
    pub fn watch(&self, pool: &str) -> Option<PoolWatch> {
        self.with(|registry, _| registry.pools.get(pool).map(|entry| PoolWatch(entry.wake.subscribe())))
    }

    /// Whether a pipe has to leave this backend.
    #[must_use]
    pub fn must_leave(&self, key: BackendKey) -> Option<Leave> {
        self.with(|registry, _| match registry.records.get(&key) {
            Some(record) => record.leave,
            None => Some(Leave { how: LeaveHow::Reattach, cause: LeaveCause::Removed }),
        })
    }
}

impl Registry {
    fn choose(&mut self, pool: &str, ask: &Ask<'_>) -> Result<Chosen, NoBackend> {
        let (clock, now) = (self.clock, self.clock.now());
        let Some(entry) = self.pools.get_mut(pool) else {
            return Err(NoBackend::EMPTY);
        };
        let mut retry: Option<Time> = None;
        // Filled only in the rare case that a backend keeps killing this pipe's attaches.
        let mut exclude = Vec::new();
        loop {
            let exclude_now = if exclude.is_empty() { ask.exclude } else { &exclude };
            let prefer = ask.prefer.or_else(|| entry.owners.of(ask.key, now));
            let question =
                Choose { key: ask.key, exclude: exclude_now, avoid: ask.avoid, prefer, random: rand::random() };
            let chosen = match entry.core.choose(&question) {
                Ok(chosen) => chosen,
                Err(reason) => {
                    let is_coming = |record: &Record| record.is_coming() && *record.spec.pool == *pool;
                    let awaited = entry.core.awaits(&Choose { exclude: ask.exclude, ..question })
                        || self.records.values().any(is_coming);
                    return Err(NoBackend { reason, retry_at: retry.map(|at| clock.instant(at)), awaited });
                }
            };
            let held = ask.pipe.and_then(|pipe| self.deaths.held_until(pipe, chosen.key, now));
            let Some(at) = held else {
                entry.owners.set(ask.key, chosen.key, now);
                return Ok(chosen);
            };
            entry.core.release(chosen.key);
            retry = Some(retry.map_or(at, |earlier| earlier.min(at)));
            if exclude.is_empty() {
                exclude.extend_from_slice(ask.exclude);
            }
            exclude.push(chosen.key);
        }
    }

    fn has_another(&mut self, pool: &str, ask: &Ask<'_>) -> bool {
        let now = self.clock.now();
        let owner = self.pools.get(pool).and_then(|entry| entry.owners.of(ask.key, now));
        let Ok(chosen) = self.choose(pool, ask) else { return false };
        let Some(entry) = self.pools.get_mut(pool) else { return false };
        entry.core.release(chosen.key);
        if let Some(owner) = owner {
            entry.owners.set(ask.key, owner, now);
        }
        entry.core.get(chosen.key).is_some_and(Backend::is_eligible)
    }

    fn choose_request(&mut self, pool: &str, ask: &Ask<'_>, own: Option<BackendKey>) -> Result<Chosen, NoBackend> {
        let nobody = |reason| NoBackend { reason, ..NoBackend::EMPTY };
        let now = self.clock.now();
        let entry = self.pools.get_mut(pool).ok_or(NoBackend::EMPTY)?;
        let prefer = own.or(ask.prefer).or_else(|| entry.owners.of(ask.key, now));
        let question = Choose { key: ask.key, exclude: ask.exclude, avoid: ask.avoid, prefer, random: rand::random() };
        let chosen = entry.core.choose_request(&question).map_err(nobody)?;
        entry.owners.set(ask.key, chosen.key, now);
        Ok(chosen)
    }

    fn reservation(&mut self, backends: &Backends, chosen: Chosen, what: What) -> Option<Reservation> {
        let target = self.target(chosen.key)?;
        let record = self.records.get_mut(&chosen.key)?;
        let known = record.picked.take().filter(|picked| picked.is_of(record, &target));
        let picked = known.unwrap_or_else(|| Arc::new(Picked::new(chosen.key, record, target)));
        record.picked = Some(picked.clone());
        record.requests += u32::from(what == What::Request);
        let since = self.clock.now();
        Some(Reservation { backends: backends.clone(), picked, alias: chosen.alias, since, what })
    }

    /// The reservation of a place that was taken already.
    pub(super) fn occupied(
        &mut self,
        backends: &Backends,
        key: BackendKey,
        alias: Option<Arc<str>>,
    ) -> Option<Reservation> {
        self.reservation(backends, Chosen { key, alias }, What::Pipe)
    }

    pub(super) fn target(&self, key: BackendKey) -> Option<Target> {
        let record = self.records.get(&key)?;
        let allowed = match record.origin {
            Origin::Static | Origin::Supervised => None,
            Origin::Registered => Some(self.where_to.networks.clone()),
        };
        let pool = self.pools.get(&record.spec.pool)?;
        let (tls, send_proxy, numbers) = (pool.tls.clone(), pool.send_proxy, pool.numbers);
        Some(Target {
            url: record.spec.url.clone(),
            allowed,
            own: self.where_to.own.clone(),
            parked: self.where_to.parked.clone(),
            tls,
            send_proxy,
            numbers,
        })
    }

    fn experienced(&mut self, reservation: &Reservation, pipe: Option<PipeId>, outcome: Outcome, fx: &mut Effects) {
        let (key, now) = (reservation.key(), self.clock.now());
        if let (Outcome::Died(lived), Some(pipe)) = (outcome, pipe)
            && lived < YOUNG_DEATH
        {
            self.deaths.died(pipe, key, now);
        }
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(&record.spec.pool) else {
            return;
        };
        // Down is for ever where nothing probes, so pipes may only eject there.
        let probed = probes_of(record, pool).is_some();
        let Some((experience, why)) = lesson(outcome, reservation.since, probed) else {
            return;
        };
        let doubtful = match experience {
            Experience::Died { .. } | Experience::DialFailed { .. } => true,
            Experience::Connected | Experience::Refused | Experience::Provoked { .. } => false,
        };
        if doubtful && probed {
            record.probe.next = record.probe.next.min(now + QUICK_PROBE_MIN);
        }
        // A doubt has an end, which the keeper has to know.
        fx.keeper |= doubtful;
        let was_eligible = pool.core.get(key).is_some_and(Backend::is_eligible);
        if let Some(change) = pool.core.experienced(key, experience, pipe, now) {
            self.health_changed(key, change, &why, was_eligible, fx);
        }
    }
}

/// What an outcome says about the backend; nothing if it says something about us.
fn lesson(outcome: Outcome, since: Time, probed: bool) -> Option<(Experience, Why)> {
    let failure = match outcome {
        Outcome::Connected => return Some((Experience::Connected, why(String::new(), EjectCause::FailedDials))),
        Outcome::Died(lived) => {
            return Some((Experience::Died { lived }, why(String::new(), EjectCause::YoungDeaths)));
        }
        Outcome::DialFailed(failure) => failure,
    };
    let (experience, cause) = match failure {
        DialFailure::Local => return None,
        DialFailure::Refused if probed => (Experience::Refused, EjectCause::FailedDials),
        DialFailure::Status(..500) => (Experience::Connected, EjectCause::FailedDials),
        DialFailure::Status(_) | DialFailure::BadProtocol => (Experience::Provoked { since }, EjectCause::ServerErrors),
        DialFailure::Refused
        | DialFailure::Timeout
        | DialFailure::Unreachable
        | DialFailure::Resolve
        | DialFailure::NotAllowed
        | DialFailure::SocketNotAllowed
        | DialFailure::OwnListener
        | DialFailure::Tls
        | DialFailure::BadAnswer => (Experience::DialFailed { since }, EjectCause::FailedDials),
    };
    Some((experience, why(failure.to_string(), cause)))
}

const fn why(text: String, eject: EjectCause) -> Why {
    Why { text, eject }
}
