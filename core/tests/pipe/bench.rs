//! A pipe on the bench: a client and workers that a test moves by hand, and a clock that runs when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, Generation, PipeId, Seq};
use holdline_core::pipe::{Action, DialFailure, DialOrder, Fact, Input, LinkLoss, Peer, Pipe, PipeState, ResumeAnswer};
use holdline_core::settings::PipeSettings;
use holdline_core::snapshot::Snapshot;
use holdline_core::time::Time;

use crate::wire::{self, Item, Reader};

/// Ticks without anything else happening after which the pipe is said to spin.
const IDLE_TICKS_MAX: u32 = 64;

const MASK: [u8; 4] = [0xA5, 0x5A, 0x0F, 0xF1];

pub const A: BackendKey = BackendKey(1);
pub const B: BackendKey = BackendKey(2);
pub const C: BackendKey = BackendKey(3);

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn text(payload: &str) -> Item {
    Item::Text(payload.as_bytes().to_vec())
}

pub fn texts(payloads: &[&str]) -> Vec<Item> {
    payloads.iter().map(|payload| text(payload)).collect()
}

pub fn closed(code: u16, reason: &str) -> Item {
    Item::Close(code, reason.to_owned())
}

pub struct Bench {
    pub pipe: Pipe,
    settings: Arc<PipeSettings>,
    pub now: Time,
    pub facts: Vec<Fact>,
    /// Orders not yet looked at, reports aside.
    pub orders: Vec<Action>,
    /// What each link still takes before it is full.
    pub room: BTreeMap<bool, usize>,
    client: Reader,
    client_items: Vec<Item>,
    worker: Reader,
    worker_items: Vec<Item>,
    /// Barrier pings that the current worker has not answered.
    pub pings: Vec<Vec<u8>>,
    attachment: Attachment,
    dialing: Option<Attachment>,
    /// The worker that waits to take over, and the one that it is.
    held: Option<(Attachment, BackendKey)>,
    /// What that one, or the last one that waited, was told meanwhile.
    foretold: Vec<Item>,
    /// The last words left on dropped links.
    pub last_words: Vec<(Attachment, Vec<Item>)>,
    pub generation: Generation,
    pub client_last_words: Vec<(Generation, Vec<Item>)>,
    /// Barrier pings that the current client link has not answered.
    pub client_pings: Vec<Vec<u8>>,
    /// Whether workers that answer from now on number their messages.
    pub numbers: bool,
}

