//! What happened to a pipe, said where it belongs: metrics, events, the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use holdline_core::aware::Reject;
use holdline_core::aware::words::GapWhy;
use holdline_core::conversation::ConversationKind;
use holdline_core::ids::{BackendKey, Generation, LaneName};
use holdline_core::labels::LabelError;
use holdline_core::memory::Evict;
use holdline_core::pipe::{EndedBy, Fact, LaneView, Loss, PipeState, PipeView, PrologueFailure};
use holdline_core::settings::OverflowPolicy;
use holdline_core::time::Time;

use super::holding::release;
use super::life;
use crate::events;
use crate::hooks::Life;
use crate::metrics::labels::{DropReason, MoveResult, OverflowLabel, ReattachResult, ResumeResult, Transport};
use crate::metrics::{LaneMetrics, PipeGauge, PoolMetrics, RouteMetrics};
use crate::pipes::passport::Past;
use crate::pipes::{Decided, PipeEntry};
use crate::process::Process;
use crate::trace::{Context, Name, Span};

/// What the books need of a [`PipeView`] to see what is new; the rest is in the pipe's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Booked {
    state: PipeState,
    backend: Option<BackendKey>,
    /// No prologue has more than fit.
    prologue_bytes: u32,
    aware: Option<Transport>,
    up: Moved,
    down: Moved,
}

/// Messages of one lane, and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moved {
    accepted: u64,
    payload_bytes: u64,
}

impl Booked {
    fn new(view: &PipeView, transport: Transport) -> Self {
        let prologue_bytes = u32::try_from(view.prologue_bytes).unwrap_or(u32::MAX);
        Self {
            state: view.state,
            backend: view.backend,
            prologue_bytes,
            aware: view.aware.then_some(transport),
            up: Moved::new(&view.up),
            down: Moved::new(&view.down),
        }
    }

    /// Payload bytes that both lanes have moved since then.
    fn bytes_since(&self, before: Option<&Self>) -> u64 {
        let bytes = |booked: &Self| booked.up.payload_bytes + booked.down.payload_bytes;
        bytes(self).saturating_sub(before.map_or(0, bytes))
    }
}

impl Moved {
    const fn new(lane: &LaneView) -> Self {
        Self { accepted: lane.accepted.0, payload_bytes: lane.payload_bytes }
    }
}

/// The books of one pipe.
#[derive(Debug)]
pub struct Reporter {
    process: Arc<Process>,
    entry: Arc<PipeEntry>,
    route: Arc<RouteMetrics>,
    pool: Arc<PoolMetrics>,
    /// None for a stream's own pipe: its messages and its end are counted where its viewers are.
    gauge: Option<PipeGauge>,
    /// What was booked so far.
    booked: Option<Booked>,
    opened: Time,
    /// By whom, the code and the reason; only of a pipe that is over or about to be.
    ended: Option<Box<(EndedBy, u16, Box<str>)>>,
    searching: bool,
    /// The search as a tracing system sees it.
    search: Option<Box<Span>>,
    /// The search was given up because grace was over.
    expired: bool,
    /// Another process goes on with the pipe, and with its books.
    is_gone: bool,
}

impl Reporter {
    /// Opens the books, and says so in the log.
    #[must_use]
    pub fn open(process: &Arc<Process>, entry: &Arc<PipeEntry>, backend: &str) -> Self {
        let route = process.metrics.route(&entry.route.name);
        tracing::info!(
            pipe = %entry.id, route = entry.route.name.as_str(), key = entry.key.as_deref(), client = entry.client().as_str(), backend,
            request = Some(&*entry.request_id).filter(|id| !id.is_empty()),
            "pipe.open"
        );
        if !entry.is_stream() {
            process.hooks.tell(|| life::opened(entry, backend));
        }
        Self {
            process: process.clone(),
            entry: entry.clone(),
            pool: process.metrics.pool(&entry.route.pool),
            gauge: (!entry.is_stream()).then(|| route.open_pipe(PipeState::Attached)),
            route,
            booked: None,
            opened: process.clock.now(),
            ended: None,
            searching: false,
            search: None,
            expired: false,
            is_gone: false,
        }
    }

