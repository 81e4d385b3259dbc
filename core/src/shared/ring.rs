//! The newest messages of a stream, each held once for all viewers.
//!
//! ```text
//!   gone |  kept: for somebody behind, or to catch up  |
//!        base ........ cursor ........ cursor ........ newest
//! ```
//!
//! A message goes as soon as every viewer has it and no newcomer would be given it; at the latest when newer ones need
//! its room, and then whoever had not taken it is told. A viewer's [`Cursor`] moves only forward.

use std::collections::VecDeque;

use bytes::Bytes;

use super::MESSAGE_OVERHEAD_BYTES;

/// How far one viewer has come.
#[derive(Debug)]
pub struct Cursor {
    /// The last message it was given or passed over; the first has number 1.
    at: u64,
}

/// What a cursor finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The message behind the last.
    Message(Bytes),
    /// So many messages had to go before they were taken.
    Skipped(u64),
    /// There is nothing newer.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    message: Bytes,
    /// Viewers that have not taken it.
    behind: usize,
}

const fn charge(message: &Bytes) -> usize {
    message.len() + MESSAGE_OVERHEAD_BYTES
}

/// The messages that somebody may still want.
#[derive(Debug)]
pub struct Ring {
    bytes_max: usize,
    catch_up: u64,
    entries: VecDeque<Entry>,
    /// The message before the first entry.
    base: u64,
    bytes: usize,
    readers: usize,
}

impl Ring {
    /// An empty ring of at most `bytes_max` bytes, or one message if that is larger; a newcomer is given the last `catch_up` messages.
    #[must_use]
    pub const fn new(bytes_max: usize, catch_up: u32) -> Self {
        Self { bytes_max, catch_up: catch_up as u64, entries: VecDeque::new(), base: 0, bytes: 0, readers: 0 }
    }

    fn newest(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The entries behind `cursor`.
    fn behind(&mut self, at: u64) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().skip(at.saturating_sub(self.base) as usize)
    }

    /// Adds a viewer, as far back as a newcomer may look.
    pub fn join(&mut self) -> Cursor {
        let at = self.newest().saturating_sub(self.catch_up).max(self.base);
        self.readers += 1;
        self.behind(at).for_each(|entry| entry.behind += 1);
        Cursor { at }
    }

    /// Takes a viewer out; what was kept for it alone goes.
    pub fn leave(&mut self, cursor: Cursor) {
        self.readers -= 1;
        self.behind(cursor.at).for_each(|entry| entry.behind -= 1);
        self.trim();
    }

    /// Adds a message, for which the oldest make room.
    pub fn push(&mut self, message: Bytes) {
        self.bytes += charge(&message);
        self.entries.push_back(Entry { message, behind: self.readers });
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            self.drop_oldest();
        }
        self.trim();
    }

    /// What the viewer is given next.
    pub fn take(&mut self, cursor: &mut Cursor) -> Next {
        if cursor.at < self.base {
            let skipped = self.base - cursor.at;
            cursor.at = self.base;
            return Next::Skipped(skipped);
        }
        let Some(entry) = self.entries.get_mut((cursor.at - self.base) as usize) else { return Next::Nothing };
        entry.behind -= 1;
        let message = entry.message.clone();
        cursor.at += 1;
        self.trim();
        Next::Message(message)
    }

    /// Lets go what nobody wants any more.
    fn trim(&mut self) {
        while self.entries.len() as u64 > self.catch_up && self.entries.front().is_some_and(|entry| entry.behind == 0) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= charge(&entry.message);
            self.base += 1;
        }
    }

    /// Viewers.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.readers
    }

    /// Bytes held, with what each message is charged beside its own.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Bytes {
        Bytes::from(number.to_string().into_bytes())
    }

    fn taken(ring: &mut Ring, cursor: &mut Cursor) -> Vec<Next> {
        std::iter::from_fn(|| match ring.take(cursor) {
            Next::Nothing => None,
            next @ (Next::Message(_) | Next::Skipped(_)) => Some(next),
        })
        .collect()
    }

    fn messages(numbers: std::ops::RangeInclusive<u64>) -> Vec<Next> {
        numbers.map(|number| Next::Message(message(number))).collect()
    }

    /// A ring with room for exactly `count` messages of one digit.
    fn ring_of(count: usize, catch_up: u32) -> Ring {
        Ring::new(count * (1 + MESSAGE_OVERHEAD_BYTES), catch_up)
    }

    #[test]
    fn each_viewer_gets_each_message_once_and_then_it_is_gone() {
        let mut ring = ring_of(9, 0);
        let (mut first, mut second) = (ring.join(), ring.join());
        (1..=3).for_each(|number| ring.push(message(number)));
        assert_eq!(taken(&mut ring, &mut first), messages(1..=3));
        assert!(ring.bytes() > 0, "the second has yet to take them");
        assert_eq!(taken(&mut ring, &mut second), messages(1..=3));
        assert_eq!(ring.bytes(), 0);
    }

    #[test]
    fn a_viewer_that_lags_behind_a_full_ring_is_told_how_many_it_missed() {
        for (pushed, missed) in [(2, 0), (3, 0), (4, 1), (9, 6)] {
            let mut ring = ring_of(3, 0);
            let mut slow = ring.join();
            (1..=pushed).for_each(|number| ring.push(message(number)));
            let mut expected = messages(missed + 1..=pushed);
            if missed > 0 {
                expected.insert(0, Next::Skipped(missed));
            }
            assert_eq!(taken(&mut ring, &mut slow), expected, "{pushed} pushed");
        }
    }

    #[test]
    fn a_newcomer_is_given_the_last_ones_first_and_then_what_comes() {
        let mut ring = ring_of(9, 2);
        (1..=5).for_each(|number| ring.push(message(number)));
        let mut newcomer = ring.join();
        ring.push(message(6));
        assert_eq!(taken(&mut ring, &mut newcomer), messages(4..=6));
    }

    #[test]
    fn a_newcomer_without_catch_up_gets_only_what_comes() {
        let mut ring = ring_of(9, 0);
        let _slow = ring.join();
        (1..=5).for_each(|number| ring.push(message(number)));
        let mut newcomer = ring.join();
        ring.push(message(6));
        assert_eq!(taken(&mut ring, &mut newcomer), messages(6..=6));
    }

    #[test]
    fn one_message_above_the_bound_is_kept_alone() {
        let mut ring = Ring::new(10, 0);
        let mut viewer = ring.join();
        ring.push(message(1));
        ring.push(Bytes::from(vec![0; 100]));
        assert_eq!(ring.bytes(), 100 + MESSAGE_OVERHEAD_BYTES);
        assert_eq!(taken(&mut ring, &mut viewer), [Next::Skipped(1), Next::Message(Bytes::from(vec![0; 100]))]);
    }

    #[test]
    fn what_was_kept_for_a_viewer_goes_with_it() {
        let mut ring = ring_of(9, 1);
        let (mut quick, slow) = (ring.join(), ring.join());
        (1..=5).for_each(|number| ring.push(message(number)));
        assert_eq!(taken(&mut ring, &mut quick).len(), 5);
        ring.leave(slow);
        assert_eq!(ring.bytes(), 1 + MESSAGE_OVERHEAD_BYTES, "only the one to catch up with is left");
    }

    #[test]
    fn without_viewers_only_the_catch_up_is_kept() {
        let mut ring = ring_of(9, 0);
        ring.push(message(1));
        assert_eq!(ring.bytes(), 0);
    }
}
