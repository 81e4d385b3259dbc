//! Shared streams: pipes of one route and key that ask for the same path have one worker connection between them
//! (`routes.share`).
//!
//! A stream is two kinds of ordinary pipe, joined in the same process. The stream's own pipe has the worker on its
//! backend leg and a [`StreamLink`] in place of a client; each viewer's pipe has its client, and a [`ViewerLink`] in
//! place of a worker. What passes between them is `holdline_core::shared`, behind the lock of a [`Hub`].
//!
//! Owns the table of streams by route and key, in which one newcomer at a time opens a stream while the others wait for
//! it (the door's `share`). Streams with viewers are bounded by the clients there are; those that linger by
//! [`IDLE_STREAMS_MAX`], beyond which the one that was left first goes at once.

mod hub;
mod stream_link;
mod viewer_link;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::shared::MESSAGE_OVERHEAD_BYTES;
use holdline_core::shared::cutter::{Cutter, Piece};
use http::StatusCode;
use tokio::sync::watch;

use crate::routes::{Route, Target};

pub use hub::Hub;
pub use stream_link::StreamLink;
pub use viewer_link::ViewerLink;

/// Streams that may linger without a viewer; each holds a worker connection and a descriptor that no client accounts
/// for.
pub const IDLE_STREAMS_MAX: usize = 256;

/// What pipes share a stream by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey {
    /// The route's name: a stream outlives a reload of the configuration.
    pub route: Arc<str>,
    /// The route key, or the request's path where the route has none.
    pub key: Arc<str>,
    /// The route's pool: a stream does not outlive that its route was given another.
    pool: Arc<str>,
    /// What a worker is asked for, without the query: a tap has no business in the video of its device.
    pub path: Arc<str>,
}

impl StreamKey {
    /// What a pipe on `route` for `key`, whose client asked for `path` and whose worker is asked for `target`, shares a
    /// stream by.
    #[must_use]
    pub fn new(route: &Route, key: Option<Arc<str>>, target: &Target, path: &str) -> Self {
        let asked = target.for_backend(None, None);
        Self {
            route: route.name.as_str().into(),
            key: key.unwrap_or_else(|| path.into()),
            pool: route.pool.as_str().into(),
            path: asked.split_once('?').map_or(&*asked, |(path, _)| path).into(),
        }
    }
}

/// How an attempt to open a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// It goes on.
    UnderWay,
    /// Newcomers that wait should look again.
    Over,
    /// No worker could be reached, and none would be for the newcomers that wait.
    Failed(StatusCode),
}

