//! The load generator: opens connections, warms up, measures a window, then settles every account.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::connection::{Connection, Heard, OUTPUT_BYTES_MAX, now_ns, numbers};
use crate::http2::Connections;
use crate::link::{Link, Target};
use crate::load::{Load, Way, parse};
use crate::wire::{self, TEXT};
use crate::{http2, idle, measure, secured};

/// How long a connection has for its last messages and the backend's count.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// All that is not the measured window, ten thousand handshakes among it: a peer that hangs must not hang the bench.
const RUN_MAX: Duration = Duration::from_secs(150);
/// Connections that are opened at once.
const OPENING_MAX: usize = 64;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    pub target: SocketAddr,
    /// KIND:SIZE:NUMBERxCONNECTIONS, `idle:CONNECTIONS`, or `cycles:CONCURRENCY`; behind `tls:` the same by TLS, and
    /// `full:CONCURRENCY` or `resumed:CONCURRENCY`; behind `h2:` the same on streams of HTTP/2
    #[arg(long)]
    pub load: String,
    #[arg(long)]
    pub beside: Option<String>,
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    pub warmup: f64,
    /// Roots of the process trees whose CPU and memory count
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// The certificate that is trusted, where TLS is spoken
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// The same of the worker, whose CPU is counted apart
    #[arg(long)]
    pub worker: Option<u32>,
}

/// What one run measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Messages relayed in the window: a round trip is two; cycles, where those were asked for.
    pub messages: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub cpu_ns: u64,
    /// Of the worker.
    pub worker_cpu_ns: u64,
    /// CPU that this generator took, as a share of the window: near 1 it set the rate.
    pub generator_load: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Of an idle pipe.
    pub resident_bytes: f64,
    /// Above the start, ten seconds after the idle pipes have closed.
    pub left_bytes: f64,
}

#[derive(Debug)]
pub struct Tally {
    pub measuring: bool,
    pub messages: u64,
    pub bytes: u64,
    pub latency: Histogram<u32>,
}

pub type Shared = Rc<RefCell<Tally>>;

