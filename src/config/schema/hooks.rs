//! The keys of `[hooks]`.

use super::super::Config;
use super::root::{HOUR, MILLISECOND};
use super::{Key, any, key, range};

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "hooks.url",
            |c: &mut Config| &mut c.hooks.url,
            any,
            "server that is told when pipes open, end, lose their client and get it back, by signed POSTs of JSON",
        )
        .or("\"https://hooks.internal/holdline\""),
        key(
            "hooks.secret_file",
            |c: &mut Config| &mut c.hooks.secret_file,
            any,
            "what the POSTs are signed with (Holdline-Signature); a hooks.url needs one",
        )
        .or("\"/etc/holdline/hooks.secret\""),
        key(
            "hooks.queue_max",
            |c: &mut Config| &mut c.hooks.queue_max,
            range(1, 1_000_000),
            "events that wait for the server; what comes then is dropped and counted",
        ),
        key(
            "hooks.timeout",
            |c: &mut Config| &mut c.hooks.timeout,
            range(MILLISECOND, HOUR),
            "how long the server has to answer; then it is asked again, later and later",
        ),
    ]
}
