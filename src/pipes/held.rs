//! What keeps a pipe from the worker that it wants, as others see it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::backends::Hold;

/// The reason that holds now, and those that the search has met.
#[derive(Debug, Default)]
pub struct Held {
    /// Nothing, or one more than the number of the reason.
    now: AtomicU8,
    /// A bit for each reason.
    met: AtomicU8,
}

impl Held {
    /// What keeps the pipe waiting.
    #[must_use]
    pub fn now(&self) -> Option<Hold> {
        by_number(self.now.load(Relaxed))
    }

    /// Notes what keeps it waiting; what did before, and whether this search had not met it yet.
    pub(crate) fn set(&self, reason: Hold) -> (Option<Hold>, bool) {
        let bit = 1 << reason as u8;
        let met = self.met.fetch_or(bit, Relaxed);
        (by_number(self.now.swap(reason as u8 + 1, Relaxed)), met & bit == 0)
    }

    /// Notes that nothing keeps it waiting; what did before.
    pub(crate) fn clear(&self) -> Option<Hold> {
        self.met.store(0, Relaxed);
        by_number(self.now.swap(0, Relaxed))
    }
}

fn by_number(number: u8) -> Option<Hold> {
    Hold::ALL.get(usize::from(number.checked_sub(1)?)).copied()
}
