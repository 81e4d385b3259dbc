//! What the chosen backend is asked for.
//!
//! Planned once, when the request comes in, and rendered for each backend that a pipe is attached to: an alias differs
//! from backend to backend.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::NoRoute;
use super::path::leaves_its_place;
use super::percent::encode_into;
use super::template::{Piece, Template, Values};

/// The path and query for a backend, up to what only the backend decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Target {
    plan: Plan,
    /// Stands in for the alias of a backend that has none.
    key: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Plan {
    /// From `routes.backend_path`.
    Template(Vec<Piece>),
    /// The client's own path and query, the key in it at `key_at`.
    Client { path_and_query: String, key_at: Option<Range<usize>> },
}

impl Target {
    pub(super) fn plan(
        path: Option<&Template>,
        key_template: Option<&Template>,
        key: Option<&str>,
        values: &Values<'_>,
    ) -> Result<Self, NoRoute> {
        let plan = match path {
            Some(template) => Plan::Template(template.path(values)?),
            None => Plan::client(key_template, values),
        };
        if matches!(&plan, Plan::Template(pieces) if pieces.contains(&Piece::Alias)) && key.is_none() {
            return Err(NoRoute::Missing("its key".into()));
        }
        let target = Self { plan, key: key.map(str::to_owned) };
        if let Plan::Template(pieces) = &target.plan
            && is_astray(&target.render(pieces, None))
        {
            return Err(NoRoute::Astray("what stands in this route's path".into()));
        }
        Ok(target)
    }

    /// The path and query to ask a backend for.
    ///
    /// `backend` is the path and query of the backend's URL, if it has any, `alias` what the backend calls the
    /// request's key. A `routes.backend_path` decides alone. Without one, a backend URL with a path is taken as it is,
    /// with the client's query unless it has its own; else the backend gets the client's path and query, the key in it
    /// replaced by the alias.
    #[must_use]
    pub fn for_backend(&self, backend: Option<&str>, alias: Option<&str>) -> String {
        match &self.plan {
            Plan::Template(pieces) => self.render(pieces, alias),
            Plan::Client { path_and_query, key_at } => match backend {
                Some(own) => match path_and_query.split_once('?') {
                    Some((_, query)) if !own.contains('?') => format!("{own}?{query}"),
                    Some(_) | None => own.to_owned(),
                },
                None => with_alias(path_and_query, key_at.as_ref().zip(alias)),
            },
        }
    }

    fn render(&self, pieces: &[Piece], alias: Option<&str>) -> String {
        let alias = alias.or(self.key.as_deref()).unwrap_or_default();
        let mut path = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Alias => encode_into(&mut path, alias),
            }
        }
        path
    }
}

/// Whether the path of `path_and_query` holds a dot segment.
fn is_astray(path_and_query: &str) -> bool {
    leaves_its_place(path_and_query.split('?').next().unwrap_or_default())
}

fn with_alias(path_and_query: &str, alias: Option<(&Range<usize>, &str)>) -> String {
    let Some((at, alias)) = alias else {
        return path_and_query.to_owned();
    };
    let mut path = path_and_query[..at.start].to_owned();
    encode_into(&mut path, alias);
    path.push_str(&path_and_query[at.end..]);
    path
}

impl Plan {
    fn client(key: Option<&Template>, values: &Values<'_>) -> Self {
        let mut path_and_query = values.path.to_owned();
        if let Some(query) = values.query {
            path_and_query.push('?');
            path_and_query.push_str(query);
        }
        let param = key.and_then(Template::as_param).and_then(|name| values.param(name));
        let in_path = param.filter(|value| !value.is_empty()).map(|value| place(values.path, value));
        let in_query = key.and_then(Template::as_query).zip(values.query).and_then(|(name, query)| {
            let at = place(query, values.query_value(name).ok()??);
            let start = values.path.len() + 1;
            Some(start + at.start..start + at.end)
        });
        Self::Client { path_and_query, key_at: in_path.or(in_query) }
    }
}

/// Where `part`, a slice of `whole`, lies in it.
fn place(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
