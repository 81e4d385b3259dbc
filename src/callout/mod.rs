//! HTTP servers of the operator's own that the process asks: who may connect (`routes.auth_url`), and who is told
//! (`hooks.url`).
//!
//! Owns the connections to one such server, which are kept between requests. It follows no redirect, so that an answer
//! cannot send what is said here to another server. Bounds: [`IDLE_MAX`] connections wait, for [`IDLE_TIMEOUT`];
//! [`HEAD_BYTES_MAX`] of an answer's head and as much of its body as the caller takes are read; each request has the
//! deadline that its caller gives it.

mod url;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use crate::net::{ConnectError, OwnListeners, TlsClient, TlsPeer, connect, resolve};
pub use url::CalloutUrl;

/// Connections that wait for another request.
pub const IDLE_MAX: usize = 32;

/// How long they wait: less than the 5 s of Node and uvicorn, so that it is we who close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Bytes of an answer's head.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// One server, and the connections to it; a cheap handle.
#[derive(Clone, Debug)]
pub struct Callout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: CalloutUrl,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection, which ends with this.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its headers; `Host` and the framing are set here.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CalloutError {
    /// It could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came was no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The body of its answer was too long, or broke off.
    #[error("the answer's body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl Callout {
    /// The server at `url`; nothing is dialled before it is asked.
    #[must_use]
    pub fn new(url: CalloutUrl) -> Self {
        Self(Arc::new(Inner { url, idle: Mutex::default() }))
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &CalloutUrl {
        &self.0.url
    }

    /// The answer to `question`, of whose body `body_bytes_max` are taken, within `patience`. A kept connection that
    /// turns out dead is replaced once, so that the server may be asked twice.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(
        &self,
        question: &Question,
        body_bytes_max: usize,
        patience: Duration,
    ) -> Result<Answer, CalloutError> {
        let asked = tokio::time::timeout(patience, self.ask_without_end(question, body_bytes_max, patience)).await;
        asked.unwrap_or(Err(CalloutError::Timeout(patience)))
    }

    async fn ask_without_end(
        &self,
        question: &Question,
        body_bytes_max: usize,
        patience: Duration,
    ) -> Result<Answer, CalloutError> {
        if let Some(kept) = self.reuse() {
            match self.exchange(kept, question, body_bytes_max).await {
                Err(CalloutError::Http(error)) => {
                    tracing::debug!(%error, url = %self.0.url, "a kept connection was dead")
                }
                answered => return answered,
            }
        }
        let fresh = self.dial(patience).await?;
        self.exchange(fresh, question, body_bytes_max).await
    }

    async fn dial(&self, patience: Duration) -> Result<Connection, CalloutError> {
        let url = self.0.url.backend();
        let addresses = resolve(url, None, &OwnListeners::default()).await?;
        let stream = connect(&addresses, TlsPeer::of(url, &TlsClient::native()).as_ref(), &[], patience).await?;
        let (sender, connection) =
            http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
        // Ends with its `Connection`, which aborts it.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, driver })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        question: &Question,
        body_bytes_max: usize,
    ) -> Result<Answer, CalloutError> {
        connection.sender.ready().await?;
        let response = connection.sender.send_request(self.request(question)).await?;
        let (parts, body) = response.into_parts();
        let collected = Limited::new(body, body_bytes_max).collect().await.map_err(CalloutError::Body)?;
        // hyper ends a connection that cannot be used again before this is whole, or soon after.
        if connection.sender.ready().await.is_ok() {
            self.keep(connection);
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes() })
    }

    fn request(&self, question: &Question) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = self.0.url.path_and_query();
        *request.headers_mut() = question.headers.clone();
        if let Ok(host) = HeaderValue::from_str(&self.0.url.backend().authority()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }

    fn reuse(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|it| it.since.elapsed() < IDLE_TIMEOUT && it.connection.sender.is_ready());
        idle.pop().map(|it| it.connection)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() == IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { connection, since: Instant::now() });
    }

    /// A lock whose holder panicked still guards whole connections.
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
