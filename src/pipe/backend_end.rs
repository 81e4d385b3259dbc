//! A pipe's backend end: the worker that it is attached to, and one that waits to take over.
//!
//! A worker is reached over its own socket, or through the end of a shared stream that has the worker for many. Owns the
//! place on the worker with the link to it: both go together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use holdline_core::frame::{self, Opcode};
use holdline_core::ids::{Attachment, BackendKey, PipeId};
use holdline_core::pipe::{Input, LinkLoss, Peer, Pipe};
use holdline_core::shared::Taken;
use holdline_core::time::Time;
use tokio::io::AsyncWrite;

use super::client_end::copy;
use super::link::Link;
use super::reading::{Came, Keep, Reading, read};
use crate::backends::{Leave, Outcome, Reservation};
use crate::net::BackendStream;
use crate::pipes::passport::{BackendPassport, Broken, Carried, Unmovable};
use crate::share::ViewerLink;

/// Stands for the stream where a viewer's pipe names its backend; no pool gives this key to a backend.
const STREAM_KEY: BackendKey = BackendKey(u64::MAX);

/// Bytes from which on a message of a stream is kept as it is held for all viewers, and charged to the stream; below, a
/// copy costs less.
const SHARE_BYTES_MIN: usize = 512;

/// Bytes that a viewer's pipe takes from its stream before it writes again.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The bits of a frame's first byte that say what it is (RFC 6455 section 5.2), and those of a close frame.
const OPCODE: u8 = 0x0F;
const CLOSE: u8 = 0x08;

/// The live transport to a backend, with what is held of the backend for as long.
#[derive(Debug)]
pub enum Transport {
    /// A worker's socket, and a place on the worker.
    Worker(Link<BackendStream>, Reservation),
    /// A viewer's end of a shared stream, which has the place on the worker; and what the stream is called.
    Stream(Box<ViewerLink>, Arc<str>),
}

impl Transport {
    /// The backend's key.
    #[must_use]
    pub fn key(&self) -> BackendKey {
        match self {
            Self::Worker(_, reservation) => reservation.key(),
            Self::Stream(..) => STREAM_KEY,
        }
    }

    /// The backend's name.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        match self {
            Self::Worker(_, reservation) => reservation.id(),
            Self::Stream(_, name) => name,
        }
    }

    /// Whether the pipe has to leave.
    #[must_use]
    pub fn must_leave(&self) -> Option<Leave> {
        match self {
            Self::Worker(_, reservation) => reservation.must_leave(),
            Self::Stream(..) => None,
        }
    }

    fn report(&self, pipe: PipeId, outcome: Outcome) {
        match self {
            Self::Worker(_, reservation) => reservation.report(Some(pipe), outcome),
            // The stream's own pipe has its experience with the worker.
            Self::Stream(..) => {}
        }
    }

    /// The socket for another process, with its inode and what was read of it; nothing if it cannot go there.
    fn carry(&self) -> Result<Option<(u64, Carried)>, Unmovable> {
        let Self::Worker(link, _) = self else { return Ok(None) };
        let Some(socket) = link.stream().movable() else { return Ok(None) };
        let (inode, socket) = copy(socket)?;
        Ok(Some((inode, Carried { socket, unread: Bytes::copy_from_slice(link.unread()) })))
    }

    /// Writes as much as the transport takes now; TLS keeps what the socket did not take, so it is pushed on.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let stream = match self {
            Self::Worker(link, _) => link.stream_mut(),
            Self::Stream(link, _) => return link.poll_write_vectored(cx, slices),
        };
        let written = Pin::new(&mut *stream).poll_write_vectored(cx, slices);
        if let BackendStream::Tls(_) = stream {
            // What it cannot push on now, the next write or read of this link does.
            let _ = Pin::new(stream).poll_flush(cx);
        }
        written
    }

    /// What the worker says first; what that was is kept for the pipe.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Word> {
        let link = match self {
            Self::Worker(link, _) => link,
            // A stream's end is told to its viewers; none of them moves to it.
            Self::Stream(..) => return Poll::Pending,
        };
        Poll::Ready(match ready!(link.poll_first(cx)) {
            Ok(Some(first)) if first & OPCODE == CLOSE => Word::Gone(LinkLoss::Eof),
            Ok(Some(_)) => Word::Talks,
            Ok(None) => Word::Gone(LinkLoss::Eof),
            Err(_) => Word::Gone(LinkLoss::Reset),
        })
    }
}

/// The first word of a worker that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// It has gone, or says that it is about to.
    Gone(LinkLoss),
    /// It says something else.
    Talks,
}

