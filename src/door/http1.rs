//! One client connection, from its first byte to its pipe: heads are read, judged and routed here, and a client is
//! answered 101 only after a worker has been.
//!
//! hyper reads the requests; when a worker has answered 101, hyper is told to stop, we answer 101 in the spelling that
//! clients expect, and the bare socket goes to a pipe of its own.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

use holdline_core::ids::PipeId;
use holdline_core::memory::Pressure;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::comeback::{Back, name_of};
use super::request_line::{HeadComes, LenientLine};
use super::share::join_or_open;
use crate::clients::{Claim, Found as Behind, Home, Membership};
use crate::handshake::accept::{switching_head, switching_protocols};
use crate::handshake::check::{Checked, UpgradeRequest, asks_for_websocket, check, host, refuse_plain};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::forward::upgrade_head_lines;
use crate::handshake::refusal::Refusal;
use crate::http::{
    AnswerBody, Body, Caller, ClientSocket, HttpContext, LingerLimits, RequestBody, Talk, linger, relay,
};
use crate::limits::{Admission, Exceeded, Slot};
use crate::metrics::NO_ROUTE;
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::net::ClientStream;
use crate::phase::Phase;
use crate::pipe::attach::{FirstAttach, Plan, first_attach};
use crate::pipe::{ClientLink, Driver, Guards};
use crate::pipes::{Command, PipeFacts, Sharing};
use crate::process::Process;
use crate::routes::{Found, NoRoute};
use crate::send_timeout::SendTimeout;
use crate::share::StreamKey;
use crate::trace::{Name, Span};

/// The least that hyper takes for `server.header_bytes_max`.
const HEADER_BYTES_FLOOR: usize = 8192;

/// When a client that was turned away should come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What the connections of one data thread share.
#[derive(Debug)]
pub struct Front {
    /// The services of the process.
    pub process: Arc<Process>,
    /// Plain HTTP of this thread.
    pub http: HttpContext,
}

/// One accepted connection.
pub(super) struct Connection {
    pub(super) front: Arc<Front>,
    peer: IpAddr,
    over: bool,
    head_comes: HeadComes,
    talk: Arc<Talk>,
    /// The pipe that starts once its client's 101 has left.
    opened: Mutex<Option<Opened>>,
}

/// What a client that has been answered 101 gets.
pub(super) enum Opened {
    /// A pipe of its own, its places in the limits that count it, and its hold on the client's name.
    Pipe(Box<Driver>, Admission, Option<Membership>),
    /// The pipe that it has left.
    Back(Back),
}

