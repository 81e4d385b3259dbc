//! `GET /v1/events`: the ring by pages, by long poll, or as a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Query;
use super::list;
use super::problem::{Kind, Problem};
use super::{Admin, duration};
use crate::events::{Event, Events, TooOld};

/// How often a silent stream shows that it is alive.
const STREAM_COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Events written into a stream at a time.
const STREAM_BATCH: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    after: Option<u64>,
    #[schemars(regex(pattern = duration::PATTERN))]
    wait: Option<String>,
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
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
    if wants_stream(&headers) {
        let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
        let after = resumed.or(ask.after).unwrap_or(0);
        return stream(&admin, after);
    }
    let after = ask.after.unwrap_or(0);
    admin.process.events.read_after(after, 0).map_err(gone)?;
    if patience > Duration::ZERO {
        let _place = admin.place_to_wait()?;
        // Running out of patience is an answer like any other: an empty page.
        let _ = tokio::time::timeout(patience, admin.process.events.wait_after(after)).await;
    }
    let items = admin.process.events.read_after(after, limit).map_err(gone)?;
    let last = items.last().map_or(after, |event| event.seq);
    Ok(Json(Page { items, next_cursor: None, last }).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    accept.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "text/event-stream")
}

fn gone(TooOld { oldest, newest }: TooOld) -> Problem {
    let detail = format!("events {oldest} to {newest} are kept; read on from after={}", oldest - 1);
    Problem::new(Kind::Gone, detail)
}

fn stream(admin: &Admin, after: u64) -> Result<Response, Problem> {
    let events = Arc::clone(&admin.process.events);
    events.read_after(after, 0).map_err(gone)?;
    // A stream lasts as long as its reader likes, and one that is never read looks like one that is.
    let place = admin.place_to_wait()?;
    let sse = Sse::new(following(events, after, place)).keep_alive(KeepAlive::new().interval(STREAM_COMMENT_EVERY));
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

/// Each event after number `after` for as long as the reader keeps up; a reader that fell out of the ring is cut off
/// and learns from the 410 of its next request what it missed.
fn following(
    events: Arc<Events>,
    after: u64,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    let start = (events, after, Vec::<Arc<Event>>::new().into_iter(), place);
    stream::unfold(start, async |(events, mut after, mut batch, place)| {
        loop {
            if let Some(event) = batch.next() {
                after = event.seq;
                let data = serde_json::to_string(&*event).unwrap_or_default();
                let item = sse::Event::default().id(event.seq.to_string()).data(data);
                return Some((Ok(item), (events, after, batch, place)));
            }
            events.wait_after(after).await;
            batch = events.read_after(after, STREAM_BATCH).ok()?.into_iter();
        }
    })
}
