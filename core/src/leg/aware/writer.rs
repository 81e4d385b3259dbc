//! What a peer is sent that wants numbers before messages: the rest of a half-written message, control frames and words,
//! then whole messages, each behind a header and a number that are made for this one write.
//!
//! A message stays in its lane as it came. Its header is cut off, and what is put in its place is its head: a gap, if
//! numbers are missing before it, a header, and the number. Numbers that no message follows are said to be missing before
//! the end. Short messages are copied behind their heads, so that many of
//! them are one piece of a write. Invariant: a lane counts a message as begun when the first byte of its head has left, and
//! as sent when its last byte has; nothing goes in between.

mod snapshot;

use std::collections::VecDeque;

use crate::aware::number;
use crate::aware::words::{GapWhy, Said};
use crate::byte_queue::{GATHER_SLICES_MAX, Gather};
use crate::close::CloseFrame;
use crate::frame::{self, Kind, Opcode, Side};
use crate::ids::{LaneName, Seq};
use crate::leg::end::{CONTROL_BYTES_MAX, End, REPLACED_BYTES_MAX};
use crate::leg::outbox::Written;
use crate::replay::{HeldMessage, MESSAGE_OVERHEAD_BYTES, ReplayBuffer};

/// Messages of one write: each takes two of its places, and two are for what goes before.
const PLANNED_MAX: usize = 64;

/// Places of a write that are taken by what is not a message.
const SLICES_ELSE: usize = 2;

/// Payload bytes up to which a message is copied behind its head.
const COPIED_BYTES_MAX: usize = 512;

/// Bytes of heads and copied messages that are made for one write.
const MADE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of heads that are kept for the next write.
const MADE_BYTES_KEPT: usize = 1024;

/// A message of the next write.
#[derive(Clone, Copy, Debug)]
struct Planned {
    seq: Seq,
    /// Where its head begins among what was made.
    start: usize,
    head_len: usize,
    /// Bytes of its own header, which the head stands for.
    cut: usize,
    /// Bytes behind that.
    body: usize,
    /// Whether those are copied behind the head.
    copied: bool,
    /// Whether the head begins with a gap.
    gap: bool,
}

impl Planned {
    const fn wire_bytes(&self) -> usize {
        self.head_len + self.body
    }

    /// Bytes of the message in its lane that `done` bytes on the wire stand for.
    const fn in_lane(&self, done: usize) -> usize {
        if done >= self.head_len { self.cut + done - self.head_len } else { (done > 0) as usize }
    }

    /// Its bytes among what was made.
    const fn made(&self) -> std::ops::Range<usize> {
        let end = self.start + self.head_len;
        self.start..if self.copied { end + self.body } else { end }
    }
}

/// The outgoing side of a link.
#[derive(Debug)]
pub(crate) struct AwareWriter {
    /// To whom it writes: frames to a backend are masked.
    peer: Side,
    /// What masks words and control frames to a backend; another one with each write.
    key: [u8; 4],
    control: Vec<u8>,
    control_done: usize,
    late_pong: Option<Box<[u8]>>,
    made: Vec<u8>,
    planned: VecDeque<Planned>,
    /// Bytes of the first planned message that have left.
    done: usize,
    /// The last number that the peer was told, as a message or as a gap.
    told: u64,
    /// Whether the peer has been greeted: before that, it is sent no message.
    greeted: bool,
    /// The last message of a replay, when the peer has not been told that it is over.
    live_behind: Option<Seq>,
    /// What is to be acknowledged: received here, and confirmed by the other peer.
    ack: Option<(u64, u64)>,
    /// Bytes that may be sent and not acknowledged.
    window_bytes: usize,
    /// Messages wait though the link could take them.
    withheld: bool,
    /// The last heartbeat asked.
    beat: u64,
    /// Whether the close frame is the end, and not an interruption.
    fin: bool,
    end: End,
    /// Messages that were told to be missing, and not yet counted.
    gaps: u64,
}

