//! The replay buffer against a list of messages that does the same, under any sequence of calls.

use bytes::Bytes;
use holdline_core::assembler::Message;
use holdline_core::byte_queue::Gather;
use holdline_core::ids::Seq;
use holdline_core::replay::{ReplayBuffer, Retention, charge};
use holdline_core::settings::ReplayTail;
use holdline_core::time::Time;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum BufferOp {
    Message(usize, bool),
    Partial(usize),
    Discard,
    Transmit(usize),
    Confirm(u64),
    Rewind(bool),
    FastForward(u64),
    Drop(u32),
    Clear,
}

fn buffer_op() -> impl Strategy<Value = BufferOp> {
    prop_oneof![
        8 => (2..900_usize, any::<bool>()).prop_map(|(len, share)| BufferOp::Message(len, share)),
        2 => (1..50_usize).prop_map(BufferOp::Partial),
        1 => Just(BufferOp::Discard),
        8 => (0..2_000_usize).prop_map(BufferOp::Transmit),
        4 => (0..6_u64).prop_map(BufferOp::Confirm),
        2 => any::<bool>().prop_map(BufferOp::Rewind),
        1 => (0..6_u64).prop_map(BufferOp::FastForward),
        2 => (0..4_u32).prop_map(BufferOp::Drop),
        1 => Just(BufferOp::Clear),
    ]
}

/// The replay buffer as a list of messages.
#[derive(Default)]
struct Held {
    until_sent: bool,
    /// All messages ever; an empty one was dropped or forgotten.
    messages: Vec<Vec<u8>>,
    partial: Vec<u8>,
    base: usize,
    confirmed: usize,
    sent: usize,
    amid: usize,
}

impl Held {
    fn waiting(&self) -> Vec<u8> {
        self.messages[self.sent..].concat()[self.amid..].to_vec()
    }

    fn transmit(&mut self, bytes: usize) {
        self.amid += bytes;
        while let Some(next) = self.messages.get(self.sent).filter(|next| next.len() <= self.amid) {
            self.amid -= next.len();
            self.sent += 1;
        }
        if self.until_sent {
            self.base = self.sent;
        } else {
            self.confirm(0);
        }
    }

    fn confirm(&mut self, seq: usize) {
        self.confirmed = self.confirmed.max(seq.min(self.sent));
        if !self.until_sent {
            // A dropped message is confirmed with the one before it.
            let dropped = self.messages[self.confirmed..self.sent].iter().take_while(|message| message.is_empty());
            self.confirmed += dropped.count();
            self.base = self.base.max(self.confirmed);
        }
    }

    /// Messages that a lost link may or may not have delivered.
    fn in_doubt(&self) -> usize {
        let sent = &self.messages[self.confirmed..self.sent];
        if self.until_sent { sent.len() } else { sent.iter().filter(|message| !message.is_empty()).count() }
    }

    fn drop_oldest(&mut self, keep: usize) -> u64 {
        let first = self.sent + usize::from(self.amid > 0);
        let waiting: Vec<usize> = (first..self.messages.len()).filter(|&at| !self.messages[at].is_empty()).collect();
        let surplus = waiting.len().saturating_sub(keep);
        for &at in &waiting[..surplus] {
            self.messages[at].clear();
        }
        self.transmit(0);
        surplus as u64
    }

    /// The messages behind `seq` that are held, with their numbers.
    fn after(&self, seq: usize) -> Vec<(u64, Vec<u8>)> {
        let held = (1..).zip(&self.messages).skip(self.base.max(seq));
        held.filter(|(_, message)| !message.is_empty()).map(|(seq, message)| (seq, message.clone())).collect()
    }

    fn charge(&self, from: usize) -> usize {
        let held = self.messages[from..].iter().filter(|message| !message.is_empty());
        held.map(|message| charge(sizes(message.len()))).sum()
    }
}

fn sizes(len: usize) -> Message {
    Message { wire_bytes: len as u32, payload_bytes: len as u32 - 2 }
}

