//! All pipes are on one of two workers, which dies or is drained: how long until the last is attached to the other, at
//! what price, and in how large a herd.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::admin::{self, ask};
use crate::backend::{Dials, report};
use crate::connection::now_ns;
use crate::holdline::{Holdline, Start};
use crate::measure::{cpu_ns, forget_peak, peak_bytes, pipes_max, resident_bytes};
use crate::peers::{Process, Scratch, start_backend};
use crate::pipes::{Crowd, Orders, Seen};
use crate::stats::percentile;

/// From the last answer to the outage: time for all pongs, so that nothing is unconfirmed.
const REST: Duration = Duration::from_millis(500);
/// How often a client says something while pipes move.
const EVERY: Duration = Duration::from_secs(5);
/// How often the progress is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Descriptors of a pipe: two sockets; a drained one has both workers for a moment.
const DESCRIPTORS: usize = 2;
const DESCRIPTORS_ALL_AT_ONCE: usize = 3;
const MESSAGE_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// SIGKILL of the worker's process
    Kill,
    /// An operator's drain over the admin API
    Drain,
}

#[derive(clap::Args, Clone)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Pipes, all on the worker that goes; fewer where `ulimit -n` does not allow so many
    #[arg(long, default_value_t = 10_000)]
    pub pipes: usize,
    #[arg(long, value_enum, default_value_t = By::Kill)]
    pub by: By,
    /// Data threads; 0 is the default, one for each core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Instead of the default
    #[arg(long)]
    pub dials_at_once: Option<u32>,
    /// Instead of the default; 0 is no limit
    #[arg(long)]
    pub moves_per_second: Option<u32>,
    /// The longest that all of them may take, in seconds
    #[arg(long, default_value_t = 240)]
    pub seconds_max: u64,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// What one run showed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub by: By,
    pub pipes: usize,
    #[serde(flatten)]
    pub spent: Spent,
    pub threads: usize,
    pub dials_at_once: u32,
    pub moves_per_second: u32,
    /// From the outage to a pipe's new attach, as the new worker saw it.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub last_ms: f64,
    /// From a message to its answer, for the clients' messages meanwhile.
    pub wait_p50_ms: f64,
    pub wait_p99_ms: f64,
    pub wait_last_ms: f64,
    pub dials_at_once_seen: u64,
    /// Dials of the spare worker that did not succeed.
    pub dials_failed: u64,
    pub messages: u64,
    pub doubled: u64,
}

/// What the outage cost, from its beginning to the last attach.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spent {
    pub cpu_seconds: f64,
    /// Of the worker that all went to.
    pub worker_cpu_seconds: f64,
    pub resident_before: u64,
    pub resident_peak: u64,
}

impl Figures {
    pub fn cpu_us_per_pipe(&self) -> f64 {
        self.spent.cpu_seconds * 1e6 / self.pipes as f64
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let figures = measure(&options).await?;
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print(&figures);
    }
    Ok(())
}

fn print(f: &Figures) {
    let how = match f.by {
        By::Kill => "died by SIGKILL",
        By::Drain => "was drained",
    };
    println!("{} pipes on a worker that {how}; {} data threads (0: one a core)", f.pipes, f.threads);
    println!("  attached elsewhere after  p50 {:.0} ms, p99 {:.0} ms, last {:.0} ms", f.p50_ms, f.p99_ms, f.last_ms);
    println!(
        "  answers meanwhile after   p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms",
        f.wait_p50_ms, f.wait_p99_ms, f.wait_last_ms
    );
    println!(
        "  CPU                       {:.2} s, {:.0} µs a pipe; the new worker {:.2} s",
        f.spent.cpu_seconds,
        f.cpu_us_per_pipe(),
        f.spent.worker_cpu_seconds
    );
    let (before, peak) = (f.spent.resident_before as f64 / 1e6, f.spent.resident_peak as f64 / 1e6);
    println!("  resident memory           {before:.1} MB before, {peak:.1} MB at most");
    println!(
        "  dials in flight           {} at most (reattach.dials_at_once is {}), {} failed",
        f.dials_at_once_seen, f.dials_at_once, f.dials_failed
    );
    println!("  messages                  {}: 0 lost, {} doubled", f.messages, f.doubled);
    if f.by == By::Drain && f.moves_per_second > 0 {
        let least = f.pipes as f64 / f64::from(f.moves_per_second);
        println!("  reattach.moves_per_second is {}: so many pipes take {least:.0} s", f.moves_per_second);
    }
}

/// The workers and the proxy of one run, and what the proxy's defaults are.
struct Scene {
    going: Process,
    spare: Process,
    spare_address: SocketAddr,
    proxy: Holdline,
    dials_at_once: u32,
    moves_per_second: u32,
}

