//! One plain request: the backend of its key, or any; once more elsewhere if that may be.
//!
//! Invariant: a request that may have reached a backend is sent again only if it is a GET, HEAD or OPTIONS without a
//! body, and only once; one whose connection was refused has reached none, and may be any. What the backend answers is
//! the client's, status, headers and body. A GET or HEAD that no backend can take now waits for one, as its route says.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::{Body as _, Incoming};
use std::pin::Pin;
use std::sync::Arc;

use holdline_core::ids::BackendKey;

use super::body::Body;
use super::bound::{asks_to_log_in, logs_in};
use super::connections::{Connections, Lease};
use super::exchange::{ExchangeError, HttpTimeouts, Line, Peer, exchange, line};
use super::learn::Learner;
use super::relayed::RelayedBody;
use super::request_body::RequestBody;
use super::talk::Talk;
use crate::backends::{Ask, Backends, NoBackend, Outcome, Reservation};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::dial::PARKED_TRIES_MAX;
use crate::handshake::forward::{backend_host, clean_response, request_headers};
use crate::handshake::refusal::Refusal;
use crate::net::DialFailure;
use crate::routes::{Found, Route};
use crate::waiting::{Patience, Waiting};

/// What the requests of one thread share.
#[derive(Clone, Debug)]
pub struct HttpContext {
    backends: Backends,
    timeouts: HttpTimeouts,
    connections: Connections,
    waiting: Arc<Waiting>,
}

impl HttpContext {
    /// A context for one thread: its connections are driven by the runtime that it is used on.
    #[must_use]
    pub fn new(backends: Backends, timeouts: HttpTimeouts, waiting: Arc<Waiting>) -> Self {
        Self { backends, timeouts, connections: Connections::default(), waiting }
    }

    /// Closes every idle connection: memory is short.
    pub fn shed(&self) {
        self.connections.shed();
    }

    /// The same context with other time limits.
    #[must_use]
    pub fn with(&self, timeouts: HttpTimeouts) -> Self {
        Self { timeouts, ..self.clone() }
    }

    /// Closes idle connections that have waited too long; to be called now and then.
    pub fn sweep(&self) {
        self.connections.sweep();
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Where it comes from.
    pub address: &'a ClientAddress,
    /// The conversation on its connection.
    pub talk: &'a Arc<Talk>,
}

/// Relays a request that asks for no upgrade, to a backend of the route that was `found` for it.
///
/// Never fails: what goes wrong is the response. Dropping the future or the response's body cancels the backend request.
/// No async function: it would have room for the request as it came for as long as it waits for an answer.
pub fn relay<'a>(
    request: Request<RequestBody>,
    context: &'a HttpContext,
    found: &'a Found,
    caller: Caller<'a>,
) -> impl Future<Output = Response<Body>> + use<'a> {
    let (parts, body) = request.into_parts();
    let client = caller.address;
    let route = &found.route;
    let had_before = if route.sticky { context.backends.had_before(&route.pool, &parts.headers) } else { None };
    let learns = route.learns(parts.uri.path()).filter(|_| parts.method != Method::HEAD);
    let relay = Relay { context, found, talk: caller.talk, had_before, learns, client };
    let mut outgoing = Outgoing::new(&parts, body, caller, &found.route);
    // What came from the client's socket is given back before the wait for an answer begins.
    drop(parts);
    async move {
        let mut patience: Option<Box<Patience>> = None;
        loop {
            let failed = match relay.answer(&mut outgoing).await {
                Ok(mut response) => {
                    if let Some(patience) = &mut patience {
                        patience.served();
                    }
                    found.route.answer_headers.apply(response.headers_mut());
                    return response;
                }
                Err(failed) => failed,
            };
            let may_wait = outgoing.may_wait && failed.may_pass();
            if may_wait && patience.is_none() {
                patience = context.waiting.patience(&found.route);
            }
            let looks_again = match &mut patience {
                // Boxed, because few requests wait, and all of them would be larger.
                Some(patience) => may_wait && Box::pin(patience.another_look()).await,
                None => false,
            };
            if !looks_again {
                return failed.tell(client, &found.route);
            }
        }
    }
}

/// Why a request has no answer of a worker.
enum Failed {
    /// No backend can take it now.
    NoBackend(NoBackend),
    /// This came of the last one that was asked.
    Exchange(ExchangeError, Reservation),
}

impl Failed {
    /// Whether that may change soon, and nothing of the request was sent.
    fn may_pass(&self) -> bool {
        match self {
            Self::NoBackend(none) => none.may_pass(),
            Self::Exchange(ExchangeError::Connect(error), _) => error.kind.may_pass(),
            Self::Exchange(..) => false,
        }
    }

