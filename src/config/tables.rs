//! The tables that may repeat: `[[pools]]`, `[[pools.backends]]` and `[[routes]]`.
//!
//! Each `Default` is what an entry means that says nothing: a pool or a route called `default`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use holdline_core::close;
use holdline_core::limits::RouteLimits;
use holdline_core::settings::{
    BackendLoss, Balance, CodeSet, Confirm, DownPolicy, MoveOrder, OnRefused, OnTooBig, OverflowPolicy, Refusal,
    ReplayPolicy, WeightFrom,
};

use super::types::{
    Compression, Conversation, HealthKind, NoOwner, Paths, PoolResume, RouteResume, Serves, Sticky, Upgrade,
};
use super::{AdminState, Prologue};
use crate::callout::CalloutUrl;
use crate::net::{BackendUrl, SendProxy, TlsFiles};
use crate::routes::{AuthSpec, Duplicate, HeaderSpec, HostRule, LearnRule};

/// `[[pools]]`: backends that can stand in for one another.
#[derive(Clone, PartialEq, Debug)]
pub struct Pool {
    /// What routes call it; unique.
    pub name: String,
    /// How a backend is picked.
    pub balance: Balance,
    /// Pipes on one backend at once; 0 is no limit.
    pub max_pipes_per_backend: u32,
    /// Eligible backends below which it is short of them; 0 is never.
    pub min_backends: u32,
    /// How a pipe is moved off one of its backends.
    pub move_order: MoveOrder,
    /// What decides how much of a backend's weight counts.
    pub weight_from: WeightFrom,
    /// Bytes that a worker may use, where it names no limit itself; zero is unknown.
    pub worker_memory_max: usize,
    /// What its workers know of resuming.
    pub resume: PoolResume,
    /// How its workers are told whose connection they get.
    pub send_proxy: SendProxy,
    /// How its `wss://` workers are met.
    pub tls: PoolTls,
    /// Where the health pages of its workers say what they use.
    pub report: Report,
    /// How its backends are probed.
    pub health: Health,
    /// Backends that the admin API cannot delete.
    pub backends: Vec<Backend>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            balance: Balance::LeastPipes,
            max_pipes_per_backend: 0,
            min_backends: 1,
            move_order: MoveOrder::AttachFirst,
            weight_from: WeightFrom::Config,
            worker_memory_max: 0,
            resume: PoolResume::Transparent,
            send_proxy: SendProxy::Off,
            tls: PoolTls::default(),
            report: Report::default(),
            health: Health::default(),
            backends: Vec::new(),
        }
    }
}

/// `pools.tls`: how its `wss://` workers are met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolTls {
    /// Certificates in PEM that are trusted instead of the system's: by signature, or as they are.
    pub ca: Option<PathBuf>,
    /// The certificate in PEM that workers may ask for.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// What workers' certificates must name, instead of the host of their URL.
    pub server_name: Option<String>,
}

impl PoolTls {
    /// The same, to be read.
    pub(super) fn files(&self) -> TlsFiles<'_> {
        TlsFiles {
            ca: self.ca.as_deref(),
            cert: self.cert.as_deref(),
            key: self.key.as_deref(),
            server_name: self.server_name.as_deref(),
        }
    }
}

/// `pools.report`: JSON pointers (RFC 6901) into the answer to an `http` probe, looked at before the shapes that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Memory that the worker uses, in MiB.
    pub rss_mb: Option<String>,
    /// Memory that it may use, in MiB.
    pub limit_mb: Option<String>,
}

/// `pools.health`: how a backend is probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What a probe does.
    pub kind: HealthKind,
    /// From one probe to the next; zero probes never.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failures in a row that make a backend `down`.
    pub fall: u32,
    /// Successes in a row that make it `up` again.
    pub rise: u32,
    /// What `http` and `ws` probes ask for.
    pub path: String,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            kind: HealthKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            fall: 3,
            rise: 1,
            path: "/".to_owned(),
        }
    }
}

