//! Which route a request belongs to, what its key is, and what the backend is asked for.
//!
//! Owns the compiled [`RouteTable`]. Refuses, at configuration time, every pattern or template that could only fail
//! later. Invariant: a table never changes; a reload makes a new one, and a pipe keeps the [`Route`] it was opened with.
//!
//! The most specific host wins (exact, then the longest `*.suffix`, then routes without hosts), and within it the most
//! specific path (static before `{param}` before `{*rest}`), whatever spelling the client has for it. A host that has no route for a path falls through to the
//! less specific ones, so a route without hosts serves every host.

mod auth;
mod compression;
mod conversation;
mod headers;
mod host;
mod identity;
mod insert;
mod labels;
mod learn;
mod origin;
mod path;
mod percent;
mod target;
mod template;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::TlsIdentity;
use holdline_core::labels::{LabelError, Relabel};
use holdline_core::limits::RouteLimits;
use holdline_core::settings::{Heartbeat, PipeSettings};
use holdline_core::shared::{StreamSettings, stream_pipe, viewer_pipe};
use http::HeaderMap;
use http::header::ORIGIN;
use http::request::Parts;
use matchit::Router;

pub use auth::{Auth, AuthSpec, is_auth_header};
pub use compression::Uncompressed;
pub use conversation::{ConversationRule, Conversations, rules_of_auto};
pub use headers::{HeaderRules, HeaderSpec, HostRule};
use host::HostPattern;
pub use identity::Identity;
use identity::Naming;
use insert::Clash;
use labels::LabelRules;
pub use learn::LearnRule;
use origin::OriginPattern;
use path::Spelled;
pub(crate) use path::leaves_its_place;
pub(crate) use percent::decode as percent_decode;
pub use target::Target;
use template::{Template, Values};

/// What a second connection of the same client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duplicate {
    /// It takes the place of the first one.
    Replace,
    /// It is refused with 409.
    Reject,
}

/// One route as the configuration names it; [`RouteTable::compile`] checks and compiles it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name in logs and metrics; unique.
    pub name: String,
    /// Path patterns: `/ws/{session}/control`, `/files/{*rest}`; a `{*rest}` matches the empty rest too.
    pub paths: Vec<String>,
    /// Hosts it answers for, exact or `*.example.com`, without a port; none means any.
    pub hosts: Vec<String>,
    /// The pool its backends come from.
    pub pool: String,
    /// Key template: `{session}`, `{query.udid}`, `{header.x-device}` and literal text.
    pub key: Option<String>,
    /// Whether a key that no backend serves goes to any.
    pub any_without_owner: bool,
    /// Backend path template: the key's placeholders, `{alias}` and `{query}`.
    pub backend_path: Option<String>,
    /// The server that says who may connect, if there is one.
    pub auth: Option<AuthSpec>,
    /// Template of what names the client: the key's placeholders.
    pub client_id: Option<String>,
    /// Templates of the groups that its pipes belong to, by the names of the labels.
    pub labels: BTreeMap<String, String>,
    /// Whether a cookie of ours lets browsers come back to their pipes.
    pub resume_cookie: bool,
    /// What a second connection of the same client does.
    pub duplicate: Duplicate,
    /// From one heartbeat of an aware client to the next.
    pub aware_heartbeat: Duration,
    /// How long a client that has a name may be away.
    pub client_grace: Duration,
    /// Whether paths may come that workers may read as other ones.
    pub raw_path: bool,
    /// Origins that a browser may connect from; none means any.
    pub origins: Vec<String>,
    /// Whether a request without an upgrade is refused with 426.
    pub websocket_only: bool,
    /// Whether clients may come without a WebSocket.
    pub http_fallback: bool,
    /// How long a request may wait for a worker that can take it.
    pub wait: Duration,
    /// Whether a cookie of ours brings clients back to the worker that they had.
    pub sticky: bool,
    /// Where workers' answers name keys.
    pub learn: Vec<LearnRule>,
    /// How long a learned key is remembered without being used.
    pub learn_ttl: Duration,
    /// What workers get as `Host`.
    pub host: HostRule,
    /// What is changed of the headers of requests, and of workers' answers.
    pub headers: [HeaderSpec; 2],
    /// Limits that hold instead of the general ones.
    pub limits: RouteLimits,
    /// What its pipes are opened with.
    pub settings: PipeSettings,
    /// What its conversations are.
    pub conversation: ConversationRule,
    /// Whether its peers may compress what they say.
    pub compression: bool,
    /// How its pipes share their workers, if they do.
    pub share: Option<StreamSettings>,
}

