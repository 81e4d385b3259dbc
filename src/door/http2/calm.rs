//! How many requests a client may take back before they are answered: each may have had a worker dialled for it.
//!
//! A bucket: a page that is left takes back all that it has asked for at once, and comes again a while later. Invariant:
//! what was answered costs nothing here.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Requests that may be taken back at once: twice the streams of a connection.
const TAKEN_BACK_MAX: u32 = 200;

/// From one more that may be to the next.
const FORGIVEN_EVERY: Duration = Duration::from_millis(50);

/// The bucket of one connection.
#[derive(Debug)]
pub(super) struct Calm {
    bucket: Mutex<Bucket>,
    lost: Notify,
}

#[derive(Debug)]
struct Bucket {
    taken_back: u32,
    /// Up to when it was forgiven.
    since: Instant,
}

impl Calm {
    pub(super) fn new() -> Self {
        Self { bucket: Mutex::new(Bucket { taken_back: 0, since: Instant::now() }), lost: Notify::new() }
    }

    /// A request was taken back.
    pub(super) fn taken_back(&self, now: Instant) {
        // A lock whose holder panicked still guards whole numbers.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if !bucket.take(now) {
            self.lost.notify_one();
        }
    }

    /// Waits until the client has taken back one too many.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Bucket {
    /// Whether one more may be taken back.
    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let forgiven = u32::try_from(elapsed.as_millis() / FORGIVEN_EVERY.as_millis()).unwrap_or(u32::MAX);
        if forgiven >= self.taken_back {
            (self.taken_back, self.since) = (0, now);
        } else {
            self.taken_back -= forgiven;
            self.since += FORGIVEN_EVERY * forgiven;
        }
        self.taken_back += 1;
        self.taken_back <= TAKEN_BACK_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_left_is_forgiven_and_a_flood_is_not() {
        let start = Instant::now();
        let mut bucket = Bucket { taken_back: 0, since: start };
        let mut times = |count: u32, now| (0..count).all(|_| bucket.take(now));
        assert!(times(TAKEN_BACK_MAX, start));
        assert!(!times(1, start));
        assert!(times(9, start + 10 * FORGIVEN_EVERY));
        assert!(!times(1, start + 10 * FORGIVEN_EVERY));
        assert!(times(TAKEN_BACK_MAX, start + 1000 * FORGIVEN_EVERY));
    }
}
