//! What the contract says in milliseconds, in KiB and in percent of a core: measured one test at a time.
//!
//! These are tests like those of `tests/it`, and share its harness. They stand here because what they measure would be
//! another test's load there. Each of them begins with [`measure::alone`], and prints what it measured.

// the helpers here are tests too, which clippy only sees of functions marked as such
#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports)] // each test binary uses its own part of it
#[path = "../it/harness/mod.rs"]
mod harness;
mod measure;

mod crowd;
mod crowds;
mod dial_in;
mod http;
mod limits;
mod losses;
mod memory;
mod polls;
mod process;
mod storm;
mod timing;
mod waiting;
