//! A [`Config`] as TOML, as JSON, as the example file, and as a difference.

use sha2::{Digest, Sha256};

use super::gaps;
use super::schema::{self, Shown};
use super::{Config, env};

/// A key whose value differs between two configurations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The dotted key, as in `pools[0].balance`.
    pub key: String,
    /// Whether a running process goes on with the old value until it is restarted.
    pub needs_restart: bool,
}

/// One key that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownKey {
    /// The dotted key, with `[0]` for the entries of a list.
    pub key: String,
    /// The environment variable that sets it.
    pub variable: String,
    /// Its default as TOML; nothing where the default is absence.
    pub default: Option<String>,
}

impl Config {
    /// A digest of the effective configuration, by which two processes see whether theirs are the same.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(self.print()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The effective configuration as TOML, secrets masked; absent keys are left out.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = String::new();
        let mut table = String::new();
        for shown in schema::shown(self) {
            let (heading, here, name) = placed(&shown);
            if here != table {
                let gap = if out.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}{heading}\n"));
                table = here;
            }
            if let Some(value) = &shown.value {
                out.push_str(&format!("{name} = {value}\n"));
            }
        }
        out
    }

    /// The effective configuration as JSON, secrets masked; durations and sizes are the strings of [`Config::print`].
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let table: Option<toml::Table> = self.print().parse().ok();
        table.and_then(|table| serde_json::to_value(table).ok()).unwrap_or_default()
    }

    /// `proxy.toml.example`: every key with its default and one line of why.
    #[must_use]
    pub fn example() -> String {
        let mut out = EXAMPLE_HEAD.to_owned();
        let mut table = String::new();
        for shown in schema::every_key() {
            let (heading, here, name) = placed(&shown);
            // There is no backend, no profile and no worker by default, so their whole tables are comments.
            let is_absent = ["pools.backends", "profiles", "workers"].contains(&shown.header.as_str());
            let absent = if is_absent { "# " } else { "" };
            if here != table {
                out.push_str(&format!("\n{absent}{heading}\n"));
                table = here;
            }
            let not_yet = gaps::is_not_yet(&shown.pattern);
            let note = if not_yet { "(no effect in this version) " } else { "" };
            out.push_str(&format!("# {note}{}\n", shown.why));
            let value = shown.value.as_deref();
            let comment = if not_yet || value.is_none() { "# " } else { absent };
            let value = shown.sample.or(value).unwrap_or_default();
            out.push_str(&format!("{comment}{name} = {value}\n"));
        }
        out
    }

    /// Every key that exists.
    #[must_use]
    pub fn known_keys() -> Vec<KnownKey> {
        let known = |shown: Shown| KnownKey {
            variable: env::variable(&shown.path),
            default: shown.value.filter(|_| shown.sample.is_none()),
            key: shown.path,
        };
        schema::every_key().into_iter().map(known).collect()
    }

    /// What differs in `new`: what a reload would change, and what it could not.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (old_keys, new_keys) = (schema::shown(self), schema::shown(new));
        let value = |keys: &[Shown], path: &str| keys.iter().find(|key| key.path == path).map(|key| key.value.clone());
        let gone = old_keys.iter().filter(|old| value(&new_keys, &old.path).is_none());
        let changed = new_keys.iter().filter(|key| value(&old_keys, &key.path) != Some(key.value.clone()));
        let mut changes: Vec<Change> = gone
            .chain(changed)
            .map(|key| Change { key: key.path.clone(), needs_restart: gaps::needs_restart(&key.path) })
            .collect();
        if changes.is_empty() && self != new {
            // Only what is masked differs, and only the URLs of backends are.
            changes.push(Change { key: "pools".to_owned(), needs_restart: false });
        }
        changes
    }
}

const EXAMPLE_HEAD: &str = "\
#:schema ./holdline.schema.json
# Editors check and complete keys by the line above, beside a file that `holdline config schema` has written.
# proxy.toml: every key with its default. Durations are \"30s\", sizes \"5MiB\", rates \"20/min\".
# Each key can be set by environment: HOLDLINE_REPLAY__PIPE_BYTES_MAX=1MiB, HOLDLINE_POOLS__0__BALANCE=hash.
# `holdline check -c proxy.toml` says what is wrong with a file; `--print` shows what holds.
";

/// The heading of the table that the key stands in, which table that is, and the key from there on.
fn placed(shown: &Shown) -> (String, String, &'static str) {
    if !shown.header.is_empty() {
        let table = shown.path.strip_suffix(shown.name).unwrap_or(&shown.path);
        return (format!("[[{}]]", shown.header), table.to_owned(), shown.name);
    }
    let (section, name) = shown.name.split_once('.').unwrap_or(("", shown.name));
    (format!("[{section}]"), section.to_owned(), name)
}
