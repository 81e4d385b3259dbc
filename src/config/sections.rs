//! The sections that exist once: `[server]` to `[trace]`, with the defaults of each key.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use holdline_core::settings::{OverflowPolicy, ReplayPolicy, ReplayTail};
use ipnet::IpNet;

use super::collector::OtlpEndpoint;
use super::ended_tls::{AdminTls, ServerTls};
use super::types::{AccessLog, Evict, Grace, Listen, LogFormat, LogLevel, OnExceed, ProxyProtocol, Rate};
use crate::callout::CalloutUrl;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// `[server]`: the public listeners and their limits.
#[derive(Clone, PartialEq, Debug)]
pub struct Server {
    /// Public listeners without TLS; at least one, unless one speaks TLS.
    pub listen: Vec<Listen>,
    /// Those that speak TLS.
    pub tls: ServerTls,
    /// Data threads; 0 is one per core.
    pub threads: u32,
    /// Open client connections; beyond, 503 before the upgrade.
    pub max_connections: u32,
    /// Handshakes and plain requests that wait for a worker at once.
    pub waiting_max: u32,
    /// From the accept to the first request head, and for each later phase of a handshake.
    pub handshake_timeout: Duration,
    /// From an answer to the first byte of the next request on its connection.
    pub keepalive_timeout: Duration,
    /// Bytes of one request head; over it 431.
    pub header_bytes_max: usize,
    /// Whether HTTP/2 is spoken beside HTTP/1.1 where TLS is.
    pub http2: bool,
    /// From SIGTERM to the moment at which what is left is cut off.
    pub shutdown_grace: Duration,
    /// Over how long the closes of a shutdown are spread.
    pub close_spread: Duration,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether they say whose connections they pass on.
    pub proxy_protocol: ProxyProtocol,
    /// From the dial of a backend to its TCP (and TLS) connection.
    pub backend_connect_timeout: Duration,
    /// From our request to a backend's 101.
    pub backend_handshake_timeout: Duration,
    /// From a plain HTTP request to the head of its answer.
    pub response_header_timeout: Duration,
    /// How long a client may take no byte of an HTTP answer.
    pub send_timeout: Duration,
    /// How long what a client sends behind its answer is read and forgotten.
    pub linger_timeout: Duration,
    /// How much of it.
    pub linger_bytes_max: usize,
    /// From our close frame to the moment at which the socket is cut off.
    pub close_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8000)],
            tls: ServerTls::default(),
            threads: 0,
            max_connections: 50_000,
            waiting_max: 1_000,
            handshake_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(130),
            header_bytes_max: 32 * KIB,
            http2: false,
            shutdown_grace: Duration::from_secs(30),
            close_spread: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            backend_connect_timeout: Duration::from_secs(5),
            backend_handshake_timeout: Duration::from_secs(60),
            response_header_timeout: Duration::from_secs(120),
            send_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(30),
            linger_bytes_max: 256 * MIB,
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// `[admin]`: the admin listener.
#[derive(Clone, PartialEq, Debug)]
pub struct Admin {
    /// Where the admin API is served; beyond loopback only with a `tokens_file` or `tls.client_ca`.
    pub listen: Listen,
    /// TLS on it.
    pub tls: AdminTls,
    /// Digests of bearer tokens with their roles.
    pub tokens_file: Option<PathBuf>,
    /// Networks that a registered backend may point to, checked on the resolved address.
    pub backend_networks: Vec<IpNet>,
    /// Directories whose socket files a registered backend may be, checked on where the file really is.
    pub backend_sockets: Vec<PathBuf>,
    /// Where registered backends survive a restart.
    pub state_file: Option<PathBuf>,
    /// Connections of the admin listener; beyond, one that waits for a request makes room.
    pub max_connections: u32,
    /// The same from one address.
    pub address_connections: u32,
    /// Bytes that what is said about one registered backend may take.
    pub backend_bytes_max: usize,
    /// The same for all backends.
    pub registry_bytes_max: usize,
    /// Whether operators may look on at the messages of a pipe.
    pub tap: bool,
    /// Bytes of each message that they see at most.
    pub tap_bytes_max: usize,
    /// How long one looks on at most.
    pub tap_time_max: Duration,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: loopback(9000),
            tls: AdminTls::default(),
            tokens_file: None,
            backend_networks: loopback_and_private(),
            backend_sockets: vec![PathBuf::from("/run/holdline"), PathBuf::from("/tmp")],
            state_file: None,
            max_connections: 1024,
            address_connections: 512,
            backend_bytes_max: 2 * MIB,
            registry_bytes_max: 64 * MIB,
            tap: false,
            tap_bytes_max: 1024,
            tap_time_max: Duration::from_secs(300),
        }
    }
}

/// `[heartbeat]`: pings on both legs; an interval of zero sends none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeats {
    /// From one ping to a client to the next.
    pub client_interval: Duration,
    /// From a ping to the verdict on a silent client.
    pub client_timeout: Duration,
    /// From one ping to a backend to the next.
    pub backend_interval: Duration,
    /// From a ping to the verdict on a silent backend.
    pub backend_timeout: Duration,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self {
            client_interval: Duration::from_secs(30),
            client_timeout: Duration::from_secs(60),
            backend_interval: Duration::from_secs(20),
            backend_timeout: Duration::from_secs(75),
        }
    }
}

