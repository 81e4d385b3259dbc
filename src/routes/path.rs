//! One spelling for each path, so that no other spelling of it finds another route, and what a path must not hold.
//!
//! Workers decode what they are asked for: `/ws/%63ontrol` is `/ws/control` to them. A path is matched as they read it:
//! each escape is decoded once, and each byte then spelled in the one way that this file has for it. What goes on to the
//! worker is the client's own spelling. Invariant: decoding happens once, so `%252e` is never a dot, and an escaped slash
//! never parts segments.

use std::borrow::Cow;

use super::percent::{ESCAPE_BYTES, escape_at, push_escape};

/// A path in its one spelling, and where its bytes are in the client's.
pub struct Spelled<'p> {
    sent: &'p str,
    text: Cow<'p, str>,
    /// For each byte of `text`, and for its end, the place in `sent`; empty where the two are the same.
    places: Vec<usize>,
}

impl<'p> Spelled<'p> {
    /// Spells a path as workers read it.
    pub fn new(sent: &'p str) -> Self {
        if sent.bytes().all(is_plain) {
            return Self { sent, text: Cow::Borrowed(sent), places: Vec::new() };
        }
        let bytes = sent.as_bytes();
        let (mut text, mut places) = (String::with_capacity(bytes.len()), Vec::with_capacity(bytes.len() + 1));
        let mut at = 0;
        while at < bytes.len() {
            let escaped = escape_at(bytes, at);
            let byte = escaped.unwrap_or(bytes[at]);
            if is_plain(byte) && (byte != b'/' || escaped.is_none()) {
                text.push(char::from(byte));
            } else {
                push_escape(&mut text, byte);
            }
            places.resize(text.len(), at);
            at += if escaped.is_some() { ESCAPE_BYTES } else { 1 };
        }
        places.push(at);
        Self { sent, text: Cow::Owned(text), places }
    }

    /// The path in its one spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The client's spelling of `part`, a slice of [`Self::as_str`].
    pub fn sent(&self, part: &str) -> &'p str {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        let end = start + part.len();
        if self.places.is_empty() { &self.sent[start..end] } else { &self.sent[self.places[start]..self.places[end]] }
    }
}

/// What workers read alike whether it is escaped or not: RFC 3986's `pchar`, and the slash that parts segments.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/'
        )
}

/// A route's pattern in the spelling that paths are matched in; what stands in braces is left as it is.
pub fn spell_pattern(pattern: &str) -> String {
    let mut spelled = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(brace) = rest.find(['{', '}']) {
        spelled.push_str(Spelled::new(&rest[..brace]).as_str());
        let name_end = if rest[brace..].starts_with("{{") || rest[brace..].starts_with("}}") {
            push_escape(&mut spelled, rest.as_bytes()[brace]);
            rest = &rest[brace + 2..];
            continue;
        } else {
            rest[brace..].find('}').map_or(rest.len(), |end| brace + end + 1)
        };
        spelled.push_str(&rest[brace..name_end]);
        rest = &rest[name_end..];
    }
    spelled.push_str(Spelled::new(rest).as_str());
    spelled
}

/// Whether workers may read `path` as another one: an escaped slash, a backslash, a zero byte or a dot segment.
pub fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    let escaped = |at: usize| matches!(escape_at(bytes, at), Some(b'/' | b'\\' | 0));
    let hides = (0..bytes.len()).any(|at| bytes[at] == b'\\' || bytes[at] == b'%' && escaped(at));
    hides || leaves_its_place(path)
}

/// Whether `path`, decoded once, holds a segment `.` or `..`, by whatever some server takes for the end of a segment: a
/// slash, escaped or not, a backslash, or a semicolon.
pub fn leaves_its_place(path: &str) -> bool {
    let bytes = path.as_bytes();
    // `None` once the segment holds anything but dots.
    let (mut at, mut dots) = (0, Some(0));
    let mut in_parameters = false;
    let is_dot_segment = |dots: Option<usize>| matches!(dots, Some(1 | 2));
    while at < bytes.len() {
        let escaped = escape_at(bytes, at);
        match escaped.unwrap_or(bytes[at]) {
            b'/' | b'\\' if is_dot_segment(dots) => return true,
            b'/' | b'\\' => (dots, in_parameters) = (Some(0), false),
            b';' => in_parameters = true,
            _ if in_parameters => {}
            b'.' => dots = dots.map(|dots| dots + 1),
            _ => dots = None,
        }
        at += if escaped.is_some() { ESCAPE_BYTES } else { 1 };
    }
    is_dot_segment(dots)
}

/// A path that fits `pattern`.
pub fn sample(pattern: &str) -> String {
    let mut path = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((fixed, parameter)) = rest.split_once('{') {
        path.push_str(fixed);
        path.push('x');
        rest = parameter.split_once('}').map_or("", |(_, rest)| rest);
    }
    path + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_spelled_as_workers_read_it() {
        for (sent, spelled) in [
            ("/ws/s1/control", "/ws/s1/control"),
            ("/ws/s1/%63ontrol", "/ws/s1/control"),
            ("/%77%73/%2D%2e%5F%7e", "/ws/-._~"),
            ("/%40user/v1%3Arun%21", "/@user/v1:run!"),
            ("/a%20b/caf%c3%a9", "/a%20b/caf%C3%A9"),
            ("/a\"b{c}", "/a%22b%7Bc%7D"),
            ("/café", "/caf%C3%A9"),
            ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
            ("/%252e%2525", "/%252e%2525"),
            ("/100%/%zz/%6", "/100%25/%25zz/%256"),
        ] {
            assert_eq!(Spelled::new(sent).as_str(), spelled, "{sent}");
            assert_eq!(Spelled::new(spelled).as_str(), spelled, "spelled twice: {sent}");
        }
    }

    #[test]
    fn a_part_of_the_spelling_is_found_in_what_the_client_sent() {
        let path = Spelled::new("/%77s/%61lice%20x/end%2f");
        let text = path.as_str().to_owned();
        assert_eq!(text, "/ws/alice%20x/end%2F");
        for (part, sent) in [("ws", "%77s"), ("alice%20x", "%61lice%20x"), ("end%2F", "end%2f"), ("x", "x")] {
            let at = text.find(part).expect("a part");
            assert_eq!(path.sent(&path.as_str()[at..at + part.len()]), sent);
        }
        assert_eq!(path.sent(&path.as_str()[text.len()..]), "");
    }

    #[test]
    fn a_pattern_is_spelled_alike_and_keeps_its_parameters() {
        for (pattern, spelled) in [
            ("/ws/{session}/c%6Fntrol", "/ws/{session}/control"),
            ("/café/{*rest}", "/caf%C3%A9/{*rest}"),
            ("/{{a}}/{b}", "/%7Ba%7D/{b}"),
            ("/", "/"),
        ] {
            assert_eq!(spell_pattern(pattern), spelled);
        }
    }

    #[test]
    fn what_may_be_read_as_another_path_is_ambiguous() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "/a/..",
            "/%2e%2e/a",
            "/.%2E/a",
            "/%2e/a",
            "/a%2f..%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/..;x/a",
            "/..;/a",
            "/.;a",
            "/a/%2e%2e%3bx/b",
            "..\\a",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in [
            "/",
            "/a/b",
            "/.well-known/x",
            "/...",
            "/a..b",
            "/a/..b",
            "/%252e%252e/",
            "/a;x=../b",
            "//a",
            "/a%20b",
            "/100%",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
