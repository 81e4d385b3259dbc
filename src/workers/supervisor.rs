//! The one task that keeps all groups: it waits for what happens, lets the groups decide, and shows how they stand.
//!
//! Owns every crew, the guard and the directory of socket files. It waits for a change among the backends, an end of a
//! process, an order, a new configuration, or the next deadline, and looks every [`LOOK_INTERVAL`] at what workers use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use holdline_core::supervisor::WorkerKey;
use holdline_core::time::earliest;
use rustix::process::Pid;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep_until};

use super::crew::{Crew, Recruit};
use super::guard::Guard;
use super::listening::Sockets;
use super::view::GroupView;
use super::{OrderError, Reply, Seen, memory, tell};
use crate::backends::Backends;
use crate::clock::Clock;
use crate::config::WorkerGroup;
use crate::events::{Events, Fact};
use crate::metrics::Metrics;

/// From one look at how many pipes workers have had to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks from one measurement of memory to the next.
const LOOKS_PER_MEASUREMENT: u32 = 5;

/// Ends and measurements that wait for the supervisor.
const HAPPENINGS_MAX: usize = 256;

/// What the supervisor works on.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where workers are put.
    pub backends: Backends,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is told.
    pub events: Arc<Events>,
    /// The time of all decisions.
    pub clock: Clock,
}

impl Surroundings {
    /// Tells a fact about a worker, in the log and as an event.
    pub(super) fn tell(&self, fact: Fact) {
        tell::log(&fact);
        self.events.push(fact);
    }
}

/// What an operator asks for.
pub(super) enum Order {
    Restart { group: String, reply: Reply },
    Recycle { worker: String, reply: Reply },
    Scale { group: String, count: u32, reply: Reply },
    Stop { reply: Reply },
    Kill { reply: Reply },
}

/// What is found out in other tasks.
enum Happening {
    Ended { group: Arc<str>, worker: WorkerKey, leader: Pid, status: String },
    Measured(HashMap<u32, u64>),
}

pub(super) struct Supervisor {
    around: Surroundings,
    wanted: watch::Receiver<Arc<Vec<WorkerGroup>>>,
    orders: mpsc::Receiver<Order>,
    seen: Arc<Seen>,
    crews: BTreeMap<Arc<str>, Crew>,
    sockets: Sockets,
    guard: Guard,
    happened: (mpsc::Sender<Happening>, mpsc::Receiver<Happening>),
    looks: u32,
    measuring: bool,
    /// Outcomes that are told once others can see what became of them.
    outcomes: Vec<(Reply, Result<(), OrderError>)>,
    /// Those that wait for the end of all processes.
    ending: Vec<Reply>,
    stopping: bool,
}

impl Supervisor {
    pub(super) fn new(
        around: Surroundings,
        mut wanted: watch::Receiver<Arc<Vec<WorkerGroup>>>,
        orders: mpsc::Receiver<Order>,
        seen: Arc<Seen>,
    ) -> Self {
        wanted.mark_changed();
        Self {
            around,
            wanted,
            orders,
            seen,
            crews: BTreeMap::new(),
            sockets: Sockets::default(),
            guard: Guard::default(),
            happened: mpsc::channel(HAPPENINGS_MAX),
            looks: 0,
            measuring: false,
            outcomes: Vec::new(),
            ending: Vec::new(),
            stopping: false,
        }
    }

    /// Keeps the groups until they were told to stop and have ended.
    pub(super) async fn run(mut self) {
        let mut backends = self.around.backends.index();
        let mut looks = interval(LOOK_INTERVAL);
        loop {
            self.act().await;
            self.show();
            for (reply, outcome) in self.outcomes.drain(..) {
                // One that does not wait for the answer has left.
                let _ = reply.send(outcome);
            }
            if self.stopping && self.crews.is_empty() {
                return self.answer_end();
            }
            let deadline = self.deadline();
            tokio::select! {
                // The sender lives as long as the handle that runs this.
                Ok(()) = self.wanted.changed() => self.configure(),
                Some(order) = self.orders.recv() => self.obey(order),
                Some(happening) = self.happened.1.recv() => self.happens(happening).await,
                Ok(()) = backends.changed() => self.look(),
                _ = looks.tick(), if !self.crews.is_empty() => self.measure(),
                () = until(deadline) => {}
            }
        }
    }

    /// Carries out what the groups decide.
    async fn act(&mut self) {
        let now = self.around.clock.now();
        let names: Vec<Arc<str>> = self.crews.keys().cloned().collect();
        for name in names {
            let taken: BTreeSet<u16> = self.crews.values().flat_map(Crew::ports).collect();
            let Some(crew) = self.crews.get_mut(&name) else { continue };
            for recruit in crew.act(now, &mut self.sockets, &taken, &self.around) {
                self.watch(name.clone(), recruit).await;
            }
        }
        let wanted = self.wanted.borrow().clone();
        let stopping = self.stopping;
        let metrics = &self.around.metrics;
        self.crews.retain(|name, crew| {
            let named = wanted.iter().any(|group| *group.name == **name) && !stopping;
            let keep = named || !crew.group.is_over();
            if !keep {
                metrics.forget_group(name);
            }
            keep
        });
    }