/// `[[pools.backends]]`: one worker with a fixed address.
#[derive(Clone, PartialEq, Debug)]
pub struct Backend {
    /// Its name in the API and in metrics; see [`Backend::id`].
    pub id: Option<String>,
    /// Where it listens.
    pub url: BackendUrl,
    /// Its share beside the others; at least 1.
    pub weight: u32,
    /// Pipes at once, instead of the pool's `max_pipes_per_backend`; 0 is no limit.
    pub max_pipes: Option<u32>,
    /// The route keys it takes; empty is any.
    pub serves: Serves,
    /// Free text for people and filters.
    pub labels: BTreeMap<String, String>,
    /// The admin state it starts in.
    pub state: AdminState,
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            id: None,
            url: nowhere(),
            weight: 1,
            max_pipes: None,
            serves: Serves::default(),
            labels: BTreeMap::new(),
            state: AdminState::Ready,
        }
    }
}

impl Backend {
    /// The id it was given, else one made of its pool's name and its place there, counted from 1: ids stand in metrics,
    /// where no address may.
    #[must_use]
    pub fn id(&self, pool: &str, index: usize) -> String {
        self.id.clone().unwrap_or_else(|| format!("{pool}-{}", index + 1))
    }
}

/// A name that never resolves (RFC 2606): a backend without a URL is refused before it could be dialled.
fn nowhere() -> BackendUrl {
    "ws://backend.invalid".parse().expect("a constant that is a URL")
}

/// `[[routes]]`: which requests go to which pool, and how their pipes behave.
///
/// A field of type `Option` overrides a global key for this route; see [`super::Config::pipe_settings`].
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// What metrics and logs call it; unique.
    pub name: String,
    /// matchit patterns of the request path.
    pub path: Paths,
    /// Hosts it answers to, `*.` for any label in front; empty is any.
    pub hosts: Vec<String>,
    /// The name of an existing pool.
    pub pool: String,
    /// Template of the route key, as written.
    pub key: Option<String>,
    /// What becomes of a key that no backend serves.
    pub no_owner: NoOwner,
    /// Template of the path and query towards the backend, as written.
    pub backend_path: Option<String>,
    /// Which requests it takes.
    pub upgrade: Upgrade,
    /// What its conversations are.
    pub conversation: Conversation,
    /// What a lost worker does to its client.
    pub on_backend_loss: BackendLoss,
    /// What refusals of a reattach by all workers do to its client.
    pub refusal: Refusal,
    /// What a worker's refusal of the client's credentials at a reattach does to it.
    pub on_refused: OnRefused,
    /// Instead of `replay.policy`.
    pub replay: Option<ReplayPolicy>,
    /// Instead of `replay.tail`.
    pub replay_tail: RouteTail,
    /// Instead of `replay.delay`.
    pub replay_delay: Option<Duration>,
    /// Instead of `replay.overflow`.
    pub overflow: Option<OverflowPolicy>,
    /// What a slow client does to its worker.
    pub down: DownPolicy,
    /// What a worker's message over `message.max_bytes` does.
    pub on_too_big: OnTooBig,
    /// What confirms a message to the worker.
    pub confirm: Confirm,
    /// How long an attached worker may stay silent at first; zero is for ever.
    pub first_message_timeout: Duration,
    /// Whether clients may come without a WebSocket.
    pub http_fallback: bool,
    /// Close codes of a worker that interrupt the pipe.
    pub interrupt_codes: CodeSet,
    /// Close codes that mean "not my key" right after a reattach.
    pub wrong_worker_codes: CodeSet,
    /// What brings a client back to the worker that it had.
    pub sticky: Sticky,
    /// Where workers' answers name keys.
    pub learn: Vec<LearnRule>,
    /// How long a learned key is remembered without being used.
    pub learn_ttl: Duration,
    /// How long a request may wait for a worker; `reattach.grace`, 10s at most, if absent.
    pub wait: Option<Duration>,
    /// What workers get as `Host`.
    pub host: HostRule,
    /// What is changed of the headers.
    pub headers: RouteHeaders,
    /// Whether paths may come that workers may read as other ones.
    pub raw_path: bool,
    /// The server that says who may connect.
    pub auth_url: Option<CalloutUrl>,
    /// Headers of its answer that go on to workers and into templates.
    pub auth_headers: Vec<String>,
    /// How long it has to answer.
    pub auth_timeout: Duration,
    /// Requests to it at once.
    pub auth_requests_max: u32,
    /// Origins a browser may come from; empty is any.
    pub origins: Vec<String>,
    /// Whether text that is not UTF-8 closes its sender.
    pub check_utf8: bool,
    /// What becomes of the compression that clients offer.
    pub compression: Compression,
    /// Instead of `message.max_bytes`.
    pub message_max_bytes: Option<usize>,
    /// Instead of `heartbeat.*`.
    pub heartbeat: RouteHeartbeats,
    /// Instead of `limits.*`.
    pub limits: RouteLimits,
    /// Template that names the client, as written.
    pub client_id: Option<String>,
    /// Templates of the groups that its pipes belong to, as written.
    pub labels: BTreeMap<String, String>,
    /// How a client without tokens comes back.
    pub resume: RouteResume,
    /// What a second connection of the same client does.
    pub duplicate: Duplicate,
    /// The code that a replaced connection is closed with.
    pub replaced_code: u32,
    /// Whether one backend connection serves every pipe of the same key.
    pub share: bool,
    /// How long a shared connection outlives its last pipe.
    pub share_linger: Duration,
    /// Messages that a newcomer to a shared connection is given first.
    pub share_catch_up: u32,
    /// Bytes of messages kept for the pipes of a shared connection that are behind.
    pub share_bytes_max: usize,
    /// What a new worker must hear again.
    pub prologue: Prologue,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            path: Paths(vec!["/{*path}".to_owned()]),
            hosts: Vec::new(),
            pool: "default".to_owned(),
            key: None,
            no_owner: NoOwner::Refuse,
            backend_path: None,
            upgrade: Upgrade::Any,
            http_fallback: false,
            conversation: Conversation::Auto,
            on_backend_loss: BackendLoss::Reattach,
            refusal: Refusal::End,
            on_refused: OnRefused::Close,
            replay: None,
            replay_tail: RouteTail::default(),
            replay_delay: None,
            overflow: None,
            down: DownPolicy::Keep,
            on_too_big: OnTooBig::Close,
            confirm: Confirm::Pong,
            first_message_timeout: Duration::ZERO,
            interrupt_codes: close::default_interrupt_codes(),
            wrong_worker_codes: close::default_wrong_worker_codes(),
            sticky: Sticky::Off,
            learn: Vec::new(),
            learn_ttl: Duration::from_secs(3600),
            wait: None,
            host: HostRule::Client,
            headers: RouteHeaders::default(),
            raw_path: false,
            auth_url: None,
            auth_headers: Vec::new(),
            auth_timeout: Duration::from_secs(5),
            auth_requests_max: 256,
            origins: Vec::new(),
            check_utf8: false,
            compression: Compression::Pass,
            message_max_bytes: None,
            heartbeat: RouteHeartbeats::default(),
            limits: RouteLimits::default(),
            client_id: None,
            labels: BTreeMap::new(),
            resume: RouteResume::None,
            duplicate: Duplicate::Replace,
            replaced_code: 1000,
            share: false,
            share_linger: Duration::from_secs(300),
            share_catch_up: 0,
            share_bytes_max: 8 << 20,
            prologue: Prologue::default(),
        }
    }
}

