//! Clients without a socket, at the door: their requests, and the answers to them (PROTOCOL section 8).
//!
//! In reading order: `ask` is what a head asks for, `origin` which pages may ask, `open` the way to a session, here what
//! is sent and polled by it, and `events` an answer that goes on. Refuses what is malformed before anything of it reaches
//! a pipe, and has one answer for each token that is no good, whatever the reason. Invariant: a request is answered by the
//! session of the pipe that its token is for, or not at all.

mod ask;
mod events;
mod open;
mod origin;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{BufMut, Bytes, BytesMut};
use holdline_core::ids::PipeId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use serde_json::json;

pub use ask::Ask;
use ask::{HELLO_TYPE, Poll, bad};
use events::Events;

use super::Door;
use super::outcome::{Refused, Request};
use crate::config::HttpFallback;
use crate::fallback::{FromTheFuture, NotTaken, Polled, Said, Session, Told};
use crate::handshake::refusal::Refusal;
use crate::http::{Body, RequestBody};
use crate::metrics::RouteMetrics;
use crate::metrics::labels::{PollResult, Transport};

/// The media type of lines.
const LINES_TYPE: &str = "application/x-ndjson";

impl Door {
    /// Answers a request of a client without a socket. A poll that waits keeps nothing of its request, and no room for what
    /// other requests take.
    pub(super) async fn fall_back(
        &self,
        ask: Ask,
        request: Box<Request>,
        body: RequestBody,
        over: bool,
    ) -> Response<Body> {
        let origin = origin::allowed(&request.found.route, &request.parts.headers);
        let metrics = self.process.metrics.route(&request.found.route.name);
        let answer = match ask {
            Ask::Preflight => return origin::preflight(origin),
            Ask::Open => Box::pin(self.open_session(*request, body, over)).await,
            Ask::Send(pipe) => Box::pin(self.send(pipe, &request, body, &metrics)).await.map_err(Refused::Ours),
            Ask::Poll(poll) => {
                let session = self.begin_poll(poll, &request);
                drop((request, body));
                match session {
                    Ok(session) => self.poll(poll, session, &metrics).await.map_err(Refused::Ours),
                    Err(refusal) => Err(Refused::Ours(refusal)),
                }
            }
        };
        let mut response = answer.unwrap_or_else(|refused| {
            metrics.poll(PollResult::Refused).inc();
            match refused {
                Refused::Ours(refusal) => refusal.into_response(),
                Refused::Workers(answer) => answer.into_response(),
                Refused::Denied(answer) => answer.into_response(),
            }
        });
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        origin::allow(response.headers_mut(), origin);
        response
    }

