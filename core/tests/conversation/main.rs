//! Conversations under seeded disasters: a client that subscribes, workers as strict as graphql-ws, and a dumb model of
//! what each of them may see.
//!
//! A seed is a run. `HOLDLINE_CONVERSATION_SEED=N cargo test -p holdline-core --test conversation` replays one.
#![allow(clippy::unwrap_used)]

#[path = "../common/wire.rs"]
mod wire;

#[allow(dead_code, reason = "this world moves only some of what a script may move")]
#[path = "../pipe/bench.rs"]
mod bench;

mod worker;
mod world;

use std::collections::BTreeMap;

use world::World;

/// Runs of a plain test run.
const SEEDS: u64 = 400;

/// What must have happened in some run, or the world shows nothing of it.
const MARKS: [&str; 10] = [
    "told again",
    "swallowed",
    "an ack passed late",
    "an exchange was regretted",
    "an exchange ended in time",
    "unanswered",
    "moved on purpose",
    "told while it waited",
    "handed over amid a prologue",
    "lost amid a prologue",
];

#[test]
fn no_seed_breaks_a_conversation() {
    let mut marks = BTreeMap::new();
    if let Ok(seed) = std::env::var("HOLDLINE_CONVERSATION_SEED") {
        return World::new(seed.parse().unwrap()).run(&mut marks);
    }
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut marks = BTreeMap::new();
            World::new(seed).run(&mut marks);
            marks
        });
        let Ok(found) = run else {
            panic!("again: HOLDLINE_CONVERSATION_SEED={seed} cargo test -p holdline-core --test conversation");
        };
        for (mark, count) in found {
            *marks.entry(mark).or_insert(0_u64) += count;
        }
    }
    for mark in MARKS {
        assert!(marks.contains_key(mark), "never seen in {SEEDS} runs: {mark}; seen: {marks:?}");
    }
}