/// Cuts whole messages off what a pipe writes, as many as there is `room` for and the one that has begun; how many bytes
/// were taken, and the close frame, if it came.
fn cut_off(
    cutter: &mut Cutter,
    slices: &[IoSlice<'_>],
    mut room: usize,
    messages: &mut Vec<Bytes>,
) -> io::Result<(usize, Option<CloseFrame>)> {
    let (mut end, mut taken) = (None, 0);
    for slice in slices {
        let mut rest = &**slice;
        while !rest.is_empty() && (room > 0 || cutter.partial_bytes() > 0) {
            let (used, piece) = cutter.cut(rest).map_err(|_| io::ErrorKind::InvalidData)?;
            (rest, taken) = (&rest[used..], taken + used);
            match piece {
                Some(Piece::Message(message)) => {
                    room = room.saturating_sub(message.len() + MESSAGE_OVERHEAD_BYTES);
                    messages.push(message);
                }
                Some(Piece::Close(frame)) => end = Some(frame),
                None => {}
            }
        }
    }
    Ok((taken, end))
}

#[derive(Debug)]
enum Slot {
    Opening(watch::Receiver<Opening>),
    Open(Arc<Hub>),
}

/// The streams of the process.
#[derive(Debug, Default)]
pub struct Streams {
    slots: Mutex<HashMap<StreamKey, Slot>>,
    opened: AtomicU64,
    draining: AtomicBool,
    retired: AtomicBool,
}

/// How it stands with a stream that a newcomer wants.
pub enum Standing {
    /// A stream.
    Open(Arc<Hub>),
    /// Another newcomer, which is opening one.
    Opening(watch::Receiver<Opening>),
    /// Nothing: the newcomer opens the stream.
    Free(Opener),
}

/// The right to open a stream; given up when dropped.
pub struct Opener {
    streams: Arc<Streams>,
    /// The stream's.
    pub key: StreamKey,
    outcome: watch::Sender<Opening>,
    open: bool,
}

impl Streams {
    /// A lock whose holder panicked still guards a whole table.
    fn slots(&self) -> MutexGuard<'_, HashMap<StreamKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is under `key`.
    #[must_use]
    pub fn find(self: &Arc<Self>, key: &StreamKey) -> Standing {
        let mut slots = self.slots();
        match slots.get(key) {
            Some(Slot::Open(hub)) => Standing::Open(hub.clone()),
            Some(Slot::Opening(outcome)) => Standing::Opening(outcome.clone()),
            None => {
                let (outcome, heard) = watch::channel(Opening::UnderWay);
                slots.insert(key.clone(), Slot::Opening(heard));
                Standing::Free(Opener { streams: self.clone(), key: key.clone(), outcome, open: false })
            }
        }
    }

    /// Takes `hub` out, so that the next newcomer opens another stream.
    pub fn remove(&self, hub: &Arc<Hub>) {
        let mut slots = self.slots();
        if matches!(slots.get(&hub.key), Some(Slot::Open(known)) if Arc::ptr_eq(known, hub)) {
            slots.remove(&hub.key);
        }
    }

    /// The open streams, in no order.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Hub>> {
        let open = |slot: &Slot| match slot {
            Slot::Open(hub) => Some(hub.clone()),
            Slot::Opening(_) => None,
        };
        self.slots().values().filter_map(open).collect()
    }

    /// Streams opened since the process started.
    #[must_use]
    pub fn opened_total(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Has the streams' pipes book what viewers have passed on.
    pub fn settle(&self) {
        self.list().iter().for_each(|hub| hub.settle());
    }

    /// Closes every stream without viewers, for want of memory; how many those are.
    pub fn shed_idle(&self) -> usize {
        self.list().iter().filter(|hub| hub.shed()).count()
    }

    /// Whether streams go with their last viewer: the process takes no new ones, for whom they would linger.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, SeqCst);
        if draining {
            self.shed_idle();
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Closes every stream, and each that is opened from now on: the process is on its way down.
    pub fn retire(&self) {
        self.retired.store(true, SeqCst);
        self.list().iter().for_each(|hub| hub.go_away());
    }

    /// Makes room for one stream more that may linger some day.
    fn bound_idle(&self) {
        let streams = self.list();
        if streams.len() <= IDLE_STREAMS_MAX {
            return;
        }
        let mut idle: Vec<_> = streams.iter().filter_map(|hub| Some((hub.idle_since()?, hub))).collect();
        idle.sort_unstable_by_key(|&(since, _)| since);
        let surplus = idle.len().saturating_sub(IDLE_STREAMS_MAX);
        idle.iter().take(surplus).for_each(|(_, hub)| {
            hub.shed();
        });
    }
}

impl Opener {
    /// The stream is there.
    pub fn opened(mut self, hub: Arc<Hub>) {
        self.open = true;
        self.streams.slots().insert(self.key.clone(), Slot::Open(hub.clone()));
        // The others may have been retired before this one was in the table.
        if self.streams.retired.load(SeqCst) {
            hub.go_away();
        }
        self.streams.opened.fetch_add(1, Relaxed);
        self.streams.bound_idle();
    }

    /// No worker could be reached, and the others that wait need not try.
    pub fn failed(self, status: StatusCode) {
        self.outcome.send_replace(Opening::Failed(status));
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if !self.open {
            self.streams.slots().remove(&self.key);
        }
        // Behind the change of the table, which they look at next.
        self.outcome.send_if_modified(|outcome| {
            let waiting = *outcome == Opening::UnderWay;
            if waiting {
                *outcome = Opening::Over;
            }
            waiting
        });
    }
}
