//! The keys of the sections that exist once.

use std::path::Path;
use std::time::Duration;

use super::super::types::Listen;
use super::super::{Config, Rate};
use super::{Key, any, key, off_or, range};

/// Longest duration of any key, so that sums of deadlines stay far from overflow.
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
/// Largest size of anything that belongs to one pipe.
pub(super) const GIB: usize = 1024 * MIB;
const TIB: usize = 1024 * GIB;

pub(super) fn keys() -> Vec<Key<Config>> {
    let mut keys = server();
    keys.extend(super::ended_tls::server());
    keys.extend(admin());
    keys.extend(tap());
    keys.extend(super::ended_tls::admin());
    keys.extend(heartbeat_and_message());
    keys.extend(replay());
    keys.extend(reattach());
    keys.extend(moves_and_resume());
    keys.extend(super::aware::keys());
    keys.extend(super::attach::keys());
    keys.extend(prologue());
    keys.extend(super::fallback::keys());
    keys.extend(super::limits::keys());
    keys.extend(memory());
    keys.extend(super::upgrade::keys());
    keys.extend(log_and_trace());
    keys.extend(super::hooks::keys());
    keys
}

fn server() -> Vec<Key<Config>> {
    vec![
        key(
            "server.listen",
            |c: &mut Config| &mut c.server.listen,
            |listen| at_most_listeners(listen),
            "public listeners: \"ADDRESS:PORT\" or \"unix:PATH\"",
        ),
        key(
            "server.threads",
            |c: &mut Config| &mut c.server.threads,
            range(0, 1024),
            "data threads; 0 is one per core",
        ),
        key(
            "server.max_connections",
            |c: &mut Config| &mut c.server.max_connections,
            range(1, 10_000_000),
            "open client connections; beyond, 503 before the upgrade",
        ),
        key(
            "server.waiting_max",
            |c: &mut Config| &mut c.server.waiting_max,
            range(0, 10_000_000),
            "new handshakes and requests that wait for a worker at once (routes.wait); beyond, 503 at once",
        ),
        key(
            "server.handshake_timeout",
            |c: &mut Config| &mut c.server.handshake_timeout,
            range(MILLISECOND, HOUR),
            "a client that takes longer for its request head is cut off (slowloris)",
        ),
        key(
            "server.keepalive_timeout",
            |c: &mut Config| &mut c.server.keepalive_timeout,
            range(MILLISECOND, DAY),
            "from an answer to the next request of its connection; longer than the idle time of a proxy in front",
        ),
        key(
            "server.header_bytes_max",
            |c: &mut Config| &mut c.server.header_bytes_max,
            range(KIB, MIB),
            "bytes of one request head; over it 431",
        ),
        key(
            "server.http2",
            |c: &mut Config| &mut c.server.http2,
            any,
            "HTTP/2 beside HTTP/1.1 on tls.listen, with WebSockets on its streams (RFC 8441)",
        ),
        key(
            "server.shutdown_grace",
            |c: &mut Config| &mut c.server.shutdown_grace,
            range(Duration::ZERO, DAY),
            "from SIGTERM to the moment at which what is left is cut off",
        ),
        key(
            "server.close_spread",
            |c: &mut Config| &mut c.server.close_spread,
            range(Duration::ZERO, DAY),
            "closes of a shutdown are spread over this, so that clients do not all come back at once",
        ),
        key(
            "server.trusted_proxies",
            |c: &mut Config| &mut c.server.trusted_proxies,
            any,
            "networks whose forwarding headers are believed",
        ),
        key(
            "server.proxy_protocol",
            |c: &mut Config| &mut c.server.proxy_protocol,
            any,
            "the PROXY protocol of trusted_proxies: \"accept\" takes its header where one comes, \"require\" closes all else",
        ),
        key(
            "server.backend_connect_timeout",
            |c: &mut Config| &mut c.server.backend_connect_timeout,
            range(MILLISECOND, HOUR),
            "from the dial of a backend to its connection; then the next candidate",
        ),
        key(
            "server.backend_handshake_timeout",
            |c: &mut Config| &mut c.server.backend_handshake_timeout,
            range(MILLISECOND, HOUR),
            "from our request to a backend's 101; then the next candidate",
        ),
        key(
            "server.response_header_timeout",
            |c: &mut Config| &mut c.server.response_header_timeout,
            range(MILLISECOND, DAY),
            "from a plain HTTP request to the head of the backend's answer; then 504",
        ),
        key(
            "server.send_timeout",
            |c: &mut Config| &mut c.server.send_timeout,
            range(MILLISECOND, HOUR),
            "a client that takes no byte of an HTTP answer for so long is cut off",
        ),
        key(
            "server.linger_timeout",
            |c: &mut Config| &mut c.server.linger_timeout,
            range(MILLISECOND, HOUR),
            "what a client still sends behind its answer is read and forgotten for so long, so that the answer arrives",
        ),
        key(
            "server.linger_bytes_max",
            |c: &mut Config| &mut c.server.linger_bytes_max,
            range(0, TIB),
            "how much of it; a client that sends more is reset",
        ),
        key(
            "server.close_timeout",
            |c: &mut Config| &mut c.server.close_timeout,
            range(MILLISECOND, HOUR),
            "a peer that does not answer our close frame in time is cut off",
        ),
    ]
}

