//! Attacks on memory in a short form, from outside: what the proxy's books say it holds is held against what is resident.
//!
//! Each attack is a shape that once cost many times what was charged for it. All of them hold the one promise of
//! [`books`]: resident memory grows by no more than 1.3 times what the books say, in every reading while the attack is on.
//! What an allocator keeps of it afterwards is another matter.

// the helpers here are tests too, which clippy only sees of functions marked as such
#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports)] // each test binary uses its own part of it
#[path = "../it/harness/mod.rs"]
mod harness;
#[allow(dead_code)] // the same
#[path = "../measured/measure.rs"]
mod measure;

mod books;
mod evicted;
mod listing;
mod polls;
mod shapes;
mod viewers;
