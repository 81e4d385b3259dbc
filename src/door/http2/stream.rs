//! One stream: its request goes to the judge, and what the judge decides goes back on it.
//!
//! Invariant: a client that takes its request back is heard at once, whatever the request waits for; and all that was done
//! for it is undone.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::header::EXPECT;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tokio::select;

use super::Live;
use super::calm::Calm;
use super::head::translate;
use super::response::{Broken, complete, send};
use super::shuttle::Shuttle;
use crate::door::Door;
use crate::door::fallback::asked;
use crate::door::judge::{Asked, Asks};
use crate::door::outcome::{Destination, Refused, Request, Seat, Stay};
use crate::http::{Access, Body, Caller, Exchange, RequestBody, Rest, StreamBody, Talk, relay};
use crate::metrics::labels::{StreamKind, StreamResult};
use crate::net::{Peer, TlsIdentity};

/// One stream of a connection.
pub(super) struct Stream {
    pub(super) door: Arc<Door>,
    pub(super) peer: Peer,
    pub(super) identity: Option<Arc<TlsIdentity>>,
    /// Its place in the books, which counts it as a connection.
    pub(super) seat: Seat,
    /// Its place among the streams of its connection.
    pub(super) live: Live,
    pub(super) calm: Arc<Calm>,
}

/// What becomes of a request.
enum Decision {
    /// And what is to be forgotten of its body, behind the answer.
    Answer(Response<Body>, Option<Rest>),
    Leave(Destination, RecvStream),
}

impl Stream {
    /// Answers `request`, up to the end of its answer, or of the WebSocket that it opens.
    pub(super) async fn serve(self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let process = self.door.process.clone();
        let gauge = process.metrics.http2_stream(StreamKind::Request);
        let talk = Arc::new(Talk::default());
        let is_head = request.method() == Method::HEAD;
        if waits_for_word(request.headers()) {
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            // A stream that takes no word takes no answer either.
            let _ = respond.send_informational(go_on);
        }
        let decision = select! {
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => None,
            // Boxed, because it takes several times what a parked request does that is to be answered.
            decision = Box::pin(self.decide(request, &talk)) => Some(decision),
        };
        let (patience, linger) = {
            let rules = process.rules.load();
            (rules.send_timeout, rules.linger)
        };
        let mut unread = None;
        let result = match decision {
            None => StreamResult::Reset,
            Some(Decision::Leave(to, body)) => {
                drop(gauge);
                return self.switch(to, body, respond, &talk).await;
            }
            Some(Decision::Answer(response, rest)) => {
                unread = rest;
                let status = response.status();
                let response = response.map(|body| talk.answering(status, body));
                match send(&mut respond, response, is_head, patience).await {
                    Ok(()) => StreamResult::Answered,
                    Err(Broken::Reset) => StreamResult::Reset,
                    Err(Broken::Off) => StreamResult::Broken,
                }
            }
        };
        if result == StreamResult::Reset {
            self.calm.taken_back(Instant::now());
        }
        process.metrics.http2_stream_result(result);
        if let Some(unread) = unread.filter(|_| result == StreamResult::Answered) {
            unread.forget(linger).await;
        }
    }

    async fn decide(&self, request: http::Request<RecvStream>, talk: &Arc<Talk>) -> Decision {
        let process = &self.door.process;
        let (access, header_bytes_max) = {
            let rules = process.rules.load();
            (Access::of(&request, self.peer.address, rules.access), rules.header_bytes_max)
        };
        let (mut parts, body) = request.into_parts();
        let is_handshake = parts.extensions.get::<Protocol>().is_some();
        let asks = translate(&mut parts, header_bytes_max);
        if let Some(identity) = &self.identity {
            parts.extensions.insert(identity.clone());
        }
        let is_plain = matches!(asks, Asks::Answer);
        talk.asked(Version::HTTP_2, !is_plain);
        talk.hold(Exchange::new(is_plain.then(|| process.exchanges.count_in()), access));
        talk.comes_from(|| process.rules.load().trusted.trace(self.peer, &parts).address);
        let asked = Asked { parts, peer: self.peer, asks, over: self.seat.is_over() };
        let refused = match self.door.judge(asked).await.settle() {
            Ok(to) => return Decision::Leave(to, body),
            Err(Stay::Relay(request)) => {
                let (body, rest) = StreamBody::new(body, &request.parts.headers);
                return Decision::Answer(self.relay(*request, body, talk).await, Some(rest));
            }
            Err(Stay::Refuse(refused)) => refused,
        };
        let response = match refused {
            Refused::Ours(refusal) => refusal.into_response(),
            Refused::Workers(answer) => answer.into_response(),
            Refused::Denied(answer) => answer.into_response(),
        };
        // A handshake has no body that its client would have to be rid of.
        Decision::Answer(response, (!is_handshake).then(|| Rest::of(body)))
    }

    /// A worker's answer, or what a client without a socket asks of us.
    async fn relay(&self, request: Request, body: StreamBody, talk: &Arc<Talk>) -> Response<Body> {
        let body = RequestBody::new(body, talk);
        talk.routed(self.door.process.metrics.route(&request.found.route.name));
        match asked(&request) {
            Ok(None) => {}
            Ok(Some(ask)) => return self.door.fall_back(ask, Box::new(request), body, self.seat.is_over()).await,
            Err(refusal) => return refusal.into_response(),
        }
        let Request { parts, found, client, standing, .. } = request;
        let http = self.door.http.with(self.door.process.rules.load().http);
        let caller = Caller { address: &client, talk };
        let mut response = relay(http::Request::from_parts(parts, body), &http, &found, caller).await;
        if let Some(standing) = standing {
            standing.say(response.headers_mut());
        }
        response
    }

    /// Answers 200, and carries the bytes of the WebSocket from then on.
    async fn switch(self, to: Destination, client: RecvStream, mut respond: SendResponse<Bytes>, talk: &Talk) {
        let Self { door, seat, live, .. } = self;
        let process = &door.process;
        let mut response = Response::new(());
        *response.headers_mut() = to.agreed();
        complete(StatusCode::OK, response.headers_mut(), None);
        talk.switches(StatusCode::OK);
        let (theirs, ours) = Shuttle::link();
        match respond.send_response(response, false) {
            Ok(send) => {
                let shuttle = Shuttle::new(client, send, ours);
                let (patience, gauge) =
                    (process.rules.load().send_timeout, process.metrics.http2_stream(StreamKind::WebSocket));
                process.metrics.http2_stream_result(StreamResult::WebSocket);
                tokio::spawn(async move {
                    shuttle.run(patience).await;
                    drop((gauge, live));
                });
            }
            // If it cannot be sent, the pipe finds out by itself and ends as any other, its worker included.
            Err(_) => {
                process.metrics.http2_stream_result(StreamResult::Reset);
                drop(ours);
            }
        }
        to.receive(theirs.into(), Bytes::new(), seat).await;
    }
}

/// Whether a client waits to be told that it may send its body.
fn waits_for_word(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
