//! A client: it talks, reads, dawdles, vanishes and breaks rules.

use std::collections::VecDeque;

use holdline_core::pipe::LinkLoss;

use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::plan::{Fault, Plan, Rng};
use crate::wire::{self, Item, Reader};

/// The far end of the client leg.
#[derive(Debug)]
pub struct Client {
    reader: Reader,
    out: VecDeque<u8>,
    said_close: bool,
    got_close: bool,
    pub gone: bool,
    pub half_open: bool,
    dawdles: bool,
    answers_close: bool,
    count: u64,
    /// What it was asked last, to be answered by mistake on its next link.
    last_ping: Option<Vec<u8>>,
    stale_pong: Option<Vec<u8>>,
}

impl Client {
    pub fn new(plan: &Plan, rng: &mut Rng) -> Self {
        Self {
            reader: Reader::new(false),
            out: VecDeque::new(),
            said_close: false,
            got_close: false,
            gone: false,
            half_open: false,
            dawdles: plan.may(Fault::ClientSlow) && rng.once_in(2),
            answers_close: !plan.may(Fault::NoCloseAnswer) || rng.once_in(2),
            count: 0,
            last_ping: None,
            stale_pong: None,
        }
    }

    /// Whether it would come back after the loss of its link: neither side has said goodbye.
    pub const fn wants_back(&self) -> bool {
        !self.said_close && !self.got_close
    }

    /// The same client on a new link. What it had half said or half read went with the old one.
    pub fn comes_back(&mut self, plan: &Plan) {
        self.reader = Reader::new(false);
        self.out.clear();
        (self.gone, self.half_open) = (false, false);
        (self.said_close, self.got_close) = (false, false);
        self.stale_pong = self.last_ping.take().filter(|_| plan.may(Fault::StalePong));
    }

    pub fn calm(&mut self) {
        self.dawdles = false;
    }

    pub const fn may_talk(&self) -> bool {
        !self.said_close && !self.got_close && !self.gone && !self.half_open
    }

    /// One turn: read, answer, maybe speak, maybe err.
    pub fn act(&mut self, link: &mut Link, plan: &Plan, rng: &mut Rng, calm: bool, marks: &mut Marks) {
        if self.half_open || self.gone {
            return;
        }
        self.read(link, rng, marks);
        if !calm && self.may_talk() {
            self.talk(plan, rng, marks);
            self.err(link, plan, rng, marks);
        }
        self.write(link);
    }

    fn read(&mut self, link: &mut Link, rng: &mut Rng, marks: &mut Marks) {
        if self.dawdles && !rng.once_in(40) {
            marks.hit(Mark::SlowClient);
            return;
        }
        let bytes = link.to_peer.read(rng.chunk());
        for item in self.reader.read(&bytes) {
            match item {
                Item::Ping(payload) => {
                    self.push(0x8A, &payload, rng);
                    if payload != b"holdline" {
                        self.last_ping = Some(payload);
                    }
                }
                Item::Close(code, _) => {
                    self.got_close = true;
                    if !self.said_close && self.answers_close {
                        self.said_close = true;
                        self.push(0x88, &wire::close_payload(code, ""), rng);
                    }
                }
                Item::Text(_) | Item::Binary(_) | Item::Pong(_) => {}
            }
        }
        if link.to_peer.ended().is_some() {
            self.gone = true;
            link.from_peer.end(LinkLoss::Eof, true);
        }
    }

    fn talk(&mut self, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        for _ in 0..rng.pick(&[0, 0, 1, 1, 2, 20]) {
            if self.out.len() > 50_000 {
                return;
            }
            self.say(plan, rng, marks);
        }
        if rng.once_in(20) {
            self.push(0x89, b"anyone?", rng);
        }
        if let Some(payload) = self.stale_pong.take() {
            marks.hit(Mark::StaleClientPong);
            self.push(0x8A, &payload, rng);
        }
    }

