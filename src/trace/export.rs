//! The task that takes ended spans to the collector, a batch at a time.
//!
//! A batch that the collector does not take is counted and gone: spans are worth less than the memory of an outage.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::encode;
use super::span::Record;
use crate::config::OtlpEndpoint;
use crate::metrics::Metrics;
use crate::metrics::labels::SpanResult;

/// Spans of one request.
const BATCH_SPANS_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_millis(200);
/// What one request may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// What the last requests may take when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The task, and the word that it shall end.
#[derive(Debug)]
pub struct Exporter {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    pub(super) fn start(endpoint: OtlpEndpoint, spans: mpsc::Receiver<Record>, metrics: &Arc<Metrics>) -> Self {
        let (end, ending) = oneshot::channel();
        tracing::info!(endpoint = %endpoint, "spans are exported");
        let worker = Worker { endpoint, metrics: metrics.clone(), is_failing: false };
        Self { end, task: tokio::spawn(worker.run(spans, ending)) }
    }

    /// Sends what is queued, within two seconds.
    pub async fn finish(self) {
        // A task that is gone has nothing to send.
        let _ = self.end.send(());
        let mut task = self.task;
        if tokio::time::timeout(FLUSH_MAX, &mut task).await.is_err() {
            tracing::warn!("the last spans did not reach the collector in time");
            task.abort();
        }
    }
}

struct Worker {
    endpoint: OtlpEndpoint,
    metrics: Arc<Metrics>,
    is_failing: bool,
}

impl Worker {
    async fn run(mut self, mut spans: mpsc::Receiver<Record>, mut ending: oneshot::Receiver<()>) {
        let mut is_ending = false;
        while !(is_ending && spans.is_empty()) {
            let mut batch = Vec::new();
            tokio::select! {
                got = spans.recv_many(&mut batch, BATCH_SPANS_MAX) => is_ending |= got == 0,
                _ = &mut ending, if !is_ending => is_ending = true,
            }
            if !is_ending && batch.len() < BATCH_SPANS_MAX {
                tokio::select! {
                    () = tokio::time::sleep(BATCH_WAIT) => {}
                    _ = &mut ending => is_ending = true,
                }
            }
            while batch.len() < BATCH_SPANS_MAX
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if !batch.is_empty() {
                self.export(&batch).await;
            }
        }
    }

    async fn export(&mut self, batch: &[Record]) {
        let sending = send(&self.endpoint, encode::request(batch));
        let sent = match tokio::time::timeout(EXPORT_TIMEOUT, sending).await {
            Ok(sent) => sent,
            Err(_) => Err("it did not answer in time".into()),
        };
        let failed = match &sent {
            Ok(rejected) => (*rejected).min(batch.len() as u64),
            Err(_) => batch.len() as u64,
        };
        self.metrics.spans(SpanResult::Failed).inc_by(failed);
        self.metrics.spans(SpanResult::Exported).inc_by(batch.len() as u64 - failed);
        // Once for each outage: a collector that is away must not fill the log.
        match &sent {
            Err(error) if !self.is_failing => {
                tracing::warn!(endpoint = %self.endpoint, %error, "spans do not reach the collector");
            }
            Ok(_) if self.is_failing => tracing::info!(endpoint = %self.endpoint, "spans reach the collector again"),
            Ok(_) | Err(_) => {}
        }
        self.is_failing = sent.is_err();
    }
}

/// Sends one batch to `endpoint`; how many spans of it the collector rejects.
async fn send(endpoint: &OtlpEndpoint, body: Vec<u8>) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request: Request<Full<Bytes>> = Request::builder()
        .method(Method::POST)
        .uri(endpoint.path())
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Full::from(body))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok::<_, Box<dyn Error + Send + Sync>>((status, body))
    };
    tokio::pin!(answer, connection);
    let (status, body): (_, Bytes) = tokio::select! {
        answer = answer.as_mut() => answer?,
        // A collector that closes after its answer: the answer is in the channel then.
        _ = connection.as_mut() => answer.await?,
    };
    if status.is_success() { Ok(encode::rejected(&body)) } else { Err(format!("it answered {status}").into()) }
}
