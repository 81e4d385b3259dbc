//! Confirmation without the peer's help: a ping behind the data, whose pong says that everything before it was read.
//!
//! WebSocket answers pings in the order of the stream (RFC 6455 section 5.5.3), so `Pong(k)` confirms every message
//! sent before `Ping(k)`. At most one ping is outstanding; the next one waits until it is worth its bytes. A peer that
//! answers none in [`PONG_PATIENCE`] though it sends other bytes is taken for one that does not do pings: from then on
//! a message counts as confirmed once it is written, until a pong proves otherwise.

use std::time::Duration;

use crate::ids::Seq;
use crate::snapshot::{Read, Reader, Writer};
use crate::time::Time;

/// Messages after which a ping is worth sending.
const PING_MESSAGES: u64 = 16;

/// Bytes after which a ping is worth sending.
pub const PING_BYTES: usize = 32 * 1024;

/// Time after which a ping is worth sending for a single message.
const PING_INTERVAL: Duration = Duration::from_millis(20);

/// Time after which a ping goes along with messages, so that its own time seldom comes: alone it costs each side a
/// wake-up and a system call or two.
const RIDE_INTERVAL: Duration = Duration::from_millis(10);

/// How long a peer may leave a ping unanswered, from the first other byte that it sends, before it counts as one that
/// answers none.
pub const PONG_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a barrier ping's payload: four that name the attachment, four that count.
pub const PING_PAYLOAD_BYTES: usize = 8;

/// How sure the pipe is of what it calls confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Handed to the kernel.
    Written,
    /// Read by the peer's WebSocket stack.
    Pong,
    /// Read by the peer's application.
    App,
}

impl Level {
    /// Every level, the least first.
    pub const ALL: [Self; 3] = [Self::Written, Self::Pong, Self::App];

    /// The level's name on the wire and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Pong => "pong",
            Self::App => "app",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    covers: Seq,
    heard_at: Option<Time>,
}

/// The barrier of one attachment.
#[derive(Debug)]
pub struct Barrier {
    nonce: [u8; 4],
    counter: u32,
    outstanding: Option<Outstanding>,
    last_ping_at: Time,
    covered: Seq,
    bytes_since: usize,
    nopong: bool,
}

impl Barrier {
    /// A barrier whose pings bear `nonce`, which no other attachment's do.
    #[must_use]
    pub const fn new(nonce: [u8; 4], now: Time) -> Self {
        Self { nonce, counter: 0, outstanding: None, last_ping_at: now, covered: Seq(0), bytes_since: 0, nopong: false }
    }

    /// Starts counting behind `sent`: what came before was confirmed by an earlier attachment.
    pub const fn start_at(&mut self, sent: Seq) {
        self.covered = sent;
    }

    /// What a confirmation means now.
    #[must_use]
    pub const fn level(&self) -> Level {
        if self.nopong { Level::Written } else { Level::Pong }
    }

    /// Notes that the link took `bytes` bytes of messages.
    pub const fn wrote(&mut self, bytes: usize) {
        self.bytes_since = self.bytes_since.saturating_add(bytes);
    }

    /// Whether a ping behind the message `sent` is worth a write of its own at `now`.
    #[must_use]
    pub fn is_due(&self, sent: Seq, now: Time) -> bool {
        self.is_worth(sent, 0, PING_INTERVAL, now)
    }

    /// Whether a ping is worth its bytes in a write that takes `pending_bytes` of messages up to `sent` anyway.
    #[must_use]
    pub fn may_ride(&self, sent: Seq, pending_bytes: usize, now: Time) -> bool {
        self.is_worth(sent, pending_bytes, RIDE_INTERVAL, now)
    }

    fn is_worth(&self, sent: Seq, pending_bytes: usize, interval: Duration, now: Time) -> bool {
        let messages = sent.0.saturating_sub(self.covered.0);
        self.outstanding.is_none()
            && messages > 0
            && (messages >= PING_MESSAGES
                || self.bytes_since + pending_bytes >= PING_BYTES
                || now.since(self.last_ping_at) >= interval)
    }

    /// When a ping for the messages up to `sent` becomes worth its bytes, if none is outstanding.
    #[must_use]
    pub fn due_at(&self, sent: Seq) -> Option<Time> {
        (self.outstanding.is_none() && sent > self.covered).then(|| self.last_ping_at + PING_INTERVAL)
    }

    /// Whether a ping waits for its pong.
    #[must_use]
    pub const fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// The payload that the next ping will bear.
    #[must_use]
    pub fn next_payload(&self) -> [u8; PING_PAYLOAD_BYTES] {
        let mut payload = [0; PING_PAYLOAD_BYTES];
        payload[..4].copy_from_slice(&self.nonce);
        payload[4..].copy_from_slice(&self.counter.wrapping_add(1).to_be_bytes());
        payload
    }

    /// Notes that the ping with [`Self::next_payload`] is on its way, behind everything up to `covers`.
    pub fn pinged(&mut self, covers: Seq, now: Time) {
        self.counter = self.counter.wrapping_add(1);
        self.outstanding = Some(Outstanding { covers, heard_at: None });
        self.last_ping_at = now;
        self.covered = covers;
        self.bytes_since = 0;
    }

