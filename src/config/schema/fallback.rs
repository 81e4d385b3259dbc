//! The keys of `[http_fallback]`: clients that are on no socket.

use std::time::Duration;

use super::super::Config;
use super::root::{KIB, MIB};
use super::{Key, key, range};

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "http_fallback.poll_wait_max",
            |c: &mut Config| &mut c.http_fallback.poll_wait_max,
            range(Duration::from_secs(1), Duration::from_secs(300)),
            "a poll that asks to wait longer is answered after so long; below what proxies in front allow",
        ),
        key(
            "http_fallback.poll_bytes_max",
            |c: &mut Config| &mut c.http_fallback.poll_bytes_max,
            range(KIB, 16 * MIB),
            "bytes of one answer to a poll; a longer message is an answer by itself",
        ),
        key(
            "http_fallback.post_bytes_max",
            |c: &mut Config| &mut c.http_fallback.post_bytes_max,
            range(KIB, 64 * MIB),
            "bytes of one request with messages; above it 413",
        ),
        key(
            "http_fallback.early_posts_max",
            |c: &mut Config| &mut c.http_fallback.early_posts_max,
            range(0, 10_000),
            "requests of one client that wait for an earlier message; more are answered 409 at once",
        ),
        key(
            "http_fallback.early_bytes_max",
            |c: &mut Config| &mut c.http_fallback.early_bytes_max,
            range(0, 64 * MIB),
            "bytes of theirs",
        ),
    ]
}
