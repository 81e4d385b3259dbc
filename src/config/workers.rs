//! `[[workers]]`: the processes that Holdline runs itself, and what must hold between their keys.
//!
//! Owns what is written, not what becomes of it: whether a command exists is looked at by [`Loaded::worker_commands`],
//! because only the machine that runs it knows.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdline_core::supervisor::{GroupSettings, Limits, Replace};

use super::checks::Findings;
use super::notice::{Invalid, Notice, Place, quoted};
use super::types::{Listen, Serves};
use super::{Config, HealthKind, Loaded, Pool};

/// One group of workers.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerGroup {
    /// What the API, metrics and the log call it; unique.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Workers that serve.
    pub count: u32,
    /// The pool they stand in.
    pub pool: String,
    /// Ready ones besides.
    pub standby: u32,
    /// How they are reached.
    pub listen: WorkerListen,
    /// The ports of [`WorkerListen::Port`].
    pub ports: Ports,
    /// Variables besides those of Holdline's own environment.
    pub env: BTreeMap<String, String>,
    /// The directory they are started in; Holdline's own if absent.
    pub cwd: Option<PathBuf>,
    /// The user they run as; Holdline's own if absent.
    pub user: Option<String>,
    /// The route keys they take; empty is any.
    pub serves: Serves,
    /// How long a process has to become ready.
    pub start_timeout: Duration,
    /// The signal that asks a process to end.
    pub stop_signal: StopSignal,
    /// From that signal to SIGKILL.
    pub stop_timeout: Duration,
    /// How long the pipes of a worker that is replaced have to find another.
    pub drain_timeout: Duration,
    /// How long a process that failed waits for its successor, at first and at most.
    pub restart_backoff: Backoff,
    /// Pipes after which a worker is replaced; 0 is never.
    pub recycle_pipes: u32,
    /// Age at which a worker is replaced; zero is never.
    pub recycle_age: Duration,
    /// Memory at which a worker is replaced; 0 is never.
    pub recycle_rss: usize,
    /// By which part these three may be lower for one worker than for another.
    pub recycle_jitter: f64,
    /// What comes first when a worker is replaced.
    pub replace: Replace,
}

impl Default for WorkerGroup {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Vec::new(),
            count: 1,
            pool: "default".to_owned(),
            standby: 0,
            listen: WorkerListen::Port,
            ports: Ports { first: 9100, last: 9199 },
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            serves: Serves::default(),
            start_timeout: Duration::from_secs(30),
            stop_signal: StopSignal::Term,
            stop_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(60),
            restart_backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(30) },
            recycle_pipes: 0,
            recycle_age: Duration::ZERO,
            recycle_rss: 0,
            recycle_jitter: 0.1,
            replace: Replace::First,
        }
    }
}

impl WorkerGroup {
    /// What the supervisor decides by.
    #[must_use]
    pub fn settings(&self) -> GroupSettings {
        GroupSettings {
            count: self.count,
            standby: self.standby,
            replace: self.replace,
            start_timeout: self.start_timeout,
            drain_timeout: self.drain_timeout,
            stop_timeout: self.stop_timeout,
            backoff_min: self.restart_backoff.min,
            backoff_max: self.restart_backoff.max,
            limits: Limits {
                pipes: u64::from(self.recycle_pipes),
                age: self.recycle_age,
                rss_bytes: self.recycle_rss as u64,
                jitter: self.recycle_jitter,
            },
        }
    }

    /// Whether a process that was started by this can stay under `other`.
    #[must_use]
    pub fn runs_the_same_as(&self, other: &Self) -> bool {
        let runs = |group: &Self| {
            let Self { command, pool, listen, ports, env, cwd, user, serves, .. } = group.clone();
            (command, pool, listen, ports, env, cwd, user, serves)
        };
        runs(self) == runs(other)
    }

