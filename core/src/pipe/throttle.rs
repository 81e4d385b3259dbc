//! The rate of one lane (`limits.pipe_messages`, `limits.pipe_bytes`): how much of its sender is read.
//!
//! A lane that has used up its tokens is not read until some have come; one of the pipe's timers ends the rest.

use std::time::Duration;

use super::{EndedBy, Fact, Pipe};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::LaneName;
use crate::lane::Lane;
use crate::leg::BackendState;
use crate::settings::{LimitedLanes, OnExceed};
use crate::time::Time;

/// How often a lane that is slowed down says so at most.
const SAID_EVERY: Duration = Duration::from_secs(1);

impl Pipe {
    /// Whether the lane of `side` is limited in its present state.
    fn is_limited(&self, side: Side) -> bool {
        if self.settings.limits.is_off() || !self.client.is_open() {
            return false;
        }
        match (side, self.settings.limits.lanes) {
            (Side::Client, LimitedLanes::Down) | (Side::Backend, LimitedLanes::Up) => false,
            (Side::Client, LimitedLanes::Both | LimitedLanes::Up) => true,
            (Side::Backend, LimitedLanes::Both | LimitedLanes::Down) => {
                let state = self.backend.state();
                matches!(state, BackendState::Attached | BackendState::Settling | BackendState::Parting(_))
            }
        }
    }

    const fn lane_of(&self, side: Side) -> &Lane {
        match side {
            Side::Client => &self.up,
            Side::Backend => &self.down,
        }
    }

    /// Bytes that the lane's limits allow to be read.
    pub(super) fn throttled_budget(&self, side: Side) -> usize {
        // A throttled close must see what is over the limit.
        if !self.is_limited(side) || self.settings.limits.on_exceed == OnExceed::Close {
            return usize::MAX;
        }
        let link = match side {
            Side::Client => self.client.link(),
            Side::Backend => self.backend.link(),
        };
        let throttle = self.lane_of(side).throttle.as_deref().copied().unwrap_or_default();
        throttle.budget(&self.settings.limits, side, link.map_or(0, |link| link.codec.frame_left_bytes()))
    }

    /// Whether the lane's limits are why its sender is not read.
    pub(super) fn is_throttled(&self, side: Side) -> bool {
        self.is_limited(side) && self.throttled_until(side).is_some()
    }

    /// When the lane's sender is to be read again.
    pub(super) fn throttle_deadline(&self, side: Side) -> Option<Time> {
        self.throttled_until(side).filter(|_| self.is_limited(side))
    }

    fn throttled_until(&self, side: Side) -> Option<Time> {
        self.lane_of(side).throttle.as_ref()?.until
    }

    /// Lets a lane whose rest is over be read again.
    pub(super) fn end_rest(&mut self, side: Side, now: Time) {
        if let Some(throttle) = &mut self.lane(side).throttle {
            throttle.until = None;
            throttle.seen = now;
        }
    }

    /// Books what came from `side`, and does what is to be done with a lane over its limits.
    pub(super) fn book(&mut self, side: Side, messages: u64, bytes: usize, now: Time) {
        if !self.is_limited(side) {
            return;
        }
        let limits = self.settings.limits;
        let throttle = self.lane(side).throttle.get_or_insert_default();
        let Some(limit) = throttle.took(&limits, messages, bytes, now) else { return };
        let lane = match side {
            Side::Client => LaneName::Up,
            Side::Backend => LaneName::Down,
        };
        match limits.on_exceed {
            OnExceed::Throttle => {
                if throttle.said.is_none_or(|said| now.since(said) >= SAID_EVERY) {
                    throttle.said = Some(now);
                    self.report(Fact::Limited { lane, limit });
                }
            }
            OnExceed::Close => {
                self.report(Fact::Limited { lane, limit });
                let frame = CloseFrame::new(1008, limit.reason());
                match side {
                    Side::Client => self.client_at_fault(frame, now),
                    Side::Backend => self.close(EndedBy::Backend, frame, now),
                }
            }
        }
    }
}
