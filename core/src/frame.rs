//! RFC 6455 frame headers: parsed strictly, never the payload behind them.
//!
//! A client's frame is masked, and a masked frame is just what a worker expects of us, so the relay forwards frames
//! as they came. All it needs to know is where each frame ends and whether it may be believed. Refused here: reserved
//! bits but [`RSV1`] where a message begins, unknown opcodes, wrong masking for the sender, lengths not in their shortest
//! form, control frames that are fragmented or longer than 125 bytes. A client's control frame may come unmasked.
//! Whether [`RSV1`] was agreed on is for the assembler to know.

/// Payload bytes of a control frame (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Bytes of the longest frame header: two, eight of length, four of mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// The bit of a first frame that says its message is compressed (RFC 7692 section 6).
pub const RSV1: u8 = 0x40;

/// Which leg's peer sent a frame; it decides whether the frame must be masked (RFC 6455 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The client leg: its peer masks every frame.
    Client,
    /// The backend leg: its peer masks none.
    Backend,
}

impl Side {
    /// The leg at the other end of the pipe.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// What a frame carries (RFC 6455 section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// The next part of a message.
    Continuation,
    /// The first part, or the whole, of a text message.
    Text,
    /// The first part, or the whole, of a binary message.
    Binary,
    /// The orderly end of a connection.
    Close,
    /// A question that a [`Opcode::Pong`] answers.
    Ping,
    /// The answer to a ping, or an unsolicited sign of life.
    Pong,
}

impl Opcode {
    /// Whether frames of this kind stand outside messages (section 5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// One frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether this frame is the last of its message.
    pub fin: bool,
    /// Whether it is the first of a compressed message ([`RSV1`]).
    pub compressed: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The masking key, from a client only.
    pub mask: Option<[u8; 4]>,
    /// Payload bytes behind the header.
    pub payload_len: u64,
    /// Bytes of the header itself, 2 to [`HEADER_BYTES_MAX`].
    pub header_len: usize,
}

/// Why a peer's bytes are not a WebSocket conversation; each of them is close code 1002.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// RSV1, RSV2 or RSV3 is set though no extension that was agreed on allows it there.
    ReservedBits,
    /// The opcode is one that RFC 6455 reserves.
    ReservedOpcode,
    /// A client's data frame is not masked.
    Unmasked,
    /// A backend's frame is masked.
    Masked,
    /// A control frame is longer than 125 bytes.
    ControlTooLong,
    /// A control frame is fragmented.
    ControlFragmented,
    /// A length is not in its shortest form.
    LengthNotMinimal,
    /// The highest bit of a 64-bit length is set.
    LengthTooLong,
    /// A continuation without a message to continue.
    NothingToContinue,
    /// A new message before the last one was finished.
    MessageUnfinished,
    /// A close frame with a payload of one byte, or a code that must not be sent.
    BadClose,
}

impl Violation {
    /// The reason that the peer is told, in its close frame.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set without an extension",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "client frame not masked",
            Self::Masked => "server frame masked",
            Self::ControlTooLong => "control frame over 125 bytes",
            Self::ControlFragmented => "fragmented control frame",
            Self::LengthNotMinimal => "length not in shortest form",
            Self::LengthTooLong => "length over 2^63",
            Self::NothingToContinue => "continuation without a message",
            Self::MessageUnfinished => "new message inside another",
            Self::BadClose => "malformed close frame",
        }
    }
}

