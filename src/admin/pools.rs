//! `/v1/pools`: what the pools are made of and how full they are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdline_core::pipe::PipeState;
use holdline_core::settings::Balance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Id, Query};
use super::list::{self, List};
use super::problem::{Kind, Problem};
use super::system::Nothing;
use super::{Admin, condition, duration};
use crate::backends::{PoolView, ProbeKind, StateCounts};
use crate::pipes::PipeEntry;
use crate::rebalance::{MOVES_PER_SECOND, UnderWay};

/// A pool as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PoolBody {
    name: Arc<str>,
    balance: &'static str,
    health: PoolHealth,
    max_pipes_per_backend: u32,
    /// Eligible backends that it should have.
    min_backends: u32,
    backends: usize,
    /// Backends that may get a pipe.
    eligible: usize,
    /// Backends by their admin state, their health and their lease.
    states: States,
    /// Pipes attached to its backends, or being attached.
    pipes: u64,
    /// Pipes that wait for one of its backends.
    waiting: usize,
}

/// How its backends are probed, and how the results are judged.
#[derive(Debug, Serialize, JsonSchema)]
struct PoolHealth {
    #[serde(rename = "type")]
    kind: &'static str,
    path: Option<String>,
    interval: String,
    timeout: String,
    fall: u32,
    rise: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct States {
    admin: AdminStates,
    health: HealthStates,
    lease: LeaseStates,
}

#[derive(Debug, Serialize, JsonSchema)]
struct AdminStates {
    ready: usize,
    drain: usize,
    maint: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HealthStates {
    up: usize,
    down: usize,
    ejected: usize,
    unknown: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LeaseStates {
    none: usize,
    live: usize,
    expired: usize,
}

impl From<StateCounts> for States {
    fn from(counts: StateCounts) -> Self {
        let StateCounts { ready, drain, maint, up, down, ejected, unknown, no_lease, lease_live, lease_expired } =
            counts;
        Self {
            admin: AdminStates { ready, drain, maint },
            health: HealthStates { up, down, ejected, unknown },
            lease: LeaseStates { none: no_lease, live: lease_live, expired: lease_expired },
        }
    }
}

const fn balance_name(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastPipes => "least_pipes",
        Balance::RoundRobin => "round_robin",
        Balance::Random2 => "random2",
        Balance::Hash => "hash",
    }
}

impl PoolBody {
    fn new(view: PoolView, pipes: &[Arc<PipeEntry>]) -> Self {
        let (kind, path) = match view.probes.kind {
            ProbeKind::Tcp => ("tcp", None),
            ProbeKind::Http(path) => ("http", Some(path)),
            ProbeKind::Ws(path) => ("ws", Some(path)),
        };
        let waits = |pipe: &&Arc<PipeEntry>| pipe.route.pool == *view.name && pipe.state() == PipeState::Detached;
        Self {
            waiting: pipes.iter().filter(waits).count(),
            name: view.name,
            balance: balance_name(view.balance),
            health: PoolHealth {
                kind,
                path,
                interval: duration::show(view.probes.interval),
                timeout: duration::show(view.probes.timeout),
                fall: view.health.fall,
                rise: view.health.rise,
            },
            max_pipes_per_backend: view.max_pipes_per_backend,
            min_backends: view.min_backends,
            backends: view.backends,
            eligible: view.eligible,
            states: view.states.into(),
            pipes: view.pipes,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    cursor: Option<String>,
    index: Option<u64>,
    #[schemars(regex(pattern = duration::PATTERN))]
    wait: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(ask): Query<Ask>,
) -> Result<Response, Problem> {
    let limit = list::limit(ask.limit)?;
    let index = condition::index(&admin, admin.process.backends.index(), ask.index, ask.wait.as_deref()).await?;
    let pipes = admin.process.pipes.list();
    let pools: Vec<PoolBody> =
        admin.process.backends.pools().into_iter().map(|view| PoolBody::new(view, &pipes)).collect();
    let page = List::page(pools, |pool| pool.name.to_string(), ask.cursor.as_deref(), limit);
    Ok(admin.tags.list(&headers, index, page))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(name): Id,
) -> Result<Response, Problem> {
    let index = *admin.process.backends.index().borrow();
    let view = find(&admin, &name)?;
    Ok(admin.tags.answer(&headers, index, StatusCode::OK, PoolBody::new(view, &admin.process.pipes.list())))
}

/// How many pipes were found to be too many where they are, and how fast they are told.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Moves {
    /// Pipes that will be told to move; each goes as soon as another backend takes it.
    moves: usize,
    per_second: u32,
}

pub(super) async fn rebalance(
    State(admin): State<Arc<Admin>>,
    Id(name): Id,
    _: Body<Nothing>,
) -> Result<(StatusCode, Json<Moves>), Problem> {
    let pool = find(&admin, &name)?;
    if pool.balance == Balance::Hash {
        return Err(Problem::new(Kind::Conflict, "in this pool the key decides where a pipe is, not the load"));
    }
    let surplus = admin.process.backends.surplus(&name).unwrap_or_default();
    let moves = admin
        .rebalances
        .start(&pool.name, &surplus, &admin.process.pipes.list())
        .map_err(|UnderWay| Problem::new(Kind::Conflict, "a rebalancing of this pool is under way already"))?;
    let status = if moves == 0 { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Moves { moves, per_second: MOVES_PER_SECOND })))
}

fn find(admin: &Admin, name: &str) -> Result<PoolView, Problem> {
    let pools = admin.process.backends.pools();
    pools.into_iter().find(|pool| *pool.name == *name).ok_or_else(|| Problem::no_such("pool", name))
}
