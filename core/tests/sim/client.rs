//! A client: it talks, reads, dawdles, vanishes and breaks rules.

use std::collections::VecDeque;

use holdline_core::pipe::LinkLoss;
use holdline_core::settings::DownPolicy;

use crate::link::Link;
use crate::marks::{Mark, Marks};
use crate::numbers::{self, Numbers, Reply};
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
    /// Of a client that speaks the aware protocol.
    pub numbers: Option<Numbers>,
    compresses: bool,
}

impl Client {
    pub fn new(plan: &Plan, pipe: usize, rng: &mut Rng) -> Self {
        let mut client = Self {
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
            numbers: None,
            compresses: plan.compresses(pipe),
        };
        if plan.is_aware(pipe) {
            client.numbers = Some(Numbers::new());
            client.push_parts(1, numbers::HELLO.as_bytes(), rng);
        }
        client
    }

    /// Whether it would come back after the loss of its link: neither side has said goodbye.
    pub fn wants_back(&self) -> bool {
        match &self.numbers {
            Some(numbers) => numbers.wants_back(),
            None => !self.said_close && !self.got_close,
        }
    }

    /// The same client on a new link. What it had half said or half read went with the old one.
    pub fn comes_back(&mut self, plan: &Plan) {
        self.reader = Reader::new(false);
        self.out.clear();
        (self.gone, self.half_open) = (false, false);
        (self.said_close, self.got_close) = (false, false);
        self.stale_pong = self.last_ping.take().filter(|_| plan.may(Fault::StalePong));
        if let Some(numbers) = &mut self.numbers {
            numbers.comes_back();
        }
    }

    pub fn calm(&mut self) {
        self.dawdles = false;
    }

    pub fn may_talk(&self) -> bool {
        let may = self.numbers.as_ref().is_none_or(Numbers::may_talk);
        may && !self.said_close && !self.got_close && !self.gone && !self.half_open
    }

