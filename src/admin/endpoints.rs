//! The one table of endpoints: method, path, who may use it, who answers, and what there is to say about it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::list::List;
use super::openapi::{self, Operation, operation};
use super::problem::{Kind, Problem};
use super::registration::{Registration, RegistrationPatch};
use super::system::Nothing;
use super::{
    Admin, backends, configuration, dashboard, events, gate, health, history, labels, messages, pipe_list, pipes,
    pools, stats, system, tap, tls, upgrade, workers,
};
use crate::tokens::Access;
use crate::upgrade::Report;

/// One method of one path.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    handler: MethodRouter<Arc<Admin>>,
    pub(super) operation: Operation,
}

fn at(
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Admin>>,
    operation: Operation,
) -> Endpoint {
    Endpoint { method, path, access, handler, operation }
}

fn endpoints() -> Vec<Endpoint> {
    let mut all = open();
    all.extend(numbers());
    all.extend(backend());
    all.extend(pool());
    all.extend(worker());
    all.extend(pipe());
    all.extend(process());
    all
}

fn open() -> Vec<Endpoint> {
    use Access::Open;
    let health = |id, does| operation(id, does).answers::<health::Health>(200).answers::<health::Health>(503);
    let live = |id| operation(id, "Answers as long as the process can").answers::<health::Live>(200);
    let ready = "Says whether new clients should come here";
    vec![
        at(
            Method::GET,
            "/",
            Open,
            get(dashboard::page),
            operation("dashboard", "A page that shows the rest").text(&["text/html"]),
        ),
        at(Method::GET, "/health", Open, get(health::health), health("health", ready)),
        at(Method::GET, "/health/live", Open, get(health::live), live("healthLive")),
        at(Method::GET, "/livez", Open, get(health::live), live("livez")),
        at(Method::GET, "/health/ready", Open, get(health::health), health("healthReady", ready)),
        at(Method::GET, "/readyz", Open, get(health::health), health("readyz", ready)),
        at(
            Method::GET,
            "/metrics",
            Open,
            get(stats::metrics),
            operation("metrics", "Everything counted, for Prometheus").text(&["text/plain"]),
        ),
        at(Method::GET, openapi::PATH, Open, get(described), operation("openapi", "This document")),
    ]
}

fn numbers() -> Vec<Endpoint> {
    use Access::Viewer;
    let stats = |id| operation(id, "Everything counted, for people and scripts").answers::<stats::Stats>(200);
    let history = operation("readHistory", "Shows the last ten minutes in steps of five seconds")
        .answers::<history::History>(200);
    let events = operation("readEvents", "Pages through what happened, waits for more, or streams it")
        .query::<events::Ask>()
        .pages_or_streams::<events::Page>()
        .refuses(&[410, 503]);
    vec![
        at(Method::GET, "/stats", Viewer, get(stats::stats), stats("stats")),
        at(Method::GET, "/v1/stats", Viewer, get(stats::stats), stats("readStats")),
        at(Method::GET, "/v1/history", Viewer, get(history::show), history),
        at(Method::GET, "/v1/events", Viewer, get(events::read), events),
    ]
}

fn backend() -> Vec<Endpoint> {
    use Access::{Operator, Viewer, Worker};
    use backends::BackendBody;
    const PATH: &str = "/v1/backends/{id}";
    let list = operation("listBackends", "Lists backends; waits for a change if asked to")
        .query::<backends::Ask>()
        .lists::<List<BackendBody>>();
    let register = operation("registerBackend", "Registers a URL under an id that is made up")
        .body::<Registration>()
        .makes::<BackendBody>()
        .refuses(&[409, 507]);
    let show = operation("readBackend", "Shows a backend").tagged::<BackendBody>(200).unless_known();
    let place = operation("putBackend", "Registers a backend, or makes it what is said")
        .body::<Registration>()
        .tagged::<BackendBody>(200)
        .tagged::<BackendBody>(201)
        .refuses(&[409, 507])
        .if_as_expected();
    let change = operation("patchBackend", "Changes parts of what is said about a backend (RFC 7396)")
        .body::<RegistrationPatch>()
        .tagged::<BackendBody>(200)
        .refuses(&[409, 507])
        .if_as_expected();
    let remove = operation("removeBackend", "Drains a backend, then removes it")
        .tagged::<BackendBody>(202)
        .nothing(204)
        .refuses(&[409, 507])
        .if_as_expected();
    let renew = operation("renewLease", "Says that a backend is there still; 404 means: register again")
        .body::<Nothing>()
        .answers::<backends::LeaseBody>(200)
        .refuses(&[409]);
    let steer =
        operation("setBackendState", "Lets a backend take pipes, or not, and says what becomes of those it has")
            .body::<backends::SetState>()
            .tagged::<BackendBody>(200)
            .tagged::<BackendBody>(202)
            .refuses(&[507])
            .if_as_expected();
    vec![
        at(Method::GET, "/v1/backends", Viewer, get(backends::list), list),
        at(Method::POST, "/v1/backends", Worker, post(backends::register), register),
        at(Method::GET, PATH, Viewer, get(backends::show), show),
        at(Method::PUT, PATH, Worker, put(backends::put), place),
        at(Method::PATCH, PATH, Worker, patch(backends::patch), change),
        at(Method::DELETE, PATH, Worker, delete(backends::remove), remove),
        at(Method::PUT, "/v1/backends/{id}/lease", Worker, put(backends::renew), renew),
        at(Method::PUT, "/v1/backends/{id}/state", Operator, put(backends::set_state), steer),
    ]
}

