//! `POST /v1/pipes/{id}/messages`, `POST /v1/broadcast`: what an operator says to clients; and
//! `POST /v1/pipes/{id}/commit`, a worker's word by another way.
//!
//! A message counts as reached when its pipe has taken it into the lane down to the client. No pipe waits for another:
//! each is asked through its mailbox, [`IN_FLIGHT_MAX`] at a time, and a pipe that has not answered by [`ANSWER_TIMEOUT`]
//! is counted as such.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use holdline_core::frame;
use holdline_core::ids::{Attachment, PipeId, Seq};
use holdline_core::pipe::Unsaid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::body::{Body, Id};
use super::pipes::{find, order};
use super::problem::{self, Problem};
use super::{Admin, labels};
use crate::pipes::{Command, Hearing, PipeEntry, Ticket};

/// Broadcasts at once.
pub const BROADCASTS_MAX: usize = 8;

/// Pipes of one broadcast that may have been asked and not have answered yet.
pub const IN_FLIGHT_MAX: usize = 256;

/// How long all answers together may take; a pipe answers in its next turn, whatever its client does.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Padding is no matter of taste in a protocol, but it is in a shell.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is to be said: one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Words {
    text: Option<String>,
    base64: Option<String>,
}

/// What is to be said, and to whom: all pipes that fit everything that is given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Broadcast {
    text: Option<String>,
    base64: Option<String>,
    route: Option<String>,
    key: Option<String>,
    pool: Option<String>,
    /// `room:a`, or `room` for any value.
    label: Option<String>,
    /// Ids of pipes that are left out.
    #[serde(default)]
    exclude: Vec<String>,
}

/// What became of a message.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Told {
    /// Pipes that it was meant for.
    matched: usize,
    /// Pipes that have taken it.
    reached: usize,
    not_reached: NotReached,
}

/// Pipes that have not taken it, by why.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct NotReached {
    /// The pipe is ending.
    closing: usize,
    /// As much as may wait for its client waits already, or memory is out.
    full: usize,
    /// Its route takes no message of this size.
    too_big: usize,
    /// As many orders as may wait for the pipe wait already.
    busy: usize,
    /// It ended before it was asked.
    gone: usize,
    /// No answer in time; it may still take the message.
    unanswered: usize,
}

fn parse(text: Option<String>, base64: Option<String>) -> Result<(frame::Kind, Bytes), Problem> {
    match (text, base64) {
        (Some(text), None) => Ok((frame::Kind::Text, text.into())),
        (None, Some(base64)) => match BASE64.decode(base64) {
            Ok(bytes) => Ok((frame::Kind::Binary, bytes.into())),
            Err(error) => Err(Problem::invalid("/base64", error.to_string())),
        },
        (None, None) | (Some(_), Some(_)) => Err(Problem::invalid("/text", "give either text or base64")),
    }
}

pub(super) async fn send(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    Body(words): Body<Words>,
) -> Result<Json<Told>, Problem> {
    let (kind, payload) = parse(words.text, words.base64)?;
    let pipe = find(&admin, &id)?;
    Ok(Json(tell(vec![pipe], kind, &payload).await))
}

pub(super) async fn broadcast(
    State(admin): State<Arc<Admin>>,
    Body(wish): Body<Broadcast>,
) -> Result<Json<Told>, Problem> {
    let (kind, payload) = parse(wish.text, wish.base64)?;
    let exclude = wish.exclude.iter().enumerate().map(|(index, id)| {
        let pointer = || Problem::invalid(format!("/exclude/{index}"), "must be the id of a pipe");
        PipeId::parse(id).ok_or_else(pointer)
    });
    let exclude = exclude.collect::<Result<HashSet<PipeId>, Problem>>()?;
    let same = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
    let label = wish.label.as_deref().map(|text| labels::selector("/label", text)).transpose()?;
    let live = &admin.process.pipes;
    let mut pipes = label.map_or_else(|| live.list(), |label| live.labels.select(&label));
    pipes.retain(|pipe| {
        // The viewers of a stream are told themselves, each once.
        !pipe.is_stream()
            && same(&wish.route, Some(&pipe.route.name))
            && same(&wish.pool, Some(&pipe.route.pool))
            && same(&wish.key, pipe.key.as_deref())
            && !exclude.contains(&pipe.id)
    });
    let _place = admin
        .broadcasting
        .try_acquire()
        .map_err(|_| Problem::new(problem::Kind::Busy, format!("{BROADCASTS_MAX} broadcasts are under way already")))?;
    Ok(Json(tell(pipes, kind, &payload).await))
}

