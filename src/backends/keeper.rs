//! The one task that keeps time for the pools: probes, leases, ejections and the deadlines of drains.
//!
//! It sleeps until the next thing is due, or until a change makes something due earlier; an idle pool costs one wake-up
//! per probe. A backend that went down is looked at again soon and then ever less often, up to its interval, so that
//! a restart in place is seen in a fraction of a second and a long outage costs nothing.

use super::Backends;
use super::facts::{BackendEvent, EjectCause, Leave, LeaveCause, LeaveHow, Removal};
use super::probe::{self, ProbeProblem};
use super::registry::{Effects, Registry, Why, probes_of};
use super::report::{ReportPointers, WorkerReport};
use super::reserve::Target;
use super::spec::{LastProbe, ProbeSettings};
use super::supervised::READY_PROBE_INTERVAL;
use holdline_core::health::{Health, HealthChange, Probed};
use holdline_core::ids::BackendKey;
use holdline_core::lease::LeaseState;
use holdline_core::pool::{AdminState, LeaseChange};
use holdline_core::settings::WeightFrom;
use holdline_core::time::{Time, earliest};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, SystemTime};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Probes that run at once, over all pools.
pub const PROBES_MAX: usize = 64;

/// From a backend's going down to the next look at it; doubles up to the interval.
pub const QUICK_PROBE_MIN: Duration = Duration::from_millis(100);

/// A probe that is due.
pub(super) struct Job {
    key: BackendKey,
    target: Target,
    settings: ProbeSettings,
    pointers: ReportPointers,
}

/// What a probe found.
struct Report {
    took: Duration,
    result: Result<Option<WorkerReport>, ProbeProblem>,
}

impl Backends {
    /// Keeps the pools until `shutdown` completes; probes that are running then are dropped. To be run exactly once.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut probes: JoinSet<Report> = JoinSet::new();
        let mut keys: HashMap<Id, BackendKey> = HashMap::new();
        loop {
            let room = PROBES_MAX - probes.len();
            let (jobs, next) = self.with(|registry, fx| registry.turn(room, fx));
            for job in jobs {
                let key = job.key;
                keys.insert(probes.spawn(run(job)).id(), key);
            }
            let wake = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut shutdown => return,
                Some(done) = probes.join_next_with_id() => self.finish(done, &mut keys),
                () = self.0.keeper.notified() => {}
                () = wake => {}
            }
        }
    }

    fn finish(&self, done: Result<(Id, Report), JoinError>, keys: &mut HashMap<Id, BackendKey>) {
        let (id, report) = done.unwrap_or_else(|error| {
            let problem = ProbeProblem { certain: false, text: "the probe itself failed".to_owned() };
            (error.id(), Report { took: Duration::ZERO, result: Err(problem) })
        });
        if let Some(key) = keys.remove(&id) {
            self.with(|registry, fx| registry.probed(key, report, fx));
        }
    }
}

async fn run(job: Job) -> Report {
    let began = Instant::now();
    let result = probe::probe(&job.target, &job.settings, &job.pointers).await;
    Report { took: began.elapsed(), result }
}

impl Registry {
    /// Does what is due now; at most `room` probes to start, and when to come again.
    fn turn(&mut self, room: usize, fx: &mut Effects) -> (Vec<Job>, Option<Instant>) {
        let now = self.clock.now();
        self.readmit(now, fx);
        self.expire_leases(now, fx);
        self.force_late_leavers(now, fx);
        let jobs = self.due_probes(room, now);
        // Everything above was done just now, and its own wish to be looked at is fulfilled by this.
        fx.keeper = false;
        let probes_may_start = jobs.len() < room;
        let next = self.next_deadline(probes_may_start);
        (jobs, next.map(|at| self.clock.instant(at)))
    }

    fn readmit(&mut self, now: Time, fx: &mut Effects) {
        let readmitted: Vec<_> = self.pools.values_mut().flat_map(|pool| pool.core.readmit(now)).collect();
        let why = Why { text: String::new(), eject: EjectCause::FailedDials };
        for key in readmitted {
            self.health_changed(key, HealthChange::Readmitted, &why, false, fx);
        }
    }

    fn expire_leases(&mut self, now: Time, fx: &mut Effects) {
        let changes: Vec<_> = self
            .pools
            .iter_mut()
            .map(|(name, pool)| (name.clone(), pool.core.expire_leases(now)))
            .filter(|(_, changes)| !changes.is_empty())
            .collect();
        for (pool, change) in changes
            .into_iter()
            .flat_map(|(pool, changes)| changes.into_iter().map(move |change| (pool.clone(), change)))
        {
            match change {
                LeaseChange::Expired(key) => self.lease_expired(key, now, fx),
                LeaseChange::Gone(key) => {
                    let leave = Leave { how: LeaveHow::Detach, cause: LeaveCause::LeaseExpired };
                    self.remove(key, Removal::LeaseExpired, leave, None, fx);
                }
                LeaseChange::SelfPreservation { late, live } => {
                    fx.events.push(BackendEvent::SelfPreservation { pool, late, live });
                }
            }
        }
    }

    fn lease_expired(&mut self, key: BackendKey, now: Time, fx: &mut Effects) {
        let Some((pool, backend)) = self.names(key) else {
            return;
        };
        fx.events.push(BackendEvent::LeaseExpired { pool, backend });
        if let Some(record) = self.records.get_mut(&key) {
            record.probe.next = now;
        }
        self.touched(key, true, fx);
    }

