//! What a worker says when it dials in, and what it is answered.
//!
//! ```text
//! GET /v1/attach?id=w1&pool=farm&instance=8f3a HTTP/1.1        → 101, and the connection is parked
//! DELETE /v1/attach?id=w1&instance=8f3a HTTP/1.1               → 202 while pipes leave, 204 once none is left
//! ```
//!
//! Both carry a worker's token. Errors are problem documents (RFC 9457), as those of the admin API. Invariant: nothing is parked or
//! drained that has not shown a token, where there are any.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use holdline_core::pool::Serves;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::json;

use super::desk::Welcome;
use crate::backends::{BackendError, DialIn, Progress};
use crate::metrics::AttachResult;
use crate::routes::percent_decode;
use crate::tokens::{Access, Tokens};

/// Bytes of a request's head.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// The only path.
const PATH: &str = "/v1/attach";

/// What is spoken on a connection that is parked.
pub(super) const PROTOCOL: &str = "holdline-attach/1";

/// How often both ends of a parked connection say that they live.
const HEARTBEAT: &str = "Holdline-Parked-Heartbeat";

/// How many connections to keep parked.
const WANT: &str = "Holdline-Parked-Want";

/// Bytes of an instance.
const INSTANCE_BYTES_MAX: usize = 256;

/// A request, judged as far as it can be alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To park this connection.
    Park(DialIn),
    /// To have the pipes of this worker move.
    Drain {
        /// The backend.
        id: Arc<str>,
        /// Which process of it.
        instance: Arc<str>,
    },
}

/// Why a worker may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No token, or an unknown one.
    #[error("send Authorization: Bearer and a token of admin.tokens_file with the role worker")]
    Unauthorized,
    /// The token is for something else.
    #[error("this is not for the role {0}; use a token with the role worker")]
    Forbidden(&'static str),
    /// Another path.
    #[error("nothing but {PATH} is served here")]
    NotFound,
    /// Another method.
    #[error("GET parks a connection, DELETE drains a worker")]
    Method,
    /// No upgrade.
    #[error("send Connection: Upgrade and Upgrade: {PROTOCOL}")]
    Upgrade,
    /// No sound head.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// A part of the query that cannot be.
    #[error("{1}")]
    Query(&'static str, String),
    /// A newer process of the same worker has come.
    #[error("a newer instance has dialled in as \"{0}\"; this one stops. Give each worker its own id")]
    Superseded(Arc<str>),
    /// This process is draining.
    #[error("\"{0}\" is draining and parks nothing more")]
    Draining(Arc<str>),
    /// No room.
    #[error("as many connections are parked as {0} allows: {1}")]
    Full(&'static str, u32),
    /// The pools do not take it.
    #[error("{0}")]
    Backend(BackendError),
}

impl Refusal {
    /// Its status, and the last part of the problem's `type`.
    fn problem(&self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (401, "unauthorized"),
            Self::Forbidden(_) => (403, "role-forbidden"),
            Self::NotFound => (404, "not-found"),
            Self::Method => (405, "method-not-allowed"),
            Self::Upgrade => (426, "upgrade-required"),
            Self::Malformed(_) => (400, "malformed-request"),
            Self::Query(..) => (422, "invalid"),
            Self::Superseded(_) => (409, "instance-superseded"),
            Self::Draining(_) => (409, "instance-draining"),
            Self::Full(..) => (503, "busy"),
            Self::Backend(error) => error.problem(),
        }
    }

    pub(super) const fn result(&self) -> AttachResult {
        match self {
            Self::Unauthorized => AttachResult::Unauthorized,
            Self::Forbidden(_) => AttachResult::Forbidden,
            Self::Superseded(_) | Self::Draining(_) => AttachResult::Superseded,
            Self::Full(..) => AttachResult::Full,
            Self::Malformed(_) => AttachResult::Broken,
            Self::NotFound | Self::Method | Self::Upgrade | Self::Query(..) | Self::Backend(_) => AttachResult::Invalid,
        }
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> Vec<u8> {
        let (status, slug) = self.problem();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = json!({
            "type": format!("urn:holdline:problem:{slug}"), "title": status.canonical_reason().unwrap_or("Refused"),
            "status": status.as_u16(), "detail": self.to_string(), "request_id": format!("{:016x}", rand::random::<u64>()),
        });
        let pointer = match self {
            Self::Query(name, _) => Some(format!("/query/{name}")),
            Self::Backend(error) => error.pointer().map(|pointer| format!("/query{pointer}")),
            _ => None,
        };
        if let Some(pointer) = pointer {
            body["errors"] = json!([{ "pointer": pointer, "message": self.to_string() }]);
        }
        let more = match self {
            Self::Unauthorized => "WWW-Authenticate: Bearer realm=\"holdline\"\r\n".to_owned(),
            Self::Method => "Allow: GET, DELETE\r\n".to_owned(),
            Self::Upgrade => format!("Upgrade: {PROTOCOL}\r\n"),
            Self::Full(..) => "Retry-After: 1\r\n".to_owned(),
            _ => String::new(),
        };
        whole(status, "application/problem+json", &more, &body.to_string())
    }
}

fn whole(status: StatusCode, media_type: &str, more: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n{more}\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    )
    .into_bytes()
}

/// The answer to a connection that may be parked.
pub(super) fn welcome(welcome: &Welcome) -> Vec<u8> {
    let Welcome { want, beat, .. } = welcome;
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n{WANT}: {want}\r\n{HEARTBEAT}: {}\r\n\r\n",
        milliseconds(*beat)
    )
    .into_bytes()
}

fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// The answer to a worker that drains.
pub(super) fn drained(progress: Progress) -> Vec<u8> {
    match progress {
        Progress::Done => b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec(),
        Progress::Leaving { pipes, requests } => {
            let body = json!({ "pipes": pipes, "requests": requests }).to_string();
            whole(StatusCode::ACCEPTED, "application/json", "", &body)
        }
    }
}

/// A request's head, once it is whole.
#[derive(Debug)]
pub(super) struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Its bytes.
    pub length: usize,
}

impl Head {
    /// The head in `bytes`; nothing while it is not whole.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut lines);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(Refusal::Malformed("its head is too long")),
            Err(_) => return Err(Refusal::Malformed("it is not HTTP/1.1")),
        };
        let unsound = Refusal::Malformed("its method, path or a header is not valid");
        let method = request.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        let uri = request.path.and_then(|path| path.parse().ok());
        let headers: Option<HeaderMap> = request
            .headers
            .iter()
            .map(|line| {
                Some((HeaderName::from_bytes(line.name.as_bytes()).ok()?, HeaderValue::from_bytes(line.value).ok()?))
            })
            .collect();
        match (method, uri, headers) {
            (Some(method), Some(uri), Some(headers)) => Ok(Some(Self { method, uri, headers, length })),
            _ => Err(unsound),
        }
    }

    /// Who asks, and what.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn judge(&self, tokens: Option<&Tokens>) -> Result<Asked, Refusal> {
        if let Some(tokens) = tokens {
            let caller = tokens.caller(&self.headers).ok_or(Refusal::Unauthorized)?;
            if !Access::Worker.allows(caller.role) {
                return Err(Refusal::Forbidden(caller.role.as_str()));
            }
        }
        if self.uri.path() != PATH {
            return Err(Refusal::NotFound);
        }
        let said = Said::read(&self.uri)?;
        match self.method {
            Method::GET if self.asks_to_park() => said.park().map(Asked::Park),
            Method::GET => Err(Refusal::Upgrade),
            Method::DELETE => Ok(Asked::Drain { id: said.id()?, instance: said.instance()? }),
            _ => Err(Refusal::Method),
        }
    }

    fn asks_to_park(&self) -> bool {
        let has = |name: &str, word: &str| {
            let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(word))
        };
        has("connection", "upgrade") && has("upgrade", PROTOCOL)
    }
}

/// The parameters of a query, each of which is known.
#[derive(Debug, Default)]
struct Said {
    id: Option<String>,
    pool: Option<String>,
    instance: Option<String>,
    weight: Option<NonZeroU32>,
    max_pipes: Option<u32>,
    serves: BTreeMap<Arc<str>, Option<Arc<str>>>,
    labels: BTreeMap<String, String>,
}

