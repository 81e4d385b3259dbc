//! The body of a request on its way to a backend: the client's own, read only as fast as the backend takes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::stream_body::StreamBody;
use super::talk::Talk;
use crate::handshake::forward::clean_trailers;

/// A request's body.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// The client's. Boxed, because each worker connection has room for 32 requests.
    Streamed(Box<Streamed>),
}

/// A body on its way.
#[derive(Debug)]
pub struct Streamed {
    body: Source,
    progress: Progress,
}

/// Where a client's body comes from.
#[derive(Debug)]
pub enum Source {
    /// A connection that speaks HTTP/1.
    Connection(Incoming),
    /// A stream of HTTP/2.
    Stream(StreamBody),
}

impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Self::Connection(body)
    }
}

impl From<StreamBody> for Source {
    fn from(body: StreamBody) -> Self {
        Self::Stream(body)
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Connection(body) => Pin::new(body).poll_frame(cx).map_err(io::Error::other),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Connection(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Connection(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// When a body last moved: the wait for the answer to it begins then.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    talk: Arc<Talk>,
    start: Instant,
    moved_ms: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// A body of this conversation that has not moved yet.
    fn new(talk: Arc<Talk>) -> Self {
        let (start, moved_ms, ended) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Shared { talk, start, moved_ms, ended }))
    }

    /// When it last moved.
    pub fn moved_at(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed))
    }

    /// Whether the backend has been given all of it.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed)
    }

    fn moved(&self, ended: bool) {
        let moved = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved_ms.store(moved, Ordering::Relaxed);
        self.0.ended.store(ended, Ordering::Relaxed);
        if ended {
            self.0.talk.read_whole();
        }
    }
}

impl RequestBody {
    /// The body of a request in this conversation.
    #[must_use]
    pub fn new(body: impl Into<Source>, talk: &Arc<Talk>) -> Self {
        let body = body.into();
        if body.is_end_stream() {
            return Self::Empty;
        }
        talk.body_follows();
        Self::Streamed(Box::new(Streamed { body, progress: Progress::new(talk.clone()) }))
    }

    /// When it moves, if there is any.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streamed(streamed) => Some(streamed.progress.clone()),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Self::Streamed(streamed) = self {
            streamed.progress.0.talk.dismiss();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(streamed) => {
                let Streamed { body, progress } = &mut **streamed;
                let polled = Pin::new(&mut *body).poll_frame(cx);
                if let Poll::Ready(frame) = &polled {
                    let trailers = matches!(frame, Some(Ok(frame)) if frame.is_trailers());
                    progress.moved(frame.is_none() || trailers || body.is_end_stream());
                }
                polled.map(|frame| frame.map(|frame| frame.map(clean_trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}
