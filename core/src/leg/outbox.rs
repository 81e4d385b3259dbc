//! What one leg's link is sent, in order: the rest of a half-written message, control frames, the opening, whole
//! messages, and at the very end a barrier ping that rides along, or the close frame.
//!
//! Control frames go in only between messages, so nothing is ever written into the middle of one. An opening is messages
//! that are no part of the lane: a prologue. It goes out as a whole, so control frames wait for the rest of one that has
//! begun; the messages of the lane are withheld until there is no more of it to come.

use crate::assembler::Assembler;
use crate::byte_queue::Gather;
use crate::close::CloseFrame;
use crate::frame::{self, CONTROL_PAYLOAD_MAX, Opcode, Side};
use crate::ids::Seq;
use crate::leg::barrier::{Barrier, PING_BYTES, PING_PAYLOAD_BYTES};
use crate::leg::end::{CONTROL_BYTES_MAX, End, REPLACED_BYTES_MAX};
use crate::replay::ReplayBuffer;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};
use crate::time::Time;

/// What rides behind the last message of a write.
#[derive(Debug)]
enum Tail {
    Nothing,
    /// Decided anew for each write, so it is not worth an allocation.
    Ping {
        len: u8,
        bytes: [u8; PING_FRAME_BYTES_MAX],
    },
    Close(Box<[u8]>),
}

/// Bytes of a masked barrier ping: two of header, four of mask, and the payload.
const PING_FRAME_BYTES_MAX: usize = 6 + PING_PAYLOAD_BYTES;

impl Tail {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Ping { len, bytes } => &bytes[..usize::from(*len)],
            Self::Close(bytes) => bytes,
        }
    }
}

/// Messages ahead of the lane's, and how many bytes of them the link has taken.
#[derive(Debug, Default)]
struct Opening {
    bytes: Vec<u8>,
    done: usize,
}

/// What a write did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Messages that an earlier link was given too.
    pub again: u64,
    /// Whether a control frame of ours went out whole.
    pub control_done: bool,
}

/// The outgoing side of one leg's link.
#[derive(Debug)]
pub struct Outbox {
    masked: bool,
    control: Vec<u8>,
    control_done: usize,
    late_pong: Option<Box<[u8]>>,
    opening: Option<Box<Opening>>,
    tail: Tail,
    end: End,
    /// Whole messages wait though the link could take them.
    withheld: bool,
}

impl Outbox {
    /// An outbox towards a backend, which wants frames `masked`, or a client, which does not.
    #[must_use]
    pub const fn new(masked: bool) -> Self {
        Self {
            masked,
            control: Vec::new(),
            control_done: 0,
            late_pong: None,
            opening: None,
            tail: Tail::Nothing,
            end: End::Open,
            withheld: false,
        }
    }

    /// Says `messages`, which are whole frames, ahead of the lane's.
    pub fn open_with(&mut self, messages: &[u8]) {
        if messages.is_empty() || matches!(self.end, End::Said) {
            return;
        }
        self.opening.get_or_insert_default().bytes.extend_from_slice(messages);
    }

    /// What is left of the opening.
    fn opening(&self) -> &[u8] {
        self.opening.as_ref().map_or(&[], |opening| &opening.bytes[opening.done..])
    }

