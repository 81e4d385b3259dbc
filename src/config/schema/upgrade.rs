//! The keys of `[upgrade]`: another process takes over from this one.

use std::time::Duration;

use super::super::Config;
use super::root::{DAY, HOUR, MILLISECOND};
use super::{Key, any, key, range, some};

/// Two sockets for each, and the memory with their snapshots: one message carries 253 descriptors.
const BATCH_MAX: u32 = 126;

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "upgrade.socket",
            |c: &mut Config| &mut c.upgrade.socket,
            any,
            "where a process of the same user comes to take over (holdline serve --take-over PATH); only it may open it",
        )
        .or("\"/run/holdline/upgrade.sock\""),
        key(
            "upgrade.binary",
            |c: &mut Config| &mut c.upgrade.binary,
            any,
            "the program that holdline upgrade starts; the one that runs, if absent",
        )
        .or("\"/usr/bin/holdline\""),
        key(
            "upgrade.ready_timeout",
            |c: &mut Config| &mut c.upgrade.ready_timeout,
            range(MILLISECOND, HOUR),
            "a new process that could not serve by then is ended, and this one serves on",
        ),
        key(
            "upgrade.batch",
            |c: &mut Config| &mut c.upgrade.batch,
            range(1, BATCH_MAX),
            "pipes that go over at a time: fewer stand still for a shorter time, more are sooner over",
        ),
        key(
            "upgrade.drain_max",
            |c: &mut Config| &mut c.upgrade.drain_max,
            some(range(Duration::ZERO, DAY)),
            "how long the old process finishes plain requests and what cannot go over; server.shutdown_grace if absent",
        )
        .or("\"30s\""),
    ]
}