/// Why a route cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("route `{route}`: {key}: {message}")]
pub struct RouteError {
    /// The route's name.
    pub route: String,
    /// The configuration key at fault: `name`, `path`, `hosts`, `key`, `backend_path`, `client_id`, `labels`,
    /// `auth_headers`, `origins`, `learn` or one of `headers`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
    /// The name of the route that it clashes with, if it is that.
    pub twin: Option<String>,
}

/// A compiled route; shared by the pipes that were opened with it.
#[derive(Debug)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// The pool its backends come from.
    pub pool: String,
    /// What its pipes are opened with.
    pub settings: Arc<PipeSettings>,
    /// What pipes are opened with whose clients number their messages.
    pub aware: Arc<PipeSettings>,
    /// What its conversations are.
    pub conversations: Conversations,
    /// How pipes of the same key share one worker connection, if they do.
    pub share: Option<Share>,
    /// The server that says who may connect, if there is one.
    pub auth: Option<Auth>,
    /// How clients are told apart, if they are.
    pub identity: Option<Identity>,
    /// Whether a request without an upgrade is refused with 426.
    pub websocket_only: bool,
    /// Whether clients may come without a WebSocket.
    pub http_fallback: bool,
    /// How long a request may wait for a worker that can take it.
    pub wait: Duration,
    /// Whether a cookie of ours brings clients back to the worker that they had.
    pub sticky: bool,
    /// How long a learned key is remembered without being used.
    pub learn_ttl: Duration,
    learn: Vec<LearnRule>,
    /// What workers get as `Host`.
    pub host: HostRule,
    /// What is changed of the headers of requests.
    pub request_headers: HeaderRules,
    /// What is changed of the headers of workers' answers.
    pub answer_headers: HeaderRules,
    /// Limits that hold instead of the general ones.
    pub limits: RouteLimits,
    /// Whether a key that no backend serves goes to any.
    pub any_without_owner: bool,
    patterns: Vec<String>,
    hosts: Vec<HostPattern>,
    key: Option<Template>,
    labels: LabelRules,
    backend_path: Option<Template>,
    raw_path: bool,
    compression: bool,
    origins: Vec<OriginPattern>,
}

/// What is taken from a request of a route.
struct Templates {
    key: Option<Template>,
    backend_path: Option<Template>,
    client_id: Option<Template>,
    labels: LabelRules,
}

impl Templates {
    /// Those of a route whose paths have these parameters.
    fn parse(spec: &RouteSpec, names: &[String], auth: Option<&Auth>) -> Result<Self, (&'static str, String)> {
        let of_key = |at, text: &Option<String>| {
            text.as_deref().map(|text| Template::for_key(text, names)).transpose().map_err(|message| (at, message))
        };
        let (key, client_id) = (of_key("key", &spec.key)?, of_key("client_id", &spec.client_id)?);
        let path = spec.backend_path.as_deref().map(|text| Template::for_path(text, names, key.is_some()));
        let backend_path = path.transpose().map_err(|message| ("backend_path", message))?;
        for (at, template) in [("key", &key), ("backend_path", &backend_path), ("client_id", &client_id)] {
            if let Some(message) = template.as_ref().and_then(|template| template.unanswered(auth)) {
                return Err((at, message));
            }
        }
        let labels = LabelRules::compile(&spec.labels, names, auth).map_err(|message| ("labels", message))?;
        Ok(Self { key, backend_path, client_id, labels })
    }
}

/// What the pipes of a route live by that share their workers.
#[derive(Debug)]
pub struct Share {
    /// The stream's bounds.
    pub settings: StreamSettings,
    /// The pipe between a stream and its worker.
    pub stream: Arc<PipeSettings>,
    /// The pipes between a stream and its viewers.
    pub viewer: Arc<PipeSettings>,
}

impl Share {
    fn new(settings: StreamSettings, route: &PipeSettings) -> Self {
        Self { settings, stream: Arc::new(stream_pipe(route)), viewer: Arc::new(viewer_pipe(route)) }
    }
}

