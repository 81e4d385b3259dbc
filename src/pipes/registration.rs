//! A live pipe's place in the registry, and what it holds in the books.
//!
//! Invariant: what a pipe adds to a sum is taken out of it again when its registration goes, to the byte.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};

use holdline_core::labels::Labels;

use super::{PipeEntry, Pipes, Pool, change, lock};

/// A pipe's place in the registry; dropping it takes the pipe and what it held out of the books.
#[derive(Debug)]
pub struct Registration {
    pub(super) pool: Arc<Pool>,
    pub(super) entry: Arc<PipeEntry>,
    pub(super) held_bytes: u64,
    pub(super) memory_bytes: u64,
}

impl Pipes {
    /// Lets others find a pipe.
    pub(super) fn enter(self: &Arc<Self>, entry: Arc<PipeEntry>) -> Registration {
        self.shard(entry.id).insert(entry.id, entry.clone());
        change(&self.count, |count| *count += 1);
        self.changed();
        let pool = lock(&self.pools).get(self, &entry.route.pool);
        Registration { pool, entry, held_bytes: 0, memory_bytes: 0 }
    }
}

impl Registration {
    /// The pipe's entry.
    #[must_use]
    pub const fn entry(&self) -> &Arc<PipeEntry> {
        &self.entry
    }

    /// Lets others find the pipe in these groups, and in no others.
    pub fn label(&self, labels: Option<&Arc<Labels>>) {
        let pipes = &self.pool.pipes;
        pipes.labels.put(&self.entry, labels.cloned());
        pipes.changed();
    }

    /// Bytes that pipes may still take in.
    #[must_use]
    pub fn room(&self) -> usize {
        self.pool.pipes.room(&self.pool)
    }

    /// Notes that the pipe reads nothing only because there is no room; it is woken when there is some.
    pub fn starves(&self) {
        self.entry.starved.store(true, Release);
        self.pool.pipes.any_starved.store(true, Release);
    }

    /// Books what the pipe holds now, and the memory that it occupies.
    pub fn hold(&mut self, bytes: usize, memory_bytes: usize) {
        let mut in_pool = self.held_bytes;
        book(&self.pool.held_bytes, &mut in_pool, bytes as u64);
        book(&self.pool.pipes.held_bytes, &mut self.held_bytes, bytes as u64);
        let memory_bytes = memory_bytes as u64;
        if memory_bytes == 0 || memory_bytes.abs_diff(self.memory_bytes) >= MEMORY_STEP {
            book(&self.pool.pipes.memory_bytes, &mut self.memory_bytes, memory_bytes);
        }
    }
}

/// Changes of a pipe's memory below this are not booked one by one: threads would fight for the sum.
pub const MEMORY_STEP: u64 = 4096;

/// Moves a sum by what one of its parts has changed.
fn book(sum: &AtomicU64, part: &mut u64, now: u64) {
    if now > *part {
        sum.fetch_add(now - *part, Relaxed);
    } else if now < *part {
        sum.fetch_sub(*part - now, Relaxed);
    }
    *part = now;
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hold(0, 0);
        let pipes = &self.pool.pipes;
        pipes.labels.put(&self.entry, None);
        pipes.shard(self.entry.id).remove(&self.entry.id);
        change(&pipes.count, |count| *count -= 1);
        pipes.changed();
    }
}
