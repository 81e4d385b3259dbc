//! What a client without a socket has been told and has not acknowledged.
//!
//! Invariant: a message stays until the client acknowledges it by its number. A word about messages has no number but the
//! place of its line, `line`: it stays until the client has acknowledged that, or a later message. For a client that says
//! nothing of lines, it is enough to have been told twice, since the answer that it was in may be lost.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Map, Value};

/// Bytes that a line is charged beside its own.
const LINE_OVERHEAD_BYTES: usize = size_of::<Line>();

/// Words that are kept though they were told; beyond, the oldest of them is forgotten.
const TOLD_WORDS_MAX: usize = 64;

#[derive(Debug)]
struct Line {
    /// Its place among all that there ever were.
    at: u64,
    /// The message's number; of a word, that of the message before it.
    seq: u64,
    kind: Kind,
    json: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Message,
    Word { told: u32 },
}

/// Where an answer begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// Behind this message, which the client has.
    Message(u64),
    /// At this line: the answer goes on where it was.
    Line(u64),
}

/// Lines for a client, oldest first.
#[derive(Debug, Default)]
pub struct Kept {
    lines: VecDeque<Line>,
    /// Lines that there ever were.
    total: u64,
    bytes: usize,
    /// The last message.
    last: u64,
}

/// One line of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The last message that the client has with it.
    pub seq: u64,
    /// The line behind it.
    pub next: u64,
    /// The line, without its end.
    pub json: Bytes,
}

impl Kept {
    /// The client has the messages up to `n` from before.
    pub const fn begin_behind(&mut self, n: u64) {
        self.last = n;
    }

    /// Adds message `seq`.
    pub fn message(&mut self, seq: u64, json: Bytes) {
        self.last = seq;
        self.push(Kind::Message, json);
    }

    /// Adds a word about messages, with its place.
    pub fn word(&mut self, mut word: Map<String, Value>) {
        word.insert("line".to_owned(), (self.total + 1).into());
        self.push(Kind::Word { told: 0 }, Value::Object(word).to_string().into());
    }

    fn push(&mut self, kind: Kind, json: Bytes) {
        self.bytes += json.len() + LINE_OVERHEAD_BYTES;
        self.lines.push_back(Line { at: self.total, seq: self.last, kind, json });
        self.total += 1;
        let is_told = |line: &Line| matches!(line.kind, Kind::Word { told: 1.. });
        if kind != Kind::Message
            && self.lines.iter().filter(|line| is_told(line)).count() > TOLD_WORDS_MAX
            && let Some(oldest) = self.lines.iter().position(is_told)
            && let Some(line) = self.lines.remove(oldest)
        {
            self.bytes -= line.json.len() + LINE_OVERHEAD_BYTES;
        }
    }

    /// The client has all messages up to `after`, and all words up to this place, if it says so.
    pub fn acknowledge(&mut self, after: u64, words: Option<u64>) {
        let bytes = &mut self.bytes;
        self.lines.retain(|line| {
            let done = match line.kind {
                Kind::Message => line.seq <= after,
                Kind::Word { told } if told > 0 && line.seq < after => true,
                Kind::Word { told } => words.map_or(told > 1, |words| line.at < words),
            };
            *bytes -= if done { line.json.len() + LINE_OVERHEAD_BYTES } else { 0 };
            !done
        });
        if self.lines.is_empty() {
            self.lines = VecDeque::new();
        }
    }

    /// The lines from there on, as many as `bytes_max` has room for, but at least one if there is any.
    pub fn tell(&mut self, since: Since, bytes_max: usize) -> Vec<Told> {
        let mut bytes = 0;
        let is_new = |line: &&mut Line| match (since, line.kind) {
            (Since::Line(at), _) => line.at >= at,
            (Since::Message(after), Kind::Message) => line.seq > after,
            (Since::Message(after), Kind::Word { .. }) => line.seq >= after,
        };
        let fits = |line: &&mut Line| {
            let first = bytes == 0;
            bytes += line.json.len() + 1;
            first || bytes <= bytes_max
        };
        let tell = |line: &mut Line| {
            if let Kind::Word { told } = &mut line.kind {
                *told += 1;
            }
            Told { seq: line.seq, next: line.at + 1, json: line.json.clone() }
        };
        self.lines.iter_mut().filter(is_new).take_while(fits).map(tell).collect()
    }

