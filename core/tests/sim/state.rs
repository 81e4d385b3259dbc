//! What makes a worker aware: it numbers what it says, and knows by its state which of the client's messages it has done.

use std::collections::VecDeque;

use crate::marks::{Mark, Marks};
use crate::plan::Rng;
use crate::wire::Item;
use crate::words::{self, Spoken};

/// A worker's side of the protocol on one attach.
#[derive(Debug)]
pub struct State {
    /// What it remembers of the pipe, if anything.
    known: Option<u64>,
    greeted: bool,
    /// The number of its next message.
    next: u64,
    /// The last number that it was given, and those of what waits for it.
    heard: u64,
    waiting: VecDeque<u64>,
    /// All up to there is in its state; all up to there it has acknowledged.
    done: u64,
    acked: u64,
    last_said: Option<(u8, Vec<u8>)>,
}

/// What came of a message.
#[derive(Debug)]
pub enum Came {
    /// A message of the client.
    Message(Item),
    /// A word that is to be answered so.
    Answer(String),
    Nothing,
}

impl State {
    pub const fn new(known: Option<u64>) -> Self {
        Self { known, greeted: false, next: 1, heard: 0, waiting: VecDeque::new(), done: 0, acked: 0, last_said: None }
    }

    pub const fn is_greeted(&self) -> bool {
        self.greeted
    }

    pub const fn done(&self) -> u64 {
        self.done
    }

    /// The last number that it has used.
    pub const fn said(&self) -> u64 {
        self.next - 1
    }

    pub fn hears(&mut self, item: &Item, calm: bool, rng: &mut Rng, marks: &mut Marks) -> Came {
        match words::read(item) {
            Spoken::Numbered(number, _, item) => {
                assert_eq!(number, self.heard + 1, "the number that a worker was given");
                self.heard = number;
                self.waiting.push_back(number);
                Came::Message(item)
            }
            Spoken::Word(word) => self.hears_word(&word, calm, rng, marks),
            Spoken::Malformed => panic!("not a message of the protocol: {item:?}"),
        }
    }

    fn hears_word(&mut self, word: &str, calm: bool, rng: &mut Rng, marks: &mut Marks) -> Came {
        match words::name(word) {
            "hello" => {
                assert!(!self.greeted, "hello twice");
                if !calm && rng.once_in(30) {
                    marks.hit(Mark::NumberedRejected);
                    return Came::Answer("!{\"t\":\"reject\",\"why\":\"busy\"}".to_owned());
                }
                self.greeted = true;
                self.next = words::number(word, "rx").unwrap_or(0) + 1;
                let Some(rx) = self.known.filter(|_| word.contains("resume") && !rng.once_in(8)) else {
                    return Came::Answer("!{\"t\":\"welcome\"}".to_owned());
                };
                marks.hit(Mark::NumberedResumed);
                (self.heard, self.done, self.acked) = (rx, rx, rx);
                Came::Answer(format!("!{{\"t\":\"resumed\",\"rx\":{rx}}}"))
            }
            "gap" => {
                marks.hit(Mark::NumberedGap);
                assert_eq!(words::number(word, "from"), Some(self.heard + 1), "the gap that a worker is told of");
                self.heard += words::number(word, "count").expect("it is known how many");
                Came::Nothing
            }
            "ack" => {
                assert!(words::number(word, "n").is_some_and(|n| n < self.next), "more than it said: {word}");
                Came::Nothing
            }
            "hb" => Came::Answer(format!("!{{\"t\":\"hb\",\"n\":{}}}", words::number(word, "n").expect("a number"))),
            "fin" => Came::Nothing,
            other => panic!("a word that is none: {other}"),
        }
    }

    /// The message that has waited longest is in its state.
    pub fn does_one(&mut self) {
        self.done = self.waiting.pop_front().expect("a number for each message");
    }

    /// What it has to acknowledge, if that is anything.
    pub fn ack(&mut self) -> Option<String> {
        let owes = self.greeted && self.done > self.acked;
        owes.then(|| {
            self.acked = self.done;
            format!("!{{\"t\":\"ack\",\"n\":{}}}", self.done)
        })
    }

    /// Numbers a message.
    pub fn number(&mut self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let bytes = words::numbered(opcode, self.next, payload);
        self.last_said = Some((opcode, bytes.clone()));
        self.next += 1;
        bytes
    }

    /// What it said last.
    pub fn last_said(&self) -> Option<(u8, Vec<u8>)> {
        self.last_said.clone()
    }
}