/// Reads the header at the start of `bytes`, sent by the peer of `sender`; `None` if more bytes are needed.
///
/// # Errors
/// A [`Violation`] as soon as the bytes at hand show it, which may be before the header is complete.
pub fn parse(bytes: &[u8], sender: Side) -> Result<Option<Header>, Violation> {
    let [first, second, rest @ ..] = bytes else {
        return match bytes {
            [first, ..] => parse_first(*first).map(|_| None),
            [] => Ok(None),
        };
    };
    let (fin, opcode, compressed) = parse_first(*first)?;
    let masked = second & 0x80 != 0;
    match (sender, masked) {
        // Some clients mask what they say and not what they answer; a control frame goes no further than here.
        (Side::Client, false) if opcode.is_control() => {}
        (Side::Client, false) => return Err(Violation::Unmasked),
        (Side::Backend, true) => return Err(Violation::Masked),
        (Side::Client, true) | (Side::Backend, false) => {}
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD_MAX {
        return Err(Violation::ControlTooLong);
    }
    let (payload_len, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    match (short, payload_len) {
        (126, ..126) | (127, ..0x1_0000) => return Err(Violation::LengthNotMinimal),
        (127, 0x8000_0000_0000_0000..) => return Err(Violation::LengthTooLong),
        _ => {}
    }
    let (mask, rest) = if masked {
        match rest.split_first_chunk::<4>() {
            Some((mask, rest)) => (Some(*mask), rest),
            None => return Ok(None),
        }
    } else {
        (None, rest)
    };
    let header_len = bytes.len() - rest.len();
    Ok(Some(Header { fin, compressed, opcode, mask, payload_len, header_len }))
}

/// Sizes of a frame that is a data message by itself and whose payload is shorter than 64 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short {
    /// Bytes of the header.
    pub header_len: usize,
    /// Bytes of the payload.
    pub payload_len: usize,
}

/// Reads the header at the start of `bytes` if it is a right one of the most frequent kind; for all else there is
/// [`parse`], with which it must agree (`core/tests/properties` reads everything both ways). The payload may not have
/// come yet. `allowed` is [`RSV1`] where messages may be compressed, else 0.
#[inline]
#[must_use]
pub fn short_message(bytes: &[u8], sender: Side, allowed: u8) -> Option<Short> {
    let (FINAL_TEXT | FINAL_BINARY, &second) = (*bytes.first()? & !allowed, bytes.get(1)?) else { return None };
    let (mask_bit, mask_len) = match sender {
        Side::Client => (0x80, 4),
        Side::Backend => (0, 0),
    };
    if second & 0x80 != mask_bit {
        return None;
    }
    let (length_len, payload_len) = match second & 0x7f {
        126 => (2, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => return None,
        short => (0, usize::from(short)),
    };
    let is_minimal = length_len == 0 || payload_len >= 126;
    is_minimal.then_some(Short { header_len: 2 + length_len + mask_len, payload_len })
}

/// First bytes of frames that are a message by themselves (RFC 6455 section 5.2).
const FINAL_TEXT: u8 = 0x81;
const FINAL_BINARY: u8 = 0x82;

/// Whether the frame is the last of its message, what it carries, and whether it begins a compressed message.
fn parse_first(first: u8) -> Result<(bool, Opcode, bool), Violation> {
    let compressed = first & RSV1 != 0;
    let begins_message = matches!(first & 0x0f, 0x1 | 0x2);
    if first & 0x30 != 0 || compressed && !begins_message {
        return Err(Violation::ReservedBits);
    }
    let fin = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        _ => return Err(Violation::ReservedOpcode),
    };
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    Ok((fin, opcode, compressed))
}

/// What a data message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The kind of a message that begins with a frame of `opcode`.
    #[must_use]
    pub const fn of(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        }
    }

    /// The opcode of the message's first frame.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// Masks or unmasks `payload` in place (RFC 6455 section 5.3).
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends one whole frame to `out`; frames towards a backend carry a `mask`, frames towards a client none.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(0x80 | opcode.bits());
    match payload.len() {
        len @ ..126 => out.push(mask_bit | len as u8),
        len @ 126..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| mask));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// The header of a data frame; the second value says how many of the bytes it is.
