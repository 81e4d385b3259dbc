//! What this version knows of but does not do, and what a reload cannot change: three short lists in one place.
//!
//! The change that builds one of these deletes its line.

use super::Config;
use super::schema::Shown;

/// Keys that are read and have no effect yet, each with the value that holds all the same, if there is one.
pub(super) const NOT_YET: &[(&str, Option<&str>)] = &[];

/// Keys and sections that are refused, because to ignore them would be dangerous.
const NOT_SUPPORTED: &[(&str, &str)] = &[("cluster", "clusters are not supported yet; remove this")];

/// Keys that a running process cannot change.
const RESTART: &[&str] = &[
    "server.listen",
    "server.tls.listen",
    "server.tls.handshakes_at_once",
    "server.threads",
    "attach.listen",
    "admin.listen",
    "admin.state_file",
    "upgrade.socket",
    "log.format",
    "log.queue_bytes_max",
    "trace.otlp_endpoint",
    "hooks.url",
    "hooks.secret_file",
    "hooks.queue_max",
    "hooks.timeout",
];

/// Whether the key does something, or is set to what is the case anyway.
pub(super) fn has_effect(shown: &Shown) -> bool {
    match NOT_YET.iter().find(|(pattern, _)| *pattern == shown.pattern) {
        Some((_, holds)) => holds.is_some() && *holds == shown.value.as_deref(),
        None => true,
    }
}

/// Whether `pattern` is in [`NOT_YET`].
pub(super) fn is_not_yet(pattern: &str) -> bool {
    NOT_YET.iter().any(|(known, _)| *known == pattern)
}

/// Why `path` is refused, if it is one of those or below one.
pub(super) fn unsupported(path: &str) -> Option<&'static str> {
    let below = |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    NOT_SUPPORTED.iter().find(|(key, _)| below(key)).map(|(_, message)| *message)
}

impl Config {
    /// Takes back from `running` what only a restart changes.
    pub fn keep_what_needs_restart(&mut self, running: &Self) {
        self.trace.clone_from(&running.trace);
        self.hooks.clone_from(&running.hooks);
        self.server.listen.clone_from(&running.server.listen);
        self.server.tls.listen.clone_from(&running.server.tls.listen);
        self.server.tls.handshakes_at_once = running.server.tls.handshakes_at_once;
        self.server.threads = running.server.threads;
        self.attach.listen.clone_from(&running.attach.listen);
        self.admin.listen.clone_from(&running.admin.listen);
        self.admin.state_file.clone_from(&running.admin.state_file);
        self.upgrade.socket.clone_from(&running.upgrade.socket);
        self.log.format = running.log.format;
        self.log.queue_bytes_max = running.log.queue_bytes_max;
    }
}

/// Whether `path` needs a restart.
pub(super) fn needs_restart(path: &str) -> bool {
    RESTART.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;

    #[test]
    fn what_needs_a_restart_is_kept_and_nothing_else() {
        let text = "server = { listen = [\"127.0.0.1:1\"], threads = 3, max_connections = 7, tls = { listen = [\"127.0.0.1:3\"], handshakes_at_once = 9, certificates = [{ cert = \"c\", key = \"k\" }] } }\n\
                    attach = { listen = [\"127.0.0.1:4\"] }\n\
                    upgrade = { socket = \"u\" }\n\
                    admin = { listen = \"127.0.0.1:2\", state_file = \"s\" }\nlog = { format = \"json\", level = \"warn\", queue_bytes_max = \"2MiB\" }\n\
                    trace = { otlp_endpoint = \"http://c:1\" }\n\
                    hooks = { url = \"http://c:2\", secret_file = \"s\", queue_max = 5, timeout = \"1s\" }\n";
        let running = Config::default();
        let mut new = Config::read(Some(("proxy.toml", text)), []).unwrap().config;
        let changes = running.changes(&new);
        let mut waiting: Vec<_> =
            changes.iter().filter(|change| change.needs_restart).map(|c| c.key.as_str()).collect();
        let mut all = RESTART.to_vec();
        waiting.sort_unstable();
        all.sort_unstable();
        assert_eq!(waiting, all, "this text changes each of them");
        new.keep_what_needs_restart(&running);
        let left: Vec<_> = running.changes(&new).into_iter().map(|change| change.key).collect();
        assert_eq!(left, ["server.max_connections", "server.tls.certificates", "log.level"]);
    }

    #[test]
    fn each_listed_key_exists() {
        let keys = schema::every_key();
        let exists = |pattern: &str| keys.iter().any(|key| key.pattern == pattern);
        for (pattern, _) in NOT_YET {
            assert!(exists(pattern), "{pattern}");
        }
        for pattern in RESTART {
            assert!(exists(pattern), "{pattern}");
        }
        for (path, _) in NOT_SUPPORTED {
            assert!(!keys.iter().any(|key| unsupported(&key.pattern).is_some()), "{path}");
        }
    }
}
