//! The world of one seed with Ethereum's JSON-RPC: each worker names subscriptions anew, and may give a name that another
//! worker gave to something else. What each side may see is held against what each believes.

use std::collections::{BTreeMap, BTreeSet};

use holdline_core::pipe::{Cause, Fact, PipeState, PrologueFailure};

use crate::rig::Rig;
use crate::wire::Item;
use crate::world::Marks;

const STEPS: u32 = 120;

/// Names that a worker gives: so few that two workers often give the same one.
const NAMES: u64 = 12;

/// A request that the client waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Request {
    Subscribe(String),
    Unsubscribe(String),
    /// One that has no effect, and is asked again until it is answered.
    Question,
    /// One that may have run.
    Call,
}

/// What the client believes.
#[derive(Default)]
struct Client {
    next_id: u32,
    asked: BTreeMap<String, Request>,
    /// What it listens to, by the name that it has heard.
    listens: BTreeMap<String, String>,
    /// What it has given up: an event of a moment before may still come.
    given_up: BTreeMap<String, String>,
}

/// One connection of a worker.
#[derive(Default)]
struct Worker {
    /// Requests in the order in which they came, by id and text.
    asked: Vec<(String, String)>,
    /// What it tells, by the name that it has given.
    live: BTreeMap<String, String>,
    /// Names that it has given, over which it never changes its mind.
    given: BTreeSet<String>,
}

pub struct EthWorld {
    rig: Rig,
    client: Client,
    worker: Worker,
    /// Calls that some worker has begun.
    begun: BTreeSet<String>,
    /// What the worker that waits to take over has heard.
    foretold: Vec<Item>,
}

