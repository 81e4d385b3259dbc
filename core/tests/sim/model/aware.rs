//! A client that numbers its messages, as a tap on both of its flows shows it: which numbers came, which it was given, what
//! was acknowledged and what it was told to be missing.
//!
//! Numbers are taken off here by a reader of the tests' own, and the rest of the model sees what any other client would say
//! and be given.

use std::time::Duration;

use holdline_core::aware::Reject;
use holdline_core::pipe::EndedBy;
use holdline_core::settings::{DownPolicy, ReplayPolicy};
use holdline_core::time::Time;

use super::Model;
use crate::marks::{Mark, Marks};
use crate::numbers::{Claim, EPOCH};
use crate::wire::{self, Item, Reader};
use crate::words::{self, Spoken};

/// Takeovers in [`TAKEOVER_WINDOW`] after which the newcomer is refused.
const TAKEOVERS_MAX: usize = 3;

const TAKEOVER_WINDOW: Duration = Duration::from_secs(10);

/// The client's link, and what of its numbers has come how far.
#[derive(Debug)]
pub(super) struct AwareSide {
    from_client: Reader,
    greeted: bool,
    /// The answer to its hello was given to its link.
    answered: bool,
    /// What comes over this link counts no more: it closed without an end.
    cut: bool,
    /// The last number received, and that of each message of the lane.
    rx: u64,
    numbers: Vec<u64>,
    /// Messages that came before, and those that were said to have.
    repeated: u64,
    pub repeated_said: u64,
    /// The last number that the client was given or told to be missing.
    told: u64,
    /// The last one that it was told on any link.
    told_ever: u64,
    /// The numbers that it was given on this link.
    given: Vec<u64>,
    /// What was acknowledged last.
    n: u64,
    d: u64,
    /// The last message of a replay whose end it was not told.
    live_behind: Option<u64>,
    /// It is to be told where it stands, before anything else: the last number received, and what it says that it has.
    resumed: Option<(u64, u64)>,
    /// What it is to be told to be sent again first.
    follows: u64,
    /// Numbers of its own that no worker will get, from and to.
    gaps: Vec<(u64, u64)>,
    may_close_unended: bool,
    /// Up to which message it is asked for none any more.
    forgotten: u64,
    good_from: u64,
    takeovers: Vec<Time>,
}

impl AwareSide {
    pub fn new() -> Self {
        Self {
            from_client: Reader::of_one_that_talks_on(true),
            greeted: false,
            answered: false,
            cut: false,
            rx: 0,
            numbers: Vec::new(),
            repeated: 0,
            repeated_said: 0,
            told: 0,
            told_ever: 0,
            given: Vec::new(),
            n: 0,
            d: 0,
            live_behind: None,
            resumed: None,
            follows: 0,
            gaps: Vec::new(),
            may_close_unended: false,
            forgotten: 0,
            good_from: 1,
            takeovers: Vec::new(),
        }
    }
}

/// What comes.
impl Model {
    /// The bytes that any other client would have sent, and what its words say.
    pub(super) fn numbered_bytes(&mut self, bytes: &[u8], marks: &mut Marks) {
        let Some(aware) = &mut self.aware else { return };
        for (item, parts) in aware.from_client.read_in_parts(bytes) {
            if self.client.deaf || self.aware.as_ref().is_some_and(|aware| aware.cut) {
                return;
            }
            match &item {
                Item::Text(_) | Item::Binary(_) => self.numbered_message(&item, &parts, marks),
                Item::Close(..) => self.closes(&item, marks),
                Item::Ping(payload) => self.plain(0x89, payload, marks),
                Item::Pong(payload) => self.plain(0x8A, payload, marks),
            }
        }
    }

    fn plain(&mut self, first: u8, payload: &[u8], marks: &mut Marks) {
        self.unnumbered_bytes(&wire::frame(first, payload, Some([0; 4])), marks);
    }

