//! Which client is on which pipe, where a route gives clients names (`routes.client_id`).
//!
//! Owns the table of names in use. A name is the digest of everything that makes a conversation the same one: the route,
//! the path, the key and the client's id. The id may be all that a client has to show, so it is kept nowhere and written
//! to no log. Invariant: under one name there is at most one pipe that a client can come back to, and while one client
//! opens it, each other client of that name waits. Entries are bounded by pipes: each goes with the pipe that it is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::pipes::PipeEntry;

/// Who a client is, as one digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientName([u8; 32]);

impl ClientName {
    /// The client called `id` on this path of this route, for this key.
    #[must_use]
    pub fn new(route: &str, path: &str, key: Option<&str>, id: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [route, path, key.unwrap_or_default(), id] {
            // With its length, so that no two different lists of parts are the same bytes.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// The name of this digest, which another process has made.
    #[must_use]
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

/// The names in use; share it by `Arc`.
#[derive(Default)]
pub struct Clients {
    uses: Mutex<HashMap<ClientName, Use>>,
}

enum Use {
    /// A client opens a pipe under this name; the channel closes when it is done.
    Opening(watch::Receiver<()>),
    /// This pipe has it.
    Pipe(Arc<PipeEntry>),
}

/// A client's hold on its name, first to open a pipe under it and then for as long as that pipe lives; given up when
/// dropped.
pub struct Claim {
    clients: Arc<Clients>,
    name: ClientName,
    stage: Stage,
}

enum Stage {
    /// Those that wait hear of its end.
    Opening {
        _under_way: watch::Sender<()>,
    },
    Open(Arc<PipeEntry>),
}

impl Clients {
    /// A lock whose holder panicked still guards a whole table.
    fn uses(&self) -> MutexGuard<'_, HashMap<ClientName, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to open a pipe under `name`; waits while another client opens one.
    ///
    /// # Errors
    /// The pipe that the client left, if it waits for it.
    pub async fn claim(self: &Arc<Self>, name: ClientName) -> Result<Claim, Arc<PipeEntry>> {
        loop {
            let mut under_way = {
                let mut uses = self.uses();
                match uses.get(&name) {
                    Some(Use::Pipe(pipe)) if pipe.awaits_client() => return Err(pipe.clone()),
                    Some(Use::Opening(under_way)) => under_way.clone(),
                    Some(Use::Pipe(_)) | None => {
                        let (sender, under_way) = watch::channel(());
                        uses.insert(name, Use::Opening(under_way));
                        return Ok(Claim { clients: self.clone(), name, stage: Stage::Opening { _under_way: sender } });
                    }
                }
            };
            // It ends with the claim, which never says anything.
            let _ = under_way.changed().await;
        }
    }

    /// The hold on `name` of a pipe that has come with it from another process.
    #[must_use]
    pub fn resume(self: &Arc<Self>, name: ClientName, pipe: Arc<PipeEntry>) -> Claim {
        self.uses().insert(name, Use::Pipe(pipe.clone()));
        Claim { clients: self.clone(), name, stage: Stage::Open(pipe) }
    }

    /// Whether a pipe waits for the client of this name.
    #[must_use]
    pub fn are_awaited(&self, name: &ClientName) -> bool {
        matches!(self.uses().get(name), Some(Use::Pipe(pipe)) if pipe.awaits_client())
    }
}

impl Claim {
    /// The name, for another process.
    #[must_use]
    pub const fn name(&self) -> [u8; 32] {
        self.name.0
    }

    /// The pipe is open, and others that wait find it.
    pub fn opened(&mut self, pipe: Arc<PipeEntry>) {
        self.clients.uses().insert(self.name, Use::Pipe(pipe.clone()));
        self.stage = Stage::Open(pipe);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut uses = self.clients.uses();
        let is_own = match (&self.stage, uses.get(&self.name)) {
            (Stage::Opening { .. }, _) => true,
            (Stage::Open(own), Some(Use::Pipe(pipe))) => Arc::ptr_eq(own, pipe),
            (Stage::Open(_), Some(Use::Opening(_)) | None) => false,
        };
        if is_own {
            uses.remove(&self.name);
        }
    }
}

/// Shows how many there are: names are the clients' own.
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients({})", self.uses().len())
    }
}
