//! `/v1/backends` and `/v1/pools`: what is registered, and what becomes of it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdline_core::health::Health;
use holdline_core::lease::LeaseState;
use holdline_core::pool::{AdminState, Serves};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Admin;
use super::body::{Body, Id, Query};
use super::duration;
use super::list::{self, List};
use super::problem::Problem;
use super::system::Nothing;
use crate::backends::{
    BackendError, BackendSpec, BackendUrl, BackendView, Directive, Expect, Origin, PipesWish, PoolView, ProbeKind,
    ProbeSettings, Progress, Put, StateChange,
};

/// What a worker says about itself; the same fields by POST and PUT.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    url: String,
    #[serde(default = "default_pool")]
    pool: String,
    #[serde(default = "one")]
    weight: NonZeroU32,
    max_pipes: Option<u32>,
    #[serde(default)]
    serves: ServesBody,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    instance: Option<String>,
    lease: Option<String>,
    health: Option<HealthBody>,
    state: Option<StateName>,
}

fn default_pool() -> String {
    "default".to_owned()
}

const fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// A list of keys, or a map of keys to what the backend calls them.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "serves must be a list of keys, or an object of keys and aliases")]
enum ServesBody {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Default for ServesBody {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl ServesBody {
    fn parse(self) -> Serves {
        match self {
            Self::List(keys) => Serves::from_keys(keys.into_iter().map(|key| (key.into(), None))),
            Self::Map(keys) => Serves::from_keys(keys.into_iter().map(|(key, alias)| (key.into(), Some(alias.into())))),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthBody {
    #[serde(rename = "type")]
    kind: Option<ProbeName>,
    path: Option<String>,
    interval: Option<String>,
    timeout: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProbeName {
    Tcp,
    Http,
    Ws,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateName {
    Ready,
    Drain,
    Maint,
}

impl From<StateName> for AdminState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Ready => Self::Ready,
            StateName::Drain => Self::Drain,
            StateName::Maint => Self::Maint,
        }
    }
}

impl From<AdminState> for StateName {
    fn from(state: AdminState) -> Self {
        match state {
            AdminState::Ready => Self::Ready,
            AdminState::Drain => Self::Drain,
            AdminState::Maint => Self::Maint,
        }
    }
}

impl Registration {
    fn parse(self) -> Result<BackendSpec, Problem> {
        let url: BackendUrl = self.url.parse().map_err(BackendError::Url)?;
        Ok(BackendSpec {
            url: Arc::new(url),
            pool: self.pool.into(),
            weight: self.weight,
            max_pipes: self.max_pipes,
            serves: self.serves.parse(),
            labels: self.labels,
            instance: self.instance.map(Into::into),
            lease: self.lease.as_deref().map(|text| duration::parse("/lease", text)).transpose()?,
            probes: self.health.map(HealthBody::parse).transpose()?,
            state: self.state.map(Into::into),
        })
    }
}

impl HealthBody {
    fn parse(self) -> Result<ProbeSettings, Problem> {
        let path = self.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(Problem::invalid("/health/path", "must begin with / and hold no spaces"));
        }
        let usual = ProbeSettings::default();
        let time = |at, text: Option<String>, usual| text.map_or(Ok(usual), |text| duration::parse(at, &text));
        Ok(ProbeSettings {
            kind: match self.kind.unwrap_or(ProbeName::Tcp) {
                ProbeName::Tcp => ProbeKind::Tcp,
                ProbeName::Http => ProbeKind::Http(path),
                ProbeName::Ws => ProbeKind::Ws(path),
            },
            interval: time("/health/interval", self.interval, usual.interval)?,
            timeout: time("/health/timeout", self.timeout, usual.timeout)?,
        })
    }
}

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
#[derive(Debug, Serialize)]
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
    registered_at: String,
    version: u64,
    last_probe: Option<ProbeBody>,
}

#[derive(Debug, Serialize)]
struct ProbeBody {
    at: String,
    took_ms: u128,
    problem: Option<String>,
}

impl From<BackendView> for BackendBody {
    fn from(view: BackendView) -> Self {
        let serves = match view.spec.serves {
            Serves::Any => BTreeMap::new(),
            Serves::Keys(keys) => keys,
        };
        Self {
            id: view.id,
            url: view.spec.url.to_string(),
            pool: view.spec.pool,
            weight: view.spec.weight.get(),
            max_pipes: view.spec.max_pipes,
            serves,
            labels: view.spec.labels,
            instance: view.spec.instance,
            lease: view.spec.lease.map(duration::show),
            state: view.admin.into(),
            health: health_name(view.health),
            lease_state: lease_name(view.lease),
            lease_expires_at: view.lease_expires_at.map(time),
            ejected_until: view.ejected_until.map(time),
            eligible: view.eligible,
            removing: view.removing,
            fixed: view.origin == Origin::Static,
            pipes: view.pipes,
            registered_at: time(view.registered_at),
            version: view.version,
            last_probe: view.last_probe.map(|probe| ProbeBody {
                at: time(probe.at),
                took_ms: probe.took.as_millis(),
                problem: probe.problem,
            }),
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

/// RFC 3339 in UTC.
fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).unwrap_or_default().to_string()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ask {
    pool: Option<String>,
    state: Option<StateName>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(ask): Query<Ask>,
) -> Result<Json<List<BackendBody>>, Problem> {
    let limit = list::limit(ask.limit)?;
    let mut found: Vec<BackendBody> = admin.backends.list().into_iter().map(Into::into).collect();
    found.retain(|backend| {
        ask.pool.as_deref().is_none_or(|pool| *backend.pool == *pool)
            && ask.state.is_none_or(|state| backend.state == state)
    });
    Ok(Json(List::page(found, |backend| backend.id.to_string(), ask.cursor.as_deref(), limit)))
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Id(id): Id) -> Result<Json<BackendBody>, Problem> {
    view(&admin, &id).map(Json)
}

fn view(admin: &Admin, id: &str) -> Result<BackendBody, Problem> {
    let view = admin.backends.get(id).ok_or_else(|| BackendError::NotFound(id.into()))?;
    Ok(view.into())
}

pub(super) async fn register(
    State(admin): State<Arc<Admin>>,
    Body(said): Body<Registration>,
) -> Result<Response, Problem> {
    let view = admin.backends.register(said.parse()?)?;
    let location = HeaderValue::from_str(&format!("/v1/backends/{}", view.id));
    let mut response = (StatusCode::CREATED, Json(BackendBody::from(view))).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn put(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    Body(said): Body<Registration>,
) -> Result<(StatusCode, Json<BackendBody>), Problem> {
    let (put, view) = admin.backends.put(&id, said.parse()?, Expect::Anything)?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Replaced | Put::Same => StatusCode::OK,
    };
    Ok((status, Json(view.into())))
}

/// When the lease ends, when to renew it, and what the worker should know.
#[derive(Debug, Serialize)]
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
    let renewal = admin.backends.renew_lease(&id)?;
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
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetState {
    state: StateName,
    pipes: Option<WishName>,
    deadline: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WishName {
    Reattach,
    Keep,
    Close,
}

pub(super) async fn set_state(
    State(admin): State<Arc<Admin>>,
    Id(id): Id,
    Body(wish): Body<SetState>,
) -> Result<(StatusCode, Json<BackendBody>), Problem> {
    let change = StateChange {
        state: wish.state.into(),
        pipes: match wish.pipes.unwrap_or(WishName::Reattach) {
            WishName::Reattach => PipesWish::Reattach,
            WishName::Keep => PipesWish::Keep,
            WishName::Close => PipesWish::Close,
        },
        deadline: wish.deadline.as_deref().map(|text| duration::parse("/deadline", text)).transpose()?,
    };
    let (progress, view) = admin.backends.set_state(&id, Expect::Anything, change)?;
    let status = match progress {
        Progress::Done => StatusCode::OK,
        Progress::Pipes(_) => StatusCode::ACCEPTED,
    };
    Ok((status, Json(view.into())))
}

pub(super) async fn remove(State(admin): State<Arc<Admin>>, Id(id): Id) -> Result<Response, Problem> {
    match admin.backends.delete(&id, Expect::Anything)? {
        Progress::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Progress::Pipes(_) => Ok(match view(&admin, &id) {
            Ok(body) => (StatusCode::ACCEPTED, Json(body)).into_response(),
            // Its last pipe has left since.
            Err(_) => StatusCode::NO_CONTENT.into_response(),
        }),
    }
}

/// A pool as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct PoolBody {
    name: Arc<str>,
    max_pipes_per_backend: u32,
    backends: usize,
    eligible: usize,
    pipes: u64,
}

impl From<PoolView> for PoolBody {
    fn from(view: PoolView) -> Self {
        Self {
            name: view.name,
            max_pipes_per_backend: view.max_pipes_per_backend,
            backends: view.backends,
            eligible: view.eligible,
            pipes: view.pipes,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn pools(
    State(admin): State<Arc<Admin>>,
    Query(page): Query<Page>,
) -> Result<Json<List<PoolBody>>, Problem> {
    let limit = list::limit(page.limit)?;
    let pools: Vec<PoolBody> = admin.backends.pools().into_iter().map(Into::into).collect();
    Ok(Json(List::page(pools, |pool| pool.name.to_string(), page.cursor.as_deref(), limit)))
}

pub(super) async fn pool(State(admin): State<Arc<Admin>>, Id(name): Id) -> Result<Json<PoolBody>, Problem> {
    let pools = admin.backends.pools();
    let pool = pools.into_iter().find(|pool| *pool.name == *name).ok_or_else(|| Problem::no_such("pool", &name))?;
    Ok(Json(pool.into()))
}
