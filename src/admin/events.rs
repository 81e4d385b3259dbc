//! `GET /v1/events`: the rings by pages, by long poll, or as a stream; all events, or those of some types and levels.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Query;
use super::list;
use super::problem::{Kind, Problem};
use super::{Admin, duration};
use crate::events::{Event, Events, Level, TooOld, Wanted};

/// How often a silent stream shows that it is alive.
const STREAM_COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Events written into a stream at a time.
const STREAM_BATCH: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    after: Option<u64>,
    /// `now` for what happens from now on, or how far back to begin, such as `15m`; instead of `after`.
    #[schemars(regex(pattern = "^(now|[0-9]+(ms|s|m|min|h))$"))]
    since: Option<String>,
    /// Types, with commas between them; `backend` for all that begin with `backend.`.
    #[serde(rename = "type")]
    kinds: Option<String>,
    /// Those that matter so much or more.
    level: Option<Level>,
    #[schemars(regex(pattern = duration::PATTERN))]
    wait: Option<String>,
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

impl Ask {
    fn wanted(&self) -> Result<Wanted, Problem> {
        let names = self.kinds.iter().flat_map(|names| names.split(',')).map(str::trim);
        let wanted = Wanted::new(names, self.level.unwrap_or_default());
        wanted.map_err(|unknown| Problem::invalid("/query/type", unknown.to_string()))
    }

    /// The number to read on after.
    fn after(&self, events: &Events, wanted: &Wanted) -> Result<u64, Problem> {
        match (self.after, self.since.as_deref()) {
            (after, None) => Ok(after.unwrap_or(0)),
            (Some(_), Some(_)) => Err(Problem::invalid("/query/since", "give one of after and since")),
            (None, Some("now")) => Ok(events.newest()),
            (None, Some(text)) => {
                let back = duration::parse("/query/since", text)?;
                let begin = Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN);
                Ok(events.since(begin, wanted))
            }
        }
    }
}

/// A page of events; `last` is what to send as `after` next.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page {
    items: Vec<Arc<Event>>,
    next_cursor: Option<String>,
    last: u64,
}

pub(super) async fn read(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(ask): Query<Ask>,
) -> Result<Response, Problem> {
    let limit = list::limit(ask.limit)?;
    let patience = duration::wait(ask.wait.as_deref())?;
    let (events, wanted) = (&admin.process.events, ask.wanted()?);
    let asked = ask.after(events, &wanted)?;
    if wants_stream(&headers) {
        let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
        return stream(&admin, resumed.unwrap_or(asked), wanted);
    }
    let mut read = events.read(asked, limit, &wanted).map_err(gone)?;
    if read.events.is_empty() && patience > Duration::ZERO {
        let _place = admin.place_to_wait()?;
        let over = tokio::time::sleep(patience);
        tokio::pin!(over);
        while read.events.is_empty() {
            tokio::select! {
                () = events.wait_after(read.last) => read = events.read(read.last, limit, &wanted).map_err(gone)?,
                // Running out of patience is an answer like any other: an empty page.
                () = &mut over => break,
            }
        }
    }
    Ok(Json(Page { items: read.events, next_cursor: None, last: read.last }).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "text/event-stream")
}

fn gone(TooOld { oldest, newest }: TooOld) -> Problem {
    let detail = format!("events {oldest} to {newest} are kept; read on from after={}", oldest - 1);
    Problem::new(Kind::Gone, detail)
}

fn stream(admin: &Admin, after: u64, wanted: Wanted) -> Result<Response, Problem> {
    let events = Arc::clone(&admin.process.events);
    events.read(after, 0, &wanted).map_err(gone)?;
    // A stream lasts as long as its reader likes, and one that is never read looks like one that is.
    let place = admin.place_to_wait()?;
    let items = following(Follower { events, wanted, last: after, batch: Vec::new().into_iter(), _place: place });
    let sse = Sse::new(items).keep_alive(KeepAlive::new().interval(STREAM_COMMENT_EVERY));
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

/// The reader of a stream.
struct Follower {
    events: Arc<Events>,
    wanted: Wanted,
    /// No event up to this number is to be read any more.
    last: u64,
    /// What was read and is not written yet.
    batch: std::vec::IntoIter<Arc<Event>>,
    _place: OwnedSemaphorePermit,
}

/// Each event that is wanted for as long as the reader keeps up; a reader that fell out of the ring is cut off
/// and learns from the 410 of its next request what it missed.
fn following(follower: Follower) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(follower, async |mut follower| {
        loop {
            if let Some(event) = follower.batch.next() {
                let data = serde_json::to_string(&*event).unwrap_or_default();
                let item = sse::Event::default().id(event.seq.to_string()).data(data);
                return Some((Ok(item), follower));
            }
            follower.events.wait_after(follower.last).await;
            let read = follower.events.read(follower.last, STREAM_BATCH, &follower.wanted).ok()?;
            follower.last = read.last;
            follower.batch = read.events.into_iter();
        }
    })
}
