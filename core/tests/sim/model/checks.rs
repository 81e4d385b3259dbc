//! What the model demands of a pipe: after each step, after a read in an outage, when all is calm, and in the end.

use holdline_core::frame::Side;
use holdline_core::leg::barrier::Level;
use holdline_core::pipe::{Pipe, PipeState, PipeView};
use holdline_core::settings::{DownPolicy, OnTooBig, OverflowPolicy, ReplayPolicy};
use holdline_core::time::Time;

use super::{Fate, Model, OVERHEAD_BYTES, PROVEN_AFTER, Tap};
use crate::marks::{Mark, Marks};

/// Headers of the frames of one message that a worker of this world says.
const HEADERS_BYTES_MAX: usize = 2 * 10 + OVERHEAD_BYTES;

/// Bytes of a header whose end has not come.
const HEADER_START_BYTES_MAX: usize = 13;

/// What one lane may occupy that no message is charged for: a block at each end of which only a part is used, each as
/// large as the most that is read at once, and the lists of an empty lane.
const LANE_SLACK_BYTES: usize = 2 * 65_536 + 2_048;

impl Model {
    /// Books against truth: the memory that the pipe says it occupies is what it is charged and a little, and what it is
    /// charged for a message that is not whole is every byte that has come of it.
    fn check_books(&self, pipe: &Pipe) {
        let (charged, memory) = (pipe.charged_bytes(), pipe.memory_bytes());
        assert!(memory <= charged + charged / 4 + 2 * LANE_SLACK_BYTES, "{memory} bytes held, {charged} charged");
        let view = pipe.view();
        let open = charged - view.up.buffered_bytes - view.down.buffered_bytes;
        let up = if self.client_open && self.client.linked { self.from_client.open_bytes() } else { 0 };
        let drops = self.settings.on_too_big == OnTooBig::Drop;
        let is_dropped = |tap: &Tap| drops && tap.from_worker.is_amid_more_than(self.settings.message_bytes_max);
        // A number is no part of what is kept, nor is a word.
        let tap = self.tap.as_ref().filter(|tap| !is_dropped(tap) && tap.numbered.is_none());
        let down = tap.map_or(0, |tap| tap.from_worker.open_bytes());
        // The start of a header or a control frame is kept beside the lane.
        let apart = if self.ended.is_some() { usize::MAX } else { 2 * 140 };
        assert!(
            up + down <= open.saturating_add(apart),
            "{up} and {down} bytes of messages that are not whole, {open} charged"
        );
    }

    /// What must be true after each step.
    pub fn check(&mut self, pipe: &Pipe, now: Time, marks: &mut Marks) {
        let view = pipe.view();
        self.check_books(pipe);
        if self.tap.as_ref().is_some_and(|tap| now >= tap.since + PROVEN_AFTER) {
            self.outage = None;
        }
        assert_eq!((view.interruptions, view.up.in_doubt), (self.interruptions, self.in_doubt), "gauges");
        assert_eq!(
            (view.up.lost, view.down.lost, view.down.dropped),
            (self.lost_up, self.lost_down + self.too_big_down, self.dropped)
        );
        assert_eq!(view.backend.is_some(), self.tap.is_some(), "attached or not");
        assert!(view.up.confirmed <= view.up.sent && view.up.sent <= view.up.accepted);
        self.check_client(pipe, now);
        self.check_aware();
        if self.ended.is_some() || !self.client_open {
            assert!(view.state == PipeState::Closing, "{:?} after the end", view.state);
            return;
        }
        assert_eq!(view.up.accepted.0, self.up.len() as u64, "messages accepted of the client");
        assert_eq!(view.down.accepted.0, self.down.len() as u64, "messages accepted of workers");
        if self.settings.on_too_big == OnTooBig::Drop {
            assert_eq!(self.too_big_down, self.skipped, "messages of workers that were too big");
        }
        if self.is_exact() {
            assert_eq!((view.up.sent.0, view.up.confirmed.0), (self.sent, self.confirmed), "sent and confirmed");
            assert_eq!(view.up.level == Level::App, self.committed, "committed by an application");
            if self.committed {
                marks.hit(Mark::AppLevel);
            }
        }
        if self.is_exact() && !self.keeps_tail() {
            let kept_from = if self.settings.replay == ReplayPolicy::Unsent { self.sent } else { self.confirmed };
            let held = self.up_charges[self.up.len()] - self.up_charges[kept_from as usize];
            assert_eq!(view.up.buffered_bytes, held, "bytes held upwards");
        }
        if self.settings.down == DownPolicy::Keep {
            let kept_from = if self.has_all_up_to_one() { self.client.settled } else { self.down_next };
            let held = self.down_charges[self.down.len()] - self.down_charges[kept_from];
            assert_eq!(view.down.buffered_bytes, held, "bytes held downwards");
        }
        if view.state == PipeState::Detached {
            let since = self.outage.expect("a detached pipe is in an outage");
            assert!(
                now < since + self.settings.farewell_grace(),
                "grace was extended: detached since {since:?}, now {now:?}"
            );
        }
    }

