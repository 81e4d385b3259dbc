//! What others than the two peers bring into a pipe: a message of the operator's, and a worker's word by another way.

use super::{End, Pipe};
use crate::frame::Kind;
use crate::ids::{Attachment, Seq};
use crate::leg::barrier::Level;
use crate::time::Time;

/// Why an operator's message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsaid {
    /// The client is gone, or its pipe is ending.
    Closing,
    /// It is larger than a message of this route may be.
    TooBig,
    /// As much as may wait for this client waits already.
    Full,
}

impl Pipe {
    /// Puts a message of the operator's into the lane down to the client, behind the worker's whole messages and before
    /// the one that is not whole yet; its number in that lane. The payload of a text message must be UTF-8.
    ///
    /// It is bounded like what a worker says: nothing is taken while the worker would not be read.
    ///
    /// # Errors
    /// Why it was not taken; nothing has changed then.
    pub fn say(&mut self, kind: Kind, payload: &[u8], now: Time) -> Result<Seq, Unsaid> {
        // A client that is awaited only to be told of the end is not told more than the worker said.
        if !self.client.is_open() || self.end != End::NotYet {
            return Err(Unsaid::Closing);
        }
        if payload.len() > self.settings.message_bytes_max {
            return Err(Unsaid::TooBig);
        }
        let buffer = &self.down.buffer;
        let keeps_no_more = self.client.returns() && buffer.held_bytes() >= self.settings.replay_bytes_max;
        if keeps_no_more || buffer.unsent_bytes() >= self.settings.window_bytes {
            return Err(Unsaid::Full);
        }
        // `message_bytes_max` bounds it, which the configuration keeps below 4 GiB.
        let seq = self.insert_down(kind, payload);
        self.after_down(now);
        Ok(seq)
    }

    /// Takes a worker's word that its application has committed everything up to `seq`; what is confirmed now, or
    /// nothing if `attachment` is no longer the current one.
    pub fn commit(&mut self, attachment: Attachment, seq: Seq, now: Time) -> Option<Seq> {
        if !self.backend.is_current(attachment) {
            return None;
        }
        self.confirm_up(seq, Level::App, now);
        Some(self.up.buffer.confirmed())
    }
}
