//! One pipe and the peers at its ends: bytes are moved as a driver would, and the model sees each of them.

mod clients;
mod freezing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use holdline_core::frame::Side;
use holdline_core::ids::{Attachment, BackendKey, Generation};
use holdline_core::pipe::{
    Action, DialOrder, Fact, Input, Interruption, LinkLoss, Peer, Pipe, PipeState, ResumeAnswer,
};
use holdline_core::settings::PipeSettings;
use holdline_core::time::Time;

use crate::client::Client;
use crate::held::Held;
use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::model::{BROKEN, Heard, Model};
use crate::numbers::Numbers;
use crate::plan::{Fault, Plan, Rng};
use crate::rounds::Round;
use crate::worker::Conn;
use clients::introduction;
pub use freezing::Clock;

/// Ticks at one moment after which a pipe is said to spin.
const TICKS_MAX: u32 = 40;

/// A pipe that may be frozen is frozen at one step in so many quarters of a round.
const FREEZE_RARITY: u64 = 800;

/// The first byte of a close frame.
const CLOSE: u8 = 0x88;

/// What a pipe wants of the world around it.
#[derive(Debug)]
pub enum Order {
    Dial(DialOrder),
    Cancel(Attachment),
    /// A link was dropped; whether its worker had died.
    Drop(Attachment, bool),
    /// A link that waited to take over was dropped.
    LetGo(Attachment),
    /// The client's link was dropped.
    DropClient(Generation),
}

pub struct Driver {
    pub pipe: Pipe,
    /// The name by which its facts are printed, if they are.
    pub traced_as: Option<usize>,
    /// The Holdline that has the pipe.
    pub home: usize,
    clock: Clock,
    /// Attaches up to this one were ordered by another process.
    foreign: Option<Attachment>,
    pub model: Model,
    pub client: Client,
    client_link: Option<Link>,
    generation: Generation,
    /// Every attach that its worker still thinks about; the current one among them.
    pub conns: BTreeMap<Attachment, Conn>,
    current: Option<Attachment>,
    held: Option<Held>,
    /// What came of its dials while it had no worker.
    pub round: Round,
    /// The last dial that was ordered while there was a worker.
    dialed_beside: Option<Attachment>,
    pub reserved: BTreeMap<Attachment, BackendKey>,
    pub orders: VecDeque<Order>,
    settings: Arc<PipeSettings>,
    /// Facts of the last call.
    facts: Vec<Fact>,
    pub finished: bool,
    /// Whether the pipe may be frozen at any step, and may lose its backend link with it.
    freezes: (bool, bool),
}

impl Driver {
    pub fn open(plan: &Plan, backend: BackendKey, conn: Conn, client: Client, seed: u64, now: Time) -> Self {
        let settings = Arc::new(plan.settings.clone());
        let link = Link::new(conn.link.to_peer.room());
        let mut pipe = Pipe::open(settings.clone(), backend, seed, now);
        let is_aware = client.numbers.is_some();
        if is_aware {
            pipe.expect_hello(introduction(), now);
        }
        let numbers = conn.state.is_some();
        if numbers {
            pipe.worker_numbers(Attachment::FIRST, introduction().id, now);
        } else if plan.compresses(conn.pipe) {
            pipe.allow_compressed();
        }
        Self {
            pipe,
            traced_as: None,
            home: 0,
            clock: Clock(Time::ZERO),
            foreign: None,
            freezes: (plan.may(Fault::Freezes), plan.may(Fault::FreezeLosesLink)),
            model: Model::new(settings.clone(), is_aware, numbers, now),
            client,
            client_link: Some(link),
            generation: Generation::FIRST,
            conns: BTreeMap::from([(Attachment::FIRST, conn)]),
            current: Some(Attachment::FIRST),
            held: None,
            round: Round::default(),
            dialed_beside: None,
            reserved: BTreeMap::from([(Attachment::FIRST, backend)]),
            orders: VecDeque::new(),
            settings,
            facts: Vec::new(),
            finished: false,
        }
    }

