//! Shared streams by the thousand: seeded worlds of one stream, viewers that come, lag and go, and workers that die
//! mid-message, with real pipes on both sides of a real [`Stream`](holdline_core::shared::Stream).
//!
//! What is checked in every step is what is promised: each viewer gets whole messages, in order and without a gap
//! but for those that were counted; what viewers say arrives in each one's order; what is held stays within its bounds;
//! nothing follows an end. `HOLDLINE_SIM_SEED=N` replays one seed.
#![allow(clippy::unwrap_used)]

#[path = "../common/wire.rs"]
mod wire;

mod viewer;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of the sweep.
const SEEDS: u64 = 120;

/// What a sweep must have seen at least once.
const MARKS: &[&str] = &[
    "a viewer came back",
    "a viewer closed for its limits",
    "a viewer evicted",
    "a viewer over its limits",
    "a viewer stayed away",
    "caught up",
    "dropped by latest",
    "gone after the linger",
    "half a message from a dead worker",
    "held up",
    "joined late",
    "memory is short",
    "passed over by the ring",
    "sent again to a viewer",
    "several fragments",
    "shed while it lingers",
    "stalled",
    "taps replayed",
    "the quickest viewer sets the pace",
    "the stream evicted",
    "the worker throttled",
    "told the end of the worker",
    "too slow under keep",
    "vanished",
    "viewers hold what the ring let go",
];

/// How often a seed saw what.
pub type Marks = BTreeMap<&'static str, u64>;

fn run(seed: u64) -> Result<Marks, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[test]
fn ib_24_no_seed_splices_doubles_or_loses_uncounted() {
    if let Ok(seed) = std::env::var("HOLDLINE_SIM_SEED") {
        eprintln!("{:?}", world::run(seed.parse().expect("the seed is a number")));
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let results: Vec<_> = (0..SEEDS).map(|seed| (seed, run(seed))).collect();
    let _ = std::panic::take_hook();
    let mut marks = Marks::new();
    let mut failures = Vec::new();
    for (seed, result) in results {
        match result {
            Ok(seen) => seen.into_iter().for_each(|(mark, count)| *marks.entry(mark).or_default() += count),
            Err(error) => failures.push((seed, error)),
        }
    }
    assert!(failures.is_empty(), "{} seeds failed; the first: {:?}", failures.len(), failures[0]);
    let missing: Vec<_> = MARKS.iter().filter(|mark| !marks.contains_key(*mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?} of {marks:?}");
}

#[test]
fn a_seed_decides_its_run() {
    for seed in [3, 14, 159] {
        assert_eq!(run(seed), run(seed));
    }
}
