//! JSON read where it stands: the members of the outermost object or array, and what a pointer leads to.
//!
//! Nothing is built, and nothing is validated beyond what finding a value needs: a message that is not JSON has no
//! values, and goes on as it is. Of two members with one name the last counts, as in every common reader. Owns
//! RFC 6901 pointers. Invariant: no input makes it panic, recurse, or look at a byte more than once per pointer part.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// An RFC 6901 pointer: where in a document a value stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    parts: Box<[Box<str>]>,
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl Pointer {
    /// The pointer that `text` is.
    ///
    /// # Errors
    /// What is wrong with it, for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("a JSON pointer begins with \"/\", as in \"/type\" or \"/payload/0\"");
        };
        let parts = path.split('/').map(unescape_part).collect::<Option<Box<[_]>>>();
        let parts = parts.ok_or("in a JSON pointer \"~\" is written \"~0\" and \"/\" is written \"~1\"")?;
        Ok(Self { text: text.into(), parts })
    }

    /// The pointer as it was written.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }
}

fn unescape_part(part: &str) -> Option<Box<str>> {
    let mut rest = part;
    while let Some((_, behind)) = rest.split_once('~') {
        rest = behind.strip_prefix(['0', '1'])?;
    }
    Some(part.replace("~1", "/").replace("~0", "~").into())
}

/// A message that is a JSON object or array, and where its members are.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a [u8],
    outermost: Container,
}

/// The members of one object or array: the name of each, raw and with its quotes, and where its value stands.
#[derive(Debug)]
struct Container {
    is_array: bool,
    members: Vec<(Range<usize>, Range<usize>)>,
    /// Where its closing bracket stands.
    end: usize,
}

/// A value, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// Its bytes, quotes included.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// What the string says, if the value is one.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let inner = str::from_utf8(inner).ok()?;
        if inner.contains('\\') { unescape(inner).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
    }

    /// The value in one spelling, so that two that are equal are equal bytes: names of what is kept.
    #[must_use]
    pub fn name(self) -> Box<[u8]> {
        match self.text() {
            Some(text) => [b"\"", text.as_bytes()].concat().into(),
            None => self.0.into(),
        }
    }

    /// Whether it is what a rule has written down: a string, or a number or word in its plain form.
    #[must_use]
    pub fn is(self, wanted: &str) -> bool {
        match self.text() {
            Some(text) => text == wanted,
            None => self.0 == wanted.as_bytes(),
        }
    }
}

impl<'a> Document<'a> {
    /// Reads `text`, if it is an object or an array.
    #[must_use]
    pub fn read(text: &'a [u8]) -> Option<Self> {
        let outermost = Container::read(text, skip_space(text, 0))?;
        Some(Self { text, outermost })
    }

    /// What `pointer` leads to.
    #[must_use]
    pub fn find(&self, pointer: &Pointer) -> Option<Value<'a>> {
        let range = self.place(pointer)?;
        self.text.get(range).map(Value)
    }

    /// Where what `pointer` leads to stands in the text.
    pub(super) fn place(&self, pointer: &Pointer) -> Option<Range<usize>> {
        let (first, rest) = pointer.parts.split_first()?;
        let mut range = self.outermost.member(self.text, first)?;
        for part in rest {
            range = Container::read(self.text, range.start)?.member(self.text, part)?;
        }
        Some(range)
    }

    /// The document with `raw` where `pointer` leads to; its last part is added where it is missing.
    #[must_use]
    pub fn with(&self, pointer: &Pointer, raw: &[u8]) -> Option<Vec<u8>> {
        let splice =
            |range: Range<usize>, bytes: &[u8]| [&self.text[..range.start], bytes, &self.text[range.end..]].concat();
        if let Some(range) = self.place(pointer) {
            return Some(splice(range, raw));
        }
        let (last, above) = pointer.parts.split_last()?;
        let mut at = skip_space(self.text, 0);
        for part in above {
            at = Container::read(self.text, at)?.member(self.text, part)?.start;
        }
        let parent = Container::read(self.text, at)?;
        if parent.is_array {
            return None;
        }
        let comma = if parent.members.is_empty() { "" } else { "," };
        let member = [comma.as_bytes(), &quote(last), b":", raw].concat();
        Some(splice(parent.end..parent.end, &member))
    }
}

