//! Percent-encoding (RFC 3986), as far as keys and aliases need it.

use std::borrow::Cow;
use std::fmt::Write;

/// The text that `encoded` stands for; `+` is a space where `form` says so. `None` unless it is valid and UTF-8.
pub fn decode(encoded: &str, form: bool) -> Option<Cow<'_, str>> {
    if !encoded.bytes().any(|byte| byte == b'%' || (form && byte == b'+')) {
        return Some(Cow::Borrowed(encoded));
    }
    let bytes = encoded.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, len) = match bytes[at] {
            b'%' => (escape_at(bytes, at)?, ESCAPE_BYTES),
            b'+' if form => (b' ', 1),
            plain => (plain, 1),
        };
        text.push(byte);
        at += len;
    }
    String::from_utf8(text).ok().map(Cow::Owned)
}

/// Bytes of an escape: `%2F`.
pub const ESCAPE_BYTES: usize = 3;

/// The byte that the escape at `at` stands for, if there is one.
pub fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = bytes.get(at..at + ESCAPE_BYTES)? else { return None };
    Some((hex(*high)? << 4) | hex(*low)?)
}

/// Appends `text` so that it is one path segment or query value: all but the unreserved characters are encoded.
pub fn encode_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

/// Appends a byte as an escape.
pub fn push_escape(out: &mut String, byte: u8) {
    let _ = write!(out, "%{byte:02X}"); // Writing to a String cannot fail.
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_undone_by_decoding() {
        for text in ["plain", "a/b?c#d", "ü €", "100%", "a+b", ""] {
            let mut encoded = String::new();
            encode_into(&mut encoded, text);
            assert_eq!(decode(&encoded, false).as_deref(), Some(text));
            assert_eq!(decode(&encoded, true).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_plus_is_a_space_in_a_query_only() {
        assert_eq!(decode("a+b", true).as_deref(), Some("a b"));
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
    }

    #[test]
    fn what_is_not_percent_encoding_of_utf8_is_none() {
        for bad in ["%", "%4", "%zz", "%ff", "a%2"] {
            assert_eq!(decode(bad, false), None, "{bad}");
        }
    }
}
