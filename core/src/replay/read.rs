//! The messages of a lane one by one, from any number on: for a link whose peer does not read the frames as they came.
//!
//! Nothing is made ahead for such a link. A message becomes its form when it is written, and stays in the lane as it is,
//! so that the next link may have another form.

use super::ReplayBuffer;
use super::latest::is_dropped;
use crate::assembler::Message;
use crate::byte_queue::{ByteQueue, Gather};
use crate::frame::{self, HEADER_BYTES_MAX, Kind, Side};
use crate::ids::Seq;

/// A whole message that a buffer holds.
#[derive(Clone, Copy, Debug)]
pub struct HeldMessage<'a> {
    seq: Seq,
    sizes: Message,
    queue: &'a ByteQueue,
    from: u64,
}

impl<'a> HeldMessage<'a> {
    /// Its number in the lane.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }

    /// Payload bytes.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.sizes.payload_bytes as usize
    }

    /// The header of its first frame, where `sender` framed it.
    pub(crate) fn header(&self, sender: Side) -> Option<frame::Header> {
        self.header_at(self.from, sender)
    }

    /// The header of the frame that begins at `at`.
    fn header_at(&self, at: u64, sender: Side) -> Option<frame::Header> {
        let mut bytes = [0; HEADER_BYTES_MAX];
        let len = bytes.len().min((self.end() - at) as usize);
        self.queue.peek(at, &mut bytes[..len]);
        frame::parse(&bytes[..len], sender).ok()?
    }

    fn end(&self) -> u64 {
        self.from + u64::from(self.sizes.wire_bytes)
    }

    /// The beginning of its payload without a mask, at most `bytes_max` bytes, where `sender` framed it; no more of it is
    /// read than that.
    #[must_use]
    pub fn head(&self, sender: Side, bytes_max: usize) -> Option<Head> {
        let (mut kind, mut compressed, mut bytes) = (None, false, Vec::new());
        let mut at = self.from;
        while at < self.end() && (kind.is_none() || bytes.len() < bytes_max) {
            let header = self.header_at(at, sender)?;
            kind = kind.or(Kind::of(header.opcode));
            compressed |= header.compressed;
            at += header.header_len as u64;
            let (before, part) = (bytes.len(), header.payload_len.min((bytes_max - bytes.len()) as u64));
            self.queue.read(at, at + part, &mut bytes);
            if let Some(mask) = header.mask {
                frame::apply_mask(&mut bytes[before..], mask);
            }
            at += header.payload_len;
        }
        Some(Head { kind: kind?, compressed, bytes })
    }

    /// Bytes of its frames, headers included.
    pub(crate) const fn wire_bytes(&self) -> usize {
        self.sizes.wire_bytes as usize
    }

    /// Appends its frames from byte `skip` on to `out`.
    pub(crate) fn read_behind(&self, skip: usize, out: &mut Vec<u8>) {
        self.queue.read(self.from + skip as u64, self.from + u64::from(self.sizes.wire_bytes), out);
    }

    /// Adds its frames from byte `skip` on to `gather`; whether they fitted.
    pub(crate) fn gather_behind(&self, skip: usize, gather: &mut Gather<'a>) -> bool {
        self.queue.gather(self.from + skip as u64, self.from + u64::from(self.sizes.wire_bytes), gather)
    }

    /// Its frames, as they came.
    #[must_use]
    pub fn frames(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.sizes.wire_bytes as usize);
        self.queue.read(self.from, self.from + u64::from(self.sizes.wire_bytes), &mut bytes);
        bytes
    }

    /// What it is, and its payload without a mask, where `sender` framed it; `None` for a compressed one, which is not
    /// read.
    #[must_use]
    pub fn open(&self, sender: Side) -> Option<(Kind, Vec<u8>)> {
        self.opened(sender).filter(|(.., compressed)| !compressed).map(|(kind, payload, _)| (kind, payload))
    }

    /// The same for any message, and whether it is compressed.
    pub(crate) fn opened(&self, sender: Side) -> Option<(Kind, Vec<u8>, bool)> {
        let mut compressed = false;
        let mut bytes = self.frames();
        let mut payload = Vec::with_capacity(self.payload_bytes());
        let mut kind = None;
        let mut rest = &mut bytes[..];
        while !rest.is_empty() {
            let header = frame::parse(rest, sender).ok()??;
            compressed |= header.compressed;
            kind = kind.or(Kind::of(header.opcode));
            let (whole, behind) = rest.split_at_mut_checked(header.header_len + header.payload_len as usize)?;
            let part = &mut whole[header.header_len..];
            if let Some(mask) = header.mask {
                frame::apply_mask(part, mask);
            }
            payload.extend_from_slice(part);
            rest = behind;
        }
        Some((kind?, payload, compressed))
    }
}

/// How a message begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Whether its payload is compressed, and so are `bytes`.
    pub compressed: bool,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

