//! The leases of a pool as a whole: who expires, who is kept although it should, who is gone.

use super::Pool;
use crate::ids::BackendKey;
use crate::lease::{Lease, LeaseState, PRESERVED_RECHECK, too_many_late};
use crate::time::{Time, earliest};

/// What became of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    /// No new pipes for this backend; one probe is due.
    Expired(BackendKey),
    /// Its time after the expiry is over too: move its pipes and remove it.
    Gone(BackendKey),
    /// So many leases are late at once that they are kept; told once until that is over.
    SelfPreservation {
        /// Leases that are late.
        late: usize,
        /// Leases that had not expired before.
        live: usize,
    },
}

impl Pool {
    /// Renews a backend's lease; `None` if it has none or is gone, else whether it had expired.
    pub fn renew_lease(&mut self, key: BackendKey, now: Time) -> Option<bool> {
        self.get_mut(key)?.lease.as_mut().map(|lease| lease.renew(now))
    }

    /// Acts on the leases that ran out.
    pub fn expire_leases(&mut self, now: Time) -> Vec<LeaseChange> {
        let mut changes = Vec::new();
        for backend in &mut self.backends {
            let key = backend.key();
            if backend.lease.as_mut().is_some_and(|lease| lease.take_gone(now)) {
                changes.push(LeaseChange::Gone(key));
            }
        }
        if !self.leases().any(|(_, lease)| lease.is_overdue(now)) {
            self.preserved_until = None;
            return changes;
        }
        let late = self.leases().filter(|(_, lease)| lease.is_late(now)).count();
        let live = self.leases().filter(|(_, lease)| lease.state() == LeaseState::Live).count();
        if too_many_late(late, live) {
            if self.preserved_until.is_none() {
                changes.push(LeaseChange::SelfPreservation { late, live });
            }
            self.preserved_until = Some(now + PRESERVED_RECHECK);
            return changes;
        }
        self.preserved_until = None;
        for backend in &mut self.backends {
            let key = backend.key();
            if let Some(lease) = backend.lease.as_mut().filter(|lease| lease.is_overdue(now)) {
                lease.expire(now);
                changes.push(LeaseChange::Expired(key));
            }
        }
        changes
    }

    pub(super) fn lease_deadline(&self) -> Option<Time> {
        let gone = self.leases().filter_map(|(_, lease)| lease.gone_at()).min();
        let live = self
            .leases()
            .filter(|(_, lease)| lease.state() == LeaseState::Live)
            .map(|(_, lease)| lease.expires())
            .min();
        earliest(gone, live.map(|expires| self.preserved_until.map_or(expires, |recheck| expires.max(recheck))))
    }

    fn leases(&self) -> impl Iterator<Item = (BackendKey, &Lease)> {
        self.backends.iter().filter_map(|backend| Some((backend.key(), backend.lease.as_ref()?)))
    }
}
