//! One group with its processes: carries out what its decisions say, and tells them what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use holdline_core::health::Health;
use holdline_core::ids::BackendKey;
use holdline_core::pool::Serves;
use holdline_core::supervisor::{Action, Group, GroupSettings, Phase, StartReason, Worker, WorkerKey};
use holdline_core::time::Time;
use rustix::process::{Pid, Signal};

use super::child::{Process, Started, signal, stop_signal};
use super::listening::{Sockets, clean_up};
use super::output::Output;
use super::supervisor::Surroundings;
use super::template::{Address, filled};
use super::view::{GroupView, ProcessView, WorkerState, WorkerView};
use crate::backends::BackendSpec;
use crate::config::WorkerGroup;
use crate::events::Fact;
use crate::metrics::labels::{ConnectResult, WorkerFailure};
use crate::metrics::{BackendMetrics, GroupMetrics};
use crate::net::BackendUrl;
use crate::unix_user::UnixUser;

/// The processes of one group.
pub(super) struct Crew {
    pub(super) config: WorkerGroup,
    pub(super) group: Group,
    name: Arc<str>,
    hands: BTreeMap<WorkerKey, Hand>,
    /// What an operator made of the configured count.
    scaled: Option<u32>,
    metrics: GroupMetrics,
}

/// One process, and what is known of it outside of the group's decisions.
struct Hand {
    id: Arc<str>,
    backend: BackendKey,
    group: Pid,
    address: Address,
    started_at: SystemTime,
    numbers: Arc<BackendMetrics>,
    /// What its id had counted before it came.
    pipes_before: u64,
}

/// A process that was just started.
pub(super) struct Recruit {
    pub(super) worker: WorkerKey,
    pub(super) group: Pid,
    pub(super) process: Process,
}

impl Crew {
    pub(super) fn new(config: WorkerGroup, surroundings: &Surroundings) -> Self {
        let name: Arc<str> = config.name.as_str().into();
        Self {
            group: Group::new(config.settings(), rand::random()),
            metrics: surroundings.metrics.group(&name),
            hands: BTreeMap::new(),
            scaled: None,
            config,
            name,
        }
    }

    /// Makes the group what a new configuration says; without one, it comes to its end.
    pub(super) fn configure(&mut self, config: Option<&WorkerGroup>) {
        let Some(config) = config else {
            let settings = GroupSettings { count: 0, standby: 0, ..*self.group.settings() };
            return self.group.configure(settings, false);
        };
        if config.count != self.config.count {
            self.scaled = None;
        }
        let outdated = !self.config.runs_the_same_as(config);
        self.config = config.clone();
        let settings = config.settings();
        self.group.configure(GroupSettings { count: self.scaled.unwrap_or(settings.count), ..settings }, outdated);
    }

    pub(super) fn scale(&mut self, count: u32) {
        self.scaled = Some(count);
        self.group.scale(count);
    }

    /// Carries out what is to be done now; the processes that were started.
    pub(super) fn act(
        &mut self,
        now: Time,
        sockets: &mut Sockets,
        taken: &BTreeSet<u16>,
        around: &Surroundings,
    ) -> Vec<Recruit> {
        let mut recruits = Vec::new();
        for action in self.group.settle(now) {
            match action {
                Action::Start { worker, index, reason } => {
                    let taken: BTreeSet<u16> = self.ports().chain(taken.iter().copied()).collect();
                    match self.hire(worker, index, sockets, &taken, around) {
                        Ok(recruit) => {
                            self.started(worker, reason, around);
                            recruits.push(recruit);
                        }
                        Err(error) => self.not_started(worker, index, &error, now, around),
                    }
                }
                Action::Serve(worker) => self.with(worker, |hand| around.backends.serve(hand.backend)),
                Action::Empty { worker, within } => {
                    self.with(worker, |hand| around.backends.retire(hand.backend, within))
                }
                Action::Stop(worker) => {
                    let stop = stop_signal(self.config.stop_signal);
                    self.with(worker, |hand| signal(hand.group, stop));
                }
                Action::Kill(worker) => {
                    self.with(worker, |hand| signal(hand.group, Signal::KILL));
                    self.say(worker, around, |group, worker| Fact::WorkerKilled { group, worker });
                }
                Action::SayRecycled(worker, reason) => {
                    self.metrics.recycled(reason);
                    let reason = reason.as_str();
                    self.say(worker, around, |group, worker| Fact::WorkerRecycled { group, worker, reason });
                }
                Action::SayNeverReady(worker) => {
                    self.metrics.failed(WorkerFailure::NotReady);
                    let after_ms = millis(self.config.start_timeout);
                    self.say(worker, around, |group, worker| Fact::WorkerNotReady { group, worker, after_ms });
                }
                Action::SayCrashLoop { index, failures, wait } => {
                    self.metrics.crash_loops.inc();
                    let (group, worker) = (self.name.clone(), self.id(index));
                    around.tell(Fact::WorkerCrashLoop { group, worker, failures, wait_ms: millis(wait) });
                }
            }
        }
        recruits
    }

