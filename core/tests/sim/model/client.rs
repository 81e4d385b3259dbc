//! The client's side of the model: what it was given, what it has confirmed, and whether it may come back.

use std::collections::BTreeMap;
use std::time::Duration;

use holdline_core::ids::Generation;
use holdline_core::leg::barrier::{Level, PONG_PATIENCE};
use holdline_core::pipe::EndedBy;
use holdline_core::settings::DownPolicy;
use holdline_core::time::Time;

use super::{Fate, Model, OVERHEAD_BYTES, len};
use crate::marks::{Mark, Marks};
use crate::wire::{Item, Reader};
use crate::words::{self, Spoken};

/// The client's leg, and how far down messages have come.
#[derive(Debug)]
pub(super) struct ClientSide {
    pub generation: Generation,
    pub linked: bool,
    /// Since when it is away, and may come back.
    pub away: Option<Time>,
    /// Its new link takes the place of one that is not known to be dead.
    replaces: bool,
    /// Barrier pings on their way, and how many messages each covers.
    pings: BTreeMap<Vec<u8>, usize>,
    /// Messages that it has confirmed, or that were given up as in doubt at the end.
    pub settled: usize,
    /// Messages that any of its links was given whole.
    pub given: usize,
    /// Written counts as confirmed: it answers no pings.
    written: bool,
    pub in_doubt: u64,
    /// What it says no longer counts.
    pub deaf: bool,
    pub said_close: bool,
    /// Our close frame was given to its link whole.
    pub told: bool,
    /// The worker ended the conversation by a close frame of its own.
    ending: bool,
    /// What it was to come back for was given up, and it is not told so.
    pub is_let_go: bool,
    /// Messages that it would have been sent were given up for want of memory.
    pub is_short: bool,
    /// The first of them.
    pub lost_from: Option<u64>,
    expired: bool,
    /// Since when its link is read, or is not.
    turned: Time,
    paused: bool,
    /// Since when neither link is read, if so.
    pub stuck_since: Option<Time>,
}

impl ClientSide {
    pub fn new(now: Time) -> Self {
        Self {
            generation: Generation::FIRST,
            linked: true,
            away: None,
            replaces: false,
            pings: BTreeMap::new(),
            settled: 0,
            given: 0,
            written: false,
            in_doubt: 0,
            deaf: false,
            said_close: false,
            told: false,
            ending: false,
            is_let_go: false,
            is_short: false,
            lost_from: None,
            expired: false,
            turned: now,
            paused: false,
            stuck_since: None,
        }
    }
}

impl Model {
    /// Whether the client is asked what it has.
    pub(super) fn asks_client(&self) -> bool {
        self.settings.client_grace.is_some() && (self.settings.down == DownPolicy::Keep || self.aware.is_some())
    }

    /// Whether what it has is known by one number: none that it was not given stands before one that it was.
    pub(super) fn has_all_up_to_one(&self) -> bool {
        self.settings.client_grace.is_some() && self.settings.down == DownPolicy::Keep
    }

    /// Messages that it was given on this link or before, and has not confirmed.
    fn unsettled(&self) -> u64 {
        match self.has_all_up_to_one() {
            true => (self.down_next - self.client.settled) as u64,
            false => self.given_unsettled(),
        }
    }

    /// Whether a client that is lost now, or is away, finds its conversation again.
    pub(super) fn may_return(&self) -> bool {
        self.settings.client_grace.is_some() && (self.client_open || self.is_owed_the_end())
    }

    /// Whether the client has not been told that its worker has ended the conversation.
    const fn is_owed_the_end(&self) -> bool {
        let client = &self.client;
        client.ending && !client.is_let_go && !client.told && !client.said_close && !client.deaf
    }

    pub(super) fn hit_if_away(&self, mark: Mark, marks: &mut Marks) {
        if self.client.away.is_some() {
            marks.hit(mark);
        }
    }

    /// The pipe is about to be given these bytes of the client.
    pub fn client_bytes(&mut self, bytes: &[u8], marks: &mut Marks) {
        match self.aware {
            Some(_) => self.numbered_bytes(bytes, marks),
            None => self.unnumbered_bytes(bytes, marks),
        }
    }