/// Serves one client connection until it closes or becomes a pipe, which then goes on in a task of its own.
pub async fn serve_connection(front: Arc<Front>, stream: ClientStream, peer: IpAddr, slot: Slot) {
    let metrics = front.process.metrics.clone();
    let gauge = metrics.connection(ListenerLabel::Public);
    if slot.is_over() {
        metrics.connection_result(ListenerLabel::Public, ConnectionResult::Refused);
    }
    let head_comes = HeadComes::default();
    let stream = LenientLine::new(stream, head_comes.clone());
    let (over, talk) = (slot.is_over(), Arc::default());
    let connection =
        Arc::new(Connection { front: front.clone(), peer, over, head_comes, talk, opened: Mutex::default() });
    let service = service_fn(|request| {
        let connection = connection.clone();
        // Boxed, because hyper gives the socket back only from a connection that can be moved.
        Box::pin(async move {
            let response = connection.answer(request).await;
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => Err(Switched(switching_head(response.headers()))),
                _ => Ok(connection.leaving(response)),
            }
        })
    });
    let rules = front.process.rules.load_full();
    let socket = SendTimeout::new(stream, rules.send_timeout);
    let socket = ClientSocket::new(socket, connection.talk.clone(), rules.patience);
    let mut serving = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(rules.header_bytes_max.max(HEADER_BYTES_FLOOR))
        .serve_connection(TokioIo::new(socket), service);
    let (send_timeout, limits) = (rules.send_timeout, rules.linger);
    drop(rules);
    let mut leaving = Leaving::default();
    let served = std::future::poll_fn(|cx| {
        let served = serving.poll_without_shutdown(cx);
        if served.is_ready() || !leaving.is_due(&connection, cx) {
            return served;
        }
        Pin::new(&mut serving).graceful_shutdown();
        serving.poll_without_shutdown(cx)
    })
    .await;
    let parts = serving.into_parts();
    let socket = parts.io.into_inner();
    let timed_out = socket.has_timed_out();
    let (stream, first) = socket.into_parts(parts.read_buf);
    let mut stream = stream.into_inner().into_inner();
    let opened = connection.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Switched(head)) = served.as_ref().err().and_then(|error| error.source()?.downcast_ref()) {
        // If it cannot be sent, the pipe finds out by itself and ends as any other, its worker included.
        let _ = tokio::time::timeout(send_timeout, stream.write_all(head)).await;
    }
    match (served, opened) {
        (_, Some(Opened::Pipe(mut driver, admission, membership))) => {
            let guards = Guards { name: membership.map(Box::new), slot, admission, connection: gauge };
            driver.start(ClientLink::socket(stream, first), Some(guards));
            tokio::spawn(driver);
        }
        (_, Some(Opened::Back(back))) => back.bring(stream, first),
        (served, None) => {
            let failure = served.err().and_then(|error| failure(&error));
            let result = if timed_out { Some(ConnectionResult::TimedOut) } else { failure };
            if let Some(result) = result {
                metrics.connection_result(ListenerLabel::Public, result);
            }
            let is_http = failure != Some(ConnectionResult::BadRequest);
            let sends_on = connection.talk.is_unread() || !first.is_empty() || !is_http;
            close(stream, sends_on.then_some(limits), &front).await;
        }
    }
}

/// The end of a kept connection once the process takes nothing new. One that has not asked for anything yet may do so:
/// it was accepted, and is told with its answer.
#[derive(Default)]
enum Leaving {
    #[default]
    NotKept,
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
    Told,
}

impl Leaving {
    /// Whether the connection has to be told now, which is so once.
    fn is_due(&mut self, connection: &Connection, cx: &mut Context<'_>) -> bool {
        if matches!(self, Self::NotKept) && connection.talk.is_plain() {
            *self = Self::Waiting(Box::pin(connection.front.process.phase.leaves()));
        }
        let Self::Waiting(leaves) = self else { return false };
        let due = leaves.as_mut().poll(cx).is_ready();
        if due {
            *self = Self::Told;
        }
        due
    }
}

/// Closes a connection; one whose client may be sending is read within limits first.
async fn close(mut stream: ClientStream, limits: Option<LingerLimits>, front: &Front) {
    let Some(limits) = limits else {
        // Best effort: the socket is dropped next.
        let _ = stream.shutdown().await;
        return;
    };
    // A stop waits for the client to take its answer.
    let _counted = front.process.exchanges.begin();
    if !linger(&mut stream, limits).await {
        front.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Cut);
    }
}

/// Why hyper stops: its connection is a WebSocket from now on, once this head has been sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection is a WebSocket now")]
struct Switched(Vec<u8>);

fn failure(error: &hyper::Error) -> Option<ConnectionResult> {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return Some(ConnectionResult::TimedOut);
    }
    error.is_parse().then_some(ConnectionResult::BadRequest)
}

