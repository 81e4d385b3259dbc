//! What a pipe must be, told with lists of whole messages and nothing clever.
//!
//! The model sees the bytes that the pipe was given and those that it gave, cut into items by a reader of its own, and
//! the facts and orders that the pipe spoke. From these it knows what must be true after each step, and says so.

mod aware;
mod checks;
mod client;
mod facts;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::ids::{Attachment, Seq};
use holdline_core::pipe::{DialOrder, EndedBy, Interruption};
use holdline_core::settings::{OnTooBig, PipeSettings, ReplayPolicy, ReplayTail};
use holdline_core::time::Time;

use crate::marks::{Mark, Marks};
use crate::wire::{self, Item, Reader};
use aware::AwareSide;
use client::ClientSide;
pub use worker::BROKEN;
use worker::Numbered;

/// An attach that lasts this long ends the outage before it.
const PROVEN_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    Confirmed,
    InDoubt,
}

/// The current attach, as a tap on both of its flows shows it.
#[derive(Debug)]
struct Tap {
    attachment: Attachment,
    /// Since when it gets messages.
    since: Time,
    to_worker: Reader,
    from_worker: Reader,
    /// Barrier pings on their way, and the message that each covers.
    pings: BTreeMap<Vec<u8>, u64>,
    talked: bool,
    /// Of a worker that speaks the aware protocol.
    numbered: Option<Numbered>,
    told_to_close: bool,
    /// It is not being read.
    paused: bool,
    /// It was attached after the pipe's end, for the client's last messages.
    farewell: bool,
}

#[derive(Debug)]
pub struct Model {
    settings: Arc<PipeSettings>,
    from_client: Reader,
    to_client: Reader,
    client_open: bool,
    up: Vec<Item>,
    fates: Vec<Fate>,
    /// What the first `n` up messages are charged together.
    up_charges: Vec<usize>,
    sent: u64,
    sent_high: u64,
    confirmed: u64,
    /// An application has committed all that is confirmed.
    committed: bool,
    /// Written counts as confirmed: the worker answers no pings.
    written: bool,
    tap: Option<Tap>,
    /// The attach that was dropped last, until it is said why.
    dropped_tap: Option<(Attachment, Time)>,
    outage: Option<Time>,
    down: Vec<Item>,
    down_charges: Vec<usize>,
    down_next: usize,
    delivered: u64,
    interruptions: u64,
    in_doubt: u64,
    left_in_doubt: u64,
    lost_up: u64,
    lost_down: u64,
    /// Messages of workers that were too big to be accepted.
    too_big_down: u64,
    /// Those of them that cost the pipe nothing else.
    skipped: u64,
    dropped: u64,
    /// Messages of workers that had been accepted when the pipe began to end.
    accepted_at_end: u64,
    last_lost: Option<(Attachment, Interruption)>,
    /// The message that the worker of the last dial was told it would be sent first.
    promised: Option<(Attachment, u64)>,
    client: ClientSide,
    /// Of a client that speaks the aware protocol.
    aware: Option<Box<AwareSide>>,
    /// The last number of a worker's message that was received.
    worker_rx: u64,
    /// The last one that was acknowledged.
    worker_acked: u64,
    /// The place of each of them in the lane.
    worker_places: Vec<usize>,
    /// The most that was ever confirmed: a tail that is sent again was confirmed before.
    confirmed_ever: u64,
    /// What the current worker closed with, while the pipe is told.
    worker_closed: Option<(u16, String)>,
    pub ended: Option<(EndedBy, u16, String)>,
}

/// What a worker's bytes came to.
#[derive(Debug)]
pub struct Heard {
    /// The code of its close frame; 0 for a violation.
    pub closed: Option<u16>,
    /// Whether it had said a message on this attach before that.
    pub talked: bool,
    /// Whether it numbers its messages, and has said that this is the end.
    pub numbers: bool,
    pub fin: bool,
}