    fn closes(&mut self, item: &Item, marks: &mut Marks) {
        let Item::Close(code, reason) = item else { return };
        if *code == 0 {
            return self.unnumbered_bytes(&[0x83, 0x80, 0, 0, 0, 0], marks);
        }
        if self.may_return() {
            // Without a word that it ends, it may come back.
            if let Some(aware) = &mut self.aware {
                (aware.cut, aware.may_close_unended) = (true, true);
            }
        } else if !self.client.said_close {
            self.plain(0x88, &wire::close_payload(*code, reason), marks);
        }
    }

    fn numbered_message(&mut self, item: &Item, parts: &[usize], marks: &mut Marks) {
        let (open, Some(aware)) = (self.client_open, &mut self.aware) else { return };
        match words::read(item) {
            Spoken::Malformed => self.broke(marks),
            Spoken::Word(word) => self.hears_word(&word, marks),
            Spoken::Numbered(..) if !aware.greeted => self.broke(marks),
            Spoken::Numbered(..) if !open => {}
            Spoken::Numbered(number, ..) if number <= aware.rx => {
                marks.hit(Mark::AwareRepeated);
                aware.repeated += 1;
            }
            Spoken::Numbered(number, ..) if number > aware.rx + 1 => self.broke(marks),
            Spoken::Numbered(number, cut, item) => {
                aware.rx = number;
                let before = self.up.len();
                self.passes_on(&item, parts, cut, marks);
                if let Some(aware) = self.aware.as_mut().filter(|_| self.up.len() > before) {
                    aware.numbers.push(number);
                }
            }
        }
    }

    /// The message without its number: frames that hold nothing but a part of that are left out.
    fn passes_on(&mut self, item: &Item, parts: &[usize], mut cut: usize, marks: &mut Marks) {
        let (opcode, payload) = match item {
            Item::Text(payload) => (1, payload),
            Item::Binary(payload) => (2, payload),
            Item::Ping(_) | Item::Pong(_) | Item::Close(..) => return,
        };
        let mut left = Vec::new();
        for &part in parts {
            if cut > part || cut > 0 && part == 0 {
                cut -= part;
            } else {
                left.push(part - cut);
                cut = 0;
            }
        }
        let mut at = 0;
        for (index, part) in left.iter().enumerate() {
            let fin = if index + 1 == left.len() { 0x80 } else { 0 };
            let first = if index == 0 { opcode } else { 0 };
            let frame = wire::frame(fin | first, &payload[at..at + part], Some([0; 4]));
            at += part;
            self.unnumbered_bytes(&frame, marks);
        }
    }

    /// It broke the protocol: nothing that it says counts from now on.
    fn broke(&mut self, marks: &mut Marks) {
        marks.hit(Mark::AwareRefused);
        self.client_open = false;
        self.client.deaf = true;
    }

    fn hears_word(&mut self, word: &str, marks: &mut Marks) {
        let (open, generation) = (self.client_open, self.client.generation.0);
        let down_next = self.down_next as u64;
        let Some(aware) = &mut self.aware else { return };
        let told = down_next.max(aware.told);
        let number = |member| words::number(word, member);
        match words::name(word) {
            "hello" if !aware.greeted => aware.greeted = true,
            "ack" if aware.greeted && number("n").is_some_and(|n| n <= told) => {
                aware.good_from = generation;
                self.confirm_down(number("n").unwrap_or(0) as usize);
            }
            "gap" if aware.greeted && !open => {}
            "gap" if aware.greeted => {
                let from = number("from").expect("a gap has a number");
                let rx = number("count").map_or(from - 1, |count| from + count - 1);
                if rx <= aware.rx {
                    return;
                }
                if from > aware.rx + 1 && number("count").is_some() {
                    return self.broke(marks);
                }
                aware.rx = rx;
            }
            "hb" if aware.greeted => {}
            "fin" if aware.greeted => {
                if open && number("n") != Some(aware.rx) {
                    return self.broke(marks);
                }
                marks.hit(Mark::AwareFin);
                let code = number("code").expect("an end has a code") as u16;
                let reason = words::text(word, "reason").expect("an end has a reason");
                self.plain(0x88, &wire::close_payload(code, reason), marks);
            }
            _ => self.broke(marks),
        }
    }
}

