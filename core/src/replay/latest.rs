//! What was dropped of the messages that wait, where a lane keeps its newest only (`latest:N`) or gives all of them up.
//!
//! A message that is dropped stays in the list as one of no bytes, so that each number keeps its message.
//!
//! Invariant: of the `held` dropped messages, `waiting` lie behind `sent`, and the first `run` places behind the half-written message
//! hold nothing but dropped ones. They need not be looked at again, so that a drop costs the same over any number of
//! them.

use std::collections::VecDeque;

use super::charge;
use crate::assembler::Message;

const DROPPED: Message = Message { wire_bytes: 0, payload_bytes: 0 };

/// Whether `message` was dropped.
pub(super) const fn is_dropped(message: Message) -> bool {
    message.wire_bytes == 0
}

/// The dropped messages of a buffer.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    held: u64,
    waiting: u64,
    run: usize,
}

/// What one drop took out of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cut {
    pub messages: u64,
    pub wire_bytes: u64,
    /// What the messages were charged, in bytes.
    pub charge: usize,
}

impl Dropped {
    /// Whether the list holds no dropped message: then it need not be walked to count the others.
    pub const fn is_none(&self) -> bool {
        self.held == 0
    }

    /// Dropped messages behind `sent`.
    pub const fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Drops the oldest messages from `first` on until at most `keep` of them are left.
    pub fn drop_oldest(&mut self, messages: &mut VecDeque<Message>, first: usize, keep: u32) -> Cut {
        let left = (messages.len() - first) as u64 - self.waiting;
        let mut cut = Cut::default();
        let surplus = left.saturating_sub(u64::from(keep));
        while cut.messages < surplus {
            let message = std::mem::replace(&mut messages[first + self.run], DROPPED);
            self.run += 1;
            if !is_dropped(message) {
                cut.messages += 1;
                cut.wire_bytes += u64::from(message.wire_bytes);
                cut.charge += charge(message);
            }
        }
        self.held += cut.messages;
        self.waiting += cut.messages;
        cut
    }

    /// Drops one message that waits; what it was.
    pub const fn drop_one(&mut self, message: &mut Message) -> Message {
        let was = std::mem::replace(message, DROPPED);
        let is_new = !is_dropped(was) as u64;
        self.held += is_new;
        self.waiting += is_new;
        was
    }

    /// Notes that `sent` has passed a dropped message.
    pub const fn passed(&mut self) {
        self.waiting -= 1;
        self.run = self.run.saturating_sub(1);
    }

    /// Notes that no message is half written any more: the run begins elsewhere.
    pub const fn run_ends(&mut self) {
        self.run = 0;
    }

    /// Notes that the whole list lies behind `sent` again.
    pub const fn all_wait(&mut self) {
        (self.waiting, self.run) = (self.held, 0);
    }

    /// Notes that the list holds one dropped message less.
    pub const fn released(&mut self) {
        self.held -= 1;
    }

    /// Counts one more message of the list, which may have been dropped, and may wait.
    pub const fn count(&mut self, message: Message, waits: bool) {
        let dropped = is_dropped(message) as u64;
        self.held += dropped;
        self.waiting += dropped * waits as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::held_charge;

    fn messages(count: usize) -> VecDeque<Message> {
        std::iter::repeat_n(Message { wire_bytes: 102, payload_bytes: 100 }, count).collect()
    }

    #[test]
    fn the_oldest_go_until_as_many_are_left_as_are_kept() {
        let (mut dropped, mut list) = (Dropped::default(), messages(5));
        assert_eq!(dropped.drop_oldest(&mut list, 0, 5), Cut::default(), "at the bound");
        assert_eq!(
            dropped.drop_oldest(&mut list, 0, 3),
            Cut { messages: 2, wire_bytes: 204, charge: 2 * charge(list[4]) }
        );
        assert_eq!(list.iter().map(|it| is_dropped(*it)).collect::<Vec<_>>(), [true, true, false, false, false]);
        list.extend(messages(1));
        assert_eq!(dropped.drop_oldest(&mut list, 0, 3).messages, 1, "those dropped before count no more");
        assert_eq!(dropped.waiting(), 3);
    }

    #[test]
    fn a_half_written_message_and_what_is_before_it_stay() {
        let (mut dropped, mut list) = (Dropped::default(), messages(3));
        assert_eq!(dropped.drop_oldest(&mut list, 2, 0).messages, 1);
        assert!(!is_dropped(list[1]) && is_dropped(list[2]));
        assert_eq!(held_charge(list[2]), 0);
        dropped.passed();
        assert_eq!((dropped.waiting(), dropped.run), (0, 0));
        dropped.all_wait();
        assert_eq!((dropped.waiting(), dropped.is_none()), (1, false), "it is held until it is released");
        dropped.released();
        assert!(dropped.is_none());
    }
}
