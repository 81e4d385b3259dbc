//! The bytes that a lane holds, addressed by their absolute offset in the lane's stream.
//!
//! Bytes enter at the end, copied or shared, and leave at the front; nothing is allocated ahead and an empty queue
//! holds no memory. Small pieces are packed into blocks, so that a thousand small messages are not a thousand
//! allocations.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Capacity of the first block that small pieces are packed into; later blocks double up to [`BLOCK_BYTES_MAX`].
const BLOCK_BYTES_MIN: usize = 512;

/// Capacity of the largest block that small pieces are packed into; larger pieces get a block of their own size.
const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// What a block costs beside its bytes: its place in the list, which may be twice as long as it is full, and what an
/// allocator keeps of its own for each piece of memory.
pub const BLOCK_OVERHEAD_BYTES: usize = 2 * size_of::<Placed>() + 16;

#[derive(Debug)]
enum Block {
    Packed(Vec<u8>),
    Shared(Bytes),
    /// Part of a buffer that is wanted back: [`ByteQueue::own_borrowed`] takes a copy in its place.
    Borrowed(Bytes),
    /// Held by others too, and charged where it comes from.
    Common(Bytes),
}

impl Block {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Packed(bytes) => bytes,
            Self::Shared(bytes) | Self::Borrowed(bytes) | Self::Common(bytes) => bytes,
        }
    }

    /// Memory that goes when the block goes.
    const fn cost(&self) -> usize {
        let bytes = match self {
            Self::Packed(bytes) => bytes.capacity(),
            Self::Shared(bytes) | Self::Borrowed(bytes) => bytes.len(),
            Self::Common(_) => 0,
        };
        bytes + BLOCK_OVERHEAD_BYTES
    }

    /// Bytes that are charged elsewhere.
    const fn common_bytes(&self) -> usize {
        match self {
            Self::Common(bytes) => bytes.len(),
            Self::Packed(_) | Self::Shared(_) | Self::Borrowed(_) => 0,
        }
    }
}

/// A block and where it ends in the stream, so that an offset deep in a large queue is found without a walk.
#[derive(Debug)]
struct Placed {
    end: u64,
    block: Block,
}

/// Slices that one vectored write takes at most.
pub const GATHER_SLICES_MAX: usize = 16;

/// The slices of one vectored write, gathered without an allocation.
#[derive(Debug)]
pub struct Gather<'a> {
    slices: [IoSlice<'a>; GATHER_SLICES_MAX],
    used: usize,
    bytes: usize,
    more: bool,
}

impl Default for Gather<'_> {
    fn default() -> Self {
        Self { slices: [IoSlice::new(&[]); GATHER_SLICES_MAX], used: 0, bytes: 0, more: false }
    }
}

impl<'a> Gather<'a> {
    /// Adds `bytes` behind what is there; false, and nothing added, if all places are taken.
    pub fn push(&mut self, bytes: &'a [u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let Some(slot) = self.slices.get_mut(self.used) else { return false };
        *slot = IoSlice::new(bytes);
        self.used += 1;
        self.bytes += bytes.len();
        true
    }

    /// The slices, in the order in which they must be written.
    #[must_use]
    pub fn as_slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.used]
    }

    /// Bytes in all slices together.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Notes that this is not all that waits.
    pub(crate) const fn set_more(&mut self) {
        self.more = true;
    }

    /// Whether more waits behind it, so that there is something left to do when all of it is written.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.more
    }
}

/// A queue of bytes with absolute offsets: `start` is the first byte held, `end` the first that has not come yet.
#[derive(Debug)]
pub struct ByteQueue {
    blocks: VecDeque<Placed>,
    start: u64,
    end: u64,
    cost: usize,
    common: usize,
    /// Where the first piece begins that was borrowed and may still be held.
    borrowed_from: u64,
}

/// An offset that no stream reaches.
const NOTHING_BORROWED: u64 = u64::MAX;

