//! A worker's end of one attach: it reads, answers pings in one of three manners, executes, talks, and dies in many ways.

use std::collections::VecDeque;
use std::time::Duration;

use holdline_core::pipe::LinkLoss;
use holdline_core::settings::OnTooBig;
use holdline_core::time::Time;

use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::plan::{Fault, Plan, Rng};
use crate::state::{Came, State};
use crate::wire::{self, Item, Reader};

/// When a worker's library answers a ping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// As soon as it reads it, its application busy or not.
    Queue,
    /// When its application has read everything before it.
    Pull,
    /// Never.
    NoPong,
}

/// One attach, as its worker sees it.
#[derive(Debug)]
pub struct Conn {
    pub pipe: usize,
    pub since: Time,
    pub link: Link,
    reader: Reader,
    style: Style,
    inbox: VecDeque<Item>,
    out: VecDeque<u8>,
    /// Messages executed by the application.
    pub executed: Vec<Item>,
    first_seq: u64,
    wrong: bool,
    silent: bool,
    slow: bool,
    half_open: bool,
    frozen_until: Time,
    answers_close: bool,
    said_close: bool,
    pub dead: bool,
    said: u64,
    /// What it will break the rules with, at some point.
    stale_pong: Option<Vec<u8>>,
    last_ping: Option<Vec<u8>>,
    /// Of a worker that numbers its messages.
    pub state: Option<State>,
    /// It says something as soon as it may.
    says_first: bool,
}

impl Conn {
    pub fn new(
        pipe: usize,
        first_seq: u64,
        wrong: bool,
        stale: Option<Vec<u8>>,
        now: Time,
        plan: &Plan,
        rng: &mut Rng,
    ) -> Self {
        let style = match rng.below(3) {
            0 if plan.may(Fault::WorkerNoPong) => Style::NoPong,
            0 | 1 => Style::Queue,
            _ => Style::Pull,
        };
        Self {
            pipe,
            since: now,
            link: Link::new(plan.link_bytes),
            reader: Reader::new(true),
            style,
            inbox: VecDeque::new(),
            out: VecDeque::new(),
            executed: Vec::new(),
            first_seq,
            wrong,
            silent: plan.may(Fault::WorkerSilent) && rng.once_in(4),
            slow: plan.may(Fault::WorkerSlow) && rng.once_in(2),
            half_open: false,
            frozen_until: Time::ZERO,
            answers_close: !plan.may(Fault::NoCloseAnswer) || rng.once_in(2),
            said_close: false,
            dead: false,
            said: 0,
            stale_pong: stale.filter(|_| plan.may(Fault::StalePong)),
            last_ping: None,
            state: None,
            says_first: false,
        }
    }

    /// Faults are over; what is half open stays so until a peer notices.
    pub const fn calm(&mut self) {
        self.silent = false;
        self.slow = false;
        self.frozen_until = Time::ZERO;
        if matches!(self.style, Style::NoPong) {
            self.style = Style::Pull;
        }
    }

    /// A ping of this attach, to be answered by mistake on a later one.
    pub fn last_ping(&self) -> Option<Vec<u8>> {
        self.last_ping.clone()
    }

    pub fn act(&mut self, plan: &Plan, rng: &mut Rng, now: Time, calm: bool, marks: &mut Marks) {
        if self.half_open || self.dead {
            return;
        }
        if now < self.frozen_until {
            marks.hit(Mark::FrozenWorker);
            return;
        }
        if self.wrong && !self.said_close {
            self.push(0x88, &wire::close_payload(4004, "not mine"));
            self.said_close = true;
        }
        self.read(if calm { usize::MAX } else { rng.chunk() }, calm, plan, rng, marks);
        self.execute(if calm { usize::MAX } else { rng.pick(&[1, 3, 100]) }, marks);
        self.acknowledge(calm, rng);
        if !calm && !self.dead && !self.said_close {
            self.talk(plan, rng, marks);
            self.err(plan, rng, now, marks);
        }
        self.write();
    }

