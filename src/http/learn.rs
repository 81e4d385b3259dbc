//! Keys that workers make up: taken from what they answer, so that who asks for a key next meets the worker that has it.
//!
//! What passes is looked at as it passes, up to [`BODY_BYTES_MAX`], and never held up. Invariant: a key is known before the
//! client has the end of the answer that names it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::ids::BackendKey;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use serde_json::Value;

use crate::backends::Backends;
use crate::metrics::RouteMetrics;
use crate::metrics::labels::LearnResult;

/// Bytes of an answer in which a key is looked for.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a key that is learned.
const KEY_BYTES_MAX: usize = 256;

/// Reads along in one answer.
pub(super) struct Learner {
    pub backends: Backends,
    pub pool: String,
    pub backend: BackendKey,
    /// Where the key stands (RFC 6901).
    pub pointer: String,
    pub ttl: Duration,
    pub metrics: Arc<RouteMetrics>,
    /// What has passed so far; nothing once that is too much, or a key was found.
    pub seen: Option<Vec<u8>>,
}

impl Learner {
    /// Whether an answer with these headers can be read along.
    pub fn can_read(headers: &HeaderMap) -> bool {
        headers.get(CONTENT_ENCODING).is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// Takes in what passes next.
    pub fn passes(&mut self, data: &[u8]) {
        let Some(seen) = &mut self.seen else { return };
        if seen.len() + data.len() > BODY_BYTES_MAX {
            self.seen = None;
            return self.metrics.learned(LearnResult::Unreadable).inc();
        }
        seen.extend_from_slice(data);
        // It may be whole though its end has not been said.
        if seen.trim_ascii_end().ends_with(b"}")
            && let Ok(value) = serde_json::from_slice(seen)
        {
            self.read(&value);
        }
    }

    /// The answer has passed.
    pub fn ends(&mut self) {
        if self.seen.take().is_some() {
            self.metrics.learned(LearnResult::Unreadable).inc();
        }
    }

    fn read(&mut self, answer: &Value) {
        self.seen = None;
        let key = match answer.pointer(&self.pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => String::new(),
        };
        let is_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        if is_key {
            self.backends.learn(&self.pool, &key, self.backend, self.ttl);
        }
        self.metrics.learned(if is_key { LearnResult::Learned } else { LearnResult::Absent }).inc();
    }
}

impl fmt::Debug for Learner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learner({} in {})", self.pointer, self.pool)
    }
}
