//! A client's connection as a stream of bytes: its socket, and beside it the TLS session that is spoken on it, if one is. A
//! worker that is reached by TLS has the same.
//!
//! Both can be taken from their thread and given to another ([`LooseStream`]): the session holds all that TLS knows of
//! the connection, and the socket nothing. For the same reason they can go to another process, the socket as a
//! descriptor and the session as bytes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::bare::{Bare, LooseBare, Watch};
use super::hand_over::HandOverError;
use super::memory_stream::MemoryStream;
use super::session::{Greeting, HandshakeError, Session, refuse_name};

/// A client's connection.
#[derive(Debug)]
pub struct ClientStream {
    socket: Bare,
    /// Boxed, because most of what a connection is moved through knows no TLS.
    session: Option<Box<Session>>,
}

impl From<TcpStream> for ClientStream {
    fn from(stream: TcpStream) -> Self {
        Self { socket: Bare::Tcp(stream), session: None }
    }
}

impl From<UnixStream> for ClientStream {
    fn from(stream: UnixStream) -> Self {
        Self { socket: Bare::Unix(stream), session: None }
    }
}

impl From<MemoryStream> for ClientStream {
    fn from(stream: MemoryStream) -> Self {
        Self { socket: Bare::Memory(stream), session: None }
    }
}

impl ClientStream {
    /// Reads the greeting of a client that is to speak TLS, behind what was `read` of it already.
    ///
    /// # Errors
    /// It is none, or does not come.
    pub async fn greeting(&mut self, read: &[u8]) -> Result<Greeting, HandshakeError> {
        Greeting::read(&mut self.socket, read).await
    }

    /// Speaks TLS by `config` from here on, in answer to `greeting`.
    ///
    /// # Errors
    /// The two do not come together; the client was told why, if it is there to hear.
    pub async fn secure(&mut self, greeting: Greeting, config: Arc<ServerConfig>) -> Result<(), HandshakeError> {
        let session = Session::accept(&mut self.socket, greeting, config).await?;
        self.session = Some(Box::new(session));
        Ok(())
    }

    /// Speaks TLS by `config` from here on, to a worker that has to prove to be called `name`.
    ///
    /// # Errors
    /// The two do not come together; the worker was told why, if it is there to hear.
    pub async fn secure_towards(
        &mut self,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<(), HandshakeError> {
        let session = Session::connect(&mut self.socket, name, config).await?;
        self.session = Some(Box::new(session));
        Ok(())
    }

    /// Tells a client that no certificate has the name that it asked for.
    pub async fn refuse_name(&mut self) {
        refuse_name(&mut self.socket).await;
    }

    /// Comes back once the system has said that the socket takes bytes, as it does of a new one at once. A write before that
    /// is told to wait, and what closes right behind its last write never comes to write it.
    pub async fn takes_bytes(&self) {
        if let Bare::Tcp(socket) = &self.socket {
            // An error is found again by what writes.
            drop(socket.writable().await);
        }
    }

    /// Why it cannot go to another process just now; nothing if it can.
    #[must_use]
    pub fn stays(&self) -> Option<HandOverError> {
        match (&self.socket, &self.session) {
            (Bare::Memory(_), _) => Some(HandOverError::InMemory),
            (Bare::Tcp(_) | Bare::Unix(_), Some(session)) => session.stays(),
            (Bare::Tcp(_) | Bare::Unix(_), None) => None,
        }
    }

    /// The TLS session as it stands, if one is spoken, as bytes for another process, which gets [`Self::socket`] too. They are
    /// as secret as the session. Nothing is read, written or closed by this. The connection goes on where it was by
    /// [`Self::thaw`] there, or here if it did not: in one of them only, or records are sealed twice under one number.
    ///
    /// # Errors
    /// [`Self::stays`] says why; [`HandOverError::Keys`] leaves a connection that is broken.
    pub fn freeze(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, HandOverError> {
        if let Some(why) = self.stays() {
            return Err(why);
        }
        self.session.as_mut().map(|session| session.freeze()).transpose()
    }

    /// Goes on with a connection that was frozen in another process, on the thread that calls.
    ///
    /// # Errors
    /// The bytes are no session that can go on here, or the system's.
    pub fn thaw(socket: OwnedFd, tls: Option<&[u8]>) -> io::Result<Self> {
        let session = tls.map(Session::thaw).transpose()?;
        Ok(Self { socket: LooseBare::of_descriptor(socket)?.bind()?, session: session.map(Box::new) })
    }

    /// The TLS session, if one is spoken.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    #[cfg(test)]
    pub(super) fn session_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("the test has made one")
    }

    /// The socket below, unless its other end is in this process.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.descriptor()
    }

