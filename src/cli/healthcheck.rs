//! `holdline healthcheck`: exit 0 if the process is ready for clients, 1 if not; for Docker and systemd.

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
}

/// Asks `/health/ready` and says what it said.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = options.at.client()?;
    let reply = runtime.block_on(client.ask(Method::GET, "/health/ready", None, PATIENCE))?;
    if reply.status.is_success() {
        println!("ready");
        return Ok(());
    }
    let reasons: Vec<String> =
        reply.body["reasons"].as_array().into_iter().flatten().filter_map(|r| r.as_str()).map(escaped).collect();
    bail!("not ready ({}): {}", reply.status.as_u16(), reasons.join(", "))
}
