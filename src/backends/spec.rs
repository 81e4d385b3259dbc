//! What is said about pools and backends from outside, and what comes back: the vocabulary of this module's API.

use super::report::{ReportPointers, WorkerReport};
use crate::net::{BackendUrl, SendProxy, TlsClient, UrlError};
use holdline_core::health::{Health, HealthSettings};
use holdline_core::ids::BackendKey;
use holdline_core::lease::LeaseState;
use holdline_core::pool::{AdminState, Serves};
use holdline_core::settings::{Balance, MoveOrder, WeightFrom};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Backends known at once, over all pools.
pub const BACKENDS_MAX: usize = 4096;
/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 64;
/// Keys in one backend's `serves`.
pub const SERVES_KEYS_MAX: usize = 10_000;
/// Labels of one backend.
pub const LABELS_MAX: usize = 64;
/// Bytes of one key, alias, label or label's value.
pub const WORD_BYTES_MAX: usize = 1024;
/// Bytes of an `instance`.
pub const INSTANCE_BYTES_MAX: usize = 256;
/// The shortest time from one probe to the next that a registration may ask for.
pub const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The largest weight.
pub const WEIGHT_MAX: u32 = 1000;
/// The shortest and the longest lease.
pub const LEASE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// What the configuration says about a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolSpec {
    /// What routes call it.
    pub name: Arc<str>,
    /// How a backend is picked.
    pub balance: Balance,
    /// Pipes per backend; zero is no limit.
    pub max_pipes_per_backend: u32,
    /// How a pipe is moved off one of its backends.
    pub move_order: MoveOrder,
    /// What decides how much of a backend's weight counts.
    pub weight_from: WeightFrom,
    /// Bytes that a worker may use, where it names no limit itself; zero is unknown.
    pub worker_memory_max: u64,
    /// Eligible backends that it should have.
    pub min_backends: u32,
    /// How its workers are met by TLS.
    pub tls: TlsClient,
    /// How its workers are told whose connection they get.
    pub send_proxy: SendProxy,
    /// Whether its workers are offered the aware protocol.
    pub numbers: bool,
    /// Where its workers' health pages say what they use.
    pub report: ReportPointers,
    /// How its backends are probed.
    pub probes: ProbeSettings,
    /// How results are judged.
    pub health: HealthSettings,
    /// Backends that stay as long as the configuration names them, by id.
    pub backends: Vec<(Arc<str>, BackendSpec)>,
}

#[cfg(test)]
impl PoolSpec {
    /// A pool called `name` of which nothing else is said.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            balance: Balance::LeastPipes,
            max_pipes_per_backend: 0,
            move_order: MoveOrder::default(),
            weight_from: WeightFrom::default(),
            worker_memory_max: 0,
            min_backends: 0,
            tls: TlsClient::native(),
            send_proxy: SendProxy::Off,
            numbers: false,
            report: ReportPointers::default(),
            probes: ProbeSettings::default(),
            health: HealthSettings::default(),
            backends: Vec::new(),
        }
    }
}

/// How a backend is probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeSettings {
    /// What a probe does.
    pub kind: ProbeKind,
    /// From one probe to the next, a tenth more or less; zero never probes.
    pub interval: Duration,
    /// How long one may take, name resolution included.
    pub timeout: Duration,
}

/// What a probe does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeKind {
    /// Connects.
    Tcp,
    /// Asks for this path and wants a 2xx.
    Http(String),
    /// Completes a WebSocket handshake on this path and closes with 1000.
    Ws(String),
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { kind: ProbeKind::Tcp, interval: Duration::from_secs(5), timeout: Duration::from_secs(10) }
    }
}

/// What is said about one backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendSpec {
    /// Where it listens.
    pub url: Arc<BackendUrl>,
    /// The pool it stands in.
    pub pool: Arc<str>,
    /// Its share, 1 to `WEIGHT_MAX`.
    pub weight: NonZeroU32,
    /// Pipes it takes at most, instead of what the pool says; zero is no limit.
    pub max_pipes: Option<u32>,
    /// The keys it takes.
    pub serves: Serves,
    /// Free text for people and filters.
    pub labels: BTreeMap<String, String>,
    /// Which incarnation of the worker this is.
    pub instance: Option<Arc<str>>,
    /// How long it may go without a renewal.
    pub lease: Option<Duration>,
    /// How it is probed, instead of what the pool says.
    pub probes: Option<ProbeSettings>,
    /// The admin state; nothing keeps what is (a worker that registers again doesn't undo an operator's drain).
    pub state: Option<AdminState>,
}

/// What a backend takes besides its words: its record, and its places in the tables.
const BACKEND_BYTES: usize = 1024;
/// What a key takes besides its words: in the record and in its pool's table.
const KEY_BYTES: usize = 160;
/// What a label takes besides its words.
const LABEL_BYTES: usize = 112;