/// `routes.headers`: what is changed of the headers that cross the proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RouteHeaders {
    /// Towards workers.
    pub request: HeaderSpec,
    /// Towards clients.
    pub response: HeaderSpec,
}

impl Route {
    /// The server that says who may connect, if it names one.
    #[must_use]
    pub fn auth(&self) -> Option<AuthSpec> {
        let (headers, timeout) = (self.auth_headers.clone(), self.auth_timeout);
        Some(AuthSpec { url: self.auth_url.clone()?, headers, timeout, requests_max: self.auth_requests_max })
    }
}

/// `routes.replay_tail`: each bound instead of the one in `replay.tail`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteTail {
    /// Bytes kept at most.
    pub bytes: Option<usize>,
    /// Messages kept at most.
    pub messages: Option<u32>,
    /// Age of the oldest message kept.
    pub age: Option<Duration>,
}

/// `routes.heartbeat`: each key instead of the one in `heartbeat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RouteHeartbeats {
    /// Instead of `heartbeat.client_interval`.
    pub client_interval: Option<Duration>,
    /// Instead of `heartbeat.client_timeout`.
    pub client_timeout: Option<Duration>,
    /// Instead of `heartbeat.backend_interval`.
    pub backend_interval: Option<Duration>,
    /// Instead of `heartbeat.backend_timeout`.
    pub backend_timeout: Option<Duration>,
}
