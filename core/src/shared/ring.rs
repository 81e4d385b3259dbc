//! The newest messages of a stream, each held once for all viewers.
//!
//! ```text
//!   gone |  kept: for a viewer behind, or to catch up  |
//!        base ........ cursor ........ cursor ........ newest
//! ```
//!
//! A message goes as soon as every viewer has it and no newcomer would be given it; at the latest when newer ones need
//! its room, and then each viewer that had not taken it is told. A viewer's [`Cursor`] moves only forward.
//!
//! What not even the quickest viewer has taken is counted apart. A quarter of the ring is for it ([`Ring::room`]), and
//! a caller that pushes only while there is room never has the quickest passed over.

use std::collections::VecDeque;

use bytes::Bytes;

use super::charge;

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

/// The messages that a viewer may still want.
#[derive(Debug)]
pub struct Ring {
    bytes_max: usize,
    catch_up: u64,
    entries: VecDeque<Entry>,
    /// The message before the first entry.
    base: u64,
    bytes: usize,
    readers: usize,
    /// The last message that any viewer has taken or passed over, or that came while there was none.
    front: u64,
    /// Bytes of the entries behind `front`.
    untaken_bytes: usize,
}

impl Ring {
    /// An empty ring of at most `bytes_max` bytes, or a quarter of that and one message if that is more; a newcomer is given
    /// the last `catch_up` messages.
    #[must_use]
    pub const fn new(bytes_max: usize, catch_up: u32) -> Self {
        Self {
            bytes_max,
            catch_up: catch_up as u64,
            entries: VecDeque::new(),
            base: 0,
            bytes: 0,
            readers: 0,
            front: 0,
            untaken_bytes: 0,
        }
    }

    fn newest(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The entries behind `cursor`.
    fn behind(&mut self, at: u64) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().skip(at.saturating_sub(self.base) as usize)
    }

    /// Messages that a newcomer is given first: of the last ones those that fit into the ring, and the newest in any
    /// case.
    fn caught_up(&self) -> u64 {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += charge(&entry.message);
            bytes <= self.bytes_max || bytes == charge(&entry.message)
        };
        self.entries.iter().rev().take(self.catch_up as usize).take_while(fits).count() as u64
    }

    /// Adds a viewer, as far back as a newcomer may look.
    pub fn join(&mut self) -> Cursor {
        let at = self.newest() - self.caught_up();
        self.readers += 1;
        self.behind(at).for_each(|entry| entry.behind += 1);
        self.advance(at);
        Cursor { at }
    }

    /// Takes a viewer out; what was kept for it alone goes.
    pub fn leave(&mut self, cursor: Cursor) {
        self.readers -= 1;
        self.behind(cursor.at).for_each(|entry| entry.behind -= 1);
        if self.readers == 0 {
            self.advance(self.newest());
        }
        self.trim();
    }

    /// Adds a message, for which the oldest make room.
    pub fn push(&mut self, message: Bytes) {
        let had_room = self.room() > 0;
        self.bytes += charge(&message);
        self.untaken_bytes += charge(&message);
        self.entries.push_back(Entry { message, behind: self.readers });
        if self.readers == 0 {
            self.advance(self.newest());
        }
        while self.bytes > self.bytes_max && self.entries.len() > 1 && !(had_room && self.base == self.front) {
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
        self.advance(cursor.at);
        self.trim();
        Next::Message(message)
    }

    /// Notes that some viewer has come as far as `at`.
    fn advance(&mut self, at: u64) {
        let passed =
            self.entries.iter().skip((self.front - self.base) as usize).take(at.saturating_sub(self.front) as usize);
        self.untaken_bytes -= passed.map(|entry| charge(&entry.message)).sum::<usize>();
        self.front = self.front.max(at);
    }

    /// Lets go what no viewer wants any more.
    fn trim(&mut self) {
        while self.entries.len() as u64 > self.catch_up && self.entries.front().is_some_and(|entry| entry.behind == 0) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= charge(&entry.message);
            self.base += 1;
            if self.base > self.front {
                self.front = self.base;
                self.untaken_bytes -= charge(&entry.message);
            }
        }
    }

    /// Viewers.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.readers
    }

    /// Bytes that may be pushed before the quickest viewer has to take some; the message that passes the bound is
    /// taken whole.
    #[must_use]
    pub const fn room(&self) -> usize {
        (self.bytes_max / 4 + 1).saturating_sub(self.untaken_bytes)
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
    use crate::shared::MESSAGE_OVERHEAD_BYTES;

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
    fn the_quickest_viewer_makes_room_and_a_slow_one_takes_none() {
        let each = 1 + MESSAGE_OVERHEAD_BYTES;
        let mut ring = ring_of(16, 2);
        let full = 4 * each + 1;
        ring.push(message(1));
        assert_eq!(ring.room(), full, "no viewer is there to take it");
        let (mut quick, mut slow) = (ring.join(), ring.join());
        (2..=4).for_each(|number| ring.push(message(number)));
        assert_eq!(ring.room(), full - 3 * each);
        assert_eq!(ring.take(&mut slow), Next::Message(message(1)));
        assert_eq!(ring.room(), full - 3 * each, "what came before them was not waited for");
        assert_eq!(taken(&mut ring, &mut quick).len(), 4);
        assert_eq!(ring.room(), full);
        ring.push(message(5));
        ring.leave(quick);
        assert_eq!(ring.room(), full - each);
        assert_eq!(taken(&mut ring, &mut slow).len(), 4);
        ring.push(message(6));
        let mut newcomer = ring.join();
        assert_eq!(ring.room(), full - each, "it catches up with the last two, and none of them has the newest");
        ring.push(message(7));
        assert_eq!(taken(&mut ring, &mut newcomer).len(), 3);
        assert_eq!(ring.room(), full);
        ring.leave(newcomer);
        ring.push(message(8));
        ring.leave(slow);
        assert_eq!(ring.room(), full, "who is gone waits for nothing");
    }

    #[test]
    fn within_its_room_the_quickest_viewer_misses_nothing_however_large_the_messages() {
        let mut ring = Ring::new(2800, 0);
        let (mut quick, mut slow) = (ring.join(), ring.join());
        let mut heard = 0;
        for size in [100, 300, 100, 5000, 10, 900, 400, 2000] {
            if ring.room() == 0 {
                heard += taken(&mut ring, &mut quick).iter().filter(|next| matches!(next, Next::Message(_))).count();
                assert!(ring.room() > 0);
            }
            ring.push(Bytes::from(vec![0; size]));
            assert!(ring.bytes() <= 700 + MESSAGE_OVERHEAD_BYTES + 5000, "{}", ring.bytes());
        }
        heard += taken(&mut ring, &mut quick).len();
        assert_eq!(heard, 8);
        assert!(matches!(ring.take(&mut slow), Next::Skipped(_)));
    }

    #[test]
    fn without_viewers_only_the_catch_up_is_kept() {
        let mut ring = ring_of(9, 0);
        ring.push(message(1));
        assert_eq!(ring.bytes(), 0);
    }
}
