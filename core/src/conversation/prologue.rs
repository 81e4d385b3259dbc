//! The prologue of one pipe: what of its conversation the next worker must hear before the replay.
//!
//! Each entry is a message of the client that matters beyond its delivery, and the number it had in the lane. At an
//! attach those are said again that the replay does not bring: their number is not above the last one sent, and what
//! forgets them was confirmed too. A gate holds back what follows until the worker has answered; an answer that the
//! client has had already is swallowed, once, and everything else passes.
//!
//! ```text
//!                begin                    next                    answer
//!     Over ------------------> Sending <----------> Gate   or   Greeting ----> Sending
//!       ^                         |
//!       +---- nothing is due -----+        skip, worker_lost: Over from everywhere
//!       +-- Starts, until all that was begun again has been answered
//! ```
//!
//! Invariant: what is kept never exceeds its bounds. A client that says more is not repeatable from then on, and nothing
//! is kept for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::aliases::Alias;
use super::profile::{Kept, Profile};
use super::streams::Stream;
use super::words::{Awaits, BEGINNING, Class, Classes, Down, Edit, How, Keep, Name, Regret, Up, edited, is_within};
use crate::frame::Kind;
use crate::ids::Seq;
use crate::time::Time;

/// What a prologue may hold, and how long its worker may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrologueBounds {
    /// Messages that are kept.
    pub messages_max: u32,
    /// Their bytes together.
    pub bytes_max: usize,
    /// Payload bytes of a message that is looked at.
    pub inspect_max: usize,
    /// How long an answer may take.
    pub within: Duration,
}

impl Default for PrologueBounds {
    fn default() -> Self {
        Self { messages_max: 256, bytes_max: 256 << 10, inspect_max: 64 << 10, within: Duration::from_secs(5) }
    }
}

/// What each entry counts beyond its bytes.
pub(super) const ENTRY_BYTES: usize = 64;

/// A message that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub name: Name,
    pub kind: Kind,
    pub bytes: Box<[u8]>,
    /// Only for an exchange that must not begin again: how its client is told.
    pub once: Option<Regret>,
    pub awaits: Awaits,
    /// What the answer calls it.
    pub answer: Box<[u8]>,
    /// Only for what a worker gives a name of its own.
    pub alias: Option<Alias>,
    /// Its number in the lane.
    pub seq: Seq,
    /// The number of the message that makes it superfluous.
    pub gone_with: Option<Seq>,
    /// Whether the client has had its answer.
    pub answered: bool,
    pub stage: Stage,
}

/// What the present worker has heard of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nothing is to be done for it.
    Rest,
    /// It is to be said.
    Due,
    /// It was said, or the replay says it, and its answer has not come.
    Asked,
}

/// How far a prologue has come on the present link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Play {
    /// The replay may follow.
    Over,
    /// What is due goes out.
    Sending,
    /// The worker's own first word is waited for.
    Greeting { until: Time },
    /// An answer is waited for.
    Gate { until: Time },
    /// Everything was said, and what was begun again is still to be answered.
    Starts { until: Time },
}

/// What a client's message does to the pipe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    /// It was one too many.
    pub overflows: bool,
    /// The worker is told this instead.
    pub instead: Option<Vec<u8>>,
}

/// What a worker's message does to the pipe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Heard {
    /// What the client is given instead, if that is anything else.
    pub left: Option<Vec<u8>>,
    /// The client has had some of it already.
    pub swallowed: bool,
    /// The worker does not want what was begun again.
    pub refused: bool,
    /// Its stream cannot be followed any more, so that no other worker can go on with it.
    pub cut: bool,
    /// The worker has read everything up to this message: it has answered it.
    pub read_up_to: Option<Seq>,
}

/// A message of the client's that no other worker may get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Undone {
    pub seq: Seq,
    /// What its client is told, if it waits for an answer.
    pub regret: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct Prologue {
    pub(super) profile: Arc<Profile>,
    pub(super) bounds: PrologueBounds,
    pub(super) entries: Vec<Entry>,
    /// Of all entries.
    pub(super) bytes: usize,
    /// What the client and the worker have sent of a stream.
    pub(super) up: Stream,
    pub(super) down: Stream,
    /// What had come of an element that was not whole behind messages that are not confirmed, or are the last that are.
    pub(super) open: VecDeque<(Seq, Kind, Box<[u8]>)>,
    pub(super) repeatable: bool,
    /// Whether the client has had a worker's first word.
    pub(super) greeted: bool,
    pub(super) play: Play,
    /// The message behind which the present worker's replay begins, until it has heard what comes before it.
    pub(super) behind: Option<Seq>,
}

