//! Who is given which parked connection: one task that knows all of them, asked by every dial and told of every sign of
//! life.
//!
//! Every decision is `holdline_core::dialin::parking`'s. Invariants: what the pools are told (that a worker is there, is
//! gone, and still wants pipes) follows from parked connections alone; an earlier process of a worker parks nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::dialin::parking::{Action, Bounds, Instances, Line, NoLine, Parking, Standing, Take, Wants};
use holdline_core::time::{Time, earliest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::line::{Give, Parked};
use super::request::Refusal;
use crate::backends::{BACKENDS_MAX, BackendError, DialIn, Expect, Progress};
use crate::metrics::{DialInMetrics, GaugeGuard, TakeResult};
use crate::net::{ConnectError, DialFailure, TakeOrder, Taken};
use crate::process::Process;

/// A lease lasts for so many heartbeats: as long as a parked connection may be silent.
const LEASE_BEATS: u32 = 3;

/// The shortest lease that there is.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// What the desk is told.
#[derive(Debug)]
pub(super) enum News {
    /// A worker wants to park a connection.
    Come {
        /// What it says about itself.
        said: DialIn,
        /// Where to answer.
        answer: oneshot::Sender<Result<Welcome, Refusal>>,
    },
    /// It has been told that it may, and the connection is parked.
    Park {
        /// The backend.
        id: Arc<str>,
        /// Which process of it.
        instance: Arc<str>,
        /// The connection.
        parked: Parked,
    },
    /// The worker lives.
    Heard {
        /// The backend.
        id: Arc<str>,
        /// By this connection.
        line: Line,
    },
    /// A parked connection has ended.
    Lost {
        /// The backend.
        id: Arc<str>,
        /// This one.
        line: Line,
        /// Why.
        why: &'static str,
    },
    /// A worker finishes: its pipes are to move.
    Drain {
        /// The backend.
        id: Arc<str>,
        /// Which process of it.
        instance: Arc<str>,
        /// Where to answer.
        answer: oneshot::Sender<Result<Progress, Refusal>>,
    },
}

/// What a worker is told that may park a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Welcome {
    /// The connection's number.
    pub line: Line,
    /// How many to keep parked.
    pub want: u32,
    /// From one sign of life to the next.
    pub beat: Duration,
}

/// The parked connections of one worker.
struct Lot {
    pool: Arc<str>,
    parking: Parking,
    instances: Instances,
    /// Its process that finishes.
    draining: Option<Arc<str>>,
    lines: HashMap<Line, Kept>,
    takes: HashMap<Take, Asked>,
    metrics: DialInMetrics,
}

struct Kept {
    give: oneshot::Sender<Give>,
    _counted: GaugeGuard,
}

struct Asked {
    wants: Wants,
    answer: oneshot::Sender<Taken>,
    since: Time,
}

/// The desk of one process.
pub(super) struct Desk {
    process: Arc<Process>,
    lots: HashMap<Arc<str>, Lot>,
    last_number: u64,
}

impl Desk {
    pub(super) fn new(process: Arc<Process>) -> Self {
        Self { process, lots: HashMap::new(), last_number: 0 }
    }

