//! What a peer sends that numbers its messages: the number is cut off, and the rest is a message like any other.
//!
//! ```text
//!   Between -- first byte --> Prefix -- the number that is due --> Payload --+
//!      ^                        | \---- one that came before ----> Repeated -+
//!      |                        +------ "!" ---------------------> Word -----+
//!      +----------------------------- end of the message --------------------+
//! ```
//!
//! The payload is not touched. A frame without its first `k` bytes is a right frame again under the key rotated by `k`, so
//! only its header is made anew; frames that hold nothing but a part of the number are left out, and those behind the number
//! go on as they are. Invariant: nothing of a message is handed out before its number is known to be the one that is due.

use crate::assembler::{Assembler, Control, Message, MessageLimits, Refused, Step};
use crate::aware::number::{PREFIX_BYTES_MAX, Prefix, Reading};
use crate::aware::words::WORD_BYTES_MAX;
use crate::frame::{self, HEADER_BYTES_MAX, Kind, Side};
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

/// Why a peer's bytes are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    /// They are no right frames, or a message breaks a limit.
    Frames(Refused),
    /// They are no right messages of the protocol; what the peer is told.
    Protocol(&'static str),
}

/// A frame's header that was made anew, or came in two parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    bytes: [u8; HEADER_BYTES_MAX],
    len: u8,
}

impl Head {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the next `len` bytes of the input are.
#[derive(Debug)]
pub(crate) enum Came {
    /// Those from `skip` on are a part of a message, behind `head` if there is one; the message that they end.
    Data { head: Option<Head>, skip: usize, len: usize, ended: Option<Message> },
    /// Bytes of which nothing is passed on.
    Nothing { len: usize },
    /// The end of a message that had come before.
    Repeated { len: usize },
    /// The end of a control word.
    Word { text: Vec<u8>, len: usize },
    /// A control frame.
    Control { control: Control, len: usize },
}

#[derive(Debug)]
enum Stage {
    Between,
    Prefix(Prefix),
    Payload,
    Repeated,
    Word(Vec<u8>),
}

/// The frame under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Frame {
    fin: bool,
    mask: Option<[u8; 4]>,
    len: u64,
    /// Payload bytes of it that have come.
    at: u64,
}

/// What was left out of the message under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cut {
    wire_bytes: u32,
    payload_bytes: u32,
}

/// The state of one peer's byte stream.
#[derive(Debug)]
pub(crate) struct AwareReader {
    pub assembler: Assembler,
    stage: Stage,
    frame: Frame,
    cut: Cut,
}

/// The part of a frame that an input holds.
struct Part<'a> {
    /// Its header, if it begins here.
    head: Option<Head>,
    /// Bytes of the header that stand in the input.
    head_in_input: usize,
    payload: &'a [u8],
    ended: Option<Message>,
}

impl AwareReader {
    pub const fn new(sender: Side) -> Self {
        Self {
            assembler: Assembler::new(sender),
            stage: Stage::Between,
            frame: Frame { fin: false, mask: None, len: 0, at: 0 },
            cut: Cut { wire_bytes: 0, payload_bytes: 0 },
        }
    }

    /// Whether `bytes` may be what has been handed out of a message that is not whole.
    pub fn has_taken(&self, bytes: &[u8]) -> bool {
        match self.stage {
            Stage::Payload => self.assembler.has_taken_but(bytes, self.cut.wire_bytes, self.cut.payload_bytes),
            Stage::Between | Stage::Prefix(_) | Stage::Repeated | Stage::Word(_) => bytes.is_empty(),
        }
    }

    /// Looks at the start of `input`, which is not empty, and says what it is; `last` is the last number received, if
    /// numbers still count.
    ///
    /// # Errors
    /// [`Broken`]; the stream is beyond repair then.
    pub fn step(&mut self, input: &[u8], limits: MessageLimits, last: Option<u64>) -> Result<Came, Broken> {
        let continues = self.assembler.frame_left_bytes() > 0;
        // The number is no part of the message, which is judged again without it.
        let wide = MessageLimits { bytes_max: limits.bytes_max + PREFIX_BYTES_MAX, ..limits };
        let (len, part) = match self.assembler.step(input, wide).map_err(Broken::Frames)? {
            Step::Control { control, len } => return Ok(Came::Control { control, len }),
            Step::Starved => return Ok(Came::Nothing { len: input.len() }),
            Step::Skipped { len, .. } => return Ok(Came::Nothing { len }),
            Step::Header { header, header_len, len, ended } => {
                let head = Head { bytes: header, len: header_len as u8 };
                (len, Part { head: Some(head), head_in_input: len, payload: &[], ended })
            }
            Step::Data { len, ended } if continues => {
                (len, Part { head: None, head_in_input: 0, payload: &input[..len], ended })
            }
            Step::Data { len, ended } => {
                let header_len = len.min(header_bytes(input, self.assembler.sender()));
                let mut bytes = [0; HEADER_BYTES_MAX];
                bytes[..header_len].copy_from_slice(&input[..header_len]);
                let head = Head { bytes, len: header_len as u8 };
                let payload = &input[header_len..len];
                (len, Part { head: Some(head), head_in_input: header_len, payload, ended })
            }
        };
        self.take(&part, len, limits, last)
    }

