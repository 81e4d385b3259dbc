//! A small HTTP client for the admin API, over TCP, TLS or a socket file: one request, one connection, a time limit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Config, Listen};
use crate::net::{ConnectError, TlsClient, TlsPeer};

/// What one request may take, beyond what it asks the server to wait.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The header that a list's index travels in.
const INDEX: &str = "x-holdline-index";
/// The `type` of the problem that a token's role is.
const ROLE_FORBIDDEN: &str = "urn:holdline:problem:role-forbidden";
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where the admin API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `host:port`.
    Tcp(String),
    /// `host:port`, by TLS.
    Tls(String),
    /// A socket file.
    Unix(PathBuf),
}

impl Target {
    /// Where a Holdline with this configuration serves it, seen from the same machine.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let authority = match &config.admin.listen {
            Listen::Unix(path) => return Self::Unix(path.clone()),
            Listen::Tcp(address) if address.ip().is_unspecified() => {
                let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                format!("{loopback}:{}", address.port())
            }
            Listen::Tcp(address) => address.to_string(),
        };
        if config.admin.tls.cert.is_some() { Self::Tls(authority) } else { Self::Tcp(authority) }
    }

    /// What to look at where what answers is no admin API.
    const fn doubt(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "is that the admin listener, and without TLS? With it, write https://",
            Self::Tls(_) => {
                "is that the admin listener, does it speak TLS, and does it ask for a certificate (--admin-cert, --admin-key)?"
            }
            Self::Unix(_) => "is that the admin listener?",
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let secured = text.strip_prefix("https://");
        let authority = secured.or_else(|| text.strip_prefix("http://")).unwrap_or(text).trim_end_matches('/');
        let parsed: Option<http::uri::Authority> = authority.parse().ok();
        if parsed.is_none_or(|parsed| parsed.port_u16().is_none() || authority.contains('@')) {
            return Err(
                "write it like http://127.0.0.1:9000, https://10.0.0.1:9000 or unix:/run/holdline/admin.sock".into()
            );
        }
        Ok(if secured.is_some() { Self::Tls(authority.into()) } else { Self::Tcp(authority.into()) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Tls(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why there is no useful answer; each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing answers there.
    #[error(
        "no Holdline answers at {target}: {source}; start one with `holdline serve`, \
         or say where it is with --admin or HOLDLINE_ADMIN"
    )]
    Unreachable {
        /// Where.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// The server that answers is not the admin API: its errors have a request id.
    #[error(
        "what answers at {0} ({1}) is not the admin API; is that the public listener? \
         Say where admin.listen is with --admin or HOLDLINE_ADMIN"
    )]
    Stranger(Target, StatusCode),
    /// The connection broke before the answer was complete.
    #[error("the connection to {0} broke: {1}; {doubt}", doubt = .0.doubt())]
    Broken(Target, String),
    /// The two did not come together by TLS.
    #[error("no TLS with {0}: {1}; name whom to trust with --admin-ca, or write http:// if there is no TLS")]
    Untrusted(Target, String),
    /// It took too long.
    #[error(
        "{0} did not answer in {seconds}s; see its log. Is that the public listener? It holds what no worker can take now",
        seconds = .1.as_secs()
    )]
    TimedOut(Target, Duration),
    /// A token is missing.
    #[error("{0} wants a token: put one into HOLDLINE_TOKEN whose SHA-256 is in admin.tokens_file")]
    TokenMissing(Target),
    /// The token is none of those that are known.
    #[error(
        "{0} does not know the token in HOLDLINE_TOKEN: its SHA-256 is not in admin.tokens_file, \
         or that was not reloaded since"
    )]
    TokenUnknown(Target),
    /// The token is known and not good enough.
    #[error("{0}; use a token of another role in HOLDLINE_TOKEN")]
    Forbidden(String),
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// A value cannot be, whatever the process is doing.
    #[error("{0}")]
    Unfit(String),
    /// The answer is an error.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    /// Whether what was asked can never be, so that asking again is of no use.
    #[must_use]
    pub const fn is_misuse(&self) -> bool {
        matches!(self, Self::Unfit(_))
    }
}

