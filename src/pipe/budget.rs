//! How long one turn of a pipe may hold its thread, in work instead of time: bytes moved, and messages that came in.
//!
//! Time would have to be asked for again and again, and would make a run depend on its machine. Each message counts as
//! [`MESSAGE_BYTES`] beside its own bytes, so that a turn of the smallest messages is not a hundred times as long as one
//! of video. What one read brings is never cut in two, so a turn may pass the bound by one read and one write.

use std::pin::pin;
use std::task::Context;

/// Bytes that one turn of a pipe moves at most before other pipes of the thread have theirs.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;

/// What a message costs beside moving its bytes, as bytes moved: about as long as parsing, numbering and laying it out.
pub const MESSAGE_BYTES: usize = 256;

/// Has the task polled again once its thread has looked at all sockets. One that merely wakes itself would be polled
/// again before that, as would all others like it: together they had sixty turns between two looks.
pub fn take_turns(cx: &mut Context<'_>) {
    let turns = pin!(tokio::task::yield_now());
    // It is pending once, and has told the runtime by then whom to wake.
    let _ = turns.poll(cx);
}

/// What is left of one turn.
#[derive(Debug)]
pub struct Budget {
    left: usize,
    /// Messages that had come in before.
    messages: u64,
}

impl Budget {
    /// A whole turn, for a pipe into which `messages` have come so far.
    pub const fn new(messages: u64) -> Self {
        Self { left: TURN_BYTES_MAX, messages }
    }

    /// Bytes that may still be moved.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Books the bytes that were moved and the messages that have come in until now; whether the turn is over.
    pub const fn is_spent_by(&mut self, moved: usize, messages: u64) -> bool {
        let came = messages.saturating_sub(self.messages) as usize;
        self.messages = messages;
        self.left = self.left.saturating_sub(moved.saturating_add(came.saturating_mul(MESSAGE_BYTES)));
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_with_the_byte_that_spends_it() {
        for (moved, spent) in [(TURN_BYTES_MAX - 1, false), (TURN_BYTES_MAX, true), (TURN_BYTES_MAX + 1, true)] {
            assert_eq!(Budget::new(7).is_spent_by(moved, 7), spent, "{moved}");
        }
        let mut budget = Budget::new(0);
        assert!((1..4).all(|_| !budget.is_spent_by(TURN_BYTES_MAX / 4, 0)));
        assert_eq!(budget.left(), TURN_BYTES_MAX / 4);
        assert!(budget.is_spent_by(TURN_BYTES_MAX / 4, 0));
    }

    #[test]
    fn a_turn_of_empty_messages_ends_after_four_thousand_of_them() {
        let most = (TURN_BYTES_MAX / (6 + MESSAGE_BYTES)) as u64;
        assert!((4000..4096).contains(&most));
        let mut budget = Budget::new(1_000_000);
        for came in 1..=most {
            assert!(!budget.is_spent_by(6, 1_000_000 + came), "{came}");
        }
        assert!(budget.is_spent_by(6, 1_000_000 + most + 1));
    }
}
