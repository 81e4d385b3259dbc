//! A lane: the messages of one direction, and what has become of all that there ever were.
//!
//! Invariant: nothing here belongs to a link. A lane outlives the links at both its ends, and a message in it can go out
//! on any that comes.

use crate::assembler::Message;
use crate::frame::Side;
use crate::ids::Seq;
use crate::leg::barrier::Level;
use crate::replay::{ReplayBuffer, Retention};
use crate::snapshot::{Read, Reader, SnapshotError, Writer};
use crate::throttle::Throttle;
use crate::time::Time;

/// One direction of a pipe.
#[derive(Debug)]
pub(crate) struct Lane {
    pub buffer: ReplayBuffer,
    /// How sure it is that what is confirmed has arrived.
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

    /// Confirms what was sent, where the link's peer is not asked for it or answers nothing.
    pub fn confirm_if_written(&mut self, link: Level, now: Time) {
        if link == Level::Written {
            self.confirm(self.buffer.sent(), link, now);
        }
    }

    /// The peer has everything up to `seq`, as sure as `level` says; whether more is confirmed now. What an application
    /// has committed stays so until its peer's library says more.
    pub fn confirm(&mut self, seq: Seq, level: Level, now: Time) -> bool {
        let before = self.buffer.confirmed();
        self.buffer.confirm(seq, now);
        let confirmed = self.buffer.confirmed();
        let all_of_it = seq >= confirmed && confirmed > Seq(0);
        match level {
            Level::App if all_of_it => self.level = level,
            Level::Pong | Level::Written if confirmed > before || self.level != Level::App => self.level = level,
            Level::App | Level::Pong | Level::Written => {}
        }
        confirmed > before
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
