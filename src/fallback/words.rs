//! The words of the fallback: lines of JSON outside, frames of `holdline.v1` inside (PROTOCOL sections 7 and 8).
//!
//! ```text
//! {"seq":1,"text":"hi"}       ◀──▶   text     1;hi
//! {"seq":2,"base64":"AAE="}   ◀──▶   binary   0x00 varint(2) 0x00 0x01
//! {"t":"ack","n":2}           ◀──▶   text     !{"t":"ack","n":2}
//! ```
//! Refuses what is none of these before anything of it reaches the pipe.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holdline_core::aware::Heard as Word;
use holdline_core::aware::words::WORD_BYTES_MAX;
use holdline_core::frame::{Opcode, encode};
use serde_json::{Map, Value, json};

/// The highest number of a message: JSON of JavaScript has no higher ones that are exact.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// What a client may say beside messages.
const CONTROLS: [&str; 3] = ["fin", "gap", "hb"];

/// One line of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A message and its number.
    Message {
        /// The number.
        seq: u64,
        /// Text or binary.
        opcode: Opcode,
        /// What it carries.
        payload: Vec<u8>,
    },
    /// It has all messages up to this one.
    Ack(u64),
    /// Another word about messages, as JSON.
    Control(String),
}

/// Why a line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no JSON object.
    #[error("is not a JSON object")]
    NotAnObject,
    /// It is neither a message nor a control.
    #[error(r#"has to be {{"seq":n,"text":"…"}}, {{"seq":n,"base64":"…"}}, or an ack, fin, gap or hb with its "t""#)]
    Unknown,
    /// The number is none.
    #[error("has a seq that is no whole number from 1 to 2^53-1")]
    BadSeq,
    /// The payload is not what its name says.
    #[error("has a base64 that is none")]
    BadBase64,
    /// It is a control whose members are not what they have to be.
    #[error("is a malformed control message")]
    BadControl,
}

impl Said {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        let Ok(Value::Object(object)) = serde_json::from_slice(line) else { return Err(BadLine::NotAnObject) };
        if object.contains_key("t") { control(object) } else { message(&object) }
    }

    /// The number, if it is a message.
    #[must_use]
    pub const fn seq(&self) -> Option<u64> {
        match self {
            Self::Message { seq, .. } => Some(*seq),
            Self::Ack(_) | Self::Control(_) => None,
        }
    }

    /// Bytes that it takes while it waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Message { payload, .. } => payload.len(),
            Self::Ack(_) => 0,
            Self::Control(json) => json.len(),
        }
    }

    /// The frame that says it to the pipe, masked with `mask` as a client's.
    #[must_use]
    pub fn frame(&self, mask: [u8; 4]) -> Vec<u8> {
        let (opcode, payload) = match self {
            Self::Message { seq, opcode: Opcode::Binary, payload } => {
                let mut framed = vec![0];
                varint(&mut framed, *seq);
                framed.extend_from_slice(payload);
                (Opcode::Binary, framed)
            }
            Self::Message { seq, payload, .. } => (Opcode::Text, [seq.to_string().as_bytes(), b";", payload].concat()),
            Self::Ack(n) => (Opcode::Text, format!("!{}", json!({ "t": "ack", "n": n })).into_bytes()),
            Self::Control(json) => (Opcode::Text, format!("!{json}").into_bytes()),
        };
        let mut frame = Vec::with_capacity(payload.len() + 14);
        encode(&mut frame, opcode, &payload, Some(mask));
        frame
    }
}

fn control(object: Map<String, Value>) -> Result<Said, BadLine> {
    match object["t"].as_str() {
        Some("ack") => {
            let n = object.get("n").and_then(Value::as_u64).filter(|&n| n <= SEQ_MAX);
            n.map(Said::Ack).ok_or(BadLine::Unknown)
        }
        Some(word) if CONTROLS.contains(&word) => {
            let json = Value::Object(object).to_string();
            if is_word(&json) { Ok(Said::Control(json)) } else { Err(BadLine::BadControl) }
        }
        Some(_) | None => Err(BadLine::Unknown),
    }
}

/// Whether the pipe would take this object as a word: it closes a client that says anything else.
#[must_use]
pub fn is_word(json: &str) -> bool {
    json.len() < WORD_BYTES_MAX && Word::read(format!("!{json}").as_bytes()).is_ok()
}

fn message(object: &Map<String, Value>) -> Result<Said, BadLine> {
    let [seq, text, base64] = ["seq", "text", "base64"].map(|name| object.get(name));
    if object.len() != 2 || seq.is_none() {
        return Err(BadLine::Unknown);
    }
    let seq = seq.and_then(Value::as_u64).filter(|seq| (1..=SEQ_MAX).contains(seq)).ok_or(BadLine::BadSeq)?;
    let (opcode, payload) = match (text.and_then(Value::as_str), base64.and_then(Value::as_str)) {
        (Some(text), _) => (Opcode::Text, text.as_bytes().to_vec()),
        (None, Some(base64)) => (Opcode::Binary, STANDARD.decode(base64).map_err(|_| BadLine::BadBase64)?),
        (None, None) => return Err(BadLine::Unknown),
    };
    Ok(Said::Message { seq, opcode, payload })
}

