//! One connection while it is parked: both ends show that they live by an empty line now and then (RFC 9112 section 2.2).
//!
//! It ends by being taken, by its other end, by silence, or because the desk has let go of it. Invariant: it is handed over
//! with nothing written on it but whole empty lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdline_core::dialin::parking::Line;
use prometheus::IntCounter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::desk::News;
use crate::net::{ClientStream, LooseStream, Taken, TakenLine, watch_spoken_on};

/// An empty line.
const BLANK: &[u8] = b"\r\n";

/// Signs of life that may be missed before the other end is given up.
const BEATS_MISSED_MAX: u32 = 3;

/// To whom a connection goes.
#[derive(Debug)]
pub(super) struct Give {
    /// Who takes it.
    pub answer: oneshot::Sender<Taken>,
    /// How many its worker is asked to keep.
    pub want: u32,
    /// Counts it as lost if it ends without a byte.
    pub lost: IntCounter,
}

/// Tells the desk of one connection.
pub(super) struct Reporter {
    /// The desk.
    pub news: mpsc::Sender<News>,
    /// Its backend.
    pub id: Arc<str>,
    /// Its number.
    pub line: Line,
}

impl Reporter {
    async fn heard(&self) {
        // The desk goes with the process.
        let _ = self.news.send(News::Heard { id: self.id.clone(), line: self.line }).await;
    }

    /// It has ended.
    pub(super) async fn lost(self, why: &'static str) {
        // As above.
        let _ = self.news.send(News::Lost { id: self.id, line: self.line, why }).await;
    }
}

/// How the wait of a parked connection ends.
pub(super) enum Ended {
    /// It was handed over, or let go of.
    Done,
    /// Its other end closed it, was silent for too long, or said what does not belong there.
    Lost(&'static str),
}

/// Keeps a connection parked until it is given away or ends; the desk is told of each sign of life.
pub(super) async fn keep(
    mut stream: ClientStream,
    beat: Duration,
    mut give: oneshot::Receiver<Give>,
    reporter: &Reporter,
) -> Ended {
    let mut beats = interval_at(Instant::now() + beat, beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_at = Instant::now() + beat * BEATS_MISSED_MAX;
    let mut space = [0; 64];
    loop {
        tokio::select! {
            biased;
            given = &mut give => {
                if let Ok(give) = given {
                    hand_over(stream, give);
                }
                return Ended::Done;
            }
            read = stream.read(&mut space) => match read {
                Ok(bytes @ 1..) if space[..bytes].iter().all(|byte| BLANK.contains(byte)) => {
                    silent_at = Instant::now() + beat * BEATS_MISSED_MAX;
                    reporter.heard().await;
                }
                Ok(1..) => return Ended::Lost("it spoke before it was spoken to"),
                Ok(0) => return Ended::Lost("it was closed"),
                Err(_) => return Ended::Lost("it broke"),
            },
            _ = beats.tick() => match timeout(beat, say_that_we_live(&mut stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ended::Lost("it broke"),
                Err(_) => return Ended::Lost("it takes nothing"),
            },
            () = sleep_until(silent_at) => return Ended::Lost("it was silent for too long"),
        }
    }
}

async fn say_that_we_live(stream: &mut ClientStream) -> io::Result<()> {
    stream.write_all(BLANK).await?;
    stream.flush().await
}

fn hand_over(stream: ClientStream, give: Give) {
    let Give { answer, want, lost } = give;
    if let Some(socket) = stream.socket() {
        watch_spoken_on(socket);
    }
    let taken = LooseStream::loosen(stream).map(|stream| Some(TakenLine { stream, want, lost }));
    // Who asked may have given up meanwhile; the connection is closed then, and its worker parks another.
    let _ = answer.send(taken.map_err(Into::into));
}

/// A parked connection, as the desk keeps it.
#[derive(Debug)]
pub(super) struct Parked {
    /// Its number.
    pub line: Line,
    /// How it is given away; dropped, it is let go of.
    pub give: oneshot::Sender<Give>,
}
