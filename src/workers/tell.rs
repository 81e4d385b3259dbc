//! How what happens to workers reads in the log.

use crate::events::Fact;

/// Writes a fact about a worker to the log; what needs an operator is a warning.
pub(super) fn log(fact: &Fact) {
    match fact {
        Fact::WorkerStarted { group, worker, pid, reason } => {
            tracing::info!(%group, %worker, pid, reason, "worker.started");
        }
        Fact::WorkerStartFailed { group, worker, error } => {
            tracing::warn!(%group, %worker, error, "worker.start_failed");
        }
        Fact::WorkerReady { group, worker, took_ms } => tracing::info!(%group, %worker, took_ms, "worker.ready"),
        Fact::WorkerNotReady { group, worker, after_ms } => {
            tracing::warn!(%group, %worker, after_ms, "worker.not_ready");
        }
        Fact::WorkerRecycled { group, worker, reason } => tracing::info!(%group, %worker, reason, "worker.recycled"),
        Fact::WorkerKilled { group, worker } => tracing::warn!(%group, %worker, "worker.killed"),
        Fact::WorkerExited { group, worker, status, expected: true } => {
            tracing::info!(%group, %worker, status, expected = true, "worker.exited");
        }
        Fact::WorkerExited { group, worker, status, expected: false } => {
            tracing::warn!(%group, %worker, status, expected = false, "worker.exited");
        }
        Fact::WorkerCrashLoop { group, worker, failures, wait_ms } => {
            tracing::warn!(%group, %worker, failures, wait_ms, "worker.crash_loop");
        }
        // The supervisor tells of nothing else.
        _ => {}
    }
}
