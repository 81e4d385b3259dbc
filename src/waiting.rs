//! Requests that wait for a worker, because none can take them now: new handshakes, and GETs and HEADs.
//!
//! Owns how many wait at once, and has each look again when its pool has changed; dials nothing itself. Refuses to have a
//! request wait where its route does not want that, and when the process takes nothing new. Invariant: a place is given
//! back exactly once, when its [`Patience`] is dropped, and what became of the wait is counted then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backends::{Backends, PoolWatch};
use crate::metrics::labels::WaitResult;
use crate::metrics::{GaugeGuard, Metrics, RouteMetrics};
use crate::phase::Phase;
use crate::routes::Route;

/// The requests that wait.
#[derive(Debug)]
pub struct Waiting {
    backends: Backends,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    taken: AtomicUsize,
    max: AtomicUsize,
}

impl Waiting {
    /// Places for `max` requests at once.
    #[must_use]
    pub fn new(backends: Backends, metrics: Arc<Metrics>, phase: watch::Receiver<Phase>, max: usize) -> Self {
        Self { backends, metrics, phase, taken: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// Changes how many may wait; those that do go on.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// The numbers of a route.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.metrics.route(name)
    }

    /// A place for a request of `route` that has found no worker; none where it may not wait, or too many do.
    #[must_use]
    pub fn patience(self: &Arc<Self>, route: &Route) -> Option<Box<Patience>> {
        if route.wait.is_zero() {
            return None;
        }
        // Before the pool is looked at again, so that no change is missed.
        let pool = self.backends.watch(&route.pool)?;
        let metrics = self.metrics.route(&route.name);
        let is_in =
            self.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < self.max.load(Relaxed)).then_some(taken + 1));
        if is_in.is_err() {
            metrics.waited(WaitResult::Full).inc();
            return None;
        }
        Some(Box::new(Patience {
            waiting: self.clone(),
            pool,
            phase: self.phase.clone(),
            until: Instant::now() + route.wait,
            has_looked: false,
            result: WaitResult::Gone,
            _counted: metrics.waits(),
            metrics,
        }))
    }
}

/// One request's place.
#[derive(Debug)]
pub struct Patience {
    waiting: Arc<Waiting>,
    pool: PoolWatch,
    phase: watch::Receiver<Phase>,
    until: Instant,
    has_looked: bool,
    /// What became of it so far.
    result: WaitResult,
    _counted: GaugeGuard,
    metrics: Arc<RouteMetrics>,
}

impl Patience {
    /// Waits until the pool is worth another look, which it is at once the first time; false when the time is over, or
    /// the process takes nothing new. Cancel-safe.
    pub async fn another_look(&mut self) -> bool {
        if !std::mem::replace(&mut self.has_looked, true) {
            return true;
        }
        let leaves = self.phase.wait_for(|phase| matches!(phase, Phase::Draining | Phase::Stopping));
        let changed = tokio::select! {
            biased;
            // A phase that is gone means the same.
            _ = leaves => false,
            () = self.pool.changed() => true,
            () = tokio::time::sleep_until(self.until) => false,
        };
        if !changed {
            self.result = WaitResult::Expired;
        }
        changed
    }

    /// A worker has taken it.
    pub const fn served(&mut self) {
        self.result = WaitResult::Served;
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.waiting.taken.fetch_sub(1, Relaxed);
        self.metrics.waited(self.result).inc();
    }
}