impl Prologue {
    /// An empty one.
    #[must_use]
    pub const fn new(profile: Arc<Profile>, bounds: PrologueBounds) -> Self {
        Self {
            profile,
            bounds,
            entries: Vec::new(),
            bytes: 0,
            up: Stream::new(),
            down: Stream::new(),
            open: VecDeque::new(),
            repeatable: true,
            greeted: false,
            play: Play::Over,
            behind: None,
        }
    }

    /// The name of its profile.
    #[must_use]
    pub fn profile(&self) -> &Arc<str> {
        &self.profile.name
    }

    /// Whether each message is read, however large it is.
    pub(crate) fn reads_all(&self) -> bool {
        self.profile.is_stream()
    }

    /// Whether its client opens each connection by words of its own.
    pub(super) fn opens_each_connection(&self) -> bool {
        self.profile.opens_each_connection()
    }

    /// Whether another worker can hear all of it.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Bytes that count against [`PrologueBounds::bytes_max`].
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Memory that it occupies beyond itself, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let open = self.up.open.capacity() + self.down.open.capacity();
        self.bytes + open + self.entries.capacity() * size_of::<Entry>()
    }
}

/// What is kept.
impl Prologue {
    /// Takes note of the client's message `seq`. Everything up to `confirmed` is confirmed.
    pub(crate) fn client_said(&mut self, kind: Kind, payload: &[u8], seq: Seq, confirmed: Seq) -> Said {
        if !self.repeatable {
            return Said::default();
        }
        self.forget_confirmed(confirmed);
        let connect = self.entries.iter().rev().find(|entry| entry.name.class == BEGINNING);
        let kept = Kept {
            count: self.entries.len(),
            beginning: connect.map(|entry| &*entry.bytes),
            bytes_max: self.bounds.bytes_max,
        };
        let mut edits = Vec::new();
        for word in self.profile.up(kind, payload, kept, &mut self.up) {
            match word {
                Up::Keep(keep) => self.keep(keep, kind, seq),
                Up::Forget(of, key, place) => {
                    for entry in self.entries.iter_mut().filter(|it| it.is_live(of, &key)) {
                        entry.gone_with = Some(seq);
                        if let Some(alias) = &mut entry.alias {
                            alias.given_up(&key, place.clone(), &mut edits);
                        }
                    }
                }
                Up::Leave(scope) => {
                    let within = |it: &&mut Entry| it.gone_with.is_none() && is_within(&it.name.key, &scope);
                    self.entries.iter_mut().filter(within).for_each(|entry| entry.gone_with = Some(seq));
                }
            }
        }
        self.note_open(kind, seq);
        let overflows = self.up.lost
            || self.entries.len() > self.bounds.messages_max as usize
            || self.bytes > self.bounds.bytes_max;
        if overflows {
            self.repeatable = false;
            self.let_go_if_useless();
        }
        Said { overflows, instead: (!edits.is_empty()).then(|| edited(payload, edits)) }
    }

    fn keep(&mut self, keep: Keep, kind: Kind, seq: Seq) {
        let Keep { name, bytes, how, awaits, answer, named_by_worker } = keep;
        let (once, bytes) = match how {
            How::Once(regret) => (Some(regret), Box::default()),
            How::Last | How::All => (None, bytes),
        };
        let replaced = match how {
            How::Last => self.entries.iter().rposition(|entry| entry.name == name && entry.gone_with.is_none()),
            How::All | How::Once(_) => None,
        };
        let at = match replaced {
            Some(index) => {
                self.entries[index].gone_with = Some(seq);
                index + 1
            }
            None => self.entries.len(),
        };
        let (alias, gone_with) = (named_by_worker.then(Alias::default), None);
        let (answered, stage) = (false, Stage::Rest);
        let entry = Entry { name, kind, bytes, once, awaits, answer, alias, seq, gone_with, answered, stage };
        self.bytes += entry.cost();
        self.entries.insert(at, entry);
    }

