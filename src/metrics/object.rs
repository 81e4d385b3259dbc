//! The numbers of one route, pool or backend, resolved once and then only added to.

use std::sync::Arc;
use std::time::Duration;

use holdline_core::aware::words::GapWhy;
use holdline_core::leg::barrier::Level;
use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};

use super::labels::{
    AuthResult, BackendStateLabel, ConnectResult, DialState, DropReason, EjectCause, EndedBy, Hold, Interruption,
    LearnResult, LimitLabel, Loss, MoveResult, OverflowLabel, PipeState, PollResult, PrologueFailure, ReattachResult,
    ResumeResult, Transport, WaitResult, close_code, status_code,
};
use super::{BackendFacts, Families};
use crate::backends::WorkerReport;

/// What a route counts; a pipe holds it for life.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    families: Families,
    /// From client to backend.
    pub up: LaneMetrics,
    /// From backend to client.
    pub down: LaneMetrics,
    /// Control frames that clients sent without a mask.
    pub unmasked: IntCounter,
    /// Messages that a new worker was told again.
    pub prologue_sent: IntCounter,
    /// Answers held back because the client had had them.
    pub prologue_swallowed: IntCounter,
    /// Answers of workers whose labels were not taken.
    pub labels_refused: IntCounter,
    aware: [IntGauge; Transport::ALL.len()],
    prologue_bytes: IntGauge,
    prologue_failures: [IntCounter; PrologueFailure::ALL.len()],
    /// Pipes opened.
    pub pipes_total: IntCounter,
    /// Seconds from a handshake's head to our 101.
    pub handshake_seconds: Histogram,
    /// Seconds that closed pipes lived.
    pub pipe_seconds: Histogram,
    /// Pipes that found the stream they share open already.
    pub stream_reused: IntCounter,
    http_in_flight: IntGauge,
    http_seconds: Histogram,
    polls_parked: IntGauge,
    waiting: IntGauge,
    waited: [IntCounter; WaitResult::ALL.len()],
    learned: [IntCounter; LearnResult::ALL.len()],
    streams: IntGauge,
    pipes: [IntGauge; PipeState::ALL.len()],
    overflows: [IntCounter; OverflowLabel::ALL.len()],
    limited: [IntCounter; LimitLabel::ALL.len()],
    resumes: [[IntCounter; ResumeResult::ALL.len()]; Transport::ALL.len()],
    polls: [IntCounter; PollResult::ALL.len()],
    auths: [IntCounter; AuthResult::ALL.len()],
    /// From a question who may connect to its answer.
    pub auth_seconds: Histogram,
}

/// What one lane of a route counts.
#[derive(Debug)]
pub struct LaneMetrics {
    /// Whole messages relayed to their receiver for the first time.
    pub messages: IntCounter,
    /// Their payload bytes.
    pub bytes: IntCounter,
    /// Messages sent again after a reattach.
    pub replayed: IntCounter,
    /// Messages sent but unconfirmed when their receiver was lost.
    pub in_doubt: IntCounter,
    /// Times the sender was not read for lack of room.
    pub read_paused: IntCounter,
    /// Messages that an aware sender sent again and that had come before.
    pub duplicates: IntCounter,
    gaps: [IntCounter; GapWhy::ALL.len()],
    lost: [IntCounter; Loss::ALL.len()],
    dropped: [IntCounter; DropReason::ALL.len()],
    levels: [IntGauge; Level::ALL.len()],
}

impl LaneMetrics {
    fn new(families: &Families, route: &str, lane: &str) -> Self {
        let labels = [route, lane];
        Self {
            messages: families.messages_total.with_label_values(&labels),
            bytes: families.message_bytes_total.with_label_values(&labels),
            replayed: families.replayed_messages_total.with_label_values(&labels),
            in_doubt: families.in_doubt_messages_total.with_label_values(&labels),
            read_paused: families.read_paused_total.with_label_values(&labels),
            duplicates: families.duplicates_dropped_total.with_label_values(&labels),
            gaps: GapWhy::ALL.map(|why| families.gaps_total.with_label_values(&[route, lane, why.as_str()])),
            lost: Loss::ALL
                .map(|reason| families.lost_messages_total.with_label_values(&[route, lane, reason.as_str()])),
            dropped: DropReason::ALL
                .map(|reason| families.dropped_messages_total.with_label_values(&[route, lane, reason.as_str()])),
            levels: Level::ALL.map(|level| families.pipe_levels.with_label_values(&[route, lane, level.as_str()])),
        }
    }

