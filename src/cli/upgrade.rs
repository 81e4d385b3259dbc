//! `holdline upgrade`: has a running Holdline give its clients to a new process, without closing one of them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::ctl::Where;

/// Longer than any new process should take: what the running one waits for is `upgrade.ready_timeout`.
const PATIENCE: Duration = Duration::from_secs(600);

/// `holdline upgrade`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    at: Where,
    /// The new program [default: upgrade.binary of the configuration, or the file that the running one was started from]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Asks for the upgrade, and says what it came to.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let binary = options.binary.as_deref().map(std::path::absolute).transpose()?;
    let body = binary.map_or_else(|| json!({}), |binary| json!({"binary": binary}));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = options.at.client()?;
    let report = runtime
        .block_on(client.call_within(Method::POST, "/v1/upgrade", Some(&body), PATIENCE))
        .context("the old process serves on")?;
    println!("{}", said(&report));
    Ok(())
}

/// What an upgrade came to, in one line.
fn said(report: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let pause = &report["pause_ms"];
    let mut line = format!(
        "process {} has taken over: {} pipes moved (pause p99 {} ms, at most {} ms), {} left",
        number(&report["pid"]),
        number(&report["moved"]),
        pause["p99"],
        pause["max"],
        number(&report["left"]),
    );
    let kept = report["not_movable"].as_object().into_iter().flatten();
    let kept: Vec<_> =
        kept.filter(|(_, count)| number(count) > 0).map(|(why, count)| format!("{why} {count}")).collect();
    if !kept.is_empty() {
        line += &format!(" ({})", kept.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_came_to_names_what_was_left() {
        let report = json!({"pid": 7, "moved": 12, "left": 3, "pause_ms": {"p50": 1.0, "p99": 4.5, "max": 5.25},
            "not_movable": {"h2": 2, "tls12": 1, "http": 0}});
        let line =
            "process 7 has taken over: 12 pipes moved (pause p99 4.5 ms, at most 5.25 ms), 3 left (h2 2, tls12 1)";
        assert_eq!(said(&report), line);
    }
}