/// What it is given.
impl Model {
    /// The client was given this whole; what any other client would have been given in its place.
    pub(super) fn given_numbered(&mut self, item: Item, marks: &mut Marks) -> Option<Item> {
        let Some(aware) = &mut self.aware else { return Some(item) };
        if let Item::Close(code, _) = &item {
            let is_own = matches!(code, 4900..=4905);
            // A close frame that was on its way before its hello came has no word before it.
            assert!(is_own || !aware.answered || aware.may_close_unended, "{code} without a word that it ends");
        }
        if !matches!(item, Item::Text(_) | Item::Binary(_)) {
            return Some(item);
        }
        assert!(aware.greeted, "a client is told something before it was greeted: {item:?}");
        match words::read(&item) {
            Spoken::Word(word) => {
                self.told_word(&word, marks);
                None
            }
            Spoken::Numbered(number, _, item) => {
                self.given_number(number, &item, marks);
                Some(item)
            }
            Spoken::Malformed => panic!("not a message of the protocol: {item:?}"),
        }
    }

    fn given_number(&mut self, number: u64, item: &Item, marks: &mut Marks) {
        let window = self.settings.aware.window_bytes;
        let unacknowledged = self.down_charges[number as usize - 1] - self.down_charges[self.client.settled];
        let Some(aware) = &mut self.aware else { return };
        assert!(aware.resumed.is_none(), "a message before it knows where it stands");
        assert_eq!(number, aware.told + 1, "the number of the next message");
        assert_eq!(self.down.get(number as usize - 1), Some(item), "number {number} is another message");
        let is_exact = self.settings.down == DownPolicy::Keep;
        assert!(
            !is_exact || unacknowledged < window,
            "{unacknowledged} bytes are not acknowledged, the window is {window}"
        );
        aware.told = number;
        aware.told_ever = aware.told_ever.max(number);
        aware.given.push(number);
        self.down_next = number as usize - 1;
        if unacknowledged + (self.down_charges[number as usize] - self.down_charges[number as usize - 1]) >= window {
            marks.hit(Mark::AwareWindowFull);
        }
    }

    fn told_word(&mut self, word: &str, marks: &mut Marks) {
        let accepted_at_end = self.accepted_at_end;
        let (name, number) = (words::name(word), |member| words::number(word, member));
        let Some(aware) = &mut self.aware else { return };
        aware.answered |= matches!(name, "welcome" | "resumed");
        let knows = aware.resumed.is_none() || matches!(name, "resumed" | "reject");
        assert!(knows, "{name} before it knows where it stands");
        match name {
            "welcome" => {
                assert_eq!((number("gen"), number("epoch")), (Some(1), Some(EPOCH)));
                assert_eq!(words::text(word, "token"), Some("t1"));
                marks.hit(Mark::AwareGreeted);
            }
            "resumed" => self.told_where_it_stands(word, marks),
            "ack" => self.told_ack(number("n").expect("a number"), number("d").expect("a number")),
            "gap" if words::text(word, "lane") == Some("down") => {
                self.told_gap_down(number("from").expect("a number"), number("count"), marks);
            }
            "gap" => self.told_gap_up(number("from").expect("a number"), number("count"), marks),
            "live" => {
                let behind = aware.live_behind.take().expect("the end of a replay");
                assert!(aware.told >= behind, "the replay of {behind} is over at {}", aware.told);
                marks.hit(Mark::AwareLive);
            }
            "fin" => {
                assert_eq!(number("n"), Some(aware.told), "the last number sent");
                assert!(aware.told >= accepted_at_end, "{} of {accepted_at_end}, and no gap is said", aware.told);
                aware.may_close_unended = true;
            }
            "goaway" => aware.may_close_unended = true,
            "backend" | "hb" | "reject" => {}
            other => panic!("a word that is none: {other}"),
        }
    }