    /// The counter of gaps told for `why`.
    #[must_use]
    pub fn gap(&self, why: GapWhy) -> &IntCounter {
        &self.gaps[why as usize]
    }

    /// The counter of messages given up for `reason`.
    #[must_use]
    pub fn lost(&self, reason: Loss) -> &IntCounter {
        &self.lost[reason as usize]
    }

    /// The counter of messages dropped on purpose for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> &IntCounter {
        &self.dropped[reason as usize]
    }

    /// Messages given up, for all reasons together.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(IntCounter::get).sum()
    }

    /// Messages dropped, for all reasons together.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(IntCounter::get).sum()
    }
}

impl RouteMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        Self {
            up: LaneMetrics::new(families, name, "up"),
            down: LaneMetrics::new(families, name, "down"),
            unmasked: families.unmasked_control_frames_total.with_label_values(&[name]),
            prologue_sent: families.prologue_sent_total.with_label_values(&[name]),
            prologue_swallowed: families.prologue_swallowed_total.with_label_values(&[name]),
            labels_refused: families.labels_refused_total.with_label_values(&[name]),
            aware: Transport::ALL.map(|transport| families.aware_pipes.with_label_values(&[name, transport.as_str()])),
            prologue_bytes: families.prologue_bytes.with_label_values(&[name]),
            prologue_failures: PrologueFailure::ALL
                .map(|why| families.prologue_failures_total.with_label_values(&[name, why.as_str()])),
            pipes_total: families.pipes_total.with_label_values(&[name]),
            handshake_seconds: families.handshake_duration_seconds.with_label_values(&[name]),
            pipe_seconds: families.pipe_duration_seconds.with_label_values(&[name]),
            stream_reused: families.shared_stream_reuse_total.with_label_values(&[name]),
            http_in_flight: families.http_requests.with_label_values(&[name]),
            http_seconds: families.http_request_duration_seconds.with_label_values(&[name]),
            polls_parked: families.polls_parked.with_label_values(&[name]),
            learned: LearnResult::ALL
                .map(|result| families.learned_keys_total.with_label_values(&[name, result.as_str()])),
            waiting: families.requests_waiting.with_label_values(&[name]),
            waited: WaitResult::ALL.map(|result| families.waits_total.with_label_values(&[name, result.as_str()])),
            streams: families.shared_streams.with_label_values(&[name]),
            pipes: PipeState::ALL.map(|state| families.pipes.with_label_values(&[name, state.as_str()])),
            overflows: OverflowLabel::ALL
                .map(|policy| families.replay_overflows_total.with_label_values(&[name, policy.as_str()])),
            limited: LimitLabel::ALL
                .map(|limit| families.rate_limited_total.with_label_values(&[name, limit.as_str()])),
            polls: PollResult::ALL
                .map(|result| families.poll_requests_total.with_label_values(&[name, result.as_str()])),
            resumes: Transport::ALL.map(|transport| {
                ResumeResult::ALL.map(|result| {
                    families.client_resumes_total.with_label_values(&[name, transport.as_str(), result.as_str()])
                })
            }),
            auths: AuthResult::ALL
                .map(|result| families.auth_requests_total.with_label_values(&[name, result.as_str()])),
            auth_seconds: families.auth_duration_seconds.with_label_values(&[name]),
            families: families.clone(),
            name: name.into(),
        }
    }

    /// Counts a request as waiting for a worker until the value returned goes.
    #[must_use]
    pub fn waits(&self) -> GaugeGuard {
        GaugeGuard::new(self.waiting.clone())
    }

    /// The counter of answers in which a key was looked for with this result.
    #[must_use]
    pub fn learned(&self, result: LearnResult) -> &IntCounter {
        &self.learned[result as usize]
    }

    /// The counter of waits with this result.
    #[must_use]
    pub fn waited(&self, result: WaitResult) -> &IntCounter {
        &self.waited[result as usize]
    }

    /// The counter of requests without a socket that were answered so.
    #[must_use]
    pub fn poll(&self, result: PollResult) -> &IntCounter {
        &self.polls[result as usize]
    }

    /// The counter of clients that came back by this transport with this result.
    #[must_use]
    pub fn resume(&self, transport: Transport, result: ResumeResult) -> &IntCounter {
        &self.resumes[transport as usize][result as usize]
    }

    /// The counter of questions who may connect with this result.
    #[must_use]
    pub fn auth(&self, result: AuthResult) -> &IntCounter {
        &self.auths[result as usize]
    }

    /// Counts the answer to a handshake.
    pub fn handshake(&self, status: u16) {
        self.families.handshakes_total.with_label_values(&[&*self.name, status_code(status)]).inc();
    }

    /// The route's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a plain request as being answered until the value returned goes.
    #[must_use]
    pub fn http_in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(self.http_in_flight.clone())
    }

    /// Counts a plain request as waiting for its worker until the value returned goes.
    #[must_use]
    pub fn poll_parked(&self) -> GaugeGuard {
        GaugeGuard::new(self.polls_parked.clone())
    }

    /// Counts a plain request that is over: its status, and how long the head of its answer took if there was one.
    pub fn http_request(&self, status: u16, took: Option<Duration>) {
        self.families.http_requests_total.with_label_values(&[&*self.name, status_code(status)]).inc();
        if let Some(took) = took {
            self.http_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a pipe as opened, and keeps it in the gauge of its state until the value returned goes.
    #[must_use]
    pub fn open_pipe(self: &Arc<Self>, state: PipeState) -> PipeGauge {
        self.pipes_total.inc();
        self.adopt_pipe(state)
    }

    /// The same for a pipe that another process has opened.
    #[must_use]
    pub fn adopt_pipe(self: &Arc<Self>, state: PipeState) -> PipeGauge {
        self.pipes[state as usize].inc();
        PipeGauge { route: self.clone(), state, levels: None, prologue_bytes: 0, aware: None }
    }

    /// Counts a shared stream as open until the value returned goes.
    #[must_use]
    pub fn open_stream(&self) -> GaugeGuard {
        GaugeGuard::new(self.streams.clone())
    }

    /// Counts the end of a pipe: by whom, and with what code the client was told.
    pub fn pipe_closed(&self, side: EndedBy, code: u16) {
        self.families.pipe_closes_total.with_label_values(&[&*self.name, side.as_str(), close_code(code)]).inc();
    }

    /// The counter of full replay buffers.
    #[must_use]
    pub fn overflow(&self, policy: OverflowLabel) -> &IntCounter {
        &self.overflows[policy as usize]
    }

    /// The counter of conversations that could not be said again for `why`.
    #[must_use]
    pub fn prologue_failed(&self, why: PrologueFailure) -> &IntCounter {
        &self.prologue_failures[why as usize]
    }

    /// The counter of those that met this limit.
    #[must_use]
    pub fn limited(&self, limit: LimitLabel) -> &IntCounter {
        &self.limited[limit as usize]
    }

    /// Those that met a limit, whichever.
    #[must_use]
    pub fn limited_total(&self) -> u64 {
        self.limited.iter().map(IntCounter::get).sum()
    }

    /// Live pipes in this state.
    #[must_use]
    pub fn pipes(&self, state: PipeState) -> i64 {
        self.pipes[state as usize].get()
    }
}

/// One live pipe in the gauges of its route: moving it moves the gauges, dropping it takes it out.
#[derive(Debug)]
pub struct PipeGauge {
    route: Arc<RouteMetrics>,
    state: PipeState,
    /// Of the lanes up and down, once they are known.
    levels: Option<(Level, Level)>,
    /// What was counted: no prologue has more, and each pipe has one of these.
    prologue_bytes: u32,
    aware: Option<Transport>,
}

impl PipeGauge {
    /// Counts the pipe's lanes at other levels from now on.
    pub fn set_levels(&mut self, up: Level, down: Level) {
        if self.levels != Some((up, down)) {
            self.drop_levels();
            self.route.up.levels[up as usize].inc();
            self.route.down.levels[down as usize].inc();
            self.levels = Some((up, down));
        }
    }

    fn drop_levels(&mut self) {
        if let Some((up, down)) = self.levels.take() {
            self.route.up.levels[up as usize].dec();
            self.route.down.levels[down as usize].dec();
        }
    }

    /// Counts the pipe as one whose client numbers its messages and is reached so, or does not, from now on.
    pub fn set_aware(&mut self, aware: Option<Transport>) {
        if self.aware == aware {
            return;
        }
        if let Some(before) = self.aware {
            self.route.aware[before as usize].dec();
        }
        if let Some(now) = aware {
            self.route.aware[now as usize].inc();
        }
        self.aware = aware;
    }

    /// Counts the pipe in another state from now on.
    pub fn set(&mut self, state: PipeState) {
        self.route.pipes[self.state as usize].dec();
        self.route.pipes[state as usize].inc();
        self.state = state;
    }

    /// Counts so many bytes as the pipe's prologue from now on.
    pub fn set_prologue(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.prologue_bytes != bytes {
            self.route.prologue_bytes.add(i64::from(bytes) - i64::from(self.prologue_bytes));
            self.prologue_bytes = bytes;
        }
    }
}

impl Drop for PipeGauge {
    fn drop(&mut self) {
        self.set_prologue(0);
        self.set_aware(None);
        self.route.pipes[self.state as usize].dec();
        self.drop_levels();
    }
}

/// Counts one thing as live until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Adds one to `gauge` until the guard is dropped.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

/// Takes one from a gauge for as long as it lives.
#[derive(Debug)]
pub struct AbsentGuard(IntGauge);

impl AbsentGuard {
    /// Takes one from `gauge` until the guard is dropped.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        gauge.dec();
        Self(gauge)
    }
}

