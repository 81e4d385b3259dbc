//! What happened: past facts, numbered from 1, the newest [`EVENTS_MAX`] of them kept.
//!
//! Facts that a person would want to be told about; the opening and closing of every pipe is not among them (the log
//! has those). Those about backends, pools, workers, the process and its configuration are kept in a ring of their own
//! beside the one of all, so that the moves of ten thousand pipes wash no outage away. Any thread may push; readers wait
//! without polling. The invariant: a reader that always asks for what comes after the last number it saw either
//! gets every event that it wants in order or is told that it came too late.

mod fact;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

pub use fact::{Fact, KINDS, Level, subject};
use fact::{as_text, is_of_pipes};

/// Events that each ring keeps; older ones are forgotten.
pub const EVENTS_MAX: usize = 10_000;

/// Events that are looked at under one lock.
const STEP: usize = 256;

/// One fact with its number and its time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Event {
    /// Place in the order of events of this process; the first is 1.
    pub seq: u64,
    /// When it was pushed.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// The asked-for position is not in the ring: forgotten, or from another life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the oldest event kept is {oldest}, the newest is {newest}")]
pub struct TooOld {
    /// The oldest number that can still be read (one more than `newest` while there is none).
    pub oldest: u64,
    /// The newest number.
    pub newest: u64,
}

/// No event is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no type of event; there are {}, or what stands before their dots", KINDS.join(", "))]
pub struct UnknownKind {
    /// What it was called.
    pub name: String,
}

/// Which events a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Sorted; every kind if there is none.
    kinds: Vec<&'static str>,
    level: Level,
}

impl Wanted {
    /// The events of these types, or about these subjects, that matter at least so much; every type if none is named.
    ///
    /// # Errors
    /// There is no such type.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, level: Level) -> Result<Self, UnknownKind> {
        let mut kinds = Vec::new();
        for name in names {
            let found = KINDS.iter().copied().filter(|kind| *kind == name || subject(kind) == name);
            let before = kinds.len();
            kinds.extend(found);
            if kinds.len() == before {
                return Err(UnknownKind { name: name.to_owned() });
            }
        }
        kinds.sort_unstable();
        Ok(Self { kinds, level })
    }

    fn has(&self, event: &Event) -> bool {
        event.level >= self.level && (self.kinds.is_empty() || self.kinds.binary_search(&event.fact.kind()).is_ok())
    }

    /// Whether it wants nothing of what pipes do.
    fn is_of_the_rest(&self) -> bool {
        !self.kinds.is_empty() && !self.kinds.iter().any(|kind| is_of_pipes(kind))
    }
}

/// What a reader got.
#[derive(Debug)]
pub struct Read {
    /// The events that it wants, oldest first.
    pub events: Vec<Arc<Event>>,
    /// The number to read on after: no event up to it is wanted any more.
    pub last: u64,
}

/// The rings of events; share it by `Arc`.
#[derive(Debug)]
pub struct Events {
    rings: Mutex<Rings>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Rings {
    all: Ring,
    /// Those that are not about pipes, once more.
    rest: Ring,
}

/// The newest [`EVENTS_MAX`] of some events, by their numbers.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the last one that was forgotten; 0 before the first.
    forgotten: u64,
}

