//! The memory of the process, watched: who is told that it is short, and who has to go when it is out.
//!
//! [`holdline_core::memory`] decides; here are the measuring and the consequences. At 80 % of `memory.process_max` no
//! new pipes and no plain requests are taken, shared streams without viewers go, and data threads give back
//! what they keep for convenience; at 100 % pipes stop reading and are evicted, those that hold nothing never. Between two looks, what pipes
//! may take in is bounded by what was left at the last one, so that a flood does not run ahead of the watch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;
use holdline_core::memory::{Candidate, Pressure, Sample, Verdict, Watch, victims};
use holdline_core::pipe::PipeState;
use holdline_core::time::Time;
use tokio::sync::watch;

use crate::config::Config;
use crate::http::Exchanges;
use crate::metrics::process::{self, SocketFiles};
use crate::pipes::{Command, PipeEntry, Pipes};
use crate::share::Streams;
use crate::workers::Workers;

/// From one look to the next, while there is room.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The same near the limit: what a flood takes in between two looks is not seen before it is there.
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// Percent of the limit from which on it is near.
const NEAR_PERCENT: u64 = 90;

/// How long the system's limit, and where sockets are counted, are taken for unchanged: an operator may give a container
/// more, or move the process.
const LIMIT_VALID_FOR: Duration = Duration::from_secs(5);

/// How long the memory of sockets is taken for unchanged.
const SOCKETS_VALID_FOR: Duration = Duration::from_secs(1);

/// The watch over the process's memory; share it by `Arc`.
#[derive(Debug)]
pub struct Memory {
    config: Arc<ArcSwap<Config>>,
    pipes: Arc<Pipes>,
    streams: Arc<Streams>,
    exchanges: Exchanges,
    workers: Arc<Workers>,
    /// What pipes and plain requests may take together until the next look.
    charged_max: AtomicU64,
    state: Mutex<State>,
    pressure: watch::Sender<Pressure>,
}

#[derive(Debug, Default)]
struct State {
    watch: Watch,
    /// The limit of the cgroup or the machine, and when it was read.
    system: Option<(u64, Instant)>,
    /// What the cgroup's sockets take, and when that was read.
    sockets: Option<(u64, Instant)>,
    /// Where that is read.
    socket_files: SocketFiles,
}

/// What a look has found, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Resident memory.
    pub resident: u64,
    /// What the process may use.
    pub limit: u64,
    /// What follows from that.
    pub verdict: Verdict,
}

impl Memory {
    /// A watch under the limits in `config`, as they are at each look.
    #[must_use]
    pub fn new(
        config: Arc<ArcSwap<Config>>,
        pipes: Arc<Pipes>,
        streams: Arc<Streams>,
        exchanges: Exchanges,
        workers: Arc<Workers>,
    ) -> Self {
        let (state, pressure) = (Mutex::default(), watch::Sender::new(Pressure::Low));
        Self { config, pipes, streams, exchanges, workers, charged_max: AtomicU64::new(u64::MAX), state, pressure }
    }

    /// Measures, and lets everybody know what follows.
    pub fn look(&self) -> Reading {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (limit, others) = match self.config.load().memory.process_max {
            // What its sockets and its workers take of the cgroup's limit is not there for the process.
            0 => (state.system_limit(), state.socket_bytes() + self.workers.rss_bytes()),
            limit => (limit as u64, 0),
        };
        let resident = process::resident_bytes();
        let there = limit.saturating_sub(others);
        let verdict = state.watch.look(Sample { resident, charged: self.charged(), limit: there });
        self.charged_max.store(verdict.charged_max, Relaxed);
        self.pipes.set_memory_bytes_max(verdict.charged_max.saturating_sub(self.requests_bytes()));
        let reading = Reading { resident, limit, verdict };
        // Those that listen are woken at each look near the limit, to give back what they can, and by changes otherwise.
        self.pressure.send_if_modified(|pressure| {
            let before = std::mem::replace(pressure, verdict.pressure);
            if before != verdict.pressure {
                reading.say(before);
            }
            before != verdict.pressure || reading.is_near()
        });
        reading
    }

