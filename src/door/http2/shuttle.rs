//! The bytes of a WebSocket on a stream of HTTP/2, carried between the stream and the pipe that they are for.
//!
//! To the pipe, the client is a link like any other: a stream in memory, which may be taken to another thread. Invariants:
//! the client's window opens only as the pipe reads, so that no more than the window is held; a stream that is reset, or
//! ended without a close frame, is a lost link; a pipe that ends ends the stream, and one that goes without a word resets
//! it.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::timeout;

use super::STREAM_BYTES_MAX;
use super::response::poll_room;
use crate::net::MemoryStream;

/// Bytes that are handed to the connection at once, so that all its streams have their turns.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// One stream and its pipe's link.
pub(super) struct Shuttle {
    client: RecvStream,
    to_client: SendStream<Bytes>,
    pipe: MemoryStream,
    /// Bytes that the pipe has read, and that the client may send anew.
    released: u64,
    ends: Ends,
}

/// Who says nothing more.
#[derive(Clone, Copy, Default)]
struct Ends {
    /// The client.
    client: bool,
    /// We, to the client.
    ours: bool,
    /// The pipe neither reads nor writes any more.
    pipe: bool,
}

/// The stream was reset, by either side.
struct Reset;

impl Shuttle {
    /// Both ends of a link between a stream and a pipe.
    pub(super) fn link() -> (MemoryStream, MemoryStream) {
        MemoryStream::pair(STREAM_BYTES_MAX)
    }

    pub(super) fn new(client: RecvStream, to_client: SendStream<Bytes>, pipe: MemoryStream) -> Self {
        Self { client, to_client, pipe, released: 0, ends: Ends::default() }
    }

    /// Carries bytes until neither side has more. What a pipe that is gone has left waits for the client no longer than
    /// `patience`.
    pub(super) async fn run(mut self, patience: Duration) {
        if poll_fn(|cx| self.poll_live(cx)).await {
            return;
        }
        if timeout(patience, poll_fn(|cx| self.poll_carry(cx))).await.is_err() {
            self.to_client.send_reset(Reason::CANCEL);
        }
    }

    /// Carries bytes until all is over, or the pipe is gone and has left some; whether all is over.
    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.poll_carry(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.ends.pipe => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let carried = self.take_in(cx).and_then(|()| self.give_out(cx));
        let is_over = carried.is_err() || self.ends.ours && (self.ends.client || self.ends.pipe);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hands on what the client has sent, and asks for as much as the pipe has read.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<(), Reset> {
        while !self.ends.client {
            match self.client.poll_data(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => {
                    self.pipe.write_now(&data);
                }
                Poll::Ready(Some(Err(_))) => return Err(Reset),
                Poll::Ready(None) => {
                    self.ends.client = true;
                    self.pipe.end();
                }
            }
        }
        while let Poll::Ready(progress) = self.pipe.poll_progress(self.released, cx) {
            let Some(read) = progress else {
                self.ends.pipe = true;
                break;
            };
            let bytes = usize::try_from(read - self.released).unwrap_or(usize::MAX);
            // It fails for a stream that is closed, which needs no window.
            let _ = self.client.flow_control().release_capacity(bytes);
            self.released = read;
        }
        if self.to_client.poll_reset(cx).is_ready() { Err(Reset) } else { Ok(()) }
    }

    /// Sends as much of what the pipe has written as the client takes.
    fn give_out(&mut self, cx: &mut Context<'_>) -> Result<(), Reset> {
        while !self.ends.ours {
            let Poll::Ready(waiting) = self.pipe.poll_waiting(cx) else { break };
            if waiting == 0 {
                self.ends.ours = true;
                if self.pipe.was_cut() {
                    self.to_client.send_reset(Reason::INTERNAL_ERROR);
                    return Err(Reset);
                }
                return self.to_client.send_data(Bytes::new(), true).map_err(|_| Reset);
            }
            let Poll::Ready(room) = poll_room(&mut self.to_client, waiting.min(PIECE_BYTES_MAX), cx) else { break };
            let piece = self.pipe.take_waiting(room.ok_or(Reset)?);
            self.to_client.send_data(piece, false).map_err(|_| Reset)?;
        }
        Ok(())
    }
}
