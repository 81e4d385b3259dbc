//! The keys of `server.tls` and `admin.tls`.

use super::super::Config;
use super::root::{DAY, MILLISECOND, at_most_listeners};
use super::{Key, any, key, range};

pub(super) fn server() -> Vec<Key<Config>> {
    let mut keys = shown();
    keys.extend(clients());
    keys.extend(renewal());
    keys
}

/// What is shown to clients.
fn shown() -> Vec<Key<Config>> {
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
    ]
}

/// How clients are known.
fn clients() -> Vec<Key<Config>> {
    vec![
        key(
            "server.tls.client_auth",
            |c: &mut Config| &mut c.server.tls.client_auth,
            any,
            "certificates of clients: \"off\", \"request\" or \"require\"; a certificate above may say otherwise for its names",
        ),
        key(
            "server.tls.client_ca",
            |c: &mut Config| &mut c.server.tls.client_ca,
            any,
            "who signs the certificates of clients, in PEM",
        )
        .or("\"/etc/holdline/clients.pem\""),
        key(
            "server.tls.client_crl",
            |c: &mut Config| &mut c.server.tls.client_crl,
            any,
            "which of those are revoked: lists in PEM, one of each authority that they lead through",
        )
        .or("\"/etc/holdline/clients.crl\""),
        key(
            "server.tls.tickets",
            |c: &mut Config| &mut c.server.tls.tickets,
            any,
            "whether clients get tickets by which they resume their sessions",
        ),
        key(
            "server.tls.tickets_file",
            |c: &mut Config| &mut c.server.tls.tickets_file,
            any,
            "secrets of the tickets, one a line, the first one seals; shared by nodes, else made at each start",
        )
        .or("\"/etc/holdline/tickets\""),
    ]
}

/// How certificates are renewed, and what is worked on at once.
fn renewal() -> Vec<Key<Config>> {
    vec![
        key(
            "server.tls.acme_challenges",
            |c: &mut Config| &mut c.server.tls.acme_challenges,
            any,
            "a directory whose files are served at /.well-known/acme-challenge/ on plain listeners",
        )
        .or("\"/var/www/.well-known/acme-challenge\""),
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

pub(super) fn admin() -> Vec<Key<Config>> {
    vec![
        key(
            "admin.tls.cert",
            |c: &mut Config| &mut c.admin.tls.cert,
            any,
            "the certificate of the admin listener, in PEM, with those that it needs behind it; without one it is plain",
        )
        .or("\"/etc/holdline/admin.pem\""),
        key("admin.tls.key", |c: &mut Config| &mut c.admin.tls.key, any, "its key, in PEM and without a passphrase")
            .or("\"/etc/holdline/admin.key\""),
        key(
            "admin.tls.client_ca",
            |c: &mut Config| &mut c.admin.tls.client_ca,
            any,
            "who signs the certificates of callers, in PEM: each caller must have one then, and is an operator without tokens",
        )
        .or("\"/etc/holdline/operators.pem\""),
    ]
}
