//! What one lane has used of its limits (`limits.pipe_messages`, `limits.pipe_bytes`), and until when its sender rests.
//!
//! With a limit on messages, no more bytes are read at once than the smallest frames for the tokens left would take, so
//! that not one message too many comes in.

use crate::frame::Side;
use crate::limits::bucket::{Bucket, worth_waking};
use crate::limits::{PipeLimit, Rate};
use crate::settings::{OnExceed, PipeLimits};
use crate::time::Time;

/// What a lane has used of its limits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throttle {
    messages: Bucket,
    bytes: Bucket,
    /// When the buckets were last looked at.
    pub seen: Time,
    /// Its sender is not read until then.
    pub until: Option<Time>,
    /// When it was last said that its sender is slowed down.
    pub said: Option<Time>,
}

impl Throttle {
    /// Books what came in; the limit that it used up, if so.
    pub fn took(&mut self, limits: &PipeLimits, messages: u64, bytes: usize, now: Time) -> Option<PipeLimit> {
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

    /// Bytes that may be read of `side`, `frame_left` of which end the frame under way.
    pub fn budget(&self, limits: &PipeLimits, side: Side, frame_left: usize) -> usize {
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