/// An answer that is not an error.
#[derive(Debug)]
pub struct Reply {
    /// 2xx, or 503 of a health check.
    pub status: StatusCode,
    /// The JSON body; null if there is none.
    pub body: Value,
    /// Where a list stands, to wait for a change from.
    pub index: Option<u64>,
}

/// Asks one admin API.
#[derive(Debug)]
pub struct Client {
    target: Target,
    tls: TlsClient,
    token: Option<Token>,
}

/// A bearer token; its `Debug` hides it.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Client {
    /// A client of the API at `target`, without a token, which trusts whom the system trusts.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, tls: TlsClient::native(), token: None }
    }

    /// The same, which meets its peer as `tls` says, where TLS is spoken.
    #[must_use]
    pub fn by_tls(self, tls: TlsClient) -> Self {
        Self { tls, ..self }
    }

    /// The same, with the token of `HOLDLINE_TOKEN` if there is one.
    #[must_use]
    pub fn with_token(self) -> Self {
        let token = std::env::var("HOLDLINE_TOKEN").ok().filter(|token| !token.is_empty()).map(Token);
        Self { token, ..self }
    }

    /// Sends one request and wants a 2xx.
    ///
    /// # Errors
    /// [`CallError`], with the server's own words if it answered.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        self.call_within(method, path, body, PATIENCE).await
    }

    /// As [`Client::call`], with a time limit of one's own.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_within(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Value, CallError> {
        Ok(self.reply_within(method, path, body, patience).await?.body)
    }

    /// As [`Client::call_within`], with what is around the body.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn reply_within(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Reply, CallError> {
        let reply = self.ask(method, path, body, patience).await?;
        match reply.status {
            status if status.is_success() => Ok(reply),
            status if reply.body["request_id"].is_null() => Err(CallError::Stranger(self.target.clone(), status)),
            StatusCode::UNAUTHORIZED if self.token.is_some() => Err(CallError::TokenUnknown(self.target.clone())),
            StatusCode::UNAUTHORIZED => Err(CallError::TokenMissing(self.target.clone())),
            StatusCode::NOT_FOUND => Err(CallError::NotFound(explain(&reply))),
            StatusCode::FORBIDDEN if reply.body["type"] == ROLE_FORBIDDEN => Err(CallError::Forbidden(explain(&reply))),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Err(CallError::Unfit(explain(&reply))),
            _ => Err(CallError::Refused(explain(&reply))),
        }
    }

    /// Where it asks.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Sends one request and takes whatever status comes.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Reply, CallError> {
        let exchange = async {
            let unreachable = |source| CallError::Unreachable { target: self.target.clone(), source };
            let request = self.request(method, path, body).map_err(|error| self.broken(&error))?;
            match &self.target {
                Target::Tcp(authority) => {
                    self.exchange(TcpStream::connect(authority).await.map_err(unreachable)?, request).await
                }
                Target::Tls(authority) => {
                    let stream = TcpStream::connect(authority).await.map_err(unreachable)?;
                    let secured = TlsPeer::named(host_of(authority), &self.tls).secure(stream).await;
                    let untrusted = |error: ConnectError| CallError::Untrusted(self.target.clone(), error.to_string());
                    self.exchange(secured.map_err(untrusted)?, request).await
                }
                Target::Unix(path) => {
                    self.exchange(UnixStream::connect(path).await.map_err(unreachable)?, request).await
                }
            }
        };
        let late = || CallError::TimedOut(self.target.clone(), patience);
        tokio::time::timeout(patience, exchange).await.map_err(|_| late())?
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let host = match &self.target {
            Target::Tcp(authority) | Target::Tls(authority) => authority,
            Target::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(Token(token)) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let Some(body) = body else {
            return request.body(Full::default());
        };
        request.header(header::CONTENT_TYPE, "application/json").body(Full::from(body.to_string()))
    }

    async fn exchange(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, CallError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| self.broken(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let status = response.status();
            let index = response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let bytes = body.map_err(|error| self.broken(&*error))?.to_bytes();
            let body = if bytes.is_empty() {
                Value::Null
            } else {
                let not_json = |_| CallError::Broken(self.target.clone(), "the answer is not JSON".into());
                serde_json::from_slice(&bytes).map_err(not_json)?
            };
            Ok(Reply { status, body, index })
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = answer.as_mut() => answer,
            // The connection ends first when the server closes it after its answer: the answer is in the channel then.
            _ = connection.as_mut() => answer.await,
        }
    }

    fn broken(&self, error: &dyn std::error::Error) -> CallError {
        let mut said = error.to_string();
        // hyper keeps what was wrong with the connection behind its own words.
        let mut cause = error.source();
        while let Some(error) = cause {
            said.push_str(&format!(": {error}"));
            cause = error.source();
        }
        CallError::Broken(self.target.clone(), said)
    }
}

