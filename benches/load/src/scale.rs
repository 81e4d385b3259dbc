//! Whether cost grows as it should: CPU per message over more and more open pipes, and over more and more bytes that a
//! lost worker left unconfirmed. Fails when a unit costs over [`GROWTH_MAX`] times what it costs over the reference size.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::admin::{self, register};
use crate::connection::{Connection, Heard, OUTPUT_BYTES_MAX, Outgoing, now_ns};
use crate::generator::{Outcome, open_many};
use crate::holdline::{Holdline, Start};
use crate::measure::{cpu_ns, pipes_max, resident_bytes};
use crate::peers::{Scratch, own, start_backend, start_backend_with};
use crate::stats::{GROWTH_MAX, growth, median};
use crate::wire::TEXT;

/// Round trips in a second, over all pipes together.
const RATE: usize = 5_000;
const PIPES: [usize; 4] = [1, 100, 1_000, 10_000];
/// One pipe alone is served in batches, so the smallest size with one message at a time is the reference.
const PIPES_REFERENCE: usize = 100;
/// Pipes that speak beside others that do not.
const SPEAKING: usize = 50;

const REPLAY_BYTES: [usize; 5] = [1 << 10, 16 << 10, 128 << 10, 1 << 20, 16 << 20];
/// Below, the attach itself is most of the cost.
const REPLAY_REFERENCE: usize = 128 << 10;
const REPLAY_MESSAGE_BYTES: usize = 1_024;
/// Below what anything could cost: noise must not make the reference so small that all others have grown.
const FURTHER_US_MIN: f64 = 0.05;
/// What all pipes of a run hold together, and how many there are at most.
const REPLAY_TOTAL_BYTES: usize = 64 << 20;
const REPLAY_PIPES_MAX: usize = 512;
/// More than the largest size, so that no client is paused.
const REPLAY_ROOM: &str = "32MiB";
const STEP_MAX: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of one measured window
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Up to a tenth of the largest sizes
    #[arg(long)]
    pub quick: bool,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub pipes: Vec<OverPipes>,
    pub replay: Vec<OverReplay>,
}

/// CPU µs per message at one number of pipes.
#[derive(Debug, Serialize, Deserialize)]
pub struct OverPipes {
    pub pipes: usize,
    /// All of them speak.
    pub spread_us: f64,
    /// Fifty of them speak.
    pub beside_idle_us: f64,
}

/// What the loss of a worker costs that had confirmed nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct OverReplay {
    pub bytes: usize,
    pub pipes: usize,
    /// CPU µs per message to take it, send it and keep it.
    pub keep_us: f64,
    /// CPU µs of one pipe's reattach with all of its replay.
    pub pipe_us: f64,
    /// Resident bytes for each byte that is kept.
    pub resident_per_byte: f64,
}

impl Figures {
    /// CPU µs to rewind and send again one message more: without the attach, which is most of what one message costs alone.
    /// Nothing for sizes at which the attach drowns it.
    pub fn further_us(&self, row: &OverReplay) -> Option<f64> {
        let one = self.replay.iter().find(|row| row.bytes == REPLAY_MESSAGE_BYTES)?;
        let messages = (row.bytes / REPLAY_MESSAGE_BYTES - 1) as f64;
        (row.bytes >= REPLAY_REFERENCE).then(|| (row.pipe_us - one.pipe_us).max(FURTHER_US_MIN * messages) / messages)
    }

