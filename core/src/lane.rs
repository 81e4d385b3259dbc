//! A lane: the messages of one direction, and what has become of all that there ever were.
//!
//! Invariant: nothing here belongs to a link. A lane outlives the links at both its ends, and a message in it can go out
//! on any that comes.

use crate::assembler::Message;
use crate::frame::Side;
use crate::leg::barrier::Level;
use crate::replay::{ReplayBuffer, Retention};
use crate::snapshot::{Read, Reader, SnapshotError, Writer};
use crate::throttle::Throttle;
use crate::time::Time;

/// One direction of a pipe.
#[derive(Debug)]
pub(crate) struct Lane {
    pub buffer: ReplayBuffer,
    /// What a confirmation of the last link means.
    pub level: Level,
    /// Messages that a lost link may or may not have delivered, all of them together.
    pub in_doubt: u64,
    /// Messages given up.
    pub lost: u64,
    /// Messages that made way for newer ones.
    pub dropped: u64,
    /// Payload bytes of all messages accepted.
    pub payload_bytes: u64,
    /// Only with limits, and only once something came.
    pub throttle: Option<Box<Throttle>>,
}

impl Lane {
    pub fn new(retention: Retention, level: Level) -> Self {
        Self {
            buffer: ReplayBuffer::new(retention),
            level,
            in_doubt: 0,
            lost: 0,
            dropped: 0,
            payload_bytes: 0,
            throttle: None,
        }
    }

    /// Accepts the message that the bytes pushed so far make whole.
    pub fn accept(&mut self, message: Message) {
        self.payload_bytes += u64::from(message.payload_bytes);
        self.buffer.accept(message);
    }

    /// Confirms what was sent, where it is not asked for.
    pub fn confirm_if_written(&mut self, now: Time) {
        if self.level == Level::Written {
            self.confirm_sent(now);
        }
    }

    /// Everything sent counts as confirmed.
    pub fn confirm_sent(&mut self, now: Time) {
        self.buffer.confirm(self.buffer.sent(), now);
    }

    /// Bytes that count against the process's room: whole messages and what is not whole yet, without what is charged
    /// elsewhere.
    pub const fn charged_bytes(&self) -> usize {
        self.buffer.claimed_bytes().saturating_sub(self.buffer.common_bytes())
    }

    /// Memory that the lane occupies beyond itself, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.memory_bytes() + self.throttle.as_deref().map_or(0, size_of_val)
    }
}

impl Lane {
    pub fn freeze(&self, out: &mut Writer) {
        // Its tokens stay behind: elsewhere, a lane begins with all of them.
        let Self { buffer, level, in_doubt, lost, dropped, payload_bytes, throttle: _ } = self;
        buffer.freeze(out);
        out.u8(match level {
            Level::Written => 0,
            Level::Pong => 1,
            Level::App => 2,
        });
        for count in [in_doubt, lost, dropped, payload_bytes] {
            out.count(*count);
        }
    }

    /// Reads the lane of messages from `sender`; whether bytes are what has come of a message that is not whole,
    /// `is_half` knows.
    pub fn thaw(
        input: &mut Reader<'_>,
        sender: Side,
        retention: Retention,
        is_half: impl FnOnce(&[u8]) -> bool,
    ) -> Read<Self> {
        Ok(Self {
            buffer: ReplayBuffer::thaw(input, retention, sender, is_half)?,
            level: match input.u8()? {
                0 => Level::Written,
                1 => Level::Pong,
                2 => Level::App,
                _ => return Err(SnapshotError::Malformed("levels")),
            },
            in_doubt: input.count()?,
            lost: input.count()?,
            dropped: input.count()?,
            payload_bytes: input.count()?,
            throttle: None,
        })
    }
}
