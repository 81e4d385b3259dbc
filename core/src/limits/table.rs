//! Who is connected how often and came how often lately, for as many as fit.
//!
//! Invariant: an entry with a connection stays; of the others there are at most `capacity`. When a new one finds the
//! table full, the one that was quiet longest among the next [`LOOK_MAX`] goes: a stranger with a million addresses
//! then washes away what is known of quiet ones, and never grows the table. Each arrival also looks at [`SWEEP`] others
//! and forgets them if they are idle, so that no entry needs a timer.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::Rate;
use super::window::Window;
use crate::time::Time;

/// Entries that are looked at for one to evict.
pub const LOOK_MAX: usize = 16;

/// Entries that each arrival looks at to forget idle ones.
pub const SWEEP: usize = 2;

/// Whom an entry is about: a digest that is as good as random, so that the order of entries is no order of anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Who(pub u64);

/// What one of them may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Connections at once; 0 is no limit.
    pub connections: u32,
    /// New connections or requests.
    pub rate: Rate,
}

impl Limit {
    /// Whether there is nothing to count.
    #[must_use]
    pub const fn is_off(self) -> bool {
        self.connections == 0 && self.rate.is_off()
    }
}

/// Why a connection is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There are as many connections as may be.
    Connections(u32),
    /// It came too often; the wait until the next time.
    Rate(Rate, Duration),
}

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    window: Window,
    /// The rate that its window was counted by last.
    per: Duration,
    touched: Time,
}

impl Entry {
    fn is_idle(&mut self, now: Time) -> bool {
        self.connections == 0 && self.window.is_idle(self.per, now)
    }
}

/// The entries of one shard.
#[derive(Debug)]
pub struct Table {
    capacity: usize,
    entries: BTreeMap<Who, Entry>,
    hand: Who,
}