impl Ring {
    fn push(&mut self, event: Arc<Event>) {
        if self.events.len() == EVENTS_MAX
            && let Some(oldest) = self.events.pop_front()
        {
            self.forgotten = oldest.seq;
        }
        self.events.push_back(event);
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Empty rings.
    #[must_use]
    pub fn new() -> Self {
        Self { rings: Mutex::default(), newest: watch::Sender::new(0) }
    }

    /// Adds a fact, wakes the tasks that wait for it, and returns its number.
    pub fn push(&self, fact: Fact) -> u64 {
        let mut rings = self.rings();
        let seq = *self.newest.borrow() + 1;
        let event = Arc::new(Event { seq, at: Timestamp::now(), level: fact.level(), fact });
        if !is_of_pipes(event.fact.kind()) {
            rings.rest.push(event.clone());
        }
        rings.all.push(event);
        // Under the lock, so that numbers are announced in order and never before their event can be read.
        self.newest.send_replace(seq);
        seq
    }

    /// The number of the newest event; 0 before the first.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The events after number `after` that are wanted, at most `limit` of them; 0 asks for the whole ring as it is.
    ///
    /// # Errors
    /// [`TooOld`] when an event after `after` was forgotten already, or when `after` was never reached.
    pub fn read(&self, after: u64, limit: usize, wanted: &Wanted) -> Result<Read, TooOld> {
        let mut read = Read { events: Vec::new(), last: after };
        loop {
            let (step, newest) = self.step(read.last, wanted)?;
            let is_end = step.len() < STEP;
            for event in step {
                if read.events.len() == limit {
                    return Ok(read);
                }
                read.last = event.seq;
                if wanted.has(&event) {
                    read.events.push(event);
                }
            }
            if is_end {
                read.last = newest;
                return Ok(read);
            }
        }
    }

    /// Some events after number `after`, of the ring that has what is wanted, and the newest number.
    fn step(&self, after: u64, wanted: &Wanted) -> Result<(Vec<Arc<Event>>, u64), TooOld> {
        let rings = self.rings();
        let ring = if wanted.is_of_the_rest() { &rings.rest } else { &rings.all };
        let newest = self.newest();
        if after > newest || (after != 0 && after < ring.forgotten) {
            return Err(TooOld { oldest: ring.forgotten + 1, newest });
        }
        let skip = ring.events.partition_point(|event| event.seq <= after);
        Ok((ring.events.range(skip..).take(STEP).cloned().collect(), newest))
    }

    /// The number after which the events since `begin` come; 0 if those kept are all younger.
    #[must_use]
    pub fn since(&self, begin: Timestamp, wanted: &Wanted) -> u64 {
        let rings = self.rings();
        let ring = if wanted.is_of_the_rest() { &rings.rest } else { &rings.all };
        let older = ring.events.partition_point(|event| event.at < begin);
        older.checked_sub(1).and_then(|last| ring.events.get(last)).map_or(0, |event| event.seq)
    }

    /// Waits until there is an event after number `after`; returns at once if there is one.
    pub async fn wait_after(&self, after: u64) {
        let mut newest = self.newest.subscribe();
        // The sender lives as long as `self`, so the only way out is the condition.
        let _ = newest.wait_for(|&newest| newest > after).await;
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holdline_core::ids::PipeId;

    use super::*;

    fn fact(n: u64) -> Fact {
        Fact::PipeExpired { pipe: PipeId::from_bytes([0; 16]), route: "r".into(), pool: "p".into(), waited_ms: n }
    }

    fn read_after(events: &Events, after: u64, limit: usize) -> Result<Vec<Arc<Event>>, TooOld> {
        events.read(after, limit, &Wanted::default()).map(|read| read.events)
    }

    #[test]
    fn events_are_numbered_from_one_and_read_after_a_number() {
        let events = Events::new();
        assert_eq!(read_after(&events, 0, 10).unwrap().len(), 0);
        for n in 1..=3 {
            assert_eq!(events.push(fact(n)), n);
        }
        let seqs = |after, limit| -> Vec<u64> {
            read_after(&events, after, limit).unwrap().iter().map(|event| event.seq).collect()
        };
        assert_eq!(seqs(0, 10), [1, 2, 3]);
        assert_eq!(seqs(1, 1), [2]);
        assert!(seqs(3, 10).is_empty());
    }

    #[test]
    fn what_the_ring_forgot_and_what_never_was_is_too_old() {
        let events = Events::new();
        for n in 1..=EVENTS_MAX as u64 + 2 {
            events.push(fact(n));
        }
        let too_old = TooOld { oldest: 3, newest: EVENTS_MAX as u64 + 2 };
        assert_eq!(read_after(&events, 1, 1).unwrap_err(), too_old);
        assert_eq!(read_after(&events, too_old.newest + 1, 1).unwrap_err(), too_old);
        assert_eq!(read_after(&events, 2, 1).unwrap()[0].seq, 3);
        assert_eq!(read_after(&events, 0, usize::MAX).unwrap().len(), EVENTS_MAX);
    }

    #[test]
    fn what_pipes_do_washes_no_outage_away() {
        let events = Events::new();
        let down =
            |n: u64| Fact::BackendDown { pool: "p".into(), backend: n.to_string().into(), reason: String::new() };
        let first = events.push(down(1));
        for n in 0..EVENTS_MAX as u64 {
            events.push(fact(n));
        }
        assert_eq!(read_after(&events, first, 1).unwrap().len(), 1, "a reader of all has just not come too late");
        events.push(fact(0));
        assert_eq!(read_after(&events, first, 1).unwrap_err().oldest, first + 2);
        let outages = Wanted::new(["backend", "pool.self_preservation"], Level::Warn).unwrap();
        let second = events.push(down(2));
        let read = events.read(0, 10, &outages).unwrap();
        let seqs = |read: &Read| read.events.iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!((seqs(&read), read.last), (vec![first, second], second));
        assert_eq!(seqs(&events.read(first, 10, &outages).unwrap()), [second]);
        for n in 0..=EVENTS_MAX as u64 {
            events.push(down(n));
        }
        assert!(events.read(first, 10, &outages).is_err(), "one that it wants was forgotten");
    }

    #[test]
    fn a_reader_of_some_gets_each_of_them_and_goes_on_behind_the_others() {
        let events = Events::new();
        for n in 0..1000 {
            events.push(if n % 100 == 7 { Fact::ProcessDrainStarted } else { fact(n) });
        }
        for names in [vec!["process"], vec!["process.drain_started", "pipe.held"]] {
            let wanted = Wanted::new(names, Level::Info).unwrap();
            let (mut after, mut got) = (0, Vec::new());
            loop {
                let read = events.read(after, 3, &wanted).unwrap();
                got.extend(read.events.iter().map(|event| event.seq));
                after = read.last;
                if read.events.is_empty() {
                    break;
                }
            }
            assert_eq!((got, after), ((0..10).map(|n| n * 100 + 8).collect(), 1000));
        }
        let serious = Wanted::new([], Level::Error).unwrap();
        assert_eq!(events.read(0, 5000, &serious).unwrap().events.len(), 990, "pipes that expired");
        let unknown = Wanted::new(["pipe.fell"], Level::Info).unwrap_err().to_string();
        assert!(unknown.contains("pipe.fell") && unknown.contains("pipe.ended"), "{unknown}");
    }

    #[test]
    fn what_is_since_a_moment_begins_behind_what_was_before_it() {
        let events = Events::new();
        let before = Timestamp::now();
        assert_eq!(events.since(before, &Wanted::default()), 0);
        events.push(fact(1));
        assert_eq!(events.since(before, &Wanted::default()), 0);
        let later = events.rings().all.events[0].at + jiff::SignedDuration::from_secs(1);
        assert_eq!(events.since(later, &Wanted::default()), 1);
    }

    #[test]
    fn an_event_is_one_flat_json_object() {
        let events = Events::new();
        events.push(Fact::PipeInterrupted {
            pipe: PipeId::from_bytes([0; 16]),
            route: "all".into(),
            pool: "default".into(),
            backend: "a".into(),
            attachment: 1,
            reason: "reset",
        });
        let json = serde_json::to_value(&*read_after(&events, 0, 1).unwrap()[0]).unwrap();
        assert_eq!(json["seq"], 1);
        assert_eq!((&json["type"], &json["level"]), (&"pipe.interrupted".into(), &"warn".into()));
        assert_eq!(json["pipe"], "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(json["reason"], "reset");
        assert!(json["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[tokio::test]
    async fn a_reader_misses_nothing_while_other_threads_push() {
        const PUSHERS: u64 = 4;
        const EACH: u64 = 1000;
        let events = Arc::new(Events::new());
        let threads: Vec<_> = (0..PUSHERS)
            .map(|_| {
                let events = Arc::clone(&events);
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        events.push(fact(n));
                    }
                })
            })
            .collect();
        let mut after = 0;
        while after < PUSHERS * EACH {
            events.wait_after(after).await;
            for event in read_after(&events, after, 7).unwrap() {
                assert_eq!(event.seq, after + 1);
                after = event.seq;
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