    pub(super) fn unnumbered_bytes(&mut self, bytes: &[u8], marks: &mut Marks) {
        for (item, wire_bytes) in self.from_client.read_sized(bytes) {
            if self.client.deaf {
                return;
            }
            match item {
                item @ (Item::Text(_) | Item::Binary(_)) if len(&item) <= self.settings.message_bytes_max => {
                    if self.client_open {
                        self.up_charges.push(self.up_charges.last().unwrap_or(&0) + wire_bytes + OVERHEAD_BYTES);
                        self.up.push(item);
                        self.fates.push(Fate::Open);
                    }
                }
                Item::Text(_) | Item::Binary(_) => {
                    self.client_open = false;
                    // What is too big costs it its link at the end, and not what it is owed.
                    self.client.deaf = !self.is_owed_the_end();
                    return;
                }
                Item::Close(0, _) => (self.client_open, self.client.deaf) = (false, true),
                Item::Close(..) => {
                    if self.client_open && self.tap.is_none() {
                        marks.hit(Mark::ClientClosedDetached);
                    }
                    (self.client_open, self.client.said_close) = (false, true);
                    if self.client.told {
                        // It answered, and its link goes.
                        self.confirm_down(self.down_next);
                        self.client.deaf = true;
                    }
                }
                Item::Pong(payload) => {
                    if let Some(covers) = self.client.pings.remove(&payload) {
                        self.client.written = false;
                        self.confirm_down(covers);
                    }
                }
                Item::Ping(_) => {}
            }
        }
    }

    pub(super) fn confirm_down(&mut self, messages: usize) {
        if self.asks_client() {
            self.client.settled = self.client.settled.max(messages.min(self.down_next));
        }
    }

    /// The client's link is found dead, and the pipe is about to hear of it.
    pub fn client_gone(&mut self, marks: &mut Marks) {
        if self.client_open && !self.from_client.is_at_boundary() {
            marks.hit(Mark::HalfMessageFromDeadClient);
        }
        if !self.may_return() {
            self.client_open = false;
        }
    }

    /// The client's link is being read, or no longer.
    pub fn client_paused(&mut self, paused: bool, now: Time) {
        if self.client.paused != paused {
            (self.client.paused, self.client.turned) = (paused, now);
        }
        self.note_if_stuck(now);
    }

    /// The worker's link is being read, or no longer.
    pub fn worker_paused(&mut self, paused: bool, now: Time) {
        if let Some(tap) = &mut self.tap {
            tap.paused = paused;
        }
        self.note_if_stuck(now);
    }

    fn note_if_stuck(&mut self, now: Time) {
        let stuck = self.client.paused && self.tap.as_ref().is_some_and(|tap| tap.paused);
        self.client.stuck_since = stuck.then_some(self.client.stuck_since.unwrap_or(now));
    }

    /// The pipe says what a confirmation of the client means.
    pub fn client_level(&mut self, level: Level, now: Time, marks: &mut Marks) {
        let gives_up = self.aware.is_none()
            && self.asks_client()
            && self.client.linked
            && !self.client.written
            && level == Level::Written;
        if !gives_up {
            return;
        }
        marks.hit(Mark::ClientPongsMissing);
        let side = &self.client;
        // A client that is not read cannot be heard to answer; but if neither peer is read, one must give in.
        let since = if side.paused { side.stuck_since } else { Some(side.turned) };
        assert!(since.is_some_and(|since| now >= since + PONG_PATIENCE), "no patience with a client: {side:?}");
        if side.paused {
            marks.hit(Mark::NeitherRead);
        }
        self.client.written = true;
        self.confirm_down(self.down_next);
    }

