//! What a request of a client without a socket asks for, read from its head.
//!
//! Refuses what is malformed with its reason. A request that is none of these is plain HTTP, and a worker's.

use std::time::Duration;

use holdline_core::ids::PipeId;
use http::header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::config::parse_duration;
use crate::fallback::Since;
use crate::handshake::refusal::Refusal;

/// The media type of a hello.
pub const HELLO_TYPE: &str = "application/vnd.holdline+json";

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Whether a page of another origin may ask (CORS).
    Preflight,
    /// A pipe: a new one, or one that is resumed.
    Open,
    /// To have messages sent.
    Send(PipeId),
    /// What the pipe has said.
    Poll(Poll),
}

/// A poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Poll {
    /// The pipe.
    pub pipe: PipeId,
    /// The last message that the client has.
    pub after: u64,
    /// The line of the last word that it has, where it says so.
    pub words: Option<u64>,
    /// Of which epoch that is, where it says so.
    pub epoch: Option<u64>,
    /// How long it waits.
    pub wait: Option<Duration>,
    /// Whether the answer goes on as a stream of events.
    pub streams: bool,
}

impl Ask {
    /// What the request of `parts` asks for; nothing if it is plain HTTP.
    ///
    /// # Errors
    /// It is malformed.
    pub fn of(parts: &Parts) -> Result<Option<Self>, Refusal> {
        let is_hello = text(parts, &CONTENT_TYPE).is_some_and(|kind| essence(kind) == HELLO_TYPE);
        let pipe = text(parts, "holdline-pipe");
        let query = Query::of(parts.uri.query().unwrap_or_default());
        match (&parts.method, pipe) {
            (&Method::OPTIONS, _) => {
                let asks = parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
                Ok((asks && parts.headers.contains_key(ORIGIN)).then_some(Self::Preflight))
            }
            (&Method::POST, Some(pipe)) => Ok(Some(Self::Send(named(pipe)?))),
            (&Method::POST, None) if is_hello => Ok(Some(Self::Open)),
            (&Method::GET, _) if query.pipe.is_some() => query.poll(parts).map(Self::Poll).map(Some),
            _ => Ok(None),
        }
    }
}

/// The keys of ours in a query.
#[derive(Default)]
struct Query<'a> {
    pipe: Option<&'a str>,
    after: Option<&'a str>,
    wait: Option<&'a str>,
    /// One of them came again.
    twice: bool,
}

impl<'a> Query<'a> {
    fn of(query: &'a str) -> Self {
        let mut found = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let place = match name {
                "pipe" => &mut found.pipe,
                "after" => &mut found.after,
                "wait" => &mut found.wait,
                _ => continue,
            };
            found.twice |= place.replace(value).is_some();
        }
        found
    }

    fn poll(&self, parts: &Parts) -> Result<Poll, Refusal> {
        if self.twice {
            return Err(bad("pipe, after and wait may come once each"));
        }
        let streams = text(parts, &ACCEPT).is_some_and(|kinds| kinds.split(',').map(essence).any(is_event_stream));
        // A stream that goes on names the last event that it had.
        let last = text(parts, "last-event-id").filter(|_| streams).map(event_id).transpose()?;
        let (has, words) = place(self.after.unwrap_or("0"))?;
        let (epoch, after) = last.map_or((None, has), |(epoch, after)| (Some(epoch), after));
        let wait = self.wait.map(|wait| parse_duration(wait).map_err(|_| bad("wait has to be a time, such as 25s")));
        Ok(Poll { pipe: named(self.pipe.unwrap_or_default())?, after, words, epoch, wait: wait.transpose()?, streams })
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The number of a message, and the line of a word if one follows.
fn place(after: &str) -> Result<(u64, Option<u64>), Refusal> {
    let (message, word) = after.split_once('.').map_or((after, None), |(message, word)| (message, Some(word)));
    let words = word.map_or(Some(None), |word| number(word).map(Some));
    number(message).zip(words).ok_or_else(|| {
        bad("after has to be the number of a message, or 0; behind a dot, the line of a control word may follow")
    })
}

/// The epoch and the number of an event's id.
fn event_id(id: &str) -> Result<(u64, u64), Refusal> {
    let read = id.split_once('-').and_then(|(epoch, seq)| Some((number(epoch)?, number(seq)?)));
    read.ok_or_else(|| bad("Last-Event-ID has to be the id of an event: EPOCH-NUMBER"))
}

/// The token of a request.
pub fn token(parts: &Parts) -> Option<&str> {
    let (scheme, token) = text(parts, &AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Holdline").then(|| token.trim())
}

/// The query without our keys, which a worker does not know.
pub fn workers_query(query: &str) -> String {
    let is_ours = |pair: &&str| ["pipe", "after", "wait"].contains(&pair.split('=').next().unwrap_or_default());
    query.split('&').filter(|pair| !is_ours(pair)).collect::<Vec<_>>().join("&")
}

/// 400.
pub fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "fallback", detail)
}

fn named(pipe: &str) -> Result<PipeId, Refusal> {
    // A cluster's name of its node may follow.
    let id = pipe.split('.').next().unwrap_or(pipe);
    PipeId::parse(id)
        .ok_or_else(|| bad("the pipe has to be named by the id of its welcome: 22 characters of base64url"))
}

fn text(parts: &Parts, name: impl http::header::AsHeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// A media type without its parameters.
fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or(kind).trim()
}

fn is_event_stream(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("text/event-stream")
}

/// Where the answer to a poll begins.
impl From<Poll> for Since {
    fn from(poll: Poll) -> Self {
        Self::Message(poll.after)
    }
}