    /// The client is asked for nothing any more that it was given.
    pub(super) fn forgets_given(&mut self) {
        let given = self.down_next as u64;
        if let Some(aware) = &mut self.aware {
            aware.forgotten = given;
        }
    }

    fn told_where_it_stands(&mut self, word: &str, marks: &mut Marks) {
        let (is_latest, generation) = (matches!(self.settings.down, DownPolicy::Latest(_)), self.client.generation.0);
        let Some(aware) = &mut self.aware else { return };
        let (rx_up, rx_down) = aware.resumed.take().expect("it came back");
        let told = ["rx", "gen", "epoch"].map(|member| words::number(word, member));
        assert_eq!(told, [rx_up, generation, EPOCH].map(Some), "received, attach and epoch");
        let [first, next] = words::pair(word, "tx").expect("it is told what is sent again");
        let follows = first == aware.follows || is_latest && first > rx_down;
        assert!(follows, "{first} is sent again, and not {}", aware.follows);
        let behind = aware.live_behind.expect("a replay, be there nothing in it");
        assert_eq!(next, behind + 1, "the next new message");
        marks.hit(Mark::AwareResumed);
    }

    fn told_ack(&mut self, n: u64, d: u64) {
        let bound = self.confirmed_number();
        let Some(aware) = &mut self.aware else { return };
        assert!(n <= aware.rx, "{n} is acknowledged, {} came", aware.rx);
        assert!(d <= bound && d <= n, "{d} of {n} is said to be confirmed, {bound} is");
        assert!(n >= aware.n && d >= aware.d, "an acknowledgement of less than before");
        (aware.n, aware.d) = (n, d);
    }

    fn told_gap_down(&mut self, from: u64, count: Option<u64>, marks: &mut Marks) {
        // Of a client that broke a rule, what waits is not sent any more.
        let by_client = self.ended.as_ref().is_some_and(|(by, ..)| *by == EndedBy::Client);
        let may_miss = matches!(self.settings.down, DownPolicy::Latest(_)) || by_client;
        let lost_from = self.client.lost_from;
        let Some(aware) = &mut self.aware else { return };
        let Some(count) = count else { return marks.hit(Mark::AwareGapUnknown) };
        let is_lost = |number| number <= aware.forgotten || lost_from.is_some_and(|lost| number >= lost);
        let are_lost = (from..from + count).all(is_lost);
        assert!(
            from == aware.told + 1 && (may_miss || are_lost),
            "{count} messages from {from} are said to be missing"
        );
        marks.hit(if are_lost { Mark::AwareGapAtTheEnd } else { Mark::AwareGapDown });
        aware.told += count;
        aware.told_ever = aware.told_ever.max(aware.told);
    }

    fn told_gap_up(&mut self, from: u64, count: Option<u64>, marks: &mut Marks) {
        let Some(aware) = &mut self.aware else { return };
        marks.hit(Mark::AwareGapUp);
        let is_known = match count {
            Some(count) => aware.gaps.contains(&(from, from + count - 1)),
            None => aware.gaps.iter().any(|&(_, to)| to + 1 == from),
        };
        assert!(is_known, "{count:?} from {from} are said to be missing, {:?} are", aware.gaps);
    }

    /// Numbers of the client's own that it has to know to be missing.
    pub fn gaps(&self) -> &[(u64, u64)] {
        self.aware.as_ref().map_or(&[], |aware| &aware.gaps)
    }

    /// The last number that may be said to be confirmed by a worker.
    fn confirmed_number(&self) -> u64 {
        let Some(aware) = &self.aware else { return 0 };
        let confirmed = match self.settings.replay {
            ReplayPolicy::None => aware.numbers.len(),
            ReplayPolicy::Unsent | ReplayPolicy::Unconfirmed => self.confirmed_ever as usize,
        };
        aware.numbers.get(confirmed).map_or(aware.rx, |number| number - 1)
    }
}

