//! The public listeners: bound once, accepted from on every data thread.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::net::{RecvFlags, SocketFlags, acceptfrom_with, recv};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixListener};

use super::Door;
use super::announced::announced;
use super::first_head::ROOM_BYTES;
use super::outcome::{Seat, make_room};
use super::secure::secure;
use super::{http1, http2};
use crate::config::{Listen, ProxyProtocol};
use crate::metrics::labels::{ConnectionResult, ListenerLabel};
use crate::net::{ClientStream, OwnListener, Peer, Session, TlsIdentity, answer_instead_of_acknowledging, bind_error};
use crate::phase::Phase;
use crate::process::Process;
use crate::upgrade::GateWatch;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4096;

/// How long accepting rests when the process is, or may soon be, out of descriptors: the connections wait in the backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pipes that end for want of descriptors before accepting rests again.
const SHED_AT_ONCE: usize = 32;

/// A bound listener, before it is given to threads.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A socket file, which goes with the last listener.
    Unix(std::os::unix::net::UnixListener, PathBuf),
    /// A socket file that belongs to the service manager which opened it.
    Activated(std::os::unix::net::UnixListener, PathBuf),
}

impl Bound {
    /// Binds `listen`, which `key` says. An address in use is an error; a socket file without a listener is replaced.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub fn bind(key: &str, listen: &Listen) -> io::Result<Self> {
        let bound = match listen {
            Listen::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into()).and_then(|()| socket.listen(BACKLOG)).map(|()| Self::Tcp(socket.into()))
            }
            Listen::Unix(path) => bind_unix(path),
        };
        bound.map_err(|error| bind_error(key, listen, listen.port(), &error))
    }

    /// A second handle on the same socket, for another thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn share(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, path) => Self::Unix(listener.try_clone()?, path.clone()),
            Self::Activated(listener, path) => Self::Activated(listener.try_clone()?, path.clone()),
        })
    }

    /// Where no worker may be because of it.
    #[must_use]
    pub fn own(&self) -> Option<OwnListener> {
        match self {
            Self::Tcp(listener) => OwnListener::of(listener),
            Self::Unix(_, path) | Self::Activated(_, path) => Some(OwnListener::File(path.clone())),
        }
    }

    /// Removes what the listener leaves behind in the file system.
    pub fn clean_up(&self) {
        match self {
            Self::Tcp(_) | Self::Activated(..) => {}
            // If it is gone already, that is what is wanted.
            Self::Unix(_, path) => drop(std::fs::remove_file(path)),
        }
    }
}

/// The bound address: `127.0.0.1:43121` or `unix:PATH`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("unknown"),
            },
            Self::Unix(_, path) | Self::Activated(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener for clients.
#[derive(Debug)]
pub struct PublicListener {
    /// What it accepts from.
    pub bound: Bound,
    /// Whether TLS is spoken on it.
    pub tls: bool,
}

impl PublicListener {
    /// A second handle on the same socket, for another thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { bound: self.bound.share()?, tls: self.tls })
    }
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Bound::Unix(listener, path.to_owned()))
}

enum Listener {
    Tcp(AsyncFd<std::net::TcpListener>),
    Unix(UnixListener),
}

impl Listener {
    #[expect(deprecated, reason = "it is unsound for what changes its descriptor, which a listener does not")]
    fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => {
                // Accepted sockets inherit both: two system calls less for each.
                SockRef::from(&listener).set_tcp_nodelay(true)?;
                answer_instead_of_acknowledging(&listener);
                Self::Tcp(AsyncFd::with_interest(listener, Interest::READABLE)?)
            }
            Bound::Unix(listener, _) | Bound::Activated(listener, _) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    /// The next connection. Unless it is one to `prepare`, what its client has said by now is read with it.
    async fn accept(&self, prepare: impl Fn() -> bool) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                // Each connection has its part of the time that the other tasks wait.
                tokio::task::coop::consume_budget().await;
                let (socket, peer) = listener.async_io(Interest::READABLE, accept_tcp).await?;
                let prepare = prepare();
                let read = if prepare { BytesMut::new() } else { said_by_now(&socket) };
                Ok(Accepted { stream: TcpStream::from_std(socket.into())?.into(), peer, read, prepare })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let (stream, read) = (stream.into(), BytesMut::new());
                Ok(Accepted { stream, peer: Peer::LOCAL, read, prepare: prepare() })
            }
        }
    }
}

