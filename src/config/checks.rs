//! What holds between keys: names that must exist or be unique, and bounds that depend on each other.
//!
//! Errors are `(key, message)`; the reader of the file knows where the key stands.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use holdline_core::conversation::Profile;
use holdline_core::conversation::profile::{FIRST, RULES};
use holdline_core::settings::{BackendLoss, Balance};

use super::ended_tls::{CertificateFiles, ClientAuth};
use super::types::{Listen, ProxyProtocol, RouteResume};
use super::{Backend, Config, Conversation, Prologue, Route};
use crate::net::{Host, OwnListener, OwnListeners};
use crate::routes::{RouteSpec, RouteTable};

/// What was found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Finding>,
    pub(super) warnings: Vec<(String, String)>,
}

/// One error.
pub(super) struct Finding {
    pub(super) key: String,
    pub(super) message: String,
    /// What it clashes with, as the message names it.
    pub(super) twin: Option<String>,
}

impl Findings {
    pub(super) fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.errors.push(Finding { key: key.into(), message: message.into(), twin: None });
    }

    /// An error that is about `twin` as well, which the message names.
    fn clash(&mut self, key: impl Into<String>, twin: String, message: impl Into<String>) {
        self.errors.push(Finding { key: key.into(), message: message.into(), twin: Some(twin) });
    }
}

/// Everything that is wrong with `config` as a whole.
pub(super) fn check(config: &Config, found: &mut Findings) {
    listeners(config, found);
    attach(config, found);
    sections(config, found);
    pools(config, found);
    profiles(config, found);
    routes(config, found);
    patterns(config, found);
    unique("workers", "group", config.workers.iter().map(|group| group.name.as_str()), found);
    super::workers::check(config, found);
}

fn listeners(config: &Config, found: &mut Findings) {
    let admin = &config.admin;
    tls_files(config, found);
    if !admin.listen.is_local() && admin.tokens_file.is_none() && admin.tls.client_ca.is_none() {
        found.error(
            "admin.listen",
            format!(
                "{} is not a loopback address: set admin.tokens_file or admin.tls.client_ca, or listen on 127.0.0.1",
                admin.listen
            ),
        );
    }
    let (server, tls) = (&config.server, &config.server.tls);
    if server.listen.is_empty() && tls.listen.is_empty() {
        found.error("server.listen", "at least one listener is needed, such as [\"127.0.0.1:8000\"]");
    }
    if !tls.listen.is_empty() && tls.certificates.is_empty() {
        let message = "needs server.tls.certificates beside it, such as [{ cert = \"tls.pem\", key = \"tls.key\" }]";
        found.error("server.tls.listen", message);
    }
    if server.http2 && tls.listen.is_empty() {
        let message =
            "needs server.tls.listen beside it: HTTP/2 is spoken over TLS only; add that, such as [\"0.0.0.0:443\"]";
        found.error("server.http2", message);
    }
    if server.proxy_protocol != ProxyProtocol::Off && server.trusted_proxies.is_empty() {
        let message = "goes by server.trusted_proxies, and there are none; name the proxies in front there, such as [\"10.0.0.0/8\"]";
        found.error("server.proxy_protocol", message);
    }
    let mut seen = HashSet::new();
    let fixed = |listen: &&Listen| !matches!(listen, Listen::Tcp(address) if address.port() == 0);
    for (key, listeners) in [("server.listen", &server.listen), ("server.tls.listen", &tls.listen)] {
        for listen in listeners.iter().filter(fixed) {
            if !seen.insert(listen) {
                found.error(key, format!("{listen} is listed twice; remove one"));
            }
        }
    }
    if Some(&admin.listen).filter(fixed).is_some_and(|listen| seen.contains(listen)) {
        found.error("admin.listen", format!("{} is also a public listener; use another port", admin.listen));
    }
}

