//! A second, naive reading and writing of RFC 6455, so that the tests do not believe the parser they test. A compressed
//! message is one whose bytes are turned over: to lose or to add the bit that says so changes what it is.
#![allow(dead_code)] // each test binary uses its own part of it

use std::fmt;

/// What came over a link.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// 1005 stands for an empty close frame.
    Close(u16, String),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Text(bytes) => ("text", bytes),
            Self::Binary(bytes) => ("binary", bytes),
            Self::Ping(bytes) => ("ping", bytes),
            Self::Pong(bytes) => ("pong", bytes),
            Self::Close(code, reason) => return write!(f, "close {code} {reason:?}"),
        };
        let start = &bytes[..bytes.len().min(24)];
        write!(f, "{name}[{}] {:?}", bytes.len(), String::from_utf8_lossy(start))
    }
}

/// The far end of a link: it collects bytes and cuts them into items.
#[derive(Clone, Default, Debug)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Opcode with the bit for compressed, payload, and size on the wire of a fragmented message so far.
    open: Option<(u8, Vec<u8>, usize)>,
    /// Payload bytes of each frame of the message under way, and of the one that came last.
    parts: Vec<usize>,
    masked: bool,
    closed: bool,
    lenient: bool,
    talks_on: bool,
}

impl Reader {
    /// The far end of a link on which frames must be `masked`.
    pub fn new(masked: bool) -> Self {
        Self { masked, ..Self::default() }
    }

    /// An end that takes a violation for a close with code 0, and hears nothing after a close.
    pub fn lenient(masked: bool) -> Self {
        Self { masked, lenient: true, ..Self::default() }
    }

    /// A lenient end whose peer goes on with control frames behind its close frame, as a peer does that answers a ping
    /// before it has heard of the other's close frame (RFC 6455 section 5.5.2).
    pub fn of_one_that_talks_on(masked: bool) -> Self {
        Self { masked, lenient: true, talks_on: true, ..Self::default() }
    }

