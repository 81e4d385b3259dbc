//! The number before a message: decimal digits and `;` in a text, a zero byte and a varint in a binary message.
//!
//! Each number has one spelling: decimal without leading zeros, or little-endian groups of seven bits (LEB128) without an
//! empty last one. Invariant: what is written here is read here as the same number, and nothing else is read as it.

use super::NUMBER_MAX;
use crate::frame::Kind;
use crate::snapshot::{Read, Reader, Writer, demand};

/// Bytes of the longest number: 16 digits and `;`.
pub(crate) const PREFIX_BYTES_MAX: usize = 17;

/// What marks a text as a control word.
pub(crate) const WORD_MARK: u8 = b'!';

const TEXT_END: u8 = b';';
const BINARY_MARK: u8 = 0;

/// A number that is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prefix {
    pub kind: Kind,
    value: u64,
    /// Bytes read.
    pub len: u8,
}

/// What the bytes so far are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    /// The start of a number.
    More,
    /// A whole number.
    Number(u64),
    /// The mark of a control word.
    Word,
}

impl Prefix {
    pub const fn new(kind: Kind) -> Self {
        Self { kind, value: 0, len: 0 }
    }

    /// Reads the next byte of the message.
    ///
    /// # Errors
    /// What the sender is told.
    pub fn take(&mut self, byte: u8) -> Result<Reading, &'static str> {
        self.len += 1;
        match self.kind {
            Kind::Text => self.take_of_text(byte),
            Kind::Binary => self.take_of_binary(byte),
        }
    }

    fn take_of_text(&mut self, byte: u8) -> Result<Reading, &'static str> {
        match byte {
            WORD_MARK if self.len == 1 => Ok(Reading::Word),
            b'0' if self.len == 1 => Err("number with a leading zero"),
            b'0'..=b'9' => {
                self.value = self.value * 10 + u64::from(byte - b'0');
                self.bounded(Reading::More)
            }
            TEXT_END if self.len > 1 => Ok(Reading::Number(self.value)),
            _ => Err("text without a number"),
        }
    }

    fn take_of_binary(&mut self, byte: u8) -> Result<Reading, &'static str> {
        if self.len == 1 {
            return if byte == BINARY_MARK { Ok(Reading::More) } else { Err("binary message without a number") };
        }
        let place = u32::from(self.len) - 2;
        self.value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 != 0 {
            // Eight groups of seven bits are more than the highest number has.
            return if place < 7 { Ok(Reading::More) } else { Err(TOO_HIGH) };
        }
        if byte == 0 && (place > 0 || self.value == 0) {
            return Err("number not in its shortest form");
        }
        self.bounded(Reading::Number(self.value))
    }

    const fn bounded(self, reading: Reading) -> Result<Reading, &'static str> {
        if self.value > NUMBER_MAX { Err(TOO_HIGH) } else { Ok(reading) }
    }
}

impl Prefix {
    pub fn freeze(self, out: &mut Writer) {
        out.flag(self.kind == Kind::Binary);
        out.count(self.value);
        out.u8(self.len);
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let kind = if input.flag()? { Kind::Binary } else { Kind::Text };
        let prefix = Self { kind, value: input.count()?, len: input.u8()? };
        let places = match kind {
            Kind::Text => PREFIX_BYTES_MAX - 1,
            Kind::Binary => 8,
        };
        demand(usize::from(prefix.len) <= places && prefix.value <= NUMBER_MAX, "numbers")?;
        Ok(prefix)
    }
}

const TOO_HIGH: &str = "number over 2^53-1";

/// Appends the number of a message of `kind`; how many bytes it takes.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, number: u64) -> usize {
    let start = out.len();
    match kind {
        Kind::Text => write_decimal(out, number),
        Kind::Binary => write_varint(out, number),
    }
    out.len() - start
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.push(TEXT_END);
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    out.push(BINARY_MARK);
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, bytes: &[u8]) -> Result<(Reading, usize), &'static str> {
        let mut prefix = Prefix::new(kind);
        for &byte in bytes {
            match prefix.take(byte)? {
                Reading::More => {}
                whole => return Ok((whole, usize::from(prefix.len))),
            }
        }
        Ok((Reading::More, bytes.len()))
    }

    #[test]
    fn every_number_is_read_as_it_was_written() {
        for kind in [Kind::Text, Kind::Binary] {
            for number in [1, 9, 10, 127, 128, 16_383, 16_384, 1 << 32, NUMBER_MAX - 1, NUMBER_MAX] {
                let mut bytes = Vec::new();
                let len = write(&mut bytes, kind, number);
                assert!(len == bytes.len() && len <= PREFIX_BYTES_MAX);
                bytes.extend_from_slice(b"5;payload");
                assert_eq!(read(kind, &bytes), Ok((Reading::Number(number), len)));
                assert_eq!(read(kind, &bytes[..len - 1]), Ok((Reading::More, len - 1)));
            }
        }
        assert_eq!(read(Kind::Text, b"!{}"), Ok((Reading::Word, 1)));
    }

    #[test]
    fn another_spelling_of_a_number_is_refused_with_its_own_reason() {
        for (kind, bytes, reason) in [
            (Kind::Text, &b"0;"[..], "number with a leading zero"),
            (Kind::Text, b"01;", "number with a leading zero"),
            (Kind::Text, b";x", "text without a number"),
            (Kind::Text, b"hello", "text without a number"),
            (Kind::Text, b"1,", "text without a number"),
            (Kind::Text, b"1!", "text without a number"),
            (Kind::Text, b"+1;", "text without a number"),
            (Kind::Text, b"9007199254740992;", "number over 2^53-1"),
            (Kind::Text, b"99999999999999999999;", "number over 2^53-1"),
            (Kind::Binary, b"\x01", "binary message without a number"),
            (Kind::Binary, b"!", "binary message without a number"),
            (Kind::Binary, b"\x00\x00", "number not in its shortest form"),
            (Kind::Binary, b"\x00\x81\x00", "number not in its shortest form"),
            (Kind::Binary, b"\x00\x80\x80\x80\x80\x80\x80\x80\x10", "number over 2^53-1"),
            (Kind::Binary, b"\x00\xff\xff\xff\xff\xff\xff\xff\xff", "number over 2^53-1"),
        ] {
            assert_eq!(read(kind, bytes), Err(reason), "{bytes:02x?}");
        }
    }
}