impl Container {
    /// Reads the container that begins at `at`.
    fn read(text: &[u8], at: usize) -> Option<Self> {
        let (is_array, close) = match text.get(at)? {
            b'{' => (false, b'}'),
            b'[' => (true, b']'),
            _ => return None,
        };
        let mut members = Vec::new();
        let mut at = skip_space(text, at + 1);
        if *text.get(at)? == close {
            return Some(Self { is_array, members, end: at });
        }
        loop {
            let mut name = at..at;
            if !is_array {
                let end = string_end(text, at)?;
                name = at..end;
                at = skip_space(text, end);
                if *text.get(at)? != b':' {
                    return None;
                }
                at = skip_space(text, at + 1);
            }
            let end = value_end(text, at)?;
            members.push((name, at..end));
            at = skip_space(text, end);
            match *text.get(at)? {
                b',' => at = skip_space(text, at + 1),
                byte if byte == close => return Some(Self { is_array, members, end: at }),
                _ => return None,
            }
        }
    }

    fn member(&self, text: &[u8], part: &str) -> Option<Range<usize>> {
        if self.is_array {
            let plain = part == "0" || !part.starts_with('0');
            let index: usize = part.parse().ok().filter(|_| plain)?;
            return self.members.get(index).map(|(_, value)| value.clone());
        }
        let named = |name: &Range<usize>| text.get(name.clone()).is_some_and(|raw| Value(raw).is(part));
        self.members.iter().rev().find(|(name, _)| named(name)).map(|(_, value)| value.clone())
    }
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// Where the string that begins at `at` ends.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value that begins at `at` ends.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match *text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => container_end(text, at),
        _ => {
            let rest = &text[at..];
            let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
            (len > 0).then_some(at + len)
        }
    }
}

fn container_end(text: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, at);
    loop {
        match *text.get(at)? {
            b'"' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Where the documents of a message stand: itself, or the objects of the list that it is.
#[must_use]
pub fn documents(text: &[u8]) -> Vec<Range<usize>> {
    let list = Container::read(text, skip_space(text, 0)).filter(|it| it.is_array && !it.members.is_empty());
    let parts = list.map(|list| list.members.into_iter().map(|(_, value)| value));
    let parts = parts.filter(|parts| parts.clone().all(|part| text[part].starts_with(b"{")));
    parts.map_or_else(|| std::iter::once(0..text.len()).collect(), Iterator::collect)
}

/// What a string's inside means, if its escapes are right.
fn unescape(inner: &str) -> Option<String> {
    let mut out = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next()? {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'u' => out.push(unicode(&mut letters)?),
            plain @ ('"' | '\\' | '/') => out.push(plain),
            _ => return None,
        }
    }
    Some(out)
}

/// The letter that `\u` and what follows of `letters` mean, a surrogate pair included.
pub(crate) fn unicode(letters: &mut std::str::Chars<'_>) -> Option<char> {
    let high = hex4(letters)?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high);
    }
    (letters.next()? == '\\' && letters.next()? == 'u').then_some(())?;
    let low = hex4(letters)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)
}

fn hex4(letters: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |sum, _| Some(sum << 4 | letters.next()?.to_digit(16)?))
}

