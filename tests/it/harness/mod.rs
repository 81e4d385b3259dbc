//! What the tests stand on: the proxy and demo workers as processes, clients, and a worker stepped by hand.

pub mod agent;
pub mod ask;
pub mod aware;
pub mod between;
pub mod client;
pub mod crew;
pub mod demo;
pub mod front;
pub mod http2;
pub mod metrics;
pub mod orphans;
pub mod proxy;
pub mod step;
pub mod tls;
pub mod wire;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

pub use ask::{Reply, ask};
pub use client::Client;
pub use demo::DemoWorker;
pub use front::Front;
pub use orphans::{ALL_THERE, heirs, orphans};
pub use proxy::Proxy;
pub use step::StepWorker;
pub use wire::{Said, Wire};

/// The address of a listener that has none because it is a socket file.
pub const SOCKET_FILE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::BROADCAST, 1));

/// Nothing here takes this long; a hang fails instead of waiting for ever.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// What `future` resolves to; a panic that names `what` if it takes longer than [`PATIENCE`].
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let at = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(done) => done,
            Err(_) => panic!("nothing within {PATIENCE:?}: {what} ({at})"),
        }
    }
}

/// The value that a state which can only be looked at has to reach, looked at over and over.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    within(what, async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    })
}

/// One pool, and one route whose key is the session in the path. Keys of the route may follow, then other tables.
pub const KEYED: &str = r#"
[limits]
key_connections = 0
key_rate = 0
[[pools]]
name = "default"
[[routes]]
name = "ws"
path = "/ws/{session}/{channel}"
key = "{session}"
pool = "default"
"#;
