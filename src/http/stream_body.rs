//! The body of a request on a stream of HTTP/2.
//!
//! Invariant: the client may send as much more as was taken, and no more: the window of its stream opens with each frame
//! that is passed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, SizeHint};

/// A request's body.
#[derive(Debug)]
pub struct StreamBody {
    stream: RecvStream,
    /// What is left of its length, if that was said. That as much comes is looked after by the protocol.
    left: Option<u64>,
    /// All data has come; trailers may follow.
    trailers_follow: bool,
}

impl StreamBody {
    /// The body behind a request's head with these `headers`.
    #[must_use]
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, left: length, trailers_follow: false }
    }

    fn take(&mut self, data: Bytes) -> Frame<Bytes> {
        // It fails for a stream that is closed, which needs no window.
        let _ = self.stream.flow_control().release_capacity(data.len());
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Frame::data(data)
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if !this.trailers_follow {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(this.take(data)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => this.trailers_follow = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx)).map_err(io::Error::other);
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
