//! The process as a whole: what it is, what it logs, and whether it takes new pipes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::Body;
use super::problem::{Kind, Problem};
use super::{Admin, duration};
use crate::config::LogLevel;
use crate::events::Fact;
use crate::log::{LEVELS, level_name};
use crate::phase::Phase;

/// The longest time that a level may hold for before it goes back; for longer, change it for good.
pub const LEVEL_FOR_MAX: Duration = Duration::from_secs(24 * 3600);

/// A request without fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// What the process is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Info {
    name: &'static str,
    version: &'static str,
    pid: u32,
    started_at: String,
    uptime_s: f64,
    phase: Phase,
    public_listeners: Vec<String>,
    admin_listener: String,
    routes: Vec<String>,
    pools: Vec<String>,
    /// Whether tokens are needed.
    tokens: bool,
}

pub(super) async fn info(State(admin): State<Arc<Admin>>) -> Json<Info> {
    let config = admin.process.config.load();
    Json(Info {
        name: "holdline",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started_at: admin.started_at.to_string(),
        uptime_s: admin.started.elapsed().as_secs_f64(),
        phase: admin.process.phase.get(),
        public_listeners: config.server.listen.iter().map(ToString::to_string).collect(),
        admin_listener: config.admin.listen.to_string(),
        routes: config.routes.iter().map(|route| route.name.clone()).collect(),
        pools: config.pools.iter().map(|pool| pool.name.clone()).collect(),
        tokens: admin.process.tokens.load().is_some(),
    })
}

/// The level in force and, if it holds for a while only, when it goes back to which.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Log {
    level: &'static str,
    until: Option<String>,
    then: Option<&'static str>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetLog {
    /// One of off, error, warn, info, debug, trace.
    level: String,
    /// For how long; for good without it.
    #[schemars(regex(pattern = duration::PATTERN))]
    r#for: Option<String>,
}

pub(super) async fn log(State(admin): State<Arc<Admin>>) -> Json<Log> {
    Json(level(&admin))
}

fn level(admin: &Admin) -> Log {
    let view = admin.process.level.view();
    Log {
        level: level_name(view.level),
        until: view.until.map(|until| until.to_string()),
        then: view.until.map(|_| level_name(view.base)),
    }
}

pub(super) async fn set_log(State(admin): State<Arc<Admin>>, Body(wanted): Body<SetLog>) -> Result<Json<Log>, Problem> {
    let names = LEVELS.map(level_name).join(", ");
    let wish: LogLevel = LEVELS
        .into_iter()
        .find(|&level| level_name(level) == wanted.level)
        .ok_or_else(|| Problem::invalid("/level", format!("must be one of {names}")))?;
    match wanted.r#for.as_deref().map(|text| duration::parse("/for", text)).transpose()? {
        None => admin.process.level.set(wish),
        Some(time) if time > Duration::ZERO && time <= LEVEL_FOR_MAX => admin.process.level.set_for(wish, time),
        Some(_) => return Err(Problem::invalid("/for", "must be more than 0 and at most 24h")),
    }
    Ok(Json(level(&admin)))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Drain {
    phase: Phase,
    pipes: usize,
}

pub(super) async fn drain(State(admin): State<Arc<Admin>>, _: Body<Nothing>) -> Result<Json<Drain>, Problem> {
    if admin.process.phase.drain() {
        admin.process.events.push(Fact::ProcessDrainStarted);
        admin.process.streams.set_draining(true);
    }
    phase_or_conflict(&admin, Phase::Draining)
}

pub(super) async fn undrain(State(admin): State<Arc<Admin>>) -> Result<Json<Drain>, Problem> {
    if admin.process.phase.undrain() {
        admin.process.events.push(Fact::ProcessDrainCancelled);
        admin.process.streams.set_draining(false);
    }
    phase_or_conflict(&admin, Phase::Serving)
}

fn phase_or_conflict(admin: &Admin, wanted: Phase) -> Result<Json<Drain>, Problem> {
    let phase = admin.process.phase.get();
    if phase == wanted {
        return Ok(Json(Drain { phase, pipes: admin.process.pipes.len() }));
    }
    Err(Problem::new(Kind::Conflict, format!("the process is {}", phase.as_str())))
}
