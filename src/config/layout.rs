//! `holdline config fmt`: the layout of a file put in order, and nothing else.
//!
//! Comments, values, the order of keys and single empty lines stay. What comes out means what went in: it is read again,
//! and a layout that would mean anything else is refused.

use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

use super::node;
use super::notice::{Invalid, Notice, Place};

/// What an entry of a list on lines of its own is indented by.
const INDENT: usize = 4;

/// The text of `file` in the layout of the example file.
///
/// # Errors
/// Each slip, if it is not TOML.
pub fn format(file: &str, text: &str) -> Result<String, Invalid> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let invalid = |errors: Vec<(Place, String)>| {
        let notice = |(place, message)| Notice { file: Some(file.to_owned()), place, key: String::new(), message };
        Invalid { errors: errors.into_iter().map(notice).collect() }
    };
    node::parse(text).map_err(invalid)?;
    let tokens = Source::new(text).lex().into_vec();
    let formatted = join(&lines(text, &tokens));
    let meaning = |text: &str| text.parse::<toml::Table>().ok();
    let same = meaning(text) == meaning(&formatted);
    if same {
        return Ok(formatted);
    }
    Err(invalid(vec![(
        Place::Nowhere,
        "cannot be laid out without a change of what it says; nothing was written".to_owned(),
    )]))
}

/// One line that is ready to be written.
enum Line {
    Empty,
    Comment(String),
    Header(String),
    /// A key with its value, or a part of a value.
    Other(String),
}

/// Each line for itself.
fn lines(text: &str, tokens: &[Token]) -> Vec<Line> {
    let mut depth = 0;
    let split = tokens.split(|token| matches!(token.kind(), TokenKind::Newline | TokenKind::Eof));
    split.map(|line| laid_out(text, line, &mut depth)).collect()
}

/// A line with the spaces that it should have; `depth` counts the brackets that are open.
fn laid_out(text: &str, line: &[Token], depth: &mut usize) -> Line {
    let words: Vec<Token> = line.iter().filter(|token| token.kind() != TokenKind::Whitespace).copied().collect();
    let Some(first) = words.first() else { return Line::Empty };
    let begins_outside = *depth == 0;
    let is_header = begins_outside && first.kind() == TokenKind::LeftSquareBracket;
    let closers = words.iter().take_while(|token| is_close(token.kind())).count();
    let indent = if begins_outside { 0 } else { INDENT * depth.saturating_sub(closers) };
    let mut out = " ".repeat(indent);
    let mut before: Option<Token> = None;
    for &token in &words {
        if let Some(before) = before {
            let apart = before.span().end() < token.span().start();
            out.push_str(between(before.kind(), token.kind(), apart, is_header));
        }
        out.push_str(text[token.span().start()..token.span().end()].trim_end());
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => *depth += 1,
            kind if is_close(kind) => *depth = depth.saturating_sub(1),
            _ => {}
        }
        before = Some(token);
    }
    match first.kind() {
        TokenKind::Comment => Line::Comment(out),
        TokenKind::LeftSquareBracket if is_header => Line::Header(out),
        _ => Line::Other(out),
    }
}

const fn is_close(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket)
}

/// What stands between two tokens of a line, which were `apart` or not.
const fn between(before: TokenKind, after: TokenKind, apart: bool, is_header: bool) -> &'static str {
    use TokenKind::{
        Comma, Comment, Dot, Equals, LeftCurlyBracket, LeftSquareBracket, RightCurlyBracket, RightSquareBracket,
    };
    match (before, after) {
        (_, Comment) => " ",
        (LeftSquareBracket, _) | (_, RightSquareBracket | Comma) | (LeftCurlyBracket, RightCurlyBracket) => "",
        (Dot, _) | (_, Dot) => "",
        (Comma | Equals | LeftCurlyBracket, _) | (_, Equals | RightCurlyBracket) => " ",
        _ if is_header || !apart => "",
        _ => " ",
    }
}

/// The lines one below the other: no two empty ones together, none at the ends, and one above a header that follows a key.
fn join(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut gap = false;
    let mut after_value = false;
    for line in lines {
        let text = match line {
            Line::Empty => {
                gap = !out.is_empty();
                continue;
            }
            Line::Comment(text) | Line::Header(text) | Line::Other(text) => text,
        };
        let wants_gap = after_value && matches!(line, Line::Header(_));
        if gap || wants_gap {
            out.push('\n');
        }
        out.push_str(text);
        out.push('\n');
        gap = false;
        after_value = matches!(line, Line::Other(_) | Line::Header(_));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(text: &str) -> String {
        format("proxy.toml", text).unwrap_or_else(|invalid| panic!("{text}\n{invalid}"))
    }

    #[test]
    fn a_layout_is_put_in_order_and_what_is_said_stays() {
        let text = "\u{feff}\n\n  # mine\n[ server ]   # here\n\tlisten=[ \"a:1\",\"b:2\" ]#two\n\n\n\nthreads =3\n[[pools]]\n\
                    name='x'\nlabels = {a=\"1\",b = \"2\"}  \n# kept\n[[ routes ]]\npath = [\n\"/a\",   # one\n  [ ]\n        ]\n";
        let expected = "# mine\n[server] # here\nlisten = [\"a:1\", \"b:2\"] #two\n\nthreads = 3\n\n[[pools]]\nname = 'x'\n\
                        labels = { a = \"1\", b = \"2\" }\n# kept\n[[routes]]\npath = [\n    \"/a\", # one\n    []\n]\n";
        assert_eq!(laid_out(text), expected);
        assert_eq!(laid_out(expected), expected, "twice is once");
    }

    #[test]
    fn strings_numbers_and_dates_are_left_as_they_are() {
        let text = "a = \"\"\"\n  two  \n\n\nlines\"\"\"\nb.\"c d\" = 1.5\nd = 1979-05-27 07:32:00.5\ne = {}\n";
        assert_eq!(laid_out(text), text);
    }

    #[test]
    fn the_example_is_laid_out() {
        let example = crate::config::Config::example();
        assert_eq!(laid_out(&example), example);
    }

    #[test]
    fn a_slip_is_told_and_nothing_is_laid_out() {
        let error = format("proxy.toml", "a = [1\nb = 2\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "proxy.toml:1:5: the array that opens here is not closed; write \"]\" before line 2\n1 error"
        );
    }
}