impl AwareWriter {
    /// The writer of a link to `peer`, of which `window_bytes` may be unacknowledged.
    pub const fn new(peer: Side, window_bytes: usize) -> Self {
        Self {
            peer,
            key: [0; 4],
            control: Vec::new(),
            control_done: 0,
            late_pong: None,
            made: Vec::new(),
            planned: VecDeque::new(),
            done: 0,
            told: 0,
            greeted: false,
            live_behind: None,
            ack: None,
            window_bytes,
            withheld: false,
            beat: 0,
            fin: true,
            end: End::Open,
            gaps: 0,
        }
    }

    /// Lets messages go, those behind the number `told`; up to `live_behind` they are a replay.
    pub const fn greet(&mut self, told: u64, live_behind: Option<Seq>) {
        (self.told, self.live_behind, self.greeted) = (told, live_behind, true);
    }

    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Holds messages back, or lets them go.
    pub const fn set_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    /// Has the close frame be an interruption: nothing is said of an end before it.
    pub const fn close_without_end(&mut self) {
        self.fin = false;
    }

    /// Says a word, behind what is half written.
    pub fn say(&mut self, word: &Said<'_>) {
        if !matches!(self.end, End::Said) {
            self.push_control(Opcode::Text, word.text().as_bytes());
        }
    }

