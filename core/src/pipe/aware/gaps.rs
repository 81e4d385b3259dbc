//! Numbers that stand for no message: those that the client has given up, and those that it has to be told of.
//!
//! Invariant: the number of a message in the lane up and the client's own number for it are told apart here alone; and a gap
//! is told on each link anew, until the client shows that it has read so far.

use std::collections::VecDeque;

use crate::aware::Said;
use crate::aware::words::GapWhy;
use crate::ids::{LaneName, Seq};
use crate::snapshot::{Read, Reader, SnapshotError, Writer, demand};

/// Gaps of a client whose messages around them the backend has not confirmed.
const SHIFTS_MAX: usize = 16;

/// Gaps that a client may not have heard of; past that, two of them are told as one.
const MISSING_MAX: usize = 16;

/// By how much the client's numbers are ahead of the lane's: behind which message of the lane, by how much more.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    /// Those of gaps that the backend has confirmed everything before.
    settled: u64,
    open: VecDeque<(Seq, u64)>,
}

impl Shifts {
    /// The client's number of the message `seq` of the lane, which nothing was settled behind.
    pub fn number_of(&self, seq: Seq) -> u64 {
        self.end_of(Seq(seq.0 - 1)) + 1
    }

    /// The number that the message behind `seq` follows: the gap right behind `seq` is passed with it.
    pub fn end_of(&self, seq: Seq) -> u64 {
        seq.0 + self.settled + self.open.iter().filter(|(behind, _)| *behind <= seq).map(|(_, by)| by).sum::<u64>()
    }

    /// Notes that `by` numbers are missing behind `seq`; false if there are too many gaps.
    pub fn add(&mut self, seq: Seq, by: u64) -> bool {
        match self.open.back_mut().filter(|(behind, _)| *behind == seq) {
            Some((_, more)) => *more += by,
            None => self.open.push_back((seq, by)),
        }
        self.open.len() <= SHIFTS_MAX
    }

    /// Notes that everything up to `seq` is confirmed.
    pub fn settle(&mut self, seq: Seq) {
        while let Some(&(behind, by)) = self.open.front().filter(|(behind, _)| *behind < seq) {
            debug_assert!(behind < seq);
            self.settled += by;
            self.open.pop_front();
        }
    }
}

/// Gaps that the client may not have heard of, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Missing(VecDeque<Gap>);

/// A gap that is told anew on each link, until the client acknowledges a message that it was sent behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub lane: LaneName,
    /// The first number missing, or the next one if it is not known how many are.
    pub from: u64,
    pub count: Option<u64>,
    pub why: GapWhy,
    /// The last message of the worker that may have been sent before it was told, if it was.
    pub told_behind: Option<Seq>,
}

impl Gap {
    pub const fn word(&self) -> Said<'static> {
        Said::Gap { lane: self.lane, from: self.from, count: self.count, why: self.why }
    }

    /// Both as one: how many are missing before its end is not known then.
    fn merge(self, later: Self) -> Self {
        Self { from: later.from + later.count.unwrap_or(0), count: None, told_behind: None, ..later }
    }
}

impl Missing {
    /// Notes a gap.
    pub fn add(&mut self, gap: Gap) {
        if self.0.len() == MISSING_MAX {
            // Of so many, there is another one of its lane.
            let first = self.0.iter().position(|other| other.lane == gap.lane).unwrap_or(0);
            let Some(oldest) = self.0.remove(first) else { return };
            match self.0.iter_mut().find(|other| other.lane == oldest.lane) {
                Some(later) => *later = oldest.merge(*later),
                None => return self.0.push_back(oldest.merge(gap)),
            }
        }
        self.0.push_back(gap);
    }

    /// The client has acknowledged the message `seq` of its link: it has read what was told before that.
    pub fn acknowledged(&mut self, seq: Seq) {
        self.0.retain(|gap| gap.told_behind.is_none_or(|behind| seq <= behind));
    }

    /// Tells all of them on another link, on which the messages behind `accepted` follow.
    pub fn tell_again(&mut self, accepted: Seq, mut tell: impl FnMut(&Said<'_>)) {
        for gap in &mut self.0 {
            tell(&gap.word());
            gap.told_behind = Some(accepted);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Gap>()
    }
}

const PART: &str = "gaps";

impl Shifts {
    pub fn memory_bytes(&self) -> usize {
        self.open.capacity() * size_of::<(Seq, u64)>()
    }

    pub fn freeze(&self, out: &mut Writer) {
        out.count(self.settled);
        out.size(self.open.len());
        for (behind, by) in &self.open {
            out.seq(*behind);
            out.count(*by);
        }
    }

    /// Reads those of a lane that has accepted so many messages.
    pub fn thaw(input: &mut Reader<'_>, accepted: Seq) -> Read<Self> {
        let mut shifts = Self { settled: input.count()?, open: VecDeque::new() };
        for _ in 0..input.entries(SHIFTS_MAX, 16)? {
            shifts.open.push_back((input.seq()?, input.count()?));
        }
        demand(shifts.open.iter().all(|(behind, _)| *behind <= accepted), PART)?;
        Ok(shifts)
    }
}

impl Missing {
    pub fn freeze(&self, out: &mut Writer) {
        out.size(self.0.len());
        self.0.iter().for_each(|gap| gap.freeze(out));
    }

    pub fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let mut missing = Self::default();
        for _ in 0..input.entries(MISSING_MAX, 12)? {
            missing.0.push_back(Gap::thaw(input)?);
        }
        Ok(missing)
    }
}

impl Gap {
    fn freeze(self, out: &mut Writer) {
        out.flag(self.lane == LaneName::Up);
        out.count(self.from);
        out.option(self.count, Writer::count);
        out.u8(GapWhy::ALL.iter().position(|&why| why == self.why).unwrap_or(0) as u8);
        out.option(self.told_behind, Writer::seq);
    }

    fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let lane = if input.flag()? { LaneName::Up } else { LaneName::Down };
        let (from, count) = (input.count()?, input.option(Reader::count)?);
        let why = GapWhy::ALL.get(usize::from(input.u8()?)).copied().ok_or(SnapshotError::Malformed(PART))?;
        demand(from > 0 && count.is_none_or(|count| count > 0), PART)?;
        Ok(Self { lane, from, count, why, told_behind: input.option(Reader::seq)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(number: u64) -> Gap {
        Gap { lane: LaneName::Up, from: number, count: Some(1), why: GapWhy::BackendLost, told_behind: None }
    }

    #[test]
    fn of_more_gaps_than_are_remembered_the_oldest_are_told_as_one_of_which_only_the_end_is_known() {
        let mut missing = Missing::default();
        (1..=2 + MISSING_MAX as u64).for_each(|number| missing.add(lost(2 * number)));
        let mut told = Vec::new();
        missing.tell_again(Seq(0), |word| told.push(word.text()));
        assert_eq!(told.len(), MISSING_MAX);
        assert!(told[0].contains("\"from\":7,\"count\":null"), "{}", told[0]);
        assert!(told[1].contains("\"from\":8,\"count\":1"), "{}", told[1]);
    }

    #[test]
    fn a_gap_is_forgotten_when_a_message_that_followed_it_is_acknowledged() {
        let mut missing = Missing::default();
        missing.add(lost(1));
        missing.acknowledged(Seq(9));
        missing.tell_again(Seq(3), |_| ());
        missing.acknowledged(Seq(3));
        assert_eq!(missing.0.len(), 1, "it may have been told behind that");
        missing.acknowledged(Seq(4));
        assert!(missing.0.is_empty());
    }
}
