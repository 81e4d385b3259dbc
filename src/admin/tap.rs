//! `POST /v1/pipes/{id}/tap`: an operator looks on at a pipe, message by message, for a while.
//!
//! Off unless `admin.tap` allows it, which takes a file of tokens: who looked on is in the audit log and in the event
//! `pipe.tapped`. The answer is one JSON object a line. The pipe waits for none of it ([`crate::pipes::Tap`]), and what is
//! seen is logged nowhere. Bounds: [`TAPS_MAX`] at once, one for each pipe, `admin.tap_bytes_max`, `admin.tap_time_max`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body as Answer;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use holdline_core::frame::Kind as MessageKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::body::{Body, Id};
use super::messages::ANSWER_TIMEOUT;
use super::pipes::{find, order};
use super::problem::{Kind, Problem};
use super::{Admin, duration, time};
use crate::events::Fact;
use crate::metrics::TapResult;
use crate::pipes::{AlreadyTapped, Command, PipeEntry, Tap, TapReader, Tapped};
use crate::process::Process;
use crate::tokens::Caller;

/// Pipes that operators look on at, at once.
pub const TAPS_MAX: usize = 8;

/// How long one looks on unless the request says.
const TIME_DEFAULT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    /// Bytes of each message that are wanted; `admin.tap_bytes_max` without it.
    bytes: Option<usize>,
    /// For how long; 30 s without it.
    #[serde(rename = "for")]
    #[schemars(regex(pattern = duration::PATTERN))]
    time: Option<String>,
}

/// A line of the answer.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Line {
    /// The first.
    Begin { pipe: String, bytes_max: usize, for_ms: u64 },
    /// A message.
    Message(Box<Message>),
    /// So many messages came faster than these lines were read.
    Missed { missed: u64 },
    /// The last: `time`, or `pipe` if that has ended.
    End { end: &'static str },
}

/// How a message began: `text`, or `base64` where that is no whole UTF-8.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Message {
    at: String,
    lane: &'static str,
    seq: u64,
    kind: &'static str,
    payload_bytes: usize,
    /// Whether what is shown is compressed (permessage-deflate).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compressed: bool,
    /// Whether there is more of it than is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl From<Tapped> for Message {
    fn from(tapped: Tapped) -> Self {
        let Tapped { at, lane, seq, kind, compressed, payload_bytes, head } = tapped;
        let cut = head.len() < payload_bytes;
        let text = (kind == MessageKind::Text && !compressed).then(|| readable(&head, cut)).flatten();
        Self {
            at: time(at),
            lane: lane.as_str(),
            seq: seq.0,
            kind: match kind {
                MessageKind::Text => "text",
                MessageKind::Binary => "binary",
            },
            payload_bytes,
            compressed,
            cut,
            base64: text.is_none().then(|| STANDARD.encode(&head)),
            text,
        }
    }
}

/// The text that `head` is; one that is cut may end amid a character, which is left out.
fn readable(head: &[u8], cut: bool) -> Option<String> {
    match std::str::from_utf8(head) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok().map(str::to_owned)
        }
        Err(_) => None,
    }
}