/// What is charged for a message beside its bytes on the wire.
const OVERHEAD_BYTES: usize = 16;

fn len(item: &Item) -> usize {
    match item {
        Item::Text(bytes) | Item::Binary(bytes) => bytes.len(),
        Item::Ping(_) | Item::Pong(_) | Item::Close(..) => 0,
    }
}

impl Model {
    pub fn new(settings: Arc<PipeSettings>, aware: bool, numbers: bool, now: Time) -> Self {
        let mut model = Self {
            settings,
            from_client: Reader::of_one_that_talks_on(true),
            to_client: Reader::new(false),
            client_open: true,
            up: Vec::new(),
            fates: Vec::new(),
            up_charges: vec![0],
            sent: 0,
            sent_high: 0,
            confirmed: 0,
            written: false,
            tap: None,
            dropped_tap: None,
            outage: None,
            down: Vec::new(),
            down_charges: vec![0],
            down_next: 0,
            delivered: 0,
            interruptions: 0,
            in_doubt: 0,
            left_in_doubt: 0,
            lost_up: 0,
            lost_down: 0,
            too_big_down: 0,
            skipped: 0,
            committed: false,
            dropped: 0,
            accepted_at_end: 0,
            last_lost: None,
            promised: None,
            client: ClientSide::new(now),
            aware: aware.then(|| Box::new(AwareSide::new())),
            worker_rx: 0,
            worker_acked: 0,
            worker_places: Vec::new(),
            confirmed_ever: 0,
            worker_closed: None,
            ended: None,
        };
        model.attached(Attachment::FIRST, None, numbers, now);
        model
    }

    fn keeps_tail(&self) -> bool {
        self.settings.replay == ReplayPolicy::Unconfirmed && self.settings.replay_tail != ReplayTail::default()
    }

    /// Whether the model knows exactly what was sent and confirmed.
    fn is_exact(&self) -> bool {
        self.settings.replay != ReplayPolicy::None
    }

    /// The pipe is about to be given these bytes of the current worker.
    pub fn worker_bytes(&mut self, bytes: &[u8], marks: &mut Marks) -> Heard {
        if self.has_numbered_worker() {
            return self.numbered_worker_bytes(bytes, marks);
        }
        let tap = self.tap.as_mut().expect("only a current worker is read");
        let items = tap.from_worker.read_sized(bytes);
        let mut heard = Heard { closed: None, talked: tap.talked, numbers: false, fin: false };
        for (item, wire_bytes) in items {
            match item {
                item @ (Item::Text(_) | Item::Binary(_)) => {
                    let too_big = len(&item) > self.settings.message_bytes_max;
                    if too_big && self.settings.on_too_big == OnTooBig::Close {
                        heard.closed = Some(0);
                        break;
                    }
                    heard.talked = true;
                    self.outage = None;
                    if too_big {
                        self.skipped += 1;
                        continue;
                    }
                    self.down_charges.push(self.down_charges.last().unwrap_or(&0) + wire_bytes + OVERHEAD_BYTES);
                    self.down.push(item);
                }
                Item::Pong(payload) => self.ponged(&payload),
                Item::Ping(_) => {}
                Item::Close(code, reason) => {
                    heard.closed = Some(code);
                    self.worker_closed = Some((code, reason));
                    if self.is_told_to_close() {
                        self.confirm(self.sent);
                    }
                    break;
                }
            }
        }
        if let Some(tap) = &mut self.tap {
            tap.talked = heard.talked;
        }
        heard
    }

