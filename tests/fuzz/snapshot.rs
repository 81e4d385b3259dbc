//! Frozen pipes: what the reader refuses, and what becomes of what it takes.
//!
//! The corpus begins with pipes that this file brings into one state each; `the_snapshots_of_the_corpus_are_of_this_version`
//! says how to write them again when the form of a snapshot changes on purpose.

use std::sync::Arc;
use std::time::Duration;

use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::ids::{Attachment, BackendKey, Generation};
use holdline_core::pipe::{Action, Cause, EndedBy, Input, LinkLoss, Peer, Pipe};
use holdline_core::settings::{DownPolicy, PipeSettings, ReplayPolicy, ReplayTail};
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;

/// Deadlines after which a pipe that was closed must be over.
const TICKS_MAX: u32 = 300;

/// Bytes before the pipe, the last eight of them its length.
const HEAD_BYTES: usize = 16;

/// What any bytes do to the reader, and a pipe that it takes to its driver.
pub fn read(bytes: &[u8]) {
    thaw_and_live(bytes.to_vec());
    // Most mutations change the length, and would never be read further than that.
    let mut mended = bytes.to_vec();
    if let Some(body) = mended.len().checked_sub(HEAD_BYTES) {
        mended[HEAD_BYTES - 8..HEAD_BYTES].copy_from_slice(&(body as u64).to_be_bytes());
        thaw_and_live(mended);
    }
}

fn thaw_and_live(bytes: Vec<u8>) {
    let len = bytes.len();
    let Ok(snapshot) = Snapshot::from_bytes(bytes) else { return };
    let now = Time::from_micros(1_000);
    for settings in [PipeSettings::default(), other_settings()] {
        let Ok(pipe) = Pipe::restore(&snapshot, Arc::new(settings), 7, now) else { continue };
        assert!(pipe.memory_bytes() < 64 * len + (64 << 10), "{len} bytes became {}", pipe.memory_bytes());
        let mut driven = Driven { pipe, now, current: None, dialing: None, held: None, finished: false };
        driven.current = driven.pipe.view().backend.map(|_| driven.pipe.view().attachment);
        if !driven.act() {
            assert!(driven.pipe.snapshot(now) == snapshot, "frozen again, it is something else");
        }
        driven.live();
        driven.end();
    }
}

fn other_settings() -> PipeSettings {
    PipeSettings {
        replay: ReplayPolicy::Unsent,
        down: DownPolicy::Latest(2.try_into().unwrap()),
        replay_bytes_max: 100,
        message_bytes_max: 50,
        replay_tail: ReplayTail { bytes: 40, messages: 2, age: Duration::from_millis(5) },
        ..PipeSettings::default()
    }
}

struct Driven {
    pipe: Pipe,
    now: Time,
    /// The link that counts, as far as a driver can know.
    current: Option<Attachment>,
    dialing: Option<Attachment>,
    /// The link that waits to take over.
    held: Option<Attachment>,
    finished: bool,
}

impl Driven {
    fn open(settings: PipeSettings) -> Self {
        let now = Time::from_micros(5_000_000);
        let pipe = Pipe::open(Arc::new(settings), BackendKey(1), 3, now);
        Self { pipe, now, current: Some(Attachment::FIRST), dialing: None, held: None, finished: false }
    }

    /// Carries out what the pipe wants; whether it wanted anything.
    fn act(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.pipe.next_action() {
            acted = true;
            match action {
                Action::Dial(order) => self.dialing = Some(order.attachment),
                Action::CancelDial(_) => self.dialing = None,
                Action::DropBackend { attachment, .. } if self.held == Some(attachment) => self.held = None,
                Action::DropBackend { .. } => self.current = None,
                Action::TakeOver(attachment) => {
                    assert_eq!(self.held.take(), Some(attachment), "no attach waits under that number");
                    self.current = Some(attachment);
                }
                Action::Finish => self.finished = true,
                Action::Foretell { .. } | Action::ShutdownClient | Action::DropClient { .. } | Action::Report(_) => {}
            }
        }
        acted
    }

