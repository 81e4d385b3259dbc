//! The body of every response that leaves the public listener.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::relayed::RelayedBody;
use crate::handshake::dial::RefusedBody;

/// A response body: ours, or a backend's passing through.
#[derive(Debug)]
pub enum Body {
    /// Bytes of our own.
    Full(Full<Bytes>),
    /// A backend's answer to plain HTTP.
    Relayed(RelayedBody),
    /// A backend's answer to a handshake that it refused.
    Refused(Box<RefusedBody>),
    /// An answer that is made while it is read.
    Live(UnsyncBoxBody<Bytes, io::Error>),
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

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
            Self::Refused(body) => Pin::new(body).poll_frame(cx),
            Self::Live(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Relayed(body) => body.is_end_stream(),
            Self::Refused(body) => body.is_end_stream(),
            Self::Live(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Relayed(body) => body.size_hint(),
            Self::Refused(body) => body.size_hint(),
            Self::Live(body) => body.size_hint(),
        }
    }
}
