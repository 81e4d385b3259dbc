//! Clients that can't use WebSockets, on the same pipes: long poll, server-sent events and POSTs (PROTOCOL section 8).
//!
//! In reading order: `words` (what is said, as lines outside and as frames inside), `kept` (what a client was told and has
//! not acknowledged), `early` (what came before its turn), [`session`] (one client between its requests), and here the
//! sessions of the process. Nothing here knows HTTP: `door::fallback` reads the requests and writes the answers.
//! Invariant: a session is in the table from its welcome until [`LINGER`] after its link to the pipe is gone, so that its
//! last words can still be fetched.

mod early;
mod kept;
mod session;
mod words;

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use holdline_core::ids::PipeId;

pub use early::Early;
pub use kept::{Since, Told};
pub use session::{FromTheFuture, NotTaken, Polled, Session};
pub use words::{Said, is_word};

use crate::net::MemoryStream;

/// Bytes that are on their way between a session and its pipe at most, each way.
pub const LINK_BYTES_MAX: usize = 16 << 10;

/// How long the last words of a pipe are kept for a client that has not fetched them.
pub const LINGER: Duration = Duration::from_secs(30);

/// The sessions of the process.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<PipeId, Arc<Session>>>,
}

impl Sessions {
    /// Adds the session of a client that was welcomed. One that it had on the same pipe before is forgotten.
    pub fn add(self: &Arc<Self>, session: Arc<Session>) {
        let left = session.watch();
        self.open().insert(session.pipe(), session.clone());
        let sessions = self.clone();
        tokio::spawn(async move {
            poll_fn(|cx| if left.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
            tokio::time::sleep(LINGER).await;
            sessions.forget(&session);
        });
    }

    /// The session of the client of `pipe`.
    #[must_use]
    pub fn of(&self, pipe: PipeId) -> Option<Arc<Session>> {
        self.open().get(&pipe).cloned()
    }

    fn forget(&self, session: &Arc<Session>) {
        let mut open = self.open();
        if open.get(&session.pipe()).is_some_and(|known| Arc::ptr_eq(known, session)) {
            open.remove(&session.pipe());
        }
    }

    /// A lock whose holder panicked still guards a whole table.
    fn open(&self) -> MutexGuard<'_, HashMap<PipeId, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of a link between a session and its pipe.
#[must_use]
pub fn link() -> (MemoryStream, MemoryStream) {
    MemoryStream::pair(LINK_BYTES_MAX)
}
