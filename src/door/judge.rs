//! One request, judged: refused, relayed, or let in.
//!
//! Order of the questions: is there room for its connection, is its head good, where does it go, who asks. What a
//! handshake needs besides is in `admit`. Invariant: a request is counted and its span ended here, whatever came of it.

use std::time::{Duration, Instant};

use http::StatusCode;
use http::request::Parts;

use super::Door;
use super::cookie::Jar;
use super::fallback::is_asked;
use super::outcome::{Refused, Request, Verdict, client_name, make_room};
use crate::handshake::aware::Offer;
use crate::handshake::check::{host, host_name, refuse_plain};
use crate::handshake::refusal::Refusal;
use crate::limits::{Exceeded, Standing};
use crate::metrics::NO_ROUTE;
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::net::{Peer, TlsIdentity};
use crate::routes::NoRoute;
use crate::trace::Name;

/// When a client that was turned away should come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a request asks for, once the rules of its protocol were looked after.
#[derive(Debug)]
pub enum Asks {
    /// A pipe, on which it would speak one of these subprotocols.
    Pipe(Vec<String>),
    /// The answer of a worker.
    Answer,
    /// Nothing that it can be given.
    Nothing(Refusal),
}

/// A request as it came.
#[derive(Debug)]
pub struct Asked {
    /// Its head.
    pub parts: Parts,
    /// The other end of its connection.
    pub peer: Peer,
    /// What it asks for.
    pub asks: Asks,
    /// Whether there were `server.max_connections` without its own.
    pub over: bool,
}

