//! Answers to the challenges by which a certificate authority finds out who has a name (RFC 8555 section 8.3): the files
//! of one directory, which what gets certificates (certbot, lego) writes.
//!
//! Invariant: only a file that lies in that directory itself is given out, by a name that can lead nowhere else.

use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::io::AsyncReadExt;

use crate::handshake::refusal::Refusal;
use crate::http::Body;
use crate::net::Peer;
use crate::process::Process;

/// Where challenges are asked for.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// Characters of a token.
const TOKEN_MAX: usize = 256;

/// Bytes of an answer: a token and a digest.
const ANSWER_BYTES_MAX: u64 = 4096;

/// The answer to a challenge; nothing if the request is none, or none is answered here.
pub(super) async fn answer(process: &Process, peer: Peer, parts: &Parts) -> Option<Response<Body>> {
    let token = parts.uri.path().strip_prefix(PREFIX).filter(|_| !peer.secure)?;
    let directory = process.config.load().server.tls.acme_challenges.clone()?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "a challenge is asked for by GET");
        return Some(refusal.allow("GET, HEAD").into_response());
    }
    let Some(text) = read(&directory, token).await else {
        let detail = "there is no answer to this challenge in server.tls.acme_challenges";
        return Some(Refusal::new(StatusCode::NOT_FOUND, "no-challenge", detail).into_response());
    };
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Some(response)
}

async fn read(directory: &Path, token: &str) -> Option<Bytes> {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if token.is_empty() || token.len() > TOKEN_MAX || !token.bytes().all(of_token) {
        return None;
    }
    let path = directory.join(token);
    // Not through a link, nor from what would be waited for.
    if !tokio::fs::symlink_metadata(&path).await.ok()?.is_file() {
        return None;
    }
    let (file, mut text) = (tokio::fs::File::open(&path).await.ok()?, Vec::new());
    file.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut text).await.ok()?;
    (text.len() as u64 <= ANSWER_BYTES_MAX).then(|| text.into())
}
