//! Which client is on which pipe, where a route gives clients names (`routes.client_id`).
//!
//! Owns the table of names of clients that have a pipe. A name is the digest of everything that makes a conversation the same
//! one: the route, the path, the key and the client's id. The id may be all that a client has to show, so it is kept
//! nowhere and written to no log. Invariant: of one name there is at most one pipe that a client can come back to, and
//! while one connection opens it, the next one under the same name waits for that. Entries are bounded by pipes: each goes
//! with the pipe that it is for.

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
}

/// A pipe that a client can come back to.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its entry in the registry of pipes.
    pub pipe: Arc<PipeEntry>,
    /// The subprotocol that is spoken on it.
    pub protocol: Option<String>,
}

enum Place {
    /// A connection opens a pipe under this name.
    Opening(watch::Receiver<()>),
    Open(Home),
}

/// The names of clients that have a pipe; share it by `Arc`.
#[derive(Default)]
pub struct Clients {
    places: Mutex<HashMap<ClientName, Place>>,
}

/// What a client finds under its name.
pub enum Found {
    /// No pipe: it opens one.
    Nobody(Claim),
    /// Its pipe.
    Home(Home),
}

/// The right to open a pipe under a name; given up when dropped.
pub struct Claim {
    clients: Arc<Clients>,
    name: ClientName,
    /// The connections that wait hear of its end.
    _under_way: watch::Sender<()>,
    opened: bool,
}

/// A pipe's hold on its client's name, which goes with the pipe.
pub struct Membership {
    clients: Arc<Clients>,
    name: ClientName,
    pipe: Arc<PipeEntry>,
}

impl Clients {
    /// A lock whose holder panicked still guards a whole table.
    fn places(&self) -> MutexGuard<'_, HashMap<ClientName, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is behind `name`; waits while another connection opens a pipe under it.
    pub async fn find(self: &Arc<Self>, name: ClientName) -> Found {
        loop {
            let mut under_way = {
                let mut places = self.places();
                match places.get(&name) {
                    Some(Place::Open(home)) if home.pipe.awaits_client() => return Found::Home(home.clone()),
                    Some(Place::Opening(under_way)) => under_way.clone(),
                    Some(Place::Open(_)) | None => {
                        let (sender, under_way) = watch::channel(());
                        places.insert(name, Place::Opening(under_way));
                        let clients = self.clone();
                        return Found::Nobody(Claim { clients, name, _under_way: sender, opened: false });
                    }
                }
            };
            // It ends with the claim, which never says anything.
            let _ = under_way.changed().await;
        }
    }

    /// Whether a pipe is there that the client can come back to.
    #[must_use]
    pub fn has_home(&self, name: &ClientName) -> bool {
        matches!(self.places().get(name), Some(Place::Open(home)) if home.pipe.awaits_client())
    }
}

impl Claim {
    /// The pipe is open.
    #[must_use]
    pub fn opened(mut self, home: Home) -> Membership {
        self.opened = true;
        let pipe = home.pipe.clone();
        self.clients.places().insert(self.name, Place::Open(home));
        Membership { clients: self.clients.clone(), name: self.name, pipe }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.opened {
            self.clients.places().remove(&self.name);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut places = self.clients.places();
        if matches!(places.get(&self.name), Some(Place::Open(home)) if Arc::ptr_eq(&home.pipe, &self.pipe)) {
            places.remove(&self.name);
        }
    }
}

/// Shows how many there are: names are the clients' own.
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients({})", self.places().len())
    }
}