/// How it comes and goes.
impl Model {
    /// What becomes of a client that comes with this claim.
    pub fn judges(&self, claim: &Claim, now: Time) -> Option<Reject> {
        let aware = self.aware.as_ref().expect("only an aware client claims anything");
        let known = (aware.good_from..=self.client.generation.0).contains(&claim.token);
        let recent = aware.takeovers.iter().filter(|&&at| now < at + TAKEOVER_WINDOW).count();
        if !self.may_return() || !known {
            Some(Reject::Unknown)
        } else if claim.epoch != EPOCH || claim.rx > aware.told_ever || claim.tx[1] <= aware.rx {
            Some(Reject::Epoch)
        } else if self.client.linked && recent >= TAKEOVERS_MAX {
            Some(Reject::Taken)
        } else {
            None
        }
    }

    /// The claim is about to be accepted.
    pub fn client_resumes(&mut self, claim: &Claim, now: Time) {
        let linked = self.client.linked;
        let Some(aware) = &mut self.aware else { return };
        if linked {
            aware.takeovers.push(now);
        }
        aware.resumed = Some((aware.rx, claim.rx));
        self.client_returns();
    }

    /// The client's link was dropped: what is half said on it counts no more.
    pub(super) fn aware_detached(&mut self) {
        if let Some(aware) = &mut self.aware {
            aware.from_client = Reader::of_one_that_talks_on(true);
            (aware.answered, aware.cut, aware.may_close_unended) = (false, false, false);
            aware.given.clear();
        }
    }

    /// The client is on another link, and has what it says.
    pub(super) fn aware_attached(&mut self) {
        let accepted = self.down.len() as u64;
        let Some((_, rx)) = self.aware.as_ref().and_then(|aware| aware.resumed) else { return };
        self.client.settled = self.client.settled.max(rx as usize);
        self.down_next = self.client.settled;
        if let Some(aware) = &mut self.aware {
            (aware.greeted, aware.told, aware.live_behind) = (true, rx, Some(accepted));
            let kept = rx.max(aware.forgotten) + 1;
            aware.follows = if self.client.lost_from.is_some_and(|lost| kept >= lost) { accepted + 1 } else { kept };
        }
    }

    /// Messages of the lane up from `first` to `last` will reach no worker.
    pub(super) fn owes_gap(&mut self, first: u64, last: u64) {
        let Some(aware) = &mut self.aware else { return };
        aware.gaps.push((aware.numbers[first as usize - 1], aware.numbers[last as usize - 1]));
    }

    /// Messages given to the client on its link that it has not acknowledged.
    pub(super) fn given_unsettled(&self) -> u64 {
        let settled = self.client.settled as u64;
        self.aware.as_ref().map_or(0, |aware| aware.given.iter().filter(|&&number| number > settled).count() as u64)
    }

    /// What must be true of it after each step.
    pub(super) fn check_aware(&self) {
        let Some(aware) = self.aware.as_ref().filter(|_| self.client_open) else { return };
        assert_eq!(aware.repeated, aware.repeated_said, "messages that came before");
    }

    /// Whether it has been told all that it is to know.
    pub(super) fn is_aware_settled(&self) -> bool {
        let Some(aware) = &self.aware else { return true };
        let has_all = matches!(self.settings.down, DownPolicy::Latest(_)) || self.client.settled == self.down.len();
        let told = aware.n == aware.rx && aware.d == self.confirmed_number();
        has_all && told && aware.live_behind.is_none()
    }

    /// What the client itself has read under this number.
    pub fn check_received(&self, number: u64, item: &Item) {
        assert_eq!(self.down.get(number as usize - 1), Some(item), "what the client has under number {number}");
    }
}
