//! How short memory is, and which pipes have to go: decided from a few numbers now and then.
//!
//! ```text
//!          80 %              100 % (less a margin)
//!   Low ─────────▶ High ────────────▶ Full
//!    ◀── below 75 % ──┘ ◀── below 95 % ──┘
//! ```
//!
//! What counts is resident memory, less what the allocator keeps of memory that pipes have given back: an allocator may
//! hold on to it for good, and it will be used again before any more is taken. It is known by comparison with the peak:
//! what pipes are charged has fallen since, and resident memory has not. When resident memory grows beyond its peak all
//! the same, what is left over is not what is needed, or is none: each byte of growth takes eight off it, and one beyond the
//! limit more; what was taken off comes back little by little while nothing grows. What was
//! resident before any pipe was charged is never taken for left over, and no more is taken for charged than is resident
//! beside it, whatever the books say.
//!
//! Who goes when it is out is a question of shares. The fair share is the level that all would have to be cut to so that
//! enough is free: only those above it go, by doublings from the top, and a policy decides between those that hold
//! about as much.

use std::cmp::Reverse;

use crate::time::Time;

/// Percent of the limit from which on memory is short, and below which it is no longer.
const HIGH_PERCENT: (u64, u64) = (80, 75);

/// Percent of the limit below which it is no longer exhausted.
const FULL_UNTIL_PERCENT: u64 = 95;

/// Percent of the limit that evictions are to come down to.
const EVICT_TO_PERCENT: u64 = 90;

/// The limit counts as reached when only so small a part of it is left, as one in so many: reading stops short of it.
const MARGIN: u64 = 64;

/// Bytes left over that a byte of growth puts in doubt. With more, a little growth at a time when all pipes are gone would
/// leave memory short for good, though nearly all is free; with less, the limit is passed by more than a ninth of what
/// was thought to be left over before that is noticed.
const DOUBT: u64 = 8;

/// The same for a byte of growth beyond the limit: flood upon flood would else creep up on it, a ninth at a time.
const DOUBT_BEYOND: u64 = 32;

/// What is believed again at each look without growth, as one in so many of the limit. Without it, memory could be short
/// for good though pipes hold nothing.
const TRUST: u64 = 1024;

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    /// There is enough.
    #[default]
    Low,
    /// No new pipes, and nothing is kept for convenience.
    High,
    /// Pipes are evicted.
    Full,
}

impl Pressure {
    /// The name in statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
            Self::Full => "full",
        }
    }
}

/// Which pipe is evicted first of those that hold about as much above the fair share; between them, detached ones go
/// before all others, and a stream that many watch goes last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evict {
    /// The one that was idle longest.
    Lru,
    /// The one that was opened first.
    Oldest,
    /// The one that holds the most.
    Largest,
}

impl Evict {
    /// Every policy, for metrics that list them.
    pub const ALL: [Self; 3] = [Self::Lru, Self::Oldest, Self::Largest];

    /// The name in the configuration and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Oldest => "oldest",
            Self::Largest => "largest",
        }
    }
}

/// What was measured, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Resident memory of the process.
    pub resident: u64,
    /// What all pipes are charged.
    pub charged: u64,
    /// What the process may use.
    pub limit: u64,
}

/// What follows from a sample, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How short memory is.
    pub pressure: Pressure,
    /// Resident memory, less what will be used again first.
    pub used: u64,
    /// What pipes may be charged together before the limit is reached.
    pub charged_max: u64,
    /// What evictions have to free now.
    pub surplus: u64,
}

/// The memory of a process over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    pressure: Pressure,
    peak: Option<Sample>,
    /// What was resident at the first look beside what pipes were charged.
    floor: Option<u64>,
    /// Bytes left over that growth has put in doubt, and that were not believed again since.
    doubted: u64,
}

impl Watch {
    /// Judges a sample.
    pub fn look(&mut self, sample: Sample) -> Verdict {
        let limit = sample.limit.max(1);
        let used = sample.resident.saturating_sub(self.reusable(sample));
        let margin = limit / MARGIN;
        let percent = |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
        let is_full = used.saturating_add(margin) >= limit;
        self.pressure = match self.pressure {
            Pressure::Low | Pressure::High | Pressure::Full if is_full => Pressure::Full,
            Pressure::Full if percent(FULL_UNTIL_PERCENT) => Pressure::Full,
            Pressure::Low if percent(HIGH_PERCENT.0) => Pressure::High,
            Pressure::Full | Pressure::High if percent(HIGH_PERCENT.1) => Pressure::High,
            Pressure::Full | Pressure::High | Pressure::Low => Pressure::Low,
        };
        let target = limit / 100 * EVICT_TO_PERCENT;
        Verdict {
            pressure: self.pressure,
            used,
            charged_max: sample.charged + limit.saturating_sub(used),
            surplus: if is_full { used.saturating_sub(target) } else { 0 },
        }
    }

