//! `/v1/backends`: what is registered, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdline_core::health::Health;
use holdline_core::lease::LeaseState;
use holdline_core::pool::Serves;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Body, Id, Query};
use super::list::{self, List};
use super::problem::Problem;
use super::registration::{Registration, StateName, patched};
use super::system::Nothing;
use super::{Admin, condition, duration, time};
use crate::backends::{BackendError, BackendView, Directive, Expect, Origin, PipesWish, Progress, Put, StateChange};

/// How often a patch is laid anew over a backend that changes under it.
const PATCH_TRIES_MAX: u32 = 8;

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        let (status, slug) = error.problem();
        let problem = Self::named(slug, status, error.to_string());
        match error.pointer() {
            Some(pointer) => problem.at(pointer),
            None => problem,
        }
    }
}

/// A backend as the API shows it; what was said about it has the names of the registration.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BackendBody {
    id: Arc<str>,
    url: String,
    pool: Arc<str>,
    weight: u32,
    max_pipes: Option<u32>,
    serves: BTreeMap<Arc<str>, Option<Arc<str>>>,
    labels: BTreeMap<String, String>,
    instance: Option<Arc<str>>,
    lease: Option<String>,
    state: StateName,
    health: &'static str,
    lease_state: &'static str,
    lease_expires_at: Option<String>,
    ejected_until: Option<String>,
    eligible: bool,
    removing: bool,
    #[serde(rename = "static")]
    fixed: bool,
    pipes: u32,
    /// Plain requests that it is answering.
    requests: u32,
    /// Connections that its worker has parked, if it dials in.
    parked: Option<usize>,
    registered_at: String,
    /// Since when its health is what it is.
    health_since: String,
    version: u64,
    last_probe: Option<ProbeBody>,
    /// What the worker's health page says, if it is asked.
    reported: Option<ReportBody>,
    /// How much of its weight counts now, in percent.
    weight_percent: u8,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ReportBody {
    memory_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    cpu_percent: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ProbeBody {
    at: String,
    took_ms: u64,
    problem: Option<String>,
}

impl From<BackendView> for BackendBody {
    fn from(view: BackendView) -> Self {
        let spec = &*view.spec;
        let serves = match &spec.serves {
            Serves::Any => BTreeMap::new(),
            Serves::Keys(keys) => keys.clone(),
        };
        Self {
            id: view.id,
            url: spec.url.to_string(),
            pool: spec.pool.clone(),
            weight: spec.weight.get(),
            max_pipes: spec.max_pipes,
            serves,
            labels: spec.labels.clone(),
            instance: spec.instance.clone(),
            lease: spec.lease.map(duration::show),
            state: view.admin.into(),
            health: health_name(view.health),
            lease_state: lease_name(view.lease),
            lease_expires_at: view.lease_expires_at.map(time),
            ejected_until: view.ejected_until.map(time),
            eligible: view.eligible,
            removing: view.removing,
            fixed: view.origin != Origin::Registered,
            pipes: view.pipes,
            requests: view.requests,
            parked: view.parked,
            registered_at: time(view.registered_at),
            health_since: time(view.health_since),
            version: view.version,
            last_probe: view.last_probe.map(|probe| ProbeBody {
                at: time(probe.at),
                took_ms: u64::try_from(probe.took.as_millis()).unwrap_or(u64::MAX),
                problem: probe.problem,
            }),
            reported: view.report.map(|report| ReportBody {
                memory_bytes: report.memory_bytes,
                memory_limit_bytes: report.memory_limit_bytes,
                cpu_percent: report.cpu_percent,
            }),
            weight_percent: view.share,
        }
    }
}

const fn health_name(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
        Health::Ejected => "ejected",
    }
}

const fn lease_name(lease: LeaseState) -> &'static str {
    match lease {
        LeaseState::None => "none",
        LeaseState::Live => "live",
        LeaseState::Expired => "expired",
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    pool: Option<String>,
    state: Option<StateName>,
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
    let index = condition::index(&admin, admin.process.backends.index(), ask.index, ask.wait.as_deref()).await?;
    let (found, more) = admin.process.backends.page(ask.cursor.as_deref(), limit, |spec, state| {
        ask.pool.as_deref().is_none_or(|pool| *spec.pool == *pool)
            && ask.state.is_none_or(|wanted| StateName::from(state) == wanted)
    });
    let next_cursor = found.last().filter(|_| more).map(|backend| backend.id.to_string());
    let items: Vec<BackendBody> = found.into_iter().map(Into::into).collect();
    Ok(admin.tags.list(&headers, index, List { items, next_cursor }))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, headers: HeaderMap, Id(id): Id) -> Result<Response, Problem> {
    Ok(answer(&admin, &headers, StatusCode::OK, view(&admin, &id)?))
}

fn view(admin: &Admin, id: &str) -> Result<BackendView, BackendError> {
    admin.process.backends.get(id).ok_or_else(|| BackendError::NotFound(id.into()))
}