pub(super) async fn look_on(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    Body(ask): Body<Ask>,
) -> Result<Response, Problem> {
    let (bytes_max, time) = bounds(&admin, &ask)?;
    let pipe = find(&admin, &id)?;
    let busy = |_| Problem::new(Kind::Busy, format!("{TAPS_MAX} pipes are looked on at already"));
    let place = admin.taps.clone().try_acquire_owned().map_err(busy)?;
    let (tap, reader) = Tap::pair(bytes_max);
    begin(&pipe, tap).await?;
    let for_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let route: Arc<str> = pipe.route.name.as_str().into();
    tracing::info!(pipe = %pipe.id, by = &*caller.name, bytes_max, for_ms, "pipe.tapped");
    admin.process.events.push(Fact::PipeTapped {
        pipe: pipe.id,
        route,
        by: caller.name.as_str().into(),
        bytes_max,
        for_ms,
    });
    let first = Line::Begin { pipe: pipe.id.to_string(), bytes_max, for_ms };
    let process = admin.process.clone();
    let looker =
        Looker { process, reader, until: Instant::now() + time, next: Some(first), over: false, _place: place };
    let head =
        [(header::CONTENT_TYPE, "application/x-ndjson"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((head, Answer::from_stream(lines(looker))).into_response())
}

/// What is asked for, within what the configuration allows.
fn bounds(admin: &Admin, ask: &Ask) -> Result<(usize, Duration), Problem> {
    let config = admin.process.config.load();
    let allowed = &config.admin;
    if !allowed.tap || allowed.tokens_file.is_none() {
        let detail = "messages are shown only where admin.tap and admin.tokens_file are set";
        return Err(Problem::named("tap-forbidden", 403, detail));
    }
    let bytes_max = ask.bytes.unwrap_or(allowed.tap_bytes_max);
    if bytes_max > allowed.tap_bytes_max {
        let message = format!("must not exceed admin.tap_bytes_max, {}", allowed.tap_bytes_max);
        return Err(Problem::invalid("/bytes", message));
    }
    let time =
        ask.time.as_deref().map_or(Ok(TIME_DEFAULT.min(allowed.tap_time_max)), |text| duration::parse("/for", text))?;
    if time > allowed.tap_time_max {
        let message = format!("must not exceed admin.tap_time_max, {}", duration::show(allowed.tap_time_max));
        return Err(Problem::invalid("/for", message));
    }
    Ok((bytes_max, time))
}

async fn begin(pipe: &PipeEntry, tap: Tap) -> Result<(), Problem> {
    let (answer, answered) = oneshot::channel();
    order(pipe, Command::Tap(Box::new(tap), answer))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(AlreadyTapped))) => Err(Problem::new(Kind::Conflict, "another operator looks on at this pipe")),
        Ok(Err(_)) => Err(Problem::no_such("pipe", &pipe.id.to_string())),
        Err(_) => Err(Problem::new(Kind::Busy, "the pipe has not answered in time")),
    }
}

/// One who looks on.
struct Looker {
    process: Arc<Process>,
    reader: TapReader,
    until: Instant,
    /// The line to be written before others.
    next: Option<Line>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

impl Looker {
    async fn line(&mut self) -> Option<Line> {
        if let Some(line) = self.next.take() {
            return Some(line);
        }
        if self.over {
            return None;
        }
        let (tapped, end) = tokio::select! {
            biased;
            () = tokio::time::sleep_until(self.until) => (None, "time"),
            tapped = self.reader.next() => (tapped, "pipe"),
        };
        self.over = tapped.is_none();
        let line = tapped.map_or(Line::End { end }, |tapped| {
            self.process.metrics.tapped(TapResult::Told, 1);
            Line::Message(Box::new(tapped.into()))
        });
        let missed = self.reader.take_missed();
        if missed == 0 {
            return Some(line);
        }
        self.process.metrics.tapped(TapResult::Missed, missed);
        self.next = Some(line);
        Some(Line::Missed { missed })
    }
}

fn lines(looker: Looker) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(looker, async |mut looker| {
        let line = looker.line().await?;
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Some((Ok(text.into()), looker))
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use holdline_core::ids::{LaneName, Seq};
    use serde_json::{Value, json};

    use super::*;

    fn shown(kind: MessageKind, compressed: bool, payload_bytes: usize, head: &[u8]) -> Value {
        let (at, lane, seq) = (SystemTime::UNIX_EPOCH, LaneName::Up, Seq(7));
        let tapped = Tapped { at, lane, seq, kind, compressed, payload_bytes, head: head.to_vec() };
        serde_json::to_value(Line::Message(Box::new(tapped.into()))).unwrap()
    }

    #[test]
    fn a_message_is_shown_as_text_where_it_is_and_as_base64_otherwise() {
        let line = shown(MessageKind::Text, false, 6, "Grüß".as_bytes());
        let whole = json!({"at": "1970-01-01T00:00:00Z", "lane": "up", "seq": 7, "kind": "text", "payload_bytes": 6, "text": "Grüß"});
        assert_eq!(line, whole);
        let cut = shown(MessageKind::Text, false, 50, &"Grü".as_bytes()[..3]);
        assert_eq!((&cut["text"], &cut["cut"]), (&json!("Gr"), &json!(true)), "amid a character");
        for (kind, compressed, head) in [
            (MessageKind::Binary, false, &b"ab"[..]),
            (MessageKind::Text, true, b"ab"),
            (MessageKind::Text, false, b"\xff\xff"),
        ] {
            let line = shown(kind, compressed, 2, head);
            assert_eq!((&line["text"], &line["base64"]), (&Value::Null, &json!(STANDARD.encode(head))), "{line}");
        }
    }
}
