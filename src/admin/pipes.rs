//! `/v1/pipes/{id}`: the live conversations, read, moved and closed one at a time; `pipe_list` has the list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdline_core::close::{CloseFrame, REASON_BYTES_MAX, is_sendable};
use holdline_core::ids::PipeId;
use holdline_core::pipe::EndedBy;
use holdline_core::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Id, Query};
use super::problem::{Kind, Problem};
use super::system::Nothing;
use super::{Admin, time};
use crate::backends::Hold;
use crate::events::Fact;
use crate::pipes::{Command, Decided, LaneNumbers, PipeEntry, Sharing};

/// A pipe as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PipeBody {
    id: String,
    state: &'static str,
    route: String,
    key: Option<String>,
    client: String,
    /// The groups that it belongs to.
    labels: BTreeMap<String, String>,
    /// Whether its client speaks the aware protocol.
    aware: bool,
    backend: Option<Arc<str>>,
    attachment: u64,
    generation: u64,
    opened_at: String,
    interruptions: u64,
    /// Bytes of messages that it moves in a second, both ways, over the last five seconds.
    bytes_per_second: u64,
    /// Bytes of messages that both lanes hold.
    buffered_bytes: u64,
    /// What kind of conversation it is; absent until its first message has shown it.
    conversation: Option<ConversationBody>,
    /// Whether client and worker compress (`pass`), or why not: `off` by its route, `share`, `check_utf8`, a `conversation`
    /// that may have to be read, or its `client` or `worker` does not.
    compression: &'static str,
    /// What keeps it from the backend that it wants, if anything does.
    held: Option<&'static str>,
    /// Only where a worker connection is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared: Option<SharedBody>,
    up: LaneBody,
    down: LaneBody,
    memory_bytes: u64,
}

/// What another worker must know to go on with a pipe, and what that is known by.
#[derive(Debug, Serialize, JsonSchema)]
struct ConversationBody {
    kind: &'static str,
    profile: Option<Arc<str>>,
    why: Cow<'static, str>,
}

impl From<Decided> for ConversationBody {
    fn from(Decided { kind, profile, why }: Decided) -> Self {
        Self { kind: kind.as_str(), profile, why }
    }
}

/// A pipe's part in a shared stream.
#[derive(Debug, Serialize, JsonSchema)]
struct SharedBody {
    role: &'static str,
    /// The stream's own pipe.
    stream: String,
    /// How many watch it, if this is its own pipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    viewers: Option<usize>,
}

impl SharedBody {
    fn of(pipe: &PipeEntry) -> Option<Self> {
        match &pipe.sharing {
            Sharing::Alone => None,
            Sharing::Stream(viewers) => {
                Some(Self { role: "stream", stream: pipe.id.to_string(), viewers: Some(viewers.load(Relaxed)) })
            }
            Sharing::Viewer(stream) => Some(Self { role: "viewer", stream: stream.id.to_string(), viewers: None }),
        }
    }
}