    /// Bytes that the allocator has kept of what pipes gave back.
    fn reusable(&mut self, sample: Sample) -> u64 {
        let floor = *self.floor.get_or_insert(sample.resident.saturating_sub(sample.charged));
        let sample = Sample { charged: sample.charged.min(sample.resident.saturating_sub(floor)), ..sample };
        let peak = self.peak.get_or_insert(sample);
        // A little growth says nothing, as long as there is room for it: a page here and there is touched again.
        let noise = if sample.resident > sample.limit { 0 } else { sample.limit / MARGIN };
        let grew = sample.resident > peak.resident.saturating_add(noise);
        if sample.charged < peak.charged && grew {
            let growth = sample.resident - peak.resident;
            let beyond = growth.min(sample.resident.saturating_sub(sample.limit));
            let doubt = (growth - beyond).saturating_mul(DOUBT).saturating_add(beyond.saturating_mul(DOUBT_BEYOND));
            let charged = peak.charged.saturating_sub(doubt).max(sample.charged);
            self.doubted += peak.charged - charged;
            *peak = Sample { charged, ..sample };
        } else {
            if sample.charged >= peak.charged {
                self.doubted = self.doubted.saturating_sub(sample.charged - peak.charged);
                *peak = sample;
            }
            let believed = if grew { 0 } else { self.doubted.min(sample.limit / TRUST) };
            self.doubted -= believed;
            peak.charged += believed;
        }
        let given_back = peak.charged - sample.charged;
        given_back.saturating_sub(peak.resident.saturating_sub(sample.resident))
    }
}

/// A pipe that could be evicted.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<T> {
    /// Whose it is.
    pub pipe: T,
    /// Whether it waits for a worker or for its client.
    pub detached: bool,
    /// Clients that lose their conversation with it: a shared stream's are all its viewers.
    pub clients: usize,
    /// When it was opened.
    pub opened: Time,
    /// When something last went through it.
    pub active: Time,
    /// What it would free, in bytes.
    pub bytes: u64,
}

/// What a pipe must hold at least to be worth its eviction: without it, a crowd of innocents would go for nothing.
pub const EVICT_BYTES_MIN: u64 = 64 * 1024;

impl<T> Candidate<T> {
    /// Clients that what it holds is shared by: a stream without viewers is held for one that may come.
    const fn holders(&self) -> u64 {
        if self.clients == 0 { 1 } else { self.clients as u64 }
    }

    /// What it holds for each of its clients.
    const fn share(&self) -> u64 {
        self.bytes / self.holders()
    }
}

/// The pipes that have to go so that `surplus` bytes are free: those above the fair share, who hold most first, and those
/// that hold about as much in the order of `policy`.
#[must_use]
pub fn victims<T: Copy>(mut candidates: Vec<Candidate<T>>, policy: Evict, surplus: u64) -> Vec<Candidate<T>> {
    candidates.retain(|candidate| candidate.bytes >= EVICT_BYTES_MIN);
    let fair = fair_share(&mut candidates, surplus);
    candidates.retain(|candidate| candidate.share() > fair);
    candidates.sort_by_key(|candidate| {
        let rank = match policy {
            Evict::Lru => candidate.active.as_micros(),
            Evict::Oldest => candidate.opened.as_micros(),
            Evict::Largest => u64::MAX - candidate.bytes,
        };
        // Where all have to go, there is no share to measure them by.
        let doublings = candidate.share().checked_div(fair).map_or(0, |times| times.max(1).ilog2());
        (Reverse(doublings), harm(candidate), rank)
    });
    let mut freed = 0;
    candidates.retain(|candidate| {
        let needed = freed < surplus;
        freed += if needed { candidate.bytes } else { 0 };
        needed
    });
    candidates
}

/// What each client may keep so that `surplus` bytes are free, if those that hold more are cut to it. Sorts `candidates`,
/// those with the largest share first.
fn fair_share<T>(candidates: &mut [Candidate<T>], surplus: u64) -> u64 {
    candidates.sort_by_key(|candidate| Reverse(candidate.share()));
    let (mut bytes, mut holders) = (0u64, 0);
    for (index, candidate) in candidates.iter().enumerate() {
        bytes = bytes.saturating_add(candidate.bytes);
        holders += candidate.holders();
        let level = bytes.saturating_sub(surplus) / holders;
        if level > 0 && candidates.get(index + 1).is_none_or(|next| next.share() <= level) {
            return level;
        }
    }
    0
}