impl BackendSpec {
    /// Memory that is taken by what is said here, in bytes, measured roughly and never too small.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let serves: usize = match &self.serves {
            Serves::Any => 0,
            Serves::Keys(keys) => keys
                .iter()
                .map(|(key, alias)| KEY_BYTES + key.len() + alias.as_ref().map_or(0, |alias| 32 + alias.len()))
                .sum(),
        };
        let labels: usize = self.labels.iter().map(|(name, value)| LABEL_BYTES + name.len() + value.len()).sum();
        BACKEND_BYTES + self.url.as_written().len() + self.instance.as_ref().map_or(0, |it| it.len()) + serves + labels
    }

    /// A backend at `url` of which nothing else is said.
    #[must_use]
    pub fn new(url: BackendUrl, pool: impl Into<Arc<str>>) -> Self {
        Self {
            url: Arc::new(url),
            pool: pool.into(),
            weight: NonZeroU32::MIN,
            max_pipes: None,
            serves: Serves::Any,
            labels: BTreeMap::new(),
            instance: None,
            lease: None,
            probes: None,
            state: None,
        }
    }
}

/// What a write demands of the state it changes (`If-Match`, `If-None-Match`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// That there is no such backend.
    Absent,
    /// That there is such a backend.
    Present,
    /// That the backend still has this version.
    Version(u64),
    /// That the backend no longer has this version.
    AnotherThan(u64),
}

/// What `put` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is new (201).
    Created,
    /// It stands as said now (200).
    Replaced,
    /// It stood like that already (200).
    Same,
}

/// What an operator wants to become of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateChange {
    /// The new admin state.
    pub state: AdminState,
    /// What becomes of its pipes; without meaning for `Ready`.
    pub pipes: PipesWish,
    /// After which pipes that are still there are detached, or closed if that is the wish.
    pub deadline: Option<Duration>,
}

/// What becomes of the pipes of a backend that is to take no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PipesWish {
    /// They move to another backend.
    #[default]
    Reattach,
    /// They stay until they end by themselves.
    Keep,
    /// They are closed: at once, or at the deadline those that have not ended by themselves.
    Close,
}

/// How far a drain or a removal got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing is left to wait for (200 or 204).
    Done,
    /// Some are still there (202).
    Leaving {
        /// Pipes attached or being attached.
        pipes: u32,
        /// Plain requests that are being answered.
        requests: u32,
    },
}

/// The answer to a renewed lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// When it expires unless it is renewed.
    pub expires_at: SystemTime,
    /// When to renew it.
    pub renew_after: Duration,
    /// What the worker should know: the operator's wish, unless it is to take pipes.
    pub directives: Vec<Directive>,
}

/// What a worker is told with its renewed lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// Finish: nothing new comes.
    Drain,
    /// An operator is about to work on you.
    Maint,
}

/// Where a backend comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The configuration file: trusted, and not to be deleted by the API.
    Static,
    /// The API.
    Registered,
    /// The supervisor, whose process it is: trusted, and not to be changed by the API.
    Supervised,
}

/// A backend as it is now.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Its place in the tables; new whenever its URL or pool changes.
    pub key: BackendKey,
    /// Its name.
    pub id: Arc<str>,
    /// What was said about it; the state in force is `admin`.
    pub spec: Arc<BackendSpec>,
    /// Where it comes from.
    pub origin: Origin,
    /// The admin state in force.
    pub admin: AdminState,
    /// What was found out about it.
    pub health: Health,
    /// When an ejected one is let back in at the latest.
    pub ejected_until: Option<SystemTime>,
    /// What it promised.
    pub lease: LeaseState,
    /// When that runs out.
    pub lease_expires_at: Option<SystemTime>,
    /// Whether all three allow new pipes.
    pub eligible: bool,
    /// Whether it is being removed.
    pub removing: bool,
    /// Pipes attached or being attached.
    pub pipes: u32,
    /// Plain requests that it is answering.
    pub requests: u32,
    /// Connections that its worker has parked; nothing for one that is dialled.
    pub parked: Option<usize>,
    /// When it came.
    pub registered_at: SystemTime,
    /// When what is known of its health changed last.
    pub health_since: SystemTime,
    /// Grows with every change of what was said about it or of its three states; for `ETag`.
    pub version: u64,
    /// The last probe, if there was one.
    pub last_probe: Option<LastProbe>,
    /// What the worker said about itself last.
    pub report: Option<WorkerReport>,
    /// How much of its weight counts now, in percent.
    pub share: u8,
}

/// What the last probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastProbe {
    /// When it ended.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, without payload; nothing if it was fine.
    pub problem: Option<String>,
}

/// A pool as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolView {
    /// What routes call it.
    pub name: Arc<str>,
    /// How a backend is picked.
    pub balance: Balance,
    /// Pipes per backend; zero is no limit.
    pub max_pipes_per_backend: u32,
    /// Eligible backends that it should have.
    pub min_backends: u32,
    /// Backends in it.
    pub backends: usize,
    /// Those that may get a pipe.
    pub eligible: usize,
    /// Its backends, counted by each of their three states.
    pub states: StateCounts,
    /// How its backends are probed.
    pub probes: ProbeSettings,
    /// How results are judged.
    pub health: HealthSettings,
    /// Pipes attached or being attached.
    pub pipes: u64,
}

