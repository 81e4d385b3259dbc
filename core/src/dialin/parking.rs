//! The connections that one worker has parked with the proxy.
//!
//! A take is given the connection that was heard of last; where none is left it waits, as long as the worker is believed to
//! be there. Owns no socket: a line is a number here, and so is a take.
//!
//! ```text
//!     ┌───────────────────────── expect ─────────────────────────┐
//!     │                                                          ▼
//!   Absent ───── park ─────▶ Parked ── the last one is taken ──▶ Dry
//!     ▲  ▲                    │  ▲                                │ │
//!     │  └─ the last closes ──┘  └───────────── park ─────────────┘ │
//!     └──────────── a wait ran out, and none was parked in it ──────┘
//! ```
//!
//! Invariants: a line is given once; a take is answered once; takes are served in the order in which they came; no take
//! waits while a line is parked.
//!
//! Which process of a worker counts is decided here as well ([`Instances`]): the one that came last, for good.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;

/// Connections that a worker is asked to keep when nothing has run short.
pub const WANT_MIN: u32 = 8;

/// How long nothing must have run short before fewer are asked for.
pub const WANT_CALM: Duration = Duration::from_secs(60);

/// Earlier processes of a worker that are remembered, so that none of them comes back as a newer one.
pub const SUPERSEDED_MAX: usize = 16;

/// A parked connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Line(pub u64);

/// Who wants one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Take(pub u64);

/// What a take is after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// A connection, to speak on.
    Line,
    /// To know whether there is one.
    Look,
}

/// Why a take is given nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoLine {
    /// The worker is not there.
    Absent,
    /// It is there, and has parked none in time.
    Late,
    /// So many wait already that this one need not.
    Crowded,
}

/// The bounds of one worker's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Parked ones at most.
    pub parked_max: u32,
    /// Takes that wait at once.
    pub waiting_max: u32,
    /// How long a take waits.
    pub wait: Duration,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The line goes to this take.
    Give(Take, Line),
    /// There is one, which is all that this take is after.
    Found(Take),
    /// The take gets nothing.
    Refuse(Take, NoLine),
    /// The worker is there.
    Came,
    /// It is not, as far as parked connections tell.
    Went,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Absent,
    Parked,
    Dry,
}

#[derive(Clone, Copy, Debug)]
struct Parked {
    line: Line,
    heard: Time,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    take: Take,
    wants: Wants,
    since: Time,
}

/// The parked connections of one worker.
#[derive(Debug)]
pub struct Parking {
    bounds: Bounds,
    presence: Presence,
    /// Whether [`Action::Came`] was the last word about it.
    has_come: bool,
    lines: Vec<Parked>,
    waiting: VecDeque<Waiting>,
    /// When one was parked last.
    last_parked: Time,
    want: u32,
    /// When it last ran short, or fewer were asked for.
    want_since: Time,
    actions: VecDeque<Action>,
}

impl Parking {
    /// None parked, and none believed to come.
    #[must_use]
    pub fn new(bounds: Bounds, now: Time) -> Self {
        Self {
            bounds,
            presence: Presence::Absent,
            has_come: false,
            lines: Vec::new(),
            waiting: VecDeque::new(),
            last_parked: now,
            want: WANT_MIN.min(bounds.parked_max),
            want_since: now,
            actions: VecDeque::new(),
        }
    }