fn pool() -> Vec<Endpoint> {
    use Access::{Operator, Viewer};
    let list = operation("listPools", "Lists pools; waits for a change if asked to")
        .query::<pools::Ask>()
        .lists::<List<pools::PoolBody>>();
    let show = operation("readPool", "Shows a pool").tagged::<pools::PoolBody>(200).unless_known();
    let rebalance = operation("rebalancePool", "Moves pipes off backends that have more than their share")
        .body::<Nothing>()
        .answers::<pools::Moves>(200)
        .answers::<pools::Moves>(202)
        .refuses(&[409]);
    vec![
        at(Method::GET, "/v1/pools", Viewer, get(pools::list), list),
        at(Method::GET, "/v1/pools/{name}", Viewer, get(pools::show), show),
        at(Method::POST, "/v1/pools/{name}/rebalance", Operator, post(pools::rebalance), rebalance),
    ]
}

fn worker() -> Vec<Endpoint> {
    use Access::{Operator, Viewer};
    use workers::{GroupBody, Scale, WorkerBody};
    const PATH: &str = "/v1/workers/{id}";
    let list = operation("listWorkers", "Lists the workers that Holdline runs; waits for a change if asked to")
        .query::<workers::Ask>()
        .lists::<List<WorkerBody>>();
    let show = operation("readWorker", "Shows a worker that Holdline runs").answers::<WorkerBody>(200);
    let recycle = operation("recycleWorker", "Replaces a worker; its pipes move")
        .body::<Nothing>()
        .answers::<WorkerBody>(202)
        .refuses(&[409]);
    let restart = operation("restartWorkers", "Replaces all workers of the group of this name, one after another")
        .body::<Nothing>()
        .answers::<GroupBody>(202)
        .refuses(&[409]);
    let scale = operation("scaleWorkers", "Has so many workers of the group of this name serve")
        .body::<Scale>()
        .answers::<GroupBody>(200)
        .refuses(&[409]);
    vec![
        at(Method::GET, "/v1/workers", Viewer, get(workers::list), list),
        at(Method::GET, PATH, Viewer, get(workers::show), show),
        at(Method::PATCH, PATH, Operator, patch(workers::scale), scale),
        at(Method::POST, "/v1/workers/{id}/recycle", Operator, post(workers::recycle), recycle),
        at(Method::POST, "/v1/workers/{id}/restart", Operator, post(workers::restart), restart),
    ]
}

