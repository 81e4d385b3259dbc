//! The replay buffer of one lane: whole messages, from the first that may still be needed to the last accepted.
//!
//! ```text
//!            retained                       waiting             being assembled
//!   |-----------------------------|------------------------|- - - - - - - - - - -
//!   base ....... confirmed ...... sent ................ accepted
//! ```
//!
//! Invariant: `base <= confirmed <= sent <= accepted`, all counted in whole messages and never going back, but in a
//! [`ReplayBuffer::rewind`]: `sent` then falls back to `confirmed`, and both to `base` where a tail is sent again. Bytes
//! leave only when their whole message is released, so a message that was half written to a link that died can be sent
//! again from its first byte. A message that was dropped is as good as confirmed once the one before it is: neither the
//! next to be sent nor the next to be confirmed is ever a dropped one.

mod latest;
mod read;
mod snapshot;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::assembler::Message;
use crate::byte_queue::{ByteQueue, Gather};
use crate::ids::Seq;
use crate::settings::ReplayTail;
use crate::time::Time;
use latest::{Dropped, is_dropped};

pub use read::{Head, HeldMessage};

/// When a message may be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// As soon as it was sent.
    UntilSent,
    /// Not before it was confirmed, and for as long after as the tail says.
    UntilConfirmed(ReplayTail),
}

impl Retention {
    /// The tail that is kept of what was confirmed, if any is.
    fn tail(self) -> Option<ReplayTail> {
        match self {
            Self::UntilSent => None,
            Self::UntilConfirmed(tail) => (tail != ReplayTail::default()).then_some(tail),
        }
    }
}

/// What a message is charged beside its own bytes: its place in the list, which may be twice as long as it is full.
pub const MESSAGE_OVERHEAD_BYTES: usize = 2 * size_of::<Message>();

/// What a message counts against the bounds of its lane, in bytes: its frames with all their headers, since all of them
/// are held, and [`MESSAGE_OVERHEAD_BYTES`].
#[must_use]
pub const fn charge(message: Message) -> usize {
    message.wire_bytes as usize + MESSAGE_OVERHEAD_BYTES
}

/// What a message that is held is charged: nothing if it was dropped.
const fn held_charge(message: Message) -> usize {
    if is_dropped(message) { 0 } else { charge(message) }
}

/// What an interruption did to a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewound {
    /// Messages that the lost peer may or may not have seen.
    pub in_doubt: u64,
    /// Messages that will be sent again.
    pub again: u64,
    /// The first and last message that will not be sent again although they were not confirmed.
    pub gap: Option<(Seq, Seq)>,
}

/// The messages of one lane that are still needed.
#[derive(Debug)]
pub struct ReplayBuffer {
    retention: Retention,
    queue: ByteQueue,
    /// The messages after `base` up to `accepted`. One that was dropped unsent stays as a message of no bytes.
    messages: VecDeque<Message>,
    base: Seq,
    confirmed: Seq,
    sent: Seq,
    /// The highest `sent` ever: what lies below and is sent now, is sent again.
    sent_high: Seq,
    /// Where message `sent + 1` begins.
    sent_boundary: u64,
    /// Bytes handed to the link, which may be amid message `sent + 1`.
    sent_offset: u64,
    /// Where the first message that is not whole yet begins.
    accepted_offset: u64,
    held: usize,
    /// Charge of the messages after `sent`.
    unsent: usize,
    dropped: Dropped,
    /// Charge of the messages up to `confirmed`: the tail.
    tail: usize,
    /// When the confirmed messages that are kept as a tail were confirmed.
    confirmed_at: VecDeque<(Time, Seq)>,
}

/// Entries of the tail's clock; with more confirms than that, ages are rounded up.
const TAIL_MARKS_MAX: usize = 64;