    pub fn client_acts(&mut self, plan: &Plan, rng: &mut Rng, calm: bool, marks: &mut Marks) {
        if let Some(link) = &mut self.client_link {
            self.client.act(link, plan, rng, calm, marks);
        }
        for (number, item) in self.client.numbers.as_mut().map(Numbers::received).unwrap_or_default() {
            self.model.check_received(number, &item);
        }
    }

    pub fn widen_links(&mut self) {
        for link in self.client_link.iter_mut().chain(self.conns.values_mut().map(|conn| &mut conn.link)) {
            link.from_peer.set_capacity(1 << 20);
            link.to_peer.set_capacity(1 << 20);
        }
    }

    /// Calls the pipe and hears what it has to say about it.
    pub fn call<T>(&mut self, now: Time, marks: &mut Marks, call: impl FnOnce(&mut Pipe, Time) -> T) -> T {
        let result = call(&mut self.pipe, self.clock.shows(now));
        if self.settings.client_grace.is_some() {
            self.model.client_level(self.pipe.view().down.level, now, marks);
        }
        self.facts.clear();
        while let Some(action) = self.pipe.next_action() {
            self.act(action, now, marks);
        }
        result
    }

    fn act(&mut self, action: Action, now: Time, marks: &mut Marks) {
        assert!(!self.finished, "{action:?} after the end");
        match action {
            Action::Dial(order) => {
                self.model.dial(&order);
                self.dialed_beside = self.current.map(|_| order.attachment);
                self.orders.push_back(Order::Dial(order));
            }
            Action::CancelDial(attachment) => self.orders.push_back(Order::Cancel(attachment)),
            Action::Foretell { .. } => panic!("no conversation here has a beginning"),
            Action::TakeOver(attachment) => self.take_over(attachment, now, marks),
            Action::DropBackend { attachment, last_words, died } if self.holds(attachment) => {
                marks.hit(if died { Mark::HeldDied } else { Mark::HeldLetGo });
                self.held = None;
                self.end_link(attachment, &last_words);
                self.orders.push_back(Order::LetGo(attachment));
            }
            Action::DropBackend { attachment, last_words, died } => {
                self.drop_backend(attachment, &last_words, marks);
                self.orders.push_back(Order::Drop(attachment, died));
            }
            Action::ShutdownClient => {
                if let Some(link) = &mut self.client_link {
                    link.to_peer.end(LinkLoss::Eof, true);
                }
            }
            Action::DropClient { generation, last_words } => {
                assert_eq!(generation, self.generation, "another link than the one there is");
                self.model.client_dropped(&last_words, marks);
                self.orders.push_back(Order::DropClient(generation));
                // The client may still read what it was given; it is not written to or read again.
                if let Some(mut link) = self.client_link.take() {
                    link.to_peer.end(LinkLoss::Eof, true);
                }
                if self.client.half_open && self.model.ended.is_none() {
                    marks.hit(Mark::ClientHeartbeatDeath);
                }
                self.client.gone = true;
            }
            Action::Report(fact) => {
                if let Some(pipe) = self.traced_as {
                    eprintln!("{now:?} pipe {pipe} {fact:?}");
                }
                if let (Fact::Interrupted { reason, .. }, Some(&Order::Drop(_, died))) = (&fact, self.orders.back()) {
                    assert!(!died || !reason.cause().is_planned(), "a planned move counts as a death");
                }
                self.round.fact(&fact, &self.settings, marks);
                self.model.fact(&fact, now, marks);
                self.facts.push(fact);
            }
            Action::Finish => self.finished = true,
        }
    }

    fn drop_backend(&mut self, attachment: Attachment, last_words: &[u8], marks: &mut Marks) {
        assert_eq!(self.current, Some(attachment), "only the current link is dropped");
        self.current = None;
        let (to_worker, from_worker) = self.model.halves();
        if to_worker {
            marks.hit(Mark::HalfMessageToDeadWorker);
            assert!(last_words.is_empty(), "words inside a message");
        }
        if from_worker {
            marks.hit(Mark::HalfMessageFromDeadWorker);
        }
        self.model.dropped();
        self.end_link(attachment, last_words);
    }

