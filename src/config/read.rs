//! Walks a tree along the schema, fills a [`Config`], and keeps every error instead of the first.

use std::collections::{BTreeMap, HashMap};

use super::checks::Finding;
use super::node::{Entry, Node, Value};
use super::notice::{Notice, Place, closest, quoted};
use super::schema::{Key, Rows, Schema, Table};
use super::{Config, checks, gaps};

/// Entries of one list of tables.
const ROWS_MAX: usize = 4096;

/// What was found so far.
pub(super) struct Reader {
    file: Option<String>,
    pub(super) errors: Vec<Notice>,
    pub(super) warnings: Vec<Notice>,
    /// Where each key and each table that was written stands, by its path.
    places: HashMap<String, Place>,
}

impl Reader {
    pub(super) fn new(file: Option<String>) -> Self {
        Self { file, errors: Vec::new(), warnings: Vec::new(), places: HashMap::new() }
    }

    /// The configuration that `root` means; good only if there are no errors afterwards.
    pub(super) fn config(&mut self, root: &Node) -> Config {
        let mut config = Config::default();
        self.table(&mut config, root, "");
        let mut found = checks::Findings::default();
        checks::check(&config, &mut found);
        // A value that was refused is still the default in `config`: what follows from it is noise.
        found.errors.retain(|finding| !self.refused(&finding.key));
        for finding in found.errors {
            let message = self.with_the_line(&finding);
            self.error(self.place(&finding.key), &finding.key, message);
        }
        for (key, message) in found.warnings {
            self.warning(self.place(&key), &key, message);
        }
        self.warn_of_gaps(&config);
        config
    }

    /// What is said of a finding, with the line of what it clashes with.
    fn with_the_line(&self, finding: &Finding) -> String {
        let Some(twin) = &finding.twin else { return finding.message.clone() };
        match self.place(twin) {
            Place::File { line, .. } => finding.message.replacen(twin, &format!("{twin} (line {line})"), 1),
            Place::Env(_) | Place::Argument { .. } | Place::Nowhere => finding.message.clone(),
        }
    }

    /// Where each key of `config` that was written stands.
    pub(super) fn written(&self, config: &Config) -> BTreeMap<String, Place> {
        let place = |path: String| Some((path.clone(), self.places.get(&path)?.clone()));
        super::schema::shown(config).into_iter().filter_map(|shown| place(shown.path)).collect()
    }

    /// Fills one table of the document.
    pub(super) fn table<T: Table>(&mut self, table: &mut T, node: &Node, path: &str) {
        self.places.insert(path.to_owned(), node.place.clone());
        let Value::Table(entries) = &node.value else {
            return self.wants_a_table(node, path);
        };
        let schema = T::schema();
        self.entries(table, &schema, entries, "", path);
        for key in schema.keys.iter().filter(|key| key.required) {
            let whole = joined(path, key.name);
            if !self.places.contains_key(&whole) {
                let sample = key.sample.unwrap_or_default();
                let message = format!("is missing; write {} = {sample}", key.name);
                self.error(node.place.clone(), &whole, message);
            }
        }
    }

    fn entries<T: Table>(&mut self, table: &mut T, schema: &Schema<T>, entries: &[Entry], prefix: &str, path: &str) {
        for entry in entries {
            let name = format!("{prefix}{}", entry.name);
            let whole = joined(path, &printable(prefix, &entry.name));
            let inside = format!("{name}.");
            let plain = !entry.name.contains('.');
            if let Some(key) = schema.keys.iter().find(|key| plain && key.name == name) {
                self.places.insert(whole.clone(), entry.node.place.clone());
                self.value(table, key, &entry.node, &whole);
            } else if let Some(rows) = schema.rows.iter().find(|rows| rows.name == name) {
                self.rows(table, rows, &entry.node, &whole);
            } else if let Some(message) = gaps::unsupported(&whole) {
                self.error(entry.place.clone(), &whole, message.to_owned());
            } else if plain && schema.keys.iter().any(|key| key.name.starts_with(&inside)) {
                let Value::Table(inner) = &entry.node.value else {
                    self.wants_a_table(&entry.node, &whole);
                    continue;
                };
                self.entries(table, schema, inner, &inside, path);
            } else {
                let message = unknown(schema, prefix, &entry.name);
                self.error(entry.place.clone(), &whole, message);
            }
        }
    }