/// A connection, who is at its other end, what was read of it, and whether something is to be said on it before HTTP.
struct Accepted {
    stream: ClientStream,
    peer: Peer,
    read: BytesMut,
    prepare: bool,
}

/// Accepts a connection that does not block.
fn accept_tcp(listener: &std::net::TcpListener) -> io::Result<(OwnedFd, Peer)> {
    let (socket, address) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let address = address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
    // The system leaves the address out of a connection that is gone already.
    let address = address.ok_or(io::ErrorKind::NotConnected)?;
    Ok((socket, Peer::plain(address.ip())))
}

/// What a client has said by the time that it is accepted: nearly always its request, which then need not be waited for.
fn said_by_now(socket: &OwnedFd) -> BytesMut {
    let mut read = BytesMut::zeroed(ROOM_BYTES);
    // An end or an error is found again when it is read next.
    let bytes = recv(socket, &mut read[..], RecvFlags::empty()).map_or(0, |(bytes, _)| bytes);
    read.truncate(bytes);
    read
}

/// A connection on its way to HTTP, once it was accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub stream: ClientStream,
    /// Who is at its other end.
    pub peer: Peer,
    /// Who it is by its TLS session, if it has one.
    pub identity: Option<Arc<TlsIdentity>>,
    /// What was read of it already, and belongs to what comes next.
    pub read: BytesMut,
    /// Its place in the books.
    pub seat: Seat,
    /// When it was accepted: `server.handshake_timeout` counts from here.
    pub began: Instant,
}

/// Accepts connections on this thread from when the process serves until it is on its way down.
pub async fn accept(listener: PublicListener, door: Arc<Door>) {
    let PublicListener { bound, tls } = listener;
    let listener = match Listener::new(bound) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener could not be watched"),
    };
    let mut phase = door.process.phase.watch();
    // Who comes early waits in the backlog, which is better than to be turned away. A phase that can no longer change
    // means the process is gone.
    drop(phase.wait_for(|&phase| phase != Phase::Starting).await);
    let mut gate = door.process.upgrade.watch();
    loop {
        let stopping = async { drop(phase.wait_for(|&phase| phase == Phase::Stopping).await) };
        tokio::select! {
            biased;
            () = stopping => return,
            // Who comes now waits in the backlog, for this process or the one that takes over.
            () = gate.held() => wait_to_accept(&mut gate, &door.process).await,
            accepted = accept_one(&listener, &door.process, tls) => match accepted {
                Ok(Accepted { stream, peer, read, prepare: is_prepared }) => {
                    // Counted before the next one is accepted, which is before this one's task runs.
                    let seat = Seat::take(&door.process);
                    let arrival = Arrival { stream, peer, identity: None, read, seat, began: Instant::now() };
                    if is_prepared {
                        tokio::spawn(prepare(door.clone(), arrival, tls));
                    } else {
                        tokio::spawn(http1::serve(door.clone(), arrival));
                    }
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    door.process.metrics.connection_result(ListenerLabel::Public, ConnectionResult::AcceptFailed);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Waits until connections are accepted again, or the process is on its way down.
async fn wait_to_accept(gate: &mut GateWatch, process: &Process) {
    let mut phase = process.phase.watch();
    tokio::select! {
        () = gate.open() => {}
        // A phase that can no longer change means the process is gone.
        () = async { drop(phase.wait_for(|&phase| phase == Phase::Stopping).await) } => {}
    }
}

/// Serves a connection on which something is to be said before HTTP: whose it is, and a TLS handshake.
async fn prepare(door: Arc<Door>, mut arrival: Arrival, tls: bool) {
    let process = &door.process;
    if !announced(process, &mut arrival).await || tls && !secure(process, &mut arrival).await {
        return;
    }
    if arrival.stream.session().is_some_and(Session::speaks_http2) {
        // Boxed, because this task would be larger for those that speak HTTP/1.
        Box::pin(http2::serve(door, arrival)).await;
    } else {
        http1::serve(door, arrival).await;
    }
}

/// The next connection, once there is a descriptor for it and for its worker's; until then it waits in the backlog.
async fn accept_one(listener: &Listener, process: &Process, tls: bool) -> io::Result<Accepted> {
    while process.slots.are_out_of_descriptors() {
        // Pipes whose clients are away have the descriptors of their workers' connections.
        let _made = (0..SHED_AT_ONCE).take_while(|_| make_room(process)).count();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    listener.accept(|| tls || process.rules.load().proxy_protocol != ProxyProtocol::Off).await
}

/// Whether the connection died before it was accepted, which is no trouble of ours.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | InvalidInput)
}