/// What [`RouteTable::find`] found.
#[derive(Debug)]
pub struct Found {
    /// The route.
    pub route: Arc<Route>,
    /// The route key, percent-decoded; `None` if the route has none or the request lacks a part of it.
    pub key: Option<String>,
    /// What names the client; `None` if the route names none or the request lacks a part of it.
    pub client_id: Option<String>,
    /// Whether its client may come back to its pipe.
    pub comes_back: bool,
    /// The groups that its pipe belongs to, as far as the route says.
    pub labels: Relabel,
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
    /// Workers may read the path as another one: 400.
    #[error("the path may be read as another one: send no dot segments, no backslash, no %2F, %5C or %00 in it")]
    Ambiguous,
    /// What names its key or its client, or stands in its path towards the worker, may be read in two ways: 400.
    #[error("this route needs {0} once, and in percent-encoded UTF-8")]
    Unclear(String),
    /// What the route's `backend_path` takes from the request would lead out of it: 400.
    #[error("{0} must not hold `.` or `..` as a part of a path, and must be percent-encoded UTF-8")]
    Astray(String),
    /// What the route's `labels` take from the request cannot be a label: 400.
    #[error("this route makes a label of what you send: {0}")]
    NoLabel(LabelError),
}

/// All routes, compiled.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    has_auth: bool,
    exact: HashMap<String, Router<Place>>,
    /// Longest suffix first; a suffix starts with its dot.
    suffixes: Vec<(String, Router<Place>)>,
    any: Router<Place>,
}

/// A pattern of a route, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Place {
    route: usize,
    pattern: usize,
}

impl RouteTable {
    /// Compiles routes in the order of the configuration.
    ///
    /// # Errors
    /// The first route that cannot work, with the key at fault.
    pub fn compile(specs: Vec<RouteSpec>) -> Result<Self, RouteError> {
        let mut table = Self {
            routes: Vec::with_capacity(specs.len()),
            has_auth: specs.iter().any(|spec| spec.auth.is_some()),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            any: Router::new(),
        };
        for spec in specs {
            table.add(spec)?;
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table.serve_empty_rests();
        Ok(table)
    }

    /// The route called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// The route of a request of `client`; `host` is [`check::host`](crate::handshake::check::host)'s answer.
    ///
    /// # Errors
    /// [`NoRoute`] when nothing matches, the path is ambiguous, or the route's template lacks a value.
    pub fn find(&self, host: Option<&str>, parts: &Parts, client: IpAddr) -> Result<Found, NoRoute> {
        let path = parts.uri.path();
        let (index, params) = self.at(host, path).ok_or(NoRoute::NotFound)?;
        let route = &self.routes[index];
        if !route.raw_path && path::is_ambiguous(path) {
            return Err(NoRoute::Ambiguous);
        }
        let certificate = TlsIdentity::certificate(&parts.extensions);
        let values =
            Values { path, params: &params, query: parts.uri.query(), headers: &parts.headers, client, certificate };
        let named = |template: Option<&Template>| template.map_or(Ok(None), |template| template.key(&values));
        let key = named(route.key.as_ref())?;
        let target = Target::plan(route.backend_path.as_ref(), route.key.as_ref(), key.as_deref(), &values)?;
        let client_id = named(route.identity.as_ref().and_then(|identity| identity.naming.template()))?;
        let labels = route.labels.of(&values)?;
        Ok(Found { route: Arc::clone(route), key, comes_back: client_id.is_some(), client_id, labels, target })
    }

    /// The route that answers on this host and path, whatever else a request there may lack.
    #[must_use]
    pub fn answers(&self, host: Option<&str>, path: &str) -> Option<&Arc<Route>> {
        self.at(host, path).map(|(index, _)| &self.routes[index])
    }

    /// Whether a route has a server that says who may connect.
    #[must_use]
    pub const fn has_auth(&self) -> bool {
        self.has_auth
    }

    /// The routes in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    fn add(&mut self, spec: RouteSpec) -> Result<(), RouteError> {
        let fail =
            |key: &'static str, message: String| RouteError { route: spec.name.clone(), key, message, twin: None };
        if self.routes.iter().any(|route| route.name == spec.name) {
            return Err(fail("name", "another route has this name".into()));
        }
        let names = names_of_all(&spec.paths).map_err(|message| fail("path", message))?;
        let patterns: Vec<_> = spec.paths.iter().map(|path| path::spell_pattern(path)).collect();
        let auth = spec.auth.clone().map(Auth::new).transpose().map_err(|message| fail("auth_headers", message))?;
        let templates = Templates::parse(&spec, &names, auth.as_ref()).map_err(|(key, message)| fail(key, message))?;
        let Templates { key, backend_path, client_id, labels } = templates;
        let origins = spec.origins.iter().map(|text| OriginPattern::from_config(text)).collect::<Result<Vec<_>, _>>();
        let origins = origins.map_err(|message| fail("origins", message))?;
        let hosts = spec.hosts.iter().map(|text| HostPattern::parse(text)).collect::<Result<Vec<_>, _>>();
        let hosts = hosts.map_err(|message| fail("hosts", message))?;

        let [request_headers, answer_headers] =
            compile_headers(&spec.headers).map_err(|(key, message)| fail(key, message))?;

        if let Err(Clash { message, twin }) = self.insert(&hosts, &patterns, &spec.paths) {
            return Err(RouteError { twin, ..fail("path", message) });
        }
        let RouteSpec { name, pool, websocket_only, limits, any_without_owner, raw_path, settings, share, .. } = spec;
        let RouteSpec { wait, host, sticky, learn_ttl, compression, http_fallback, .. } = spec;
        let learn = spec.learn.into_iter().map(LearnRule::checked).collect::<Result<Vec<_>, _>>();
        let learn = learn.map_err(|message| RouteError { route: name.clone(), key: "learn", message, twin: None })?;
        let conversations = Conversations::new(spec.conversation);
        let share = share.map(|share| Share::new(share, &settings));
        let naming = client_id.map(Naming::Template).or(spec.resume_cookie.then_some(Naming::Cookie));
        let base = share.as_ref().map_or(&settings, |share| &share.viewer);
        let identity = naming.map(|naming| Identity::new(naming, spec.duplicate, spec.client_grace, base));
        let client_heartbeat = Heartbeat { interval: spec.aware_heartbeat, ..base.client_heartbeat };
        let aware = PipeSettings { client_grace: Some(spec.client_grace), client_heartbeat, ..base.clone() };
        self.routes.push(Arc::new(Route {
            name,
            pool,
            share,
            auth,
            identity,
            settings: Arc::new(settings),
            aware: Arc::new(aware),
            conversations,
            websocket_only,
            http_fallback,
            wait,
            sticky,
            learn_ttl,
            learn,
            host,
            request_headers,
            answer_headers,
            limits,
            any_without_owner,
            patterns,
            hosts,
            key,
            labels,
            backend_path,
            raw_path,
            compression,
            origins,
        }));
        Ok(())
    }

