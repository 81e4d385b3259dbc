//! What is read while the demo runs: the proxy's numbers and events, and the journals.

use std::collections::HashMap;
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

/// Pipes whose screen is remembered; over it, all are asked for again.
const SCREENS_MAX: usize = 4096;

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
    let mut screens = Screens::default();
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
            screens.follow(&board, &admin, event).await;
        }
    }
}

/// Which of the page's screens a pipe carries, and which worker it lost last.
#[derive(Default)]
struct Screens {
    /// By the pipe's id.
    known: HashMap<String, Screen>,
}

struct Screen {
    session: String,
    lost: Option<(String, &'static str)>,
}

impl Screens {
    /// Books a screen's way to another worker.
    async fn follow(&mut self, board: &Board, admin: &Client, event: &Value) {
        let Some(pipe) = event["pipe"].as_str().filter(|_| event["route"] == "video") else { return };
        if !self.known.contains_key(pipe) {
            let Ok(shown) = admin.call(Method::GET, &format!("/v1/pipes/{pipe}"), None).await else { return };
            if self.known.len() >= SCREENS_MAX {
                self.known.clear();
            }
            let session = shown["key"].as_str().unwrap_or_default().to_owned();
            self.known.insert(pipe.to_owned(), Screen { session, lost: None });
        }
        let Some(screen) = self.known.get_mut(pipe) else { return };
        if event["type"] == "pipe.interrupted" {
            let worker = event["backend"].as_str().unwrap_or_default().to_owned();
            screen.lost = Some((worker, why_lost(event["reason"].as_str().unwrap_or_default())));
        }
        if let Some(took_ms) = event["took_ms"].as_f64()
            && let Some((worker, why)) = screen.lost.take()
        {
            board.books().screen_moved(&screen.session, &worker, why, took_ms);
        }
    }
}

/// What became of a worker, by the reason that the proxy gives.
fn why_lost(reason: &str) -> &'static str {
    match reason {
        "drain" | "admin" | "handover" => "drained",
        "close" => "stopped",
        _ => "killed",
    }
}
