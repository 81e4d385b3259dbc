//! A worker that waits to take over: since when, and whether the old one may be told to go for it.

use std::time::Duration;

use holdline_core::ids::{Attachment, Seq};
use holdline_core::time::Time;

/// A worker that waits to take over.
#[derive(Debug)]
pub struct Held {
    pub attachment: Attachment,
    /// What it says it has.
    pub has: Option<Seq>,
    /// It numbers its messages.
    pub numbers: bool,
    pub since: Time,
    /// It has said something, so that its end is not looked for any more.
    pub talked: bool,
}

impl Held {
    /// Whether it has been there for `prove`, or said something.
    pub fn is_proven(&self, prove: Duration, now: Time) -> bool {
        self.talked || now >= self.since + prove
    }
}