    fn end_link(&mut self, attachment: Attachment, last_words: &[u8]) {
        if let Some(conn) = self.conns.get_mut(&attachment) {
            if last_words.len() <= conn.link.to_peer.room() {
                conn.link.to_peer.write(last_words);
            }
            conn.link.to_peer.end(LinkLoss::Eof, true);
        }
    }

    fn take_over(&mut self, attachment: Attachment, now: Time, marks: &mut Marks) {
        assert_eq!(self.current, None, "two links at once");
        let held = self.held.take().expect("a worker waits to take over");
        assert_eq!(held.attachment, attachment);
        marks.hit(Mark::TakenOver);
        if held.numbers {
            marks.hit(Mark::NumberedTakenOver);
        }
        self.model.attached(attachment, held.has, held.numbers, now);
        self.current = Some(attachment);
    }

    /// Whether this attach waits to take over.
    pub fn holds(&self, attachment: Attachment) -> bool {
        self.held.as_ref().is_some_and(|held| held.attachment == attachment)
    }

    /// A worker answered a dial; whether the pipe took it.
    pub fn attached(
        &mut self,
        attachment: Attachment,
        backend: BackendKey,
        resume: Option<ResumeAnswer>,
        numbers: bool,
        now: Time,
        marks: &mut Marks,
    ) -> bool {
        // The model must know before the pipe's facts are heard.
        let taken = self.pipe.attached(attachment, backend, resume, self.clock.shows(now));
        if taken {
            if numbers {
                self.pipe.worker_numbers(attachment, introduction().id, self.clock.shows(now));
            }
            let has = match resume {
                Some(ResumeAnswer::Ok(seq)) => Some(seq),
                Some(ResumeAnswer::New | ResumeAnswer::Refuse) | None => None,
            };
            if self.current.is_some() {
                self.held = Some(Held { attachment, has, numbers, since: now, talked: false });
            } else {
                if self.dialed_beside == Some(attachment) {
                    marks.hit(Mark::DialOutlivedOld);
                }
                self.model.attached(attachment, has, numbers, now);
                self.current = Some(attachment);
            }
        }
        self.call(now, marks, |_, _| ());
        taken
    }

    /// Moves bytes until nothing moves, then looks at everything.
    pub fn pump(&mut self, rng: &mut Rng, now: Time, room: usize, marks: &mut Marks) {
        self.look_at_held(now, marks);
        loop {
            // Most often at none of the four.
            let freeze_at = if self.freezes.0 { rng.below(FREEZE_RARITY) } else { FREEZE_RARITY };
            let mut moved = false;
            for step in 0..4 {
                if freeze_at == step {
                    self.freeze(rng, now, marks);
                }
                moved |= match step {
                    0 => self.read_client(rng, now, room, marks),
                    1 => self.write(Side::Backend, rng, now, marks),
                    2 => self.read_worker(rng, now, room, marks),
                    _ => self.write(Side::Client, rng, now, marks),
                };
            }
            if !moved {
                break;
            }
        }
        self.tick(now, marks);
        self.model.check(&self.pipe, now, marks);
    }

    /// A worker that waits is not read, but its end is noticed if it said nothing before, and that it says something.
    fn look_at_held(&mut self, now: Time, marks: &mut Marks) {
        let Some(held) = self.held.as_mut().filter(|held| !held.talked) else { return };
        let attachment = held.attachment;
        let Some(flow) = self.conns.get(&attachment).map(|conn| &conn.link.from_peer) else { return };
        let goes = flow.first().is_some_and(|byte| byte == CLOSE);
        if let Some(loss) = flow.ended().or(goes.then_some(LinkLoss::Eof)) {
            self.call(now, marks, |pipe, now| pipe.lost(Peer::Backend(attachment), loss, now));
            assert!(!self.holds(attachment), "a dead link is kept");
        } else if flow.first().is_some() {
            held.talked = true;
            if now < held.since + self.settings.prove {
                marks.hit(Mark::ProvenByTalk);
            }
            self.call(now, marks, |pipe, now| pipe.waiting_talked(attachment, now));
        }
    }

    /// The old worker of a move has just been told to go: the new one was there for a while, or has said something.
    fn check_proven(&self, told_before: bool, now: Time) {
        let Some(held) = self.held.as_ref().filter(|_| !told_before && self.model.is_told_to_close()) else { return };
        assert!(held.is_proven(self.settings.prove, now), "it goes to a worker that has proven nothing");
    }

