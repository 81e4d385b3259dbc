//! A client that is on no socket: its end of the link to its pipe, served by one request after the other.
//!
//! The pipe sees an aware client like any other. What it says is kept here until the client acknowledges it with its next
//! poll, so that an answer that is lost is given again. What the client says goes on in the order of its numbers, and is
//! acknowledged once the pipe has read it. Invariant: nothing happens between requests, and what is held is bounded by the
//! pipe's window.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use holdline_core::close::CloseFrame;
use holdline_core::frame::{Side, parse};
use holdline_core::ids::{Generation, PipeId};
use holdline_core::shared::cutter::{Cutter, Piece};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::early::Early;
use super::kept::{Kept, Since, Told};
use super::words::{Heard, Said};
use crate::net::{MemoryStream, MemoryWatch};

/// Bytes that are read from the pipe at once.
const READ_BYTES: usize = 4096;

/// How long a message that came too early waits for those before it, and one that the pipe does not read for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a poll.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Polled {
    /// Lines, at least one.
    Lines(Vec<Told>),
    /// Nothing yet.
    Nothing,
    /// A newer poll has taken the place of this one.
    Replaced,
    /// The pipe has ended, and everything was told.
    Over,
}

/// A client claims to have what was never sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FromTheFuture;

/// Why what a client said is not all taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotTaken {
    /// A message before it is missing, or too much waits for it.
    Hole,
    /// It acknowledges what was never sent.
    FromTheFuture,
    /// The pipe takes nothing now.
    Busy,
    /// The pipe has ended, or its client went on elsewhere.
    Over,
}

/// A poll that is under way, until it is dropped.
struct UnderWay<'a> {
    session: &'a Session,
    poll: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.session.state().end_poll(self.poll);
    }
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pipe: PipeId,
    /// The client's attach, which its token names.
    generation: Generation,
    epoch: u64,
    state: Mutex<State>,
    /// The number of the client's next message.
    next: watch::Sender<u64>,
    early: Early,
}

#[derive(Debug)]
struct State {
    stream: MemoryStream,
    cutter: Cutter,
    /// What was read and not cut.
    unread: BytesMut,
    /// The key of this end's frames (RFC 6455 section 5.3).
    mask: [u8; 4],
    kept: Kept,
    /// What the client has acknowledged.
    acknowledged: u64,
    /// The client's last message that a worker has confirmed.
    confirmed: u64,
    /// How many polls there were, and who waits for the last one.
    polls: u64,
    parked: Option<Waker>,
    over: bool,
    /// What the pipe has closed with.
    closed: Option<CloseFrame>,
}

impl Session {
    /// The session of a client that is on `stream` to its pipe.
    #[must_use]
    pub fn new(pipe: PipeId, stream: MemoryStream, early: Early, mask: [u8; 4]) -> Self {
        let state = State {
            stream,
            cutter: Cutter::new(Side::Backend),
            unread: BytesMut::new(),
            mask,
            kept: Kept::default(),
            acknowledged: 0,
            confirmed: 0,
            polls: 0,
            parked: None,
            over: false,
            closed: None,
        };
        let (next, _) = watch::channel(1);
        Self { pipe, generation: Generation::FIRST, epoch: 0, state: Mutex::new(state), next, early }
    }

    /// The client's attach.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The pipe's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its pipe.
    #[must_use]
    pub const fn pipe(&self) -> PipeId {
        self.pipe
    }

    /// The client's last message that the pipe has, and the last one that a worker has confirmed.
    #[must_use]
    pub fn taken(&self) -> (u64, u64) {
        (*self.next.borrow() - 1, self.state().confirmed)
    }

