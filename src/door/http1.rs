//! One connection that speaks HTTP/1: its requests go to the judge, and what the judge decides goes back as HTTP.
//!
//! Most connections begin with a handshake, which is read and answered on the bare socket. For all others, hyper reads the
//! requests and writes the answers, until one of them opens a pipe or goes back to one: then hyper is left, the 101 is
//! written here, and the bare socket goes to the pipe. Invariant: one request is judged at a time, and not longer than its
//! client stays.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::request::Parts;
use http::{Extensions, HeaderValue, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::Door;
use super::challenge;
use super::fallback::asked;
use super::first_head::First;
use super::judge::{Asked, Asks};
use super::listen::Arrival;
use super::outcome::{Destination, Refused, Request, Seat, Stay};
use super::request_line::{Heads, LenientLine};
use crate::handshake::accept::{switching_head, switching_headers};
use crate::handshake::check::{Checked, UpgradeRequest, asks_for_websocket, check};
use crate::http::{
    Access, AnswerBody, Body, Caller, ClientSocket, Exchange, LingerLimits, RequestBody, Talk, linger, relay,
};
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::net::{ClientStream, Peer, TlsIdentity};
use crate::process::Process;
use crate::send_timeout::SendTimeout;

/// The least that hyper takes for `server.header_bytes_max`.
const HEADER_BYTES_FLOOR: usize = 8192;

/// What is read behind a head that is malformed or too long, instead of `server.linger_bytes_max`.
const BAD_REQUEST_LINGER_BYTES_MAX: u64 = 1 << 20;

/// A request that hyper has read, and where its answer goes.
struct Question {
    request: http::Request<Incoming>,
    wants_upgrade: bool,
    answer: oneshot::Sender<Response<Body>>,
}

impl Question {
    /// The question itself; its box would be kept for as long as the answer is waited for.
    fn opened(self: Box<Self>) -> Self {
        *self
    }
}

/// How a connection leaves HTTP.
struct Exit {
    /// What its client is told.
    head: Vec<u8>,
    to: Destination,
}

/// Serves one client connection until it closes or belongs to a pipe, which then goes on in a task of its own.
pub async fn serve(door: Arc<Door>, arrival: Arrival) {
    let Arrival { mut stream, peer, identity, read, seat, began } = arrival;
    let patience = door.process.rules.load().patience.head;
    let mut first = First::read(&mut stream, read, patience.saturating_sub(began.elapsed())).await;
    let mut judged = None;
    if let Some(mut request) = first.handshake.take() {
        request.extensions_mut().extend(carried(&identity));
        // Boxed, because a task is moved several times before it runs and once when it is done.
        let answer = Box::pin(answer_first(&door, peer, seat.is_over(), request));
        let decision = tokio::select! {
            biased;
            decision = answer => decision,
            () = gone(&mut stream, &mut first.unread) => return close(stream, None, &door.process).await,
        };
        match decision {
            Ok(exit) => {
                // An empty rest would keep the memory of the head.
                let unread = if first.unread.is_empty() { Bytes::new() } else { first.unread.freeze() };
                let send_timeout = door.process.rules.load().send_timeout;
                return exit.leave(stream, unread, seat, send_timeout).await;
            }
            Err(stay) => judged = Some(stay),
        }
    }
    stream.takes_bytes().await;
    let patience = patience.saturating_sub(began.elapsed());
    let start = Start { read: first.into_bytes(), identity, judged, patience };
    // In a task of its own, because this one is larger than what a parked poll should take along.
    tokio::spawn(speak(door, stream, start, peer, seat));
}

/// What goes along with each request of a connection.
fn carried(identity: &Option<Arc<TlsIdentity>>) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(identity) = identity {
        extensions.insert(identity.clone());
    }
    extensions
}