/// What stands behind `"key":` in a message: a string without its quotes, a number, or the rest of an array's first string.
fn field(text: &str, key: &str) -> String {
    let from = format!(r#""{key}":"#);
    let Some(start) = text.find(&from) else { return String::new() };
    let rest = text[start + from.len()..].trim_start_matches(['[', '"']);
    rest.split(['"', ',', '}']).next().unwrap_or_default().to_owned()
}

fn read(item: &Item) -> &str {
    let Item::Text(bytes) = item else { panic!("{item:?}") };
    str::from_utf8(bytes).unwrap()
}

impl Worker {
    /// Hears a message; a call that some worker has begun runs twice when it is begun again.
    fn hears(&mut self, item: &Item, begun: &mut BTreeSet<String>) {
        let text = read(item);
        let id = field(text, "id");
        match field(text, "method").as_str() {
            "eth_unsubscribe" => {
                let name = field(text, "params");
                assert!(self.given.contains(&name), "it never gave the name {name}: {text}");
            }
            "eth_sendRawTransaction" => assert!(begun.insert(id.clone()), "the call {id} runs twice"),
            _ => {}
        }
        self.asked.push((id, text.to_owned()));
    }

    /// Its answer to the first of what it was asked, and `name` if it gives one.
    fn answer(&mut self, name: &str) -> Option<String> {
        if self.asked.is_empty() {
            return None;
        }
        let (id, text) = self.asked.remove(0);
        let result = match field(&text, "method").as_str() {
            "eth_subscribe" => {
                self.given.insert(name.to_owned());
                self.live.insert(name.to_owned(), field(&text, "params"));
                format!(r#""{name}""#)
            }
            "eth_unsubscribe" => self.live.remove(&field(&text, "params")).is_some().to_string(),
            _ => r#""0x7""#.to_owned(),
        };
        // An id is a number, or a text of Holdline's.
        let id = if id.starts_with("holdline:") { format!(r#""{id}""#) } else { id };
        Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
    }
}

impl Client {
    fn request(&mut self, method: &str, params: &str, request: Request) -> String {
        let id = self.next_id.to_string();
        self.next_id += 1;
        self.asked.insert(id.clone(), request);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":[{params}]}}"#)
    }

    fn hears(&mut self, item: &Item, marks: &mut Marks) {
        let text = read(item);
        assert!(!text.contains("holdline:"), "an id of ours: {text}");
        if text.contains("eth_subscription") {
            return self.hears_event(text);
        }
        let (id, error) = (field(text, "id"), text.contains(r#""error""#));
        match self.asked.remove(&id) {
            Some(Request::Subscribe(topic)) => {
                assert!(!error, "{text}");
                let name = field(text, "result");
                self.given_up.remove(&name);
                let before = self.listens.insert(name.clone(), topic);
                assert_eq!(before, None, "two subscriptions are called {name}");
                *marks.entry("a made-up name").or_default() += u64::from(name.starts_with("0x686f6c64"));
            }
            Some(Request::Call) => *marks.entry("a call was regretted").or_default() += u64::from(error),
            Some(Request::Unsubscribe(_) | Request::Question) => assert!(!error, "{text}"),
            // It was answered by a worker that was lost before it had confirmed the question.
            None => assert!(!error, "{text}"),
        }
    }

    fn hears_event(&mut self, text: &str) {
        let (name, topic) = (field(text, "subscription"), field(text, "topic"));
        let known = self.listens.get(&name).or_else(|| self.given_up.get(&name));
        assert_eq!(known, Some(&topic), "what the client calls {name}");
    }
}

impl EthWorld {
    pub fn new(seed: u64) -> Self {
        let (client, worker) = (Client::default(), Worker::default());
        Self { rig: Rig::new(seed, "eth-jsonrpc"), client, worker, begun: BTreeSet::new(), foretold: Vec::new() }
    }

    pub fn run(mut self, marks: &mut Marks) {
        for _ in 0..STEPS {
            self.step();
            self.look(marks);
        }
        self.calm_down(marks);
    }

    fn step(&mut self) {
        match self.rig.draw(18) {
            0..=2 => self.client_asks(),
            3 => self.client_gives_up(),
            4..=6 => self.worker_answers(),
            7 | 8 => self.worker_tells(),
            9 | 10 => self.rig.bench.worker_pongs(),
            11 => {
                self.rig.outlive_a_quick_death();
                self.rig.lose();
            }
            12 | 13 => self.dial_succeeds(),
            14 => self.rig.bench.operator(|pipe, now| pipe.move_on(Cause::Drain, now)),
            15 => self.rig.hand_over(),
            _ => self.rig.wait(),
        }
    }

    fn client_asks(&mut self) {
        let topic = format!("topic-{}", self.client.next_id);
        let said = match self.rig.draw(4) {
            0 => self.client.request("eth_blockNumber", "", Request::Question),
            1 => self.client.request("eth_sendRawTransaction", r#""0x1""#, Request::Call),
            _ => self.client.request("eth_subscribe", &format!(r#""{topic}""#), Request::Subscribe(topic)),
        };
        self.rig.bench.client_says(&said);
    }

    fn client_gives_up(&mut self) {
        let Some(name) = self.rig.any_of(self.client.listens.keys().cloned().collect()) else { return };
        if let Some(topic) = self.client.listens.remove(&name) {
            self.client.given_up.insert(name.clone(), topic);
        }
        let said = self.client.request("eth_unsubscribe", &format!(r#""{name}""#), Request::Unsubscribe(name));
        self.rig.bench.client_says(&said);
    }

    /// A name that it has not given yet.
    fn new_name(&mut self) -> Option<String> {
        let free = (0..NAMES).map(|name| format!("0x{name:x}")).filter(|name| !self.worker.given.contains(name));
        self.rig.any_of(free.collect())
    }

    fn worker_answers(&mut self) {
        if !self.rig.is_linked() {
            return;
        }
        let name = self.new_name().unwrap_or_else(|| format!("0x{:x}", NAMES as usize + self.worker.given.len()));
        if let Some(answer) = self.worker.answer(&name) {
            self.rig.bench.worker_says(&answer);
        }
    }

    fn worker_tells(&mut self) {
        if !self.rig.is_linked() {
            return;
        }
        let Some((name, topic)) = self.rig.any_of(self.worker.live.clone().into_iter().collect()) else { return };
        self.rig.bench.worker_says(&format!(
            r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{name}","result":{{"topic":"{topic}"}}}}}}"#
        ));
    }

    fn dial_succeeds(&mut self) {
        if self.rig.bench.is_dialing() {
            self.foretold.clear();
            self.rig.dial_succeeds();
        }
    }

    fn look(&mut self, marks: &mut Marks) {
        while let Some(fact) = (!self.rig.bench.facts.is_empty()).then(|| self.rig.bench.facts.remove(0)) {
            self.note(&fact, marks);
        }
        if self.rig.bench.holds().is_some() {
            self.foretold.extend(self.rig.bench.held_got());
        }
        for item in self.rig.bench.worker_got() {
            if !matches!(item, Item::Close(..)) {
                self.worker.hears(&item, &mut self.begun);
            } else if self.rig.bench.state() == PipeState::Leaving {
                self.rig.bench.worker_closes(1001, "");
                self.look(marks);
                break;
            }
        }
        for item in self.rig.bench.client_got() {
            self.client.hears(&item, marks);
        }
    }

    fn note(&mut self, fact: &Fact, marks: &mut Marks) {
        let mark = match fact {
            Fact::Reattached { .. } => {
                self.worker = Worker::default();
                for item in std::mem::take(&mut self.foretold) {
                    self.worker.hears(&item, &mut self.begun);
                }
                None
            }
            Fact::PrologueSent { .. } => Some("asked again"),
            Fact::PrologueSwallowed => Some("an answer kept from the client"),
            Fact::PrologueFailed(failure @ (PrologueFailure::Overflow | PrologueFailure::Cut)) => panic!("{failure:?}"),
            Fact::Ended { .. } => panic!("the conversation ended: {fact:?}"),
            _ => None,
        };
        if let Some(mark) = mark {
            *marks.entry(mark).or_default() += 1;
        }
    }

    /// Everything works from now on: then the worker tells what the client listens to, under the names that it knows.
    fn calm_down(&mut self, marks: &mut Marks) {
        for _ in 0..200 {
            self.dial_succeeds();
            self.look(marks);
            self.worker_answers();
            self.look(marks);
            self.rig.bench.settle();
            self.look(marks);
        }
        assert_eq!(self.rig.bench.state(), PipeState::Attached);
        assert!(self.client.asked.is_empty(), "never answered: {:?}", self.client.asked);
        let tells: BTreeSet<&String> = self.worker.live.values().collect();
        let listens: BTreeSet<&String> = self.client.listens.values().collect();
        assert_eq!(tells, listens, "what the worker tells and what the client listens to");
        for (name, topic) in self.worker.live.clone() {
            self.rig.bench.worker_says(&format!(
                r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{name}","result":{{"topic":"{topic}"}}}}}}"#
            ));
        }
        let heard = self.rig.bench.client_got();
        assert_eq!(heard.len(), self.worker.live.len(), "each is heard once: {heard:?}");
        heard.iter().for_each(|item| self.client.hears(item, marks));
        *marks.entry("renamed at the end").or_default() +=
            u64::from(self.worker.live.iter().any(|(name, topic)| self.client.listens.get(name) != Some(topic)));
    }
}