    /// The routers of `hosts`, made where they are missing.
    fn routers(&mut self, hosts: &[HostPattern]) -> Vec<&mut Router<Place>> {
        if hosts.is_empty() {
            return vec![&mut self.any];
        }
        for host in hosts {
            match host {
                HostPattern::Exact(name) => {
                    self.exact.entry(name.clone()).or_default();
                }
                HostPattern::Suffix(suffix) if self.suffixes.iter().any(|(known, _)| known == suffix) => {}
                HostPattern::Suffix(suffix) => self.suffixes.push((suffix.clone(), Router::new())),
            }
        }
        let exact = self.exact.iter_mut().filter(|(name, _)| hosts.contains(&HostPattern::Exact((*name).clone())));
        let suffixes =
            self.suffixes.iter_mut().filter(|(suffix, _)| hosts.contains(&HostPattern::Suffix(suffix.clone())));
        exact.map(|(_, router)| router).chain(suffixes.map(|(_, router)| router)).collect()
    }

    /// Makes `/app/{*rest}` match `/app/` too, which matchit leaves out, wherever no other route has it.
    fn serve_empty_rests(&mut self) {
        for index in 0..self.routes.len() {
            let route = Arc::clone(&self.routes[index]);
            let rests = route.patterns.iter().enumerate();
            for (pattern, (prefix, _)) in rests.filter_map(|(at, path)| Some((at, path.rsplit_once("{*")?))) {
                for router in self.routers(&route.hosts) {
                    // A conflict means that another route names this path itself.
                    let _ = router.insert(prefix, Place { route: index, pattern });
                }
            }
        }
    }

    /// The route of a path, and its parameters as the client spelled them.
    fn at<'p>(&self, host: Option<&str>, path: &'p str) -> Option<(usize, Vec<(String, &'p str)>)> {
        let spelled = Spelled::new(path);
        let host = host.map(host::normalize);
        let host = host.as_deref().unwrap_or_default();
        let exact = self.exact.get(host).into_iter();
        let suffixes =
            self.suffixes.iter().filter(|(suffix, _)| host::is_below(host, suffix)).map(|(_, router)| router);
        let found = exact.chain(suffixes).chain([&self.any]).find_map(|router| router.at(spelled.as_str()).ok())?;
        let Place { route, pattern } = *found.value;
        let params = found.params.iter();
        let mut params: Vec<_> = params.map(|(name, value)| (name.to_owned(), spelled.sent(value))).collect();
        if let Some(rest) = template::rest_name(&self.routes[route].patterns[pattern])
            && params.iter().all(|(name, _)| *name != rest)
        {
            params.push((rest.to_owned(), &path[path.len()..]));
        }
        Some((route, params))
    }
}

