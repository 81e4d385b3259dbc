//! The comparison: every load on every proxy, in fresh processes, interleaved, for some rounds.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::fanout;
use crate::generator::Outcome;
use crate::load::SCENARIOS;
use crate::peers::{Peer, pinned, start, start_backend};
use crate::table;

/// Rounds of the fan-out: its two runs move half a gigabyte a second, and differ by a multiple.
const FAN_OUT_ROUNDS_MAX: usize = 3;

/// Idle pipes: as many as `ulimit -n` of 20,000 lets a proxy hold, with two sockets each.
const IDLE: usize = 8000;
const IDLE_QUICK: usize = 1000;

#[derive(clap::Args)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Seconds of one measured window
    #[arg(long)]
    pub seconds: Option<f64>,
    /// One short round
    #[arg(long)]
    pub quick: bool,
    /// Only loads whose name contains this
    #[arg(long)]
    pub only: Vec<String>,
    /// Only these proxies
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub proxy_core: usize,
    #[arg(long, default_value_t = 1)]
    pub load_core: usize,
    /// Where the figures go as JSON
    #[arg(long, default_value = "target/bench.json")]
    pub json: PathBuf,
}

/// One load of the comparison.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    load: String,
    beside: Option<String>,
    target: Option<f64>,
}

/// All runs of one load on one proxy.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub peer: &'static str,
    pub runs: Vec<Outcome>,
}

/// All proxies under one load.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub load: String,
    pub target: Option<f64>,
    pub cells: Vec<Cell>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let seconds = options.seconds.unwrap_or(if options.quick { 0.5 } else { 2.0 });
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(|&peer| wanted(options, peer)).collect();
    let mut rows: Vec<Row> = cases(options)
        .into_iter()
        .map(|case| Row { name: case.name, load: case.load, target: case.target, cells: Vec::new() })
        .collect();
    let cases = cases(options);
    let dir = std::env::temp_dir().join(format!("holdline-bench-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    for row in &mut rows {
        row.cells = peers.iter().map(|peer| Cell { peer: peer.name(), runs: Vec::new() }).collect();
    }
    for round in 0..rounds {
        for (row, case) in rows.iter_mut().zip(&cases) {
            for turn in 0..peers.len() {
                let which = (turn + round) % peers.len();
                eprintln!("round {} of {rounds}: {}, {}", round + 1, case.name, peers[which].name());
                let outcome = run_once(options, case, peers[which], seconds, &dir)
                    .with_context(|| format!("{} on {}", case.name, peers[which].name()))?;
                row.cells[which].runs.push(outcome);
            }
        }
    }
    fs::remove_dir_all(&dir)?;
    table::print(&rows);
    if options.only.is_empty() || options.only.iter().any(|part| fanout::NAME.contains(part.as_str())) {
        fan_out(options, rounds.min(FAN_OUT_ROUNDS_MAX), seconds)?;
    }
    if let Some(parent) = options.json.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&options.json, serde_json::to_string_pretty(&rows)?)?;
    eprintln!("written: {}", options.json.display());
    Ok(())
}

/// A quick run leaves out what is only there to be looked at.
fn wanted(options: &Options, peer: Peer) -> bool {
    if options.peers.is_empty() {
        return !options.quick || !matches!(peer, Peer::Direct | Peer::Nginx);
    }
    options.peers.iter().any(|name| name == peer.name())
}

fn cases(options: &Options) -> Vec<Case> {
    let case = |name: &str, load: String, target| Case { name: name.to_owned(), load, beside: None, target };
    let idle = if options.quick { IDLE_QUICK } else { IDLE };
    SCENARIOS
        .iter()
        .map(|scenario| Case {
            beside: scenario.beside.map(str::to_owned),
            ..case(scenario.name, scenario.load.to_owned(), scenario.target)
        })
        .chain([
            case("handshake cycle", "cycles:16".to_owned(), Some(1.0)),
            case("idle pipes", format!("idle:{idle}"), Some(0.5)),
        ])
        .filter(|case| options.only.is_empty() || options.only.iter().any(|part| case.name.contains(part.as_str())))
        .collect()
}

/// Shared against single pipes is Holdline against itself, so it has a table of its own.
fn fan_out(options: &Options, rounds: usize, seconds: f64) -> anyhow::Result<()> {
    eprintln!("{rounds} rounds of {}", fanout::NAME);
    let own = std::env::current_exe()?;
    let mut command = pinned(options.load_core, &own.to_string_lossy());
    command.arg("fanout").arg("--holdline").arg(&options.holdline);
    command.args(["--rounds", &rounds.to_string(), "--seconds", &seconds.to_string()]);
    ensure!(command.status()?.success(), "{} failed", fanout::NAME);
    Ok(())
}

fn run_once(
    options: &Options,
    case: &Case,
    peer: Peer,
    seconds: f64,
    dir: &std::path::Path,
) -> anyhow::Result<Outcome> {
    let (backend, address) = start_backend(options.load_core)?;
    let (proxy, target) = start(peer, &options.holdline, address, options.proxy_core, dir)?;
    let own = std::env::current_exe()?;
    let mut command = pinned(options.load_core, &own.to_string_lossy());
    command.args(["run", "--target", &target.to_string(), "--load", &case.load]);
    command.args(["--seconds", &seconds.to_string(), "--warmup", if options.quick { "0.2" } else { "0.5" }]);
    if let Some(beside) = &case.beside {
        command.args(["--beside", beside]);
    }
    if let Some(proxy) = &proxy {
        command.args(["--pids", &proxy.pid().to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the run failed");
    drop((proxy, backend));
    Ok(serde_json::from_slice(&output.stdout)?)
}
