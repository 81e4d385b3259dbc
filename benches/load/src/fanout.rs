//! Many viewers of one device, with a worker connection each and with one between them: CPU for what is delivered, and
//! memory for each viewer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, Heard, now_ns, numbers};
use crate::generator::{self, Outcome, Shared, open, tally};
use crate::holdline::Start;
use crate::measure::resident_bytes;
use crate::peers::{Scratch, start_backend};
use crate::stats::median;
use crate::wire::TEXT;

/// What the comparison calls it.
pub const NAME: &str = "200 viewers of one device";

/// One run, from the first process to the last: a run that hangs fails.
const RUN_MAX: Duration = Duration::from_secs(90);

#[derive(clap::Args)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    #[arg(long, default_value_t = 200)]
    pub viewers: usize,
    /// Bytes of a frame
    #[arg(long, default_value_t = 226_000)]
    pub size: usize,
    #[arg(long, default_value_t = 10)]
    pub fps: u32,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// With a worker connection each, and with one between them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub viewers: usize,
    pub single: Side,
    pub shared: Side,
}

/// CPU seconds for a gigabyte delivered, frames a viewer got in a second, and resident bytes for a viewer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Side {
    pub cpu_per_gb: f64,
    pub fps: f64,
    pub viewer_bytes: f64,
    pub p99_ms: f64,
}

impl Figures {
    pub fn ratio(&self) -> f64 {
        self.shared.cpu_per_gb / self.single.cpu_per_gb
    }
}

impl Side {
    fn median(runs: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(runs.iter().map(value));
        Self {
            cpu_per_gb: of(|run| run.cpu_per_gb),
            fps: of(|run| run.fps),
            viewer_bytes: of(|run| run.viewer_bytes),
            p99_ms: of(|run| run.p99_ms),
        }
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let (mut single, mut shared) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        for (share, runs) in [(false, &mut single), (true, &mut shared)] {
            let run = tokio::time::timeout(RUN_MAX, once(&options, share)).await;
            runs.push(run.context("it hangs").flatten().with_context(|| format!("share = {share}"))?);
        }
    }
    let (single, shared) = (Side::median(&single), Side::median(&shared));
    let figures = Figures { viewers: options.viewers, single, shared };
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print(&options, &figures);
    }
    Ok(())
}

fn print(options: &Options, figures: &Figures) {
    println!("{} viewers, {} B at {} fps:", figures.viewers, options.size, options.fps);
    for (name, side) in [("single pipes", &figures.single), ("one shared stream", &figures.shared)] {
        let Side { cpu_per_gb, fps, viewer_bytes, p99_ms } = side;
        let kb = viewer_bytes / 1e3;
        println!("  {name:17} {cpu_per_gb:.3} CPU s/GB, {fps:.1} fps, p99 {p99_ms:.0} ms, {kb:.1} KB a viewer");
    }
    let ratio = figures.ratio();
    println!("  CPU per GB, shared to single: {ratio:.2}, target 0.70{}", if ratio > 0.7 { ": above" } else { "" });
}

async fn once(options: &Options, share: bool) -> anyhow::Result<Side> {
    let dir = Scratch::new("fanout")?;
    let (_backend, address) = start_backend(1)?;
    let (backends, route) = ([("w", address)], format!("share = {share}\n"));
    let start = Start::new(&options.holdline, dir.path());
    let proxy = Start { backends: &backends, route: &route, ..start }.start()?;
    let (pid, target) = (proxy.pid(), proxy.public);
    let before = resident_bytes(&[pid]) as f64;
    // Nothing flows before all are there: a backend that streams to a hundred answers the next one late.
    let path = format!("/wait/{}/{}", options.size, options.fps);
    let tally = tally()?;
    let mut connections = Vec::new();
    for _ in 0..options.viewers {
        connections.push(open(target, &path).await?);
    }
    let watch = |connection| tokio::task::spawn_local(watch(connection, options.size, tally.clone()));
    let viewers: Vec<_> = connections.into_iter().map(watch).collect();
    let window = generator::Options {
        target,
        load: String::new(),
        beside: None,
        seconds: options.seconds,
        warmup: 1.0,
        certificate: None,
        pids: vec![pid],
        worker: None,
    };
    let outcome: Outcome = generator::window(&window, &tally).await;
    let during = resident_bytes(&[pid]) as f64;
    for viewer in viewers {
        ensure!(!viewer.is_finished(), "a viewer was closed: {:?}", viewer.await);
        viewer.abort();
    }
    ensure!(outcome.messages > 0, "nothing came");
    Ok(Side {
        cpu_per_gb: outcome.cpu_ns as f64 / outcome.bytes as f64,
        fps: outcome.messages as f64 / outcome.seconds / options.viewers as f64,
        viewer_bytes: (during - before) / options.viewers as f64,
        p99_ms: outcome.p99_us / 1000.0,
    })
}

/// Counts frames, each of which must follow the one before.
async fn watch(mut connection: Connection, size: usize, tally: Shared) -> anyhow::Result<()> {
    let mut last = None;
    connection.put(TEXT, b"go");
    connection.flush()?;
    loop {
        connection
            .step(None, |_, heard| {
                let Heard::Data(payload) = heard else { return Ok(()) };
                let (seq, at) = numbers(payload)?;
                ensure!(last.is_none_or(|last| seq == last + 1), "frame {seq} came behind {last:?}");
                ensure!(payload.len() == size, "{} bytes came instead of {size}", payload.len());
                last = Some(seq);
                generator::count(&tally, 1, size, Some(now_ns().saturating_sub(at)));
                Ok(())
            })
            .await?;
        ensure!(!connection.closed, "closed amid the stream");
    }
}
