//! Bytes out: what each link is due, how much of it went, and how much may be read to follow.

use super::{Fact, Pipe};
use crate::barrier::Level;
use crate::byte_queue::Gather;
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::{BackendLeg, ClientLeg};
use crate::settings::{DownPolicy, OverflowPolicy, ReplayPolicy};
use crate::time::Time;

/// Bytes that a pipe which holds nothing may read though the process has no room left: enough to stay alive on.
const STARVED_READ_BYTES: usize = 4096;

impl Pipe {
    /// Whether the link of `side` is due anything: [`Self::gather`] would have something to give.
    #[must_use]
    pub fn wants_write(&self, side: Side, now: Time) -> bool {
        match side {
            Side::Client => {
                let asks = matches!(self.client, ClientLeg::Open);
                let barrier = self.comeback.as_ref().and_then(|it| it.barrier.as_ref()).filter(|_| asks);
                self.client.is_linked() && self.to_client.wants_write(&self.down.buffer, barrier, now)
            }
            Side::Backend => {
                let asks = self.settings.replay != ReplayPolicy::None;
                let barrier = asks.then_some(&self.barrier);
                self.backend.link().is_some()
                    && !self.is_switching()
                    && self.to_backend.wants_write(&self.up.buffer, barrier, now)
            }
        }
    }

