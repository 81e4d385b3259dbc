//! Plain HTTP of the worker, and the way from HTTP to a WebSocket.
//!
//! | method and path | answers |
//! |---|---|
//! | `GET /`, `/static/worker.js`, `/static/worker.css` | a page with this worker's screens |
//! | `GET /health`, `/stats`, `/status` | the facts a device bridge tells |
//! | `GET /api/sessions`, `/api/sessions/{session}` | what the phones have seen |
//! | `GET /api/sessions/{session}/screenshot` | a JPEG |
//! | `GET /api/sessions/{session}/download?bytes=&chunked=1` | so many bytes, streamed, their digest in `X-Checksum-Sha256` |
//! | `POST /api/sessions/{session}/upload` | count and digest of the body, streamed |
//! | `GET /api/poll?hold_ms=` | an answer after that time |
//! | `GET /api/forbidden`, `/api/private` | 403, and 401 unless Basic `demo:demo` |
//! | any `/api/echo` | method, path, query and headers as they came |

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::extract::Query as FormQuery;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    upgrade::OnUpgrade,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    App,
    device::Device,
    faults::{Link, RejectMode},
    journal::{Opened, headers_json, hex, now_ms},
    knobs,
    server::UpgradeSlot,
    sockets::{CHANNELS, Query, Upgrade},
};

/// The longest download.
const DOWNLOAD_BYTES_MAX: u64 = 1 << 30;
/// What a download is without `?bytes=`: a screen recording of a few seconds.
const DOWNLOAD_BYTES: u64 = 2_700_000;
/// Bytes of a download that are made at once.
const CHUNK_BYTES: u64 = 64 << 10;
/// The longest that a poll is held.
const HOLD_MAX: Duration = Duration::from_secs(600);
/// The longest session id.
const SESSION_BYTES_MAX: usize = 128;
/// The memory limit that the seed reports, in MiB.
const LIMIT_MB: f64 = 2_048.0;

/// A response's body: whole or streamed.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The knobs want this connection dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped on purpose")]
pub(super) struct Dropped;

/// Answers one request, or leaves an upgrade in `slot` and answers 101.
///
/// # Errors
/// When the connection is to be dropped.
pub(super) async fn answer(
    app: Arc<App>,
    link: Arc<Link>,
    slot: UpgradeSlot,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let query = FormQuery::try_from_uri(request.uri()).map(|FormQuery(fields)| Query(fields)).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let segments: Vec<_> = path.split('/').skip(1).collect();
    if let ["ws", session, channel] = segments[..]
        && CHANNELS.contains(&channel)
        && session.len() <= SESSION_BYTES_MAX
    {
        let on = hyper::upgrade::on(&mut request);
        let (head, _) = request.into_parts();
        let opened = opened(&head, session, channel, &query);
        return upgrade(&app, &link, &head, opened, slot, (on, query));
    }
    if let ["__journal"] = segments[..] {
        return Ok(knobs::journal(&app, request.method(), &query).await);
    }
    if let [knob] = segments[..]
        && let Some(name) = knob.strip_prefix("__")
    {
        return Ok(knobs::turn(&app, &link, name, request.method(), &query));
    }
    let mut noted = Noted::new(&app, &request);
    let mut response = plain(&app, &segments, &query, request).await;
    noted.status = Some(response.status());
    if let Ok(name) = app.name.parse() {
        response.headers_mut().insert("x-worker", name);
    }
    Ok(response)
}

/// A plain request's entry in the journal; ends with it, answered or not: hyper drops the handler when the client goes away.
struct Noted<'a> {
    app: &'a App,
    entry: Arc<Mutex<Map<String, Value>>>,
    status: Option<StatusCode>,
}

impl<'a> Noted<'a> {
    fn new(app: &'a App, request: &Request<Incoming>) -> Self {
        let mut entry = Map::new();
        entry.insert("method".into(), request.method().as_str().into());
        entry.insert("path".into(), request.uri().path().into());
        entry.insert("query".into(), request.uri().query().unwrap_or_default().into());
        entry.insert("headers".into(), headers_json(request.headers()));
        entry.insert("began_ms".into(), now_ms().into());
        Self { app, entry: app.journal.began(entry), status: None }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let status = self.status.map(|status| status.as_u16());
        self.app.journal.ended(&self.entry, status);
    }
}

fn opened(head: &Parts, session: &str, channel: &str, query: &Query) -> Opened {
    let told = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    Opened {
        session: session.into(),
        channel: channel.into(),
        path: head.uri.path().into(),
        query: head.uri.query().unwrap_or_default().into(),
        pipe: told("holdline-pipe").map(Into::into),
        attach: told("holdline-attach").and_then(|number| number.parse().ok()),
        headers: headers_json(&head.headers),
        record: query.flag("record").unwrap_or(false),
    }
}

