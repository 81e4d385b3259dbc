//! Every number Holdline exports, in a registry of its own (there is no global one).
//!
//! The data path never looks a label up per message: it takes a [`RouteMetrics`], a [`PoolMetrics`] and a
//! [`BackendMetrics`] when a pipe opens or attaches, and then only adds to counters. Label values come from closed
//! sets ([`labels`]) and from names in the configuration; the series of a backend go when the backend goes.
//! Gauges that count live things move by guards, so that whatever ends a thing also takes it out of the gauge.

mod dial_in;
mod families;
pub mod labels;
mod maker;
mod object;
mod pools;
pub mod process;
mod tap;
mod upgrades;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdline_core::memory::Evict;
use prometheus::core::Collector;
use prometheus::{Encoder, IntCounter, IntGauge, Registry, TextEncoder};

use crate::backends::{BackendEvent, WorkerReport};

pub use dial_in::{AttachResult, DialInMetrics, TakeResult};
pub use families::Families;
pub use labels::{BackendStateLabel, ConnectionResult, ListenerLabel, PipeState, ReattachResult, SpanResult};
use labels::{
    HookAttempt, HookResult, Http2End, ProxyHeader, ReloadResult, StreamKind, StreamResult, TlsResult, TlsVersionLabel,
};
pub use object::{AbsentGuard, BackendMetrics, GaugeGuard, LaneMetrics, PipeGauge, PoolMetrics, RouteMetrics};
pub use tap::TapResult;
pub use upgrades::{UpgradePipe, UpgradeResult};
pub use workers::GroupMetrics;

/// The label of handshakes that no route matched.
pub const NO_ROUTE: &str = "none";

/// The registry and the handles taken from it; share it by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    public: PublicConnections,
    handles: Mutex<Handles>,
    runtimes: Mutex<Vec<(String, tokio::runtime::Handle)>>,
}

/// What is counted of each client's connection: looked up once.
#[derive(Debug)]
struct PublicConnections {
    accepted: IntCounter,
    open: IntGauge,
}

#[derive(Debug, Default)]
struct Handles {
    // Few names, for which a tree is quicker than a hash.
    routes: BTreeMap<Arc<str>, Arc<RouteMetrics>>,
    pools: BTreeMap<Arc<str>, Arc<PoolMetrics>>,
    /// By pool, then by id, so that looking one up makes no key.
    backends: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<BackendMetrics>>>,
}

/// What the registry of backends knows of one backend, as it goes into gauges.
#[derive(Debug, Clone)]
pub struct BackendFacts {
    /// Name of its pool.
    pub pool: Arc<str>,
    /// Its id.
    pub backend: Arc<str>,
    /// Whether health checks see it.
    pub up: bool,
    /// Which of the facts of `backend_state` hold.
    pub states: Vec<BackendStateLabel>,
    /// Pipes attached to it.
    pub pipes: u64,
    /// What its worker says about itself.
    pub report: WorkerReport,
}

