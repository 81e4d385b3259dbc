//! The configuration, parsed and checked: what the rest of the program is allowed to see.
//!
//! Nothing behind this module looks at TOML or at the environment, and nothing here acts on a value. A [`Config`]
//! that exists is valid as a whole: names resolve, bounds hold, and arithmetic on its sizes cannot overflow.
//!
//! `usize` is always bytes and `u32` always a count, in every struct here.

mod arguments;
mod checks;
mod collector;
mod conversations;
mod ended_tls;
mod env;
mod gaps;
mod json_schema;
mod keys;
mod layout;
mod load;
mod node;
mod notice;
mod print;
mod read;
mod schema;
mod sections;
mod setting;
mod syntax;
mod tables;
mod tls;
mod types;
mod units;
mod upgrade;
mod workers;

use std::time::Duration;

use holdline_core::conversation::PrologueBounds;
pub use holdline_core::pool::AdminState;
use holdline_core::settings::{
    AwareSettings, BackendLoss, Heartbeat, LimitedLanes, PipeLimits, PipeSettings, ReplayTail,
};
use holdline_core::shared::StreamSettings;

use crate::routes::{RouteError, RouteSpec, RouteTable};

pub use arguments::Arguments;
pub use collector::OtlpEndpoint;
pub use conversations::{OwnProfile, Prologue};
pub use ended_tls::{AdminTls, CertificateFiles, ClientAuth, ServerTls, TlsVersion};
pub use layout::format;
pub use load::{Loaded, Sources};
pub(crate) use notice::closest;
pub use notice::{Invalid, Notice, Place};
pub use print::{Change, KnownKey};
pub use sections::{
    Admin, Attach, Aware, Heartbeats, Hooks, HttpFallback, Limits, Log, Memory, Message, Prologues, Reattach, Replay,
    Resume, Server, Trace,
};
pub use tables::{Backend, Health, Pool, PoolTls, Route, RouteHeartbeats, RouteTail};
pub use tls::PoolsTls;
pub use types::{
    AccessLog, Compression, Conversation, Evict, Grace, HealthKind, Listen, LogFormat, LogLevel, NoOwner, OnExceed,
    Paths, PoolResume, ProxyProtocol, Rate, RouteResume, Serves, Sticky, Upgrade,
};
pub use upgrade::LiveUpgrade;
pub use workers::{Ports, StopSignal, WorkerGroup, WorkerListen};

/// A duration as the file takes it, for command lines that take it too.
///
/// # Errors
/// What to write instead.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    units::duration(text).ok_or_else(|| "expected a duration such as 500ms, 3s or 1m30s".to_owned())
}

/// Everything an operator can decide; `Default` is what `holdline serve` does without a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The public listeners and their limits.
    pub server: Server,
    /// The admin listener.
    pub admin: Admin,
    /// Pings on both legs.
    pub heartbeat: Heartbeats,
    /// Bounds of one message.
    pub message: Message,
    /// What is kept for another worker.
    pub replay: Replay,
    /// How a pipe looks for another worker.
    pub reattach: Reattach,
    /// How a client comes back.
    pub resume: Resume,
    /// How clients are spoken with that number their messages.
    pub aware: Aware,
    /// Workers that dial in.
    pub attach: Attach,
    /// What is kept of a conversation for the next worker.
    pub prologue: Prologues,
    /// Clients without a socket.
    pub http_fallback: HttpFallback,
    /// Rates and counts.
    pub limits: Limits,
    /// The memory of the whole process.
    pub memory: Memory,
    /// How another process takes over.
    pub upgrade: LiveUpgrade,
    /// Protocols of the operator's own; names are unique and no built-in profile has them.
    pub profiles: Vec<OwnProfile>,
    /// Groups of backends; names are unique and there is at least one.
    pub pools: Vec<Pool>,
    /// Which request goes to which pool; names are unique and each pool exists.
    pub routes: Vec<Route>,
    /// Workers that Holdline runs itself; names are unique and each pool exists.
    pub workers: Vec<WorkerGroup>,
    /// What is logged, and how.
    pub log: Log,
    /// Where spans go.
    pub trace: Trace,
    /// Who is told of the life of pipes.
    pub hooks: Hooks,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            admin: Admin::default(),
            heartbeat: Heartbeats::default(),
            message: Message::default(),
            replay: Replay::default(),
            reattach: Reattach::default(),
            resume: Resume::default(),
            aware: Aware::default(),
            attach: Attach::default(),
            prologue: Prologues::default(),
            http_fallback: HttpFallback::default(),
            limits: Limits::default(),
            memory: Memory::default(),
            upgrade: LiveUpgrade::default(),
            profiles: Vec::new(),
            pools: vec![Pool::default()],
            routes: vec![Route::default()],
            workers: Vec::new(),
            log: Log::default(),
            trace: Trace::default(),
            hooks: Hooks::default(),
        }
    }
}

/// How long a new request waits for a worker at most, where its route does not say: people give up then.
const WAIT_MAX: Duration = Duration::from_secs(10);

