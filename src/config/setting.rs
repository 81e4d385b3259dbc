//! How each type of value is read from the tree and written as TOML.
//!
//! What [`Setting::show`] writes, [`Setting::read`] reads as the same value; the URL of a backend is the exception,
//! because its secrets are hidden.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdline_core::settings::{CodeSet, DownPolicy};
use serde_json::json;

use super::node::{Node, Value, parse_env};
use super::notice::{Place, quoted};
use super::types::{Grace, Paths, Rate, Serves};
use super::units;

mod addresses;
mod patterns;
mod records;
mod rules;
mod words;
mod workers;

/// The grace of a pipe that waits without an end.
const ENDLESS: &str = "none";

/// Why a value was refused, and where it stands.
pub(super) type Fault = (Place, String);

/// A JSON Schema.
pub(super) type Form = serde_json::Value;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// The value of `node`.
    fn read(node: &Node) -> Result<Self, Vec<Fault>>;

    /// The value as TOML; nothing if it is absent.
    fn show(&self) -> Option<String>;

    /// The JSON Schema of what [`Setting::read`] takes from a file. It may take more than `read`, and seldom less.
    fn form() -> Form;

    /// What `read` takes from `node` and its author may not have meant.
    fn doubts(_node: &Node) -> Vec<Fault> {
        Vec::new()
    }
}

/// A closed set of words.
trait Choice: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Choice> Setting for T {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let all: Vec<String> = T::WORDS.iter().map(|(word, _)| quoted(word)).collect();
        let all = all.join(", ");
        let written = string(node, &format!("one of {all}"))?;
        match T::WORDS.iter().find(|(word, _)| *word == written) {
            Some((_, value)) => Ok(*value),
            None => fault(node, format!("unknown value {}; use one of {all}", quoted(written))),
        }
    }

    fn show(&self) -> Option<String> {
        let word = T::WORDS.iter().find(|(_, value)| value == self);
        word.map(|(word, _)| quoted(word))
    }

    fn form() -> Form {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json!({ "enum": words })
    }
}

impl Setting for bool {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        match node.boolean() {
            Some(flag) => Ok(flag),
            None => wants(node, "true or false"),
        }
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn form() -> Form {
        json!({ "type": "boolean" })
    }
}

/// A count.
impl Setting for u32 {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let count = node.integer().and_then(|count| Self::try_from(count).ok());
        count.map_or_else(|| wants(node, "a whole number from 0 to 4294967295"), Ok)
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn form() -> Form {
        json!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }
}

/// A number of bytes.
impl Setting for usize {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let bytes = match node.text() {
            Some(text) => units::size(text),
            None => node.integer().and_then(|bytes| u64::try_from(bytes).ok()),
        };
        let bytes = bytes.and_then(|bytes| Self::try_from(bytes).ok());
        bytes.map_or_else(|| wants(node, "a size such as \"5MiB\", \"128KiB\" or plain bytes"), Ok)
    }

    fn show(&self) -> Option<String> {
        let text = units::show_size(*self as u64);
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        Some(if plain { text } else { quoted(&text) })
    }

    fn form() -> Form {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, units::size_form()] })
    }
}

impl Setting for Duration {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let duration = match node.text() {
            Some(text) => units::duration(text),
            None => (node.integer() == Some(0)).then_some(Self::ZERO),
        };
        duration.map_or_else(
            || wants(node, "a duration in whole numbers with units, such as \"30s\", \"50ms\" or \"1m30s\""),
            Ok,
        )
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&units::show_duration(*self)))
    }

    fn form() -> Form {
        json!({ "anyOf": [units::duration_form(), { "const": 0 }] })
    }
}

impl Setting for Grace {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        if node.text() == Some(ENDLESS) {
            return Ok(Self::Endless);
        }
        let or_endless = |(place, message): Fault| (place, format!("{message}, or {}", quoted(ENDLESS)));
        Duration::read(node).map(Self::For).map_err(|faults| faults.into_iter().map(or_endless).collect())
    }

    fn show(&self) -> Option<String> {
        match self {
            Self::For(grace) => grace.show(),
            Self::Endless => Some(quoted(ENDLESS)),
        }
    }

    fn form() -> Form {
        json!({ "anyOf": [Duration::form(), { "const": ENDLESS }] })
    }
}

