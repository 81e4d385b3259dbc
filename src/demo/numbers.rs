//! Which of the numbers 1, 2, 3… have come, and how often they came again.
//!
//! Memory is the gaps, not the count: everything up to `whole` has come, and only what is beyond is listed.

use std::collections::BTreeSet;

/// The numbers of one lane of one client.
#[derive(Debug, Default, Clone)]
pub(super) struct Numbers {
    whole: u64,
    beyond: BTreeSet<u64>,
    again: u64,
}

impl Numbers {
    /// A number came; whether it is the first time.
    pub(super) fn note(&mut self, number: u64) -> bool {
        if number <= self.whole || !self.beyond.insert(number) {
            self.again += 1;
            return false;
        }
        while self.beyond.remove(&(self.whole + 1)) {
            self.whole += 1;
        }
        true
    }

    /// How many different numbers have come.
    pub(super) fn distinct(&self) -> u64 {
        self.whole + self.beyond.len() as u64
    }

    /// How many came that had come before.
    pub(super) fn again(&self) -> u64 {
        self.again
    }

    /// How many of the numbers up to `last` are missing.
    pub(super) fn missing(&self, last: u64) -> u64 {
        last.saturating_sub(self.whole) - self.beyond.range(..=last).count() as u64
    }

    /// Whether a number beyond `last` has come, which no worker can have sent.
    pub(super) fn exceeds(&self, last: u64) -> bool {
        self.whole > last || self.beyond.last().is_some_and(|highest| *highest > last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_repeated_numbers_are_told_apart() {
        let mut numbers = Numbers::default();
        for number in [1, 2, 4, 2, 5, 4] {
            numbers.note(number);
        }
        assert_eq!((numbers.distinct(), numbers.again(), numbers.missing(6)), (4, 2, 2));
        assert!(numbers.note(3));
        assert_eq!((numbers.distinct(), numbers.missing(5), numbers.missing(6)), (5, 0, 1));
        assert!(numbers.exceeds(4) && !numbers.exceeds(5));
    }

    #[test]
    fn what_is_whole_takes_no_room() {
        let mut numbers = Numbers::default();
        (1..=10_000).rev().for_each(|number| assert!(numbers.note(number)));
        assert_eq!((numbers.distinct(), numbers.beyond.len()), (10_000, 0));
    }
}
