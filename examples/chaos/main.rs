//! Real disaster on real processes: one `holdline serve`, a few `holdline worker`s, hundreds of clients, and faults drawn
//! from a seed; at the end both ends' books are compared.
//!
//! What the seed decides is which faults come, where and when; what the machine makes of them differs from run to run.
//! Read `clients` (what is said and checked at once), `fleet` (the processes), `faults`, then `judge`.

mod ask;
mod books;
mod clients;
mod dice;
mod faults;
mod fleet;
mod judge;
mod leak;
mod metrics;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::sync::watch;
use tokio::task::JoinSet;

use books::Books;
use clients::Phase;
use dice::Dice;
use faults::Faults;
use fleet::Fleet;
use judge::Judge;
use leak::Leak;
use metrics::Samples;

/// How long everything may stand still, once the faults are over, before what is missing counts as lost.
const STILL_MAX: Duration = Duration::from_secs(20);
/// How long gauges may take to come back to where they were.
const REST_WAIT: Duration = Duration::from_secs(20);

/// Breaks real workers under real clients, and says whether every promise was kept.
#[derive(Parser, Debug, Clone)]
pub struct Options {
    /// How long faults are injected
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Decides the faults; a new one each time if absent
    #[arg(long)]
    seed: Option<u64>,
    /// Client sockets at once
    #[arg(long, default_value_t = 200)]
    pipes: u64,
    /// Worker processes
    #[arg(long, default_value_t = 5)]
    workers: usize,
    /// Rare and gentle faults only, and a judgement of growth
    #[arg(long)]
    soak: bool,
    /// Makes something grow on purpose: the judgement of growth must fail
    #[arg(long, requires = "soak")]
    leak: Option<Leak>,
    /// The program under test
    #[arg(long)]
    holdline: PathBuf,
    /// Where logs and journals go; a new directory below the system's temporary one if absent
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| rand::random::<u64>() % 1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(&options, seed)));
    match outcome {
        Ok(judge) => judge.close(&options, seed),
        Err(error) => {
            eprintln!("chaos could not be run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options, seed: u64) -> anyhow::Result<Judge> {
    let mut dice = Dice::new(seed);
    let directory = match &options.directory {
        Some(directory) => directory.clone(),
        None => std::env::temp_dir().join(format!("holdline-chaos-{}", std::process::id())),
    };
    std::fs::create_dir_all(&directory)?;
    println!("seed {seed}: {} pipes, {} workers, logs in {}", options.pipes, options.workers, directory.display());
    let mut fleet = Fleet::start(&options.holdline, &directory, options.workers).await?;
    let before = metrics::read(&fleet.admin).await?;
    let books = Arc::new(Books::default());
    let (phase, phases) = watch::channel(Phase::Talk);
    let mut clients = JoinSet::new();
    for index in 0..options.pipes {
        let client = clients::Client::new(index, fleet.public.clone(), books.clone(), dice.child());
        clients.spawn(client.live(phases.clone()));
    }
    let samples = disaster(options, &mut fleet, &books, dice).await?;
    let settled = settle(&books, &phase).await;
    let under_load = metrics::read(&fleet.admin).await?;
    phase.send_replace(Phase::Close);
    while clients.join_next().await.is_some() {}
    let after = at_rest(&fleet.admin, &before).await?;
    let mut judge = Judge::new(options.soak);
    judge.books(&books, settled);
    judge.journals(&books, &fleet.journals(), &after);
    judge.metrics(&books, &before, &after);
    judge.samples(&samples, &under_load);
    judge.end_of_proxy(fleet.stop().await, &directory);
    Ok(judge)
}

/// Injects faults for the time that was asked for, then heals everything.
async fn disaster(options: &Options, fleet: &mut Fleet, books: &Arc<Books>, dice: Dice) -> anyhow::Result<Samples> {
    let mut faults = Faults::new(dice, options.soak);
    let mut leaking = JoinSet::new();
    if let Some(leak) = options.leak {
        leaking.spawn(leak.go_on(fleet.public.clone(), fleet.admin.clone()));
    }
    let mut samples = Samples::default();
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(options.minutes * 60.0);
    let mut sampling = tokio::time::interval(Duration::from_secs(1));
    let mut said = began;
    let mut next = began + faults.pause();
    while Instant::now() < end {
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {
                faults.inject(fleet, books).await?;
                next += faults.pause();
            }
            _ = sampling.tick() => samples.take(&fleet.admin, began.elapsed()).await,
        }
        fleet.check_proxy()?;
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!("{:>4} s: {} faults, {}", began.elapsed().as_secs(), faults.count(), books.summary());
        }
    }
    leaking.shutdown().await;
    faults.heal(fleet).await?;
    println!("{:>4} s: healed after {} faults: {}", began.elapsed().as_secs(), faults.count(), faults.kinds());
    Ok(samples)
}

/// Waits until everything that was sent has been answered; false when it stands still before that.
async fn settle(books: &Books, phase: &watch::Sender<Phase>) -> bool {
    phase.send_replace(Phase::Listen);
    let (mut progress, mut since) = (books.progress(), Instant::now());
    while books.unanswered() > 0 {
        if since.elapsed() > STILL_MAX {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = books.progress();
        if now != progress {
            (progress, since) = (now, Instant::now());
        }
    }
    true
}

/// The metrics once they are back to where they were, or after a while as they are then.
async fn at_rest(admin: &str, before: &metrics::Metrics) -> anyhow::Result<metrics::Metrics> {
    let deadline = Instant::now() + REST_WAIT;
    loop {
        let now = metrics::read(admin).await?;
        if Instant::now() > deadline || judge::not_at_rest(before, &now).is_empty() {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
