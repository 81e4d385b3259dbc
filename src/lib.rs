//! Holdline: an interruptible WebSocket reverse proxy.
//!
//! The client's socket outlives its worker: what a worker has not confirmed is kept in a bounded replay buffer, and the
//! pipe reattaches to another worker of the pool. What decides is in the crate `holdline_core`; here is everything that
//! touches the outside.
//!
//! The way of a message, in reading order: [`serve`] starts the threads, the [`door`] accepts and reads the
//! request, [`handshake`] judges it, [`routes`] finds where it goes, [`backends`] says to whom, [`net`] connects, and
//! [`pipe`] moves the
//! messages from then on; what is not a WebSocket takes the way through [`http`]. Around it: [`config`], [`admin`],
//! [`ctl`] and [`cli`] for operators; [`limits`] on who may connect how often, and [`memory`] on how much there is;
//! [`metrics`], [`events`] and [`log`] for those who watch, and [`trace`] for their tracing systems; [`pipes`], the
//! registry of what is live, [`clients`], who comes back to which, [`share`], for pipes that have one worker connection
//! between them, and [`rebalance`], which
//! spreads pipes evenly; [`rules`] and [`level`], what holds now, and [`reload`], which changes it; [`activation`] and
//! [`notify`], the two ends of a service manager; [`phase`], [`clock`], [`blame`] and [`send_timeout`], which everyone
//! uses; and [`worker`], the simulated device worker that demos and tests stand behind the proxy.

pub mod activation;
pub mod admin;
pub mod backends;
pub mod blame;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod door;
pub mod events;
pub mod handshake;
pub mod http;
pub mod level;
pub mod limits;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod phase;
pub mod pipe;
pub mod pipes;
pub mod process;
pub mod rebalance;
pub mod reload;
pub mod routes;
pub mod rules;
pub mod send_timeout;
pub mod serve;
pub mod share;
pub mod tokens;
pub mod trace;
pub mod worker;
