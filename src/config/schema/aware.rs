//! The keys of `[aware]`.

use std::time::Duration;

use super::super::Config;
use super::root::{GIB, HOUR, KIB, MILLISECOND};
use super::{Key, key, range, some};

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "aware.hello_timeout",
            |c: &mut Config| &mut c.aware.hello_timeout,
            range(MILLISECOND, HOUR),
            "how long a client that offers holdline.v1 may take for its hello; then 4905",
        ),
        key(
            "aware.window",
            |c: &mut Config| &mut c.aware.window,
            range(KIB, GIB),
            "bytes that may be on their way to such a client and not acknowledged; then its worker waits",
        ),
        key(
            "aware.ack_delay",
            |c: &mut Config| &mut c.aware.ack_delay,
            range(Duration::ZERO, HOUR),
            "how long what it said waits for its acknowledgement",
        ),
        key(
            "aware.ack_messages",
            |c: &mut Config| &mut c.aware.ack_messages,
            range(1, 1_000_000),
            "messages that are acknowledged at once, however little time has passed",
        ),
        key(
            "aware.heartbeat",
            |c: &mut Config| &mut c.aware.heartbeat,
            range(Duration::ZERO, HOUR),
            "from one heartbeat to the next; heartbeat.client_timeout says when one is missed; 0 sends none",
        ),
        key(
            "aware.retain",
            |c: &mut Config| &mut c.aware.retain,
            some(range(KIB, GIB)),
            "bytes kept for such a client while it is away, then its worker waits; aware.window if absent",
        )
        .or("\"1MiB\""),
    ]
}
