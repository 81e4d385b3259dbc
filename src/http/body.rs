//! The body of every response that leaves the public listener.

use bytes::Bytes;
use http_body_util::Full;

/// A response body: ours, or a backend's passing through.
#[derive(Debug)]
pub enum Body {
    /// Bytes of our own.
    Full(Full<Bytes>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body of our own.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}