impl Said {
    fn read(uri: &Uri) -> Result<Self, Refusal> {
        let malformed = || Refusal::Malformed("its query is not percent-encoded UTF-8");
        // Read by its pairs, what is no UTF-8 would become something else, and no error.
        percent_decode(uri.query().unwrap_or_default(), true).ok_or_else(malformed)?;
        let Query(parts) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| malformed())?;
        let mut said = Self::default();
        for (name, value) in parts {
            said.note(&name, value)?;
        }
        Ok(said)
    }

    fn note(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        let number = |name, expected: &str| Refusal::Query(name, format!("{name} is {expected}"));
        match name {
            "id" => self.id = Some(value),
            "pool" => self.pool = Some(value),
            "instance" => self.instance = Some(value),
            "weight" => self.weight = Some(value.parse().map_err(|_| number("weight", "a number from 1 on"))?),
            "max_pipes" => self.max_pipes = Some(value.parse().map_err(|_| number("max_pipes", "a number"))?),
            "serves" => {
                let (key, alias) = value.split_once('=').map_or((&*value, None), |(key, alias)| (key, Some(alias)));
                self.serves.insert(key.into(), alias.filter(|alias| *alias != key).map(Into::into));
            }
            "label" => {
                let pair = value.split_once('=');
                let (name, text) = pair.ok_or_else(|| number("label", "NAME=VALUE, percent-encoded"))?;
                self.labels.insert(name.to_owned(), text.to_owned());
            }
            _ => {
                let known = "id, pool, instance, weight, max_pipes, serves and label";
                return Err(Refusal::Query("", format!("{name:?} is no parameter; they are {known}")));
            }
        }
        Ok(())
    }

    fn id(&self) -> Result<Arc<str>, Refusal> {
        let id = self.id.as_deref().filter(|id| !id.is_empty());
        Ok(id.ok_or_else(|| Refusal::Query("id", "id is missing: which worker is this?".to_owned()))?.into())
    }

    fn instance(&self) -> Result<Arc<str>, Refusal> {
        let is_sound =
            |text: &&str| (1..=INSTANCE_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        let wrong = || {
            let text = format!("instance is a random word for each process, up to {INSTANCE_BYTES_MAX} bytes");
            Refusal::Query("instance", text)
        };
        Ok(self.instance.as_deref().filter(is_sound).ok_or_else(wrong)?.into())
    }

    fn park(self) -> Result<DialIn, Refusal> {
        let (id, instance) = (self.id()?, self.instance()?);
        let pool = self.pool.unwrap_or_else(|| "default".to_owned());
        Ok(DialIn {
            id,
            pool: pool.into(),
            instance,
            weight: self.weight,
            max_pipes: self.max_pipes,
            serves: Some(self.serves).filter(|keys| !keys.is_empty()).map(Serves::from_keys),
            labels: Some(self.labels).filter(|labels| !labels.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: holdline-attach/1\r\n";

    fn judge(line: &str, headers: &str, tokens: Option<&Tokens>) -> Result<Asked, Refusal> {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        Head::parse(head.as_bytes()).unwrap().unwrap().judge(tokens)
    }

    #[test]
    fn what_a_worker_says_is_read_whole() {
        let line = "GET /v1/attach?id=w1&pool=farm&instance=i-1&serves=a&serves=b%3Dx+y&serves=c%3Dc&label=rack%3D7&max_pipes=3&weight=2";
        let Asked::Park(said) = judge(line, UPGRADE, None).unwrap() else { panic!("no park") };
        assert_eq!((&*said.id, &*said.pool, &*said.instance), ("w1", "farm", "i-1"));
        let serves = said.serves.unwrap();
        assert_eq!(
            (serves.takes(Some("a")), serves.alias("b").as_deref(), serves.alias("c")),
            (true, Some("x y"), None)
        );
        assert_eq!(said.labels.unwrap()["rack"], "7");
        assert_eq!((said.max_pipes, said.weight), (Some(3), NonZeroU32::new(2)));
        let Asked::Park(said) = judge("GET /v1/attach?id=w1&instance=i", UPGRADE, None).unwrap() else {
            panic!("no park")
        };
        assert_eq!((&*said.pool, said.serves, said.labels), ("default", None, None));
    }

    #[test]
    fn every_bad_request_has_its_own_answer() {
        let good = "GET /v1/attach?id=w1&instance=i";
        for (line, headers, status, text) in [
            ("GET /v1/other", UPGRADE, 404, "nothing but /v1/attach"),
            (good, "", 426, "Upgrade: holdline-attach/1"),
            (good, "Connection: Upgrade\r\nUpgrade: websocket\r\n", 426, "holdline-attach/1"),
            ("POST /v1/attach?id=w1&instance=i", UPGRADE, 405, "Allow: GET, DELETE"),
            ("GET /v1/attach?instance=i", UPGRADE, 422, "/query/id"),
            ("GET /v1/attach?id=w1", UPGRADE, 422, "/query/instance"),
            ("GET /v1/attach?id=w1&instance=i&weight=0", UPGRADE, 422, "weight is a number from 1 on"),
            ("GET /v1/attach?id=w1&instance=i&label=x", UPGRADE, 422, "NAME=VALUE"),
            ("GET /v1/attach?id=w1&instance=i&x=1", UPGRADE, 422, "no parameter"),
            ("GET /v1/attach?id=%FF&instance=i", UPGRADE, 400, "UTF-8"),
        ] {
            let answer = String::from_utf8(judge(line, headers, None).unwrap_err().answer()).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{line}: {answer}");
        }
        let drain = judge("DELETE /v1/attach?id=w1&instance=i", "", None).unwrap();
        assert_eq!(drain, Asked::Drain { id: "w1".into(), instance: "i".into() });
    }

    #[test]
    fn a_token_of_a_worker_is_needed_where_there_are_tokens() {
        let tokens = "viewer 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 eve\n\
                      worker 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752 rack\n";
        let tokens = Tokens::parse(tokens).unwrap();
        let status = |headers: &str| {
            let asked = judge("GET /v1/attach?id=w1&instance=i", &format!("{UPGRADE}{headers}"), Some(&tokens));
            asked.map_or_else(|refusal| refusal.problem().0, |_| 101)
        };
        assert_eq!(status(""), 401);
        assert_eq!(status("Authorization: Bearer nonsense\r\n"), 401);
        assert_eq!(status("Authorization: Bearer test\r\n"), 403);
        assert_eq!(status("Authorization: Bearer test2\r\n"), 101);
    }

    #[test]
    fn a_head_is_waited_for_up_to_its_bound() {
        assert!(Head::parse(b"GET /v1/attach HTTP/1.1\r\nHost").unwrap().is_none());
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(Head::parse(long.as_bytes()).unwrap_err().problem().0, 400);
        assert_eq!(Head::parse(b"\x16\x03\x01\x02\x00").unwrap_err().problem().0, 400);
    }
}
