//! What is wrong with a configuration, and where: one line for a person, fields for a program.

use std::fmt;

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// In the file, both counted from 1; columns are characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In this argument of the command line.
    Argument {
        /// The option.
        name: &'static str,
        /// Which of several it is, counted from 1.
        number: usize,
    },
    /// In this environment variable.
    Env(String),
    /// Nowhere: something is missing, or the whole file is meant.
    Nowhere,
}

/// One error or one warning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The file as it was named, if there is one.
    pub file: Option<String>,
    /// Where in it, or in which variable.
    pub place: Place,
    /// The dotted key, as in `routes[1].pool`; empty where none is meant.
    pub key: String,
    /// What is wrong and what to do; never a secret.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.file) {
            (Place::File { line, column }, Some(file)) => write!(f, "{file}:{line}:{column}: ")?,
            (Place::File { line, column }, None) => write!(f, "{line}:{column}: ")?,
            (Place::Argument { name, number: 1 }, _) => write!(f, "{name}: ")?,
            (Place::Argument { name, number }, _) => write!(f, "{name} number {number}: ")?,
            (Place::Env(name), _) => write!(f, "environment {name}: ")?,
            (Place::Nowhere, Some(file)) => write!(f, "{file}: ")?,
            (Place::Nowhere, None) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no [`super::Config`]: every error that was found, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// At least one.
    pub errors: Vec<Notice>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        match self.errors.len() {
            1 => f.write_str("1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl std::error::Error for Invalid {}

/// The candidate that `word` was probably meant to be.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word of this length is no typing error, and the distance would cost its square.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let tolerated = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= tolerated)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `text` in quotes, shortened, without control characters.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short = String::from('"');
    for c in text.chars().take(CHARS_MAX) {
        if c.is_control() {
            short.extend(c.escape_default());
        } else {
            short.push(c);
        }
    }
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short.push('"');
    short
}
