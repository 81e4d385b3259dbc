//! Environment variables, laid over the tree of the file before it is read.
//!
//! `HOLDLINE_REPLAY__PIPE_BYTES_MAX` is `replay.pipe_bytes_max`, and `HOLDLINE_POOLS__0__BALANCE` is `pools[0].balance`.
//! A name that matches no key is an error, so that a typing error is not a silent default. But every key has a section,
//! so a name without two underscores is another program's, unless it is a key with one of them forgotten.

use super::gaps;
use super::node::{Entry, Node, Value};
use super::notice::{Place, closest};
use super::schema::{self, Shown};

const PREFIX: &str = "HOLDLINE_";

/// Names with our prefix that the command line reads, and that are no keys.
const COMMAND_LINE: &[&str] = &[
    "HOLDLINE_CONFIG",
    "HOLDLINE_ADMIN",
    "HOLDLINE_ADMIN_CA",
    "HOLDLINE_ADMIN_CERT",
    "HOLDLINE_ADMIN_KEY",
    "HOLDLINE_TOKEN",
    "HOLDLINE_WORKER_LOG",
];

/// The variables of this process that may be meant for us.
pub(super) fn of_this_process() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// A variable that cannot be used: its name, its key if it has one, and why.
pub(super) type Refused = (String, String, String);

/// What was found in the environment beside what was set.
#[derive(Default)]
pub(super) struct Overlaid {
    pub(super) refused: Vec<Refused>,
    /// Variables that are not read and look as if they were meant to be: the name, and what was probably meant.
    pub(super) doubted: Vec<(String, String)>,
}

/// Sets in `root` what `variables` say; names without our prefix are other programs'.
pub(super) fn overlay(root: &mut Node, variables: impl IntoIterator<Item = (String, String)>) -> Overlaid {
    let keys = schema::every_key();
    let is_key = |flat: &str| keys.iter().any(|key| self::flat(&key.pattern) == flat);
    let with_prefix = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
    let (foreign, ours): (Vec<_>, Vec<_>) = with_prefix.partition(|(name, _)| is_foreign(name, is_key));
    let mut doubted: Vec<(String, String)> =
        foreign.into_iter().filter_map(|(name, _)| Some((name.clone(), doubt(&name, &keys)?))).collect();
    doubted.sort();
    let mut parsed: Vec<(Vec<Segment>, String, String)> =
        ours.into_iter().map(|(name, value)| (segments(&name), name, value)).collect();
    // Entries of a list are appended one after the other, whatever the order of the environment.
    parsed.sort();
    let mut refused = Vec::new();
    for (segments, name, value) in parsed {
        let (path, pattern) = (path(&segments), pattern(&segments));
        let lower = name.bytes().any(|byte| byte.is_ascii_lowercase());
        if let Some(message) = gaps::unsupported(&path) {
            refused.push((name, path, message.to_owned()));
        } else if lower || !keys.iter().any(|key| key.pattern == pattern) {
            let message = unknown(&pattern, keys.iter().map(|key| key.pattern.as_str()));
            refused.push((name, String::new(), message));
        } else {
            let place = Place::Env(name.clone());
            let leaf = Node { place, value: Value::Env(value) };
            if let Err(message) = set(root, &segments, leaf) {
                refused.push((name, path, message));
            }
        }
    }
    Overlaid { refused, doubted }
}

/// A key's pattern as a name without sections has it.
fn flat(pattern: &str) -> String {
    pattern.replace(['.', '['], "_").replace(']', "")
}

