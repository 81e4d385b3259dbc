//! `holdline worker`: logs on stderr, stops in order at SIGTERM and Ctrl-C.

use std::io::{self, IsTerminal};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::worker::{self, Options};

/// Runs a demo worker until it is told to stop.
///
/// # Errors
/// When it can't start.
pub fn run(options: Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("HOLDLINE_WORKER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    log.try_init().map_err(|error| anyhow::anyhow!(error)).context("cannot log")?;
    if options.until_stdin_closes {
        std::thread::spawn(super::exit_with_stdin);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear SIGINT")?;
        let told = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        worker::run(options, told).await?;
        Ok(())
    })
}
