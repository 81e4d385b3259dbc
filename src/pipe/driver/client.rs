//! The client's side of a pipe's task: a socket that goes, and another that takes its place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use holdline_core::close::CloseFrame;
use holdline_core::frame::{self, Opcode, Side};
use holdline_core::ids::Generation;
use holdline_core::pipe::{LinkLoss, Peer};
use holdline_core::time::Time;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Driver;
use crate::metrics::AbsentGuard;
use crate::metrics::labels::ListenerLabel;
use crate::pipe::ClientStream;
use crate::pipe::attach::{Plan, Return};
use crate::pipe::client_stream::LooseStream;
use crate::pipe::reading::{Came, Keep, Reading, read};
use crate::routes::Duplicate;

/// Replaced links of one pipe that are still told so; with more, the oldest is dropped without it.
const PARTING_MAX: usize = 4;

/// A link on which its last words are said.
type Parting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A client that has been answered and comes to its pipe.
#[derive(Debug)]
pub struct Newcomer {
    /// Its socket, of no thread yet.
    pub stream: LooseStream,
    /// What it sent behind its handshake.
    pub first: Bytes,
    /// What workers are told of it from now on.
    pub plan: Return,
}

/// The links that a client has had besides the present one.
#[derive(Default)]
pub(super) struct Visits {
    /// The present one's place in the order in which they were answered.
    arrival: u64,
    /// Set while the client is awaited.
    absent: Option<AbsentGuard>,
    /// Those that others have replaced, while they are told so.
    parting: Vec<Parting>,
}

impl Driver {
    /// Gives the pipe its client, whose `first` bytes came before the socket did.
    pub fn start(&mut self, client: ClientStream, first: Bytes) {
        self.client = Some(client);
        if !first.is_empty() {
            self.first.get_or_insert_default().client = first;
        }
    }

    pub(super) fn read_client(&mut self, cx: &mut Context<'_>, now: Time) -> Came {
        let budget = self.budget(Side::Client);
        let Some(stream) = &mut self.client else { return Came::Unread };
        self.pipe.set_paused(Side::Client, budget == 0, now);
        // What waits for a worker may wait long: it is copied, so that it holds no more memory than it is charged.
        let keep = if self.backend.is_some() { Keep::UntilConfirmed } else { Keep::Copy };
        read(
            stream,
            Reading { peer: Peer::Client(self.generation), budget, keep, end: LinkLoss::Eof },
            &mut self.pipe,
            cx,
            now,
        )
    }

    /// The client is there on another socket, which takes the place of one that it may still have.
    pub(super) fn client_comes(&mut self, newcomer: Newcomer, cx: &mut Context<'_>, now: Time) {
        let stream = match newcomer.stream.bind() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(pipe = %self.entry().id, %error, "a client that came back could not be attached");
                return;
            }
        };
        // Threads differ in speed: one that was answered later may be here already.
        if newcomer.plan.arrival < self.visits.as_ref().map_or(0, |visits| visits.arrival) {
            return self.turn_away(stream, &CloseFrame::new(1000, "replaced"), cx);
        }
        let rejects = self.plan.route.identity.as_ref().is_some_and(|it| it.duplicate == Duplicate::Reject);
        if rejects && self.client.is_some() {
            // Two came at once, and both found nobody there.
            return self.turn_away(stream, &CloseFrame::new(1008, "connected already"), cx);
        }
        let Some(generation) = self.pipe.client_attached(now) else {
            return self.turn_away(stream, &CloseFrame::new(1012, "come again"), cx);
        };
        // The old socket goes by the order that names it, before the new one is there.
        self.act(cx, now);
        self.client = Some(stream);
        self.generation = generation;
        if !newcomer.first.is_empty() {
            self.first.get_or_insert_default().client = newcomer.first;
        }
        let Return { target, host, head_lines, client, arrival } = newcomer.plan;
        let visits = self.visits.get_or_insert_default();
        (visits.arrival, visits.absent) = (arrival, None);
        self.entry().set_client(client);
        self.plan = Arc::new(Plan { target, host, head_lines, ..(*self.plan).clone() });
    }

    /// Says whether the client is awaited, before either peer hears anything from which it could conclude otherwise.
    pub(super) fn say_who_is_awaited(&self) {
        if self.plan.settings.client_grace.is_some() {
            self.entry().set_awaits_client(self.pipe.awaits_client());
        }
    }

    /// Drops the client's socket, if it is the one that is meant.
    pub(super) fn drop_client(&mut self, generation: Generation, last_words: Vec<u8>, cx: &mut Context<'_>) {
        if generation != self.generation {
            return;
        }
        let Some(mut stream) = self.client.take() else { return };
        if self.pipe.awaits_client() {
            let absent = self.shared.metrics.absent(ListenerLabel::Public);
            self.visits.get_or_insert_default().absent = Some(absent);
        }
        if last_words.is_empty() {
            // Closing alone would throw away what was written last, if the client had said more than was read.
            let _ = Pin::new(&mut stream).poll_shutdown(cx);
        } else {
            self.part_from(stream, last_words, cx);
        }
    }

    fn turn_away(&mut self, stream: ClientStream, frame: &CloseFrame, cx: &mut Context<'_>) {
        let mut words = Vec::new();
        frame::encode(&mut words, Opcode::Close, &frame.payload(), None);
        self.part_from(stream, words, cx);
    }

    fn part_from(&mut self, stream: ClientStream, last_words: Vec<u8>, cx: &mut Context<'_>) {
        let parting = &mut self.visits.get_or_insert_default().parting;
        if parting.len() == PARTING_MAX {
            drop(parting.remove(0));
        }
        parting.push(Box::pin(part(stream, last_words, self.plan.settings.close_timeout)));
        self.poll_parting(cx);
    }

    pub(super) fn poll_parting(&mut self, cx: &mut Context<'_>) {
        if let Some(visits) = &mut self.visits {
            visits.parting.retain_mut(|parting| parting.as_mut().poll(cx).is_pending());
        }
    }
}

/// Says the last words, and then waits for the peer to close: what it is still sending would make the kernel throw away
/// what it has not read yet.
async fn part(mut stream: ClientStream, last_words: Vec<u8>, patience: Duration) {
    let parting = async {
        stream.write_all(&last_words).await?;
        stream.shutdown().await?;
        let mut sink = [0; 512];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen is left.
    let _ = tokio::time::timeout(patience, parting).await;
}