    /// Whether its other end is in this process.
    #[must_use]
    pub const fn is_in_memory(&self) -> bool {
        matches!(self.socket, Bare::Memory(_))
    }

    /// Whether its client may be there; see [`MemoryStream::set_attended`].
    #[must_use]
    pub fn is_attended(&self) -> bool {
        match &self.socket {
            Bare::Tcp(_) | Bare::Unix(_) => true,
            Bare::Memory(stream) => stream.is_attended(),
        }
    }

    /// Bytes that were taken to be written, and that the socket has not.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.unsent())
    }

    /// Bytes that are held for this connection beside its pipe.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.unsent() + self.socket.held_bytes()
    }

    /// Writes what stands at the end of the connection. It is to be shut down next: both go in one packet then, and the
    /// peer is woken once.
    ///
    /// # Errors
    /// The link is broken.
    pub fn poll_write_last(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.session {
            None => self.socket.poll_write_last(cx, slices),
            Some(session) => session.poll_write(&mut self.socket, cx, slices, true),
        }
    }

    /// A watch on whether the peer closes its side or goes away, beside what is read and without reading.
    ///
    /// # Errors
    /// The system's: there may be no descriptor left.
    pub fn watch_for_leave(&self) -> io::Result<LeaveWatch> {
        self.socket.watch().map(LeaveWatch)
    }
}

/// Hears that a peer has closed its side or is gone, whatever there still is to be read. It looks at the socket, below
/// TLS.
#[derive(Debug)]
pub struct LeaveWatch(Watch);

impl LeaveWatch {
    /// Whether the peer has left; the task is woken when it does.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.0.poll(cx)
    }
}

/// A client's connection between two threads: it belongs to no runtime.
#[derive(Debug)]
pub struct LooseStream {
    socket: LooseBare,
    session: Option<Box<Session>>,
}

impl LooseStream {
    /// Takes a connection from its thread.
    ///
    /// # Errors
    /// The system's.
    pub fn loosen(stream: ClientStream) -> io::Result<Self> {
        let ClientStream { socket, session } = stream;
        Ok(Self { socket: LooseBare::loosen(socket)?, session })
    }

    /// Gives the connection to the thread that calls.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(self) -> io::Result<ClientStream> {
        Ok(ClientStream { socket: self.socket.bind()?, session: self.session })
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = self.get_mut();
        match session {
            None => Pin::new(socket).poll_read(cx, buf),
            Some(session) => session.poll_read(socket, cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, session } = self.get_mut();
        match session {
            None => Pin::new(socket).poll_write(cx, bytes),
            Some(session) => session.poll_write(socket, cx, &[io::IoSlice::new(bytes)], false),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, session } = self.get_mut();
        match session {
            None => Pin::new(socket).poll_write_vectored(cx, slices),
            Some(session) => session.poll_write(socket, cx, slices, false),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = self.get_mut();
        match session {
            None => Poll::Ready(Ok(())),
            Some(session) => session.poll_flush(socket, cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = self.get_mut();
        match session {
            None => Pin::new(socket).poll_shutdown(cx),
            Some(session) => session.poll_shutdown(socket, cx),
        }
    }
}
