//! `/health`, `/health/live`, `/health/ready`: whether the process lives, and whether it should get new clients.
//!
//! Live is 200 as long as it answers at all. Ready is 503 while starting, draining or stopping, when memory is short,
//! and when no pool has an eligible backend; it is `degraded`, still 200, when only some pools have none, or fewer than
//! `pools.min_backends`. `/health` is the same answer under the name that people try first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use holdline_core::memory::Pressure;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Admin, stats};
use crate::backends::PoolView;
use crate::memory::Reading;
use crate::phase::Phase;

/// Where health is asked for: what is answered when nothing else can be.
pub(super) const PATHS: [&str; 5] = ["/health", "/health/live", "/livez", "/health/ready", "/readyz"];

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Health {
    status: Status,
    phase: Phase,
    version: &'static str,
    uptime_s: f64,
    memory: Memory,
    /// Of one core, over the last few seconds.
    cpu_percent: f64,
    pipes: usize,
    /// Sessions that have a pipe: route keys, and pipes without one.
    total_sessions: usize,
    /// Keys and addresses that limits are counted for.
    rate_limit_buckets: usize,
    backends: BackendCounts,
    /// Why it is not simply `ok`.
    reasons: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Unavailable,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Memory {
    rss_mb: f64,
    limit_mb: f64,
    percent: f64,
    /// `low`, `high` (no new pipes) or `full` (pipes are evicted).
    pressure: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BackendCounts {
    total: usize,
    eligible: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Live {
    status: &'static str,
}

pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// The same answer at `/health` and `/health/ready`.
pub(super) async fn health(State(admin): State<Arc<Admin>>) -> (StatusCode, Json<Health>) {
    let health = look(&admin);
    let status = match health.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

fn look(admin: &Admin) -> Health {
    let pools = admin.process.backends.pools();
    let reading = admin.process.memory.look();
    let Verdict { status, reasons } = judge(admin, &pools, &reading);
    Health {
        status,
        phase: admin.process.phase.get(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: tenths(admin.started.elapsed().as_secs_f64()),
        memory: memory(&reading),
        cpu_percent: tenths(admin.cpu_percent()),
        pipes: admin.process.pipes.len(),
        total_sessions: stats::sessions(&admin.process.pipes.list()),
        rate_limit_buckets: admin.process.limits.entries(),
        backends: BackendCounts {
            total: pools.iter().map(|pool| pool.backends).sum(),
            eligible: pools.iter().map(|pool| pool.eligible).sum(),
        },
        reasons,
    }
}

/// Whether new clients should come here.
pub(super) fn is_ready(admin: &Admin) -> bool {
    judge(admin, &admin.process.backends.pools(), &admin.process.memory.look()).status != Status::Unavailable
}

/// How it is, and why it is not simply `ok`.
struct Verdict {
    status: Status,
    reasons: Vec<String>,
}

fn judge(admin: &Admin, pools: &[PoolView], reading: &Reading) -> Verdict {
    let phase = admin.process.phase.get();
    let has_eligible = pools.iter().any(|pool| pool.eligible > 0);
    let mut reasons = Vec::new();
    if phase != Phase::Serving {
        reasons.push(phase.as_str().to_owned());
    }
    if reading.verdict.pressure > Pressure::Low {
        reasons.push("memory is short".to_owned());
    }
    if !has_eligible {
        reasons.push("no eligible backend".to_owned());
    }
    let is_available = reasons.is_empty();
    let is_short = |pool: &&PoolView| pool.eligible < pool.min_backends as usize;
    for pool in pools.iter().filter(|_| has_eligible).filter(is_short) {
        reasons.push(match pool.eligible {
            0 => format!("no eligible backend in pool {}", pool.name),
            few => format!("{few} of {} backends in pool {} are eligible", pool.min_backends, pool.name),
        });
    }
    let status = match (is_available, reasons.is_empty()) {
        (false, _) => Status::Unavailable,
        (true, false) => Status::Degraded,
        (true, true) => Status::Ok,
    };
    Verdict { status, reasons }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, rounded anyway")]
fn memory(reading: &Reading) -> Memory {
    Memory {
        rss_mb: tenths(reading.resident as f64 / MIB),
        limit_mb: tenths(reading.limit as f64 / MIB),
        percent: tenths(reading.percent()),
        pressure: reading.verdict.pressure.as_str(),
    }
}

pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