fn upgrade(
    app: &App,
    link: &Link,
    head: &Parts,
    opened: Opened,
    slot: UpgradeSlot,
    (on, query): (OnUpgrade, Query),
) -> Result<Response<Body>, Dropped> {
    let accept = match accept_key(head) {
        Ok(accept) => accept,
        Err(status) => return Ok(refuse_upgrade(status)),
    };
    let (session, channel) = (opened.session.as_str(), opened.channel.as_str());
    let reject = app.faults.rejected(session, channel);
    match reject {
        Some(RejectMode::Drop) => return Err(Dropped),
        Some(RejectMode::Forbidden) => {
            return Ok(json_response(StatusCode::FORBIDDEN, &json!({ "detail": "Forbidden" })));
        }
        Some(RejectMode::TooMany) => {
            let mut response =
                json_response(StatusCode::TOO_MANY_REQUESTS, &json!({ "detail": "Too many connections" }));
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            return Ok(response);
        }
        Some(RejectMode::Silent | RejectMode::NotFound) | None => {}
    }
    link.place(session, channel);
    let mute = app.faults.is_mute(session, channel);
    let page = app.journal.open(opened);
    *super::lock(&slot) = Some(Upgrade { on, page, query, reject, mute });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    if let Ok(value) = accept.parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(value) = subprotocol(&head.headers).and_then(|name| name.parse().ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(response)
}

/// RFC 6455, section 4.2.1.
fn accept_key(head: &Parts) -> Result<String, StatusCode> {
    let has = |name, wanted: &str| {
        let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(header::UPGRADE, "websocket") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    if head.method != Method::GET || !has(header::CONNECTION, "upgrade") {
        return Err(StatusCode::BAD_REQUEST);
    }
    if head.headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    let key = head.headers.get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    match STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(derive_accept_key(key.as_bytes())),
        Ok(_) | Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn refuse_upgrade(status: StatusCode) -> Response<Body> {
    let mut response = json_response(status, &json!({ "detail": "This is a WebSocket" }));
    if status == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, header::HeaderValue::from_static("13"));
    }
    response
}

/// The first one offered that isn't the proxy's own.
fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers
        .flat_map(|offer| offer.split(','))
        .map(str::trim)
        .find(|name| !name.is_empty() && !name.starts_with("holdline."))
}

async fn plain(app: &App, segments: &[&str], query: &Query, request: Request<Incoming>) -> Response<Body> {
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    match segments {
        ["api", "echo"] => echo(&request),
        ["api", "sessions", session, rest @ ..] => match owned(app, session) {
            Some(device) => phone(app, &device, rest, query, request).await,
            None => json_response(StatusCode::NOT_FOUND, &json!({ "detail": "Session not found" })),
        },
        _ if !get => json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({ "detail": "Method Not Allowed" })),
        [""] => whole("text/html; charset=utf-8", include_str!("page.html")),
        ["static", "worker.js"] => whole("text/javascript; charset=utf-8", include_str!("page.js")),
        ["static", "worker.css"] => whole("text/css; charset=utf-8", include_str!("page.css")),
        ["health"] => json_response(StatusCode::OK, &health(app)),
        ["stats"] => json_response(StatusCode::OK, &stats(app)),
        ["status"] => json_response(StatusCode::OK, &status(app)),
        ["api", "sessions"] => json_response(StatusCode::OK, &json!({ "sessions": app.devices.list() })),
        ["api", "poll"] => poll(app, query).await,
        ["api", "forbidden"] => json_response(StatusCode::FORBIDDEN, &json!({ "detail": "Forbidden" })),
        ["api", "private"] => private(request.headers()),
        _ => json_response(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" })),
    }
}

async fn phone(app: &App, device: &Device, rest: &[&str], query: &Query, request: Request<Incoming>) -> Response<Body> {
    match (request.method().as_str(), rest) {
        ("GET" | "HEAD", []) => json_response(StatusCode::OK, &device.describe(&app.name)),
        ("GET" | "HEAD", ["screenshot"]) => match app.devices.frame(device).await {
            Some(frame) => whole("image/jpeg", frame.jpeg.clone()),
            None => json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "detail": "No picture" })),
        },
        ("GET" | "HEAD", ["download"]) => download(query).await,
        ("POST", ["upload"]) => upload(request.into_body()).await,
        (_, [] | ["screenshot" | "download" | "upload"]) => {
            json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({ "detail": "Method Not Allowed" }))
        }
        _ => json_response(StatusCode::NOT_FOUND, &json!({ "detail": "Not Found" })),
    }
}

fn owned(app: &App, session: &str) -> Option<Arc<Device>> {
    if session.is_empty() || session.len() > SESSION_BYTES_MAX || !app.options.owns(session) {
        return None;
    }
    app.devices.of(session)
}

fn status(app: &App) -> Value {
    let sessions = app.devices.list();
    json!({ "total_sessions": sessions.len(), "sessions": sessions, "status": "healthy" })
}

