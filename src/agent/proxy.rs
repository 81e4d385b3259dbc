//! The way to Holdline: a connection, one request on it, and the answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Uri;
use http::uri::Scheme;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Options;
use crate::config::parse_duration;
use crate::ctl::Misuse;
use crate::net::{Addresses, BackendStream, TlsClient, TlsFiles, TlsPeer, connect};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Headers of an answer.
const HEADERS_MAX: usize = 64;

/// What holds where the answer does not say.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where Holdline is, and what it is told.
pub(super) struct Proxy {
    /// `host:port`.
    authority: String,
    tls: Option<TlsPeer>,
    park: Vec<u8>,
    drain: Vec<u8>,
    patience: Duration,
}

/// A connection that is parked.
pub(super) struct Parked {
    /// The connection.
    pub stream: BackendStream,
    /// What has come on it already.
    pub read: Vec<u8>,
    /// How many Holdline wants parked, if it says so.
    pub want: Option<u32>,
    /// From one sign of life to the next.
    pub heartbeat: Duration,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no answer.
    #[error("Holdline at {0} is not reached: {1}")]
    Unreached(String, String),
    /// A newer agent has the id.
    #[error("{0}")]
    Superseded(String),
    /// There is no room now.
    #[error("{0}")]
    Busy(String),
    /// It may not be.
    #[error("Holdline at {0} refuses it: {1}")]
    Refused(String, String),
}

/// How far a drain got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drained {
    /// Nothing is left.
    Done,
    /// Pipes are leaving.
    Leaving,
}

impl Proxy {
    /// Where `options` say, with what they say about the worker; the token is that of `HOLDLINE_TOKEN`.
    pub(super) fn new(options: &Options, instance: &str) -> Result<Self, Misuse> {
        let (authority, host, secured) = place(&options.to)?;
        let tls = if secured { Some(TlsPeer::named(&host, &trust(options)?)) } else { None };
        let token = std::env::var("HOLDLINE_TOKEN").ok().filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| token.chars().any(|letter| letter.is_control() || !letter.is_ascii())) {
            return Err(Misuse("HOLDLINE_TOKEN holds a letter that no header can carry".to_owned()));
        }
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = |method: &str, query: &str, more: &str| {
            format!("{method} /v1/attach?{query} HTTP/1.1\r\nHost: {authority}\r\n{token}{more}\r\n").into_bytes()
        };
        let park = head("GET", &query(options, instance)?, "Connection: Upgrade\r\nUpgrade: holdline-attach/1\r\n");
        let name = form(&[("id", &options.id), ("instance", instance)]);
        let drain = head("DELETE", &name, "Connection: close\r\n");
        Ok(Self { authority, tls, park, drain, patience: options.connect_timeout })
    }

    /// Where that is.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Parks a connection.
    pub(super) async fn park(&self) -> Result<Parked, Failure> {
        let (stream, answer) = self.ask(&self.park).await?;
        if answer.status != 101 {
            return Err(self.refusal(&answer));
        }
        Ok(Parked {
            stream,
            want: answer.header("holdline-parked-want").and_then(|want| want.parse().ok()),
            heartbeat: answer
                .header("holdline-parked-heartbeat")
                .and_then(|text| parse_duration(text).ok())
                .unwrap_or(HEARTBEAT),
            read: answer.rest,
        })
    }

    /// Has the pipes of the worker move.
    pub(super) async fn drain(&self) -> Result<Drained, Failure> {
        let (_, answer) = self.ask(&self.drain).await?;
        match answer.status {
            204 => Ok(Drained::Done),
            202 => Ok(Drained::Leaving),
            _ => Err(self.refusal(&answer)),
        }
    }

    async fn ask(&self, request: &[u8]) -> Result<(BackendStream, Answer), Failure> {
        let asking = async {
            let found: Vec<SocketAddr> =
                lookup_host(&self.authority).await.map_err(|error| error.to_string())?.collect();
            let addresses = Addresses::from(found);
            let connecting = connect(&addresses, self.tls.as_ref(), &[], self.patience);
            let mut stream = connecting.await.map_err(|error| error.to_string())?;
            let answer = async {
                stream.write_all(request).await?;
                stream.flush().await?;
                Answer::read(&mut stream).await
            };
            let answer = answer.await.map_err(|error| error.to_string())?;
            Ok((stream, answer))
        };
        let unreached = |why| Failure::Unreached(self.authority.clone(), why);
        let late = || unreached(format!("no answer within {:?}", self.patience));
        timeout(self.patience, asking).await.map_err(|_| late())?.map_err(unreached)
    }

    fn refusal(&self, answer: &Answer) -> Failure {
        let body: Value = serde_json::from_slice(&answer.rest).unwrap_or_default();
        let kind = body["type"].as_str().unwrap_or_default();
        let detail = match body["detail"].as_str() {
            Some(detail) => format!("{detail} ({})", answer.status),
            None => format!("{}; is that attach.listen, and does it speak TLS or not as --to says?", answer.status),
        };
        match (answer.status, kind) {
            (409, "urn:holdline:problem:instance-superseded") => Failure::Superseded(detail),
            (502..=504, _) => Failure::Busy(detail),
            _ => Failure::Refused(self.authority.clone(), detail),
        }
    }
}