    /// Bytes that plain requests take.
    #[must_use]
    pub fn requests_bytes(&self) -> u64 {
        self.exchanges.memory_bytes()
    }

    /// Whether there is memory for another plain request.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pressure() == Pressure::Low && self.charged() < self.charged_max.load(Relaxed)
    }

    /// Bytes that pipes and plain requests take.
    fn charged(&self) -> u64 {
        self.pipes.memory_bytes() + self.requests_bytes()
    }

    /// How short memory was at the last look.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        *self.pressure.borrow()
    }

    /// The same, and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    /// Looks again and again until `stopped` resolves.
    pub async fn run(&self, stopped: impl Future<Output = ()>) {
        let mut wait = Duration::ZERO;
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut stopped => return,
            }
            let reading = self.look();
            wait = if reading.is_near() { CLOSE_LOOK_INTERVAL } else { LOOK_INTERVAL };
            let verdict = reading.verdict;
            if verdict.pressure > Pressure::Low {
                self.streams.shed_idle();
            }
            if verdict.surplus > 0 {
                self.evict(verdict.surplus);
            }
            self.streams.settle();
            self.pipes.wake_starved();
        }
    }

    /// Orders pipes to free so many bytes.
    fn evict(&self, surplus: u64) {
        let policy = self.config.load().memory.evict;
        let entries: Vec<Arc<PipeEntry>> = self.pipes.list();
        let candidates = entries.iter().enumerate().map(|(pipe, entry)| Candidate {
            pipe,
            detached: matches!(entry.state(), PipeState::Detached | PipeState::ClientDetached),
            clients: entry.clients(),
            opened: since_epoch(entry),
            active: entry.active_at(),
            bytes: entry.memory_bytes.load(Relaxed),
        });
        let victims = victims(candidates.collect(), policy, surplus);
        if victims.is_empty() {
            tracing::debug!(surplus, "memory is out, and no pipe holds any that would be worth its eviction");
        }
        for victim in victims {
            // A mailbox that is full belongs to a pipe that is about to do as it is told.
            entries[victim.pipe].order(Command::Evict(policy));
        }
    }
}

impl State {
    fn system_limit(&mut self) -> u64 {
        if let Some((limit, _)) = self.system.filter(|(_, read)| read.elapsed() < LIMIT_VALID_FOR) {
            return limit;
        }
        let limit = process::memory_limit_bytes();
        self.socket_files = SocketFiles::find();
        self.system = Some((limit, Instant::now()));
        limit
    }

    fn socket_bytes(&mut self) -> u64 {
        if let Some((bytes, _)) = self.sockets.filter(|(_, read)| read.elapsed() < SOCKETS_VALID_FOR) {
            return bytes;
        }
        let bytes = self.socket_files.bytes().unwrap_or(0);
        self.sockets = Some((bytes, Instant::now()));
        bytes
    }
}

impl Reading {
    /// Resident memory, in percent of the limit.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn percent(&self) -> f64 {
        if self.limit == 0 { 0.0 } else { self.resident as f64 / self.limit as f64 * 100.0 }
    }

    /// Whether resident memory is near the limit, be it used or kept by the allocator.
    fn is_near(&self) -> bool {
        u128::from(self.resident) * 100 >= u128::from(self.limit) * u128::from(NEAR_PERCENT)
    }

    /// One line at each mark; the marks are far enough apart that they are not crossed over and over.
    fn say(&self, before: Pressure) {
        let Self { resident, limit, verdict: Verdict { used, pressure, .. } } = *self;
        if before == Pressure::Low {
            tracing::warn!(resident, used, limit, "memory is short: new pipes are refused");
        }
        match pressure {
            Pressure::Full => tracing::warn!(resident, used, limit, "memory is out: pipes are evicted"),
            Pressure::High => {}
            Pressure::Low => tracing::info!(resident, used, limit, "there is enough memory again"),
        }
    }
}

fn since_epoch(entry: &PipeEntry) -> Time {
    let opened = entry.opened_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(u64::try_from(opened.as_micros()).unwrap_or(u64::MAX))
}