impl ReplayBuffer {
    /// The message of these sizes whose bytes were pushed and which is about to be accepted.
    pub(crate) fn coming(&self, sizes: Message) -> HeldMessage<'_> {
        HeldMessage { seq: self.accepted().plus(1), sizes, queue: &self.queue, from: self.accepted_offset }
    }

    /// The whole messages behind `seq` that are held, the newest first: what that costs depends on them alone.
    pub fn newest(&self, seq: Seq) -> impl Iterator<Item = HeldMessage<'_>> {
        let (mut at, mut end) = (self.accepted(), self.accepted_offset);
        let count = self.messages.len().min(at.0.saturating_sub(seq.0) as usize);
        let messages = self.messages.range(self.messages.len() - count..).rev().map(move |&sizes| {
            end -= u64::from(sizes.wire_bytes);
            let held = HeldMessage { seq: at, sizes, queue: &self.queue, from: end };
            at = Seq(at.0 - 1);
            held
        });
        messages.filter(|message| !is_dropped(message.sizes))
    }

    /// The whole messages behind `seq` that are held, in their order.
    pub fn messages_after(&self, seq: Seq) -> impl Iterator<Item = HeldMessage<'_>> {
        let (mut at, mut from) =
            if seq >= self.sent { (self.sent, self.sent_boundary) } else { (self.base, self.queue.start()) };
        let first = (at.0 - self.base.0) as usize;
        let messages = self.messages.range(first..).map(move |&sizes| {
            let held = HeldMessage { seq: at.plus(1), sizes, queue: &self.queue, from };
            at = at.plus(1);
            from += u64::from(sizes.wire_bytes);
            held
        });
        messages.filter(move |message| message.seq > seq && !is_dropped(message.sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembler::Assembler;
    use crate::frame::Opcode;
    use crate::replay::Retention;

    #[test]
    fn no_more_of_a_message_is_read_than_its_beginning() {
        let mut buffer = ReplayBuffer::new(Retention::UntilSent);
        let mut fragments = Vec::new();
        frame::encode(&mut fragments, Opcode::Text, b"to", Some([9, 9, 9, 9]));
        fragments[0] &= 0x7F;
        frame::encode(&mut fragments, Opcode::Continuation, b"gether", Some([7, 0, 7, 0]));
        let mut whole = Vec::new();
        frame::encode(&mut whole, Opcode::Binary, &[5; 1000], Some([1, 2, 3, 4]));
        let mut empty = Vec::new();
        frame::encode(&mut empty, Opcode::Binary, b"", Some([1, 2, 3, 4]));
        for bytes in [&fragments, &whole, &empty] {
            buffer.push_copy(bytes);
            buffer.accept(Assembler::one_message(Side::Client, bytes).unwrap());
        }
        let heads = |after, bytes_max| -> Vec<(u64, Kind, Vec<u8>)> {
            let heads = buffer.newest(Seq(after)).map(|it| (it.seq().0, it.head(Side::Client, bytes_max).unwrap()));
            heads.map(|(seq, head)| (seq, head.kind, head.bytes)).collect()
        };
        let (empty, whole) = ((3, Kind::Binary, Vec::new()), (2, Kind::Binary, vec![5; 4]));
        assert_eq!(heads(0, 4), [empty.clone(), whole.clone(), (1, Kind::Text, b"toge".to_vec())]);
        assert_eq!(heads(1, 4), [empty.clone(), whole]);
        assert_eq!(heads(0, 1000)[2], (1, Kind::Text, b"together".to_vec()));
        assert_eq!(heads(2, 0), [empty]);
        assert!(
            heads(3, 4).is_empty() && heads(9, 4).is_empty(),
            "behind the last one, and behind what is still to come"
        );
    }

    #[test]
    fn a_message_is_read_without_its_mask_and_its_fragments() {
        let mut buffer = ReplayBuffer::new(Retention::UntilSent);
        let mut first = Vec::new();
        frame::encode(&mut first, Opcode::Binary, b"one", Some([1, 2, 3, 4]));
        let mut second = Vec::new();
        frame::encode(&mut second, Opcode::Text, b"tw", Some([9, 9, 9, 9]));
        second[0] &= 0x7F;
        frame::encode(&mut second, Opcode::Continuation, b"o", Some([7, 0, 7, 0]));
        for bytes in [&first, &second] {
            buffer.push_copy(bytes);
            buffer.accept(Assembler::one_message(Side::Client, bytes).unwrap());
        }
        let read: Vec<_> = buffer.messages_after(Seq(0)).filter_map(|it| it.open(Side::Client)).collect();
        assert_eq!(read, [(Kind::Binary, b"one".to_vec()), (Kind::Text, b"two".to_vec())]);
        assert_eq!(
            buffer.messages_after(Seq(1)).map(|it| (it.seq(), it.payload_bytes())).collect::<Vec<_>>(),
            [(Seq(2), 3)]
        );
        assert_eq!(buffer.messages_after(Seq(2)).count(), 0);
    }
}
