//! The world of one seed: what happens next is drawn, and what each side may see is held against the model.

use std::collections::{BTreeMap, BTreeSet};

use holdline_core::frame::Side;
use holdline_core::pipe::{Cause, Fact, Interruption, PipeState, PrologueFailure};

use crate::rig::Rig;
use crate::wire::Item;
use crate::worker::{Worker, parse};

const STEPS: u32 = 120;

/// What the client believes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Subscription,
    Mutation,
}

pub type Marks = BTreeMap<&'static str, u64>;

pub struct World {
    rig: Rig,
    worker: Worker,
    next_id: u32,
    init_sent: bool,
    acks: u32,
    /// What the client waits for or listens to.
    open: BTreeMap<String, Operation>,
    /// Mutations that some worker has begun.
    begun: BTreeSet<String>,
    /// Operations that a worker has ended.
    ended: BTreeSet<String>,
    /// What the worker that waits to take over has heard, and whether it has acknowledged that.
    foretold: Vec<Item>,
    foretold_acked: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            rig: Rig::new(seed, "graphql-transport-ws"),
            worker: Worker::default(),
            next_id: 0,
            init_sent: false,
            acks: 0,
            open: BTreeMap::new(),
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
            foretold: Vec::new(),
            foretold_acked: false,
        }
    }

    pub fn run(mut self, marks: &mut Marks) {
        for _ in 0..STEPS {
            self.step(marks);
            self.look(marks);
        }
        self.calm_down(marks);
    }

    fn step(&mut self, marks: &mut Marks) {
        match self.rig.draw(17) {
            0..=3 => self.client_speaks(),
            4 => self.client_completes(),
            5..=7 => self.worker_speaks(marks),
            8 | 9 => self.rig.bench.worker_pongs(),
            10 => self.worker_is_lost(marks),
            11 | 12 => self.dial_succeeds(),
            13 => self.rig.bench.operator(|pipe, now| pipe.move_on(Cause::Drain, now)),
            14 => self.is_handed_over(marks),
            15 => self.waiting_acknowledges(),
            _ => self.rig.wait(),
        }
    }

    fn client_speaks(&mut self) {
        if !self.init_sent {
            self.init_sent = true;
            return self.rig.bench.client_says(r#"{"type":"connection_init"}"#);
        }
        if self.acks == 0 {
            return;
        }
        let id = self.next_id.to_string();
        self.next_id += 1;
        let (query, operation) = match self.rig.draw(3) {
            0 => ("mutation { pay }", Operation::Mutation),
            _ => ("subscription { tick }", Operation::Subscription),
        };
        self.open.insert(id.clone(), operation);
        self.rig.bench.client_says(&format!(r#"{{"id":"{id}","type":"subscribe","payload":{{"query":"{query}"}}}}"#));
    }

    fn client_completes(&mut self) {
        let live = self.open.iter().filter(|(_, it)| **it == Operation::Subscription);
        if let Some(id) = self.rig.any_of(live.map(|(id, _)| id.clone()).collect()) {
            self.open.remove(&id);
            self.rig.bench.client_says(&format!(r#"{{"id":"{id}","type":"complete"}}"#));
        }
    }

    fn worker_speaks(&mut self, marks: &mut Marks) {
        if !self.rig.is_linked() || !self.worker.init {
            return;
        }
        if !self.worker.acknowledged {
            self.worker.acknowledged = true;
            let first = self.acks == 0 && self.rig.has_reattached();
            *marks.entry("an ack passed late").or_default() += u64::from(first);
            return self.rig.bench.worker_says(r#"{"type":"connection_ack"}"#);
        }
        let Some(id) = self.rig.any_of(self.worker.live.keys().cloned().collect()) else { return };
        let is_mutation = !self.worker.live[&id];
        if is_mutation || self.rig.draw(4) == 0 {
            self.worker.live.remove(&id);
            self.ended.insert(id.clone());
            *marks.entry("an exchange ended in time").or_default() += u64::from(is_mutation);
            self.rig.bench.worker_says(&format!(r#"{{"id":"{id}","type":"complete"}}"#));
        } else {
            self.rig.bench.worker_says(&format!(r#"{{"id":"{id}","type":"next","payload":{{}}}}"#));
        }
    }

    fn worker_is_lost(&mut self, marks: &mut Marks) {
        if self.rig.is_linked() {
            let amid = self.worker.init && !self.worker.acknowledged && self.acks > 0;
            *marks.entry("lost amid a prologue").or_insert(0) += u64::from(amid);
            self.rig.outlive_a_quick_death();
            self.look(marks);
            self.rig.lose();
        }
    }

    fn dial_succeeds(&mut self) {
        if self.rig.bench.is_dialing() {
            (self.foretold, self.foretold_acked) = (Vec::new(), false);
            self.rig.dial_succeeds();
        }
    }

    /// The worker that waits to take over answers what it was told while it waits.
    fn waiting_acknowledges(&mut self) {
        if self.rig.bench.holds().is_some() && !self.foretold.is_empty() {
            self.foretold_acked = true;
            self.rig.bench.held_talks();
        }
    }

    /// The worker that waited, if it did, has taken over: it has heard and said what passed before.
    fn is_taken_over(&mut self, marks: &mut Marks) {
        self.worker = Worker::default();
        for item in std::mem::take(&mut self.foretold) {
            *marks.entry("told while it waited").or_default() += 1;
            self.worker.hears(&item, &mut self.begun, &self.ended);
        }
        if std::mem::take(&mut self.foretold_acked) {
            self.worker.acknowledged = true;
            self.rig.bench.worker_says(r#"{"type":"connection_ack"}"#);
        }
    }

    fn is_handed_over(&mut self, marks: &mut Marks) {
        let amid = self.worker.init && !self.worker.acknowledged && self.acks > 0;
        *marks.entry("handed over amid a prologue").or_insert(0) += u64::from(amid);
        self.rig.hand_over();
    }

    /// What the worker and the client have got since the last step.
    fn look(&mut self, marks: &mut Marks) {
        while let Some(fact) = (!self.rig.bench.facts.is_empty()).then(|| self.rig.bench.facts.remove(0)) {
            self.note(&fact, marks);
        }
        if self.rig.bench.holds().is_some() {
            self.foretold.extend(self.rig.bench.held_got());
        }
        for item in self.rig.bench.worker_got() {
            if !matches!(item, Item::Close(..)) {
                self.worker.hears(&item, &mut self.begun, &self.ended);
            } else if self.rig.bench.state() == PipeState::Leaving {
                self.rig.bench.worker_closes(1001, "");
                self.look(marks);
                break;
            }
        }
        for item in self.rig.bench.client_got() {
            self.client_hears(&item);
        }
    }

    fn note(&mut self, fact: &Fact, marks: &mut Marks) {
        let mark = match fact {
            Fact::Reattached { .. } => {
                self.is_taken_over(marks);
                None
            }
            Fact::Interrupted { reason: Interruption::Drain, .. } => Some("moved on purpose"),
            Fact::PrologueSent { .. } => Some("told again"),
            Fact::PrologueSwallowed => Some("swallowed"),
            Fact::PrologueFailed(PrologueFailure::Exchange) => Some("an exchange was regretted"),
            Fact::PrologueFailed(PrologueFailure::Unanswered) => Some("unanswered"),
            Fact::PrologueFailed(PrologueFailure::Overflow | PrologueFailure::Cut) => panic!("{fact:?}"),
            Fact::Ended { .. } => panic!("the conversation ended: {fact:?}"),
            _ => None,
        };
        if let Some(mark) = mark {
            *marks.entry(mark).or_default() += 1;
        }
    }

    fn client_hears(&mut self, item: &Item) {
        let (word, id) = parse(item);
        match word.as_str() {
            "connection_ack" => {
                self.acks += 1;
                assert_eq!(self.acks, 1, "the client heard a second ack");
            }
            "next" => {
                // It may have completed the subscription a moment before.
                assert_ne!(self.open.get(&id), Some(&Operation::Mutation), "{item:?}");
            }
            "complete" => {
                self.open.remove(&id);
            }
            "error" => {
                let ended = self.open.remove(&id);
                assert_eq!(ended, Some(Operation::Mutation), "only an exchange under way is regretted: {item:?}");
            }
            other => panic!("a client cannot know {other}"),
        }
    }

    /// Everything works from now on: then what the worker has is what the client believes.
    fn calm_down(&mut self, marks: &mut Marks) {
        for _ in 0..200 {
            self.dial_succeeds();
            self.look(marks);
            if self.worker.init && !self.worker.acknowledged && self.rig.is_linked() {
                self.worker.acknowledged = true;
                self.rig.bench.worker_says(r#"{"type":"connection_ack"}"#);
            }
            let mutations = self.worker.live.iter().filter(|(_, subscription)| !**subscription);
            if let Some(id) = mutations.map(|(id, _)| id.clone()).next() {
                self.worker.live.remove(&id);
                self.ended.insert(id.clone());
                self.rig.bench.worker_says(&format!(r#"{{"id":"{id}","type":"complete"}}"#));
            }
            self.rig.bench.settle();
            self.look(marks);
        }
        assert_eq!(self.rig.bench.state(), PipeState::Attached);
        assert_eq!(u32::from(self.init_sent), self.acks, "the client has heard the ack once");
        let listens: BTreeSet<&String> = self.open.keys().collect();
        let runs: BTreeSet<&String> = self.worker.live.keys().collect();
        assert_eq!(runs, listens, "what the worker runs and what the client listens to");
        assert!(!self.rig.bench.pipe.wants_write(Side::Backend, self.rig.bench.now), "something is held back");
    }
}