/// One attach.
#[derive(Debug)]
pub struct BackendLink {
    attachment: Attachment,
    transport: Transport,
    since: Time,
    /// Writing failed, which is how the link was lost; what it still has to say is read all the same.
    broken: Option<LinkLoss>,
}

impl BackendLink {
    /// Says that the backend has died.
    pub fn died(&self, pipe: PipeId, now: Time) {
        self.transport.report(pipe, Outcome::Died(now.since(self.since)));
    }

    fn say(&mut self, last_words: &[u8], cx: &mut Context<'_>) {
        if !last_words.is_empty() && self.broken.is_none() {
            // Best effort: the link is dropped next.
            let _ = self.transport.poll_write(cx, &[IoSlice::new(last_words)]);
        }
    }
}

/// A worker that has answered and waits until the one before it has gone.
struct Next {
    link: BackendLink,
    /// It has said its first word, so that nothing more of it can be seen without reading that.
    talked: bool,
    /// What it is told while it waits, and has not taken yet.
    words: Vec<u8>,
}

impl Next {
    /// Writes what it is told, as far as its link takes that.
    fn say(&mut self, cx: &mut Context<'_>) {
        while !self.words.is_empty() && self.link.broken.is_none() {
            match self.link.transport.poll_write(cx, &[IoSlice::new(&self.words)]) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => drop(self.words.drain(..bytes)),
                Poll::Ready(_) => self.link.broken = Some(LinkLoss::Reset),
                Poll::Pending => return,
            }
        }
    }
}

/// A pipe's backend end.
#[derive(Default)]
pub struct BackendEnd {
    link: Option<BackendLink>,
    next: Option<Box<Next>>,
    /// While there is no link: the last backend that was attached, and its name, which the pool may have forgotten.
    last: Option<Box<(BackendKey, Arc<str>)>>,
}