/// Backends by admin state, by health and by lease; each of the three adds up to all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StateCounts {
    pub ready: usize,
    pub drain: usize,
    pub maint: usize,
    pub up: usize,
    pub down: usize,
    pub ejected: usize,
    pub unknown: usize,
    pub no_lease: usize,
    pub lease_live: usize,
    pub lease_expired: usize,
}

/// Why a write on backends was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackendError {
    /// Bad URL (422).
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A field that can't be (422).
    #[error("{message}")]
    Invalid {
        /// JSON pointer of the field.
        pointer: &'static str,
        /// What would be right.
        message: String,
    },
    /// No such pool (422).
    #[error("there is no pool \"{0}\"; pools are made in the configuration file")]
    UnknownPool(Arc<str>),
    /// An address that no backend may have (403).
    #[error("the address {0} is outside of admin.backend_networks")]
    AddressNotAllowed(IpAddr),
    /// A socket file that no backend may have (403).
    #[error(
        "the socket file {0} is in no directory of admin.backend_sockets; add its directory there, or put the backend into the configuration file"
    )]
    SocketNotAllowed(String),
    /// An address at which this process itself listens (403).
    #[error("{0} is a listener of this proxy itself; register the address of a worker")]
    OwnListener(SocketAddr),
    /// No worker can dial in (422).
    #[error("no worker can dial in here: attach.listen is not set")]
    NoDialIn,
    /// The URL is in the pool already (409).
    #[error("backend \"{0}\" of this pool has that URL already")]
    UrlTaken(Arc<str>),
    /// A live worker with another `instance` has the id (409).
    #[error("another live instance holds the id \"{0}\"")]
    InstanceConflict(Arc<str>),
    /// It stands in the configuration file (409).
    #[error("backend \"{0}\" stands in the configuration file; change it there")]
    Static(Arc<str>),
    /// Its process is run by Holdline (409).
    #[error("backend \"{0}\" is run by Holdline itself; change its group under [[workers]], or recycle it")]
    Supervised(Arc<str>),
    /// It never asked for a lease (409).
    #[error("backend \"{0}\" has no lease to renew; register with one")]
    NoLease(Arc<str>),
    /// No such backend (404).
    #[error("there is no backend \"{0}\"")]
    NotFound(Arc<str>),
    /// It changed meanwhile (412).
    #[error("backend \"{0}\" is not as you expect it")]
    PreconditionFailed(Arc<str>),
    /// `BACKENDS_MAX` are there (507).
    #[error("there are {BACKENDS_MAX} backends already")]
    TooMany,
    /// What is said about it takes more memory than one backend may (507).
    #[error(
        "what is said about this backend takes {0} bytes; admin.backend_bytes_max is {1}: name fewer keys or labels"
    )]
    TooLarge(usize, usize),
    /// What is said about all of them would take more memory than it may (507).
    #[error("what is said about all backends would take more than admin.registry_bytes_max, {0} bytes")]
    NoRoom(usize),
}

impl BackendError {
    /// The HTTP status, and the last part of the problem's `type`.
    #[must_use]
    pub const fn problem(&self) -> (u16, &'static str) {
        match self {
            Self::Url(_) | Self::NoDialIn => (422, "invalid-backend-url"),
            Self::Invalid { .. } => (422, "invalid-field"),
            Self::UnknownPool(_) => (422, "unknown-pool"),
            Self::AddressNotAllowed(_) | Self::SocketNotAllowed(_) => (403, "address-not-allowed"),
            Self::OwnListener(_) => (403, "own-listener"),
            Self::UrlTaken(_) => (409, "url-taken"),
            Self::InstanceConflict(_) => (409, "instance-conflict"),
            Self::Static(_) => (409, "static-backend"),
            Self::Supervised(_) => (409, "supervised-backend"),
            Self::NoLease(_) => (409, "no-lease"),
            Self::NotFound(_) => (404, "backend-not-found"),
            Self::PreconditionFailed(_) => (412, "precondition-failed"),
            Self::TooMany => (507, "too-many-backends"),
            Self::TooLarge(..) => (507, "backend-too-large"),
            Self::NoRoom(_) => (507, "registry-full"),
        }
    }

    /// The JSON pointer of the field at fault, where it is one.
    #[must_use]
    pub const fn pointer(&self) -> Option<&'static str> {
        match self {
            Self::Url(_)
            | Self::AddressNotAllowed(_)
            | Self::SocketNotAllowed(_)
            | Self::OwnListener(_)
            | Self::NoDialIn
            | Self::UrlTaken(_) => Some("/url"),
            Self::UnknownPool(_) => Some("/pool"),
            Self::InstanceConflict(_) => Some("/instance"),
            Self::Invalid { pointer, .. } => Some(pointer),
            Self::Static(_)
            | Self::Supervised(_)
            | Self::NoLease(_)
            | Self::NotFound(_)
            | Self::PreconditionFailed(_)
            | Self::TooMany
            | Self::TooLarge(..)
            | Self::NoRoom(_) => None,
        }
    }
}