fn labels_of(pipe: &PipeEntry) -> BTreeMap<String, String> {
    let labels = pipe.labels.get();
    labels.iter().flat_map(|labels| labels.iter()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[derive(Debug, Serialize, JsonSchema)]
struct LaneBody {
    accepted: u64,
    sent: u64,
    confirmed: u64,
    level: &'static str,
    buffered_bytes: u64,
    in_doubt: u64,
    lost: u64,
    dropped: u64,
}

impl From<&LaneNumbers> for LaneBody {
    fn from(lane: &LaneNumbers) -> Self {
        Self {
            accepted: lane.accepted.load(Relaxed),
            sent: lane.sent.load(Relaxed),
            confirmed: lane.confirmed.load(Relaxed),
            level: lane.level(),
            buffered_bytes: lane.buffered_bytes.load(Relaxed),
            in_doubt: lane.in_doubt.load(Relaxed),
            lost: lane.lost.load(Relaxed),
            dropped: lane.dropped.load(Relaxed),
        }
    }
}

impl PipeBody {
    /// The pipe as it is now.
    pub(super) fn new(pipe: &PipeEntry, now: Time) -> Self {
        Self {
            id: pipe.id.to_string(),
            state: pipe.state().as_str(),
            route: pipe.route.name.clone(),
            key: pipe.key.as_deref().map(str::to_owned),
            client: pipe.client(),
            labels: labels_of(pipe),
            aware: pipe.aware,
            backend: pipe.backend().map(|(_, id)| id),
            attachment: pipe.attachment.load(Relaxed),
            generation: pipe.generation.load(Relaxed),
            opened_at: time(pipe.opened_at),
            interruptions: pipe.interruptions.load(Relaxed),
            bytes_per_second: pipe.rate.bytes_per_second(now),
            buffered_bytes: pipe.buffered_bytes(),
            conversation: pipe.conversation().map(ConversationBody::from),
            compression: pipe.compression.as_str(),
            held: pipe.held.now().map(Hold::as_str),
            shared: SharedBody::of(pipe),
            up: LaneBody::from(&pipe.up),
            down: LaneBody::from(&pipe.down),
            memory_bytes: pipe.memory_bytes.load(Relaxed),
        }
    }
}

pub(super) fn find(admin: &Admin, id: &str) -> Result<Arc<PipeEntry>, Problem> {
    PipeId::parse(id).and_then(|id| admin.process.pipes.get(id)).ok_or_else(|| Problem::no_such("pipe", id))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Id(id): Id) -> Result<Response, Problem> {
    let pipe = find(&admin, &id)?;
    Ok(shown(&admin, StatusCode::OK, &pipe))
}

/// A pipe with the tag of its labels. Its other parts move with traffic, so that nothing is ever said to be known already.
pub(super) fn shown(admin: &Admin, status: StatusCode, pipe: &PipeEntry) -> Response {
    // The version first: a tag older than what is shown refuses a write at worst.
    let version = pipe.labels.version();
    admin.tags.answer(&HeaderMap::new(), version, status, PipeBody::new(pipe, admin.process.clock.now()))
}

pub(super) async fn reattach(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    _: Body<Nothing>,
) -> Result<(StatusCode, Json<PipeBody>), Problem> {
    let pipe = find(&admin, &id)?;
    if !pipe.moves() {
        let detail = "its conversation ends with its worker (see conversation, and routes.on_backend_loss), so it is not moved; close it instead";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    order(&pipe, Command::Reattach)?;
    Ok((StatusCode::ACCEPTED, Json(PipeBody::new(&pipe, admin.process.clock.now()))))
}

/// With which words a client is closed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Words {
    #[serde(default = "normal")]
    code: u16,
    #[serde(default)]
    reason: String,
}

const fn normal() -> u16 {
    1000
}

pub(super) async fn close(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    Query(words): Query<Words>,
) -> Result<StatusCode, Problem> {
    if !is_sendable(words.code) {
        return Err(Problem::invalid("/query/code", "must be 1000, 1001, 1003, 1007 to 1014 or 3000 to 4999"));
    }
    if words.reason.len() > REASON_BYTES_MAX {
        return Err(Problem::invalid("/query/reason", format!("must not exceed {REASON_BYTES_MAX} bytes")));
    }
    let pipe = find(&admin, &id)?;
    order(&pipe, Command::Close(EndedBy::Operator, CloseFrame::new(words.code, &words.reason)))?;
    let route = pipe.route.name.as_str().into();
    admin.process.events.push(Fact::PipeClosedByOperator { pipe: pipe.id, route, code: words.code });
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn order(pipe: &PipeEntry, command: Command) -> Result<(), Problem> {
    if pipe.order(command) {
        return Ok(());
    }
    Err(Problem::new(Kind::Conflict, "as many orders as may wait for this pipe wait already"))
}
