//! A worker as strict as graphql-ws: what would make it close with 44xx fails the run.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::Item;

/// One connection of a worker.
#[derive(Default)]
pub struct Worker {
    pub init: bool,
    pub acknowledged: bool,
    /// Operations that run, by id, and whether each is a subscription.
    pub live: BTreeMap<String, bool>,
    /// Operations that it was ever asked for.
    pub known: BTreeSet<String>,
}

/// What a message of this world says: a word and an id.
pub fn parse(item: &Item) -> (String, String) {
    let Item::Text(bytes) = item else { panic!("{item:?}") };
    let text = str::from_utf8(bytes).unwrap();
    let between = |from: &str| {
        let start = text.find(from).map(|at| at + from.len());
        start.map(|start| text[start..].split('"').next().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    let kind = between(r#""type":""#);
    let word = if text.contains("mutation") { "mutation".to_owned() } else { kind };
    (word, between(r#""id":""#))
}

impl Worker {
    /// Hears a message; `begun` are the mutations that some worker has begun, and `ended` what some worker has ended.
    pub fn hears(&mut self, item: &Item, begun: &mut BTreeSet<String>, ended: &BTreeSet<String>) {
        let (word, id) = parse(item);
        match word.as_str() {
            "connection_init" => {
                assert!(!self.init, "4429: too many initialisation requests");
                self.init = true;
            }
            "subscribe" | "mutation" => {
                assert!(self.acknowledged, "4401: {word} {id} before the ack");
                let subscription = word == "subscribe";
                self.known.insert(id.clone());
                assert!(self.live.insert(id.clone(), subscription).is_none(), "4409: {id} twice");
                assert!(subscription || begun.insert(id.clone()), "the mutation {id} runs twice");
            }
            "complete" => {
                assert!(self.acknowledged, "4401: complete {id} before the ack");
                // It may have ended by itself a moment before.
                assert!(self.known.contains(&id) || ended.contains(&id), "it never heard of {id}");
                self.live.remove(&id);
            }
            other => panic!("a worker cannot know {other}"),
        }
    }
}
