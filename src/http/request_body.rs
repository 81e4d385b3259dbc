//! The body of a request on its way to a backend: the client's own, read only as fast as the backend takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// A request's body.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// The client's.
    Streamed(Incoming, Progress),
}

/// When a body last moved, for whoever waits for the answer to it.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    moved_ms: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// A body that has not moved yet.
    pub fn new() -> Self {
        Self(Arc::new(Shared { start: Instant::now(), moved_ms: AtomicU64::new(0), ended: AtomicBool::new(false) }))
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
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body, progress) => {
                let polled = Pin::new(&mut *body).poll_frame(cx);
                if let Poll::Ready(frame) = &polled {
                    progress.moved(frame.is_none() || body.is_end_stream());
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body, _) => body.size_hint(),
        }
    }
}