/// Answers the handshake with which a connection begins, if that leaves HTTP.
///
/// # Errors
/// What else becomes of it.
async fn answer_first(door: &Door, peer: Peer, over: bool, request: http::Request<()>) -> Result<Exit, Stay> {
    let rules = door.process.rules.load();
    let mut exchange = Exchange::new(None, Access::of(&request, peer.address, rules.access));
    let (parts, ()) = request.into_parts();
    exchange.comes_from(|| rules.trusted.trace(peer, &parts).address);
    drop(rules);
    let decision = decide(door, peer, over, parts).await;
    match &decision {
        Ok(_) => exchange.answered(StatusCode::SWITCHING_PROTOCOLS),
        // hyper reads it again, and tells it with its answer.
        Err(_) => exchange.dismiss(),
    }
    decision
}

/// Ends when the client of a handshake has gone. What it sends before its answer is for its pipe; then it is not watched
/// any more.
async fn gone(stream: &mut ClientStream, unread: &mut BytesMut) {
    if !unread.is_empty() || stream.read_buf(unread).await.is_ok_and(|bytes| bytes > 0) {
        std::future::pending().await
    }
}

/// What is known of a connection before hyper serves it.
struct Start {
    /// What was read of it.
    read: Bytes,
    /// Who its client is by its TLS session, if it has one.
    identity: Option<Arc<TlsIdentity>>,
    /// What becomes of its first request, if that was a handshake.
    judged: Option<Stay>,
    /// How long the rest of its first head may take.
    patience: Duration,
}

/// Serves a connection by hyper. No async function, which would have room for all of this twice for as long as it lasts.
fn speak(door: Arc<Door>, stream: ClientStream, start: Start, peer: Peer, seat: Seat) -> impl Future<Output = ()> {
    let Start { read, identity, judged, patience } = start;
    let (talk, heads) = (Arc::new(Talk::default()), Heads::default());
    let rules = door.process.rules.load_full();
    let (send_timeout, limits) = (rules.send_timeout, rules.linger);
    let socket = ClientSocket::new(
        SendTimeout::new(LenientLine::new(stream, read, heads.clone()), send_timeout),
        talk.clone(),
        rules.patience,
        patience,
    );
    let (questions, mut asked) = mpsc::channel(1);
    let (carried, talking) = (carried(&identity), talk.clone());
    let asker = Asker { door: door.clone(), peer, carried, questions, talk: talking, heads };
    let mut serving = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(rules.header_bytes_max.max(HEADER_BYTES_FLOOR))
        // Boxed, because hyper gives the socket back only from a connection that can be moved.
        .serve_connection(TokioIo::new(socket), service_fn(move |request| Box::pin(asker.clone().take(request))));
    drop(rules);
    async move {
        let speaker = Speaker { door: &door, peer, over: seat.is_over(), talk: &talk };
        let mut leaving = Leaving::default();
        let served = std::future::poll_fn(|cx| {
            let served = serving.poll_without_shutdown(cx);
            if served.is_ready() || !leaving.is_due(&speaker, cx) {
                return served;
            }
            Pin::new(&mut serving).graceful_shutdown();
            serving.poll_without_shutdown(cx)
        });
        let end = tokio::select! {
            biased;
            served = served => Err(served),
            exit = speaker.answer_all(&mut asked, judged) => Ok(exit),
        };
        let parts = serving.into_parts();
        let socket = parts.io.into_inner();
        let timed_out = socket.has_timed_out();
        let (stream, unread) = socket.into_parts(parts.read_buf);
        let (stream, unread) = stream.into_inner().into_parts(unread);
        // What comes now is boxed: a connection that is parked has no room for it.
        match end {
            Ok(exit) => Box::pin(exit.leave(stream, unread, seat, send_timeout)).await,
            Err(served) => {
                let failure = served.err().and_then(|error| failure(&error));
                let result = if timed_out { Some(ConnectionResult::TimedOut) } else { failure };
                if let Some(result) = result {
                    door.process.metrics.connection_result(ListenerLabel::Public, result);
                }
                let sends_on = talk.is_unread() || !unread.is_empty();
                Box::pin(close(stream, linger_limits(failure, sends_on, limits), &door.process)).await;
            }
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
    fn is_due(&mut self, speaker: &Speaker<'_>, cx: &mut Context<'_>) -> bool {
        if matches!(self, Self::NotKept) && speaker.talk.is_plain() {
            *self = Self::Waiting(Box::pin(speaker.door.process.phase.leaves()));
        }
        let Self::Waiting(leaves) = self else { return false };
        let due = leaves.as_mut().poll(cx).is_ready();
        if due {
            *self = Self::Told;
        }
        due
    }
}

/// How much of a client is read behind its last answer, if it may be sending.
fn linger_limits(failure: Option<ConnectionResult>, sends_on: bool, limits: LingerLimits) -> Option<LingerLimits> {
    match failure {
        Some(ConnectionResult::BadRequest) => Some(limits.at_most(BAD_REQUEST_LINGER_BYTES_MAX)),
        _ => sends_on.then_some(limits),
    }
}

/// Closes a connection; one whose client may be sending is read within limits first.
async fn close(mut stream: ClientStream, limits: Option<LingerLimits>, process: &Process) {
    let Some(limits) = limits else {
        // Best effort: the socket is dropped next.
        let _ = stream.shutdown().await;
        return;
    };
    // A stop waits for the client to take its answer.
    let _counted = process.exchanges.count_in();
    if !linger(&mut stream, limits).await {
        process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::Cut);
    }
}

fn failure(error: &hyper::Error) -> Option<ConnectionResult> {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return Some(ConnectionResult::TimedOut);
    }
    error.is_parse().then_some(ConnectionResult::BadRequest)
}

