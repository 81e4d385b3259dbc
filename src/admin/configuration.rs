//! `/v1/config`: what holds and where it was written, what a candidate is worth, and putting a new one in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Admin;
use super::body::Body;
use super::problem::{Fault, Problem};
use crate::config::{Change, Config, Invalid, Notice, Place};
use crate::reload::{ReloadError, Reloaded};

/// The effective configuration, section by section, and where it was written.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Effective {
    sources: Sources,
    /// The sections of `proxy.toml`; secrets are masked, durations and sizes are as in the file.
    #[serde(flatten)]
    sections: Map<String, Value>,
}

/// Where values were written; a key that is not here has its default.
#[derive(Debug, Serialize, JsonSchema)]
struct Sources {
    /// The configuration file.
    file: Option<String>,
    keys: BTreeMap<String, Source>,
}

/// A line of the file, or a variable of the environment.
#[derive(Debug, Serialize, JsonSchema)]
struct Source {
    line: Option<usize>,
    column: Option<usize>,
    /// Also an option of the command line, such as `--to`.
    variable: Option<String>,
}

impl From<Place> for Source {
    fn from(place: Place) -> Self {
        match place {
            Place::File { line, column } => Self { line: Some(line), column: Some(column), variable: None },
            Place::Argument { name, .. } => Self { line: None, column: None, variable: Some(name.to_owned()) },
            Place::Env(name) => Self { line: None, column: None, variable: Some(name) },
            Place::Nowhere => Self { line: None, column: None, variable: None },
        }
    }
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Effective> {
    let sections = match admin.process.config.load().to_json() {
        Value::Object(sections) => sections,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    let sources = admin.reload.sources();
    let file = sources.file.as_ref().map(|file| file.display().to_string());
    let keys = sources.places.iter().map(|(key, place)| (key.clone(), place.clone().into())).collect();
    Json(Effective { sources: Sources { file, keys }, sections })
}

/// A `proxy.toml` to be judged; without one, the file that the process reads, as it is now.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidate {
    toml: Option<String>,
}

/// Whether a configuration would be taken, and what it would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Verdict {
    valid: bool,
    errors: Vec<NoticeBody>,
    warnings: Vec<NoticeBody>,
    changes: Vec<ChangeBody>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct NoticeBody {
    file: Option<String>,
    #[serde(flatten)]
    source: Source,
    key: String,
    message: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ChangeBody {
    key: String,
    needs_restart: bool,
}

impl NoticeBody {
    /// What is wrong with a key as a whole, wherever it was written.
    fn of(key: &str, message: String) -> Self {
        Self { file: None, source: Place::Nowhere.into(), key: key.to_owned(), message }
    }
}

impl From<Notice> for NoticeBody {
    fn from(notice: Notice) -> Self {
        Self { file: notice.file, source: notice.place.into(), key: notice.key, message: notice.message }
    }
}

impl From<Change> for ChangeBody {
    fn from(Change { key, needs_restart }: Change) -> Self {
        Self { key, needs_restart }
    }
}

fn each<T, U: From<T>>(list: Vec<T>) -> Vec<U> {
    list.into_iter().map(Into::into).collect()
}

/// Judges a configuration under the environment of this process, without taking it into force.
pub(super) async fn validate(
    State(admin): State<Arc<Admin>>,
    Body(candidate): Body<Candidate>,
) -> Result<Json<Verdict>, Problem> {
    let reload = &admin.reload;
    let judged = match &candidate.toml {
        Some(toml) => match Config::read(Some(("toml", toml)), environment()) {
            Ok(loaded) => reload.foresee(loaded),
            Err(invalid) => Err(invalid.into()),
        },
        None => reload.rehearse().await,
    };
    let wrong = |errors| Verdict { valid: false, errors, warnings: Vec::new(), changes: Vec::new() };
    let verdict = match judged {
        Ok(Reloaded { changes, warnings }) => {
            Verdict { valid: true, errors: Vec::new(), warnings: each(warnings), changes: each(changes) }
        }
        Err(ReloadError::Config(Invalid { errors })) => wrong(each(errors)),
        Err(ReloadError::Tokens(error)) => wrong(vec![NoticeBody::of("admin.tokens_file", error.to_string())]),
        Err(ReloadError::Route(error)) => wrong(vec![NoticeBody::of("routes", error.to_string())]),
        Err(error @ (ReloadError::Empty | ReloadError::Unguarded(_))) => {
            wrong(vec![NoticeBody::of("", error.to_string())])
        }
        Err(error @ ReloadError::Interrupted(_)) => return Err(error.into()),
    };
    Ok(Json(verdict))
}

/// Variables that are not UTF-8 can't be ours, and `vars` would panic on them.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What a reload changed, and what of it waits for a restart.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReloadBody {
    /// Keys that differ from what was in force.
    changes: Vec<ChangeBody>,
    /// Those of them that are not in force yet.
    needs_restart: Vec<String>,
    warnings: Vec<NoticeBody>,
}

/// How the configuration is to be put in force.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadAsk {
    /// Whether it may drop what guards the process: an emptied file, tokens, or origins of a route.
    #[serde(default)]
    force: bool,
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Body(ask): Body<ReloadAsk>,
) -> Result<Json<ReloadBody>, Problem> {
    let Reloaded { changes, warnings } = admin.reload.reload(ask.force).await?;
    let needs_restart = changes.iter().filter(|change| change.needs_restart).map(|change| change.key.clone()).collect();
    Ok(Json(ReloadBody { changes: each(changes), needs_restart, warnings: each(warnings) }))
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let problem = |detail: String| Self::named("invalid-config", 422, detail);
        match error {
            ReloadError::Config(invalid) => {
                let mut found = problem(invalid.to_string());
                let fault = |notice: &Notice| Fault { pointer: pointer(&notice.key), message: notice.to_string() };
                found.errors = invalid.errors.iter().map(fault).collect();
                found
            }
            ReloadError::Tokens(error) => problem(error.to_string()).at("/admin/tokens_file"),
            ReloadError::Empty | ReloadError::Unguarded(_) => Self::named("guards-dropped", 409, error.to_string()),
            ReloadError::Route(_) | ReloadError::Interrupted(_) => problem(error.to_string()),
        }
    }
}

/// `pools[0].backends[1].url` as a JSON pointer.
fn pointer(key: &str) -> String {
    let parts = key.split(['.', '[']).filter(|part| !part.is_empty());
    parts.map(|part| format!("/{}", part.trim_end_matches(']'))).collect()
}