    /// Hands messages on to the pipe.
    async fn send(
        &self,
        pipe: PipeId,
        request: &Request,
        body: RequestBody,
        metrics: &RouteMetrics,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.session(pipe, request)?;
        let said = lines(&whole(body, self.bounds().post_bytes_max).await?)?;
        let result = session.send(said).await;
        let (ack, confirmed) = session.taken();
        metrics.poll(if result.is_ok() { PollResult::Sent } else { PollResult::Held }).inc();
        let status = match result {
            Ok(()) => StatusCode::OK,
            Err(NotTaken::Hole) => StatusCode::CONFLICT,
            Err(NotTaken::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Err(NotTaken::FromTheFuture) => return Err(from_the_future()),
            Err(NotTaken::Over) => return Err(gone()),
        };
        Ok(answer(status, HELLO_TYPE, format!("{}\n", json!({ "ack": ack, "d": confirmed }))))
    }

    /// The session that a poll asks, which notes what the client has.
    fn begin_poll(&self, poll: Poll, request: &Request) -> Result<Arc<Session>, Refusal> {
        let session = self.session(poll.pipe, request)?;
        if poll.epoch.is_some_and(|epoch| epoch != session.epoch()) {
            return Err(bad("Last-Event-ID is of another epoch: the numbers are not this pipe's"));
        }
        self.note_transport(&session, poll.streams);
        session.acknowledge(poll.after, poll.words).map_err(|FromTheFuture| from_the_future())?;
        Ok(session)
    }

    /// Gives what the pipe has said.
    async fn poll(&self, poll: Poll, session: Arc<Session>, metrics: &RouteMetrics) -> Result<Response<Body>, Refusal> {
        let bounds = self.bounds();
        let parked = metrics.poll_parked();
        if poll.streams {
            metrics.poll(PollResult::Stream).inc();
            return Ok(stream(Events::new(session, poll.into(), bounds.poll_bytes_max, parked)));
        }
        let wait = poll.wait.unwrap_or(bounds.poll_wait_max).min(bounds.poll_wait_max);
        match session.poll(poll.into(), wait, bounds.poll_bytes_max).await {
            Polled::Lines(lines) => {
                metrics.poll(PollResult::Lines).inc();
                Ok(answer(StatusCode::OK, LINES_TYPE, joined(&lines)))
            }
            Polled::Nothing | Polled::Replaced => {
                metrics.poll(PollResult::Empty).inc();
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Polled::Over => Err(gone()),
        }
    }

    /// Notes how the client of `session` is reached, if it has not gone on elsewhere.
    fn note_transport(&self, session: &Session, streams: bool) {
        let pipe = self.process.pipes.get(session.pipe());
        if let Some(pipe) = pipe.filter(|pipe| pipe.generation.load(Relaxed) == session.generation().0) {
            pipe.set_transport(if streams { Transport::Sse } else { Transport::LongPoll });
        }
    }

    /// The session of a client that shows the token of its pipe. Each token that is no good has the same answer.
    fn session(&self, pipe: PipeId, request: &Request) -> Result<Arc<Session>, Refusal> {
        let limits = &self.process.limits;
        let address = request.client.address;
        limits.may_resume(address).map_err(|exceeded| self.exceeds(&request.found.route.name, exceeded))?;
        let session = self.process.sessions.of(pipe).filter(|session| self.is_its_own(session, request));
        session.ok_or_else(|| {
            limits.resume_failed(address);
            unknown()
        })
    }

    fn bounds(&self) -> HttpFallback {
        self.process.config.load().http_fallback
    }
}

/// A whole body, if it is no longer than that.
async fn whole(body: RequestBody, bytes_max: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let detail =
                format!("a request may have {bytes_max} bytes (http_fallback.post_bytes_max); send less at once");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail))
        }
        Err(_) => Err(bad("the body ended before its time")),
    }
}

/// The lines of a body.
fn lines(body: &[u8]) -> Result<Vec<Said>, Refusal> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty());
    lines.map(|(at, line)| Said::parse(line).map_err(|error| bad(format!("line {} {error}", at + 1)))).collect()
}

fn joined(lines: &[Told]) -> Bytes {
    let mut out = BytesMut::with_capacity(lines.iter().map(|line| line.json.len() + 1).sum());
    for line in lines {
        out.put_slice(&line.json);
        out.put_u8(b'\n');
    }
    out.freeze()
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn stream(events: Events) -> Response<Body> {
    let mut response = Response::new(Body::Live(UnsyncBoxBody::new(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What is asked for, where a route lets clients come without a socket.
///
/// # Errors
/// It is malformed.
pub(super) fn asked(request: &Request) -> Result<Option<Ask>, Refusal> {
    if request.found.route.http_fallback { Ask::of(&request.parts) } else { Ok(None) }
}

/// Whether the request of `parts` looks like one of a client without a socket.
pub(super) fn is_asked(parts: &Parts) -> bool {
    !matches!(Ask::of(parts), Ok(None))
}

/// Whether the request of `parts` is a hello.
pub(super) fn opens(parts: &Parts) -> bool {
    matches!(Ask::of(parts), Ok(Some(Ask::Open)))
}

/// 404: the one answer to a token that is no good, and to a pipe that is not there.
fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "pipe", "there is no such pipe for this token; say hello for a new one")
}

/// 410: the pipe has ended, and all of it was told.
fn gone() -> Refusal {
    Refusal::new(StatusCode::GONE, "pipe-ended", "the pipe has ended, or its client goes on elsewhere")
}

fn from_the_future() -> Refusal {
    bad("this acknowledges what was never sent")
}
