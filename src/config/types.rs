//! The types of single values: small, parsed, and impossible to hold wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use holdline_core::limits::Rate;
pub use holdline_core::memory::Evict;
pub use holdline_core::settings::OnExceed;

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Listen {
    /// `ADDRESS:PORT`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Its port, if it has one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.contains('\0') {
                return Err("write a path after \"unix:\", as in \"unix:/run/holdline.sock\"".into());
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "use an address and a port such as \"127.0.0.1:8000\" or \"[::1]:8000\", or \"unix:PATH\"".into()
        })
    }
}

/// What the conversations of a route are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conversation {
    /// As they are known by: `routes::rules_of_auto`.
    Auto,
    /// Any worker carries them on.
    Stateless,
    /// A worker hears again what `routes.prologue` keeps.
    Profile,
    /// They end with their worker.
    Stateful,
}

/// What becomes of the header by which a proxy in front says whose connection it passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyProtocol {
    /// It is not expected.
    Off,
    /// A trusted proxy may send it.
    Accept,
    /// Every connection is a trusted proxy's and begins with it.
    Require,
}

/// What becomes of the compression that clients offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Workers are not told of it.
    Off,
    /// Workers are offered it, and what the peers agree on passes.
    Pass,
}

/// The route keys a backend takes, each with what the backend calls it; empty is any key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Serves(pub BTreeMap<String, String>);

/// How long a pipe waits for a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grace {
    /// For so long.
    For(Duration),
    /// For as long as its client is there.
    Endless,
}

impl Grace {
    /// After how long the wait is over, if ever.
    #[must_use]
    pub const fn end(self) -> Option<Duration> {
        match self {
            Self::For(grace) => Some(grace),
            Self::Endless => None,
        }
    }
}

/// The path patterns of a route, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths(pub Vec<String>);

/// What becomes of a key that no backend serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoOwner {
    /// Its requests are answered 404.
    Refuse,
    /// It goes to any backend, as what has no key does.
    Any,
}

/// Which requests a route takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// WebSocket and plain HTTP.
    Any,
    /// WebSocket only; a plain request is answered 426.
    Websocket,
}

/// What the workers of a pool know of resuming.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolResume {
    /// Nothing: an unmodified worker.
    Transparent,
    /// They answer `Holdline-Resume`.
    Hints,
    /// They speak `holdline.v1`.
    Aware,
}

/// How a client without tokens comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteResume {
    /// It does not.
    None,
    /// By a cookie set in the 101.
    Cookie,
}

/// What brings a client back to the worker that it had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sticky {
    /// Nothing but its route key.
    Off,
    /// A cookie of ours.
    Cookie,
}

/// What a health probe does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthKind {
    /// Connects.
    Tcp,
    /// Asks for a path and wants a 2xx.
    Http,
    /// Completes a WebSocket handshake.
    Ws,
}

/// `log.access`: whether each answer is told, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLog {
    /// It is not.
    Off,
    /// A line as Apache and nginx write it.
    Combined,
    /// One JSON object a line.
    Json,
}

/// The shape of a log record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe record that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// What an operator must act on.
    Error,
    /// What an operator may have to act on.
    Warn,
    /// One record per pipe and per event.
    Info,
    /// Decisions.
    Debug,
    /// Everything.
    Trace,
}