    /// When the pipe wants to be looked at.
    pub fn deadline(&self) -> Option<Time> {
        self.pipe.deadline().map(|at| self.clock.world(at))
    }

    /// The backends that the dial under way must not choose.
    pub fn excluded(&self, now: Time) -> Vec<BackendKey> {
        self.pipe.excluded(self.clock.shows(now))
    }

    /// Whether another process ordered this attach.
    pub fn is_foreign(&self, attachment: Attachment) -> bool {
        self.foreign.is_some_and(|last| attachment <= last)
    }

    /// Whether a dial is under way, or ordered.
    pub fn dials(&self) -> bool {
        let last = self.pipe.view().attachment;
        let ordered = |order: &Order| matches!(order, Order::Dial(order) if order.attachment == last);
        self.current != Some(last) && (self.reserved.contains_key(&last) || self.orders.iter().any(ordered))
    }

    fn tick(&mut self, now: Time, marks: &mut Marks) {
        let mut ticks = 0;
        while self.deadline().is_some_and(|at| at <= now) {
            ticks += 1;
            assert!(ticks < TICKS_MAX, "it spins at {now:?}: {:?}", self.pipe.deadline());
            self.call(now, marks, |pipe, now| pipe.tick(now));
            // A deadline may mean that there is something to write now.
            for side in [Side::Backend, Side::Client] {
                self.write(side, &mut Rng::new(0), now, marks);
            }
        }
    }

    fn read_client(&mut self, rng: &mut Rng, now: Time, room: usize, marks: &mut Marks) -> bool {
        if self.client_link.is_none() {
            return false;
        }
        let budget = self.pipe.read_budget(Side::Client, room);
        self.model.client_paused(budget == 0, now);
        self.call(now, marks, |pipe, now| pipe.set_paused(Side::Client, budget == 0, now));
        if budget == 0 {
            return self.leaves_client_unread(room, now, marks);
        }
        let Some(link) = self.client_link.as_mut() else { return false };
        let bytes = link.from_peer.read(budget.min(rng.chunk()));
        if let (Some(loss), true) = (link.from_peer.ended(), bytes.is_empty()) {
            self.client_is_lost(loss, now, marks);
            return true;
        }
        if bytes.is_empty() {
            return false;
        }
        self.model.client_bytes(&bytes, marks);
        if self.model.is_read_beyond_the_window(&self.pipe) {
            marks.hit(Mark::ReadBeyondTheWindow);
        }
        let (charged, accepted) = (self.pipe.charged_bytes(), self.pipe.view().up.accepted.0);
        self.give(Peer::Client(self.generation), &bytes, rng, now, marks);
        self.model.check_bound(&self.pipe, charged, accepted);
        true
    }

    fn give(&mut self, from: Peer, bytes: &[u8], rng: &mut Rng, now: Time, marks: &mut Marks) {
        if rng.once_in(3) {
            let shared = bytes::Bytes::copy_from_slice(bytes);
            self.call(now, marks, |pipe, now| pipe.receive(from, Input::Share(&shared), now));
        } else {
            self.call(now, marks, |pipe, now| pipe.receive(from, Input::Copy(bytes), now));
        }
    }

    fn read_worker(&mut self, rng: &mut Rng, now: Time, room: usize, marks: &mut Marks) -> bool {
        let Some(attachment) = self.current else { return false };
        let budget = self.pipe.read_budget(Side::Backend, room);
        self.model.worker_paused(budget == 0, now);
        self.call(now, marks, |pipe, now| pipe.set_paused(Side::Backend, budget == 0, now));
        let Some(conn) = self.conns.get_mut(&attachment).filter(|_| budget > 0) else { return false };
        let bytes = conn.link.from_peer.read(budget.min(rng.chunk()));
        if let (Some(loss), true) = (conn.link.from_peer.ended(), bytes.is_empty()) {
            self.call(now, marks, |pipe, now| pipe.lost(Peer::Backend(attachment), loss, now));
            assert_ne!(self.current, Some(attachment), "a dead link is kept");
            return true;
        }
        if bytes.is_empty() {
            return false;
        }
        let before = self.pipe.view();
        let heard = self.model.worker_bytes(&bytes, marks);
        self.give(Peer::Backend(attachment), &bytes, rng, now, marks);
        self.model.worker_was_heard();
        if matches!(before.state, PipeState::Attached | PipeState::ClientDetached) {
            self.check_close(&heard);
        }
        self.model.check_bound_down(&self.pipe, &before, marks);
        true
    }

