//! Looking on at a pipe: how its messages begin, for an operator who asked for that (`admin.tap`).
//!
//! The pipe's task tells each message before it is written to its receiver, and waits for nothing: what the reader does not take
//! in time is counted and not told. Bounds: [`TAP_MESSAGES_MAX`] messages wait for the reader, with at most
//! `admin.tap_bytes_max` bytes of each. A message that was dropped before it could be written is not told; its number is
//! missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use holdline_core::frame::{Kind, Side};
use holdline_core::ids::{LaneName, Seq};
use holdline_core::pipe::Pipe;
use holdline_core::replay::{Head, HeldMessage};
use tokio::sync::mpsc;

/// Messages that wait for the reader of a tap.
pub const TAP_MESSAGES_MAX: usize = 256;

/// How one message began.
#[derive(Debug)]
pub struct Tapped {
    /// When it had come in.
    pub at: SystemTime,
    /// Which way it goes.
    pub lane: LaneName,
    /// Its number in the lane.
    pub seq: Seq,
    /// Text or binary.
    pub kind: Kind,
    /// Whether its payload is compressed, and so is `head`.
    pub compressed: bool,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// The first of them.
    pub head: Vec<u8>,
}

/// The end of a tap that the pipe's task holds.
#[derive(Debug)]
pub struct Tap {
    bytes_max: usize,
    messages: mpsc::Sender<Tapped>,
    missed: Arc<AtomicU64>,
    up: Seq,
    down: Seq,
}

/// The end that the operator reads; dropped, it ends the tap.
#[derive(Debug)]
pub struct TapReader {
    messages: mpsc::Receiver<Tapped>,
    missed: Arc<AtomicU64>,
}

impl Tap {
    /// Both ends of a tap that tells at most `bytes_max` bytes of each message.
    #[must_use]
    pub fn pair(bytes_max: usize) -> (Self, TapReader) {
        let (sender, receiver) = mpsc::channel(TAP_MESSAGES_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let tap =
            Self { bytes_max, messages: sender, missed: missed.clone(), up: Seq::default(), down: Seq::default() };
        (tap, TapReader { messages: receiver, missed })
    }

    /// The tap of a pipe that tells what comes from now on.
    #[must_use]
    pub(crate) fn begun_at(mut self, pipe: &Pipe) -> Self {
        (self.up, self.down) = (pipe.accepted(LaneName::Up), pipe.accepted(LaneName::Down));
        self
    }

    /// Whether its operator still looks on.
    #[must_use]
    pub(crate) fn is_read(&self) -> bool {
        !self.messages.is_closed()
    }

    /// Tells the messages that have come in since the last time.
    pub(crate) fn tell(&mut self, pipe: &Pipe) {
        let (up, down) = (pipe.accepted(LaneName::Up), pipe.accepted(LaneName::Down));
        if up > self.up {
            self.tell_lane(pipe, LaneName::Up, Side::Client, self.up);
        }
        if down > self.down {
            self.tell_lane(pipe, LaneName::Down, Side::Backend, self.down);
        }
        (self.up, self.down) = (up, down);
    }

    fn tell_lane(&self, pipe: &Pipe, lane: LaneName, sender: Side, seen: Seq) {
        let mut news: Vec<HeldMessage<'_>> = pipe.newest(lane, seen).collect();
        news.reverse();
        let at = SystemTime::now();
        for message in news {
            let Ok(place) = self.messages.try_reserve() else {
                self.missed.fetch_add(1, Relaxed);
                continue;
            };
            let Some(Head { kind, compressed, bytes: head }) = message.head(sender, self.bytes_max) else { continue };
            let (seq, payload_bytes) = (message.seq(), message.payload_bytes());
            place.send(Tapped { at, lane, seq, kind, compressed, payload_bytes, head });
        }
    }
}

impl TapReader {
    /// The next message; nothing once the pipe is over.
    pub async fn next(&mut self) -> Option<Tapped> {
        self.messages.recv().await
    }

    /// Messages that came too fast to be told, since this was asked last.
    #[must_use]
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Relaxed)
    }
}
