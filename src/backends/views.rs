//! How pools and backends read from outside.

use super::registry::Registry;
use super::spec::{BackendSpec, BackendView, PoolView, StateCounts};
use holdline_core::health::Health;
use holdline_core::ids::BackendKey;
use holdline_core::lease::{Lease, LeaseState};
use holdline_core::pool::{AdminState, Backend};
use std::ops::Bound;

impl Registry {
    pub(super) fn view(&self, key: BackendKey) -> Option<BackendView> {
        let (record, backend) = (self.records.get(&key)?, self.backend(key)?);
        Some(BackendView {
            key,
            id: record.id.clone(),
            spec: record.spec.clone(),
            origin: record.origin,
            admin: backend.admin(),
            health: backend.health(),
            ejected_until: backend.ejected_until().map(|until| self.clock.wall(until)),
            lease: backend.lease_state(),
            lease_expires_at: backend
                .lease()
                .filter(|lease| lease.state() == LeaseState::Live)
                .map(Lease::expires)
                .map(|at| self.clock.wall(at)),
            eligible: backend.is_eligible(),
            removing: record.removing.is_some(),
            pipes: backend.pipes(),
            requests: record.requests,
            parked: record.spec.url.attach_id().map(|_| record.parked),
            registered_at: record.registered_at,
            health_since: record.health_since,
            version: record.version,
            last_probe: record.probe.last.clone(),
            report: record.probe.report,
            share: backend.share(),
        })
    }

    /// At most `count` backends behind the one called `after`, by id, of those that are `wanted`; whether there are more.
    pub(super) fn page(
        &self,
        after: Option<&str>,
        count: usize,
        wanted: impl Fn(&BackendSpec, AdminState) -> bool,
    ) -> (Vec<BackendView>, bool) {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut views = Vec::new();
        for (_, &key) in self.ids.range::<str, _>((begin, Bound::Unbounded)) {
            let (Some(record), Some(backend)) = (self.records.get(&key), self.backend(key)) else { continue };
            if !wanted(&record.spec, backend.admin()) {
                continue;
            }
            if views.len() == count {
                return (views, true);
            }
            views.extend(self.view(key));
        }
        (views, false)
    }

    pub(super) fn pool_views(&self) -> Vec<PoolView> {
        self.pools
            .iter()
            .map(|(name, pool)| PoolView {
                name: name.clone(),
                balance: pool.core.settings().balance,
                max_pipes_per_backend: pool.core.settings().max_pipes_per_backend,
                min_backends: pool.min_backends,
                backends: pool.core.iter().count(),
                eligible: pool.core.iter().filter(|backend| backend.is_eligible()).count(),
                states: counts(pool.core.iter()),
                probes: pool.probes.clone(),
                health: pool.core.settings().health,
                pipes: pool.core.iter().map(Backend::pipes).map(u64::from).sum(),
            })
            .collect()
    }
}

fn counts<'a>(backends: impl Iterator<Item = &'a Backend>) -> StateCounts {
    let mut counts = StateCounts::default();
    for backend in backends {
        *match backend.admin() {
            AdminState::Ready => &mut counts.ready,
            AdminState::Drain => &mut counts.drain,
            AdminState::Maint => &mut counts.maint,
        } += 1;
        *match backend.health() {
            Health::Up => &mut counts.up,
            Health::Down => &mut counts.down,
            Health::Ejected => &mut counts.ejected,
            Health::Unknown => &mut counts.unknown,
        } += 1;
        *match backend.lease_state() {
            LeaseState::None => &mut counts.no_lease,
            LeaseState::Live => &mut counts.lease_live,
            LeaseState::Expired => &mut counts.lease_expired,
        } += 1;
    }
    counts
}