impl Connection {
    /// An answer on its way out.
    fn leaving(&self, response: Response<Body>) -> Response<AnswerBody> {
        response.map(|body| self.talk.answering(body))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let wants_upgrade = asks_for_websocket(request.headers());
        if !wants_upgrade && request.body().is_end_stream() {
            self.head_comes.tell();
        }
        self.talk.asked(request.version(), wants_upgrade);
        if !wants_upgrade {
            self.talk.hold(self.front.process.exchanges.begin());
        }
        let request = request.map(|body| RequestBody::new(body, &self.talk));
        let mut response = self.judge(request).await;
        // A client that asked for a WebSocket may have sent frames already, which must not be read as a request. On the
        // way down, no connection is kept for a next request. One with a length beside chunks is closed by hyper, because
        // a proxy before us may take the next request for a part of this one (RFC 9112 section 6.1).
        let is_last = wants_upgrade || !self.front.process.phase.takes_pipes();
        if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn judge(&self, request: Request<RequestBody>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        // A client that comes back to a live pipe is let in all the same.
        if self.over && !self.comes_back(&parts) {
            return self.refuse(NO_ROUTE, busy("too many connections"));
        }
        let rules = self.front.process.rules.load_full();
        let checked = match check(&parts, rules.header_bytes_max) {
            Checked::Refused(refusal) => return self.refuse(NO_ROUTE, refusal),
            checked @ (Checked::Upgrade(_) | Checked::Plain) => checked,
        };
        let found = match rules.routes.find(host(&parts), &parts) {
            Ok(found) => found,
            Err(error @ NoRoute::NotFound) => {
                return self.refuse(NO_ROUTE, Refusal::new(StatusCode::NOT_FOUND, "no-route", error.to_string()));
            }
            Err(error @ NoRoute::Missing(_)) => {
                return self.refuse(NO_ROUTE, Refusal::new(StatusCode::BAD_REQUEST, "incomplete", error.to_string()));
            }
            Err(error @ (NoRoute::Ambiguous | NoRoute::Astray(_))) => {
                return self.refuse(NO_ROUTE, Refusal::new(StatusCode::BAD_REQUEST, "path", error.to_string()));
            }
        };
        let client = rules.trusted.trace(self.peer, &parts);
        let http = rules.http;
        // A request may last for hours, and a reload must not wait for it to let the old rules go.
        drop(rules);
        match checked {
            Checked::Upgrade(upgrade) => self.upgrade(&mut parts, upgrade, found, &client).await,
            Checked::Plain if found.route.websocket_only => self.refuse(&found.route.name, refuse_plain(&parts)),
            Checked::Plain | Checked::Refused(_) => {
                if let Err(exceeded) = self.front.process.limits.request(client.address) {
                    return self.refuse(&found.route.name, self.exceeds(&found.route.name, exceeded));
                }
                let caller = Caller { address: &client, talk: &self.talk };
                relay(Request::from_parts(parts, body), &self.front.http.with(http), &found, caller).await
            }
        }
    }

    fn exceeds(&self, route: &str, exceeded: Exceeded) -> Refusal {
        self.front.process.metrics.route(route).limited(exceeded.limit).inc();
        exceeded.refusal()
    }

    fn refuse(&self, route: &str, refusal: Refusal) -> Response<Body> {
        self.front.process.metrics.route(route).handshake(refusal.status.as_u16());
        refusal.into_response()
    }

    async fn upgrade(
        &self,
        parts: &mut Parts,
        upgrade: UpgradeRequest,
        found: Found,
        client: &ClientAddress,
    ) -> Response<Body> {
        let began = Instant::now();
        let metrics = self.front.process.metrics.route(&found.route.name);
        let mut span = self.front.process.tracer.take_over(Name::Handshake, &mut parts.headers).map(Box::new);
        if let Some(span) = &mut span {
            span.set("holdline.route", found.route.name.as_str());
        }
        let response = self.attach(parts, upgrade, found, client, span.as_deref_mut()).await;
        let status = response.status();
        if let Some(mut span) = span {
            span.set("http.response.status_code", u64::from(status.as_u16()));
            if status.is_server_error() {
                span.fail(status.as_str());
            }
        }
        metrics.handshake(status.as_u16());
        metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
        response
    }

    async fn attach(
        &self,
        parts: &Parts,
        upgrade: UpgradeRequest,
        found: Found,
        client: &ClientAddress,
        span: Option<&mut Span>,
    ) -> Response<Body> {
        if !found.route.allows_origin(&parts.headers) {
            let detail = "this origin may not open a WebSocket here; see routes.origins";
            return Refusal::new(StatusCode::FORBIDDEN, "origin", detail).into_response();
        }
        let claim = match name_of(&found, parts) {
            Some(name) => match self.behind(name).await {
                Ok(Behind::Home(home)) => return self.welcome_back(parts, &upgrade, found, client, home),
                Ok(Behind::Nobody(claim)) => Some(claim),
                Err(refusal) => return refusal.into_response(),
            },
            None => None,
        };
        self.open(parts, upgrade, found, client, span, claim).await
    }

    /// Opens a pipe, under the name that was claimed for it if there is one.
    async fn open(
        &self,
        parts: &Parts,
        upgrade: UpgradeRequest,
        found: Found,
        client: &ClientAddress,
        span: Option<&mut Span>,
        claim: Option<Claim>,
    ) -> Response<Body> {
        if self.over {
            return busy("too many connections").into_response();
        }
        // Before the phase is looked at, so that a stop either is seen here or waits for this.
        let expected = self.front.process.pipes.expect();
        if !self.front.process.phase.takes_pipes() {
            return busy("going away; another instance may take this").into_response();
        }
        if self.front.process.memory.pressure() > Pressure::Low {
            self.front.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Refused);
            return busy("memory is short").into_response();
        }
        let admitted = self.front.process.limits.admit(found.key.as_deref(), client.address);
        let admission = match admitted {
            Ok(admission) => admission,
            Err(exceeded) => return self.exceeds(&found.route.name, exceeded).into_response(),
        };
        let mut plan = Plan {
            pipe: PipeId::from_bytes(rand::random()),
            settings: found.settings().clone(),
            route: found.route,
            key: found.key.map(Arc::from),
            target: found.target,
            host: host(parts).map(Box::from),
            head_lines: upgrade_head_lines(parts, client),
            protocols: upgrade.protocols.as_slice().into(),
            protocol: None,
            trace: span.as_ref().map(|span| Box::new(span.context())),
        };
        if let Some(span) = span {
            span.set("holdline.pipe", plan.pipe.to_string().as_str());
        }
        let (first, sharing) = match self.find_worker(&plan, parts.uri.path()).await {
            Ok(found) => found,
            Err(response) => return response,
        };
        let response = switching_protocols(&upgrade, first.protocol.as_deref(), &first.headers).map(|()| Body::empty());
        let protocol = first.protocol.clone();
        plan.protocol = first.protocol.map(String::into_boxed_str);
        let facts = PipeFacts {
            id: plan.pipe,
            route: plan.route.clone(),
            key: plan.key.clone(),
            client: client.address.to_string(),
            named: claim.is_some(),
            sharing,
            request_id: client.request_id.clone(),
        };
        // Before the client knows, so that every list and metric has the pipe by then.
        let driver = Driver::new(first.attach, Arc::new(plan), facts, self.front.process.clone());
        drop(expected);
        if self.front.process.phase.get() == Phase::Stopping {
            // The stop that tells the clients may have passed before this one was there.
            driver.order(Command::going_away());
        }
        let membership = claim.map(|claim| claim.opened(Home { pipe: driver.entry().clone(), protocol }));
        self.opens(Opened::Pipe(driver, admission, membership));
        response
    }

    pub(super) fn opens(&self, opened: Opened) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }
}

impl Connection {
    /// A worker for a pipe of its own, or a place in the stream that it shares.
    async fn find_worker(&self, plan: &Plan, path: &str) -> Result<(FirstAttach, Sharing), Response<Body>> {
        let process = &self.front.process;
        let Some(share) = &plan.route.share else {
            return Ok((first_attach(plan, process).await?, Sharing::Alone));
        };
        let joined =
            join_or_open(plan, share, StreamKey::new(&plan.route, plan.key.clone(), &plan.target, path), process)
                .await?;
        Ok((joined.first, Sharing::Viewer(joined.hub.pipe.clone())))
    }
}

pub(super) fn busy(detail: &'static str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(RETRY_AFTER)
}
