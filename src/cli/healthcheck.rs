//! `holdline healthcheck`: exit 0 if the process is ready for clients, or lives at all, and 1 if not; for Docker and
//! systemd.
//!
//! What would be replaced for a bad answer is asked for its life: a proxy without a worker is not ready, and holds clients
//! that a new one would not have.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use hyper::Method;

use crate::ctl::Where;
use crate::log::escaped;

/// Shorter than the timeout that Docker gives a check by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// `holdline healthcheck`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    at: Where,
    /// Only whether the process answers, not whether it is ready: for what replaces it otherwise, such as Docker
    #[arg(long)]
    live: bool,
}

/// Asks `/health/ready`, or `/health/live`, and says what it said.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let (path, good) = if options.live { ("/health/live", "alive") } else { ("/health/ready", "ready") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = options.at.health_client()?;
    let reply = runtime.block_on(client.ask(Method::GET, path, None, PATIENCE))?;
    if reply.status.is_success() {
        println!("{good}");
        return Ok(());
    }
    let reasons: Vec<String> =
        reply.body["reasons"].as_array().into_iter().flatten().filter_map(|r| r.as_str()).map(escaped).collect();
    bail!("not {good} ({}): {}", reply.status.as_u16(), reasons.join(", "))
}