impl Scene {
    async fn set(options: &Options, dir: &Path) -> anyhow::Result<Self> {
        let (going, first) = start_backend(1)?;
        let (spare, spare_address) = start_backend(1)?;
        let mut environment = vec![("HOLDLINE_SERVER__THREADS", options.threads.to_string())];
        environment.extend(options.dials_at_once.map(|dials| ("HOLDLINE_REATTACH__DIALS_AT_ONCE", dials.to_string())));
        environment
            .extend(options.moves_per_second.map(|moves| ("HOLDLINE_REATTACH__MOVES_PER_SECOND", moves.to_string())));
        // One thread has a core for itself, as in the comparison; more have what there is.
        let core = (options.threads == 1).then_some(0);
        let start = Start::new(&options.holdline, dir);
        let backends = [("going", first)];
        let proxy = Start { backends: &backends, core, environment: &environment, ..start }.start()?;
        let config: serde_json::Value = serde_json::from_str(&ask(proxy.admin, "GET", "/v1/config", "").await?)?;
        let key = |name: &str| config.pointer(name).and_then(serde_json::Value::as_u64).context("no such key");
        Ok(Self {
            going,
            spare,
            spare_address,
            dials_at_once: u32::try_from(key("/reattach/dials_at_once")?)?,
            moves_per_second: u32::try_from(key("/reattach/moves_per_second")?)?,
            proxy,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "each is a result of one step of the run")]
    fn figures(
        &self,
        options: &Options,
        pipes: usize,
        began_ns: u64,
        spent: Spent,
        dials: &Dials,
        dials_failed: u64,
        seen: &mut Seen,
    ) -> Figures {
        let mut attached: Vec<f64> =
            dials.answered_at_ns.iter().map(|at| at.saturating_sub(began_ns) as f64 / 1e6).collect();
        attached.sort_by(f64::total_cmp);
        seen.waits_ms.sort_by(f64::total_cmp);
        Figures {
            by: options.by,
            pipes,
            spent,
            threads: options.threads,
            dials_at_once: self.dials_at_once,
            moves_per_second: self.moves_per_second,
            p50_ms: percentile(&attached, 0.5),
            p99_ms: percentile(&attached, 0.99),
            last_ms: percentile(&attached, 1.0),
            wait_p50_ms: percentile(&seen.waits_ms, 0.5),
            wait_p99_ms: percentile(&seen.waits_ms, 0.99),
            wait_last_ms: percentile(&seen.waits_ms, 1.0),
            dials_at_once_seen: dials.at_once_max,
            dials_failed,
            messages: seen.messages,
            doubled: seen.doubled,
        }
    }

    async fn lose_the_worker(&mut self, by: By) -> anyhow::Result<()> {
        match by {
            By::Kill => self.going.kill(),
            By::Drain => {
                ask(self.proxy.admin, "PUT", "/v1/backends/going/state", r#"{"state": "drain"}"#).await.map(drop)
            }
        }
    }

    async fn all_moved(&self, by: By, pipes: usize, crowd: &Crowd, most: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let moved = match by {
                // Looked at from the clients' side, because asking the proxy would cost it CPU.
                By::Kill => crowd.seen.borrow().first_ms.len(),
                By::Drain => {
                    let metrics = admin::metrics(self.proxy.admin).await?;
                    let left = metrics.sum("backend_pipes", &["backend=\"going\""]);
                    if left > 0.0 { 0 } else { pipes }
                }
            };
            if moved >= pipes || crowd.has_failed() {
                return Ok(());
            }
            if began.elapsed() > most {
                bail!("{moved} of {pipes} pipes have moved");
            }
            tokio::time::sleep(if by == By::Kill { LOOK_AGAIN } else { 10 * LOOK_AGAIN }).await;
        }
    }
}

pub async fn measure(options: &Options) -> anyhow::Result<Figures> {
    let dir = Scratch::new("reattach")?;
    let mut scene = Scene::set(options, dir.path()).await?;
    let all_at_once = options.by == By::Drain && scene.moves_per_second == 0;
    let pipes = pipes_max(options.pipes, if all_at_once { DESCRIPTORS_ALL_AT_ONCE } else { DESCRIPTORS });
    let crowd = Crowd::open(scene.proxy.public, pipes, MESSAGE_BYTES).await?;
    admin::register(scene.proxy.admin, "spare", scene.spare_address).await?;
    tokio::time::sleep(REST).await;
    let (proxy, worker) = ([scene.proxy.pid()], [scene.spare.pid()]);
    forget_peak(&proxy)?;
    let (cpu, worker_cpu, resident_before) = (cpu_ns(&proxy), cpu_ns(&worker), resident_bytes(&proxy));
    let began_ns = now_ns();
    scene.lose_the_worker(options.by).await?;
    crowd.tell(Orders::Speak { every: EVERY });
    scene.all_moved(options.by, pipes, &crowd, Duration::from_secs(options.seconds_max)).await?;
    let spent = Spent {
        cpu_seconds: (cpu_ns(&proxy) - cpu) as f64 / 1e9,
        worker_cpu_seconds: (cpu_ns(&worker) - worker_cpu) as f64 / 1e9,
        resident_before,
        resident_peak: peak_bytes(&proxy),
    };
    let seen = crowd.end().await?;
    let dials = report(scene.spare_address).await?;
    let dials_failed = failed_dials(&admin::metrics(scene.proxy.admin).await?);
    let figures = scene.figures(options, pipes, began_ns, spent, &dials, dials_failed, &mut seen.borrow_mut());
    judge(&figures, dials.answered_at_ns.len())?;
    Ok(figures)
}

fn failed_dials(metrics: &admin::Metrics) -> u64 {
    let of = |labels: &[&str]| metrics.sum("backend_connects_total", labels);
    (of(&["backend=\"spare\""]) - of(&["backend=\"spare\"", "result=\"attached\""])) as u64
}

/// What is not a matter of speed. The clients have judged already what was lost.
fn judge(figures: &Figures, attached: usize) -> anyhow::Result<()> {
    ensure!(attached >= figures.pipes, "{attached} attaches of {} pipes", figures.pipes);
    let most = u64::from(figures.dials_at_once);
    // A health probe may have knocked at the same moment.
    let herd = most > 0 && figures.dials_at_once_seen > most + 1;
    ensure!(!herd, "a herd: {} dials at once, {most} are allowed", figures.dials_at_once_seen);
    ensure!(figures.by == By::Kill || figures.doubled == 0, "a planned move doubled {} messages", figures.doubled);
    Ok(())
}