    fn take(&mut self, part: &Part<'_>, len: usize, limits: MessageLimits, last: Option<u64>) -> Result<Came, Broken> {
        if let Some(head) = &part.head {
            self.begin_frame(head);
        }
        let at = self.frame.at;
        self.frame.at += part.payload.len() as u64;
        let mut came = match &mut self.stage {
            Stage::Between | Stage::Repeated => Came::Nothing { len },
            Stage::Payload if part.head_in_input == len => {
                // All of it is a header, of which a part may have come before.
                Came::Data { head: part.head, skip: len, len, ended: None }
            }
            Stage::Payload => Came::Data { head: None, skip: 0, len, ended: None },
            Stage::Word(text) => {
                append(text, part.payload, self.frame.mask, at).map_err(Broken::Protocol)?;
                Came::Nothing { len }
            }
            Stage::Prefix(_) => self.take_prefix(part, at, len, last)?,
        };
        if let Some(message) = part.ended {
            came = self.end(came, message, len, limits)?;
        }
        Ok(came)
    }

    fn begin_frame(&mut self, head: &Head) {
        let Ok(Some(header)) = frame::parse(head.as_slice(), self.assembler.sender()) else { return };
        self.frame = Frame { fin: header.fin, mask: header.mask, len: header.payload_len, at: 0 };
        if let (Stage::Between, Some(kind)) = (&self.stage, Kind::of(header.opcode)) {
            self.stage = Stage::Prefix(Prefix::new(kind));
            self.cut = Cut::default();
        }
        if matches!(self.stage, Stage::Prefix(_)) {
            self.cut.wire_bytes += head.len as u32;
        }
    }

    /// Reads on in the number; once it is known, what it stands before begins.
    fn take_prefix(&mut self, part: &Part<'_>, at: u64, len: usize, last: Option<u64>) -> Result<Came, Broken> {
        let Stage::Prefix(prefix) = &mut self.stage else { return Ok(Came::Nothing { len }) };
        let mut taken = 0;
        let reading = loop {
            let Some(&byte) = part.payload.get(taken) else { break Reading::More };
            let key = self.frame.mask.map_or(0, |mask| mask[(at as usize + taken) % 4]);
            taken += 1;
            match prefix.take(byte ^ key).map_err(Broken::Protocol)? {
                Reading::More => {}
                whole => break whole,
            }
        };
        let (kind, prefix_bytes) = (prefix.kind, u32::from(prefix.len));
        self.cut.wire_bytes += taken as u32;
        match reading {
            Reading::More => Ok(Came::Nothing { len }),
            Reading::Word => {
                let mut text = vec![crate::aware::number::WORD_MARK];
                append(&mut text, &part.payload[taken..], self.frame.mask, at + taken as u64)
                    .map_err(Broken::Protocol)?;
                self.stage = Stage::Word(text);
                Ok(Came::Nothing { len })
            }
            Reading::Number(number) if last.is_some_and(|last| number <= last) => {
                self.stage = Stage::Repeated;
                Ok(Came::Nothing { len })
            }
            Reading::Number(number) if last.is_some_and(|last| number > last + 1) => {
                Err(Broken::Protocol("number skipped without a gap"))
            }
            Reading::Number(_) => {
                self.stage = Stage::Payload;
                self.cut.payload_bytes = prefix_bytes;
                let head = self.head_behind(at + taken as u64, kind);
                self.cut.wire_bytes -= u32::from(head.len);
                Ok(Came::Data { head: Some(head), skip: part.head_in_input + taken, len, ended: None })
            }
        }
    }

    /// The header of what is left of the frame behind its first `cut` bytes.
    fn head_behind(&self, cut: u64, kind: Kind) -> Head {
        let mask = self.frame.mask.map(|mut mask| {
            mask.rotate_left((cut % 4) as usize);
            mask
        });
        // A frame of a message is below `bytes_max`.
        let payload_len = (self.frame.len - cut) as usize;
        let (bytes, len) = frame::encode_header(self.frame.fin, kind.opcode(), payload_len, mask);
        Head { bytes, len }
    }

