//! What is read while the demo runs: the proxy's numbers and events, and the journals.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::board::Board;
use super::journals::Journals;
use crate::ctl::Client;

/// How long one question for events waits for some.
const EVENTS_WAIT: Duration = Duration::from_secs(5);
/// What the admin API may take beyond that.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events asked for at once.
const EVENTS_AT_ONCE: usize = 1000;

/// Reads everything there is to read; one task owns it.
pub(super) struct Witness {
    board: Arc<Board>,
    admin: Arc<Client>,
    new_journals: mpsc::Receiver<PathBuf>,
    journals: Journals,
}

impl Witness {
    /// A witness that has seen nothing yet; `new_journals` are the files to read from now on.
    pub(super) fn new(board: &Arc<Board>, admin: &Arc<Client>, new_journals: mpsc::Receiver<PathBuf>) -> Self {
        Self { board: board.clone(), admin: admin.clone(), new_journals, journals: Journals::default() }
    }

    /// Reads journals, backends and counters once.
    ///
    /// # Errors
    /// When a journal can't be read or the proxy does not answer.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        while let Ok(path) = self.new_journals.try_recv() {
            self.journals.follow(&path);
        }
        self.journals.book(&self.board).context("a journal")?;
        let stats = self.admin.call(Method::GET, "/v1/stats", None).await?;
        let backends = self.admin.call(Method::GET, "/v1/backends?limit=1000", None).await?;
        let mut books = self.board.books();
        let counter = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let both = |name: &str| counter(&format!("/counters/up/{name}")) + counter(&format!("/counters/down/{name}"));
        books.proxy.in_doubt = both("in_doubt_messages_total");
        books.proxy.lost = both("lost_messages_total") + both("dropped_messages_total");
        books.proxy.interruptions = counter("/counters/interruptions_total");
        for worker in &mut books.workers {
            let backend = backends["items"].as_array().into_iter().flatten().find(|item| item["id"] == worker.name);
            worker.pipes = backend.and_then(|backend| backend["pipes"].as_u64()).unwrap_or(0);
        }
        Ok(())
    }
}

/// Books reattach times from the proxy's events, for as long as it answers.
pub(super) async fn follow_events(board: Arc<Board>, admin: Arc<Client>) {
    let mut after = 0;
    loop {
        let path = format!("/v1/events?after={after}&wait={}s&limit={EVENTS_AT_ONCE}", EVENTS_WAIT.as_secs());
        let Ok(page) = admin.call_within(Method::GET, &path, None, EVENTS_WAIT + PATIENCE).await else {
            return;
        };
        after = page["last"].as_u64().unwrap_or(after);
        for event in page["items"].as_array().into_iter().flatten() {
            if event["type"] == "pipe.reattached"
                && let Some(took_ms) = event["took_ms"].as_f64()
            {
                board.books().reattached(took_ms);
            }
        }
    }
}
