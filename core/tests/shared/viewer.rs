//! One viewer: its client, its pipe, and its end of the link to the stream.

use std::sync::Arc;

use holdline_core::backoff::Draw;
use holdline_core::close::CloseFrame;
use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, Generation, LaneName};
use holdline_core::pipe::{Action, Fact, Input, LinkLoss, Peer, Pipe};
use holdline_core::settings::{DownPolicy, PipeSettings};
use holdline_core::shared::cutter::{Cutter, Piece};
use holdline_core::shared::{MESSAGE_OVERHEAD_BYTES, Seat, Stream, Taken};
use holdline_core::time::Time;

use crate::Marks;
use crate::wire::{Item, Reader, close_payload, frame};

const STREAM: Peer = Peer::Backend(Attachment::FIRST);

/// How a client takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    Quick,
    Slow,
    Stuck,
}

/// One viewer and what it has seen.
pub struct Viewer {
    pub number: usize,
    pub pace: Pace,
    /// What the client said and its pipe took.
    pub taps: u64,
    /// Messages given up on their way to the worker.
    pub lost_up: u64,
    /// The close code that the client was told.
    pub told: Option<u16>,
    pub finished: bool,
    pub said_close: bool,
    evicted: bool,
    pipe: Pipe,
    keeps: bool,
    seat: Option<Seat>,
    cutter: Cutter,
    closing: Option<CloseFrame>,
    over: bool,
    client: Reader,
    client_gone: bool,
    generation: Generation,
    /// Place among the messages of the stream of the one that it has to hear next.
    next: usize,
    heard: usize,
    /// The two of them at the last message that the client has confirmed.
    confirmed: (usize, usize),
    passed: u64,
    joined: usize,
}

impl Viewer {
    pub fn new(number: usize, seat: Seat, settings: Arc<PipeSettings>, next: usize, pace: Pace, now: Time) -> Self {
        let keeps = settings.down == DownPolicy::Keep;
        Self {
            number,
            pace,
            taps: 0,
            lost_up: 0,
            told: None,
            finished: false,
            said_close: false,
            evicted: false,
            pipe: Pipe::open(settings, BackendKey(u64::MAX), number as u64, now),
            keeps,
            seat: Some(seat),
            cutter: Cutter::new(Side::Client),
            closing: None,
            over: false,
            client: Reader::new(false),
            client_gone: false,
            generation: Generation::FIRST,
            next,
            heard: 0,
            confirmed: (next, 0),
            passed: 0,
            joined: next,
        }
    }

    /// Whether it is an ordinary viewer still, which has neither said goodbye nor been told it.
    pub fn is_watching(&self) -> bool {
        !self.finished && !self.client_gone && !self.said_close && !self.evicted && self.told.is_none()
    }

    /// The client says something, if its pipe reads it.
    pub fn tap(&mut self, bytes: usize, now: Time) {
        if !self.is_watching() || self.pipe.read_budget(Side::Client, usize::MAX) == 0 {
            return;
        }
        let mut text = format!("{}:{}:", self.number, self.taps + 1).into_bytes();
        text.resize(text.len() + bytes, b'x');
        self.pipe.receive(Peer::Client(self.generation), Input::Copy(&frame(0x81, &text, Some([1, 2, 3, 4]))), now);
        // A pipe that has begun to end takes nothing any more, before its client knows.
        self.taps = self.pipe.view().up.accepted.0;
    }

    pub fn say_close(&mut self, now: Time) {
        if !self.is_watching() {
            return;
        }
        self.said_close = true;
        let bytes = frame(0x88, &close_payload(1000, "bye"), Some([5, 6, 7, 8]));
        self.pipe.receive(Peer::Client(self.generation), Input::Copy(&bytes), now);
    }

    pub fn vanish(&mut self, now: Time) {
        if !self.client_gone {
            self.client_gone = true;
            self.pipe.lost(Peer::Client(self.generation), LinkLoss::Eof, now);
        }
    }

    /// A client that has a name comes back, and begins behind what it has confirmed; whether it was waited for.
    pub fn comes_back(&mut self, now: Time) -> bool {
        if !self.client_gone || !self.pipe.awaits_client() {
            return false;
        }
        self.generation = self.pipe.client_attached(None, now).expect("it is awaited");
        self.client = Reader::new(false);
        self.client_gone = false;
        if self.keeps {
            (self.next, self.heard) = self.confirmed;
        }
        true
    }