    /// Starts a process and puts it into its pool.
    fn hire(
        &mut self,
        worker: WorkerKey,
        index: u32,
        sockets: &mut Sockets,
        taken: &BTreeSet<u16>,
        around: &Surroundings,
    ) -> Result<Recruit, String> {
        let id = self.id(index);
        let user = self.config.user.as_deref().map(UnixUser::find).transpose()?;
        let place =
            sockets.place(&self.config, &id, user, |port| taken.contains(&port)).map_err(|error| error.to_string())?;
        let address = place.address.clone();
        let url: BackendUrl = address.url().parse().map_err(|error: crate::net::UrlError| error.to_string())?;
        let started = Process::start(&self.config, index, place, user).map_err(|error| error.to_string())?;
        let Started { process, stdout, stderr } = started;
        let group = process.group();
        let numbers = around.metrics.backend(&self.config.pool, &id);
        let backend = match around.backends.enlist(&id, self.spec(index, url, group, &address)) {
            Ok(backend) => backend,
            Err(error) => {
                signal(group, Signal::KILL);
                return Err(error.to_string());
            }
        };
        let output = Output::new(id.clone(), self.metrics.output_dropped.clone());
        if let Some(stdout) = stdout {
            tokio::spawn(output.clone().relay("stdout", stdout));
        }
        if let Some(stderr) = stderr {
            tokio::spawn(output.relay("stderr", stderr));
        }
        let pipes_before = numbers.connect(ConnectResult::Attached).get();
        let started_at = SystemTime::now();
        self.hands.insert(worker, Hand { id, backend, group, address, started_at, numbers, pipes_before });
        Ok(Recruit { worker, group, process })
    }

    /// What is said about a worker as a backend.
    fn spec(&self, index: u32, url: BackendUrl, group: Pid, address: &Address) -> BackendSpec {
        let text = |text: &str| Arc::<str>::from(filled(text, index, address));
        let keys = self.config.serves.0.iter().map(|(key, alias)| {
            let (key, alias) = (text(key), text(alias));
            let alias = (key != alias).then_some(alias);
            (key, alias)
        });
        BackendSpec {
            serves: Serves::from_keys(keys),
            labels: [("group".to_owned(), self.name.to_string())].into(),
            instance: Some(format!("pid-{}", group.as_raw_nonzero()).into()),
            weight: NonZeroU32::MIN,
            ..BackendSpec::new(url, self.config.pool.as_str())
        }
    }

    fn started(&self, worker: WorkerKey, reason: StartReason, around: &Surroundings) {
        self.metrics.started(reason);
        let pid = self.hands.get(&worker).map_or(0, Hand::pid);
        self.say(worker, around, |group, worker| Fact::WorkerStarted { group, worker, pid, reason: reason.as_str() });
    }

    fn not_started(&mut self, worker: WorkerKey, index: u32, error: &str, now: Time, around: &Surroundings) {
        self.metrics.failed(WorkerFailure::NotStarted);
        let (group, id) = (self.name.clone(), self.id(index));
        around.tell(Fact::WorkerStartFailed { group, worker: id, error: error.to_owned() });
        self.group.start_failed(worker, now);
    }

    /// A process has ended, and all that it had started in its group.
    pub(super) fn ended(&mut self, worker: WorkerKey, status: String, now: Time, around: &Surroundings) {
        let unexpected = self.group.ended(worker, now);
        if unexpected {
            self.metrics.failed(WorkerFailure::Exited);
        }
        let expected = !unexpected;
        self.say(worker, around, |group, worker| Fact::WorkerExited { group, worker, status, expected });
        if let Some(hand) = self.hands.remove(&worker) {
            around.backends.exited(hand.backend);
            clean_up(&hand.address);
            self.metrics.forget(&hand.id);
        }
    }

