//! `/v1/upgrade`: another process takes over from this one.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Admin;
use super::body::Body;
use super::problem::{Kind, Problem};
use crate::upgrade::Report;

/// Which program takes over.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Its absolute path; `upgrade.binary` or the program that runs, without it.
    binary: Option<String>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Report> {
    Json(admin.process.upgrade.report())
}

/// Answers once the new process serves, or it came to nothing.
pub(super) async fn start(State(admin): State<Arc<Admin>>, Body(wish): Body<Wish>) -> Result<Json<Report>, Problem> {
    let answered = admin.process.upgrade.ask(wish.binary.map(PathBuf::from));
    let answered = answered.map_err(|error| Problem::new(Kind::Conflict, error.to_string()))?;
    let failed = |reason: String| Problem::named("upgrade-failed", 500, reason);
    let outcome = answered.await.map_err(|_| failed("the process is stopping".to_owned()))?;
    outcome.map(Json).map_err(failed)
}