async fn tell(pipes: Vec<Arc<PipeEntry>>, kind: frame::Kind, payload: &Bytes) -> Told {
    let mut told = Told { matched: pipes.len(), ..Told::default() };
    let (answer, mut answers) = mpsc::channel(IN_FLIGHT_MAX);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut in_flight = 0;
    let mut rest = pipes.into_iter();
    loop {
        for pipe in rest.by_ref().take(IN_FLIGHT_MAX - in_flight) {
            // One that is refused says so by its ticket too.
            pipe.order(Command::Say(kind, payload.clone(), Ticket::new(answer.clone())));
            in_flight += 1;
        }
        if in_flight == 0 {
            return told;
        }
        let Ok(Some(hearing)) = tokio::time::timeout_at(deadline, answers.recv()).await else {
            told.not_reached.unanswered = in_flight + rest.len();
            return told;
        };
        in_flight -= 1;
        told.count(hearing);
    }
}

impl Told {
    fn count(&mut self, hearing: Hearing) {
        let missed = &mut self.not_reached;
        *match hearing {
            Hearing::Taken => &mut self.reached,
            Hearing::Refused(Unsaid::Closing) => &mut missed.closing,
            Hearing::Refused(Unsaid::Full) => &mut missed.full,
            Hearing::Refused(Unsaid::TooBig) => &mut missed.too_big,
            Hearing::Busy => &mut missed.busy,
            Hearing::Gone => &mut missed.gone,
        } += 1;
    }
}

/// A worker's application has committed everything up to `seq` (PROTOCOL section 6).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    attachment: u64,
    seq: u64,
}

/// What is confirmed now.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Committed {
    confirmed: u64,
}

pub(super) async fn commit(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    Body(said): Body<Commit>,
) -> Result<Json<Committed>, Problem> {
    let pipe = find(&admin, &id)?;
    let (answer, answered) = oneshot::channel();
    order(&pipe, Command::Commit(Attachment(said.attachment), Seq(said.seq), answer))?;
    drop(pipe);
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(Some(Seq(confirmed)))) => Ok(Json(Committed { confirmed })),
        Ok(Ok(None)) => {
            let message = "is not the pipe's current attachment";
            Err(Problem::new(problem::Kind::Conflict, message).at("/attachment"))
        }
        Ok(Err(_)) => Err(Problem::no_such("pipe", &id)),
        Err(_) => Err(Problem::new(problem::Kind::Busy, "the pipe has not answered in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_text_or_base64_and_not_both() {
        let of = |text: Option<&str>, base64: Option<&str>| {
            parse(text.map(str::to_owned), base64.map(str::to_owned))
                .map_err(|problem| problem.errors[0].pointer.clone())
        };
        assert_eq!(of(Some("é"), None), Ok((frame::Kind::Text, "é".into())));
        for padded in ["/wA=", "/wA"] {
            assert_eq!(of(None, Some(padded)), Ok((frame::Kind::Binary, Bytes::from_static(&[0xFF, 0]))));
        }
        assert_eq!(of(None, Some("?")), Err("/base64".to_owned()));
        assert_eq!(of(None, None), Err("/text".to_owned()));
        assert_eq!(of(Some(""), Some("")), Err("/text".to_owned()));
    }
}