    fn hear(&mut self, side: Side, bytes: &[u8]) {
        let peer = match side {
            Side::Client => Peer::Client(Generation::FIRST),
            Side::Backend => Peer::Backend(self.current.unwrap_or(Attachment::FIRST)),
        };
        self.pipe.receive(peer, Input::Copy(bytes), self.now);
        self.act();
    }

    fn say(&mut self, side: Side, payload: &[u8]) {
        self.hear(side, &message(side, payload));
    }

    /// Lets the link of `side` take up to `room` bytes.
    fn give(&mut self, side: Side, room: usize) -> Vec<u8> {
        let gather = self.pipe.gather(side, self.now);
        let bytes: Vec<u8> = gather.as_slices().iter().flat_map(|slice| slice.to_vec()).take(room).collect();
        self.pipe.transmitted(side, bytes.len(), self.now);
        self.act();
        bytes
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.pipe.tick(self.now);
        self.act();
    }

    fn lose_worker(&mut self) {
        let attachment = self.current.unwrap_or(Attachment::FIRST);
        self.pipe.lost(Peer::Backend(attachment), LinkLoss::Reset, self.now);
        self.act();
    }

    fn attach(&mut self) {
        if let Some(attachment) = self.dialing.take()
            && self.pipe.attached(attachment, BackendKey(2), None, self.now)
        {
            match self.current {
                Some(_) => self.held = Some(attachment),
                None => self.current = Some(attachment),
            }
        }
        self.act();
    }

    /// A bit of everything that happens to a pipe.
    fn live(&mut self) {
        self.say(Side::Client, b"more");
        self.say(Side::Backend, b"and more");
        for room in [3, usize::MAX] {
            for side in [Side::Client, Side::Backend] {
                self.give(side, room);
            }
        }
        self.wait(25);
        let pings = self.give(Side::Backend, usize::MAX);
        self.hear(Side::Backend, &pong_to(&pings));
        self.lose_worker();
        self.attach();
        self.give(Side::Backend, usize::MAX);
        self.wait(3_000);
    }

    /// An operator's close ends it in any state, and nothing is left.
    fn end(&mut self) {
        let frame = CloseFrame::new(1001, "over");
        self.pipe.close(EndedBy::Operator, frame, self.now);
        self.act();
        for _ in 0..TICKS_MAX {
            let Some(at) = self.pipe.deadline() else { break };
            for side in [Side::Client, Side::Backend] {
                while !self.give(side, usize::MAX).is_empty() {}
            }
            self.now = self.now.max(at);
            self.wait(0);
        }
        assert!(self.finished, "it never ends: {:?}", self.pipe.view());
        assert_eq!((self.pipe.charged_bytes(), self.pipe.deadline()), (0, None));
    }
}

fn message(side: Side, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, Opcode::Binary, payload, (side == Side::Client).then_some([1, 2, 3, 4]));
    bytes
}

/// The pong to a ping that `bytes` end with.
fn pong_to(bytes: &[u8]) -> Vec<u8> {
    let mut pong = Vec::new();
    if let Some((head, payload)) = bytes.split_last_chunk::<8>()
        && let Some((_, mask)) = head.split_last_chunk::<4>()
    {
        let mut payload = *payload;
        frame::apply_mask(&mut payload, *mask);
        frame::encode(&mut pong, Opcode::Pong, &payload, None);
    }
    pong
}

/// Pipes frozen in one state each, by name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let frozen = |name, driven: Driven| (name, driven.pipe.snapshot(driven.now).into_bytes());
    vec![
        frozen("attached", Driven::open(PipeSettings::default())),
        frozen("amid", amid()),
        frozen("pinged", pinged()),
        frozen("outage", outage()),
        frozen("dialing", dialing()),
        frozen("leaving", leaving()),
        frozen("moving", moving()),
        frozen("ending", ending()),
        frozen("farewell", farewell()),
        frozen("tail", tail()),
        frozen("dropped", dropped()),
    ]
}

/// Half messages everywhere: half come and half written, both ways, and half a header.
fn amid() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    for side in [Side::Client, Side::Backend] {
        driven.say(side, b"of this a part is written");
        driven.say(side, b"this waits");
        driven.give(side.other(), 11);
    }
    driven.hear(Side::Client, &message(Side::Client, b"of this a part has come")[..15]);
    driven.hear(Side::Backend, &[0x01, 1, b'a', 0x80, 126]);
    driven
}

