//! The form that one link's peer reads and writes: how its bytes become messages, and messages its bytes.
//!
//! A lane holds each message as its sender's side of a WebSocket frames it. A codec of another form makes frames of what
//! it reads and takes apart what it writes; a message in a lane belongs to no link, so one pipe may change its form with
//! each attach.
//!
//! Invariant: a codec is made with its link and dropped with it; nothing of it is left for the next link.

use crate::assembler::Assembler;
use crate::byte_queue::Gather;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::leg::aware::{AwareReader, AwareWriter};
use crate::leg::barrier::Barrier;
use crate::leg::outbox::{Outbox, Written};
use crate::replay::ReplayBuffer;
use crate::snapshot::{Read, Reader, SnapshotError, Writer};
use crate::text::TextCheck;
use crate::time::Time;

#[derive(Debug)]
pub(crate) enum Codec {
    /// WebSocket frames (RFC 6455): what one peer sent is what the other is sent, byte for byte.
    Frames { assembler: Assembler, outbox: Outbox },
    /// The aware protocol: a peer's messages bear numbers on the wire, and none in the lane.
    Aware(Box<Aware>),
}

/// The two directions of an aware link.
#[derive(Debug)]
pub(crate) struct Aware {
    pub reader: AwareReader,
    pub writer: AwareWriter,
}

/// What the peer sends.
impl Codec {
    /// Frames from and to the peer of `side`: a backend's are masked on their way to it.
    pub const fn frames(side: Side) -> Self {
        Self::Frames { assembler: Assembler::new(side), outbox: Outbox::new(matches!(side, Side::Backend)) }
    }

    /// Lets the peer send compressed messages, where they are relayed as they come.
    pub const fn allow_compressed(&mut self) {
        if let Self::Frames { assembler, .. } = self {
            assembler.allow_compressed();
        }
    }

    /// Numbered messages from and to the peer of `side`, of which `window_bytes` may be unacknowledged.
    pub fn aware(side: Side, window_bytes: usize) -> Self {
        let reader = AwareReader::new(side);
        Self::Aware(Box::new(Aware { reader, writer: AwareWriter::new(side, window_bytes) }))
    }

    /// The link's own part of the aware protocol, if it is spoken.
    pub fn aware_mut(&mut self) -> Option<&mut Aware> {
        match self {
            Self::Frames { .. } => None,
            Self::Aware(aware) => Some(aware),
        }
    }

    /// Whether the peer acknowledges what it gets.
    pub const fn is_aware(&self) -> bool {
        matches!(self, Self::Aware(_))
    }

    /// What reads the peer's frames, if they are relayed as they come.
    pub const fn relayed_mut(&mut self) -> Option<&mut Assembler> {
        match self {
            Self::Frames { assembler, .. } => Some(assembler),
            Self::Aware(_) => None,
        }
    }

    const fn assembler(&self) -> &Assembler {
        match self {
            Self::Frames { assembler, .. } => assembler,
            Self::Aware(aware) => &aware.reader.assembler,
        }
    }

    /// Whether a message has begun and not ended.
    pub const fn inside_message(&self) -> bool {
        self.assembler().inside_message()
    }

    /// Whether something has begun and is not whole: a message, or only a header or a control frame.
    pub const fn is_unfinished(&self) -> bool {
        self.assembler().is_unfinished()
    }

    /// Bytes to the end of the frame under way: they are no new message.
    pub const fn frame_left_bytes(&self) -> usize {
        self.assembler().frame_left_bytes()
    }

    /// A check of the text that follows.
    pub fn text_check(&self, side: Side) -> TextCheck {
        let assembler = self.assembler();
        let mut check = TextCheck::amid(side, assembler.frame_left_bytes() as u64);
        // A header, or a control frame: there is no text in it.
        let _ = check.take(assembler.carried());
        check
    }

    /// Whether `bytes` may be what has come of a message that is not whole.
    pub fn has_taken(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Frames { assembler, .. } => assembler.has_taken(bytes),
            Self::Aware(aware) => aware.reader.has_taken(bytes),
        }
    }
}

/// What the peer is sent; see the methods of [`Outbox`] of the same names. Barriers and openings are not for an aware peer.
impl Codec {
    pub fn prepare(&mut self, buffer: &ReplayBuffer, barrier: Option<&mut Barrier>, key: [u8; 4], now: Time) {
        match self {
            Self::Frames { outbox, .. } => outbox.prepare(buffer, barrier, key, now),
            Self::Aware(aware) => aware.writer.prepare(buffer, key),
        }
    }

    pub fn wants_write(&self, buffer: &ReplayBuffer, barrier: Option<&Barrier>, now: Time) -> bool {
        match self {
            Self::Frames { outbox, .. } => outbox.wants_write(buffer, barrier, now),
            Self::Aware(aware) => aware.writer.wants_write(buffer),
        }
    }

