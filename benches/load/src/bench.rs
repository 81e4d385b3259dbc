//! The comparison: every load on every proxy, in fresh processes, interleaved, for some rounds; then what only Holdline does.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::about::About;
use crate::generator::Outcome;
use crate::load::{SCENARIOS, Way};
use crate::measure::pipes_max;
use crate::peers::{Peer, Place, Scratch, own, pinned, start, start_backend};
use crate::report::{Outputs, Report};
use crate::row::{Cell, Row};
use crate::secured::Certificate;
use crate::{aware, fanout, threads};

/// Rounds of the fan-out: its two runs move half a gigabyte a second, and differ by a multiple.
const FAN_OUT_ROUNDS_MAX: usize = 3;
/// Rounds of aware clients beside others.
const AWARE_ROUNDS_MAX: usize = 3;
/// Rounds with one data thread and with two.
const THREADS_ROUNDS_MAX: usize = 3;
/// Rounds over each size: what is looked for is a multiple.
const SCALE_ROUNDS_MAX: usize = 3;

/// Idle pipes, where `ulimit -n` lets a proxy hold so many with two sockets each.
const IDLE: usize = 10_000;
const IDLE_QUICK: usize = 1000;
/// Idle pipes by TLS and HTTP/2: what each costs is no other with more, and there is a handshake for each or some.
const IDLE_TLS: usize = 5000;

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
    /// Only what has this in its name: a load, "viewers", "aware", "threads", "single", "reattach" or "scale"
    #[arg(long)]
    pub only: Vec<String>,
    /// Only these proxies: direct, nginx, "nginx 64k", haproxy, caddy, pushpin, holdline
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub proxy_core: usize,
    #[arg(long, default_value_t = 1)]
    pub load_core: usize,
    #[command(flatten)]
    pub outputs: Outputs,
}

/// One load of the comparison.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    load: String,
    beside: Option<String>,
    target: Option<f64>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let seconds = options.seconds.unwrap_or(if options.quick { 0.3 } else { 1.0 });
    let mut report = Report { about: About::here(&options.holdline, rounds, seconds), ..Report::default() };
    report.rows = compare(options, rounds, seconds)?;
    // What was measured is kept if a later part fails or is interrupted: `--again` puts it out.
    report.write(&options.outputs.json)?;
    if options.wants(fanout::NAME) {
        let arguments = ["--rounds", &rounds.min(FAN_OUT_ROUNDS_MAX).to_string(), "--seconds", &seconds.to_string()];
        report.fan_out = Some(options.part("fanout", &arguments)?);
    }
    if options.wants(aware::NAME) {
        let (pipes, polls) = if options.quick { ("1000", "200") } else { ("10000", "1000") };
        let rounds = rounds.min(AWARE_ROUNDS_MAX).to_string();
        let seconds = seconds.to_string();
        let arguments = ["--pipes", pipes, "--polls", polls, "--rounds", &rounds, "--seconds", &seconds];
        report.aware = Some(options.part("aware", &arguments)?);
        report.write(&options.outputs.json)?;
    }
    if options.wants(threads::NAME) {
        let pipes = if options.quick { "1000" } else { "10000" };
        let rounds = rounds.min(THREADS_ROUNDS_MAX).to_string();
        let arguments = ["--pipes", pipes, "--rounds", &rounds, "--seconds", &seconds.to_string()];
        report.threads = options.part("threads", &arguments)?;
    }
    if options.wants("single") {
        let times = if options.quick { "20" } else { "200" };
        report.single = Some(options.part("single", &["--times", times])?);
    }
    if options.wants("reattach") {
        for arguments in reattaches(options.quick) {
            report.reattach.push(options.part("reattach", arguments)?);
            report.write(&options.outputs.json)?;
        }
    }
    if options.wants("scale") && !(options.quick && options.only.is_empty()) {
        let arguments = ["--rounds", &rounds.min(SCALE_ROUNDS_MAX).to_string(), "--seconds", &seconds.to_string()];
        report.scale = Some(options.part("scale", &arguments)?);
    }
    report.write(&options.outputs.json)?;
    report.put_out(&options.outputs)
}

/// With default settings, on the one core that the comparison has, by a drain at full speed and at the default pace.
const fn reattaches(quick: bool) -> &'static [&'static [&'static str]] {
    if quick {
        return &[&["--pipes", "1000"], &["--pipes", "1000", "--by", "drain", "--moves-per-second", "0"]];
    }
    &[&[], &["--threads", "1"], &["--by", "drain", "--moves-per-second", "0"], &["--by", "drain"]]
}

