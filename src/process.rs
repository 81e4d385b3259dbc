//! The services that the process has one of each, in one bag that every part of it is given.
//!
//! Owns no thread, no socket and no task. Invariant: a service is made once, here; a reload changes what is in force
//! inside it and never puts another in its place, so that all threads count, limit and choose by the same books.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::backends::{Backends, Setup};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::{Config, PoolsTls};
use crate::events::Events;
use crate::fallback::Sessions;
use crate::hooks::{self, HookSettings, Hooks};
use crate::http::Exchanges;
use crate::level::Level;
use crate::limits::{Limiter, Slots};
use crate::log::LogHandle;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::phase::PhaseCell;
use crate::pipes::Pipes;
use crate::resume::KeyRing;
use crate::rules::Rules;
use crate::secret::Secret;
use crate::share::Streams;
use crate::tls::in_force::TlsInForce;
use crate::tls::{Certificate, Sets};
use crate::tokens::Tokens;
use crate::trace::{Exporter, Tracer};
use crate::upgrade::Upgrade;
use crate::waiting::Waiting;
use crate::workers::{Surroundings, Workers};

/// The services of one process; share it by `Arc`.
#[derive(Debug)]
pub struct Process {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// What of it holds for everyone who connects. A pipe keeps its route, but dials by what holds.
    pub rules: ArcSwap<Rules>,
    /// Who may use the admin API; nothing where every caller may.
    pub tokens: ArcSwapOption<Tokens>,
    /// What signs the tokens of clients that come back.
    pub resume_keys: ArcSwap<KeyRing>,
    /// The level of the log.
    pub level: Arc<Level>,
    /// Where the process is in its life.
    pub phase: PhaseCell,
    /// The clock that every pipe's time comes from.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What has happened.
    pub events: Arc<Events>,
    /// Where spans begin.
    pub tracer: Tracer,
    /// Who is told of the life of pipes.
    pub hooks: Hooks,
    /// Where workers come from.
    pub backends: Backends,
    /// Those of them whose processes are run here.
    pub workers: Arc<Workers>,
    /// The live pipes.
    pub pipes: Arc<Pipes>,
    /// The streams that some of them share.
    pub streams: Arc<Streams>,
    /// Which client is on which pipe, by name.
    pub clients: Arc<Clients>,
    /// Those of the clients that are on no socket.
    pub sessions: Arc<Sessions>,
    /// How many clients may be connected.
    pub slots: Arc<Slots>,
    /// The requests that wait for a worker.
    pub waiting: Arc<Waiting>,
    /// Who may connect how often.
    pub limits: Arc<Limiter>,
    /// Whether there is memory for a new pipe.
    pub memory: Memory,
    /// The plain requests that are being answered.
    pub exchanges: Exchanges,
    /// What listeners that speak TLS show.
    pub tls: TlsInForce,
    /// Whether the pipes go to another process.
    pub upgrade: Upgrade,
}

/// A configuration, and what was made of the parts of it that can be wrong.
#[derive(Debug)]
pub struct Judged {
    /// The configuration.
    pub config: Config,
    /// Its rules.
    pub rules: Rules,
    /// The tokens of the file that it names, if it names one.
    pub tokens: Option<Tokens>,
    /// The keys of the file that it names, if it names one.
    pub resume_keys: Option<KeyRing>,
    /// What requests to its hooks are signed with, from the file that it names.
    pub hooks_secret: Option<Secret>,
    /// The TLS of its pools, from the files that it names.
    pub tls: PoolsTls,
    /// The TLS of its listeners, from the files that it names.
    pub shown: Sets,
}

/// The tasks that take spans and events away, where the configuration says where to.
#[derive(Debug)]
pub struct Outgoing {
    spans: Option<Exporter>,
    hooks: Option<hooks::Sender>,
}

impl Outgoing {
    /// Sends what is queued, within two seconds.
    pub async fn finish(self) {
        let spans = async {
            if let Some(exporter) = self.spans {
                exporter.finish().await;
            }
        };
        let hooks = async {
            if let Some(sender) = self.hooks {
                sender.finish().await;
            }
        };
        tokio::join!(spans, hooks);
    }
}