impl Drop for AbsentGuard {
    fn drop(&mut self) {
        self.0.inc();
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a pool counts.
#[derive(Debug)]
pub struct PoolMetrics {
    /// Seconds from an interruption to the next backend's 101.
    pub reattach_seconds: Histogram,
    /// Seconds from a dial to the backend's 101.
    pub connect_seconds: Histogram,
    /// Leases not renewed in time.
    pub leases_expired: IntCounter,
    /// Bytes that its pipes hold in replay buffers.
    pub held_bytes: IntGauge,
    interruptions: [IntCounter; Interruption::ALL.len()],
    reattach: [IntCounter; ReattachResult::ALL.len()],
    dials: [IntGauge; DialState::ALL.len()],
    held: [IntGauge; Hold::ALL.len()],
    moves: [IntCounter; MoveResult::ALL.len()],
    ejections: [IntCounter; EjectCause::ALL.len()],
}

impl PoolMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        Self {
            reattach_seconds: families.reattach_duration_seconds.with_label_values(&[name]),
            connect_seconds: families.backend_connect_duration_seconds.with_label_values(&[name]),
            leases_expired: families.leases_expired_total.with_label_values(&[name]),
            held_bytes: families.replay_buffer_pool_bytes.with_label_values(&[name]),
            interruptions: Interruption::ALL
                .map(|reason| families.interruptions_total.with_label_values(&[name, reason.as_str()])),
            reattach: ReattachResult::ALL
                .map(|result| families.reattach_total.with_label_values(&[name, result.as_str()])),
            dials: DialState::ALL.map(|state| families.reattach_dials.with_label_values(&[name, state.as_str()])),
            held: Hold::ALL.map(|reason| families.reattach_held.with_label_values(&[name, reason.as_str()])),
            moves: MoveResult::ALL.map(|result| families.moves_total.with_label_values(&[name, result.as_str()])),
            ejections: EjectCause::ALL
                .map(|reason| families.backend_ejections_total.with_label_values(&[name, reason.as_str()])),
        }
    }