#[must_use]
pub fn encode_header(
    fin: bool,
    opcode: Opcode,
    payload_len: usize,
    mask: Option<[u8; 4]>,
) -> ([u8; HEADER_BYTES_MAX], u8) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = if fin { 0x80 } else { 0 } | opcode.bits();
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut len = 2;
    match payload_len {
        ..126 => header[1] = mask_bit | payload_len as u8,
        126..0x1_0000 => {
            header[1] = mask_bit | 126;
            header[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            len = 4;
        }
        _ => {
            header[1] = mask_bit | 127;
            header[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            len = 10;
        }
    }
    if let Some(mask) = mask {
        header[len..len + 4].copy_from_slice(&mask);
        len += 4;
    }
    (header, len as u8)
}

/// A ping of eight bytes, without an allocation; the second value says how many of the bytes are the frame.
#[must_use]
pub fn encode_ping(mut payload: [u8; 8], mask: Option<[u8; 4]>) -> ([u8; 14], u8) {
    let mut frame = [0; 14];
    frame[0] = 0x80 | Opcode::Ping.bits();
    let Some(mask) = mask else {
        frame[1] = 8;
        frame[2..10].copy_from_slice(&payload);
        return (frame, 10);
    };
    frame[1] = 0x80 | 8;
    frame[2..6].copy_from_slice(&mask);
    apply_mask(&mut payload, mask);
    frame[6..].copy_from_slice(&payload);
    (frame, 14)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_the_same_with_and_without_an_allocation() {
        for mask in [None, Some([1, 2, 3, 250])] {
            let mut expected = Vec::new();
            encode(&mut expected, Opcode::Ping, b"12345678", mask);
            let (frame, len) = encode_ping(*b"12345678", mask);
            assert_eq!(frame[..usize::from(len)], expected);
        }
    }

    fn frame(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
        [&[first, second], rest].concat()
    }

    #[test]
    fn a_header_needs_every_one_of_its_bytes_before_it_is_believed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Opcode::Binary, &vec![7; 70_000], Some([1, 2, 3, 4]));
        for len in 0..HEADER_BYTES_MAX {
            assert_eq!(parse(&bytes[..len], Side::Client), Ok(None), "{len}");
        }
        let header = parse(&bytes, Side::Client).unwrap().unwrap();
        assert_eq!(header.payload_len, 70_000);
        assert_eq!(header.header_len, HEADER_BYTES_MAX);
        assert_eq!(header.mask, Some([1, 2, 3, 4]));
    }

    #[test]
    fn every_length_is_encoded_in_the_form_the_parser_insists_on() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            for (side, mask) in [(Side::Client, Some([9, 8, 7, 6])), (Side::Backend, None)] {
                let mut bytes = Vec::new();
                encode(&mut bytes, Opcode::Text, &vec![b'x'; len], mask);
                let header = parse(&bytes, side).unwrap().unwrap();
                assert_eq!(header.payload_len, len as u64);
                assert_eq!(header.header_len + len, bytes.len());
                apply_mask(&mut bytes[header.header_len..], header.mask.unwrap_or_default());
                assert!(bytes[header.header_len..].iter().all(|&byte| byte == b'x'));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused_as_soon_as_it_shows() {
        let cases: [(Vec<u8>, Side, Violation); 14] = [
            (vec![0xC0], Side::Client, Violation::ReservedBits),
            (vec![0xC9], Side::Backend, Violation::ReservedBits),
            (vec![0xA1], Side::Client, Violation::ReservedBits),
            (vec![0x91], Side::Client, Violation::ReservedBits),
            (vec![0x83], Side::Client, Violation::ReservedOpcode),
            (vec![0x8B], Side::Backend, Violation::ReservedOpcode),
            (vec![0x09], Side::Backend, Violation::ControlFragmented),
            (frame(0x81, 0x05, &[]), Side::Client, Violation::Unmasked),
            (frame(0x81, 0x85, &[]), Side::Backend, Violation::Masked),
            (frame(0x89, 0x7E, &[]), Side::Backend, Violation::ControlTooLong),
            (frame(0x81, 0x7E, &[0, 125]), Side::Backend, Violation::LengthNotMinimal),
            (frame(0x81, 0x7F, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]), Side::Backend, Violation::LengthNotMinimal),
            (frame(0x81, 0x7F, &[0x80, 0, 0, 0, 0, 0, 0, 0]), Side::Backend, Violation::LengthTooLong),
            (frame(0x81, 0x7F, &[0xff; 8]), Side::Backend, Violation::LengthTooLong),
        ];
        for (bytes, sender, violation) in cases {
            assert_eq!(parse(&bytes, sender), Err(violation), "{bytes:02x?}");
        }
    }

    #[test]
    fn the_largest_length_that_the_rfc_allows_is_parsed() {
        let bytes = frame(0x82, 0x7F, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(parse(&bytes, Side::Backend).unwrap().unwrap().payload_len, i64::MAX as u64);
    }
}