impl Config {
    /// The pool called `name`.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// What a pipe opened on `route` lives by, for as long as it lives.
    #[must_use]
    pub fn pipe_settings(&self, route: &Route) -> PipeSettings {
        let replay = &self.replay;
        PipeSettings {
            replay: route.replay.unwrap_or(replay.policy),
            replay_bytes_max: replay.pipe_bytes_max,
            window_bytes: replay.window_bytes,
            overflow: route.overflow.unwrap_or(replay.overflow),
            replay_tail: ReplayTail {
                bytes: route.replay_tail.bytes.unwrap_or(replay.tail.bytes),
                messages: route.replay_tail.messages.unwrap_or(replay.tail.messages),
                age: route.replay_tail.age.unwrap_or(replay.tail.age),
            },
            replay_delay: route.replay_delay.unwrap_or(replay.delay),
            down: route.down,
            stall_max: replay.stall_max,
            on_backend_loss: match route.conversation {
                Conversation::Stateful => BackendLoss::Close,
                Conversation::Auto | Conversation::Stateless | Conversation::Profile => route.on_backend_loss,
            },
            refusal: route.refusal,
            on_refused: route.on_refused,
            message_bytes_max: route.message_max_bytes.unwrap_or(self.message.max_bytes),
            on_too_big: route.on_too_big,
            confirm: route.confirm,
            message_incomplete_timeout: self.message.incomplete_timeout,
            message_rate_min: self.message.incomplete_rate,
            fragments_max: self.message.fragments_max,
            check_utf8: route.check_utf8,
            limits: PipeLimits {
                messages: self.limits.pipe_messages,
                bytes: self.limits.pipe_bytes,
                on_exceed: self.limits.on_exceed,
                lanes: LimitedLanes::Both,
            },
            grace: self.reattach.grace.end(),
            client_grace: None,
            replaced_code: u16::try_from(route.replaced_code).unwrap_or(1000),
            client_navigates: false,
            backoff_min: self.reattach.backoff_min,
            backoff_max: self.reattach.backoff_max,
            first_message_timeout: Some(route.first_message_timeout).filter(|wait| !wait.is_zero()),
            client_heartbeat: self.client_heartbeat(route),
            backend_heartbeat: self.backend_heartbeat(route),
            aware: self.aware_settings(),
            interrupt_codes: route.interrupt_codes.clone(),
            wrong_worker_codes: route.wrong_worker_codes.clone(),
            move_timeout: self.reattach.move_timeout,
            settle: self.reattach.settle,
            prove: self.reattach.prove,
            close_timeout: self.server.close_timeout,
            prologue: PrologueBounds {
                messages_max: self.prologue.messages_max,
                bytes_max: self.prologue.bytes_max,
                inspect_max: self.prologue.inspect_max,
                within: self.prologue.within,
            },
            profiles: self.profiles(route),
        }
    }

    /// The routes, compiled.
    ///
    /// # Errors
    /// None for a configuration that was read: the same compilation checked it.
    pub fn route_table(&self) -> Result<RouteTable, RouteError> {
        RouteTable::compile(self.route_specs())
    }

    /// The routes as the table takes them, in the order of the file.
    #[must_use]
    pub fn route_specs(&self) -> Vec<RouteSpec> {
        let routes = self.routes.iter().map(|route| RouteSpec {
            name: route.name.clone(),
            paths: route.path.0.clone(),
            hosts: route.hosts.clone(),
            pool: route.pool.clone(),
            key: route.key.clone(),
            any_without_owner: route.no_owner == NoOwner::Any,
            backend_path: route.backend_path.clone(),
            auth: route.auth(),
            client_id: route.client_id.clone(),
            labels: route.labels.clone(),
            resume_cookie: route.resume == RouteResume::Cookie,
            duplicate: route.duplicate,
            client_grace: self.resume.grace,
            aware_heartbeat: self.aware.heartbeat,
            raw_path: route.raw_path,
            origins: route.origins.iter().map(ToString::to_string).collect(),
            limits: route.limits,
            sticky: route.sticky == Sticky::Cookie,
            learn: route.learn.clone(),
            learn_ttl: route.learn_ttl,
            wait: self.wait(route),
            host: route.host.clone(),
            headers: [route.headers.request.clone(), route.headers.response.clone()],
            websocket_only: match route.upgrade {
                Upgrade::Any => false,
                Upgrade::Websocket => true,
            },
            http_fallback: route.http_fallback,
            settings: self.pipe_settings(route),
            conversation: self.conversation_rule(route),
            compression: route.compression == Compression::Pass,
            share: route.share.then_some(StreamSettings {
                bytes_max: route.share_bytes_max,
                catch_up: route.share_catch_up,
                linger: route.share_linger,
            }),
        });
        routes.collect()
    }

    /// How long a new request may wait for a worker.
    fn wait(&self, route: &Route) -> Duration {
        route.wait.unwrap_or_else(|| self.reattach.grace.end().map_or(WAIT_MAX, |grace| grace.min(WAIT_MAX)))
    }

    fn aware_settings(&self) -> AwareSettings {
        let aware = &self.aware;
        AwareSettings {
            hello_timeout: aware.hello_timeout,
            window_bytes: aware.window,
            retain_bytes: aware.retain.unwrap_or(aware.window),
            ack_delay: aware.ack_delay,
            ack_messages: aware.ack_messages,
            ..AwareSettings::default()
        }
    }

    fn client_heartbeat(&self, route: &Route) -> Heartbeat {
        Heartbeat {
            interval: route.heartbeat.client_interval.unwrap_or(self.heartbeat.client_interval),
            timeout: route.heartbeat.client_timeout.unwrap_or(self.heartbeat.client_timeout),
        }
    }

    fn backend_heartbeat(&self, route: &Route) -> Heartbeat {
        Heartbeat {
            interval: route.heartbeat.backend_interval.unwrap_or(self.heartbeat.backend_interval),
            timeout: route.heartbeat.backend_timeout.unwrap_or(self.heartbeat.backend_timeout),
        }
    }
}

#[cfg(test)]
mod tests;
