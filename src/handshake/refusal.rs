//! Every "no" that Holdline itself says to a client, as a value; the protocol that it came by puts it into words.
//!
//! Refuses to carry anything from the request or the backend: texts are ours, so no input is ever echoed.

use std::borrow::Cow;
use std::time::Duration;

use holdline_core::pool::NoCandidate;
use http::header::{ALLOW, CONNECTION, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, StatusCode};

use crate::backends::NoBackend;

/// When a client that found no backend should come back.
const NO_BACKEND_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A refused request: what the client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// Headers that belong to the status (`Allow`, `Upgrade`, `Retry-After`…).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Stable name of the problem, the last part of its `type`.
    pub slug: &'static str,
    /// What was wrong and what to do about it, for a person.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal without headers of its own.
    #[must_use]
    pub fn new(status: StatusCode, slug: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, headers: Vec::new(), slug, detail: detail.into() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with `Retry-After`, rounded up to whole seconds and at least 1.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).clamp(1, 86_400);
        let value = u32::try_from(seconds).unwrap_or(86_400);
        self.with(RETRY_AFTER, HeaderValue::from(value))
    }

    /// 426: the client must speak WebSocket version 13 (RFC 6455 section 4.4).
    #[must_use]
    pub fn version() -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "websocket-version", "send Sec-WebSocket-Version: 13")
            .with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .upgrade_required()
    }

    /// 426: a request without an upgrade on a WebSocket-only route.
    #[must_use]
    pub fn websocket_only() -> Self {
        let detail = "this address speaks WebSocket only; if your client did ask for an upgrade, something in front of this proxy removed the Upgrade header";
        Self::new(StatusCode::UPGRADE_REQUIRED, "websocket-only", detail).upgrade_required()
    }

    /// 405: something other than GET where only a WebSocket handshake is served.
    #[must_use]
    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "a WebSocket handshake is a GET request").allow("GET")
    }

    /// The same with `Allow`.
    #[must_use]
    pub fn allow(self, methods: &'static str) -> Self {
        self.with(ALLOW, HeaderValue::from_static(methods))
    }

    /// 508: what the request is for leads back here.
    #[must_use]
    pub fn looped() -> Self {
        let detail = "a backend of this address leads back to this proxy, directly or through other proxies; register the address of a worker instead";
        Self::new(StatusCode::LOOP_DETECTED, "loop", detail)
    }

    /// 404 where no backend serves the key, else 503: none can take this now.
    #[must_use]
    pub fn no_backend(pool: &str, none: &NoBackend) -> Self {
        if none.reason == NoCandidate::NoOwner {
            return Self::new(StatusCode::NOT_FOUND, "no-owner", "no backend serves this key");
        }
        let detail = format!("no backend of pool '{pool}' can take this now");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-backend", detail).retry_after(NO_BACKEND_RETRY_AFTER)
    }

    fn upgrade_required(self) -> Self {
        self.with(UPGRADE, HeaderValue::from_static("websocket")).with(CONNECTION, HeaderValue::from_static("Upgrade"))
    }
}