    /// One turn: read, answer, maybe speak, maybe err.
    pub fn act(&mut self, link: &mut Link, plan: &Plan, rng: &mut Rng, calm: bool, marks: &mut Marks) {
        if self.half_open || self.gone {
            return;
        }
        self.read(link, rng, marks);
        self.acknowledge(calm, rng);
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
                    if let Some(numbers) = &mut self.numbers {
                        numbers.is_over();
                    }
                }
                item @ (Item::Text(_) | Item::Binary(_)) => self.hears(item, rng, marks),
                Item::Pong(_) => {}
            }
        }
        if link.to_peer.ended().is_some() {
            self.gone = true;
            link.from_peer.end(LinkLoss::Eof, true);
        }
    }

    /// A client that numbers its messages answers to what it hears.
    fn hears(&mut self, item: Item, rng: &mut Rng, marks: &mut Marks) {
        let Some(numbers) = &mut self.numbers else { return };
        for reply in numbers.hears(item, rng, marks) {
            match reply {
                _ if self.said_close => {}
                Reply::Word(word) => self.push(0x81, word.as_bytes(), rng),
                Reply::Message(message) => self.push_parts(message.opcode, &message.bytes, rng),
            }
        }
    }

    fn acknowledge(&mut self, calm: bool, rng: &mut Rng) {
        let Some(numbers) = self.numbers.as_mut().filter(|_| !self.said_close) else { return };
        if (calm || rng.once_in(3))
            && let Some(n) = numbers.ack()
        {
            self.push(0x81, format!("!{{\"t\":\"ack\",\"n\":{n}}}").as_bytes(), rng);
        }
    }

    fn talk(&mut self, plan: &Plan, rng: &mut Rng, marks: &mut Marks) {
        for _ in 0..rng.pick(&[0, 0, 1, 1, 2, 20]) {
            if self.out.len() > 50_000 || !self.may_talk() {
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
        if let Some(numbers) = &mut self.numbers {
            if rng.once_in(30)
                && let Some(message) = numbers.one_kept(rng)
            {
                self.push_parts(message.opcode, &message.bytes, rng);
            } else if rng.once_in(40) && numbers.may_skip() {
                marks.hit(Mark::AwareSkipped);
                let word = numbers.skip(rng.below(5) + 1, rng.once_in(2));
                self.push(0x81, word.as_bytes(), rng);
            }
        }
    }

    /// One message in one frame or in several.
    fn push_parts(&mut self, opcode: u8, payload: &[u8], rng: &mut Rng) {
        if rng.once_in(4) {
            let (start, end) = payload.split_at(rng.size(0, payload.len().min(20)));
            self.push(opcode, start, rng);
            self.push(0x80, end, rng);
        } else {
            self.push(0x80 | opcode, payload, rng);
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
        if let Some(numbers) = &mut self.numbers {
            payload = numbers.number(opcode, &payload);
        } else if self.compresses && self.count.is_multiple_of(2) {
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
            self.goodbye(code, if code == 1005 { "" } else { "bye" }, rng);
            marks.hit(Mark::ClientClosed);
        } else if (returns || plan.may(Fault::ClientVanishes)) && rng.once_in(loss_rarity) {
            let keep = rng.once_in(2);
            link.from_peer.end(rng.pick(&[LinkLoss::Eof, LinkLoss::Reset]), keep);
            self.gone = true;
            marks.hit(Mark::ClientVanished);
        } else if (returns || plan.may(Fault::ClientHalfOpen)) && rng.once_in(loss_rarity) {
            self.half_open = true;
            marks.hit(Mark::HalfOpenClient);
        } else if self.numbers.is_some() && rng.once_in(loss_rarity) {
            marks.hit(Mark::AwareClosedUnended);
            self.said_close = true;
            self.push(0x88, &wire::close_payload(1001, ""), rng);
        } else if plan.may(Fault::ClientViolates) && rng.once_in(rarity) {
            self.said_close = true;
            if let Some(numbers) = &mut self.numbers {
                numbers.is_over();
            }
            if rng.once_in(2) && self.breaks_the_protocol(plan, rng, marks) {
                // That was one.
            } else if rng.once_in(2) {
                self.out.extend([0x83, 0x80, 0, 0, 0, 0]);
                marks.hit(Mark::ViolationByClient);
            } else {
                let mut payload = vec![b'x'; plan.settings.message_bytes_max + 1];
                if let Some(numbers) = &mut self.numbers {
                    payload = numbers.number(2, &payload);
                }
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
            self.goodbye(1000, "done", rng);
        }
    }

    fn goodbye(&mut self, code: u16, reason: &str, rng: &mut Rng) {
        if let Some(numbers) = &mut self.numbers {
            numbers.is_over();
            let n = numbers.next() - 1;
            let word = format!("!{{\"t\":\"fin\",\"code\":{code},\"reason\":\"{reason}\",\"n\":{n}}}");
            self.push(0x81, word.as_bytes(), rng);
        }
        self.said_close = true;
        self.push(0x88, &wire::close_payload(code, reason), rng);
    }

    /// Breaks a rule of the aware protocol; false of a client that does not speak it.
    fn breaks_the_protocol(&mut self, plan: &Plan, rng: &mut Rng, marks: &mut Marks) -> bool {
        let Some(numbers) = &self.numbers else { return false };
        let (next, rx) = (numbers.next(), numbers.rx());
        let future_ack = numbers.is_talking() && plan.settings.down == DownPolicy::Keep;
        let said = match rng.below(6) {
            0 => format!("{};a hole", next + 1 + rng.below(3)),
            1 => format!("0{next};another spelling"),
            2 => "no number".to_owned(),
            3 => numbers::gap(next + 1, Some(1)),
            4 => format!("!{{\"t\":\"fin\",\"code\":1000,\"reason\":\"\",\"n\":{next}}}"),
            _ if future_ack => format!("!{{\"t\":\"ack\",\"n\":{}}}", rx + 1_000_000),
            _ => numbers::HELLO.to_owned(),
        };
        marks.hit(Mark::AwareBroken);
        self.push_parts(1, said.as_bytes(), rng);
        true
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