pub async fn run(options: Options) -> anyhow::Result<()> {
    let most = RUN_MAX + Duration::from_secs_f64(options.warmup + options.seconds);
    let outcome = tokio::time::timeout(most, measure(&options)).await.context("it hangs")??;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn measure(options: &Options) -> anyhow::Result<Outcome> {
    let (_, load) = Way::split(&options.load);
    match load.split_once(':').context("not a load")? {
        ("idle", count) => idle::run(options, count.parse()?).await,
        ("cycles", count) => idle::cycles(options, count.parse()?).await,
        ("full", count) => secured::handshakes(options, false, count.parse()?).await,
        ("resumed", count) => secured::handshakes(options, true, count.parse()?).await,
        (_, _) => run_loads(options, load).await,
    }
}

impl Options {
    /// Where the load goes, and how.
    pub fn way(&self, resumes: bool) -> anyhow::Result<Target> {
        let mut target = Target::from(self.target);
        let (way, _) = Way::split(&self.load);
        if way == Way::Plain {
            return Ok(target);
        }
        let certificate = self.certificate.as_deref().context("TLS needs --certificate")?;
        let mut tls = secured::client(certificate, resumes)?;
        if way == Way::Http2 {
            tls.alpn_protocols = vec![http2::PROTOCOL.to_vec()];
            target.http2 = Some(Rc::new(Connections::new(self.target, Arc::new(tls))));
        } else {
            target.tls = Some(Arc::new(tls));
        }
        Ok(target)
    }
}

pub fn tally() -> anyhow::Result<Shared> {
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    Ok(Rc::new(RefCell::new(Tally { measuring: false, messages: 0, bytes: 0, latency })))
}

async fn run_loads(options: &Options, load: &str) -> anyhow::Result<Outcome> {
    let target = options.way(true)?;
    let measured = tally()?;
    let aside = tally()?;
    let (stop, stopping) = watch::channel(false);
    let mut tasks = Vec::new();
    for (text, tally) in [(Some(load), &measured), (options.beside.as_deref(), &aside)] {
        let Some(text) = text else { continue };
        let (load, connections) = parse(text)?;
        for (index, connection) in open_many(target.clone(), &load.path(), connections).await?.into_iter().enumerate() {
            let offset = index as f64 / connections as f64;
            tasks.push(tokio::task::spawn_local(drive(connection, load, offset, tally.clone(), stopping.clone())));
        }
    }
    let outcome = window(options, &measured).await;
    stop.send(true)?;
    for task in tasks {
        task.await??;
    }
    Ok(outcome)
}

/// Measures one window; the CPU is taken at its very edges.
pub async fn window(options: &Options, tally: &Shared) -> Outcome {
    tokio::time::sleep(Duration::from_secs_f64(options.warmup)).await;
    let worker: Vec<u32> = options.worker.into_iter().collect();
    let (began, own) = (Instant::now(), measure::cpu_ns(&[std::process::id()]));
    let (worker_cpu, cpu) = (measure::cpu_ns(&worker), measure::cpu_ns(&options.pids));
    tally.borrow_mut().measuring = true;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    tally.borrow_mut().measuring = false;
    let cpu_ns = measure::cpu_ns(&options.pids) - cpu;
    let worker_cpu_ns = measure::cpu_ns(&worker) - worker_cpu;
    let own_ns = measure::cpu_ns(&[std::process::id()]) - own;
    let elapsed = began.elapsed();
    let tally = tally.borrow();
    let micros = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Outcome {
        messages: tally.messages,
        bytes: tally.bytes,
        seconds: elapsed.as_secs_f64(),
        cpu_ns,
        worker_cpu_ns,
        generator_load: own_ns as f64 / elapsed.as_nanos() as f64,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        ..Outcome::default()
    }
}

pub async fn open(target: impl Into<Target>, path: &str) -> anyhow::Result<Connection> {
    let target = target.into();
    if let Some(connections) = &target.http2 {
        return Ok(Connection::new(connections.open(path).await?, Vec::new(), true));
    }
    let mut link = Link::connect(&target).await?;
    let rest = wire::ask(&mut link, path).await?;
    Ok(Connection::new(link, rest, true))
}

/// Opens `count` connections, some at a time.
pub async fn open_many(target: impl Into<Target>, path: &str, count: usize) -> anyhow::Result<Vec<Connection>> {
    let (target, path): (Target, Rc<str>) = (target.into(), path.into());
    let one = || {
        let (target, path) = (target.clone(), path.clone());
        async move { open(target, &path).await }
    };
    many(count, one).await
}

/// Does `one` so often, some at a time.
pub async fn many<T, F>(count: usize, one: impl Fn() -> F) -> anyhow::Result<Vec<T>>
where
    T: 'static,
    F: Future<Output = anyhow::Result<T>> + 'static,
{
    let places = Rc::new(Semaphore::new(OPENING_MAX));
    let begin = |_| {
        let (places, one) = (places.clone(), one());
        tokio::task::spawn_local(async move {
            let _place = places.acquire().await?;
            one.await
        })
    };
    let begun: Vec<_> = (0..count).map(begin).collect();
    let mut done = Vec::with_capacity(count);
    for task in begun {
        done.push(task.await??);
    }
    Ok(done)
}

/// One connection's books.
struct Books {
    sent: u64,
    received: u64,
    /// What the backend says went through its hands.
    told: Option<u64>,
}

async fn drive(
    mut connection: Connection,
    load: Load,
    offset: f64,
    tally: Shared,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut books = Books { sent: 0, received: 0, told: None };
    let mut due = Instant::now();
    if let Load::Paced { per_second, .. } = load {
        due += Duration::from_secs_f64(offset / per_second);
    }
    while !*stopping.borrow() {
        let until = make(&mut connection, load, &mut books, &mut due, &tally);
        connection.flush()?;
        tokio::select! {
            biased;
            stopped = stopping.changed() => stopped?,
            stepped = step(&mut connection, until, load, &mut books, &tally) => stepped?,
        }
        ensure!(!connection.closed, "closed amid the load");
    }
    tokio::time::timeout(SETTLE_MAX, settle(&mut connection, load, &mut books, &tally)).await.with_context(|| {
        format!("{load:?}: not settled, {} sent, {} received, {:?} told", books.sent, books.received, books.told)
    })?
}

/// Queues what is due; when the next message is.
fn make(c: &mut Connection, load: Load, books: &mut Books, due: &mut Instant, tally: &Shared) -> Option<Instant> {
    match load {
        Load::Push { .. } | Load::Quiet => None,
        Load::Echo { size, in_flight } => {
            while books.sent - books.received < in_flight {
                c.put_data(books.sent, now_ns(), size);
                books.sent += 1;
            }
            None
        }
        Load::Upload { size } => {
            c.eager = true;
            while c.pending() < OUTPUT_BYTES_MAX {
                c.put_data(books.sent, now_ns(), size);
                books.sent += 1;
                count(tally, 1, size, None);
            }
            None
        }
        Load::Paced { size, per_second } => {
            while *due <= Instant::now() {
                let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(0);
                c.put_data(books.sent, now_ns() - late, size);
                books.sent += 1;
                *due += Duration::from_secs_f64(1.0 / per_second);
            }
            Some(*due)
        }
    }
}

pub fn count(tally: &Shared, messages: u64, bytes: usize, latency_ns: Option<u64>) {
    let mut tally = tally.borrow_mut();
    if tally.measuring {
        tally.messages += messages;
        tally.bytes += bytes as u64;
        if let Some(ns) = latency_ns {
            tally.latency.saturating_record(ns);
        }
    }
}

async fn step(
    connection: &mut Connection,
    until: Option<Instant>,
    load: Load,
    books: &mut Books,
    tally: &Shared,
) -> anyhow::Result<()> {
    let (size, weight) = match load {
        Load::Echo { size, .. } | Load::Paced { size, .. } => (size, 2),
        Load::Push { size, .. } => (size, 1),
        Load::Upload { size } => (size, 0),
        Load::Quiet => (0, 0),
    };
    connection
        .step(until, |_, heard| {
            match heard {
                Heard::Data(payload) => {
                    let (seq, at) = numbers(payload)?;
                    ensure!(seq == books.received, "message {seq} came instead of {}", books.received);
                    ensure!(payload.len() == size, "{} bytes came instead of {size}", payload.len());
                    books.received += 1;
                    count(tally, weight, size * weight as usize, Some(now_ns().saturating_sub(at)));
                }
                Heard::Command(said) => books.told = Some(std::str::from_utf8(said)?.parse()?),
            }
            Ok(())
        })
        .await
}

/// Waits for the backend's count and compares it.
async fn settle(c: &mut Connection, load: Load, books: &mut Books, tally: &Shared) -> anyhow::Result<()> {
    c.put(TEXT, b"end");
    c.flush()?;
    while books.told.is_none() {
        step(c, None, load, books, tally).await?;
        if c.closed {
            bail!("closed before the count");
        }
    }
    let told = books.told.unwrap_or_default();
    match load {
        Load::Echo { .. } | Load::Paced { .. } | Load::Quiet => {
            ensure!(
                told == books.sent && told == books.received,
                "{told} of {} came back as {}",
                books.sent,
                books.received
            );
        }
        Load::Push { .. } => ensure!(told == books.received, "{} of {told} came", books.received),
        Load::Upload { .. } => ensure!(told == books.sent, "{told} of {} came", books.sent),
    }
    Ok(())
}
