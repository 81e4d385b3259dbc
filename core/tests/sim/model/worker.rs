//! A worker that numbers its messages, as a tap on both of its flows shows it.

use holdline_core::ids::Attachment;
use holdline_core::settings::DownPolicy;

use super::{Heard, Model, OVERHEAD_BYTES, len};
use crate::marks::{Mark, Marks};
use crate::wire::{self, Item};
use crate::words::{self, Spoken};

/// What a close frame of such a worker stands for, where it is none: a broken rule of the protocol.
pub const BROKEN: u16 = u16::MAX;

/// The greeting of the current attach, and the last number that its worker was given.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    greeted: bool,
    told: u64,
}

impl Model {
    /// Whether the worker on the link numbers its messages.
    pub fn has_numbered_worker(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.numbered.is_some())
    }

    /// The pipe is about to be given these bytes of a worker that numbers its messages.
    pub(super) fn numbered_worker_bytes(&mut self, bytes: &[u8], marks: &mut Marks) -> Heard {
        let tap = self.tap.as_mut().expect("only a current worker is read");
        let mut heard = Heard { closed: None, talked: tap.talked, numbers: true, fin: false };
        for (item, parts) in tap.from_worker.read_in_parts(bytes) {
            match item {
                Item::Ping(_) | Item::Pong(_) => {}
                Item::Close(code, reason) => {
                    heard.closed = Some(code);
                    // It says what it has: a close frame confirms nothing.
                    self.worker_closed = Some((code, reason));
                }
                item => self.numbered_worker_says(&item, &parts, &mut heard, marks),
            }
            if heard.closed.is_some() {
                break;
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.talked = heard.talked;
        }
        heard
    }

    fn numbered_worker_says(&mut self, item: &Item, parts: &[usize], heard: &mut Heard, marks: &mut Marks) {
        let Some(numbered) = self.tap.as_ref().and_then(|tap| tap.numbered.as_ref()) else { return };
        match words::read(item) {
            Spoken::Word(word) => self.numbered_worker_word(&word, heard, marks),
            Spoken::Numbered(number, cut, item) if numbered.greeted && number <= self.worker_rx + 1 => {
                if number <= self.worker_rx {
                    marks.hit(Mark::NumberedRepeated);
                    return;
                }
                if len(&item) > self.settings.message_bytes_max {
                    heard.closed = Some(0);
                    return;
                }
                self.worker_rx = number;
                heard.talked = true;
                self.outage = None;
                let charge = unnumbered_bytes(parts, cut) + OVERHEAD_BYTES;
                self.down_charges.push(self.down_charges.last().unwrap_or(&0) + charge);
                self.down.push(item);
                self.worker_places.push(self.down.len());
            }
            Spoken::Numbered(..) | Spoken::Malformed => {
                marks.hit(Mark::NumberedBroken);
                heard.closed = Some(BROKEN);
            }
        }
    }

    fn numbered_worker_word(&mut self, word: &str, heard: &mut Heard, marks: &mut Marks) {
        let number = |member| words::number(word, member).unwrap_or(0);
        let Some(numbered) = self.tap.as_mut().and_then(|tap| tap.numbered.as_mut()) else { return };
        match words::name(word) {
            "welcome" => numbered.greeted = true,
            "resumed" => {
                (numbered.greeted, numbered.told) = (true, number("rx"));
                self.sent = self.sent.max(number("rx"));
                self.sent_high = self.sent_high.max(self.sent);
                let outage = self.outage;
                self.committed_up_to(number("rx"));
                // What it says of itself is no sign that it works.
                self.outage = outage;
            }
            "reject" => heard.closed = Some(4004),
            "ack" => self.committed_up_to(number("n")),
            "fin" => {
                marks.hit(Mark::NumberedFin);
                let (code, reason) = (number("code") as u16, words::text(word, "reason").unwrap_or_default());
                self.worker_closed = Some((code, reason.to_owned()));
                (heard.closed, heard.fin) = (Some(code), true);
            }
            "hb" => {}
            other => panic!("no worker says {other}"),
        }
    }

    /// The worker's application has everything up to `seq`.
    pub(super) fn committed_up_to(&mut self, seq: u64) {
        let before = self.confirmed;
        self.confirm(seq);
        self.committed |= seq >= self.confirmed && self.confirmed > 0;
        if self.confirmed > before {
            self.outage = None;
        }
    }

    /// The worker was given this whole; what any other would have been given in its place.
    pub(super) fn given_to_numbered(&mut self, item: Item, marks: &mut Marks) -> Option<Item> {
        let (sent, accepted, rx) = (self.sent, self.up.len() as u64, self.worker_rx);
        let delivered = self.delivered_number();
        let Some(tap) = &mut self.tap else { return Some(item) };
        let (first_attach, Some(numbered)) = (tap.attachment == Attachment::FIRST, &mut tap.numbered) else {
            return Some(item);
        };
        if !matches!(item, Item::Text(_) | Item::Binary(_)) {
            assert!(!matches!(item, Item::Ping(_)), "a worker that acknowledges is pinged");
            return Some(item);
        }
        let word = match words::read(&item) {
            Spoken::Numbered(number, _, item) => {
                assert!(numbered.greeted, "a message before the worker has answered");
                assert_eq!((number, number), (numbered.told + 1, sent + 1), "the number of the next message");
                numbered.told = number;
                return Some(item);
            }
            Spoken::Word(word) => word,
            Spoken::Malformed => panic!("not a message of the protocol: {item:?}"),
        };
        let number = |member| words::number(&word, member);
        match words::name(&word) {
            "hello" if first_attach => assert_eq!(number("rx"), None, "a new pipe"),
            "hello" => {
                marks.hit(Mark::NumberedGreeted);
                let [first, next] = words::pair(&word, "tx").expect("what can be sent");
                let stands = number("rx").expect("where it stands");
                if self.ended.is_some() && (self.worker_acked..rx).contains(&stands) {
                    // Once its client is told of the end, it takes in no more, and acknowledges none of that.
                    self.worker_rx = stands;
                }
                assert_eq!((stands, first), (self.worker_rx, sent + 1), "where the pipe says that it stands");
                assert!((first..=accepted + 1).contains(&next), "{next} comes next, {accepted} have come");
            }
            "gap" => {
                assert_eq!(number("from"), Some(numbered.told + 1), "the gap that a worker is told of");
                numbered.told += number("count").expect("it is known how many");
                assert!(numbered.told <= sent, "a gap of what is still to come");
            }
            "ack" => {
                let (n, d) = (number("n").expect("a number"), number("d").expect("a number"));
                assert!(n <= rx && d <= n && d <= delivered, "{n} and {d} of {rx} and {delivered}");
                self.worker_acked = n;
            }
            "fin" => {
                assert_eq!(number("n"), Some(numbered.told), "the last number sent");
                assert!(self.ended.is_some(), "a worker is told of an end, and the conversation goes on");
            }
            "hb" => {}
            other => panic!("a word that is none: {other}"),
        }
        None
    }

    /// The last number of a worker's message that the client has for sure.
    fn delivered_number(&self) -> u64 {
        let has = if self.asks_client() { self.client.settled } else { self.down_next };
        let is_exact = self.settings.down == DownPolicy::Keep && self.ended.is_none();
        let delivered = self.worker_places.iter().filter(|&&place| place <= has || !is_exact);
        delivered.count() as u64
    }
}

/// Bytes that a message of a worker takes without its number.
fn unnumbered_bytes(parts: &[usize], mut cut: usize) -> usize {
    let mut bytes = 0;
    for &part in parts {
        if cut > part || cut > 0 && part == 0 {
            cut -= part;
        } else {
            bytes += wire::frame(0x82, &vec![0; part - cut], None).len();
            cut = 0;
        }
    }
    bytes
}
