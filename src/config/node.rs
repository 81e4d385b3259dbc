//! A document as a tree in which every value knows where it was written.
//!
//! File and environment meet here, so that what reads the tree has one kind of input. Parsing TOML is left to the
//! `toml` crate, which bounds the nesting.

use toml::de::{DeTable, DeValue};

use super::notice::Place;
use super::syntax;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Decimal(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// The text of an environment variable, whose type is what its key wants.
    Env(String),
    /// Something that no key wants: a date, an integer beyond 64 bits.
    Other(&'static str),
}

/// One `key = value` of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the name was written.
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The text of a string or of an environment variable.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Env(text) => Some(text),
            Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) => None,
            Value::Decimal(_) | Value::Other(_) => None,
        }
    }

    /// The truth value, also of an environment variable.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.value {
            Value::Bool(flag) => Some(*flag),
            Value::Env(text) => text.parse().ok(),
            Value::Text(_) | Value::Integer(_) | Value::List(_) | Value::Table(_) => None,
            Value::Decimal(_) | Value::Other(_) => None,
        }
    }

    /// The entries of a table; an empty list, which an empty variable is, has none.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            Value::List(items) => items.is_empty().then_some(&[]),
            Value::Text(_) | Value::Integer(_) | Value::Bool(_) | Value::Env(_) => None,
            Value::Decimal(_) | Value::Other(_) => None,
        }
    }

    /// The number, also of an environment variable.
    pub(super) fn integer(&self) -> Option<i64> {
        match &self.value {
            Value::Integer(number) => Some(*number),
            Value::Env(text) => text.parse().ok(),
            Value::Text(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) => None,
            Value::Decimal(_) | Value::Other(_) => None,
        }
    }

    /// What it is, for a message that wanted something else.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Text(_) | Value::Env(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Decimal(_) => "a decimal number",
            Value::Bool(_) => "a boolean",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// The tree of a whole document.
///
/// # Errors
/// Each slip with its place.
pub(super) fn parse(text: &str) -> Result<Node, Vec<(Place, String)>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let value = Value::Table(entries(table.get_ref(), &|at| lines.place(at)));
        let place = Place::Nowhere;
        return Ok(Node { place, value });
    }
    Err(syntax::slips(text, &lines).into_iter().map(|(at, message)| (lines.place(at), message)).collect())
}

/// The list or inline table that an environment variable holds, if it does.
pub(super) fn parse_env(text: &str, place: &Place) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    Some(node(value.get_ref(), place.clone(), &|_| place.clone()))
}

type Locate<'a> = &'a dyn Fn(usize) -> Place;

fn entries(table: &DeTable<'_>, locate: Locate<'_>) -> Vec<Entry> {
    let entry = |(name, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &toml::Spanned<std::borrow::Cow<'_, str>> = name;
        Entry {
            name: name.get_ref().to_string(),
            place: locate(name.span().start),
            node: node(value.get_ref(), locate(value.span().start), locate),
        }
    };
    table.iter().map(entry).collect()
}

fn node(value: &DeValue<'_>, place: Place, locate: Locate<'_>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
        DeValue::Float(digits) => digits.as_str().parse().map_or(Value::Other("a decimal number"), Value::Decimal),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(_) => Value::Other("a date or time of day"),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| node(item.get_ref(), locate(item.span().start), locate)).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, locate)),
    };
    Node { place, value }
}

/// The offsets at which lines begin.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_newlines).collect();
        Self { text, starts }
    }

    /// The line of an offset, counted from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).max(1)
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        let column = before.chars().count() + 1;
        Place::File { line, column }
    }
}
