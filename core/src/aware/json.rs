//! JSON read strictly: a control word is one object, and nothing before or behind it.
//!
//! Small on purpose: what the protocol needs are texts, whole numbers, lists of those and objects in objects. Any other
//! value is read over. Invariant: no input makes it panic, nest deeper than [`DEPTH_MAX`] or keep more than [`MEMBERS_MAX`]
//! members, and a name stands once in its object.

use crate::conversation::json::unicode;

/// Objects and lists in each other at most.
const DEPTH_MAX: usize = 4;

/// Members of one object, or values of one list, at most.
const MEMBERS_MAX: usize = 32;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Text(String),
    /// A number that is whole and not negative.
    Number(u64),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
    /// A number of another kind, or a truth.
    Other,
}

impl Value {
    /// Reads `text`, which must be one value.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut input = Input { rest: str::from_utf8(text).ok()? };
        let value = input.value(DEPTH_MAX)?;
        input.skip_space();
        input.rest.is_empty().then_some(value)
    }

    /// The member `name` of an object.
    pub fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub const fn number(&self) -> Option<u64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub const fn text(&self) -> Option<&String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

struct Input<'a> {
    rest: &'a str,
}

impl Input<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, wanted: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_space();
        match self.rest.bytes().next()? {
            b'"' => self.string().map(Value::Text),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.list(depth.checked_sub(1)?),
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.take("null").map(|()| Value::Null),
            b't' => self.take("true").map(|()| Value::Other),
            b'f' => self.take("false").map(|()| Value::Other),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.take("{")?;
        self.each("}", |input| {
            input.skip_space();
            let name = input.string()?;
            input.skip_space();
            input.take(":")?;
            let value = input.value(depth)?;
            let is_new = members.len() < MEMBERS_MAX && members.iter().all(|(known, _)| *known != name);
            members.push((name, value));
            is_new.then_some(())
        })?;
        Some(Value::Object(members))
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut values = Vec::new();
        self.take("[")?;
        self.each("]", |input| {
            values.push(input.value(depth)?);
            (values.len() <= MEMBERS_MAX).then_some(())
        })?;
        Some(Value::List(values))
    }

    /// Reads what stands between commas up to `close`.
    fn each(&mut self, close: &str, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip_space();
        if self.take(close).is_some() {
            return Some(());
        }
        loop {
            one(self)?;
            self.skip_space();
            if self.take(close).is_some() {
                return Some(());
            }
            self.take(",")?;
        }
    }

    /// A number in JSON's own spelling (RFC 8259 section 6).
    fn number(&mut self) -> Option<Value> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest;
        let mut len = usize::from(text.starts_with('-'));
        let whole = digits(&text[len..]);
        if whole == 0 || whole > 1 && text[len..].starts_with('0') {
            return None;
        }
        len += whole;
        let is_plain = len == whole;
        let mut is_whole = true;
        if text[len..].starts_with('.') {
            let part = digits(&text[len + 1..]);
            len += 1 + part;
            is_whole = false;
            (part > 0).then_some(())?;
        }
        if text[len..].starts_with(['e', 'E']) {
            len += 1;
            len += usize::from(text[len..].starts_with(['+', '-']));
            let part = digits(&text[len..]);
            len += part;
            is_whole = false;
            (part > 0).then_some(())?;
        }
        self.rest = &text[len..];
        let number = text[..len].parse().ok().filter(|_| is_plain && is_whole);
        Some(number.map_or(Value::Other, Value::Number))
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut out = String::new();
        let mut letters = self.rest.chars();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => out.push(escaped(&mut letters)?),
                control if control < ' ' => return None,
                letter => out.push(letter),
            }
        }
        self.rest = letters.as_str();
        Some(out)
    }
}

/// The letter that the escape behind a backslash means.
fn escaped(letters: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match letters.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'u' => return unicode(letters),
        plain @ ('"' | '\\' | '/') => plain,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_word_is_read_as_it_stands() {
        let value =
            Value::read(br#" {"t":"hello","v":1,"r":{"tx":[1,7],"x\u0041":"\ud83d\ude00\n"},"n":null,"f":-1.5e3} "#);
        let value = value.unwrap();
        assert_eq!(value.member("t").and_then(Value::text).map(String::as_str), Some("hello"));
        assert_eq!(value.member("v").and_then(Value::number), Some(1));
        let inner = value.member("r").unwrap();
        assert_eq!(inner.member("tx"), Some(&Value::List(vec![Value::Number(1), Value::Number(7)])));
        assert_eq!(inner.member("xA").and_then(Value::text).map(String::as_str), Some("\u{1f600}\n"));
        assert_eq!((value.member("n"), value.member("f")), (Some(&Value::Null), Some(&Value::Other)));
        assert_eq!(value.member("missing"), None);
    }

    #[test]
    fn what_is_not_json_to_the_letter_is_refused() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        let many = format!("[{}1]", "1,".repeat(MEMBERS_MAX));
        for text in [
            "",
            "{",
            "{}x",
            "{} {}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "[1,]",
            "01",
            "1.",
            "1e",
            "+1",
            ".5",
            "--1",
            "nul",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\n\"",
            "'a'",
            "\"a",
            &deep,
            &many,
        ] {
            assert_eq!(Value::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Value::read(b"\"\xff\""), None);
        assert_eq!(Value::read(b"99999999999999999999"), Some(Value::Other), "more than is counted");
    }

    proptest! {
        #[test]
        fn no_brackets_and_quotes_make_it_panic(text in r#"[\{\}\[\]",:\\u0-9a.eE+-]{0,40}"#) {
            let _ = Value::read(text.as_bytes());
        }
    }
}