    /// Ends the message under way; what its last part is.
    fn end(&mut self, came: Came, whole: Message, len: usize, limits: MessageLimits) -> Result<Came, Broken> {
        match (std::mem::replace(&mut self.stage, Stage::Between), came) {
            (Stage::Payload, Came::Data { head, skip, len, .. }) => {
                let message = Message {
                    wire_bytes: whole.wire_bytes - self.cut.wire_bytes,
                    payload_bytes: whole.payload_bytes - self.cut.payload_bytes,
                };
                if message.payload_bytes as usize > limits.bytes_max {
                    return Err(Broken::Frames(Refused::MessageTooBig));
                }
                Ok(Came::Data { head, skip, len, ended: Some(message) })
            }
            (Stage::Repeated, _) => Ok(Came::Repeated { len }),
            (Stage::Word(text), _) => Ok(Came::Word { text, len }),
            (Stage::Prefix(Prefix { kind: Kind::Text, .. }), _) => Err(Broken::Protocol("text without a number")),
            (Stage::Prefix(_), _) => Err(Broken::Protocol("binary message without a number")),
            (Stage::Between | Stage::Payload, came) => Ok(came),
        }
    }
}

/// Bytes of the header at the start of `input`.
fn header_bytes(input: &[u8], sender: Side) -> usize {
    match frame::parse(input, sender) {
        Ok(Some(header)) => header.header_len,
        // The assembler has read it.
        Ok(None) | Err(_) => 0,
    }
}

/// Appends payload bytes that begin at place `at` of their frame, without their mask.
fn append(text: &mut Vec<u8>, payload: &[u8], mask: Option<[u8; 4]>, at: u64) -> Result<(), &'static str> {
    if text.len() + payload.len() > WORD_BYTES_MAX {
        return Err("control message too long");
    }
    let start = text.len();
    text.extend_from_slice(payload);
    if let Some(mut mask) = mask {
        mask.rotate_left((at % 4) as usize);
        frame::apply_mask(&mut text[start..], mask);
    }
    Ok(())
}

const PART: &str = "numbers";

impl AwareReader {
    pub fn freeze(&self, out: &mut Writer) {
        let Self { assembler, stage, frame, cut } = self;
        assembler.freeze(out);
        match stage {
            Stage::Between => return out.u8(0),
            Stage::Prefix(prefix) => {
                out.u8(1);
                prefix.freeze(out);
            }
            Stage::Payload => out.u8(2),
            Stage::Repeated => out.u8(3),
            Stage::Word(text) => {
                out.u8(4);
                out.bytes(text);
            }
        }
        out.flag(frame.fin);
        out.option(frame.mask, |out, mask| out.raw(&mask));
        out.count(frame.len);
        out.count(frame.at);
        out.u32(cut.wire_bytes);
        out.u32(cut.payload_bytes);
    }

    pub fn thaw(input: &mut Reader<'_>, sender: Side) -> Read<Self> {
        let mut reader = Self::new(sender);
        reader.assembler = Assembler::thaw(input, sender)?;
        reader.stage = match input.u8()? {
            0 => Stage::Between,
            1 => Stage::Prefix(Prefix::thaw(input)?),
            2 => Stage::Payload,
            3 => Stage::Repeated,
            4 => Stage::Word(input.bytes(WORD_BYTES_MAX)?.to_vec()),
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        let is_between = matches!(reader.stage, Stage::Between);
        demand(is_between != reader.assembler.inside_message(), PART)?;
        if is_between {
            return Ok(reader);
        }
        let fin = input.flag()?;
        let mask = input.option(|input| Ok(input.raw(4)?.try_into().unwrap_or_default()))?;
        reader.frame = Frame { fin, mask, len: input.count()?, at: input.count()? };
        reader.cut = Cut { wire_bytes: input.u32()?, payload_bytes: input.u32()? };
        reader.demand_sound()?;
        Ok(reader)
    }

    fn demand_sound(&self) -> Read<()> {
        let Frame { mask, len, at, .. } = self.frame;
        demand(mask.is_some() == (self.assembler.sender() == Side::Client), PART)?;
        demand(at <= len && len - at == self.assembler.frame_left_bytes() as u64, PART)?;
        let (wire_bytes, payload_bytes) = self.assembler.open_bytes();
        // What is cut off of a message was a part of it.
        let within = u64::from(self.cut.wire_bytes) <= wire_bytes && u64::from(self.cut.payload_bytes) <= payload_bytes;
        demand(within, PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Opcode;
    use proptest::prelude::*;

    const WORD: &[u8] = br#"!{"t":"x"}"#;

    const LIMITS: MessageLimits = MessageLimits { bytes_max: 1000, ..MessageLimits::CEILING };

    /// What is passed on: the bytes, their messages, words, and how many came before.
    type Passed = (Vec<u8>, Vec<Message>, Vec<Vec<u8>>, u64);

    /// All that is passed on of `bytes`, read in pieces.
    fn read(bytes: &[u8], piece: usize, last: u64) -> Result<Passed, Broken> {
        let mut reader = AwareReader::new(Side::Client);
        let (mut out, mut messages, mut words, mut repeated) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            let mut at = 0;
            while at < piece.len() {
                at += match reader.step(&piece[at..], LIMITS, Some(last + messages.len() as u64))? {
                    Came::Data { head, skip, len, ended } => {
                        out.extend_from_slice(head.as_ref().map_or(&[][..], Head::as_slice));
                        out.extend_from_slice(&piece[at + skip..at + len]);
                        messages.extend(ended);
                        len
                    }
                    Came::Repeated { len } => {
                        repeated += 1;
                        len
                    }
                    Came::Word { text, len } => {
                        words.push(text);
                        len
                    }
                    Came::Nothing { len } | Came::Control { len, .. } => len,
                };
            }
        }
        Ok((out, messages, words, repeated))
    }

    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Opcode::Text, payload, Some(mask));
        bytes[0] = first;
        bytes
    }

