//! The keys of `[[pools]]`.

use std::time::Duration;

use super::super::Pool;
use super::root::{HOUR, MILLISECOND};
use super::{Key, any, key, name, off_or, range, some};
use crate::net::is_server_name;

pub(super) fn keys() -> Vec<Key<Pool>> {
    let mut keys = balancing();
    keys.extend(tls());
    keys.extend(report());
    keys.extend(health());
    keys
}

fn tls() -> Vec<Key<Pool>> {
    vec![
        key(
            "tls.ca",
            |p: &mut Pool| &mut p.tls.ca,
            any,
            "whom to trust as \"wss://\" workers instead of whom the system trusts, in PEM: authorities, or the certificates themselves",
        )
        .or("\"/etc/holdline/workers.pem\""),
        key(
            "tls.cert",
            |p: &mut Pool| &mut p.tls.cert,
            any,
            "the certificate that is shown to workers which ask for one, in PEM, with those that it needs behind it",
        )
        .or("\"/etc/holdline/client.pem\""),
        key("tls.key", |p: &mut Pool| &mut p.tls.key, any, "its key, in PEM and without a passphrase")
            .or("\"/etc/holdline/client.key\""),
        key(
            "tls.server_name",
            |p: &mut Pool| &mut p.tls.server_name,
            some(|name: &String| server_name(name)),
            "what workers' certificates must name, and what is asked for (SNI), instead of the host of their URL",
        )
        .or("\"worker.internal\""),
    ]
}

fn server_name(name: &str) -> Result<(), String> {
    if is_server_name(name) {
        return Ok(());
    }
    Err("a certificate names a host or an address, as in \"worker.internal\", without scheme and port".to_owned())
}

fn report() -> Vec<Key<Pool>> {
    vec![
        key(
            "report.rss_mb",
            |p: &mut Pool| &mut p.report.rss_mb,
            |text| text.as_deref().map_or(Ok(()), pointer),
            "where the answer to an \"http\" probe says what the worker uses, in MiB: a JSON pointer",
        )
        .or("\"/resources/memory/rss_mb\""),
        key(
            "report.limit_mb",
            |p: &mut Pool| &mut p.report.limit_mb,
            |text| text.as_deref().map_or(Ok(()), pointer),
            "where it says what it may use, in MiB",
        )
        .or("\"/resources/memory/limit_mb\""),
    ]
}

/// RFC 6901 section 3.
fn pointer(text: &str) -> Result<(), String> {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && text.len() <= 256 && escaped {
        return Ok(());
    }
    Err("a JSON pointer begins with \"/\", as in \"/resources/memory/rss_mb\"; \"~\" is written \"~0\", a \"/\" within a name \"~1\"".to_owned())
}

fn balancing() -> Vec<Key<Pool>> {
    vec![
        key("name", |p: &mut Pool| &mut p.name, |text| name(text), "what routes call it"),
        key(
            "balance",
            |p: &mut Pool| &mut p.balance,
            any,
            "\"least_pipes\", \"round_robin\", \"random2\", or \"hash\" on the route's key",
        ),
        key(
            "max_pipes_per_backend",
            |p: &mut Pool| &mut p.max_pipes_per_backend,
            any,
            "pipes on one backend at once; 0 is no limit",
        ),
        key(
            "min_backends",
            |p: &mut Pool| &mut p.min_backends,
            any,
            "eligible backends that it should have: with fewer the process is degraded, and the event pool.short says so; 0 never",
        ),
        key(
            "send_proxy",
            |p: &mut Pool| &mut p.send_proxy,
            any,
            "the PROXY protocol towards workers, \"v1\" or \"v2\": each connection begins with its client's address; \"off\" sends none",
        ),
        key(
            "move_order",
            |p: &mut Pool| &mut p.move_order,
            any,
            "a planned move: \"attach_first\" has both workers for a moment, \"leave_first\" never two at once",
        ),
        key(
            "weight_from",
            |p: &mut Pool| &mut p.weight_from,
            any,
            "\"memory\": of a weight only the part counts that the worker's health page says is free; not for \"hash\"",
        ),
        key(
            "worker_memory_max",
            |p: &mut Pool| &mut p.worker_memory_max,
            any,
            "what a worker may use, where its health page names no limit; 0 is unknown",
        ),
        key(
            "resume",
            |p: &mut Pool| &mut p.resume,
            any,
            "\"aware\" offers its workers holdline.v1; \"hints\" says that they answer Holdline-Resume, which counts anyhow",
        ),
    ]
}

fn health() -> Vec<Key<Pool>> {
    vec![
        key(
            "health.kind",
            |p: &mut Pool| &mut p.health.kind,
            any,
            "a probe connects (\"tcp\"), asks for a path (\"http\"), or completes a handshake (\"ws\")",
        ),
        key(
            "health.interval",
            |p: &mut Pool| &mut p.health.interval,
            off_or(Duration::from_millis(10), HOUR),
            "from one probe to the next; 0 probes never",
        ),
        key(
            "health.timeout",
            |p: &mut Pool| &mut p.health.timeout,
            range(MILLISECOND, HOUR),
            "how long a probe may take",
        ),
        key(
            "health.fall",
            |p: &mut Pool| &mut p.health.fall,
            range(1, 1000),
            "failures in a row that make a backend down; a refused connection counts at once",
        ),
        key(
            "health.rise",
            |p: &mut Pool| &mut p.health.rise,
            range(1, 1000),
            "successes in a row that make it up again",
        ),
        key(
            "health.path",
            |p: &mut Pool| &mut p.health.path,
            |text| path(text),
            "what \"http\" and \"ws\" probes ask for",
        ),
    ]
}

fn path(path: &str) -> Result<(), String> {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if path.starts_with('/') && path.len() <= 2048 && path.bytes().all(visible) {
        return Ok(());
    }
    Err("a path begins with \"/\" and holds no spaces, as in \"/health\"".to_owned())
}