    /// The counter of backend legs lost for `reason`.
    #[must_use]
    pub fn interrupted(&self, reason: Interruption) -> &IntCounter {
        &self.interruptions[reason as usize]
    }

    /// The counter of interruptions that ended so.
    #[must_use]
    pub fn reattach(&self, result: ReattachResult) -> &IntCounter {
        &self.reattach[result as usize]
    }

    /// Counts a dial in `state` until the value returned goes.
    #[must_use]
    pub fn dial(&self, state: DialState) -> GaugeGuard {
        GaugeGuard::new(self.dials[state as usize].clone())
    }

    /// The gauge of pipes that `reason` keeps waiting.
    #[must_use]
    pub fn held(&self, reason: Hold) -> &IntGauge {
        &self.held[reason as usize]
    }

    /// The counter of planned moves that ended so.
    #[must_use]
    pub fn moved(&self, result: MoveResult) -> &IntCounter {
        &self.moves[result as usize]
    }

    /// The counter of backends put aside for `reason`.
    #[must_use]
    pub fn ejected(&self, reason: EjectCause) -> &IntCounter {
        &self.ejections[reason as usize]
    }

    /// Backend legs that were left on purpose: by a drain, an operator's move, or Holdline's own.
    #[must_use]
    pub fn planned_interruptions_total(&self) -> u64 {
        let planned = [Interruption::Drain, Interruption::Admin, Interruption::Handover];
        planned.into_iter().map(|reason| self.interrupted(reason).get()).sum()
    }

