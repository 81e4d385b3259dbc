//! The answer to a poll that goes on: server-sent events (HTML standard, section 9.2), one for each line.
//!
//! ```text
//! id: EPOCH-SEQ
//! data: {"seq":SEQ,"text":"…"}
//! ```
//! A comment goes out while nothing is said, so that proxies in between see life. Invariant: what was written counts for
//! nothing; what the client acknowledges does. A newer poll or stream ends this one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame};

use crate::fallback::{Polled, Session, Since, Told};
use crate::metrics::GaugeGuard;

/// From one comment to the next.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// A comment.
const COMMENT: &[u8] = b":\n\n";

type Polling = Pin<Box<dyn Future<Output = Polled> + Send>>;

/// The events of one session.
pub struct Events {
    session: Arc<Session>,
    bytes_max: usize,
    since: Since,
    polling: Option<Polling>,
    _parked: GaugeGuard,
}

impl Events {
    /// The events from there on.
    #[must_use]
    pub fn new(session: Arc<Session>, since: Since, bytes_max: usize, parked: GaugeGuard) -> Self {
        Self { session, bytes_max, since, polling: None, _parked: parked }
    }

    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        let polling = self.polling.get_or_insert_with(|| {
            let (session, since, bytes_max) = (self.session.clone(), self.since, self.bytes_max);
            Box::pin(async move { session.poll(since, COMMENT_EVERY, bytes_max).await })
        });
        let polled = ready!(polling.as_mut().poll(cx));
        self.polling = None;
        Poll::Ready(polled)
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let events = self.get_mut();
        let data = match ready!(events.poll_session(cx)) {
            Polled::Lines(lines) => {
                if let Some(last) = lines.last() {
                    events.since = Since::Line(last.next);
                }
                written(events.session.epoch(), &lines)
            }
            Polled::Nothing => Bytes::from_static(COMMENT),
            Polled::Replaced | Polled::Over => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// Lines as events.
fn written(epoch: u64, lines: &[Told]) -> Bytes {
    let mut out = BytesMut::with_capacity(lines.iter().map(|line| line.json.len() + 64).sum());
    for line in lines {
        out.put_slice(format!("id: {epoch}-{}\ndata: ", line.seq).as_bytes());
        // JSON has its line ends escaped, so that each line is one line of data.
        out.put_slice(&line.json);
        out.put_slice(b"\n\n");
    }
    out.freeze()
}