    /// Pipes that had time to leave and did not are detached, or closed if that was the wish.
    fn force_late_leavers(&mut self, now: Time, fx: &mut Effects) {
        let late: Vec<_> = self
            .records
            .iter_mut()
            .filter(|(_, record)| record.leave_deadline.is_some_and(|deadline| now >= deadline))
            .map(|(&key, record)| {
                record.leave_deadline = None;
                record.requests_overdue = true;
                let cause = record.leave.map_or(LeaveCause::Drain, |leave| leave.cause);
                let leave = Leave { how: record.at_deadline, cause };
                record.leave = Some(leave);
                (key, leave)
            })
            .collect();
        for &(key, _) in &late {
            self.left(key, fx);
        }
        fx.leaves.extend(late);
    }

    fn due_probes(&mut self, room: usize, now: Time) -> Vec<Job> {
        let mut due: Vec<_> = self
            .records
            .keys()
            .filter_map(|&key| Some((self.next_probe(key)?, key)))
            .filter(|&(next, _)| next <= now)
            .collect();
        due.sort_unstable();
        due.truncate(room);
        due.into_iter().filter_map(|(_, key)| self.start_probe(key)).collect()
    }

    fn start_probe(&mut self, key: BackendKey) -> Option<Job> {
        let target = self.target(key)?;
        let record = self.records.get_mut(&key)?;
        let pool = self.pools.get(&record.spec.pool)?;
        let settings = probes_of(record, pool)?.clone();
        record.probe.running = true;
        Some(Job { key, target, settings, pointers: pool.report.clone() })
    }

    /// When a backend is to be probed, unless it is being probed or is not to be.
    fn next_probe(&self, key: BackendKey) -> Option<Time> {
        let record = self.records.get(&key)?;
        let pool = self.pools.get(&record.spec.pool)?;
        probes_of(record, pool)?;
        let admin = pool.core.get(key)?.admin();
        let wanted = admin != AdminState::Maint && record.removing.is_none() && !record.probe.running;
        wanted.then_some(record.probe.next)
    }

    fn next_deadline(&self, probes_may_start: bool) -> Option<Time> {
        let pools = self.pools.values().filter_map(|pool| pool.core.deadline()).min();
        let leaves = self.records.values().filter_map(|record| record.leave_deadline).min();
        let probes = self.records.keys().filter_map(|&key| self.next_probe(key)).min();
        earliest(earliest(pools, leaves), probes.filter(|_| probes_may_start))
    }

    fn probed(&mut self, key: BackendKey, report: Report, fx: &mut Effects) {
        let now = self.clock.now();
        let Some(backend) = self.backend(key) else {
            return;
        };
        let (was_eligible, expired) = (backend.is_eligible(), backend.lease_state() == LeaseState::Expired);
        let (probed, text) = match &report.result {
            Ok(_) => (Probed::Ok, String::new()),
            Err(problem) if problem.certain => (Probed::Refused, problem.text.clone()),
            Err(problem) => (Probed::Failed, problem.text.clone()),
        };
        let change = self.pool_of(key).and_then(|pool| pool.core.probed(key, probed));
        if let Ok(said) = &report.result {
            self.reported(key, *said);
        }
        if let Some(record) = self.records.get_mut(&key) {
            let problem = report.result.err().map(|problem| problem.text);
            record.probe.running = false;
            record.probe.last = Some(LastProbe { at: SystemTime::now(), took: report.took, problem });
        }
        self.schedule_probe(key, now);
        if let Some(change) = change {
            self.health_changed(key, change, &Why { text, eject: EjectCause::FailedDials }, was_eligible, fx);
        }
        if expired && probed != Probed::Ok {
            self.detach_from_the_dead(key, fx);
        }
    }

    /// Takes in what a worker says about itself, which may decide how much of its weight counts.
    fn reported(&mut self, key: BackendKey, report: Option<WorkerReport>) {
        if let Some(record) = self.records.get_mut(&key) {
            record.probe.report = report;
        }
        if let Some(pool) = self.pool_of(key) {
            let share = match pool.weight_from {
                WeightFrom::Config => None,
                WeightFrom::Memory => report.and_then(|report| report.free_percent(pool.worker_memory_max)),
            };
            pool.core.set_share(key, share.unwrap_or(100));
        }
    }

    fn schedule_probe(&mut self, key: BackendKey, now: Time) {
        let down = self.backend(key).is_some_and(|backend| backend.health() == Health::Down);
        let Some(record) = self.records.get(&key) else {
            return;
        };
        let interval =
            self.pools.get(&record.spec.pool).and_then(|pool| probes_of(record, pool)).map(|probes| probes.interval);
        let (Some(interval), Some(record)) = (interval, self.records.get_mut(&key)) else {
            return;
        };
        let wait = if record.is_starting() {
            READY_PROBE_INTERVAL.min(interval)
        } else if down {
            let doubled = QUICK_PROBE_MIN.saturating_mul(1 << record.probe.since_down.min(16));
            record.probe.since_down += 1;
            doubled.min(interval)
        } else {
            interval
        };
        record.probe.next = now + wait.mul_f64(rand::random_range(0.9..=1.1));
    }

    /// A backend that neither renews its lease nor answers a probe won't finish anything: its pipes need not wait.
    fn detach_from_the_dead(&mut self, key: BackendKey, fx: &mut Effects) {
        if self.records.get(&key).is_none_or(|record| record.leave.is_some()) {
            return;
        }
        let leave = Leave { how: LeaveHow::Detach, cause: LeaveCause::LeaseExpired };
        self.order_to_leave(key, leave, None, fx);
    }
}
