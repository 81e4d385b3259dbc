//! The types of single values: small, parsed, and impossible to hold wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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

/// So many things in so much time; a count of zero is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Things (connections, messages or bytes); 0 is no limit.
    pub count: u64,
    /// The time they may take; one second, minute or hour.
    pub per: Duration,
}

impl Rate {
    /// No limit.
    pub const OFF: Self = Self::new(0, Duration::from_secs(60));

    /// `count` things `per` so much time.
    #[must_use]
    pub const fn new(count: u64, per: Duration) -> Self {
        Self { count, per }
    }

    /// Whether there is no limit.
    #[must_use]
    pub const fn is_off(self) -> bool {
        self.count == 0
    }
}

/// The URL of a backend; its `Debug` hides credentials and query.
#[derive(Clone, PartialEq, Eq)]
pub struct BackendUrl {
    raw: String,
    tls: bool,
    host: String,
    port: u16,
    path_and_query: Option<String>,
}

/// An address that nobody listens on: it stands in for a URL that is missing, which is an error of its own.
impl Default for BackendUrl {
    fn default() -> Self {
        Self { raw: String::new(), tls: false, host: String::new(), port: 0, path_and_query: None }
    }
}

impl BackendUrl {
    /// Whether it is `wss`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Name or address, lower case, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 or 443 if it has none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, or nothing where the client's own are used (no path, or only `/`).
    #[must_use]
    pub fn path_and_query(&self) -> Option<&str> {
        self.path_and_query.as_deref()
    }

    /// The URL as it was written, credentials included: never log it.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.raw
    }

    /// The URL with credentials and query hidden.
    #[must_use]
    pub fn masked(&self) -> String {
        let (scheme, rest) = self.raw.split_once("://").unwrap_or(("", &self.raw));
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority = match authority.rsplit_once('@') {
            Some((_, host)) => format!("***@{host}"),
            None => authority.to_owned(),
        };
        let path = match path.split_once('?') {
            Some((path, _)) => format!("{path}?***"),
            None => path.to_owned(),
        };
        format!("{scheme}://{authority}{path}")
    }
}

impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// Longest URL of a backend, in bytes.
const URL_BYTES_MAX: usize = 2048;

impl std::str::FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("the URL is longer than {URL_BYTES_MAX} bytes"));
        }
        if text.contains('#') {
            return Err("a backend URL has no fragment; remove \"#\" and what follows".into());
        }
        let uri: http::Uri = text.parse().map_err(|_| "not a URL; write it like \"ws://127.0.0.1:9001\"")?;
        let tls = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("ws") => false,
            Some(scheme) if scheme.eq_ignore_ascii_case("wss") => true,
            _ => return Err("the URL of a backend begins with \"ws://\" or \"wss://\"".into()),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = match uri.authority().map(|a| (a.port(), a.port_u16())) {
            Some((Some(_), Some(port))) if port > 0 => port,
            Some((None, _)) if tls => 443,
            Some((None, _)) => 80,
            Some((Some(_), _)) | None => return Err("the port must be 1 to 65535".into()),
        };
        if host.is_empty() {
            return Err("the URL names no host; write it like \"ws://127.0.0.1:9001\"".into());
        }
        let path_and_query =
            uri.path_and_query().map(|path| path.as_str().to_owned()).filter(|path| path != "/" && !path.is_empty());
        Ok(Self { raw: text.to_owned(), tls, host: host.to_ascii_lowercase(), port, path_and_query })
    }
}

/// The route keys a backend takes, each with what the backend calls it; empty is any key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Serves(pub BTreeMap<String, String>);

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

/// What a second connection of the same client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duplicate {
    /// It takes the place of the first one.
    Replace,
    /// It is refused with 409.
    Reject,
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

/// The admin state of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminState {
    /// It takes pipes.
    Ready,
    /// It keeps what it has and takes nothing new.
    Drain,
    /// It takes nothing and keeps nothing.
    Maint,
}

/// What happens to a pipe over its limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExceed {
    /// Its reader is slowed down.
    Throttle,
    /// It is closed with 1008.
    Close,
}

/// Which pipe is evicted first when memory is out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evict {
    /// The one that was idle longest.
    Lru,
    /// The one that was opened first.
    Oldest,
    /// The one that holds the most.
    Largest,
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
    /// What needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// One record per pipe and per event.
    Info,
    /// Decisions.
    Debug,
    /// Everything.
    Trace,
}
