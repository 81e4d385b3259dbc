//! Whether a pool has as many eligible backends as its operator wants (`pools.min_backends`).
//!
//! ```text
//! Unfilled ──enough──▶ Enough ◀──enough── Short
//!                        └────too few──────▲
//! ```
//!
//! A pool whose workers have not come yet is no news: only one that had enough turns short.

use super::facts::BackendEvent;
use super::registry::{Effects, PoolEntry, Registry};
use holdline_core::pool::Backend;
use std::sync::Arc;

/// How a pool stands to `pools.min_backends`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Shortage {
    /// It never had enough.
    #[default]
    Unfilled,
    /// It has.
    Enough,
    /// It had, and has fewer.
    Short,
}

impl Registry {
    /// Says which pools have turned short of backends, and which have enough again.
    pub(super) fn judge_pools(&mut self, fx: &mut Effects) {
        fx.events.extend(self.pools.iter_mut().filter_map(|(name, pool)| judge(name, pool)));
    }
}

fn judge(name: &Arc<str>, entry: &mut PoolEntry) -> Option<BackendEvent> {
    let (pool, min_backends) = (name.clone(), entry.min_backends);
    let eligible = entry.core.iter().filter(|backend| Backend::is_eligible(backend)).count();
    let has_enough = eligible >= min_backends as usize;
    let (shortage, news) = match (entry.shortage, has_enough) {
        (Shortage::Unfilled, false) => (Shortage::Unfilled, None),
        (Shortage::Unfilled | Shortage::Enough, true) => (Shortage::Enough, None),
        (Shortage::Enough, false) => (Shortage::Short, Some(BackendEvent::PoolShort { pool, eligible, min_backends })),
        (Shortage::Short, false) => (Shortage::Short, None),
        (Shortage::Short, true) => (Shortage::Enough, Some(BackendEvent::PoolEnough { pool, eligible, min_backends })),
    };
    entry.shortage = shortage;
    news
}