/// What was probably meant by a variable that is not read: a key without its section, or a name spelt nearly like one.
fn doubt(name: &str, keys: &[Shown]) -> Option<String> {
    /// The keys of one name that are listed.
    const LISTED_MAX: usize = 4;
    let written = name.strip_prefix(PREFIX)?.to_ascii_lowercase();
    // What Kubernetes says of a Service, also of one that is called holdline-admin.
    let of_a_service = written.split('_').any(|word| word == "port" || word == "service");
    if of_a_service || COMMAND_LINE.contains(&name) {
        return None;
    }
    let of_key = |key: &Shown| variable(&key.pattern.replace("[]", "[0]"));
    let ends = keys.iter().filter(|key| key.pattern.rsplit('.').next() == Some(&written));
    let mut meant: Vec<String> = ends.take(LISTED_MAX).map(of_key).collect();
    if meant.is_empty() {
        let commands = COMMAND_LINE.iter().map(|name| (name[PREFIX.len()..].to_ascii_lowercase(), (*name).to_owned()));
        let names: Vec<_> = commands.chain(keys.iter().map(|key| (flat(&key.pattern), of_key(key)))).collect();
        // The beginning of a name is that name: `conf` is farther from `config` than a slip is.
        let goes_on = |flat: &str| flat.strip_prefix(&written).is_some_and(|rest| !rest.contains('_'));
        let longer = names.iter().map(|(flat, _)| flat.as_str()).find(|flat| written.len() > 2 && goes_on(flat));
        let nearest = longer.or_else(|| closest(&written, names.iter().map(|(flat, _)| flat.as_str())))?;
        meant.extend(names.iter().find(|(flat, _)| flat == nearest).map(|(_, name)| name.clone()));
    }
    Some(format!("is not read; did you mean {}?", meant.join(" or ")))
}

/// The variable that sets `path`.
pub(super) fn variable(path: &str) -> String {
    let dotted = path.replace('[', ".").replace(']', "");
    format!("{PREFIX}{}", dotted.replace('.', "__").to_ascii_uppercase())
}

/// Kubernetes gives each container the address of every Service, and ours may well be called `holdline`; scripts keep
/// variables of their own.
fn is_foreign(name: &str, is_key: impl Fn(&str) -> bool) -> bool {
    let flat = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    COMMAND_LINE.contains(&name) || (!name.contains("__") && !is_key(&flat))
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Segment {
    Index(usize),
    Name(String),
}

fn segments(name: &str) -> Vec<Segment> {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let segment = |text: &str| match text.parse() {
        Ok(index) if text.bytes().all(|byte| byte.is_ascii_digit()) => Segment::Index(index),
        _ => Segment::Name(text.to_ascii_lowercase()),
    };
    rest.split("__").map(segment).collect()
}

fn path(segments: &[Segment]) -> String {
    spelled(segments, |index| index.to_string())
}

fn pattern(segments: &[Segment]) -> String {
    spelled(segments, |_| String::new())
}

fn spelled(segments: &[Segment], index: fn(usize) -> String) -> String {
    let mut path = String::new();
    for segment in segments {
        match segment {
            Segment::Index(at) => path.push_str(&format!("[{}]", index(*at))),
            Segment::Name(name) if path.is_empty() => path.push_str(name),
            Segment::Name(name) => path.push_str(&format!(".{name}")),
        }
    }
    path
}

fn unknown<'a>(pattern: &str, keys: impl Iterator<Item = &'a str>) -> String {
    match closest(pattern, keys) {
        Some(meant) => {
            let name = variable(&meant.replace("[]", "[0]"));
            format!("no such key; did you mean {name}?")
        }
        None => "no such key; write HOLDLINE_, the section, two underscores and the key, all in upper case".to_owned(),
    }
}

/// Puts `leaf` where `segments` lead, and makes the tables on the way.
///
/// A value of another type on the way is left alone: reading it is an error of its own.
fn set(node: &mut Node, segments: &[Segment], leaf: Node) -> Result<(), String> {
    let Some((first, rest)) = segments.split_first() else {
        *node = leaf;
        return Ok(());
    };
    let place = leaf.place.clone();
    let empty = |value| Node { place: place.clone(), value };
    match (first, &mut node.value) {
        (Segment::Name(name), Value::Table(entries)) => {
            let at = entries.iter().position(|entry| entry.name == *name).unwrap_or_else(|| {
                let value = match rest.first() {
                    Some(Segment::Index(_)) => Value::List(Vec::new()),
                    Some(Segment::Name(_)) | None => Value::Table(Vec::new()),
                };
                entries.push(Entry { name: name.clone(), place: place.clone(), node: empty(value) });
                entries.len() - 1
            });
            set(&mut entries[at].node, rest, leaf)
        }
        (Segment::Index(index), Value::List(items)) => {
            if *index > items.len() {
                let next = items.len();
                return Err(format!("there is no entry {index}; the next free one is {next}"));
            }
            if *index == items.len() {
                items.push(empty(Value::Table(Vec::new())));
            }
            set(&mut items[*index], rest, leaf)
        }
        // Any other pair: reading it will say that the types do not fit.
        (Segment::Name(_) | Segment::Index(_), _) => Ok(()),
    }
}
