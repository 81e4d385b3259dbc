//! The body of a request on a stream of HTTP/2.
//!
//! Invariants: the client may send as much more as was taken, and no more: the window of its stream opens with each frame
//! that is passed on. What of it is left when it is not wanted any more goes back to its stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::linger::LingerLimits;

/// A request's body.
#[derive(Debug)]
pub struct StreamBody {
    /// There until it is given back.
    stream: Option<RecvStream>,
    rest: Option<oneshot::Sender<RecvStream>>,
    /// What is left of its length, if that was said. That as much comes is looked after by the protocol.
    left: Option<u64>,
    /// All data has come; trailers may follow.
    trailers_follow: bool,
}

impl StreamBody {
    /// The body behind a request's head with these `headers`; and what is not read of it, once that is known.
    #[must_use]
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> (Self, Rest) {
        let left = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (rest, unread) = oneshot::channel();
        (Self { stream: Some(stream), rest: Some(rest), left, trailers_follow: false }, Rest(unread))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some((stream, rest)) = self.stream.take().filter(|stream| !stream.is_end_stream()).zip(self.rest.take())
        {
            // If nothing waits for it, the stream is let go.
            let _ = rest.send(stream);
        }
    }
}

/// What no worker has read of a body.
#[derive(Debug)]
pub struct Rest(oneshot::Receiver<RecvStream>);

impl Rest {
    /// All of it.
    #[must_use]
    pub fn of(stream: RecvStream) -> Self {
        let (rest, unread) = oneshot::channel();
        // The other end is right here.
        let _ = rest.send(stream);
        Self(unread)
    }

    /// Reads and forgets it, within the limits. To be done behind the whole answer: RFC 9113 section 8.1 would let the stream
    /// be reset then, but some clients take that for the loss of their answer, and some hear none before all is said.
    pub async fn forget(self, limits: LingerLimits) {
        let reading = async {
            let Ok(mut stream) = self.0.await else { return };
            let mut left = limits.bytes_max;
            while let Some(Ok(data)) = stream.data().await {
                let Some(rest) = left.checked_sub(data.len() as u64) else { return };
                left = rest;
                let _ = stream.flow_control().release_capacity(data.len());
            }
        };
        // What still comes then is cut.
        let _ = tokio::time::timeout(limits.time, reading).await;
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { stream: Some(stream), left, trailers_follow, .. } = self.get_mut() else { return Poll::Ready(None) };
        if !*trailers_follow {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails for a stream that is closed, which needs no window.
                    let _ = stream.flow_control().release_capacity(data.len());
                    *left = left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => *trailers_follow = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx)).map_err(io::Error::other);
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
