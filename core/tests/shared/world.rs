//! The world around one stream: its own pipe, its workers, its viewers, and the clock.

mod ending;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes};
use holdline_core::backoff::Draw;
use holdline_core::close::CloseFrame;
use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, Generation};
use holdline_core::limits::Rate;
use holdline_core::pipe::{Action, Fact, Input, LinkLoss, Peer, Pipe};
use holdline_core::settings::{DownPolicy, OnExceed, PipeLimits, PipeSettings};
use holdline_core::shared::cutter::{Cutter, Piece};
use holdline_core::shared::merge::{INBOX_BYTES_MAX, LEFT_BEHIND_BYTES_MAX};
use holdline_core::shared::{MESSAGE_OVERHEAD_BYTES, Stream, StreamSettings, stream_pipe, viewer_pipe};
use holdline_core::time::Time;

use crate::Marks;
use crate::viewer::{Pace, Viewer};
use crate::wire::{Item, Reader, close_payload, frame};

const STEPS: usize = 400;
const MESSAGE_BYTES_MAX: u64 = 3_000;
const TAP_BYTES_MAX: usize = 30_000;

/// A worker and its link.
struct Worker {
    attachment: Attachment,
    reader: Reader,
    /// What it has written and the pipe has not read.
    out: Vec<u8>,
    said_close: bool,
}

struct World {
    draw: Draw,
    now: Time,
    settings: StreamSettings,
    viewer_settings: Arc<PipeSettings>,
    stream: Stream,
    pipe: Pipe,
    cutter: Cutter,
    current: Bytes,
    leaving: bool,
    ended: bool,
    worker: Option<Worker>,
    /// What all pipes together may take in: little when memory is short.
    room: usize,
    dialing: Option<(Attachment, Time)>,
    viewers: Vec<Viewer>,
    /// The numbers of the messages that the stream was given, and their sizes in it.
    sent: Vec<u64>,
    sizes: Vec<usize>,
    said: u64,
    /// The last tap of each viewer that a worker got, and the last that this worker got.
    tapped: Vec<(u64, u64)>,
    /// What the worker's messages that are still somewhere take, as their memory itself tells.
    alive: Arc<AtomicUsize>,
    finished: bool,
    worker_told: Option<u16>,
    marks: Marks,
}