impl BackendEnd {
    /// Whether there is a link.
    pub const fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether there is a link that takes bytes.
    pub fn takes(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.broken.is_none())
    }

    /// The backend on the link.
    pub fn key(&self) -> Option<BackendKey> {
        self.link.as_ref().map(|link| link.transport.key())
    }

    /// The last backend that was attached, and its name.
    pub fn last(&self) -> Option<(BackendKey, &Arc<str>)> {
        match (&self.link, &self.last) {
            (Some(link), _) => Some((link.transport.key(), link.transport.id())),
            (None, Some(last)) => Some((last.0, &last.1)),
            (None, None) => None,
        }
    }

    /// Links the worker of `attachment`.
    pub fn attach(&mut self, attachment: Attachment, transport: Transport, now: Time) {
        self.link = Some(BackendLink { attachment, transport, since: now, broken: None });
    }

    /// What another process needs to go on with the link, if there is one. A link that cannot go there is lost.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn carry(&self) -> Result<Option<(BackendPassport, Option<Carried>)>, Unmovable> {
        let Some(link) = &self.link else { return Ok(None) };
        let (carried, inode) = match link.transport.carry()? {
            Some((inode, carried)) => (Some(carried), Some(inode)),
            None => (None, None),
        };
        let broken = link.broken.map(|loss| match loss {
            LinkLoss::Eof => Broken::Eof,
            LinkLoss::Reset => Broken::Reset,
        });
        let passport = BackendPassport {
            inode,
            key: link.transport.key().0,
            attachment: link.attachment.0,
            since: link.since.as_micros(),
            broken,
        };
        Ok(Some((passport, carried)))
    }

    /// Drops the links without a word: another process has the one that was attached.
    pub fn let_go(&mut self) {
        (self.link, self.next) = (None, None);
    }

    /// Notes how long the link had been there in another process, and how it had broken.
    pub fn resume(&mut self, passport: &BackendPassport) {
        let Some(link) = &mut self.link else { return };
        link.since = Time::from_micros(passport.since);
        link.broken = passport.broken.map(|broken| match broken {
            Broken::Eof => LinkLoss::Eof,
            Broken::Reset => LinkLoss::Reset,
        });
    }

    /// Notes which worker was attached last.
    pub fn set_last(&mut self, key: BackendKey, id: Arc<str>) {
        self.last = Some(Box::new((key, id)));
    }

    /// Has the worker of `attachment` wait until the one that is linked has gone.
    pub fn hold(&mut self, attachment: Attachment, transport: Transport, now: Time) {
        let link = BackendLink { attachment, transport, since: now, broken: None };
        self.next = Some(Box::new(Next { link, talked: false, words: Vec::new() }));
    }

    /// Tells the worker of `attachment` something while it waits.
    pub fn foretell(&mut self, attachment: Attachment, bytes: Vec<u8>) {
        if let Some(next) = self.next.as_mut().filter(|next| next.link.attachment == attachment) {
            next.words = bytes;
        }
    }

    /// Takes out the worker that waits, if it is that of `attachment`, and whether it has taken all that it was told.
    pub fn take_next(&mut self, attachment: Attachment) -> Option<(Transport, bool)> {
        let next = self.next.take_if(|next| next.link.attachment == attachment)?;
        Some((next.link.transport, next.words.is_empty()))
    }

    /// Takes out the link of `attachment` after its last words. One that only waited is dropped: it has served nothing.
    pub fn drop_link(
        &mut self,
        attachment: Attachment,
        last_words: &[u8],
        cx: &mut Context<'_>,
    ) -> Option<BackendLink> {
        if let Some(mut next) = self.next.take_if(|next| next.link.attachment == attachment) {
            next.link.say(last_words, cx);
            return None;
        }
        let mut link = self.link.take_if(|link| link.attachment == attachment)?;
        self.last = Some(Box::new((link.transport.key(), link.transport.id().clone())));
        link.say(last_words, cx);
        Some(link)
    }

    /// Gives `pipe` what the link has for it, as far as `budget` allows.
    pub fn read(&mut self, budget: usize, keep: Keep, pipe: &mut Pipe, cx: &mut Context<'_>, now: Time) -> Came {
        let Some(link) = &mut self.link else { return Came::Unread };
        let peer = Peer::Backend(link.attachment);
        match &mut link.transport {
            Transport::Worker(stream, _) => {
                let end = link.broken.unwrap_or(LinkLoss::Eof);
                read(stream, Reading { peer, budget, keep, end }, pipe, cx, now)
            }
            Transport::Stream(viewer, _) => read_stream(viewer, peer, budget, pipe, cx, now),
        }
    }

    /// Goes on with what the link took before and has not written: TLS on a connection that was parked seals more than a
    /// slow worker takes at once.
    ///
    /// # Errors
    /// The link is broken.
    pub fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(BackendLink { transport: Transport::Worker(link, _), broken: None, .. }) = &mut self.link else {
            return Ok(());
        };
        link.stream_mut().push(cx)
    }

    /// Writes as much as the link takes now.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.link {
            Some(link) => link.transport.poll_write(cx, slices),
            None => Poll::Pending,
        }
    }

    /// Notes that the link takes nothing more. It may have said why: what it still says is read before it counts as lost.
    pub const fn broke(&mut self, loss: LinkLoss) {
        if let Some(link) = &mut self.link {
            link.broken = Some(loss);
        }
    }

    /// The first word of a worker that waits, once; it is told what it has to know meanwhile.
    pub fn poll_next_word(&mut self, cx: &mut Context<'_>) -> Option<(Attachment, Word)> {
        let next = self.next.as_mut()?;
        next.say(cx);
        if next.talked {
            return None;
        }
        let Poll::Ready(word) = next.link.transport.poll_word(cx) else { return None };
        next.talked = true;
        Some((next.link.attachment, word))
    }
}

/// Gives `pipe` what its stream has for it, as far as its budget allows.
fn read_stream(
    link: &mut ViewerLink,
    peer: Peer,
    budget: usize,
    pipe: &mut Pipe,
    cx: &mut Context<'_>,
    now: Time,
) -> Came {
    if budget == 0 {
        return Came::Unread;
    }
    let mut came = 0;
    for _ in 0..link.batch() {
        match link.take(cx) {
            Taken::Message(message) => {
                came += message.len();
                let short = message.len() < SHARE_BYTES_MIN;
                pipe.receive(peer, if short { Input::Copy(&message) } else { Input::Common(&message) }, now);
            }
            Taken::Skipped(messages) => {
                // Something was done, so the turn goes on.
                came += 1;
                pipe.passed_over(messages, now);
            }
            Taken::End(frame) => {
                let mut bytes = Vec::new();
                frame::encode(&mut bytes, Opcode::Close, &frame.payload(), None);
                pipe.receive(peer, Input::Copy(&bytes), now);
                return Came::Bytes(came + bytes.len());
            }
            Taken::Nothing if came == 0 => return Came::Nothing,
            Taken::Nothing => break,
        }
        if came >= BATCH_BYTES_MAX.min(budget) {
            break;
        }
    }
    Came::Bytes(came)
}
