//! How many clients may be connected at once: `server.max_connections`, and what descriptors allow.
//!
//! Counted over all data threads. Invariant: a place is given back exactly once, when its [`Slot`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts client connections against `server.max_connections`, and against the descriptors that there are.
#[derive(Debug)]
pub struct Slots {
    taken: AtomicUsize,
    max: AtomicUsize,
    descriptors_max: usize,
}

/// Descriptors that clients leave alone: listeners, logs and runtimes, and above all the operator's connections.
const DESCRIPTORS_RESERVED: usize = 40;

/// What one client may need: its own connection and the one to its worker.
const DESCRIPTORS_PER_CLIENT: usize = 2;

impl Slots {
    /// Places for `max` connections in a process with so many `descriptors`; one at least.
    #[must_use]
    pub fn new(max: usize, descriptors: usize) -> Self {
        let descriptors_max = (descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CLIENT).max(1);
        Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(max), descriptors_max }
    }

    /// Changes how many connections there may be; those that are there stay.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// How many connections there can really be, if the descriptor limit allows fewer than the configuration.
    #[must_use]
    pub fn fewer_than_configured(&self) -> Option<usize> {
        (self.descriptors_max < self.max.load(Relaxed)).then_some(self.descriptors_max)
    }

    /// Whether one more connection might take a descriptor that something else will need.
    #[must_use]
    pub fn are_out_of_descriptors(&self) -> bool {
        self.taken.load(Relaxed) >= self.descriptors_max
    }

    /// Takes a place; it is given back when the slot is dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Slot {
        let before = self.taken.fetch_add(1, Relaxed);
        Slot { slots: self.clone(), over: before >= self.max.load(Relaxed) }
    }
}

/// One connection's place.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    over: bool,
}

impl Slot {
    /// Whether there were `server.max_connections` already, so that this one can only be told so.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken.fetch_sub(1, Relaxed);
    }
}
