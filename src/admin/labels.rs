//! `PATCH /v1/pipes/{id}`: the groups that a pipe belongs to, changed while it lives.
//!
//! The pipe's own task makes the change, so that one that takes a version for granted is refused if another came first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use holdline_core::labels::{LabelSelector, Relabel};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::Admin;
use super::body::{Body, Id, escape};
use super::messages::ANSWER_TIMEOUT;
use super::pipes::{find, order, shown};
use super::problem::{Kind, Problem};
use crate::backends::Expect;
use crate::pipes::{Command, NotLabelled};

/// A merge-patch (RFC 7396) of what can be changed about a pipe.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PipePatch {
    /// Labels that get a value, or go where it is null; the others stay.
    labels: BTreeMap<String, Option<String>>,
}

impl PipePatch {
    fn parse(&self) -> Result<Relabel, Problem> {
        let mut change = Relabel::default();
        for (name, value) in &self.labels {
            let taken = match value {
                Some(value) => change.set(name, value),
                None => change.take(name),
            };
            taken.map_err(|error| Problem::invalid(format!("/labels/{}", escape(name)), error.to_string()))?;
        }
        Ok(change)
    }
}

pub(super) async fn patch(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    Id(id): Id,
    Body(patch): Body<PipePatch>,
) -> Result<Response, Problem> {
    let pipe = find(&admin, &id)?;
    let change = patch.parse()?;
    let version = pipe.labels.version();
    let expected = match admin.tags.expect(&headers, Some(version)) {
        Expect::Anything | Expect::Present => None,
        Expect::Version(wanted) if wanted == version => Some(version),
        Expect::Version(_) | Expect::Absent | Expect::AnotherThan(_) => return Err(changed(&id)),
    };
    let (answer, answered) = oneshot::channel();
    order(&pipe, Command::Label(Box::new(change), expected, answer))?;
    match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
        Ok(Ok(Ok(()))) => Ok(shown(&admin, StatusCode::OK, &pipe)),
        Ok(Ok(Err(NotLabelled::Changed))) => Err(changed(&id)),
        Ok(Ok(Err(NotLabelled::Refused(error)))) => Err(Problem::invalid("/labels", error.to_string())),
        Ok(Err(_)) => Err(Problem::no_such("pipe", &id)),
        Err(_) => Err(Problem::new(Kind::Busy, "the pipe has not answered in time; it may still be changed")),
    }
}

fn changed(id: &str) -> Problem {
    let detail = format!("the labels of pipe {id:?} are not in the version that If-Match or If-None-Match asks for");
    Problem::named("precondition-failed", 412, detail)
}

/// The pipes that `room:a` or `room` means, as a query or a body has it at `pointer`.
pub(super) fn selector(pointer: &str, text: &str) -> Result<LabelSelector, Problem> {
    LabelSelector::parse(text)
        .map_err(|error| Problem::invalid(pointer, format!("write NAME:VALUE, or NAME for any value: {error}")))
}
