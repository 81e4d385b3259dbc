//! Rules over messages that are JSON: what is kept of a client's, what a worker's answer is, and what is forgotten.
//!
//! A rule is data, so that a built-in profile and what an operator adds to it are the same thing. Invariant: rules are
//! tried in their order, and the first that fits a client's message decides what is kept of it.

use std::ops::Range;
use std::time::Duration;

use super::json::{Document, Pointer, Value};
use super::words::{Awaits, Class, Classes, Down, How, Keep, Name, Told, Up, scoped};
use crate::frame::Side;

/// What a message must say at one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Test {
    /// Where.
    pub at: Pointer,
    /// What.
    pub wants: Wants,
}

/// What a value must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wants {
    /// One of these strings, or plain numbers or words.
    OneOf(Vec<String>),
    /// GraphQL that begins with this word, behind white space and comments.
    Begins(String),
    /// A string that begins with one of these.
    Prefix(Vec<String>),
    /// Anything at all.
    Present,
    /// Nothing: there is no such value.
    Absent,
}

impl Test {
    fn holds(&self, document: &Document<'_>) -> bool {
        let Some(value) = document.find(&self.at) else { return self.wants == Wants::Absent };
        let says = |fits: &dyn Fn(&str) -> bool| value.text().is_some_and(|text| fits(&text));
        match &self.wants {
            Wants::OneOf(words) => words.iter().any(|word| value.is(word)),
            Wants::Begins(word) => says(&|text| begins_with_word(text, word)),
            Wants::Prefix(words) => says(&|text| words.iter().any(|word| text.starts_with(word))),
            Wants::Present => true,
            Wants::Absent => false,
        }
    }
}

fn all_hold(tests: &[Test], document: &Document<'_>) -> bool {
    tests.iter().all(|test| test.holds(document))
}

/// Whether GraphQL source begins with `word`: commas, white space and comments count for nothing there.
fn begins_with_word(text: &str, word: &str) -> bool {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '\u{feff}');
        let Some(comment) = rest.strip_prefix('#') else { break };
        rest = comment.split_once('\n').map_or("", |(_, behind)| behind);
    }
    rest.strip_prefix(word).is_some_and(|behind| !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What is kept of a client's messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeepRule {
    /// All must hold.
    pub tests: Vec<Test>,
    /// What tells it from others of this rule; without one there is only one.
    pub key: Option<Pointer>,
    /// Which of those with one key are kept.
    pub how: How,
    /// What the worker answers.
    pub answer: Option<AnswerRule>,
    /// What of the worker's later words goes into the message.
    pub note: Option<NoteRule>,
    /// How the worker names what the message asks for; only where there is an answer with an id.
    pub map: Option<MapRule>,
}

/// The name that a worker gives to what a client asked for. The next worker gives another one, and the client goes on
/// with that which it knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapRule {
    /// Where the name stands in the answer.
    pub name: Pointer,
    /// What a message of the worker says that mentions it.
    pub tests: Vec<Test>,
    /// Where it stands there.
    pub mention: Pointer,
}

/// What a worker says that the next one must be told: how far the client has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteRule {
    /// The key of the message that is kept, as the worker names it.
    pub key: Pointer,
    /// What is noted.
    pub value: Pointer,
    /// Where it is put in the message.
    pub at: Pointer,
}

/// A worker's answer to a message that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerRule {
    /// All must hold.
    pub tests: Vec<Test>,
    /// By what an answer is told from those to other messages: where that stands in the message, and where in the answer.
    pub id: Option<(Pointer, Pointer)>,
    /// What waits for it.
    pub holds: Holds,
    /// How long it may take, if another time than the usual one.
    pub within: Option<Duration>,
}

/// What waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Nothing.
    Nothing,
    /// The replay, and what the client says from now on.
    Replay,
    /// These, and the rest of the prologue.
    Everything,
}

/// What makes kept messages superfluous.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForgetRule {
    /// Who says it.
    pub from: Side,
    /// All must hold.
    pub tests: Vec<Test>,
    /// The key of what is forgotten.
    pub key: Option<Pointer>,
    /// Of which rules.
    pub of: Classes,
}

/// The rules of one profile.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// What is kept; the place of a rule is its class.
    pub keep: Vec<KeepRule>,
    /// What is forgotten.
    pub forget: Vec<ForgetRule>,
}

/// A message, and the part of it that the rules read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub whole: &'a [u8],
    /// Where in it the JSON begins and ends.
    pub json: (usize, usize),
    /// Whether all of it is kept, and not the JSON alone.
    pub keeps_whole: bool,
    /// What is kept of it is forgotten together with the rest of this scope.
    pub scope: &'a [u8],
}

impl<'a> Part<'a> {
    /// A message that is JSON in this place.
    pub const fn document(whole: &'a [u8], place: &Range<usize>) -> Self {
        Self { whole, json: (place.start, place.end), keeps_whole: false, scope: &[] }
    }

    fn json(&self) -> &'a [u8] {
        &self.whole[self.json.0..self.json.1]
    }

    fn kept(&self) -> &'a [u8] {
        if self.keeps_whole { self.whole } else { self.json() }
    }

    /// The name that `key` finds, and where; `None` if there should be one and is not.
    fn key(&self, document: &Document<'_>, key: Option<&Pointer>) -> Option<(Box<[u8]>, Range<usize>)> {
        let Some(pointer) = key else { return Some((scoped(self.scope, b""), 0..0)) };
        let place = document.place(pointer)?;
        let name = scoped(self.scope, &document.find(pointer).map(Value::name)?);
        Some((name, self.json.0 + place.start..self.json.0 + place.end))
    }
}

