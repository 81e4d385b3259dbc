//! The body of a backend's answer on its way to a client, which holds on to the connection that it comes from.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connections::Lease;
use super::learn::Learner;
use crate::backends::Reservation;
use crate::handshake::forward::clean_trailers;

/// A backend's body; dropped before its end, it closes the connection.
#[derive(Debug)]
pub struct RelayedBody {
    body: Incoming,
    /// Until the end of the body: its connection, and that the backend has this request.
    held: Option<(Lease, Reservation)>,
    /// Looks for a key in it.
    learner: Option<Box<Learner>>,
}

impl RelayedBody {
    pub(super) fn new(body: Incoming, lease: Lease, backend: Reservation, learner: Option<Box<Learner>>) -> Self {
        let mut relayed = Self { body, held: Some((lease, backend)), learner };
        if relayed.body.is_end_stream() {
            relayed.finish();
        }
        relayed
    }

    fn finish(&mut self) {
        if let Some(learner) = &mut self.learner {
            learner.ends();
        }
        if let Some((lease, _)) = self.held.take() {
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
                if let (Some(learner), Some(data)) = (&mut this.learner, frame.data_ref()) {
                    learner.passes(data);
                }
                // Trailers are the end, though the body does not say so.
                if frame.is_trailers() || this.body.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(clean_trailers(frame))))
            }
            Some(Err(error)) => {
                this.held = None;
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            None => {
                this.finish();
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
