//! The keys of `[limits]`: how often, how much, how many.

use super::super::Config;
use super::root::{KIB, bounded_rate};
use super::{Key, any, key, range};

pub(super) fn keys() -> Vec<Key<Config>> {
    let mut keys = clients();
    keys.extend(pipes());
    keys
}

fn clients() -> Vec<Key<Config>> {
    vec![
        key(
            "limits.key_connections",
            |c: &mut Config| &mut c.limits.key_connections,
            any,
            "connections at once per route key and client address; 0 is no limit",
        ),
        key(
            "limits.key_connections_total",
            |c: &mut Config| &mut c.limits.key_connections_total,
            any,
            "connections at once per route key, whatever their addresses; 0 is no limit",
        ),
        key(
            "limits.key_rate",
            |c: &mut Config| &mut c.limits.key_rate,
            bounded_rate,
            "new connections per route key and client address in any minute (second, hour); beyond, 429",
        ),
        key(
            "limits.address_connections",
            |c: &mut Config| &mut c.limits.address_connections,
            any,
            "connections at once per client address; 0 is no limit",
        ),
        key(
            "limits.address_rate",
            |c: &mut Config| &mut c.limits.address_rate,
            bounded_rate,
            "new connections and plain HTTP requests per client address; beyond, 429; 0 is no limit",
        ),
        key(
            "limits.address_detached",
            |c: &mut Config| &mut c.limits.address_detached,
            any,
            "pipes per client address whose client is away; beyond, the one left first ends; 0 is no limit",
        ),
        key(
            "limits.resume_failures",
            |c: &mut Config| &mut c.limits.resume_failures,
            bounded_rate,
            "resumes per client address that may fail; beyond, 429 before a token is looked at; 0 is no limit",
        ),
    ]
}

fn pipes() -> Vec<Key<Config>> {
    vec![
        key(
            "limits.pipe_messages",
            |c: &mut Config| &mut c.limits.pipe_messages,
            bounded_rate,
            "messages of each lane of a pipe, such as \"100/s\"; so many may come at once; 0 is no limit",
        ),
        key(
            "limits.pipe_bytes",
            |c: &mut Config| &mut c.limits.pipe_bytes,
            bounded_rate,
            "bytes of each lane of a pipe, such as \"1MiB/s\"; 0 is no limit",
        ),
        key(
            "limits.on_exceed",
            |c: &mut Config| &mut c.limits.on_exceed,
            any,
            "\"throttle\" slows the reader of a pipe over its limits, \"close\" closes it with 1008",
        ),
        key(
            "limits.statistics_keys",
            |c: &mut Config| &mut c.limits.statistics_keys,
            range(0, 1_000_000),
            "route keys that /v1/stats remembers pipes of; over it, the half that was quiet longest is forgotten",
        ),
        key(
            "limits.pipe_labels",
            |c: &mut Config| &mut c.limits.pipe_labels,
            range(0, 256),
            "labels of one pipe; a client whose request brings more is refused with 400, a write over the API with 422",
        ),
        key(
            "limits.pipe_label_bytes",
            |c: &mut Config| &mut c.limits.pipe_label_bytes,
            range(0, 64 * KIB),
            "bytes of their names and values together",
        ),
    ]
}