    /// What the link of `side` should be given next; empty if nothing, or if there is no link.
    pub fn gather(&mut self, side: Side, now: Time) -> Gather<'_> {
        if !self.prepare(side, now) {
            return Gather::default();
        }
        match side {
            Side::Client => self.to_client.gather(&self.down.buffer),
            Side::Backend => self.to_backend.gather(&self.up.buffer),
        }
    }

    /// Decides what the next write to the link of `side` holds; false if it is nothing.
    fn prepare(&mut self, side: Side, now: Time) -> bool {
        match side {
            Side::Client => {
                if !self.client.is_linked() {
                    return false;
                }
                let asks = matches!(self.client, ClientLeg::Open);
                let barrier = self.comeback.as_mut().and_then(|it| it.barrier.as_mut()).filter(|_| asks);
                self.to_client.prepare(&self.down.buffer, barrier, [0; 4], now);
                self.to_client.may_have_output(&self.down.buffer)
            }
            Side::Backend => {
                if self.backend.link().is_none() || self.is_switching() {
                    return false;
                }
                let asks = self.settings.replay != ReplayPolicy::None;
                let key = self.draw.key();
                self.to_backend.prepare(&self.up.buffer, asks.then_some(&mut self.barrier), key, now);
                self.to_backend.may_have_output(&self.up.buffer)
            }
        }
    }

    /// Notes that the link of `side` took the first `bytes` bytes of what was gathered last.
    pub fn transmitted(&mut self, side: Side, bytes: usize, now: Time) {
        if bytes == 0 {
            return;
        }
        match side {
            Side::Client => self.transmitted_down(bytes, now),
            Side::Backend => self.transmitted_up(bytes, now),
        }
    }

    fn transmitted_down(&mut self, bytes: usize, now: Time) {
        let barrier = self.comeback.as_mut().and_then(|it| it.barrier.as_mut());
        let written = self.to_client.transmitted(bytes, &mut self.down.buffer, barrier, now);
        if written.again > 0 {
            self.report(Fact::Replayed { lane: LaneName::Down, messages: written.again });
        }
        if self.down_level() == Level::Written {
            let sent = self.down.buffer.sent();
            self.down.buffer.confirm(sent, now);
        }
        self.stalled_since = (self.down.buffer.unsent_messages() > 0).then_some(now);
        if self.to_client.is_close_written() {
            self.client_was_told();
        }
    }

    fn transmitted_up(&mut self, bytes: usize, now: Time) {
        let asks = self.settings.replay != ReplayPolicy::None;
        let barrier = asks.then_some(&mut self.barrier);
        let sent_before = self.up.buffer.sent();
        let written = self.to_backend.transmitted(bytes, &mut self.up.buffer, barrier, now);
        if written.again > 0 {
            self.report(Fact::Replayed { lane: LaneName::Up, messages: written.again });
        }
        if self.up.buffer.sent() > sent_before {
            self.fed_at = now;
        }
        if self.confirms_when_written() {
            let sent = self.up.buffer.sent();
            self.up.buffer.confirm(sent, now);
        }
        self.part_if_settled(now);
        if self.to_backend.is_close_written()
            && let BackendLeg::Closing { deadline, .. } = &mut self.backend
        {
            *deadline = now + self.settings.close_timeout;
        }
    }

    /// Bytes that may be read from the link of `side`; 0 means that it is paused.
    ///
    /// `process_room` is what all pipes together may still take in.
    #[must_use]
    pub fn read_budget(&self, side: Side, process_room: usize) -> usize {
        let (budget, held) = match side {
            Side::Client => (self.client_budget(), self.up.buffer.held_bytes()),
            Side::Backend => (self.backend_budget(), self.down.buffer.held_bytes()),
        };
        let room = if held == 0 { process_room.max(STARVED_READ_BYTES) } else { process_room };
        budget.min(room).min(self.throttled_budget(side))
    }

    fn client_budget(&self) -> usize {
        match &self.client {
            ClientLeg::Detached { .. } | ClientLeg::Gone => return 0,
            ClientLeg::SaidClose(_) | ClientLeg::Closing { .. } => return usize::MAX,
            ClientLeg::Open => {}
        }
        let buffer = &self.up.buffer;
        let room = self.settings.replay_bytes_max.saturating_sub(buffer.held_bytes() + buffer.partial_bytes());
        if self.backend.is_attached() {
            return match buffer.unconfirmed_bytes() >= self.settings.window_bytes {
                false => usize::MAX,
                // The worker's confirmation may lie behind what is not read for want of the client's.
                true if self.owes_confirmation() => room,
                true => 0,
            };
        }
        if self.backend.link().is_some() {
            return room;
        }
        match (self.settings.replay, self.settings.overflow) {
            (ReplayPolicy::None, _) | (_, OverflowPolicy::Close) => usize::MAX,
            (ReplayPolicy::Unsent | ReplayPolicy::Unconfirmed, OverflowPolicy::Pause) => room,
        }
    }

    fn backend_budget(&self) -> usize {
        if self.backend.link().is_none() || self.is_switching() {
            return 0;
        }
        let buffer = &self.down.buffer;
        match self.settings.down {
            DownPolicy::Latest(_) => usize::MAX,
            DownPolicy::Keep if self.client.is_detached() => {
                self.settings.replay_bytes_max.saturating_sub(buffer.held_bytes() + buffer.partial_bytes())
            }
            DownPolicy::Keep if buffer.unsent_bytes() >= self.settings.window_bytes => 0,
            DownPolicy::Keep if self.owes_confirmation() => 0,
            DownPolicy::Keep => usize::MAX,
        }
    }

    /// Notes whether the link of `side` is being read; while it is not, its silence means nothing.
    pub fn set_paused(&mut self, side: Side, paused: bool, now: Time) {
        let linked = match side {
            Side::Client => self.client.is_linked(),
            Side::Backend => self.backend.link().is_some(),
        };
        if !linked {
            return;
        }
        let throttled = self.is_throttled(side);
        let (lane, beat, name) = match side {
            Side::Client => (&mut self.up, &mut self.client_beat, LaneName::Up),
            Side::Backend => (&mut self.down, &mut self.backend_beat, LaneName::Down),
        };
        if lane.paused == paused {
            return;
        }
        lane.paused = paused;
        lane.read_since = now;
        lane.began = lane.began.map(|_| now);
        beat.set_paused(paused);
        if paused && side == Side::Backend {
            self.barrier.unread();
        }
        self.reading_changed(side, now);
        if paused && !throttled {
            self.report(Fact::ReadPaused(name));
            if side == Side::Client && self.backend.link().is_none() && self.client_budget() == 0 {
                self.report(Fact::Overflowed(OverflowPolicy::Pause));
            }
        }
    }
}
