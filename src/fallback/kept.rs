//! What a client without a socket has been told and has not acknowledged.
//!
//! Invariant: a message stays until the client acknowledges it by its number. A word about messages has no number: it stays
//! until the client has acknowledged a later message, or was told it twice, since the answer that it was in may be lost.

use std::collections::VecDeque;

use bytes::Bytes;

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

    /// Adds a word about messages.
    pub fn word(&mut self, json: Bytes) {
        self.push(Kind::Word { told: 0 }, json);
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

    /// The client has all messages up to `after`.
    pub fn acknowledge(&mut self, after: u64) {
        let bytes = &mut self.bytes;
        self.lines.retain(|line| {
            let done = match line.kind {
                Kind::Message => line.seq <= after,
                Kind::Word { told } => told > 1 || told > 0 && line.seq < after,
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

    fn told(kept: &mut Kept, from: u64) -> Vec<String> {
        kept.tell(Since::Message(from), 100)
            .into_iter()
            .map(|told| String::from_utf8(told.json.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a_message_is_told_until_it_is_acknowledged() {
        let mut kept = Kept::default();
        for seq in 1..=3 {
            kept.message(seq, seq.to_string().into());
        }
        assert_eq!(told(&mut kept, 0), ["1", "2", "3"]);
        assert_eq!(told(&mut kept, 0), ["1", "2", "3"]);
        kept.acknowledge(2);
        assert_eq!(told(&mut kept, 2), ["3"]);
        kept.acknowledge(3);
        assert!(kept.lines.is_empty() && kept.memory_bytes() == 0 && kept.last() == 3);
    }

    #[test]
    fn a_word_is_told_again_until_a_later_message_is_acknowledged() {
        let mut kept = Kept::default();
        kept.message(1, "1".into());
        kept.word("lost".into());
        kept.acknowledge(1);
        assert_eq!(told(&mut kept, 1), ["lost"]);
        kept.acknowledge(1);
        assert_eq!(told(&mut kept, 1), ["lost"], "the answer may have been lost");
        kept.message(2, "2".into());
        kept.acknowledge(1);
        assert_eq!(told(&mut kept, 1), ["2"], "twice is enough");
        kept.word("back".into());
        kept.message(3, "3".into());
        assert_eq!(told(&mut kept, 2), ["back", "3"]);
        kept.acknowledge(3);
        assert!(kept.lines.is_empty());
    }

    #[test]
    fn an_answer_that_goes_on_tells_nothing_twice() {
        let mut kept = Kept::default();
        kept.word("lost".into());
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
            kept.word("lost".into());
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
        kept.acknowledge(1);
        assert_eq!(told(&mut kept, 1), ["2"]);
    }
}
