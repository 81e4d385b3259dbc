//! The first word of a client that comes back, read before there is a pipe for it.

use super::codes;
use super::words::{Heard, WORD_BYTES_MAX};
use crate::assembler::MessageLimits;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::leg::{AwareReader, Broken, Came};

/// Bytes that are read for a first word at most, with all that its frames have besides.
pub const FIRST_WORD_BYTES_MAX: usize = 2 * WORD_BYTES_MAX;

/// Frames of a first word.
const FRAGMENTS_MAX: u32 = 64;

/// What a client's first bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum First {
    /// The start of a word.
    More,
    /// A whole word, and how many bytes it took.
    Word(Heard, usize),
    /// Something else; what the client is told.
    Other(CloseFrame),
}

/// Reads the first word in `bytes`, which are all that a client has sent.
#[must_use]
pub fn first_word(bytes: &[u8]) -> First {
    let limits = MessageLimits { bytes_max: WORD_BYTES_MAX, fragments_max: FRAGMENTS_MAX, ..MessageLimits::CEILING };
    let mut reader = AwareReader::new(Side::Client);
    let mut at = 0;
    while at < bytes.len() {
        at += match reader.step(&bytes[at..], limits, Some(0)) {
            // A ping is not answered before the client is known.
            Ok(Came::Nothing { len } | Came::Control { len, .. }) => len,
            Ok(Came::Data { .. } | Came::Repeated { .. }) => return refused("hello expected"),
            Ok(Came::Word { text, len }) => {
                return match Heard::read(&text) {
                    Ok(word) => First::Word(word, at + len),
                    Err(malformed) => refused(malformed.0),
                };
            }
            Err(Broken::Protocol(reason)) => return refused(reason),
            Err(Broken::Frames(_)) => return First::Other(CloseFrame::new(1002, "malformed frame")),
        };
    }
    if bytes.len() > FIRST_WORD_BYTES_MAX { refused("control message too long") } else { First::More }
}

fn refused(reason: &str) -> First {
    First::Other(CloseFrame::new(codes::PROTOCOL, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Opcode};

    fn sent(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, opcode, payload, Some([1, 2, 3, 4]));
        bytes
    }

    #[test]
    fn a_hello_is_read_once_it_is_whole_and_what_follows_is_left() {
        let hello = [sent(Opcode::Ping, b"?"), sent(Opcode::Text, br#"!{"t":"hello","v":1}"#)].concat();
        for len in 0..hello.len() {
            assert_eq!(first_word(&hello[..len]), First::More, "{len}");
        }
        let more = [&hello[..], b"more"].concat();
        assert_eq!(first_word(&more), First::Word(Heard::Hello(None), hello.len()));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (bytes, code, reason) in [
            (sent(Opcode::Text, b"1;x"), 4905, "hello expected"),
            (sent(Opcode::Text, b"x"), 4905, "text without a number"),
            (sent(Opcode::Text, b"!x"), 4905, "malformed control message"),
            (sent(Opcode::Text, &[b'!'; WORD_BYTES_MAX + 1]), 4905, "control message too long"),
            (b"\xff\xff".to_vec(), 1002, "malformed frame"),
            (sent(Opcode::Ping, b"").repeat(FIRST_WORD_BYTES_MAX), 4905, "control message too long"),
        ] {
            assert_eq!(first_word(&bytes), First::Other(CloseFrame::new(code, reason)));
        }
    }
}
