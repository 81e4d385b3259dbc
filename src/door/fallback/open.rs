//! The way to a session: a hello, which is judged as a handshake is, and a link to the pipe that never leaves the process.
//!
//! Invariant: a client is let in here by the same questions as at a handshake, and its worker sees the same request: an
//! ordinary handshake without anything of ours.

use std::sync::Arc;

use bytes::Bytes;
use holdline_core::ids::PipeId;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};
use serde_json::{Map, Value};

use super::ask::{HELLO_TYPE, bad, token, workers_query};
use super::{answer, gone, unknown, whole};
use crate::door::Door;
use crate::door::outcome::{Refused, Request, Seat, Verdict};
use crate::fallback::{Early, Session, is_word, link};
use crate::handshake::check::is_token;
use crate::http::{Body, RequestBody};
use crate::net::MemoryStream;
use crate::pipe::ClientLink;
use crate::resume::UnixTime;

/// Bytes of a hello.
const HELLO_BYTES_MAX: usize = 16 << 10;

/// Subprotocols that a hello may offer.
const PROTOCOLS_MAX: usize = 32;

/// What a client says first.
struct Hello {
    /// What the pipe is told.
    words: Map<String, Value>,
    /// What it would offer at a handshake, entries of ours included.
    offers: Vec<String>,
}

impl Door {
    /// Opens a pipe for a client without a socket, or sends it back to its own.
    pub(super) async fn open_session(
        &self,
        mut request: Request,
        body: RequestBody,
        over: bool,
    ) -> Result<Response<Body>, Refused> {
        let hello = Hello::read(&whole(body, HELLO_BYTES_MAX).await?)?;
        as_handshake(&mut request.parts);
        let (theirs, ours) = link();
        let pipe = match self.admit(&mut request, &hello.offers, over).await? {
            Verdict::Open(opened) if opened.speaks_aware() => {
                let pipe = opened.pipe();
                opened.start(ClientLink::socket(theirs.into(), Bytes::new()), Seat::take(&self.process));
                pipe
            }
            Verdict::Open(_) => {
                return Err(bad("the worker picked a subprotocol that was not offered with ours").into());
            }
            Verdict::Greet(greeting) => {
                let pipe = greeting.pipe();
                tokio::spawn(greeting.hear(theirs.into(), Bytes::new()));
                pipe
            }
            Verdict::Refuse(refused) => return Err(refused),
            Verdict::Relay(_) | Verdict::Resume(..) => return Err(unknown().into()),
        };
        self.welcome(pipe, ours, hello.words).await
    }

    /// Says hello to the pipe, and gives its answer to the client.
    async fn welcome(
        &self,
        pipe: PipeId,
        stream: MemoryStream,
        hello: Map<String, Value>,
    ) -> Result<Response<Body>, Refused> {
        let bounds = self.bounds();
        let early = Early::new(bounds.early_posts_max, bounds.early_bytes_max);
        let mut session = Session::new(pipe, stream, early, rand::random());
        let words = session.greet(hello).await.map_err(|close| match close {
            Some(close) => bad(format!("the hello is malformed: {}", close.reason)),
            None => gone(),
        })?;
        let status = match words.get("t").and_then(Value::as_str) {
            Some("welcome" | "resumed") => {
                self.process.sessions.add(Arc::new(session));
                StatusCode::OK
            }
            _ if words.get("why").and_then(Value::as_str) == Some("expired") => StatusCode::GONE,
            _ => StatusCode::NOT_FOUND,
        };
        Ok(answer(status, HELLO_TYPE, format!("{}\n", Value::Object(words))))
    }

    /// Whether the request shows the token that this session's client got.
    pub(super) fn is_its_own(&self, session: &Session, request: &Request) -> bool {
        let ring = self.process.resume_keys.load();
        let claims = token(&request.parts).and_then(|token| ring.verify(token, UnixTime::now()).ok());
        claims.is_some_and(|claims| claims.pipe == session.pipe() && claims.generation == session.generation())
    }
}

impl Hello {
    fn read(body: &[u8]) -> Result<Self, Refused> {
        let Ok(Value::Object(mut words)) = serde_json::from_slice(body) else {
            return Err(bad("a hello is a JSON object").into());
        };
        if words.get("t").and_then(Value::as_str) != Some("hello") {
            return Err(bad(r#"the first word has to be {"t":"hello","v":1}"#).into());
        }
        // Before a worker is asked for anything.
        if words.get("v").and_then(Value::as_u64) != Some(1) {
            return Err(bad("this proxy speaks version 1: \"v\":1").into());
        }
        let apps = match words.remove("protocols") {
            None => Vec::new(),
            Some(Value::Array(apps)) if apps.len() <= PROTOCOLS_MAX => apps,
            Some(_) => return Err(bad("protocols has to be a list of subprotocols, 32 at most").into()),
        };
        if !is_word(&Value::Object(words.clone()).to_string()) {
            return Err(bad("the hello is malformed: resume needs id, token, epoch, rx and tx").into());
        }
        let mut names = Vec::new();
        for app in apps {
            let Some(name) = app.as_str().filter(|name| is_token(name)) else {
                return Err(bad("protocols has to be a list of subprotocols").into());
            };
            names.push(name.to_owned());
        }
        let offers = offers(&words, names);
        Ok(Self { words, offers })
    }
}

/// What the client would offer at a handshake.
fn offers(words: &Map<String, Value>, apps: Vec<String>) -> Vec<String> {
    let mut offers: Vec<String> = apps.iter().map(|app| format!("holdline.v1+{app}")).collect();
    if apps.is_empty() {
        offers.push("holdline.v1".to_owned());
    }
    let id = words.get("resume").and_then(|resume| resume.get("id")).and_then(Value::as_str);
    offers.extend(id.map(|id| format!("holdline.pipe.{id}")));
    offers.extend(apps);
    offers
}

/// Makes of the request what a handshake would be: nothing of ours reaches a worker.
fn as_handshake(parts: &mut Parts) {
    parts.method = Method::GET;
    for name in [ACCEPT, CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    if token(parts).is_some() {
        parts.headers.remove(AUTHORIZATION);
    }
    let path = parts.uri.path();
    let query = workers_query(parts.uri.query().unwrap_or_default());
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Ok(target) = PathAndQuery::try_from(target) {
        uri.path_and_query = Some(target);
    }
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
}