/// How bad it is to lose a pipe: one that is detached or has no viewers is missed by no peer at once, and one with many viewers
/// would cost each of them what it holds for them together.
const fn harm<T>(candidate: &Candidate<T>) -> u8 {
    match (candidate.detached, candidate.clients) {
        (true, _) | (false, 0) => 0,
        (false, 1) => 1,
        (false, _) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 1000 * MIB;

    fn look(watch: &mut Watch, resident: u64, charged: u64) -> Verdict {
        watch.look(Sample { resident: resident * MIB, charged: charged * MIB, limit: LIMIT })
    }

    #[test]
    fn px_09_the_marks_are_at_80_and_100_percent_and_do_not_flap() {
        use Pressure::{Full, High, Low};
        let mut watch = Watch::default();
        for (resident, expected) in [
            (799, Low),
            (800, High),
            (760, High),
            (799, High),
            (749, Low),
            (799, Low),
            (984, High),
            (985, Full),
            (960, Full),
            (949, High),
            (1100, Full),
            (500, Low),
        ] {
            let verdict = look(&mut watch, resident, resident);
            assert_eq!((verdict.pressure, verdict.used), (expected, resident * MIB), "at {resident}");
        }
    }

    #[test]
    fn at_the_limit_there_is_no_room_and_a_tenth_is_to_be_freed() {
        let mut watch = Watch::default();
        let verdict = look(&mut watch, 700, 300);
        assert_eq!((verdict.charged_max, verdict.surplus), (600 * MIB, 0));
        let verdict = look(&mut watch, 1000, 600);
        assert_eq!((verdict.charged_max, verdict.surplus), (600 * MIB, 100 * MIB));
        let verdict = look(&mut watch, 1200, 800);
        assert_eq!((verdict.charged_max, verdict.surplus), (800 * MIB, 300 * MIB));
    }

    #[test]
    fn memory_that_the_allocator_keeps_is_not_evicted_for_twice() {
        let mut watch = Watch::default();
        look(&mut watch, 400, 0);
        assert_eq!(look(&mut watch, 1000, 600).pressure, Pressure::Full);
        // 200 were freed, and resident memory stays where it is, or goes down by a part.
        let verdict = look(&mut watch, 1000, 400);
        assert_eq!((verdict.pressure, verdict.used, verdict.charged_max), (Pressure::High, 800 * MIB, 600 * MIB));
        let verdict = look(&mut watch, 950, 400);
        assert_eq!(verdict.used, 800 * MIB);
        let verdict = look(&mut watch, 500, 100);
        assert_eq!(verdict.used, 500 * MIB, "nothing is kept any more");
        assert_eq!(look(&mut watch, 1000, 600).used, 1000 * MIB);
    }

    #[test]
    fn what_something_else_took_of_it_is_used() {
        let mut watch = Watch::default();
        look(&mut watch, 900, 500);
        assert_eq!(look(&mut watch, 900, 100).used, 500 * MIB);
        // More than ever is resident, so less was left to use again than it seemed; and then nothing.
        assert_eq!(look(&mut watch, 930, 100).used, (930 - 400 + 8 * 30) * MIB);
        assert_eq!(look(&mut watch, 950, 100).used, 950 * MIB);
    }

    #[test]
    fn a_little_growth_after_a_flood_does_not_leave_memory_short_for_good() {
        let mut watch = Watch::default();
        look(&mut watch, 300, 0);
        assert_eq!(look(&mut watch, 990, 690).pressure, Pressure::Full);
        // All pipes are gone, the allocator keeps what they held, and something else took a page here and there.
        let verdict = look(&mut watch, 1010, 0);
        assert_eq!((verdict.pressure, verdict.used), (Pressure::Low, (1010 - 690 + 8 * 10 + 32 * 10) * MIB));
    }

    #[test]
    fn growth_beyond_the_limit_leaves_memory_short_for_a_while_but_not_for_good() {
        let mut watch = Watch::default();
        look(&mut watch, 300, 0);
        look(&mut watch, 990, 690);
        assert_eq!(look(&mut watch, 1040, 0).pressure, Pressure::Full, "nothing of it is used again");
        let looks = (1..10_000).find(|_| look(&mut watch, 1040, 0).pressure == Pressure::Low);
        assert!(looks.is_some_and(|looks| (100..1000).contains(&looks)), "{looks:?} looks");
        for _ in 0..10_000 {
            look(&mut watch, 1040, 0);
        }
        assert_eq!(look(&mut watch, 1040, 0).used, (1040 - 690) * MIB, "and no more is believed than before");
    }

    #[test]
    fn a_book_above_the_resident_size_is_not_believed() {
        let mut watch = Watch::default();
        look(&mut watch, 40, 0);
        // Frames that many share were once charged to each of them.
        assert_eq!(look(&mut watch, 65, 1154).used, 65 * MIB);
        assert_eq!(look(&mut watch, 60, 0).used, 40 * MIB, "what was there before pipes came is not left over");
        assert_eq!(look(&mut watch, 300, 230).used, 300 * MIB);
    }

    fn candidate(pipe: u32, detached: bool, opened: u64, active: u64, bytes: u64) -> Candidate<u32> {
        let at = Time::from_micros;
        Candidate { pipe, detached, clients: 1, opened: at(opened), active: at(active), bytes }
    }

    #[test]
    fn ib_24_a_stream_without_viewers_goes_at_once_and_one_with_many_after_all_pipes_of_one_client() {
        let stream = |pipe, clients| Candidate { clients, ..candidate(pipe, false, 0, 0, 9 * MIB) };
        let pipes = vec![
            stream(1, 200),
            stream(2, 1),
            stream(3, 0),
            candidate(4, true, 50, 96, MIB),
            candidate(5, false, 30, 50, MIB),
            Candidate { detached: true, ..stream(6, 2) },
        ];
        for policy in Evict::ALL {
            let order: Vec<u32> = victims(pipes.clone(), policy, u64::MAX).iter().map(|victim| victim.pipe).collect();
            let first: std::collections::BTreeSet<u32> = order[..3].iter().copied().collect();
            assert_eq!(first, [3, 4, 6].into(), "{policy:?}: detached or unwatched");
            assert_eq!(order[3..], [2, 5, 1], "{policy:?}: then by policy, and the watched one last");
        }
    }

    #[test]
    fn who_holds_most_beyond_its_fair_share_goes_first_and_the_innocent_stay_though_they_are_detached() {
        for (attackers, attacker_bytes, innocent_bytes) in [(4, 250, 1), (300, 5, 1), (50, 20, 5), (40, 2, 1)] {
            let attacker = |pipe: u32| candidate(pipe, false, 99, 99, attacker_bytes * MIB);
            let innocent = |pipe: u32| candidate(1000 + pipe, true, 0, 0, innocent_bytes * MIB);
            let pipes: Vec<_> = (0..attackers).map(attacker).chain((0..30).map(innocent)).collect();
            let all: u64 = pipes.iter().map(|pipe| pipe.bytes).sum();
            for policy in Evict::ALL {
                let victims = victims(pipes.clone(), policy, all / 10);
                assert!(victims.iter().map(|victim| victim.bytes).sum::<u64>() >= all / 10);
                assert!(victims.iter().all(|victim| victim.pipe < 1000), "{policy:?} of {attackers}");
            }
        }
    }

    #[test]
    fn a_stream_is_measured_by_what_it_holds_for_each_of_its_viewers() {
        let watched = Candidate { clients: 100, ..candidate(1, false, 0, 0, 50 * MIB) };
        let pipes = vec![watched, candidate(2, false, 9, 9, 2 * MIB), candidate(3, false, 9, 9, 3 * MIB)];
        let victims = victims(pipes, Evict::Largest, 2 * MIB);
        assert_eq!(victims.iter().map(|victim| victim.pipe).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn st_07_of_those_that_hold_as_much_detached_pipes_go_first_then_by_policy_and_no_more_than_have_to() {
        let pipes = vec![
            candidate(1, false, 10, 99, 3 * MIB),
            candidate(2, true, 40, 98, MIB),
            candidate(3, false, 20, 97, 2 * MIB),
            candidate(4, true, 50, 96, 4 * MIB),
            candidate(5, false, 30, 50, 100),
        ];
        let names = |policy, surplus| -> Vec<u32> {
            victims(pipes.clone(), policy, surplus).iter().map(|victim| victim.pipe).collect()
        };
        assert_eq!(names(Evict::Lru, u64::MAX), [4, 2, 3, 1], "the one that holds nothing stays");
        assert_eq!(names(Evict::Oldest, u64::MAX), [2, 4, 1, 3]);
        assert_eq!(names(Evict::Largest, u64::MAX), [4, 2, 1, 3]);
        assert_eq!(names(Evict::Lru, 4 * MIB), [4]);
        assert_eq!(names(Evict::Lru, 4 * MIB + 1), [4, 3], "the third largest is above the share, the detached is not");
        assert_eq!(names(Evict::Lru, 0), [0; 0]);
    }
}
