//! Conversations under seeded disasters: a client that subscribes, workers as strict as graphql-ws or as free with names as
//! Ethereum's, and dumb models of what each of them may see.
//!
//! A seed is a run. `HOLDLINE_CONVERSATION_SEED=N cargo test -p holdline-core --test conversation WORLD` replays one.
#![allow(clippy::unwrap_used)]

#[path = "../common/wire.rs"]
mod wire;

#[allow(dead_code, reason = "this world moves only some of what a script may move")]
#[path = "../pipe/bench.rs"]
mod bench;

mod eth;
mod rig;
mod worker;
mod world;

use eth::EthWorld;
use world::{Marks, World};

/// Runs of a test run, unless `HOLDLINE_CONVERSATION_SEEDS` says how many.
const SEEDS: u64 = 400;

/// What must have happened in some run with GraphQL's profile, or the world shows nothing of it.
const GRAPHQL_MARKS: [&str; 10] = [
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

/// The same with Ethereum's.
const ETH_MARKS: [&str; 5] =
    ["asked again", "an answer kept from the client", "a call was regretted", "a made-up name", "renamed at the end"];

#[test]
fn no_seed_breaks_a_conversation_of_graphql() {
    sweep("graphql", &GRAPHQL_MARKS, |seed, marks| World::new(seed).run(marks));
}

#[test]
fn no_seed_breaks_a_conversation_of_ethereum() {
    sweep("ethereum", &ETH_MARKS, |seed, marks| EthWorld::new(seed).run(marks));
}

/// Runs all seeds, or the one that the environment names.
fn sweep(world: &str, expected: &[&str], run: impl Fn(u64, &mut Marks) + std::panic::RefUnwindSafe) {
    let mut marks = Marks::new();
    if let Ok(seed) = std::env::var("HOLDLINE_CONVERSATION_SEED") {
        return run(seed.parse().unwrap(), &mut marks);
    }
    let seeds = std::env::var("HOLDLINE_CONVERSATION_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let found = std::panic::catch_unwind(|| {
            let mut marks = Marks::new();
            run(seed, &mut marks);
            marks
        });
        let Ok(found) = found else {
            panic!("again: HOLDLINE_CONVERSATION_SEED={seed} cargo test -p holdline-core --test conversation {world}");
        };
        for (mark, count) in found {
            *marks.entry(mark).or_default() += count;
        }
    }
    for mark in expected {
        assert!(marks.get(mark).is_some_and(|count| *count > 0), "never seen in {seeds} runs: {mark}; seen: {marks:?}");
    }
}
