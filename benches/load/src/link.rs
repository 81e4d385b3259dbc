//! What a WebSocket of the bench runs on: a socket, with a TLS session beside it where a run is about TLS.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// Bytes of records that are read at once; what they hold is no more.
const RECORDS_BYTES: usize = 256 * 1024;

/// Bytes of a head that are read at once.
const PART_BYTES: usize = 4096;

/// What every certificate of the bench is for.
pub const NAME: &str = "bench";

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = RefCell::new(vec![0; RECORDS_BYTES]);
}

/// Where a run goes, and whether by TLS.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

pub struct Link {
    stream: TcpStream,
    session: Option<Box<ClientConnection>>,
}

impl From<TcpStream> for Link {
    fn from(stream: TcpStream) -> Self {
        Self { stream, session: None }
    }
}

impl Link {
    /// Connects, and comes together by TLS if that is wanted.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let Some(config) = &target.tls else { return Ok(stream.into()) };
        let session = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
        let mut link = Self { stream, session: Some(Box::new(session)) };
        link.handshake().await.context("a TLS handshake")?;
        Ok(link)
    }

    async fn handshake(&mut self) -> anyhow::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while session.is_handshaking() || session.wants_write() {
            if session.wants_write() {
                self.stream.writable().await?;
                is_pushed(session, &self.stream)?;
                continue;
            }
            self.stream.readable().await?;
            match session.read_tls(&mut Bare(&self.stream)) {
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

    /// Whether a ticket of an earlier session was taken.
    pub fn is_resumed(&self) -> bool {
        let kind = self.session.as_ref().and_then(|session| session.handshake_kind());
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.stream.ready(interest).await
    }

    /// Whether there is something to be written that was taken already.
    pub fn owes(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.wants_write())
    }

    /// Reads what has come; `into` has room for [`RECORDS_BYTES`] and more. Nothing is the end.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.stream.try_read(into) };
        RECORDS.with_borrow_mut(|records| {
            let count = self.stream.try_read(records)?;
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
        let Some(session) = &mut self.session else { return self.stream.try_write(bytes) };
        if !is_pushed(session, &self.stream)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = session.writer().write(bytes)?;
        is_pushed(session, &self.stream)?;
        Ok(taken)
    }

    /// Writes what was taken already, as far as the socket takes it.
    pub fn push(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        is_pushed(session, &self.stream).map(drop)
    }

    /// Writes all of it.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() || self.owes() {
            self.stream.writable().await?;
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
        let room = if self.session.is_some() { 2 * RECORDS_BYTES } else { PART_BYTES };
        let mut part = vec![0; room];
        loop {
            self.stream.readable().await?;
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

    /// Says by TLS that nothing follows, and hears the peer out, tickets among what it says.
    pub async fn part(mut self) -> anyhow::Result<()> {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
        }
        self.write_all(b"").await?;
        socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write)?;
        // One that resets the connection has heard it as well.
        while self.read_more(&mut Vec::new()).await.is_ok_and(|count| count > 0) {}
        Ok(())
    }
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
