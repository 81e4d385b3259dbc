//! A second, naive reading and writing of the aware protocol (PROTOCOL section 7): numbers before messages, and words that
//! are looked through for what is wanted, as the proxy writes them in one way only.

use crate::wire::Item;

/// What a message of the protocol is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// A control word.
    Word(String),
    /// A number, the bytes it took, and the message behind it.
    Numbered(u64, usize, Item),
    /// Neither.
    Malformed,
}

/// Takes the number off a message.
pub fn read(item: &Item) -> Spoken {
    match item {
        Item::Text(bytes) if bytes.first() == Some(&b'!') => {
            Spoken::Word(String::from_utf8(bytes[1..].to_vec()).expect("a word is text"))
        }
        Item::Text(bytes) => {
            let Some(end) = bytes.iter().position(|&byte| byte == b';') else { return Spoken::Malformed };
            let digits = &bytes[..end];
            let is_number = digits.first().is_some_and(|&first| first != b'0') && digits.iter().all(u8::is_ascii_digit);
            match std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|digits| digits.parse().ok()) {
                Some(number) => Spoken::Numbered(number, end + 1, Item::Text(bytes[end + 1..].to_vec())),
                None => Spoken::Malformed,
            }
        }
        Item::Binary(bytes) => {
            if bytes.first() != Some(&0) {
                return Spoken::Malformed;
            }
            let Some(last) = bytes[1..].iter().position(|byte| byte & 0x80 == 0) else { return Spoken::Malformed };
            let number = bytes[1..=last + 1].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
            Spoken::Numbered(number, last + 2, Item::Binary(bytes[last + 2..].to_vec()))
        }
        Item::Ping(_) | Item::Pong(_) | Item::Close(..) => Spoken::Malformed,
    }
}

/// A payload of this opcode behind its number.
pub fn numbered(opcode: u8, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = if opcode == 1 { format!("{number};").into_bytes() } else { vec![0] };
    if opcode == 2 {
        let mut rest = number;
        while rest > 0x7f {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(payload);
    out
}

/// The name of a word.
pub fn name(word: &str) -> &str {
    text(word, "t").expect("a word has a name")
}

/// A text of a word.
pub fn text<'a>(word: &'a str, member: &str) -> Option<&'a str> {
    word.split_once(&format!("\"{member}\":\""))?.1.split('"').next()
}

/// A number of a word; `None` if it is null or not there.
pub fn number(word: &str, member: &str) -> Option<u64> {
    leading(word.split_once(&format!("\"{member}\":"))?.1)
}

/// A list of two numbers of a word.
pub fn pair(word: &str, member: &str) -> Option<[u64; 2]> {
    let (first, rest) = word.split_once(&format!("\"{member}\":["))?.1.split_once(',')?;
    Some([leading(first)?, leading(rest)?])
}

fn leading(text: &str) -> Option<u64> {
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}
