//! What a new configuration would stop protecting: the reason to refuse a reload that does not say that this is meant.
//!
//! A file that was emptied or cut by accident is still a valid one, and its defaults protect less. Guards are
//! `admin.tokens_file`; the bounds of where workers may register, of whose forwarding headers are believed and of whose
//! certificates are; limits, as long as they are on; and of routes their `origins`, their `auth_url`, their limits, and that they take no
//! path which workers may read as another. Another value of a guard is the operator's business; none at all is asked about.
//! Invariant: what is found of routes is about requests, not about names: a route that is renamed with its origins drops
//! nothing, and one that is removed drops its guard if a route without one answers in its place.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::{ClientAuth, Config, Limits};
use crate::routes::{Route, RouteTable};

/// What guards the requests of a route under a configuration, if it does.
type OfRoutes = fn(&Config, &Route) -> bool;

/// The guards that routes have, by what they are called.
const OF_ROUTES: [(&str, OfRoutes); 7] = [
    ("origins", |_, route| route.has_origins()),
    ("auth_url", |_, route| route.auth.is_some()),
    ("raw_path = false", |_, route| !route.takes_raw_paths()),
    ("limits.key_connections", |config, route| {
        route.limits.key_connections.unwrap_or(config.limits.key_connections) > 0
    }),
    ("limits.key_rate", |config, route| !route.limits.key_rate.unwrap_or(config.limits.key_rate).is_off()),
    ("limits.address_connections", |config, route| {
        route.limits.address_connections.unwrap_or(config.limits.address_connections) > 0
    }),
    ("limits.address_rate", |config, route| !route.limits.address_rate.unwrap_or(config.limits.address_rate).is_off()),
];

/// A configuration with its routes.
pub(super) type Ruled<'a> = (&'a Config, &'a RouteTable);

/// The guards of `running` that `new` has no more, as keys with what is meant.
pub(super) fn dropped(running: Ruled<'_>, new: Ruled<'_>) -> Vec<String> {
    let mut dropped = of_admission(running.0, new.0);
    dropped.extend(of_trust(running.0, new.0));
    dropped.extend(of_limits(&running.0.limits, &new.0.limits).map(|key| format!("limits.{key}")));
    dropped.extend(OF_ROUTES.iter().flat_map(|(name, guards)| {
        let unguarded = running.1.iter().filter(|route| is_unguarded(running, new, route, *guards));
        unguarded.map(move |route| format!("{name} of route \"{}\"", route.name)).collect::<Vec<_>>()
    }));
    dropped
}

/// Who may use the admin API, and where it lets workers be.
fn of_admission(running: &Config, new: &Config) -> Vec<String> {
    let mut dropped = Vec::new();
    if running.admin.tokens_file.is_some() && new.admin.tokens_file.is_none() {
        dropped.push("admin.tokens_file".to_owned());
    }
    if is_wider(&running.admin.backend_networks, &new.admin.backend_networks) {
        dropped.push("the bounds of admin.backend_networks".to_owned());
    }
    let known = |new: &PathBuf| running.admin.backend_sockets.iter().any(|known| new.starts_with(known));
    if !new.admin.backend_sockets.iter().all(known) {
        dropped.push("the bounds of admin.backend_sockets".to_owned());
    }
    dropped
}

/// Who is believed: proxies in front, and workers' certificates.
fn of_trust(running: &Config, new: &Config) -> Vec<String> {
    let mut dropped = Vec::new();
    if is_wider(&running.server.trusted_proxies, &new.server.trusted_proxies) {
        dropped.push("the bounds of server.trusted_proxies".to_owned());
    }
    let asks = |config: &Config| config.server.tls.client_auth == ClientAuth::Require;
    if asks(running) && !asks(new) {
        dropped.push("server.tls.client_auth".to_owned());
    }
    if running.admin.tls.client_ca.is_some() && new.admin.tls.client_ca.is_none() {
        dropped.push("admin.tls.client_ca".to_owned());
    }
    let unpinned = running
        .pools
        .iter()
        .filter(|pool| pool.tls.ca.is_some())
        .filter(|pool| new.pools.iter().any(|other| other.name == pool.name && other.tls.ca.is_none()));
    dropped.extend(unpinned.map(|pool| format!("tls.ca of pool \"{}\"", pool.name)));
    dropped
}

/// The limits that hold whatever the route, and are off now.
fn of_limits(running: &Limits, new: &Limits) -> impl Iterator<Item = &'static str> {
    let was_on = |count: fn(&Limits) -> u64| count(running) > 0 && count(new) == 0;
    [
        ("key_connections_total", was_on(|limits| limits.key_connections_total.into())),
        ("address_detached", was_on(|limits| limits.address_detached.into())),
        ("resume_failures", was_on(|limits| limits.resume_failures.count)),
        ("pipe_messages", was_on(|limits| limits.pipe_messages.count)),
        ("pipe_bytes", was_on(|limits| limits.pipe_bytes.count)),
    ]
    .into_iter()
    .filter_map(|(key, is_off)| is_off.then_some(key))
}

/// Whether some address is in `new` that was in none of `old`; two halves are not taken for their whole.
fn is_wider(old: &[IpNet], new: &[IpNet]) -> bool {
    !new.iter().all(|new| old.iter().any(|old| old.contains(new)))
}

