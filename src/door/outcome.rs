//! What the door decides about a request: values that no protocol has put into words yet.
//!
//! Invariant: what makes a [`Verdict`] does not know how its client is told; the part of the door that speaks the
//! client's protocol does that, and brings the link.

use std::sync::Arc;

use bytes::Bytes;
use holdline_core::ids::PipeId;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use super::cookie::Jar;
use super::greet::Greeting;
use crate::clients::{Claim, ClientName};
use crate::handshake::accept::agreed_headers;
use crate::handshake::client_address::ClientAddress;
use crate::handshake::dial::{DialError, NotUpgraded};
use crate::handshake::refusal::Refusal;
use crate::http::Body;
use crate::limits::{Admission, Scope, Slot, Standing};
use crate::metrics::GaugeGuard;
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::net::{ClientStream, LooseStream};
use crate::pipe::{ClientLink, Driver, Guards};
use crate::pipes::{Command, PipeEntry, Resume};
use crate::process::Process;
use crate::resume::Principal;
use crate::routes::Found;
use crate::trace::{Span, Value};

/// A request whose head is good, and where it goes.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub parts: Parts,
    /// Its route, and what that makes of it.
    pub found: Found,
    /// Who asks, as far as trusted proxies say.
    pub client: ClientAddress,
    /// The cookies by which a browser comes back, which its worker does not get.
    pub jar: Jar,
    /// The span of its handshake, if that is recorded.
    pub span: Option<Box<Span>>,
    /// How far its client is from a limit, if the answer is to say so.
    pub standing: Option<Standing>,
}

impl Request {
    /// Who asks, if its route gives clients names and it has one.
    #[must_use]
    pub fn client_name(&self) -> Option<ClientName> {
        client_name(&self.found, &self.parts)
    }

    /// Whose credentials it has.
    #[must_use]
    pub fn principal(&self) -> Principal {
        match &self.found.route.auth {
            Some(auth) if !auth.headers.is_empty() => Principal::of(auth.said(&self.parts.headers)),
            Some(_) | None => Principal::of_headers(&self.parts.headers),
        }
    }

    /// The limits that hold for it instead of the general ones.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope { route: &self.found.route.name, own: &self.found.route.limits }
    }

    /// Adds what is known to its span, if there is one.
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.set(name, value);
        }
    }
}

/// Who makes a request that has `found` its route, if that gives clients names and the request has one.
pub(super) fn client_name(found: &Found, parts: &Parts) -> Option<ClientName> {
    let id = found.client_id.as_deref()?;
    Some(ClientName::new(&found.route.name, parts.uri.path(), found.key.as_deref(), id))
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It is refused.
    Refuse(Refused),
    /// It is plain HTTP, and a worker answers it.
    Relay(Box<Request>),
    /// It opens a pipe.
    Open(Opened),
    /// Its client goes back to the pipe that it left.
    Resume(Arc<PipeEntry>, Box<Resume>),
    /// Its client names its pipe, and is heard before it may go back to it.
    Greet(Box<Greeting>),
}

impl Verdict {
    /// The status that says so to a client of HTTP/1, and to metrics; none yet for what a worker answers.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refuse(refused) => Some(refused.status()),
            Self::Relay(_) => None,
            Self::Open(_) | Self::Resume(..) | Self::Greet(_) => Some(StatusCode::SWITCHING_PROTOCOLS),
        }
    }

    /// Where the client's link goes.
    ///
    /// # Errors
    /// What becomes of a request that stays HTTP.
    pub fn settle(self) -> Result<Destination, Stay> {
        match self {
            Self::Refuse(refused) => Err(Stay::Refuse(refused)),
            Self::Relay(request) => Err(Stay::Relay(request)),
            Self::Open(opened) => Ok(Destination::Open(opened)),
            Self::Resume(pipe, resume) => Ok(Destination::Resume(pipe, resume)),
            Self::Greet(greeting) => Ok(Destination::Greet(greeting)),
        }
    }
}

/// What becomes of a request that opens no pipe and goes back to none.
#[derive(Debug)]
pub enum Stay {
    /// It is refused.
    Refuse(Refused),
    /// A worker answers it.
    Relay(Box<Request>),
}

/// Where the link of a client goes that is let in.
#[derive(Debug)]
pub enum Destination {
    /// To a pipe that was opened for it.
    Open(Opened),
    /// To the pipe that it left.
    Resume(Arc<PipeEntry>, Box<Resume>),
    /// To whom hears which pipe it comes back to.
    Greet(Box<Greeting>),
}

