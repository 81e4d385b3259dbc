//! The one table of endpoints: method, path, who may use it, who answers.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::auth::Access;
use super::problem::{Kind, Problem};
use super::{Admin, backends, configuration, dashboard, events, gate, health, messages, pipes, pools, stats, system};

struct Endpoint {
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Admin>>,
}

fn endpoints() -> Vec<Endpoint> {
    let at = |method, path, access, handler| Endpoint { method, path, access, handler };
    vec![
        at(Method::GET, "/", Access::Open, get(dashboard::page)),
        at(Method::GET, "/health", Access::Open, get(health::health)),
        at(Method::GET, "/health/live", Access::Open, get(health::live)),
        at(Method::GET, "/livez", Access::Open, get(health::live)),
        at(Method::GET, "/health/ready", Access::Open, get(health::health)),
        at(Method::GET, "/readyz", Access::Open, get(health::health)),
        at(Method::GET, "/metrics", Access::Open, get(stats::metrics)),
        at(Method::GET, "/stats", Access::Viewer, get(stats::stats)),
        at(Method::GET, "/v1/stats", Access::Viewer, get(stats::stats)),
        at(Method::GET, "/v1/events", Access::Viewer, get(events::read)),
        at(Method::GET, "/v1/backends", Access::Viewer, get(backends::list)),
        at(Method::POST, "/v1/backends", Access::Worker, post(backends::register)),
        at(Method::GET, "/v1/backends/{id}", Access::Viewer, get(backends::show)),
        at(Method::PUT, "/v1/backends/{id}", Access::Worker, put(backends::put)),
        at(Method::PATCH, "/v1/backends/{id}", Access::Worker, patch(backends::patch)),
        at(Method::DELETE, "/v1/backends/{id}", Access::Worker, delete(backends::remove)),
        at(Method::PUT, "/v1/backends/{id}/lease", Access::Worker, put(backends::renew)),
        at(Method::PUT, "/v1/backends/{id}/state", Access::Operator, put(backends::set_state)),
        at(Method::GET, "/v1/pools", Access::Viewer, get(pools::list)),
        at(Method::GET, "/v1/pools/{name}", Access::Viewer, get(pools::show)),
        at(Method::POST, "/v1/pools/{name}/rebalance", Access::Operator, post(pools::rebalance)),
        at(Method::GET, "/v1/pipes", Access::Viewer, get(pipes::list)),
        at(Method::GET, "/v1/pipes/{id}", Access::Viewer, get(pipes::show)),
        at(Method::DELETE, "/v1/pipes/{id}", Access::Operator, delete(pipes::close)),
        at(Method::POST, "/v1/pipes/{id}/reattach", Access::Operator, post(pipes::reattach)),
        at(Method::POST, "/v1/pipes/{id}/messages", Access::Operator, post(messages::send)),
        at(Method::POST, "/v1/pipes/{id}/commit", Access::Worker, post(messages::commit)),
        at(Method::POST, "/v1/broadcast", Access::Operator, post(messages::broadcast)),
        at(Method::GET, "/v1/info", Access::Operator, get(system::info)),
        at(Method::GET, "/v1/config", Access::Operator, get(configuration::show)),
        at(Method::POST, "/v1/config/validate", Access::Operator, post(configuration::validate)),
        at(Method::POST, "/v1/config/reload", Access::Operator, post(configuration::reload)),
        at(Method::GET, "/v1/log", Access::Operator, get(system::log)),
        at(Method::PUT, "/v1/log", Access::Operator, put(system::set_log)),
        at(Method::PUT, "/v1/drain", Access::Operator, put(system::drain)),
        at(Method::DELETE, "/v1/drain", Access::Operator, delete(system::undrain)),
    ]
}

/// Who may use which endpoint.
#[derive(Debug)]
pub(super) struct AccessRules(HashMap<(Method, &'static str), Access>);

impl AccessRules {
    /// The rule of an endpoint; nothing if there is no such endpoint. A HEAD is as good as its GET.
    pub(super) fn get(&self, path: &str, method: &Method) -> Option<Access> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.iter().find(|((known, at), _)| known == method && *at == path).map(|(_, &access)| access)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Method, &'static str, Access)> {
        self.0.iter().map(|((method, path), &access)| (method, *path, access))
    }
}

pub(super) fn access_rules() -> AccessRules {
    AccessRules(endpoints().into_iter().map(|at| ((at.method, at.path), at.access)).collect())
}

pub(super) fn router(admin: &Arc<Admin>) -> Router {
    let routes = endpoints().into_iter().fold(Router::new(), |router, at| router.route(at.path, at.handler));
    routes
        .fallback(async || Problem::new(Kind::NotFound, "there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed, "see the Allow header"))
        .layer(from_fn_with_state(Arc::clone(admin), gate::gate))
        .with_state(Arc::clone(admin))
}