/// What stands before the key of what has no name of its worker's yet: no name begins so.
const NAMELESS: &[u8] = b"?";

/// What a message has forgotten: of these rules, under this key, which stands there.
struct Forgotten {
    of: Classes,
    key: Box<[u8]>,
    place: Range<usize>,
}

impl Rules {
    /// Rules of an operator's own: what is forgotten is what any of them keeps.
    #[must_use]
    pub fn own(keep: &[KeepRule], forget: &[ForgetRule]) -> Self {
        let of = Classes::first(keep.len());
        let forget = forget.iter().map(|rule| ForgetRule { of, ..rule.clone() }).collect();
        Self { keep: keep.to_vec(), forget }
    }

    /// How long the answer to what the rule `class` keeps may take, if that has a time of its own.
    pub(super) fn within(&self, class: Class) -> Option<Duration> {
        self.keep.get(usize::from(class))?.answer.as_ref()?.within
    }

    /// These rules, and `more` behind them.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        let mut all = self.clone();
        let before = self.keep.len();
        all.keep.extend(more.keep.iter().cloned());
        all.forget.extend(more.forget.iter().map(|rule| ForgetRule { of: rule.of.behind(before), ..rule.clone() }));
        all
    }

    /// What a client's message means. What it makes superfluous is forgotten before it is kept itself.
    pub(super) fn up(&self, part: Part<'_>, out: &mut Vec<Up>) {
        let Some(document) = Document::read(part.json()) else { return };
        for Forgotten { of, key, place } in self.forgotten(Side::Client, part, &document) {
            out.push(Up::Forget(of, key, place));
        }
        if let Some(class) = self.keep.iter().position(|rule| all_hold(&rule.tests, &document)) {
            out.extend(self.kept(class, part, &document).map(Up::Keep));
        }
    }

    fn kept(&self, class: usize, part: Part<'_>, document: &Document<'_>) -> Option<Keep> {
        let rule = &self.keep[class];
        let (mut key, _) = part.key(document, rule.key.as_ref())?;
        let id = rule.answer.as_ref().and_then(|answer| answer.id.as_ref()).map(|(id, _)| id);
        let (answer, _) = part.key(document, id)?;
        let awaits = match rule.answer.as_ref().map(|answer| answer.holds) {
            None => Awaits::Nothing,
            Some(Holds::Nothing) => Awaits::Answer,
            Some(Holds::Replay) => Awaits::Start,
            Some(Holds::Everything) => Awaits::Gate,
        };
        if rule.map.is_some() {
            key = [NAMELESS, &answer].concat().into();
        }
        let (name, named_by_worker) = (Name { class: class as Class, key }, rule.map.is_some());
        Some(Keep { name, bytes: part.kept().into(), how: rule.how, awaits, answer, named_by_worker })
    }

    /// What a worker's message means.
    pub(super) fn down(&self, part: Part<'_>, out: &mut Vec<Told>) {
        let Some(document) = Document::read(part.json()) else { return };
        let place = 0..part.whole.len();
        for (class, rule) in self.keep.iter().enumerate() {
            let class = class as Class;
            if let Some(answer) = rule.answer.as_ref().filter(|answer| all_hold(&answer.tests, &document))
                && let Some((id, _)) = part.key(&document, answer.id.as_ref().map(|(_, id)| id))
            {
                let word = match &rule.map {
                    Some(map) => Down::Named(class, id, part.key(&document, Some(&map.name))),
                    None => Down::Answer(class, id),
                };
                out.push((word, place.clone()));
            }
            if let Some(note) = &rule.note
                && let Some(value) = document.find(&note.value)
                && let Some((key, _)) = part.key(&document, Some(&note.key))
            {
                out.push((Down::Note(Name { class, key }, value.raw().to_vec()), place.clone()));
            }
            if let Some(map) = rule.map.as_ref().filter(|map| all_hold(&map.tests, &document))
                && let Some((name, at)) = part.key(&document, Some(&map.mention))
            {
                out.push((Down::Mention(name), at));
            }
        }
        for Forgotten { of, key, .. } in self.forgotten(Side::Backend, part, &document) {
            out.push((Down::Forget(of, key), place.clone()));
        }
    }

    /// `bytes`, which are kept by the rule `class`, with `value` noted in them.
    pub(super) fn noted(&self, class: Class, bytes: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let note = self.keep.get(usize::from(class))?.note.as_ref()?;
        Document::read(bytes)?.with(&note.at, value)
    }

    /// `bytes`, which are kept by the rule `class`, with `id` as what the answer will be called by.
    pub(super) fn asked_as(&self, class: Class, bytes: &[u8], id: &[u8]) -> Option<Vec<u8>> {
        let (at, _) = self.keep.get(usize::from(class))?.answer.as_ref()?.id.as_ref()?;
        Document::read(bytes)?.with(at, id)
    }

    fn forgotten(&self, from: Side, part: Part<'_>, document: &Document<'_>) -> Vec<Forgotten> {
        let fits = |rule: &&ForgetRule| rule.from == from && all_hold(&rule.tests, document);
        let found = self.forget.iter().filter(fits);
        let forgotten = |rule: &ForgetRule| {
            let (key, place) = part.key(document, rule.key.as_ref())?;
            Some(Forgotten { of: rule.of, key, place })
        };
        found.filter_map(forgotten).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_told_from_other_operations_behind_comments() {
        for yes in ["subscription { a }", "  # query\n,subscription Ticks($a: Int) { a }", "subscription{a}"] {
            assert!(begins_with_word(yes, "subscription"), "{yes}");
        }
        for no in ["mutation { subscription }", "subscriptions", "# subscription", "", "{ a }"] {
            assert!(!begins_with_word(no, "subscription"), "{no}");
        }
    }
}
