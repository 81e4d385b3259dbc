//! One plain request: the backend of its key, or any; once more elsewhere if that may be.
//!
//! Invariant: a request that may have reached a backend is sent again only if it is a GET or HEAD without a body, and
//! only once. What the backend answers is the client's, status, headers and body.

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::{Body as _, Incoming};

use super::body::Body;
use super::connections::{Connections, Lease};
use super::exchange::{ExchangeError, HttpTimeouts, Peer, exchange, line};
use super::relayed::RelayedBody;
use super::request_body::{Progress, RequestBody};
use crate::backends::{Ask, Backends, NoBackend, Outcome, Reservation};
use crate::handshake::client_address::ClientAddress;
use crate::handshake::forward::{backend_host, clean_response, request_headers};
use crate::handshake::refusal::Refusal;
use crate::net::{Host, TlsClient, TlsPeer};
use crate::routes::Found;

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

/// Relays a request that asks for no upgrade, to a backend of the route that was `found` for it.
///
/// Never fails: what goes wrong is the response. Dropping the future or the response's body cancels the backend request.
pub async fn relay(
    request: Request<Incoming>,
    context: &HttpContext,
    found: &Found,
    client: &ClientAddress,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut outgoing = Outgoing::new(parts, body, client);
    let first = match choose(context, found, &[]) {
        Ok(backend) => backend,
        Err(none) => {
            let (request, route) = (client.request_id.as_str(), found.route.name.as_str());
            tracing::info!(request, route, reason = ?none.reason, "no backend for a request");
            return Refusal::no_backend(&found.route.pool, &none).into_response();
        }
    };
    let error = match attempt(context, found, &first, &mut outgoing).await {
        Ok(response) => return response,
        Err(error) => error,
    };
    if matches!(error, ExchangeError::Connect(_))
        && outgoing.repeatable
        && let Ok(second) = choose(context, found, &[first.key()])
    {
        return match attempt(context, found, &second, &mut outgoing).await {
            Ok(response) => response,
            Err(error) => failed(&error, &second, client),
        };
    }
    failed(&error, &first, client)
}

fn choose(
    context: &HttpContext,
    found: &Found,
    exclude: &[holdline_core::ids::BackendKey],
) -> Result<Reservation, NoBackend> {
    let ask = Ask { key: found.key.as_deref(), exclude, avoid: None, pipe: None };
    context.backends.choose_request(&found.route.pool, &ask)
}

fn failed(error: &ExchangeError, backend: &Reservation, client: &ClientAddress) -> Response<Body> {
    let (request, blame) = (client.request_id.as_str(), error.blame().label());
    tracing::info!(request, backend = %backend.id(), blame, %error, "a request failed");
    error.refusal().into_response()
}

/// A request on its way out, as far as it is the same for every backend.
struct Outgoing {
    method: Method,
    headers: HeaderMap,
    client_host: Option<String>,
    /// Taken by the first attempt that sends it.
    body: Option<Incoming>,
    progress: Progress,
    /// Whether it may be sent a second time: GET or HEAD without a body.
    repeatable: bool,
}

impl Outgoing {
    fn new(parts: Parts, body: Incoming, client: &ClientAddress) -> Self {
        let mut headers = request_headers(&parts, client);
        let bodyless = body.is_end_stream();
        if !bodyless && body.size_hint().exact().is_none() {
            // Without it hyper would send a GET's body of unknown length as none at all.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let safe = matches!(parts.method, Method::GET | Method::HEAD);
        Self {
            client_host: crate::handshake::check::host(&parts).map(str::to_owned),
            method: parts.method,
            headers,
            body: Some(body).filter(|_| !bodyless),
            progress: Progress::new(),
            repeatable: safe && bodyless,
        }
    }

    fn request(&mut self, uri: Uri, host: &str) -> Option<Request<RequestBody>> {
        let body = match self.body.take() {
            Some(body) => RequestBody::Streamed(body, self.progress.clone()),
            None => RequestBody::Empty,
        };
        let mut request = Request::new(body);
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
) -> Result<Response<Body>, ExchangeError> {
    match send(context, found, backend, outgoing, outgoing.repeatable).await {
        Err(ExchangeError::Stale) => send(context, found, backend, outgoing, false).await,
        done => done,
    }
}

async fn send(
    context: &HttpContext,
    found: &Found,
    backend: &Reservation,
    outgoing: &mut Outgoing,
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
    let addresses = backend.target().resolve().await.map_err(ExchangeError::Connect);
    let tls = tls_name.as_deref().map(|name| TlsPeer { client: &context.tls, name });
    let outcome = match addresses {
        Err(error) => Err(error),
        Ok(addresses) => {
            let peer = Peer { addresses: &addresses, tls, name: &name };
            match line(&context.connections, peer, may_reuse, &context.timeouts).await {
                Err(error) => Err(error),
                Ok(line) => {
                    let request = outgoing.request(uri, &host).ok_or(ExchangeError::Client)?;
                    exchange(line, request, &context.timeouts).await
                }
            }
        }
    };
    report(backend, &outcome);
    let (answer, lease) = outcome?;
    let (mut parts, body) = answer.into_parts();
    clean_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, Body::Relayed(RelayedBody::new(body, lease))))
}

/// A backend that cannot be connected to is worth knowing for the pipes, too; a slow or broken answer says nothing
/// about its sockets.
fn report(backend: &Reservation, outcome: &Result<(Response<Incoming>, Lease), ExchangeError>) {
    match outcome {
        Ok(_) => backend.report(None, Outcome::Connected),
        Err(ExchangeError::Connect(error)) => backend.report(None, Outcome::DialFailed(error.kind)),
        Err(_) => {}
    }
}