    /// Memory is out, and it has to go; whether it was there to be told so.
    pub fn is_evicted_at(&mut self, now: Time) -> bool {
        let evicted = self.is_watching() && self.pipe.evict(now);
        self.evicted |= evicted;
        evicted
    }

    pub fn charged_bytes(&self) -> usize {
        self.pipe.charged_bytes()
    }

    /// What its pipe holds by itself, at most: what its client said, and its place in the list for each message of the
    /// stream.
    pub fn own_bytes(&self) -> usize {
        let view = self.pipe.view();
        view.up.buffered_bytes + (view.down.accepted.0 - view.down.confirmed.0) as usize * 16
    }

    /// One turn of its pipe, which may take in so much; nothing when its thread is too busy to let it read the stream.
    pub fn turn(
        &mut self,
        stream: &mut Stream,
        sent: &[u64],
        room: Option<usize>,
        draw: &mut Draw,
        marks: &mut Marks,
        now: Time,
    ) {
        self.pipe.tick(now);
        loop {
            let mut moved = self.write_up(stream, marks, now);
            if let Some(room) = room {
                moved += self.read_stream(stream, room, marks, now);
            }
            moved += self.write_client(sent, draw, now);
            if !self.act(stream, marks, now) && moved == 0 {
                return;
            }
        }
    }

