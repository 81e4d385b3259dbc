//! A pipe's client end: the link that its client is on, and those that it was on before.
//!
//! A client is reached over a socket, or is the viewers of a shared stream. Whatever else may stand for a client is a
//! variant of [`ClientLink`], and nothing but this file has to know.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use holdline_core::ids::Generation;
use holdline_core::pipe::{LinkLoss, Peer, Pipe};
use holdline_core::time::Time;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

use super::link::Link;
use super::reading::{Came, Keep, Reading, read};
use crate::metrics::AbsentGuard;
use crate::metrics::labels::Transport;
use crate::net::{ClientStream, LeaveWatch};
use crate::pipes::Stay;
use crate::pipes::passport::{Carried, ClientPassport, Unmovable};
use crate::share::StreamLink;

/// Replaced links of one pipe that are still told so; with more, the oldest is dropped without it.
const PARTING_MAX: usize = 4;

/// Probes of one client that wait for it; one more counts as answered.
const PROBES_MAX: usize = 16;

/// A link on which its last words are said.
type Parting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The live transport of a client.
#[derive(Debug)]
pub enum ClientLink {
    /// Its socket.
    Socket(Link<ClientStream>),
    /// The viewers of a shared stream.
    Viewers(Box<StreamLink>),
}

impl ClientLink {
    /// A client's socket, of which `unread` has been read already.
    #[must_use]
    pub fn socket(stream: ClientStream, unread: Bytes) -> Self {
        Self::Socket(Link::new(stream, unread))
    }

    /// How the client is reached.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Socket(link) => Transport::of(link.stream()),
            Self::Viewers(_) => Transport::Websocket,
        }
    }

    /// Whether its socket alone is all that another process needs.
    fn is_movable(&self) -> bool {
        match self {
            Self::Socket(link) => link.stream().session().is_none() && link.stream().socket().is_some(),
            Self::Viewers(_) => false,
        }
    }

    /// The socket for another process, with its inode and what was read of it.
    fn carry(&self) -> Result<(u64, Carried), Unmovable> {
        let Self::Socket(link) = self else { return Err(Unmovable::Shared) };
        if let Some(session) = link.stream().session() {
            let is_new = session.version() == Some(ProtocolVersion::TLSv1_3);
            return Err(if is_new { Unmovable::Tls13 } else { Unmovable::Tls12 });
        }
        let (inode, socket) = copy(link.stream().socket().ok_or(Unmovable::Http2)?)?;
        Ok((inode, Carried { socket, unread: Bytes::copy_from_slice(link.unread()) }))
    }
}

/// What another process needs to know of a link, and its socket, or why that cannot go there.
type CarriedClient = (ClientPassport, Result<Carried, Unmovable>);

/// A pipe's client end.
pub struct ClientEnd {
    link: Option<ClientLink>,
    /// Which of the client's attaches that is.
    generation: Generation,
    /// Only of a client that has come back, or may, and of one whose link is broken.
    past: Option<Box<Past>>,
}

/// The links that the client has had besides the present one.
#[derive(Default)]
struct Past {
    /// Writing failed, so the client is gone; what it had said before is read all the same.
    broken: bool,
    /// The present one's place in the order in which they were answered.
    answer: u64,
    /// Set while the client is awaited.
    away: Option<Away>,
    /// Those that others have replaced, while they are told so.
    parting: Vec<Parting>,
    /// The last one, while what it took before is written.
    owed: Option<Parting>,
    /// Set while the present one is not read for want of room.
    watch: Option<LeaveWatch>,
    /// Those that want to know whether the client is there, until it says something or its link is gone.
    probes: Vec<oneshot::Sender<()>>,
}

/// What says elsewhere that a client is awaited, for as long as it is.
#[expect(dead_code, reason = "they are held for what their drop takes back")]
pub struct Away {
    /// Its connection is none of those that are open.
    pub absent: AbsentGuard,
    /// Its pipe is among those that may have to make room.
    pub stay: Stay,
}

impl ClientEnd {
    /// An end without a link, which the client's first attach will have.
    pub const fn new() -> Self {
        Self { link: None, generation: Generation::FIRST, past: None }
    }

    /// Gives the client its first link.
    pub fn start(&mut self, link: ClientLink) {
        self.link = Some(link);
    }