    /// Says hello, and waits for the pipe's answer to it.
    ///
    /// # Errors
    /// With what the pipe was closed instead; nothing if it is gone.
    pub async fn greet(&mut self, hello: Map<String, Value>) -> Result<Map<String, Value>, Option<CloseFrame>> {
        let has = hello.get("resume").and_then(|resume| resume.get("rx")).and_then(Value::as_u64).unwrap_or(0);
        self.state().say(&Said::Control(Value::Object(hello).to_string()));
        let answer = poll_fn(|cx| self.state().poll_heard(cx)).await;
        let Some(Heard::Control(answer)) = answer else { return Err(self.state().closed.take()) };
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.next.send_replace(number("rx") + 1);
        self.state().begin_behind(has);
        self.generation = Generation(number("gen"));
        self.epoch = number("epoch");
        Ok(answer)
    }

    /// Hands `said` on, in the order of its numbers, and waits until the pipe has read it.
    ///
    /// # Errors
    /// Why not all of it was taken; [`Session::taken`] tells how much was.
    pub async fn send(&self, said: Vec<Said>) -> Result<(), NotTaken> {
        self.wait_for_earlier(&said).await?;
        let mut written = 0;
        for one in said {
            let room = poll_fn(|cx| self.state().stream.poll_room(cx));
            tokio::time::timeout(PATIENCE, room).await.map_err(|_| NotTaken::Busy)?;
            written = self.write(&one)?.unwrap_or(written);
        }
        let read = poll_fn(|cx| self.state().stream.poll_was_read(written, cx));
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotTaken::Over),
            Err(_) => Err(NotTaken::Busy),
        }
    }

    /// Writes one line to the pipe, unless it is a repeat; where in the stream it ends.
    fn write(&self, said: &Said) -> Result<Option<u64>, NotTaken> {
        let mut state = self.state();
        if let Said::Ack(n) = said {
            return state.acknowledge(*n, None).map(|()| None).map_err(|FromTheFuture| NotTaken::FromTheFuture);
        }
        if let Some(seq) = said.seq() {
            let next = *self.next.borrow();
            if seq < next {
                return Ok(None);
            }
            if seq > next {
                return Err(NotTaken::Hole);
            }
            self.next.send_replace(next + 1);
        }
        Ok(Some(state.say(said)))
    }

    /// Waits until the messages before the first one of `said` have come.
    async fn wait_for_earlier(&self, said: &[Said]) -> Result<(), NotTaken> {
        let Some(first) = said.iter().find_map(Said::seq) else { return Ok(()) };
        let mut next = self.next.subscribe();
        if first <= *next.borrow() {
            return Ok(());
        }
        let bytes = said.iter().map(Said::bytes).sum();
        let _waiting = self.early.wait(bytes).ok_or(NotTaken::Hole)?;
        let came = tokio::time::timeout(PATIENCE, next.wait_for(|next| first <= *next)).await;
        came.map_or(Err(NotTaken::Hole), |_| Ok(()))
    }

    /// The client has all messages up to `n`, and all words up to the line `words`, if it says so.
    ///
    /// # Errors
    /// It was never sent that many.
    pub fn acknowledge(&self, n: u64, words: Option<u64>) -> Result<(), FromTheFuture> {
        self.state().acknowledge(n, words)
    }

    /// What the pipe has said since then. Waits for it up to `wait`; a poll that comes meanwhile takes the place of this
    /// one.
    pub async fn poll(&self, since: Since, wait: Duration, bytes_max: usize) -> Polled {
        let under_way = UnderWay { session: self, poll: self.state().begin_poll() };
        let lines = poll_fn(|cx| self.state().poll_lines(under_way.poll, since, bytes_max, cx));
        tokio::time::timeout(wait, lines).await.unwrap_or(Polled::Nothing)
    }

    /// A watch on the end of the link to the pipe.
    #[must_use]
    pub fn watch(&self) -> MemoryWatch {
        self.state().stream.watch()
    }

    /// A lock whose holder panicked still guards whole lines.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn say(&mut self, said: &Said) -> u64 {
        self.stream.write_now(&said.frame(self.mask))
    }

    /// The client has the messages up to `n` from before.
    fn begin_behind(&mut self, n: u64) {
        self.stream.set_attended(false);
        self.acknowledged = n;
        self.kept.begin_behind(n);
    }

    fn acknowledge(&mut self, after: u64, words: Option<u64>) -> Result<(), FromTheFuture> {
        if after > self.kept.last().max(self.acknowledged) || words > Some(self.kept.total()) {
            return Err(FromTheFuture);
        }
        self.kept.acknowledge(after, words);
        self.stream.keep(self.kept.memory_bytes());
        if after > self.acknowledged {
            self.acknowledged = after;
            self.say(&Said::Ack(after));
        }
        Ok(())
    }

    fn begin_poll(&mut self) -> u64 {
        self.polls += 1;
        self.parked.take().into_iter().for_each(Waker::wake);
        self.stream.set_attended(true);
        self.polls
    }

    /// No client is there between its polls, as far as is known.
    fn end_poll(&mut self, poll: u64) {
        if self.polls == poll {
            self.parked = None;
            self.stream.set_attended(false);
        }
    }

    /// The lines of the answer to this poll, once there are any.
    fn poll_lines(&mut self, poll: u64, since: Since, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.polls != poll {
            return Poll::Ready(Polled::Replaced);
        }
        self.take_in(cx);
        let lines = self.kept.tell(since, bytes_max);
        if !lines.is_empty() {
            return Poll::Ready(Polled::Lines(lines));
        }
        if self.over {
            return Poll::Ready(Polled::Over);
        }
        self.parked = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes in what the pipe has said.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(heard)) = self.poll_heard(cx) {
            match heard {
                Heard::Message { seq, json } => self.kept.message(seq, json),
                Heard::Control(word) => self.take_in_word(word),
            }
        }
        self.stream.keep(self.kept.memory_bytes());
    }

    /// Some words are for this end, the others for the client.
    fn take_in_word(&mut self, word: Map<String, Value>) {
        match word.get("t").and_then(Value::as_str) {
            // What the pipe has is said in the answers to what was sent.
            Some("ack") => {
                let confirmed = word.get("d").and_then(Value::as_u64).unwrap_or(0);
                self.confirmed = self.confirmed.max(confirmed);
            }
            Some("hb") => {
                self.say(&Said::Control(Value::Object(word).to_string()));
            }
            _ => self.kept.word(word),
        }
    }

    /// The next thing that the pipe says; nothing at its end.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        while !self.over {
            let Ok((used, piece)) = self.cutter.cut(&self.unread) else {
                self.end(&CloseFrame::new(1011, "internal error"));
                break;
            };
            self.unread.advance(used);
            match piece {
                Some(Piece::Message(frames)) => match unframed(&frames) {
                    Some(heard) => return Poll::Ready(Some(heard)),
                    None => self.end(&CloseFrame::new(1011, "internal error")),
                },
                Some(Piece::Close(frame)) => self.end(&frame),
                None => ready!(self.poll_read(cx)),
            }
        }
        Poll::Ready(None)
    }

    /// Reads some of what the pipe has written.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.unread = BytesMut::new();
        let mut space = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut space);
        let failed = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).is_err();
        self.unread.extend_from_slice(read.filled());
        self.over |= failed || read.filled().is_empty();
        Poll::Ready(())
    }

    /// The pipe has closed.
    fn end(&mut self, frame: &CloseFrame) {
        let word = [("t", "close".into()), ("code", frame.code.into()), ("reason", frame.reason.as_str().into())];
        self.kept.word(word.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect());
        self.closed = Some(frame.clone());
        self.over = true;
    }
}

/// What a whole message of the pipe says.
fn unframed(mut frames: &[u8]) -> Option<Heard> {
    let mut opcode = None;
    let mut payload = Vec::with_capacity(frames.len());
    while let Some(header) = parse(frames, Side::Backend).ok().flatten() {
        let (frame, rest) = frames.split_at_checked(header.header_len + usize::try_from(header.payload_len).ok()?)?;
        opcode = opcode.or(Some(header.opcode));
        payload.extend_from_slice(&frame[header.header_len..]);
        frames = rest;
    }
    Heard::parse(opcode?, &payload)
}
