//! The numbers of one lane of a pipe, as others see them: published after each turn of its task, read by any thread.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use holdline_core::leg::barrier::Level;
use holdline_core::pipe::LaneView;

/// One lane's numbers, in messages and bytes.
#[derive(Debug, Default)]
pub struct LaneNumbers {
    /// Last message that came in whole.
    pub accepted: AtomicU64,
    /// Last message handed on whole.
    pub sent: AtomicU64,
    /// Last message confirmed.
    pub confirmed: AtomicU64,
    /// Bytes of the messages held.
    pub buffered_bytes: AtomicU64,
    /// Messages that were in doubt in all interruptions together.
    pub in_doubt: AtomicU64,
    /// Messages given up.
    pub lost: AtomicU64,
    /// Messages that made way for newer ones.
    pub dropped: AtomicU64,
    /// How sure a confirmation is: the place in [`Level::ALL`].
    level: AtomicU8,
}

impl LaneNumbers {
    pub(super) fn publish(&self, view: &LaneView) {
        self.accepted.store(view.accepted.0, Relaxed);
        self.sent.store(view.sent.0, Relaxed);
        self.confirmed.store(view.confirmed.0, Relaxed);
        self.buffered_bytes.store(view.buffered_bytes as u64, Relaxed);
        self.in_doubt.store(view.in_doubt, Relaxed);
        self.lost.store(view.lost, Relaxed);
        self.dropped.store(view.dropped, Relaxed);
        self.level.store(view.level as u8, Relaxed);
    }

    /// How sure a confirmation on this lane is: `written`, `pong` or `app`.
    #[must_use]
    pub fn level(&self) -> &'static str {
        Level::ALL.get(usize::from(self.level.load(Relaxed))).copied().unwrap_or(Level::Written).as_str()
    }
}
