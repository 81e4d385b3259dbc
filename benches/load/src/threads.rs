//! One data thread and two on the cores of one machine, which the generator and the worker share with them: messages, CPU,
//! and how evenly pipes are spread once very many have come.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::admin;
use crate::generator::{Outcome, open_many};
use crate::holdline::Start;
use crate::measure::pipes_max;
use crate::peers::{Scratch, own, start_backend};
use crate::stats::median;

/// What the comparison calls it.
pub const NAME: &str = "data threads";

const THREADS: [usize; 2] = [1, 2];
const LOAD: &str = "echo:64:1x50";

/// From the last connect to the look at the threads.
const REST: Duration = Duration::from_millis(500);

#[derive(clap::Args, Clone)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Pipes that come before the threads are looked at
    #[arg(long, default_value_t = 10_000)]
    pub pipes: usize,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of one measured window
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// What so many threads did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub threads: usize,
    /// CPU µs for each of the round trip's two messages.
    pub echo_us: f64,
    pub messages_per_second: f64,
    pub pipes: usize,
    /// Pipes of the thread that has most, as a multiple of an even share.
    pub imbalance: f64,
}

impl Figures {
    /// What is measured, the figure and the target.
    pub fn line(&self) -> [String; 3] {
        let Self { threads, echo_us, messages_per_second, pipes, imbalance } = self;
        let name = format!(
            "{threads} data threads, cores shared with the generator: 64 B echo CPU µs/message, messages/s; most of {pipes} pipes on one thread, as a multiple of an even share"
        );
        [name, format!("{echo_us:.2}, {messages_per_second:.0}, {imbalance:.2}"), String::new()]
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for threads in THREADS {
        all.push(measure(&options, threads).await?);
    }
    if options.json {
        println!("{}", serde_json::to_string(&all)?);
    } else {
        for [name, figures, _] in all.iter().map(Figures::line) {
            println!("{name}: {figures}");
        }
    }
    Ok(())
}

async fn measure(options: &Options, threads: usize) -> anyhow::Result<Figures> {
    let (mut costs, mut rates, mut imbalances) = (Vec::new(), Vec::new(), Vec::new());
    let pipes = pipes_max(options.pipes, 2);
    for _ in 0..options.rounds {
        let dir = Scratch::new("threads")?;
        let (_worker, address) = start_backend(1)?;
        let (backends, environment) = ([("w", address)], [("HOLDLINE_SERVER__THREADS", threads.to_string())]);
        let start = Start::new(&options.holdline, dir.path());
        let proxy = Start { backends: &backends, core: None, environment: &environment, ..start }.start()?;
        let (target, pid) = (proxy.public.to_string(), proxy.pid().to_string());
        let mut load = own(1, "run")?;
        load.args(["--target", &target, "--pids", &pid, "--load", LOAD, "--seconds", &options.seconds.to_string()]);
        let output = load.output()?;
        ensure!(output.status.success(), "the run failed");
        let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
        costs.push(outcome.cpu_ns as f64 / 1e3 / outcome.messages.max(1) as f64);
        rates.push(outcome.messages as f64 / outcome.seconds);
        let _opened = open_many(proxy.public, "/echo", pipes).await?;
        tokio::time::sleep(REST).await;
        let metrics = admin::metrics(proxy.admin).await?;
        let tasks = |thread| metrics.sum("runtime_tasks", &[&format!("runtime=\"data-{thread}\"")]);
        let tasks: Vec<f64> = (0..threads).map(tasks).collect();
        let even = tasks.iter().sum::<f64>() / threads as f64;
        ensure!(even * threads as f64 >= pipes as f64, "{tasks:?} tasks for {pipes} pipes");
        imbalances.push(tasks.iter().copied().fold(0.0, f64::max) / even);
    }
    Ok(Figures {
        threads,
        echo_us: median(costs),
        messages_per_second: median(rates),
        pipes,
        imbalance: median(imbalances),
    })
}