    /// Goes on with the books of a pipe that has come from another process, and says so in the log. What it moved there was
    /// counted there.
    #[must_use]
    pub fn resume(process: &Arc<Process>, entry: &Arc<PipeEntry>, view: &PipeView, past: &Past) -> Self {
        let route = process.metrics.route(&entry.route.name);
        tracing::debug!(pipe = %entry.id, route = entry.route.name.as_str(), "pipe.taken_over");
        let booked = Booked::new(view, entry.transport());
        let mut gauge = route.adopt_pipe(view.state);
        gauge.set_prologue(booked.prologue_bytes as usize);
        gauge.set_aware(booked.aware);
        let ended = past.ended.as_ref().and_then(|(by, code, reason)| Some((ended_by(by)?, *code, reason.clone())));
        Self {
            process: process.clone(),
            entry: entry.clone(),
            pool: process.metrics.pool(&entry.route.pool),
            gauge: Some(gauge),
            route,
            booked: Some(booked),
            opened: Time::from_micros(past.opened_at),
            ended: ended.map(Box::new),
            searching: past.searching,
            search: None,
            expired: past.expired,
            is_gone: false,
        }
    }

    /// What another process has to know to go on with these books.
    #[must_use]
    pub fn past(&self) -> Past {
        let entry = &self.entry;
        let opened_at = entry.opened_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = self.ended.as_deref().map(|(by, code, reason)| (by.as_str().into(), *code, reason.clone()));
        let decided = entry.conversation();
        Past {
            opened_at_ms: millis(opened_at),
            opened_at: self.opened.as_micros(),
            active_at: entry.active_at().as_micros(),
            answers: entry.answers(),
            transport: entry.transport() as u8,
            conversation: decided.map(|it| (it.kind.as_str().into(), it.profile, it.why.into())),
            searching: self.searching,
            expired: self.expired,
            ended,
        }
    }

    /// Another process goes on with the pipe: nothing more is said of it here.
    pub fn hand_over(&mut self) {
        tracing::debug!(pipe = %self.entry.id, "pipe.handed_over");
        self.is_gone = true;
    }

    /// Books what the lanes have moved since the last time.
    pub fn publish(&mut self, view: PipeView, fixed_bytes: usize, now: Time) {
        self.entry.publish(&view, fixed_bytes);
        if let Some(gauge) = &mut self.gauge {
            gauge.set_levels(view.up.level, view.down.level);
        }
        let view = Booked::new(&view, self.entry.transport());
        if self.booked == Some(view) {
            return;
        }
        let before = self.booked.replace(view);
        self.entry.rate.moved(view.bytes_since(before.as_ref()), now);
        if let Some(gauge) = &mut self.gauge {
            book_lane(&self.route.up, before.map(|view| view.up), view.up);
            book_lane(&self.route.down, before.map(|view| view.down), view.down);
            if before.is_none_or(|before| before.state != view.state) {
                gauge.set(view.state);
            }
            gauge.set_prologue(view.prologue_bytes as usize);
            gauge.set_aware(view.aware);
        }
        self.entry.was_active(now);
        if before.is_none_or(|before| (before.state, before.backend) != (view.state, view.backend)) {
            self.process.pipes.changed();
        }
    }

    /// Begins the span of a search for another worker, below that of the handshake; one that goes on keeps its own.
    pub fn trace_search(&mut self, handshake: Option<&Context>, reason: &str) {
        if self.search.is_some() {
            return;
        }
        self.search = self.process.tracer.child(Name::Reattach, handshake).map(|mut span| {
            span.set("holdline.pipe", self.entry.id.to_string().as_str());
            span.set("holdline.route", self.entry.route.name.as_str());
            span.set("holdline.reason", reason);
            Box::new(span)
        });
    }

    /// The span of the search that is under way.
    #[must_use]
    pub fn search(&self) -> Option<Context> {
        self.search.as_ref().map(|span| span.context())
    }

    fn end_search(&mut self, result: ReattachResult, replayed: u64) {
        let Some(mut span) = self.search.take() else { return };
        span.set("holdline.result", result.as_str());
        span.set("holdline.replayed", replayed);
        match result {
            ReattachResult::Attached
            | ReattachResult::ClientGone
            | ReattachResult::Closed
            | ReattachResult::CloseRoute => {}
            ReattachResult::Expired | ReattachResult::Refused => span.fail(result.as_str()),
        }
    }