    /// What another process needs to know of the link, if there is one, and the socket; why that cannot go there, if so.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn carry(&self) -> Result<Option<CarriedClient>, Unmovable> {
        let Some(link) = &self.link else { return Ok(None) };
        let (inode, carried) = match link.carry() {
            Ok((inode, carried)) => (Some(inode), Ok(carried)),
            Err(Unmovable::Descriptors) => return Err(Unmovable::Descriptors),
            Err(why) => (None, Err(why)),
        };
        let answer = self.past.as_ref().map_or(0, |past| past.answer);
        Ok(Some((ClientPassport { inode, generation: self.generation.0, answer, broken: self.is_broken() }, carried)))
    }

    /// Drops the link without a word: another process has it. One that could not go there is shut down within `patience`,
    /// and what was to be said on earlier ones is said to its end.
    pub fn let_go(&mut self, patience: Duration) {
        if let Some(link) = self.link.take_if(|link| !link.is_movable()) {
            tokio::spawn(finish(link, patience));
        }
        self.link = None;
        let Some(past) = self.past.take() else { return };
        for parting in past.parting {
            // Each has an end of its own.
            tokio::spawn(parting);
        }
    }

    /// Gives the client the link that it had in another process, if that has come along.
    pub fn resume(&mut self, link: Option<ClientLink>, passport: &ClientPassport) {
        self.link = link;
        self.generation = Generation(passport.generation);
        if passport.answer > 0 || passport.broken {
            let past = self.past.get_or_insert_default();
            (past.answer, past.broken) = (passport.answer, passport.broken);
        }
    }

    /// Whether a link was answered before the present one, though it arrives later: threads differ in speed.
    pub fn is_outdated(&self, answer: u64) -> bool {
        answer < self.past.as_ref().map_or(0, |past| past.answer)
    }

    /// Puts the client on another link.
    pub fn attach(&mut self, link: ClientLink, generation: Generation, answer: u64) {
        self.link = Some(link);
        self.generation = generation;
        let past = self.past.get_or_insert_default();
        (past.answer, past.away, past.watch, past.broken) = (answer, None, None, false);
    }

    /// Whether there is a link, which is not that of `generation`.
    pub fn has_another_than(&self, generation: Generation) -> bool {
        self.is_linked() && self.generation != generation
    }

    /// Answers `probe` when the client says something; gives it back if too many wait for that.
    pub fn probe(&mut self, probe: oneshot::Sender<()>) -> Option<oneshot::Sender<()>> {
        let probes = &mut self.past.get_or_insert_default().probes;
        if probes.len() == PROBES_MAX {
            return Some(probe);
        }
        probes.push(probe);
        None
    }

    /// Whether there is a link.
    pub const fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether there is a link, and its client may be there. A client that comes and goes by requests is while it polls.
    pub fn is_attended(&self) -> bool {
        match &self.link {
            Some(ClientLink::Socket(link)) => link.stream().is_attended(),
            Some(ClientLink::Viewers(_)) => true,
            None => false,
        }
    }

    /// Whether there is a link that takes bytes.
    pub fn takes(&self) -> bool {
        self.is_linked() && !self.is_broken()
    }

    /// Whether the client is gone, and only what it had said before is still to be read.
    pub fn is_broken(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.broken)
    }

    /// Notes that the link takes nothing more; whether something that was said on it may still be read.
    pub fn broke(&mut self) -> bool {
        let broken = matches!(self.link, Some(ClientLink::Socket(_)));
        self.past.get_or_insert_default().broken = broken;
        broken
    }

    /// The client on the link, as the core names it.
    pub const fn peer(&self) -> Peer {
        Peer::Client(self.generation)
    }

    /// Bytes of messages that the link holds itself, for the pipe's books.
    pub fn book(&self) -> usize {
        match &self.link {
            Some(ClientLink::Viewers(link)) => link.book(),
            Some(ClientLink::Socket(link)) => link.stream().held_bytes(),
            None => 0,
        }
    }

    /// Gives `pipe` what the link has for it, as far as `budget` allows.
    pub fn read(&mut self, budget: usize, keep: Keep, pipe: &mut Pipe, cx: &mut Context<'_>, now: Time) -> Came {
        let peer = self.peer();
        if let Some(past) = &mut self.past {
            past.watch = None;
        }
        let Some(link) = &mut self.link else { return Came::Unread };
        let came = read(link, Reading { peer, budget, keep, end: LinkLoss::Eof }, pipe, cx, now);
        if let Some(past) = self.past.as_mut().filter(|past| came.bytes() > 0 && !past.probes.is_empty()) {
            for probe in past.probes.drain(..) {
                // The one that asked may have given up.
                let _ = probe.send(());
            }
        }
        came
    }

    /// Writes as much as the link takes now; `is_last` says that it is shut down next.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        is_last: bool,
    ) -> Poll<io::Result<usize>> {
        match &mut self.link {
            Some(ClientLink::Socket(link)) if is_last => link.stream_mut().poll_write_last(cx, slices),
            Some(link) => Pin::new(link).poll_write_vectored(cx, slices),
            None => Poll::Pending,
        }
    }

    /// Goes on with what the link took before and has not written: TLS seals more than a slow client takes at once.
    ///
    /// # Errors
    /// The link is broken.
    pub fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.link {
            Some(ClientLink::Socket(link)) if link.stream().unsent() > 0 => {
                match Pin::new(link.stream_mut()).poll_flush(cx) {
                    Poll::Ready(flushed) => flushed,
                    Poll::Pending => Ok(()),
                }
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Says on the link that nothing more follows.
    pub fn shut_down(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link {
            // Without it the client only learns later; nothing is lost.
            let _ = Pin::new(link).poll_shutdown(cx);
        }
    }

    /// Whether the client has left, though its link is not read; the task is woken when it does.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_broken() {
            return true;
        }
        let Some(ClientLink::Socket(link)) = &self.link else { return false };
        let watch = &mut self.past.get_or_insert_default().watch;
        if watch.is_none() {
            // Without a descriptor to spare, it is noticed when it is read or written to.
            *watch = link.stream().watch_for_leave().ok();
        }
        watch.as_ref().is_some_and(|watch| watch.poll(cx))
    }

    /// Takes the link out, if it is that of `generation`.
    pub fn take_link(&mut self, generation: Generation) -> Option<ClientLink> {
        if generation != self.generation {
            return None;
        }
        if let Some(past) = &mut self.past {
            past.watch = None;
            past.probes.clear();
        }
        self.link.take()
    }

    /// Notes that the client is awaited, for as long as it is.
    pub fn await_client(&mut self, away: Away) {
        self.past.get_or_insert_default().away = Some(away);
    }

    /// Says `last_words`, if there are any, on a link that is this end's no more; within `patience`.
    pub fn part_from(&mut self, mut link: ClientLink, last_words: Vec<u8>, patience: Duration, cx: &mut Context<'_>) {
        if last_words.is_empty() {
            // Closing alone would throw away what was written last, if the client had said more than was read.
            if Pin::new(&mut link).poll_shutdown(cx).is_pending() {
                self.past.get_or_insert_default().owed = Some(Box::pin(finish(link, patience)));
                self.poll_parting(cx);
            }
            return;
        }
        let parting = &mut self.past.get_or_insert_default().parting;
        if parting.len() == PARTING_MAX {
            drop(parting.remove(0));
        }
        parting.push(Box::pin(part(link, last_words, patience)));
        self.poll_parting(cx);
    }

    /// Goes on with the last words.
    pub fn poll_parting(&mut self, cx: &mut Context<'_>) {
        if let Some(past) = &mut self.past {
            past.parting.retain_mut(|parting| parting.as_mut().poll(cx).is_pending());
            past.owed.take_if(|owed| owed.as_mut().poll(cx).is_ready());
        }
    }

    /// Whether something that counts as written is still on its way, on a link that is this end's no more.
    pub fn owes(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.owed.is_some())
    }
}