impl ReplayBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            queue: ByteQueue::default(),
            messages: VecDeque::new(),
            base: Seq::default(),
            confirmed: Seq::default(),
            sent: Seq::default(),
            sent_high: Seq::default(),
            sent_boundary: 0,
            sent_offset: 0,
            accepted_offset: 0,
            held: 0,
            unsent: 0,
            dropped: Dropped::default(),
            tail: 0,
            confirmed_at: VecDeque::new(),
        }
    }

    /// Whether what was sent is kept until it is confirmed.
    #[must_use]
    pub const fn keeps_unconfirmed(&self) -> bool {
        matches!(self.retention, Retention::UntilConfirmed(_))
    }

    /// When a message may be forgotten.
    #[must_use]
    pub const fn retention(&self) -> Retention {
        self.retention
    }

    /// Last message that may be forgotten.
    #[must_use]
    pub const fn confirmed(&self) -> Seq {
        self.confirmed
    }

    /// Last message that was handed to the link whole.
    #[must_use]
    pub const fn sent(&self) -> Seq {
        self.sent
    }

    /// Last message that came in whole.
    #[must_use]
    pub fn accepted(&self) -> Seq {
        self.base.plus(self.messages.len() as u64)
    }

    /// The last message that any link was handed whole.
    #[must_use]
    pub const fn sent_ever(&self) -> Seq {
        self.sent_high
    }

    /// Charge of all messages held, in bytes; see [`charge`].
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held
    }

    /// Charge of the messages that are not confirmed, in bytes: all that are held but the tail.
    #[must_use]
    pub const fn unconfirmed_bytes(&self) -> usize {
        self.held - self.tail
    }

    /// Charge of the messages that wait for the link, in bytes; one that is half written counts whole.
    #[must_use]
    pub const fn unsent_bytes(&self) -> usize {
        self.unsent
    }

    /// Bytes of a message that is not whole yet, headers included.
    #[must_use]
    pub const fn partial_bytes(&self) -> usize {
        (self.queue.end() - self.accepted_offset) as usize
    }

    /// Bytes that count against the bounds of the lane: whole messages, and what is not whole yet.
    #[must_use]
    pub const fn claimed_bytes(&self) -> usize {
        self.held + self.partial_bytes()
    }

    /// Messages that wait for the link.
    #[must_use]
    pub fn unsent_messages(&self) -> u64 {
        self.accepted().0 - self.sent.0
    }

    /// Messages sent whole and not confirmed.
    #[must_use]
    pub const fn in_doubt_messages(&self) -> u64 {
        self.sent.0 - self.confirmed.0
    }

    /// Those of them that are still held. A message that was dropped was never sent, and is passed over as if it had been.
    #[must_use]
    pub fn held_in_doubt_messages(&self) -> u64 {
        self.kept_messages(self.confirmed, self.sent)
    }

    /// The messages behind `after` up to `last` that are held and were not dropped.
    fn kept_messages(&self, after: Seq, last: Seq) -> u64 {
        let place = |seq: Seq| seq.0.saturating_sub(self.base.0) as usize;
        let places = place(after)..place(last);
        if self.dropped.is_none() {
            return places.len() as u64;
        }
        self.messages.range(places).filter(|&&message| !is_dropped(message)).count() as u64
    }

    /// Bytes of the messages that wait for the link, headers included.
    #[must_use]
    pub const fn unsent_wire_bytes(&self) -> u64 {
        self.accepted_offset - self.sent_boundary
    }

    /// Messages waiting for the link that an earlier link was given already.
    #[must_use]
    pub fn again_messages(&self) -> u64 {
        if self.sent_high <= self.sent { 0 } else { self.kept_messages(self.sent, self.sent_high) }
    }

    /// Whether the link was given a part of a message and not yet the rest.
    #[must_use]
    pub const fn is_amid_message(&self) -> bool {
        self.sent_offset > self.sent_boundary
    }

    /// Bytes held here that are charged elsewhere; see [`Self::push_common`].
    #[must_use]
    pub const fn common_bytes(&self) -> usize {
        self.queue.common_bytes()
    }

    /// Memory that the buffer occupies, in bytes, without what is charged elsewhere.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.queue.memory_bytes()
            + self.messages.capacity() * size_of::<Message>()
            + self.confirmed_at.capacity() * size_of::<(Time, Seq)>()
    }

    /// Takes in a copy of bytes of data frames.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.queue.push_copy(bytes);
    }

    /// Takes in bytes of data frames without copying them.
    pub fn push_shared(&mut self, bytes: Bytes) {
        self.queue.push_shared(bytes);
    }

    /// Takes in bytes of data frames that others hold too, and that are charged where they come from.
    pub fn push_common(&mut self, bytes: Bytes) {
        self.queue.push_common(bytes);
    }

    /// Takes in bytes of data frames without copying them, until [`Self::own_borrowed`].
    pub fn push_borrowed(&mut self, bytes: Bytes) {
        self.queue.push_borrowed(bytes);
    }

    /// Takes a copy of what is borrowed and still held.
    pub fn own_borrowed(&mut self) {
        self.queue.own_borrowed();
    }

    /// Accepts the message that the bytes pushed so far make whole; its number.
    pub fn accept(&mut self, message: Message) -> Seq {
        self.accepted_offset += u64::from(message.wire_bytes);
        self.held += charge(message);
        self.unsent += charge(message);
        self.messages.push_back(message);
        self.accepted()
    }

    /// Accepts a whole message that does not come from the lane's sender, before the one that is not whole yet; its number.
    pub fn insert(&mut self, bytes: &[u8], message: Message) -> Seq {
        self.queue.insert(self.accepted_offset, bytes);
        self.accept(message)
    }

    /// Forgets the message that is not whole yet: its sender is gone.
    pub fn discard_partial(&mut self) {
        self.queue.truncate(self.accepted_offset);
    }

    /// Adds what is left of a half-written message to `gather`; whether it fitted.
    pub fn gather_amid<'a>(&'a self, gather: &mut Gather<'a>) -> bool {
        self.queue.gather(self.sent_offset, self.amid_end(), gather)
    }

    /// Adds the messages behind a half-written one to `gather`; whether all fitted.
    pub fn gather_rest<'a>(&'a self, gather: &mut Gather<'a>) -> bool {
        self.queue.gather(self.amid_end(), self.accepted_offset, gather)
    }

    /// Whether there are bytes of whole messages that no link has been given.
    #[must_use]
    pub const fn has_unsent_bytes(&self) -> bool {
        self.accepted_offset > self.sent_offset
    }

    /// Bytes left of a half-written message.
    #[must_use]
    pub fn amid_bytes(&self) -> usize {
        (self.amid_end() - self.sent_offset) as usize
    }

    /// Bytes of whole messages behind a half-written one.
    #[must_use]
    pub fn rest_bytes(&self) -> usize {
        (self.accepted_offset - self.amid_end()) as usize
    }

    /// Where the half-written message ends, or the next one begins.
    fn amid_end(&self) -> u64 {
        if self.is_amid_message() {
            self.sent_boundary + self.message_after(self.sent).map_or(0, |message| u64::from(message.wire_bytes))
        } else {
            self.sent_offset
        }
    }

    fn message_after(&self, seq: Seq) -> Option<Message> {
        self.messages.get((seq.0 - self.base.0) as usize).copied()
    }

    /// Notes that the link took the next `bytes` bytes; how many messages it now has whole that an earlier link had too.
    pub fn transmitted(&mut self, bytes: usize) -> u64 {
        self.sent_offset += bytes as u64;
        let again_before = self.again_messages();
        self.pass_sent();
        again_before - self.again_messages()
    }

    /// Moves `sent` over every message that the link has whole.
    fn pass_sent(&mut self) {
        let mut passed_dropped = false;
        while let Some(message) = self.message_after(self.sent) {
            let end = self.sent_boundary + u64::from(message.wire_bytes);
            if end > self.sent_offset {
                break;
            }
            self.sent_boundary = end;
            self.sent = self.sent.plus(1);
            self.unsent -= held_charge(message);
            if is_dropped(message) {
                passed_dropped = true;
                self.dropped.passed();
            }
        }
        self.sent_high = self.sent_high.max(self.sent);
        match self.retention {
            Retention::UntilSent => self.release(self.sent),
            Retention::UntilConfirmed(_) if passed_dropped => self.pass_confirmed(),
            Retention::UntilConfirmed(_) => {}
        }
    }

    /// Moves `confirmed` over what was dropped behind it: no peer is asked for that.
    fn pass_confirmed(&mut self) {
        while self.confirmed < self.sent && self.message_after(self.confirmed).is_some_and(is_dropped) {
            self.confirmed = self.confirmed.plus(1);
        }
        if self.retention.tail().is_none() {
            self.release(self.confirmed);
        }
    }

    /// Notes that the peer has everything up to `seq`. What is confirmed already, or was never sent, changes nothing.
    pub fn confirm(&mut self, seq: Seq, now: Time) {
        let seq = seq.min(self.sent);
        if seq <= self.confirmed {
            return;
        }
        let newly = std::mem::replace(&mut self.confirmed, seq).0..seq.0;
        match (self.retention, self.retention.tail()) {
            (Retention::UntilSent, _) => {}
            (Retention::UntilConfirmed(_), None) => self.pass_confirmed(),
            (Retention::UntilConfirmed(_), Some(tail)) => {
                self.pass_confirmed();
                self.tail += newly.filter_map(|before| self.message_after(Seq(before))).map(held_charge).sum::<usize>();
                self.trim_tail(tail, now);
            }
        }
    }

    /// Forgets confirmed messages that have outlived the tail's bounds.
    fn trim_tail(&mut self, tail: ReplayTail, now: Time) {
        if self.confirmed_at.len() == TAIL_MARKS_MAX {
            self.confirmed_at.pop_back();
        }
        self.confirmed_at.push_back((now, self.confirmed));
        let mut floor = self.base;
        if tail.age > Duration::ZERO {
            while let Some(&(at, seq)) = self.confirmed_at.front() {
                if now.since(at) <= tail.age {
                    break;
                }
                floor = floor.max(seq);
                self.confirmed_at.pop_front();
            }
        }
        if tail.messages > 0 {
            floor = floor.max(Seq(self.confirmed.0.saturating_sub(u64::from(tail.messages))));
        }
        if tail.bytes > 0 {
            // Only what goes is walked over, so that a message costs the same however much is kept.
            let mut bytes = self.tail;
            for (index, &message) in self.messages.iter().enumerate() {
                if bytes <= tail.bytes {
                    break;
                }
                bytes -= held_charge(message);
                floor = floor.max(self.base.plus(index as u64 + 1));
            }
        }
        self.release(floor);
    }

    /// Forgets the messages up to `seq`.
    fn release(&mut self, seq: Seq) {
        let mut offset = self.queue.start();
        let tail_end = if self.retention.tail().is_some() { self.confirmed } else { Seq::default() };
        while self.base < seq {
            let Some(message) = self.messages.pop_front() else { break };
            offset += u64::from(message.wire_bytes);
            if is_dropped(message) {
                self.dropped.released();
            } else {
                self.held -= charge(message);
            }
            if self.base < tail_end {
                self.tail -= held_charge(message);
            }
            self.base = self.base.plus(1);
        }
        self.queue.release_to(offset);
        if self.messages.capacity() > MESSAGE_SLOTS_KEPT && self.messages.capacity() / 4 > self.messages.len() {
            self.messages.shrink_to(self.messages.len() * 2);
        }
        while self.confirmed_at.front().is_some_and(|&(_, mark)| mark <= self.base) {
            self.confirmed_at.pop_front();
        }
    }

    /// Makes what the lost peer did not confirm unsent again, or lets it go where nothing is retained.
    ///
    /// `clean` says that the peer left in good order, so a confirmed tail need not be sent again.
    pub fn rewind(&mut self, clean: bool) -> Rewound {
        match self.retention {
            Retention::UntilSent => {
                let in_doubt = self.in_doubt_messages();
                let gap = (in_doubt > 0).then(|| (self.confirmed.plus(1), self.sent));
                self.confirmed = self.sent;
                self.sent_offset = self.sent_boundary;
                self.dropped.run_ends();
                Rewound { in_doubt, again: 0, gap }
            }
            Retention::UntilConfirmed(_) => {
                if clean {
                    self.release(self.confirmed);
                }
                let in_doubt = self.held_in_doubt_messages();
                let again = self.kept_messages(self.base, self.sent);
                self.sent_back_to_base();
                Rewound { in_doubt, again, gap: None }
            }
        }
    }

    fn sent_back_to_base(&mut self) {
        self.sent = self.base;
        self.confirmed = self.base;
        self.tail = 0;
        self.confirmed_at.clear();
        self.sent_boundary = self.queue.start();
        self.sent_offset = self.sent_boundary;
        self.unsent = self.held;
        self.dropped.all_wait();
        self.pass_sent();
    }

    /// Skips what the new peer says it has: everything up to `seq` counts as sent and confirmed.
    pub fn fast_forward(&mut self, seq: Seq, now: Time) {
        let seq = seq.min(self.accepted());
        let mut bytes = 0;
        let mut at = self.sent;
        while at < seq {
            bytes += self.message_after(at).map_or(0, |message| message.wire_bytes as usize);
            at = at.plus(1);
        }
        self.sent_high = self.sent_high.max(seq);
        self.transmitted(bytes);
        self.confirm(seq, now);
    }

    /// Puts `bytes`, which are `message`, in the place of the message `seq`, if that waits for the link whole.
    pub fn replace_waiting(&mut self, seq: Seq, bytes: &[u8], message: Message) {
        let Some((at, from)) = self.waiting_at(seq).filter(|(at, _)| !is_dropped(self.messages[*at])) else { return };
        let before = std::mem::replace(&mut self.messages[at], message);
        let grown = |sum: usize| sum - charge(before) + charge(message);
        (self.held, self.unsent) = (grown(self.held), grown(self.unsent));
        self.queue.cut(from, from + u64::from(before.wire_bytes));
        self.queue.insert(from, bytes);
        self.accepted_offset = self.accepted_offset - u64::from(before.wire_bytes) + u64::from(message.wire_bytes);
    }

    /// Where the message `seq` stands in the list and in the queue, if it waits for the link whole.
    fn waiting_at(&self, seq: Seq) -> Option<(usize, u64)> {
        let first = self.sent.plus(1 + u64::from(self.is_amid_message()));
        if seq < first || seq > self.accepted() {
            return None;
        }
        let (before, at) = ((first.0 - self.base.0 - 1) as usize, (seq.0 - self.base.0 - 1) as usize);
        let from = self.amid_end() + self.messages.range(before..at).map(|it| u64::from(it.wire_bytes)).sum::<u64>();
        Some((at, from))
    }

    /// Takes the message `seq` out of those that wait for the link, unless it is half written; whether it was there.
    pub fn drop_waiting(&mut self, seq: Seq) -> bool {
        let Some((at, from)) = self.waiting_at(seq) else { return false };
        let message = self.dropped.drop_one(&mut self.messages[at]);
        if is_dropped(message) {
            return false;
        }
        self.held -= charge(message);
        self.unsent -= charge(message);
        self.queue.cut(from, from + u64::from(message.wire_bytes));
        self.accepted_offset -= u64::from(message.wire_bytes);
        self.pass_sent();
        true
    }

    /// Drops the oldest messages that wait for the link until at most `keep` are left; how many were dropped.
    ///
    /// A half-written message is never dropped.
    pub fn drop_oldest_unsent(&mut self, keep: u32) -> u64 {
        let first = (self.sent.0 - self.base.0) as usize + usize::from(self.is_amid_message());
        let cut = self.dropped.drop_oldest(&mut self.messages, first, keep);
        if cut.messages == 0 {
            return 0;
        }
        let from = self.amid_end();
        self.held -= cut.charge;
        self.unsent -= cut.charge;
        self.queue.cut(from, from + cut.wire_bytes);
        self.accepted_offset -= cut.wire_bytes;
        self.pass_sent();
        cut.messages
    }

    /// Forgets every message: the lane has ended. How many had not been sent, without those dropped before.
    pub fn clear(&mut self) -> u64 {
        let (accepted, unsent) = (self.accepted(), self.unsent_messages() - self.dropped.waiting());
        let end = self.queue.end();
        self.queue.release_to(end);
        self.messages = VecDeque::new();
        self.confirmed_at = VecDeque::new();
        self.base = accepted;
        self.held = 0;
        self.unsent = 0;
        self.dropped = Dropped::default();
        self.tail = 0;
        (self.sent_boundary, self.sent_offset, self.accepted_offset) = (end, end, end);
        (self.sent, self.confirmed) = (accepted, accepted);
        unsent
    }
}

/// Slots of the message list that are kept however few are full.
const MESSAGE_SLOTS_KEPT: usize = 64;
