//! The task that takes events to the server, a batch at a time and in order.
//!
//! A batch that the server does not take is sent again, after a wait that grows from [`WAIT_MIN`] to [`WAIT_MAX`], for as long
//! as it takes: what comes meanwhile fills the queue. An answer of 4xx says that the server will never take it (but 408, 425
//! and 429): the batch is counted and gone. No redirect is followed; it counts as a failure, since the events would go to
//! a server that no operator has named.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::HookSettings;
use super::event::Event;
use crate::callout::{Callout, Question};
use crate::metrics::Metrics;
use crate::metrics::labels::{HookAttempt, HookResult};
use crate::resume::UnixTime;

/// Events of one request.
pub const BATCH_EVENTS_MAX: usize = 100;

/// How long the first event of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// The first wait after a failure, before jitter.
pub const WAIT_MIN: Duration = Duration::from_millis(500);

/// The longest wait between two attempts.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the last requests may take when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Bytes of an answer, which nothing is done with.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The task, and the word that it shall end.
#[derive(Debug)]
pub struct Sender {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sender {
    pub(super) fn start(settings: HookSettings, events: mpsc::Receiver<Event>, metrics: &Arc<Metrics>) -> Self {
        let (end, ending) = oneshot::channel();
        tracing::info!(url = %settings.url, "hooks are told");
        let server = Callout::new(settings.url.clone());
        let worker = Worker { server, settings, metrics: metrics.clone(), is_failing: false, is_ending: false, ending };
        Self { end, task: tokio::spawn(worker.run(events)) }
    }

    /// Sends what is queued, within two seconds.
    pub async fn finish(self) {
        // A task that is gone has nothing to send.
        let _ = self.end.send(());
        let mut task = self.task;
        if tokio::time::timeout(FLUSH_MAX, &mut task).await.is_err() {
            tracing::warn!("the last events did not reach the hooks in time");
            task.abort();
        }
    }
}

struct Worker {
    server: Callout,
    settings: HookSettings,
    metrics: Arc<Metrics>,
    is_failing: bool,
    is_ending: bool,
    ending: oneshot::Receiver<()>,
}

#[derive(Serialize)]
struct Batch<'a> {
    events: &'a [Event],
}

/// What came of one request.
enum Attempt {
    Taken,
    /// The server will never take it.
    Refused(StatusCode),
    Failed(String),
}

impl Worker {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while !(self.is_ending && events.is_empty()) {
            let batch = self.batch(&mut events).await;
            if batch.is_empty() {
                continue;
            }
            let result = self.deliver(&batch).await;
            self.metrics.hook_events(result).inc_by(batch.len() as u64);
            self.metrics.families().hook_queue_events.sub(batch.len() as i64);
        }
    }

    /// The next events, of which the first waits a little for the others; none if there is nothing more to come.
    async fn batch(&mut self, events: &mut mpsc::Receiver<Event>) -> Vec<Event> {
        let mut batch = Vec::new();
        tokio::select! {
            got = events.recv_many(&mut batch, BATCH_EVENTS_MAX) => self.is_ending |= got == 0,
            _ = &mut self.ending, if !self.is_ending => self.is_ending = true,
        }
        if !batch.is_empty() && batch.len() < BATCH_EVENTS_MAX {
            self.wait(BATCH_WAIT).await;
        }
        while batch.len() < BATCH_EVENTS_MAX
            && let Ok(event) = events.try_recv()
        {
            batch.push(event);
        }
        batch
    }

    /// Waits, unless the process ends.
    async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time), if !self.is_ending => {}
            _ = &mut self.ending, if !self.is_ending => self.is_ending = true,
            else => {}
        }
    }

    /// Sends a batch until the server has it or refuses it; once more, if the process ends.
    async fn deliver(&mut self, batch: &[Event]) -> HookResult {
        let Ok(body) = serde_json::to_vec(&Batch { events: batch }).map(Bytes::from) else {
            // Strings and numbers always are JSON.
            return HookResult::Dropped;
        };
        let mut wait = WAIT_MIN;
        loop {
            let is_last = self.is_ending;
            let attempt = self.post(&body).await;
            self.say(&attempt);
            match attempt {
                Attempt::Taken => return HookResult::Delivered,
                Attempt::Refused(_) => return HookResult::Refused,
                Attempt::Failed(_) if is_last => return HookResult::Dropped,
                Attempt::Failed(_) => {}
            }
            self.wait(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn post(&self, body: &Bytes) -> Attempt {
        let signature = self.settings.secret.sign(UnixTime::now().ms / 1000, body);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("holdline/", env!("CARGO_PKG_VERSION"))));
        if let Ok(signature) = HeaderValue::try_from(signature) {
            headers.insert(HeaderName::from_static("holdline-signature"), signature);
        }
        let question = Question { method: Method::POST, headers, body: body.clone() };
        match self.server.ask(&question, ANSWER_BYTES_MAX, self.settings.timeout).await {
            Ok(answer) if answer.status.is_success() => Attempt::Taken,
            Ok(answer) if answer.status.is_client_error() && !matches!(answer.status.as_u16(), 408 | 425 | 429) => {
                Attempt::Refused(answer.status)
            }
            Ok(answer) if answer.status.is_redirection() => {
                Attempt::Failed(format!("it answered {}, and no redirect is followed", answer.status))
            }
            Ok(answer) => Attempt::Failed(format!("it answered {}", answer.status)),
            Err(error) => Attempt::Failed(error.to_string()),
        }
    }

    /// Counts an attempt; a server that is away is logged once, so that it does not fill the log.
    fn say(&mut self, attempt: &Attempt) {
        let url = &self.settings.url;
        let label = match attempt {
            Attempt::Taken => {
                if self.is_failing {
                    tracing::info!(%url, "events reach the hooks again");
                }
                HookAttempt::Taken
            }
            Attempt::Refused(status) => {
                tracing::warn!(%url, %status, "the hooks refuse events, which are lost");
                HookAttempt::Refused
            }
            Attempt::Failed(error) => {
                if !self.is_failing {
                    tracing::warn!(%url, error, "events do not reach the hooks; they are tried again");
                }
                HookAttempt::Failed
            }
        };
        self.is_failing = matches!(attempt, Attempt::Failed(_));
        self.metrics.hook_attempts(label).inc();
    }
}
