//! What a viewer's pipe has in place of a worker's socket.
//!
//! It hands out the worker's messages as they are held for all viewers, without a copy, and takes whole messages of its
//! viewer. Dropped, it gives the viewer's place back.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::frame::Side;
use holdline_core::pipe::Loss;
use holdline_core::settings::DownPolicy;
use holdline_core::shared::cutter::Cutter;
use holdline_core::shared::{Seat, Taken};

use super::{Hub, cut_off};
use crate::metrics::RouteMetrics;

/// Messages that a viewer's pipe takes before it writes again.
const BATCH_MESSAGES_MAX: u32 = 16;

/// A viewer's end of the link between its pipe and the stream's.
#[derive(Debug)]
pub struct ViewerLink {
    hub: Arc<Hub>,
    /// Gone only while it is dropped.
    seat: Option<Seat>,
    cutter: Cutter,
    messages: Vec<Bytes>,
    /// What the viewer's pipe said at the end and was not answered yet.
    said_close: Option<CloseFrame>,
    over: bool,
    batch: u32,
    route: Arc<RouteMetrics>,
}

impl ViewerLink {
    /// The link of the viewer that sits on `seat` of `hub`, whose pipe obeys `down`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, seat: Seat, down: DownPolicy, route: Arc<RouteMetrics>) -> Self {
        let batch = match down {
            DownPolicy::Keep => BATCH_MESSAGES_MAX,
            // With more at once, some would be dropped though the client might take them.
            DownPolicy::Latest(keep) => keep.get().min(BATCH_MESSAGES_MAX),
        };
        Self {
            hub,
            seat: Some(seat),
            cutter: Cutter::new(Side::Client),
            messages: Vec::new(),
            said_close: None,
            over: false,
            batch,
            route,
        }
    }

    /// The stream.
    #[must_use]
    pub const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Messages that may be taken before what was taken is written.
    #[must_use]
    pub const fn batch(&self) -> u32 {
        self.batch
    }

    /// What comes next from the stream; if nothing, the task hears when that changes.
    pub fn take(&mut self, cx: &mut Context<'_>) -> Taken {
        if self.over {
            return Taken::Nothing;
        }
        if let Some(frame) = self.said_close.take() {
            self.over = true;
            return Taken::End(frame);
        }
        let Some(seat) = &mut self.seat else { return Taken::Nothing };
        let taken = self.hub.take(seat, cx.waker());
        self.over = matches!(taken, Taken::End(_));
        taken
    }

    /// Takes in whole messages of the viewer, as many bytes of `slices` as there is room for.
    ///
    /// # Errors
    /// The bytes are not what a pipe writes: a fault of ours.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(seat) = &self.seat else { return Poll::Pending };
        let room = self.hub.room(seat, cx.waker());
        if room == 0 {
            return Poll::Pending;
        }
        let (taken, end) = cut_off(&mut self.cutter, slices, room, &mut self.messages)?;
        if end.is_some() {
            self.said_close = end;
            // The answer can be read now, and nothing else says so.
            cx.waker().wake_by_ref();
        }
        if !self.messages.is_empty() {
            self.hub.offer(seat, &mut self.messages);
        }
        Poll::Ready(Ok(taken))
    }
}

impl Drop for ViewerLink {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.route.up.lost(Loss::Closed).inc_by(self.hub.leave(seat));
        }
    }
}