fn run_buffer(retention: Retention, ops: &[BufferOp]) {
    let now = Time::ZERO;
    let mut buffer = ReplayBuffer::new(retention);
    let mut held = Held { until_sent: retention == Retention::UntilSent, ..Held::default() };
    let mut fill = 0_u8;
    for op in ops {
        fill = fill.wrapping_add(1);
        match *op {
            BufferOp::Message(len, share) => {
                let bytes = vec![fill; len];
                if share {
                    buffer.push_shared(Bytes::from(bytes.clone()))
                } else {
                    buffer.push_copy(&bytes)
                }
                held.partial.extend(bytes);
                let message = std::mem::take(&mut held.partial);
                buffer.accept(sizes(message.len()));
                held.messages.push(message);
            }
            BufferOp::Partial(len) => {
                buffer.push_copy(&vec![fill; len]);
                held.partial.extend(vec![fill; len]);
            }
            BufferOp::Discard => {
                buffer.discard_partial();
                held.partial.clear();
            }
            BufferOp::Transmit(bytes) => {
                let mut gather = Gather::default();
                let _ = buffer.gather_amid(&mut gather) && buffer.gather_rest(&mut gather);
                let due: Vec<u8> = gather.as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(due, held.waiting()[..due.len()]);
                let taken = bytes.min(due.len());
                buffer.transmitted(taken);
                held.transmit(taken);
            }
            BufferOp::Confirm(ahead) => {
                let seq = buffer.confirmed().0 + ahead;
                buffer.confirm(Seq(seq), now);
                held.confirm(seq as usize);
            }
            BufferOp::Rewind(clean) => {
                let rewound = buffer.rewind(clean);
                assert_eq!(rewound.in_doubt, held.in_doubt() as u64);
                held.amid = 0;
                if held.until_sent {
                    held.confirmed = held.sent
                } else {
                    held.sent = held.confirmed
                }
                assert_eq!(rewound.gap.is_some(), held.until_sent && rewound.in_doubt > 0);
            }
            // Only a fresh link is told what its worker has.
            BufferOp::FastForward(_) if held.amid > 0 => {}
            BufferOp::FastForward(ahead) => {
                let seq = held.sent + ahead as usize;
                buffer.fast_forward(Seq(seq as u64), now);
                let seq = seq.min(held.messages.len());
                held.transmit(held.messages[held.sent..seq.max(held.sent)].concat().len());
                held.confirm(seq);
            }
            BufferOp::Drop(keep) => assert_eq!(buffer.drop_oldest_unsent(keep), held.drop_oldest(keep as usize)),
            BufferOp::Clear => {
                let unsent = held.messages[held.sent..].iter().filter(|message| !message.is_empty()).count();
                assert_eq!(buffer.clear(), unsent as u64);
                let all = held.messages.len();
                (held.base, held.confirmed, held.sent, held.amid) = (all, all, all, 0);
                held.partial.clear();
            }
        }
        assert_eq!((buffer.accepted().0, buffer.sent().0), (held.messages.len() as u64, held.sent as u64), "{op:?}");
        assert_eq!(buffer.confirmed().0, held.confirmed as u64, "{op:?}");
        assert_eq!(buffer.held_bytes(), held.charge(held.base), "{op:?}");
        assert_eq!(buffer.unsent_bytes(), held.charge(held.sent), "{op:?}");
        assert_eq!(buffer.unconfirmed_bytes(), held.charge(held.base), "{op:?}");
        for seq in [0, held.base, held.sent, held.sent + 1] {
            let read: Vec<_> = buffer.messages_after(Seq(seq as u64)).map(|it| (it.seq().0, it.frames())).collect();
            assert_eq!(read, held.after(seq), "{op:?} {seq}");
        }
        assert_eq!(buffer.partial_bytes(), held.partial.len(), "{op:?}");
        assert_eq!(buffer.is_amid_message(), held.amid > 0, "{op:?}");
        assert_eq!(buffer.amid_bytes() + buffer.rest_bytes(), held.waiting().len(), "{op:?}");
    }
}

proptest! {
    #[test]
    fn the_replay_buffer_is_a_list_of_messages(ops in proptest::collection::vec(buffer_op(), 1..120)) {
        run_buffer(Retention::UntilSent, &ops);
        run_buffer(Retention::UntilConfirmed(ReplayTail::default()), &ops);
    }
}