    fn read(&mut self, bytes_max: usize, calm: bool, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        if self.slow && !rng.once_in(10) {
            marks.hit(Mark::SlowWorker);
            return;
        }
        let bytes = self.link.to_peer.read(bytes_max);
        for item in self.reader.read(&bytes) {
            let Some(item) = self.hears(item, calm, plan, rng, marks) else { continue };
            match (&item, self.style) {
                (Item::Ping(payload), _) if payload != b"holdline" => self.last_ping = Some(payload.clone()),
                _ => {}
            }
            match (item, self.style) {
                (Item::Ping(payload), Style::Queue) => {
                    marks.hit(Mark::QueueStyle);
                    self.push(0x8A, &payload);
                }
                (Item::Ping(payload), Style::NoPong) if payload != b"holdline" => {}
                (item, Style::Queue | Style::Pull | Style::NoPong) => self.inbox.push_back(item),
            }
        }
        if self.link.to_peer.ended().is_some() {
            self.dead = true;
            self.link.from_peer.end(LinkLoss::Eof, true);
        }
    }

    fn execute(&mut self, messages_max: usize, marks: &mut Marks) {
        for _ in 0..messages_max {
            let Some(item) = self.inbox.pop_front() else { return };
            match item {
                Item::Ping(payload) => {
                    marks.hit(Mark::PullStyle);
                    self.push(0x8A, &payload);
                }
                Item::Close(code, _) => {
                    if !self.said_close && self.answers_close {
                        self.push(0x88, &wire::close_payload(code, ""));
                    }
                    self.said_close = true;
                    self.write();
                    self.die(LinkLoss::Eof, true);
                    return;
                }
                Item::Text(bytes) if bytes.starts_with(b"poison") => {
                    // By its number: some die having read all, and some as if the network had cut them off.
                    let loss = if bytes.ends_with(b"7") { LinkLoss::Reset } else { LinkLoss::Eof };
                    self.die(loss, loss == LinkLoss::Eof);
                    return;
                }
                item @ (Item::Text(_) | Item::Binary(_)) => {
                    self.executed.push(item);
                    if let Some(state) = &mut self.state {
                        state.does_one();
                    }
                }
                Item::Pong(_) => {}
            }
        }
    }

    /// One that numbers its messages hears words too; what is left for the others.
    fn hears(&mut self, item: Item, calm: bool, plan: &Plan, rng: &mut Rng, marks: &mut Marks) -> Option<Item> {
        let (Some(state), Item::Text(_) | Item::Binary(_)) = (&mut self.state, &item) else { return Some(item) };
        match state.hears(&item, calm, rng, marks) {
            Came::Message(item) => Some(item),
            Came::Answer(word) => {
                if !self.said_close {
                    self.push(0x81, word.as_bytes());
                    self.said_close = word.contains("reject");
                }
                if std::mem::take(&mut self.says_first) {
                    self.say(plan, rng);
                }
                None
            }
            Came::Nothing => None,
        }
    }

    /// What is in its state is acknowledged, where it says that at all.
    fn acknowledge(&mut self, calm: bool, rng: &mut Rng) {
        if self.dead || self.said_close || !calm && !rng.once_in(3) {
            return;
        }
        if let Some(word) = self.state.as_mut().and_then(State::ack) {
            self.push(0x81, word.as_bytes());
        }
    }

