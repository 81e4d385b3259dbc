//! What a new configuration would stop protecting: the reason to refuse a reload that does not say that this is meant.
//!
//! A file that was emptied or cut by accident is still a valid one, and its defaults protect less. Guards are
//! `admin.tokens_file`, and `routes.origins` and `routes.auth_url` of each route that answers a request now. Invariant:
//! what is found is about requests, not about names: a route that is renamed with its guards drops nothing, and one that
//! is removed drops its guard if a route without one answers in its place.

use std::sync::Arc;

use crate::config::Config;
use crate::routes::{Route, RouteTable};

/// The guards of `running` that `new` has no more, as keys with what is meant; `routes` are those of each.
pub(super) fn dropped(running: &Config, new: &Config, routes: (&RouteTable, &RouteTable)) -> Vec<String> {
    let tokens = running.admin.tokens_file.is_some() && new.admin.tokens_file.is_none();
    let tokens = tokens.then(|| "admin.tokens_file".to_owned());
    let origins = unguarded(routes, Route::has_origins).map(|route| format!("origins of route \"{route}\""));
    let auth = unguarded(routes, |route| route.auth.is_some()).map(|route| format!("auth_url of route \"{route}\""));
    tokens.into_iter().chain(origins).chain(auth).collect()
}

/// The old routes that have a guard, and whose requests are answered without one by the new ones.
fn unguarded<'r>(
    (old, new): (&'r RouteTable, &'r RouteTable),
    has_guard: impl Fn(&Route) -> bool + Copy + 'r,
) -> impl Iterator<Item = &'r str> {
    let drops = move |route: &&Arc<Route>| {
        let same_name = new.iter().find(|other| other.name == route.name);
        same_name.is_some_and(|other| !has_guard(other))
            || route
                .samples()
                .any(|(host, path)| new.answers(host.as_deref(), &path).is_some_and(|other| !has_guard(other)))
    };
    old.iter().filter(move |route| has_guard(route)).filter(drops).map(|route| route.name.as_str())
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
    fn a_server_that_says_who_may_connect_is_a_guard() {
        let guarded = GUARDED.replace("origins = [\"https://app.example\"]", "auth_url = \"http://a/\"");
        let read = |text: &str| Config::read(Some(("proxy.toml", text)), []).unwrap().config;
        let (running, without) = (read(&guarded), read(&guarded.replace("auth_url", "# auth_url")));
        let (old, new) = (running.route_table().unwrap(), without.route_table().unwrap());
        assert_eq!(dropped(&running, &without, (&old, &new)), ["auth_url of route \"ws\""]);
        assert_eq!(dropped(&without, &running, (&new, &old)), [""; 0]);
        let other = read(&guarded.replace("http://a/", "http://b/"));
        assert_eq!(dropped(&running, &other, (&old, &other.route_table().unwrap())), [""; 0]);
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