pub(super) fn at_most_listeners(listen: &[Listen]) -> Result<(), String> {
    const LISTENERS_MAX: usize = 64;
    if listen.len() <= LISTENERS_MAX {
        return Ok(());
    }
    Err(format!("at most {LISTENERS_MAX} listeners"))
}

fn admin() -> Vec<Key<Config>> {
    vec![
        key(
            "admin.listen",
            |c: &mut Config| &mut c.admin.listen,
            any,
            "the admin API; beyond loopback only with a tokens_file or tls.client_ca",
        ),
        key(
            "admin.tokens_file",
            |c: &mut Config| &mut c.admin.tokens_file,
            any,
            "SHA-256 of bearer tokens with their roles: viewer, worker, operator",
        )
        .or("\"/etc/holdline/tokens\""),
        key(
            "admin.backend_networks",
            |c: &mut Config| &mut c.admin.backend_networks,
            any,
            "networks that a registered backend may point to, checked on the resolved address",
        ),
        key(
            "admin.backend_sockets",
            |c: &mut Config| &mut c.admin.backend_sockets,
            |directories| directories.iter().try_for_each(|directory| absolute(directory)),
            "directories whose socket files a registered backend may be, links followed at every dial",
        ),
        key(
            "admin.state_file",
            |c: &mut Config| &mut c.admin.state_file,
            any,
            "where registered backends survive a restart",
        )
        .or("\"/var/lib/holdline/backends.json\""),
        key(
            "admin.max_connections",
            |c: &mut Config| &mut c.admin.max_connections,
            range(16, 65_536),
            "beyond, the connection that has waited longest for a request is closed; health is always answered",
        ),
        key(
            "admin.address_connections",
            |c: &mut Config| &mut c.admin.address_connections,
            range(1, 65_536),
            "the same for connections from one address",
        ),
        key(
            "admin.backend_bytes_max",
            |c: &mut Config| &mut c.admin.backend_bytes_max,
            range(64 * KIB, 16 * MIB),
            "memory for what is said about one registered backend: its keys, labels and names; beyond, 507",
        ),
        key(
            "admin.registry_bytes_max",
            |c: &mut Config| &mut c.admin.registry_bytes_max,
            range(MIB, 64 * MIB),
            "the same for all backends",
        ),
    ]
}

fn tap() -> Vec<Key<Config>> {
    vec![
        key(
            "admin.tap",
            |c: &mut Config| &mut c.admin.tap,
            any,
            "operators may look on at the messages of a pipe (ctl tap), which is audited; needs tokens_file",
        ),
        key(
            "admin.tap_bytes_max",
            |c: &mut Config| &mut c.admin.tap_bytes_max,
            range(1, 64 * KIB),
            "bytes of each message that they see at most",
        ),
        key(
            "admin.tap_time_max",
            |c: &mut Config| &mut c.admin.tap_time_max,
            range(Duration::from_secs(1), HOUR),
            "how long one looks on at most",
        ),
    ]
}

fn heartbeat_and_message() -> Vec<Key<Config>> {
    vec![
        key(
            "heartbeat.client_interval",
            |c: &mut Config| &mut c.heartbeat.client_interval,
            off_or(MILLISECOND, DAY),
            "from one ping to a client to the next; 0 sends none",
        ),
        key(
            "heartbeat.client_timeout",
            |c: &mut Config| &mut c.heartbeat.client_timeout,
            range(MILLISECOND, DAY),
            "from a ping to the verdict on a client that sends no byte",
        ),
        key(
            "heartbeat.backend_interval",
            |c: &mut Config| &mut c.heartbeat.backend_interval,
            off_or(MILLISECOND, DAY),
            "from one ping to a backend to the next; 0 sends none",
        ),
        key(
            "heartbeat.backend_timeout",
            |c: &mut Config| &mut c.heartbeat.backend_timeout,
            range(MILLISECOND, DAY),
            "generous, because some libraries answer a ping only when the application reads",
        ),
        key(
            "message.max_bytes",
            |c: &mut Config| &mut c.message.max_bytes,
            range(1, GIB),
            "payload of one message; over it, its sender is closed with 1009",
        ),
        key(
            "message.incomplete_timeout",
            |c: &mut Config| &mut c.message.incomplete_timeout,
            range(MILLISECOND, DAY),
            "how long a message may take, unless it goes on at incomplete_rate",
        ),
        key(
            "message.incomplete_rate",
            |c: &mut Config| &mut c.message.incomplete_rate,
            bounded_rate,
            "a message that comes at least so fast over incomplete_timeout may take longer; 0 is one byte in that time",
        ),
        key(
            "message.fragments_max",
            |c: &mut Config| &mut c.message.fragments_max,
            range(1, 16_777_216),
            "frames of one message",
        ),
    ]
}