    /// Says one fact; `last` is the backend that was attached last, and its name.
    pub fn say(&mut self, fact: Fact, last: Option<(BackendKey, &Arc<str>)>) {
        let name_of =
            |key: BackendKey| last.filter(|&(it, _)| it == key).map_or_else(|| Arc::from(""), |(_, name)| name.clone());
        match fact {
            Fact::Interrupted { attachment, reason, in_doubt, backend, gap: _ } => {
                self.searching = true;
                self.pool.interrupted(reason).inc();
                self.route.up.in_doubt.inc_by(in_doubt);
                let backend = name_of(backend);
                tracing::info!(pipe = %self.entry.id, backend = &*backend, reason = reason.as_str(), in_doubt, "pipe.interrupted");
                self.event(|entry| events::Fact::PipeInterrupted {
                    pipe: entry.id,
                    route: entry.route.name.as_str().into(),
                    pool: entry.route.pool.as_str().into(),
                    backend,
                    attachment: attachment.0,
                    reason: reason.as_str(),
                });
            }
            Fact::Reattached { attachment, outage, again, backend } => {
                self.searching = false;
                self.end_search(ReattachResult::Attached, again);
                self.pool.reattach(ReattachResult::Attached).inc();
                self.pool.reattach_seconds.observe(outage.as_secs_f64());
                let backend = name_of(backend);
                // a reattach is often over within a millisecond, so the fraction counts
                let took_ms = outage.as_micros() as f64 / 1000.0;
                tracing::info!(pipe = %self.entry.id, backend = &*backend, took_ms, replayed = again, "pipe.reattached");
                self.event(|entry| events::Fact::PipeReattached {
                    pipe: entry.id,
                    route: entry.route.name.as_str().into(),
                    pool: entry.route.pool.as_str().into(),
                    backend,
                    attachment: attachment.0,
                    replayed: again,
                    took_ms,
                });
            }
            Fact::Stayed { backend } => self.stayed(&name_of(backend)),
            Fact::LeftInDoubt { lane, messages } => self.lane(lane).in_doubt.inc_by(messages),
            Fact::Replayed { lane, messages } => self.lane(lane).replayed.inc_by(messages),
            Fact::ClientDetached { generation, in_doubt } => self.client_detached(generation, in_doubt),
            Fact::ClientAttached { generation, away, again } => self.client_attached(generation, away, again),
            Fact::ClientExpired { away } => self.client_expired(away),
            Fact::Lost { lane, reason, messages } => self.lost(lane, reason, messages),
            Fact::Dropped { lane, messages } => self.lane(lane).dropped(DropReason::Latest).inc_by(messages),
            Fact::Repeated { lane, messages } => self.lane(lane).duplicates.inc_by(messages),
            Fact::Gap { lane, why, messages } => self.gap(lane, why, messages),
            Fact::Overflowed(policy) => self.overflowed(policy),
            Fact::Limited { limit, .. } => self.route.limited(limit.into()).inc(),
            Fact::ReadPaused(lane) => self.lane(lane).read_paused.inc(),
            Fact::Expired { outage } => {
                self.expired = true;
                self.event(|entry| events::Fact::PipeExpired {
                    pipe: entry.id,
                    route: entry.route.name.as_str().into(),
                    pool: entry.route.pool.as_str().into(),
                    waited_ms: millis(outage),
                });
            }
            Fact::PongsMissing(backend) => self.pongs_missing(&name_of(backend)),
            Fact::Unmasked => self.route.unmasked.inc(),
            Fact::Conversation { kind, profile, why } => self.decided(kind, profile, why),
            Fact::PrologueSent { messages } => self.route.prologue_sent.inc_by(messages),
            Fact::PrologueSwallowed => self.route.prologue_swallowed.inc(),
            Fact::PrologueFailed(why) => self.prologue_failed(why),
            Fact::Ended { by, code, reason } => self.ends(by, code, reason.into()),
        }
    }

    /// The pipe begins to end. What was never to be helped has an event of its own; 1013 has one by its reason.
    fn ends(&mut self, by: EndedBy, code: u16, reason: Box<str>) {
        if by == EndedBy::Holdline && matches!(code, 1008 | 1011 | 1012) {
            self.event(|entry| events::Fact::PipeGivenUp {
                pipe: entry.id,
                route: entry.route.name.as_str().into(),
                pool: entry.route.pool.as_str().into(),
                code,
                reason: reason.clone(),
            });
        }
        self.ended = Some(Box::new((by, code, reason)));
    }