/// One pattern, or a list of them.
impl Setting for Paths {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let several = match &node.value {
            Value::List(_) => true,
            Value::Env(text) => text.trim_start().starts_with('['),
            _ => false,
        };
        if several { each(node, String::read).map(Self) } else { String::read(node).map(|path| Self(vec![path])) }
    }

    fn show(&self) -> Option<String> {
        match self.0.as_slice() {
            [path] => path.show(),
            paths => paths.to_vec().show(),
        }
    }

    fn form() -> Form {
        one_or_list(&String::form())
    }

    fn doubts(node: &Node) -> Vec<Fault> {
        let doubt = |node: Node| Some((node.place.clone(), patterns::foreign(node.text()?)?));
        each_node(node).into_iter().filter_map(doubt).collect()
    }
}

impl Setting for Rate {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let rate = match node.text() {
            Some(text) => units::rate(text),
            None => (node.integer() == Some(0)).then_some(Self::OFF),
        };
        rate.map_or_else(
            || wants(node, "a rate such as \"20/min\", \"5/s\" or \"5 per second\", or 0 for no limit"),
            Ok,
        )
    }

    fn show(&self) -> Option<String> {
        let text = units::show_rate(*self);
        Some(if self.is_off() { text } else { quoted(&text) })
    }

    fn form() -> Form {
        json!({ "anyOf": [units::rate_form(), { "const": 0 }] })
    }
}

impl Setting for DownPolicy {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "\"keep\" or \"latest:N\" with N from 1 to 1000000";
        let written = string(node, WANTED)?;
        let newest = written.strip_prefix("latest:").and_then(|count| count.parse().ok());
        match newest {
            Some(count) if (1..=1_000_000).contains(&u32::from(count)) => Ok(Self::Latest(count)),
            None if written == "keep" => Ok(Self::Keep),
            _ => wants(node, WANTED),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Keep => quoted("keep"),
            Self::Latest(count) => quoted(&format!("latest:{count}")),
        })
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^(keep|latest:[0-9]+)$" })
    }
}

impl Setting for String {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        string(node, "a string").map(str::to_owned)
    }

    fn show(&self) -> Option<String> {
        Some(basic(self))
    }

    fn form() -> Form {
        json!({ "type": "string" })
    }
}

impl Setting for PathBuf {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let path = string(node, "a path")?;
        if path.contains('\0') {
            return fault(node, "a path cannot hold a NUL".to_owned());
        }
        Ok(Self::from(path))
    }

    fn show(&self) -> Option<String> {
        self.to_string_lossy().into_owned().show()
    }

    fn form() -> Form {
        json!({ "type": "string" })
    }
}

impl Setting for CodeSet {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        each(node, code_range).map(Self::new)
    }

    fn show(&self) -> Option<String> {
        let ranges = self.ranges().map(|(low, high)| match high - low {
            0 => low.to_string(),
            _ => quoted(&format!("{low}-{high}")),
        });
        Some(format!("[{}]", ranges.collect::<Vec<_>>().join(", ")))
    }

    fn form() -> Form {
        one_or_list(&json!({
            "anyOf": [{ "type": "integer", "minimum": 1000, "maximum": 4999 }, { "type": "string", "pattern": "^[0-9]{4}" }]
        }))
    }
}

fn code_range(node: &Node) -> Result<(u16, u16), Vec<Fault>> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let range = match node.text().map(|text| (text, text.split_once('-'))) {
        Some((_, Some((low, high)))) => number(low).zip(number(high)),
        Some((text, None)) => number(text).map(|code| (code, code)),
        None => node.integer().and_then(|code| u16::try_from(code).ok()).map(|code| (code, code)),
    };
    match range {
        Some((low, high)) if low >= 1000 && high <= 4999 && low <= high => Ok((low, high)),
        _ => wants(node, "a close code from 1000 to 4999, or a range such as \"4000-4099\""),
    }
}

impl Setting for Serves {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let node = &expanded(node)?;
        if let Value::List(_) = &node.value {
            let keys: Vec<String> = Vec::read(node)?;
            return Ok(Self(keys.into_iter().map(|key| (key.clone(), key)).collect()));
        }
        if let Value::Table(_) = &node.value {
            return BTreeMap::read(node).map(Self);
        }
        wants(node, "a list of keys, or a table of keys and what the backend calls them")
    }

    fn show(&self) -> Option<String> {
        if self.0.iter().all(|(key, alias)| key == alias) {
            return self.0.keys().cloned().collect::<Vec<_>>().show();
        }
        self.0.show()
    }

    fn form() -> Form {
        let keys = json!({ "type": "array", "items": { "type": "string" } });
        json!({ "anyOf": [keys, BTreeMap::<String, String>::form()] })
    }
}

