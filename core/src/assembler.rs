//! Where messages end in a peer's bytes, however the network cut them up.
//!
//! The assembler walks frame headers and hands out what lies between them: runs of data frames to be relayed as they
//! are, and control frames, which concern this hop only. It keeps no payload; the few bytes of a header or a control
//! frame that arrive split are all it ever holds.

use crate::frame::{self, CONTROL_PAYLOAD_MAX, HEADER_BYTES_MAX, Header, Opcode, RSV1, Short, Side, Violation};
use crate::settings::OnTooBig;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

/// A whole data message, by its sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Bytes of its frames, headers included.
    pub wire_bytes: u32,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

/// A control frame, unmasked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// Close, ping or pong.
    pub opcode: Opcode,
    /// Whether it came masked.
    pub masked: bool,
    payload: [u8; CONTROL_PAYLOAD_MAX],
    len: u8,
}

impl Control {
    /// At most [`CONTROL_PAYLOAD_MAX`] bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload[..usize::from(self.len)]
    }
}

/// What the next bytes of the input are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `len` bytes of a data frame; the message they end, if they do.
    Data {
        /// Bytes of the input that belong to the frame, its header included.
        len: usize,
        /// The message that is whole with them.
        ended: Option<Message>,
    },
    /// A data frame's header of which some bytes came with earlier input: relay `header`, skip `len` bytes of the input.
    Header {
        /// The whole header.
        header: [u8; HEADER_BYTES_MAX],
        /// How many bytes of `header` count.
        header_len: usize,
        /// Bytes of the input that were its missing part.
        len: usize,
        /// The message that is whole with it, if it has no payload.
        ended: Option<Message>,
    },
    /// A control frame that took `len` bytes of the input.
    Control {
        /// The frame.
        control: Control,
        /// Bytes of the input that belong to it.
        len: usize,
    },
    /// `len` bytes of a message that is over the limit, of which nothing is relayed.
    Skipped {
        /// Bytes of the input that belong to it.
        len: usize,
        /// Whether it ends with them.
        ended: bool,
    },
    /// The input ends inside a header or a control frame; its bytes are kept for the next step.
    Starved,
}

/// Why a peer's messages are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not RFC 6455: close code 1002.
    Violation(Violation),
    /// A message over the limit: close code 1009.
    MessageTooBig,
    /// A message of too many frames: close code 1008.
    TooManyFragments,
    /// Text that is not UTF-8: close code 1007. The assembler looks into no text; `text` does.
    NotUtf8,
}

/// The limits of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageLimits {
    /// Payload bytes of one message.
    pub bytes_max: usize,
    /// Frames of one message.
    pub fragments_max: u32,
    /// Whether a message of more bytes is refused or skipped.
    pub on_too_big: OnTooBig,
}

impl MessageLimits {
    /// The widest that may be configured.
    pub const CEILING: Self =
        Self { bytes_max: MESSAGE_BYTES_CEILING, fragments_max: FRAGMENTS_CEILING, on_too_big: OnTooBig::Close };
}

/// The state of one peer's byte stream.
#[derive(Debug)]
pub struct Assembler {
    sender: Side,
    /// [`RSV1`] where messages may be compressed, else 0.
    allowed: u8,
    /// Payload bytes of the current data frame still to come.
    frame_left: u64,
    /// Whether the current data frame is the last of its message.
    frame_fin: bool,
    /// The message under way.
    open: Option<Open>,
    /// The start of a header or control frame whose rest has not come yet.
    carry: Vec<u8>,
}

/// A message that has begun and not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Open {
    Kept(Sizes),
    /// It is over the limit; its frames are counted all the same.
    Skipped {
        frames: u32,
    },
}

/// What has begun to come of a message, its last frame counted whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sizes {
    wire_bytes: u64,
    payload_bytes: u64,
    frames: u32,
}

/// Payload bytes of one frame that are skipped at most: more would take days to come.
const SKIPPED_FRAME_BYTES_MAX: u64 = 1 << 40;

impl Assembler {
    /// A fresh stream of frames from the peer of `sender`.
    #[must_use]
    pub const fn new(sender: Side) -> Self {
        Self { sender, allowed: 0, frame_left: 0, frame_fin: false, open: None, carry: Vec::new() }
    }

    /// The same stream, whose messages may be compressed: they are passed on as they are, and counted by what they take.
    #[must_use]
    pub fn with_compressed(self) -> Self {
        Self { allowed: RSV1, ..self }
    }

    /// Lets messages be compressed from now on.
    pub(crate) const fn allow_compressed(&mut self) {
        self.allowed = RSV1;
    }

    /// Whose frames they are.
    #[must_use]
    pub(crate) const fn sender(&self) -> Side {
        self.sender
    }

