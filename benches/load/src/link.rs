//! What a WebSocket of the bench runs on: a socket, a socket with a TLS session beside it, or a stream of HTTP/2.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

use crate::http2::{Connections, Stream};

/// Bytes of records that are read at once; what they hold is no more.
const RECORDS_BYTES: usize = 256 * 1024;

/// Bytes of a head that are read at once.
const PART_BYTES: usize = 4096;

/// What every certificate of the bench is for.
pub const NAME: &str = "bench";

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = RefCell::new(vec![0; RECORDS_BYTES]);
}

/// Where a run goes, and how.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    /// Where WebSockets are streams.
    pub http2: Option<Rc<Connections>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None, http2: None }
    }
}

pub enum Link {
    Bare(TcpStream),
    Secured(TcpStream, Box<ClientConnection>),
    Stream(Box<Stream>),
}

impl From<TcpStream> for Link {
    fn from(stream: TcpStream) -> Self {
        Self::Bare(stream)
    }
}

impl Link {
    /// Connects, and comes together by TLS if that is wanted.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let Some(config) = &target.tls else { return Ok(stream.into()) };
        let mut session = Box::new(ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?);
        handshake(&stream, &mut session).await.context("a TLS handshake")?;
        Ok(Self::Secured(stream, session))
    }

    /// Whether a ticket of an earlier session was taken.
    pub fn is_resumed(&self) -> bool {
        let Self::Secured(_, session) = self else { return false };
        session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    pub async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Bare(stream) | Self::Secured(stream, _) => stream.ready(interest).await,
            Self::Stream(stream) => stream.ready(interest).await,
        }
    }

    /// Whether there is something to be written that was taken already, and that nothing else writes.
    pub fn owes(&self) -> bool {
        matches!(self, Self::Secured(_, session) if session.wants_write())
    }

    /// Reads what has come; `into` has room for [`RECORDS_BYTES`] and more. Nothing is the end.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (stream, session) = match self {
            Self::Bare(stream) => return stream.try_read(into),
            Self::Stream(stream) => return stream.try_read(into),
            Self::Secured(stream, session) => (stream, session),
        };
        RECORDS.with_borrow_mut(|records| {
            let count = stream.try_read(records)?;
            if count == 0 {
                return Ok(0);
            }
            let (mut records, mut filled) = (&records[..count], 0);
            while !records.is_empty() {
                session.read_tls(&mut records)?;
                session.process_new_packets().map_err(io::Error::other)?;
                loop {
                    match session.reader().read(&mut into[filled..]) {
                        Ok(0) => return Ok(filled),
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            if filled == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(filled) }
        })
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (stream, session) = match self {
            Self::Bare(stream) => return stream.try_write(bytes),
            Self::Stream(stream) => return stream.try_write(bytes),
            Self::Secured(stream, session) => (stream, session),
        };
        if !is_pushed(session, stream)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = session.writer().write(bytes)?;
        is_pushed(session, stream)?;
        Ok(taken)
    }

    /// Writes what was taken already, as far as the socket takes it.
    pub fn push(&mut self) -> io::Result<()> {
        let Self::Secured(stream, session) = self else { return Ok(()) };
        is_pushed(session, stream).map(drop)
    }

    /// Writes all of it.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.owes() {
            self.ready(Interest::WRITABLE).await?;
            match self.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends what comes next to `bytes`; nothing is the end.
    pub async fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let room = if matches!(self, Self::Secured(..)) { 2 * RECORDS_BYTES } else { PART_BYTES };
        let mut part = vec![0; room];
        loop {
            self.ready(Interest::READABLE).await?;
            match self.try_read(&mut part) {
                Ok(count) => {
                    bytes.extend_from_slice(&part[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says by TLS that nothing follows, and hears the peer out, tickets among what it says. A stream parts by itself.
    pub async fn part(mut self) -> anyhow::Result<()> {
        if let Self::Secured(_, session) = &mut self {
            session.send_close_notify();
        }
        self.write_all(b"").await?;
        if let Self::Bare(stream) | Self::Secured(stream, _) = &self {
            socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)?;
            // One that resets the connection has heard it as well.
            while self.read_more(&mut Vec::new()).await.is_ok_and(|count| count > 0) {}
        }
        Ok(())
    }
}

async fn handshake(stream: &TcpStream, session: &mut ClientConnection) -> anyhow::Result<()> {
    while session.is_handshaking() || session.wants_write() {
        if session.wants_write() {
            stream.writable().await?;
            is_pushed(session, stream)?;
            continue;
        }
        stream.readable().await?;
        match session.read_tls(&mut Bare(stream)) {
            Ok(0) => bail!("closed"),
            Ok(_) => {
                session.process_new_packets()?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes records; whether none is left.
fn is_pushed(session: &mut ClientConnection, stream: &TcpStream) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(&mut Bare(stream)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// A socket as rustls wants it.
struct Bare<'a>(&'a TcpStream);

impl Read for Bare<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Bare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