fn replay() -> Vec<Key<Config>> {
    vec![
        key(
            "replay.policy",
            |c: &mut Config| &mut c.replay.policy,
            any,
            "\"unconfirmed\": at least once; \"unsent\": at most once; \"none\": nothing is kept",
        ),
        key(
            "replay.pipe_bytes_max",
            |c: &mut Config| &mut c.replay.pipe_bytes_max,
            range(KIB, GIB),
            "bytes that one pipe holds while no worker is attached: what came, with all headers, and 16 more for each message",
        ),
        key(
            "replay.total_bytes_max",
            |c: &mut Config| &mut c.replay.total_bytes_max,
            range(KIB, TIB),
            "bytes that all pipes hold together; of several pools one comes to four fifths at most",
        ),
        key(
            "replay.window",
            |c: &mut Config| &mut c.replay.window_bytes,
            range(KIB, GIB),
            "bytes sent and unconfirmed while a worker is attached, after which the client is paused",
        ),
        key(
            "replay.overflow",
            |c: &mut Config| &mut c.replay.overflow,
            any,
            "what a full buffer does: \"pause\" the client or \"close\" it with 1013",
        ),
        key(
            "replay.delay",
            |c: &mut Config| &mut c.replay.delay,
            range(Duration::ZERO, HOUR),
            "how long a new worker waits for its replay, so that an old one can finish its queue",
        ),
        key(
            "replay.tail.bytes",
            |c: &mut Config| &mut c.replay.tail.bytes,
            range(0, GIB),
            "confirmed messages kept for libraries that confirm before the application reads; buys duplicates",
        ),
        key(
            "replay.tail.messages",
            |c: &mut Config| &mut c.replay.tail.messages,
            range(0, 1_000_000),
            "the same by number; 0 keeps none",
        ),
        key(
            "replay.tail.age",
            |c: &mut Config| &mut c.replay.tail.age,
            range(Duration::ZERO, HOUR),
            "the same by age; 0 keeps none",
        ),
        key(
            "replay.stall_max",
            |c: &mut Config| &mut c.replay.stall_max,
            range(MILLISECOND, DAY),
            "how long a client may take nothing while messages wait for it; then 1013",
        ),
    ]
}

fn reattach() -> Vec<Key<Config>> {
    vec![
        key(
            "reattach.grace",
            |c: &mut Config| &mut c.reattach.grace,
            |grace| grace.end().as_ref().map_or(Ok(()), range(Duration::ZERO, DAY)),
            "how long a pipe waits for a worker; then its client gets 1013; \"none\" waits for as long as the client does",
        ),
        key(
            "reattach.backoff_min",
            |c: &mut Config| &mut c.reattach.backoff_min,
            range(MILLISECOND, HOUR),
            "first wait between two rounds of dials, with full jitter; the first try is at once",
        ),
        key(
            "reattach.backoff_max",
            |c: &mut Config| &mut c.reattach.backoff_max,
            range(MILLISECOND, HOUR),
            "longest wait between two rounds of dials",
        ),
        key(
            "reattach.dials_per_minute",
            |c: &mut Config| &mut c.reattach.dials_per_minute,
            range(0, 1_000_000),
            "attaches of one pipe to one worker that may die within 2s in a minute; then it waits (0 is no limit)",
        ),
        key(
            "reattach.dials_at_once",
            |c: &mut Config| &mut c.reattach.dials_at_once,
            range(0, 1_000_000),
            "dials of one backend at a time by pipes that lost or leave another; 0 is no limit, the rest wait their turn",
        ),
    ]
}

