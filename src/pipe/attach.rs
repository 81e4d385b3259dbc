//! Finding a worker for a pipe: the first time, before the client is answered, and every time after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdline_core::ids::{Attachment, BackendKey, PipeId, Seq};
use holdline_core::labels::Relabel;
use holdline_core::pipe::{Cause, DialFailure, DialOrder, ResumeAnswer};
use holdline_core::settings::PipeSettings;

use super::backend_end::Transport;
use super::holding::hold;
use super::link::Link;
use crate::backends::{Ask, Backends, Hold, NoBackend, Outcome, Reservation};
use crate::handshake::deflate::{Agreed, Asked};
use crate::handshake::dial::{
    Dial, DialError, DialTimeouts, Dialed, ExpectedProtocol, HoldlineResume, SaidLabels, dial,
};
use crate::handshake::forward::backend_host;
use crate::hops::own_id;
use crate::metrics::labels::{ConnectResult, DialState};
use crate::net::{self, Announced};
use crate::pipes::PipeEntry;
use crate::process::Process;
use crate::routes::{HostRule, Route, Target};
use crate::share::ViewerLink;
use crate::trace::{Context, Name, Span};
use crate::waiting::Patience;

/// Backends that a first attach tries at most before the client is answered.
pub const FIRST_ATTACH_TRIES_MAX: usize = 8;

/// The part of what is left of a pipe's grace that connecting to one worker may take.
const CONNECT_SHARE: u32 = 3;

/// How long a worker may answer a dial at least, however little is left of the grace.
const ANSWER_MIN: Duration = Duration::from_secs(2);

/// How long a pipe waits for a change of its pool before it looks again after a worker that is out for now.
const AWAITED_RECHECK: Duration = Duration::from_secs(5);

/// What every dial of a pipe needs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipe's name.
    pub pipe: PipeId,
    /// Its route.
    pub route: Arc<Route>,
    /// What it lives by.
    pub settings: Arc<PipeSettings>,
    /// Its route key.
    pub key: Option<Arc<str>>,
    /// What to ask a backend for.
    pub target: Target,
    /// The client's `Host`.
    pub host: Option<Box<str>>,
    /// Whose connections its workers are told that they get; nothing for those that many clients share.
    pub announced: Option<Announced>,
    /// The client's headers, ready for each dial.
    pub head_lines: Box<[u8]>,
    /// The subprotocols it offered.
    pub protocols: Box<[String]>,
    /// The one that the first backend picked.
    pub protocol: Option<Box<str>>,
    /// Whether workers that may are offered the aware protocol; after the first one, whether that one speaks it.
    pub numbers: bool,
    /// The compression that workers are asked for; what the first one agreed to, after it.
    pub compression: Asked,
    /// The span of its handshake, if that is recorded.
    pub trace: Option<Box<Context>>,
}

impl Plan {
    /// The key that decides which backend the pipe may have.
    pub fn key_to_ask(&self, backends: &Backends) -> Option<&str> {
        backends.key_of(&self.route.pool, self.key.as_deref(), self.route.any_without_owner)
    }
}

/// A worker that answered 101, or a stream that has one.
#[derive(Debug)]
pub struct Attach {
    /// The way to it.
    pub transport: Transport,
    /// What it says about the pipe's state.
    pub resume: Option<ResumeAnswer>,
    /// What it says of the groups that the pipe belongs to.
    pub labels: Option<SaidLabels>,
    /// Whether it speaks the aware protocol.
    pub numbers: bool,
}

/// A first attach: the worker, and what its 101 has for the client.
#[derive(Debug)]
pub struct FirstAttach {
    /// The worker.
    pub attach: Attach,
    /// Its headers for the client.
    pub headers: http::HeaderMap,
    /// The subprotocol it picked.
    pub protocol: Option<String>,
    /// The compression that it agreed to.
    pub compression: Option<Agreed>,
}