    /// Looks at what has become of its workers as backends.
    pub(super) fn look(&mut self, now: Time, around: &Surroundings) {
        for (&worker, hand) in &self.hands {
            let health = around.backends.look(hand.backend).map(|view| view.health);
            match self.group.worker(worker).map(Worker::phase) {
                Some(Phase::Starting) if health == Some(Health::Up) => {
                    self.group.ready(worker, now);
                    let took = self.group.worker(worker).map_or_else(Default::default, |it| now.since(it.started()));
                    self.metrics.start_seconds.observe(took.as_secs_f64());
                    let (group, worker) = (self.name.clone(), hand.id.clone());
                    around.tell(Fact::WorkerReady { group, worker, took_ms: millis(took) });
                }
                Some(Phase::Draining) if health.is_none() => self.group.emptied(worker, now),
                Some(_) | None => {}
            }
        }
    }

    /// Takes in what its workers use.
    pub(super) fn measured(&mut self, rss_bytes: impl Fn(u32) -> Option<u64>) {
        for (&worker, hand) in &self.hands {
            let rss_bytes = rss_bytes(hand.pid());
            if let Some(bytes) = rss_bytes {
                self.metrics.rss(&hand.id, bytes);
            }
            self.group.measured(worker, rss_bytes, hand.pipes());
        }
    }

    /// The ports of its workers.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.hands.values().filter_map(|hand| hand.address.port())
    }

    /// The numbers of its processes.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.hands.values().map(Hand::pid)
    }

    /// The worker of this id.
    pub(super) fn find(&self, id: &str) -> Option<WorkerKey> {
        let of_id = self.hands.iter().filter(|(_, hand)| *hand.id == *id);
        of_id.map(|(&key, _)| key).next()
    }

    /// How it reads now; the gauges say the same.
    pub(super) fn view(&self, around: &Surroundings) -> GroupView {
        let live = self.group.workers().map(|worker| self.view_of(worker));
        let waiting = self.group.vacancies().iter().map(|vacancy| WorkerView {
            id: self.id(vacancy.index),
            index: vacancy.index,
            state: WorkerState::Waiting,
            due: None,
            failures: vacancy.failures,
            process: None,
            retry_at: Some(around.clock.wall(vacancy.at)),
        });
        let mut workers: Vec<WorkerView> = live.chain(waiting).collect();
        workers.sort_by_key(|worker| worker.index);
        let settings = self.group.settings();
        let view = GroupView {
            name: self.name.clone(),
            pool: self.config.pool.as_str().into(),
            count: settings.count,
            standby: settings.standby,
            workers,
        };
        self.metrics.set(|state| view.workers.iter().filter(|worker| worker.state.as_str() == state).count());
        view
    }

    fn view_of(&self, worker: &Worker) -> WorkerView {
        let ready_after = worker.ready_at().map(|ready| ready.since(worker.started()));
        let process = self.hands.get(&worker.key()).map(|hand| ProcessView {
            pid: hand.pid(),
            url: hand.address.url().into(),
            backend: hand.backend,
            started_at: hand.started_at,
            ready_after,
            pipes: hand.pipes(),
            rss_bytes: worker.rss_bytes(),
        });
        WorkerView {
            id: self.id(worker.index()),
            index: worker.index(),
            state: WorkerState::Live(worker.phase()),
            due: worker.due().map(|due| due.as_str()),
            failures: worker.failures(),
            process,
            retry_at: None,
        }
    }

    fn id(&self, index: u32) -> Arc<str> {
        format!("{}-{index}", self.name).into()
    }

    fn with(&self, worker: WorkerKey, act: impl FnOnce(&Hand)) {
        if let Some(hand) = self.hands.get(&worker) {
            act(hand);
        }
    }

    fn say(&self, worker: WorkerKey, around: &Surroundings, fact: impl FnOnce(Arc<str>, Arc<str>) -> Fact) {
        if let Some(hand) = self.hands.get(&worker) {
            around.tell(fact(self.name.clone(), hand.id.clone()));
        }
    }
}

impl Hand {
    fn pid(&self) -> u32 {
        self.group.as_raw_nonzero().get().cast_unsigned()
    }

    /// Pipes that it has had.
    fn pipes(&self) -> u64 {
        self.numbers.connect(ConnectResult::Attached).get().saturating_sub(self.pipes_before)
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
