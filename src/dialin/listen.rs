//! How a worker comes: accepted, met by TLS unless that is loopback, heard, and answered.
//!
//! Invariants: what is not parked holds its connection for `server.handshake_timeout` at most, and there are no more of
//! these than [`ARRIVING_MAX`]; a connection is parked with the desk only after it was told so.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::desk::{News, Welcome};
use super::line::{self, Ended, Parked, Reporter};
use super::request::{self, Asked, HEAD_BYTES_MAX, Head, Refusal};
use crate::backends::DialIn;
use crate::door::listen::Bound;
use crate::door::secure::{Meeting, come_together};
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::metrics::{AttachResult, GaugeGuard};
use crate::net::{ClientStream, watch_waiting};
use crate::process::Process;

/// Connections that are on their way to be parked; the others wait in the backlog.
const ARRIVING_MAX: usize = 256;

/// After a failed accept (out of descriptors), so that it doesn't fail a million times a second.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Whether TLS is spoken at this address.
pub(super) fn speaks_tls(bound: &Bound) -> bool {
    match bound {
        Bound::Tcp(listener) => !listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
        Bound::Unix(..) | Bound::Activated(..) => false,
    }
}

/// Accepts workers until `stopped` turns true; what is parked then is closed.
pub(super) async fn accept(
    bound: Bound,
    process: Arc<Process>,
    news: mpsc::Sender<News>,
    mut stopped: watch::Receiver<bool>,
) {
    let tls = speaks_tls(&bound);
    let listener = match bound {
        Bound::Tcp(listener) => TcpListener::from_std(listener),
        // The configuration allows none.
        Bound::Unix(..) | Bound::Activated(..) => Err(io::ErrorKind::Unsupported.into()),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener could not be watched"),
    };
    let mut gate = process.upgrade.watch();
    let (mut arrivals, arriving) = (JoinSet::new(), Arc::new(Semaphore::new(ARRIVING_MAX)));
    loop {
        let accepted = async {
            let place = arriving.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            // A sender that is gone means the same as one that says so.
            () = async { drop(stopped.wait_for(|&stopped| stopped).await) } => return,
            // Who comes now finds the process that serves next.
            () = gate.shut() => tokio::select! {
                () = gate.open() => {}
                () = async { drop(stopped.wait_for(|&stopped| stopped).await) } => return,
            },
            _ = arrivals.join_next(), if !arrivals.is_empty() => {}
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => {
                    let comer = Comer::new(&process, &news, tls);
                    // Without it what is small waits a little, and nothing else.
                    let _ = stream.set_nodelay(true);
                    arrivals.spawn(comer.serve(stream.into(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    process.metrics.connection_result(ListenerLabel::Attach, ConnectionResult::AcceptFailed);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// A connection of a worker, until it is taken.
struct Comer {
    process: Arc<Process>,
    news: mpsc::Sender<News>,
    tls: bool,
    began: Instant,
    _counted: GaugeGuard,
}

/// Who is to be parked, and by what name.
type Name = (Arc<str>, Arc<str>);

impl Comer {
    fn new(process: &Arc<Process>, news: &mpsc::Sender<News>, tls: bool) -> Self {
        let counted = process.metrics.connection(ListenerLabel::Attach);
        Self { process: process.clone(), news: news.clone(), tls, began: Instant::now(), _counted: counted }
    }

    /// Serves the connection until it is taken or ends; it gives up its `place` once it is parked.
    async fn serve(self, stream: ClientStream, place: Result<OwnedSemaphorePermit, AcquireError>) {
        let heard = self.hear(stream).await;
        drop(place);
        if let Some((stream, name, welcome)) = heard {
            self.park(stream, name, welcome).await;
        }
    }

    /// Hears what it wants, and answers; what is to be parked comes back.
    async fn hear(&self, mut stream: ClientStream) -> Option<(ClientStream, Name, Welcome)> {
        let patience = self.process.rules.load().handshake_timeout;
        if self.tls {
            // The configuration has certificates wherever one comes here.
            let set = self.process.tls.public()?;
            let meeting = Meeting { listener: ListenerLabel::Attach, patience, began: self.began, read: &[] };
            come_together(&self.process, &mut stream, &set, meeting).await?;
        }
        let left = patience.saturating_sub(self.began.elapsed());
        let Ok(parked) = timeout(left, self.converse(&mut stream)).await else {
            self.process.metrics.attach_request(AttachResult::Broken);
            return None;
        };
        let (name, welcome) = parked?;
        Some((stream, name, welcome))
    }

    async fn converse(&self, stream: &mut ClientStream) -> Option<(Name, Welcome)> {
        let (answer, parked) = match self.judge(stream).await? {
            Ok(Answer::Parked(name, welcome)) => (request::welcome(&welcome), Some((name, welcome))),
            Ok(Answer::Drained(answer)) => (answer, None),
            Err(refusal) => {
                tracing::info!(why = %refusal, "attach.refused");
                self.process.metrics.attach_request(refusal.result());
                (refusal.answer(), None)
            }
        };
        let written = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        written.await.ok()?;
        if parked.is_none() {
            // That the answer arrives is all that is wanted of it.
            let _ = stream.shutdown().await;
        }
        parked
    }

    /// What becomes of the request; nothing if it does not come.
    async fn judge(&self, stream: &mut ClientStream) -> Option<Result<Answer, Refusal>> {
        let head = match read_head(stream).await? {
            Ok(head) => head,
            Err(refusal) => return Some(Err(refusal)),
        };
        let tokens = self.process.tokens.load_full();
        let asked = match head.judge(tokens.as_deref()) {
            Ok(asked) => asked,
            Err(refusal) => return Some(Err(refusal)),
        };
        match asked {
            Asked::Park(said) => self.come(said).await,
            Asked::Drain { id, instance } => {
                let (answer, answered) = oneshot::channel();
                self.news.send(News::Drain { id, instance, answer }).await.ok()?;
                let progress = answered.await.ok()?;
                if progress.is_ok() {
                    self.process.metrics.attach_request(AttachResult::Drained);
                }
                Some(progress.map(|progress| Answer::Drained(request::drained(progress))))
            }
        }
    }

    async fn come(&self, said: DialIn) -> Option<Result<Answer, Refusal>> {
        let name = (said.id.clone(), said.instance.clone());
        let (answer, answered) = oneshot::channel();
        self.news.send(News::Come { said, answer }).await.ok()?;
        Some(answered.await.ok()?.map(|welcome| Answer::Parked(name, welcome)))
    }

    /// Keeps a connection parked that was told so.
    async fn park(self, stream: ClientStream, (id, instance): Name, welcome: Welcome) {
        let Welcome { line, beat, .. } = welcome;
        if let Some(socket) = stream.socket()
            && let Err(error) = watch_waiting(socket, beat)
        {
            return tracing::debug!(%error, "the other end has gone");
        }
        self.process.metrics.attach_request(AttachResult::Parked);
        let (give, given) = oneshot::channel();
        let parked = Parked { line, give };
        if self.news.send(News::Park { id: id.clone(), instance, parked }).await.is_err() {
            return;
        }
        let reporter = Reporter { news: self.news, id, line };
        if let Ended::Lost(why) = line::keep(stream, beat, given, &reporter).await {
            reporter.lost(why).await;
        }
    }
}

/// What a request comes to.
enum Answer {
    Parked(Name, Welcome),
    Drained(Vec<u8>),
}

/// Reads a request's head; nothing if its connection ends before. Nothing may follow it: what is parked is silent.
async fn read_head(stream: &mut ClientStream) -> Option<Result<Head, Refusal>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match Head::parse(&bytes) {
            Ok(None) => {}
            Ok(Some(head)) if head.length < bytes.len() => {
                return Some(Err(Refusal::Malformed("something follows it")));
            }
            Ok(Some(head)) => return Some(Ok(head)),
            Err(refusal) => return Some(Err(refusal)),
        }
        let room = (HEAD_BYTES_MAX - bytes.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
