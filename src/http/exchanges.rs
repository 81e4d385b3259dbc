//! The requests that are being answered: counted over all threads, because a stop and a drain wait for them, and each
//! told in the metrics and in the access log when it is over.
//!
//! Invariant: an exchange is counted from its request's head until its answer has left or its connection has ended.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::watch;

use super::access::Access;
use crate::metrics::{GaugeGuard, RouteMetrics};

/// What the answer to one request takes of memory beside the kernel's sockets: the buffers of two connections and their
/// tasks (LP-02 in `tests/it` measures it).
pub const EXCHANGE_BYTES: u64 = 32 * 1024;

/// In metrics and in the access log: the client went away before its answer, as nginx says it.
const CLIENT_GONE: u16 = 499;

/// The exchanges of the process.
#[derive(Clone, Debug)]
pub struct Exchanges(Arc<watch::Sender<usize>>);

impl Default for Exchanges {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Exchanges {
    /// Counts one more, until the value returned is dropped.
    #[must_use]
    pub fn count_in(&self) -> Counted {
        // Only that there is none left is waited for.
        self.0.send_if_modified(|count| {
            *count += 1;
            false
        });
        Counted { exchanges: self.clone() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// The memory that they take, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.count() as u64 * EXCHANGE_BYTES
    }

    /// Waits until there is none.
    pub async fn emptied(&self) {
        // The sender lives as long as `self`.
        drop(self.0.subscribe().wait_for(|&count| count == 0).await);
    }
}

/// A place in the count.
#[derive(Debug)]
pub struct Counted {
    exchanges: Exchanges,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.exchanges.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// One request on its way to its answer.
#[derive(Debug)]
pub struct Exchange {
    began: Instant,
    /// Nothing for a handshake, whose pipe is counted.
    _counted: Option<Counted>,
    route: Option<(Arc<RouteMetrics>, GaugeGuard)>,
    access: Option<Box<Access>>,
    /// The status of the answer, and how long its head took.
    answered: Option<(StatusCode, Duration)>,
    bytes: u64,
}

impl Exchange {
    /// A request whose head has just come; `access` is what is told of it when it is over.
    #[must_use]
    pub fn new(counted: Option<Counted>, access: Option<Box<Access>>) -> Self {
        Self { began: Instant::now(), _counted: counted, route: None, access, answered: None, bytes: 0 }
    }

    /// It is told elsewhere.
    pub fn dismiss(mut self) {
        self.access = None;
    }

    /// It is a plain request of this route.
    pub(super) fn routed(&mut self, route: Arc<RouteMetrics>) {
        let in_flight = route.http_in_flight();
        self.route = Some((route, in_flight));
    }

    /// Where its client really is, if that is told.
    pub fn comes_from(&mut self, client: impl FnOnce() -> IpAddr) {
        if let Some(access) = &mut self.access {
            access.client = client();
        }
    }

    /// Counts it among the requests that wait for their worker's answer, until the value returned goes.
    pub(super) fn parked(&self) -> Option<GaugeGuard> {
        self.route.as_ref().map(|(route, _)| route.poll_parked())
    }

    /// The head of its answer is there.
    pub fn answered(&mut self, status: StatusCode) {
        self.answered = Some((status, self.began.elapsed()));
    }

    /// So many bytes of a body have gone to the client.
    pub(super) fn sent(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let status = self.answered.map_or(CLIENT_GONE, |(status, _)| status.as_u16());
        if let Some((route, _)) = &self.route {
            route.http_request(status, self.answered.map(|(_, took)| took));
        }
        if let Some(access) = self.access.take() {
            let route = self.route.as_ref().map(|(route, _)| route.name());
            access.say(status, self.bytes, self.began.elapsed(), route);
        }
    }
}