    /// Backend legs lost, for all reasons together.
    #[must_use]
    pub fn interruptions_total(&self) -> u64 {
        self.interruptions.iter().map(IntCounter::get).sum()
    }
}

/// What a backend counts; its series go when it goes.
#[derive(Debug)]
pub struct BackendMetrics {
    pool: String,
    backend: String,
    up: IntGauge,
    states: [IntGauge; BackendStateLabel::ALL.len()],
    pipes: IntGauge,
    connects: [IntCounter; ConnectResult::ALL.len()],
}

impl BackendMetrics {
    pub(super) fn new(families: &Families, pool: &str, backend: &str) -> Self {
        Self {
            up: families.backend_up.with_label_values(&[pool, backend]),
            states: BackendStateLabel::ALL
                .map(|state| families.backend_state.with_label_values(&[pool, backend, state.as_str()])),
            pipes: families.backend_pipes.with_label_values(&[pool, backend]),
            connects: ConnectResult::ALL
                .map(|result| families.backend_connects_total.with_label_values(&[pool, backend, result.as_str()])),
            pool: pool.into(),
            backend: backend.into(),
        }
    }

    /// The counter of dials that ended so.
    #[must_use]
    pub fn connect(&self, result: ConnectResult) -> &IntCounter {
        &self.connects[result as usize]
    }

    /// Dials that did not end in an attach.
    #[must_use]
    pub fn connect_failures(&self) -> u64 {
        let attached = self.connects[ConnectResult::Attached as usize].get();
        self.connects.iter().map(IntCounter::get).sum::<u64>() - attached
    }

    pub(super) fn set(&self, families: &Families, facts: &BackendFacts) {
        let BackendFacts { up, states, pipes, report, .. } = facts;
        self.up.set(i64::from(*up));
        for state in BackendStateLabel::ALL {
            self.states[state as usize].set(i64::from(states.contains(&state)));
        }
        self.pipes.set(gauge(*pipes));
        for (family, value) in reported(families, report) {
            let labels = [&*self.pool, &*self.backend];
            match value {
                Some(value) => family.with_label_values(&labels).set(gauge(value)),
                // What is not reported any more has no series, and one that is gone already is as good as one removed.
                None => drop(family.remove_label_values(&labels)),
            }
        }
    }

    pub(super) fn forget(&self, families: &Families) {
        let labels = [&*self.pool, &*self.backend];
        // A series that is gone already is as good as one removed.
        let _ = families.backend_up.remove_label_values(&labels);
        let _ = families.backend_pipes.remove_label_values(&labels);
        for (family, _) in reported(families, &WorkerReport::default()) {
            let _ = family.remove_label_values(&labels);
        }
        for state in BackendStateLabel::ALL {
            let _ = families.backend_state.remove_label_values(&[labels[0], labels[1], state.as_str()]);
        }
        for result in ConnectResult::ALL {
            let _ = families.backend_connects_total.remove_label_values(&[labels[0], labels[1], result.as_str()]);
        }
    }
}

/// What a worker says about itself, by the family that it goes into.
fn reported<'a>(families: &'a Families, report: &WorkerReport) -> [(&'a IntGaugeVec, Option<u64>); 3] {
    [
        (&families.backend_reported_memory_bytes, report.memory_bytes),
        (&families.backend_reported_memory_limit_bytes, report.memory_limit_bytes),
        (&families.backend_reported_cpu_percent, report.cpu_percent.map(u64::from)),
    ]
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