    /// Bytes of the message under way on the wire and in its payload, its last frame counted whole.
    pub(crate) const fn open_bytes(&self) -> (u64, u64) {
        match self.open {
            Some(Open::Kept(Sizes { wire_bytes, payload_bytes, .. })) => (wire_bytes, payload_bytes),
            Some(Open::Skipped { .. }) | None => (0, 0),
        }
    }

    /// Payload bytes that have come of a message that is not whole; none of one that is skipped.
    #[must_use]
    pub const fn open_payload_bytes(&self) -> usize {
        match self.open {
            Some(Open::Kept(sizes)) => (sizes.payload_bytes - self.frame_left) as usize,
            Some(Open::Skipped { .. }) | None => 0,
        }
    }

    /// Payload bytes of the current data frame that are still to come.
    #[must_use]
    pub const fn frame_left_bytes(&self) -> usize {
        self.frame_left as usize
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub const fn inside_message(&self) -> bool {
        self.open.is_some()
    }

    /// Whether something has begun and is not whole: a message, or only a header or a control frame.
    #[must_use]
    pub const fn is_unfinished(&self) -> bool {
        self.open.is_some() || !self.carry.is_empty()
    }

    /// What has come of a header or a control frame that is not whole.
    #[must_use]
    pub fn carried(&self) -> &[u8] {
        &self.carry
    }

    /// Looks at the start of `input` and says what it is; the caller skips the bytes and calls again.
    ///
    /// `input` must not be empty. After an error the stream is beyond repair.
    ///
    /// # Errors
    /// [`Refused`] when the bytes break RFC 6455 or a message breaks `limits`; a message's size is judged by its
    /// headers, before its payload has arrived.
    pub fn step(&mut self, input: &[u8], limits: MessageLimits) -> Result<Step, Refused> {
        if self.frame_left > 0 {
            return Ok(self.payload(0, input.len()));
        }
        if !self.carry.is_empty() {
            return self.step_carried(input, limits).inspect_err(|_| self.carry.clear());
        }
        let Some(header) = self.header(input)? else {
            self.carry.extend_from_slice(input);
            return Ok(Step::Starved);
        };
        if header.opcode.is_control() {
            let len = header.header_len + header.payload_len as usize;
            if input.len() < len {
                self.carry.extend_from_slice(input);
                return Ok(Step::Starved);
            }
            return Ok(Step::Control { control: control(&header, &input[header.header_len..len]), len });
        }
        self.begin_frame(&header, limits)?;
        Ok(self.payload(header.header_len, input.len() - header.header_len))
    }

    /// Takes the messages at the start of `input` that are whole, short and of one frame, as nearly all are, and hands
    /// each to `accept`; the bytes that they took. All else, errors too, is for [`Self::step`].
    pub fn whole_messages(&self, input: &[u8], limits: MessageLimits, mut accept: impl FnMut(Message)) -> usize {
        if self.is_unfinished() || limits.fragments_max == 0 {
            return 0;
        }
        let mut taken = 0;
        while let Some(Short { header_len, payload_len }) =
            frame::short_message(&input[taken..], self.sender, self.allowed)
        {
            let wire_bytes = header_len + payload_len;
            if wire_bytes > input.len() - taken || payload_len > limits.bytes_max {
                break;
            }
            taken += wire_bytes;
            accept(Message { wire_bytes: wire_bytes as u32, payload_bytes: payload_len as u32 });
        }
        taken
    }

    /// Goes on with a header or control frame that began in earlier input.
    fn step_carried(&mut self, input: &[u8], limits: MessageLimits) -> Result<Step, Refused> {
        let mut taken = 0;
        loop {
            let header = self.header(&self.carry)?;
            match header {
                Some(header) if header.opcode.is_control() => {
                    let whole = header.header_len + header.payload_len as usize;
                    let missing = whole.saturating_sub(self.carry.len());
                    let more = missing.min(input.len() - taken);
                    self.carry.extend_from_slice(&input[taken..taken + more]);
                    taken += more;
                    if more < missing {
                        return Ok(Step::Starved);
                    }
                    let carry = std::mem::take(&mut self.carry);
                    return Ok(Step::Control { control: control(&header, &carry[header.header_len..]), len: taken });
                }
                Some(header) => {
                    let carry = std::mem::take(&mut self.carry);
                    let mut bytes = [0; HEADER_BYTES_MAX];
                    bytes[..carry.len()].copy_from_slice(&carry);
                    self.begin_frame(&header, limits)?;
                    if matches!(self.open, Some(Open::Skipped { .. })) {
                        return Ok(self.skip(taken));
                    }
                    let ended = self.end_frame_if_done();
                    return Ok(Step::Header { header: bytes, header_len: header.header_len, len: taken, ended });
                }
                None => {
                    let Some(&byte) = input.get(taken) else { return Ok(Step::Starved) };
                    self.carry.push(byte);
                    taken += 1;
                }
            }
        }
    }

    /// Reads the header at the start of `bytes`; `None` if more bytes are needed.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, Refused> {
        if bytes.first().is_some_and(|first| first & RSV1 & !self.allowed != 0) {
            return Err(Refused::Violation(Violation::ReservedBits));
        }
        frame::parse(bytes, self.sender).map_err(Refused::Violation)
    }

