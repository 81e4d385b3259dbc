//! The story of a demo: everything comes up, clients send while workers fall, everything comes to rest, and is judged.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until, timeout};

use super::board::Board;
use super::certificate::Certificate;
use super::children::{Proxy, Scratch};
use super::clients::{self, Order};
use super::options::Options;
use super::page::{Phase, State};
use super::table::Table;
use super::verdict::{Evidence, broken, verdict};
use super::viewer::Viewer;
use super::witness::{Witness, follow_events};
use super::workers::{Deed, Workers};
use crate::ctl::{Client, Target, in_words};

/// Screens on the page.
const SCREENS: usize = 6;
/// Journal paths on their way to their reader.
const JOURNALS_MAX: usize = 256;
/// From one look at the proxy and the journals to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it may take until everything has arrived.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// When nothing arrived for this long, nothing will.
const SETTLE_QUIET: Duration = Duration::from_secs(10);
/// How long clients have to say goodbye.
const GOODBYE_WAIT: Duration = Duration::from_secs(5);
/// Without a time limit, kills come this far apart at most.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// In which order workers fall.
const DEEDS: [Deed; 4] = [Deed::Kill, Deed::Terminate, Deed::Kill, Deed::Drain];

/// Runs a demo; exit 0 when every promise was kept, 1 when one was broken or nothing could be shown.
pub fn run(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdline: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holdline: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

async fn demo(options: Options) -> anyhow::Result<bool> {
    let mut told = Told::new()?;
    let mut table = Table::new(options.json);
    let scratch = Arc::new(Scratch::new().context("no temporary directory")?);
    let policy = if options.break_replay { "none" } else { "unconfirmed" };
    let certificate = if options.tls { Some(Certificate::make(&scratch)?) } else { None };
    let tls = certificate.as_ref().map(Certificate::client).transpose()?;
    let mut proxy = Proxy::start(&scratch, policy, certificate.as_ref()).await?;
    let target: Target = proxy.admin.parse().map_err(anyhow::Error::msg)?;
    let admin = Arc::new(Client::new(target));
    let screens = (1..=SCREENS).map(|screen| format!("screen-{screen}")).collect();
    let board = Arc::new(Board::new(&options, proxy.public.clone(), screens));
    let (journals, new_journals) = mpsc::channel(JOURNALS_MAX);
    let mut witness = Witness::new(&board, &admin, new_journals);
    let events = tokio::spawn(follow_events(board.clone(), admin.clone()));
    let (workers, mut tasks) = Workers::start(&board, &admin, &proxy.admin, &scratch, &journals);
    let viewer = Viewer::start(options.listen, &board, &workers).await?;
    table.say(&format!("watch the screens: {}", viewer.url));
    if options.tls {
        let page = proxy.public.replace("wss://", "https://");
        table.say(&format!("its certificate is a throw-away one: have your browser accept it first, at {page}/health"));
    }

    let (orders, heard) = watch::channel(Order::Listen);
    let mut stage =
        Stage { options: &options, board: &board, workers: &workers, witness: &mut witness, table: &mut table };
    let story = async {
        stage.come_up().await?;
        let clients = clients::connect(&board, options.clients, &heard, tls.as_ref()).await?;
        orders.send_replace(Order::Send);
        stage.perform(&mut told).await?;
        orders.send_replace(Order::Listen);
        stage.settle().await?;
        anyhow::Ok(clients)
    };
    let clients = tokio::select! {
        done = story => done?,
        () = proxy.watch(&board) => {
            board.books().proxy.died = true;
            JoinSet::new()
        }
        Some(ended) = tasks.join_next() => {
            ended.context("a worker's task")??;
            bail!("a worker's task ended")
        }
    };
    let is_kept = judge(&board, &options, &mut table);
    viewer.finish().await;
    orders.send_replace(Order::Close);
    // who does not say goodbye in time is cut off with the set
    let _ = timeout(GOODBYE_WAIT, clients.join_all()).await;
    events.abort();
    drop(workers);
    tasks.shutdown().await;
    proxy.stop(&board).await;
    Ok(is_kept)
}

/// Signals that end the show early.
struct Told {
    interrupt: Signal,
    terminate: Signal,
}

impl Told {
    fn new() -> anyhow::Result<Self> {
        let hear = |kind| signal(kind).context("cannot hear signals");
        Ok(Self { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What the acts of the story have in common.
struct Stage<'a> {
    options: &'a Options,
    board: &'a Arc<Board>,
    workers: &'a Workers,
    witness: &'a mut Witness,
    table: &'a mut Table,
}

impl Stage<'_> {
    /// Waits for the workers, each of which gives up by itself.
    async fn come_up(&mut self) -> anyhow::Result<()> {
        let mut looks = ticks(LOOK_EVERY);
        while !Workers::all_up(self.board) {
            looks.tick().await;
            self.look().await?;
        }
        Ok(())
    }

    /// Lets workers fall until the time is over.
    async fn perform(&mut self, told: &mut Told) -> anyhow::Result<()> {
        self.board.begin();
        let lasts = if self.options.seconds == 0 { FOREVER } else { Duration::from_secs(self.options.seconds) };
        let end = Instant::now() + lasts;
        let kill_every = if self.options.kill_every.is_zero() { FOREVER } else { self.options.kill_every };
        let mut kills = interval_at(Instant::now() + kill_every, kill_every);
        kills.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = ticks(LOOK_EVERY);
        // pipes of a drained worker move to another one; where there is none, they rightly stay
        let possible = if self.options.workers == 1 { &DEEDS[..2] } else { &DEEDS[..] };
        let mut deeds = possible.iter().copied().cycle();
        loop {
            tokio::select! {
                () = sleep_until(end) => return Ok(()),
                () = told.next() => return Ok(()),
                _ = kills.tick() => if let Some(deed) = deeds.next() {
                    self.workers.order_next(self.board, deed);
                },
                _ = looks.tick() => self.look().await?,
            }
        }
    }

    /// Waits until everything has arrived, or nothing does any more.
    async fn settle(&mut self) -> anyhow::Result<()> {
        {
            let mut books = self.board.books();
            books.phase = Phase::Settling;
            books.screens.iter_mut().for_each(|screen| screen.fresh = false);
        }
        let began = Instant::now();
        let (mut progress, mut moved_at) = (0, began);
        let mut looks = ticks(LOOK_EVERY);
        loop {
            looks.tick().await;
            self.look().await?;
            let now = self.board.books().progress();
            let all_up = Workers::all_up(self.board);
            if now != progress || !all_up {
                (progress, moved_at) = (now, Instant::now());
            }
            let all_there = self.board.books().is_settled() && all_up;
            if all_there || moved_at.elapsed() > SETTLE_QUIET || began.elapsed() > SETTLE_MAX {
                return Ok(());
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        self.witness.look().await?;
        self.table.show(self.board);
        Ok(())
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Judges, and tells everybody; whether every promise was kept.
fn judge(board: &Board, options: &Options, table: &mut Table) -> bool {
    let (evidence, kills, drains) = {
        let mut books = board.books();
        books.phase = Phase::Finished;
        let evidence = books.evidence();
        books.verdict = Some(verdict(&evidence, books.proxy.interruptions));
        (evidence, books.kills, books.drains)
    };
    let state = board.state();
    table.show(board);
    table.verdict(&state);
    if options.json {
        println!("{}", report(&state, &evidence, options, (kills, drains)));
    }
    broken(&evidence).is_empty()
}

fn report(state: &State, evidence: &Evidence, options: &Options, (kills, drains): (u64, u64)) -> Value {
    let broken = broken(evidence);
    let totals = &state.totals;
    json!({
        "verdict": if broken.is_empty() { "kept" } else { "broken" },
        "broken": broken,
        "sent": totals.sent, "received": totals.received,
        "lost": { "up": evidence.lost_up, "down": evidence.lost_down },
        "duplicated": totals.duplicated, "in_doubt": totals.in_doubt, "out_of_order": evidence.out_of_order,
        "frames": totals.frames,
        "interruptions": totals.interruptions, "kills": kills, "drains": drains,
        "reattach_ms": state.reattach_ms,
        "client_closes": totals.client_closes,
        "workers": options.workers, "clients": options.clients, "seconds": options.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_field_of_the_contract() {
        let options = Options {
            workers: 1,
            clients: 1,
            kill_every: Duration::ZERO,
            seconds: 1,
            json: true,
            listen: ([127, 0, 0, 1], 0).into(),
            break_replay: false,
            tls: false,
        };
        let board = Board::new(&options, "ws://127.0.0.1:1".into(), Vec::new());
        let evidence = Evidence { lost_up: 3, ..board.books().evidence() };
        let report = report(&board.state(), &evidence, &options, (2, 1));
        assert_eq!(report["verdict"], "broken");
        assert_eq!((&report["lost"]["up"], &report["kills"], &report["drains"]), (&json!(3), &json!(2), &json!(1)));
        for field in ["sent", "received", "duplicated", "in_doubt", "interruptions", "client_closes", "frames"] {
            assert!(report[field].is_u64(), "{field}");
        }
        assert!(report["reattach_ms"].get("p99").is_some());
    }
}