    /// A message with this number, cut into fragments of `part` bytes.
    fn message(kind: Kind, number: u64, payload: &[u8], part: usize, mask: [u8; 4]) -> Vec<u8> {
        let mut whole = Vec::new();
        crate::aware::number::write(&mut whole, kind, number);
        whole.extend_from_slice(payload);
        let parts: Vec<_> = whole.chunks(part).collect();
        let mut bytes = Vec::new();
        for (index, payload) in parts.iter().enumerate() {
            let opcode = match (index, kind) {
                (0, Kind::Text) => 1,
                (0, Kind::Binary) => 2,
                _ => 0,
            };
            let fin = if index + 1 == parts.len() { 0x80 } else { 0 };
            bytes.extend(frame(fin | opcode, payload, [mask[0], mask[1], mask[2], index as u8]));
        }
        bytes
    }

    /// The payloads of the messages in `bytes`, unmasked.
    fn opened(bytes: &[u8], messages: &[Message]) -> Vec<Vec<u8>> {
        let mut buffer = crate::replay::ReplayBuffer::new(crate::replay::Retention::UntilSent);
        let mut rest = bytes;
        for &message in messages {
            let (whole, behind) = rest.split_at(message.wire_bytes as usize);
            assert_eq!(Assembler::one_message(Side::Client, whole), Some(message), "a right message");
            buffer.push_copy(whole);
            buffer.accept(message);
            rest = behind;
        }
        assert!(rest.is_empty());
        buffer.messages_after(crate::ids::Seq(0)).filter_map(|it| it.open(Side::Client)).map(|it| it.1).collect()
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_without_its_number_however_it_comes(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4),
            binary in any::<bool>(), part in 1..400usize, piece in 1..200usize, mask in any::<[u8; 4]>(),
            last in prop_oneof![0..10u64, 100..300u64, Just(1 << 40)],
        ) {
            let kind = if binary { Kind::Binary } else { Kind::Text };
            let mut bytes = Vec::new();
            for (index, payload) in payloads.iter().enumerate() {
                bytes.extend(message(kind, last + 1 + index as u64, payload, part, mask));
                bytes.extend(frame(0x81, WORD, mask));
                bytes.extend(message(kind, last.max(1), b"again", part, mask));
            }
            if last == 0 { return Ok(()); }
            let (out, messages, words, repeated) = read(&bytes, piece, last).unwrap();
            prop_assert_eq!(opened(&out, &messages), payloads.clone());
            prop_assert!(words.iter().all(|word| word == WORD));
            prop_assert_eq!((words.len(), repeated), (payloads.len(), payloads.len() as u64));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1..20usize) {
            let _ = read(&bytes, piece, 0);
        }
    }

    #[test]
    fn each_mistake_has_its_own_reason() {
        let mask = [1, 2, 3, 4];
        let told = |bytes: Vec<u8>| read(&bytes, 1, 5).unwrap_err();
        assert_eq!(told(frame(0x81, b"7;x", mask)), Broken::Protocol("number skipped without a gap"));
        assert_eq!(told(frame(0x81, b"", mask)), Broken::Protocol("text without a number"));
        assert_eq!(told(frame(0x81, b"6", mask)), Broken::Protocol("text without a number"));
        assert_eq!(told(frame(0x82, b"\0", mask)), Broken::Protocol("binary message without a number"));
        let long = [b"!".as_slice(), &[b' '; WORD_BYTES_MAX]].concat();
        assert_eq!(
            AwareReader::new(Side::Client).step(&frame(0x81, &long, mask), MessageLimits::CEILING, Some(0)).map(drop),
            Err(Broken::Protocol("control message too long"))
        );
        let payload = |len| [b"6;".as_slice(), &vec![b'x'; len]].concat();
        assert!(read(&frame(0x81, &payload(1000), mask), 4096, 5).is_ok(), "the number is not counted");
        assert_eq!(told(frame(0x81, &payload(1001), mask)), Broken::Frames(Refused::MessageTooBig));
    }
}
