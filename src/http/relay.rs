//! One plain request: the backend of its key, or any; once more elsewhere if that may be.
//!
//! Invariant: a request that may have reached a backend is sent again only if it is a GET, HEAD or OPTIONS without a
//! body, and only once; one whose connection was refused has reached none, and may be any. What the backend answers is
//! the client's, status, headers and body.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body as _, Incoming};
use std::sync::Arc;
use std::time::Duration;

use holdline_core::ids::BackendKey;

use super::body::Body;
use super::bound::{Bound, asks_to_log_in, logs_in};
use super::connections::{Connections, Lease};
use super::exchange::{ExchangeError, HttpTimeouts, Line, Peer, exchange, line};
use super::relayed::RelayedBody;
use super::request_body::RequestBody;
use super::talk::Talk;
use crate::backends::{Ask, Backends, Host, NoBackend, Outcome, Reservation};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::dial::{ConnectFailure, TlsClient, TlsPeer};
use crate::handshake::forward::{backend_host, clean_response, request_headers};
use crate::handshake::refusal::Refusal;
use crate::routes::Found;

/// When a client that found no backend should come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the requests of one thread share.
#[derive(Clone, Debug)]
pub struct HttpContext {
    backends: Backends,
    tls: TlsClient,
    timeouts: HttpTimeouts,
    connections: Connections,
}

impl HttpContext {
    /// A context for one thread: its connections are driven by the runtime that it is used on.
    #[must_use]
    pub fn new(backends: Backends, tls: TlsClient, timeouts: HttpTimeouts) -> Self {
        Self { backends, tls, timeouts, connections: Connections::default() }
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
    /// The worker connection that it is logged in on, if any.
    pub bound: &'a Bound,
}

/// Relays a request that asks for no upgrade, to a backend of the route that was `found` for it.
///
/// Never fails: what goes wrong is the response. Dropping the future or the response's body cancels the backend request.
pub async fn relay(
    request: Request<RequestBody>,
    context: &HttpContext,
    found: &Found,
    caller: Caller<'_>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Outgoing::new(parts, body, caller);
    let first = match choose(context, found, caller, &[]) {
        Ok(backend) => backend,
        Err(none) => return no_backend(&none, found).into_response(),
    };
    let error = match attempt(context, found, &first, &mut outgoing, caller).await {
        Ok(response) => return response,
        Err(error) => error,
    };
    let may_go_elsewhere = match &error {
        ExchangeError::Connect(error) => outgoing.repeatable || error.kind == ConnectFailure::Refused,
        _ => false,
    };
    if may_go_elsewhere && let Ok(second) = choose(context, found, caller, &[first.key()]) {
        return match attempt(context, found, &second, &mut outgoing, caller).await {
            Ok(response) => response,
            Err(error) => failed(&error, &second),
        };
    }
    failed(&error, &first)
}

fn choose(
    context: &HttpContext,
    found: &Found,
    caller: Caller<'_>,
    exclude: &[BackendKey],
) -> Result<Reservation, NoBackend> {
    let ask = Ask { key: found.key.as_deref(), exclude, ..Ask::default() };
    context.backends.choose_request(&found.route.pool, &ask, caller.bound.backend())
}

fn no_backend(none: &NoBackend, found: &Found) -> Refusal {
    tracing::info!(route = %found.route.name, reason = ?none.reason, "no backend for a request");
    let detail = format!("no backend of pool '{}' can take this now", found.route.pool);
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no-backend", detail).retry_after(RETRY_AFTER)
}

fn failed(error: &ExchangeError, backend: &Reservation) -> Response<Body> {
    tracing::info!(backend = %backend.id(), blame = error.blame().label(), %error, "a request failed");
    error.refusal().into_response()
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
    /// Whether it has a body that a worker may leave unread, to take it for the next request.
    odd_body: bool,
}

impl Outgoing {
    fn new(parts: Parts, body: RequestBody, caller: Caller<'_>) -> Self {
        let mut headers = request_headers(&parts, caller.address);
        let bodyless = body.is_end_stream();
        if !bodyless && body.size_hint().exact().is_none() {
            // Without it hyper would send a GET's body of unknown length as none at all.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let bodies_are_odd = safe || parts.method == Method::DELETE;
        Self {
            client_host: crate::handshake::check::host(&parts).map(str::to_owned),
            method: parts.method,
            headers,
            body: Some(body).filter(|_| !bodyless),
            repeatable: safe && bodyless,
            odd_body: bodies_are_odd && !bodyless,
        }
    }

    /// Says what becomes of the connection behind this request.
    fn mark(&self, lease: &mut Lease, bound: &Bound, backend: BackendKey) {
        if logs_in(&self.headers) {
            lease.bind(bound, backend);
        }
        if self.odd_body {
            lease.is_last();
        }
    }

    fn request(&mut self, uri: Uri, host: &str) -> Option<Request<RequestBody>> {
        let mut request = Request::new(self.body.take().unwrap_or(RequestBody::Empty));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).ok()?);
        Some(request)
    }
}