/// `text` as a JSON string.
#[must_use]
pub fn quote(text: &str) -> Vec<u8> {
    let mut out = vec![b'"'];
    for letter in text.chars() {
        match letter {
            '"' => out.extend(b"\\\""),
            '\\' => out.extend(b"\\\\"),
            control if control < ' ' => out.extend(format!("\\u{:04x}", u32::from(control)).bytes()),
            letter => out.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str, pointer: &str) -> Option<String> {
        let document = Document::read(text.as_bytes())?;
        let value = document.find(&Pointer::parse(pointer).unwrap())?;
        Some(String::from_utf8(value.raw().to_vec()).unwrap())
    }

    #[test]
    fn a_pointer_leads_to_its_value_and_nowhere_else() {
        let text = r#" { "type" : "a\"b", "deep": {"type":"no","x":[1,{"y":true}]}, "t/~": -1.5e3 , "e":{} } "#;
        assert_eq!(found(text, "/type").as_deref(), Some(r#""a\"b""#));
        assert_eq!(found(text, "/deep/x/1/y").as_deref(), Some("true"));
        assert_eq!(found(text, "/t~1~0").as_deref(), Some("-1.5e3"));
        assert_eq!(found(text, "/e").as_deref(), Some("{}"));
        for nowhere in ["/x", "/deep/x/01", "/deep/x/2", "/type/0", "/deep/y"] {
            assert_eq!(found(text, nowhere), None, "{nowhere}");
        }
        assert_eq!(found(r#"["join", 7]"#, "/1").as_deref(), Some("7"));
    }

    #[test]
    fn of_two_members_with_one_name_the_last_counts() {
        assert_eq!(found(r#"{"type":"a","type":"b"}"#, "/type").as_deref(), Some(r#""b""#));
        assert_eq!(found(r#"{"type":"a","t\u0079pe":"b"}"#, "/type").as_deref(), Some(r#""b""#), "in any spelling");
    }

    #[test]
    fn one_value_has_one_name_in_every_spelling() {
        let name = |text: &'static str| Value(text.as_bytes()).name();
        assert_eq!(name(r#""\u0031\ud83d\ude00""#), name("\"1\u{1f600}\""));
        assert_ne!(name("\"1\""), name("1"));
        assert!(Value(b"1").is("1") && Value(b"\"1\"").is("1") && !Value(b"\"1").is("1"));
    }

    #[test]
    fn a_value_is_put_in_the_place_of_another_or_added() {
        let with = |text: &'static str, pointer: &str, raw: &str| {
            let document = Document::read(text.as_bytes()).unwrap();
            let made = document.with(&Pointer::parse(pointer).unwrap(), raw.as_bytes());
            made.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(with(r#"{"id":1,"x":2}"#, "/id", "\"a\"").as_deref(), Some(r#"{"id":"a","x":2}"#));
        assert_eq!(with(r#"{"p":{ }}"#, "/p/last", "7").as_deref(), Some(r#"{"p":{ "last":7}}"#));
        assert_eq!(with(r#"{"p":{"a":1}}"#, "/p/last", "7").as_deref(), Some(r#"{"p":{"a":1,"last":7}}"#));
        assert_eq!(with(r#"{"p":[1]}"#, "/p/0", "9").as_deref(), Some(r#"{"p":[9]}"#));
        assert_eq!(with(r#"{"p":[1]}"#, "/p/5", "9"), None);
    }

    #[test]
    fn a_pointer_with_a_mistake_is_refused() {
        for text in ["", "type", "/a~2", "/~"] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(document) = Document::read(&text) {
                let _ = document.find(&Pointer::parse("/a/0").unwrap());
            }
        }

        #[test]
        fn no_brackets_and_quotes_make_it_panic(text in r#"[\{\}\[\]",:\\u0-9a ]{0,40}"#) {
            for pointer in ["/a", "/0", "/a/a/0"] {
                let pointer = Pointer::parse(pointer).unwrap();
                if let Some(document) = Document::read(text.as_bytes()) {
                    let _ = document.find(&pointer).map(Value::text);
                    let _ = document.with(&pointer, b"1");
                }
            }
        }
    }
}
