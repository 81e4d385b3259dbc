//! Where the conversation of one client connection is, shared by the service that answers its requests and by its socket.
//!
//! ```text
//! Idle ──▶ Head ──▶ Asked ──▶ Answering ──▶ Answered ──┬──▶ Idle
//!                     ▲                               └──▶ Left, if the request's body is not wanted
//!                     └── next request ◀──────────────────┘
//! ```
//! hyper moves the bytes and keeps such a state to itself; who waits for whom, and for how long, depends on it.
//! Invariant: what is held for an exchange is let go when the last byte of its answer has left, not when it was made.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::{StatusCode, Version};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::body::Body;
use super::bound::Bound;
use super::exchanges::Exchange;
use crate::metrics::{GaugeGuard, RouteMetrics};

/// The conversation of one connection.
#[derive(Debug, Default)]
pub struct Talk {
    state: Mutex<State>,
    pub(super) bound: Bound,
}

#[derive(Debug, Default)]
struct State {
    step: Step,
    /// Requests so far: what was armed for an earlier one is stale.
    requests: u64,
    /// Whether a part of the request's body has not been read.
    unread: bool,
    /// Whether what is unread of it is not wanted.
    dismissed: bool,
    /// Whether there was a plain request, after which a next one may come.
    plain: bool,
    early: Early,
    held: Option<Exchange>,
}

/// Provisional answers on their way.
#[derive(Debug, Default)]
struct Early {
    heads: BytesMut,
    /// The connection, which writes them.
    writer: Option<Waker>,
    /// The answer, which may not overtake them.
    answer: Option<Waker>,
}

/// Bytes of provisional answers that wait to be written; one beyond is dropped, as it may be.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Step {
    /// No byte of the next request has come.
    #[default]
    Idle,
    /// A part of a head has come.
    Head,
    /// A request waits for the head of its answer.
    Asked(Ask),
    /// The body of an answer is on its way.
    Answering,
    /// All of an answer was given to the connection, which may still be writing it.
    Answered,
    /// All of an answer has left, and what its request still had to say is not wanted.
    Left,
}

/// What a client may be told before its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Provisional answers: a plain request of HTTP/1.1.
    Plain,
    /// Nothing: a plain request of HTTP/1.0, or of HTTP/2.
    Nothing,
    /// Nothing, and it has to keep its side open: a handshake.
    Upgrade,
}

impl Talk {
    /// A request's head has come.
    pub fn asked(&self, version: Version, upgrade: bool) {
        let mut state = self.lock();
        state.step = Step::Asked(match version {
            _ if upgrade => Ask::Upgrade,
            Version::HTTP_11 => Ask::Plain,
            _ => Ask::Nothing,
        });
        state.requests += 1;
        (state.unread, state.dismissed) = (false, false);
        state.plain |= !upgrade;
        state.held = None;
    }

    /// Holds `exchange` until the answer has left.
    pub fn hold(&self, exchange: Exchange) {
        self.lock().held = Some(exchange);
    }

    /// The request is a plain one of this route.
    pub fn routed(&self, route: Arc<RouteMetrics>) {
        if let Some(exchange) = &mut self.lock().held {
            exchange.routed(route);
        }
    }

    /// Where the client really is.
    pub fn comes_from(&self, client: impl FnOnce() -> IpAddr) {
        if let Some(exchange) = &mut self.lock().held {
            exchange.comes_from(client);
        }
    }

    /// Counts the request among those that wait for their worker's answer, until the value returned goes.
    pub(super) fn parked(&self) -> Option<GaugeGuard> {
        self.lock().held.as_ref().and_then(Exchange::parked)
    }

    /// The request has a body.
    pub(super) fn body_follows(&self) {
        self.lock().unread = true;
    }

    /// The request's body was read to its end.
    pub(super) fn read_whole(&self) {
        self.lock().unread = false;
    }

    /// What is unread of the request's body is not wanted.
    pub(super) fn dismiss(&self) {
        self.lock().dismissed = true;
    }

    /// Whether a part of the last request is still in the socket.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.lock().unread
    }

    /// Whether the connection may be kept for a next request.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.lock().plain
    }

    /// Whether the client may be told something before its answer.
    pub(super) fn hears_more(&self) -> bool {
        self.lock().step == Step::Asked(Ask::Plain)
    }

    /// Tells the client something before its answer. Best effort: nothing depends on it (RFC 9110 section 15.2).
    pub(super) fn tell(&self, head: &[u8]) {
        let mut state = self.lock();
        if state.early.heads.len() + head.len() > EARLY_BYTES_MAX {
            return;
        }
        state.early.heads.extend_from_slice(head);
        if let Some(writer) = state.early.writer.take() {
            writer.wake();
        }
    }

    /// Waits until all of that has left.
    pub(super) async fn told(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.early.heads.is_empty() {
                return Poll::Ready(());
            }
            state.early.answer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Writes what is to be told before the answer by `write`, which gives how much of it was taken.
    pub(super) fn poll_tell(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        while !state.early.heads.is_empty() {
            let taken = std::task::ready!(write(cx, &state.early.heads))?;
            state.early.heads.advance(taken);
        }
        if let Some(answer) = state.early.answer.take() {
            answer.wake();
        }
        if state.step == Step::Asked(Ask::Plain) {
            state.early.heads = BytesMut::new();
            state.early.writer = Some(cx.waker().clone());
        }
        Poll::Ready(Ok(()))
    }

    /// The head of an answer is there; its body says when the whole of it is.
    #[must_use]
    pub fn answering(self: &Arc<Self>, status: StatusCode, body: Body) -> AnswerBody {
        let mut state = self.lock();
        state.step = Step::Answering;
        if let Some(exchange) = &mut state.held {
            exchange.answered(status);
        }
        AnswerBody { body, bytes: 0, talk: self.clone() }
    }

    /// The request is answered with `status`, and what follows is no HTTP.
    pub fn switches(&self, status: StatusCode) {
        if let Some(exchange) = &mut self.lock().held {
            exchange.answered(status);
        }
    }

    /// A byte of the next request has come.
    pub(super) fn heard(&self) {
        let mut state = self.lock();
        if state.step == Step::Idle {
            state.step = Step::Head;
        }
    }

    /// Everything that was to be written has left. While its request is still being read, an exchange goes on.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        if state.step == Step::Answered && (!state.unread || state.dismissed) {
            state.step = if state.unread { Step::Left } else { Step::Idle };
            state.held = None;
        }
    }

    /// Where it is, and in which request.
    pub(super) fn step(&self) -> (Step, u64) {
        let state = self.lock();
        (state.step, state.requests)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment or a few: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer, which tells the conversation when it has been taken.
#[derive(Debug)]
pub struct AnswerBody {
    body: Body,
    /// What was taken of it.
    bytes: u64,
    talk: Arc<Talk>,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let mut state = self.talk.lock();
        if state.step == Step::Answering {
            state.step = Step::Answered;
            if let Some(exchange) = &mut state.held {
                exchange.sent(self.bytes);
            }
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
