//! How a pipe goes through a snapshot, amid whatever it does, to a process with another clock.

use holdline_core::ids::BackendKey;
use holdline_core::pipe::{LinkLoss, Peer, Pipe, PipeState};
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;

use super::{Driver, Order};
use crate::marks::{Mark, Marks};
use crate::plan::Rng;

/// The clock of one process: the world's time since it began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub Time);

impl Clock {
    pub(super) fn shows(self, now: Time) -> Time {
        Time::ZERO + now.since(self.0)
    }

    pub(super) fn world(self, shown: Time) -> Time {
        self.0 + shown.since(Time::ZERO)
    }
}

impl Driver {
    /// Another process with another clock goes on where this one stops.
    pub(super) fn freeze(&mut self, rng: &mut Rng, now: Time, marks: &mut Marks) {
        if self.finished {
            return;
        }
        let clock = Clock(if rng.once_in(2) { self.clock.0 } else { now });
        let bytes = self.frozen(now, clock, marks);
        self.thaw(bytes, clock, now, rng.bits(), |key| key);
        self.call(now, marks, |_, _| ());
        if self.freezes.1 && rng.once_in(4) {
            self.lose_link(now, marks);
        }
        if self.freezes.1 && self.settings.client_grace.is_some() && rng.once_in(4) {
            self.lose_client(now, marks);
        }
    }

    /// The pipe as bytes, for a process with this clock.
    pub fn frozen(&self, now: Time, clock: Clock, marks: &mut Marks) -> Vec<u8> {
        let view = self.pipe.view();
        let dials = view.state == PipeState::Detached && self.dials();
        marks.hit(match view.state {
            PipeState::Attached => Mark::FrozenAttached,
            PipeState::Leaving if self.held.is_some() => Mark::FrozenHeld,
            PipeState::Leaving if self.dials() => Mark::FrozenDialingNext,
            PipeState::Leaving => Mark::FrozenLeaving,
            PipeState::Detached if !view.has_client => Mark::FrozenClientAwayInOutage,
            PipeState::Detached if dials => Mark::FrozenDialing,
            PipeState::Detached => Mark::FrozenDetached,
            PipeState::ClientDetached => Mark::FrozenClientAway,
            PipeState::Closing => Mark::FrozenClosing,
        });
        self.model.frozen(clock.0, marks);
        if let Some(numbers) = self.client.numbers.as_ref().filter(|_| view.has_client) {
            marks.hit(if numbers.is_talking() { Mark::FrozenAware } else { Mark::FrozenAwareUngreeted });
        }
        self.pipe.snapshot(self.clock.shows(now)).into_bytes()
    }

    /// Goes on with the pipe of these bytes, which was frozen at `frozen_at`.
    pub fn thaw(
        &mut self,
        bytes: Vec<u8>,
        clock: Clock,
        frozen_at: Time,
        seed: u64,
        rename: impl FnMut(BackendKey) -> BackendKey,
    ) {
        let before = self.pipe.view();
        let snapshot = Snapshot::from_bytes(bytes).expect("these bytes were a snapshot");
        let restored = Pipe::restore(&snapshot, self.settings.clone(), seed, clock.shows(frozen_at));
        self.pipe = restored.unwrap_or_else(|error| panic!("{error}: {before:?}"));
        self.clock = clock;
        let after = self.pipe.view();
        assert_eq!((before.state, before.up, before.down), (after.state, after.up, after.down), "thawed");
        assert_eq!((before.backend, before.interruptions), (after.backend, after.interruptions), "thawed");
        assert_eq!((before.generation, before.awaits_client), (after.generation, after.awaits_client), "thawed");
        assert_eq!(before.has_client, after.has_client, "thawed");
        self.round.is_handed_over();
        if let Some(held) = self.held.take() {
            self.end_link(held.attachment, &[]);
            self.orders.push_back(Order::LetGo(held.attachment));
        } else if after.attachment > before.attachment {
            self.orders.push_back(Order::Cancel(before.attachment));
        }
        self.foreign = Some(before.attachment);
        self.pipe.rename_backends(rename);
    }

    /// The backend link did not come along.
    pub fn lose_link(&mut self, now: Time, marks: &mut Marks) {
        let Some(attachment) = self.current else { return };
        marks.hit(Mark::LinkLostWithFreeze);
        self.call(now, marks, |pipe, now| pipe.lost(Peer::Backend(attachment), LinkLoss::Reset, now));
        assert_ne!(self.current, Some(attachment), "a dead link is kept");
    }
}
