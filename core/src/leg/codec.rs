//! The form that one link's peer reads and writes: how its bytes become messages, and messages its bytes.
//!
//! A lane holds each message as its sender's side of a WebSocket frames it. A codec of another form makes frames of what
//! it reads and takes apart what it writes; a message in a lane belongs to no link, so one pipe may change its form with
//! each attach.
//!
//! Invariant: a codec is made with its link and dropped with it; nothing of it is left for the next link.

use crate::assembler::{Assembler, Message, MessageLimits, Refused, Step};
use crate::byte_queue::Gather;
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::leg::barrier::Barrier;
use crate::leg::outbox::{Outbox, Written};
use crate::replay::ReplayBuffer;
use crate::snapshot::{Read, Reader, Writer};
use crate::text::TextCheck;
use crate::time::Time;

#[derive(Debug)]
pub(crate) enum Codec {
    /// WebSocket frames (RFC 6455): what one peer sent is what the other is sent, byte for byte.
    Frames { assembler: Assembler, outbox: Outbox },
}

/// What the peer sends.
impl Codec {
    /// Frames from and to the peer of `side`: a backend's are masked on their way to it.
    pub const fn frames(side: Side) -> Self {
        Self::Frames { assembler: Assembler::new(side), outbox: Outbox::new(matches!(side, Side::Backend)) }
    }

    /// Lets the peer send compressed messages.
    pub const fn allow_compressed(&mut self) {
        let Self::Frames { assembler, .. } = self;
        assembler.allow_compressed();
    }

    /// See [`Assembler::whole_messages`].
    pub fn whole_messages(&self, bytes: &[u8], limits: MessageLimits, accept: impl FnMut(Message)) -> usize {
        let Self::Frames { assembler, .. } = self;
        assembler.whole_messages(bytes, limits, accept)
    }

    /// See [`Assembler::step`].
    pub fn step(&mut self, bytes: &[u8], limits: MessageLimits) -> Result<Step, Refused> {
        let Self::Frames { assembler, .. } = self;
        assembler.step(bytes, limits)
    }

    /// Whether a message has begun and not ended.
    pub const fn inside_message(&self) -> bool {
        let Self::Frames { assembler, .. } = self;
        assembler.inside_message()
    }

    /// Whether something has begun and is not whole: a message, or only a header or a control frame.
    pub const fn is_unfinished(&self) -> bool {
        let Self::Frames { assembler, .. } = self;
        assembler.is_unfinished()
    }

    /// Bytes to the end of the frame under way: they are no new message.
    pub const fn frame_left_bytes(&self) -> usize {
        let Self::Frames { assembler, .. } = self;
        assembler.frame_left_bytes()
    }

    /// A check of the text that follows.
    pub fn text_check(&self, side: Side) -> TextCheck {
        let Self::Frames { assembler, .. } = self;
        let mut check = TextCheck::amid(side, assembler.frame_left_bytes() as u64);
        // A header, or a control frame: there is no text in it.
        let _ = check.take(assembler.carried());
        check
    }

    /// Whether `bytes` may be what has come of a message that is not whole.
    pub fn has_taken(&self, bytes: &[u8]) -> bool {
        let Self::Frames { assembler, .. } = self;
        assembler.has_taken(bytes)
    }
}

/// What the peer is sent; see the methods of [`Outbox`] of the same names.
impl Codec {
    const fn outbox(&self) -> &Outbox {
        let Self::Frames { outbox, .. } = self;
        outbox
    }

    const fn outbox_mut(&mut self) -> &mut Outbox {
        let Self::Frames { outbox, .. } = self;
        outbox
    }

    pub fn prepare(&mut self, buffer: &ReplayBuffer, barrier: Option<&mut Barrier>, key: [u8; 4], now: Time) {
        self.outbox_mut().prepare(buffer, barrier, key, now);
    }

    pub fn wants_write(&self, buffer: &ReplayBuffer, barrier: Option<&Barrier>, now: Time) -> bool {
        self.outbox().wants_write(buffer, barrier, now)
    }

    pub const fn may_have_output(&self, buffer: &ReplayBuffer) -> bool {
        self.outbox().may_have_output(buffer)
    }

    pub fn gather<'a>(&'a self, buffer: &'a ReplayBuffer) -> Gather<'a> {
        self.outbox().gather(buffer)
    }

    pub fn transmitted(
        &mut self,
        bytes: usize,
        buffer: &mut ReplayBuffer,
        barrier: Option<&mut Barrier>,
        now: Time,
    ) -> Written {
        self.outbox_mut().transmitted(bytes, buffer, barrier, now)
    }

    pub const fn set_withheld(&mut self, withheld: bool) {
        self.outbox_mut().set_withheld(withheld);
    }

    pub fn open_with(&mut self, messages: &[u8]) {
        self.outbox_mut().open_with(messages);
    }

    pub fn pong(&mut self, payload: &[u8], key: [u8; 4]) {
        self.outbox_mut().pong(payload, key);
    }

    pub fn ping(&mut self, payload: &[u8], key: [u8; 4]) {
        self.outbox_mut().ping(payload, key);
    }

    pub fn may_ping(&self, buffer: &ReplayBuffer) -> bool {
        self.outbox().may_ping(buffer)
    }

    pub fn close(&mut self, frame: CloseFrame, flush: bool) {
        self.outbox_mut().close(frame, flush);
    }

    pub const fn is_close_written(&self) -> bool {
        self.outbox().is_close_written()
    }

    pub fn last_words(&self, frame: &CloseFrame, buffer: &ReplayBuffer, key: [u8; 4]) -> Vec<u8> {
        self.outbox().last_words(frame, buffer, key)
    }

    pub fn words_to_replaced(&self, frame: &CloseFrame, buffer: &ReplayBuffer) -> Vec<u8> {
        self.outbox().words_to_replaced(frame, buffer)
    }

    pub fn memory_bytes(&self) -> usize {
        self.outbox().memory_bytes()
    }
}

impl Codec {
    pub fn freeze(&self, out: &mut Writer) {
        let Self::Frames { assembler, outbox } = self;
        assembler.freeze(out);
        outbox.freeze(out);
    }

    pub fn thaw(input: &mut Reader<'_>, side: Side) -> Read<Self> {
        let assembler = Assembler::thaw(input, side)?;
        Ok(Self::Frames { assembler, outbox: Outbox::thaw(input, side == Side::Backend)? })
    }
}
