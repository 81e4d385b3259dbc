//! A replay buffer in a snapshot: the numbers, the length of each message, and the bytes.
//!
//! The bytes are walked frame by frame when they are read: what a peer is sent after a hand-over is what a peer could
//! have sent, whatever wrote the snapshot.

use super::{ReplayBuffer, Retention, TAIL_MARKS_MAX, held_charge};
use crate::assembler::{Assembler, Message};
use crate::frame::Side;
use crate::ids::Seq;
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

/// Bytes in which a queue is filled again, so that its memory goes piece by piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes of a message's length, and of a mark of the tail's clock, in a snapshot.
const LENGTH_BYTES: usize = 4;
const MARK_BYTES: usize = 16;

const PART: &str = "messages";

impl ReplayBuffer {
    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self {
            retention: _,
            queue,
            messages,
            base,
            confirmed,
            sent,
            sent_high,
            sent_boundary,
            sent_offset,
            accepted_offset: _,
            held: _,
            unsent: _,
            dropped: _,
            tail: _,
            confirmed_at,
        } = self;
        for seq in [base, confirmed, sent, sent_high] {
            out.seq(*seq);
        }
        out.count(sent_offset - sent_boundary);
        out.size(messages.len());
        for message in messages {
            out.u32(message.wire_bytes);
        }
        out.size(confirmed_at.len());
        for (at, seq) in confirmed_at {
            out.time(*at);
            out.seq(*seq);
        }
        out.count(queue.end() - queue.start());
        queue.for_each(|bytes| out.raw(bytes));
    }

    /// Reads the buffer of a lane of messages from `sender`; whether what lies behind the whole ones
    /// is what has come of another, `is_half` knows.
    pub(crate) fn thaw(
        input: &mut Reader<'_>,
        retention: Retention,
        sender: Side,
        is_half: impl FnOnce(&[u8]) -> bool,
    ) -> Read<Self> {
        let mut buffer = Self::new(retention);
        (buffer.base, buffer.confirmed) = (input.seq()?, input.seq()?);
        (buffer.sent, buffer.sent_high) = (input.seq()?, input.seq()?);
        let amid = input.count()?;
        let messages = input.entries(usize::MAX, LENGTH_BYTES)?;
        let lengths = input.raw(messages * LENGTH_BYTES)?;
        let accepted = buffer.base.plus(messages as u64);
        buffer.thaw_marks(input)?;
        let bytes = input.bytes(usize::MAX)?;
        buffer.demand_order(accepted)?;
        let rest = buffer.thaw_messages(lengths, bytes, sender)?;
        demand(is_half(rest), PART)?;
        let next = buffer.message_after(buffer.sent).map_or(0, |message| message.wire_bytes);
        demand(amid == 0 || amid < u64::from(next), PART)?;
        buffer.sent_offset = buffer.sent_boundary + amid;
        bytes.chunks(PIECE_BYTES).for_each(|piece| buffer.queue.push_copy(piece));
        Ok(buffer)
    }

    fn thaw_marks(&mut self, input: &mut Reader<'_>) -> Read<()> {
        let marks = input.entries(TAIL_MARKS_MAX, MARK_BYTES)?;
        demand(marks == 0 || self.retention != Retention::UntilSent, PART)?;
        for _ in 0..marks {
            let (at, seq) = (input.past()?, input.seq()?);
            let (earlier, below) = self.confirmed_at.back().copied().unwrap_or((at, self.base));
            demand(earlier <= at && below < seq && seq <= self.confirmed, PART)?;
            self.confirmed_at.push_back((at, seq));
        }
        Ok(())
    }

    /// The invariant of the four numbers, for what is kept.
    fn demand_order(&self, accepted: Seq) -> Read<()> {
        let kept = match self.retention {
            Retention::UntilSent => self.base == self.sent && self.confirmed <= self.sent,
            Retention::UntilConfirmed(_) => self.base <= self.confirmed && self.confirmed <= self.sent,
        };
        demand(kept && self.sent <= accepted && self.sent_high <= accepted, PART)
    }

    /// Cuts the messages out of `bytes`; what is left is a half one.
    fn thaw_messages<'a>(&mut self, lengths: &[u8], bytes: &'a [u8], sender: Side) -> Read<&'a [u8]> {
        let mut rest = bytes;
        let mut seq = self.base;
        for length in lengths.chunks_exact(LENGTH_BYTES) {
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            let message = if length == 0 {
                // One that was dropped; neither the next to be sent nor the next to be confirmed is: it was passed over.
                demand(seq != self.sent && seq != self.confirmed, PART)?;
                Message { wire_bytes: 0, payload_bytes: 0 }
            } else {
                let (whole, behind) = rest.split_at_checked(length as usize).ok_or(SnapshotError::Malformed(PART))?;
                rest = behind;
                Assembler::one_message(sender, whole).ok_or(SnapshotError::Malformed(PART))?
            };
            self.count(message, seq);
            self.messages.push_back(message);
            seq = seq.plus(1);
        }
        Ok(rest)
    }

    /// Books the message behind `before`.
    fn count(&mut self, message: Message, before: Seq) {
        let bytes = held_charge(message);
        self.held += bytes;
        self.accepted_offset += u64::from(message.wire_bytes);
        self.dropped.count(message, before >= self.sent);
        if before >= self.sent {
            self.unsent += bytes;
            return;
        }
        self.sent_boundary += u64::from(message.wire_bytes);
        if before < self.confirmed {
            self.tail += bytes;
        }
    }
}
