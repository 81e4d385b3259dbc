//! The keys of `server.tls`.

use super::super::Config;
use super::root::{DAY, MILLISECOND, at_most_listeners};
use super::{Key, any, key, range};

pub(super) fn keys() -> Vec<Key<Config>> {
    vec![
        key(
            "server.tls.listen",
            |c: &mut Config| &mut c.server.tls.listen,
            |listen| at_most_listeners(listen),
            "public listeners that speak TLS; server.listen stays plain",
        ),
        key(
            "server.tls.certificates",
            |c: &mut Config| &mut c.server.tls.certificates,
            any,
            "what they show, by the names in each, the first by default; [{ cert = \"tls.pem\", key = \"tls.key\" }] is one",
        ),
        key(
            "server.tls.min_version",
            |c: &mut Config| &mut c.server.tls.min_version,
            any,
            "the oldest version of TLS that is spoken: \"1.2\" or \"1.3\"",
        ),
        key(
            "server.tls.sni_strict",
            |c: &mut Config| &mut c.server.tls.sni_strict,
            any,
            "refuse clients that ask for a name which no certificate has, or for none, instead of showing the default",
        ),
        key(
            "server.tls.handshakes_at_once",
            |c: &mut Config| &mut c.server.tls.handshakes_at_once,
            range(1, 65_536),
            "TLS handshakes that are worked on at once; the rest wait, within server.handshake_timeout",
        ),
        key(
            "server.tls.reload_interval",
            |c: &mut Config| &mut c.server.tls.reload_interval,
            range(MILLISECOND, DAY),
            "from one look at the contents of the certificates' files to the next; also at each reload",
        ),
    ]
}
