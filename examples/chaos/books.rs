//! What the clients sent and saw, and which ends of theirs a rule excuses. One lock, never held across an await.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Problems that are kept word by word; more are only counted.
const PROBLEMS_MAX: usize = 40;

/// The books of a run.
#[derive(Debug, Default)]
pub struct Books(Mutex<Pages>);

/// Everything that is written down.
#[derive(Debug, Default)]
pub struct Pages {
    /// One for each socket that a client ever had, by its session.
    pub talks: HashMap<String, Talk>,
    /// WebSockets that were opened.
    pub opened: u64,
    /// Messages that clients sent.
    pub sent: u64,
    /// What went wrong, in words.
    pub problems: Vec<String>,
    /// How many problems there were.
    pub problems_total: u64,
    /// Ends and refusals that a rule allows, by the rule.
    pub excused: BTreeMap<&'static str, u64>,
    /// Close codes that a worker was told to send, by session.
    pub told_to_close: HashMap<String, HashSet<u16>>,
    /// How many handshakes workers were told to refuse, by status or code.
    pub told_to_refuse: HashMap<u16, u64>,
    /// Messages that came down.
    pub received: u64,
    /// Those of them that were answers.
    pub answers: u64,
    /// Messages that came a second time.
    pub again: u64,
}

/// One socket's conversation.
#[derive(Debug, Default)]
pub struct Talk {
    /// Whether answers are expected to what it sends.
    pub is_answered: bool,
    /// Whether workers journal what it sends.
    pub is_journalled: bool,
    /// The last number sent; they count from 1.
    pub sent: u64,
    /// How often each number came back.
    pub answers: BTreeMap<u64, u64>,
    /// The end that was excused, or that the client chose: what was under way then may be lost.
    pub ended_early: bool,
}

impl Talk {
    /// Numbers that have not come back although they must.
    pub fn unanswered(&self) -> u64 {
        let waits = self.is_answered && !self.ended_early;
        if waits { self.sent - (self.answers.len() as u64).min(self.sent) } else { 0 }
    }
}

impl Books {
    /// The pages, for a moment.
    pub fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that moves with every answer.
    pub fn progress(&self) -> u64 {
        self.open().answers
    }

    /// Messages without an answer.
    pub fn unanswered(&self) -> u64 {
        self.open().talks.values().map(Talk::unanswered).sum()
    }

    /// Sessions that may be told to close.
    pub fn sessions(&self) -> Vec<String> {
        let mut live: Vec<String> =
            self.open().talks.iter().filter(|(_, talk)| !talk.ended_early).map(|(name, _)| name.clone()).collect();
        live.sort_unstable();
        live
    }

    /// One line about how it goes.
    pub fn summary(&self) -> String {
        let unanswered = self.unanswered();
        let pages = self.open();
        format!(
            "{} sockets opened, {} sent, {} received, {} again, {unanswered} unanswered, {} problems",
            pages.opened, pages.sent, pages.received, pages.again, pages.problems_total
        )
    }
}

impl Pages {
    /// Writes down what no rule allows.
    pub fn problem(&mut self, text: String) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(text);
        }
    }

    /// Counts an end or a refusal that a rule allows.
    pub fn excuse(&mut self, rule: &'static str) {
        *self.excused.entry(rule).or_default() += 1;
    }

    /// Takes one of the refusals that workers were told to make.
    pub fn take_refusal(&mut self, code: u16) -> bool {
        let left = self.told_to_refuse.entry(code).or_default();
        let is_there = *left > 0;
        *left = left.saturating_sub(1);
        is_there
    }
}