    /// The client's link took these bytes.
    pub fn client_is_given(&mut self, bytes: &[u8], marks: &mut Marks) {
        for item in self.to_client.read(bytes) {
            let Some(item) = self.given_numbered(item, marks) else { continue };
            match item {
                item @ (Item::Text(_) | Item::Binary(_)) => self.given_one(&item, marks),
                Item::Close(code, _) => {
                    let said = self.ended.as_ref().map(|(_, code, _)| *code);
                    // A client that breaks a rule while its end is on the way is told of that instead.
                    let by_us =
                        matches!(self.ended, Some((EndedBy::Client, ..))) || matches!(code, 1002 | 1008 | 1009 | 4900);
                    assert!(said == Some(code) || by_us, "the client was told {code}, the end was {said:?}");
                    assert!(by_us || !self.client.is_short || code == 1013, "{code} behind what was given up");
                    self.client.told = true;
                }
                Item::Ping(payload) if payload != b"holdline" => {
                    assert!(self.asks_client() && self.aware.is_none(), "a barrier ping that is not needed");
                    self.client.pings.insert(payload, self.down_next);
                }
                Item::Ping(_) | Item::Pong(_) => {}
            }
        }
    }

    fn given_one(&mut self, item: &Item, marks: &mut Marks) {
        if matches!(self.settings.down, DownPolicy::Latest(_)) && self.aware.is_none() {
            while self.down.get(self.down_next).is_some_and(|other| other != item) {
                self.down_next += 1;
            }
        }
        assert_eq!(self.down.get(self.down_next), Some(item), "not the next message for the client");
        self.down_next += 1;
        self.delivered += 1;
        if self.down_next <= self.client.given {
            assert!(self.asks_client(), "a message was sent again to a client that is not asked");
            marks.hit(if self.aware.is_some() { Mark::AwareReplayed } else { Mark::ReplayedDown });
        }
        self.client.given = self.client.given.max(self.down_next);
        if self.client.written {
            self.confirm_down(self.down_next);
        }
    }

    /// The client's link was dropped, with these words if another has taken its place.
    pub fn client_dropped(&mut self, last_words: &[u8], marks: &mut Marks) {
        assert!(std::mem::replace(&mut self.client.linked, false), "a link was dropped twice");
        if last_words.is_empty() {
            return;
        }
        let mut items = self.to_client.clone().read(last_words);
        let words = match (&self.aware, self.client.replaces) {
            (None, true) => (1000, "replaced"),
            (Some(_), true) => (4901, "superseded"),
            (Some(_), false) => (1000, ""),
            (None, false) => panic!("words for a client that is gone"),
        };
        assert_eq!(items.pop(), Some(Item::Close(words.0, words.1.to_owned())));
        for item in items {
            let item = match (&self.aware, words::read(&item)) {
                (Some(_), Spoken::Word(_)) => continue,
                (Some(_), Spoken::Numbered(_, _, item)) => item,
                _ => item,
            };
            match item {
                item @ (Item::Text(_) | Item::Binary(_)) => {
                    marks.hit(Mark::RestOfTheReplaced);
                    let next = match self.settings.down {
                        DownPolicy::Keep => self.down.get(self.down_next) == Some(&item),
                        DownPolicy::Latest(_) => self.down[self.down_next..].contains(&item),
                    };
                    assert!(next, "the rest of another message: {item:?}");
                }
                Item::Ping(_) | Item::Pong(_) => {}
                Item::Close(..) => panic!("two close frames"),
            }
        }
    }

    pub(super) fn client_detached(&mut self, generation: Generation, in_doubt: u64, now: Time, marks: &mut Marks) {
        assert!(self.may_return(), "it was not to be waited for");
        assert_eq!(generation, self.client.generation);
        assert!(!self.client.linked && self.client.away.is_none());
        let expected = if self.asks_client() { self.unsettled() } else { 0 };
        assert_eq!(in_doubt, expected, "messages in doubt downwards");
        if in_doubt > 0 {
            marks.hit(Mark::InDoubtDown);
        }
        if !self.to_client.is_at_boundary() {
            marks.hit(Mark::HalfMessageToDeadClient);
        }
        if !self.from_client.is_at_boundary() {
            marks.hit(Mark::HalfMessageFromDeadClient);
        }
        self.client.in_doubt += in_doubt;
        if self.asks_client() {
            self.down_next = self.client.settled;
        }
        self.from_client = Reader::of_one_that_talks_on(true);
        self.to_client = Reader::new(false);
        self.client.pings.clear();
        self.client.away = Some(now);
        self.aware_detached();
    }

    /// The client is about to be attached again.
    pub fn client_returns(&mut self) {
        assert!(self.may_return(), "it is not waited for");
        self.client.replaces = self.client.linked;
    }