/// Whether requests that `route` has guarded are answered by a route that does not.
fn is_unguarded(running: Ruled<'_>, (config, routes): Ruled<'_>, route: &Route, guards: OfRoutes) -> bool {
    let is_open = |other: &Route| !guards(config, other);
    guards(running.0, route)
        && (routes.iter().any(|other| other.name == route.name && is_open(other))
            || route.samples().any(|(host, path)| routes.answers(host.as_deref(), &path).is_some_and(|it| is_open(it))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARDED: &str = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"ws\"\npath = [\"/ws/{session}\", \"/old/{*rest}\"]\n\
                           hosts = [\"*.example\"]\npool = \"default\"\norigins = [\"https://app.example\"]\n";

    fn dropped_by(new: &str) -> Vec<String> {
        let read = |text: &str| Config::read(Some(("proxy.toml", text)), []).unwrap().config;
        let (running, new) = (read(GUARDED), read(new));
        let (old_routes, new_routes) = (running.route_table().unwrap(), new.route_table().unwrap());
        dropped((&running, &old_routes), (&new, &new_routes))
    }

    #[test]
    fn a_guard_is_dropped_where_a_request_is_answered_without_one() {
        let origins = ["origins of route \"ws\""];
        assert_eq!(dropped_by(GUARDED), [""; 0]);
        assert_eq!(dropped_by(""), origins, "the default route answers everything");
        assert_eq!(dropped_by(&GUARDED.replace("origins", "# origins")), origins);
        let renamed = GUARDED.replace("name = \"ws\"", "name = \"socket\"");
        assert_eq!(dropped_by(&renamed), [""; 0]);
        assert_eq!(dropped_by(&GUARDED.replace("https://app", "https://other")), [""; 0], "another guard is one");
        let elsewhere =
            "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"other\"\npath = \"/other\"\npool = \"default\"\n";
        assert_eq!(dropped_by(elsewhere), [""; 0], "what was guarded is answered by no route");
        let shadowed = format!(
            "{renamed}[[routes]]\nname = \"open\"\npath = \"/old/{{*rest}}\"\nhosts = [\"a.example\"]\npool = \"default\"\n"
        );
        assert_eq!(dropped_by(&shadowed), [""; 0], "it answers for one host of many, which no sample stands for");
        let open = renamed.replace(", \"/old/{*rest}\"", "")
            + "[[routes]]\nname = \"open\"\npath = \"/{*rest}\"\npool = \"default\"\n";
        assert_eq!(dropped_by(&open), origins, "one of its paths falls through");
    }

    /// What a file with `text` drops of one with `guarded`.
    fn dropped_of(guarded: &str, text: &str) -> Vec<String> {
        let read = |text: &str| Config::read(Some(("proxy.toml", text)), []).unwrap().config;
        let (running, new) = (read(guarded), read(text));
        dropped((&running, &running.route_table().unwrap()), (&new, &new.route_table().unwrap()))
    }

    #[test]
    fn what_bounds_who_is_believed_and_what_may_be_registered_is_a_guard() {
        for (guarded, open, names) in [
            ("[admin]\ntokens_file = \"/etc/tokens\"\n", "", "admin.tokens_file"),
            ("[admin]\nbackend_networks = [\"10.0.0.0/8\"]\n", "", "the bounds of admin.backend_networks"),
            ("", "[admin]\nbackend_networks = [\"0.0.0.0/0\", \"::/0\"]\n", "the bounds of admin.backend_networks"),
            ("", "[admin]\nbackend_sockets = [\"/srv\", \"/run\", \"/tmp\"]\n", "the bounds of admin.backend_sockets"),
            ("", "[server]\ntrusted_proxies = [\"0.0.0.0/0\"]\n", "the bounds of server.trusted_proxies"),
            ("[limits]\naddress_detached = 5\n", "[limits]\naddress_detached = 0\n", "limits.address_detached"),
            ("[limits]\npipe_bytes = \"1MiB/s\"\n", "", "limits.pipe_bytes"),
            ("[limits]\naddress_rate = \"9/min\"\n", "", "limits.address_rate of route \"default\""),
            ("", "[[routes]]\nlimits.key_rate = 0\n", "limits.key_rate of route \"default\""),
            ("[[routes]]\nauth_url = \"http://a/\"\n", "[[routes]]\n", "auth_url of route \"default\""),
            ("", "[limits]\nresume_failures = 0\n", "limits.resume_failures"),
            ("", "[[routes]]\nraw_path = true\n", "raw_path = false of route \"default\""),
            (
                "[[pools]]\nname = \"default\"\ntls.ca = \"/etc/ca.pem\"\n",
                "[[pools]]\nname = \"default\"\n",
                "tls.ca of pool \"default\"",
            ),
        ] {
            assert_eq!(dropped_of(guarded, open), [names], "{guarded:?} to {open:?}");
            assert_eq!(dropped_of(open, guarded), [""; 0], "{open:?} to {guarded:?}");
            assert_eq!(dropped_of(guarded, guarded), [""; 0]);
        }
    }

    #[test]
    fn another_value_of_a_guard_is_one() {
        for (before, after) in [
            ("[admin]\ntokens_file = \"/a\"\n", "[admin]\ntokens_file = \"/b\"\n"),
            ("[admin]\nbackend_sockets = [\"/run\"]\n", "[admin]\nbackend_sockets = [\"/run/workers\"]\n"),
            ("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n", "[server]\ntrusted_proxies = [\"10.9.0.0/16\"]\n"),
            ("[limits]\nkey_rate = \"20/min\"\n", "[limits]\nkey_rate = \"2000/s\"\n"),
        ] {
            assert_eq!(dropped_of(before, after), [""; 0]);
        }
    }
}
