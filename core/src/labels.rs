//! The groups that a pipe belongs to: names with one value each, which is how a message reaches one room of many.
//!
//! Owns what a name and a value may be, and how many of them one pipe may have. Refuses what could not be written in a
//! query, in a header or on a line of a log. Invariant: a [`Labels`] holds well-formed names and values alone, and an
//! empty one is never kept.

use std::collections::BTreeMap;
use std::fmt;

use crate::snapshot::{Read, Reader, Writer, demand};

/// Bytes of a label's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a label's value.
pub const VALUE_BYTES_MAX: usize = 256;

/// Labels that a snapshot may hold: as many as any configuration lets a pipe have.
const FROZEN_MAX: usize = 1024;

/// Memory that a label takes beside its name and its value, with its place in an index, in bytes.
const LABEL_BYTES: usize = 192;

/// How many labels one pipe may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LabelBounds {
    /// Their number.
    pub count_max: usize,
    /// The bytes of all names and values together.
    pub bytes_max: usize,
}

/// Why a label is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelError {
    /// This is no name.
    Name(String),
    /// The label of this name cannot have such a value.
    Value(String),
    /// A pipe may have so many.
    TooMany(usize),
    /// All of a pipe's may have so many bytes.
    TooLong(usize),
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{name:?} cannot name a label: use 1 to {NAME_BYTES_MAX} letters, digits, \".\", \"_\" or \"-\""
            ),
            Self::Value(name) => write!(
                f,
                "the value of the label {name:?} must be text of at most {VALUE_BYTES_MAX} bytes without control characters"
            ),
            Self::TooMany(count_max) => {
                write!(f, "a pipe may have {count_max} labels (limits.pipe_labels); drop one first")
            }
            Self::TooLong(bytes_max) => write!(
                f,
                "the names and values of a pipe's labels may have {bytes_max} bytes together (limits.pipe_label_bytes)"
            ),
        }
    }
}

impl std::error::Error for LabelError {}

/// A change of labels: some get a value, others go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Relabel(Vec<(Box<str>, Option<Box<str>>)>);

impl Relabel {
    /// Gives the label called `name` this value.
    ///
    /// # Errors
    /// It cannot be called that or have that value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LabelError> {
        check_name(name)?;
        if !is_value(value) {
            return Err(LabelError::Value(name.to_owned()));
        }
        self.0.push((name.into(), Some(value.into())));
        Ok(())
    }

    /// Takes the label called `name` away.
    ///
    /// # Errors
    /// None can be called that.
    pub fn take(&mut self, name: &str) -> Result<(), LabelError> {
        check_name(name)?;
        self.0.push((name.into(), None));
        Ok(())
    }
}

/// The change that brings a pipe all of these.
impl From<&Labels> for Relabel {
    fn from(labels: &Labels) -> Self {
        Self(labels.0.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect())
    }
}

/// The labels of one pipe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(BTreeMap<Box<str>, Box<str>>);

impl Labels {
    /// The value of the label called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels after `change`. A change that only takes some away is never refused, so that a pipe over bounds that
    /// were lowered can be brought below them.
    ///
    /// # Errors
    /// They would be more than `bounds` allow.
    pub fn changed(&self, change: &Relabel, bounds: LabelBounds) -> Result<Self, LabelError> {
        let mut labels = self.clone();
        for (name, value) in &change.0 {
            match value {
                Some(value) => drop(labels.0.insert(name.clone(), value.clone())),
                None => drop(labels.0.remove(name)),
            }
        }
        if labels.0.len() > bounds.count_max && labels.0.len() > self.0.len() {
            return Err(LabelError::TooMany(bounds.count_max));
        }
        if labels.bytes() > bounds.bytes_max && labels.bytes() > self.bytes() {
            return Err(LabelError::TooLong(bounds.bytes_max));
        }
        Ok(labels)
    }

    fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Memory that they take, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes() + self.0.len() * LABEL_BYTES
    }

    pub(crate) fn freeze(&self, out: &mut Writer) {
        out.size(self.0.len());
        for (name, value) in self.iter() {
            out.bytes(name.as_bytes());
            out.bytes(value.as_bytes());
        }
    }

    pub(crate) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        // Each has the lengths of two texts, and a name.
        let count = input.entries(FROZEN_MAX, 17)?;
        demand(count > 0, "labels")?;
        let mut labels = BTreeMap::<Box<str>, Box<str>>::new();
        for _ in 0..count {
            let name = str::from_utf8(input.bytes(NAME_BYTES_MAX)?).unwrap_or_default();
            let value = str::from_utf8(input.bytes(VALUE_BYTES_MAX)?).ok().filter(|value| is_value(value));
            let follows = labels.last_key_value().is_none_or(|(last, _)| &**last < name);
            demand(is_name(name) && value.is_some() && follows, "labels")?;
            labels.insert(name.into(), value.unwrap_or_default().into());
        }
        Ok(Self(labels))
    }
}

