//! Slips in TOML, told one by one: each once, where it was made, with the words of an operator.
//!
//! The parser of the `toml` crate goes on after an error, and what it says then is mostly an echo: a bracket that is not
//! closed makes an error of every line below it. So brackets are looked at first, by tokens, and what is behind one that
//! is not closed is parsed again on its own.

use std::collections::HashMap;

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

use super::node::Lines;
use super::notice::quoted;

/// What follows the first few slips says nothing that they do not.
const SLIPS_MAX: usize = 10;

/// Each slip of `text` with its offset, in order; none if it is TOML.
pub(super) fn slips(text: &str, lines: &Lines<'_>) -> Vec<(usize, String)> {
    let outline = Outline::of(text);
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut from = 0;
    for gap in outline.gaps.iter().take(SLIPS_MAX) {
        let mut errors = outline.errors(text, from, lines);
        // What the parser says of the gap itself says only where it gave up.
        errors.retain(|(at, message)| {
            *at < gap.end && !message.starts_with("unclosed array,") && !message.starts_with("unclosed inline")
        });
        // What is wrong inside, such as a string without its end, is also why it is not closed.
        let outside = errors.partition_point(|(at, _)| *at < gap.open);
        errors.truncate(outside + 1);
        if errors.len() == outside {
            errors.push((gap.open, gap.told(lines)));
        }
        found.extend(errors);
        from = gap.end;
    }
    found.extend(outline.errors(text, from, lines));
    found.dedup_by_key(|(at, _)| lines.line(*at));
    found.truncate(SLIPS_MAX);
    found
}

/// A bracket that is not closed.
struct Gap {
    kind: TokenKind,
    /// Where it opens.
    open: usize,
    /// Where something begins that cannot stand in it, or the end of the text.
    end: usize,
    at_the_end: bool,
}

impl Gap {
    fn told(&self, lines: &Lines<'_>) -> String {
        let (what, close) = match self.kind {
            TokenKind::LeftCurlyBracket => ("inline table", "}"),
            _ => ("array", "]"),
        };
        let before =
            if self.at_the_end { "the end of the file".to_owned() } else { format!("line {}", lines.line(self.end)) };
        format!("the {what} that opens here is not closed; write \"{close}\" before {before}")
    }
}

/// One `key = value` or one `[header]`.
struct Statement {
    at: usize,
    /// The whole key, with a number for each entry of a list.
    path: String,
    /// Where the key ends.
    key_end: usize,
}

/// A text by its tokens: which keys it sets, and which brackets it leaves open.
struct Outline {
    statements: Vec<Statement>,
    gaps: Vec<Gap>,
}

impl Outline {
    fn of(text: &str) -> Self {
        let tokens = Source::new(text).lex().into_vec();
        let mut reading = Reading::new(text);
        let mut begins = true;
        for (index, token) in tokens.iter().enumerate() {
            let kind = token.kind();
            if begins && !matches!(kind, TokenKind::Whitespace | TokenKind::Newline | TokenKind::Comment) {
                reading.line(&tokens[index..]);
                begins = false;
            }
            begins = begins || kind == TokenKind::Newline;
            reading.bracket(*token);
        }
        reading.gap(text.len(), true);
        Self { statements: reading.statements, gaps: reading.gaps }
    }

    /// What the parser says of `text` from `from` on.
    fn errors(&self, text: &str, from: usize, lines: &Lines<'_>) -> Vec<(usize, String)> {
        let before: String = text[..from].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        let (_, errors) = DeTable::parse_recoverable(&(before + &text[from..]));
        let told = errors.iter().map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            let message = match error.message() {
                "duplicate key" => self.duplicate(text, span.start, text.get(span.clone()).unwrap_or_default(), lines),
                message => unquoted(message, &text[span.start..]).unwrap_or_else(|| message.to_owned()),
            };
            (span.start, message)
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|(at, _)| *at);
        told
    }

    fn duplicate(&self, text: &str, at: usize, name: &str, lines: &Lines<'_>) -> String {
        let name = quoted(name.trim_matches(['"', '\'']));
        let own = self.statements.partition_point(|statement| statement.at <= at).checked_sub(1);
        let first = own.and_then(|own| {
            let (before, rest) = self.statements.split_at(own);
            before.iter().find(|earlier| earlier.path == rest[0].path && at < rest[0].key_end)
        });
        let is_table = own.is_some_and(|own| text[self.statements[own].at..].starts_with('['));
        let what = if is_table { "table" } else { "key" };
        match first {
            Some(first) => format!("duplicate {what} {name}: line {} has it already; remove one", lines.line(first.at)),
            None => format!("duplicate {what} {name}; remove one"),
        }
    }
}

/// The walk over the tokens.
struct Reading<'a> {
    text: &'a str,
    open: Vec<(TokenKind, usize)>,
    /// Whether a value is read, in which brackets are arrays and tables.
    in_value: bool,
    /// The header above, resolved.
    table: String,
    /// How many entries each list of tables has so far, by its path without numbers.
    entries: HashMap<String, usize>,
    statements: Vec<Statement>,
    gaps: Vec<Gap>,
}