    fn decided(&self, kind: ConversationKind, profile: Option<Arc<str>>, why: &'static str) {
        self.entry.set_conversation(Decided { kind, profile: profile.clone(), why: why.into() });
        self.process.pipes.changed();
        tracing::info!(pipe = %self.entry.id, kind = kind.as_str(), profile = profile.as_deref(), why, "pipe.conversation");
        if self.entry.route.conversations.is_news((kind, profile.clone(), why)) {
            self.event(|entry| events::Fact::Conversation {
                pipe: entry.id,
                route: entry.route.name.as_str().into(),
                kind: kind.as_str(),
                profile,
                why,
            });
        }
    }

    fn prologue_failed(&self, why: PrologueFailure) {
        self.route.prologue_failed(why).inc();
        self.event(|entry| events::Fact::PrologueFailed {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            why: why.as_str(),
        });
    }

    fn gap(&self, lane: LaneName, why: GapWhy, messages: Option<u64>) {
        self.lane(lane).gap(why).inc();
        self.event(|entry| events::Fact::Gap {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            lane: lane.as_str(),
            why: why.as_str(),
            messages,
        });
    }

    fn overflowed(&self, policy: OverflowPolicy) {
        let policy = match policy {
            OverflowPolicy::Pause => OverflowLabel::Pause,
            OverflowPolicy::Close => OverflowLabel::Close,
        };
        self.route.overflow(policy).inc();
        self.event(|entry| events::Fact::ReplayOverflow {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            policy: policy.as_str(),
        });
    }

    fn client_detached(&self, generation: Generation, in_doubt: u64) {
        self.route.down.in_doubt.inc_by(in_doubt);
        tracing::info!(pipe = %self.entry.id, generation = generation.0, in_doubt, "pipe.client_detached");
        self.tell(|entry| life::client_detached(entry, generation));
        self.event(|entry| events::Fact::ClientDetached {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            generation: generation.0,
            in_doubt,
        });
    }

    fn client_attached(&self, generation: Generation, away: Option<Duration>, again: u64) {
        let result = if away.is_some() { ResumeResult::Resumed } else { ResumeResult::Replaced };
        self.route.resume(self.entry.transport(), result).inc();
        let away_ms = millis(away.unwrap_or_default());
        tracing::info!(
            pipe = %self.entry.id, generation = generation.0, away_ms, replayed = again, result = result.as_str(),
            "pipe.client_attached"
        );
        self.tell(|entry| life::client_attached(entry, generation, away.is_none(), away_ms));
        self.event(|entry| events::Fact::ClientAttached {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            generation: generation.0,
            replayed: again,
            replaced: away.is_none(),
            away_ms,
        });
    }

    /// Says that an aware client came back and may not go on.
    pub fn resume_rejected(&self, why: Reject, transport: Transport) {
        self.route.resume(transport, ResumeResult::Rejected).inc();
        tracing::info!(pipe = %self.entry.id, why = why.as_str(), "pipe.resume_rejected");
    }

    fn client_expired(&self, away: Duration) {
        self.route.resume(self.entry.transport(), ResumeResult::Expired).inc();
        let away_ms = millis(away);
        self.event(|entry| events::Fact::ClientExpired {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            away_ms,
        });
    }

    /// Says that the pipe was ended to free memory.
    pub fn evicted(&self, policy: Evict) {
        let bytes = self.entry.memory_bytes.load(Relaxed);
        self.process.metrics.evicted(policy);
        tracing::info!(pipe = %self.entry.id, policy = policy.as_str(), bytes, "pipe.evicted");
        self.event(|entry| events::Fact::Evicted {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            policy: policy.as_str(),
            bytes,
        });
    }

    /// Says that labels of a worker's were not taken.
    pub fn labels_refused(&self, why: &LabelError) {
        self.route.labels_refused.inc();
        tracing::warn!(pipe = %self.entry.id, route = self.entry.route.name, %why, "pipe.labels_refused");
    }

    fn stayed(&mut self, backend: &str) {
        self.moved(MoveResult::Stayed);
        if let Some(mut span) = self.search.take() {
            span.set("holdline.result", MoveResult::Stayed.as_str());
        }
        tracing::info!(pipe = %self.entry.id, backend, "pipe.stayed");
    }

    fn pongs_missing(&self, backend: &str) {
        tracing::warn!(pipe = %self.entry.id, backend, "no pongs: confirmed means written from here on");
    }

