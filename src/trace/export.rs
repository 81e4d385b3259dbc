//! The task that takes ended spans to the collector, a batch at a time.
//!
//! A batch that the collector does not take is counted and gone: spans are worth less than the memory of an outage.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Uri};
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
/// What the specification of OTLP puts behind the address of a collector.
const TRACES_PATH: &str = "/v1/traces";

/// Where a collector is: `http://HOST[:PORT][/PATH]`, with `/v1/traces` added unless it is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpEndpoint {
    authority: Authority,
    path: PathAndQuery,
}

impl FromStr for OtlpEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "is no collector's URL; write it like \"http://127.0.0.1:4318\"";
        if text.starts_with("https://") {
            return Err("https is not spoken to collectors; name one that is near, such as \"http://127.0.0.1:4318\"");
        }
        let uri: Uri = text.parse().map_err(|_| WANTED)?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or(WANTED)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(WANTED);
        }
        let base = uri.path().trim_end_matches('/');
        let path = if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}{TRACES_PATH}") };
        Ok(Self { authority: authority.clone(), path: path.parse().map_err(|_| WANTED)? })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl OtlpEndpoint {
    /// Sends one batch; how many spans of it the collector rejects.
    async fn send(&self, body: Vec<u8>) -> Result<u64, Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::connect((self.host(), self.authority.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request: Request<Full<Bytes>> = Request::builder()
            .method(Method::POST)
            .uri(self.path.as_str())
            .header(header::HOST, self.authority.as_str())
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

    fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }
}

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
        let sending = self.endpoint.send(encode::request(batch));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_collector_is_the_specifications() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://tempo/otlp/", "http://tempo/otlp/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            let endpoint: OtlpEndpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
        for bad in ["", "127.0.0.1:4318", "https://x", "http://", "http://u:p@x", "http://x/?a=b", "ftp://x"] {
            assert!(bad.parse::<OtlpEndpoint>().is_err(), "{bad}");
        }
    }
}