/// The authority of `--to` with its port, its host, and whether TLS is spoken there.
fn place(to: &str) -> Result<(String, String, bool), Misuse> {
    let wrong = || Misuse(format!("--to {to}: write it like https://holdline.example:9443"));
    let uri: Uri = to.parse().map_err(|_| wrong())?;
    let secured = uri.scheme() == Some(&Scheme::HTTPS);
    let has_scheme = secured || uri.scheme() == Some(&Scheme::HTTP);
    let is_bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let authority = uri.authority().filter(|authority| has_scheme && is_bare && !authority.as_str().contains('@'));
    let authority = authority.ok_or_else(wrong)?;
    let port = authority.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((format!("{host}:{port}"), bare, secured))
}

/// Whom to trust, and what to show.
fn trust(options: &Options) -> Result<TlsClient, Misuse> {
    let files = TlsFiles {
        ca: options.ca.as_deref(),
        cert: options.cert.as_deref(),
        key: options.key.as_deref(),
        server_name: None,
    };
    // A certificate that is not valid now is refused by the other side, which says so.
    let read = TlsClient::read(&files, SystemTime::now()).map(|(client, _untimely)| client);
    read.map_err(|faults| {
        let said: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
        Misuse(said.join("; "))
    })
}

/// What is said about the worker.
fn query(options: &Options, instance: &str) -> Result<String, Misuse> {
    if let Some(label) = options.labels.iter().find(|label| !label.contains('=')) {
        return Err(Misuse(format!("--label {label}: write it like rack=7")));
    }
    let (weight, max_pipes) = (options.weight.map(|it| it.to_string()), options.max_pipes.map(|it| it.to_string()));
    let mut parts = vec![("id", options.id.as_str()), ("pool", &options.pool), ("instance", instance)];
    parts.extend(weight.iter().map(|weight| ("weight", weight.as_str())));
    parts.extend(max_pipes.iter().map(|count| ("max_pipes", count.as_str())));
    parts.extend(options.serves.iter().map(|key| ("serves", key.as_str())));
    parts.extend(options.labels.iter().map(|label| ("label", label.as_str())));
    Ok(form(&parts))
}

/// A query (`application/x-www-form-urlencoded`).
fn form(parts: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        let letter = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(letter).collect::<String>()
    };
    parts.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

/// An answer: its head, and what has come behind it; all of the body where there is one.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    rest: Vec<u8>,
}

impl Answer {
    async fn read(stream: &mut BackendStream) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(1024);
        let mut answer = loop {
            if let Some(answer) = Self::parse(&bytes)? {
                break answer;
            }
            Self::more(stream, &mut bytes).await?;
        };
        let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while answer.status != 101 && answer.rest.len() < length {
            Self::more(stream, &mut answer.rest).await?;
        }
        Ok(answer)
    }

    async fn more(stream: &mut BackendStream, bytes: &mut Vec<u8>) -> io::Result<()> {
        let room = ANSWER_BYTES_MAX.saturating_sub(bytes.len()) as u64;
        match (&mut *stream).take(room).read_buf(bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut lines);
        let httparse::Status::Complete(length) = response.parse(bytes).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
        let headers = response.headers.iter().map(|line| (line.name.to_ascii_lowercase(), text(line.value))).collect();
        let rest = bytes.get(length..).unwrap_or_default().to_vec();
        Ok(response.code.map(|status| Self { status, headers, rest }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_holdline_is_has_a_scheme_and_no_path() {
        let found = |authority: &str, host: &str, secured| Some((authority.to_owned(), host.to_owned(), secured));
        for (to, place) in [
            ("https://a.example", found("a.example:443", "a.example", true)),
            ("https://a.example:9443/", found("a.example:9443", "a.example", true)),
            ("http://127.0.0.1:9443", found("127.0.0.1:9443", "127.0.0.1", false)),
            ("https://[::1]:1", found("[::1]:1", "::1", true)),
            ("a.example:443", None),
            ("wss://a.example", None),
            ("https://a.example/x", None),
            ("https://u:p@a.example", None),
        ] {
            assert_eq!(super::place(to).ok(), place, "{to}");
        }
    }

    #[test]
    fn what_is_said_about_a_worker_is_escaped() {
        assert_eq!(form(&[("serves", "a b=ü"), ("id", "w-1.x_~")]), "serves=a%20b%3D%C3%BC&id=w-1.x_~");
    }
}