/// The rules for requests and answers, or the key at fault.
fn compile_headers(specs: &[HeaderSpec; 2]) -> Result<[HeaderRules; 2], (&'static str, String)> {
    const REQUEST: [&str; 3] = ["headers.request.set", "headers.request.add", "headers.request.remove"];
    const RESPONSE: [&str; 3] = ["headers.response.set", "headers.response.add", "headers.response.remove"];
    let [requests, answers] = specs;
    Ok([
        HeaderRules::compile(requests).map_err(|(place, message)| (REQUEST[place], message))?,
        HeaderRules::compile(answers).map_err(|(place, message)| (RESPONSE[place], message))?,
    ])
}

/// The parameters that each of `paths` has: what the templates of their route may name.
fn names_of_all(paths: &[String]) -> Result<Vec<String>, String> {
    let mut common: Option<Vec<String>> = None;
    for path in paths {
        if !path.starts_with('/') {
            return Err(format!("`{path}` must start with `/`"));
        }
        let names = template::param_names(path)?;
        common = Some(match common {
            Some(common) => common.into_iter().filter(|name| names.contains(name)).collect(),
            None => names,
        });
    }
    Ok(common.unwrap_or_default())
}

impl Found {
    /// The key that limits count it under. Requests that lack their route's key count as of one, so that leaving it out is
    /// no way around them.
    #[must_use]
    pub fn limited_key(&self) -> Option<&str> {
        self.route.limited_key(self.key.as_deref())
    }

    /// What the pipe of this request lives by.
    #[must_use]
    pub fn settings(&self) -> &Arc<PipeSettings> {
        match (&self.route.identity, self.comes_back, &self.route.share) {
            (Some(identity), true, _) => &identity.settings,
            (_, _, Some(share)) => &share.viewer,
            (_, _, None) => &self.route.settings,
        }
    }
}

impl Route {
    /// The key that limits count a pipe of this `key` under.
    #[must_use]
    pub fn limited_key<'k>(&self, key: Option<&'k str>) -> Option<&'k str> {
        key.or(self.key.is_some().then_some(""))
    }

    /// Whether a cookie of ours lets browsers come back to their pipes.
    #[must_use]
    pub fn knows_browsers(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| matches!(identity.naming, Naming::Cookie))
    }

    /// Where the answer to a request of `path` names a key, if it may: a JSON pointer.
    #[must_use]
    pub fn learns(&self, path: &str) -> Option<&str> {
        if self.learn.is_empty() {
            return None;
        }
        let spelled = Spelled::new(path);
        self.learn.iter().find(|rule| rule.path == spelled.as_str()).map(|rule| rule.json.as_str())
    }

    /// Whether only some origins may connect here.
    #[must_use]
    pub const fn has_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether paths may come that workers may read as other ones.
    #[must_use]
    pub const fn takes_raw_paths(&self) -> bool {
        self.raw_path
    }

    /// A host and a path that it answers for, for each of its hosts and paths.
    pub fn samples(&self) -> impl Iterator<Item = (Option<String>, String)> {
        let hosts: Vec<_> = match &*self.hosts {
            [] => vec![None],
            hosts => hosts.iter().map(|host| Some(host.sample())).collect(),
        };
        self.patterns.iter().flat_map(move |pattern| {
            let path = path::sample(pattern);
            hosts.clone().into_iter().map(move |host| (host, path.clone()))
        })
    }

    /// Whether a browser's `Origin` may connect here.
    ///
    /// A request without one is not from a browser, so it passes; a request with two, or with anything but what the
    /// configured origins allow, does not.
    #[must_use]
    pub fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(ORIGIN).iter();
        let Some(first) = sent.next().filter(|_| !self.origins.is_empty()) else {
            return true;
        };
        let text = first.to_str().unwrap_or_default();
        sent.next().is_none() && self.origins.iter().any(|origin| origin.allows(text))
    }
}

#[cfg(test)]
pub(crate) mod tests;
