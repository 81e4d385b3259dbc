//! The proxy seen from outside: real processes on loopback, workers stepped by hand, exact bytes.
//!
//! A test's name begins with the row of the acceptance list that it shows. Nothing sleeps to wait for something: tests
//! wait for events, messages, the journal or a log record, each with [`harness::PATIENCE`] as its end. What is measured
//! beside other tests would be their load too: those tests stand in `tests/measured`.

// the helpers here are tests too, which clippy only sees of functions marked as such
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // each test binary uses its own part of it
mod harness;

mod admin;
mod affinity;
mod auth;
mod aware;
mod backends;
mod bad_input;
mod candidates;
mod comeback;
mod commits;
mod compression;
mod conversations;
mod cookies;
mod ctl;
mod delivery;
mod dial_in;
mod dial_in_ends;
mod endings;
mod events;
mod fair;
mod fair_pools;
mod fallback;
mod fidelity;
mod first_steps;
mod headers;
mod health;
mod heartbeat;
mod hooks;
mod http;
mod http2;
mod http2_bounds;
mod http2_requests;
mod http_leaves;
mod http_seen;
mod labels;
mod lingering;
mod lists;
mod loops;
mod messages;
mod moves;
mod numbered;
mod openapi;
mod owners;
mod process;
mod proxy_protocol;
mod quirks;
mod rates;
mod refused;
mod reload;
mod roadmap;
mod rolling;
mod run;
mod service;
mod share;
mod slow;
mod socket_workers;
mod state_file;
mod stats;
mod stuck_log;
mod tls;
mod tls_clients;
mod tls_reload;
mod top;
mod trace;
mod trouble;
mod trust;
mod upgrade;
mod upgrade_drill;
mod upgrade_fails;
mod worker_tls;
mod workers;
mod workers_fail;