    /// What grew too much, in words.
    pub fn grown(&self) -> Vec<String> {
        let judge = |what: &str, reference: f64, larger: Vec<f64>| {
            let growth = growth(reference, &larger);
            (growth > GROWTH_MAX).then(|| format!("{what}: {growth:.1} times the cost of a message"))
        };
        let pipes = |of: fn(&OverPipes) -> f64| {
            let reference = self.pipes.iter().find(|row| row.pipes == PIPES_REFERENCE).map_or(0.0, of);
            (reference, self.pipes.iter().filter(|row| row.pipes > PIPES_REFERENCE).map(of).collect())
        };
        let replay = |of: &dyn Fn(&OverReplay) -> f64| {
            let reference = self.replay.iter().find(|row| row.bytes == REPLAY_REFERENCE).map_or(0.0, of);
            (reference, self.replay.iter().filter(|row| row.bytes > REPLAY_REFERENCE).map(of).collect())
        };
        let (spread, idle) = (pipes(|row| row.spread_us), pipes(|row| row.beside_idle_us));
        let (keep, again) = (replay(&|row| row.keep_us), replay(&|row| self.further_us(row).unwrap_or(0.0)));
        [
            judge("more pipes that speak", spread.0, spread.1),
            judge("more idle pipes beside", idle.0, idle.1),
            judge("more that is kept", keep.0, keep.1),
            judge("more that is sent again", again.0, again.1),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let figures = measure(&options).await?;
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print!("{}", crate::markdown::scale(&figures));
    }
    let grown = figures.grown();
    ensure!(grown.is_empty(), "cost grows: {}", grown.join("; "));
    Ok(())
}

async fn measure(options: &Options) -> anyhow::Result<Figures> {
    let part = if options.quick { 10 } else { 1 };
    let mut figures = Figures { pipes: Vec::new(), replay: Vec::new() };
    for pipes in PIPES.into_iter().filter(|&pipes| pipes <= PIPES[3] / part) {
        eprintln!("{pipes} pipes");
        figures.pipes.push(over_pipes(options, pipes_max(pipes, 2))?);
    }
    for bytes in REPLAY_BYTES.into_iter().filter(|&bytes| bytes <= REPLAY_BYTES[4] / part) {
        eprintln!("{} KiB of replay", bytes >> 10);
        figures.replay.push(over_replay(options, bytes).await?);
    }
    Ok(figures)
}

fn over_pipes(options: &Options, pipes: usize) -> anyhow::Result<OverPipes> {
    let cost = |load: &str, quiet: usize| -> anyhow::Result<f64> {
        let runs = (0..options.rounds).map(|_| under_load(options, load, quiet)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(median(runs.iter().map(|run| run.cpu_ns as f64 / 1000.0 / run.messages.max(1) as f64)))
    };
    let spread = format!("paced:64:{}x{pipes}", RATE as f64 / pipes as f64);
    let speaking = SPEAKING.min(pipes);
    let few = format!("paced:64:{}x{speaking}", RATE as f64 / speaking as f64);
    Ok(OverPipes { pipes, spread_us: cost(&spread, 0)?, beside_idle_us: cost(&few, pipes - speaking)? })
}

fn under_load(options: &Options, load: &str, quiet: usize) -> anyhow::Result<Outcome> {
    let dir = Scratch::new("scale")?;
    let (_worker, address) = start_backend(1)?;
    let backends = [("w", address)];
    let proxy = Start { backends: &backends, ..Start::new(&options.holdline, dir.path()) }.start()?;
    let mut command = own(1, "run")?;
    command.args(["--target", &proxy.public.to_string(), "--load", load, "--pids", &proxy.pid().to_string()]);
    command.args(["--seconds", &options.seconds.to_string(), "--warmup", "0.5"]);
    if quiet > 0 {
        command.args(["--beside", &format!("quiet:0:0x{quiet}")]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{load} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

async fn over_replay(options: &Options, bytes: usize) -> anyhow::Result<OverReplay> {
    let pipes = (REPLAY_TOTAL_BYTES / bytes).min(REPLAY_PIPES_MAX);
    let mut runs = Vec::new();
    for _ in 0..options.rounds {
        runs.push(replayed(&options.holdline, bytes, pipes).await?);
    }
    let of = |value: fn(&OverReplay) -> f64| median(runs.iter().map(value));
    Ok(OverReplay {
        bytes,
        pipes,
        keep_us: of(|run| run.keep_us),
        pipe_us: of(|run| run.pipe_us),
        resident_per_byte: of(|run| run.resident_per_byte),
    })
}

/// A worker that reads nothing dies; what was kept for it goes to one that checks each message's place.
async fn replayed(binary: &Path, bytes: usize, pipes: usize) -> anyhow::Result<OverReplay> {
    let dir = Scratch::new("replay")?;
    let (mut deaf, address) = start_backend_with(1, &["--deaf"])?;
    let (_next, next) = start_backend(1)?;
    let proxy = with_room(binary, dir.path(), address)?;
    let mut clients = open_many(proxy.public, &format!("/sink/{REPLAY_MESSAGE_BYTES}"), pipes).await?;
    let root = [proxy.pid()];
    let each = bytes / REPLAY_MESSAGE_BYTES;
    let (cpu, resident) = (cpu_ns(&root), resident_bytes(&root));
    for client in &mut clients {
        upload(client, each).await?;
    }
    kept(&proxy, bytes * pipes).await?;
    let keep = cpu_ns(&root) - cpu;
    let resident = resident_bytes(&root).saturating_sub(resident);
    let cpu = cpu_ns(&root);
    deaf.kill()?;
    register(proxy.admin, "next", next).await?;
    for client in &mut clients {
        tokio::time::timeout(STEP_MAX, told(client, each)).await.context("the replay does not end")??;
    }
    let replay = cpu_ns(&root) - cpu;
    Ok(OverReplay {
        bytes,
        pipes,
        keep_us: keep as f64 / 1000.0 / (each * pipes) as f64,
        pipe_us: replay as f64 / 1000.0 / pipes as f64,
        resident_per_byte: resident as f64 / (bytes * pipes) as f64,
    })
}

fn with_room(binary: &Path, dir: &Path, worker: std::net::SocketAddr) -> anyhow::Result<Holdline> {
    let room = || REPLAY_ROOM.to_owned();
    let environment = [("HOLDLINE_REPLAY__WINDOW", room()), ("HOLDLINE_REPLAY__PIPE_BYTES_MAX", room())];
    let backends = [("deaf", worker)];
    Start { backends: &backends, environment: &environment, ..Start::new(binary, dir) }.start()
}

/// Says so many messages, and that they are all.
async fn upload(client: &mut Connection, messages: usize) -> anyhow::Result<()> {
    for seq in 0..messages as u64 {
        client.put_data(seq, now_ns(), REPLAY_MESSAGE_BYTES);
        while client.pending() > OUTPUT_BYTES_MAX / 2 {
            client.eager = true;
            client.step(None, |_, _| Ok(())).await?;
        }
    }
    client.put(TEXT, b"end");
    client.flush()?;
    while client.pending() > 0 {
        client.step(None, |_, _| Ok(())).await?;
    }
    Ok(())
}

/// Waits until all of it is in the replay buffers.
async fn kept(proxy: &Holdline, bytes: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let held = admin::metrics(proxy.admin).await?.sum("replay_buffer_bytes", &["lane=\"up\""]);
        if held >= bytes as f64 {
            return Ok(());
        }
        if began.elapsed() > STEP_MAX {
            bail!("{held} of {bytes} bytes are kept");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the count of the worker that had it all.
async fn told(client: &mut Connection, messages: usize) -> anyhow::Result<()> {
    let mut count = None;
    while count.is_none() {
        let hear = |_: &mut Outgoing<'_>, heard: Heard<'_>| {
            if let Heard::Command(said) = heard {
                count = Some(std::str::from_utf8(said)?.parse::<usize>()?);
            }
            Ok(())
        };
        client.step(None, hear).await?;
        ensure!(!client.closed, "closed amid the replay");
    }
    ensure!(count == Some(messages), "{count:?} of {messages} messages came");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run finds where a message costs `over_pipes` and `over_replay` of the size.
    fn figures(over_pipes: fn(f64) -> f64, over_replay: fn(f64) -> f64) -> Figures {
        let pipes = |pipes: usize| {
            let us = over_pipes(pipes as f64);
            OverPipes { pipes, spread_us: us, beside_idle_us: us }
        };
        let replay = |bytes: usize| {
            let messages = (bytes / REPLAY_MESSAGE_BYTES) as f64;
            let us = over_replay(messages);
            OverReplay { bytes, pipes: 1, keep_us: us, pipe_us: 200.0 + us * messages, resident_per_byte: 1.0 }
        };
        Figures { pipes: PIPES.map(pipes).into(), replay: REPLAY_BYTES.map(replay).into() }
    }

    #[test]
    fn a_flat_cost_passes_and_each_cost_that_grows_with_its_size_is_named() {
        assert_eq!(figures(|_| 15.0, |_| 0.4).grown(), Vec::<String>::new());
        let slow_scan = figures(|pipes| 15.0 + pipes / 200.0, |_| 0.4).grown();
        assert_eq!(slow_scan.len(), 2, "{slow_scan:?}");
        let quadratic = figures(|_| 15.0, |messages| 0.4 + messages / 1000.0).grown();
        assert_eq!(quadratic.len(), 2, "{quadratic:?}");
    }
}