    /// Lines that there ever were: the place of the last one.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The number of the last message that ever was in here.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Memory that it takes, in bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as they are, words by their name.
    fn told(kept: &mut Kept, from: u64) -> Vec<String> {
        let name = |json: &[u8]| match serde_json::from_slice(json).unwrap() {
            Value::Object(word) => word["t"].as_str().unwrap().to_owned(),
            message => message.to_string(),
        };
        kept.tell(Since::Message(from), 100).iter().map(|told| name(&told.json)).collect()
    }

    fn word(name: &str) -> Map<String, Value> {
        [("t".to_owned(), name.into())].into_iter().collect()
    }

    #[test]
    fn a_message_is_told_until_it_is_acknowledged() {
        let mut kept = Kept::default();
        for seq in 1..=3 {
            kept.message(seq, seq.to_string().into());
        }
        assert_eq!(told(&mut kept, 0), ["1", "2", "3"]);
        assert_eq!(told(&mut kept, 0), ["1", "2", "3"]);
        kept.acknowledge(2, None);
        assert_eq!(told(&mut kept, 2), ["3"]);
        kept.acknowledge(3, None);
        assert!(kept.lines.is_empty() && kept.memory_bytes() == 0 && kept.last() == 3);
    }

    #[test]
    fn a_word_is_told_again_until_a_later_message_is_acknowledged() {
        let mut kept = Kept::default();
        kept.message(1, "1".into());
        kept.word(word("lost"));
        kept.acknowledge(1, None);
        assert_eq!(told(&mut kept, 1), ["lost"]);
        kept.acknowledge(1, None);
        assert_eq!(told(&mut kept, 1), ["lost"], "the answer may have been lost");
        kept.message(2, "2".into());
        kept.acknowledge(1, None);
        assert_eq!(told(&mut kept, 1), ["2"], "twice is enough");
        kept.word(word("back"));
        kept.message(3, "3".into());
        assert_eq!(told(&mut kept, 2), ["back", "3"]);
        kept.acknowledge(3, None);
        assert!(kept.lines.is_empty());
    }

    #[test]
    fn a_word_whose_line_is_acknowledged_is_told_once_and_one_whose_line_is_not_until_it_is() {
        let mut kept = Kept::default();
        kept.word(word("lost"));
        for _ in 0..3 {
            assert_eq!(told(&mut kept, 0), ["lost"]);
            kept.acknowledge(0, Some(0));
        }
        kept.word(word("back"));
        kept.acknowledge(0, Some(1));
        assert_eq!(told(&mut kept, 0), ["back"]);
        kept.message(1, "1".into());
        kept.acknowledge(0, Some(2));
        assert_eq!(told(&mut kept, 0), ["1"]);
        kept.acknowledge(1, Some(2));
        assert!(kept.lines.is_empty() && kept.memory_bytes() == 0 && kept.total() == 3);
    }

    #[test]
    fn an_answer_that_goes_on_tells_nothing_twice() {
        let mut kept = Kept::default();
        kept.word(word("lost"));
        let first = kept.tell(Since::Message(0), 100);
        kept.message(1, "1".into());
        let next = kept.tell(Since::Line(first[0].next), 100);
        assert_eq!(next.iter().map(|told| &told.json[..]).collect::<Vec<_>>(), [b"1"]);
        assert!(kept.tell(Since::Line(next[0].next), 100).is_empty());
    }

    #[test]
    fn words_without_a_message_between_them_are_bounded() {
        let mut kept = Kept::default();
        for _ in 0..2 * TOLD_WORDS_MAX {
            kept.word(word("lost"));
            kept.tell(Since::Message(0), 1);
            kept.tell(Since::Line(kept.total - 1), 1);
        }
        assert!(kept.lines.len() <= TOLD_WORDS_MAX + 1, "{}", kept.lines.len());
    }

    #[test]
    fn an_answer_is_bounded_and_never_empty() {
        let mut kept = Kept::default();
        kept.message(1, vec![b'x'; 200].into());
        kept.message(2, "2".into());
        assert_eq!(kept.tell(Since::Message(0), 10).len(), 1);
        kept.acknowledge(1, None);
        assert_eq!(told(&mut kept, 1), ["2"]);
    }
}