    /// Whether it has not been greeted, and may say no message.
    fn is_mute(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !state.is_greeted())
    }

    fn talk(&mut self, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        if !self.silent && self.out.len() < 20_000 && rng.once_in(plan.talk) {
            self.say(plan, rng);
        }
        if rng.once_in(30) {
            self.push(0x89, b"you?");
        }
        if let Some(payload) = self.stale_pong.take_if(|_| rng.once_in(5)) {
            marks.hit(Mark::StalePong);
            self.push(0x8A, &payload);
        }
        if let Some((opcode, bytes)) = self.state.as_ref().filter(|_| rng.once_in(40)).and_then(State::last_said) {
            self.push(0x80 | opcode, &bytes);
        }
        if self.state.is_none() && rng.once_in(25) {
            marks.hit(Mark::CommitPong);
            let seq = self.first_seq - 1 + self.executed.len() as u64;
            self.push(0x8A, format!("A{seq}").as_bytes());
        }
    }

    /// Says one message.
    pub fn say(&mut self, plan: &Plan, rng: &mut Rng) {
        if self.is_mute() {
            self.says_first = true;
            return;
        }
        self.said += 1;
        let limit = plan.settings.message_bytes_max;
        let len = match rng.below(12) {
            0 => 0,
            1 if plan.may(Fault::BigMessages) => rng.size(limit / 2, limit),
            _ => rng.size(10, 500),
        };
        let mut payload = format!("{}:{}", self.said, rng.bits()).into_bytes();
        payload.resize(len, b'-');
        let in_two = rng.once_in(6);
        let mut opcode = if in_two { 1 } else { 2 };
        if plan.compresses(self.pipe) && self.said.is_multiple_of(2) {
            (opcode, payload) = wire::compressed(opcode, &payload);
        }
        if let Some(state) = &mut self.state {
            payload = state.number(opcode, &payload);
        }
        if in_two {
            let (start, end) = payload.split_at(len / 2);
            self.push(opcode, start);
            self.push(0x80, end);
        } else {
            self.push(0x80 | opcode, &payload);
        }
    }

    fn err(&mut self, plan: &Plan, rng: &mut Rng, now: Time, marks: &mut Marks) {
        let rarity = plan.rarity;
        if plan.may(Fault::WorkerCrash) && rng.once_in(rarity) {
            self.write();
            let keep = rng.once_in(2);
            self.die(rng.pick(&[LinkLoss::Eof, LinkLoss::Reset]), keep);
        } else if plan.may(Fault::WorkerClose) && rng.once_in(rarity) {
            let code = rng.pick(&[1001, 1011, 1012, 1013, 1014]);
            self.push(0x88, &wire::close_payload(code, ""));
            self.said_close = true;
        } else if plan.may(Fault::WorkerEnds) && rng.once_in(rarity * 4) {
            let code = rng.pick(&[1000, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 3000, 4000, 4999]);
            if let Some(state) = self.state.as_ref().filter(|state| state.is_greeted()) {
                let (reason, n) = (if code == 1005 { "" } else { "over" }, state.said());
                let word = format!("!{{\"t\":\"fin\",\"code\":{code},\"reason\":\"{reason}\",\"n\":{n}}}");
                self.push(0x81, word.as_bytes());
            }
            self.push(0x88, &wire::close_payload(code, "over"));
            self.said_close = true;
        } else if plan.may(Fault::WorkerFreezes) && rng.once_in(rarity) {
            self.frozen_until = now + rng.pick(&[plan.pace * 5, Duration::from_secs(3), Duration::from_secs(12)]);
        } else if plan.may(Fault::WorkerHalfOpen) && rng.once_in(rarity * 2) {
            self.half_open = true;
            marks.hit(Mark::HalfOpenWorker);
        } else if self.state.is_some() && rng.once_in(rarity * 4) {
            self.breaks_the_protocol(rng);
        } else if plan.may(Fault::WorkerTooBig) && rng.once_in(rarity * 2) {
            let mut payload = vec![b'x'; plan.settings.message_bytes_max + 1];
            if self.is_mute() {
                return;
            }
            if let Some(state) = &mut self.state {
                payload = state.number(2, &payload);
            }
            self.push(0x82, &payload);
            self.said_close = plan.settings.on_too_big == OnTooBig::Close || self.state.is_some();
            marks.hit(if self.said_close { Mark::TooBigFromWorker } else { Mark::TooBigSkipped });
        }
    }

    /// Breaks a rule of the aware protocol.
    fn breaks_the_protocol(&mut self, rng: &mut Rng) {
        let Some(state) = &self.state else { return };
        let next = state.said() + 1;
        let said = match rng.below(3) {
            0 => format!("{};a hole", next + 1),
            1 => format!("0{next};another spelling"),
            _ => "no number".to_owned(),
        };
        self.push(0x81, said.as_bytes());
        self.said_close = true;
    }

    fn push(&mut self, first: u8, payload: &[u8]) {
        self.out.extend(wire::frame(first, payload, None));
    }

    fn write(&mut self) {
        let bytes = self.out.make_contiguous();
        let taken = self.link.from_peer.write(bytes);
        self.out.drain(..taken);
    }

    /// The worker is gone; what it had written may still arrive.
    pub fn die(&mut self, loss: LinkLoss, keep: bool) {
        self.dead = true;
        self.link.from_peer.end(loss, keep);
    }

    /// Messages that its library has read, for the truth in a resume.
    pub fn received(&self) -> u64 {
        if let Some(state) = &self.state {
            return state.done();
        }
        let waiting = self.inbox.iter().filter(|item| matches!(item, Item::Text(_) | Item::Binary(_))).count();
        self.first_seq - 1 + (self.executed.len() + waiting) as u64
    }
}