/// What the pipe said in one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A message of the worker, as a line.
    Message {
        /// Its number.
        seq: u64,
        /// The line, without its end.
        json: Bytes,
    },
    /// A word about messages.
    Control(Map<String, Value>),
}

impl Heard {
    /// Reads a message of a pipe; nothing if it is none of `holdline.v1`, which is a fault of ours.
    #[must_use]
    pub fn parse(opcode: Opcode, payload: &[u8]) -> Option<Self> {
        let (seq, json) = match (opcode, payload) {
            (Opcode::Text, [b'!', json @ ..]) => return serde_json::from_slice(json).ok().map(Self::Control),
            (Opcode::Text, _) => {
                let (seq, text) = str::from_utf8(payload).ok()?.split_once(';')?;
                let seq: u64 = seq.parse().ok()?;
                (seq, json!({ "seq": seq, "text": text }))
            }
            (Opcode::Binary, [0, numbered @ ..]) => {
                let (seq, bytes) = read_varint(numbered)?;
                (seq, json!({ "seq": seq, "base64": STANDARD.encode(bytes) }))
            }
            _ => return None,
        };
        Some(Self::Message { seq, json: json.to_string().into() })
    }
}

/// Unsigned LEB128: seven bits a byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(8) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use holdline_core::frame::{Side, apply_mask, parse};

    use super::*;

    fn unmasked(frame: &[u8]) -> (Opcode, Vec<u8>) {
        let header = parse(frame, Side::Client).unwrap().unwrap();
        let mut payload = frame[header.header_len..].to_vec();
        apply_mask(&mut payload, header.mask.unwrap());
        (header.opcode, payload)
    }

    #[test]
    fn what_a_client_says_is_what_the_pipe_reads() {
        let cases: [(&str, Opcode, &[u8]); 4] = [
            (r#"{"seq":1,"text":"hi; there"}"#, Opcode::Text, b"1;hi; there"),
            (r#"{"base64":"AAE=","seq":300}"#, Opcode::Binary, &[0, 0xac, 2, 0, 1]),
            (r#"{"seq":2,"text":"!no control"}"#, Opcode::Text, b"2;!no control"),
            (r#"{"t":"ack","n":7}"#, Opcode::Text, br#"!{"n":7,"t":"ack"}"#),
        ];
        for (line, opcode, payload) in cases {
            let frame = Said::parse(line.as_bytes()).unwrap().frame([1, 2, 3, 4]);
            assert_eq!(unmasked(&frame), (opcode, payload.to_vec()), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_reason() {
        let cases = [
            ("", BadLine::NotAnObject),
            ("[1]", BadLine::NotAnObject),
            (r#"{"seq":1}"#, BadLine::Unknown),
            (r#"{"seq":1,"text":"a","base64":""}"#, BadLine::Unknown),
            (r#"{"seq":1,"text":3}"#, BadLine::Unknown),
            (r#"{"text":"a"}"#, BadLine::Unknown),
            (r#"{"t":"hello","v":1}"#, BadLine::Unknown),
            (r#"{"seq":0,"text":"a"}"#, BadLine::BadSeq),
            (r#"{"seq":1.5,"text":"a"}"#, BadLine::BadSeq),
            (r#"{"seq":-1,"text":"a"}"#, BadLine::BadSeq),
            (r#"{"seq":"1","text":"a"}"#, BadLine::BadSeq),
            (r#"{"seq":9007199254740992,"text":"a"}"#, BadLine::BadSeq),
            (r#"{"seq":1,"base64":"*"}"#, BadLine::BadBase64),
            (r#"{"t":"fin","n":1}"#, BadLine::BadControl),
            (r#"{"t":"gap","lane":"up","from":0,"count":1,"why":"ttl"}"#, BadLine::BadControl),
        ];
        for (line, reason) in cases {
            assert_eq!(Said::parse(line.as_bytes()), Err(reason), "{line}");
        }
    }

    #[test]
    fn what_the_pipe_says_is_what_a_client_reads() {
        let line = |seq, json: &str| Heard::Message { seq, json: json.to_owned().into() };
        let text = Heard::parse(Opcode::Text, "12;ü;".as_bytes());
        assert_eq!(text, Some(line(12, r#"{"seq":12,"text":"ü;"}"#)));
        let binary = Heard::parse(Opcode::Binary, &[0, 0x80, 1, 255]);
        assert_eq!(binary, Some(line(128, r#"{"base64":"/w==","seq":128}"#)));
        let control = Heard::parse(Opcode::Text, br#"!{"t":"live"}"#);
        assert!(matches!(control, Some(Heard::Control(object)) if object["t"] == "live"));
        for bad in [&b"no number"[..], b"!", b"!3"] {
            assert_eq!(Heard::parse(Opcode::Text, bad), None);
        }
    }
}