    /// Whether the link has a part of the opening.
    fn has_begun(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.done > 0)
    }

    /// Holds whole messages back, or lets them go.
    pub const fn set_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    /// Answers a ping.
    pub fn pong(&mut self, payload: &[u8], key: [u8; 4]) {
        if !matches!(self.end, End::Open | End::Wanted { .. }) {
            return;
        }
        if self.control.len() - self.control_done >= CONTROL_BYTES_MAX {
            self.late_pong = Some(payload.into());
            return;
        }
        self.push_control(Opcode::Pong, payload, key);
    }

    /// Sends a heartbeat ping.
    pub fn ping(&mut self, payload: &[u8], key: [u8; 4]) {
        if matches!(self.end, End::Open) && self.control.len() - self.control_done < CONTROL_BYTES_MAX {
            self.push_control(Opcode::Ping, payload, key);
        }
    }

    fn push_control(&mut self, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        frame::encode(&mut self.control, opcode, payload, self.masked.then_some(key));
    }

    /// Whether a barrier ping that is due could go out now; behind waiting messages it goes when the link takes them.
    #[must_use]
    pub fn may_ping(&self, buffer: &ReplayBuffer) -> bool {
        matches!(self.end, End::Open) && (self.withheld || buffer.rest_bytes() == 0)
    }

    /// Ends the link; see [`End::ask`].
    pub fn close(&mut self, frame: CloseFrame, flush: bool) -> bool {
        self.end.ask(frame, flush)
    }

    /// Whether the close frame has left whole.
    #[must_use]
    pub const fn is_close_written(&self) -> bool {
        matches!(self.end, End::Said) && self.control.is_empty()
    }

    /// Decides what the next write holds besides messages. Call before [`Self::gather`], with nothing in between.
    pub fn prepare(&mut self, buffer: &ReplayBuffer, barrier: Option<&mut Barrier>, key: [u8; 4], now: Time) {
        self.tail = Tail::Nothing;
        if self.control.len() - self.control_done < CONTROL_BYTES_MAX
            && let Some(payload) = self.late_pong.take()
        {
            self.push_control(Opcode::Pong, &payload, key);
        }
        if let End::Wanted { frame, flush } = &self.end {
            let payload = frame.payload();
            if *flush && buffer.rest_bytes() > 0 {
                let mut bytes = Vec::new();
                frame::encode(&mut bytes, Opcode::Close, &payload, self.masked.then_some(key));
                self.tail = Tail::Close(bytes.into());
            } else {
                self.push_control(Opcode::Close, &payload, key);
                self.end_is_said();
            }
            return;
        }
        if let Some(barrier) = barrier.filter(|_| matches!(self.end, End::Open)) {
            self.prepare_ping(buffer, barrier, key, now);
        }
    }

    /// Bytes of messages that may go behind a half-written one.
    fn rest_bytes(&self, buffer: &ReplayBuffer) -> usize {
        if self.withheld { 0 } else { buffer.rest_bytes() }
    }

    fn prepare_ping(&mut self, buffer: &ReplayBuffer, barrier: &mut Barrier, key: [u8; 4], now: Time) {
        let boundary = ping_boundary(buffer);
        let rest = self.rest_bytes(buffer);
        if is_ping_due(barrier, boundary, rest, now) {
            // Ahead of a backlog, which may be more than the link takes for a long time.
            self.push_control(Opcode::Ping, &barrier.next_payload(), key);
            barrier.pinged(boundary, now);
        } else if rest > 0 && barrier.may_ride(buffer.accepted(), rest, now) {
            let (bytes, len) = frame::encode_ping(barrier.next_payload(), self.masked.then_some(key));
            self.tail = Tail::Ping { len, bytes };
        }
    }

    /// Whether the link is due anything at `now`: [`Self::gather`] would have something to give.
    #[must_use]
    pub fn wants_write(&self, buffer: &ReplayBuffer, barrier: Option<&Barrier>, now: Time) -> bool {
        let sends_messages = self.sends_messages();
        if self.control.len() > self.control_done
            || self.late_pong.is_some()
            || self.opening.is_some()
            || (buffer.has_unsent_bytes() && (sends_messages || buffer.is_amid_message()))
        {
            return true;
        }
        match &self.end {
            End::Open => barrier.is_some_and(|it| is_ping_due(it, ping_boundary(buffer), self.rest_bytes(buffer), now)),
            // Messages that are withheld keep back the close frame that is to follow them.
            End::Wanted { flush, .. } => !flush || sends_messages || !buffer.has_unsent_bytes(),
            End::Said => false,
        }
    }

    /// Whether [`Self::gather`] may have anything to give: a quick no for a link that is due nothing.
    #[must_use]
    pub const fn may_have_output(&self, buffer: &ReplayBuffer) -> bool {
        buffer.has_unsent_bytes()
            || self.control.len() > self.control_done
            || !matches!(self.tail, Tail::Nothing)
            || self.opening.is_some()
    }

    /// Everything that the link should be given next; empty if nothing.
    #[must_use]
    pub fn gather<'a>(&'a self, buffer: &'a ReplayBuffer) -> Gather<'a> {
        let mut gather = Gather::default();
        let control = &self.control[self.control_done..];
        let (first, second) = if self.has_begun() { (self.opening(), control) } else { (control, self.opening()) };
        let whole = buffer.gather_amid(&mut gather)
            && gather.push(first)
            && gather.push(second)
            && (!self.sends_messages() || (buffer.gather_rest(&mut gather) && gather.push(self.tail.as_slice())));
        if !whole || self.late_pong.is_some() {
            gather.set_more();
        }
        gather
    }

    const fn sends_messages(&self) -> bool {
        !self.withheld && !matches!(self.end, End::Said)
    }

    /// Notes that the link took the first `bytes` bytes of what was gathered.
    pub fn transmitted(
        &mut self,
        bytes: usize,
        buffer: &mut ReplayBuffer,
        barrier: Option<&mut Barrier>,
        now: Time,
    ) -> Written {
        let mut left = bytes;
        let mut written = Written::default();
        let amid = left.min(buffer.amid_bytes());
        if amid > 0 {
            written.again += buffer.transmitted(amid);
            left -= amid;
        }
        if self.has_begun() {
            left -= self.opening_written(left);
        }
        let control = left.min(self.control.len() - self.control_done);
        left -= control;
        self.control_written(control, &mut written);
        left -= self.opening_written(left);
        let rest = left.min(buffer.rest_bytes());
        if rest > 0 {
            written.again += buffer.transmitted(rest);
            left -= rest;
        }
        if let Some(barrier) = barrier {
            barrier.wrote(amid + rest);
            if left > 0 && matches!(self.tail, Tail::Ping { .. }) {
                barrier.pinged(buffer.sent(), now);
            }
        }
        self.tail_written(left, &mut written);
        written
    }

    /// Notes that the link took the next bytes of the opening, `bytes` at most; how many.
    fn opening_written(&mut self, bytes: usize) -> usize {
        let Some(opening) = &mut self.opening else { return 0 };
        let taken = bytes.min(opening.bytes.len() - opening.done);
        opening.done += taken;
        if opening.done == opening.bytes.len() {
            self.opening = None;
        }
        taken
    }

    fn control_written(&mut self, bytes: usize, written: &mut Written) {
        self.control_done += bytes;
        if self.control_done > 0 && self.control_done == self.control.len() {
            self.control = Vec::new();
            self.control_done = 0;
            written.control_done = true;
        }
    }

    /// A tail that has begun to go out becomes the control frame under way; one that has not is decided anew.
    fn tail_written(&mut self, bytes: usize, written: &mut Written) {
        let tail = std::mem::replace(&mut self.tail, Tail::Nothing);
        if bytes == 0 {
            return;
        }
        match tail {
            Tail::Nothing => {}
            Tail::Ping { len, .. } if bytes == usize::from(len) => {
                written.control_done = true;
                return;
            }
            Tail::Ping { .. } => self.control = tail.as_slice().to_vec(),
            Tail::Close(frame) => {
                self.control = frame.into();
                self.end_is_said();
            }
        }
        self.control_written(bytes, written);
    }

    /// The close frame is on its way: a pong that still waited would come behind it.
    fn end_is_said(&mut self) {
        self.end = End::Said;
        self.late_pong = None;
        self.opening.take_if(|opening| opening.done == 0);
    }

    /// The bytes to leave on a link that is dropped now: a close frame, or nothing amid a message.
    #[must_use]
    pub fn last_words(&self, frame: &CloseFrame, buffer: &ReplayBuffer, key: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !buffer.is_amid_message() && !self.has_begun() && self.control_done == 0 && !matches!(self.end, End::Said) {
            frame::encode(&mut bytes, Opcode::Close, &frame.payload(), self.masked.then_some(key));
        }
        bytes
    }

    /// The bytes to leave on a link that is dropped for another: what it has begun to get, and a close frame. Nothing if
    /// that is more than is kept for a link that is going anyway.
    #[must_use]
    pub fn words_to_replaced(&self, frame: &CloseFrame, buffer: &ReplayBuffer) -> Vec<u8> {
        let mut bytes = Vec::new();
        if matches!(self.end, End::Said) || buffer.amid_bytes() > REPLACED_BYTES_MAX {
            return bytes;
        }
        let mut gather = Gather::default();
        if !buffer.gather_amid(&mut gather) {
            return bytes;
        }
        gather.as_slices().iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes.extend_from_slice(&self.control[self.control_done..]);
        frame::encode(&mut bytes, Opcode::Close, &frame.payload(), None);
        bytes
    }

    /// Memory that the outbox occupies beyond itself, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.control.capacity()
            + self.late_pong.as_ref().map_or(0, |payload| payload.len())
            + self.opening.as_ref().map_or(0, |opening| size_of::<Opening>() + opening.bytes.capacity())
            + self.tail.as_slice().len()
    }
}

