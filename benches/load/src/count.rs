//! Instructions of the hot paths in user space, counted by callgrind in Holdline's own process: a busy machine does not
//! disturb them.
//!
//! What counts is the data thread, the kernel's part left out. Each path is run twice, with and without its work, so that
//! start and end cancel out. Messages go in batches, and single ones without a replay: where pings are asked for by the
//! clock, their number would depend on the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::admin;
use crate::aware::{Speaker, open_aware};
use crate::backend::report;
use crate::generator::{open, open_many, tally};
use crate::holdline::{Holdline, Start};
use crate::idle::close;
use crate::peers::{Process, Scratch, start_backend};

/// From the order to end until callgrind has written what it counted.
const END_MAX: Duration = Duration::from_secs(120);

/// How often the spare worker is asked who came.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

const MESSAGE_BYTES: usize = 64;

/// Messages of a batch: a barrier ping goes along with each.
const BATCH: usize = 32;

/// What is in a data thread's counts, and in no other's.
const DATA_THREAD: &str = "pipe::driver::Driver";

#[derive(clap::Args)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Prints the paths there are, and counts nothing
    #[arg(long)]
    pub list: bool,
    /// The path to count
    #[arg(long)]
    pub path: Option<String>,
    /// Where callgrind's files stay, for callgrind_annotate
    #[arg(long)]
    pub keep: Option<PathBuf>,
}

/// A hot path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hot {
    /// One message at a time, each way.
    Echo,
    /// Many at a time, with a replay.
    Batch,
    /// The same with numbers.
    Aware,
    /// Connect, upgrade, close.
    Cycle,
    /// A worker dies, and a pipe is attached to the next.
    Reattach,
}

impl Hot {
    const ALL: [Self; 5] = [Self::Echo, Self::Batch, Self::Aware, Self::Cycle, Self::Reattach];

    const fn name(self) -> &'static str {
        match self {
            Self::Echo => "process_relay_64B",
            Self::Batch => "process_relay_64B_in_batches",
            Self::Aware => "process_relay_64B_numbered_in_batches",
            Self::Cycle => "process_connect_upgrade_close",
            Self::Reattach => "process_reattach",
        }
    }

    /// How often it is done: enough for the first one's allocations to be lost in the rest.
    const fn rounds(self) -> usize {
        match self {
            Self::Echo => 1000,
            Self::Batch | Self::Aware => 100,
            Self::Cycle => 200,
            Self::Reattach => 100,
        }
    }

    /// What one round is divided by.
    const fn messages_of_a_round(self) -> usize {
        match self {
            Self::Echo => 2,
            Self::Batch | Self::Aware => 2 * BATCH,
            Self::Cycle | Self::Reattach => 1,
        }
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    if options.list {
        Hot::ALL.iter().for_each(|hot| println!("{}", hot.name()));
        return Ok(());
    }
    for hot in Hot::ALL.into_iter().filter(|hot| options.path.as_deref().is_none_or(|path| path == hot.name())) {
        let with = count(&options, hot, true).await.with_context(|| hot.name())?;
        let without = count(&options, hot, false).await.with_context(|| hot.name())?;
        let times = (hot.rounds() * hot.messages_of_a_round()) as f64;
        println!("{} {:.1}", hot.name(), with.saturating_sub(without) as f64 / times);
    }
    Ok(())
}

/// Instructions of the data thread, from its start to its end.
async fn count(options: &Options, hot: Hot, works: bool) -> anyhow::Result<u64> {
    let scratch = Scratch::new(if works { "count-with" } else { "count-without" })?;
    let counts = match (&options.keep, works) {
        (Some(keep), true) => keep.join(hot.name()),
        _ => scratch.path().join("counts"),
    };
    std::fs::create_dir_all(&counts)?;
    let (mut worker, first) = start_backend(1)?;
    let under = callgrind(&counts.join("thread"));
    let policy = if hot == Hot::Echo { "none" } else { "unconfirmed" };
    let start = Start::new(&options.holdline, scratch.path());
    let proxy = Start {
        backends: &[("first", first)],
        core: None,
        under: &under,
        environment: &[("HOLDLINE_REPLAY__POLICY", policy.to_owned())],
        ..start
    }
    .start()?;
    work(hot, works, &proxy, &mut worker).await?;
    proxy.into_process().0.end(END_MAX)?;
    of_data_thread(&counts)
}

fn callgrind(out: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}", out.display());
    ["valgrind", "--quiet", "--tool=callgrind", "--separate-threads=yes", &out].map(str::to_owned).to_vec()
}

async fn work(hot: Hot, works: bool, proxy: &Holdline, worker: &mut Process) -> anyhow::Result<()> {
    let rounds = if works { 1 + hot.rounds() } else { 1 };
    let target = proxy.public;
    match hot {
        Hot::Echo => {
            let mut speaker = Speaker::new(open(target, "/echo").await?, false);
            speaker.echo(rounds, 1, MESSAGE_BYTES, &tally()?).await
        }
        Hot::Batch => {
            let mut speaker = Speaker::new(open(target, "/echo").await?, false);
            speaker.echo(rounds, BATCH, MESSAGE_BYTES, &tally()?).await
        }
        Hot::Aware => {
            let mut speaker = Speaker::new(open_aware(target, "/echo").await?, true);
            speaker.echo(rounds, BATCH, MESSAGE_BYTES, &tally()?).await
        }
        Hot::Cycle => {
            for _ in 0..rounds {
                close(&mut open(target, "/echo").await?).await?;
            }
            Ok(())
        }
        Hot::Reattach => reattach(works, proxy, worker).await,
    }
}

/// Opens the pipes in either case; only with work is their worker lost.
async fn reattach(works: bool, proxy: &Holdline, worker: &mut Process) -> anyhow::Result<()> {
    let pipes = Hot::Reattach.rounds();
    let mut opened = open_many(proxy.public, "/echo", pipes).await?;
    let (_spare, address) = start_backend(1)?;
    admin::register(proxy.admin, "spare", address).await?;
    if works {
        worker.kill()?;
        while report(address).await?.answered_at_ns.len() < pipes {
            ensure!(opened.iter().all(|connection| !connection.closed), "a client was closed");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    for connection in &mut opened {
        close(connection).await?;
    }
    Ok(())
}

/// What callgrind counted of the thread that runs pipes.
fn of_data_thread(counts: &Path) -> anyhow::Result<u64> {
    for file in std::fs::read_dir(counts)? {
        let text = std::fs::read_to_string(file?.path())?;
        if text.contains(DATA_THREAD) {
            let totals = text.lines().find_map(|line| line.strip_prefix("totals: ")).context("no totals")?;
            return Ok(totals.trim().parse()?);
        }
    }
    bail!("no thread ran a pipe: is the binary built with symbols?")
}