    /// What must be true of the client's leg, as long as there is one.
    fn check_client(&self, pipe: &Pipe, now: Time) {
        let (view, client) = (pipe.view(), &self.client);
        assert_eq!((view.has_client, view.awaits_client), (client.linked, self.may_return()), "linked, awaited");
        assert_eq!((view.generation, view.down.in_doubt), (client.generation, client.in_doubt));
        if self.has_all_up_to_one() && self.ended.is_none() && self.client_open {
            let expected = (self.down_next as u64, client.settled as u64);
            assert_eq!((view.down.sent.0, view.down.confirmed.0), expected, "sent and confirmed downwards");
        }
        if let (Some(since), Some(grace)) = (client.away, self.settings.client_grace) {
            assert!(now < since + grace, "the client's grace was extended: away since {since:?}, now {now:?}");
        }
    }

    /// After a read of the worker while the client is away: the bound holds, or nothing had been read.
    pub fn check_bound_down(&self, pipe: &Pipe, before: &PipeView, marks: &mut Marks) {
        if self.client.away.is_none() || before.has_client {
            return;
        }
        let held = pipe.view().down.buffered_bytes;
        let bound = match self.settings.down {
            DownPolicy::Keep => self.down_bytes_max(),
            DownPolicy::Latest(keep) => keep.get() as usize * (self.settings.message_bytes_max + HEADERS_BYTES_MAX),
        };
        // As below: each message is charged a little more than its bytes, and the start of a header comes late.
        let came =
            (pipe.view().down.accepted.0 - before.down.accepted.0) as usize * OVERHEAD_BYTES + HEADER_START_BYTES_MAX;
        assert!(held <= bound.max(before.down.buffered_bytes) + came, "over the bound: {held} for {bound}");
        if self.settings.down == DownPolicy::Keep && pipe.read_budget(Side::Backend, usize::MAX) == 0 {
            marks.hit(Mark::ReadUpToTheBound);
        }
    }

    /// After a read in an outage: the bound holds, or nothing had been read.
    pub fn check_bound(&self, pipe: &Pipe, charged_before: usize, accepted_before: u64) {
        let view = pipe.view();
        if view.state != PipeState::Detached || self.settings.replay == ReplayPolicy::None {
            return;
        }
        // Each message is charged a little more than its bytes on the wire, which are what is read; and the start of a
        // header is in the books only when its end has come.
        let slack = (view.up.accepted.0 - accepted_before) as usize * OVERHEAD_BYTES + HEADER_START_BYTES_MAX;
        // What a client has left behind may be as much again.
        let times = if pipe.has_client_left() { 2 } else { 1 };
        let bound = (times * self.settings.replay_bytes_max).max(charged_before) + slack;
        match self.settings.overflow {
            OverflowPolicy::Pause => {
                assert!(pipe.charged_bytes() <= bound + view.down.buffered_bytes, "over the bound")
            }
            OverflowPolicy::Close => {
                assert!(view.up.buffered_bytes <= self.settings.replay_bytes_max, "over the bound and not closed");
            }
        }
    }

    /// Whether the client is read only because both ends wait for each other's confirmation.
    pub fn is_read_beyond_the_window(&self, pipe: &Pipe) -> bool {
        let (view, settings) = (pipe.view(), &self.settings);
        let full = view.up.buffered_bytes >= settings.window_bytes && !self.keeps_tail() && self.is_exact();
        let owes = self.asks_client() && view.down.buffered_bytes >= self.down_bytes_max();
        view.state == PipeState::Attached && full && view.up.confirmed < view.up.sent && owes
    }

    /// What is kept for the client at most.
    fn down_bytes_max(&self) -> usize {
        if self.aware.is_some() { self.settings.aware.retain_bytes } else { self.settings.replay_bytes_max }
    }

    /// Whether everything that both sides said has arrived.
    pub fn is_settled(&self, pipe: &Pipe) -> bool {
        let view = pipe.view();
        let down = self.down_next == self.down.len() || matches!(self.settings.down, DownPolicy::Latest(_));
        view.state == PipeState::Attached
            && view.up.sent == view.up.accepted
            && view.up.confirmed == view.up.accepted
            && view.down.sent == view.down.accepted
            && down
            && self.is_aware_settled()
    }

    /// What must be true in the end: each message has exactly one fate.
    pub fn check_end(&self, pipe: &Pipe) {
        let view = pipe.view();
        let open = self.fates.iter().filter(|&&fate| fate == Fate::Open).count() as u64;
        let given_up = self.lost_up + self.left_in_doubt;
        if self.keeps_tail() {
            assert!(given_up >= open, "{open} messages have no fate, {given_up} were given up");
        } else {
            assert_eq!(given_up, open, "messages given up, and messages without a fate ({:?})", self.ended);
        }
        let delivered = if self.asks_client() { self.client.settled as u64 } else { self.delivered };
        let fates = delivered + self.dropped + self.lost_down;
        // What made way for newer messages may have arrived on a link before, or stand before what did.
        let is_exact = self.has_all_up_to_one() || self.aware.is_none();
        assert!(fates >= view.down.accepted.0, "{fates} fates of {} messages", view.down.accepted.0);
        assert!(!is_exact || fates == view.down.accepted.0, "{fates} fates of {} messages", view.down.accepted.0);
        assert_eq!(pipe.charged_bytes(), 0, "bytes leaked");
        assert_eq!(pipe.deadline(), None, "a finished pipe waits for something");
        assert!(view.memory_bytes < 32 << 10, "memory leaked: {}", view.memory_bytes);
    }
}