    fn value<T>(&mut self, table: &mut T, key: &Key<T>, node: &Node, whole: &str) {
        match (key.read)(table, node) {
            Ok(()) => {
                for (place, message) in (key.doubts)(node) {
                    self.warning(place, whole, message);
                }
            }
            Err(faults) => faults.into_iter().for_each(|(place, message)| self.error(place, whole, message)),
        }
    }

    fn rows<T: Table>(&mut self, table: &mut T, rows: &Rows<T>, node: &Node, path: &str) {
        self.places.insert(path.to_owned(), node.place.clone());
        let Value::List(items) = &node.value else {
            let message = format!("cannot use {}; begin each entry with [[{}]]", node.kind(), rows.name);
            return self.error(node.place.clone(), path, message);
        };
        if items.len() > ROWS_MAX {
            return self.error(node.place.clone(), path, format!("at most {ROWS_MAX} entries"));
        }
        (rows.read)(table, items, path, self);
    }

    fn wants_a_table(&mut self, node: &Node, path: &str) {
        let message = format!("cannot use {}; use a table", node.kind());
        self.error(node.place.clone(), path, message);
    }

    fn warn_of_gaps(&mut self, config: &Config) {
        for shown in super::schema::shown(config) {
            let Some(place) = self.places.get(&shown.path) else {
                continue;
            };
            if gaps::has_effect(&shown) {
                continue;
            }
            let message = "accepted, has no effect in this version".to_owned();
            self.warning(place.clone(), &shown.path, message);
        }
    }

    pub(super) fn error(&mut self, place: Place, key: &str, message: String) {
        let notice = self.notice(place, key, message);
        self.errors.push(notice);
    }

    pub(super) fn warning(&mut self, place: Place, key: &str, message: String) {
        let notice = self.notice(place, key, message);
        self.warnings.push(notice);
    }

    fn notice(&self, place: Place, key: &str, message: String) -> Notice {
        Notice { file: self.file.clone(), place, key: key.to_owned(), message }
    }

    /// Whether something is already known to be wrong with `key` or with the list that it counts on.
    fn refused(&self, key: &str) -> bool {
        let names_a_pool = key.starts_with("routes[") && key.ends_with("].pool");
        self.errors.iter().any(|error| {
            let about_pools =
                error.key == "pools" || (error.key.starts_with("pools[") && error.key.ends_with("].name"));
            error.key == key || (names_a_pool && about_pools)
        })
    }

    /// Where `key` was written, or else the table around it.
    fn place(&self, key: &str) -> Place {
        let mut key = key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.clone();
            }
            match key.rfind(['.', '[']) {
                Some(at) => key = &key[..at],
                None => return Place::Nowhere,
            }
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

/// `name` after `prefix`, in quotes if it could not be typed without, shortened if it is too long to type.
fn printable(prefix: &str, name: &str) -> String {
    const NAME_BYTES_MAX: usize = 60;
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(bare) {
        return format!("{prefix}{name}");
    }
    format!("{prefix}{}", quoted(name))
}

fn unknown<T: Table>(schema: &Schema<T>, prefix: &str, name: &str) -> String {
    let keys = schema.keys.iter().map(|key| key.name);
    let names = keys.chain(schema.rows.iter().map(|rows| rows.name));
    let mut siblings: Vec<&str> = names
        .filter_map(|sibling| sibling.strip_prefix(prefix))
        .map(|rest| rest.split_once('.').map_or(rest, |(first, _)| first))
        .collect();
    siblings.dedup();
    match closest(name, siblings.iter().copied()) {
        Some(meant) => format!("unknown key; did you mean \"{meant}\"?"),
        None => format!("unknown key; the keys here are {}", siblings.join(", ")),
    }
}
