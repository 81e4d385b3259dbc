//! An operator's own rules of what is kept of a conversation, as they are written in the file.
//!
//! A rule is parsed here into what the core reads messages by; a mistake is told with its own place.

use std::time::Duration;

use holdline_core::conversation::json::Pointer;
use holdline_core::conversation::rules::{AnswerRule, ForgetRule, Holds, KeepRule, MapRule, Test, Wants};
use holdline_core::conversation::words::{Classes, How};
use holdline_core::frame::Side;

use super::{Fault, Form, Setting, basic, each, expanded, fault, quoted, string, wants};
use crate::config::node::{Entry, Node, Value};

const KEEP: &str = "a table such as { json = \"/0\", equals = \"join\", key = \"/1\" }";
const FORGET: &str = "a table such as { json = \"/0\", equals = \"leave\", key = \"/1\", from = \"client\" }";
const AWAIT: &str = "a table such as { json = \"/type\", equals = \"welcome\" }";
const MAP: &str =
    "a table such as { name = \"/result\", json = \"/method\", equals = \"event\", mention = \"/params/id\" }";
const MATCH: &str = "a table of pointers and what stands there, such as { \"/type\" = \"login\" }";

/// The entries of one table.
struct Fields {
    node: Node,
}

impl Fields {
    /// The table `node`, which has these keys at most.
    fn of(node: &Node, wanted: &str, names: &[&str]) -> Result<Self, Vec<Fault>> {
        let node = expanded(node)?;
        let Some(entries) = node.entries() else { return wants(&node, wanted) };
        let unknown = entries.iter().filter(|entry| !names.contains(&entry.name.as_str()));
        let told = |entry: &Entry| {
            let message = format!("unknown key {}; the keys here are {}", quoted(&entry.name), names.join(", "));
            (entry.place.clone(), message)
        };
        let faults: Vec<Fault> = unknown.map(told).collect();
        if faults.is_empty() { Ok(Self { node }) } else { Err(faults) }
    }

    fn get(&self, name: &str) -> Option<&Node> {
        let entry = self.node.entries()?.iter().find(|entry| entry.name == name)?;
        Some(&entry.node)
    }

    fn pointer(&self, name: &str) -> Result<Option<Pointer>, Vec<Fault>> {
        self.get(name).map(pointer).transpose()
    }

    fn needed(&self, name: &str) -> Result<Pointer, Vec<Fault>> {
        let missing = || fault(&self.node, format!("needs {name}, a JSON pointer such as \"/id\""));
        self.pointer(name)?.map_or_else(missing, Ok)
    }

    /// What a message must say: `json` and `equals`, the pairs of `match`, or both.
    fn tests(&self) -> Result<Vec<Test>, Vec<Fault>> {
        let mut tests = Vec::new();
        match (self.pointer("json")?, self.get("equals")) {
            (Some(at), Some(words)) => tests.push(Test { at, wants: Wants::OneOf(words_of(words)?) }),
            (Some(_), None) => return fault(&self.node, "json needs equals: what stands there".to_owned()),
            (None, Some(_)) => return fault(&self.node, "equals needs json: where that stands".to_owned()),
            (None, None) => {}
        }
        if let Some(node) = self.get("match") {
            let node = &expanded(node)?;
            let Some(entries) = node.entries() else { return wants(node, MATCH) };
            for entry in entries {
                let at = parsed_pointer(&entry.name).map_err(|why| vec![(entry.place.clone(), why)])?;
                tests.push(Test { at, wants: Wants::OneOf(words_of(&entry.node)?) });
            }
        }
        if tests.is_empty() {
            return fault(&self.node, "does not say which messages: add json and equals, or match".to_owned());
        }
        Ok(tests)
    }
}

fn pointer(node: &Node) -> Result<Pointer, Vec<Fault>> {
    let text = string(node, "a JSON pointer such as \"/type\"")?;
    parsed_pointer(text).or_else(|why| fault(node, why))
}

fn parsed_pointer(text: &str) -> Result<Pointer, String> {
    Pointer::parse(text).map_err(|why| format!("cannot use {}: {why}", quoted(text)))
}

/// One word or several: strings, numbers, true and false.
fn words_of(node: &Node) -> Result<Vec<String>, Vec<Fault>> {
    match &node.value {
        Value::List(_) => each(node, word),
        _ => word(node).map(|word| vec![word]),
    }
}

