//! The keys of `[attach]`: workers that dial in.

use std::time::Duration;

use super::super::Config;
use super::root::{HOUR, at_most_listeners};
use super::{Key, key, range};

/// Three of them are a lease, which lasts for an hour at most.
const HEARTBEAT_MAX: Duration = Duration::from_secs(600);

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "attach.listen",
            |c: &mut Config| &mut c.attach.listen,
            |listen| at_most_listeners(listen),
            "where workers dial in that cannot be dialled (GET /v1/attach, holdline agent); TLS by server.tls.certificates",
        ),
        key(
            "attach.parked_max",
            |c: &mut Config| &mut c.attach.parked_max,
            range(1, 65_536),
            "connections that one worker may have parked",
        ),
        key(
            "attach.parked_total_max",
            |c: &mut Config| &mut c.attach.parked_total_max,
            range(1, 1_000_000),
            "the same for all workers; each takes a descriptor",
        ),
        key(
            "attach.wait",
            |c: &mut Config| &mut c.attach.wait,
            range(Duration::ZERO, HOUR),
            "how long a dial waits where a worker has no connection parked any more, and is there all the same",
        ),
        key(
            "attach.waiting_max",
            |c: &mut Config| &mut c.attach.waiting_max,
            range(0, 1_000_000),
            "dials that wait for one worker so; more fail at once",
        ),
        key(
            "attach.heartbeat",
            |c: &mut Config| &mut c.attach.heartbeat,
            range(Duration::from_millis(100), HEARTBEAT_MAX),
            "from one sign of life on a parked connection to the next, each way; after three without one it is closed",
        ),
    ]
}