impl Metrics {
    /// A registry with all families at zero.
    ///
    /// # Panics
    /// Never: the names of the families are constants, and a test makes one of these.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families::new(&registry);
        families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // The configuration that the process started with counts as loaded.
        families.config_last_reload_successful.set(1);
        families.config_last_reload_success_timestamp_seconds.set(unix_seconds(SystemTime::now()));
        for result in ConnectionResult::ALL {
            let _at_zero = families.connections_total.with_label_values(&["public", result.as_str()]);
        }
        for result in ReloadResult::ALL {
            let _at_zero = families.tls_reloads_total.with_label_values(&[result.as_str()]);
        }
        for policy in Evict::ALL {
            let _at_zero = families.evictions_total.with_label_values(&[policy.as_str()]);
        }
        families.process_start_time_seconds.set(process::start_time_seconds());
        let listener = ListenerLabel::Public.as_str();
        let accepted = [listener, ConnectionResult::Accepted.as_str()];
        let public = PublicConnections {
            accepted: families.connections_total.with_label_values(&accepted),
            open: families.connections.with_label_values(&[listener]),
        };
        Self { handles: Mutex::default(), runtimes: Mutex::default(), public, families, registry }
    }

    /// The families themselves, for what is counted once per connection or less.
    #[must_use]
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// The numbers of the route `name`, the same ones each time.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut handles = self.handles();
        if let Some(known) = handles.routes.get(name) {
            return Arc::clone(known);
        }
        let made = Arc::new(RouteMetrics::new(&self.families, name));
        handles.routes.insert(name.into(), Arc::clone(&made));
        made
    }

    /// The numbers of the pool `name`, the same ones each time.
    #[must_use]
    pub fn pool(&self, name: &str) -> Arc<PoolMetrics> {
        let mut handles = self.handles();
        if let Some(known) = handles.pools.get(name) {
            return Arc::clone(known);
        }
        let made = Arc::new(PoolMetrics::new(&self.families, name));
        handles.pools.insert(name.into(), Arc::clone(&made));
        made
    }

    /// The numbers of a backend, the same ones each time while it is registered or a pipe holds them.
    #[must_use]
    pub fn backend(&self, pool: &str, backend: &str) -> Arc<BackendMetrics> {
        let mut handles = self.handles();
        if let Some(known) = handles.backends.get(pool).and_then(|pool| pool.get(backend)) {
            return Arc::clone(known);
        }
        let made = Arc::new(BackendMetrics::new(&self.families, pool, backend));
        handles.backends.entry(pool.into()).or_default().insert(backend.into(), Arc::clone(&made));
        made
    }

    /// The numbers of the group of workers `name`.
    #[must_use]
    pub fn group(&self, name: &str) -> GroupMetrics {
        GroupMetrics::new(&self.families, name)
    }

    /// Forgets the series of a group of workers that is gone.
    pub fn forget_group(&self, name: &str) {
        self.families.forget_group(name);
    }

    /// The count of ended spans of which this became.
    #[must_use]
    pub fn spans(&self, result: SpanResult) -> IntCounter {
        self.families.trace_spans_total.with_label_values(&[result.as_str()])
    }

    /// The count of events for the hooks of which this became.
    #[must_use]
    pub fn hook_events(&self, result: HookResult) -> IntCounter {
        self.families.hook_events_total.with_label_values(&[result.as_str()])
    }

    /// The count of requests to the hooks of which this came.
    #[must_use]
    pub fn hook_attempts(&self, attempt: HookAttempt) -> IntCounter {
        self.families.hook_attempts_total.with_label_values(&[attempt.as_str()])
    }

    /// Counts what a backend event says.
    pub fn backend_event(&self, event: &BackendEvent) {
        match event {
            BackendEvent::Ejected { pool, reason, .. } => self.pool(pool).ejected(*reason).inc(),
            BackendEvent::LeaseExpired { pool, .. } => self.pool(pool).leases_expired.inc(),
            BackendEvent::Registered { .. }
            | BackendEvent::Replaced { .. }
            | BackendEvent::Removed { .. }
            | BackendEvent::Up { .. }
            | BackendEvent::Down { .. }
            | BackendEvent::Readmitted { .. }
            | BackendEvent::StateChanged { .. }
            | BackendEvent::Draining { .. }
            | BackendEvent::Drained { .. }
            | BackendEvent::LeaseRevived { .. }
            | BackendEvent::SelfPreservation { .. }
            | BackendEvent::PoolShort { .. }
            | BackendEvent::PoolEnough { .. } => {}
        }
    }

    /// Sets the gauges of these backends and forgets the series of all others that no pipe holds any more.
    pub fn sync_backends(&self, facts: &[BackendFacts]) {
        for fact in facts {
            self.backend(&fact.pool, &fact.backend).set(&self.families, fact);
        }
        let known = |pool: &str, backend: &str| facts.iter().any(|f| &*f.pool == pool && &*f.backend == backend);
        self.handles().backends.retain(|pool, backends| {
            backends.retain(|backend, handle| {
                let keep = known(pool, backend) || Arc::strong_count(handle) > 1;
                if !keep {
                    handle.forget(&self.families);
                }
                keep
            });
            !backends.is_empty()
        });
    }

    /// Makes the series of these routes, at zero at first, and forgets those of routes and pools that are not in these
    /// lists and that no pipe holds any more.
    pub fn sync_config(&self, routes: &[&str], pools: &[&str]) {
        routes.iter().for_each(|name| drop(self.route(name)));
        let mut handles = self.handles();
        handles.routes.retain(|name, handle| {
            let keep = routes.contains(&&**name) || Arc::strong_count(handle) > 1 || &**name == NO_ROUTE;
            if !keep {
                self.families.forget_label("route", name);
            }
            keep
        });
        handles.pools.retain(|name, handle| {
            let keep = pools.contains(&&**name) || Arc::strong_count(handle) > 1;
            if !keep {
                self.families.forget_label("pool", name);
            }
            keep
        });
    }

    /// Writes to the log what there was in all: the last word of a process.
    pub fn log_totals(&self, pipes: u64) {
        let (routes, pools) = (self.routes(), self.pools());
        let of_routes = |count: fn(&RouteMetrics) -> u64| routes.iter().map(|(_, route)| count(route)).sum::<u64>();
        let of_pools = |count: fn(&PoolMetrics) -> u64| pools.iter().map(|(_, pool)| count(pool)).sum::<u64>();
        tracing::info!(
            pipes,
            interruptions = of_pools(PoolMetrics::interruptions_total),
            reattached = of_pools(|pool| pool.reattach(ReattachResult::Attached).get()),
            messages_up = of_routes(|route| route.up.messages.get()),
            messages_down = of_routes(|route| route.down.messages.get()),
            lost = of_routes(|route| route.up.lost_total() + route.down.lost_total()),
            limited = of_routes(RouteMetrics::limited_total),
            evicted = self.evictions_total(),
            "totals"
        );
    }

    /// Every route that has numbers, sorted by name.
    #[must_use]
    pub fn routes(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        let handles = self.handles();
        let mut routes: Vec<_> = handles.routes.iter().map(|(name, r)| (Arc::clone(name), Arc::clone(r))).collect();
        routes.sort_by(|a, b| a.0.cmp(&b.0));
        routes
    }

    /// Every pool that has numbers, sorted by name.
    #[must_use]
    pub fn pools(&self) -> Vec<(Arc<str>, Arc<PoolMetrics>)> {
        let handles = self.handles();
        let mut pools: Vec<_> = handles.pools.iter().map(|(name, p)| (Arc::clone(name), Arc::clone(p))).collect();
        pools.sort_by(|a, b| a.0.cmp(&b.0));
        pools
    }

    /// Counts an accepted connection, and keeps it in the gauge until the guard goes.
    #[must_use]
    pub fn connection(&self, listener: ListenerLabel) -> GaugeGuard {
        if listener == ListenerLabel::Public {
            self.public.accepted.inc();
            return GaugeGuard::new(self.public.open.clone());
        }
        self.connection_result(listener, ConnectionResult::Accepted);
        GaugeGuard::new(self.families.connections.with_label_values(&[listener.as_str()]))
    }

    /// Keeps a connection in the gauge that was counted before, until the guard goes.
    #[must_use]
    pub fn kept_connection(&self, listener: ListenerLabel) -> GaugeGuard {
        GaugeGuard::new(self.families.connections.with_label_values(&[listener.as_str()]))
    }

    /// Counts a connection that speaks HTTP/2, until the guard goes.
    #[must_use]
    pub fn http2_connection(&self) -> GaugeGuard {
        GaugeGuard::new(self.families.http2_connections.clone())
    }

    /// Counts why a connection that spoke HTTP/2 has ended.
    pub fn http2_ended(&self, end: Http2End) {
        self.families.http2_connection_ends_total.with_label_values(&[end.as_str()]).inc();
    }

    /// Counts a stream of HTTP/2, until the guard goes.
    #[must_use]
    pub fn http2_stream(&self, kind: StreamKind) -> GaugeGuard {
        GaugeGuard::new(self.families.http2_streams.with_label_values(&[kind.as_str()]))
    }

    /// Counts what became of the request on a stream of HTTP/2.
    pub fn http2_stream_result(&self, result: StreamResult) {
        self.families.http2_streams_total.with_label_values(&[result.as_str()]).inc();
    }

    /// Takes the connection of a client that is awaited out of the gauge, until the value returned goes.
    #[must_use]
    pub fn absent(&self, listener: ListenerLabel) -> AbsentGuard {
        AbsentGuard::new(self.families.connections.with_label_values(&[listener.as_str()]))
    }

    /// Counts what became of a connection; [`Metrics::connection`] counts the accepted ones itself.
    pub fn connection_result(&self, listener: ListenerLabel, result: ConnectionResult) {
        self.families.connections_total.with_label_values(&[listener.as_str(), result.as_str()]).inc();
    }

    /// Counts a TLS handshake, of which this became within `took`.
    pub fn tls_handshake(&self, listener: ListenerLabel, result: TlsResult, version: TlsVersionLabel, took: Duration) {
        let labels = [listener.as_str(), result.as_str(), version.as_str()];
        self.families.tls_handshakes_total.with_label_values(&labels).inc();
        let seconds = self.families.tls_handshake_duration_seconds.with_label_values(&[listener.as_str()]);
        seconds.observe(took.as_secs_f64());
    }

    /// Counts a connection on which a PROXY header was looked for.
    pub fn proxy_header(&self, listener: ListenerLabel, result: ProxyHeader) {
        self.families.proxy_headers_total.with_label_values(&[listener.as_str(), result.as_str()]).inc();
    }

    /// Counts changed files of certificates, of which this became.
    pub fn tls_reload(&self, result: ReloadResult) {
        self.families.tls_reloads_total.with_label_values(&[result.as_str()]).inc();
    }

    /// Tells when the certificates in force end, by the names of their listeners and their own, and of no others.
    pub fn sync_certificates(&self, ends: &[(&'static str, String, SystemTime)]) {
        let family = &self.families.tls_certificate_not_after_timestamp_seconds;
        family.reset();
        for (listener, name, end) in ends {
            family.with_label_values(&[*listener, name.as_str()]).set(unix_seconds(*end));
        }
    }

    /// Says when the configuration in force was taken.
    pub fn set_reloaded(&self, at: SystemTime) {
        self.families.config_last_reload_success_timestamp_seconds.set(unix_seconds(at));
    }

    /// Counts a pipe that was ended because memory was out.
    pub fn evicted(&self, policy: Evict) {
        self.families.evictions_total.with_label_values(&[policy.as_str()]).inc();
    }

    /// Pipes that were ended because memory was out.
    #[must_use]
    pub fn evictions_total(&self) -> u64 {
        Evict::ALL.iter().map(|policy| self.families.evictions_total.with_label_values(&[policy.as_str()]).get()).sum()
    }

    /// Exports the task count of a runtime under `name`, which no other has.
    pub fn watch_runtime(&self, name: String, handle: tokio::runtime::Handle) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).push((name, handle));
    }

    /// The Prometheus text of everything, with the process's own numbers read now.
    #[must_use]
    pub fn render(&self) -> String {
        self.refresh_process();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8(text).unwrap_or_default()
    }

    /// Reads the process's own numbers into their gauges.
    pub fn refresh_process(&self) {
        let families = &self.families;
        let usage = process::Usage::read();
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        families.process_resident_memory_bytes.set(gauge(usage.rss_bytes));
        families.process_virtual_memory_bytes.set(gauge(usage.virtual_bytes));
        families.process_open_fds.set(gauge(usage.open_fds));
        families.process_max_fds.set(gauge(usage.max_fds));
        families.process_threads.set(gauge(usage.threads));
        let counted = families.process_cpu_seconds_total.get();
        families.process_cpu_seconds_total.inc_by((usage.cpu_seconds - counted).max(0.0));
        families.memory_bytes.with_label_values(&["rss"]).set(gauge(usage.rss_bytes));
        if let Some(bytes) = process::SocketFiles::find().bytes() {
            families.memory_bytes.with_label_values(&["kernel"]).set(gauge(bytes));
        }
        families.log_dropped_total.inc_by(crate::log::take_dropped());
        self.refresh_runtimes();
    }

    fn refresh_runtimes(&self) {
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, handle) in runtimes.iter() {
            let tasks = i64::try_from(handle.metrics().num_alive_tasks()).unwrap_or(i64::MAX);
            self.families.runtime_tasks.with_label_values(&[name.as_str()]).set(tasks);
        }
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn unix_seconds(at: SystemTime) -> i64 {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let family = made.expect("names and labels of families are valid constants");
    registry.register(Box::new(family.clone())).expect("each family is registered once");
    family
}

#[cfg(test)]
mod tests;