    /// Takes in bytes; what they made whole.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Item> {
        self.read_sized(bytes).into_iter().map(|(item, _)| item).collect()
    }

    /// The same, with the payload bytes of each of the item's frames.
    pub fn read_in_parts(&mut self, bytes: &[u8]) -> Vec<(Item, Vec<usize>)> {
        self.read_whole(bytes).into_iter().map(|(item, _, parts)| (item, parts)).collect()
    }

    /// The same, with what each item took on the wire.
    pub fn read_sized(&mut self, bytes: &[u8]) -> Vec<(Item, usize)> {
        self.read_whole(bytes).into_iter().map(|(item, wire_bytes, _)| (item, wire_bytes)).collect()
    }

    fn read_whole(&mut self, bytes: &[u8]) -> Vec<(Item, usize, Vec<usize>)> {
        if self.lenient && self.closed {
            return Vec::new();
        }
        assert!(bytes.is_empty() || !self.closed, "bytes after a close frame: {bytes:02x?}");
        self.bytes.extend_from_slice(bytes);
        let mut items = Vec::new();
        let mut at = 0;
        while let Some((first, payload, len)) = one_frame(&self.bytes[at..], self.masked) {
            at += len;
            if let Some((item, wire_bytes)) = self.frame(first, payload, len) {
                self.closed |= matches!(item, Item::Close(code, _) if code == 0 || !self.talks_on);
                let is_message = matches!(item, Item::Text(_) | Item::Binary(_));
                items.push((item, wire_bytes, if is_message { std::mem::take(&mut self.parts) } else { Vec::new() }));
            }
            if self.closed {
                assert!(self.lenient || at == self.bytes.len(), "bytes after a close frame");
                break;
            }
        }
        self.bytes.drain(..at);
        // A reserved opcode is known by its first byte.
        if self.lenient && !self.closed && self.bytes.first().is_some_and(|first| is_reserved(first & 0x0f)) {
            self.closed = true;
            items.push((violation(), 1, Vec::new()));
        }
        items
    }

    /// Whether the frame under way says that it is longer than `bytes_max`.
    pub fn is_amid_more_than(&self, bytes_max: usize) -> bool {
        announced(&self.bytes).is_some_and(|(len, _)| len > bytes_max)
    }

    /// Whether nothing is half said: no part of a frame, no part of a message.
    pub fn is_at_boundary(&self) -> bool {
        self.bytes.is_empty() && self.open.is_none()
    }

    /// Bytes that have come of what is not whole: a message's frames, and the start of the next frame.
    pub fn open_bytes(&self) -> usize {
        self.bytes.len() + self.open.as_ref().map_or(0, |(_, _, wire_bytes)| *wire_bytes)
    }

    fn frame(&mut self, first: u8, payload: Vec<u8>, len: usize) -> Option<(Item, usize)> {
        assert_eq!(first & 0x30, 0, "reserved bits");
        let is_compressed = first & 0x40 != 0;
        assert!(!is_compressed || matches!(first & 0x0f, 1 | 2), "compressed where no message begins");
        let fin = first & 0x80 != 0;
        let opcode = first & 0x0f;
        match opcode {
            0..=2 => {
                let (kind, mut whole, before) = match (opcode, self.open.take()) {
                    (0, Some(open)) => open,
                    (0, None) => panic!("a continuation of nothing"),
                    (_, None) => (first & 0x4f, Vec::new(), 0),
                    (_, Some(_)) => panic!("a message spliced into another"),
                };
                whole.extend_from_slice(&payload);
                self.parts.push(payload.len());
                if !fin {
                    self.open = Some((kind, whole, before + len));
                    return None;
                }
                if kind & 0x40 != 0 {
                    turn_over(&mut whole);
                }
                Some((if kind & 0x0f == 1 { Item::Text(whole) } else { Item::Binary(whole) }, before + len))
            }
            8..=10 => {
                assert!(fin && payload.len() <= 125, "a bad control frame");
                let item = match opcode {
                    9 => Item::Ping(payload),
                    10 => Item::Pong(payload),
                    _ if payload.is_empty() => Item::Close(1005, String::new()),
                    _ => {
                        let code = u16::from_be_bytes([payload[0], payload[1]]);
                        Item::Close(code, String::from_utf8(payload[2..].to_vec()).expect("a reason is text"))
                    }
                };
                Some((item, len))
            }
            _ if self.lenient => Some((violation(), len)),
            _ => panic!("reserved opcode {opcode}"),
        }
    }
}

const fn is_reserved(opcode: u8) -> bool {
    !matches!(opcode, 0..=2 | 8..=10)
}

fn violation() -> Item {
    Item::Close(0, "a violation".into())
}

/// First byte, unmasked payload and total length of the frame at the start of `bytes`, if it is all there.
fn one_frame(bytes: &[u8], masked: bool) -> Option<(u8, Vec<u8>, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80 != 0, masked, "masking on the wrong side");
    let (len, mut at) = announced(bytes)?;
    let mut key = [0; 4];
    if masked {
        key.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + len)?;
    Some((first, payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]).collect(), at + len))
}

/// What the header at the start of `bytes` says of its payload's length, and where that is said to the end.
fn announced(bytes: &[u8]) -> Option<(usize, usize)> {
    Some(match bytes.get(1)? & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (usize::from(short), 2),
    })
}

/// A message as a peer compresses it here: the first byte of its first frame, and its payload.
pub fn compressed(first: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut payload = payload.to_vec();
    turn_over(&mut payload);
    (first | 0x40, payload)
}

fn turn_over(payload: &mut [u8]) {
    for byte in payload {
        *byte ^= 0x55;
    }
}

/// One frame with this first byte; `mask` as a client would.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    let len = payload.len();
    if len < 126 {
        out.push(bit | len as u8);
    } else if len < 65_536 {
        out.push(bit | 126);
        out.extend_from_slice(&(len as u16).to_be_bytes());
    } else {
        out.push(bit | 127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
    let key = mask.unwrap_or_default();
    if mask.is_some() {
        out.extend_from_slice(&key);
    }
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
    out
}

/// A close frame's payload; 1005 is an empty one.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    if code == 1005 { Vec::new() } else { [&code.to_be_bytes()[..], reason.as_bytes()].concat() }
}
