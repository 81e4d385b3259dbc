//! What makes a client aware: it numbers what it says, keeps it until it is acknowledged, and says what it has.
//!
//! It believes its own lists only, and lies now and then when it comes back.

use std::collections::VecDeque;

use crate::marks::{Mark, Marks};
use crate::plan::Rng;
use crate::wire::Item;
use crate::words::{self, Spoken};

/// The epoch of every pipe here.
pub const EPOCH: u64 = 5;

/// The hello of a new pipe.
pub const HELLO: &str = r#"!{"t":"hello","v":1}"#;

/// Bytes of messages that are not acknowledged after which it says no more.
const KEPT_BYTES_MAX: usize = 60_000;

/// How far the conversation on the link has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It has said hello, and may talk.
    Greeting,
    /// It came back, and waits to hear where it stands.
    Resuming,
    Talking,
}

/// A message that is not acknowledged, or numbers without one.
#[derive(Clone, Debug)]
pub struct Kept {
    number: u64,
    last: u64,
    pub opcode: u8,
    /// What is sent: the number, and the payload. Nothing of numbers that were given up.
    pub bytes: Vec<u8>,
}

impl Kept {
    fn gap(number: u64, last: u64) -> Self {
        Self { number, last, opcode: 1, bytes: Vec::new() }
    }

    fn reply(&self) -> Reply {
        match self.bytes.is_empty() {
            true => Reply::Word(gap(self.number, Some(self.last + 1 - self.number))),
            false => Reply::Message(self.clone()),
        }
    }
}

/// What it says that it is when it comes back.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The attach that its token was made for.
    pub token: u64,
    pub epoch: u64,
    pub rx: u64,
    pub tx: [u64; 2],
}

/// What it wants to say in answer.
#[derive(Debug)]
pub enum Reply {
    Word(String),
    Message(Kept),
}

#[derive(Debug)]
pub struct Numbers {
    stage: Stage,
    token: Option<u64>,
    /// The number of its next new message.
    next: u64,
    kept: VecDeque<Kept>,
    /// The last number received, and the last that it has acknowledged on this link.
    rx: u64,
    acked: u64,
    /// It has said that it ends, or heard that it is over.
    over: bool,
    /// What it has received since it was last looked at.
    received: Vec<(u64, Item)>,
    /// The last number of its own that a worker has, and the ends of what it has skipped behind that.
    d: u64,
    skipped: Vec<u64>,
    /// Numbers of its own that it was told to be missing, from and to; with an unknown number, from the first.
    missing: Vec<(u64, u64)>,
}

/// What it skips before a worker has what was around it: the proxy remembers a few such places.
const SKIPPED_MAX: usize = 10;

