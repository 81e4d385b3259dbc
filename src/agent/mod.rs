//! `holdline agent`: stands beside a worker that cannot be dialled, and parks connections with Holdline for it.
//!
//! In reading order: `proxy` (the way to Holdline), `line` (one connection, from its being opened to its end), `tunnel` (what is on it
//! once it was taken), `worker` (the way to the worker), `crew` (all of them together). How many are kept and when another is opened decides
//! `holdline_core::dialin::keeping`.
//!
//! Invariants: what is parked can be passed on (while the worker does not listen, nothing is parked); nothing of
//! what passes through is changed; at SIGTERM the parked connections close last, after the pipes have moved.

mod crew;
mod line;
mod proxy;
mod tunnel;
mod worker;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::config::parse_duration;
use crate::stop_signals::StopSignals;
use crew::Crew;

/// `holdline agent`.
#[derive(Args, Debug)]
pub struct Options {
    /// Where Holdline's attach.listen is: https://HOST[:PORT], or http:// where it is loopback
    #[arg(long, value_name = "URL")]
    to: String,
    /// Where the worker listens: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    forward: String,
    /// The backend's id
    #[arg(long)]
    id: String,
    /// The pool to stand in
    #[arg(long, default_value = "default")]
    pool: String,
    /// A route key that the worker owns, with what it calls that key itself; without any it takes every key
    #[arg(long, value_name = "KEY[=ALIAS]")]
    serves: Vec<String>,
    /// Labels to register with
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Its share of the pipes, relative to the others of its pool
    #[arg(long)]
    weight: Option<NonZeroU32>,
    /// Pipes it takes at most, instead of what the pool says
    #[arg(long)]
    max_pipes: Option<u32>,
    /// Connections to park until Holdline says how many it wants
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    parked: u32,
    /// Connections to park at most, however many it wants
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    parked_max: u32,
    /// Who signs Holdline's certificate, or that certificate itself, in PEM [default: whom the system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to it, in PEM, where server.tls.client_auth asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// How long a connection may take, to Holdline with all that is said first, and to the worker
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    connect_timeout: Duration,
    /// How long its pipes have to move after SIGTERM
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

/// Parks connections until it is told to end, or a newer agent has the id.
///
/// # Errors
/// When Holdline refuses it from the first connection on, or what was asked for cannot be.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    log.try_init().map_err(|error| anyhow::anyhow!(error)).context("cannot log")?;
    let crew = Crew::new(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = StopSignals::hear()?;
        crew.work(told).await
    })?;
    // What is left is cut off.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