    /// Says so in the log, and to the client.
    fn tell(self, client: &ClientAddress, route: &Route) -> Response<Body> {
        let (request, name) = (client.request_id.as_str(), route.name.as_str());
        match self {
            Self::NoBackend(none) => {
                tracing::info!(request, route = name, reason = ?none.reason, "no backend for a request");
                Refusal::no_backend(&route.pool, &none).into_response()
            }
            Self::Exchange(error, backend) => {
                tracing::info!(request, backend = %backend.id(), blame = error.blame().label(), %error, "a request failed");
                error.refusal().into_response()
            }
        }
    }
}

/// A request on its way out, as far as it is the same for every backend.
struct Outgoing {
    method: Method,
    headers: HeaderMap,
    client_host: Option<String>,
    /// Taken by the first attempt that sends it.
    body: Option<RequestBody>,
    /// Whether it may be sent a second time: GET, HEAD or OPTIONS without a body.
    repeatable: bool,
    /// Whether it may wait for a worker: a GET or HEAD of those.
    may_wait: bool,
    /// Whether it has a body that a worker may leave unread, to take it for the next request.
    odd_body: bool,
}

impl Outgoing {
    fn new(parts: &Parts, body: RequestBody, caller: Caller<'_>, route: &Route) -> Self {
        let mut headers = request_headers(parts, caller.address);
        route.request_headers.apply(&mut headers);
        if route.learns(parts.uri.path()).is_some() {
            // So that it can be read.
            headers.remove(header::ACCEPT_ENCODING);
        }
        let bodyless = body.is_end_stream();
        if !bodyless && body.size_hint().exact().is_none() {
            // Without it hyper would send a GET's body of unknown length as none at all.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let bodies_are_odd = safe || parts.method == Method::DELETE;
        Self {
            client_host: crate::handshake::check::host(parts).map(str::to_owned),
            method: parts.method.clone(),
            headers,
            body: Some(body).filter(|_| !bodyless),
            repeatable: safe && bodyless,
            may_wait: safe && bodyless && parts.method != Method::OPTIONS,
            odd_body: bodies_are_odd && !bodyless,
        }
    }

    /// Says what becomes of the connection behind this request.
    fn mark(&self, lease: &mut Lease, talk: &Arc<Talk>, backend: BackendKey) {
        if logs_in(&self.headers) {
            lease.bind(talk, backend);
        }
        if self.odd_body {
            lease.is_last();
        }
    }

    /// What is sent; the headers are kept for a second time if this one `may_be_lost`.
    fn request(&mut self, uri: Uri, host: &str, may_be_lost: bool) -> Option<Request<RequestBody>> {
        let mut request = Request::new(self.body.take().unwrap_or(RequestBody::Empty));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        self.headers.insert(header::HOST, HeaderValue::from_str(host).ok()?);
        *request.headers_mut() = match self.repeatable && may_be_lost {
            true => self.headers.clone(),
            false => std::mem::take(&mut self.headers),
        };
        Some(request)
    }
}

/// A backend's answer, as far as it has come.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
}

impl Answer {
    /// What the client gets; the backend counts it as long as it lasts.
    fn into_response(self, backend: Reservation, learner: Option<Box<Learner>>) -> Response<Body> {
        let (mut parts, body) = self.response.into_parts();
        clean_response(parts.status, &mut parts.headers);
        parts.version = Version::HTTP_11;
        Response::from_parts(parts, Body::Relayed(RelayedBody::new(body, self.lease, backend, learner)))
    }
}

/// What came of one request to one backend.
type Exchanged = Result<(Response<Incoming>, Lease), ExchangeError>;

/// One request's way to a backend.
struct Relay<'a> {
    context: &'a HttpContext,
    found: &'a Found,
    talk: &'a Arc<Talk>,
    /// The backend that the client says it had.
    had_before: Option<BackendKey>,
    /// Where the answer names a key.
    learns: Option<&'a str>,
    /// Who asks.
    client: &'a ClientAddress,
}

