//! The workers that Holdline runs itself (`[[workers]]`): processes that are started, put into their pool once they are
//! ready, replaced before they are old or large, and ended with all that they have started.
//!
//! [`holdline_core::supervisor`] decides. In reading order: [`Workers`] is the handle that others hold, `view` what they
//! read; `supervisor` is the one task that keeps all groups, `crew` the processes of one; `listening` and
//! `template` prepare where a worker is reached, `child` starts its process, `launch` gives it a socket, `output` logs what it
//! writes and `tell` what happens to it, `memory` measures it, and `guard` outlives us to end what we could not.
//!
//! Invariants: a worker takes pipes only when the health check of its pool has found it; no process that was started here is
//! left alone, however Holdline ends. It runs on the control runtime and never on a data thread.

mod child;
mod crew;
pub mod guard;
pub mod launch;
mod listening;
mod memory;
mod output;
mod supervisor;
mod tell;
mod template;
mod view;

pub use supervisor::Surroundings;
pub use view::{GroupView, WorkerState, WorkerView};

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::WorkerGroup;
use supervisor::{Order, Supervisor};

/// Orders that wait for the supervisor.
const ORDERS_MAX: usize = 64;

/// Workers of one group at most, as the configuration has it.
pub const COUNT_MAX: u32 = 1000;

/// The handle of the supervisor; share it by `Arc`.
pub struct Workers {
    wanted: watch::Sender<Arc<Vec<WorkerGroup>>>,
    orders: mpsc::Sender<Order>,
    /// Until the supervisor takes it.
    inbox: Mutex<Option<mpsc::Receiver<Order>>>,
    seen: Arc<Seen>,
}

/// What others may see of the groups.
#[derive(Debug)]
struct Seen {
    groups: ArcSwap<Vec<GroupView>>,
    /// Grows with every change but those that come with traffic.
    index: watch::Sender<u64>,
    rss_bytes: AtomicU64,
}

/// Why an order cannot be carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    /// No such group.
    #[error("there is no group {0:?} in [[workers]]")]
    NoGroup(String),
    /// No such worker.
    #[error("there is no worker {0:?}")]
    NoWorker(String),
    /// It is on its way out.
    #[error("worker {0:?} is being replaced or stopped already")]
    Leaving(String),
    /// The process is stopping.
    #[error("Holdline is stopping")]
    Stopping,
}

impl Workers {
    /// A handle for the groups of a configuration, of which none runs yet.
    #[must_use]
    pub fn new(groups: &[WorkerGroup]) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let seen = Seen { groups: ArcSwap::default(), index: watch::Sender::new(1), rss_bytes: AtomicU64::new(0) };
        Self {
            wanted: watch::Sender::new(Arc::new(groups.to_vec())),
            orders,
            inbox: Mutex::new(Some(inbox)),
            seen: Arc::new(seen),
        }
    }

    /// Keeps the groups until they were told to stop and have ended. To be run exactly once.
    pub async fn run(&self, surroundings: Surroundings) {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(inbox) = inbox {
            Supervisor::new(surroundings, self.wanted.subscribe(), inbox, self.seen.clone()).run().await;
        }
    }

    /// Makes the groups what a new configuration says.
    pub fn configure(&self, groups: &[WorkerGroup]) {
        self.wanted.send_if_modified(|wanted| {
            let changed = **wanted != groups;
            if changed {
                *wanted = Arc::new(groups.to_vec());
            }
            changed
        });
    }

    /// The groups as they were last seen, by name.
    #[must_use]
    pub fn groups(&self) -> Arc<Vec<GroupView>> {
        self.seen.groups.load_full()
    }

    /// A number that grows with every visible change, and the way to wait for it.
    #[must_use]
    pub fn index(&self) -> watch::Receiver<u64> {
        self.seen.index.subscribe()
    }

    /// Memory of all workers together, when it was last measured.
    #[must_use]
    pub fn rss_bytes(&self) -> u64 {
        self.seen.rss_bytes.load(Relaxed)
    }

    /// Replaces all workers of a group, one after another.
    ///
    /// # Errors
    /// When there is no such group.
    pub async fn restart(&self, group: &str) -> Result<(), OrderError> {
        self.order(|reply| Order::Restart { group: group.to_owned(), reply }).await
    }

    /// Replaces one worker.
    ///
    /// # Errors
    /// When there is no such worker, or it goes already.
    pub async fn recycle(&self, worker: &str) -> Result<(), OrderError> {
        self.order(|reply| Order::Recycle { worker: worker.to_owned(), reply }).await
    }

    /// Has so many workers of a group serve, until another count is configured.
    ///
    /// # Errors
    /// When there is no such group.
    pub async fn scale(&self, group: &str, count: u32) -> Result<(), OrderError> {
        self.order(|reply| Order::Scale { group: group.to_owned(), count, reply }).await
    }

    /// Asks all processes to end, and waits until they have. No pipe is thought of any more.
    pub async fn stop(&self) {
        // A supervisor that is gone has no process left.
        let _ = self.order(|reply| Order::Stop { reply }).await;
    }

    /// Kills all processes, and waits until they have ended.
    pub async fn kill(&self) {
        // As above.
        let _ = self.order(|reply| Order::Kill { reply }).await;
    }

    async fn order(&self, order: impl FnOnce(Reply) -> Order) -> Result<(), OrderError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| OrderError::Stopping)?;
        answer.await.unwrap_or(Err(OrderError::Stopping))
    }
}

/// Where the outcome of an order goes.
type Reply = oneshot::Sender<Result<(), OrderError>>;

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}