    fn begin_frame(&mut self, header: &Header, limits: MessageLimits) -> Result<(), Refused> {
        let open = match (header.opcode, self.open) {
            (Opcode::Continuation, Some(open)) => open,
            (Opcode::Continuation, None) => return Err(Refused::Violation(Violation::NothingToContinue)),
            (Opcode::Text | Opcode::Binary, None) => Open::Kept(Sizes::default()),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Refused::Violation(Violation::MessageUnfinished)),
            // `step` takes control frames before it comes here; one that slipped through is no part of a message.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                return Err(Refused::Violation(Violation::ReservedOpcode));
            }
        };
        let (open, frames) = open.with(header, limits)?;
        if frames > limits.fragments_max {
            return Err(Refused::TooManyFragments);
        }
        self.open = Some(open);
        self.frame_left = header.payload_len;
        self.frame_fin = header.fin;
        Ok(())
    }

    /// Takes what `available` bytes hold of the current frame's payload, behind `header_len` bytes of header.
    fn payload(&mut self, header_len: usize, available: usize) -> Step {
        let taken = self.frame_left.min(available as u64);
        self.frame_left -= taken;
        let len = header_len + taken as usize;
        if matches!(self.open, Some(Open::Skipped { .. })) {
            return self.skip(len);
        }
        Step::Data { len, ended: self.end_frame_if_done() }
    }

    const fn skip(&mut self, len: usize) -> Step {
        let ended = self.frame_left == 0 && self.frame_fin;
        if ended {
            self.open = None;
        }
        Step::Skipped { len, ended }
    }

    fn end_frame_if_done(&mut self) -> Option<Message> {
        if self.frame_left > 0 || !self.frame_fin {
            return None;
        }
        match self.open.take()? {
            // `bytes_max` and `fragments_max` keep both sums below 2^32 (see `MESSAGE_BYTES_CEILING`).
            Open::Kept(sizes) => {
                Some(Message { wire_bytes: sizes.wire_bytes as u32, payload_bytes: sizes.payload_bytes as u32 })
            }
            Open::Skipped { .. } => None,
        }
    }
}

impl Open {
    /// The message with another frame, and its frames.
    fn with(self, header: &Header, limits: MessageLimits) -> Result<(Self, u32), Refused> {
        let sizes = match self {
            Self::Kept(sizes) => sizes,
            Self::Skipped { frames } => return Self::skip(header, frames + 1),
        };
        let (payload_bytes, frames) = (sizes.payload_bytes.saturating_add(header.payload_len), sizes.frames + 1);
        if payload_bytes <= limits.bytes_max as u64 {
            let wire_bytes = sizes.wire_bytes + header.header_len as u64 + header.payload_len;
            return Ok((Self::Kept(Sizes { wire_bytes, payload_bytes, frames }), frames));
        }
        match limits.on_too_big {
            OnTooBig::Close => Err(Refused::MessageTooBig),
            OnTooBig::Drop => Self::skip(header, frames),
        }
    }

    const fn skip(header: &Header, frames: u32) -> Result<(Self, u32), Refused> {
        if header.payload_len > SKIPPED_FRAME_BYTES_MAX {
            return Err(Refused::MessageTooBig);
        }
        Ok((Self::Skipped { frames }, frames))
    }
}

impl Assembler {
    pub(crate) fn freeze(&self, out: &mut Writer) {
        // What is allowed is the pipe's to say, whose links have it alike.
        let Self { sender: _, allowed: _, frame_left, frame_fin, open, carry } = self;
        match open {
            None => out.u8(0),
            Some(Open::Kept(Sizes { wire_bytes, payload_bytes, frames })) => {
                out.u8(1);
                out.count(*wire_bytes);
                out.count(*payload_bytes);
                out.u32(*frames);
            }
            Some(Open::Skipped { frames }) => {
                out.u8(2);
                out.u32(*frames);
            }
        }
        if open.is_some() {
            out.count(*frame_left);
            out.flag(*frame_fin);
        }
        out.bytes(carry);
    }