    /// Whether the worker has begun a message that it has not ended.
    pub fn worker_is_amid_message(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| !tap.from_worker.is_at_boundary())
    }

    /// The pipe took this message of the operator's.
    pub fn operator_said(&mut self, payload: Vec<u8>) {
        let charge = wire::frame(0x82, &payload, None).len() + OVERHEAD_BYTES;
        self.down_charges.push(self.down_charges.last().unwrap_or(&0) + charge);
        self.down.push(Item::Binary(payload));
    }

    fn ponged(&mut self, payload: &[u8]) {
        let answered = self.tap.as_mut().and_then(|tap| tap.pings.remove(payload));
        let before = self.confirmed;
        if let Some(covers) = answered {
            self.written = false;
            self.confirm(covers);
            self.committed &= self.confirmed == before;
        } else if let Some(seq) = payload.strip_prefix(b"A").and_then(|digits| str::from_utf8(digits).ok()) {
            let seq = seq.parse().unwrap_or(0);
            self.confirm(seq);
            self.committed |= seq >= self.confirmed && self.confirmed > 0;
        }
        if self.confirmed > before {
            self.outage = None;
        }
    }

    fn confirm(&mut self, seq: u64) {
        if !self.is_exact() {
            return;
        }
        let seq = seq.min(self.sent);
        for fate in self.fates.iter_mut().take(seq as usize).skip(self.confirmed as usize) {
            if *fate == Fate::Open {
                *fate = Fate::Confirmed;
            }
        }
        self.confirmed = self.confirmed.max(seq);
        self.confirmed_ever = self.confirmed_ever.max(seq);
    }

    /// The worker's link took these bytes.
    pub fn worker_is_given(&mut self, bytes: &[u8], marks: &mut Marks) {
        let tap = self.tap.as_mut().expect("only a current worker is written to");
        for item in tap.to_worker.read(bytes) {
            let Some(item) = self.given_to_numbered(item, marks) else { continue };
            match item {
                item @ (Item::Text(_) | Item::Binary(_)) => self.sent_one(&item, marks),
                Item::Ping(payload) if payload != b"holdline" => {
                    assert!(self.settings.replay != ReplayPolicy::None, "a barrier ping that is not needed");
                    if let Some(tap) = &mut self.tap {
                        tap.pings.insert(payload, self.sent);
                    }
                }
                Item::Ping(_) | Item::Pong(_) => {}
                Item::Close(..) => {
                    if let Some(tap) = &mut self.tap {
                        tap.told_to_close = true;
                        if tap.farewell {
                            marks.hit(Mark::FarewellDelivered);
                        }
                    }
                }
            }
        }
    }

    fn sent_one(&mut self, item: &Item, marks: &mut Marks) {
        let mut seq = self.sent + 1;
        if self.settings.replay == ReplayPolicy::None {
            while self.up.get(seq as usize - 1).is_some_and(|other| other != item) {
                seq += 1;
            }
        }
        assert_eq!(self.up.get(seq as usize - 1), Some(item), "message {seq} to the worker is not the next one");
        let again = seq <= self.sent_high;
        match self.settings.replay {
            ReplayPolicy::Unsent | ReplayPolicy::None => assert!(!again, "message {seq} was sent twice"),
            ReplayPolicy::Unconfirmed => {
                let confirmed = self.fates[seq as usize - 1] == Fate::Confirmed;
                if self.keeps_tail() && confirmed {
                    marks.hit(Mark::TailReplayed);
                }
                assert!(self.keeps_tail() || !confirmed, "message {seq} was sent again though it was confirmed");
            }
        }
        self.sent = seq;
        self.sent_high = self.sent_high.max(seq);
        if self.settings.replay == ReplayPolicy::None {
            self.fates[seq as usize - 1] = Fate::Confirmed;
        } else if self.written {
            let before = self.confirmed;
            self.confirm(seq);
            self.committed &= self.confirmed == before;
        }
    }

    /// A worker was attached.
    pub fn attached(&mut self, attachment: Attachment, has: Option<Seq>, numbers: bool, now: Time) {
        if let Some((_, first)) = self.promised.filter(|&(dialed, _)| dialed == attachment && self.is_exact()) {
            assert_eq!(first, self.sent + 1, "the worker was told that another message would come first");
        }
        if let Some(Seq(seq)) = has {
            let seq = seq.min(self.up.len() as u64);
            self.sent = self.sent.max(seq);
            self.sent_high = self.sent_high.max(seq);
            self.confirm(seq);
        }
        self.committed = has.is_some_and(|Seq(seq)| seq >= self.confirmed && self.confirmed > 0);
        self.written = false;
        let delayed = self.outage.map_or(now, |outage| outage + self.settings.replay_delay);
        self.tap = Some(Tap {
            attachment,
            since: now.max(delayed),
            to_worker: Reader::new(true),
            from_worker: Reader::lenient(false),
            pings: BTreeMap::new(),
            talked: false,
            numbered: numbers.then(Numbered::default),
            told_to_close: false,
            paused: false,
            farewell: self.ended.is_some(),
        });
    }

    /// Whether the worker was given a part of a message, or gave one itself, and not the rest.
    pub fn halves(&self) -> (bool, bool) {
        let tap = self.tap.as_ref();
        (
            tap.is_some_and(|tap| !tap.to_worker.is_at_boundary()),
            tap.is_some_and(|tap| !tap.from_worker.is_at_boundary()),
        )
    }

    /// The pipe is frozen, for a process whose clock began at `start`.
    pub fn frozen(&self, start: Time, marks: &mut Marks) {
        let (to_worker, from_worker) = self.halves();
        let states = [
            (to_worker || !self.to_client.is_at_boundary(), Mark::FrozenHalfWritten),
            (from_worker || !self.from_client.is_at_boundary(), Mark::FrozenHalfRead),
            (self.tap.as_ref().is_some_and(|tap| !tap.pings.is_empty()), Mark::FrozenPinged),
            (self.is_exact() && self.sent > self.confirmed, Mark::FrozenUnconfirmed),
            (self.tap.is_none() && self.outage.is_some_and(|since| since < start), Mark::FrozenOlderThanClock),
        ];
        states.iter().filter(|(is, _)| *is).for_each(|(_, mark)| marks.hit(*mark));
    }

    /// The worker's link was dropped.
    pub fn dropped(&mut self) {
        self.dropped_tap = self.tap.take().map(|tap| (tap.attachment, tap.since));
        self.client.stuck_since = None;
    }

    /// A dial was ordered.
    pub fn dial(&mut self, order: &DialOrder) {
        let first = order.first_seq.0;
        self.promised = Some((order.attachment, first));
        if !self.is_exact() {
            return;
        }
        if self.tap.is_some() {
            // A half-written message is finished for the worker that is being left; `attached` looks at the promise.
            assert!(matches!(first - self.sent, 1 | 2), "{first} comes long after {}", self.sent);
            assert_eq!(order.confirmed.0, self.confirmed);
            return;
        }
        if self.keeps_tail() {
            assert!(first <= self.confirmed + 1, "{first} begins behind what was confirmed");
            (self.sent, self.confirmed) = (first - 1, first - 1);
        }
        assert_eq!(first, self.sent + 1, "the first message to be sent");
        assert_eq!(order.again, self.sent_high.saturating_sub(first - 1), "messages to be sent again");
        assert_eq!(order.confirmed.0, self.confirmed);
    }

    /// Whether the worker on the link has been told to close.
    pub fn is_told_to_close(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.told_to_close)
    }

    /// The message that a worker was told it would be sent first.
    pub fn promised(&self, attachment: Attachment) -> Option<u64> {
        self.promised.filter(|&(dialed, _)| dialed == attachment).map(|(_, first)| first)
    }

    /// Whether `order` is the first one since a worker crashed or closed by itself.
    pub fn is_first_after_death(&self, order: &DialOrder) -> bool {
        self.last_lost.is_some_and(|(attachment, reason)| {
            let own = !matches!(reason, Interruption::Silent | Interruption::WrongWorker);
            own && order.attachment == attachment.next()
        })
    }
}
