//! Holdline: an interruptible WebSocket reverse proxy.
//!
//! The client's socket outlives its worker: what a worker has not confirmed is kept in a bounded replay buffer, and the
//! pipe reattaches to another worker of the pool. What decides is in the crate `holdline_core`; here is everything that
//! touches the outside.
//!
//! The way of a message, in reading order: [`serve`] starts the threads, the [`door`] accepts and reads the request,
//! [`handshake`] judges it, [`routes`] finds where it goes, [`backends`] says to which worker, [`net`] connects, and
//! [`pipe`] moves the messages from then on. A request that is not a WebSocket takes the way through [`http`].
//!
//! What is live: [`pipes`] is the registry, [`clients`] says which client may come back to which pipe, [`fallback`] serves
//! those that are on no socket, [`waiting`] has
//! requests wait for a worker, [`share`] joins
//! pipes that have one worker connection between them, [`limits`] counts connections, [`memory`] bounds what all of
//! them hold, and [`rebalance`] spreads them evenly.
//!
//! [`dialin`] is where workers come that cannot be dialled. [`workers`] are the processes that Holdline runs itself, as users that [`unix_user`] finds; [`stop_signals`] end the commands that run beside a worker.
//!
//! What holds for all of them: [`process`] is the bag of services, [`config`] what the operator decided, [`rules`] what
//! of it holds for new clients, [`tls`] what listeners show to clients that speak it, [`tokens`] who may use the admin API,
//! [`resume`] what tokens of clients that come back are signed with, [`level`] what is logged, and [`reload`] changes
//! these four.
//!
//! What can be seen: [`metrics`], [`events`], [`log`], [`trace`] and [`hooks`], which tell a server of the operator's, by a
//! [`callout`] signed with a [`secret`]. Who steers: [`admin`] serves the API, [`ctl`] asks
//! it, [`cli`] is the command line; [`handover`] gives all of it to a new process, which [`upgrade`] tells the others of; [`activation`] and [`notify`] are the two ends of a service manager. Every layer
//! uses [`phase`], [`clock`], [`blame`], [`hops`], [`send_timeout`] and
//! [`whole_file`]. [`run`] registers a worker that something else
//! starts, and [`agent`] parks connections for one that cannot be dialled. [`worker`] is the simulated device worker that demos and
//! tests stand behind the proxy, and [`demo`] kills such workers under its clients.
//!
//! A module knows only what stands below it: `tests/tidy/layers.rs` lists the layers and holds them.

mod activation;
mod admin;
mod agent;
mod backends;
mod blame;
mod callout;
pub mod cli;
mod clients;
mod clock;
pub mod config;
mod ctl;
mod demo;
mod dialin;
mod door;
mod events;
pub mod fallback;
mod handover;
pub mod handshake;
mod hooks;
mod hops;
mod http;
mod level;
mod limits;
mod log;
mod memory;
mod metrics;
mod net;
mod notify;
mod phase;
mod pipe;
mod pipes;
mod process;
mod rebalance;
mod reload;
pub mod resume;
mod routes;
mod rules;
mod run;
mod secret;
mod send_timeout;
mod serve;
mod share;
mod stop_signals;
mod tls;
mod tokens;
mod trace;
mod unix_user;
mod upgrade;
mod waiting;
mod whole_file;
mod worker;
mod workers;