/// A backend with its tag.
fn answer(admin: &Admin, asked: &HeaderMap, status: StatusCode, view: BackendView) -> Response {
    admin.tags.answer(asked, view.version, status, BackendBody::from(view))
}

/// The answer to a write, whose conditions have been met already.
fn written(admin: &Admin, status: StatusCode, view: BackendView) -> Response {
    answer(admin, &HeaderMap::new(), status, view)
}

/// What the headers of a write demand of the backend `id`.
fn expectation(admin: &Admin, headers: &HeaderMap, id: &str) -> Expect {
    admin.tags.expect(headers, admin.process.backends.get(id).map(|view| view.version))
}

pub(super) async fn register(
    State(admin): State<Arc<Admin>>,
    Body(said): Body<Registration>,
) -> Result<Response, Problem> {
    let view = admin.process.backends.register(said.parse()?)?;
    admin.kept(&view.id).await?;
    let location = HeaderValue::from_str(&format!("/v1/backends/{}", view.id));
    let mut response = written(&admin, StatusCode::CREATED, view);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(id): Id,
    Body(said): Body<Registration>,
) -> Result<Response, Problem> {
    let (put, view) = admin.process.backends.put(&id, said.parse()?, expectation(&admin, &headers, &id))?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Replaced => StatusCode::OK,
        // Nothing changed: a worker that says it again, because it was told that a disk is full, goes on.
        Put::Same => return Ok(written(&admin, StatusCode::OK, view)),
    };
    admin.kept(&id).await?;
    Ok(written(&admin, status, view))
}

/// Lays a merge-patch over what is said about a backend, however often it changes meanwhile.
pub(super) async fn patch(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(id): Id,
    Body(patch): Body<Value>,
) -> Result<Response, Problem> {
    let mut tries = PATCH_TRIES_MAX;
    loop {
        let before = view(&admin, &id)?;
        let expect = admin.tags.expect(&headers, Some(before.version));
        let is_met = match expect {
            Expect::Anything | Expect::Present => true,
            Expect::Version(version) => version == before.version,
            Expect::Absent | Expect::AnotherThan(_) => false,
        };
        if !is_met {
            return Err(BackendError::PreconditionFailed(before.id).into());
        }
        let spec = patched(&before.spec, &patch)?;
        tries -= 1;
        match admin.process.backends.patch(&id, Expect::Version(before.version), |said| *said = spec) {
            Ok(view) => {
                admin.kept(&id).await?;
                return Ok(written(&admin, StatusCode::OK, view));
            }
            // Another write was faster; the patch goes over its result.
            Err(BackendError::PreconditionFailed(_)) if tries > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// When the lease ends, when to renew it, and what the worker should know.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LeaseBody {
    expires_at: String,
    renew_after: String,
    directives: Vec<&'static str>,
}

pub(super) async fn renew(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    _: Body<Nothing>,
) -> Result<Json<LeaseBody>, Problem> {
    let renewal = admin.process.backends.renew_lease(&id)?;
    let directives = renewal.directives.iter().map(|directive| match directive {
        Directive::Drain => "drain",
        Directive::Maint => "maint",
    });
    Ok(Json(LeaseBody {
        expires_at: time(renewal.expires_at),
        renew_after: duration::show(renewal.renew_after),
        directives: directives.collect(),
    }))
}

/// What becomes of a backend and its pipes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetState {
    /// Takes pipes, takes nothing new, or is out of service.
    state: StateName,
    /// Those that it has move elsewhere, stay until their clients leave, or are closed; they move if absent.
    pipes: Option<WishName>,
    /// When those that are still there are cut off.
    #[schemars(regex(pattern = duration::PATTERN))]
    deadline: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WishName {
    Reattach,
    Keep,
    Close,
}

pub(super) async fn set_state(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(id): Id,
    Body(wish): Body<SetState>,
) -> Result<Response, Problem> {
    let change = StateChange {
        state: wish.state.into(),
        pipes: match wish.pipes.unwrap_or(WishName::Reattach) {
            WishName::Reattach => PipesWish::Reattach,
            WishName::Keep => PipesWish::Keep,
            WishName::Close => PipesWish::Close,
        },
        deadline: wish.deadline.as_deref().map(|text| duration::parse("/deadline", text)).transpose()?,
    };
    let (progress, view) = admin.process.backends.set_state(&id, expectation(&admin, &headers, &id), change)?;
    admin.kept(&id).await?;
    let status = match progress {
        Progress::Done => StatusCode::OK,
        Progress::Leaving { .. } => StatusCode::ACCEPTED,
    };
    Ok(written(&admin, status, view))
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(id): Id,
) -> Result<Response, Problem> {
    let progress = admin.process.backends.delete(&id, expectation(&admin, &headers, &id))?;
    admin.kept(&id).await?;
    match progress {
        Progress::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Progress::Leaving { .. } => Ok(match view(&admin, &id) {
            Ok(view) => written(&admin, StatusCode::ACCEPTED, view),
            // Its last pipe has left since.
            Err(_) => StatusCode::NO_CONTENT.into_response(),
        }),
    }
}