    /// Takes other bounds; what is parked and waits beyond them stays.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.want = self.want.clamp(1, bounds.parked_max.max(1));
    }

    /// Parked connections.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.lines.len()
    }

    /// Whether another one may be parked.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.lines.len() < self.bounds.parked_max as usize
    }

    /// Whether there is nothing to remember: none parked, none waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.waiting.is_empty() && self.actions.is_empty()
    }

    /// How many the worker is asked to keep.
    #[must_use]
    pub const fn want(&self) -> u32 {
        self.want
    }

    /// A connection is about to be parked.
    pub fn expect(&mut self) {
        if self.presence == Presence::Absent {
            self.presence = Presence::Dry;
        }
    }

    /// A connection was parked; false if there is no room for it.
    pub fn park(&mut self, line: Line, now: Time) -> bool {
        if !self.has_room() {
            return false;
        }
        if !self.has_come {
            self.has_come = true;
            self.actions.push_back(Action::Came);
        }
        self.presence = Presence::Parked;
        self.last_parked = now;
        self.lines.push(Parked { line, heard: now });
        self.serve(now);
        true
    }

    /// The worker was heard of on this connection.
    pub fn heard(&mut self, line: Line, now: Time) {
        if let Some(parked) = self.lines.iter_mut().find(|parked| parked.line == line) {
            parked.heard = now;
        }
    }

    /// A parked connection has ended.
    pub fn closed(&mut self, line: Line) {
        let before = self.lines.len();
        self.lines.retain(|parked| parked.line != line);
        if self.lines.is_empty() && before > 0 {
            self.went();
        }
    }

    /// The worker is another process now: what the one before it has parked is given up, and who waits waits for the
    /// connections of the newer one.
    pub fn supersede(&mut self) {
        self.lines.clear();
        self.has_come = false;
        if self.presence == Presence::Parked {
            self.presence = Presence::Dry;
        }
    }

    /// Every parked connection is given up, because the worker is not wanted.
    pub fn clear(&mut self) {
        self.lines.clear();
        if self.presence != Presence::Absent {
            self.went();
        }
    }

    /// A connection is wanted.
    pub fn take(&mut self, take: Take, wants: Wants, now: Time) {
        match self.presence {
            Presence::Absent => self.actions.push_back(Action::Refuse(take, NoLine::Absent)),
            Presence::Dry if self.waiting.len() >= self.bounds.waiting_max as usize => {
                self.actions.push_back(Action::Refuse(take, NoLine::Crowded));
            }
            Presence::Dry | Presence::Parked => {
                self.waiting.push_back(Waiting { take, wants, since: now });
                self.serve(now);
            }
        }
    }

    /// The line that a take was given had ended by then: the next one is for it, before all that wait.
    pub fn take_again(&mut self, take: Take, since: Time, now: Time) {
        if self.presence == Presence::Absent {
            return self.actions.push_back(Action::Refuse(take, NoLine::Absent));
        }
        self.waiting.push_front(Waiting { take, wants: Wants::Line, since });
        self.serve(now);
    }

    /// A take is wanted no more.
    pub fn give_up(&mut self, take: Take) {
        self.waiting.retain(|waiting| waiting.take != take);
    }

    /// Does what is due.
    pub fn expire(&mut self, now: Time) {
        let mut late = None;
        while let Some(first) = self.waiting.front()
            && now >= first.since + self.bounds.wait
        {
            late.get_or_insert(first.since);
            self.actions.push_back(Action::Refuse(first.take, NoLine::Late));
            self.waiting.pop_front();
        }
        // One that is slow, and parks all the same, is there.
        if late.is_some_and(|since| self.last_parked < since) && self.presence == Presence::Dry {
            self.went();
        }
    }

    /// When to call [`Parking::expire`].
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.front().map(|waiting| waiting.since + self.bounds.wait)
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn serve(&mut self, now: Time) {
        while let Some(&Waiting { take, wants, .. }) = self.waiting.front() {
            match wants {
                Wants::Look if self.lines.is_empty() => break,
                Wants::Look => self.actions.push_back(Action::Found(take)),
                Wants::Line => {
                    let Some(line) = self.freshest() else { break };
                    self.actions.push_back(Action::Give(take, line));
                }
            }
            self.waiting.pop_front();
        }
        if self.lines.is_empty() {
            self.presence = Presence::Dry;
            if !self.waiting.is_empty() {
                self.ran_short(now);
            }
        } else {
            self.keep_calm(now);
        }
    }

    /// The line that was heard of last is the least likely to have been forgotten on its way.
    fn freshest(&mut self) -> Option<Line> {
        let (at, _) = self.lines.iter().enumerate().max_by_key(|(_, parked)| parked.heard)?;
        Some(self.lines.swap_remove(at).line)
    }

    fn ran_short(&mut self, now: Time) {
        self.want = self.want.saturating_mul(2).clamp(1, self.bounds.parked_max.max(1));
        self.want_since = now;
    }

    fn keep_calm(&mut self, now: Time) {
        if self.want > WANT_MIN && now.since(self.want_since) >= WANT_CALM {
            self.want = (self.want / 2).max(WANT_MIN);
            self.want_since = now;
        }
    }

    fn went(&mut self) {
        self.presence = Presence::Absent;
        if std::mem::take(&mut self.has_come) {
            self.actions.push_back(Action::Went);
        }
        let refused = self.waiting.drain(..).map(|waiting| Action::Refuse(waiting.take, NoLine::Absent));
        self.actions.extend(refused);
    }
}

/// Which process of a worker counts.
#[derive(Debug, Default)]
pub struct Instances {
    current: Option<Arc<str>>,
    superseded: VecDeque<Arc<str>>,
}