    /// Notes what has come of an element of a stream that goes on in later messages: the next worker may get only those.
    fn note_open(&mut self, kind: Kind, seq: Seq) {
        if !self.up.open.is_empty() {
            self.bytes += self.up.open.len();
            self.open.push_back((seq, kind, self.up.open.as_slice().into()));
        }
    }

    /// Lets go of what was superseded by messages that the worker has.
    fn forget_confirmed(&mut self, confirmed: Seq) {
        while self.open.front().is_some_and(|(seq, ..)| *seq < confirmed)
            && let Some((_, _, bytes)) = self.open.pop_front()
        {
            self.bytes -= bytes.len();
        }
        // What a worker has named may be mentioned until it has answered that it is given up.
        let unanswered: Vec<Seq> = self.entries.iter().filter(|it| it.once.is_some()).map(|it| it.seq).collect();
        self.remove(|entry| {
            let is_named = entry.alias.is_some();
            entry.gone_with.is_some_and(|seq| seq <= confirmed && !(is_named && unanswered.contains(&seq)))
        });
    }

    pub(super) fn remove_at(&mut self, index: usize) {
        let entry = self.entries.remove(index);
        self.bytes -= entry.cost();
    }

    fn remove(&mut self, mut goes: impl FnMut(&Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let goes = goes(entry);
            if goes {
                *bytes -= entry.cost();
            }
            !goes
        });
    }

    /// What cannot be said to another worker is of no use once the present one has heard it.
    fn let_go_if_useless(&mut self) {
        if !self.repeatable && self.play == Play::Over {
            (self.entries, self.open, self.bytes) = (Vec::new(), VecDeque::new(), 0);
        }
    }
}

impl Entry {
    pub(super) const fn cost(&self) -> usize {
        ENTRY_BYTES + self.bytes.len() + self.name.key.len() + self.answer.len()
    }

    /// Whether it was kept by one of these rules under this key, and nothing has made it superfluous.
    fn is_live(&self, of: Classes, key: &[u8]) -> bool {
        of.has(self.name.class) && *self.name.key == *key && self.gone_with.is_none()
    }

    /// Whether it is begun again, and the replay waits for that.
    fn holds_up(&self) -> bool {
        self.awaits == Awaits::Start && self.answered && self.stage == Stage::Asked
    }

    /// Whether a worker that gets its messages from behind `sent` must be told this.
    fn is_missing(&self, sent: Seq) -> bool {
        self.once.is_none() && self.seq <= sent && self.gone_with.is_none_or(|seq| seq > sent)
    }
}

/// What the worker says.
impl Prologue {
    /// Takes note of a message of the worker, which has been sent everything up to `sent`.
    pub(crate) fn worker_said(&mut self, kind: Kind, payload: &[u8], sent: Seq) -> Heard {
        let mut heard = Heard::default();
        let mut edits = Vec::new();
        for (word, place) in self.profile.down(kind, payload, &mut self.down, self.bounds.bytes_max) {
            let again = match word {
                Down::Greeting => self.greet(),
                Down::Answer(class, id) => self.answer(class, &id, sent, &mut heard),
                Down::Named(class, id, name) => self.named((class, &id), name, sent, &mut heard, &mut edits),
                Down::Mention(name) => self.mention(&name, place.clone(), &mut edits),
                Down::Instead(bytes) => {
                    edits.push(Edit { place: place.clone(), bytes });
                    false
                }
                Down::Note(name, value) => self.note(&name, &value),
                Down::Forget(of, key) => self.is_over(&|it| of.has(it.class) && *it.key == *key, sent, &mut heard),
                Down::Leave(scope) => self.is_over(&|it| is_within(&it.key, &scope), sent, &mut heard),
            };
            if again && !place.is_empty() {
                heard.swallowed = true;
                edits.push(Edit { place, bytes: Vec::new() });
            }
        }
        heard.cut = self.repeatable && self.down.lost;
        self.repeatable &= !self.down.lost;
        self.go_on_if_started();
        heard.left = (!edits.is_empty()).then(|| edited(payload, edits));
        heard
    }