    /// The table of PROTOCOL section 4, for a close frame of an attached worker.
    fn check_close(&self, heard: &Heard) {
        let Some(code) = heard.closed else { return };
        let said = |wanted: Interruption| {
            let hit = |fact: &Fact| matches!(fact, Fact::Interrupted { reason, .. } if *reason == wanted);
            self.facts.iter().any(hit)
        };
        if code == BROKEN {
            assert!(said(Interruption::Protocol), "a broken rule did not interrupt: {:?}", self.facts);
        } else if code == 0 {
            let ended = self.model.ended.as_ref().map(|(_, code, _)| *code);
            assert_eq!(ended, Some(1009), "a message that is too big did not end the pipe");
        } else if code == 4004 && !heard.talked {
            assert!(said(Interruption::WrongWorker), "a wrong worker's word counted: {:?}", self.facts);
        } else if matches!(code, 1001 | 1011..=1014) && !heard.fin || self.unended(heard) {
            assert!(said(Interruption::Close), "{code} did not interrupt: {:?}", self.facts);
        } else {
            let ended = self.model.ended.as_ref().map(|(_, code, _)| *code);
            assert_eq!(ended, Some(code), "{code} did not end the pipe");
        }
    }

    /// Whether a worker that numbers its messages has closed without saying that it is an end.
    fn unended(&self, heard: &Heard) -> bool {
        heard.numbers && !heard.fin
    }

    fn write(&mut self, side: Side, rng: &mut Rng, now: Time, marks: &mut Marks) -> bool {
        let room = match side {
            Side::Client => self.client_link.as_ref().map(|link| link.to_peer.room()),
            Side::Backend => self.current.and_then(|it| self.conns.get(&it)).map(|conn| conn.link.to_peer.room()),
        };
        let wants = self.pipe.wants_write(side, self.clock.shows(now));
        let gather = self.pipe.gather(side, self.clock.shows(now));
        assert_eq!(wants, !gather.is_empty(), "what is due and what is given differ");
        let Some(room) = room else {
            assert!(gather.is_empty(), "bytes for a link that is gone");
            return false;
        };
        let limit = room.min(rng.chunk());
        let mut bytes = Vec::with_capacity(limit.min(gather.len()));
        for slice in gather.as_slices() {
            bytes.extend_from_slice(&slice[..slice.len().min(limit - bytes.len())]);
        }
        if bytes.is_empty() {
            return false;
        }
        if bytes.len() < gather.len() {
            marks.hit(Mark::PartialWrite);
        }
        self.pipe.transmitted(side, bytes.len(), self.clock.shows(now));
        match side {
            Side::Client => {
                if let Some(link) = &mut self.client_link {
                    link.to_peer.write(&bytes);
                }
                self.model.client_is_given(&bytes, marks);
            }
            Side::Backend => {
                if let Some(conn) = self.current.and_then(|it| self.conns.get_mut(&it)) {
                    conn.link.to_peer.write(&bytes);
                }
                let told_before = self.model.is_told_to_close();
                self.model.worker_is_given(&bytes, marks);
                self.check_proven(told_before, now);
            }
        }
        self.call(now, marks, |_, _| ());
        true
    }

    /// The connection of the current attach.
    pub fn conn(&mut self) -> Option<&mut Conn> {
        self.conns.get_mut(&self.current?)
    }

    /// Whether the pipe has this link: its own, or the one that waits to take over.
    pub fn has(&self, attachment: Attachment) -> bool {
        self.current == Some(attachment) || self.holds(attachment)
    }

    pub const fn current(&self) -> Option<Attachment> {
        self.current
    }
}
