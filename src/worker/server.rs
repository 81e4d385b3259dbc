//! Accepting connections, and stopping in order: every connection is one task, which serves HTTP first and, after an
//! upgrade, the WebSocket. All tasks belong to the accept loop, so none outlives it.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    App,
    faults::{Link, Order, Scope},
    gate::Gate,
    lock, rest,
    sockets::{self, Upgrade},
};

/// How long a connection may take for a request head, or stay idle between two.
const HEAD_WAIT: Duration = Duration::from_secs(60);
/// How long a plain HTTP request may still take when the worker stops.
const HTTP_DRAIN: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a request handler leaves the upgrade that its connection goes on with.
pub(super) type UpgradeSlot = Arc<Mutex<Option<Upgrade>>>;

/// Serves until `shutdown` or the stop flag, then drains.
pub(super) async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut stop = app.stop.subscribe();
    loop {
        app.faults.thawed(None).await;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => admit(&app, socket, &mut tasks),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = tasks.join_next() => report(ended),
            () = shutdown.as_mut() => break,
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    app.stop.send_replace(true);
    let told = app.faults.order(&Scope::default(), &Order::Drain);
    tracing::info!(connections = told, "worker stops");
    let drained = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if timeout(Duration::from_millis(app.options.drain_ms), drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "not drained in time, dropping the rest");
    }
    tasks.shutdown().await;
}

fn admit(app: &Arc<App>, socket: TcpStream, tasks: &mut JoinSet<()>) {
    let Some(link) = app.faults.link() else {
        tracing::warn!("too many connections, dropping one");
        return;
    };
    let app = app.clone();
    tasks.spawn(async move {
        let linked = Linked { app: &app, link };
        connection(&app, &linked.link, socket).await;
    });
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

/// Takes the link out of the list however its task ends.
struct Linked<'a> {
    app: &'a App,
    link: Arc<Link>,
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.app.faults.unlink(&self.link);
    }
}

async fn connection(app: &Arc<App>, link: &Arc<Link>, socket: TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let gate = Gate::new(socket, link.clone(), app.faults.clone());
    let slot = UpgradeSlot::default();
    let service = service_fn(|request| rest::answer(app.clone(), link.clone(), slot.clone(), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
    let mut http = pin!(builder.serve_connection(TokioIo::new(gate), service).with_upgrades());
    let mut orders = link.orders();
    let draining = async {
        // the sender lives in the link, which we hold
        let _ = orders.wait_for(|order| *order == Order::Drain).await;
    };
    let served = tokio::select! {
        served = http.as_mut() => served,
        () = draining => {
            http.as_mut().graceful_shutdown();
            timeout(HTTP_DRAIN, http).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended early");
    }
    let upgrade = lock(&slot).take();
    if let Some(upgrade) = upgrade {
        websocket(app, link, upgrade).await;
    }
}

async fn websocket(app: &Arc<App>, link: &Arc<Link>, mut upgrade: Upgrade) {
    let Ok(upgraded) = (&mut upgrade.on).await else {
        // the client left before it had read our 101
        return upgrade.page.closed("broken", None, "");
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<Gate>>() else {
        tracing::error!("the upgraded stream is not the one we gave");
        return;
    };
    let early = parts.read_buf.into();
    sockets::run(app, link, upgrade, parts.io.into_inner(), early).await;
}