fn pipe() -> Vec<Endpoint> {
    use Access::{Operator, Viewer, Worker};
    const PATH: &str = "/v1/pipes/{id}";
    let list =
        operation("listPipes", "Lists pipes, sorted by what is looked for; waits for one to come or go if asked to")
            .query::<pipe_list::Ask>()
            .lists::<pipe_list::PipeList>();
    let show = operation("readPipe", "Shows a pipe").tagged::<pipes::PipeBody>(200);
    let label = operation("patchPipe", "Changes the groups that a pipe belongs to (RFC 7396)")
        .body::<labels::PipePatch>()
        .tagged::<pipes::PipeBody>(200)
        .refuses(&[409, 503])
        .if_as_expected();
    let close =
        operation("closePipe", "Closes a client with these words").query::<pipes::Words>().nothing(204).refuses(&[409]);
    let reattach = operation("reattachPipe", "Moves a pipe to another backend, with nothing lost or doubled")
        .body::<Nothing>()
        .answers::<pipes::PipeBody>(202)
        .refuses(&[409]);
    let send =
        operation("sendMessage", "Says something to a client").body::<messages::Words>().answers::<messages::Told>(200);
    let commit = operation("commit", "Takes a worker's word that its application has committed messages")
        .body::<messages::Commit>()
        .answers::<messages::Committed>(200)
        .refuses(&[409, 503]);
    let look_on =
        operation("tapPipe", "Shows the messages of a pipe as they come, one JSON object a line, for a while")
            .body::<tap::Ask>()
            .streams_lines::<tap::Line>()
            .refuses(&[403, 409, 503]);
    let broadcast = operation("broadcast", "Says something to all clients that fit")
        .body::<messages::Broadcast>()
        .answers::<messages::Told>(200)
        .refuses(&[503]);
    vec![
        at(Method::GET, "/v1/pipes", Viewer, get(pipe_list::list), list),
        at(Method::GET, PATH, Viewer, get(pipes::show), show),
        at(Method::PATCH, PATH, Worker, patch(labels::patch), label),
        at(Method::DELETE, PATH, Operator, delete(pipes::close), close),
        at(Method::POST, "/v1/pipes/{id}/reattach", Operator, post(pipes::reattach), reattach),
        at(Method::POST, "/v1/pipes/{id}/messages", Operator, post(messages::send), send),
        at(Method::POST, "/v1/pipes/{id}/commit", Worker, post(messages::commit), commit),
        at(Method::POST, "/v1/pipes/{id}/tap", Operator, post(tap::look_on), look_on),
        at(Method::POST, "/v1/broadcast", Operator, post(messages::broadcast), broadcast),
    ]
}

fn process() -> Vec<Endpoint> {
    use Access::{Operator, Viewer};
    use configuration::{Candidate, Effective, ReloadAsk, ReloadBody, Verdict};
    let tls =
        operation("readTls", "Shows the certificates that listeners show, and when they end").answers::<tls::Tls>(200);
    let info = operation("readInfo", "Says what this process is").answers::<system::Info>(200);
    let config =
        operation("readConfig", "Shows what is configured, and where it was written").answers::<Effective>(200);
    let validate = operation("validateConfig", "Judges a configuration without taking it into force")
        .body::<Candidate>()
        .answers::<Verdict>(200);
    let reload = operation("reloadConfig", "Reads the configuration again and puts it in force")
        .body::<ReloadAsk>()
        .answers::<ReloadBody>(200)
        .refuses(&[409]);
    let log = operation("readLog", "Shows the level of the log").answers::<system::Log>(200);
    let set_log = operation("setLog", "Changes the level of the log, for good or for a while")
        .body::<system::SetLog>()
        .answers::<system::Log>(200);
    let drain = operation("drain", "Takes no new pipes, and is not ready, until told otherwise")
        .body::<Nothing>()
        .answers::<system::Drain>(200)
        .refuses(&[409]);
    let read_upgrade = operation("readUpgrade", "Says how far a live upgrade is").answers::<Report>(200);
    let start_upgrade =
        operation("startUpgrade", "Has a new process take over with all pipes, and answers when it serves")
            .body::<upgrade::Wish>()
            .answers::<Report>(200)
            .refuses(&[409, 500]);
    let undrain = operation("undrain", "Takes new pipes again").answers::<system::Drain>(200).refuses(&[409]);
    vec![
        at(Method::GET, "/v1/info", Operator, get(system::info), info),
        at(Method::GET, "/v1/tls", Viewer, get(tls::show), tls),
        at(Method::GET, "/v1/config", Operator, get(configuration::show), config),
        at(Method::POST, "/v1/config/validate", Operator, post(configuration::validate), validate),
        at(Method::POST, "/v1/config/reload", Operator, post(configuration::reload), reload),
        at(Method::GET, "/v1/log", Operator, get(system::log), log),
        at(Method::PUT, "/v1/log", Operator, put(system::set_log), set_log),
        at(Method::PUT, "/v1/drain", Operator, put(system::drain), drain),
        at(Method::DELETE, "/v1/drain", Operator, delete(system::undrain), undrain),
        at(Method::GET, "/v1/upgrade", Viewer, get(upgrade::show), read_upgrade),
        at(Method::POST, "/v1/upgrade", Operator, post(upgrade::start), start_upgrade),
    ]
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| openapi::document(&endpoints()).to_string());

async fn described() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
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