/// Where workers dial in: their tokens go there, and each caller that has one becomes a worker.
fn attach(config: &Config, found: &mut Findings) {
    let attach = &config.attach;
    let error = |found: &mut Findings, message: String| found.error("attach.listen", message);
    let mut seen = HashSet::new();
    let others: HashSet<&Listen> =
        config.server.listen.iter().chain(&config.server.tls.listen).chain([&config.admin.listen]).collect();
    for listen in &attach.listen {
        let is_fixed = !matches!(listen, Listen::Tcp(address) if address.port() == 0);
        if matches!(listen, Listen::Unix(_)) {
            error(
                found,
                format!(
                    "{listen} is a socket file: a worker on this machine registers with a unix: URL; write ADDRESS:PORT"
                ),
            );
        }
        if is_fixed && !seen.insert(listen) {
            error(found, format!("{listen} is listed twice; remove one"));
        }
        if is_fixed && others.contains(listen) {
            error(found, format!("{listen} is another listener already; use another port"));
        }
        if !listen.is_local() && config.admin.tokens_file.is_none() {
            error(
                found,
                format!("{listen} is not a loopback address: set admin.tokens_file, or every caller is a worker"),
            );
        }
        if !listen.is_local() && config.server.tls.certificates.is_empty() {
            error(
                found,
                format!("{listen} is not a loopback address, so TLS is spoken there: set server.tls.certificates"),
            );
        }
    }
    if attach.parked_total_max < attach.parked_max {
        found.error("attach.parked_total_max", "is less than attach.parked_max; make it larger");
    }
}

/// What files of TLS need beside them.
fn tls_files(config: &Config, found: &mut Findings) {
    let (tls, admin) = (&config.server.tls, &config.admin.tls);
    for (here, needs, there) in [
        ("admin.tls.cert", "admin.tls.key", admin.cert.is_some() && admin.key.is_none()),
        ("admin.tls.key", "admin.tls.cert", admin.key.is_some() && admin.cert.is_none()),
        ("admin.tls.client_ca", "admin.tls.cert", admin.client_ca.is_some() && admin.cert.is_none()),
        ("server.tls.client_crl", "server.tls.client_ca", tls.client_crl.is_some() && tls.client_ca.is_none()),
    ] {
        if there {
            found.error(here, format!("needs {needs} beside it; add that"));
        }
    }
    let asks = |policy: &CertificateFiles| policy.client_auth.unwrap_or(tls.client_auth) != ClientAuth::Off;
    if tls.client_ca.is_none() && (tls.client_auth != ClientAuth::Off || tls.certificates.iter().any(asks)) {
        let key = if tls.client_auth == ClientAuth::Off { "server.tls.certificates" } else { "server.tls.client_auth" };
        found.error(key, "needs server.tls.client_ca to know clients' certificates by; add that");
    }
}

fn sections(config: &Config, found: &mut Findings) {
    let beats = &config.heartbeat;
    heartbeat("heartbeat.client", beats.client_interval, beats.client_timeout, found);
    heartbeat("heartbeat.backend", beats.backend_interval, beats.backend_timeout, found);
    if config.reattach.backoff_min > config.reattach.backoff_max {
        found.error("reattach.backoff_min", "is longer than reattach.backoff_max; make it shorter");
    }
    if config.replay.total_bytes_max < config.replay.pipe_bytes_max {
        found.error("replay.total_bytes_max", "is less than replay.pipe_bytes_max; make it larger");
    }
    if config.hooks.url.is_some() && config.hooks.secret_file.is_none() {
        found.error("hooks.url", "needs hooks.secret_file beside it, so that its server knows who asks; add that");
    }
    if config.server.close_spread > config.server.shutdown_grace {
        found.error("server.close_spread", "is longer than server.shutdown_grace; make it shorter");
    }
}

fn heartbeat(key: &str, interval: Duration, timeout: Duration, found: &mut Findings) {
    if timeout < interval {
        found.error(format!("{key}_timeout"), format!("is shorter than {key}_interval; make it at least as long"));
    }
}

