//! The requests that are being answered, counted over all threads: a stop and a drain wait for them.
//!
//! Invariant: an exchange is counted from its request's head until its answer has left or its connection has ended.

use std::sync::Arc;

use tokio::sync::watch;

/// The exchanges of the process.
#[derive(Clone, Debug)]
pub struct Exchanges(Arc<watch::Sender<usize>>);

impl Default for Exchanges {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Exchanges {
    /// One more, until the value returned is dropped.
    #[must_use]
    pub fn begin(&self) -> Exchange {
        // That there are more need not be told.
        self.0.send_if_modified(|count| {
            *count += 1;
            false
        });
        Exchange { exchanges: self.clone() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there is none.
    pub async fn emptied(&self) {
        // The sender lives as long as `self`.
        drop(self.0.subscribe().wait_for(|&count| count == 0).await);
    }
}

/// One request on its way to its answer.
#[derive(Debug)]
pub struct Exchange {
    exchanges: Exchanges,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.exchanges.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}
