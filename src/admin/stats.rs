//! `/metrics` and `/stats`: the same numbers, once for Prometheus and once for people and scripts.
//!
//! Neither counts by itself. What the registries know (pipes, backends, limits) is put into the gauges right before
//! they are read, so that both answers agree with each other and with the lists of the API.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use holdline_core::health::Health;
use holdline_core::ids::BackendKey;
use holdline_core::lease::LeaseState;
use holdline_core::pool::AdminState;
use schemars::JsonSchema;
use serde::Serialize;

use super::health::{self, tenths};
use super::problem::{Kind, Problem};
use super::streams::{self, SharedStreams};
use super::{Admin, time};
use crate::backends::BackendView;
use crate::metrics::process::Usage;
use crate::metrics::{
    BackendFacts, BackendStateLabel, LaneMetrics, PipeState, PoolMetrics, ReattachResult, RouteMetrics,
};
use crate::pipe::read_buffers_bytes;
use crate::pipes::{KeyPast, PipeEntry};

/// Route keys listed in `keys` and in `connections.by_key`, where those with the most pipes win.
const KEYS_MAX: usize = 1000;

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let of = admin.clone();
    let render = move || {
        refresh(&of, &of.process.pipes.list());
        of.process.metrics.render()
    };
    let text = admin.scrape.get(render).await.ok_or_else(|| Problem::new(Kind::Broken, "metrics were not rendered"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Puts what the registries know into the gauges.
fn refresh(admin: &Admin, pipes: &[Arc<PipeEntry>]) {
    let families = admin.process.metrics.families();
    let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    families.replay_buffer_limit_bytes.set(gauge(admin.process.pipes.held_bytes_max()));
    let up = gauge(pipes.iter().map(|pipe| pipe.up.buffered_bytes.load(Relaxed)).sum());
    let down = gauge(pipes.iter().map(|pipe| pipe.down.buffered_bytes.load(Relaxed)).sum());
    families.replay_buffer_bytes.with_label_values(&["up"]).set(up);
    families.replay_buffer_bytes.with_label_values(&["down"]).set(down);
    for (name, pool) in admin.process.metrics.pools() {
        pool.held_bytes.set(gauge(admin.process.pipes.pool_held_bytes(&name)));
    }
    families.memory_bytes.with_label_values(&["replay"]).set(gauge(admin.process.pipes.held_bytes()));
    families.memory_bytes.with_label_values(&["buffers"]).set(gauge(read_buffers_bytes()));
    families.memory_bytes.with_label_values(&["pipes"]).set(gauge(pipes.iter().map(|pipe| memory_bytes(pipe)).sum()));
    let (entries, bytes) = admin.process.limits.size();
    families.rate_limit_entries.set(gauge(entries as u64));
    let (keys, keys_bytes) = admin.process.pipes.keys.size();
    families.key_statistics_entries.set(gauge(keys as u64));
    families.memory_bytes.with_label_values(&["keys"]).set(gauge(keys_bytes as u64));
    families.memory_bytes.with_label_values(&["limits"]).set(gauge(bytes as u64));
    let shared = admin.process.streams.list().iter().map(|hub| hub.view().held_bytes as u64).sum();
    families.memory_bytes.with_label_values(&["shared"]).set(gauge(shared));
    families.memory_bytes.with_label_values(&["requests"]).set(gauge(admin.process.memory.requests_bytes()));
    families.memory_bytes.with_label_values(&["backends"]).set(gauge(admin.process.backends.held_bytes() as u64));
    families.memory_limit_bytes.set(gauge(admin.process.memory.look().limit));
    let backends: Vec<BackendFacts> = admin.process.backends.list().iter().map(facts).collect();
    admin.process.metrics.sync_backends(&backends);
    for pool in admin.process.backends.pools() {
        let counts = [pool.eligible, pool.states.up, pool.states.drain];
        admin.process.metrics.set_pool(&pool.name, counts, pool.min_backends);
    }
    admin.process.metrics.set_ready(health::is_ready(admin));
    let config = admin.process.config.load();
    let routes: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    admin.process.metrics.sync_config(&routes, &pools);
}

fn memory_bytes(pipe: &PipeEntry) -> u64 {
    pipe.memory_bytes.load(Relaxed)
}

fn facts(view: &BackendView) -> BackendFacts {
    let mut states = vec![match view.admin {
        AdminState::Ready => BackendStateLabel::Ready,
        AdminState::Drain => BackendStateLabel::Drain,
        AdminState::Maint => BackendStateLabel::Maint,
    }];
    if view.health == Health::Ejected {
        states.push(BackendStateLabel::Ejected);
    }
    if view.lease == LeaseState::Expired {
        states.push(BackendStateLabel::Expired);
    }
    BackendFacts {
        pool: Arc::clone(&view.spec.pool),
        backend: Arc::clone(&view.id),
        up: view.health == Health::Up,
        states,
        pipes: u64::from(view.pipes),
        report: view.report.unwrap_or_default(),
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Stats {
    /// Sessions that have a pipe: route keys, and pipes without one.
    total_sessions: usize,
    /// Pipes, the viewers of shared streams among them.
    total_connections: usize,
    /// The route keys whose last pipes were opened last.
    keys: BTreeMap<Arc<str>, KeyBody>,
    connections: Connections,
    pipes: BTreeMap<&'static str, i64>,
    rate_limit_buckets: i64,
    rate_limits: RateLimits,
    memory: Memory,
    services: Vec<Service>,
    shared_streams: SharedStreams,
    counters: Counters,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Connections {
    public: i64,
    admin: i64,
    by_route: BTreeMap<Arc<str>, i64>,
    by_key: BTreeMap<String, usize>,
}

/// What there is and was of one route key.
#[derive(Debug, Serialize, JsonSchema)]
struct KeyBody {
    /// Pipes that there ever were.
    total: u64,
    /// Pipes now.
    active: usize,
    /// Pipes that there ever were, by route.
    by_route: BTreeMap<String, u64>,
    first_connection_at: String,
    last_connection_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RateLimits {
    /// Keys and addresses that something is known of.
    buckets: i64,
    /// Connections, requests and pipes that met a limit.
    limited_total: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Memory {
    /// What pipes and plain requests take.
    total_bytes: u64,
    per_pipe_average_bytes: u64,
    /// What plain requests that are being answered take.
    requests_bytes: u64,
    replay_bytes: u64,
    by_route: BTreeMap<String, u64>,
    rss_bytes: u64,
    /// Address space.
    vms_mb: f64,
    /// What is left up to the limit; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    available_mb: Option<f64>,
    /// Resident memory, less what the allocator has kept of what pipes gave back.
    used_bytes: u64,
    limit_bytes: u64,
    percent: f64,
    pressure: &'static str,
    evictions_total: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Service {
    backend: Arc<str>,
    pool: Arc<str>,
    eligible: bool,
    /// Pipes that are served by it, the viewers of shared streams among them.
    clients: usize,
    /// Connections to it.
    connections: u32,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct Counters {
    pipes_total: u64,
    interruptions_total: u64,
    /// Of those, the ones that were wanted: drains, moves, rebalancing.
    planned_interruptions_total: u64,
    reattached_total: u64,
    connect_failures_total: u64,
    up: Lane,
    down: Lane,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct Lane {
    messages_total: u64,
    message_bytes_total: u64,
    replayed_messages_total: u64,
    in_doubt_messages_total: u64,
    lost_messages_total: u64,
    dropped_messages_total: u64,
    read_paused_total: u64,
}

impl Lane {
    fn add(&mut self, lane: &LaneMetrics) {
        self.messages_total += lane.messages.get();
        self.message_bytes_total += lane.bytes.get();
        self.replayed_messages_total += lane.replayed.get();
        self.in_doubt_messages_total += lane.in_doubt.get();
        self.lost_messages_total += lane.lost_total();
        self.dropped_messages_total += lane.dropped_total();
        self.read_paused_total += lane.read_paused.get();
    }
}

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Json<Stats> {
    let pipes = admin.process.pipes.list();
    refresh(&admin, &pipes);
    let routes = admin.process.metrics.routes();
    let families = admin.process.metrics.families();
    let backends = admin.process.backends.list();
    Json(Stats {
        total_sessions: sessions(&pipes),
        total_connections: clients(&pipes).count(),
        keys: keys(&admin, &pipes),
        connections: Connections {
            public: families.connections.with_label_values(&["public"]).get(),
            admin: families.connections.with_label_values(&["admin"]).get(),
            by_route: routes.iter().map(|(name, route)| (Arc::clone(name), live(route))).collect(),
            by_key: by_key(&pipes),
        },
        pipes: PipeState::ALL
            .map(|state| (state.as_str(), routes.iter().map(|(_, route)| route.pipes(state)).sum()))
            .into(),
        rate_limit_buckets: families.rate_limit_entries.get(),
        rate_limits: RateLimits {
            buckets: families.rate_limit_entries.get(),
            limited_total: routes.iter().map(|(_, route)| route.limited_total()).sum(),
        },
        memory: memory(&admin, &pipes),
        counters: counters(&admin, &routes, &backends),
        services: services(backends, &pipes),
        shared_streams: streams::body(&admin),
    })
}

fn live(route: &RouteMetrics) -> i64 {
    PipeState::ALL.map(|state| route.pipes(state)).iter().sum()
}

/// The pipes that have a client of their own.
fn clients(pipes: &[Arc<PipeEntry>]) -> impl Iterator<Item = &Arc<PipeEntry>> {
    pipes.iter().filter(|pipe| !pipe.is_stream())
}

pub(super) fn sessions(pipes: &[Arc<PipeEntry>]) -> usize {
    active(pipes).len() + clients(pipes).filter(|pipe| pipe.key.is_none()).count()
}

/// Pipes of each key now.
fn active(pipes: &[Arc<PipeEntry>]) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for key in clients(pipes).filter_map(|pipe| pipe.key.as_deref()) {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn keys(admin: &Admin, pipes: &[Arc<PipeEntry>]) -> BTreeMap<Arc<str>, KeyBody> {
    let active = active(pipes);
    let body = |(key, past): (Arc<str>, KeyPast)| {
        let body = KeyBody {
            total: past.total,
            active: active.get(&*key).copied().unwrap_or_default(),
            by_route: past.by_route,
            first_connection_at: time(past.first),
            last_connection_at: time(past.last),
        };
        (key, body)
    };
    admin.process.pipes.keys.newest(KEYS_MAX).into_iter().map(body).collect()
}

fn by_key(pipes: &[Arc<PipeEntry>]) -> BTreeMap<String, usize> {
    let mut counts: Vec<_> = active(pipes).into_iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    counts.into_iter().take(KEYS_MAX).map(|(key, count)| (key.to_owned(), count)).collect()
}

fn memory(admin: &Admin, pipes: &[Arc<PipeEntry>]) -> Memory {
    let pipes_bytes: u64 = pipes.iter().map(|pipe| memory_bytes(pipe)).sum();
    let requests_bytes = admin.process.memory.requests_bytes();
    let reading = admin.process.memory.look();
    Memory {
        total_bytes: pipes_bytes + requests_bytes,
        requests_bytes,
        per_pipe_average_bytes: pipes_bytes.checked_div(pipes.len() as u64).unwrap_or(0),
        replay_bytes: admin.process.pipes.held_bytes(),
        by_route: memory_by_route(pipes),
        rss_bytes: reading.resident,
        vms_mb: mebibytes(Usage::read().virtual_bytes),
        available_mb: (reading.limit > 0).then(|| mebibytes(reading.limit.saturating_sub(reading.verdict.used))),
        used_bytes: reading.verdict.used,
        limit_bytes: reading.limit,
        percent: tenths(reading.percent()),
        pressure: reading.verdict.pressure.as_str(),
        evictions_total: admin.process.metrics.evictions_total(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people, rounded anyway")]
fn mebibytes(bytes: u64) -> f64 {
    tenths(bytes as f64 / 1_048_576.0)
}

fn memory_by_route(pipes: &[Arc<PipeEntry>]) -> BTreeMap<String, u64> {
    let mut routes = BTreeMap::new();
    for pipe in pipes {
        *routes.entry(pipe.route.name.clone()).or_default() += memory_bytes(pipe);
    }
    routes
}

fn services(backends: Vec<BackendView>, pipes: &[Arc<PipeEntry>]) -> Vec<Service> {
    let mut clients: HashMap<BackendKey, usize> = HashMap::new();
    for (key, _) in pipes.iter().filter(|pipe| !pipe.is_stream()).filter_map(|pipe| pipe.backend()) {
        *clients.entry(key).or_default() += 1;
    }
    let service = |view: BackendView| Service {
        clients: clients.get(&view.key).copied().unwrap_or_default(),
        backend: view.id,
        pool: view.spec.pool.clone(),
        eligible: view.eligible,
        connections: view.pipes,
    };
    backends.into_iter().map(service).collect()
}

type Named<T> = (Arc<str>, Arc<T>);

fn counters(admin: &Admin, routes: &[Named<RouteMetrics>], backends: &[BackendView]) -> Counters {
    let mut counters = Counters::default();
    for (_, route) in routes {
        counters.pipes_total += route.pipes_total.get();
        counters.up.add(&route.up);
        counters.down.add(&route.down);
    }
    let pools: Vec<Named<PoolMetrics>> = admin.process.metrics.pools();
    for (_, pool) in &pools {
        counters.interruptions_total += pool.interruptions_total();
        counters.planned_interruptions_total += pool.planned_interruptions_total();
        counters.reattached_total += pool.reattach(ReattachResult::Attached).get();
    }
    for view in backends {
        counters.connect_failures_total += admin.process.metrics.backend(&view.spec.pool, &view.id).connect_failures();
    }
    counters
}
