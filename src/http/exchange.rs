//! One request to one backend, up to the head of its answer.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::connections::{Connections, Lease};
use super::request_body::{Progress, RequestBody};
use super::talk::Talk;
use crate::blame::Blame;
use crate::handshake::dial::{PARKED_WANT, connect_refusal};
use crate::handshake::forward::provisional_head;
use crate::handshake::refusal::Refusal;
use crate::net::{Addresses, ConnectError, TlsPeer, connect};

/// How long the parts of an exchange may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpTimeouts {
    /// All addresses together, TLS handshake included.
    pub connect: Duration,
    /// From the last byte of the request's body to the head of the answer; a body that stands still ends it too.
    pub answer: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(120) }
    }
}

/// Where a backend is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    /// Already checked against what is allowed.
    pub addresses: &'a Addresses,
    /// What to verify if the backend is `wss://`.
    pub tls: Option<&'a TlsPeer>,
    /// What a new connection begins with. One that says whose it is serves one request.
    pub proxy_header: &'a [u8],
    /// Its pool and origin: what connections are kept under.
    pub name: &'a str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection: nothing was sent.
    #[error("connecting failed: {0}")]
    Connect(#[from] ConnectError),
    /// A kept connection ended before the first byte of an answer: closed by the backend while it waited, most likely.
    #[error("a kept connection ended")]
    Stale,
    /// The connection ended before the head of an answer.
    #[error("the backend went away before it answered")]
    Lost(#[source] hyper::Error),
    /// What came is not HTTP, or an upgrade that was not asked for.
    #[error("the backend's answer is malformed")]
    Malformed,
    /// The request went wrong on the client's side.
    #[error("the client's request ended early")]
    Client,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The client stopped sending.
    #[error("the request's body stood still")]
    Stalled,
}

impl ExchangeError {
    /// Whose fault it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Connect(error) => error.kind.blame(),
            Self::Stale | Self::Lost(_) | Self::Malformed | Self::Timeout => Blame::Backend,
            Self::Client | Self::Stalled => Blame::Client,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(error) => connect_refusal(error.kind),
            Self::Stale | Self::Lost(_) => {
                Refusal::new(StatusCode::BAD_GATEWAY, "backend-lost", "the backend went away before it answered")
            }
            Self::Malformed => {
                Refusal::new(StatusCode::BAD_GATEWAY, "backend-answer", "the backend's answer is not valid HTTP")
            }
            Self::Timeout => {
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, "backend-timeout", "the backend did not answer in time")
            }
            Self::Client => Refusal::new(StatusCode::BAD_REQUEST, "request-body", "the request's body ended early"),
            Self::Stalled => {
                Refusal::new(StatusCode::REQUEST_TIMEOUT, "request-body", "the request's body stood still for too long")
            }
        }
    }
}

/// A connection for one request.
pub(super) struct Line {
    pub lease: Lease,
    /// Whether it was kept, here or parked by its worker, and so may be stale.
    pub reused: bool,
    /// How many connections the worker is asked to keep parked, where this was one.
    parked_want: Option<u32>,
}

impl Line {
    /// A kept connection.
    pub const fn kept(lease: Lease) -> Self {
        Self { lease, reused: true, parked_want: None }
    }
}

/// A kept connection if there is one and `may_reuse`, else a new one; nothing is sent yet.
pub(super) async fn line(
    connections: &Connections,
    peer: Peer<'_>,
    may_reuse: bool,
    timeouts: &HttpTimeouts,
) -> Result<Line, ExchangeError> {
    let is_anyones = peer.proxy_header.is_empty();
    if may_reuse
        && is_anyones
        && let Some(lease) = connections.reuse(peer.name)
    {
        return Ok(Line::kept(lease));
    }
    let stream = connect(peer.addresses, peer.tls, peer.proxy_header, timeouts.connect).await?;
    let parked_want = stream.parked_want();
    let mut lease = connections.adopt(peer.name, stream).await.map_err(ExchangeError::Lost)?;
    if !is_anyones {
        lease.is_last();
    }
    Ok(Line { lease, reused: parked_want.is_some(), parked_want })
}

/// Sends `request` and waits for the head of its answer; what is said before that is passed on as it comes. No async
/// function, which would have room for the request twice for as long as it waits.
pub(super) fn exchange(
    line: Line,
    mut request: Request<RequestBody>,
    timeouts: &HttpTimeouts,
    talk: &Arc<Talk>,
) -> impl Future<Output = Result<(Response<Incoming>, Lease), ExchangeError>> {
    let Line { mut lease, reused, parked_want } = line;
    if let Some(want) = parked_want {
        request.headers_mut().insert(PARKED_WANT, want.into());
    }
    let progress = request.body().progress();
    hear_early(&mut request, talk);
    // Boxed for the same reason: it is moved to where it is waited for.
    let sent = lease.sender().map(|sender| Box::pin(sender.send_request(request)));
    async move {
        let Some(sent) = sent else { return Err(ExchangeError::Stale) };
        let answer = tokio::select! {
            answer = sent => answer,
            error = overdue(progress, timeouts.answer) => return Err(error),
        };
        talk.told().await;
        match answer {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => Err(ExchangeError::Malformed),
            Ok(answer) => Ok((answer, lease)),
            Err(error) if error.is_parse() => Err(ExchangeError::Malformed),
            Err(error) if error.is_user() => Err(ExchangeError::Client),
            Err(_) if reused && !lease.has_heard() => Err(ExchangeError::Stale),
            Err(error) => Err(ExchangeError::Lost(error)),
        }
    }
}

/// Passes on what a backend says before its answer (103 and its like), if the client may hear it. A 100 is between
/// neighbours.
fn hear_early(request: &mut Request<RequestBody>, talk: &Arc<Talk>) {
    if !talk.hears_more() {
        return;
    }
    let talk = talk.clone();
    hyper::ext::on_informational(request, move |answer| {
        if !matches!(answer.status(), StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            talk.tell(&provisional_head(answer.status(), answer.headers()));
        }
    });
}

/// Ends when the answer is overdue; as long as the body moves, it is not.
async fn overdue(progress: Option<Progress>, patience: Duration) -> ExchangeError {
    let Some(progress) = progress else {
        tokio::time::sleep(patience).await;
        return ExchangeError::Timeout;
    };
    loop {
        let deadline = progress.moved_at() + patience;
        if deadline <= Instant::now() {
            return if progress.has_ended() { ExchangeError::Timeout } else { ExchangeError::Stalled };
        }
        sleep_until(deadline).await;
    }
}
