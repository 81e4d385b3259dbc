//! One connection that speaks HTTP/2 (RFC 9113): each of its streams is a request, or a WebSocket (RFC 8441).
//!
//! ```text
//! connection ──▶ stream ──▶ head ──▶ judge      a task for each stream, which ends with it
//!                  │  ◀──── Verdict ◀──┘
//!                  ├──▶ response                  an answer, as fast as the client takes it
//!                  └──▶ shuttle ──▶ pipe          the bytes of a WebSocket, over a stream in memory
//! ```
//! Frames, windows and their rules are the library's; here are its bounds, and when the connection ends. `calm` bounds
//! what a client may take back. Invariants: a stream is counted as a connection, and a connection is one while it has none;
//! what a pipe has not read is not asked for; all that is held for one connection is bounded by [`STREAMS_MAX`] times
//! [`STREAM_BYTES_MAX`].

mod calm;
mod head;
mod response;
mod shuttle;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Door;
use super::listen::Arrival;
use super::outcome::Seat;
use crate::http::Counted;
use crate::metrics::labels::{ConnectionResult, Http2End, ListenerLabel};
use crate::net::{ClientStream, Peer, TlsIdentity};
use crate::process::Process;
use crate::send_timeout::SendTimeout;
use calm::Calm;
use stream::Stream;

/// Streams of one connection at a time; one more is refused, and its client opens another connection.
const STREAMS_MAX: u32 = 100;

/// What one client may send on a stream ahead of what is read, and what is held of an answer ahead of what it takes.
const STREAM_BYTES_MAX: usize = 64 << 10;

/// What one client may send on all streams of a connection ahead of what is read.
const CONNECTION_BYTES_MAX: u32 = 1 << 20;

/// What short frames of data may cost beside their bytes while they wait. They wait in the library for a moment only.
const SMALL_FRAMES_BYTES_MAX: usize = 4 << 20;

/// How long a connection without a stream that was told to end may take for its last word.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection below.
type Socket = SendTimeout<ClientStream>;

/// Serves one connection until it closes.
pub async fn serve(door: Arc<Door>, arrival: Arrival) {
    let Arrival { stream, peer, identity, read: _, seat, began } = arrival;
    let rules = door.process.rules.load_full();
    let patience = rules.patience.head.saturating_sub(began.elapsed());
    let greeting = builder(rules.header_bytes_max).handshake(SendTimeout::new(stream, rules.send_timeout));
    let idle = rules.patience.next;
    drop(rules);
    let process = door.process.clone();
    let _counted = process.metrics.http2_connection();
    let end = match timeout(patience, greeting).await {
        Ok(Ok(connection)) => {
            let over = seat.is_over();
            let (streams, calm) = (watch::Sender::new(0), Arc::new(Calm::new()));
            let session = Conversation { door, peer, identity, over, seat: Some(seat), streams, calm };
            session.hold(connection, idle).await
        }
        Ok(Err(error)) => {
            let end = end_of(&error);
            if end == Http2End::Protocol {
                process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::BadRequest);
            }
            end
        }
        Err(_) => {
            process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::TimedOut);
            Http2End::TimedOut
        }
    };
    process.metrics.http2_ended(end);
}

fn builder(header_bytes_max: usize) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_BYTES_MAX as u32)
        .initial_connection_window_size(CONNECTION_BYTES_MAX)
        .max_send_buffer_size(STREAM_BYTES_MAX)
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
        .data_frame_budget(SMALL_FRAMES_BYTES_MAX)
        .enable_connect_protocol();
    builder
}

/// A place among the streams of a connection.
#[derive(Debug)]
struct Live(watch::Sender<u32>);

impl Live {
    fn new(streams: &watch::Sender<u32>) -> Self {
        streams.send_modify(|count| *count += 1);
        Self(streams.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// One connection.
struct Conversation {
    door: Arc<Door>,
    peer: Peer,
    identity: Option<Arc<TlsIdentity>>,
    /// Whether there were `server.max_connections` without it.
    over: bool,
    /// Its place in the books while none of its streams has one.
    seat: Option<Seat>,
    /// How many streams there are.
    streams: watch::Sender<u32>,
    calm: Arc<Calm>,
}

impl Conversation {
    /// Serves the streams of `connection` until it closes, or has had none for as long as `patience`; why it ended.
    async fn hold(mut self, mut connection: Connection<Socket, Bytes>, patience: Duration) -> Http2End {
        let process = self.door.process.clone();
        let (mut counts, mut left) = (self.streams.subscribe(), self.streams.subscribe());
        let mut leaving = Box::pin(leaves(&process, self.streams.subscribe()));
        // Why it was told to end, and by what a stop waits for that.
        let (mut told, mut awaited) = (None, None);
        loop {
            let patience = if told.is_some() { FAREWELL } else { patience };
            tokio::select! {
                biased;
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        self.open(request, respond);
                        if self.over && told.is_none() {
                            connection.graceful_shutdown();
                            told = Some(Http2End::Refused);
                        }
                    }
                    Some(Err(error)) => return told.unwrap_or_else(|| end_of(&error)),
                    None => return told.unwrap_or(Http2End::Closed),
                },
                () = self.calm.lost(), if told != Some(Http2End::TakenBack) => {
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    told = Some(Http2End::TakenBack);
                }
                counted = &mut leaving, if awaited.is_none() => {
                    awaited = Some(counted);
                    if told.is_none() {
                        connection.graceful_shutdown();
                        told = Some(Http2End::GoingAway);
                    }
                }
                () = emptied(&mut left), if self.seat.is_none() => self.seat = Some(Seat::take_back(&process)),
                () = idle(&mut counts, patience) => match told {
                    // It does not take the word.
                    Some(end) => return end,
                    None => {
                        connection.graceful_shutdown();
                        told = Some(Http2End::Idle);
                    }
                },
            }
        }
    }

    /// Answers the request on one stream, in a task of its own.
    fn open(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let process = &self.door.process;
        let seat = match self.seat.take() {
            Some(seat) if seat.is_over() => {
                // Others may have left since it was taken.
                drop(seat);
                Seat::take_back(process)
            }
            Some(seat) => seat,
            None => Seat::take(process),
        };
        let stream = Stream {
            seat,
            live: Live::new(&self.streams),
            door: self.door.clone(),
            peer: self.peer,
            identity: self.identity.clone(),
            calm: self.calm.clone(),
        };
        tokio::spawn(stream.serve(request, respond));
    }
}

/// Why a connection ended with `error`.
fn end_of(error: &h2::Error) -> Http2End {
    if error.is_io() || error.is_remote() { Http2End::Closed } else { Http2End::Protocol }
}

/// Waits until the process takes nothing new, and then for this connection's turn to be told, if it has streams. A stop
/// waits for what is returned.
async fn leaves(process: &Process, streams: watch::Receiver<u32>) -> Counted {
    process.phase.leaves().await;
    let counted = process.exchanges.count_in();
    if *streams.borrow() > 0 {
        let spread = process.config.load().server.close_spread;
        sleep(spread.mul_f64(rand::random::<f64>())).await;
    }
    counted
}

/// Waits until there is no stream.
async fn emptied(streams: &mut watch::Receiver<u32>) {
    // The sender lives as long as the connection.
    drop(streams.wait_for(|&count| count == 0).await);
}

/// Waits until there has been no stream for as long as `patience`.
async fn idle(streams: &mut watch::Receiver<u32>, patience: Duration) {
    loop {
        emptied(streams).await;
        if timeout(patience, streams.wait_for(|&count| count > 0)).await.is_err() {
            return;
        }
    }
}
