//! The set that new handshakes use, and how many of them are worked on at once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Sets;
use super::set::TlsSet;

/// How long a handshake has its place among those that are worked on. One that takes longer waits for its client, which
/// costs nothing, and must not keep others out.
pub const PLACE_TIME: Duration = Duration::from_secs(1);

/// The TLS of one process.
#[derive(Debug)]
pub struct TlsInForce {
    public: ArcSwapOption<TlsSet>,
    admin: ArcSwapOption<TlsSet>,
    places: Semaphore,
}

impl TlsInForce {
    /// Begins with `sets`; `at_once` handshakes are worked on at a time.
    #[must_use]
    pub fn new(sets: Sets, at_once: usize) -> Self {
        let Sets { public, admin } = sets;
        let [public, admin] = [public, admin].map(ArcSwapOption::new);
        Self { public, admin, places: Semaphore::new(at_once) }
    }

    /// The set of the public listeners.
    #[must_use]
    pub fn public(&self) -> Option<Arc<TlsSet>> {
        self.public.load_full()
    }

    /// The set of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Option<Arc<TlsSet>> {
        self.admin.load_full()
    }

    /// Both at once, as [`TlsInForce::put`] takes them.
    #[must_use]
    pub fn sets(&self) -> Sets {
        Sets { public: self.public(), admin: self.admin() }
    }

    /// Has new handshakes use `sets`.
    pub fn put(&self, sets: Sets) {
        self.public.store(sets.public);
        self.admin.store(sets.admin);
    }

    /// A place among the handshakes that are worked on, once there is one; nothing if there never will be.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }
}