/// A descriptor of its own for another process, and the inode by which that knows it.
pub fn copy(socket: BorrowedFd<'_>) -> Result<(u64, OwnedFd), Unmovable> {
    let inode = rustix::fs::fstat(socket).map_err(|_| Unmovable::Descriptors)?.st_ino;
    let socket = socket.try_clone_to_owned().map_err(|_| Unmovable::Descriptors)?;
    Ok((inode, socket))
}

/// Writes what is left of a link, and closes it.
async fn finish(mut link: ClientLink, patience: Duration) {
    // A client that does not take it is left.
    let _ = tokio::time::timeout(patience, link.shutdown()).await;
}

/// Says the last words, and then waits for the peer to close: what it is still sending would make the kernel throw away
/// what it has not read yet.
async fn part(mut link: ClientLink, last_words: Vec<u8>, patience: Duration) {
    let parting = async {
        link.write_all(&last_words).await?;
        link.shutdown().await?;
        let mut sink = [0; 512];
        while link.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // A peer that does not listen is left.
    let _ = tokio::time::timeout(patience, parting).await;
}

impl AsyncRead for ClientLink {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(link) => Pin::new(link).poll_read(cx, buf),
            Self::Viewers(link) => Pin::new(&mut **link).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(link) => Pin::new(link.stream_mut()).poll_write_vectored(cx, slices),
            Self::Viewers(link) => Pin::new(&mut **link).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(link) => Pin::new(link.stream_mut()).poll_flush(cx),
            Self::Viewers(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(link) => Pin::new(link.stream_mut()).poll_shutdown(cx),
            Self::Viewers(link) => Pin::new(&mut **link).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[tokio::test]
    async fn another_process_gets_the_socket_and_what_was_read_of_it() {
        let (own, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let stream = ClientStream::from(tokio::net::UnixStream::from_std(own).unwrap());
        let mut end = ClientEnd::new();
        end.start(ClientLink::socket(stream, Bytes::from_static(b"read before")));
        end.generation = Generation(7);
        let (passport, carried) = end.carry().unwrap().unwrap();
        let Carried { socket, unread } = carried.unwrap();
        assert_eq!((&unread[..], passport.generation, passport.broken), (&b"read before"[..], 7, false));
        assert_eq!(passport.inode, Some(rustix::fs::fstat(&socket).unwrap().st_ino));
        end.let_go(Duration::ZERO);
        let mut other = std::os::unix::net::UnixStream::from(socket);
        peer.write_all(b"said later").unwrap();
        other.set_nonblocking(false).unwrap();
        let mut later = [0; 10];
        other.read_exact(&mut later).unwrap();
        assert_eq!(&later, b"said later", "it was not shut down");
        assert!(end.carry().unwrap().is_none());
    }
}