impl Table {
    /// An empty table of at most `capacity` entries that have no connection.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, entries: BTreeMap::new(), hand: Who(0) }
    }

    /// Lets a connection in and counts it until [`Self::leave`].
    ///
    /// # Errors
    /// [`Refused`], and nothing is counted.
    pub fn enter(&mut self, who: Who, limit: Limit, now: Time) -> Result<(), Refused> {
        let entry = self.entry(who, limit.rate, now);
        if limit.connections > 0 && entry.connections >= limit.connections {
            return Err(Refused::Connections(limit.connections));
        }
        entry.window.count(limit.rate, now).map_err(|wait| Refused::Rate(limit.rate, wait))?;
        entry.connections += 1;
        Ok(())
    }

    /// Counts a request that holds no connection; how many more may come now, and how long until there is room for one
    /// more than that.
    ///
    /// # Errors
    /// [`Refused::Rate`], and nothing is counted.
    pub fn knock(&mut self, who: Who, rate: Rate, now: Time) -> Result<(u64, Duration), Refused> {
        let window = &mut self.entry(who, rate, now).window;
        window.count(rate, now).map_err(|wait| Refused::Rate(rate, wait))?;
        Ok(window.left(rate, now))
    }

    /// How many more may come now, and how long until there is room for one more than that.
    pub fn left(&mut self, who: Who, rate: Rate, now: Time) -> (u64, Duration) {
        self.entry(who, rate, now).window.left(rate, now)
    }

    /// A connection that was let in has ended.
    pub fn leave(&mut self, who: Who) {
        if let Some(entry) = self.entries.get_mut(&who) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// A connection that was let in as new here was refused elsewhere: it does not count.
    pub fn undo(&mut self, who: Who) {
        if let Some(entry) = self.entries.get_mut(&who) {
            entry.connections = entry.connections.saturating_sub(1);
            entry.window.undo();
        }
    }

    /// Entries now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets every idle entry; memory of the others, in bytes. It walks the whole table: for readers of statistics.
    pub fn tidy(&mut self, now: Time) -> usize {
        self.entries.retain(|_, entry| !entry.is_idle(now));
        let windows: usize = self.entries.values().map(|entry| entry.window.memory_bytes()).sum();
        windows + self.entries.len() * (size_of::<Who>() + size_of::<Entry>())
    }

    fn entry(&mut self, who: Who, rate: Rate, now: Time) -> &mut Entry {
        self.sweep(now);
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&who) {
            self.evict();
        }
        let entry = self.entries.entry(who).or_default();
        entry.touched = now;
        entry.per = rate.per;
        entry
    }

    fn sweep(&mut self, now: Time) {
        for _ in 0..SWEEP {
            let Some(next) = self.advance() else { return };
            if self.entries.get_mut(&next).is_some_and(|entry| entry.is_idle(now)) {
                self.entries.remove(&next);
            }
        }
    }

    fn evict(&mut self) {
        let mut quietest: Option<(Time, Who)> = None;
        for _ in 0..LOOK_MAX {
            let Some(next) = self.advance() else { return };
            let Some(entry) = self.entries.get(&next).filter(|entry| entry.connections == 0) else { continue };
            if quietest.is_none_or(|(touched, _)| entry.touched < touched) {
                quietest = Some((entry.touched, next));
            }
        }
        if let Some((_, who)) = quietest {
            self.entries.remove(&who);
        }
    }

    /// Moves the hand to the next entry, round and round.
    fn advance(&mut self) -> Option<Who> {
        let next = self.entries.range((Excluded(self.hand), Unbounded)).next().or_else(|| self.entries.iter().next());
        self.hand = *next?.0;
        Some(self.hand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { connections: 3, rate: Rate::new(5, Duration::from_secs(60)) };

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// Spreads small numbers as digests are spread.
    fn who(n: u64) -> Who {
        Who((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[test]
    fn ib_12_connections_and_rate_are_counted_apart_and_a_refusal_costs_nothing() {
        let mut table = Table::new(100);
        for _ in 0..3 {
            assert_eq!(table.enter(who(1), LIMIT, at(0)), Ok(()));
        }
        for _ in 0..10 {
            assert_eq!(table.enter(who(1), LIMIT, at(0)), Err(Refused::Connections(3)));
        }
        assert_eq!(table.enter(who(2), LIMIT, at(0)), Ok(()), "another one");
        for _ in 0..3 {
            table.leave(who(1));
        }
        for _ in 0..2 {
            assert_eq!(table.enter(who(1), LIMIT, at(10)), Ok(()));
        }
        let wait = Duration::from_secs(50);
        assert_eq!(table.enter(who(1), LIMIT, at(10)), Err(Refused::Rate(LIMIT.rate, wait)));
        assert_eq!(table.knock(who(1), LIMIT.rate, at(10)), Err(Refused::Rate(LIMIT.rate, wait)));
        assert_eq!(table.enter(who(1), LIMIT, at(60)), Ok(()));
    }

    #[test]
    fn what_was_refused_elsewhere_does_not_count() {
        let mut table = Table::new(100);
        for _ in 0..100 {
            assert_eq!(table.enter(who(1), LIMIT, at(0)), Ok(()));
            table.undo(who(1));
        }
        assert_eq!(table.tidy(at(0)), 0);
    }

    #[test]
    fn a_million_addresses_do_not_grow_the_table_and_wash_away_no_connection() {
        const CAPACITY: usize = 1000;
        let mut table = Table::new(CAPACITY);
        for n in 0..50 {
            assert_eq!(table.enter(who(n), LIMIT, at(0)), Ok(()));
        }
        for n in 0..1_000_000 {
            assert!(table.knock(who(1000 + n), LIMIT.rate, at(1)).is_ok());
            assert!(table.len() <= CAPACITY + 50, "{}", table.len());
        }
        for n in 0..50 {
            table.enter(who(n), LIMIT, at(1)).unwrap();
            table.enter(who(n), LIMIT, at(1)).unwrap();
            assert_eq!(table.enter(who(n), LIMIT, at(1)), Err(Refused::Connections(3)));
        }
        assert!(table.tidy(at(1)) < 500 * CAPACITY);
    }

    #[test]
    fn idle_entries_go_by_the_traffic_of_others() {
        let mut table = Table::new(1000);
        for n in 0..500 {
            assert!(table.knock(who(n), LIMIT.rate, at(0)).is_ok());
        }
        for n in 0..500 {
            table.knock(who(1000 + n % 5), LIMIT.rate, at(61 + n)).ok();
        }
        assert!(table.len() <= 5, "{}", table.len());
    }

    #[test]
    fn a_table_full_of_connections_still_lets_one_more_in() {
        let mut table = Table::new(10);
        for n in 0..50 {
            assert_eq!(table.enter(who(n), LIMIT, at(0)), Ok(()));
        }
        assert_eq!(table.len(), 50);
        (0..50).for_each(|n| table.leave(who(n)));
        assert_eq!((table.tidy(at(60)), table.len()), (0, 0));
    }
}
