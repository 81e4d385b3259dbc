//! What the supervisor says about the workers whose processes it runs.
//!
//! Such a backend comes in as drained and takes pipes once it is told to: an unknown health would let pipes dial a
//! process that does not listen yet. Until it is up it is probed every [`READY_PROBE_INTERVAL`], and that it is down is no news.
//! Invariant: only the supervisor takes it out again, or the loss of its pool.

use super::Backends;
use super::facts::{Leave, LeaveCause, LeaveHow, Removal};
use super::registry::{Effects, Record, Registry};
use super::spec::{BackendError, BackendSpec, BackendView, Origin, PipesWish, Progress, StateChange};
use holdline_core::ids::BackendKey;
use holdline_core::pool::{AdminState, Backend};
use std::sync::Arc;
use std::time::Duration;

/// From one look at a worker that is not up yet to the next, unless the pool's interval is shorter.
pub const READY_PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// Pipes see by themselves that a process has ended. Those that do not within this time, because a descendant of it
/// holds their connections, are taken away.
const EXITED_DEADLINE: Duration = Duration::from_secs(5);

impl Backends {
    /// Puts a worker of the supervisor's into its pool, where it takes no pipes yet. One before it whose pipes are
    /// leaving may have had the id.
    ///
    /// # Errors
    /// When another backend has the id, or there is no room.
    pub fn enlist(&self, id: &str, spec: BackendSpec) -> Result<BackendKey, BackendError> {
        self.with(|registry, fx| registry.enlist(id, spec, fx))
    }

    /// Lets it take pipes.
    pub fn serve(&self, key: BackendKey) {
        let change = StateChange { state: AdminState::Ready, pipes: PipesWish::Reattach, deadline: None };
        self.with(|registry, fx| registry.set_state(key, change, fx));
    }

    /// Lets it take no more pipes, has those that it has move away, and removes it when the last one has gone; those
    /// that are there after `within` are taken away.
    pub fn retire(&self, key: BackendKey, within: Duration) {
        self.with(|registry, fx| registry.retire(key, within, fx));
    }

    /// Its process has ended.
    pub fn exited(&self, key: BackendKey) {
        self.with(|registry, fx| registry.exited(key, fx));
    }

    /// What is known of a backend by its key; nothing once it has been removed.
    #[must_use]
    pub fn look(&self, key: BackendKey) -> Option<BackendView> {
        self.with(|registry, _| registry.view(key))
    }
}

impl Registry {
    fn enlist(&mut self, id: &str, spec: BackendSpec, fx: &mut Effects) -> Result<BackendKey, BackendError> {
        let id: Arc<str> = id.into();
        if let Some(record) = self.ids.get(&id).and_then(|key| self.records.get(key))
            && !(record.origin == Origin::Supervised && record.removing.is_some())
        {
            return Err(BackendError::InstanceConflict(id));
        }
        if !self.pools.get(&spec.pool).is_some_and(|pool| pool.configured) {
            return Err(BackendError::UnknownPool(spec.pool));
        }
        self.check_room(&spec, None)?;
        Ok(self.add(id, BackendSpec { state: Some(AdminState::Drain), ..spec }, Origin::Supervised, fx))
    }

    fn retire(&mut self, key: BackendKey, within: Duration, fx: &mut Effects) {
        let leave = Leave { how: LeaveHow::Reattach, cause: LeaveCause::Drain };
        let deadline = self.clock.now() + within;
        self.remove(key, Removal::Retired, leave, Some(deadline), fx);
    }

    fn exited(&mut self, key: BackendKey, fx: &mut Effects) {
        let deadline = self.clock.now() + EXITED_DEADLINE;
        let was_eligible = self.backend(key).is_some_and(Backend::is_eligible);
        let Some(pool) = self.pool_of(key) else {
            return;
        };
        pool.core.set_admin(key, AdminState::Drain);
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        record.removing = Some(Removal::Exited);
        (record.leave, record.leave_deadline, record.at_deadline) = (None, Some(deadline), LeaveHow::Detach);
        if self.progress(key) == Progress::Done {
            self.forget(key, Removal::Exited, fx);
        } else {
            self.touched(key, was_eligible, fx);
        }
    }
}

impl Record {
    /// Whether it is a process that takes pipes once it is ready, or needed.
    pub(super) fn is_coming(&self) -> bool {
        self.origin == Origin::Supervised && self.removing.is_none()
    }

    /// Whether it is a process that has not been up since it was started.
    pub(super) fn is_starting(&self) -> bool {
        self.origin == Origin::Supervised && self.removing.is_none() && !self.has_been_up
    }
}