fn compare(options: &Options, rounds: usize, seconds: f64) -> anyhow::Result<Vec<Row>> {
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(|&peer| options.compares(peer)).collect();
    let cases = cases(options);
    let cells =
        || peers.iter().map(|peer| Cell { peer: peer.name().to_owned(), runs: Vec::new(), failed: 0 }).collect();
    let row =
        |case: &Case| Row { name: case.name.clone(), load: case.load.clone(), target: case.target, cells: cells() };
    let mut rows: Vec<Row> = cases.iter().map(row).collect();
    let dir = Scratch::new("bench")?;
    for round in 0..rounds {
        for (row, case) in rows.iter_mut().zip(&cases) {
            for turn in 0..peers.len() {
                let which = (turn + round) % peers.len();
                if row.cells[which].failed > 0 || !peers[which].can(&case.load) {
                    continue;
                }
                let what = format!("{} on {}", case.name, peers[which].name());
                eprintln!("round {} of {rounds}: {what}", round + 1);
                match run_once(options, case, peers[which], seconds, dir.path()).context(what) {
                    Ok(outcome) => row.cells[which].runs.push(outcome),
                    Err(error) if matches!(peers[which], Peer::Holdline | Peer::Direct) => return Err(error),
                    Err(error) => {
                        eprintln!("it counts as failed: {error:#}");
                        row.cells[which].failed += 1;
                    }
                }
            }
        }
    }
    Ok(rows)
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// A quick run leaves out what is only there to be looked at; Caddy and Pushpin need not be installed.
    fn compares(&self, peer: Peer) -> bool {
        if !self.peers.is_empty() {
            return self.peers.iter().any(|name| name == peer.name());
        }
        match peer {
            Peer::Nginx => !self.quick,
            Peer::Caddy => !self.quick && Path::new("/usr/bin/caddy").exists(),
            Peer::Pushpin => !self.quick && Path::new("/usr/lib/pushpin/internal.conf").exists(),
            Peer::Direct | Peer::Nginx64k | Peer::HaProxy | Peer::Holdline => true,
        }
    }

    /// What has a role of its own says its figures as JSON.
    fn part<T: DeserializeOwned>(&self, role: &str, arguments: &[&str]) -> anyhow::Result<T> {
        eprintln!("{role} {}", arguments.join(" "));
        let mut command = own(self.load_core, role)?;
        command.arg("--holdline").arg(&self.holdline).args(arguments).arg("--json");
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{role} failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn cases(options: &Options) -> Vec<Case> {
    let case = |name: &str, load: String, target| Case { name: name.to_owned(), load, beside: None, target };
    let idle = pipes_max(if options.quick { IDLE_QUICK } else { IDLE }, 2);
    SCENARIOS
        .iter()
        .map(|scenario| Case {
            beside: scenario.beside.map(str::to_owned),
            ..case(scenario.name, scenario.load.to_owned(), scenario.target)
        })
        .chain([
            case("handshake cycle", "cycles:16".to_owned(), Some(1.0)),
            case("idle pipes", format!("idle:{idle}"), Some(0.5)),
            case("TLS full handshake", "tls:full:16".to_owned(), Some(1.0)),
            case("TLS resumed handshake", "tls:resumed:16".to_owned(), Some(1.0)),
            case("TLS idle pipes", format!("tls:idle:{}", idle.min(IDLE_TLS)), Some(1.0)),
            case("HTTP/2 idle pipes", format!("h2:idle:{}", idle.min(IDLE_TLS)), None),
        ])
        .filter(|case| options.wants(&case.name))
        .collect()
}

fn run_once(options: &Options, case: &Case, peer: Peer, seconds: f64, dir: &Path) -> anyhow::Result<Outcome> {
    let (backend, address) = start_backend(options.load_core)?;
    let (way, _) = Way::split(&case.load);
    let certificate = (way != Way::Plain).then(|| Certificate::make(dir, way == Way::Http2)).transpose()?;
    let place = Place { core: options.proxy_core, dir, shows: certificate.as_ref() };
    let (proxy, target) = start(peer, &options.holdline, address, place)?;
    let own = std::env::current_exe()?;
    let mut command = pinned(options.load_core, &own.to_string_lossy());
    command.args([
        "run",
        "--target",
        &target.to_string(),
        "--load",
        &case.load,
        "--worker",
        &backend.pid().to_string(),
    ]);
    command.args(["--seconds", &seconds.to_string(), "--warmup", if options.quick { "0.1" } else { "0.5" }]);
    if let Some(certificate) = &certificate {
        command.arg("--certificate").arg(&certificate.cert);
    }
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