fn moves_and_resume() -> Vec<Key<Config>> {
    vec![
        key(
            "reattach.moves_per_second",
            |c: &mut Config| &mut c.reattach.moves_per_second,
            range(0, 1_000_000),
            "planned moves that a pool begins in a second, with jitter; 0 is no limit, a drain's deadline goes before",
        ),
        key(
            "reattach.move_timeout",
            |c: &mut Config| &mut c.reattach.move_timeout,
            range(MILLISECOND, HOUR),
            "how long a planned move waits for the old worker's pong, and then for its close",
        ),
        key(
            "reattach.settle",
            |c: &mut Config| &mut c.reattach.settle,
            range(Duration::ZERO, HOUR),
            "a planned move lets the old worker answer for so long after its last message: many say pong before they read",
        ),
        key(
            "reattach.prove",
            |c: &mut Config| &mut c.reattach.prove,
            range(Duration::ZERO, HOUR),
            "a planned move keeps the old worker until the new one has been there for so long, or said something",
        ),
        key(
            "resume.grace",
            |c: &mut Config| &mut c.resume.grace,
            range(Duration::ZERO, DAY),
            "how long a pipe waits for a client that may come back",
        ),
        key(
            "resume.probe_timeout",
            |c: &mut Config| &mut c.resume.probe_timeout,
            range(MILLISECOND, HOUR),
            "a browser that answers no ping for so long makes way for one that has its cookie (routes.resume)",
        ),
        key(
            "resume.keys_file",
            |c: &mut Config| &mut c.resume.keys_file,
            any,
            "keys of the resume tokens; without a file they are made at each start",
        )
        .or("\"/var/lib/holdline/resume.keys\""),
    ]
}

fn prologue() -> Vec<Key<Config>> {
    vec![
        key(
            "prologue.messages_max",
            |c: &mut Config| &mut c.prologue.messages_max,
            range(1, 100_000),
            "messages of one conversation that are kept for the next worker; with more it ends with its worker (1012)",
        ),
        key(
            "prologue.bytes_max",
            |c: &mut Config| &mut c.prologue.bytes_max,
            range(KIB, 64 * MIB),
            "their bytes together, 64 more for each",
        ),
        key(
            "prologue.inspect_max",
            |c: &mut Config| &mut c.prologue.inspect_max,
            range(64, 16 * MIB),
            "payload bytes of a message that is looked at; a larger one is passed on and not kept",
        ),
        key(
            "prologue.within",
            |c: &mut Config| &mut c.prologue.within,
            range(MILLISECOND, HOUR),
            "a worker that has not answered what it is told again for so long is given up for the next candidate",
        ),
    ]
}

fn memory() -> Vec<Key<Config>> {
    vec![
        key(
            "memory.process_max",
            |c: &mut Config| &mut c.memory.process_max,
            off_or(16 * MIB, 64 * TIB),
            "bytes of the whole process, 0 is the limit of the cgroup or the RAM; at 80 % no new pipes, at 100 % evictions",
        ),
        key(
            "memory.evict",
            |c: &mut Config| &mut c.memory.evict,
            any,
            "who goes first of those that hold most beyond their fair share: \"lru\", \"oldest\" or \"largest\"",
        ),
    ]
}

pub(super) fn bounded_rate(rate: &Rate) -> Result<(), String> {
    const COUNT_MAX: u64 = 1 << 40;
    if rate.count <= COUNT_MAX {
        return Ok(());
    }
    Err(format!("the rate is out of range; use at most {COUNT_MAX}, or 0 for no limit"))
}

fn log_and_trace() -> Vec<Key<Config>> {
    vec![
        key(
            "log.format",
            |c: &mut Config| &mut c.log.format,
            any,
            "\"auto\" is \"text\" on a terminal and \"json\" elsewhere",
        ),
        key(
            "log.access",
            |c: &mut Config| &mut c.log.access,
            any,
            "one line for each HTTP answer: \"off\", \"combined\" as Apache and nginx write it, or \"json\"",
        ),
        key(
            "log.level",
            |c: &mut Config| &mut c.log.level,
            any,
            "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        key(
            "log.queue_bytes_max",
            |c: &mut Config| &mut c.log.queue_bytes_max,
            range(64 * KIB, GIB),
            "records that wait for a slow reader of stderr; what comes then is dropped and counted",
        ),
        key(
            "trace.otlp_endpoint",
            |c: &mut Config| &mut c.trace.otlp_endpoint,
            any,
            "the OpenTelemetry collector that spans of handshakes, attaches and reattaches go to (OTLP over HTTP)",
        )
        .or("\"http://127.0.0.1:4318\""),
    ]
}

fn absolute(directory: &Path) -> Result<(), String> {
    if directory.is_absolute() && directory != Path::new("/") {
        return Ok(());
    }
    Err("write the absolute path of a directory, as in \"/run/holdline\"; \"/\" would be every service of this machine"
        .to_owned())
}
