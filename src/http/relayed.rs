//! The body of a backend's answer on its way to a client, which holds on to the connection that it comes from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connections::Lease;

/// A backend's body; dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct RelayedBody {
    body: Incoming,
    lease: Option<Lease>,
}

impl RelayedBody {
    pub(super) fn new(body: Incoming, lease: Lease) -> Self {
        let mut relayed = Self { body, lease: Some(lease) };
        relayed.finish_at_end();
        relayed
    }

    fn finish_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }
}

impl Body for RelayedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.finish_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.lease = None;
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            None => {
                if let Some(lease) = this.lease.take() {
                    lease.finish();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