impl Default for ByteQueue {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), start: 0, end: 0, cost: 0, common: 0, borrowed_from: NOTHING_BORROWED }
    }
}

impl ByteQueue {
    /// Offset of the first byte held.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte held.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of blocks that are charged elsewhere.
    #[must_use]
    pub const fn common_bytes(&self) -> usize {
        self.common
    }

    /// Bytes of memory behind the queue: what its blocks have allocated, not only what is in use, and each block's
    /// [`BLOCK_OVERHEAD_BYTES`]. What is charged elsewhere is not counted.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.cost
    }

    /// Appends a copy of `bytes`.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        let mut capacity = BLOCK_BYTES_MIN;
        if let Some(Placed { end, block: Block::Packed(last) }) = self.blocks.back_mut() {
            let room = last.capacity() - last.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            last.extend_from_slice(now);
            *end += now.len() as u64;
            self.end = *end;
            bytes = later;
            capacity = (last.capacity() * 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        }
        if !bytes.is_empty() {
            let mut block = Vec::with_capacity(capacity.max(bytes.len()));
            block.extend_from_slice(bytes);
            self.push_block(Block::Packed(block));
        }
    }

    /// Appends `bytes` without copying them.
    pub fn push_shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.push_block(Block::Shared(bytes));
        }
    }

    /// Appends `bytes` without copying them, until [`Self::own_borrowed`].
    pub fn push_borrowed(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.borrowed_from = self.borrowed_from.min(self.end);
            self.push_block(Block::Borrowed(bytes));
        }
    }

    /// Appends `bytes` without copying them; others hold them too, and they are charged elsewhere.
    pub fn push_common(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.push_block(Block::Common(bytes));
        }
    }

    /// Takes a copy of what is borrowed and still held, and lets the buffers go that it was part of.
    pub fn own_borrowed(&mut self) {
        let from = std::mem::replace(&mut self.borrowed_from, NOTHING_BORROWED);
        if from == NOTHING_BORROWED {
            return;
        }
        for Placed { block, .. } in self.blocks.iter_mut().rev().take_while(|placed| placed.end > from) {
            if let Block::Borrowed(bytes) = block {
                *block = Block::Packed(bytes.to_vec());
            }
        }
    }

    fn push_block(&mut self, block: Block) {
        self.book(&block);
        self.end += block.as_slice().len() as u64;
        self.blocks.push_back(Placed { end: self.end, block });
    }

    const fn book(&mut self, block: &Block) {
        self.cost += block.cost();
        self.common += block.common_bytes();
    }

    const fn unbook(&mut self, block: &Block) {
        self.cost -= block.cost();
        self.common -= block.common_bytes();
    }

    /// Forgets everything before `offset`, which lies between [`Self::start`] and [`Self::end`].
    pub fn release_to(&mut self, offset: u64) {
        debug_assert!((self.start..=self.end).contains(&offset));
        self.start = offset;
        while self.blocks.front().is_some_and(|first| first.end <= offset)
            && let Some(Placed { block, .. }) = self.blocks.pop_front()
        {
            self.unbook(&block);
        }
        if self.blocks.is_empty() && self.blocks.capacity() > BLOCKS_KEPT {
            self.blocks = VecDeque::new();
        }
    }

    /// Forgets everything from `offset` on, which lies between [`Self::start`] and [`Self::end`].
    pub fn truncate(&mut self, offset: u64) {
        self.end = offset;
        while self.blocks.back().is_some_and(|last| last.end > offset)
            && let Some(Placed { end, mut block }) = self.blocks.pop_back()
        {
            self.unbook(&block);
            let left = block.as_slice().len().saturating_sub((end - offset) as usize);
            if left == 0 || offset == self.start {
                continue;
            }
            match &mut block {
                Block::Packed(bytes) => bytes.truncate(left),
                Block::Shared(bytes) | Block::Borrowed(bytes) | Block::Common(bytes) => bytes.truncate(left),
            }
            self.book(&block);
            self.blocks.push_back(Placed { end: offset, block });
        }
    }

    /// Takes the bytes from `from` up to `to` out of the middle; what follows moves up.
    pub fn cut(&mut self, from: u64, to: u64) {
        let tail = self.copy_out(to, self.end);
        self.truncate(from);
        tail.into_iter().for_each(|block| self.push_block(block));
    }

    /// Visits all bytes held, in their order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8])) {
        self.walk(self.start, self.end, |block, range| {
            visit(&block.as_slice()[range]);
            true
        });
    }

    /// Copies the bytes from `from` on to `out`, which must not be longer than what is held.
    pub(crate) fn peek(&self, from: u64, out: &mut [u8]) {
        let mut done = 0;
        self.walk(from, from + out.len() as u64, |block, range| {
            let part = &block.as_slice()[range];
            out[done..done + part.len()].copy_from_slice(part);
            done += part.len();
            true
        });
    }

    /// Appends a copy of the bytes from `from` up to `to` to `out`.
    pub fn read(&self, from: u64, to: u64, out: &mut Vec<u8>) {
        self.walk(from, to, |block, range| {
            out.extend_from_slice(&block.as_slice()[range]);
            true
        });
    }

    /// Puts a copy of `bytes` at offset `at`; what follows moves back.
    pub fn insert(&mut self, at: u64, bytes: &[u8]) {
        let tail = self.copy_out(at, self.end);
        self.truncate(at);
        self.push_copy(bytes);
        tail.into_iter().for_each(|block| self.push_block(block));
    }

    /// The bytes from `from` up to `to` once more; small pieces that were copied are packed together again.
    fn copy_out(&self, from: u64, to: u64) -> Vec<Block> {
        let mut pieces = Vec::new();
        self.walk(from, to, |block, range| {
            let part = &block.as_slice()[range.clone()];
            match (block, pieces.last_mut()) {
                (Block::Shared(bytes), _) => pieces.push(Block::Shared(bytes.slice(range))),
                (Block::Common(bytes), _) => pieces.push(Block::Common(bytes.slice(range))),
                (Block::Packed(_) | Block::Borrowed(_), Some(Block::Packed(last)))
                    if last.len() + part.len() <= BLOCK_BYTES_MIN =>
                {
                    last.extend_from_slice(part);
                }
                (Block::Packed(_) | Block::Borrowed(_), _) => pieces.push(Block::Packed(part.to_vec())),
            }
            true
        });
        pieces
    }

    /// Adds the bytes from `from` up to `to` to `gather`; whether all of them found a place.
    pub fn gather<'a>(&'a self, from: u64, to: u64, gather: &mut Gather<'a>) -> bool {
        let mut whole = true;
        self.walk(from, to, |block, range| {
            whole = gather.push(&block.as_slice()[range]);
            whole
        });
        whole
    }

    /// Visits the parts of blocks between two offsets until `visit` has had enough.
    fn walk<'a>(&'a self, from: u64, to: u64, mut visit: impl FnMut(&'a Block, std::ops::Range<usize>) -> bool) {
        if from == to {
            return;
        }
        // Nearly always it is the first block that matters.
        let first = match self.blocks.front() {
            Some(front) if front.end <= from => self.blocks.partition_point(|placed| placed.end <= from),
            Some(_) | None => 0,
        };
        let mut at = from;
        for placed in self.blocks.range(first..) {
            if at >= to {
                return;
            }
            let start = placed.end - placed.block.as_slice().len() as u64;
            let end = placed.end.min(to);
            if !visit(&placed.block, (at - start) as usize..(end - start) as usize) {
                return;
            }
            at = end;
        }
    }
}

