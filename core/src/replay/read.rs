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
        let mut bytes = [0; HEADER_BYTES_MAX];
        let len = bytes.len().min(self.sizes.wire_bytes as usize);
        self.queue.peek(self.from, &mut bytes[..len]);
        frame::parse(&bytes[..len], sender).ok()?
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

impl ReplayBuffer {
    /// The message of these sizes whose bytes were pushed and which is about to be accepted.
    pub(crate) fn coming(&self, sizes: Message) -> HeldMessage<'_> {
        HeldMessage { seq: self.accepted().plus(1), sizes, queue: &self.queue, from: self.accepted_offset }
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