/// `[message]`: bounds of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Payload bytes; over it, its sender is closed with 1009.
    pub max_bytes: usize,
    /// How long one may take, unless it goes on at `incomplete_rate`.
    pub incomplete_timeout: Duration,
    /// How fast a message comes that may take longer.
    pub incomplete_rate: Rate,
    /// Frames.
    pub fragments_max: u32,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            max_bytes: 16 * MIB,
            incomplete_timeout: Duration::from_secs(30),
            incomplete_rate: Rate::new(KIB as u64, Duration::from_secs(1)),
            fragments_max: 65_536,
        }
    }
}

/// `[prologue]`: what is kept of a conversation for the next worker, per pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prologues {
    /// Messages.
    pub messages_max: u32,
    /// Their bytes together.
    pub bytes_max: usize,
    /// Payload bytes of a message that is looked at.
    pub inspect_max: usize,
    /// How long a worker may take to answer what it is told again.
    pub within: Duration,
}

impl Default for Prologues {
    fn default() -> Self {
        Self { messages_max: 256, bytes_max: 256 * KIB, inspect_max: 64 * KIB, within: Duration::from_secs(5) }
    }
}

/// `[http_fallback]`: clients that come by requests instead of a socket (PROTOCOL section 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpFallback {
    /// How long a poll may wait.
    pub poll_wait_max: Duration,
    /// Bytes of one answer.
    pub poll_bytes_max: usize,
    /// Bytes of one request.
    pub post_bytes_max: usize,
    /// Requests of one client that wait for an earlier message.
    pub early_posts_max: usize,
    /// Their bytes.
    pub early_bytes_max: usize,
}

impl Default for HttpFallback {
    fn default() -> Self {
        Self {
            poll_wait_max: Duration::from_secs(30),
            poll_bytes_max: 256 * KIB,
            post_bytes_max: MIB,
            early_posts_max: 64,
            early_bytes_max: 256 * KIB,
        }
    }
}

/// `[attach]`: workers that dial in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attach {
    /// Where they dial in; nowhere if empty.
    pub listen: Vec<Listen>,
    /// Connections that one worker may have parked.
    pub parked_max: u32,
    /// Those of all workers.
    pub parked_total_max: u32,
    /// How long a dial waits for one to be parked.
    pub wait: Duration,
    /// Dials that wait for one worker's.
    pub waiting_max: u32,
    /// From one sign of life on a parked connection to the next.
    pub heartbeat: Duration,
}

impl Default for Attach {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            parked_max: 256,
            parked_total_max: 4096,
            wait: Duration::from_secs(2),
            waiting_max: 1024,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// `[replay]`: what is kept for another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replay {
    /// What is kept of the messages a worker may or may not have seen.
    pub policy: ReplayPolicy,
    /// Bytes that one pipe holds while no worker is attached.
    pub pipe_bytes_max: usize,
    /// Bytes that all pipes hold together.
    pub total_bytes_max: usize,
    /// Bytes sent and unconfirmed while a worker is attached, after which the client is paused.
    pub window_bytes: usize,
    /// What a full buffer does.
    pub overflow: OverflowPolicy,
    /// How long a new worker waits for its replay.
    pub delay: Duration,
    /// Confirmed messages kept a little longer.
    pub tail: ReplayTail,
    /// How long a client may take nothing while messages wait for it.
    pub stall_max: Duration,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            policy: ReplayPolicy::Unconfirmed,
            pipe_bytes_max: 5 * MIB,
            total_bytes_max: GIB,
            window_bytes: 256 * KIB,
            overflow: OverflowPolicy::Pause,
            delay: Duration::ZERO,
            tail: ReplayTail::default(),
            stall_max: Duration::from_secs(15),
        }
    }
}

/// `[reattach]`: how a pipe looks for another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reattach {
    /// How long a pipe waits for a worker; then the client gets 1013.
    pub grace: Grace,
    /// First wait between two rounds of dials.
    pub backoff_min: Duration,
    /// Longest wait between two rounds of dials.
    pub backoff_max: Duration,
    /// Attaches of one pipe to one backend that may die young in a minute; 0 is no limit.
    pub dials_per_minute: u32,
    /// Dials of one backend at a time by pipes that lost or leave another; 0 is no limit.
    pub dials_at_once: u32,
    /// Planned moves that one pool begins in a second; 0 is no limit.
    pub moves_per_second: u32,
    /// How long a planned move waits for the old worker, for each of its two steps.
    pub move_timeout: Duration,
    /// How long after its last message a worker is told to go.
    pub settle: Duration,
    /// How long the new worker of a planned move has been there before the old one is told to go.
    pub prove: Duration,
}