impl Relay<'_> {
    fn choose(&self, exclude: &[BackendKey]) -> Result<Reservation, NoBackend> {
        let (route, backends) = (&self.found.route, &self.context.backends);
        let key = backends.key_of(&route.pool, self.found.key.as_deref(), route.any_without_owner);
        let ask = Ask { key, exclude, prefer: self.had_before, ..Ask::default() };
        backends.choose_request(&route.pool, &ask, self.talk.bound.backend())
    }

    /// The answer of a backend, or of a second one if the first cannot be connected.
    async fn answer(&self, outgoing: &mut Outgoing) -> Result<Response<Body>, Failed> {
        let first = self.choose(&[]).map_err(Failed::NoBackend)?;
        let error = match self.attempt(&first, outgoing).await {
            Ok(answer) => return Ok(self.passes_on(answer, first)),
            Err(error) => error,
        };
        let may_go_elsewhere = match &error {
            ExchangeError::Connect(error) => outgoing.repeatable || error.kind == DialFailure::Refused,
            _ => false,
        };
        if may_go_elsewhere && let Ok(second) = self.choose(&[first.key()]) {
            return match self.attempt(&second, outgoing).await {
                Ok(answer) => Ok(self.passes_on(answer, second)),
                Err(error) => Err(Failed::Exchange(error, second)),
            };
        }
        Err(Failed::Exchange(error, first))
    }

    /// What the client gets of an answer. It is read along where it may name a key, and says where the client is to come
    /// back to.
    fn passes_on(&self, answer: Answer, backend: Reservation) -> Response<Body> {
        let (route, backends, key) = (&self.found.route, &self.context.backends, backend.key());
        let learner = self.learns.and_then(|pointer| self.learner(pointer, &answer.response, key));
        let mut response = answer.into_response(backend, learner);
        if route.sticky
            && self.had_before != Some(key)
            && let Some(cookie) = backends.sticky_cookie(&route.pool, key, self.client.https)
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    fn learner(&self, pointer: &str, answer: &Response<Incoming>, backend: BackendKey) -> Option<Box<Learner>> {
        let route = &self.found.route;
        let can_read = answer.status().is_success() && Learner::can_read(answer.headers());
        can_read.then(|| {
            Box::new(Learner {
                backends: self.context.backends.clone(),
                pool: route.pool.clone(),
                backend,
                pointer: pointer.to_owned(),
                ttl: route.learn_ttl,
                metrics: self.context.waiting.route(&route.name),
                seen: Some(Vec::new()),
            })
        })
    }

    /// One backend, over a kept connection if there is one, and over a new one if that was stale; one that a worker has
    /// parked may be so as well.
    async fn attempt(&self, backend: &Reservation, outgoing: &mut Outgoing) -> Result<Answer, ExchangeError> {
        let mut done = self.send(backend, outgoing, outgoing.repeatable).await;
        for _ in 1..PARKED_TRIES_MAX {
            match done {
                Err(ExchangeError::Stale) if outgoing.repeatable => done = self.send(backend, outgoing, false).await,
                done => return done,
            }
        }
        done
    }

    async fn send(
        &self,
        backend: &Reservation,
        outgoing: &mut Outgoing,
        may_reuse: bool,
    ) -> Result<Answer, ExchangeError> {
        // Boxed, because connecting takes more memory than the wait for an answer, and is over soon.
        let line = Box::pin(self.line(backend, may_reuse)).await;
        let outcome = match line.and_then(|line| self.ask(line, backend, outgoing)) {
            Err(error) => Err(error),
            Ok(answer) => {
                let _parked = self.talk.parked();
                answer.await
            }
        };
        report(backend, &outcome);
        let (response, mut lease) = outcome?;
        if asks_to_log_in(response.headers()) {
            lease.bind(self.talk, backend.key());
        }
        Ok(Answer { response, lease })
    }

    /// Asks `backend` on this connection, and what waits for its answer; boxed, because that is moved to where it does.
    fn ask(
        &self,
        mut line: Line,
        backend: &Reservation,
        outgoing: &mut Outgoing,
    ) -> Result<Pin<Box<impl Future<Output = Exchanged>>>, ExchangeError> {
        let url = backend.url();
        let path = self.found.target.for_backend(url.path_and_query(), backend.alias());
        let uri = PathAndQuery::try_from(path).map(Uri::from).map_err(|_| ExchangeError::Client)?;
        let (rule, client_host) = (&self.found.route.host, outgoing.client_host.as_deref());
        let host = backend_host(rule, client_host, &url.authority(), url.is_tls_by_name()).to_owned();
        outgoing.mark(&mut line.lease, self.talk, backend.key());
        let request = outgoing.request(uri, &host, line.reused).ok_or(ExchangeError::Client)?;
        Ok(Box::pin(exchange(line, request, &self.context.timeouts, self.talk)))
    }

    /// A connection to `backend`; nothing is sent yet, so that a request that finds none can go elsewhere.
    async fn line(&self, backend: &Reservation, may_reuse: bool) -> Result<Line, ExchangeError> {
        // Pools may meet the same worker by different TLS.
        let name = format!("{} {}", backend.pool(), backend.url().origin());
        if let Some(lease) = Lease::of_client(self.talk, backend.key(), &name) {
            return Ok(Line::kept(lease));
        }
        let addresses = backend.target().resolve().await.map_err(ExchangeError::Connect)?;
        let tls = backend.target().tls_peer();
        let header = backend.target().proxy_header(Some(self.client.announced()));
        let peer = Peer { addresses: &addresses, tls: tls.as_ref(), name: &name, proxy_header: &header };
        line(&self.context.connections, peer, may_reuse, &self.context.timeouts).await
    }
}

/// A backend that cannot be connected to is worth knowing for the pipes, too; a slow or broken answer says nothing
/// about its sockets.
fn report(backend: &Reservation, outcome: &Exchanged) {
    match outcome {
        Ok(_) => backend.report(None, Outcome::Connected),
        Err(ExchangeError::Connect(error)) => backend.report(None, Outcome::DialFailed(error.kind)),
        Err(_) => {}
    }
}