/// What a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The one that counts.
    Current,
    /// Newer than the one that counted until now.
    Newer,
    /// Older than the one that counts.
    Superseded,
}

impl Instances {
    /// What `instance` is; a newer one counts from now on.
    pub fn come(&mut self, instance: &Arc<str>) -> Standing {
        let standing = self.look(instance);
        if standing == Standing::Newer {
            if let Some(before) = self.current.replace(instance.clone()) {
                self.superseded.push_back(before);
            }
            if self.superseded.len() > SUPERSEDED_MAX {
                self.superseded.pop_front();
            }
        }
        standing
    }

    /// What `instance` is, or would be.
    #[must_use]
    pub fn look(&self, instance: &str) -> Standing {
        if self.current.as_deref() == Some(instance) {
            Standing::Current
        } else if self.superseded.iter().any(|earlier| **earlier == *instance) {
            Standing::Superseded
        } else {
            Standing::Newer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { parked_max: 4, waiting_max: 3, wait: Duration::from_secs(2) };

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn parking() -> Parking {
        Parking::new(BOUNDS, at(0))
    }

    fn actions(parking: &mut Parking) -> Vec<Action> {
        std::iter::from_fn(|| parking.poll()).collect()
    }

    #[test]
    fn a_take_is_given_the_line_that_was_heard_of_last() {
        let mut parking = parking();
        for line in 1..=3 {
            assert!(parking.park(Line(line), at(line)));
        }
        parking.heard(Line(1), at(10));
        assert_eq!(actions(&mut parking), [Action::Came]);
        parking.take(Take(1), Wants::Line, at(11));
        parking.take(Take(2), Wants::Look, at(11));
        parking.take(Take(3), Wants::Line, at(11));
        let expected = [Action::Give(Take(1), Line(1)), Action::Found(Take(2)), Action::Give(Take(3), Line(3))];
        assert_eq!(actions(&mut parking), expected);
        assert_eq!(parking.parked(), 1);
    }

    #[test]
    fn takes_wait_in_their_order_while_the_worker_is_there() {
        let mut parking = parking();
        parking.park(Line(1), at(0));
        for take in 1..=3 {
            parking.take(Take(take), Wants::Line, at(1));
        }
        assert_eq!(actions(&mut parking), [Action::Came, Action::Give(Take(1), Line(1))]);
        assert_eq!(parking.deadline(), Some(at(2001)));
        parking.park(Line(2), at(2));
        assert_eq!(actions(&mut parking), [Action::Give(Take(2), Line(2))]);
        parking.give_up(Take(3));
        parking.park(Line(3), at(3));
        assert_eq!(actions(&mut parking), [], "what was given up is given nothing");
        assert_eq!(parking.parked(), 1);
    }

    #[test]
    fn nothing_waits_for_a_worker_that_is_not_there() {
        let mut parking = parking();
        parking.take(Take(1), Wants::Line, at(0));
        assert_eq!(actions(&mut parking), [Action::Refuse(Take(1), NoLine::Absent)]);
        parking.park(Line(1), at(1));
        parking.park(Line(2), at(1));
        parking.take(Take(2), Wants::Line, at(1));
        parking.take(Take(3), Wants::Line, at(1));
        parking.take(Take(4), Wants::Line, at(1));
        actions(&mut parking);
        parking.park(Line(3), at(1));
        assert_eq!(actions(&mut parking), [Action::Give(Take(4), Line(3))]);
        parking.park(Line(4), at(1));
        parking.closed(Line(4));
        assert_eq!(actions(&mut parking), [Action::Went], "the last one that was parked has closed");
        parking.take(Take(5), Wants::Look, at(2));
        assert_eq!(actions(&mut parking), [Action::Refuse(Take(5), NoLine::Absent)]);
    }

    #[test]
    fn a_worker_that_parks_nothing_for_as_long_as_a_take_waits_is_gone() {
        let mut parking = parking();
        parking.park(Line(1), at(0));
        for take in 1..=3 {
            parking.take(Take(take), Wants::Line, at(u64::from(take > 2) * 1000 + 1));
        }
        actions(&mut parking);
        parking.expire(at(2000));
        assert_eq!(actions(&mut parking), []);
        parking.expire(at(2001));
        let late = [Action::Refuse(Take(2), NoLine::Late), Action::Went, Action::Refuse(Take(3), NoLine::Absent)];
        assert_eq!(actions(&mut parking), late);
        assert_eq!(parking.deadline(), None);
    }

    #[test]
    fn a_worker_that_is_only_slow_is_there() {
        let mut parking = parking();
        parking.park(Line(1), at(0));
        for take in 1..=3 {
            parking.take(Take(take), Wants::Line, at(1));
        }
        parking.park(Line(2), at(1500));
        actions(&mut parking);
        parking.expire(at(2001));
        assert_eq!(actions(&mut parking), [Action::Refuse(Take(3), NoLine::Late)]);
        parking.take(Take(4), Wants::Line, at(2002));
        assert_eq!(actions(&mut parking), [], "it waits");
    }

    #[test]
    fn a_line_that_had_ended_when_it_was_given_costs_its_take_no_place() {
        let mut parking = parking();
        parking.park(Line(1), at(0));
        parking.take(Take(1), Wants::Line, at(1));
        parking.take(Take(2), Wants::Line, at(2));
        actions(&mut parking);
        parking.take_again(Take(1), at(1), at(3));
        parking.park(Line(2), at(4));
        assert_eq!(actions(&mut parking), [Action::Give(Take(1), Line(2))]);
    }

    #[test]
    fn a_newer_process_takes_the_place_of_an_older_one_without_being_away() {
        let mut parking = parking();
        parking.park(Line(1), at(0));
        parking.supersede();
        parking.take(Take(1), Wants::Line, at(1));
        parking.park(Line(2), at(2));
        assert_eq!(actions(&mut parking), [Action::Came, Action::Came, Action::Give(Take(1), Line(2))]);
    }

    #[test]
    fn a_worker_that_is_about_to_park_is_waited_for_and_one_that_does_not_has_never_come() {
        let mut parking = parking();
        parking.expect();
        parking.take(Take(1), Wants::Look, at(0));
        parking.park(Line(1), at(1));
        assert_eq!(actions(&mut parking), [Action::Came, Action::Found(Take(1))]);
        let mut parking = Parking::new(BOUNDS, at(0));
        parking.expect();
        parking.take(Take(1), Wants::Line, at(1));
        parking.expire(at(2001));
        assert_eq!(actions(&mut parking), [Action::Refuse(Take(1), NoLine::Late)]);
        parking.take(Take(2), Wants::Line, at(2002));
        assert_eq!(actions(&mut parking), [Action::Refuse(Take(2), NoLine::Absent)]);
    }

    #[test]
    fn both_bounds_hold() {
        let mut parking = parking();
        assert!((1..=4).all(|line| parking.park(Line(line), at(0))));
        assert!(!parking.park(Line(5), at(0)));
        for take in 1..=8 {
            parking.take(Take(take), Wants::Line, at(1));
        }
        let refused: Vec<_> = actions(&mut parking).into_iter().filter(|it| matches!(it, Action::Refuse(..))).collect();
        assert_eq!(refused, [Action::Refuse(Take(8), NoLine::Crowded)]);
    }

    #[test]
    fn more_are_wanted_each_time_that_a_take_has_to_wait_and_fewer_after_a_calm_minute() {
        let mut parking = Parking::new(Bounds { parked_max: 40, waiting_max: 40, ..BOUNDS }, at(0));
        parking.park(Line(0), at(0));
        for (take, want) in [(0, 8), (1, 16), (2, 32), (3, 40), (4, 40)] {
            parking.take(Take(take), Wants::Line, at(take));
            assert_eq!(parking.want(), want);
        }
        for line in 1..=4 {
            parking.park(Line(line), at(5));
        }
        let mut now = 5;
        for want in [20, 10, 8, 8] {
            now += 60_000;
            parking.park(Line(now), at(now));
            parking.park(Line(now + 1), at(now));
            parking.take(Take(now), Wants::Line, at(now));
            assert_eq!(parking.want(), want);
        }
    }

    #[test]
    fn the_process_that_came_last_counts_and_none_before_it_comes_back() {
        let mut instances = Instances::default();
        let [first, second]: [Arc<str>; 2] = ["first".into(), "second".into()];
        assert_eq!(instances.come(&first), Standing::Newer);
        assert_eq!(instances.come(&first), Standing::Current);
        assert_eq!(instances.come(&second), Standing::Newer);
        assert_eq!(instances.come(&first), Standing::Superseded);
        assert_eq!(instances.come(&second), Standing::Current);
        for number in 0..40 {
            instances.come(&format!("{number}").into());
        }
        assert_eq!(instances.superseded.len(), SUPERSEDED_MAX);
    }
}
