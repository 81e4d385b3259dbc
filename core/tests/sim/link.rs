//! A connection as the kernel has it: two flows of bytes, each with a bounded buffer and an end.

use std::collections::VecDeque;

use holdline_core::pipe::LinkLoss;

/// One direction: written at one end, read at the other.
#[derive(Debug)]
pub struct Flow {
    bytes: VecDeque<u8>,
    capacity: usize,
    end: Option<LinkLoss>,
}

impl Flow {
    pub fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, end: None }
    }

    /// Bytes that a write would take now. A dead peer's kernel takes what fits and says nothing.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len())
    }

    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        if self.end.is_none() {
            self.bytes.extend(&bytes[..taken]);
        }
        taken
    }

    pub fn read(&mut self, bytes_max: usize) -> Vec<u8> {
        let taken = bytes_max.min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let in_front = taken.min(front.len());
        let read = [&front[..in_front], &back[..taken - in_front]].concat();
        self.bytes.drain(..taken);
        read
    }

    /// The byte that the next read begins with.
    pub fn first(&self) -> Option<u8> {
        self.bytes.front().copied()
    }

    /// The writer is gone; what it wrote may still be read, unless its kernel threw it away.
    pub fn end(&mut self, loss: LinkLoss, keep: bool) {
        self.end.get_or_insert(loss);
        if !keep {
            self.bytes.clear();
        }
    }

    /// How the flow ended, once everything before it has been read.
    pub fn ended(&self) -> Option<LinkLoss> {
        self.end.filter(|_| self.bytes.is_empty())
    }

    /// Whether the writer is gone, be there what there may to read.
    pub const fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }
}

/// A connection between Holdline and a peer.
#[derive(Debug)]
pub struct Link {
    /// Written by the peer.
    pub from_peer: Flow,
    /// Written by Holdline.
    pub to_peer: Flow,
}

impl Link {
    pub fn new(capacity: usize) -> Self {
        Self { from_peer: Flow::new(capacity), to_peer: Flow::new(capacity) }
    }
}