/// A ping on its way, one of ours half written, and pongs that wait.
fn pinged() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    driven.say(Side::Client, b"sent");
    driven.wait(25);
    driven.give(Side::Backend, usize::MAX);
    driven.say(Side::Client, b"sent behind the ping");
    let mut ping = Vec::new();
    frame::encode(&mut ping, Opcode::Ping, &[b'p'; 120], Some([5, 6, 7, 8]));
    for _ in 0..10 {
        driven.hear(Side::Client, &ping);
    }
    driven.give(Side::Client, 130);
    driven
}

/// No worker there: two dead, one known to be wrong, messages waiting again and for the first time.
fn outage() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    driven.say(Side::Client, b"in doubt");
    driven.give(Side::Backend, usize::MAX);
    driven.lose_worker();
    driven.attach();
    driven.hear(Side::Backend, &[0x88, 2, 0x0f, 0xa4]);
    driven.say(Side::Client, b"new");
    if let Some(attachment) = driven.dialing.take() {
        let failure = holdline_core::pipe::DialFailure::Failed(BackendKey(9));
        driven.pipe.dial_failed(attachment, failure, driven.now);
        driven.act();
    }
    if let Some(attachment) = driven.dialing.take() {
        let failure = holdline_core::pipe::DialFailure::NoCandidate { retry_after: None };
        driven.pipe.dial_failed(attachment, failure, driven.now);
        driven.act();
    }
    driven
}

fn dialing() -> Driven {
    let mut driven = outage();
    driven.pipe.pool_changed(driven.now);
    driven.act();
    driven
}

fn leaving() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    driven.say(Side::Client, b"in doubt");
    driven.give(Side::Backend, usize::MAX);
    driven.pipe.leave(Cause::Drain, driven.now);
    driven.say(Side::Client, b"for the next one");
    driven
}

/// A planned move whose next worker has answered before the old one may go.
fn moving() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    driven.say(Side::Client, b"in doubt");
    driven.give(Side::Backend, usize::MAX);
    driven.pipe.move_on(Cause::Handover, driven.now);
    driven.act();
    driven.attach();
    driven.say(Side::Client, b"for the next one");
    driven
}

/// A client that said goodbye, and a worker that has not been told yet.
fn ending() -> Driven {
    let mut driven = Driven::open(PipeSettings::default());
    driven.say(Side::Client, b"last words");
    let mut close = Vec::new();
    frame::encode(&mut close, Opcode::Close, &CloseFrame::new(4001, "bye").payload(), Some([1, 1, 1, 1]));
    driven.hear(Side::Client, &close);
    driven.say(Side::Backend, b"an answer");
    driven
}

/// A client that left without a worker to tell.
fn farewell() -> Driven {
    let mut driven = ending();
    driven.lose_worker();
    driven.give(Side::Client, 4);
    driven
}

/// Confirmed messages that are kept for a while.
fn tail() -> Driven {
    let replay_tail = ReplayTail { bytes: 0, messages: 3, age: Duration::from_secs(60) };
    let mut driven = Driven::open(PipeSettings { replay_tail, ..PipeSettings::default() });
    for payload in [b"one", b"two"] {
        driven.say(Side::Client, payload);
        driven.wait(25);
        let ping = driven.give(Side::Backend, usize::MAX);
        driven.hear(Side::Backend, &pong_to(&ping));
    }
    driven.wait(500);
    driven
}

/// Messages that made way for newer ones behind a half-written one.
fn dropped() -> Driven {
    let mut driven = Driven::open(PipeSettings { replay: ReplayPolicy::Unsent, ..other_settings() });
    driven.say(Side::Backend, b"half of this is written");
    driven.give(Side::Client, 5);
    for payload in [b"1", b"2", b"3", b"4"] {
        driven.say(Side::Backend, payload);
    }
    driven
}

/// Whether the reader takes `bytes` for a pipe.
pub fn is_taken(bytes: &[u8]) -> bool {
    let settings = Arc::new(PipeSettings::default());
    Snapshot::from_bytes(bytes.to_vec()).is_ok_and(|it| Pipe::restore(&it, settings, 7, Time::ZERO).is_ok())
}
