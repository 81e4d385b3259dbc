//! Rules over messages that are JSON: what is kept of a client's, what a worker's answer is, and what is forgotten.
//!
//! A rule is data, so that a built-in profile and what an operator adds to it are the same thing. Invariant: rules are
//! tried in their order, and the first that fits a client's message decides what is kept of it.

use super::json::{Document, Pointer};
use super::words::{Awaits, Classes, Down, How, Keep, Name, Told, Up};
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
    /// Anything at all.
    Present,
}

impl Test {
    fn holds(&self, document: &Document<'_>) -> bool {
        let Some(value) = document.find(&self.at) else { return false };
        match &self.wants {
            Wants::OneOf(words) => words.iter().any(|word| value.is(word)),
            Wants::Begins(word) => value.text().is_some_and(|text| begins_with_word(&text, word)),
            Wants::Present => true,
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
    /// Whether nothing more is sent before it has come.
    pub gates: bool,
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

/// The name that `key` finds in a message; `None` if it should have one and has not.
fn key_in(document: &Document<'_>, key: Option<&Pointer>) -> Option<Box<[u8]>> {
    match key {
        Some(pointer) => Some(document.find(pointer)?.name()),
        None => Some(Box::default()),
    }
}

impl Rules {
    /// What a client's message `whole` means, of which `json` is the part that is JSON.
    pub(super) fn up(&self, json: &[u8], whole: &[u8], out: &mut Vec<Up>) {
        let Some(document) = Document::read(json) else { return };
        let fits = |rule: &KeepRule| all_hold(&rule.tests, &document);
        if let Some(class) = self.keep.iter().position(fits) {
            let rule = &self.keep[class];
            let id = rule.answer.as_ref().and_then(|answer| answer.id.as_ref()).map(|(id, _)| id);
            if let Some(key) = key_in(&document, rule.key.as_ref())
                && let Some(answer) = key_in(&document, id)
            {
                let awaits = match &rule.answer {
                    None => Awaits::Nothing,
                    Some(answer) if answer.gates => Awaits::Gate,
                    Some(_) => Awaits::Answer,
                };
                let name = Name { class: class as u8, key };
                out.push(Up::Keep(Keep { name, bytes: whole.into(), how: rule.how, awaits, answer }));
            }
        }
        for (of, key) in self.forgotten(Side::Client, &document) {
            out.push(Up::Forget(of, key));
        }
    }

    /// What a worker's message means, of which `json` is the part that is JSON.
    pub(super) fn down(&self, json: &[u8], whole: &[u8], out: &mut Vec<Told>) {
        let Some(document) = Document::read(json) else { return };
        let place = 0..whole.len();
        for (class, rule) in self.keep.iter().enumerate() {
            let class = class as u8;
            if let Some(answer) = rule.answer.as_ref().filter(|answer| all_hold(&answer.tests, &document))
                && let Some(key) = key_in(&document, answer.id.as_ref().map(|(_, id)| id))
            {
                out.push((Down::Answer(class, key), place.clone()));
            }
            if let Some(note) = &rule.note
                && let Some(value) = document.find(&note.value)
                && let Some(key) = key_in(&document, Some(&note.key))
            {
                out.push((Down::Note(Name { class, key }, value.raw().to_vec()), place.clone()));
            }
        }
        for (of, key) in self.forgotten(Side::Backend, &document) {
            out.push((Down::Forget(of, key), place.clone()));
        }
    }

    /// `bytes`, which are kept by the rule `class`, with `value` noted in them.
    pub(super) fn noted(&self, class: u8, bytes: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let note = self.keep.get(usize::from(class))?.note.as_ref()?;
        Document::read(bytes)?.with(&note.at, value)
    }

    fn forgotten(&self, from: Side, document: &Document<'_>) -> Vec<(Classes, Box<[u8]>)> {
        let fits = |rule: &&ForgetRule| rule.from == from && all_hold(&rule.tests, document);
        let found = self.forget.iter().filter(fits);
        found.filter_map(|rule| Some((rule.of, key_in(document, rule.key.as_ref())?))).collect()
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