    fn push_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = self.mask();
        frame::encode(&mut self.control, opcode, payload, mask);
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.peer == Side::Backend).then_some(self.key)
    }

    /// Whose frames the messages in the lane are.
    const fn sender(&self) -> Side {
        match self.peer {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    /// Why a message of its lane is not there any more.
    const fn why(&self) -> GapWhy {
        match self.peer {
            Side::Client => GapWhy::Policy,
            Side::Backend => GapWhy::BackendLost,
        }
    }

    const fn lane(&self) -> LaneName {
        match self.peer {
            Side::Client => LaneName::Down,
            Side::Backend => LaneName::Up,
        }
    }

    /// Says a word that is worth nothing if too many wait.
    pub fn say_if_room(&mut self, word: &Said<'_>) {
        if self.has_control_room() {
            self.say(word);
        }
    }

    /// Acknowledges the last number received, and the last that the other peer has confirmed.
    pub const fn ack(&mut self, n: u64, d: u64) {
        self.ack = Some((n, d));
    }

    /// Asks whether the peer is there.
    pub fn beat(&mut self) {
        if self.greeted && matches!(self.end, End::Open) {
            self.beat += 1;
            self.say_if_room(&Said::Beat { n: self.beat });
        }
    }

    /// Whether `n` is the question that was asked last.
    pub const fn asked(&self, n: u64) -> bool {
        self.beat > 0 && self.beat == n
    }

    /// Says that the server will go; the close frame that follows is an interruption.
    pub fn goaway(&mut self, word: &Said<'_>) {
        if self.greeted {
            self.say(word);
        }
        self.close_without_end();
    }

    /// Messages that the peer was told to be missing since the last call.
    pub const fn take_gaps(&mut self) -> u64 {
        std::mem::replace(&mut self.gaps, 0)
    }

    /// Answers a ping.
    pub fn pong(&mut self, payload: &[u8]) {
        if matches!(self.end, End::Said) {
            return;
        }
        if self.has_control_room() {
            self.push_control(Opcode::Pong, payload);
        } else {
            self.late_pong = Some(payload.into());
        }
    }

    const fn has_control_room(&self) -> bool {
        self.control.len() - self.control_done < CONTROL_BYTES_MAX
    }

    /// Ends the link; see [`End::ask`].
    pub fn close(&mut self, frame: CloseFrame, flush: bool) -> bool {
        self.end.ask(frame, flush)
    }

    /// Whether the close frame has left whole.
    pub const fn is_close_written(&self) -> bool {
        matches!(self.end, End::Said) && self.control.is_empty()
    }

    /// Decides what the next write holds; `key` is a new one. Call before [`Self::gather`], with nothing in between.
    pub fn prepare(&mut self, buffer: &ReplayBuffer, key: [u8; 4]) {
        self.key = key;
        if self.has_control_room()
            && let Some(payload) = self.late_pong.take()
        {
            self.push_control(Opcode::Pong, &payload);
        }
        if self.is_live_due() {
            self.live_behind = None;
            self.say(&Said::Live);
        }
        if let Some((n, d)) = self.ack.take() {
            self.say(&Said::Ack { n, d });
        }
        self.forget_plan();
        if self.is_close_due(buffer) {
            self.say_close(buffer);
        } else if self.sends_messages() {
            self.plan(buffer);
        }
    }

    fn is_live_due(&self) -> bool {
        self.live_behind.is_some_and(|seq| self.told >= seq.0)
    }

    fn is_close_due(&self, buffer: &ReplayBuffer) -> bool {
        matches!(&self.end, End::Wanted { flush, .. } if !flush || !buffer.has_unsent_bytes())
    }

    fn say_close(&mut self, buffer: &ReplayBuffer) {
        let End::Wanted { frame, .. } = std::mem::replace(&mut self.end, End::Open) else { return };
        if self.fin && self.greeted && !is_own(frame.code) {
            let n = self.say_missing(buffer);
            self.say(&Said::Fin { frame: &frame, n });
        }
        self.push_control(Opcode::Close, &frame.payload());
        (self.end, self.late_pong, self.live_behind) = (End::Said, None, None);
    }

    /// Says that the messages which no other will follow are missing, if some are; the last number of the lane.
    fn say_missing(&mut self, buffer: &ReplayBuffer) -> u64 {
        // It goes behind the message that is half written.
        let begun = self.planned.front().filter(|_| self.done > 0);
        let (told, last) = (begun.map_or(self.told, |begun| begun.seq.0), buffer.accepted().0);
        let missing = last.saturating_sub(told);
        if missing > 0 {
            self.say(&Said::Gap { lane: self.lane(), from: told + 1, count: Some(missing), why: self.why() });
            self.gaps += missing;
        }
        told + missing
    }

    const fn sends_messages(&self) -> bool {
        self.greeted && !self.withheld && !matches!(self.end, End::Said)
    }

    /// Bytes that may be sent before more is acknowledged.
    fn window_left(&self, buffer: &ReplayBuffer) -> usize {
        self.window_bytes.saturating_sub(buffer.held_bytes() - buffer.unsent_bytes())
    }

    /// Forgets the messages of the last write that have not begun.
    fn forget_plan(&mut self) {
        self.planned.truncate(usize::from(self.done > 0));
        match self.planned.front() {
            Some(begun) => self.made.truncate(begun.made().end),
            None => self.made.clear(),
        }
        if self.made.capacity() > MADE_BYTES_KEPT && self.planned.is_empty() {
            self.made = Vec::new();
        }
    }

    /// Makes the heads of the messages that go next.
    fn plan(&mut self, buffer: &ReplayBuffer) {
        let begun = self.planned.front().copied();
        let (mut told, behind) = begun.map_or((self.told, buffer.sent()), |begun| (begun.seq.0, begun.seq));
        let mut left = self.window_left(buffer);
        if begun.is_some() {
            // It is on its way, and not acknowledged either.
            left = left.saturating_sub(buffer.messages_after(buffer.sent()).next().map_or(0, |it| charged_bytes(&it)));
        }
        let mut slices = SLICES_ELSE + if begun.is_some() { 2 } else { 0 };
        for message in buffer.messages_after(behind) {
            let is_copied = message.payload_bytes() <= COPIED_BYTES_MAX;
            slices += if is_copied { 0 } else { 2 };
            let is_full = slices > GATHER_SLICES_MAX - 1 || self.made.len() > MADE_BYTES_MAX;
            if left == 0 || is_full || self.planned.len() == PLANNED_MAX {
                return;
            }
            let Some(planned) = self.head(&message, told, is_copied) else { return };
            left = left.saturating_sub(charged_bytes(&message));
            told = planned.seq.0;
            self.planned.push_back(planned);
        }
    }

    /// Makes the head of `message`, which follows the number `told`.
    fn head(&mut self, message: &HeldMessage<'_>, told: u64, copied: bool) -> Option<Planned> {
        let header = message.header(self.sender())?;
        let kind = Kind::of(header.opcode)?;
        let start = self.made.len();
        let missing = message.seq().0.saturating_sub(told + 1);
        if missing > 0 {
            let gap = Said::Gap { lane: self.lane(), from: told + 1, count: Some(missing), why: self.why() };
            // A half-written head is made again after a hand-over: its key is always the same.
            let mask = self.mask().map(|_| [0; 4]);
            frame::encode(&mut self.made, Opcode::Text, gap.text().as_bytes(), mask);
        }
        let mut prefix = Vec::with_capacity(number::PREFIX_BYTES_MAX);
        number::write(&mut prefix, kind, message.seq().0);
        // The payload keeps its mask, and begins so many bytes later.
        let mask = header.mask.map(|mut mask| {
            mask.rotate_right(prefix.len() % 4);
            frame::apply_mask(&mut prefix, mask);
            mask
        });
        let payload_len = header.payload_len as usize + prefix.len();
        let (bytes, len) = frame::encode_header(header.fin, header.opcode, payload_len, mask);
        self.made.extend_from_slice(&bytes[..usize::from(len)]);
        self.made.extend_from_slice(&prefix);
        let (head_len, cut) = (self.made.len() - start, header.header_len);
        if copied {
            message.read_behind(cut, &mut self.made);
        }
        let body = message.wire_bytes() - cut;
        Some(Planned { seq: message.seq(), start, head_len, cut, body, copied, gap: missing > 0 })
    }

    /// Whether the link is due anything.
    pub fn wants_write(&self, buffer: &ReplayBuffer) -> bool {
        let begun = self.done > 0;
        let sends = self.sends_messages() && buffer.has_unsent_bytes() && self.window_left(buffer) > 0;
        begun
            || sends
            || self.control.len() > self.control_done
            || self.late_pong.is_some()
            || (self.ack.is_some() && !matches!(self.end, End::Said))
            || self.is_live_due()
            || self.is_close_due(buffer)
    }

    /// Whether [`Self::gather`] has anything to give.
    pub fn may_have_output(&self) -> bool {
        self.control.len() > self.control_done || !self.planned.is_empty()
    }

    /// Everything that the link should be given next; empty if nothing.
    pub fn gather<'a>(&'a self, buffer: &'a ReplayBuffer) -> Gather<'a> {
        let mut gather = Gather::default();
        let mut messages = buffer.messages_after(buffer.sent());
        let mut planned = self.planned.iter();
        if self.done > 0
            && let (Some(begun), Some(message)) = (planned.next(), messages.next())
        {
            gather_message(&mut gather, &self.made, begun, &message, self.done);
        }
        gather.push(&self.control[self.control_done..]);
        // Messages that are copied are one piece, up to the next that is not.
        let mut run = 0..0;
        for (planned, message) in planned.zip(messages) {
            let made = planned.made();
            run = if run.is_empty() { made } else { run.start..made.end };
            if !planned.copied {
                gather.push(&self.made[run.clone()]);
                message.gather_behind(planned.cut, &mut gather);
                run = 0..0;
            }
        }
        gather.push(&self.made[run]);
        gather.set_more();
        gather
    }

    /// Notes that the link took the first `bytes` bytes of what was gathered.
    pub fn transmitted(&mut self, bytes: usize, buffer: &mut ReplayBuffer) -> Written {
        let mut written = Written::default();
        let mut left = bytes;
        if self.done > 0 {
            left -= self.message_written(left, buffer, &mut written);
        }
        let control = left.min(self.control.len() - self.control_done);
        left -= control;
        self.control_written(control, &mut written);
        while left > 0 && !self.planned.is_empty() {
            left -= self.message_written(left, buffer, &mut written);
        }
        written
    }

    /// Notes that the link took up to `bytes` bytes of the first planned message; how many.
    fn message_written(&mut self, bytes: usize, buffer: &mut ReplayBuffer, written: &mut Written) -> usize {
        let Some(&first) = self.planned.front() else { return 0 };
        let taken = bytes.min(first.wire_bytes() - self.done);
        let before = first.in_lane(self.done);
        self.done += taken;
        written.again += buffer.transmitted(first.in_lane(self.done) - before);
        if self.done == first.wire_bytes() {
            if first.gap {
                self.gaps += first.seq.0 - self.told - 1;
            }
            (self.done, self.told) = (0, first.seq.0);
            self.planned.pop_front();
        }
        taken
    }

    fn control_written(&mut self, bytes: usize, written: &mut Written) {
        self.control_done += bytes;
        if self.control_done > 0 && self.control_done == self.control.len() {
            (self.control, self.control_done) = (Vec::new(), 0);
            written.control_done = true;
        }
    }

    /// The bytes to leave on a link that is dropped now: a close frame, or nothing amid a message.
    pub fn last_words(&self, frame: &CloseFrame) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.done == 0 && self.control_done == 0 && !matches!(self.end, End::Said) {
            bytes.extend_from_slice(&self.control);
            frame::encode(&mut bytes, Opcode::Close, &frame.payload(), self.mask());
        }
        bytes
    }

    /// The bytes to leave on a link that is dropped for another; see [`crate::leg::outbox::Outbox::words_to_replaced`].
    pub fn words_to_replaced(&self, frame: &CloseFrame, buffer: &ReplayBuffer) -> Vec<u8> {
        let mut bytes = Vec::new();
        let begun = self.planned.front().filter(|_| self.done > 0);
        let rest = begun.map_or(0, |begun| begun.wire_bytes() - self.done);
        if matches!(self.end, End::Said) || rest > REPLACED_BYTES_MAX {
            return bytes;
        }
        if let (Some(begun), Some(message)) = (begun, buffer.messages_after(buffer.sent()).next()) {
            let made = begun.made();
            let (from, end) = (made.end.min(begun.start + self.done), made.end);
            bytes.extend_from_slice(&self.made[from..end]);
            if !begun.copied {
                message.read_behind(begun.in_lane(self.done.max(begun.head_len)), &mut bytes);
            }
        }
        bytes.extend_from_slice(&self.control[self.control_done..]);
        frame::encode(&mut bytes, Opcode::Close, &frame.payload(), self.mask());
        bytes
    }

    /// Memory that the writer occupies beyond itself, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.control.capacity()
            + self.late_pong.as_ref().map_or(0, |payload| payload.len())
            + self.made.capacity()
            + self.planned.capacity() * size_of::<Planned>()
    }
}

/// What a message takes of the window.
fn charged_bytes(message: &HeldMessage<'_>) -> usize {
    message.wire_bytes() + MESSAGE_OVERHEAD_BYTES
}

/// Adds what is left of a message of which `done` bytes have left.
fn gather_message<'a>(
    gather: &mut Gather<'a>,
    made: &'a [u8],
    planned: &Planned,
    message: &HeldMessage<'a>,
    done: usize,
) {
    let range = planned.made();
    gather.push(&made[range.end.min(planned.start + done)..range.end]);
    if !planned.copied {
        message.gather_behind(planned.in_lane(done.max(planned.head_len)), gather);
    }
}

/// Whether a close code is one of Holdline's own, behind which there is no end to tell.
const fn is_own(code: u16) -> bool {
    matches!(code, 4900..=4905)
}
