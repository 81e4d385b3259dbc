//! The story of a demo: everything comes up, clients send while workers fall, everything comes to rest, and is judged.
//! Where a person looks there is an encore: they go on killing until Ctrl-C, and it is judged again.

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until, timeout};

use super::board::{Board, Subject};
use super::certificate::Certificate;
use super::children::{Proxy, Scratch};
use super::clients::{self, Order};
use super::options::Options;
use super::page::{Phase, State};
use super::table::Table;
use super::tunnel;
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
/// Without a time limit, it ends after this long, and kills come this far apart at most.
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
    let stays = options.stays(io::stdout().is_terminal());
    let board = Arc::new(Board::new(&options, subject(&proxy, stays)));
    let (journals, new_journals) = mpsc::channel(JOURNALS_MAX);
    let mut witness = Witness::new(&board, &admin, new_journals);
    let events = tokio::spawn(follow_events(board.clone(), admin.clone()));
    let (workers, mut tasks) = Workers::start(&board, &admin, &proxy.admin, &scratch, &journals);
    let _tunnels = tunnel::open(&board).await?;
    let viewer = Viewer::start(options.listen, &board, &workers).await?;
    welcome(&mut table, &viewer, &proxy, &options);

    let (orders, heard) = watch::channel(Order::Listen);
    let mut stage =
        Stage { options: &options, board: &board, workers: &workers, witness: &mut witness, table: &mut table };
    let story = async {
        stage.come_up().await?;
        let clients = clients::connect(&board, options.clients, &heard, tls.as_ref()).await?;
        stage.play(&mut told, &orders, stays).await?;
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
    let is_kept = stage.judge(Phase::Finished);
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

fn subject(proxy: &Proxy, waits: bool) -> Subject {
    Subject {
        proxy: proxy.public.clone(),
        dashboard: format!("http://{}/", proxy.admin),
        screens: (1..=SCREENS).map(|screen| format!("screen-{screen}")).collect(),
        waits,
    }
}

/// Says where there is something to see.
fn welcome(table: &mut Table, viewer: &Viewer, proxy: &Proxy, options: &Options) {
    table.say(&format!("watch the screens: {}", viewer.url));
    table.say(&format!("the dashboard: http://{}/", proxy.admin));
    let program = env::current_exe().map_or_else(|_| "holdline".into(), |path| path.display().to_string());
    table.say(&format!("on a terminal: {program} ctl top --admin http://{}", proxy.admin));
    if options.tls {
        let page = proxy.public.replace("wss://", "https://");
        table.say(&format!("its certificate is a throw-away one: have your browser accept it first, at {page}/health"));
    }
}

/// Why the workers no longer fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The seconds are over.
    OfTime,
    /// A signal asked for it.
    Told,
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

    /// Has clients send while workers fall, and lets everything come to rest; twice where the page stays.
    async fn play(&mut self, told: &mut Told, orders: &watch::Sender<Order>, stays: bool) -> anyhow::Result<()> {
        orders.send_replace(Order::Send);
        let ending = self.perform(told).await?;
        orders.send_replace(Order::Listen);
        self.settle().await?;
        if stays && ending == Ending::OfTime {
            self.judge(Phase::Encore);
            orders.send_replace(Order::Send);
            self.encore(told).await?;
            orders.send_replace(Order::Listen);
            self.settle().await?;
        }
        Ok(())
    }

    /// Lets workers fall until the time is over; the clock may wait for the first viewer, and is looked at with the rest.
    async fn perform(&mut self, told: &mut Told) -> anyhow::Result<Ending> {
        self.board.begin();
        let seconds = self.options.seconds();
        let lasts = if seconds == 0 { FOREVER } else { Duration::from_secs(seconds) };
        let kill_every = if self.options.kill_every.is_zero() { FOREVER } else { self.options.kill_every };
        let mut kills = interval_at(Instant::now() + kill_every, kill_every);
        kills.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = ticks(LOOK_EVERY);
        // pipes of a drained worker move to another one; where there is none, they rightly stay
        let possible = if self.options.workers == 1 { &DEEDS[..2] } else { &DEEDS[..] };
        let mut deeds = possible.iter().copied().cycle();
        loop {
            let end =
                self.board.clock().map_or_else(|| Instant::now() + FOREVER, |clock| Instant::from_std(clock) + lasts);
            tokio::select! {
                () = sleep_until(end) => return Ok(Ending::OfTime),
                () = told.next() => return Ok(Ending::Told),
                _ = kills.tick() => if let Some(deed) = deeds.next() {
                    self.workers.order_next(self.board, deed);
                },
                _ = looks.tick() => self.look().await?,
            }
        }
    }

    /// Leaves the killing to the viewer, until a signal.
    async fn encore(&mut self, told: &mut Told) -> anyhow::Result<()> {
        let mut looks = ticks(LOOK_EVERY);
        loop {
            tokio::select! {
                () = told.next() => return Ok(()),
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

    /// Judges, and tells; whether every promise was kept. What is for programs is said at the end alone.
    fn judge(&mut self, phase: Phase) -> bool {
        let (evidence, kills, drains) = {
            let mut books = self.board.books();
            books.phase = phase;
            let evidence = books.evidence();
            books.verdict = Some(verdict(&evidence, books.proxy.interruptions));
            (evidence, books.kills, books.drains)
        };
        let state = self.board.state();
        self.table.show(self.board);
        self.table.verdict(&state);
        if self.options.json && phase == Phase::Finished {
            println!("{}", report(&state, &evidence, self.options, (kills, drains)));
        }
        broken(&evidence).is_empty()
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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
        "workers": options.workers, "clients": options.clients, "seconds": options.seconds(),
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
            seconds: Some(1),
            stay: false,
            json: true,
            listen: ([127, 0, 0, 1], 0).into(),
            break_replay: false,
            tls: false,
        };
        let subject = Subject {
            proxy: "ws://127.0.0.1:1".into(),
            dashboard: "http://127.0.0.1:2/".into(),
            screens: Vec::new(),
            waits: false,
        };
        let board = Board::new(&options, subject);
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