/// The host of `host:port`, without the brackets of an address.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A problem document in one line.
fn explain(reply: &Reply) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut line = text(&reply.body["detail"]);
    if line.is_empty() {
        line = format!("the answer is {}", reply.status);
    }
    for error in reply.body["errors"].as_array().into_iter().flatten() {
        let (pointer, message) = (text(&error["pointer"]), text(&error["message"]));
        if message == line {
            line.push_str(&format!(" (at {pointer:?})"));
        } else if !line.contains(&message) {
            line.push_str(&format!("; {message} (at {pointer:?})"));
        }
    }
    let id = text(&reply.body["request_id"]);
    if id.is_empty() { line } else { format!("{line} [{} {id}]", reply.status.as_u16()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_an_address_or_a_socket_file() {
        let tcp = Target::Tcp("127.0.0.1:9000".into());
        for text in ["http://127.0.0.1:9000", "http://127.0.0.1:9000/", "127.0.0.1:9000"] {
            assert_eq!(text.parse(), Ok(tcp.clone()), "{text}");
        }
        assert_eq!("unix:/run/x.sock".parse(), Ok(Target::Unix("/run/x.sock".into())));
        assert_eq!("https://a.example:9000/".parse(), Ok(Target::Tls("a.example:9000".into())));
        for text in ["", "unix:", "https://127.0.0.1", "127.0.0.1", "http://a@b:1", "https://x:1/path"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_configured_listener_is_reached_over_loopback() {
        let mut config = Config::default();
        assert_eq!(Target::of(&config).to_string(), "http://127.0.0.1:9000");
        config.admin.listen = "0.0.0.0:1".parse().unwrap();
        assert_eq!(Target::of(&config).to_string(), "http://127.0.0.1:1");
        config.admin.tls.cert = Some("/admin.pem".into());
        assert_eq!(Target::of(&config).to_string(), "https://127.0.0.1:1");
        config.admin.listen = "unix:/a".parse().unwrap();
        assert_eq!(Target::of(&config).to_string(), "unix:/a");
    }

    #[test]
    fn a_certificate_is_to_name_the_host_without_its_port_and_brackets() {
        for (authority, host) in [("a.example:9000", "a.example"), ("[::1]:9000", "::1"), ("10.0.0.1:1", "10.0.0.1")] {
            assert_eq!(host_of(authority), host);
        }
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let body = serde_json::json!({
            "detail": "no", "request_id": "r1", "errors": [{"pointer": "/url", "message": "no"}],
        });
        let reply = Reply { status: StatusCode::UNPROCESSABLE_ENTITY, body, index: None };
        assert_eq!(explain(&reply), "no (at \"/url\") [422 r1]");
        let body = serde_json::json!({
            "detail": "f:1: no\nf:2: nor this", "request_id": "r1",
            "errors": [{"pointer": "/a", "message": "f:1: no"}, {"pointer": "/b", "message": "and that"}],
        });
        let reply = Reply { status: StatusCode::UNPROCESSABLE_ENTITY, body, index: None };
        assert_eq!(explain(&reply), "f:1: no\nf:2: nor this; and that (at \"/b\") [422 r1]");
        assert!(explain(&Reply { status: StatusCode::BAD_GATEWAY, body: Value::Null, index: None }).contains("502"));
    }
}