fn pools(config: &Config, found: &mut Findings) {
    if config.pools.is_empty() {
        found.error("pools", "at least one pool is needed; add [[pools]]");
    }
    let names = config.pools.iter().map(|pool| pool.name.as_str());
    unique("pools", "pool", names, found);
    let (mut ids, own) = (HashMap::new(), own_listeners(config));
    for (p, pool) in config.pools.iter().enumerate() {
        for (key, here, other, there) in [
            ("cert", pool.tls.cert.is_some(), "key", pool.tls.key.is_some()),
            ("key", pool.tls.key.is_some(), "cert", pool.tls.cert.is_some()),
        ] {
            if here && !there {
                found.error(format!("pools[{p}].tls.{key}"), format!("needs tls.{other} beside it; add that"));
            }
        }
        let mut urls = HashMap::new();
        for (b, backend) in pool.backends.iter().enumerate() {
            let key = format!("pools[{p}].backends[{b}]");
            if let Some(first) = urls.get(backend.url.as_written()) {
                let first = format!("pools[{p}].backends[{first}]");
                let message = format!("is already the URL of {first}; remove one");
                found.clash(format!("{key}.url"), first, message);
                continue;
            }
            urls.insert(backend.url.as_written(), b);
            if backend.url.attach_id().is_some() {
                let message = "is of a worker that dials in and registers by that; remove this, and set attach.listen";
                found.error(format!("{key}.url"), message);
            }
            let id = backend.id(&pool.name, b);
            if let Some(address) = leads_back(backend, &own) {
                let message = format!("{address} is a listener of this proxy itself; write the address of a worker");
                found.error(format!("{key}.url"), message);
            }
            if let Some(first) = ids.insert(id.clone(), key.clone()) {
                let message = format!("\"{id}\" is already {first}; give each backend its own id");
                found.clash(format!("{key}.id"), first, message);
            }
        }
    }
}

fn own_listeners(config: &Config) -> OwnListeners {
    let public = config.server.listen.iter().chain(&config.server.tls.listen);
    let listeners = public.chain(&config.attach.listen).chain([&config.admin.listen]);
    let own = listeners.map(|listen| match listen {
        Listen::Tcp(address) => OwnListener::at(*address),
        Listen::Unix(path) => OwnListener::File(path.clone()),
    });
    own.collect()
}

/// Where a backend leads that leads to one of our `own` listeners, as far as that is known without a resolver.
fn leads_back(backend: &Backend, own: &OwnListeners) -> Option<String> {
    if let Host::Socket(path) = backend.url.host() {
        return own.hear_at(path).then(|| backend.url.origin());
    }
    let addresses = backend.url.host().known_addresses().into_iter();
    addresses.map(|ip| SocketAddr::new(ip, backend.url.port())).find(|&to| own.hear(to)).map(|to| to.to_string())
}

fn routes(config: &Config, found: &mut Findings) {
    if config.routes.is_empty() {
        found.error("routes", "at least one route is needed; add [[routes]], or remove this for the default one");
    }
    unique("routes", "route", config.routes.iter().map(|route| route.name.as_str()), found);
    for (index, route) in config.routes.iter().enumerate() {
        let key = format!("routes[{index}]");
        if !config.pools.is_empty() {
            pool_of(config, route, &key, found);
        }
        conversation(config, route, &key, found);
        if route.resume == RouteResume::Cookie && route.client_id.is_some() {
            found.error(
                format!("{key}.resume"),
                "cannot be combined with client_id: both say who comes back; remove one",
            );
        }
        let beats = &route.heartbeat;
        let settings = config.pipe_settings(route);
        if beats.client_interval.is_some() || beats.client_timeout.is_some() {
            let beat = settings.client_heartbeat;
            heartbeat(&format!("{key}.heartbeat.client"), beat.interval, beat.timeout, found);
        }
        if beats.backend_interval.is_some() || beats.backend_timeout.is_some() {
            let beat = settings.backend_heartbeat;
            heartbeat(&format!("{key}.heartbeat.backend"), beat.interval, beat.timeout, found);
        }
    }
}

/// Each profile has a name and a subprotocol of its own.
fn profiles(config: &Config, found: &mut Findings) {
    unique("profiles", "profile", config.profiles.iter().map(|own| own.name.as_str()), found);
    let mut spoken = HashSet::new();
    for (index, own) in config.profiles.iter().enumerate() {
        if [FIRST, RULES].contains(&own.name.as_str()) || Profile::named(&own.name).is_some() {
            let message = "is the name of a built-in profile; use another, and name it in routes.prologue.profile";
            found.error(format!("profiles[{index}].name"), message);
        }
        if own.subprotocol.as_ref().is_some_and(|subprotocol| !spoken.insert(subprotocol)) {
            found.error(format!("profiles[{index}].subprotocol"), "another profile has it; remove one");
        }
    }
}