    pub(crate) fn thaw(input: &mut Reader<'_>, sender: Side) -> Read<Self> {
        const PART: &str = "half messages";
        let mut assembler = Self::new(sender);
        let (open, frame_max) = match input.u8()? {
            0 => (None, 0),
            1 => {
                let sizes = Sizes { wire_bytes: input.count()?, payload_bytes: input.count()?, frames: input.u32()? };
                let headers = sizes.wire_bytes.checked_sub(sizes.payload_bytes);
                let frames = u64::from(sizes.frames);
                demand(headers.is_some_and(|it| (frames * 2..=frames * HEADER_BYTES_MAX as u64).contains(&it)), PART)?;
                demand((1..=FRAGMENTS_CEILING).contains(&sizes.frames), PART)?;
                demand(sizes.payload_bytes <= MESSAGE_BYTES_CEILING as u64, PART)?;
                (Some(Open::Kept(sizes)), sizes.payload_bytes)
            }
            2 => {
                let frames = input.u32()?;
                demand((1..=FRAGMENTS_CEILING).contains(&frames), PART)?;
                (Some(Open::Skipped { frames }), SKIPPED_FRAME_BYTES_MAX)
            }
            _ => return Err(SnapshotError::Malformed(PART)),
        };
        assembler.open = open;
        if open.is_some() {
            assembler.frame_left = input.count()?;
            assembler.frame_fin = input.flag()?;
            demand(assembler.frame_left <= frame_max, PART)?;
            demand(assembler.frame_left > 0 || !assembler.frame_fin, PART)?;
        }
        assembler.carry = input.bytes(HEADER_BYTES_MAX + CONTROL_PAYLOAD_MAX)?.to_vec();
        demand(assembler.carry.is_empty() || assembler.frame_left == 0, PART)?;
        let unfinished = match frame::parse(&assembler.carry, sender) {
            Ok(None) => true,
            Ok(Some(header)) => {
                header.opcode.is_control() && assembler.carry.len() < header.header_len + header.payload_len as usize
            }
            Err(_) => false,
        };
        demand(unfinished, PART)?;
        Ok(assembler)
    }

    /// The message that `bytes` are, if they are exactly one.
    pub(crate) fn one_message(sender: Side, bytes: &[u8]) -> Option<Message> {
        match Self::new(sender).with_compressed().run(bytes)? {
            (len, Some(message)) if len == bytes.len() => Some(message),
            _ => None,
        }
    }

    /// Whether `bytes` are whole messages and nothing else.
    pub(crate) fn are_messages(sender: Side, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((len, Some(_))) = Self::new(sender).with_compressed().run(rest) else { return false };
            rest = &rest[len..];
        }
        true
    }

    /// Whether `bytes` are all the data frames of the message under way that have come.
    pub(crate) fn has_taken(&self, bytes: &[u8]) -> bool {
        if matches!(self.open, Some(Open::Skipped { .. })) {
            return bytes.is_empty();
        }
        let mut again = Self::new(self.sender).with_compressed();
        let whole = again.run(bytes).is_some_and(|(_, ended)| ended.is_none());
        whole && (again.open, again.frame_left) == (self.open, self.frame_left) && {
            self.open.is_none() || again.frame_fin == self.frame_fin
        }
    }

    /// Whether `bytes` are the data frames of the message under way that have come, but for what was cut off its start.
    pub(crate) fn has_taken_but(&self, bytes: &[u8], wire_bytes: u32, payload_bytes: u32) -> bool {
        let mut again = Self::new(self.sender);
        let whole = again.run(bytes).is_some_and(|(_, ended)| ended.is_none());
        let (wire, payload) = again.open_bytes();
        let sizes = (wire + u64::from(wire_bytes), payload + u64::from(payload_bytes));
        whole
            && sizes == self.open_bytes()
            && (again.frame_left, again.frame_fin) == (self.frame_left, self.frame_fin)
            && again.open.is_some()
    }

    /// Takes data frames up to the end of a message or of `bytes`; nothing if they are something else.
    fn run(&mut self, bytes: &[u8]) -> Option<(usize, Option<Message>)> {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..], MessageLimits::CEILING) {
                Ok(Step::Data { len, ended }) => {
                    at += len;
                    if ended.is_some() {
                        return Some((at, ended));
                    }
                }
                Ok(Step::Header { .. } | Step::Control { .. } | Step::Skipped { .. } | Step::Starved) | Err(_) => {
                    return None;
                }
            }
        }
        Some((at, None))
    }
}

/// The largest `bytes_max` that may be configured: with every frame's header it still fits 32 bits.
pub const MESSAGE_BYTES_CEILING: usize = 1 << 30;

/// The largest `fragments_max` that may be configured.
pub const FRAGMENTS_CEILING: u32 = 1 << 24;

fn control(header: &Header, masked: &[u8]) -> Control {
    let mut payload = [0; CONTROL_PAYLOAD_MAX];
    payload[..masked.len()].copy_from_slice(masked);
    if let Some(mask) = header.mask {
        frame::apply_mask(&mut payload[..masked.len()], mask);
    }
    Control { opcode: header.opcode, masked: header.mask.is_some(), payload, len: masked.len() as u8 }
}