    /// Counts a planned move that ended so.
    pub fn moved(&self, result: MoveResult) {
        self.pool.moved(result).inc();
    }

    fn tell(&self, happened: impl FnOnce(&PipeEntry) -> Life) {
        // A stream's own pipe has no client; its viewers' are told of.
        if !self.entry.is_stream() {
            self.process.hooks.tell(|| happened(&self.entry));
        }
    }

    fn event(&self, make: impl FnOnce(&PipeEntry) -> events::Fact) {
        self.process.events.push(make(&self.entry));
    }

    fn lane(&self, lane: LaneName) -> &LaneMetrics {
        match lane {
            LaneName::Up => &self.route.up,
            LaneName::Down => &self.route.down,
        }
    }

    fn lost(&mut self, lane: LaneName, reason: Loss, messages: u64) {
        self.lane(lane).lost(reason).inc_by(messages);
        self.event(|entry| events::Fact::MessagesLost {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            lane: lane.as_str(),
            messages,
            reason: reason.as_str(),
        });
    }

    /// The code that the pipe ended with so far.
    fn ending(&self) -> (EndedBy, u16, &str) {
        self.ended.as_deref().map_or((EndedBy::Holdline, 1006, ""), |(by, code, reason)| (*by, *code, reason))
    }

    /// Says how an interruption ended in the end: the pipe is not there to be looked at any more.
    fn interrupted_ends(&self, by: EndedBy, code: u16, reason: &str, lived: Duration) {
        let interruptions = self.entry.interruptions.load(Relaxed);
        if interruptions == 0 {
            return;
        }
        self.event(|entry| events::Fact::PipeEnded {
            pipe: entry.id,
            route: entry.route.name.as_str().into(),
            pool: entry.route.pool.as_str().into(),
            code,
            reason: reason.into(),
            blame: by.as_str(),
            interruptions,
            lived_ms: millis(lived),
        });
    }

    fn close(&mut self) {
        let (by, code) = (self.ending().0, self.ending().1);
        let lived = self.process.clock.now().since(self.opened);
        if self.gauge.is_some() {
            self.route.pipe_closed(by, code);
            self.route.pipe_seconds.observe(lived.as_secs_f64());
        }
        let result = match by {
            EndedBy::Client => ReattachResult::ClientGone,
            EndedBy::Backend | EndedBy::Operator => ReattachResult::Closed,
            EndedBy::Holdline if code == 1008 => ReattachResult::Refused,
            EndedBy::Holdline if self.expired => ReattachResult::Expired,
            EndedBy::Holdline if !self.entry.moves() => ReattachResult::CloseRoute,
            // Each worker refused it.
            EndedBy::Holdline if code == 1012 => ReattachResult::Refused,
            EndedBy::Holdline => ReattachResult::Closed,
        };
        if self.searching {
            self.pool.reattach(result).inc();
        }
        self.end_search(result, 0);
        let (by, code, reason) = self.ending();
        self.tell(|entry| life::ended(entry, (by, code, reason), millis(lived)));
        self.interrupted_ends(by, code, reason, lived);
        let said = |number: &AtomicU64| number.load(Relaxed);
        let (up, down) = (&self.entry.up, &self.entry.down);
        tracing::info!(
            pipe = %self.entry.id,
            route = self.entry.route.name.as_str(),
            by = by.as_str(),
            code,
            reason,
            duration_ms = millis(lived),
            interruptions = said(&self.entry.interruptions),
            up = said(&up.accepted),
            up_lost = said(&up.lost),
            up_in_doubt = said(&up.in_doubt),
            down = said(&down.accepted),
            down_lost = said(&down.lost),
            "pipe.close"
        );
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        release(&self.process, &self.entry);
        if !self.is_gone {
            self.close();
        }
    }
}

/// Who is called so.
fn ended_by(name: &str) -> Option<EndedBy> {
    [EndedBy::Client, EndedBy::Backend, EndedBy::Operator, EndedBy::Holdline].into_iter().find(|by| by.as_str() == name)
}

fn book_lane(lane: &LaneMetrics, before: Option<Moved>, now: Moved) {
    let (accepted, bytes) = before.map_or((0, 0), |before| (before.accepted, before.payload_bytes));
    if now.accepted > accepted {
        lane.messages.inc_by(now.accepted - accepted);
        lane.bytes.inc_by(now.payload_bytes - bytes);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
