//! Messages that came before those in front of them, and wait for them: how many, and how much, may at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The waiting messages of one session.
#[derive(Clone, Debug)]
pub struct Early {
    posts_max: usize,
    bytes_max: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    posts: usize,
    bytes: usize,
}

/// One request that waits, until it is dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Arc<Mutex<Waiting>>,
    bytes: usize,
}

impl Early {
    /// Nothing waits, and no more than these may.
    #[must_use]
    pub fn new(posts_max: usize, bytes_max: usize) -> Self {
        Self { posts_max, bytes_max, waiting: Arc::default() }
    }

    /// A place for one more request of so many bytes, if there is one.
    #[must_use]
    pub fn wait(&self, bytes: usize) -> Option<Place> {
        let mut waiting = lock(&self.waiting);
        let has_room = waiting.posts < self.posts_max && waiting.bytes.saturating_add(bytes) <= self.bytes_max;
        has_room.then(|| {
            waiting.posts += 1;
            waiting.bytes += bytes;
            Place { waiting: self.waiting.clone(), bytes }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        waiting.posts -= 1;
        waiting.bytes -= self.bytes;
    }
}

/// A lock whose holder panicked still guards whole numbers.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let early = Early::new(2, 100);
        let one = early.wait(60);
        assert!(one.is_some() && early.wait(41).is_none());
        let two = early.wait(40);
        assert!(two.is_some() && early.wait(0).is_none());
        drop((one, two));
        assert!(early.wait(100).is_some());
    }
}