impl Door {
    /// Judges a request. A handshake is judged only once a worker has agreed, or none could be found.
    pub async fn judge(&self, asked: Asked) -> Verdict {
        let Asked { mut parts, peer, asks, over } = asked;
        // A client that comes back to a live pipe is let in all the same, and another one if a pipe ends for it that has
        // no client.
        let over = over && (self.is_awaited(&asks, &parts, peer) || !make_room(&self.process));
        if over && !self.is_awaited(&asks, &parts, peer) {
            self.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Refused);
            return self.refuse(NO_ROUTE, busy("too many connections"));
        }
        let protocols = match asks {
            Asks::Nothing(refusal) => return self.refuse(NO_ROUTE, refusal),
            Asks::Pipe(protocols) => Some(protocols),
            Asks::Answer => None,
        };
        if let Some(refusal) = self.is_misdirected(&parts) {
            return self.refuse(NO_ROUTE, refusal);
        }
        let jar = Jar::take(&mut parts.headers);
        if self.process.rules.load().routes.has_auth() {
            // Boxed, because few routes have it, and a parked request would pay for it.
            let authorized = Box::pin(self.authorize(&mut parts, peer, protocols.is_some())).await;
            if let Err((route, refused)) = authorized {
                let (metrics, status) = (self.process.metrics.route(&route.name), refused.status().as_u16());
                if protocols.is_some() {
                    metrics.handshake(status)
                } else {
                    metrics.http_request(status, None)
                }
                return Verdict::Refuse(refused);
            }
        }
        let request = match self.route(parts, jar, peer) {
            Ok(request) => request,
            Err(no_route) => return self.refuse(NO_ROUTE, refuse_unrouted(&no_route)),
        };
        match protocols {
            // Boxed, because it takes several times what a plain request does, which may be parked for hours.
            Some(protocols) => Box::pin(self.handshake(request, &protocols, over)).await,
            None => self.plain(request),
        }
    }

    /// The refusal of a request whose host is asked for certificates in another way than the one that its connection was
    /// opened for.
    fn is_misdirected(&self, parts: &Parts) -> Option<Refusal> {
        let identity = TlsIdentity::with(&parts.extensions)?;
        let host = host(parts).and_then(host_name).map(str::to_ascii_lowercase);
        let set = self.process.tls.public()?;
        let detail = "this host is not served on a connection that was opened for another one; open one for it";
        let refusal = || Refusal::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", detail);
        set.keeps_apart(identity.server_name.as_deref(), host.as_deref()).then(refusal)
    }

    /// Finds where a request goes and who asks. The rules are let go at once: a request may last for hours.
    fn route(&self, parts: Parts, jar: Jar, peer: Peer) -> Result<Request, NoRoute> {
        let rules = self.process.rules.load();
        let client = rules.trusted.trace(peer, &parts);
        let found = rules.routes.find(host(&parts), &parts, client.address)?;
        Ok(Request { parts, found, client, jar, span: None, standing: None })
    }

    /// Whether a client that is one too many comes back to its pipe.
    fn is_awaited(&self, asks: &Asks, parts: &Parts, peer: Peer) -> bool {
        if let Asks::Pipe(protocols) = asks
            && let Some(pipe) = Offer::of(protocols).pipe
        {
            return self.process.pipes.get(pipe).is_some_and(|pipe| pipe.aware && pipe.awaits_client());
        }
        let rules = self.process.rules.load();
        let found = rules.routes.find(host(parts), parts, rules.trusted.trace(peer, parts).address);
        let Ok(found) = found else { return false };
        match client_name(&found, parts) {
            Some(name) => self.process.clients.are_awaited(&name),
            None => found.route.knows_browsers() && self.is_browser_awaited(&parts.headers),
        }
    }

    fn plain(&self, mut request: Request) -> Verdict {
        let route = request.found.route.clone();
        match self.may_relay(&request) {
            Ok(standing) => {
                request.standing = standing.filter(|_| route.limits.headers);
                Verdict::Relay(Box::new(request))
            }
            Err(refusal) => {
                self.process.metrics.route(&route.name).http_request(refusal.status.as_u16(), None);
                self.refuse(&route.name, refusal)
            }
        }
    }

    /// Whether there is room for a plain request, and its client has not come too often.
    fn may_relay(&self, request: &Request) -> Result<Option<Standing>, Refusal> {
        let route = &request.found.route;
        if route.websocket_only && !(route.http_fallback && is_asked(&request.parts)) {
            return Err(refuse_plain(&request.parts));
        }
        if !self.process.memory.has_room() {
            self.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Refused);
            return Err(busy("memory is short"));
        }
        let scope = request.scope();
        let standing = self.process.limits.request(request.client.address, scope);
        standing.map_err(|exceeded| self.exceeds(scope.route, exceeded))
    }

    async fn handshake(&self, mut request: Request, protocols: &[String], over: bool) -> Verdict {
        let began = Instant::now();
        let metrics = self.process.metrics.route(&request.found.route.name);
        request.span = self.process.tracer.take_over(Name::Handshake, &mut request.parts.headers).map(Box::new);
        let route = request.found.route.clone();
        request.note("holdline.route", route.name.as_str());
        let verdict = self.admit(&mut request, protocols, over).await.unwrap_or_else(Verdict::Refuse);
        let status = verdict.status().unwrap_or_default();
        request.note("http.response.status_code", u64::from(status.as_u16()));
        if let Some(span) = request.span.as_mut().filter(|_| status.is_server_error()) {
            span.fail(status.as_str());
        }
        metrics.handshake(status.as_u16());
        metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
        verdict
    }

    /// The refusal of a client that met a limit on `route`.
    pub(super) fn exceeds(&self, route: &str, exceeded: Exceeded) -> Refusal {
        self.process.metrics.route(route).limited(exceeded.limit).inc();
        exceeded.refusal()
    }

    fn refuse(&self, route: &str, refusal: Refusal) -> Verdict {
        self.process.metrics.route(route).handshake(refusal.status.as_u16());
        Verdict::Refuse(Refused::Ours(refusal))
    }
}

fn refuse_unrouted(no_route: &NoRoute) -> Refusal {
    let (status, slug) = match no_route {
        NoRoute::NotFound => (StatusCode::NOT_FOUND, "no-route"),
        NoRoute::Missing(_) => (StatusCode::BAD_REQUEST, "incomplete"),
        NoRoute::Unclear(_) => (StatusCode::BAD_REQUEST, "unclear"),
        NoRoute::NoLabel(_) => (StatusCode::BAD_REQUEST, "label"),
        NoRoute::Ambiguous | NoRoute::Astray(_) => (StatusCode::BAD_REQUEST, "path"),
    };
    Refusal::new(status, slug, no_route.to_string())
}

/// 503: not now.
pub(super) fn busy(detail: &'static str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(RETRY_AFTER)
}
