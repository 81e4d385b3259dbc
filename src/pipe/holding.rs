//! What keeps a pipe from the worker that it wants, said where it belongs: the pipe's view, a gauge, an event.
//!
//! A reason stays until the pipe has a worker or wants none, so that the gauge counts pipes and not tries. Invariant: a
//! reason makes one event in one search, however often the search meets it.

use std::time::Duration;

use crate::backends::Hold;
use crate::events::Fact;
use crate::pipes::PipeEntry;
use crate::process::Process;

/// Notes that `reason` keeps `entry`'s pipe waiting; it is tried again in `retry` if nothing changes before.
pub fn hold(process: &Process, entry: &PipeEntry, reason: Hold, retry: Option<Duration>) {
    let (before, is_news) = entry.held.set(reason);
    if before != Some(reason) {
        let pool = process.metrics.pool(&entry.route.pool);
        pool.held(reason).inc();
        if let Some(before) = before {
            pool.held(before).dec();
        }
    }
    if is_news {
        tracing::info!(pipe = %entry.id, reason = reason.as_str(), "pipe.held");
        process.events.push(Fact::PipeHeld {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            pool: entry.route.pool.as_str().into(),
            reason: reason.as_str(),
            retry_ms: retry.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        });
    }
}

/// Notes that nothing keeps it waiting any more: it has a worker, or wants none.
pub fn release(process: &Process, entry: &PipeEntry) {
    if let Some(before) = entry.held.clear() {
        process.metrics.pool(&entry.route.pool).held(before).dec();
    }
}
