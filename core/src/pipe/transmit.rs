//! Bytes out: what each link is due, how much of it went, and how much may be read to follow.

use super::{Fact, Pipe};
use crate::byte_queue::Gather;
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::ClientState;
use crate::settings::{DownPolicy, OverflowPolicy, ReplayPolicy};
use crate::time::Time;

/// Bytes that a pipe which holds nothing may read though the process has no room left: enough to stay alive on.
const STARVED_READ_BYTES: usize = 4096;

impl Pipe {
    /// Whether the link of `side` is due anything: [`Self::gather`] would have something to give.
    #[must_use]
    pub fn wants_write(&self, side: Side, now: Time) -> bool {
        let (link, buffer) = match side {
            Side::Client => (self.client.link(), &self.down.buffer),
            Side::Backend => (self.backend.link(), &self.up.buffer),
        };
        link.is_some_and(|link| link.wants_write(buffer, self.asks(side), now)) && !self.is_switching(side)
    }

    /// What the link of `side` should be given next; empty if nothing, or if there is no link.
    pub fn gather(&mut self, side: Side, now: Time) -> Gather<'_> {
        let (asks, key) = (self.asks(side), self.key(side));
        if self.is_switching(side) {
            return Gather::default();
        }
        let (link, buffer) = match side {
            Side::Client => (self.client.link_mut(), &self.down.buffer),
            Side::Backend => (self.backend.link_mut(), &self.up.buffer),
        };
        match link {
            Some(link) => link.gather(buffer, asks, key, now),
            None => Gather::default(),
        }
    }

    /// Whether the peer of `side` is asked for pongs. A client is no longer, once either has said that it ends.
    const fn asks(&self, side: Side) -> bool {
        match side {
            Side::Client => self.client.is_talking(),
            Side::Backend => true,
        }
    }

    /// The key that masks what is written next: frames towards a worker bear one.
    const fn key(&mut self, side: Side) -> [u8; 4] {
        match side {
            Side::Client => [0; 4],
            Side::Backend => self.draw.key(),
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
        let Some(link) = self.client.link_mut() else { return };
        let written = link.transmitted(bytes, &mut self.down.buffer, now);
        let (told, level) = (link.codec.is_close_written(), link.level());
        self.down.confirm_if_written(level, now);
        self.owe_delivered(now);
        self.client.set_stalled((self.down.buffer.unsent_messages() > 0).then_some(now));
        if written.again > 0 {
            self.report(Fact::Replayed { lane: LaneName::Down, messages: written.again });
        }
        if self.is_aware() {
            self.report_gaps();
        }
        if told {
            self.client_was_told();
        }
    }

    fn transmitted_up(&mut self, bytes: usize, now: Time) {
        let Some(link) = self.backend.link_mut() else { return };
        let sent_before = self.up.buffer.sent();
        let written = link.transmitted(bytes, &mut self.up.buffer, now);
        let (told, level) = (link.codec.is_close_written(), link.level());
        if self.up.buffer.sent() > sent_before {
            self.fed_at = now;
        }
        if self.takes_for_confirmed(level) {
            self.up.confirm_if_written(level, now);
        }
        if self.is_aware() {
            self.owe_confirmed(now);
        }
        if written.again > 0 {
            self.report(Fact::Replayed { lane: LaneName::Up, messages: written.again });
        }
        self.part_if_settled(now);
        if told {
            self.backend.close_written(now + self.settings.close_timeout);
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

    /// Whether the client is not read for want of room, and not only to slow it down.
    #[must_use]
    pub fn leaves_client_unread(&self) -> bool {
        self.client.link().is_some_and(|link| link.paused) && !self.is_throttled(Side::Client)
    }

    fn client_budget(&self) -> usize {
        match self.client.state() {
            ClientState::Detached | ClientState::Gone => return 0,
            ClientState::SaidClose | ClientState::Closing => return usize::MAX,
            ClientState::Open => {}
        }
        let buffer = &self.up.buffer;
        if self.has_client_left() {
            return self.settings.replay_bytes_max.saturating_mul(2).saturating_sub(buffer.claimed_bytes());
        }
        let room = self.settings.replay_bytes_max.saturating_sub(buffer.claimed_bytes());
        if self.backend.is_attached() {
            return match buffer.unconfirmed_bytes() >= self.settings.window_bytes {
                false => usize::MAX,
                // The worker's confirmation may lie behind what is not read for want of the client's.
                true if self.owes_confirmation() || self.is_worker_unread_for_acks() => room,
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

    /// Whether the worker is not read before the client acknowledges what it was sent.
    fn is_worker_unread_for_acks(&self) -> bool {
        self.is_aware() && self.down.buffer.held_bytes() > 0 && self.backend_budget() == 0
    }

    fn backend_budget(&self) -> usize {
        if self.backend.link().is_none() || self.is_switching(Side::Backend) {
            return 0;
        }
        let buffer = &self.down.buffer;
        match self.settings.down {
            DownPolicy::Latest(_) => usize::MAX,
            DownPolicy::Keep if self.client.is_detached() => {
                self.down_bytes_max().saturating_sub(buffer.claimed_bytes())
            }
            DownPolicy::Keep if buffer.unsent_bytes() >= self.settings.window_bytes => 0,
            DownPolicy::Keep if self.owes_confirmation() => 0,
            DownPolicy::Keep => usize::MAX,
        }
    }

    /// Notes whether the link of `side` is being read; while it is not, its silence means nothing.
    pub fn set_paused(&mut self, side: Side, paused: bool, now: Time) {
        let Some((link, _)) = self.incoming(side).filter(|(link, _)| link.paused != paused) else { return };
        link.set_paused(paused, now);
        if paused && !self.is_throttled(side) {
            self.report_paused(side);
        }
    }

    fn report_paused(&mut self, side: Side) {
        match side {
            Side::Backend => self.report(Fact::ReadPaused(LaneName::Down)),
            Side::Client => {
                self.report(Fact::ReadPaused(LaneName::Up));
                if self.backend.link().is_none() && self.client_budget() == 0 {
                    self.report(Fact::Overflowed(OverflowPolicy::Pause));
                }
            }
        }
    }
}
