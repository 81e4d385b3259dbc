//! The rate of one lane (`limits.pipe_messages`, `limits.pipe_bytes`): how much of its sender is read.
//!
//! A lane that has used up its tokens is not read until some have come; the pipe's deadline ends the rest. With a limit
//! on messages, no more bytes are read at once than the smallest frames for the tokens left would take, so that not one
//! message too many comes in.

use super::{EndedBy, Fact, Lane, Pipe};
use crate::close::CloseFrame;
use crate::frame::Side;
use crate::ids::LaneName;
use crate::leg::BackendLeg;
use crate::limits::bucket::{Bucket, worth_waking};
use crate::limits::{PipeLimit, Rate};
use crate::settings::{LimitedLanes, OnExceed, PipeLimits};
use crate::time::{Time, earliest};
use std::time::Duration;

/// How often a lane that is slowed down says so at most.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// What a lane has used of its limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    messages: Bucket,
    bytes: Bucket,
    /// When the buckets were last looked at.
    seen: Time,
    /// Its sender is not read until then.
    until: Option<Time>,
    said: Option<Time>,
}

impl Throttle {
    /// Books what came in; the limit that it used up, if so.
    fn took(&mut self, limits: &PipeLimits, messages: u64, bytes: usize, now: Time) -> Option<PipeLimit> {
        self.seen = now;
        self.messages.take(limits.messages, messages, now);
        self.bytes.take(limits.bytes, bytes as u64, now);
        let is_out = |bucket: &Bucket, rate: Rate| match limits.on_exceed {
            OnExceed::Throttle => bucket.tokens(rate, now) == 0,
            OnExceed::Close => bucket.is_overdrawn(rate, now),
        };
        let waits = |bucket: &Bucket, rate: Rate| Some(bucket.has_at(rate, worth_waking(rate)).max(now));
        if !limits.messages.is_off() && is_out(&self.messages, limits.messages) {
            self.until = waits(&self.messages, limits.messages);
            return Some(PipeLimit::Messages);
        }
        if !limits.bytes.is_off() && is_out(&self.bytes, limits.bytes) {
            self.until = waits(&self.bytes, limits.bytes);
            return Some(PipeLimit::Bytes);
        }
        None
    }

    fn budget(&self, limits: &PipeLimits, side: Side, frame_left: usize) -> usize {
        if self.until.is_some() {
            return 0;
        }
        let tokens = |bucket: &Bucket, rate: Rate| match rate.is_off() {
            true => usize::MAX,
            false => usize::try_from(bucket.tokens(rate, self.seen)).unwrap_or(usize::MAX).max(1),
        };
        let smallest = match side {
            Side::Client => 6,
            Side::Backend => 2,
        };
        let messages = tokens(&self.messages, limits.messages).saturating_mul(smallest).saturating_add(frame_left);
        messages.min(tokens(&self.bytes, limits.bytes))
    }
}

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
                matches!(self.backend, BackendLeg::Attached(_) | BackendLeg::Leaving { .. })
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
        let lane = self.lane_of(side);
        let throttle = lane.throttle.as_deref().copied().unwrap_or_default();
        throttle.budget(&self.settings.limits, side, lane.assembler.frame_left_bytes())
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
    pub(super) fn tick_throttle(&mut self, side: Side, now: Time) {
        if let Some(throttle) = &mut self.lane(side).throttle
            && throttle.until.is_some_and(|until| now >= until)
        {
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

    /// The earlier of `deadline` and the end of a rest.
    pub(super) fn or_throttle(&self, side: Side, deadline: Option<Time>) -> Option<Time> {
        earliest(deadline, self.throttle_deadline(side))
    }
}