    /// Serves until `stopped` turns true.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<TakeOrder>,
        mut news: mpsc::Receiver<News>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            let deadline =
                self.lots.values().filter_map(|lot| lot.parking.deadline()).fold(None, |a, b| earliest(a, Some(b)));
            let clock = self.process.clock;
            let expiry = async {
                match deadline {
                    Some(at) => sleep_until(clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(order) = orders.recv() => self.take(order),
                Some(news) = news.recv() => self.hear(news),
                () = expiry => self.expire(),
                // A sender that is gone means the same as one that says so.
                () = async { drop(stopped.wait_for(|&stopped| stopped).await) } => return,
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Come { said, answer } => {
                // Who asked may have gone meanwhile.
                let _ = answer.send(self.come(said));
            }
            News::Park { id, instance, parked } => self.park(&id, &instance, parked),
            News::Heard { id, line } => self.heard(&id, line),
            News::Lost { id, line, why } => self.lost(&id, line, why),
            News::Drain { id, instance, answer } => {
                // As above.
                let _ = answer.send(self.drain(&id, &instance));
            }
        }
    }

    fn come(&mut self, said: DialIn) -> Result<Welcome, Refusal> {
        let config = self.process.config.load_full();
        let attach = &config.attach;
        let (id, instance) = (said.id.clone(), said.instance.clone());
        if let Some(lot) = self.lots.get(&id) {
            if lot.instances.look(&instance) == Standing::Superseded {
                return Err(Refusal::Superseded(id));
            }
            if lot.draining.as_ref() == Some(&instance) {
                return Err(Refusal::Draining(id));
            }
            if !lot.parking.has_room() && lot.instances.look(&instance) == Standing::Current {
                return Err(Refusal::Full("attach.parked_max", attach.parked_max));
            }
        }
        let parked: usize = self.lots.values().map(|lot| lot.lines.len()).sum();
        if parked >= attach.parked_total_max as usize {
            return Err(Refusal::Full("attach.parked_total_max", attach.parked_total_max));
        }
        let (pool, beat) = (said.pool.clone(), attach.heartbeat);
        self.process.backends.dial_in(said, (beat * LEASE_BEATS).max(LEASE_MIN)).map_err(Refusal::Backend)?;
        let bounds = Bounds { parked_max: attach.parked_max, waiting_max: attach.waiting_max, wait: attach.wait };
        let lot = self.lot(&id, &pool, bounds);
        let superseded = lot.instances.come(&instance) == Standing::Newer && !lot.lines.is_empty();
        let want = lot.parking.want();
        lot.parking.expect();
        if superseded {
            tracing::warn!(backend = %id, instance = %instance, "attach.superseded");
            // Dropped, they are closed.
            lot.lines.clear();
            lot.parking.supersede();
        }
        self.last_number += 1;
        Ok(Welcome { line: Line(self.last_number), want, beat })
    }

    /// The lot of `id`, with the bounds that hold.
    fn lot(&mut self, id: &Arc<str>, pool: &Arc<str>, bounds: Bounds) -> &mut Lot {
        if !self.lots.contains_key(id) && self.lots.len() >= BACKENDS_MAX {
            let backends = &self.process.backends;
            self.lots.retain(|id, lot| !lot.parking.is_empty() || backends.get(id).is_some());
        }
        let (now, metrics) = (self.process.clock.now(), &self.process.metrics);
        let lot = self.lots.entry(id.clone()).or_insert_with(|| Lot {
            parking: Parking::new(bounds, now),
            instances: Instances::default(),
            draining: None,
            lines: HashMap::new(),
            takes: HashMap::new(),
            pool: pool.clone(),
            metrics: metrics.dial_in(pool),
        });
        lot.parking.set_bounds(bounds);
        if *lot.pool != **pool {
            (lot.pool, lot.metrics) = (pool.clone(), metrics.dial_in(pool));
        }
        lot
    }

    fn park(&mut self, id: &Arc<str>, instance: &str, parked: Parked) {
        let now = self.process.clock.now();
        let Some(lot) = self.lots.get_mut(id) else { return };
        // Dropped, it is closed.
        if lot.instances.look(instance) != Standing::Current || !lot.parking.park(parked.line, now) {
            return;
        }
        lot.lines.insert(parked.line, Kept { give: parked.give, _counted: lot.metrics.park() });
        self.act(id);
    }

    fn heard(&mut self, id: &Arc<str>, line: Line) {
        let now = self.process.clock.now();
        if let Some(lot) = self.lots.get_mut(id) {
            lot.parking.heard(line, now);
        }
        match self.process.backends.renew_lease(id) {
            // One that was registered without a lease needs none.
            Ok(_) | Err(BackendError::NoLease(_)) => {}
            // It has been removed: its worker registers again by dialling in again.
            Err(_) => self.let_go(id),
        }
    }

    fn lost(&mut self, id: &Arc<str>, line: Line, why: &'static str) {
        let Some(lot) = self.lots.get_mut(id) else { return };
        if lot.lines.remove(&line).is_some() {
            tracing::debug!(backend = %id, why, "attach.lost");
            lot.parking.closed(line);
        }
        self.act(id);
    }

    fn drain(&mut self, id: &Arc<str>, instance: &Arc<str>) -> Result<Progress, Refusal> {
        let Some(lot) = self.lots.get_mut(id) else { return Ok(Progress::Done) };
        match lot.instances.look(instance) {
            Standing::Superseded => return Err(Refusal::Superseded(id.clone())),
            // It has parked nothing.
            Standing::Newer => return Ok(Progress::Done),
            Standing::Current => {}
        }
        if lot.draining.replace(instance.clone()).as_ref() != Some(instance) {
            tracing::info!(backend = %id, instance = %instance, "attach.draining");
        }
        self.process.backends.delete(id, Expect::Anything).map_err(Refusal::Backend)
    }

    /// Closes every parked connection of a worker.
    fn let_go(&mut self, id: &Arc<str>) {
        if let Some(lot) = self.lots.get_mut(id) {
            lot.lines.clear();
            lot.parking.clear();
        }
        self.act(id);
    }

    fn take(&mut self, order: TakeOrder) {
        let TakeOrder { backend: id, wants, answer } = order;
        let now = self.process.clock.now();
        let Some(lot) = self.lots.get_mut(&id) else { return refuse(answer, NoLine::Absent) };
        self.last_number += 1;
        let take = Take(self.last_number);
        lot.takes.insert(take, Asked { wants, answer, since: now });
        lot.parking.take(take, wants, now);
        self.act(&id);
    }

    fn expire(&mut self) {
        let now = self.process.clock.now();
        let due = |lot: &Lot| lot.parking.deadline().is_some_and(|at| now >= at);
        let late: Vec<_> = self.lots.iter().filter(|(_, lot)| due(lot)).map(|(id, _)| id.clone()).collect();
        for id in late {
            if let Some(lot) = self.lots.get_mut(&id) {
                lot.parking.expire(now);
            }
            self.act(&id);
        }
    }

    /// Carries out what was decided about the connections of a worker.
    fn act(&mut self, id: &Arc<str>) {
        let now = self.process.clock.now();
        let Some(lot) = self.lots.get_mut(id) else { return };
        while let Some(action) = lot.parking.poll() {
            match action {
                Action::Give(take, line) => lot.give(take, line, now),
                Action::Found(take) => {
                    if let Some(asked) = lot.takes.remove(&take) {
                        // Who asked may have given up meanwhile.
                        let _ = asked.answer.send(Ok(None));
                    }
                }
                Action::Refuse(take, why) => {
                    if let Some(asked) = lot.takes.remove(&take) {
                        if asked.wants == Wants::Line {
                            lot.metrics.taken(result(why)).inc();
                        }
                        refuse(asked.answer, why);
                    }
                }
                Action::Came => {
                    tracing::info!(backend = %id, "attach.came");
                    self.process.backends.came(id);
                }
                Action::Went => {
                    tracing::info!(backend = %id, "attach.went");
                    self.process.backends.went(id);
                }
            }
        }
        self.process.backends.set_parked(id, lot.parking.parked());
    }
}

impl Lot {
    fn give(&mut self, take: Take, line: Line, now: Time) {
        let (Some(kept), Some(asked)) = (self.lines.remove(&line), self.takes.remove(&take)) else { return };
        let Asked { wants, answer, since } = asked;
        if answer.is_closed() {
            // It is not wanted any more, so it stays.
            self.lines.insert(line, kept);
            self.parking.park(line, now);
            return;
        }
        let give = Give { answer, want: self.parking.want(), lost: self.metrics.taken(TakeResult::Lost).clone() };
        match kept.give.send(give) {
            Ok(()) => {
                self.metrics.taken(TakeResult::Taken).inc();
                self.metrics.wait_seconds.observe(now.since(since).as_secs_f64());
            }
            // It has ended just now.
            Err(Give { answer, .. }) => {
                self.takes.insert(take, Asked { wants, answer, since });
                self.parking.take_again(take, since, now);
            }
        }
    }
}

const fn result(why: NoLine) -> TakeResult {
    match why {
        NoLine::Absent => TakeResult::Absent,
        NoLine::Late => TakeResult::Late,
        NoLine::Crowded => TakeResult::Crowded,
    }
}

/// Says why there is no connection; who asked may have given up meanwhile.
fn refuse(answer: oneshot::Sender<Taken>, why: NoLine) {
    let (kind, detail) = match why {
        NoLine::Absent => (DialFailure::Refused, "the worker has no connection parked"),
        NoLine::Late => (DialFailure::Timeout, "the worker parked no connection within attach.wait"),
        NoLine::Crowded => {
            (DialFailure::Timeout, "attach.waiting_max dials wait for a connection of the worker already")
        }
    };
    let _ = answer.send(Err(ConnectError::with(kind, detail)));
}