/// Why a new pipe has no worker.
#[derive(Debug, thiserror::Error)]
pub enum NoWorker {
    /// None may be chosen.
    #[error("no backend can take this now")]
    NoCandidate(NoBackend),
    /// This came of the last one tried.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// What the core wants of a dial for a live pipe.
#[derive(Debug)]
pub struct Wanted {
    /// The order.
    pub order: DialOrder,
    /// Backends that must not be chosen.
    pub exclude: Vec<BackendKey>,
    /// The name of the backend before.
    pub previous: Option<Arc<str>>,
    /// When the pipe's grace ends; nothing where a worker is there meanwhile, or it has no end.
    pub grace_ends: Option<Instant>,
}

impl Wanted {
    /// How long the pipe can wait for a worker from now on.
    fn time_left(&self, settings: &PipeSettings) -> Duration {
        let left = self.grace_ends.map(|at| at.saturating_duration_since(Instant::now()));
        left.or(settings.grace).unwrap_or(Duration::MAX)
    }
}

/// One dial.
struct Attempt<'a> {
    reservation: &'a Reservation,
    headers: Vec<(&'static str, String)>,
    expected: ExpectedProtocol<'a>,
    compression: Asked,
    timeouts: DialTimeouts,
    span: Option<Span>,
}

impl NoWorker {
    /// Whether that may change soon: a worker that is out comes back, or a place becomes free.
    fn may_pass(&self) -> bool {
        match self {
            Self::NoCandidate(none) => none.may_pass(),
            Self::Dial(DialError::ConnectFailed(error)) => error.kind.may_pass(),
            // A worker has had the request, and may have died of it.
            Self::Dial(_) => false,
        }
    }
}

/// Finds the worker that a new pipe starts on: the one that its client `had_before`, if that may be. While none can take it, it waits for one, where its route says so.
///
/// # Errors
/// Why there is none.
pub async fn first_attach(
    plan: &Plan,
    had_before: Option<BackendKey>,
    process: &Process,
) -> Result<FirstAttach, NoWorker> {
    let mut patience: Option<Box<Patience>> = None;
    loop {
        let none = match attach_now(plan, had_before, patience.is_some(), process).await {
            Ok(first) => {
                if let Some(patience) = &mut patience {
                    patience.served();
                }
                return Ok(first);
            }
            Err(none) => none,
        };
        if none.may_pass() && patience.is_none() {
            patience = process.waiting.patience(&plan.route);
        }
        let looks_again = match &mut patience {
            Some(patience) => none.may_pass() && patience.another_look().await,
            None => false,
        };
        if !looks_again {
            return Err(none);
        }
    }
}

/// Finds the worker that a new pipe starts on, if one can take it now. Many that have waited come at once, and take turns.
async fn attach_now(
    plan: &Plan,
    had_before: Option<BackendKey>,
    has_waited: bool,
    process: &Process,
) -> Result<FirstAttach, NoWorker> {
    let (mut exclude, mut compression) = (Vec::new(), plan.compression);
    let choose = |exclude: &[BackendKey]| {
        let ask = Ask {
            key: plan.key_to_ask(&process.backends),
            exclude,
            pipe: Some(plan.pipe),
            prefer: had_before,
            ..Ask::default()
        };
        process.backends.choose(&plan.route.pool, &ask)
    };
    let mut reservation = choose(&exclude).map_err(NoWorker::NoCandidate)?;
    loop {
        let _turn = match has_waited {
            true => Some(reservation.turn().await),
            false => None,
        };
        // With room for what each attach tells besides.
        let mut headers = Vec::with_capacity(4);
        headers.push(("Holdline-Pipe", plan.pipe.to_string()));
        headers.push(("Holdline-Attach", Attachment::FIRST.0.to_string()));
        let span = process.tracer.child(Name::Attach, plan.trace.as_deref());
        // No number can stand before a compressed message.
        let numbered = plan.numbers && reservation.target().may_number();
        let attempt = Attempt {
            reservation: &reservation,
            headers,
            expected: ExpectedProtocol::Offered,
            compression: if numbered { Asked::Nothing } else { compression },
            timeouts: process.rules.load().dial,
            span,
        };
        let error = match connect(plan, attempt, std::future::pending(), process).await {
            Ok(mut dialed) => {
                let (headers, protocol) = (std::mem::take(&mut dialed.headers), dialed.protocol.take());
                let compression = dialed.compression;
                return Ok(FirstAttach { attach: Attach::new(reservation, dialed), headers, protocol, compression });
            }
            // It would compress in another way than it was asked to: then it is asked not to.
            Err(DialError::BadCompression) if compression != Asked::Nothing => {
                compression = Asked::Nothing;
                continue;
            }
            Err(error) => error,
        };
        exclude.push(reservation.key());
        if error.was_delivered() || exclude.len() == FIRST_ATTACH_TRIES_MAX {
            return Err(error.into());
        }
        let Ok(next) = choose(&exclude) else { return Err(error.into()) };
        reservation = next;
    }
}

/// Finds another worker for a live pipe: one choice, one dial. `search` is the span of the whole search.
///
/// A worker that was given the request may be at it: it is waited for until `server.backend_handshake_timeout`. Only where
/// another may have the pipe, it has to answer in two thirds of what is left of the grace, so that one that is frozen does
/// not use up all of it.
///
/// # Errors
/// Why there is none; the core decides what next.
pub async fn next_attach(
    plan: Arc<Plan>,
    wanted: Wanted,
    search: Option<Context>,
    entry: Arc<PipeEntry>,
    process: Arc<Process>,
) -> Result<Attach, DialFailure> {
    let Wanted { order, exclude, previous, .. } = &wanted;
    // One that went without a word is most likely gone.
    let avoid = order.avoid.or((order.cause == Cause::Crash).then_some(order.previous));
    let ask = Ask { key: plan.key_to_ask(&process.backends), exclude, avoid, pipe: Some(plan.pipe), prefer: None };
    let reservation = match process.backends.choose(&plan.route.pool, &ask) {
        Ok(reservation) => reservation,
        Err(none) => {
            let retry_after = none.retry_at.map(|at| at.saturating_duration_since(tokio::time::Instant::now()));
            hold(&process, &entry, none.hold(), retry_after);
            return Err(match retry_after {
                // A wrong worker's word is not the last one while another may come back.
                None if none.awaited => DialFailure::Out { recheck: AWAITED_RECHECK },
                _ => DialFailure::NoCandidate { retry_after },
            });
        }
    };
    let pool = process.metrics.pool(reservation.pool());
    let turn = match reservation.turn_now() {
        Some(turn) => turn,
        None => {
            let _waiting = pool.dial(DialState::Waiting);
            hold(&process, &entry, Hold::DialsAtOnce, None);
            reservation.turn().await
        }
    };
    if turn.waited && !process.backends.is_eligible(reservation.key()) {
        return Err(DialFailure::Failed(reservation.key()));
    }
    let _running = pool.dial(DialState::Running);
    let left = wanted.time_left(&plan.settings);
    let timeouts = process.rules.load().dial;
    let attempt = Attempt {
        reservation: &reservation,
        headers: attach_headers(&plan, order, previous.as_deref()),
        expected: ExpectedProtocol::Exactly(plan.protocol.as_deref()),
        compression: plan.compression,
        timeouts: DialTimeouts { connect: timeouts.connect.min((left / CONNECT_SHARE).max(ANSWER_MIN)), ..timeouts },
        span: process.tracer.child(Name::Attach, search.as_ref()),
    };
    let mut others = exclude.clone();
    others.push(reservation.key());
    let gives_way = until_another_may(&plan, &others, (left - left / 3).max(ANSWER_MIN), &process);
    match connect(&plan, attempt, gives_way, &process).await {
        Ok(dialed) => Ok(Attach::new(reservation, dialed)),
        Err(error) => Err(failure(&error, reservation.key(), order.cause)),
    }
}

/// What a failed dial of `backend` says.
fn failure(error: &DialError, backend: BackendKey, cause: Cause) -> DialFailure {
    match error {
        DialError::NotUpgraded(answer) => match answer.status.as_u16() {
            // What a worker says at a planned move ends nothing: the client's ticket may have been for once.
            status @ (401 | 403) if !cause.is_planned() => DialFailure::Unauthorized { backend, status },
            // About credentials, or about now: it may be another answer next time.
            401 | 403 | 408 | 421 | 425 | 429 => DialFailure::Failed(backend),
            status @ 400..=499 => DialFailure::Refused { backend, status },
            _ => DialFailure::Failed(backend),
        },
        DialError::ConnectFailed(error) => match error.kind {
            net::DialFailure::Refused | net::DialFailure::Unreachable | net::DialFailure::Resolve => {
                DialFailure::Absent(backend)
            }
            net::DialFailure::Timeout
            | net::DialFailure::NotAllowed
            | net::DialFailure::SocketNotAllowed
            | net::DialFailure::Tls
            | net::DialFailure::BadAnswer
            | net::DialFailure::BadProtocol
            | net::DialFailure::Status(_)
            | net::DialFailure::OwnListener
            | net::DialFailure::Local => DialFailure::Failed(backend),
        },
        DialError::HandshakeTimeout
        | DialError::HandshakeLost(_)
        | DialError::BadAccept(_)
        | DialError::BadProtocol
        | DialError::BadExtension
        | DialError::BadCompression
        | DialError::MalformedResponse(_) => DialFailure::Failed(backend),
    }
}

/// Comes once a worker has had its `time`, and another than those of `exclude` may have the pipe.
async fn until_another_may(plan: &Plan, exclude: &[BackendKey], time: Duration, process: &Process) {
    tokio::time::sleep(time).await;
    let (backends, pool) = (&process.backends, &plan.route.pool);
    let Some(mut watch) = backends.watch(pool) else { return std::future::pending().await };
    let ask = Ask { key: plan.key_to_ask(backends), exclude, pipe: Some(plan.pipe), ..Ask::default() };
    while !backends.has_another(pool, &ask) {
        watch.changed().await;
    }
}

/// What every attach but the first tells the worker (PROTOCOL section 6).
fn attach_headers(plan: &Plan, order: &DialOrder, previous: Option<&str>) -> Vec<(&'static str, String)> {
    let range = |(Seq(from), Seq(to))| format!("{from}-{to}");
    let mut headers = vec![
        ("Holdline-Pipe", plan.pipe.to_string()),
        ("Holdline-Attach", order.attachment.0.to_string()),
        ("Holdline-Cause", order.cause.as_str().to_owned()),
        ("Holdline-First-Seq", order.first_seq.0.to_string()),
        ("Holdline-Replay", format!("{}; bytes={}", order.again, order.bytes)),
        ("Holdline-Confirmed", format!("{}; level={}", order.confirmed.0, order.level.as_str())),
        ("Holdline-Gap", order.gap.map_or_else(|| "none".to_owned(), range)),
    ];
    if order.prologue > 0 {
        headers.push(("Holdline-Prologue", order.prologue.to_string()));
    }
    if let Some(previous) = previous {
        headers.push(("Holdline-Previous", previous.to_string()));
    }
    headers
}

/// Dials one backend and books how it went; one that has not answered when `gives_way` comes has taken too long.
async fn connect(
    plan: &Plan,
    attempt: Attempt<'_>,
    gives_way: impl Future<Output = ()>,
    process: &Process,
) -> Result<Dialed, DialError> {
    let Attempt { reservation, mut headers, expected, compression, timeouts, span } = attempt;
    headers.push(("Holdline-Hops", own_id().to_owned()));
    if let Some(span) = &span {
        // The worker's spans hang below this try.
        headers.push(("traceparent", span.context().traceparent()));
    }
    let numbered = plan.numbers && reservation.target().may_number();
    let url = reservation.url();
    let named = url.is_tls_by_name();
    // Most backends get the client's own, and most dials need not render theirs.
    let rule = &plan.route.host;
    let is_told = plan.host.is_none() || named || *rule == HostRule::Backend;
    let authority = if is_told { url.authority() } else { String::new() };
    let path = plan.target.for_backend(url.path_and_query(), reservation.alias());
    let tls = reservation.target().tls_peer();
    let proxy_header = reservation.target().proxy_header(plan.announced);
    let began = Instant::now();
    let result = match reservation.target().resolve().await {
        Ok(addresses) => {
            let dial = dial(Dial {
                addresses: &addresses,
                tls: tls.as_ref(),
                proxy_header: &proxy_header,
                host: backend_host(rule, plan.host.as_deref(), &authority, named),
                path: &path,
                head_lines: &plan.head_lines,
                protocols: &plan.protocols,
                numbered,
                expected,
                compression,
                attach: &headers,
                timeouts,
            });
            tokio::select! {
                biased;
                result = dial => result,
                () = gives_way => Err(DialError::HandshakeTimeout),
            }
        }
        Err(error) => Err(error.into()),
    };
    book(plan, reservation, &result, began.elapsed(), span, process);
    result
}

fn book(
    plan: &Plan,
    reservation: &Reservation,
    result: &Result<Dialed, DialError>,
    took: Duration,
    span: Option<Span>,
    process: &Process,
) {
    let outcome = match result {
        Ok(_) => Outcome::Connected,
        Err(error) => Outcome::DialFailed(error.failure()),
    };
    reservation.report(Some(plan.pipe), outcome);
    let label = connect_result(result);
    process.metrics.backend(reservation.pool(), reservation.id()).connect(label).inc();
    if let Some(mut span) = span {
        span.set("holdline.pool", reservation.pool().as_ref());
        span.set("holdline.backend", reservation.id().as_ref());
        span.set("holdline.result", label.as_str());
        if result.is_err() {
            span.fail(label.as_str());
        }
    }
    match result {
        Ok(_) => process.metrics.pool(reservation.pool()).connect_seconds.observe(took.as_secs_f64()),
        Err(error) => tracing::info!(pipe = %plan.pipe, backend = %reservation.id(), %error, "dial failed"),
    }
}

fn connect_result(result: &Result<Dialed, DialError>) -> ConnectResult {
    let Err(error) = result else { return ConnectResult::Attached };
    match error.failure() {
        net::DialFailure::Refused => ConnectResult::Refused,
        net::DialFailure::Timeout => ConnectResult::TimedOut,
        net::DialFailure::NotAllowed
        | net::DialFailure::SocketNotAllowed
        | net::DialFailure::OwnListener
        | net::DialFailure::Resolve => ConnectResult::Forbidden,
        net::DialFailure::Status(_) | net::DialFailure::BadAnswer | net::DialFailure::BadProtocol => {
            ConnectResult::Rejected
        }
        net::DialFailure::Unreachable | net::DialFailure::Tls | net::DialFailure::Local => ConnectResult::Failed,
    }
}

impl Attach {
    fn new(reservation: Reservation, dialed: Dialed) -> Self {
        let resume = dialed.resume.map(|resume| match resume {
            HoldlineResume::Ok { rx } => ResumeAnswer::Ok(Seq(rx)),
            HoldlineResume::New => ResumeAnswer::New,
            HoldlineResume::Refuse => ResumeAnswer::Refuse,
        });
        let transport = Transport::Worker(Link::new(dialed.stream, dialed.leftover), reservation);
        Self { transport, resume, labels: dialed.labels, numbers: dialed.numbers }
    }

    /// A seat in a shared stream, whose worker has put all its viewers into the same groups.
    #[must_use]
    pub fn viewer(link: ViewerLink) -> Self {
        let stream = &link.hub().pipe;
        let (name, labels) = (format!("shared:{}", stream.id).into(), stream.labels.get());
        let labels = labels.map(|labels| Ok(Relabel::from(&*labels)));
        Self { transport: Transport::Stream(Box::new(link), name), resume: None, labels, numbers: false }
    }
}