impl Numbers {
    pub const fn new() -> Self {
        Self {
            stage: Stage::Greeting,
            token: None,
            next: 1,
            kept: VecDeque::new(),
            rx: 0,
            acked: 0,
            over: false,
            received: Vec::new(),
            d: 0,
            skipped: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub fn wants_back(&self) -> bool {
        self.token.is_some() && !self.over
    }

    pub fn may_talk(&self) -> bool {
        let bytes: usize = self.kept.iter().map(|kept| kept.bytes.len()).sum();
        !self.over && self.stage != Stage::Resuming && bytes < KEPT_BYTES_MAX
    }

    pub fn is_talking(&self) -> bool {
        self.stage == Stage::Talking
    }

    pub const fn next(&self) -> u64 {
        self.next
    }

    pub const fn rx(&self) -> u64 {
        self.rx
    }

    pub const fn is_over(&mut self) {
        self.over = true;
    }

    pub fn received(&mut self) -> Vec<(u64, Item)> {
        std::mem::take(&mut self.received)
    }

    /// It is on a new link, of which the proxy has read the hello.
    pub const fn comes_back(&mut self) {
        self.stage = Stage::Resuming;
        self.acked = 0;
    }

    /// What it says of itself when it comes back; honest, but for once in a while where it may lie.
    pub fn claim(&self, may_lie_of_rx: bool, rng: &mut Rng, marks: &mut Marks) -> Claim {
        let token = self.token.expect("it was greeted");
        let first = self.kept.front().map_or(self.next, |kept| kept.number);
        let mut claim = Claim { token, epoch: EPOCH, rx: self.rx, tx: [first, self.next] };
        match rng.below(40) {
            0 => claim.token = rng.below(token + 1),
            1 => claim.token += 1,
            2 => claim.epoch += 1,
            // To have what it was sent and has not read would be its own loss.
            3 if may_lie_of_rx => claim.rx += 1_000_000,
            4 if first > 1 => claim.tx = [1, rng.below(first) + 1],
            _ => return claim,
        }
        marks.hit(Mark::AwareLied);
        claim
    }

    /// Numbers a message and keeps it.
    pub fn number(&mut self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let bytes = words::numbered(opcode, self.next, payload);
        self.kept.push_back(Kept { number: self.next, last: self.next, opcode, bytes: bytes.clone() });
        self.next += 1;
        bytes
    }

    /// Whether it knows that all of these are missing.
    pub fn knows(&self, gaps: &[(u64, u64)]) -> bool {
        gaps.iter().all(|gap| self.missing.iter().any(|told| told.0 <= gap.0 && gap.1 <= told.1))
    }

    /// Whether it may skip numbers.
    pub fn may_skip(&self) -> bool {
        self.skipped.iter().filter(|&&end| end > self.d).count() < SKIPPED_MAX
    }

    /// Gives up numbers that it has not used; what it says of that. Now and then it does not say how many.
    pub fn skip(&mut self, count: u64, says_how_many: bool) -> String {
        let from = self.next;
        self.next += count;
        self.skipped.push(self.next);
        self.kept.push_back(Kept::gap(from, self.next - 1));
        if says_how_many { gap(from, Some(count)) } else { gap(self.next, None) }
    }

    /// One of the messages that it has sent and that are not acknowledged.
    pub fn one_kept(&self, rng: &mut Rng) -> Option<Kept> {
        let at = rng.below(self.kept.len() as u64) as usize;
        self.kept.get(at).filter(|kept| !kept.bytes.is_empty()).cloned()
    }

    /// What it has to acknowledge, if that is anything.
    pub fn ack(&mut self) -> Option<u64> {
        let owes = self.stage == Stage::Talking && self.rx > self.acked;
        owes.then(|| {
            self.acked = self.rx;
            self.rx
        })
    }

    /// It reads a message; what it says to that.
    pub fn hears(&mut self, item: Item, rng: &mut Rng, marks: &mut Marks) -> Vec<Reply> {
        match words::read(&item) {
            Spoken::Numbered(number, _, item) => {
                assert_eq!(number, self.rx + 1, "the number that the client was given");
                self.rx = number;
                self.received.push((number, item));
                Vec::new()
            }
            Spoken::Word(word) => self.hears_word(&word, rng, marks),
            Spoken::Malformed => panic!("not a message of the protocol: {item:?}"),
        }
    }

    fn hears_word(&mut self, word: &str, rng: &mut Rng, marks: &mut Marks) -> Vec<Reply> {
        let number = |member| words::number(word, member);
        match words::name(word) {
            "welcome" => {
                assert_eq!((self.stage, number("epoch")), (Stage::Greeting, Some(EPOCH)));
                self.token = number("gen");
                self.stage = Stage::Talking;
            }
            "resumed" => return self.resumed(word, rng, marks),
            "ack" => {
                let n = number("n").expect("an ack has a number");
                assert!(n < self.next, "the proxy has more than was sent: {n}");
                self.d = number("d").expect("an ack says what a worker has");
                self.kept.retain(|kept| kept.last > n);
            }
            "gap" if words::text(word, "lane") == Some("down") => {
                let from = number("from").expect("a gap has a number");
                if let Some(count) = number("count") {
                    assert_eq!(from, self.rx + 1, "the gap that the client is told of");
                    self.rx += count;
                }
            }
            "hb" => {
                marks.hit(Mark::AwareBeat);
                return vec![Reply::Word(format!("!{{\"t\":\"hb\",\"n\":{}}}", number("n").expect("a number")))];
            }
            "gap" => {
                let from = number("from").expect("a gap has a number");
                self.missing.push(number("count").map_or((1, from - 1), |count| (from, from + count - 1)));
            }
            "fin" | "reject" => self.over = true,
            "live" | "backend" | "goaway" => {}
            other => panic!("a word that is none: {other}"),
        }
        Vec::new()
    }

    /// It hears where it stands: what the proxy lacks is said again, or given up.
    fn resumed(&mut self, word: &str, rng: &mut Rng, marks: &mut Marks) -> Vec<Reply> {
        assert_eq!(self.stage, Stage::Resuming, "it is told where it stands once");
        self.token = words::number(word, "gen");
        self.stage = Stage::Talking;
        let rx = words::number(word, "rx").expect("it is told what came");
        let mut replies = Vec::new();
        if rng.once_in(3) {
            // What had come after all is said again, which is harmless.
            replies.extend(self.kept.iter().filter(|kept| kept.last <= rx).map(Kept::reply));
        }
        self.kept.retain(|kept| kept.last > rx);
        if rng.once_in(6)
            && self.may_skip()
            && let Some((first, mut last)) = self.kept.front().map(|kept| (kept.number, kept.last))
        {
            marks.hit(Mark::AwareGaveUp);
            last = self.one_kept(rng).map_or(last, |kept| kept.last);
            self.kept.retain(|kept| kept.last > last);
            self.kept.push_front(Kept::gap(first, last));
            self.skipped.push(last + 1);
        }
        replies.extend(self.kept.iter().map(Kept::reply));
        replies
    }
}

/// The word of a client that gives up `count` messages of its own, or as many as are missing before `from`.
pub fn gap(from: u64, count: Option<u64>) -> String {
    let count = count.map_or("null".to_owned(), |count| count.to_string());
    format!("!{{\"t\":\"gap\",\"lane\":\"up\",\"from\":{from},\"count\":{count},\"bytes\":null,\"why\":\"overflow\"}}")
}