    /// Has the guard know a new process, and waits for its end beside.
    async fn watch(&mut self, group: Arc<str>, recruit: Recruit) {
        let Recruit { worker, group: leader, mut process } = recruit;
        if let Err(error) = self.guard.began(leader).await {
            tracing::warn!(%error, "no guard: workers would outlive a kill of this process");
        }
        let happened = self.happened.0.clone();
        tokio::spawn(async move {
            let status = process.ended().await;
            let status = status.map_or_else(|error: io::Error| error.to_string(), told);
            // Without a supervisor there is nothing that this means to.
            let _ = happened.send(Happening::Ended { group, worker, leader, status }).await;
        });
    }

    fn configure(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        if self.stopping {
            return;
        }
        for crew in self.crews.values_mut() {
            crew.configure(wanted.iter().find(|group| group.name == crew.config.name));
        }
        for group in wanted.iter() {
            let crew = || Crew::new(group.clone(), &self.around);
            self.crews.entry(group.name.as_str().into()).or_insert_with(crew);
        }
    }

    fn obey(&mut self, order: Order) {
        let (reply, outcome) = match order {
            Order::Restart { group, reply } => {
                let restarted = self.crew(&group).map(|crew| {
                    crew.group.restart();
                });
                (reply, restarted)
            }
            Order::Scale { group, count, reply } => (reply, self.crew(&group).map(|crew| crew.scale(count))),
            Order::Recycle { worker, reply } => (reply, self.recycle(&worker)),
            Order::Stop { reply } => return self.end(reply, |crew| crew.group.stop()),
            Order::Kill { reply } => return self.end(reply, |crew| crew.group.kill()),
        };
        self.outcomes.push((reply, outcome));
    }

    fn crew(&mut self, name: &str) -> Result<&mut Crew, OrderError> {
        if self.stopping {
            return Err(OrderError::Stopping);
        }
        self.crews.get_mut(name).ok_or_else(|| OrderError::NoGroup(name.to_owned()))
    }

    fn recycle(&mut self, worker: &str) -> Result<(), OrderError> {
        if self.stopping {
            return Err(OrderError::Stopping);
        }
        let found = self.crews.values_mut().find_map(|crew| crew.find(worker).map(|key| crew.group.recycle(key)));
        match found {
            Some(true) => Ok(()),
            Some(false) => Err(OrderError::Leaving(worker.to_owned())),
            None => Err(OrderError::NoWorker(worker.to_owned())),
        }
    }

    fn end(&mut self, reply: Reply, tell: impl Fn(&mut Crew)) {
        self.stopping = true;
        self.ending.push(reply);
        self.crews.values_mut().for_each(tell);
    }

    fn answer_end(self) {
        for reply in self.ending {
            // As above.
            let _ = reply.send(Ok(()));
        }
    }

    async fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Ended { group, worker, leader, status } => {
                self.guard.ended(leader).await;
                let now = self.around.clock.now();
                if let Some(crew) = self.crews.get_mut(&group) {
                    crew.ended(worker, status, now, &self.around);
                }
            }
            Happening::Measured(bytes) => {
                self.measuring = false;
                self.seen.rss_bytes.store(bytes.values().sum(), Relaxed);
                for crew in self.crews.values_mut() {
                    crew.measured(|pid| bytes.get(&pid).copied());
                }
            }
        }
    }

    fn look(&mut self) {
        let now = self.around.clock.now();
        for crew in self.crews.values_mut() {
            crew.look(now, &self.around);
        }
    }

    /// Looks at what workers use: their pipes now, and every few times their memory, which is read elsewhere.
    fn measure(&mut self) {
        for crew in self.crews.values_mut() {
            crew.measured(|_| None);
        }
        self.looks += 1;
        if self.looks < LOOKS_PER_MEASUREMENT || self.measuring {
            return;
        }
        (self.looks, self.measuring) = (0, true);
        let pids: Vec<u32> = self.crews.values().flat_map(Crew::pids).collect();
        let happened = self.happened.0.clone();
        tokio::task::spawn_blocking(move || {
            // As above.
            let _ = happened.blocking_send(Happening::Measured(memory::resident_bytes(&pids)));
        });
    }

    fn deadline(&self) -> Option<Instant> {
        let next = self.crews.values().map(|crew| crew.group.deadline()).fold(None, earliest);
        next.map(|at| self.around.clock.instant(at))
    }

    /// Lets others see how the groups stand.
    fn show(&self) {
        let views: Vec<GroupView> = self.crews.values().map(|crew| crew.view(&self.around)).collect();
        let changed = states(&self.seen.groups.load()) != states(&views);
        self.seen.groups.store(Arc::new(views));
        if changed {
            self.seen.index.send_modify(|index| *index += 1);
        }
    }
}

/// What of groups does not come and go with traffic.
fn states(groups: &[GroupView]) -> Vec<GroupView> {
    let mut groups = groups.to_vec();
    for process in groups.iter_mut().flat_map(|group| &mut group.workers).filter_map(|worker| worker.process.as_mut()) {
        (process.pipes, process.rss_bytes) = (0, None);
    }
    for worker in groups.iter_mut().flat_map(|group| &mut group.workers) {
        // It is reckoned anew at each look, from a clock on the wall.
        worker.retry_at = None;
    }
    groups
}

/// How a process ended, for people.
fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