/// The answer to a request, as hyper takes it.
type Answered = Result<Response<AnswerBody>, oneshot::error::RecvError>;

/// hyper's side of the conversation: it brings each request to the speaker, and waits for the answer.
#[derive(Clone)]
struct Asker {
    door: Arc<Door>,
    peer: Peer,
    carried: Extensions,
    questions: mpsc::Sender<Box<Question>>,
    talk: Arc<Talk>,
    heads: Heads,
}

impl Asker {
    /// Says what follows the head of a request, before anything of that is read, and asks for the answer. What waits for
    /// that has nothing of the request.
    fn take(mut self, mut request: http::Request<Incoming>) -> impl Future<Output = Answered> {
        request.extensions_mut().extend(std::mem::take(&mut self.carried));
        let wants_upgrade = asks_for_websocket(request.headers());
        if !wants_upgrade {
            self.heads.follow_body(request.body().size_hint().exact());
        }
        self.talk.asked(request.version(), wants_upgrade);
        let process = &self.door.process;
        let access = Access::of(&request, self.peer.address, process.rules.load().access);
        let counted = (!wants_upgrade).then(|| process.exchanges.count_in());
        self.talk.hold(Exchange::new(counted, access));
        let (answer, answered) = oneshot::channel();
        let question = Box::new(Question { request, wants_upgrade, answer });
        let Self { questions, talk, .. } = self;
        async move {
            // If it cannot be asked, the answer's sender goes with it, and the wait below ends.
            let _ = questions.send(question).await;
            let response = answered.await?;
            let status = response.status();
            Ok(response.map(|body| talk.answering(status, body)))
        }
    }
}

impl Exit {
    /// Answers the client, and sends its socket, with what was `unread` of it, to its pipe.
    async fn leave(self, mut stream: ClientStream, unread: Bytes, seat: Seat, patience: Duration) {
        // If it cannot be sent, the pipe finds out by itself and ends as any other, its worker included.
        let answer = async {
            stream.write_all(&self.head).await?;
            stream.flush().await
        };
        let _ = tokio::time::timeout(patience, answer).await;
        self.to.receive(stream, unread, seat).await;
    }
}

/// Our side of the conversation: it answers the requests of one connection.
struct Speaker<'a> {
    door: &'a Door,
    peer: Peer,
    over: bool,
    talk: &'a Arc<Talk>,
}

