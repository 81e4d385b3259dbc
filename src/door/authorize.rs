//! Forward authentication (`routes.auth_url`): an HTTP server of the operator's says who may connect, before any worker is
//! dialled.
//!
//! It is asked by a GET with the client's own headers, and the request's method, path and host in `X-Forwarded-*`, as Traefik,
//! nginx and Caddy ask. 2xx lets the client in; an answer of 3xx or 4xx is the client's as it is; anything else, and silence,
//! is 503. Invariant: what a worker or a template finds under the name of one of `routes.auth_headers` was said by that
//! server about this very request: a client's own header of that name is gone before, and so is a `Connection` that would
//! have it removed.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, LOCATION, RETRY_AFTER,
    SET_COOKIE, TE, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Door;
use super::fallback::{is_asked, opens};
use super::judge::busy;
use super::outcome::{Denied, Refused};
use crate::callout::{Answer, CalloutError, Question};
use crate::handshake::check::host;
use crate::handshake::client_address::ClientAddress;
use crate::handshake::forward::request_headers;
use crate::handshake::refusal::Refusal;
use crate::metrics::labels::AuthResult;
use crate::net::Peer;
use crate::routes::{Auth, Route};

/// Bytes of a denial's body.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Headers of a denial that are for the client.
const PASSED: [HeaderName; 7] =
    [WWW_AUTHENTICATE, LOCATION, SET_COOKIE, CONTENT_TYPE, CONTENT_LANGUAGE, CACHE_CONTROL, RETRY_AFTER];

/// Headers of a request that say how its body comes, which the question has not.
const OF_THE_BODY: [HeaderName; 5] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, TE, CONNECTION];

impl Door {
    /// Has the operator's server decide about a request, where its route has one, and puts into its head what the server
    /// says of the client.
    ///
    /// # Errors
    /// Why it stays outside, and its route.
    pub(super) async fn authorize(
        &self,
        parts: &mut Parts,
        peer: Peer,
        is_handshake: bool,
    ) -> Result<(), (Arc<Route>, Refused)> {
        let Some((route, client)) = self.asks_for(parts, peer) else { return Ok(()) };
        let Some(auth) = &route.auth else { return Ok(()) };
        drop_reserved(&mut parts.headers, auth);
        // Those are refused for another reason, which needs no server.
        let falls_back = route.http_fallback && is_asked(parts);
        let refused_anyway =
            if is_handshake { !route.allows_origin(&parts.headers) } else { route.websocket_only && !falls_back };
        // Of a client that is on no socket it is asked once: the token of its pipe says the rest.
        if refused_anyway || falls_back && !opens(parts) {
            return Ok(());
        }
        match self.ask(&route, auth, question(parts, &client)).await {
            Ok(said) => {
                parts.headers.extend(said);
                Ok(())
            }
            Err(refused) => Err((route, refused)),
        }
    }

    /// The route of a request that has a server to ask, and the client.
    fn asks_for(&self, parts: &Parts, peer: Peer) -> Option<(Arc<Route>, ClientAddress)> {
        let rules = self.process.rules.load();
        let route = rules.routes.answers(host(parts), parts.uri.path()).filter(|route| route.auth.is_some())?;
        Some((route.clone(), rules.trusted.trace(peer, parts)))
    }

    /// What the server says of a client that it lets in.
    async fn ask(&self, route: &Route, auth: &Auth, question: Question) -> Result<HeaderMap, Refused> {
        let metrics = self.process.metrics.route(&route.name);
        let Ok(_place) = auth.places.try_acquire() else {
            metrics.auth(AuthResult::Full).inc();
            return Err(busy("too many requests are being authenticated").into());
        };
        let began = Instant::now();
        let answered = auth.server.ask(&question, BODY_BYTES_MAX, auth.timeout).await;
        metrics.auth_seconds.observe(began.elapsed().as_secs_f64());
        let (result, outcome) = judge(answered, auth);
        if let Err(Judged::Failed(why)) = &outcome {
            tracing::warn!(route = route.name, url = %auth.server.url(), why, "nothing says who may connect");
        }
        metrics.auth(result).inc();
        outcome.map_err(Judged::refused)
    }
}

/// Why a client is not let in.
enum Judged {
    Denied(Answer),
    Failed(String),
}

impl Judged {
    fn refused(self) -> Refused {
        match self {
            Self::Denied(answer) => Refused::Denied(Box::new(denied(answer))),
            Self::Failed(_) => {
                let detail = "nothing says now who may connect; see routes.auth_url";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "auth", detail).into()
            }
        }
    }
}

fn judge(answered: Result<Answer, CalloutError>, auth: &Auth) -> (AuthResult, Result<HeaderMap, Judged>) {
    match answered {
        Ok(answer) if answer.status.is_success() => (AuthResult::Allowed, Ok(chosen(&answer.headers, auth))),
        Ok(answer) if answer.status.is_client_error() || answer.status.is_redirection() => {
            (AuthResult::Denied, Err(Judged::Denied(answer)))
        }
        Ok(answer) => (AuthResult::Failed, Err(Judged::Failed(format!("it answered {}", answer.status)))),
        Err(error @ CalloutError::Timeout(_)) => (AuthResult::Timeout, Err(Judged::Failed(error.to_string()))),
        Err(error) => (AuthResult::Failed, Err(Judged::Failed(error.to_string()))),
    }
}

/// The headers of an answer that go on.
fn chosen(headers: &HeaderMap, auth: &Auth) -> HeaderMap {
    let pairs = auth.headers.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn denied(answer: Answer) -> Denied {
    let Answer { status, headers, body } = answer;
    let passed = PASSED.iter().flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)));
    Denied { status, headers: passed.map(|(name, value)| (name.clone(), value.clone())).collect(), body }
}

/// What the server is asked about a request.
fn question(parts: &Parts, client: &ClientAddress) -> Question {
    let mut headers = request_headers(parts, client);
    for name in OF_THE_BODY {
        headers.remove(name);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    for (name, value) in [("x-forwarded-method", parts.method.as_str()), ("x-forwarded-uri", path)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Question { method: Method::GET, headers, body: Bytes::new() }
}

/// Takes out what only the server may say, and what would have it taken out later.
fn drop_reserved(headers: &mut HeaderMap, auth: &Auth) {
    let reserved: Vec<HeaderName> = headers.keys().filter(|name| auth.reserves(name)).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
    let names_one = |element: &[u8]| HeaderName::from_bytes(element).is_ok_and(|name| auth.reserves(&name));
    let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let elements = || lines.iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    if elements().any(names_one) {
        let kept: Vec<&[u8]> = elements().filter(|element| !names_one(element)).collect();
        headers.remove(CONNECTION);
        if let Ok(kept) = HeaderValue::from_bytes(&kept.join(&b", "[..])) {
            headers.insert(CONNECTION, kept);
        }
    }
}