/// The pipe's name, where it is told.
pub const PIPE: PipeId = PipeId::from_bytes([0; 16]);

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut PipeSettings)) -> Self {
        // Scripts of moves begin with a worker that has had its time.
        let mut settings = PipeSettings { settle: Duration::ZERO, prove: Duration::ZERO, ..PipeSettings::default() };
        change(&mut settings);
        let now = Time::from_micros(1_000_000);
        let settings = Arc::new(settings);
        Self {
            pipe: Pipe::open(settings.clone(), A, 7, now),
            settings,
            now,
            facts: Vec::new(),
            orders: Vec::new(),
            room: BTreeMap::from([(true, usize::MAX), (false, usize::MAX)]),
            client: Reader::new(false),
            client_items: Vec::new(),
            worker: Reader::new(true),
            worker_items: Vec::new(),
            pings: Vec::new(),
            attachment: Attachment::FIRST,
            dialing: None,
            held: None,
            foretold: Vec::new(),
            last_words: Vec::new(),
            generation: Generation::FIRST,
            client_last_words: Vec::new(),
            client_pings: Vec::new(),
            numbers: false,
        }
    }

    pub fn worker_peer(&self) -> Peer {
        Peer::Backend(self.attachment)
    }

    /// Bytes that the link of `side` takes from now on.
    pub fn set_room(&mut self, side: Side, bytes: usize) {
        self.room.insert(side == Side::Client, bytes);
    }

    pub fn client_sends(&mut self, bytes: &[u8]) {
        self.pipe.receive(Peer::Client(self.generation), Input::Copy(bytes), self.now);
        self.pump();
    }

    pub fn client_frame(&mut self, first: u8, payload: &[u8]) {
        self.client_sends(&wire::frame(first, payload, Some(MASK)));
    }

    pub fn client_says(&mut self, payload: &str) {
        self.client_frame(0x81, payload.as_bytes());
    }

    pub fn client_closes(&mut self, code: u16, reason: &str) {
        self.client_frame(0x88, &wire::close_payload(code, reason));
    }

    pub fn worker_sends(&mut self, bytes: &[u8]) {
        self.pipe.receive(self.worker_peer(), Input::Copy(bytes), self.now);
        self.pump();
    }

    pub fn worker_frame(&mut self, first: u8, payload: &[u8]) {
        self.worker_sends(&wire::frame(first, payload, None));
    }

    pub fn worker_says(&mut self, payload: &str) {
        self.worker_frame(0x81, payload.as_bytes());
    }

    pub fn worker_closes(&mut self, code: u16, reason: &str) {
        self.worker_frame(0x88, &wire::close_payload(code, reason));
    }

    /// Answers every ping that the worker has seen.
    pub fn worker_pongs(&mut self) {
        for payload in std::mem::take(&mut self.pings) {
            self.worker_frame(0x8A, &payload);
        }
    }

    /// Lets the worker read and answer everything: waits out the barrier's interval and pongs.
    pub fn settle(&mut self) {
        self.wait(ms(25));
        self.worker_pongs();
    }

    pub fn worker_dies(&mut self, loss: LinkLoss) {
        self.pipe.lost(self.worker_peer(), loss, self.now);
        self.pump();
    }

    pub fn client_vanishes(&mut self) {
        self.pipe.lost(Peer::Client(self.generation), LinkLoss::Reset, self.now);
        self.pump();
    }

    pub fn operator(&mut self, order: impl FnOnce(&mut Pipe, Time)) {
        order(&mut self.pipe, self.now);
        self.pump();
    }

    /// Gives each link what it is due and notes the orders, until nothing is left.
    pub fn pump(&mut self) {
        loop {
            self.write();
            let mut acted = false;
            while let Some(action) = self.pipe.next_action() {
                acted = true;
                self.note(action);
            }
            if !acted {
                return;
            }
        }
    }

    fn write(&mut self) {
        for side in [Side::Backend, Side::Client] {
            loop {
                let room = self.room[&(side == Side::Client)];
                let wants = self.pipe.wants_write(side, self.now);
                let bytes: Vec<u8> = {
                    let gather = self.pipe.gather(side, self.now);
                    assert_eq!(wants, !gather.is_empty(), "what is due and what is given differ");
                    gather.as_slices().iter().flat_map(|slice| slice.to_vec()).take(room).collect()
                };
                if bytes.is_empty() {
                    break;
                }
                self.room.insert(side == Side::Client, if room == usize::MAX { room } else { room - bytes.len() });
                self.pipe.transmitted(side, bytes.len(), self.now);
                match side {
                    Side::Client => self.client_reads(&bytes),
                    Side::Backend => self.worker_reads(&bytes),
                }
            }
        }
    }

    /// Hands the pipe to another process, whose clock shows `clock` when the pipe is frozen, `took` earlier. Its links
    /// come along; a dial under way does not.
    pub fn hand_over(&mut self, clock: Time, took: Duration) {
        let bytes = self.pipe.snapshot(self.now).into_bytes();
        self.goes_on_as(bytes, clock, took);
    }

    /// Goes on with the pipe of these bytes, which was frozen where this one stands.
    pub fn goes_on_as(&mut self, bytes: Vec<u8>, clock: Time, took: Duration) {
        self.dialing = None;
        let snapshot = Snapshot::from_bytes(bytes).unwrap_or_else(|error| panic!("{error}"));
        let thawed = Pipe::restore(&snapshot, self.settings.clone(), 99, clock);
        self.pipe = thawed.unwrap_or_else(|error| panic!("{error}"));
        self.now = clock + took;
        self.pump();
    }

    fn client_reads(&mut self, bytes: &[u8]) {
        for item in self.client.read(bytes) {
            match item {
                Item::Ping(payload) => self.client_pings.push(payload),
                Item::Text(_) | Item::Binary(_) | Item::Pong(_) | Item::Close(..) => self.client_items.push(item),
            }
        }
    }

    fn worker_reads(&mut self, bytes: &[u8]) {
        for item in self.worker.read(bytes) {
            match item {
                Item::Ping(payload) => self.pings.push(payload),
                Item::Text(_) | Item::Binary(_) | Item::Pong(_) | Item::Close(..) => self.worker_items.push(item),
            }
        }
    }

    fn note(&mut self, action: Action) {
        match &action {
            Action::Report(fact) => return self.facts.push(fact.clone()),
            Action::Dial(order) => self.dialing = Some(order.attachment),
            Action::CancelDial(_) => self.dialing = None,
            Action::Foretell { attachment, bytes } => {
                assert_eq!(self.held.map(|(held, _)| held), Some(*attachment));
                self.foretold = Reader::new(true).read(bytes);
            }
            Action::TakeOver(attachment) => {
                let (held, _) = self.held.take().expect("a worker waits to take over");
                assert_eq!(held, *attachment);
                self.is_served_by(held);
            }
            Action::DropBackend { attachment, last_words, .. } => {
                self.held.take_if(|(held, _)| held == attachment);
                let items = Reader::new(true).read(last_words);
                self.last_words.push((*attachment, items));
            }
            Action::DropClient { generation, last_words } => {
                let items = self.client.read(last_words);
                self.client_last_words.push((*generation, items));
            }
            Action::ShutdownClient | Action::Finish => {}
        }
        self.orders.push(action);
    }

    /// Lets time pass; the pipe gets each of its deadlines, a moment early and then on time.
    pub fn wait(&mut self, wait: Duration) {
        let until = self.now + wait;
        let mut idle = 0;
        while let Some(deadline) = self.pipe.deadline().filter(|&at| at <= until) {
            idle = if deadline <= self.now { idle + 1 } else { 0 };
            assert!(idle < IDLE_TICKS_MAX, "it spins: {:?}", self.pipe);
            self.now = self.now.max(Time::from_micros(deadline.as_micros().saturating_sub(1)));
            self.pipe.tick(self.now);
            self.now = self.now.max(deadline);
            self.pipe.tick(self.now);
            self.pump();
        }
        self.now = until;
    }

    /// The data and control frames that the current worker got since the last question, pings aside.
    pub fn worker_got(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.worker_items)
    }

    /// What the client got since the last question, heartbeat pings aside.
    pub fn client_got(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.client_items)
    }

    /// The client is there on another link; whether the pipe took it.
    pub fn client_attaches(&mut self) -> bool {
        self.client_resumes(None)
    }

    /// The client is there on another link, and says up to which message it has everything; whether the pipe took it.
    pub fn client_resumes(&mut self, resume: Option<Seq>) -> bool {
        let Some(generation) = self.pipe.client_attached(resume, self.now) else { return false };
        self.has_other_client_link(generation);
        self.pump();
        true
    }

    /// The client is on another link from now on, as the pipe has been told.
    pub fn has_other_client_link(&mut self, generation: Generation) {
        // Where the old link's last words end up is decided by the order to drop it.
        while let Some(action) = self.pipe.next_action() {
            self.note(action);
        }
        self.generation = generation;
        self.client = Reader::new(false);
        self.client_items.clear();
        self.client_pings.clear();
        self.room.insert(true, usize::MAX);
    }

    /// Answers every ping that the client has seen.
    pub fn client_pongs(&mut self) {
        for payload in std::mem::take(&mut self.client_pings) {
            self.client_frame(0x8A, &payload);
        }
    }

    /// Whether the client's link was dropped since the last question.
    pub fn drops_client(&mut self) -> bool {
        self.orders().iter().any(|order| matches!(order, Action::DropClient { .. }))
    }

    pub fn orders(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.orders)
    }

    /// The dial under way, which must be the last order.
    pub fn dial(&mut self) -> DialOrder {
        match self.orders.last() {
            Some(Action::Dial(order)) => order.clone(),
            other => panic!("no dial: {other:?}; {:?}", self.pipe),
        }
    }

    pub fn is_dialing(&self) -> bool {
        self.dialing.is_some()
    }

    /// A worker answers the dial under way.
    pub fn attach(&mut self, backend: BackendKey) {
        assert!(self.attach_with(backend, None), "this dial is not waited for");
    }

    pub fn attach_with(&mut self, backend: BackendKey, resume: Option<ResumeAnswer>) -> bool {
        let attachment = self.dialing.take().expect("a dial is under way");
        let taken = self.pipe.attached(attachment, backend, resume, self.now);
        if taken {
            if self.state() == PipeState::Leaving {
                self.held = Some((attachment, backend));
                self.foretold.clear();
            } else {
                self.is_served_by(attachment);
            }
            if self.numbers {
                self.pipe.worker_numbers(attachment, PIPE, self.now);
            }
        }
        self.pump();
        taken
    }

    /// A worker answers the dial under way whose link takes so many bytes at first; whether the pipe took it.
    pub fn attach_with_room(&mut self, backend: BackendKey, bytes: usize) -> bool {
        let attachment = self.dialing.take().expect("a dial is under way");
        let taken = self.pipe.attached(attachment, backend, None, self.now);
        self.is_served_by(attachment);
        self.set_room(Side::Backend, bytes);
        self.pump();
        taken
    }

    fn is_served_by(&mut self, attachment: Attachment) {
        self.attachment = attachment;
        self.worker = Reader::new(true);
        self.worker_items.clear();
        self.pings.clear();
        self.room.insert(false, usize::MAX);
    }

    /// What the worker that waits to take over, or that has just done so, was told meanwhile.
    pub fn held_got(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.foretold)
    }

    /// Who waits to take over.
    pub fn holds(&self) -> Option<BackendKey> {
        self.held.map(|(_, backend)| backend)
    }

    /// The worker that waits to take over says something.
    pub fn held_talks(&mut self) {
        let (attachment, _) = self.held.expect("a worker waits to take over");
        self.pipe.waiting_talked(attachment, self.now);
        self.pump();
    }

    /// The worker that waits to take over dies.
    pub fn held_dies(&mut self) {
        let (attachment, _) = self.held.expect("a worker waits to take over");
        self.pipe.lost(Peer::Backend(attachment), LinkLoss::Reset, self.now);
        self.pump();
    }

    pub fn dial_fails(&mut self, failure: DialFailure) {
        let attachment = self.dialing.take().expect("a dial is under way");
        self.pipe.dial_failed(attachment, failure, self.now);
        self.pump();
    }

    pub fn no_worker_is_there(&mut self) {
        self.dial_fails(DialFailure::NoCandidate { retry_after: None });
    }

    pub fn state(&self) -> PipeState {
        self.pipe.view().state
    }

    pub fn is_finished(&self) -> bool {
        self.pipe.is_finished()
    }
}
