//! The demo device-bridge worker: a WebSocket and REST server over simulated phones, with fault knobs.
//!
//! It stands where a real worker would: `holdline demo`, the tests and the benchmarks run it behind the proxy. It is a
//! tool for showing and testing, so every caller may turn its knobs; listen on loopback.
//!
//! | path | is |
//! |---|---|
//! | `/ws/{session}/control` | commands as JSON, executed one after the other, journalled, not answered (`?echo=1`, `?pull=1`, `?command_ms=`) |
//! | `/ws/{session}/video` | frames as JSON (`?fps=`, `?sha=1`, `?big=PERCENT&big_bytes=`) |
//! | `/ws/{session}/screenshot` | a picture at once and after each message |
//! | `/ws/{session}/logs` | log lines (`?rate=`, `?bytes=`) |
//! | `/ws/{session}/webrtc` | signalling whose state lives here |
//! | `/ws/{session}/echo` | every message verbatim |
//! | `/`, `/static/…`, `/health`, `/stats`, `/status`, `/api/…` | see `rest` |
//! | `/__journal`, `/__freeze`, … | see `knobs` |
//!
//! Read `server` (connections), `sockets` and `control` (WebSockets), `rest`, then `faults` and `gate`; `device`, `screen`, `scene`,
//! `encode`, `picture` and `font` draw the screens.

mod control;
mod device;
mod encode;
mod faults;
mod font;
mod gate;
mod journal;
mod knobs;
mod options;
mod picture;
mod register;
mod rest;
mod scene;
mod screen;
mod server;
mod sockets;

use std::{
    fs::OpenOptions,
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use listenfd::ListenFd;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

pub use options::Options;

use device::Devices;
use faults::Faults;
use journal::Journal;

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The journal file can't be opened for appending.
    #[error("cannot open the journal {}", path.display())]
    Journal {
        /// The file that was asked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The admin URL isn't one that we can talk to.
    #[error("--register takes http://HOST:PORT, not {url}")]
    Register {
        /// The URL that was given.
        url: String,
    },
    /// Stdout is gone, so the port cannot be learned.
    #[error("cannot print the address")]
    Print(#[source] io::Error),
}

/// Runs a worker until `shutdown` resolves or it is told to stop, and prints `{"listening":"127.0.0.1:PORT"}` on stdout first.
/// An orderly stop finishes queued commands, closes every WebSocket with 1012 and takes at most `drain_ms`.
///
/// # Errors
/// When it can't start.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let worker = Worker::bind(options).await?;
    let line = json!({ "listening": worker.address().to_string() });
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(WorkerError::Print)?;
    worker.run(shutdown).await;
    Ok(())
}

/// A worker that is bound to its port and not yet serving.
pub struct Worker {
    listener: TcpListener,
    address: SocketAddr,
    registration: Option<register::Registration>,
    app: Arc<App>,
}

impl Worker {
    /// Binds the port and opens the journal file.
    ///
    /// # Errors
    /// When the address, the journal file or the admin URL can't be used.
    pub async fn bind(options: Options) -> Result<Self, WorkerError> {
        let listen_error = |source| WorkerError::Listen { address: options.listen, source };
        let listener = match given().map_err(listen_error)? {
            Some(listener) => listener,
            None => TcpListener::bind(options.listen).await.map_err(listen_error)?,
        };
        let address = listener.local_addr().map_err(listen_error)?;
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map_err(|source| WorkerError::Journal { path: path.clone(), source })
        };
        let journal = options.journal.as_ref().map(open).transpose()?;
        let name = options.name.clone().unwrap_or_else(|| format!("worker-{}", address.port()));
        let registration = register::Registration::new(&options, &name, address)?;
        let app = Arc::new(App {
            devices: Devices::new(&name, &options),
            faults: Arc::new(Faults::new()),
            journal: Journal::new(journal),
            started: Instant::now(),
            stop: watch::Sender::new(false),
            name,
            options,
        });
        Ok(Self { listener, address, registration, app })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves or the `/__term` knob is pressed, then stops in order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tracing::info!(name = self.app.name, address = %self.address, "worker serves");
        let app = self.app;
        let serving = server::serve(self.listener, app.clone(), shutdown);
        match self.registration {
            // pipes that move here must not wait for the wallpaper
            Some(registration) => tokio::join!(serving, registration.keep(app.clone()), app.devices.warm()).0,
            None => serving.await,
        }
    }
}

/// The socket that a supervisor has opened for us (sd_listen_fds(3)), if one has.
fn given() -> std::io::Result<Option<TcpListener>> {
    let Some(listener) = ListenFd::from_env().take_tcp_listener(0)? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Some)
}

/// What every connection shares.
struct App {
    options: Options,
    name: String,
    started: Instant,
    devices: Devices,
    faults: Arc<Faults>,
    journal: Journal,
    /// True once the worker stops.
    stop: watch::Sender<bool>,
}

/// Locks a mutex whose data stays whole even if a holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