impl Setting for BTreeMap<String, String> {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let node = &expanded(node)?;
        let Some(entries) = node.entries() else {
            return wants(node, "a table of strings such as { rack = \"a1\" }");
        };
        let mut map = Self::new();
        let mut faults = Vec::new();
        for entry in entries {
            match String::read(&entry.node) {
                Ok(text) => drop(map.insert(entry.name.clone(), text)),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(map) } else { Err(faults) }
    }

    fn show(&self) -> Option<String> {
        let pairs = self.iter().map(|(key, value)| format!("{} = {}", basic(key), basic(value)));
        let pairs: Vec<_> = pairs.collect();
        Some(if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) })
    }

    fn form() -> Form {
        json!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        each(node, T::read)
    }

    fn show(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(Setting::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn form() -> Form {
        one_or_list(&T::form())
    }

    fn doubts(node: &Node) -> Vec<Fault> {
        each_node(node).iter().flat_map(T::doubts).collect()
    }
}

/// The empty string is absence: an environment variable cannot be any emptier.
impl<T: Setting> Setting for Option<T> {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        if node.text().is_some_and(str::is_empty) {
            return Ok(None);
        }
        T::read(node).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Setting::show)
    }

    fn form() -> Form {
        T::form()
    }

    fn doubts(node: &Node) -> Vec<Fault> {
        T::doubts(node)
    }
}

/// Each element of a list, or every fault of every element. A string or a table is a list of one.
fn each<T>(node: &Node, read: fn(&Node) -> Result<T, Vec<Fault>>) -> Result<Vec<T>, Vec<Fault>> {
    let node = &expanded(node)?;
    if let Value::Text(_) | Value::Table(_) = &node.value {
        return read(node).map(|value| vec![value]);
    }
    let Value::List(items) = &node.value else {
        return wants(node, "a list such as [\"a\", \"b\"]");
    };
    let mut values = Vec::with_capacity(items.len());
    let mut faults = Vec::new();
    for item in items {
        match read(item) {
            Ok(value) => values.push(value),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// The elements that [`each`] reads, for what has been read.
fn each_node(node: &Node) -> Vec<Node> {
    let Ok(node) = expanded(node) else { return Vec::new() };
    match node.value {
        Value::List(items) => items,
        Value::Text(_) | Value::Env(_) | Value::Table(_) => vec![node],
        Value::Integer(_) | Value::Decimal(_) | Value::Bool(_) | Value::Other(_) => Vec::new(),
    }
}

/// One value, or a list of them.
fn one_or_list(item: &Form) -> Form {
    json!({ "anyOf": [{ "type": "array", "items": item }, item] })
}

/// The list or table that an environment variable stands for: TOML, or `a,b` and `key=value,…`.
fn expanded(node: &Node) -> Result<Node, Vec<Fault>> {
    let Value::Env(text) = &node.value else {
        return Ok(node.clone());
    };
    let place = &node.place;
    let text = text.trim();
    if text.starts_with(['[', '{']) {
        let parsed = parse_env(text, place);
        return parsed.map_or_else(|| fault(node, format!("{} is not a TOML value", quoted(text))), Ok);
    }
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let at = |part: &str| Node { place: place.clone(), value: Value::Env(part.to_owned()) };
    let pairs: Option<Vec<_>> = parts.clone().map(|part| part.split_once('=')).collect();
    let value = match pairs {
        Some(pairs) if !pairs.is_empty() => Value::Table(
            pairs
                .into_iter()
                .map(|(name, value)| super::node::Entry {
                    name: name.to_owned(),
                    place: place.clone(),
                    node: at(value),
                })
                .collect(),
        ),
        _ => Value::List(parts.map(at).collect()),
    };
    Ok(Node { place: place.clone(), value })
}

fn string<'a>(node: &'a Node, wanted: &str) -> Result<&'a str, Vec<Fault>> {
    node.text().map_or_else(|| wants(node, wanted), Ok)
}

fn parsed<T: FromStr<Err: Display>>(node: &Node, wanted: &str) -> Result<T, Vec<Fault>> {
    let text = string(node, wanted)?;
    let refuse = |why| fault(node, format!("cannot use {}; {why}", quoted(text)));
    text.parse().or_else(refuse)
}

fn wants<T>(node: &Node, wanted: &str) -> Result<T, Vec<Fault>> {
    let got = match (node.text(), node.integer()) {
        (Some(text), _) => quoted(text),
        (None, Some(number)) => number.to_string(),
        (None, None) => node.kind().to_owned(),
    };
    fault(node, format!("cannot use {got}; use {wanted}"))
}

fn fault<T>(node: &Node, message: String) -> Result<T, Vec<Fault>> {
    Err(vec![(node.place.clone(), message)])
}

/// A TOML basic string on one line.
fn basic(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