/// One backend, over a kept connection if there is one, and over a new one if that was stale.
async fn attempt(
    context: &HttpContext,
    found: &Found,
    backend: &Reservation,
    outgoing: &mut Outgoing,
    caller: Caller<'_>,
) -> Result<Response<Body>, ExchangeError> {
    match send(context, found, backend, outgoing, caller, outgoing.repeatable).await {
        Err(ExchangeError::Stale) if outgoing.repeatable => {
            send(context, found, backend, outgoing, caller, false).await
        }
        done => done,
    }
}

async fn send(
    context: &HttpContext,
    found: &Found,
    backend: &Reservation,
    outgoing: &mut Outgoing,
    caller: Caller<'_>,
    may_reuse: bool,
) -> Result<Response<Body>, ExchangeError> {
    let url = backend.url();
    let (authority, tls_name) = (url.authority(), url.tls_name());
    let named = tls_name.is_some() && matches!(url.host(), Host::Name(_));
    let name = format!("{}://{authority}", if url.tls() { "https" } else { "http" });
    let path = found.target.for_backend(url.path_and_query(), backend.alias());
    let uri = PathAndQuery::try_from(path).map(Uri::from).map_err(|_| ExchangeError::Client)?;
    let host = backend_host(outgoing.client_host.as_deref(), &authority, named).to_owned();

    // Resolved before the body is taken, so that what was never sent can be sent elsewhere.
    let addresses = backend.target().resolve().await.map_err(|error| ExchangeError::Connect((&error).into()));
    let tls = tls_name.as_deref().map(|name| TlsPeer { client: &context.tls, name });
    let outcome = match addresses {
        Err(error) => Err(error),
        Ok(addresses) => {
            let peer = Peer { addresses: &addresses, tls, name: &name };
            let own = Lease::of_client(caller.bound, backend.key(), &name);
            let line = match own {
                Some(lease) => Ok(Line::kept(lease)),
                None => line(&context.connections, peer, may_reuse, &context.timeouts).await,
            };
            match line {
                Err(error) => Err(error),
                Ok(mut line) => {
                    outgoing.mark(&mut line.lease, caller.bound, backend.key());
                    let request = outgoing.request(uri, &host).ok_or(ExchangeError::Client)?;
                    exchange(line, request, &context.timeouts).await
                }
            }
        }
    };
    report(backend, &outcome);
    let (answer, mut lease) = outcome?;
    if asks_to_log_in(answer.headers()) {
        lease.bind(caller.bound, backend.key());
    }
    let (mut parts, body) = answer.into_parts();
    clean_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, Body::Relayed(RelayedBody::new(body, lease))))
}

/// A backend that cannot be connected to is worth knowing for the pipes, too; a slow or broken answer says nothing
/// about its sockets.
fn report(backend: &Reservation, outcome: &Result<(Response<Incoming>, Lease), ExchangeError>) {
    match outcome {
        Ok(_) => backend.report(Outcome::Connected),
        Err(ExchangeError::Connect(error)) => backend.report(Outcome::DialFailed(error.kind.into())),
        Err(_) => {}
    }
}