/// Whether a ping is to go now, alone or far ahead of the `rest` that waits.
fn is_ping_due(barrier: &Barrier, boundary: Seq, rest: usize, now: Time) -> bool {
    (rest == 0 || rest > PING_BYTES) && barrier.is_due(boundary, now)
}

/// The last message that a ping covers which goes behind the half-written one.
const fn ping_boundary(buffer: &ReplayBuffer) -> Seq {
    Seq(buffer.sent().0 + buffer.is_amid_message() as u64)
}

/// Bytes of control frames in a snapshot at most: those that may wait, those that go in regardless, and one under way.
const CONTROL_FROZEN_MAX: usize = 2 * CONTROL_BYTES_MAX;

impl Outbox {
    /// Writes what the link is still due; a control frame that has left in part goes along whole.
    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self { masked: _, control, control_done, late_pong, opening, tail: _, end, withheld } = self;
        let mut begun = 0;
        while let Some((_, len)) = self.control_frame(&control[begun..])
            && begun + len <= *control_done
        {
            begun += len;
        }
        out.bytes(&control[begun..]);
        out.size(control_done - begun);
        out.option(late_pong.as_ref(), |out, payload| out.bytes(payload));
        out.option(opening.as_ref(), |out, opening| {
            out.bytes(&opening.bytes);
            out.size(opening.done);
        });
        end.freeze(out);
        out.flag(*withheld);
    }

    pub(crate) fn thaw(input: &mut Reader<'_>, masked: bool) -> Read<Self> {
        let mut outbox = Self::new(masked);
        outbox.control = input.bytes(CONTROL_FROZEN_MAX)?.to_vec();
        outbox.control_done = input.size()?;
        outbox.late_pong = input.option(|input| Ok(input.bytes(CONTROL_PAYLOAD_MAX)?.into()))?;
        outbox.opening = input.option(|input| {
            let opening = Opening { bytes: input.bytes(usize::MAX)?.to_vec(), done: input.size()? };
            demand(masked && opening.done < opening.bytes.len(), PART)?;
            demand(Assembler::are_messages(Side::Client, &opening.bytes), PART)?;
            Ok(Box::new(opening))
        })?;
        outbox.end = End::thaw(input)?;
        outbox.withheld = input.flag()?;
        outbox.demand_frames()?;
        Ok(outbox)
    }

    /// Whole control frames, the first of them not gone yet, and a close frame at the end of those of an end only.
    fn demand_frames(&self) -> Read<()> {
        let said = matches!(self.end, End::Said);
        let mut at = 0;
        let mut last = None;
        while at < self.control.len() {
            demand(last != Some(Opcode::Close), PART)?;
            let (opcode, len) = self.control_frame(&self.control[at..]).ok_or(SnapshotError::Malformed(PART))?;
            demand(at > 0 || self.control_done < len, PART)?;
            last = Some(opcode);
            at += len;
        }
        demand(last.is_some() || self.control_done == 0, PART)?;
        demand(last.is_none_or(|opcode| (opcode == Opcode::Close) == said), PART)?;
        demand(!said || self.late_pong.is_none(), PART)
    }

    /// The control frame of ours that `bytes` begin with, and its length.
    fn control_frame(&self, bytes: &[u8]) -> Option<(Opcode, usize)> {
        let sender = if self.masked { Side::Client } else { Side::Backend };
        let header = frame::parse(bytes, sender).ok()??;
        let len = header.header_len + header.payload_len as usize;
        let ours = header.opcode.is_control() && header.mask.is_some() == self.masked;
        (ours && len <= bytes.len()).then_some((header.opcode, len))
    }
}

const PART: &str = "control frames";
