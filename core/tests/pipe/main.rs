//! Scripts for a pipe: what happens to it, and what it then wants done.
#![allow(clippy::unwrap_used)]

#[path = "../common/wire.rs"]
mod wire;

mod aliases;
mod aware;
mod bench;
mod client;
mod closing;
mod compressed;
mod deaths;
mod form;
mod interruption;
mod limits;
mod moving;
mod numbered;
mod profiles;
mod prologue;
mod rates;
mod relay;
mod replay;
mod say;
mod snapshot;
mod timers;
mod utf8;