    /// The last message that a pong with `payload` confirms; `None` if it answers no ping of this attachment.
    pub fn ponged(&mut self, payload: &[u8]) -> Option<Seq> {
        let (nonce, counter) = payload.split_first_chunk::<4>()?;
        if *nonce != self.nonce || counter != self.counter.to_be_bytes() {
            return None;
        }
        let answered = self.outstanding.take()?;
        self.nopong = false;
        Some(answered.covers)
    }

    /// Notes that the peer sent bytes; while a ping is outstanding they show that it is alive and silent about it.
    pub fn heard(&mut self, now: Time) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.heard_at.get_or_insert(now);
        }
    }

    /// Notes that the peer is not read from now on: its pong may wait unread, which is no silence of its own.
    pub const fn unread(&mut self) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.heard_at = None;
        }
    }

    /// When an unanswered ping is given up, if the peer sends other bytes.
    #[must_use]
    pub fn patience_ends(&self) -> Option<Time> {
        // A peer that froze has its answer in the queue behind the first byte that it sends again.
        self.outstanding.filter(|_| !self.nopong)?.heard_at.map(|at| at + PONG_PATIENCE)
    }

    /// Whether a ping is out that was not given up.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.outstanding.is_some() && !self.nopong
    }

    /// Gives an unanswered ping up if its time has come; whether the peer now counts as one that answers none.
    pub fn tick(&mut self, now: Time) -> bool {
        if self.patience_ends().is_some_and(|end| now >= end) {
            self.give_up();
        }
        self.nopong
    }

    /// The peer counts as one that answers no pings, until it answers one.
    pub const fn give_up(&mut self) {
        self.nopong = true;
    }

    pub(crate) fn freeze(&self, out: &mut Writer) {
        let Self { nonce, counter, outstanding, last_ping_at, covered, bytes_since, nopong } = self;
        out.raw(nonce);
        out.u32(*counter);
        out.option(*outstanding, |out, Outstanding { covers, heard_at }| {
            out.seq(covers);
            out.option(heard_at, Writer::time);
        });
        out.time(*last_ping_at);
        out.seq(*covered);
        out.size(*bytes_since);
        out.flag(*nopong);
    }

    pub(crate) fn thaw(input: &mut Reader<'_>) -> Read<Self> {
        let mut nonce = [0; 4];
        nonce.copy_from_slice(input.raw(4)?);
        Ok(Self {
            nonce,
            counter: input.u32()?,
            outstanding: input
                .option(|input| Ok(Outstanding { covers: input.seq()?, heard_at: input.option(Reader::past)? }))?,
            last_ping_at: input.past()?,
            covered: input.seq()?,
            bytes_since: input.size()?,
            nopong: input.flag()?,
        })
    }

    /// Whether it asks for nothing behind `accepted`.
    pub(crate) fn is_within(&self, accepted: Seq) -> bool {
        self.covered <= accepted && self.outstanding.is_none_or(|outstanding| outstanding.covers <= accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    #[test]
    fn a_ping_of_its_own_waits_for_sixteen_messages_32_kib_or_20_ms() {
        let barrier = Barrier::new([1; 4], at(0));
        assert!(!barrier.is_due(Seq(0), at(1000)), "nothing to confirm");
        assert!(!barrier.is_due(Seq(15), at(19)));
        assert!(barrier.is_due(Seq(16), at(19)));
        assert!(barrier.is_due(Seq(1), at(20)));
    }

    #[test]
    fn a_ping_rides_along_after_sixteen_messages_32_kib_or_10_ms() {
        let barrier = Barrier::new([1; 4], at(0));
        assert!(!barrier.may_ride(Seq(0), PING_BYTES, at(1000)), "nothing to confirm");
        assert!(!barrier.may_ride(Seq(15), PING_BYTES - 1, at(9)));
        assert!(barrier.may_ride(Seq(16), 1, at(9)));
        assert!(barrier.may_ride(Seq(1), PING_BYTES, at(9)));
        assert!(barrier.may_ride(Seq(1), 1, at(10)));
    }

    #[test]
    fn only_the_pong_to_the_outstanding_ping_of_this_attachment_confirms() {
        let mut barrier = Barrier::new([1; 4], at(0));
        assert_eq!(barrier.ponged(&[1, 1, 1, 1, 0, 0, 0, 0]), None);
        let payload = barrier.next_payload();
        barrier.pinged(Seq(7), at(5));
        assert!(!barrier.is_due(Seq(100), at(500)), "one outstanding at most");
        assert_eq!(barrier.ponged(b""), None);
        assert_eq!(barrier.ponged(&[2, 2, 2, 2, 0, 0, 0, 1]), None);
        assert_eq!(barrier.ponged(&payload), Some(Seq(7)));
        assert_eq!(barrier.ponged(&payload), None, "a stale pong");
    }

    #[test]
    fn a_silent_peer_keeps_its_patience_and_a_talking_one_loses_it() {
        let mut barrier = Barrier::new([1; 4], at(0));
        let payload = barrier.next_payload();
        barrier.pinged(Seq(1), at(0));
        assert!(!barrier.tick(at(60_000)), "frozen, not without pongs");
        barrier.heard(at(60_000));
        assert!(!barrier.tick(at(69_999)));
        assert!(barrier.tick(at(70_000)));
        assert_eq!(barrier.level(), Level::Written);
        assert_eq!(barrier.ponged(&payload), Some(Seq(1)));
        assert_eq!(barrier.level(), Level::Pong);
    }
}