/// Runs one seed to its end.
pub fn run(seed: u64) -> Marks {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.calm_down();
    match world.below(3) {
        0 => world.end_by_worker(),
        1 => world.end_without_viewers(),
        _ => world.end_by_force(),
    }
    world.marks
}

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed ^ 0x5DEE_CE66);
        let pick = |draw: &mut Draw, choices: &[u64]| choices[(draw.bits() % choices.len() as u64) as usize];
        let down = match pick(&mut draw, &[0, 0, 1, 3]) {
            0 => DownPolicy::Keep,
            keep => DownPolicy::Latest((keep as u32).try_into().unwrap()),
        };
        let route = PipeSettings {
            down,
            stall_max: Duration::from_millis(pick(&mut draw, &[200, 1_000, 15_000])),
            window_bytes: pick(&mut draw, &[2_000, 20_000, 262_144]) as usize,
            replay_bytes_max: pick(&mut draw, &[20_000, 200_000]) as usize,
            limits: limits(pick(&mut draw, &[0, 0, 12]), Duration::from_millis(100), OnExceed::Throttle),
            ..PipeSettings::default()
        };
        let (taps, on_exceed) = [(0, OnExceed::Throttle), (2, OnExceed::Throttle), (3, OnExceed::Close)]
            [pick(&mut draw, &[0, 0, 1, 2]) as usize];
        let watched_by = PipeSettings { limits: limits(taps, Duration::from_millis(500), on_exceed), ..route.clone() };
        let client_grace = (pick(&mut draw, &[0, 0, 1]) == 1).then_some(Duration::from_secs(1));
        let settings = StreamSettings {
            bytes_max: pick(&mut draw, &[2_000, 10_000, 100_000]) as usize,
            catch_up: pick(&mut draw, &[0, 0, 1, 5]) as u32,
            linger: Duration::from_millis(pick(&mut draw, &[0, 500])),
        };
        let now = Time::from_micros(1_000_000);
        // It is watched when it begins: who opened it is there.
        let stream = Stream::new(StreamSettings { linger: Duration::from_secs(3600), ..settings }, now);
        Self {
            pipe: Pipe::open(Arc::new(stream_pipe(&route)), BackendKey(1), seed, now),
            viewer_settings: Arc::new(PipeSettings { client_grace, ..viewer_pipe(&watched_by) }),
            room: usize::MAX,
            worker: Some(Worker::new(Attachment::FIRST)),
            stream,
            settings,
            draw,
            now,
            cutter: Cutter::new(Side::Backend),
            current: Bytes::new(),
            leaving: false,
            ended: false,
            dialing: None,
            viewers: Vec::new(),
            sent: Vec::new(),
            sizes: Vec::new(),
            said: 0,
            tapped: Vec::new(),
            alive: Arc::default(),
            finished: false,
            worker_told: None,
            marks: Marks::new(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw.bits() % end
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn mark(&mut self, mark: &'static str) {
        *self.marks.entry(mark).or_default() += 1;
    }

    fn step(&mut self) {
        let micros = if self.once_in(50) { 400_000 } else { self.below(20_000) };
        self.now = self.now + Duration::from_micros(micros);
        if self.viewers.is_empty() || (self.viewers.len() < 12 && self.once_in(25)) {
            self.join();
        }
        if self.once_in(25) {
            self.room = [0, 500, usize::MAX, usize::MAX][self.below(4) as usize];
            self.mark("memory is short");
        }
        self.worker_step();
        self.viewers_act();
        self.turns(true);
    }

    fn join(&mut self) {
        let Some(seat) = self.stream.join() else { return };
        let pace = match self.below(6) {
            0 => Pace::Stuck,
            1 | 2 => Pace::Slow,
            _ => Pace::Quick,
        };
        let caught_up = self.kept_for_newcomers();
        if caught_up > 0 {
            self.mark("caught up");
        }
        if !self.sent.is_empty() {
            self.mark("joined late");
        }
        let first = self.sent.len() - caught_up;
        let number = self.viewers.len();
        self.tapped.push((0, 0));
        self.viewers.push(Viewer::new(number, seat, self.viewer_settings.clone(), first, pace, self.now));
    }

    /// The naive version of what the ring does in steps: the newest that fit, as many as a newcomer may have.
    fn kept_for_newcomers(&self) -> usize {
        let mut bytes = 0;
        let fitting = self.sizes.iter().rev().take_while(|&&size| {
            bytes += size + MESSAGE_OVERHEAD_BYTES;
            bytes <= self.settings.bytes_max
        });
        // The newest is kept, be it ever so large.
        fitting.count().max(usize::from(!self.sizes.is_empty())).min(self.settings.catch_up as usize)
    }

    fn viewers_act(&mut self) {
        for index in 0..self.viewers.len() {
            let now = self.now;
            match self.below(40) {
                0..=5 => {
                    let bytes = if self.once_in(3) { TAP_BYTES_MAX as u64 } else { self.below(50) };
                    self.viewers[index].tap(bytes as usize, now);
                }
                6 if self.once_in(8) => self.viewers[index].say_close(now),
                7 if self.once_in(8) => {
                    self.mark("vanished");
                    self.viewers[index].vanish(now);
                }
                8 => self.viewers[index].pace = Pace::Quick,
                10..=12 if self.viewers[index].comes_back(now) => self.mark("a viewer came back"),
                9 if self.once_in(10) && self.viewers[index].is_evicted_at(now) => {
                    self.mark("a viewer evicted");
                }
                _ => {}
            }
        }
    }

    fn worker_step(&mut self) {
        if let Some((attachment, at)) = self.dialing
            && self.now >= at
        {
            self.dialing = None;
            assert!(self.pipe.attached(attachment, BackendKey(1 + attachment.0), None, self.now));
            self.worker = Some(Worker::new(attachment));
            self.tapped.iter_mut().for_each(|(_, this)| *this = 0);
        }
        if self.worker.is_none() {
            return;
        }
        for _ in 0..self.below(4) {
            self.worker_says();
        }
        let chunk = match self.below(3) {
            0 => self.below(200) as usize,
            _ => usize::MAX,
        };
        self.deliver(chunk);
        if self.once_in(60) {
            self.kill_worker();
        }
    }

    fn worker_says(&mut self) {
        self.said += 1;
        let mut payload = self.said.to_be_bytes().to_vec();
        payload.resize(8 + self.below(MESSAGE_BYTES_MAX) as usize, self.said as u8);
        let fragments = self.once_in(5);
        if fragments {
            self.mark("several fragments");
        }
        let Some(worker) = &mut self.worker else { return };
        if fragments {
            let (head, tail) = payload.split_at(payload.len() / 2);
            worker.out.extend(frame(0x02, head, None));
            worker.out.extend(frame(0x80, tail, None));
        } else {
            worker.out.extend(frame(0x82, &payload, None));
        }
    }

    /// Lets the stream's pipe read up to `chunk` bytes of its worker.
    fn deliver(&mut self, chunk: usize) {
        let Some(worker) = &mut self.worker else { return };
        if self.pipe.read_budget(Side::Backend, self.room) == 0 {
            return;
        }
        let bytes: Vec<u8> = worker.out.drain(..chunk.min(worker.out.len())).collect();
        self.pipe.receive(Peer::Backend(worker.attachment), Input::Share(&bytes.into()), self.now);
        self.pump();
    }

    fn kill_worker(&mut self) {
        let Some(worker) = &self.worker else { return };
        let attachment = worker.attachment;
        if !worker.out.is_empty() {
            self.mark("half a message from a dead worker");
        }
        let loss = if self.once_in(2) { LinkLoss::Eof } else { LinkLoss::Reset };
        self.pipe.lost(Peer::Backend(attachment), loss, self.now);
        self.pump();
    }

    /// Moves everything there is to move, in an order that changes.
    fn turns(&mut self, rough: bool) {
        self.pipe.tick(self.now);
        self.pump();
        let first = self.below(self.viewers.len().max(1) as u64) as usize;
        for index in 0..self.viewers.len() {
            let index = (first + index) % self.viewers.len();
            let starved = rough && self.once_in(5);
            let room = if starved { None } else { Some(self.room) };
            let viewer = &mut self.viewers[index];
            viewer.turn(&mut self.stream, &self.sent, room, &mut self.draw, &mut self.marks, self.now);
        }
        self.pump();
        let down = self.settings.bytes_max.max(self.settings.bytes_max / 4 + MESSAGE_BYTES_MAX as usize + 100);
        let window = self.viewer_settings.window_bytes;
        let up = self.viewers.len() * (INBOX_BYTES_MAX + window + TAP_BYTES_MAX);
        let down = down + self.viewers.len() * (window.max(self.viewer_settings.replay_bytes_max) + 4_000);
        assert!(self.stream.held_bytes() <= down + up + LEFT_BEHIND_BYTES_MAX, "{} held", self.stream.held_bytes());
        self.check_books();
    }

    /// Each message of the worker is charged once, as long as it is anywhere, and by no viewer's pipe.
    fn check_books(&mut self) {
        let (charged, alive) = (self.stream.held().bytes(), self.alive.load(Relaxed));
        assert_eq!(charged, alive, "charged, and alive");
        for viewer in &self.viewers {
            let (charged, own) = (viewer.charged_bytes(), viewer.own_bytes());
            assert!(charged <= own, "viewer {}: charged {charged} for {own} of its own", viewer.number);
        }
        if alive > 2 * self.settings.bytes_max {
            self.mark("viewers hold what the ring let go");
        }
    }

    /// The stream's own pipe: up, down, and what it wants done, until it wants nothing.
    fn pump(&mut self) {
        loop {
            let moved = self.read_up() + self.write_worker() + self.write_stream();
            if !self.act() && moved == 0 {
                return;
            }
        }
    }

    fn read_up(&mut self) -> usize {
        if self.pipe.read_budget(Side::Client, usize::MAX) == 0 {
            return 0;
        }
        if self.current.is_empty() && !self.leaving {
            if let Some((message, _)) = self.stream.take_up() {
                self.current = message;
            } else if self.stream.expire(self.now) {
                self.mark("gone after the linger");
                self.leaving = true;
                self.current = frame(0x88, &close_payload(1001, "nobody is watching"), Some([3; 4])).into();
            }
        }
        let some = self.current.len().min(1 + self.below(2_000) as usize);
        self.pipe.receive(Peer::Client(Generation::FIRST), Input::Copy(&self.current[..some]), self.now);
        self.current.advance(some);
        some
    }

    fn write_worker(&mut self) -> usize {
        let Some(worker) = &mut self.worker else { return 0 };
        let gather = self.pipe.gather(Side::Backend, self.now);
        let bytes: Vec<u8> = gather.as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
        if bytes.is_empty() {
            return 0;
        }
        self.pipe.transmitted(Side::Backend, bytes.len(), self.now);
        for item in worker.reader.read(&bytes) {
            match item {
                Item::Text(text) => note_tap(&mut self.tapped, &text, &mut self.marks),
                Item::Ping(payload) => worker.out.extend(frame(0x8a, &payload, None)),
                Item::Close(code, reason) => {
                    self.worker_told = Some(code);
                    if !worker.said_close {
                        worker.out.extend(frame(0x88, &close_payload(code, &reason), None));
                    }
                }
                Item::Binary(_) | Item::Pong(_) => {}
            }
        }
        bytes.len()
    }

    fn write_stream(&mut self) -> usize {
        let gather = self.pipe.gather(Side::Client, self.now);
        let bytes: Vec<u8> = gather.as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() && (self.stream.room_down() > 0 || self.cutter.partial_bytes() > 0) {
            let (used, piece) = self.cutter.cut(rest).expect("a pipe writes what can be cut");
            rest = &rest[used..];
            match piece {
                Some(Piece::Message(message)) => self.push(message),
                Some(Piece::Close(words)) => self.end(words),
                None => {}
            }
        }
        if !rest.is_empty() {
            self.mark("the quickest viewer sets the pace");
        }
        let taken = bytes.len() - rest.len();
        self.pipe.transmitted(Side::Client, taken, self.now);
        taken
    }

    fn push(&mut self, message: Bytes) {
        assert!(!self.ended, "a message behind the end");
        let mut reader = Reader::new(false);
        let items = reader.read(&message);
        let [Item::Binary(payload)] = &items[..] else { panic!("not one whole message: {items:?}") };
        let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
        assert!(self.sent.last().is_none_or(|&last| last < number), "{number} out of order");
        self.sent.push(number);
        self.sizes.push(message.len());
        self.stream.push(Bytes::from_owner(Witness::of(message, &self.alive)));
    }

    fn end(&mut self, words: CloseFrame) {
        self.ended = true;
        if !self.leaving {
            self.leaving = true;
            self.current = frame(0x88, &close_payload(words.code, &words.reason), Some([3; 4])).into();
        }
        self.stream.end(words);
    }

    fn act(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.pipe.next_action() {
            acted = true;
            match action {
                Action::Dial(order) => {
                    let longest = if self.once_in(4) { 3_000_000 } else { 200_000 };
                    let wait = Duration::from_micros(self.below(longest));
                    self.dialing = Some((order.attachment, self.now + wait));
                }
                Action::CancelDial(_) => self.dialing = None,
                Action::Foretell { .. } | Action::TakeOver(_) => panic!("it is never moved on purpose"),
                Action::DropBackend { last_words, .. } => self.drop_worker(&last_words),
                Action::ShutdownClient | Action::DropClient { .. } => {}
                Action::Report(Fact::Replayed { .. }) => self.mark("taps replayed"),
                Action::Report(Fact::Limited { .. }) => self.mark("the worker throttled"),
                Action::Report(_) => {}
                Action::Finish => self.finished = true,
            }
        }
        acted
    }

    fn drop_worker(&mut self, last_words: &[u8]) {
        let Some(mut worker) = self.worker.take() else { return };
        for item in worker.reader.read(last_words) {
            if let Item::Close(code, _) = item {
                self.worker_told = Some(code);
            }
        }
    }
}

/// A message that says when its memory goes.
struct Witness {
    message: Bytes,
    alive: Arc<AtomicUsize>,
}

impl Witness {
    fn of(message: Bytes, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(message.len() + MESSAGE_OVERHEAD_BYTES, Relaxed);
        Self { message, alive: alive.clone() }
    }
}

impl AsRef<[u8]> for Witness {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.message.len() + MESSAGE_OVERHEAD_BYTES, Relaxed);
    }
}

