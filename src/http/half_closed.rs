//! A client that has ended its side while it is answered: one that only says no more, or one that has gone?
//!
//! TCP says the same of both. One that has gone answers what it is sent with a reset, so it is sent something: a
//! `100 Continue`, which a client of HTTP/1.1 has to pass over (RFC 9110 section 15.2), once an answer has not come
//! within [`ANSWER_EXPECTED`]. Behind the head of an answer there is nothing harmless to say: there a client counts as
//! gone once the answer has stood still for [`STANDSTILL_MAX`].
//! Invariant: an answer that comes at once comes alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

use super::talk::{Ask, Step};

/// How long the answer to a client that has ended its side is waited for before it is asked whether it is there.
pub const ANSWER_EXPECTED: Duration = Duration::from_millis(30);

/// How long the answer to a client that has ended its side may stand still.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(2);

/// From the question to the first look for a reset; each later look comes after twice the time.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// From one look for a reset to the next, at most.
const LOOK_MAX: Duration = Duration::from_secs(1);

const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client that has ended its side of a connection.
#[derive(Debug)]
pub(super) struct HalfClosed {
    timer: Pin<Box<Sleep>>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The answer may come at once.
    Expecting,
    /// So much of the question has been written.
    Asking(usize),
    /// The next look for a reset comes after this much more.
    Asked(Duration),
    /// A head of an answer has been written, or could be.
    Answering,
}

impl HalfClosed {
    /// A client that has just ended its side.
    ///
    /// # Errors
    /// It may not do so now.
    pub fn begin(step: Step) -> io::Result<Self> {
        let (phase, wait) = match step {
            Step::Asked(Ask::Upgrade) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Step::Asked(Ask::Plain) => (Phase::Expecting, ANSWER_EXPECTED),
            Step::Asked(Ask::Nothing) | Step::Idle | Step::Head | Step::Answering | Step::Answered | Step::Left => {
                (Phase::Answering, STANDSTILL_MAX)
            }
        };
        Ok(Self { timer: Box::pin(tokio::time::sleep(wait)), phase })
    }

    /// A part of the answer was taken.
    pub fn moved(&mut self) {
        self.wait(STANDSTILL_MAX);
        self.phase = Phase::Answering;
    }

    /// Finds out whether the client is still there; to be called when everything else has been written.
    ///
    /// # Errors
    /// It has gone.
    pub fn check(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        step: Step,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if !matches!(step, Step::Asked(_)) && self.phase != Phase::Answering {
            self.moved();
        }
        loop {
            if !matches!(self.phase, Phase::Asking(_)) && self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            match self.phase {
                Phase::Expecting => self.phase = Phase::Asking(0),
                Phase::Asking(written) => match Pin::new(&mut *stream).poll_write(cx, &QUESTION[written..]) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(taken) => self.asked(written + taken?),
                },
                Phase::Asked(next) => {
                    // Nothing is sent, but a socket that was reset says so.
                    if let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_write(cx, &[]) {
                        return Err(error);
                    }
                    self.wait(next);
                    self.phase = Phase::Asked((next * 2).min(LOOK_MAX));
                }
                Phase::Answering => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn asked(&mut self, written: usize) {
        if written < QUESTION.len() {
            self.phase = Phase::Asking(written);
        } else {
            self.wait(FIRST_LOOK);
            self.phase = Phase::Asked(FIRST_LOOK * 2);
        }
    }

    fn wait(&mut self, wait: Duration) {
        self.timer.as_mut().reset(Instant::now() + wait);
    }
}
