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

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::request_body::RequestBody;
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

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    driver: AbortHandle,
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
    home: Connections,
}

impl Connections {
    /// An idle connection to `backend` (scheme and authority) that is still good as far as we can see.
    pub fn reuse(&self, backend: &str) -> Option<Lease> {
        let mut idle = self.lock();
        let waiting = idle.get_mut(backend)?;
        while let Some(Idle { connection, since }) = waiting.pop() {
            if since.elapsed() < IDLE_TIMEOUT && connection.sender.is_ready() {
                return Some(Lease { connection: Some(connection), backend: backend.to_owned(), home: self.clone() });
            }
        }
        None
    }

    /// Speaks HTTP/1.1 on a new connection.
    pub async fn adopt(&self, backend: &str, stream: BackendStream) -> hyper::Result<Lease> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(READ_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
        // Ends with its `Connection`, which aborts it.
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        let connection = Connection { sender, driver: driver.abort_handle() };
        Ok(Lease { connection: Some(connection), backend: backend.to_owned(), home: self.clone() })
    }

    /// Closes connections that have waited too long.
    pub fn sweep(&self) {
        self.lock().retain(|_, waiting| {
            waiting.retain(|idle| idle.since.elapsed() < IDLE_TIMEOUT && idle.connection.sender.is_ready());
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
    /// The connection's request side.
    pub fn sender(&mut self) -> Option<&mut SendRequest<RequestBody>> {
        self.connection.as_mut().map(|connection| &mut connection.sender)
    }

    /// Gives the connection back after a whole answer; it is kept if it can take another request.
    pub fn finish(mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| connection.sender.is_ready()) {
            self.home.sweep();
            self.home.keep(std::mem::take(&mut self.backend), connection);
        }
    }
}
