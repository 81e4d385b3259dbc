//! Names that a worker gives to what a client asks for, such as the id of a subscription in Ethereum's JSON-RPC.
//!
//! The client goes on with the name that it has heard first. The next worker is asked again, by a request with an id of
//! our own, and its name is put for the client's in what the client says from then on, and the client's for its in what
//! it says. What a client has said already and waits in the lane is rewritten once the new names are known.
//!
//! Invariant: no two live entries have one name for the client, though two workers may give the same one.

use std::ops::Range;

use super::Prologue;
use super::prologue::{Entry, Heard, Stage};
use super::streams::Stream;
use super::words::{Class, Edit, Up, edited, raw_of};
use crate::frame::Kind;
use crate::ids::Seq;

/// What an entry is called by its present worker.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Alias {
    /// The worker's name; none before it has answered.
    pub worker: Option<Box<[u8]>>,
    /// The name in the client's message that makes the entry superfluous, as that message stands in the lane.
    pub written: Option<Box<[u8]>>,
}

/// The ids of our own requests begin so.
const OWN_ID: &str = "holdline:";

/// Names that we make up where a worker's name is taken: "holdline" in hexadecimal digits, as a name of Ethereum's.
const OWN_NAME: &str = "0x686f6c646c696e65";

/// Made-up names that are numbers begin here: below 2^53, so that every reader of JSON has them exactly.
const OWN_NUMBER: u64 = 1 << 52;

/// What an answer calls what was asked for: its name, and where that stands.
pub(super) type Given = Option<(Box<[u8]>, Range<usize>)>;

impl Prologue {
    /// The answer to what was kept of `class` and is called `id` by it, which names it; whether the client has had it.
    pub(super) fn named(
        &mut self,
        (class, id): (Class, &[u8]),
        given: Given,
        sent: Seq,
        heard: &mut Heard,
        edits: &mut Vec<Edit>,
    ) -> bool {
        let asked = |entry: &Entry| {
            let waits = entry.stage == Stage::Asked || !entry.answered;
            entry.name.class == class && *entry.answer == *id && entry.alias.is_some() && entry.seq <= sent && waits
        };
        let Some(index) = self.entries.iter().position(asked) else { return false };
        let seq = self.entries[index].seq;
        heard.read_up_to = heard.read_up_to.max(Some(seq));
        match (self.entries[index].answered, given) {
            (false, Some((name, place))) => {
                let known = self.free_name(&name, seq);
                if known != name {
                    edits.push(Edit { place, bytes: raw_of(&known) });
                }
                self.name_first(index, known, name);
                false
            }
            (false, None) => {
                self.remove_at(index);
                false
            }
            (true, Some((name, _))) => {
                let entry = &mut self.entries[index];
                entry.stage = Stage::Rest;
                if let Some(alias) = &mut entry.alias {
                    alias.worker = Some(name);
                }
                true
            }
            // It is as good as one that does not answer: the client believes that it listens.
            (true, None) => {
                heard.refused = true;
                true
            }
        }
    }

    /// `name`, or one that no other live entry has.
    fn free_name(&self, name: &[u8], seq: Seq) -> Box<[u8]> {
        let is_taken = |name: &[u8]| self.entries.iter().any(|it| it.alias.is_some() && *it.name.key == *name);
        let is_text = name.starts_with(b"\"");
        let mut own = (seq.0..).map(|count| match is_text {
            true => format!("\"{OWN_NAME}{count:016x}"),
            false => (OWN_NUMBER + count).to_string(),
        });
        let taken = is_taken(name).then(|| own.find(|own| !is_taken(own.as_bytes()))).flatten();
        taken.map_or_else(|| name.into(), |own| own.into_bytes().into())
    }

    /// The client hears of what it asked for as `known`, and its worker calls it `name`.
    fn name_first(&mut self, index: usize, known: Box<[u8]>, name: Box<[u8]>) {
        let entry = &mut self.entries[index];
        self.bytes -= entry.cost();
        entry.answered = true;
        entry.stage = Stage::Rest;
        entry.name.key = known;
        let text = entry.name.key.strip_prefix(b"\"").unwrap_or(&entry.name.key);
        let own = format!("\"{OWN_ID}{}", String::from_utf8_lossy(text));
        if let Some(bytes) = self.profile.rules.asked_as(entry.name.class, &entry.bytes, &raw_of(own.as_bytes())) {
            (entry.bytes, entry.answer) = (bytes.into(), own.into_bytes().into());
        }
        entry.alias = Some(Alias { worker: Some(name), written: None });
        self.bytes += entry.cost();
    }

    /// The worker mentions something by its own name: the client hears the one that it knows. It has not had that.
    pub(super) fn mention(&self, name: &[u8], place: Range<usize>, edits: &mut Vec<Edit>) -> bool {
        let called = |entry: &&Entry| entry.alias.as_ref().is_some_and(|alias| alias.worker.as_deref() == Some(name));
        let known = self.entries.iter().find(called).map(|entry| &entry.name.key);
        if let Some(known) = known.filter(|known| ***known != *name) {
            edits.push(Edit { place, bytes: raw_of(known) });
        }
        false
    }

    /// The messages that wait in the lane and call something as a worker did that is gone.
    pub(crate) fn outdated(&self) -> Vec<Seq> {
        let outdated = |entry: &&Entry| entry.alias.as_ref().is_some_and(|alias| alias.new_name().is_some());
        let mut messages: Vec<Seq> = self.entries.iter().filter(outdated).filter_map(|it| it.gone_with).collect();
        messages.dedup();
        messages
    }

    /// The client's message `seq` in the present worker's names.
    pub(crate) fn renamed(&mut self, seq: Seq, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        let words = self.profile.up(kind, payload, super::profile::Kept::default(), &mut Stream::new());
        let mut edits = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.gone_with == Some(seq)) {
            let Some((old, new)) = entry.alias.as_ref().and_then(Alias::new_name) else { continue };
            let named = words.iter().find_map(|word| match word {
                Up::Forget(of, key, place) if of.has(entry.name.class) && **key == *old => Some(place.clone()),
                Up::Forget(..) | Up::Keep(_) | Up::Leave(_) => None,
            });
            edits.extend(named.map(|place| Edit { place, bytes: raw_of(new) }));
            entry.alias = Some(Alias { worker: Some(new.into()), written: Some(new.into()) });
        }
        (!edits.is_empty()).then(|| edited(payload, edits))
    }
}

impl Alias {
    /// The client's message, in which `known` stands at `place`, makes the entry superfluous.
    pub(super) fn given_up(&mut self, known: &[u8], place: Range<usize>, edits: &mut Vec<Edit>) {
        let name = self.worker.as_deref().unwrap_or(known);
        if *name != *known {
            edits.push(Edit { place, bytes: raw_of(name) });
        }
        self.written = Some(name.into());
    }

    /// What the message in the lane calls it, and what it has to be called.
    fn new_name(&self) -> Option<(&[u8], &[u8])> {
        let (old, new) = (self.written.as_deref()?, self.worker.as_deref()?);
        (old != new).then_some((old, new))
    }
}
