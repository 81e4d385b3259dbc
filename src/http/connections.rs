//! Connections to backends, kept alive between requests.
//!
//! Each connection belongs to one request at a time, as a [`Lease`]; one that is dropped before its answer is whole is
//! closed at once, which is how a client that goes away cancels its backend request. Only a connection whose answer
//! ended properly waits for another request.
//!
//! Bounds: [`IDLE_PER_BACKEND_MAX`], [`IDLE_MAX`], [`IDLE_TIMEOUT`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdline_core::ids::BackendKey;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::request_body::RequestBody;
use super::talk::Talk;
use super::worker_socket::{Wire, WorkerSocket};
use crate::net::BackendStream;

/// Idle connections kept per backend.
pub const IDLE_PER_BACKEND_MAX: usize = 16;

/// Idle connections kept in all.
pub const IDLE_MAX: usize = 256;

/// How long a connection may wait for another request: less than the 5 s of uvicorn and Node, so that it is we who close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest head of an answer, and the most that is buffered of its body at a time.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Idle connections, shared by the requests of one thread.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<HashMap<String, Vec<Idle>>>>);

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to a backend, which ends with this.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<RequestBody>,
    driver: AbortHandle,
    wire: Wire,
}

impl Connection {
    fn is_ready(&self) -> bool {
        self.sender.is_ready() && !self.wire.is_broken()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A connection in use by one request.
#[derive(Debug)]
pub struct Lease {
    /// `Some` until it is given back.
    connection: Option<Connection>,
    backend: String,
    home: Home,
}

/// Where a connection goes after a whole answer.
#[derive(Debug)]
enum Home {
    /// To the next request of any client.
    Shared(Connections),
    /// To the next request of the client that is logged in on it.
    Client(Arc<Talk>, BackendKey),
    /// Nowhere: it is closed.
    None,
}

impl Connections {
    /// An idle connection to `backend` (its pool and origin) that is still good as far as we can see.
    pub fn reuse(&self, backend: &str) -> Option<Lease> {
        let mut idle = self.lock();
        let waiting = idle.get_mut(backend)?;
        while let Some(Idle { connection, since }) = waiting.pop() {
            if since.elapsed() < IDLE_TIMEOUT && connection.is_ready() {
                return Some(Lease::new(connection, backend, Home::Shared(self.clone())));
            }
        }
        None
    }

    /// Speaks HTTP/1.1 on a new connection.
    pub async fn adopt(&self, backend: &str, stream: BackendStream) -> hyper::Result<Lease> {
        let wire = Wire::default();
        let socket = TokioIo::new(WorkerSocket::new(stream, wire.clone()));
        let (sender, connection) = http1::Builder::new().max_buf_size(READ_BYTES_MAX).handshake(socket).await?;
        // Ends with its `Connection`, which aborts it.
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        let connection = Connection { sender, driver: driver.abort_handle(), wire };
        Ok(Lease::new(connection, backend, Home::Shared(self.clone())))
    }

    /// Closes connections that have waited too long.
    pub fn sweep(&self) {
        self.lock().retain(|_, waiting| {
            waiting.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT && idle.connection.is_ready());
            !waiting.is_empty()
        });
    }

    /// Closes every connection that waits to be used again.
    pub fn shed(&self) {
        self.lock().clear();
    }

    fn keep(&self, backend: String, connection: Connection) {
        let mut idle = self.lock();
        if idle.values().map(Vec::len).sum::<usize>() >= IDLE_MAX {
            return;
        }
        let waiting = idle.entry(backend).or_default();
        if waiting.len() < IDLE_PER_BACKEND_MAX {
            waiting.push(Idle { connection, since: Instant::now() });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Idle>>> {
        // Nothing in a critical section can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    fn new(connection: Connection, backend: &str, home: Home) -> Self {
        connection.wire.begin();
        Self { connection: Some(connection), backend: backend.to_owned(), home }
    }

    /// The connection on which this client is logged in at `backend`, if it is still there.
    pub(super) fn of_client(talk: &Arc<Talk>, key: BackendKey, backend: &str) -> Option<Self> {
        let connection = talk.bound.take(backend).filter(Connection::is_ready)?;
        Some(Self::new(connection, backend, Home::Client(talk.clone(), key)))
    }

    /// The connection's request side.
    pub fn sender(&mut self) -> Option<&mut SendRequest<RequestBody>> {
        self.connection.as_mut().map(|connection| &mut connection.sender)
    }

    /// Whether a byte came in answer to the request.
    pub(super) fn has_heard(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.wire.has_heard())
    }

    /// The connection is closed after this answer.
    pub(super) fn is_last(&mut self) {
        self.home = Home::None;
    }

    /// The connection stays with its client from now on.
    pub(super) fn bind(&mut self, talk: &Arc<Talk>, backend: BackendKey) {
        self.home = Home::Client(talk.clone(), backend);
    }

    /// Gives the connection back after a whole answer; it is kept if it can take another request.
    pub fn finish(mut self) {
        let Some(connection) = self.connection.take().filter(Connection::is_ready) else { return };
        let backend = std::mem::take(&mut self.backend);
        match &self.home {
            Home::Shared(connections) => {
                connections.sweep();
                connections.keep(backend, connection);
            }
            Home::Client(talk, key) => talk.bound.keep(*key, backend, connection),
            Home::None => {}
        }
    }
}