/// What is said of a route's conversations must fit together.
fn conversation(config: &Config, route: &Route, key: &str, found: &mut Findings) {
    let prologue = &route.prologue;
    if prologue.first > 0 && prologue.profile.is_some() {
        found.error(format!("{key}.prologue.profile"), "cannot be combined with prologue.first; remove one");
    }
    let names = || config.profile_names();
    let profile = config.profile(route);
    if let Some(name) = prologue.profile.as_ref().filter(|_| profile.is_none()) {
        let message = format!("there is no profile {}; the profiles are {}", super::notice::quoted(name), names());
        return found.error(format!("{key}.prologue.profile"), message);
    }
    let deaf = profile.as_ref().filter(|profile| !prologue.keep.is_empty() && !profile.reads_json());
    if let Some(profile) = deaf {
        let message = format!("has no effect: the messages of {} are not JSON; remove one of them", profile.name);
        found.error(format!("{key}.prologue.keep"), message);
    }
    if prologue.keep.is_empty() && !prologue.forget.is_empty() {
        found.error(format!("{key}.prologue.forget"), "forgets what prologue.keep keeps, which is missing; add it");
    }
    let named = match prologue {
        Prologue { profile: Some(_), .. } => "prologue.profile",
        Prologue { first: 1.., .. } => "prologue.first",
        Prologue { .. } => "prologue.keep",
    };
    let profiled = profile.is_some() || !prologue.keep.is_empty();
    let at = format!("{key}.{named}");
    match route.conversation {
        Conversation::Profile if !profiled => {
            let message = format!("\"profile\" needs prologue.profile, keep or first; the profiles are {}", names());
            found.error(format!("{key}.conversation"), message);
        }
        Conversation::Stateless | Conversation::Stateful if profiled => {
            found.error(at, "has no place with this conversation; use conversation = \"profile\", or remove it");
        }
        Conversation::Auto | Conversation::Profile if profiled && route.share => {
            found.error(at, "cannot be combined with share: a newcomer would not hear the beginning; remove one");
        }
        Conversation::Auto | Conversation::Profile if profiled && route.on_backend_loss == BackendLoss::Close => {
            found.error(at, "has no effect where on_backend_loss = \"close\" ends the conversation; remove one");
        }
        Conversation::Auto | Conversation::Profile | Conversation::Stateless | Conversation::Stateful => {}
    }
}

fn pool_of(config: &Config, route: &Route, key: &str, found: &mut Findings) {
    let Some(pool) = config.pool(&route.pool) else {
        let names: Vec<_> = config.pools.iter().map(|pool| super::notice::quoted(&pool.name)).collect();
        let missing = super::notice::quoted(&route.pool);
        let message = format!("there is no pool {missing}; the pools are {}", names.join(", "));
        return found.error(format!("{key}.pool"), message);
    };
    if pool.balance == Balance::Hash && route.key.is_none() {
        let message = "the pool balances by hash and this route has no key: its pipes are spread by load";
        found.warnings.push((format!("{key}.pool"), message.to_owned()));
    }
}

/// The router itself judges patterns and templates, so that nothing passes here that it refuses later.
///
/// Each route alone first, so that each can have its error; then those together that are good alone.
fn patterns(config: &Config, found: &mut Findings) {
    /// Each costs one more compilation of all routes.
    const CONFLICTS_MAX: usize = 10;
    let mut together: Vec<RouteSpec> = Vec::new();
    for (index, spec) in config.route_specs().into_iter().enumerate() {
        // Names that are taken are reported elsewhere; here they say which route an error is about.
        let spec = RouteSpec { name: index.to_string(), ..spec };
        match RouteTable::compile(vec![spec.clone()]) {
            Ok(_) => together.push(spec),
            Err(error) => found.error(format!("routes[{index}].{}", error.key), error.message),
        }
    }
    for _ in 0..CONFLICTS_MAX {
        let Err(error) = RouteTable::compile(together.clone()) else {
            return;
        };
        together.retain(|spec| spec.name != error.route);
        let key = format!("routes[{}].{}", error.route, error.key);
        match error.twin {
            Some(twin) => {
                let (named, first) = (format!("route `{twin}`"), format!("routes[{twin}]"));
                found.clash(key, first.clone(), error.message.replacen(&named, &first, 1));
            }
            None => found.error(key, error.message),
        }
    }
}

fn unique<'a>(list: &str, what: &str, names: impl Iterator<Item = &'a str>, found: &mut Findings) {
    let mut seen = HashMap::new();
    for (index, name) in names.enumerate() {
        let Some(first) = seen.insert(name, index) else {
            continue;
        };
        let first = format!("{list}[{first}]");
        let message = format!("\"{name}\" is already the name of {first}; give each {what} its own name");
        found.clash(format!("{list}[{index}].name"), first, message);
    }
}
