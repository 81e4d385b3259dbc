//! The admin listener: TCP or a socket file, a bounded number of connections, and an end.
//!
//! Invariant: a health check is answered soon whatever the other connections do; who makes room for whom is in `seats`.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::problem::{Kind, Problem};
use super::seats::{Bounds, Class, Given, Seat, Seats, Turn};
use super::{Admin, Locality, gate, health, history};
use crate::config::Listen;
use crate::door::listen::Bound;
use crate::door::secure::{Meeting, come_together};
use crate::metrics::{ConnectionResult, ListenerLabel};
use crate::net::{ClientStream, OwnListener, bind_error};
use crate::send_timeout::SendTimeout;
use crate::tls::set::TlsSet;

/// From the accept to a whole request head, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The same while more than half of the seats are taken.
const CROWDED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where all seats are taken and only health may be asked for.
const EXPRESS_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a caller may take no byte of an answer, streams of events included.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
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
        bound.map_err(|error| bind_error("admin.listen", listen, listen.port(), &error))
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

    /// A second handle on the same socket, for another process.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn share(&self) -> io::Result<Bound> {
        Ok(match self {
            Self::Tcp(listener) => Bound::Tcp(listener.as_fd().try_clone_to_owned()?.into()),
            Self::Unix(listener, file) => {
                let (listener, path) = (listener.as_fd().try_clone_to_owned()?.into(), file.path.clone());
                if file.is_borrowed { Bound::Activated(listener, path) } else { Bound::Unix(listener, path) }
            }
        })
    }

    /// Leaves the socket file to another process.
    const fn leave_file(&mut self) {
        match self {
            Self::Tcp(_) => {}
            Self::Unix(_, file) => file.is_borrowed = true,
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
pub async fn serve(mut listener: AdminListener, admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let router = admin.router();
    let seats = Arc::new(Seats::default());
    let mut connections = JoinSet::new();
    let mut sampling = tokio::time::interval(CPU_SAMPLE_EVERY);
    let mut gate = admin.process.upgrade.watch();
    let mut steps = tokio::time::interval(history::STEP);
    // A step that comes late is longer; none of no length follows it.
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            // Who comes now finds the process that serves next.
            () = gate.shut() => tokio::select! {
                () = gate.open() => {}
                () = stopped(&mut stop) => break,
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = sampling.tick() => admin.sample_cpu(),
            _ = steps.tick() => admin.end_step(),
            accepted = accept(&listener) => match accepted {
                Ok((accepted, address)) => {
                    let Some(place) = place(&admin, &seats, address) else { continue };
                    let (router, admin, stop) = (router.clone(), Arc::clone(&admin), stop.clone());
                    // Whose permissions let it open a socket file needs no TLS.
                    let tls = address.and_then(|_| admin.process.tls.admin());
                    connections.spawn(connection(accepted, tls, router, admin, place, stop));
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    admin.process.metrics.connection_result(ListenerLabel::Admin, ConnectionResult::AcceptFailed);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    if gate.is_gone() {
        listener.leave_file();
    }
    drop(listener);
    // Long polls and streams don't end by themselves; after this they are cut off with the set.
    let _ = tokio::time::timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process that could want us to go on.
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn accept(listener: &AdminListener) -> io::Result<(ClientStream, Option<IpAddr>)> {
    Ok(match listener {
        AdminListener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            (stream.into(), Some(peer.ip().to_canonical()))
        }
        AdminListener::Unix(listener, _) => (listener.accept().await?.0.into(), None),
    })
}

/// A connection's seat, and how long it may take for a request's head.
struct Place {
    seat: Seat,
    head_timeout: Duration,
}

/// Seats a connection from `address`; another one may have to go for it.
fn place(admin: &Admin, seats: &Arc<Seats>, address: Option<IpAddr>) -> Option<Place> {
    let config = admin.process.config.load();
    let (max, address_max) = (config.admin.max_connections as usize, config.admin.address_connections as usize);
    let Given { seat, has_shed, is_crowded } = seats.take(address, Bounds { max, address_max });
    let metrics = &admin.process.metrics;
    if has_shed {
        metrics.connection_result(ListenerLabel::Admin, ConnectionResult::Shed);
    }
    let Some(seat) = seat else {
        metrics.connection_result(ListenerLabel::Admin, ConnectionResult::Refused);
        return None;
    };
    let head_timeout = match seat.class {
        Class::Express => EXPRESS_HEAD_TIMEOUT,
        Class::Full if is_crowded => CROWDED_HEAD_TIMEOUT,
        Class::Full => HEAD_TIMEOUT,
    };
    Some(Place { seat, head_timeout })
}

async fn connection(
    mut io: ClientStream,
    tls: Option<Arc<TlsSet>>,
    router: Router,
    admin: Arc<Admin>,
    place: Place,
    mut stop: watch::Receiver<bool>,
) {
    let _counted = admin.process.metrics.connection(ListenerLabel::Admin);
    let seat = Arc::new(place.seat);
    let mut identity = None;
    if let Some(set) = tls {
        let (listener, patience, began) = (ListenerLabel::Admin, place.head_timeout, Instant::now());
        let meeting = Meeting { listener, patience, began, read: &[] };
        let Some(found) = come_together(&admin.process, &mut io, &set, meeting).await else { return };
        identity = Some(Arc::new(found));
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(place.head_timeout).max_headers(64);
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        answer(router.clone(), seat.clone(), request)
    });
    let connection = http.serve_connection(TokioIo::new(SendTimeout::new(io, SEND_TIMEOUT)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.shed() => return,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended badly");
    }
}

/// Answers one request, as far as its connection's seat allows.
async fn answer(router: Router, seat: Arc<Seat>, request: Request<Incoming>) -> Result<Response<Held>, Infallible> {
    let turn = seat.turn();
    let express = match seat.class {
        Class::Full => false,
        Class::Express => true,
    };
    let mut response = if express && !health::PATHS.contains(&request.uri().path()) {
        let problem = Problem::new(Kind::Busy, "there are as many connections as may be; only health is answered");
        gate::refuse(problem.into_response(), request.headers())
    } else {
        TowerToHyperService::new(router).call(request).await?
    };
    if express {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Held { body, _turn: turn }))
}

/// The body of an answer, which keeps its connection busy.
struct Held {
    body: axum::body::Body,
    _turn: Turn,
}

impl Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