impl Process {
    /// The services of a process that runs by `judged` and by this `clock`, writes to `log` and may open so many
    /// `descriptors`; and what it sends away, on the current runtime.
    #[must_use]
    pub fn new(judged: Judged, log: Arc<LogHandle>, descriptors: usize, clock: Clock) -> (Self, Outgoing) {
        let Judged { config, rules, tokens, resume_keys, hooks_secret, tls, shown } = judged;
        let (metrics, events) = (Arc::new(Metrics::new()), Arc::new(Events::new()));
        name_series(&metrics, &config);
        let (tracer, spans) = Tracer::start(config.trace.otlp_endpoint.as_ref(), &metrics);
        let (hooks, hooks_sender) = Hooks::start(hook_settings(&config, hooks_secret), &metrics);
        let pipes = Arc::new(Pipes::new(config.replay.total_bytes_max, config.pools.len()));
        pipes.keys.set_count_max(config.limits.statistics_keys as usize);
        pipes.labels.set_bounds(&config.limits);
        let backends = backends(&Setup::from_config(&config, &tls), &metrics, &events, &pipes, clock);
        let slots = Arc::new(Slots::new(config.server.max_connections as usize, descriptors));
        let phase = PhaseCell::default();
        let waiting_max = config.server.waiting_max as usize;
        let waiting = Arc::new(Waiting::new(backends.clone(), metrics.clone(), phase.watch(), waiting_max));
        let limits = Arc::new(Limiter::new(config.limits, clock));
        metrics.sync_certificates(&ends(&shown));
        let shown = TlsInForce::new(shown, config.server.tls.handshakes_at_once as usize);
        let config = Arc::new(ArcSwap::from_pointee(config));
        let (streams, exchanges) = (Arc::new(Streams::default()), Exchanges::default());
        let workers = Arc::new(Workers::new(&config.load().workers));
        let process = Self {
            memory: Memory::new(config.clone(), pipes.clone(), streams.clone(), exchanges.clone(), workers.clone()),
            config,
            rules: ArcSwap::from_pointee(rules),
            tokens: ArcSwapOption::new(tokens.map(Arc::new)),
            resume_keys: ArcSwap::from_pointee(resume_keys.unwrap_or_else(KeyRing::random)),
            level: Level::new(log),
            phase,
            clock,
            metrics,
            events,
            tracer,
            hooks,
            backends,
            workers,
            pipes,
            streams,
            clients: Arc::default(),
            sessions: Arc::default(),
            slots,
            waiting,
            limits,
            exchanges,
            tls: shown,
            upgrade: Upgrade::default(),
        };
        (process, Outgoing { spans, hooks: hooks_sender })
    }
}

/// Whom the process tells of the life of its pipes.
fn hook_settings(config: &Config, secret: Option<Secret>) -> Option<HookSettings> {
    let hooks = &config.hooks;
    let (url, queue_max) = (hooks.url.clone()?, hooks.queue_max as usize);
    Some(HookSettings { url, secret: secret?, queue_max, timeout: hooks.timeout })
}

impl Process {
    /// What the supervisor of workers works on.
    #[must_use]
    pub fn around_workers(&self) -> Surroundings {
        let (metrics, events) = (self.metrics.clone(), self.events.clone());
        Surroundings { backends: self.backends.clone(), metrics, events, clock: self.clock }
    }

    /// Has new handshakes use `sets`, of which metrics tell how long they are good.
    pub fn put_tls(&self, sets: Sets) {
        self.metrics.sync_certificates(&ends(&sets));
        self.tls.put(sets);
    }
}

/// When each certificate ends, by the name of its listeners and its own.
fn ends(sets: &Sets) -> Vec<(&'static str, String, SystemTime)> {
    let ends = sets.named().flat_map(|(listener, set)| {
        let end = move |one: &Certificate| {
            (listener, one.names.first().unwrap_or_else(|| "none".to_owned()), one.validity.not_after)
        };
        set.certificates.iter().map(end)
    });
    ends.collect()
}

/// Lets the metrics know what the configuration names.
fn name_series(metrics: &Metrics, config: &Config) {
    let routes: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    metrics.sync_config(&routes, &pools);
}

/// The configured pools, whose events are counted and listed, and whose orders reach the pipes.
fn backends(setup: &Setup, metrics: &Arc<Metrics>, events: &Arc<Events>, pipes: &Arc<Pipes>, clock: Clock) -> Backends {
    let (metrics, events, pipes) = (metrics.clone(), events.clone(), pipes.clone());
    let on_event = move |event| {
        metrics.backend_event(&event);
        event.log();
        events.push(event.into());
    };
    Backends::new(setup, clock, on_event, move |backend, leave| pipes.leave(backend, leave))
}
