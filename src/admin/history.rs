//! `GET /v1/history`: the last ten minutes in steps of five seconds, for the lines that the dashboard and `ctl top` draw.
//!
//! It is no store of metrics: Prometheus keeps those. A step is what the counters grew by between two readings, and what
//! the gauges said at its end. Invariant: at most [`STEPS_MAX`] steps are kept, in memory alone, and a reading looks at no
//! single pipe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use prometheus::Histogram;
use prometheus::core::Metric;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Admin, time};
use crate::metrics::process::resident_bytes;
use crate::metrics::{Metrics, PipeState};

/// Steps that are kept.
pub(super) const STEPS_MAX: usize = 120;
/// How long a step is.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// The ring of steps.
#[derive(Debug, Default)]
pub(super) struct Ring(Mutex<Steps>);

#[derive(Debug, Default)]
struct Steps {
    last: Option<Reading>,
    steps: VecDeque<Step>,
}

/// Counters and gauges at one moment.
#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    wall: SystemTime,
    pipes: u64,
    detached: u64,
    eligible: u64,
    held_bytes: u64,
    resident_bytes: u64,
    up: Lane,
    down: Lane,
    planned: u64,
    unplanned: u64,
    lost: u64,
    reattaches: Buckets,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    messages: u64,
    bytes: u64,
}

/// Upper bounds in seconds, and how many are at most so long; the last bound is infinite.
#[derive(Debug, Clone, Default)]
struct Buckets(Vec<(f64, u64)>);

/// What happened between two readings, and how it stood at the later one.
#[derive(Debug, Clone)]
struct Step {
    now: Reading,
    seconds: f64,
    up: Lane,
    down: Lane,
    planned: u64,
    unplanned: u64,
    lost: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// The steps as the API shows them: each list has one number for each step, the oldest first.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct History {
    /// How long a step is; one that came late is longer.
    step_ms: u64,
    /// When the newest step ended; null before the first.
    at: Option<String>,
    /// Pipes at the end of the step.
    pipes: Vec<u64>,
    /// Of those, pipes that waited for a worker.
    detached: Vec<u64>,
    /// Backends that might get a pipe, over all pools.
    eligible: Vec<u64>,
    /// Bytes in replay buffers.
    held_bytes: Vec<u64>,
    /// Resident memory.
    resident_bytes: Vec<u64>,
    /// Messages a second from clients, and from workers.
    up_messages_per_second: Vec<f64>,
    down_messages_per_second: Vec<f64>,
    /// Their payload bytes a second.
    up_bytes_per_second: Vec<f64>,
    down_bytes_per_second: Vec<f64>,
    /// Workers lost under a pipe in the step on purpose: drains, moves, rebalancing.
    planned_interruptions: Vec<u64>,
    /// Workers lost for all other reasons.
    unplanned_interruptions: Vec<u64>,
    /// Messages given up.
    lost_messages: Vec<u64>,
    /// Milliseconds from an interruption to the next worker, of those that ended in the step; null where none did.
    reattach_p50_ms: Vec<Option<f64>>,
    reattach_p99_ms: Vec<Option<f64>>,
}

impl Ring {
    /// Ends a step.
    pub(super) fn read(&self, admin: &Admin) {
        let reading = Reading::take(admin);
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ring.last.replace(reading.clone());
        if let Some(before) = before {
            if ring.steps.len() == STEPS_MAX {
                ring.steps.pop_front();
            }
            ring.steps.push_back(Step::between(&before, reading));
        }
    }

    fn show(&self) -> History {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let step_ms = u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX);
        let at = ring.steps.back().map(|step| time(step.now.wall));
        let mut history = History { step_ms, at, ..History::default() };
        ring.steps.iter().for_each(|step| history.push(step));
        history
    }
}

impl History {
    fn push(&mut self, step: &Step) {
        let Reading { pipes, detached, eligible, held_bytes, resident_bytes, .. } = step.now;
        self.pipes.push(pipes);
        self.detached.push(detached);
        self.eligible.push(eligible);
        self.held_bytes.push(held_bytes);
        self.resident_bytes.push(resident_bytes);
        self.up_messages_per_second.push(step.rate(step.up.messages));
        self.down_messages_per_second.push(step.rate(step.down.messages));
        self.up_bytes_per_second.push(step.rate(step.up.bytes));
        self.down_bytes_per_second.push(step.rate(step.down.bytes));
        self.planned_interruptions.push(step.planned);
        self.unplanned_interruptions.push(step.unplanned);
        self.lost_messages.push(step.lost);
        self.reattach_p50_ms.push(step.p50_ms);
        self.reattach_p99_ms.push(step.p99_ms);
    }
}

impl Reading {
    fn take(admin: &Admin) -> Self {
        let metrics: &Metrics = &admin.process.metrics;
        let mut reading = Self {
            at: Instant::now(),
            wall: SystemTime::now(),
            pipes: 0,
            detached: 0,
            eligible: admin.process.backends.pools().iter().map(|pool| pool.eligible as u64).sum(),
            held_bytes: admin.process.pipes.held_bytes(),
            resident_bytes: resident_bytes(),
            up: Lane::default(),
            down: Lane::default(),
            planned: 0,
            unplanned: 0,
            lost: 0,
            reattaches: Buckets::default(),
        };
        let gauge = |value: i64| u64::try_from(value).unwrap_or(0);
        for (_, route) in metrics.routes() {
            reading.pipes += PipeState::ALL.map(|state| gauge(route.pipes(state))).iter().sum::<u64>();
            reading.detached += gauge(route.pipes(PipeState::Detached));
            reading.up.messages += route.up.messages.get();
            reading.up.bytes += route.up.bytes.get();
            reading.down.messages += route.down.messages.get();
            reading.down.bytes += route.down.bytes.get();
            reading.lost += route.up.lost_total() + route.down.lost_total();
        }
        for (_, pool) in metrics.pools() {
            let planned = pool.planned_interruptions_total();
            reading.planned += planned;
            reading.unplanned += pool.interruptions_total().saturating_sub(planned);
            reading.reattaches.add(&pool.reattach_seconds);
        }
        reading
    }
}

