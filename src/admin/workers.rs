//! `/v1/workers`: the processes that Holdline runs itself, and how they are replaced and counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Id, Query};
use super::list::{self, List};
use super::problem::{Kind, Problem};
use super::system::Nothing;
use super::{Admin, condition, duration, time};
use crate::workers::{COUNT_MAX, GroupView, OrderError, WorkerState, WorkerView};

impl From<OrderError> for Problem {
    fn from(error: OrderError) -> Self {
        let kind = match error {
            OrderError::NoGroup(_) | OrderError::NoWorker(_) => Kind::NotFound,
            OrderError::Leaving(_) | OrderError::Stopping => Kind::Conflict,
        };
        Self::new(kind, error.to_string())
    }
}

/// A worker as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WorkerBody {
    id: Arc<str>,
    group: Arc<str>,
    /// Its place in its group, from 1.
    index: u32,
    pool: Arc<str>,
    /// `starting`, `standby`, `serving`, `draining`, `stopping`, `killed`; `waiting` where a process failed.
    state: &'static str,
    pid: Option<u32>,
    url: Option<Arc<str>>,
    /// Pipes attached to it, or being attached.
    pipes: u32,
    /// Plain requests that it is answering.
    requests: u32,
    /// Pipes that it has had.
    pipes_total: u64,
    /// Resident memory with all that it has started.
    rss_bytes: Option<u64>,
    started_at: Option<String>,
    /// From its start to its being ready.
    ready_after_ms: Option<u64>,
    /// Why it is to be replaced, if it is.
    due: Option<&'static str>,
    /// Failures in a row of those before it.
    failures: u32,
    /// When the next process is started.
    retry_at: Option<String>,
}

/// A group of workers as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct GroupBody {
    name: Arc<str>,
    pool: Arc<str>,
    /// Workers that should serve.
    count: u32,
    /// Ready ones that should stand by.
    standby: u32,
    /// Workers by their state.
    states: BTreeMap<&'static str, usize>,
    /// Workers that are to be replaced.
    due: usize,
}

impl From<&GroupView> for GroupBody {
    fn from(group: &GroupView) -> Self {
        Self {
            name: group.name.clone(),
            pool: group.pool.clone(),
            count: group.count,
            standby: group.standby,
            states: WorkerState::ALL.map(|state| (state.as_str(), group.count_of(state))).into(),
            due: group.due(),
        }
    }
}

fn worker_body(admin: &Admin, group: &GroupView, worker: &WorkerView) -> WorkerBody {
    let process = worker.process.as_ref();
    let backend = process.and_then(|process| admin.process.backends.look(process.backend));
    let ready_after = process.and_then(|process| process.ready_after);
    WorkerBody {
        id: worker.id.clone(),
        group: group.name.clone(),
        index: worker.index,
        pool: group.pool.clone(),
        state: worker.state.as_str(),
        pid: process.map(|process| process.pid),
        url: process.map(|process| process.url.clone()),
        pipes: backend.as_ref().map_or(0, |backend| backend.pipes),
        requests: backend.as_ref().map_or(0, |backend| backend.requests),
        pipes_total: process.map_or(0, |process| process.pipes),
        rss_bytes: process.and_then(|process| process.rss_bytes),
        started_at: process.map(|process| time(process.started_at)),
        ready_after_ms: ready_after.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        due: worker.due,
        failures: worker.failures,
        retry_at: worker.retry_at.map(time),
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    group: Option<String>,
    pool: Option<String>,
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    cursor: Option<String>,
    index: Option<u64>,
    #[schemars(regex(pattern = duration::PATTERN))]
    wait: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Query(ask): Query<Ask>,
) -> Result<Response, Problem> {
    let limit = list::limit(ask.limit)?;
    let index = condition::index(&admin, admin.process.workers.index(), ask.index, ask.wait.as_deref()).await?;
    let groups = admin.process.workers.groups();
    let wanted = |group: &&GroupView| {
        ask.group.as_deref().is_none_or(|name| *group.name == *name)
            && ask.pool.as_deref().is_none_or(|pool| *group.pool == *pool)
    };
    let bodies = groups.iter().filter(wanted).flat_map(|group| {
        let admin = &admin;
        group.workers.iter().map(move |worker| worker_body(admin, group, worker))
    });
    let mut bodies: Vec<WorkerBody> = bodies.collect();
    bodies.sort_by_key(key);
    Ok(admin.tags.list(&headers, index, List::page(bodies, key, ask.cursor.as_deref(), limit)))
}

/// What a list is sorted by: a group's workers stand together, in the order of their numbers.
fn key(body: &WorkerBody) -> String {
    format!("{}-{:010}", body.group, body.index)
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Id(id): Id) -> Result<Json<WorkerBody>, Problem> {
    Ok(Json(find(&admin, &id)?))
}

fn find(admin: &Admin, id: &str) -> Result<WorkerBody, Problem> {
    let groups = admin.process.workers.groups();
    let found = groups.iter().find_map(|group| {
        let worker = group.workers.iter().find(|worker| *worker.id == *id)?;
        Some(worker_body(admin, group, worker))
    });
    found.ok_or_else(|| Problem::no_such("worker", id))
}

pub(super) async fn recycle(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    _: Body<Nothing>,
) -> Result<(StatusCode, Json<WorkerBody>), Problem> {
    find(&admin, &id)?;
    admin.process.workers.recycle(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(find(&admin, &id)?)))
}

pub(super) async fn restart(
    State(admin): State<Arc<Admin>>,
    Id(name): Id,
    _: Body<Nothing>,
) -> Result<(StatusCode, Json<GroupBody>), Problem> {
    group(&admin, &name)?;
    admin.process.workers.restart(&name).await?;
    Ok((StatusCode::ACCEPTED, Json(group(&admin, &name)?)))
}

/// How many workers of a group should serve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    #[schemars(range(max = 1000))]
    count: u32,
}

pub(super) async fn scale(
    State(admin): State<Arc<Admin>>,
    Id(name): Id,
    Body(scale): Body<Scale>,
) -> Result<Json<GroupBody>, Problem> {
    if scale.count > COUNT_MAX {
        return Err(Problem::invalid("/count", format!("a group has at most {COUNT_MAX} workers")));
    }
    group(&admin, &name)?;
    admin.process.workers.scale(&name, scale.count).await?;
    Ok(Json(group(&admin, &name)?))
}

fn group(admin: &Admin, name: &str) -> Result<GroupBody, Problem> {
    let groups = admin.process.workers.groups();
    let found = groups.iter().find(|group| *group.name == *name);
    found.map(GroupBody::from).ok_or_else(|| OrderError::NoGroup(name.to_owned()).into())
}
