//! Names and numbers that must not be mixed up, each a type of its own.

use std::fmt;

/// One client's lasting conversation: 128 random bits, printed as 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeId([u8; 16]);

impl PipeId {
    /// The id made of these 128 bits; the caller draws them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bits that the id was made of.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Which of `count` parts of a table the id belongs to.
    #[must_use]
    pub const fn shard(self, count: usize) -> usize {
        self.0[0] as usize % count
    }

    /// The id that prints as `text`; `None` unless it is exactly one id's canonical form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (index, byte) in text.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|&known| known == byte)? as u128;
            if index < 21 {
                bits = bits << 6 | digit;
            } else if digit & 0xf == 0 {
                bits = bits << 2 | digit >> 4;
            } else {
                return None;
            }
        }
        Some(Self(bits.to_be_bytes()))
    }
}

/// base64url, RFC 4648 section 5.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        let (last, digits) = (21, 0..21);
        for index in digits {
            text[index] = ALPHABET[(bits >> (122 - 6 * index)) as usize & 0x3f];
        }
        text[last] = ALPHABET[(bits as usize & 3) << 4];
        // In one piece: it stands in every line of the log.
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PipeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeId({self})")
    }
}

/// One attach of a backend to a pipe: the first is 1, and no number is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attachment(pub u64);

impl Attachment {
    /// The attach that opens a pipe.
    pub const FIRST: Self = Self(1);

    /// The number of the attach after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One attach of a client to a pipe: the first is 1, and no number is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

impl Generation {
    /// The client that a pipe was opened for.
    pub const FIRST: Self = Self(1);

    /// The number of the attach after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A message's place in its lane, counted in whole data messages; the first is 1, and 0 stands before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The number `count` messages later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// One direction of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LaneName {
    /// From the client to the backend.
    Up,
    /// From the backend to the client.
    Down,
}

impl LaneName {
    /// The lane's name in the API and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A backend's place in its pool's table, never reused; its operator-facing id is a string kept beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendKey(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_id_prints_as_22_characters_and_parses_back() {
        for bytes in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            let id = PipeId::from_bytes(bytes);
            assert_eq!(id.to_string().len(), 22);
            assert_eq!(PipeId::parse(&id.to_string()), Some(id));
        }
        assert_eq!(PipeId::from_bytes([255; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn a_text_that_no_pipe_id_prints_as_is_refused() {
        for text in ["", "short", "_____________________x", "!____________________w", "_____________________ww"] {
            assert_eq!(PipeId::parse(text), None, "{text}");
        }
    }
}