    fn write_up(&mut self, stream: &mut Stream, marks: &mut Marks, now: Time) -> usize {
        let Some(seat) = &self.seat else { return 0 };
        let bytes: Vec<u8> =
            self.pipe.gather(Side::Backend, now).as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
        if bytes.is_empty() {
            return 0;
        }
        let mut room = stream.room(seat);
        if room == 0 {
            *marks.entry("held up").or_default() += 1;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && room > 0 {
            let (used, piece) = self.cutter.cut(rest).expect("a pipe writes what can be cut");
            rest = &rest[used..];
            match piece {
                Some(Piece::Message(message)) => {
                    room = room.saturating_sub(message.len() + MESSAGE_OVERHEAD_BYTES);
                    stream.offer(seat, message);
                }
                Some(Piece::Close(frame)) => self.closing = Some(frame),
                None => {}
            }
        }
        let taken = bytes.len() - rest.len();
        self.pipe.transmitted(Side::Backend, taken, now);
        taken
    }

    fn read_stream(&mut self, stream: &mut Stream, room: usize, marks: &mut Marks, now: Time) -> usize {
        let Some(seat) = &mut self.seat else { return 0 };
        if self.over || self.pipe.read_budget(Side::Backend, room) == 0 {
            return 0;
        }
        let taken = self.closing.take().map_or_else(|| stream.take(seat), Taken::End);
        match taken {
            Taken::Message(message) => {
                self.pipe.receive(STREAM, Input::Common(&message), now);
                message.len()
            }
            Taken::Skipped(messages) => {
                *marks.entry("passed over by the ring").or_default() += 1;
                self.pipe.passed_over(messages, now);
                1
            }
            Taken::End(words) => {
                self.over = true;
                let bytes = frame(0x88, &close_payload(words.code, &words.reason), None);
                self.pipe.receive(STREAM, Input::Copy(&bytes), now);
                bytes.len()
            }
            Taken::Nothing => 0,
        }
    }

    fn write_client(&mut self, sent: &[u64], draw: &mut Draw, now: Time) -> usize {
        if self.client_gone {
            return 0;
        }
        let bytes: Vec<u8> =
            self.pipe.gather(Side::Client, now).as_slices().iter().flat_map(|slice| slice.to_vec()).collect();
        let takes = match self.pace {
            Pace::Quick => bytes.len(),
            // Once in a while a little.
            Pace::Slow if draw.bits().is_multiple_of(4) => bytes.len().min((draw.bits() % 700) as usize),
            Pace::Slow | Pace::Stuck => 0,
        };
        if takes == 0 {
            return 0;
        }
        self.pipe.transmitted(Side::Client, takes, now);
        for item in self.client.read(&bytes[..takes]) {
            self.hear(&item, sent, now);
        }
        takes
    }

    /// Holds what the client hears against what the stream was given.
    fn hear(&mut self, item: &Item, sent: &[u64], now: Time) {
        match item {
            Item::Binary(payload) => {
                let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
                assert!(payload[8..].iter().all(|&byte| byte == number as u8), "message {number} is spliced");
                let place = sent.binary_search(&number).expect("only what a worker said whole");
                assert!(place >= self.next, "viewer {}: {number} twice or out of order", self.number);
                assert!(!self.keeps || place == self.next, "viewer {}: a gap before {number}", self.number);
                self.next = place + 1;
                self.heard += 1;
            }
            Item::Ping(payload) => {
                if payload != b"holdline" {
                    self.confirmed = (self.next, self.heard);
                }
                let pong = frame(0x8a, payload, Some([9; 4]));
                self.pipe.receive(Peer::Client(self.generation), Input::Copy(&pong), now);
            }
            Item::Close(code, reason) => {
                assert!(!self.evicted || *code == 1013, "it was evicted, and told {code}");
                self.told = Some(*code);
                if !self.said_close {
                    let answer = frame(0x88, &close_payload(*code, reason), Some([9; 4]));
                    self.pipe.receive(Peer::Client(self.generation), Input::Copy(&answer), now);
                }
            }
            Item::Text(_) | Item::Pong(_) => panic!("no peer says {item:?}"),
        }
    }

    fn act(&mut self, stream: &mut Stream, marks: &mut Marks, now: Time) -> bool {
        let mut acted = false;
        while let Some(action) = self.pipe.next_action() {
            acted = true;
            match action {
                Action::Dial(_) | Action::CancelDial(_) | Action::Foretell { .. } | Action::TakeOver(_) => {
                    panic!("a viewer never looks for another worker")
                }
                Action::DropBackend { .. } => {
                    let seat = self.seat.take().expect("it is dropped once");
                    self.lost_up += stream.leave(seat, now);
                }
                Action::ShutdownClient => {}
                Action::DropClient { .. } => self.client_gone = true,
                Action::Report(fact) => self.note(&fact, marks),
                Action::Finish => self.finished = true,
            }
        }
        acted
    }

    fn note(&mut self, fact: &Fact, marks: &mut Marks) {
        match fact {
            Fact::Dropped { messages, .. } => {
                *marks.entry("dropped by latest").or_default() += 1;
                self.passed += messages;
            }
            Fact::Lost { lane: LaneName::Up, messages, .. } | Fact::LeftInDoubt { lane: LaneName::Up, messages } => {
                self.lost_up += messages;
            }
            Fact::Ended { code: 1013, reason, .. } if reason == "client too slow" => {
                assert!(self.keeps, "with latest, no viewer is too slow");
                *marks.entry("too slow under keep").or_default() += 1;
                if self.pace == Pace::Stuck {
                    *marks.entry("stalled").or_default() += 1;
                }
            }
            Fact::Limited { .. } => *marks.entry("a viewer over its limits").or_default() += 1,
            Fact::Ended { code: 1008, .. } => *marks.entry("a viewer closed for its limits").or_default() += 1,
            Fact::Lost { .. } | Fact::Ended { .. } | Fact::ReadPaused(_) => {}
            Fact::ClientDetached { .. }
            | Fact::ClientAttached { .. }
            | Fact::LeftInDoubt { lane: LaneName::Down, .. } => {}
            Fact::ClientExpired { .. } => *marks.entry("a viewer stayed away").or_default() += 1,
            Fact::Replayed { lane: LaneName::Down, .. } => *marks.entry("sent again to a viewer").or_default() += 1,
            Fact::Interrupted { .. }
            | Fact::Reattached { .. }
            | Fact::Stayed { .. }
            | Fact::Replayed { lane: LaneName::Up, .. }
            | Fact::Overflowed(_)
            | Fact::Expired { .. }
            | Fact::PongsMissing(_)
            | Fact::Conversation { .. }
            | Fact::PrologueSent { .. }
            | Fact::PrologueSwallowed
            | Fact::PrologueFailed(_)
            | Fact::Repeated { .. }
            | Fact::Gap { .. }
            | Fact::Unmasked => panic!("not of a viewer: {fact:?}"),
        }
    }

    /// Whether everything that the stream was given since it came was heard, or counted as dropped.
    pub fn check_books(&self, sent: &[u64]) {
        let due = (sent.len() - self.joined) as u64;
        assert_eq!(self.heard as u64 + self.passed, due, "viewer {}: heard and dropped", self.number);
    }
}
