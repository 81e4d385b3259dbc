//! The keys of `[[profiles]]`.

use holdline_core::conversation::words::RULES_MAX;

use super::super::OwnProfile;
use super::{Key, key, name, some};

pub(super) fn keys() -> Vec<Key<OwnProfile>> {
    vec![
        key("name", |p: &mut OwnProfile| &mut p.name, |text| name(text), "what routes, the API and the log call it")
            .required("\"mine\""),
        key(
            "subprotocol",
            |p: &mut OwnProfile| &mut p.subprotocol,
            some(|text: &String| name(text)),
            "the subprotocol by which routes that are \"auto\" know it",
        )
        .or("\"mine.v1\""),
        key(
            "record",
            |p: &mut OwnProfile| &mut p.record,
            |rules| few(rules),
            "what of a client's JSON is said again, as docs/conversations.md says: match, key, keep, await, map",
        )
        .required("[{ match = { \"/type\" = \"login\" } }]"),
        key(
            "forget",
            |p: &mut OwnProfile| &mut p.forget,
            |rules| at_most(rules),
            "what makes it superfluous; [{ match = { \"/type\" = \"bye\" }, from = \"client\" }] is one",
        ),
    ]
}

fn few<T>(rules: &[T]) -> Result<(), String> {
    if rules.is_empty() {
        return Err("a profile keeps something; add a rule".to_owned());
    }
    at_most(rules)
}

/// As many rules as a list of them may have.
pub(super) fn at_most<T>(rules: &[T]) -> Result<(), String> {
    if rules.len() <= RULES_MAX { Ok(()) } else { Err(format!("at most {RULES_MAX} rules")) }
}