impl Worker {
    fn new(attachment: Attachment) -> Self {
        Self { attachment, reader: Reader::new(true), out: Vec::new(), said_close: false }
    }
}

/// So many messages in `per`; none is no limit.
fn limits(messages: u64, per: Duration, on_exceed: OnExceed) -> PipeLimits {
    match messages {
        0 => PipeLimits::OFF,
        messages => PipeLimits { messages: Rate::new(messages, per), on_exceed, ..PipeLimits::OFF },
    }
}

/// A tap came: never one ahead of its turn, and on one worker each once.
fn note_tap(tapped: &mut [(u64, u64)], text: &[u8], marks: &mut Marks) {
    let text = std::str::from_utf8(text).unwrap();
    let mut parts = text.split(':');
    let (viewer, tap) = (parts.next().unwrap(), parts.next().unwrap());
    let (viewer, tap): (usize, u64) = (viewer.parse().unwrap(), tap.parse().unwrap());
    let (got, this) = &mut tapped[viewer];
    assert!(tap <= *got + 1, "viewer {viewer}: tap {tap} came before {}", *got + 1);
    assert!(*this == 0 || tap == *this + 1, "viewer {viewer}: tap {tap} after {this} on one worker");
    if tap <= *got {
        *marks.entry("taps came again").or_default() += 1;
    }
    (*got, *this) = ((*got).max(tap), tap);
}
