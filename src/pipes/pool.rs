//! What the pipes of one pool hold together, and their part of `replay.total_bytes_max`.
//!
//! Where there are several pools, one may hold at most [`FREE_TIMES`] times what is free: alone it comes to four fifths,
//! and the outage of its workers leaves room for the pipes of all others. Invariant: what pools hold is what their pipes
//! hold, since it is booked with each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::Pipes;

/// How many times what is free one pool of several may hold.
const FREE_TIMES: u64 = 4;

/// The books of one pool, as long as it has pipes.
#[derive(Debug)]
pub struct Pool {
    pub(super) pipes: Arc<Pipes>,
    /// Bytes of messages that its pipes hold.
    pub(super) held_bytes: AtomicU64,
}

impl Pool {
    /// Bytes that its pipes may still take in, where so many of `replay.total_bytes_max` are `free`.
    pub(super) fn room(&self, free: u64, several: bool) -> u64 {
        if several { free.min((free * FREE_TIMES).saturating_sub(self.held_bytes.load(Relaxed))) } else { free }
    }
}

/// The pools that have pipes, by name.
#[derive(Debug, Default)]
pub(super) struct Pools(BTreeMap<Box<str>, Weak<Pool>>);

impl Pools {
    /// The books of the pool called `name`.
    pub fn get(&mut self, pipes: &Arc<Pipes>, name: &str) -> Arc<Pool> {
        if let Some(pool) = self.find(name) {
            return pool;
        }
        self.0.retain(|_, pool| pool.strong_count() > 0);
        let pool = Arc::new(Pool { pipes: pipes.clone(), held_bytes: AtomicU64::new(0) });
        self.0.insert(name.into(), Arc::downgrade(&pool));
        pool
    }

    /// The same, if it has pipes.
    pub fn find(&self, name: &str) -> Option<Arc<Pool>> {
        self.0.get(name)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pipes: &Arc<Pipes>, held: u64, free: u64, several: bool) -> u64 {
        let pool = Pool { pipes: pipes.clone(), held_bytes: AtomicU64::new(held) };
        pool.room(free, several)
    }

    #[test]
    fn one_pool_of_several_comes_to_four_fifths_and_leaves_the_others_their_part() {
        let pipes = Arc::new(Pipes::new(1000, 2));
        assert_eq!(filled(&pipes, 0, 1000, true), 1000);
        assert_eq!(filled(&pipes, 799, 201, true), 5);
        assert_eq!(filled(&pipes, 800, 200, true), 0, "four fifths");
        assert_eq!(filled(&pipes, 0, 200, true), 200, "another one has room");
        assert_eq!(filled(&pipes, 800, 200, false), 200, "the only one may have all");
        assert_eq!(filled(&pipes, 1000, 0, false), 0);
    }

    #[test]
    fn a_pool_is_forgotten_with_its_last_pipe() {
        let pipes = Arc::new(Pipes::new(1000, 2));
        let mut pools = Pools::default();
        let pool = pools.get(&pipes, "a");
        assert!(Arc::ptr_eq(&pool, &pools.get(&pipes, "a")));
        drop(pool);
        assert!(pools.find("a").is_none());
        let _other = pools.get(&pipes, "b");
        assert_eq!(pools.0.len(), 1);
    }
}
