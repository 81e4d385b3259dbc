//! `hooks.url`: the life of pipes, told to an HTTP server of the operator's as it happens.
//!
//! A pipe that opens, ends, loses its client or gets it back is an event of a bounded queue, which one task takes to the
//! server in batches, signed ([`Secret`]), and tries again until the server has them. Invariants: no pipe waits for the server:
//! what does not fit into the queue is dropped and counted; the events of one pipe come in their order; and one event may
//! come twice, with the same id.

mod event;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::mpsc;

use crate::callout::CalloutUrl;
use crate::metrics::Metrics;
use crate::metrics::labels::HookResult;
use crate::secret::Secret;
use event::Event;
pub use event::{Lane, Life};
pub use send::Sender;

/// What an operator says of the server.
#[derive(Clone, Debug)]
pub struct HookSettings {
    /// Where it is.
    pub url: CalloutUrl,
    /// What the requests are signed with.
    pub secret: Secret,
    /// Events that wait for it.
    pub queue_max: usize,
    /// How long it has to answer a request.
    pub timeout: Duration,
}

/// The way in.
#[derive(Clone, Debug, Default)]
pub struct Hooks(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Event>,
    /// What tells the events of this process from those of another.
    process: Box<str>,
    number: AtomicU64,
    waiting: IntGauge,
    dropped: IntCounter,
}

impl Hooks {
    /// Tells the server of `settings`, if there is one; the task runs on the current runtime.
    #[must_use]
    pub fn start(settings: Option<HookSettings>, metrics: &Arc<Metrics>) -> (Self, Option<Sender>) {
        let Some(settings) = settings else { return (Self::default(), None) };
        let (sender, events) = mpsc::channel(settings.queue_max);
        let queue = Queue {
            sender,
            process: format!("{:016x}", rand::random::<u64>()).into(),
            number: AtomicU64::new(0),
            waiting: metrics.families().hook_queue_events.clone(),
            dropped: metrics.hook_events(HookResult::Dropped),
        };
        (Self(Some(Arc::new(queue))), Some(Sender::start(settings, events, metrics)))
    }

    /// Tells what `happened`, unless nothing is told.
    pub fn tell(&self, happened: impl FnOnce() -> Life) {
        let Some(queue) = &self.0 else { return };
        let Ok(place) = queue.sender.try_reserve() else { return queue.dropped.inc() };
        let number = queue.number.fetch_add(1, Relaxed) + 1;
        queue.waiting.inc();
        place.send(Event::new(format!("{}-{number}", queue.process), happened()));
    }
}