    /// Says one message of any shape.
    pub fn say(&mut self, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        self.count += 1;
        let limit = plan.settings.message_bytes_max;
        let len = match rng.below(20) {
            0 => 0,
            1 if plan.may(Fault::BigMessages) => rng.size(limit / 2, limit),
            2 => rng.size(100, 2_000),
            _ => rng.size(4, 60),
        };
        marks_of_size(len, limit, marks);
        let mut payload = format!("{}:{}", self.count, rng.bits()).into_bytes();
        payload.resize(len, b'.');
        if plan.may(Fault::Poison) && rng.once_in(60) {
            payload = format!("poison {}", self.count).into_bytes();
        }
        let mut opcode = if rng.once_in(3) { 2 } else { 1 };
        if plan.compressed && self.count.is_multiple_of(2) {
            marks.hit(Mark::Compressed);
            (opcode, payload) = wire::compressed(opcode, &payload);
        }
        if rng.once_in(5) {
            marks.hit(Mark::Fragmented);
            self.push_fragments(opcode, &payload, plan.empty_fragments, rng, marks);
        } else {
            self.push(0x80 | opcode, &payload, rng);
        }
    }

    fn push_fragments(&mut self, opcode: u8, payload: &[u8], empty: usize, rng: &mut Rng, marks: &mut Marks) {
        let (mut first, mut rest) = (opcode, payload);
        if empty > 0 && rng.once_in(3) {
            marks.hit(Mark::EmptyFragments);
            self.push(first, &[], rng);
            (0..rng.below(empty as u64)).for_each(|_| self.push(0, &[], rng));
            first = 0;
        }
        for _ in 0..rng.below(5) {
            let (now, later) = rest.split_at(rng.size(0, rest.len()));
            self.push(first, now, rng);
            (first, rest) = (0, later);
            if rng.once_in(3) {
                self.push(0x89, b"between", rng);
            }
        }
        self.push(0x80 | first, rest, rng);
    }

    fn push(&mut self, first: u8, payload: &[u8], rng: &mut Rng) {
        let mask = (rng.bits() as u32).to_be_bytes();
        self.out.extend(wire::frame(first, payload, Some(mask)));
    }

    fn err(&mut self, link: &mut Link, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        let rarity = plan.rarity * 3;
        // Where it comes back it is lost often.
        let returns = plan.returns.is_some();
        let loss_rarity = if returns { plan.rarity / 2 } else { rarity };
        if plan.may(Fault::ClientCloses) && rng.once_in(rarity) {
            let code = rng.pick(&[1000, 1001, 1005, 4001]);
            self.push(0x88, &wire::close_payload(code, if code == 1005 { "" } else { "bye" }), rng);
            self.said_close = true;
            marks.hit(Mark::ClientClosed);
        } else if (returns || plan.may(Fault::ClientVanishes)) && rng.once_in(loss_rarity) {
            let keep = rng.once_in(2);
            link.from_peer.end(rng.pick(&[LinkLoss::Eof, LinkLoss::Reset]), keep);
            self.gone = true;
            marks.hit(Mark::ClientVanished);
        } else if (returns || plan.may(Fault::ClientHalfOpen)) && rng.once_in(loss_rarity) {
            self.half_open = true;
            marks.hit(Mark::HalfOpenClient);
        } else if plan.may(Fault::ClientViolates) && rng.once_in(rarity) {
            self.said_close = true;
            if rng.once_in(2) {
                self.out.extend([0x83, 0x80, 0, 0, 0, 0]);
                marks.hit(Mark::ViolationByClient);
            } else {
                let payload = vec![b'x'; plan.settings.message_bytes_max + 1];
                self.push(0x82, &payload, rng);
                marks.hit(Mark::TooBigFromClient);
            }
        }
    }

    fn write(&mut self, link: &mut Link) {
        let bytes = self.out.make_contiguous();
        let taken = link.from_peer.write(bytes);
        self.out.drain(..taken);
        if self.got_close && self.out.is_empty() && self.said_close {
            self.gone = true;
            link.from_peer.end(LinkLoss::Eof, true);
        }
    }

    /// Says goodbye in good order.
    pub fn close(&mut self, rng: &mut Rng) {
        if self.may_talk() {
            self.said_close = true;
            self.push(0x88, &wire::close_payload(1000, "done"), rng);
        }
    }
}

fn marks_of_size(len: usize, limit: usize, marks: &mut Marks) {
    if len == 0 {
        marks.hit(Mark::EmptyMessage);
    }
    if len >= limit / 2 {
        marks.hit(Mark::BigMessage);
    }
}
