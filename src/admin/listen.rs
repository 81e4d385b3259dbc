//! The admin listener: TCP or a socket file, a bounded number of connections, and an end.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::{Admin, Locality};
use crate::config::Listen;
use crate::door::listen::Bound;
use crate::metrics::{ConnectionResult, ListenerLabel};
use crate::net::OwnListener;
use crate::send_timeout::SendTimeout;

/// Connections at once; each may hold one long poll. Beyond, callers wait in the listen queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// From the accept to a whole request head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a caller may take no byte of an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// What running requests are given once the process stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the CPU use is looked at.
const CPU_SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// After a failed accept (out of descriptors), so that it doesn't fail a million times a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin listener.
#[derive(Debug)]
pub enum AdminListener {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file, removed when the listener goes.
    Unix(UnixListener, SocketFile),
}

/// The path of a bound socket file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Whether another process owns it, so that it stays.
    is_borrowed: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_borrowed {
            // Best effort: it may have been removed already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AdminListener {
    /// Binds `listen`; a socket file without a listener is replaced.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        let bound = match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path),
        };
        bound.map_err(|error| io::Error::new(error.kind(), format!("admin.listen {listen}: {error}")))
    }

    /// Takes a listener that is bound already.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn adopt(bound: Bound) -> io::Result<Self> {
        let unix = |listener, path, is_borrowed| {
            Ok(Self::Unix(UnixListener::from_std(listener)?, SocketFile { path, is_borrowed }))
        };
        match bound {
            Bound::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Bound::Unix(listener, path) => unix(listener, path, false),
            Bound::Activated(listener, path) => unix(listener, path, true),
        }
    }

    /// Where no worker may be because of it.
    #[must_use]
    pub fn own(&self) -> Option<OwnListener> {
        match self {
            Self::Tcp(listener) => OwnListener::of(listener),
            Self::Unix(_, file) => Some(OwnListener::File(file.path.clone())),
        }
    }

    /// From where it can be reached.
    #[must_use]
    pub fn locality(&self) -> Locality {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) if address.ip().to_canonical().is_loopback() => Locality::Loopback,
                Ok(_) | Err(_) => Locality::Network,
            },
            Self::Unix(..) => Locality::Unix,
        }
    }
}

/// The bound address: `127.0.0.1:43121` or `unix:PATH`.
impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("unknown"),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.path.display()),
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<AdminListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile { path: path.to_owned(), is_borrowed: false };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(AdminListener::Unix(listener, file))
}

/// Serves the API until `stop` turns true (or its sender goes); running requests get a moment to finish.
pub async fn serve(listener: AdminListener, admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let router = admin.router();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut sampling = tokio::time::interval(CPU_SAMPLE_EVERY);
    loop {
        tokio::select! {
            accepted = accept(&listener, &slots) => match accepted {
                Ok((accepted, slot)) => {
                    let (router, admin, stop) = (router.clone(), Arc::clone(&admin), stop.clone());
                    match accepted {
                        Accepted::Tcp(io) => connections.spawn(connection(io, router, admin, slot, stop)),
                        Accepted::Unix(io) => connections.spawn(connection(io, router, admin, slot, stop)),
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    admin.process.metrics.connection_result(ListenerLabel::Admin, ConnectionResult::AcceptFailed);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = sampling.tick() => admin.sample_cpu(),
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    // Long polls and streams don't end by themselves; after this they are cut off with the set.
    let _ = tokio::time::timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process that could want us to go on.
    let _ = stop.wait_for(|&stop| stop).await;
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn accept(listener: &AdminListener, slots: &Arc<Semaphore>) -> io::Result<(Accepted, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let accepted = match listener {
        AdminListener::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
        AdminListener::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
    };
    Ok((accepted, slot))
}

async fn connection(
    io: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    admin: Arc<Admin>,
    _slot: OwnedSemaphorePermit,
    mut stop: watch::Receiver<bool>,
) {
    let _counted = admin.process.metrics.connection(ListenerLabel::Admin);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_headers(64);
    let connection =
        http.serve_connection(TokioIo::new(SendTimeout::new(io, SEND_TIMEOUT)), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended badly");
    }
}