fn word(node: &Node) -> Result<String, Vec<Fault>> {
    match &node.value {
        Value::Integer(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => string(node, "a string, a whole number, true or false").map(str::to_owned),
    }
}

/// One of a few words.
fn choice<T: Copy>(node: &Node, words: &[(&str, T)]) -> Result<T, Vec<Fault>> {
    let all = words.iter().map(|(word, _)| quoted(word)).collect::<Vec<_>>().join(", ");
    let written = string(node, &format!("one of {all}"))?;
    let found = words.iter().find(|(word, _)| *word == written).map(|(_, value)| *value);
    found.map_or_else(|| fault(node, format!("unknown word {}; use one of {all}", quoted(written))), Ok)
}

impl Setting for KeepRule {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let fields = Fields::of(node, KEEP, &["json", "equals", "match", "key", "keep", "await", "map"])?;
        let hows = [("last", How::Last), ("all", How::All)];
        let how = fields.get("keep").map(|node| choice(node, &hows)).transpose()?.unwrap_or(How::Last);
        let mut answer = fields.get("await").map(answer).transpose()?;
        let key = fields.pointer("key")?;
        let map = fields.get("map").map(map).transpose()?;
        if let (Some(_), Some(node)) = (&map, fields.get("map")) {
            match &mut answer {
                Some(answer) if answer.id.is_some() => answer.holds = Holds::Replay,
                _ => {
                    let message = "needs await with a key: the id that the request and its answer have in common";
                    return fault(node, message.to_owned());
                }
            }
            if key.is_some() {
                return fault(node, "names what is kept; remove key".to_owned());
            }
        }
        Ok(Self { tests: fields.tests()?, key, how, answer, note: None, map })
    }

    fn show(&self) -> Option<String> {
        let mut parts = vec![shown_match(&self.tests)];
        parts.extend(self.key.as_ref().map(|key| format!("key = {}", basic(key.as_str()))));
        parts.extend((self.how == How::All).then(|| "keep = \"all\"".to_owned()));
        parts.extend(self.answer.as_ref().map(shown_answer));
        parts.extend(self.map.as_ref().map(|map| {
            let (name, mention) = (basic(map.name.as_str()), basic(map.mention.as_str()));
            format!("map = {{ name = {name}, {}, mention = {mention} }}", shown_match(&map.tests))
        }));
        Some(format!("{{ {} }}", parts.join(", ")))
    }

    fn form() -> Form {
        serde_json::json!({ "type": "object" })
    }
}

fn answer(node: &Node) -> Result<AnswerRule, Vec<Fault>> {
    let fields = Fields::of(node, AWAIT, &["json", "equals", "match", "key", "answer_key", "within"])?;
    let key = fields.pointer("key")?;
    let in_answer = fields.pointer("answer_key")?;
    let id = match (key, in_answer) {
        (Some(key), in_answer) => Some((key.clone(), in_answer.unwrap_or(key))),
        (None, None) => None,
        (None, Some(_)) => return fault(node, "answer_key needs key: where the message has the same id".to_owned()),
    };
    let within = fields.get("within").map(Duration::read).transpose()?;
    Ok(AnswerRule { tests: fields.tests()?, id, holds: Holds::Everything, within })
}

fn map(node: &Node) -> Result<MapRule, Vec<Fault>> {
    let fields = Fields::of(node, MAP, &["name", "json", "equals", "match", "mention"])?;
    Ok(MapRule { name: fields.needed("name")?, tests: fields.tests()?, mention: fields.needed("mention")? })
}

fn shown_match(tests: &[Test]) -> String {
    let words = |wants: &Wants| match wants {
        Wants::OneOf(words) => match words.as_slice() {
            [word] => basic(word),
            words => format!("[{}]", words.iter().map(|word| basic(word)).collect::<Vec<_>>().join(", ")),
        },
        // Only built-in rules want anything else, and they are not written.
        Wants::Begins(_) | Wants::Prefix(_) | Wants::Present | Wants::Absent => "true".to_owned(),
    };
    let pair = |test: &Test| format!("{} = {}", basic(test.at.as_str()), words(&test.wants));
    format!("match = {{ {} }}", tests.iter().map(pair).collect::<Vec<_>>().join(", "))
}

fn shown_answer(answer: &AnswerRule) -> String {
    let mut parts = vec![shown_match(&answer.tests)];
    if let Some((key, in_answer)) = &answer.id {
        parts.push(format!("key = {}", basic(key.as_str())));
        parts.extend((key != in_answer).then(|| format!("answer_key = {}", basic(in_answer.as_str()))));
    }
    let within = answer.within.and_then(|within| within.show());
    parts.extend(within.map(|within| format!("within = {within}")));
    format!("await = {{ {} }}", parts.join(", "))
}

impl Setting for ForgetRule {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let fields = Fields::of(node, FORGET, &["from", "json", "equals", "match", "key"])?;
        let sides = [("client", Side::Client), ("backend", Side::Backend)];
        let from = fields.get("from").map(|node| choice(node, &sides)).transpose()?.unwrap_or(Side::Client);
        Ok(Self { from, tests: fields.tests()?, key: fields.pointer("key")?, of: Classes::of(&[]) })
    }

    fn show(&self) -> Option<String> {
        let mut parts = vec![shown_match(&self.tests)];
        parts.extend(self.key.as_ref().map(|key| format!("key = {}", basic(key.as_str()))));
        parts.extend((self.from == Side::Backend).then(|| "from = \"backend\"".to_owned()));
        Some(format!("{{ {} }}", parts.join(", ")))
    }

    fn form() -> Form {
        serde_json::json!({ "type": "object" })
    }
}
