//! The keys that documents name, and the table of bounds, against `proxy.toml.example` and `docs/metrics.md`.

use std::collections::BTreeMap;

use super::{documents, prose, quoted, read};

/// Keys that have the look of a bound and are none.
const NO_BOUNDS: [(&str, &str); 5] = [
    ("limits.on_exceed", "says what happens at two bounds"),
    ("pools.backends.max_pipes", "that of one backend, instead of the pool's"),
    ("pools.worker_memory_max", "what a worker may use, not Holdline"),
    ("reattach.backoff_max", "the longest of waits that grow"),
    ("upgrade.drain_max", "a time, in which the old process ends"),
];

/// Words that look like keys and are none: what a cgroup, a health page and `ctl stats` say, and programs of the guides.
const NO_KEYS: [&str; 6] = [
    "memory.stat",
    "memory.kmem.tcp.usage_in_bytes",
    "memory.rss_mb",
    "memory.rss_bytes",
    "server.on",
    "resume.numbers",
];

/// Endings of words that are files.
const FILES: [&str; 6] = [".md", ".rs", ".toml", ".sock", ".log", ".json"];

/// Each key of the example file with its table, and its value as it is written there.
fn keys() -> BTreeMap<String, String> {
    let (mut keys, mut table) = (BTreeMap::new(), String::new());
    let example = read("proxy.toml.example");
    for line in example.lines().map(|line| line.trim_start_matches("# ")) {
        let header = line.trim_start_matches('[').trim_end_matches(']');
        if line.starts_with('[')
            && !header.is_empty()
            && header.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
        {
            header.clone_into(&mut table);
        } else if let Some((key, value)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte) || byte.is_ascii_digit())
        {
            keys.entry(format!("{table}.{key}")).or_insert_with(|| value.to_owned());
        }
    }
    assert!(keys.len() > 200, "they are no longer found where this test looks: {}", keys.len());
    keys
}

/// The tables of the configuration.
fn tables(keys: &BTreeMap<String, String>) -> Vec<&str> {
    let mut tables: Vec<_> = keys.keys().filter_map(|key| key.split('.').next()).collect();
    tables.dedup();
    tables
}

/// The key that a word of a document names: `replay.window = "1MiB"` names `replay.window`.
fn key_of<'a>(word: &'a str, tables: &[&str]) -> Option<&'a str> {
    let word = word.split([' ', '=', '(']).next().unwrap_or_default();
    let (table, key) = word.split_once('.')?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
    let is_key = tables.contains(&table) && !key.is_empty() && key.bytes().all(plain) && !NO_KEYS.contains(&word);
    is_key.then_some(word).filter(|word| !FILES.iter().any(|end| word.ends_with(end)))
}

fn is_known(key: &str, keys: &BTreeMap<String, String>) -> bool {
    keys.contains_key(key) || keys.keys().any(|known| known.starts_with(&format!("{}.", key.trim_end_matches('.'))))
}

#[test]
fn documents_name_only_keys_that_there_are() {
    let keys = keys();
    let tables = tables(&keys);
    let mut unknown = Vec::new();
    for document in documents() {
        let text = prose(&read(&document));
        let named = quoted(&text).into_iter().filter_map(|word| key_of(word, &tables));
        unknown.extend(named.filter(|key| !is_known(key, &keys)).map(|key| format!("{document}: {key}")));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert_eq!(key_of("replay.window = \"1MiB\"", &tables), Some("replay.window"));
    assert!(!is_known("replay.windov", &keys));
}

/// Key and default of each row of the table of bounds.
fn rows(page: &str) -> BTreeMap<&str, &str> {
    let cells = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('`');
        let (key, default) = (cells.next()?, cells.nth(1)?);
        key.contains('.').then_some((key, default))
    });
    cells.collect()
}

/// Whether a key bounds something, by its name.
fn is_bound(key: &str) -> bool {
    let (table, name) = key.split_once('.').unwrap_or_default();
    let of_a_route = table == "routes" && name != "share_bytes_max" && name != "auth_requests_max";
    let named = name.ends_with("_max") || name.ends_with("max_bytes") || name.ends_with("at_once");
    let counted = table == "limits" || name.contains("max_") || name.ends_with("connections") || name == "window";
    !of_a_route && (named || counted) && table != "workers"
}

#[test]
fn each_bound_has_its_row_with_key_and_default() {
    let (keys, page) = (keys(), read("docs/limits.md"));
    let rows = rows(&page);
    for (key, default) in &rows {
        assert_eq!(keys.get(*key).map(String::as_str), Some(*default), "docs/limits.md: {key}");
    }
    let excused = |key: &str| NO_BOUNDS.iter().any(|(name, _)| *name == key);
    let missing: Vec<_> =
        keys.keys().filter(|key| is_bound(key) && !excused(key) && !rows.contains_key(key.as_str())).collect();
    assert!(missing.is_empty(), "docs/limits.md lacks {missing:?}");
    let needless: Vec<_> =
        NO_BOUNDS.iter().filter(|(key, _)| rows.contains_key(key) || !keys.contains_key(*key)).collect();
    assert!(needless.is_empty(), "exceptions that nothing needs: {needless:?}");
}

#[test]
fn documents_name_only_metrics_that_there_are() {
    let metrics = read("docs/metrics.md");
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let mut unknown = Vec::new();
    for document in documents() {
        let text = read(&document);
        let words = text.split(|letter: char| !is_name(letter)).filter(|word| word.starts_with("holdline_"));
        // `server.linger_*` and its like: what stands for several, and the crate.
        let words = words.filter(|word| !word.ends_with('_') && *word != "holdline_core");
        unknown.extend(words.filter(|word| !is_metric(word, &metrics)).map(|word| format!("{document}: {word}")));
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

fn is_metric(word: &str, metrics: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
    [word, base].iter().any(|name| metrics.contains(&format!("| `{name}` |")))
}