    /// Each text in which a template may stand, with the key that it belongs to.
    fn templates(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let command = self.command.iter().map(|text| ("command", text));
        let env = self.env.values().map(|text| ("env", text));
        command.chain(env).chain(self.serves.0.iter().flat_map(|(key, alias)| [("serves", key), ("serves", alias)]))
    }
}

/// How a worker is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WorkerListen {
    /// It binds a port that it is told.
    #[default]
    Port,
    /// It is given a socket that listens already.
    Fd,
    /// It binds a socket file that it is told.
    Unix,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Ports {
    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// The first that no process listens at, neither on loopback nor on all addresses, and that is not `taken`.
    #[must_use]
    pub fn first_free(self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (self.first..=self.last).filter(|&port| !taken(port)).find(|&port| is_free(port))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A wait that grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// At first.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

/// A signal that asks a process to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopSignal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// What is wrong with the groups as a whole.
pub(super) fn check(config: &Config, found: &mut Findings) {
    for (index, group) in config.workers.iter().enumerate() {
        let key = format!("workers[{index}]");
        if let Some(pool) = config.pool(&group.pool) {
            probes(group, pool, &key, found);
        } else {
            let names: Vec<_> = config.pools.iter().map(|pool| quoted(&pool.name)).collect();
            let message = format!("there is no pool {}; the pools are {}", quoted(&group.pool), names.join(", "));
            found.error(format!("{key}.pool"), message);
        }
        if group.replace == Replace::After && group.standby > 0 {
            let message =
                "cannot be combined with replace = \"after\": one that stands by would own the device too; remove one";
            found.error(format!("{key}.standby"), message);
        }
        if group.listen == WorkerListen::Port {
            ports(config, group, &key, found);
        }
        names_what_there_is(group, &key, found);
        ids(config, group, &key, found);
    }
}

/// Ready is what the pool's health check says.
fn probes(group: &WorkerGroup, pool: &Pool, key: &str, found: &mut Findings) {
    if pool.health.interval.is_zero() {
        let message = format!(
            "pool {} probes never (health.interval = 0), so that no worker would ever be ready; set an interval there",
            quoted(&group.pool)
        );
        found.error(format!("{key}.pool"), message);
    }
    if group.listen == WorkerListen::Fd && pool.health.kind == HealthKind::Tcp {
        let message = format!(
            "a \"tcp\" probe of pool {} succeeds before the worker runs, because its socket listens already; use health.kind = \"http\" or \"ws\"",
            quoted(&group.pool)
        );
        found.warnings.push((format!("{key}.listen"), message));
    }
}

fn ports(config: &Config, group: &WorkerGroup, key: &str, found: &mut Findings) {
    let needed = u64::from(group.count) + u64::from(group.standby).max(1);
    if needed > u64::from(group.ports.count()) {
        let message = format!(
            "{} has {} ports, and {needed} are needed: one for each worker, and one for a replacement",
            group.ports,
            group.ports.count()
        );
        found.error(format!("{key}.ports"), message);
    }
    let public = config.server.listen.iter().chain(&config.server.tls.listen);
    let listeners = public.chain([&config.admin.listen]);
    let own = listeners.filter_map(|listen| match listen {
        Listen::Tcp(address) => Some(address.port()),
        Listen::Unix(_) => None,
    });
    for port in own.filter(|port| (group.ports.first..=group.ports.last).contains(port)) {
        let message = format!("{port} is the port of a listener of this proxy itself; use other ports");
        found.error(format!("{key}.ports"), message);
    }
}

/// A template stands for something only where the worker is reached so.
fn names_what_there_is(group: &WorkerGroup, key: &str, found: &mut Findings) {
    let has = |name: &str| match group.listen {
        WorkerListen::Port => name == "{port}",
        WorkerListen::Fd => name == "{fd}" || name == "{port}",
        WorkerListen::Unix => name == "{socket}",
    };
    for (name, listen) in [("{port}", "port"), ("{fd}", "fd"), ("{socket}", "unix")] {
        let named = group.templates().find(|(_, text)| text.contains(name));
        if let Some((there, _)) = named.filter(|_| !has(name)) {
            found.error(format!("{key}.{there}"), format!("{name} is known only with listen = \"{listen}\""));
        }
    }
}

/// The ids of workers are their group's name and a number.
fn ids(config: &Config, group: &WorkerGroup, key: &str, found: &mut Findings) {
    for pool in &config.pools {
        for (index, backend) in pool.backends.iter().enumerate() {
            let id = backend.id(&pool.name, index);
            let number = id.strip_prefix(&group.name).and_then(|rest| rest.strip_prefix('-'));
            if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
                let message = format!(
                    "a worker of this group may be called {}, as is a backend of pool {}; use another name",
                    quoted(&id),
                    quoted(&pool.name)
                );
                found.error(format!("{key}.name"), message);
                return;
            }
        }
    }
}

impl Loaded {
    /// Whether this machine can run the commands of `[[workers]]`.
    ///
    /// # Errors
    /// Each that it cannot run, and why.
    pub fn worker_commands(&self) -> Result<(), Invalid> {
        let mut errors = Vec::new();
        for (index, group) in self.config.workers.iter().enumerate() {
            errors.extend(group.missing().into_iter().map(|(name, message)| self.of_group(index, name, message)));
        }
        if errors.is_empty() { Ok(()) } else { Err(Invalid { errors }) }
    }

    /// Groups of `[[workers]]` for which no port is free now. None of it is an error: their own workers may have them.
    #[must_use]
    pub fn worker_ports(&self) -> Vec<Notice> {
        let is_full = |group: &WorkerGroup| {
            group.listen == WorkerListen::Port && group.count > 0 && group.ports.first_free(|_| false).is_none()
        };
        let full = self.config.workers.iter().enumerate().filter(|(_, group)| is_full(group));
        full.map(|(index, group)| {
            let message = format!(
                "no port of {} is free now: each is in use by another process, or by a worker of this group that runs; \
                 free some, or use others",
                group.ports
            );
            self.of_group(index, "ports", message)
        })
        .collect()
    }

    /// What is to be said about the key `name` of a group.
    fn of_group(&self, index: usize, name: &str, message: String) -> Notice {
        let key = format!("workers[{index}].{name}");
        let place = self.sources.places.get(&key).cloned().unwrap_or(Place::Nowhere);
        let file = self.sources.file.as_ref().map(|path| path.display().to_string());
        Notice { file, place, key, message }
    }
}

impl WorkerGroup {
    /// What this machine lacks, by the key that names it.
    fn missing(&self) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        let cwd = self.cwd.as_deref().unwrap_or(Path::new("."));
        if !cwd.is_dir() {
            missing.push(("cwd", format!("there is no directory {}", quoted(&cwd.display().to_string()))));
        }
        let program = self.command.first().map_or("", String::as_str);
        if let Err(message) = executable(program, cwd, self.env.get("PATH").map(String::as_str)) {
            missing.push(("command", message));
        }
        if let Some(user) = &self.user
            && let Err(message) = crate::unix_user::UnixUser::find(user)
        {
            missing.push(("user", message));
        }
        missing
    }
}

/// Whether `program` is something that can be executed, looked for as execvp(3) does.
fn executable(program: &str, cwd: &Path, path: Option<&str>) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |at: &Path| at.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        let at = cwd.join(program);
        return match at.metadata() {
            Err(_) => Err(format!("there is no file {}", quoted(&at.display().to_string()))),
            Ok(_) if !runs(&at) => Err(format!("{} is not executable", quoted(&at.display().to_string()))),
            Ok(_) => Ok(()),
        };
    }
    let own = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(path.unwrap_or(&own)).any(|directory| runs(&directory.join(program)));
    if found { Ok(()) } else { Err(format!("there is no command {} in PATH", quoted(program))) }
}
