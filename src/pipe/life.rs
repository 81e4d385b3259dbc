//! What the hooks are told of a pipe.

use std::sync::atomic::Ordering::Relaxed;

use holdline_core::ids::Generation;
use holdline_core::pipe::EndedBy;

use crate::hooks::{Lane, Life};
use crate::pipes::{LaneNumbers, PipeEntry};

/// A client was let in, to this backend.
pub(super) fn opened(entry: &PipeEntry, backend: &str) -> Life {
    Life::Opened {
        pipe: entry.id,
        route: entry.route.name.clone(),
        pool: entry.route.pool.clone(),
        key: entry.key.clone(),
        client: entry.client(),
        backend: backend.to_owned(),
        protocol: entry.protocol.clone(),
        request: Some(entry.request_id.clone()).filter(|id| !id.is_empty()),
    }
}

/// The client was lost, and may come back.
pub(super) fn client_detached(entry: &PipeEntry, generation: Generation) -> Life {
    Life::ClientDetached {
        pipe: entry.id,
        route: entry.route.name.clone(),
        key: entry.key.clone(),
        client: entry.client(),
        generation: generation.0,
    }
}

/// The client is back after so long, or on another link that replaces one it still had.
pub(super) fn client_attached(entry: &PipeEntry, generation: Generation, replaced: bool, away_ms: u64) -> Life {
    Life::ClientAttached {
        pipe: entry.id,
        route: entry.route.name.clone(),
        key: entry.key.clone(),
        client: entry.client(),
        generation: generation.0,
        replaced,
        away_ms,
    }
}

/// The pipe is over: by whom, with which code and reason.
pub(super) fn ended(entry: &PipeEntry, (by, code, reason): (EndedBy, u16, &str), duration_ms: u64) -> Life {
    Life::Ended {
        pipe: entry.id,
        route: entry.route.name.clone(),
        key: entry.key.clone(),
        client: entry.client(),
        by: by.as_str(),
        code,
        reason: reason.into(),
        duration_ms,
        interruptions: entry.interruptions.load(Relaxed),
        up: lane(&entry.up),
        down: lane(&entry.down),
    }
}

fn lane(numbers: &LaneNumbers) -> Lane {
    Lane {
        accepted: numbers.accepted.load(Relaxed),
        lost: numbers.lost.load(Relaxed),
        in_doubt: numbers.in_doubt.load(Relaxed),
    }
}
