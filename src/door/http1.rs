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
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use holdline_core::ids::PipeId;
use holdline_core::limits::table::Arrival;
use holdline_core::memory::Pressure;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use super::comeback::{Back, name_of};
use super::share::join_or_open;
use crate::clients::{Claim, Found as Behind, Home, Membership};
use crate::handshake::accept::{switching_head, switching_protocols};
use crate::handshake::check::{Checked, UpgradeRequest, asks_for_websocket, check, host, refuse_plain};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::forward::upgrade_head_lines;
use crate::handshake::refusal::Refusal;
use crate::http::{Body, HttpContext, relay};
use crate::limits::{Admission, Exceeded, Slot};
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::metrics::{GaugeGuard, NO_ROUTE};
use crate::net::ClientStream;
use crate::phase::Phase;
use crate::pipe::attach::{FirstAttach, Plan, first_attach};
use crate::pipe::{ClientLink, Driver};
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
    let connection =
        Arc::new(Connection { front: front.clone(), peer, over: slot.is_over(), opened: Mutex::default() });
    let service = service_fn(|request| {
        let connection = connection.clone();
        // Boxed, because hyper gives the socket back only from a connection that can be moved.
        Box::pin(async move {
            let response = connection.answer(request).await;
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => Err(Switched(switching_head(&response))),
                _ => Ok(response),
            }
        })
    });
    let rules = front.process.rules.load_full();
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(rules.handshake_timeout)
        .max_buf_size(rules.header_bytes_max.max(HEADER_BYTES_FLOOR))
        .serve_connection(TokioIo::new(SendTimeout::new(stream, rules.send_timeout)), service);
    let send_timeout = rules.send_timeout;
    drop(rules);
    let served = std::future::poll_fn(|cx| serving.poll_without_shutdown(cx)).await;
    let parts = serving.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let opened = connection.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Switched(head)) = served.as_ref().err().and_then(|error| error.source()?.downcast_ref()) {
        // If it cannot be sent, the pipe finds out by itself and ends as any other, its worker included.
        let _ = tokio::time::timeout(send_timeout, stream.write_all(head)).await;
    }
    match (served, opened) {
        (_, Some(Opened::Pipe(mut driver, admission, membership))) => {
            driver.start(ClientLink::socket(stream, parts.read_buf));
            tokio::spawn(Guarded { driver, _guards: (membership.map(Box::new), slot, admission, gauge) });
        }
        (_, Some(Opened::Back(back))) => back.bring(stream, parts.read_buf),
        (Ok(()), None) => {
            // The peer may be gone already; there is nobody left to tell.
            let _ = stream.shutdown().await;
        }
        (Err(error), None) => {
            if let Some(result) = failure(&error) {
                metrics.connection_result(ListenerLabel::Public, result);
            }
            tracing::debug!(%peer, %error, "connection failed");
            let _ = stream.shutdown().await;
        }
    }
}

/// Why hyper stops: its connection is a WebSocket from now on, once this head has been sent.
#[derive(Debug, thiserror::Error)]
#[error("the connection is a WebSocket now")]
struct Switched(Vec<u8>);

fn failure(error: &hyper::Error) -> Option<ConnectionResult> {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_timeout() || io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return Some(ConnectionResult::TimedOut);
    }
    error.is_parse().then_some(ConnectionResult::BadRequest)
}

/// A pipe with what it holds of the connection's books. The driver stays where it was made: it is large, and a task is
/// moved several times before it runs.
struct Guarded {
    driver: Box<Driver>,
    /// The gauge goes last: whoever sees it at zero finds every place free.
    _guards: (Option<Box<Membership>>, Slot, Admission, GaugeGuard),
}

impl Future for Guarded {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut *self.driver).poll(cx)
    }
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let wants_upgrade = asks_for_websocket(request.headers());
        let is_in_chunks = request.headers().contains_key(header::TRANSFER_ENCODING);
        let mut response = self.judge(request).await;
        // A client that asked for a WebSocket may have sent frames already, which must not be read as a request. Behind
        // chunks there may have been a length, by which whoever stands before us takes the next request for a part of
        // this one (RFC 9112 section 6.1). And on the way down, no connection is kept for a next request.
        let is_last = wants_upgrade || is_in_chunks || !self.front.process.phase.takes_pipes();
        if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn judge(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        // Somebody who comes back to a live pipe is let in all the same.
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
                relay(Request::from_parts(parts, body), &self.front.http.with(http), &found, &client).await
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
        let admitted = self.front.process.limits.admit(found.key.as_deref(), client.address, Arrival::New);
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
        let response = switching_protocols(&upgrade, first.protocol.as_deref(), &first.headers);
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
        // Before the client knows, so that whoever it tells finds the pipe in every list and metric.
        let driver = Driver::new(first.attach, Arc::new(plan), facts, self.front.process.clone());
        drop(expected);
        if self.front.process.phase.get() == Phase::Stopping {
            // Whoever tells the clients may have passed before this one was there.
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
        let joined = join_or_open(plan, share, StreamKey::of(plan, path), process).await?;
        Ok((joined.first, Sharing::Viewer(joined.hub.pipe.clone())))
    }
}

pub(super) fn busy(detail: &'static str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(RETRY_AFTER)
}