impl Speaker<'_> {
    /// Answers one request after the other, up to the one with which the connection leaves HTTP; the first one as it
    /// was `judged`, if it was.
    async fn answer_all(&self, asked: &mut mpsc::Receiver<Box<Question>>, mut judged: Option<Stay>) -> Exit {
        loop {
            // hyper has the sender for as long as it serves the connection.
            let Some(question) = asked.recv().await else { return std::future::pending().await };
            let Question { request, wants_upgrade, answer } = question.opened();
            match self.answer(request, wants_upgrade, judged.take()).await {
                // A client that is gone needs no answer.
                Ok(response) => drop(answer.send(response)),
                Err(exit) => return exit,
            }
        }
    }

    /// Answers one request. No async function, which would have room for the request twice while its worker holds it.
    ///
    /// # Errors
    /// It is the last one: the connection leaves HTTP.
    fn answer(
        &self,
        request: http::Request<Incoming>,
        wants_upgrade: bool,
        judged: Option<Stay>,
    ) -> impl Future<Output = Result<Response<Body>, Exit>> {
        let (parts, body) = request.into_parts();
        let body = RequestBody::new(body, self.talk);
        async move {
            if let Some(answer) = challenge::answer(&self.door.process, self.peer, &parts).await {
                return Ok(answer);
            }
            self.talk.comes_from(|| self.door.process.rules.load().trusted.trace(self.peer, &parts).address);
            let decision = match judged {
                Some(stay) => Err(stay),
                None => decide(self.door, self.peer, self.over, parts).await,
            };
            let mut response = match decision {
                Err(Stay::Refuse(Refused::Ours(refusal))) => refusal.into_response(),
                Err(Stay::Refuse(Refused::Workers(answer))) => answer.into_response(),
                Err(Stay::Refuse(Refused::Denied(answer))) => answer.into_response(),
                Err(Stay::Relay(request)) => match asked(&request) {
                    // Each boxed, because neither need take along what the other takes.
                    Ok(None) => Box::pin(self.relay(request, body)).await,
                    Ok(Some(ask)) => {
                        self.talk.routed(self.door.process.metrics.route(&request.found.route.name));
                        Box::pin(self.door.fall_back(ask, request, body, self.over)).await
                    }
                    Err(refusal) => refusal.into_response(),
                },
                Ok(exit) => {
                    self.talk.switches(StatusCode::SWITCHING_PROTOCOLS);
                    return Err(exit);
                }
            };
            // A client that asked for a WebSocket may have sent frames already, which must not be read as a request. On the
            // way down, or with one connection too many, none is kept for a next request. One with a length beside chunks is
            // closed by hyper, because a proxy before us may take the next request for a part of this one (RFC 9112 section
            // 6.1).
            if wants_upgrade || self.over || !self.door.process.phase.takes_pipes() {
                response.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    }

    /// Has a worker answer a request, of which only the box is kept meanwhile.
    fn relay(&self, mut request: Box<Request>, body: RequestBody) -> impl Future<Output = Response<Body>> {
        self.talk.routed(self.door.process.metrics.route(&request.found.route.name));
        let http = self.door.http.with(self.door.process.rules.load().http);
        async move {
            let parts = std::mem::replace(&mut request.parts, http::Request::new(()).into_parts().0);
            let Request { found, client, standing, .. } = &*request;
            let caller = Caller { address: client, talk: self.talk };
            let mut response = relay(http::Request::from_parts(parts, body), &http, found, caller).await;
            if let Some(standing) = *standing {
                standing.say(response.headers_mut());
            }
            response
        }
    }
}

/// Decides about one request.
///
/// # Errors
/// It does not leave HTTP.
async fn decide(door: &Door, peer: Peer, over: bool, parts: Parts) -> Result<Exit, Stay> {
    let (asks, key) = match check(&parts, door.process.rules.load().header_bytes_max) {
        Checked::Upgrade(UpgradeRequest { key, protocols }) => (Asks::Pipe(protocols), key),
        Checked::Plain => (Asks::Answer, String::new()),
        Checked::Refused(refusal) => (Asks::Nothing(refusal), String::new()),
    };
    let to = door.judge(Asked { parts, peer, asks, over }).await.settle()?;
    Ok(Exit { head: switching_head(&switching_headers(&key, to.agreed())), to })
}