impl Step {
    fn between(before: &Reading, now: Reading) -> Self {
        let lane = |before: Lane, now: Lane| Lane {
            messages: now.messages.saturating_sub(before.messages),
            bytes: now.bytes.saturating_sub(before.bytes),
        };
        let reattaches = now.reattaches.since(&before.reattaches);
        Self {
            seconds: now.at.duration_since(before.at).as_secs_f64(),
            up: lane(before.up, now.up),
            down: lane(before.down, now.down),
            planned: now.planned.saturating_sub(before.planned),
            unplanned: now.unplanned.saturating_sub(before.unplanned),
            lost: now.lost.saturating_sub(before.lost),
            p50_ms: reattaches.quantile_ms(0.5),
            p99_ms: reattaches.quantile_ms(0.99),
            now,
        }
    }

    fn rate(&self, count: u64) -> f64 {
        if self.seconds > 0.0 { (count as f64 / self.seconds * 10.0).round() / 10.0 } else { 0.0 }
    }
}

impl Buckets {
    /// Adds another histogram with the same bounds.
    fn add(&mut self, histogram: &Histogram) {
        let metric = histogram.metric();
        let buckets = metric.get_histogram().get_bucket();
        self.0.resize(buckets.len(), (0.0, 0));
        for (sum, bucket) in self.0.iter_mut().zip(buckets) {
            *sum = (bucket.upper_bound(), sum.1 + bucket.cumulative_count());
        }
    }

    /// What came after an earlier reading; all of it if that had other bounds.
    fn since(&self, before: &Self) -> Self {
        let earlier = before.0.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
        Self(self.0.iter().zip(earlier).map(|(&(bound, count), was)| (bound, count.saturating_sub(was))).collect())
    }

    /// The time that this share did not exceed, taken to lie evenly between two bounds; nothing of nothing.
    fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count).filter(|count| *count > 0)? as f64;
        let wanted = share * total;
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            let count = count as f64;
            if count >= wanted && count > below {
                // Beyond the last bound nothing is known but that it was longer.
                let high = if bound.is_finite() { bound } else { low };
                let seconds = low + (high - low) * (wanted - below) / (count - below);
                return Some((seconds * 10_000.0).round() / 10.0);
            }
            (low, below) = (bound, count);
        }
        None
    }
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<History> {
    Json(admin.history.show())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(seconds: u64, messages: u64, buckets: [u64; 3]) -> Reading {
        let bounds = [0.005, 0.01, f64::INFINITY];
        let base = Instant::now();
        Reading {
            at: base + Duration::from_secs(seconds),
            wall: SystemTime::UNIX_EPOCH,
            pipes: 7,
            detached: 1,
            eligible: 2,
            held_bytes: 10,
            resident_bytes: 20,
            up: Lane { messages, bytes: messages * 100 },
            down: Lane::default(),
            planned: 1,
            unplanned: messages / 10,
            lost: 0,
            reattaches: Buckets(bounds.into_iter().zip(buckets).collect()),
        }
    }

    #[test]
    fn a_step_is_what_grew_between_two_readings() {
        let before = reading(0, 100, [50, 50, 50]);
        let now = Reading { at: before.at + STEP, ..reading(0, 200, [50, 150, 150]) };
        let step = Step::between(&before, now);
        assert_eq!((step.rate(step.up.messages), step.rate(step.up.bytes)), (20.0, 2_000.0));
        assert_eq!((step.planned, step.unplanned), (0, 10));
        assert_eq!((step.p50_ms, step.p99_ms), (Some(7.5), Some(10.0)), "of the hundred between 5 and 10 ms");
    }

    #[test]
    fn a_quantile_of_nothing_is_nothing_and_beyond_the_last_bound_it_is_that_bound() {
        assert_eq!(Buckets::default().quantile_ms(0.99), None);
        assert_eq!(Buckets(vec![(0.005, 0), (f64::INFINITY, 0)]).quantile_ms(0.5), None);
        assert_eq!(Buckets(vec![(0.005, 0), (f64::INFINITY, 3)]).quantile_ms(0.5), Some(5.0));
    }

    #[test]
    fn the_ring_keeps_the_newest_steps() {
        let ring = Ring::default();
        let step = Step::between(&reading(0, 0, [0; 3]), reading(5, 10, [0; 3]));
        {
            let mut steps = ring.0.lock().unwrap();
            steps.steps.extend(std::iter::repeat_n(step, STEPS_MAX));
        }
        let history = ring.show();
        assert_eq!((history.pipes.len(), history.step_ms), (STEPS_MAX, 5_000));
        assert!(history.at.is_some() && history.reattach_p99_ms.iter().all(Option::is_none));
        assert_eq!(Ring::default().show().at, None);
    }
}