    /// The worker's own first word; whether the client has had one.
    fn greet(&mut self) -> bool {
        let had = std::mem::replace(&mut self.greeted, true);
        match self.play {
            Play::Greeting { .. } => {
                self.play = Play::Sending;
                had
            }
            Play::Over | Play::Sending | Play::Gate { .. } | Play::Starts { .. } => false,
        }
    }

    /// The answer to what was kept of `class` and is called `id` by it; whether the client has had it.
    fn answer(&mut self, class: Class, id: &[u8], sent: Seq, heard: &mut Heard) -> bool {
        let same = |entry: &Entry| {
            entry.name.class == class && *entry.answer == *id && entry.awaits != Awaits::Nothing && entry.seq <= sent
        };
        let Some(index) = self.entries.iter().position(|entry| same(entry) && entry.stage == Stage::Asked) else {
            // The first worker that answers answers all that was asked in one message.
            for entry in self.entries.iter_mut().filter(|entry| same(entry)) {
                entry.answered = true;
                heard.read_up_to = heard.read_up_to.max(Some(entry.seq));
            }
            return false;
        };
        let entry = &mut self.entries[index];
        let had = std::mem::replace(&mut entry.answered, true);
        entry.stage = Stage::Rest;
        heard.read_up_to = heard.read_up_to.max(Some(entry.seq));
        if entry.awaits == Awaits::Gate {
            self.open_gate();
        }
        had
    }

    /// Goes on behind the last answer that the replay waits for.
    fn go_on_if_started(&mut self) {
        if matches!(self.play, Play::Starts { .. }) && !self.entries.iter().any(Entry::holds_up) {
            self.play = Play::Sending;
        }
    }

    fn open_gate(&mut self) {
        if matches!(self.play, Play::Gate { .. }) {
            self.play = Play::Sending;
        }
    }

    /// The worker says where the client stands; nothing that the client has had.
    fn note(&mut self, name: &Name, value: &[u8]) -> bool {
        let Some(entry) = self.entries.iter_mut().rfind(|entry| entry.name == *name) else { return false };
        if let Some(bytes) = self.profile.rules.noted(name.class, &entry.bytes, value) {
            self.bytes = self.bytes + bytes.len() - entry.bytes.len();
            entry.bytes = bytes.into();
        }
        false
    }

    /// What has such a name is over, which its worker has read if it says so. A message that the worker has not been sent
    /// is another one with the same name.
    fn is_over(&mut self, named: &dyn Fn(&Name) -> bool, sent: Seq, heard: &mut Heard) -> bool {
        let over = |entry: &Entry| named(&entry.name) && entry.seq <= sent;
        let read = self.entries.iter().filter(|entry| over(entry)).map(|entry| entry.seq).max();
        heard.read_up_to = heard.read_up_to.max(read);
        let waits = |entry: &Entry| entry.stage == Stage::Asked && entry.awaits == Awaits::Gate;
        if self.entries.iter().any(|entry| over(entry) && waits(entry)) {
            self.open_gate();
        }
        self.remove(over);
        false
    }
}

/// What becomes of it when its worker is lost, and what the next one is told.
impl Prologue {
    /// The worker is gone, which had been sent everything up to `sent`: the messages that no other may get.
    pub(crate) fn worker_lost(&mut self, sent: Seq, confirmed: Seq) -> Vec<Undone> {
        self.play = Play::Over;
        self.entries.iter_mut().for_each(|entry| entry.stage = Stage::Rest);
        // A client that has heard half an element would take what the next worker says for its other half.
        self.repeatable &= self.down.open.is_empty();
        let mut undone = Vec::new();
        self.remove(|entry| {
            let Some(regret) = entry.once.filter(|_| entry.seq <= sent) else { return false };
            let waits = entry.gone_with.is_none();
            undone.push(Undone { seq: entry.seq, regret: waits.then(|| regret.message(&entry.name.key)) });
            true
        });
        // What they end has ended with the worker, and what else they held does not come by the replay either.
        self.remove(|entry| entry.gone_with.is_some_and(|seq| undone.iter().any(|it| it.seq == seq)));
        for entry in &mut self.entries {
            if undone.iter().any(|it| it.seq == entry.seq) {
                entry.seq = confirmed;
            }
        }
        self.let_go_if_useless();
        undone
    }

