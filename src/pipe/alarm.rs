//! When a pipe's task is woken for the time: one timer, moved as seldom as possible.
//!
//! Invariant: it is never set for later than the core's deadline. One that is set for an earlier time stays: it may fire
//! for nothing, which costs less than moving it with every message.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use holdline_core::time::Time;
use tokio::time::Sleep;

use crate::clock::Clock;

/// A timer is set this much late, so that it finds its deadline passed.
const SLACK: Duration = Duration::from_micros(50);

/// The timer of one pipe.
#[derive(Debug, Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    at: Option<Time>,
}

impl Alarm {
    /// Whether the time that it was set for has come, or it was set for none.
    pub fn is_due(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let Some(at) = self.at else { return true };
        if now < at {
            // It still knows whom to wake.
            return false;
        }
        if self.has_fired(cx) {
            self.at = None;
        }
        true
    }

    /// Has the task woken at `deadline`.
    pub fn set(&mut self, deadline: Time, clock: &Clock, cx: &mut Context<'_>) {
        if self.at.is_some_and(|at| at <= deadline) {
            return;
        }
        let instant = clock.instant(deadline) + SLACK;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(instant),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(instant))),
        }
        self.at = Some(deadline);
        if self.has_fired(cx) {
            self.at = None;
            cx.waker().wake_by_ref();
        }
    }

    fn has_fired(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}