    pub(super) fn client_attached(
        &mut self,
        generation: Generation,
        away: Option<Duration>,
        again: u64,
        now: Time,
        marks: &mut Marks,
    ) {
        let since = self.client.away.take().expect("one link at a time");
        let replaces = std::mem::replace(&mut self.client.replaces, false);
        marks.hit(if replaces { Mark::Replaced } else { Mark::CameBack });
        assert_eq!(away, (!replaces).then(|| now - since), "for how long it was away");
        assert_eq!(generation, self.client.generation.next());
        self.aware_attached();
        let lost = self.client.lost_from.map_or(usize::MAX, |lost| lost as usize - 1);
        let given = self.client.given.min(lost);
        let expected = if self.asks_client() { given - self.down_next.min(given) } else { 0 };
        let is_exact = self.has_all_up_to_one() || self.aware.is_none();
        assert!(
            !is_exact || again == expected as u64,
            "{again} messages to be sent again to the client, not {expected}"
        );
        let side = &mut self.client;
        side.generation = generation;
        side.linked = true;
        (side.written, side.paused, side.turned, side.stuck_since) = (false, false, now, None);
    }

    pub(super) fn client_expired(&mut self, away: Duration, now: Time, marks: &mut Marks) {
        marks.hit(Mark::ClientGraceRanOut);
        let since = self.client.away.take().expect("only a client that is away runs out of grace");
        assert_eq!(away, now - since);
        assert!(self.settings.client_grace.is_some_and(|grace| away >= grace), "the client's grace was cut short");
        (self.client.expired, self.client.ending) = (true, false);
    }

    pub(super) fn left_in_doubt_down(&mut self, messages: u64, marks: &mut Marks) {
        marks.hit(Mark::LeftInDoubtDown);
        assert!(self.asks_client());
        assert_eq!(messages, self.unsettled(), "left in doubt downwards");
        self.client.in_doubt += messages;
        self.client.settled = self.down_next;
        self.client.is_let_go = self.aware.is_none();
        self.forgets_given();
    }

    /// The newest `messages` for the client were given up for want of memory.
    pub(super) fn evicted_down(&mut self, messages: u64) {
        // What a worker says once the end is on its way is not taken in.
        let is_over = self.ended.as_ref().is_some_and(|(by, ..)| *by != EndedBy::Client);
        let accepted = if is_over { self.accepted_at_end } else { self.down.len() as u64 };
        // A half-written message that the first eviction left is the next one's.
        let end = self.client.lost_from.unwrap_or(accepted + 1);
        self.client.lost_from = Some(end - messages);
        self.client.is_short = self.aware.is_none() && !self.client.said_close;
    }

    /// The pipe ends: what that means for a client that may come back.
    pub(super) fn client_ends(&mut self, by: EndedBy, code: u16, reason: &str, marks: &mut Marks) {
        match reason {
            "no backend within grace" => self.hit_if_away(Mark::GraceRanOutWhileAway, marks),
            "out of memory" => self.hit_if_away(Mark::EvictedWhileAway, marks),
            _ => {}
        }
        let said = self.worker_closed == Some((code, reason.to_owned()));
        // A message that is too big is one before the model has read all of it.
        let by_worker = by == EndedBy::Backend && (said || reason == "message too big");
        let returns = self.settings.client_grace.is_some();
        self.client.ending = returns && by_worker;
        if self.client.ending {
            self.hit_if_away(Mark::EndedWhileAway, marks);
        } else {
            self.client.away = None;
        }
        if by == EndedBy::Client && !self.client.said_close {
            assert!(!returns || code != 1006 || self.client.expired, "a client's loss ended its pipe");
            let stood_still = matches!(reason, "client too slow" | "message not finished in time");
            assert!(!returns || !stood_still, "a client that stood still was not taken for lost");
            self.client.deaf = true;
        }
    }

    /// The pipe is ended by others: who is waited for only to be told of an end is let go.
    pub fn ended_by_order(&mut self) {
        if self.ended.is_some() && self.client.away.take().is_some() {
            self.client.ending = false;
        }
    }

    /// The pipe has dealt with the worker's bytes.
    pub fn worker_was_heard(&mut self) {
        self.worker_closed = None;
    }
}