impl<'a> Reading<'a> {
    fn new(text: &'a str) -> Self {
        let (open, statements, gaps) = (Vec::new(), Vec::new(), Vec::new());
        Self { text, open, in_value: false, table: String::new(), entries: HashMap::new(), statements, gaps }
    }

    /// A line begins with `rest`: a statement, unless it goes on with an array or a table.
    fn line(&mut self, rest: &[Token]) {
        let header = header(rest);
        if !self.open.is_empty() {
            let in_array = self.open.last().is_some_and(|(kind, _)| *kind == TokenKind::LeftSquareBracket);
            let ends_it = (in_array && key(rest).is_some()) || header.is_some_and(|header| self.names_a_table(header));
            if !ends_it {
                return;
            }
            self.gap(rest[0].span().start(), false);
        }
        self.in_value = false;
        let at = rest[0].span().start();
        if let Some(header) = header {
            let parts = self.parts(header);
            let is_list = header[1].kind() == TokenKind::LeftSquareBracket;
            if is_list {
                *self.entries.entry(parts.join(".")).or_default() += 1;
            }
            self.table = self.resolved(&parts);
            self.statements.push(Statement { at, path: self.table.clone(), key_end: end(header) });
        } else if let Some(key) = key(rest) {
            let path = format!("{}.{}", self.table, self.parts(key).join("."));
            self.statements.push(Statement { at, path, key_end: end(key) });
        }
    }

    fn bracket(&mut self, token: Token) {
        match token.kind() {
            TokenKind::Equals => self.in_value = true,
            TokenKind::Newline if self.open.is_empty() => self.in_value = false,
            kind @ (TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket) if self.in_value => {
                self.open.push((kind, token.span().start()));
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket if self.in_value => drop(self.open.pop()),
            _ => {}
        }
    }

    /// What is open still is not closed before `end`.
    fn gap(&mut self, end: usize, at_the_end: bool) {
        if let Some((kind, open)) = self.open.pop() {
            self.gaps.push(Gap { kind, open, end, at_the_end });
        }
        self.open.clear();
    }

    /// Whether a line in brackets is a header rather than an array within one: nothing but bare words.
    fn names_a_table(&self, header: &[Token]) -> bool {
        let parts = self.parts(header);
        parts.iter().all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && !["true", "false", "inf", "nan"].contains(&part.as_str())
        })
    }

    /// The names of a key or a header.
    fn parts(&self, tokens: &[Token]) -> Vec<String> {
        let names = tokens.iter().filter(|token| is_name(token.kind()));
        let name =
            |token: &Token| self.text[token.span().start()..token.span().end()].trim_matches(['"', '\'']).to_owned();
        names.map(name).collect()
    }

    /// The path of a header, in which each list stands for its newest entry.
    fn resolved(&self, parts: &[String]) -> String {
        let (mut plain, mut path) = (String::new(), String::new());
        for part in parts {
            if !plain.is_empty() {
                plain.push('.');
            }
            plain.push_str(part);
            path.push_str(&format!(".{part}"));
            if let Some(count) = self.entries.get(&plain) {
                path.push_str(&format!("[{count}]"));
            }
        }
        path
    }
}

/// What is wrong where the parser looked for a value and found `rest`: a word without quotes, or nothing.
fn unquoted(message: &str, rest: &str) -> Option<String> {
    const AT_A_VALUE: [&str; 3] = ["string values must be quoted", "invalid float", "invalid boolean"];
    if !AT_A_VALUE.iter().any(|start| message.starts_with(start)) {
        return None;
    }
    let word = rest.split(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}' | '#')).next().unwrap_or_default();
    if word.is_empty() {
        return Some("a value is missing behind \"=\"".to_owned());
    }
    word.starts_with(|c: char| c.is_alphabetic()).then(|| format!("a string stands in quotes: write {}", quoted(word)))
}

const fn is_name(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString)
}

fn end(tokens: &[Token]) -> usize {
    tokens.last().map_or(0, |token| token.span().end())
}

/// The tokens of the key that a line begins with, if `=` follows.
fn key(line: &[Token]) -> Option<&[Token]> {
    let of_key =
        |token: &Token| is_name(token.kind()) || matches!(token.kind(), TokenKind::Dot | TokenKind::Whitespace);
    let length = line.iter().position(|token| !of_key(token))?;
    (line[length].kind() == TokenKind::Equals && is_name(line[0].kind())).then(|| &line[..length])
}

/// The tokens of the header that a line is, without what follows the brackets.
fn header(line: &[Token]) -> Option<&[Token]> {
    let open = line.iter().take_while(|token| token.kind() == TokenKind::LeftSquareBracket).count();
    let inside = line[open..]
        .iter()
        .take_while(|token| is_name(token.kind()) || matches!(token.kind(), TokenKind::Dot | TokenKind::Whitespace));
    let close = open + inside.count();
    let closed = line[close..].iter().take_while(|token| token.kind() == TokenKind::RightSquareBracket).count();
    let mut rest =
        line[close + closed..].iter().map(|token| token.kind()).filter(|kind| *kind != TokenKind::Whitespace);
    let ends = matches!(rest.next(), None | Some(TokenKind::Newline | TokenKind::Comment | TokenKind::Eof));
    (matches!(open, 1 | 2) && open == closed && close > open && ends).then(|| &line[..close + closed])
}
