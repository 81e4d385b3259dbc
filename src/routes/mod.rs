//! Which route a request belongs to, what its key is, and what the backend is asked for.
//!
//! Owns the compiled [`RouteTable`]. Refuses, at configuration time, every pattern or template that could only fail
//! later. Invariant: a table never changes; a reload makes a new one, and a pipe keeps the [`Route`] it was opened with.
//!
//! The most specific host wins (exact, then the longest `*.suffix`, then routes without hosts), and within it the most
//! specific path (static before `{param}` before `{*rest}`). A host that has no route for a path falls through to the
//! less specific ones, so a route without hosts serves every host.

mod host;
mod origin;
mod target;
mod template;

use std::collections::HashMap;
use std::sync::Arc;

use holdline_core::settings::PipeSettings;
use http::HeaderValue;
use http::request::Parts;
use matchit::Router;

use host::HostPattern;
use origin::Origin;
pub use target::Target;
use template::{Template, Values};

/// One route as the configuration names it; [`RouteTable::compile`] checks and compiles it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name in logs and metrics; unique.
    pub name: String,
    /// Path pattern: `/ws/{session}/control`, `/files/{*rest}`; a `{*rest}` matches the empty rest too.
    pub path: String,
    /// Hosts it answers for, exact or `*.example.com`, without a port; none means any.
    pub hosts: Vec<String>,
    /// The pool its backends come from.
    pub pool: String,
    /// Key template: `{session}`, `{query.udid}`, `{header.x-device}` and literal text.
    pub key: Option<String>,
    /// Backend path template: the key's placeholders, `{alias}` and `{query}`.
    pub backend_path: Option<String>,
    /// Origins that a browser may connect from; none means any.
    pub origins: Vec<String>,
    /// Whether a request without an upgrade is refused with 426.
    pub websocket_only: bool,
    /// What its pipes are opened with.
    pub settings: PipeSettings,
}

/// Why a route cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("route `{route}`: {key}: {message}")]
pub struct RouteError {
    /// The route's name.
    pub route: String,
    /// The configuration key at fault: `name`, `path`, `hosts`, `key`, `backend_path` or `origins`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A compiled route; shared by the pipes that were opened with it.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// The pool its backends come from.
    pub pool: String,
    /// What its pipes are opened with.
    pub settings: PipeSettings,
    /// Whether a request without an upgrade is refused with 426.
    pub websocket_only: bool,
    pattern: String,
    key: Option<Template>,
    backend_path: Option<Template>,
    origins: Vec<Origin>,
}

/// What [`RouteTable::find`] found.
#[derive(Debug)]
pub struct Found {
    /// The route.
    pub route: Arc<Route>,
    /// The route key, percent-decoded; `None` if the route has none or the request lacks a part of it.
    pub key: Option<String>,
    /// What to ask the backend for, once it is chosen.
    pub target: Target,
}

/// Why a request has no route.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoRoute {
    /// No host and path match: 404.
    #[error("no route matches this host and path")]
    NotFound,
    /// The route's `backend_path` needs something that the request lacks: 400.
    #[error("this route needs {0}")]
    Missing(String),
}

/// All routes, compiled.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    exact: HashMap<String, Router<usize>>,
    /// Longest suffix first; a suffix starts with its dot.
    suffixes: Vec<(String, Router<usize>)>,
    any: Router<usize>,
}