/// Slots of the block list that an empty queue may keep.
const BLOCKS_KEPT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(queue: &ByteQueue) -> Vec<u8> {
        let mut bytes = Vec::new();
        queue.walk(queue.start(), queue.end(), |block, range| {
            bytes.extend_from_slice(&block.as_slice()[range]);
            true
        });
        bytes
    }

    #[derive(Clone, Debug)]
    enum Op {
        Copy(usize),
        Share(usize),
        Borrow(usize),
        Common(usize),
        Own,
        Release(usize),
        Truncate(usize),
        Cut(usize, usize),
        Insert(usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..2000usize).prop_map(Op::Copy),
            (0..40_000usize).prop_map(Op::Share),
            (0..5000usize).prop_map(Op::Borrow),
            (0..5000usize).prop_map(Op::Common),
            Just(Op::Own),
            (0..5000usize).prop_map(Op::Release),
            (0..5000usize).prop_map(Op::Truncate),
            (0..5000usize, 0..5000usize).prop_map(|(a, b)| Op::Cut(a, b)),
            (0..5000usize, 0..2000usize).prop_map(|(at, len)| Op::Insert(at, len)),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_vector_would_hold(ops in proptest::collection::vec(op(), 1..60)) {
            let mut queue = ByteQueue::default();
            let mut model: Vec<u8> = Vec::new();
            let mut lent: Vec<Bytes> = Vec::new();
            let mut next = 0u8;
            for op in ops {
                let mut fresh = |len: usize| -> Vec<u8> {
                    (0..len).map(|_| { next = next.wrapping_mul(31).wrapping_add(7); next }).collect()
                };
                match op {
                    Op::Copy(len) => { let bytes = fresh(len); queue.push_copy(&bytes); model.extend(bytes); }
                    Op::Share(len) => { let bytes = fresh(len); model.extend(&bytes); queue.push_shared(bytes.into()); }
                    Op::Borrow(len) => {
                        let bytes = Bytes::from(fresh(len));
                        model.extend(&bytes);
                        queue.push_borrowed(bytes.clone());
                        lent.push(bytes);
                    }
                    Op::Common(len) => {
                        let bytes = fresh(len);
                        model.extend(&bytes);
                        queue.push_common(bytes.into());
                    }
                    Op::Own => {
                        queue.own_borrowed();
                        prop_assert!(lent.drain(..).all(|bytes| bytes.is_empty() || bytes.is_unique()));
                    }
                    Op::Release(len) => {
                        let len = len.min(model.len());
                        queue.release_to(queue.start() + len as u64);
                        model.drain(..len);
                    }
                    Op::Truncate(len) => {
                        let len = len.min(model.len());
                        queue.truncate(queue.end() - len as u64);
                        model.truncate(model.len() - len);
                    }
                    Op::Cut(a, b) => {
                        let from = a.min(model.len());
                        let to = (from + b).min(model.len());
                        queue.cut(queue.start() + from as u64, queue.start() + to as u64);
                        model.drain(from..to);
                    }
                    Op::Insert(at, len) => {
                        let (at, bytes) = (at.min(model.len()), fresh(len));
                        queue.insert(queue.start() + at as u64, &bytes);
                        model.splice(at..at, bytes);
                    }
                }
                prop_assert_eq!(content(&queue), model.clone());
                prop_assert_eq!((queue.end() - queue.start()) as usize, model.len());
                let real = queue.blocks.iter().map(|placed| placed.block.cost()).sum::<usize>();
                let common = queue.blocks.iter().map(|placed| placed.block.common_bytes()).sum::<usize>();
                prop_assert_eq!((queue.memory_bytes(), queue.common_bytes()), (real, common));
                if model.is_empty() {
                    prop_assert_eq!(queue.memory_bytes(), 0);
                    prop_assert!(queue.blocks.is_empty());
                }
            }
        }
    }

    #[test]
    fn small_pieces_share_blocks() {
        let mut queue = ByteQueue::default();
        for _ in 0..1000 {
            queue.push_copy(&[1; 64]);
        }
        assert!(queue.blocks.len() < 20, "{}", queue.blocks.len());
        queue.release_to(64_000);
        assert_eq!(queue.memory_bytes(), 0);
    }
}