impl Default for Reattach {
    fn default() -> Self {
        Self {
            grace: Grace::For(Duration::from_secs(30)),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            dials_per_minute: 15,
            dials_at_once: 64,
            moves_per_second: 100,
            move_timeout: Duration::from_secs(10),
            settle: Duration::from_millis(200),
            prove: Duration::from_millis(500),
        }
    }
}

/// `[resume]`: how a client comes back.
#[derive(Clone, PartialEq, Debug)]
pub struct Resume {
    /// How long a pipe waits for its client.
    pub grace: Duration,
    /// How long a client has to answer before another that has its cookie takes its place.
    pub probe_timeout: Duration,
    /// Keys of the resume tokens; without a file they are made at each start.
    pub keys_file: Option<PathBuf>,
}

impl Default for Resume {
    fn default() -> Self {
        Self { grace: Duration::from_secs(60), probe_timeout: Duration::from_secs(1), keys_file: None }
    }
}

/// `[aware]`: clients that number their messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aware {
    /// How long a hello may take.
    pub hello_timeout: Duration,
    /// Bytes that either side may have sent and not seen acknowledged.
    pub window: usize,
    /// How long a message waits for its acknowledgement.
    pub ack_delay: Duration,
    /// Messages that are acknowledged at once.
    pub ack_messages: u32,
    /// From one heartbeat to the next.
    pub heartbeat: Duration,
    /// Bytes kept for a client that is away; the window if absent.
    pub retain: Option<usize>,
}

impl Default for Aware {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            window: 256 * KIB,
            ack_delay: Duration::from_millis(200),
            ack_messages: 16,
            heartbeat: Duration::from_secs(25),
            retain: None,
        }
    }
}

/// `[limits]`: rates and counts; zero is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections at once per route key and client address.
    pub key_connections: u32,
    /// Connections at once per route key, whatever their addresses.
    pub key_connections_total: u32,
    /// New connections per route key and client address.
    pub key_rate: Rate,
    /// Connections at once per client address.
    pub address_connections: u32,
    /// New connections per client address.
    pub address_rate: Rate,
    /// Pipes per client address whose client is away.
    pub address_detached: u32,
    /// Resumes per client address that may fail.
    pub resume_failures: Rate,
    /// Messages of one lane of a pipe.
    pub pipe_messages: Rate,
    /// Bytes of one lane of a pipe.
    pub pipe_bytes: Rate,
    /// What happens to a pipe over its limits.
    pub on_exceed: OnExceed,
    /// Route keys that statistics are kept of.
    pub statistics_keys: u32,
    /// Labels of one pipe.
    pub pipe_labels: u32,
    /// Bytes of their names and values together.
    pub pipe_label_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_connections: 10,
            key_connections_total: 0,
            key_rate: Rate::new(20, Duration::from_secs(60)),
            address_connections: 0,
            address_rate: Rate::OFF,
            address_detached: 10_000,
            resume_failures: Rate::new(10, Duration::from_secs(60)),
            pipe_messages: Rate::OFF,
            pipe_bytes: Rate::OFF,
            on_exceed: OnExceed::Throttle,
            statistics_keys: 16_384,
            pipe_labels: 16,
            pipe_label_bytes: KIB,
        }
    }
}

/// `[memory]`: the memory of the whole process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Bytes; 0 is the limit of the cgroup, else the machine's RAM.
    pub process_max: usize,
    /// Which pipe goes first.
    pub evict: Evict,
}

impl Default for Memory {
    fn default() -> Self {
        Self { process_max: 0, evict: Evict::Lru }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// The shape of a record.
    pub format: LogFormat,
    /// Whether each answer of the public listener is told, and how.
    pub access: AccessLog,
    /// The least severe record that is written.
    pub level: LogLevel,
    /// Bytes of records that wait for a slow reader of stderr; what comes then is dropped and counted.
    pub queue_bytes_max: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, access: AccessLog::Off, level: LogLevel::Info, queue_bytes_max: MIB }
    }
}

/// `[trace]`: spans for a tracing system.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trace {
    /// The collector that they go to; without one there are none.
    pub otlp_endpoint: Option<OtlpEndpoint>,
}

/// `[hooks]`: who is told of the life of pipes.
#[derive(Clone, PartialEq, Debug)]
pub struct Hooks {
    /// The server; without one nothing is told.
    pub url: Option<CalloutUrl>,
    /// What requests to it are signed with.
    pub secret_file: Option<PathBuf>,
    /// Events that wait for it.
    pub queue_max: u32,
    /// How long it has to answer.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { url: None, secret_file: None, queue_max: 10_000, timeout: Duration::from_secs(5) }
    }
}

fn loopback(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Loopback, RFC 1918 and RFC 4193; link-local is left out, because cloud metadata services live there.
fn loopback_and_private() -> Vec<IpNet> {
    [([127, 0, 0, 0], 8), ([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)]
        .into_iter()
        .map(|(octets, length)| IpNet::new_assert(octets.into(), length))
        .chain([
            IpNet::new_assert([0, 0, 0, 0, 0, 0, 0, 1].into(), 128),
            IpNet::new_assert([0xfc00, 0, 0, 0, 0, 0, 0, 0].into(), 7),
        ])
        .collect()
}
