//! The process as a whole: what it is, how it is configured, what it logs, and whether it takes new pipes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Admin;
use super::body::Body;
use super::problem::{Kind, Problem};
use crate::config::{Change, Config, LogLevel, Notice, Place};
use crate::events::Fact;
use crate::log::{LEVELS, level_name};
use crate::phase::Phase;

/// A request without fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn info(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let config = admin.config.load();
    Json(json!({
        "name": "holdline",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_at": admin.started_at.to_string(),
        "uptime_s": admin.started.elapsed().as_secs_f64(),
        "phase": admin.phase.get(),
        "public_listeners": config.server.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "admin_listener": config.admin.listen.to_string(),
        "routes": config.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
        "pools": config.pools.iter().map(|pool| &pool.name).collect::<Vec<_>>(),
        "tokens": admin.tokens.load().is_some(),
    }))
}

/// The effective configuration, secrets masked.
pub(super) async fn config(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(admin.config.load().to_json())
}

/// A `proxy.toml` to be judged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidate {
    toml: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    valid: bool,
    errors: Vec<NoticeBody>,
    warnings: Vec<NoticeBody>,
    changes: Vec<ChangeBody>,
}

#[derive(Debug, Serialize)]
struct NoticeBody {
    line: Option<usize>,
    column: Option<usize>,
    variable: Option<String>,
    key: String,
    message: String,
}

#[derive(Debug, Serialize)]
struct ChangeBody {
    key: String,
    needs_restart: bool,
}

impl From<Notice> for NoticeBody {
    fn from(notice: Notice) -> Self {
        let (line, column, variable) = match notice.place {
            Place::File { line, column } => (Some(line), Some(column), None),
            Place::Env(name) => (None, None, Some(name)),
            Place::Nowhere => (None, None, None),
        };
        Self { line, column, variable, key: notice.key, message: notice.message }
    }
}

/// Judges a configuration under the environment of this process, without taking it into force.
pub(super) async fn validate(State(admin): State<Arc<Admin>>, Body(candidate): Body<Candidate>) -> Json<Verdict> {
    // Variables that are not UTF-8 can't be ours, and `vars` would panic on them.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let notices = |notices: Vec<Notice>| notices.into_iter().map(Into::into).collect();
    Json(match Config::read(Some(("toml", &candidate.toml)), variables) {
        Ok(loaded) => {
            let changes = admin.config.load().changes(&loaded.config);
            let changes = changes.into_iter().map(|Change { key, needs_restart }| ChangeBody { key, needs_restart });
            Verdict { valid: true, errors: Vec::new(), warnings: notices(loaded.warnings), changes: changes.collect() }
        }
        Err(invalid) => {
            Verdict { valid: false, errors: notices(invalid.errors), warnings: Vec::new(), changes: Vec::new() }
        }
    })
}

#[derive(Debug, Serialize)]
pub(super) struct Log {
    level: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetLog {
    level: String,
}

pub(super) async fn log(State(admin): State<Arc<Admin>>) -> Json<Log> {
    Json(Log { level: level_name(admin.log.level()) })
}

pub(super) async fn set_log(State(admin): State<Arc<Admin>>, Body(wanted): Body<SetLog>) -> Result<Json<Log>, Problem> {
    let names = LEVELS.map(level_name).join(", ");
    let level: LogLevel = LEVELS
        .into_iter()
        .find(|&level| level_name(level) == wanted.level)
        .ok_or_else(|| Problem::invalid("/level", format!("must be one of {names}")))?;
    admin.log.set_level(level);
    Ok(Json(Log { level: level_name(level) }))
}

#[derive(Debug, Serialize)]
pub(super) struct Drain {
    phase: Phase,
    pipes: usize,
}

pub(super) async fn drain(State(admin): State<Arc<Admin>>, _: Body<Nothing>) -> Result<Json<Drain>, Problem> {
    if admin.phase.drain() {
        admin.events.push(Fact::ProcessDrainStarted);
        admin.streams.set_draining(true);
    }
    phase_or_conflict(&admin, Phase::Draining)
}

pub(super) async fn undrain(State(admin): State<Arc<Admin>>) -> Result<Json<Drain>, Problem> {
    if admin.phase.undrain() {
        admin.events.push(Fact::ProcessDrainCancelled);
        admin.streams.set_draining(false);
    }
    phase_or_conflict(&admin, Phase::Serving)
}

fn phase_or_conflict(admin: &Admin, wanted: Phase) -> Result<Json<Drain>, Problem> {
    let phase = admin.phase.get();
    if phase == wanted {
        return Ok(Json(Drain { phase, pipes: admin.pipes.len() }));
    }
    Err(Problem::new(Kind::Conflict, format!("the process is {}", phase.as_str())))
}