    /// Whether an exchange is under way that could not begin again, of a worker that was sent everything up to `sent`.
    pub(crate) fn has_exchange(&self, sent: Seq) -> bool {
        self.entries.iter().any(|entry| entry.once.is_some() && entry.seq <= sent)
    }

    /// Messages that a worker is told which gets its messages from behind `sent`.
    pub(crate) fn missing(&self, sent: Seq) -> u64 {
        self.entries.iter().filter(|entry| entry.is_missing(sent)).count() as u64
    }

    /// Another worker is there, and gets its messages from behind `sent`.
    pub(crate) fn begin(&mut self, sent: Seq, now: Time) {
        for entry in &mut self.entries {
            if let Some(alias) = &mut entry.alias {
                alias.worker = None;
            }
            entry.stage = if entry.is_missing(sent) {
                Stage::Due
            } else if entry.seq > sent && entry.answered {
                // The replay says it again, and the client has had the answer.
                Stage::Asked
            } else {
                Stage::Rest
            };
        }
        let is_amid = self.open.iter().any(|(seq, ..)| *seq == sent);
        self.behind = is_amid.then_some(sent);
        self.play = if self.profile.greets() {
            Play::Greeting { until: now + self.bounds.within }
        } else if is_amid || self.entries.iter().any(|entry| entry.stage == Stage::Due) {
            Play::Sending
        } else {
            Play::Over
        };
    }

    /// What is to be said next, until a gate or the end.
    pub(crate) fn next(&mut self, now: Time) -> Option<(Kind, &[u8])> {
        if self.play != Play::Sending {
            return None;
        }
        let Some(index) = self.entries.iter().position(|entry| entry.stage == Stage::Due) else {
            if self.entries.iter().any(Entry::holds_up) {
                self.play = Play::Starts { until: now + self.bounds.within };
                return None;
            }
            self.play = Play::Over;
            self.let_go_if_useless();
            // The replay begins in the middle of an element: what comes before it.
            let behind = self.behind.take()?;
            let open = self.open.iter().find(|(seq, ..)| *seq == behind);
            return open.map(|(_, kind, bytes)| (*kind, &**bytes));
        };
        let entry = &mut self.entries[index];
        entry.stage = match entry.awaits {
            Awaits::Nothing => Stage::Rest,
            Awaits::Answer | Awaits::Start | Awaits::Gate => Stage::Asked,
        };
        if entry.awaits == Awaits::Gate {
            let within = self.profile.rules.within(entry.name.class).unwrap_or(self.bounds.within);
            self.play = Play::Gate { until: now + within };
        }
        Some((entry.kind, &entry.bytes))
    }

    /// Whether the replay must wait.
    pub(crate) const fn is_playing(&self) -> bool {
        !matches!(self.play, Play::Over)
    }

    /// When the worker has taken too long to answer.
    pub(crate) const fn deadline(&self) -> Option<Time> {
        match self.play {
            Play::Over | Play::Sending => None,
            Play::Greeting { until } | Play::Gate { until } | Play::Starts { until } => Some(until),
        }
    }

    /// What may be said to a worker that waits to take over behind `sent`, because its answer is awaited before anything
    /// else: nothing if there is no such answer, or the worker speaks first. A broker that is a stream's worker may end
    /// its client's first connection when it sees a second one, so it hears nothing before that has ended.
    pub(crate) fn foretold(&self, sent: Seq) -> Vec<(Kind, Box<[u8]>)> {
        let mut due = self.entries.iter().filter(|entry| entry.is_missing(sent));
        let gate = due.clone().position(|entry| entry.awaits == Awaits::Gate);
        match gate.filter(|_| self.repeatable && !self.profile.greets() && !self.profile.is_stream()) {
            Some(last) => due.by_ref().take(last + 1).map(|entry| (entry.kind, entry.bytes.clone())).collect(),
            None => Vec::new(),
        }
    }
}

/// The classes of a profile, for a snapshot that names one.
pub(super) const fn is_class(class: Class) -> bool {
    (class as usize) < super::words::CLASSES_MAX
}
