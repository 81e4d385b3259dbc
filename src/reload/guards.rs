//! What a new configuration would stop protecting: the reason to refuse a reload that does not say that this is meant.
//!
//! A file that was emptied or cut by accident is still a valid one, and its defaults protect less. Guards are
//! `admin.tokens_file`, certificates that clients must show, and `routes.origins` of whatever route answers a request now. Invariant: what is found is about
//! requests, not about names: a route that is renamed with its origins drops nothing, and one that is removed drops its
//! guard if a route without one answers in its place.

use crate::config::{ClientAuth, Config};
use crate::routes::RouteTable;

/// The guards of `running` that `new` has no more, as keys with what is meant; `routes` are those of each.
pub(super) fn dropped(running: &Config, new: &Config, routes: (&RouteTable, &RouteTable)) -> Vec<String> {
    let tokens = running.admin.tokens_file.is_some() && new.admin.tokens_file.is_none();
    let (old_routes, new_routes) = routes;
    let unguarded = old_routes.iter().filter(|route| route.has_origins()).filter(|route| {
        let same_name = new_routes.iter().find(|other| other.name == route.name);
        same_name.is_some_and(|other| !other.has_origins())
            || route.samples().any(|(host, path)| {
                new_routes.answers(host.as_deref(), &path).is_some_and(|other| !other.has_origins())
            })
    });
    let asks = |config: &Config| config.server.tls.client_auth == ClientAuth::Require;
    let certificates = [
        ("server.tls.client_auth", asks(running) && !asks(new)),
        ("admin.tls.client_ca", running.admin.tls.client_ca.is_some() && new.admin.tls.client_ca.is_none()),
    ];
    let certificates = certificates.into_iter().filter(|(_, dropped)| *dropped).map(|(key, _)| key.to_owned());
    let tokens = tokens.then(|| "admin.tokens_file".to_owned());
    tokens
        .into_iter()
        .chain(certificates)
        .chain(unguarded.map(|route| format!("origins of route \"{}\"", route.name)))
        .collect()
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
        dropped(&running, &new, (&old_routes, &new_routes))
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

    #[test]
    fn tokens_are_a_guard() {
        let mut running = Config::default();
        running.admin.tokens_file = Some("/etc/tokens".into());
        let table = running.route_table().unwrap();
        assert_eq!(dropped(&running, &Config::default(), (&table, &table)), ["admin.tokens_file"]);
        assert_eq!(dropped(&Config::default(), &running, (&table, &table)), [""; 0]);
    }
}