/// Which pipes are meant: those that have a label, with a value or with any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelSelector {
    /// The label's name.
    pub name: Box<str>,
    /// Its value; nothing means any.
    pub value: Option<Box<str>>,
}

impl LabelSelector {
    /// Reads `room:a`, or `room` for any value.
    ///
    /// # Errors
    /// No label can be called that or have that value.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let (name, value) = text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value)));
        check_name(name)?;
        if !value.is_none_or(is_value) {
            return Err(LabelError::Value(name.to_owned()));
        }
        Ok(Self { name: name.into(), value: value.map(Into::into) })
    }

    /// Whether a pipe with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        labels.get(&self.name).is_some_and(|is| self.value.as_deref().is_none_or(|wanted| wanted == is))
    }
}

fn check_name(name: &str) -> Result<(), LabelError> {
    if is_name(name) { Ok(()) } else { Err(LabelError::Name(name.chars().take(NAME_BYTES_MAX).collect())) }
}

/// Whether a label can be called `name`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: LabelBounds = LabelBounds { count_max: 3, bytes_max: 20 };

    fn change(pairs: &[(&str, Option<&str>)]) -> Relabel {
        let mut change = Relabel::default();
        for (name, value) in pairs {
            match value {
                Some(value) => change.set(name, value).unwrap(),
                None => change.take(name).unwrap(),
            }
        }
        change
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels(pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn a_change_sets_some_labels_takes_others_and_leaves_the_rest() {
        let before = labels(&[("room", "a"), ("user", "7")]);
        let after = before.changed(&change(&[("room", Some("b")), ("user", None), ("vip", Some(""))]), BOUNDS);
        assert_eq!(after, Ok(labels(&[("room", "b"), ("vip", "")])));
    }

    #[test]
    fn a_pipe_has_as_many_labels_and_bytes_as_it_may_and_not_one_more() {
        let of = |pairs: &[(&str, Option<&str>)]| Labels::default().changed(&change(pairs), BOUNDS);
        assert!(of(&[("a", Some("")), ("b", Some("")), ("c", Some(""))]).is_ok());
        let four = of(&[("a", Some("")), ("b", Some("")), ("c", Some("")), ("d", Some(""))]);
        assert_eq!(four, Err(LabelError::TooMany(3)));
        assert!(of(&[("a", Some("0123456789012345678"))]).is_ok());
        assert_eq!(of(&[("a", Some("01234567890123456789"))]), Err(LabelError::TooLong(20)));
    }

    #[test]
    fn a_pipe_over_bounds_that_were_lowered_can_be_brought_below_them() {
        let before = labels(&[("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]);
        assert!(before.changed(&change(&[("e", None)]), BOUNDS).is_ok());
        assert!(before.changed(&change(&[("d", Some("x"))]), BOUNDS).is_ok(), "it has this one already");
        assert_eq!(before.changed(&change(&[("f", Some(""))]), BOUNDS), Err(LabelError::TooMany(3)));
    }

    #[test]
    fn names_and_values_are_bounded_and_can_be_written_anywhere() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a:b", "a=b", "a,b", "é", &long] {
            assert!(matches!(Relabel::default().set(bad, ""), Err(LabelError::Name(_))), "{bad:?}");
            assert!(matches!(Relabel::default().take(bad), Err(LabelError::Name(_))), "{bad:?}");
        }
        let long = "v".repeat(VALUE_BYTES_MAX + 1);
        for bad in ["a\nb", "\0", "\u{85}", &long] {
            assert_eq!(Relabel::default().set("a", bad), Err(LabelError::Value("a".into())), "{bad:?}");
        }
        for good in ["", "a b", "a:b", "é,=%", &long[1..]] {
            assert_eq!(Relabel::default().set(&"n".repeat(NAME_BYTES_MAX), good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn a_selector_means_a_value_or_any() {
        let (in_a, vip) = (labels(&[("room", "a:1")]), labels(&[("vip", "")]));
        let selects = |text: &str, labels: &Labels| LabelSelector::parse(text).unwrap().selects(labels);
        for (text, selected) in
            [("room:a:1", true), ("room", true), ("room:a", false), ("room:", false), ("vip", false)]
        {
            assert_eq!(selects(text, &in_a), selected, "{text}");
        }
        assert!(selects("vip", &vip) && selects("vip:", &vip) && !selects("vip:x", &vip));
        for bad in ["", ":a", "a b:c", "a:\n"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad:?}");
        }
    }
}
