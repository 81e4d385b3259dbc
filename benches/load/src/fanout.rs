//! Many viewers of one device, with a worker connection each and with one between them: CPU for what is delivered, and
//! memory for each viewer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::connection::{Connection, Heard, now_ns, numbers};
use crate::generator::{self, Outcome, Shared, open, tally};
use crate::measure::resident_bytes;
use crate::peers::{serve_with, start_backend};
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
}

/// CPU seconds for a gigabyte delivered, frames a viewer got in a second, and resident bytes for a viewer.
struct Figures {
    cpu_per_gb: f64,
    fps: f64,
    viewer_bytes: f64,
    p99_ms: f64,
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let (mut single, mut shared) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        for (share, runs) in [(false, &mut single), (true, &mut shared)] {
            let run = tokio::time::timeout(RUN_MAX, once(&options, share)).await;
            runs.push(run.context("it hangs").flatten().with_context(|| format!("share = {share}"))?);
        }
    }
    println!(
        "\n| {} viewers, {} B at {} fps | CPU s/GB | fps | p99 ms | KB a viewer |",
        options.viewers, options.size, options.fps
    );
    println!("|---|--:|--:|--:|--:|");
    for (name, runs) in [("single pipes", &single), ("one shared stream", &shared)] {
        let (cpu, fps) = (median(runs, |run| run.cpu_per_gb), median(runs, |run| run.fps));
        let (p99, bytes) = (median(runs, |run| run.p99_ms), median(runs, |run| run.viewer_bytes));
        println!("| {name} | {cpu:.3} | {fps:.1} | {p99:.0} | {:.1} |", bytes / 1e3);
    }
    let ratio = median(&shared, |run| run.cpu_per_gb) / median(&single, |run| run.cpu_per_gb);
    println!("\nCPU per GB, shared to single: {ratio:.2}, target 0.70{}", if ratio > 0.7 { ": above" } else { "" });
    Ok(())
}

fn median(runs: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn once(options: &Options, share: bool) -> anyhow::Result<Figures> {
    let dir = std::env::temp_dir().join(format!("holdline-fanout-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (backend, address) = start_backend(1)?;
    let (proxy, target) = serve_with(&options.holdline, &[address], 0, &dir, &format!("share = {share}\n"))?;
    let pid = proxy.as_ref().context("no proxy")?.pid();
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
        pids: vec![pid],
    };
    let outcome: Outcome = generator::window(&window, &tally).await;
    let during = resident_bytes(&[pid]) as f64;
    for viewer in viewers {
        ensure!(!viewer.is_finished(), "a viewer was closed: {:?}", viewer.await);
        viewer.abort();
    }
    drop((proxy, backend));
    std::fs::remove_dir_all(&dir)?;
    ensure!(outcome.messages > 0, "nothing came");
    Ok(Figures {
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
