//! A route's patterns, put where paths are looked up; and what is said of one that is in the way of another.

use matchit::InsertError;

use super::host::HostPattern;
use super::{Place, Route, RouteTable};

/// Why a pattern cannot be, and the route that stands in its way, if one does.
pub(super) struct Clash {
    pub(super) message: String,
    pub(super) twin: Option<String>,
}

impl RouteTable {
    /// Inserts the patterns of the next route, each of which was written as the path of its place in `paths`.
    pub(super) fn insert(&mut self, hosts: &[HostPattern], patterns: &[String], paths: &[String]) -> Result<(), Clash> {
        let route = self.routes.len();
        let mut refused = None;
        for router in self.routers(hosts) {
            for (pattern, (spelled, path)) in patterns.iter().zip(paths).enumerate() {
                let inserted = router.insert(spelled, Place { route, pattern });
                refused = refused.or(inserted.err().map(|error| (path, error)));
            }
        }
        refused.map_or(Ok(()), |(path, error)| Err(self.clash(hosts, path, &error)))
    }

    fn clash(&self, hosts: &[HostPattern], path: &str, error: &InsertError) -> Clash {
        let InsertError::Conflict { with } = error else {
            return Clash { message: format!("`{path}`: {error}"), twin: None };
        };
        let shares_hosts = |route: &Route| match hosts {
            [] => route.hosts.is_empty(),
            hosts => route.hosts.iter().any(|host| hosts.contains(host)),
        };
        let other = self.routes.iter().find(|route| shares_hosts(route) && route.patterns.contains(with));
        let twin = other.map(|route| route.name.clone());
        let message = match &twin {
            Some(name) => format!(
                "`{path}` means the same paths as `{with}` of route `{name}`; change one, or give each its own hosts"
            ),
            None => format!("`{path}` means the same paths as `{with}` of this route; remove one"),
        };
        Clash { message, twin }
    }
}