    pub fn may_have_output(&self, buffer: &ReplayBuffer) -> bool {
        match self {
            Self::Frames { outbox, .. } => outbox.may_have_output(buffer),
            Self::Aware(aware) => aware.writer.may_have_output(),
        }
    }

    pub fn gather<'a>(&'a self, buffer: &'a ReplayBuffer) -> Gather<'a> {
        match self {
            Self::Frames { outbox, .. } => outbox.gather(buffer),
            Self::Aware(aware) => aware.writer.gather(buffer),
        }
    }

    pub fn transmitted(
        &mut self,
        bytes: usize,
        buffer: &mut ReplayBuffer,
        barrier: Option<&mut Barrier>,
        now: Time,
    ) -> Written {
        match self {
            Self::Frames { outbox, .. } => outbox.transmitted(bytes, buffer, barrier, now),
            Self::Aware(aware) => aware.writer.transmitted(bytes, buffer),
        }
    }

    pub fn set_withheld(&mut self, withheld: bool) {
        match self {
            Self::Frames { outbox, .. } => outbox.set_withheld(withheld),
            Self::Aware(aware) => aware.writer.set_withheld(withheld),
        }
    }

    /// Asks for a close frame that ends the link and not the conversation.
    pub fn part(&mut self, frame: CloseFrame) {
        if let Self::Aware(aware) = self {
            aware.writer.close_without_end();
        }
        self.close(frame, false);
    }

    pub fn open_with(&mut self, messages: &[u8]) {
        if let Self::Frames { outbox, .. } = self {
            outbox.open_with(messages);
        }
    }

    pub fn pong(&mut self, payload: &[u8], key: [u8; 4]) {
        match self {
            Self::Frames { outbox, .. } => outbox.pong(payload, key),
            Self::Aware(aware) => aware.writer.pong(payload),
        }
    }

    /// Asks for a sign of life: by a ping, or by the protocol's own word.
    pub fn ping(&mut self, payload: &[u8], key: [u8; 4]) {
        match self {
            Self::Frames { outbox, .. } => outbox.ping(payload, key),
            Self::Aware(aware) => aware.writer.beat(),
        }
    }

    pub fn may_ping(&self, buffer: &ReplayBuffer) -> bool {
        match self {
            Self::Frames { outbox, .. } => outbox.may_ping(buffer),
            Self::Aware(_) => false,
        }
    }

    pub fn close(&mut self, frame: CloseFrame, flush: bool) -> bool {
        match self {
            Self::Frames { outbox, .. } => outbox.close(frame, flush),
            Self::Aware(aware) => aware.writer.close(frame, flush),
        }
    }

    pub const fn is_close_written(&self) -> bool {
        match self {
            Self::Frames { outbox, .. } => outbox.is_close_written(),
            Self::Aware(aware) => aware.writer.is_close_written(),
        }
    }

    pub fn last_words(&self, frame: &CloseFrame, buffer: &ReplayBuffer, key: [u8; 4]) -> Vec<u8> {
        match self {
            Self::Frames { outbox, .. } => outbox.last_words(frame, buffer, key),
            Self::Aware(aware) => aware.writer.last_words(frame),
        }
    }

    pub fn words_to_replaced(&self, frame: &CloseFrame, buffer: &ReplayBuffer) -> Vec<u8> {
        match self {
            Self::Frames { outbox, .. } => outbox.words_to_replaced(frame, buffer),
            Self::Aware(aware) => aware.writer.words_to_replaced(frame, buffer),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Frames { outbox, .. } => outbox.memory_bytes(),
            Self::Aware(aware) => size_of::<Aware>() + aware.writer.memory_bytes(),
        }
    }
}

impl Codec {
    pub fn freeze(&self, out: &mut Writer) {
        match self {
            Self::Frames { assembler, outbox } => {
                out.u8(0);
                assembler.freeze(out);
                outbox.freeze(out);
            }
            Self::Aware(aware) => {
                out.u8(1);
                aware.reader.freeze(out);
                aware.writer.freeze(out);
            }
        }
    }

    pub fn thaw(input: &mut Reader<'_>, side: Side) -> Read<Self> {
        match (input.u8()?, side) {
            (0, _) => {
                let assembler = Assembler::thaw(input, side)?;
                Ok(Self::Frames { assembler, outbox: Outbox::thaw(input, side == Side::Backend)? })
            }
            (1, _) => {
                let reader = AwareReader::thaw(input, side)?;
                Ok(Self::Aware(Box::new(Aware { reader, writer: AwareWriter::thaw(input, side)? })))
            }
            _ => Err(SnapshotError::Malformed("forms")),
        }
    }

    /// Makes what an aware link has half written again from its lane, after a thaw.
    pub fn fit(&mut self, buffer: &ReplayBuffer) -> Read<()> {
        match self {
            Self::Frames { .. } => Ok(()),
            Self::Aware(aware) => aware.writer.fit(buffer),
        }
    }
}