fn health(app: &App) -> Value {
    let draining = *app.stop.borrow();
    let rss_mb = rss_mb();
    json!({
        "status": if draining { "draining" } else { "healthy" },
        "service": "Holdline demo worker", "worker": app.name, "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": app.started.elapsed().as_secs(), "total_sessions": app.devices.list().len(),
        "resources": { "memory": {
            "rss_mb": rss_mb, "limit_mb": LIMIT_MB, "percent": rss_mb * 100.0 / LIMIT_MB, "available_mb": LIMIT_MB - rss_mb,
        } },
    })
}

fn stats(app: &App) -> Value {
    let open = app.faults.open();
    let total: u64 = open.values().sum();
    let mut stats = health(app);
    stats["connections"] = json!({ "total": total, "by_type": open });
    stats["services"] = json!({
        "video_services": open.get("video").copied().unwrap_or(0), "webrtc_services": open.get("webrtc").copied().unwrap_or(0),
        "total_clients": total,
    });
    stats
}

/// Resident memory in MiB; 0 where the system doesn't tell.
fn rss_mb() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4_096.0 / 1_048_576.0
}

async fn poll(app: &App, query: &Query) -> Response<Body> {
    let hold = Duration::from_millis(query.get("hold_ms").unwrap_or(1_000)).min(HOLD_MAX);
    sleep(hold).await;
    json_response(StatusCode::OK, &json!({ "held_ms": hold.as_millis() as u64, "worker": app.name }))
}

fn private(headers: &HeaderMap) -> Response<Body> {
    let wanted = format!("Basic {}", STANDARD.encode("demo:demo"));
    if headers.get(header::AUTHORIZATION).is_some_and(|value| value == wanted.as_str()) {
        return json_response(StatusCode::OK, &json!({ "user": "demo" }));
    }
    let mut response = json_response(StatusCode::UNAUTHORIZED, &json!({ "detail": "Unauthorized" }));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"worker\""));
    response
}

fn echo(request: &Request<Incoming>) -> Response<Body> {
    let uri = request.uri();
    let seen = json!({
        "method": request.method().as_str(), "path": uri.path(), "query": uri.query(), "headers": headers_json(request.headers()),
    });
    json_response(StatusCode::OK, &seen)
}

async fn upload(mut body: Incoming) -> Response<Body> {
    let (mut bytes, mut digest) = (0_u64, Sha256::new());
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                bytes += data.len() as u64;
                digest.update(&data);
            }
            Ok(Err(_trailers)) => {}
            Err(_) => {
                return json_response(
                    StatusCode::BAD_REQUEST,
                    &json!({ "detail": "The body broke off", "bytes": bytes }),
                );
            }
        }
    }
    json_response(StatusCode::OK, &json!({ "bytes": bytes, "sha256": hex(&digest.finalize()) }))
}

async fn download(query: &Query) -> Response<Body> {
    let bytes = query.get("bytes").unwrap_or(DOWNLOAD_BYTES).min(DOWNLOAD_BYTES_MAX);
    let digest = tokio::task::spawn_blocking(move || {
        let mut digest = Sha256::new();
        Payload::new(bytes).for_each(|chunk| digest.update(&chunk));
        hex(&digest.finalize())
    });
    let frames = Payload::new(bytes).map(|chunk| Ok(Frame::data(chunk)));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    if !query.flag("chunked").unwrap_or(false) {
        headers.insert(header::CONTENT_LENGTH, bytes.into());
    }
    if let Ok(Ok(value)) = digest.await.map(|digest| digest.parse()) {
        headers.insert("x-checksum-sha256", value);
    }
    response
}

/// Bytes that compress badly and are the same each time.
struct Payload {
    left: u64,
    state: u64,
}

impl Payload {
    fn new(bytes: u64) -> Self {
        Self { left: bytes, state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Iterator for Payload {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let bytes = self.left.min(CHUNK_BYTES) as usize;
        self.left -= bytes as u64;
        let mut chunk = Vec::with_capacity(bytes + 8);
        while chunk.len() < bytes {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.extend_from_slice(&self.state.to_le_bytes());
        }
        chunk.truncate(bytes);
        (bytes > 0).then(|| chunk.into())
    }
}

/// A JSON response with this status.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = whole("application/json", body.to_string());
    *response.status_mut() = status;
    response
}

fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn empty() -> Body {
    http_body_util::Empty::new().boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_has_as_many_bytes_as_asked_for() {
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 200_000] {
            let made: u64 = Payload::new(bytes).map(|chunk| chunk.len() as u64).sum();
            assert_eq!(made, bytes);
        }
    }

    #[test]
    fn the_proxys_own_subprotocol_is_not_picked() {
        let offered = |offer: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offer.parse().unwrap());
            subprotocol(&headers).map(str::to_owned)
        };
        assert_eq!(offered("holdline.v1+app, app, other").as_deref(), Some("app"));
        assert_eq!(offered("holdline.v1"), None);
    }
}