impl Destination {
    /// What the client is told with its answer, whatever version of HTTP that is in.
    #[must_use]
    pub fn agreed(&self) -> HeaderMap {
        match self {
            Self::Open(opened) => {
                let compression = opened.driver.entry().compression.agreed();
                agreed_headers(opened.protocol(), compression, &opened.headers)
            }
            Self::Greet(greeting) => agreed_headers(Some(&greeting.protocol), None, &HeaderMap::new()),
            Self::Resume(pipe, _) => {
                agreed_headers(pipe.protocol.as_deref(), pipe.compression.agreed(), &HeaderMap::new())
            }
        }
    }

    /// Sends the link there, with what was `unread` of it.
    pub async fn receive(self, stream: ClientStream, unread: Bytes, seat: Seat) {
        match self {
            Self::Open(opened) => opened.start(ClientLink::socket(stream, unread), seat),
            Self::Resume(pipe, resume) => match LooseStream::loosen(stream) {
                Ok(socket) => {
                    // A pipe that takes no order drops it: the client is closed, and tries again.
                    pipe.order(Command::Resume(socket, unread, resume));
                }
                Err(error) => tracing::warn!(pipe = %pipe.id, %error, "a client that came back could not be attached"),
            },
            Self::Greet(greeting) => {
                greeting.hear(stream, unread).await;
                drop(seat);
            }
        }
    }
}

/// A request that is refused, and by whom.
#[derive(Debug)]
pub enum Refused {
    /// By us.
    Ours(Refusal),
    /// By the worker, whose answer is the client's as it is.
    Workers(Box<NotUpgraded>),
    /// By the server of `routes.auth_url`.
    Denied(Box<Denied>),
}

impl Refused {
    /// The status that the client is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Ours(refusal) => refusal.status,
            Self::Workers(answer) => answer.status,
            Self::Denied(answer) => answer.status,
        }
    }
}

/// What the server of `routes.auth_url` has for a client that it does not let in.
#[derive(Debug)]
pub struct Denied {
    /// The status.
    pub status: StatusCode,
    /// The headers that are for the client.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Denied {
    /// The answer that goes to the client.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Ours(refusal)
    }
}

impl From<DialError> for Refused {
    fn from(error: DialError) -> Self {
        match error.refusal() {
            Ok(refusal) => Self::Ours(refusal),
            Err(answer) => Self::Workers(answer),
        }
    }
}

/// A connection's place in the books, or that of one stream of a connection that has many.
#[derive(Debug)]
pub struct Seat {
    slot: Slot,
    gauge: GaugeGuard,
}

impl Seat {
    /// Takes a place for one more client; it is given back when dropped.
    #[must_use]
    pub fn take(process: &Process) -> Self {
        Self { slot: process.slots.take(), gauge: process.metrics.connection(ListenerLabel::Public) }
    }

    /// Takes a place for a connection that was counted already, and has given its place to its stream.
    #[must_use]
    pub fn take_back(process: &Process) -> Self {
        Self { slot: process.slots.take(), gauge: process.metrics.kept_connection(ListenerLabel::Public) }
    }

    /// Whether there were `server.max_connections` already, so that the client can only be told so.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.slot.is_over()
    }
}

/// Has a pipe end whose client is away, so that one that is there finds a place; whether there was one.
pub(super) fn make_room(process: &Process) -> bool {
    let Some(pipe) = process.pipes.lingering.shed() else { return false };
    process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Shed);
    pipe.order(Command::make_room())
}

/// A pipe that has its worker and waits for its client's link.
pub struct Opened {
    /// The driver stays where it was made: it is large, and a task is moved several times before it runs.
    pub(super) driver: Box<Driver>,
    /// Its client's name, if it has one.
    pub(super) claim: Option<Box<Claim>>,
    /// Its places in the limits that count it.
    pub(super) admission: Admission,
    /// The entry of the client's offer that was picked, if it is one of ours.
    pub(super) spoken: Option<Box<str>>,
    /// What the worker's answer has for the client.
    pub headers: HeaderMap,
}

impl Opened {
    /// The subprotocol that was picked: the worker's, or ours with it.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.spoken.as_deref().or(self.driver.entry().protocol.as_deref())
    }

    /// Whether the client is spoken with by numbers.
    #[must_use]
    pub const fn speaks_aware(&self) -> bool {
        self.spoken.is_some()
    }

    /// The pipe's id.
    #[must_use]
    pub fn pipe(&self) -> PipeId {
        self.driver.entry().id
    }

    /// Gives the pipe its client's link, and lets it run in a task of its own, on this thread.
    pub fn start(mut self, link: ClientLink, seat: Seat) {
        let Seat { slot, gauge } = seat;
        let guards = Guards { name: self.claim, slot, admission: self.admission, connection: gauge };
        self.driver.start(link, Some(guards));
        tokio::spawn(self.driver);
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.driver.entry().id)
    }
}
