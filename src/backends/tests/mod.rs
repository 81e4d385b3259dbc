//! The registry from outside: what an API client, a pipe and a worker see of it.

mod keeping;
mod leases;
mod pipes;
mod taken_over;
mod writes;

use super::facts::Removal;
use super::*;
use holdline_core::health::HealthSettings;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Backends with ears on everything they tell.
struct World {
    backends: Backends,
    events: mpsc::UnboundedReceiver<BackendEvent>,
    leaves: mpsc::UnboundedReceiver<(BackendKey, Leave)>,
}

impl World {
    fn new(pools: Vec<PoolSpec>) -> Self {
        Self::in_networks(pools, &["127.0.0.0/8", "::1/128"])
    }

    fn in_networks(pools: Vec<PoolSpec>, networks: &[&str]) -> Self {
        let (told, events) = mpsc::unbounded_channel();
        let (ordered, leaves) = mpsc::unbounded_channel();
        let setup = Setup {
            pools,
            networks: networks_of(networks),
            bounds: Bounds { deaths_per_window: 2, ..Bounds::default() },
        };
        let on_event = move |event| _ = told.send(event);
        let on_leave = move |key, leave| _ = ordered.send((key, leave));
        Self { backends: Backends::new(&setup, Clock::start(), on_event, on_leave), events, leaves }
    }

    /// One pool `default`, in which nothing is probed.
    fn unprobed() -> Self {
        Self::new(vec![pool("default", unprobed())])
    }

    /// A task that keeps the pools until it is dropped.
    fn keep(&self) -> tokio::task::JoinSet<()> {
        let backends = self.backends.clone();
        let mut keeper = tokio::task::JoinSet::new();
        keeper.spawn(async move { backends.run(std::future::pending()).await });
        keeper
    }

    /// The next event that `wanted` picks; what comes before it is dropped.
    async fn event(&mut self, wanted: impl Fn(&BackendEvent) -> bool) -> BackendEvent {
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if wanted(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap()
    }

    /// What was told since the last look.
    fn heard(&mut self) -> Vec<BackendEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    fn orders(&mut self) -> Vec<(BackendKey, Leave)> {
        std::iter::from_fn(|| self.leaves.try_recv().ok()).collect()
    }

    fn put(&self, id: &str, spec: BackendSpec) -> Result<Put, BackendError> {
        self.backends.put(id, spec, Expect::Anything).map(|(put, _)| put)
    }

    fn view(&self, id: &str) -> BackendView {
        self.backends.get(id).unwrap()
    }

    /// A place on this backend, of all that are in the default pool.
    fn choose_only(&self, id: &str) -> Result<Reservation, NoBackend> {
        let others: Vec<_> = self.backends.list().iter().filter(|view| *view.id != *id).map(|view| view.key).collect();
        self.backends.choose("default", &Ask { exclude: &others, ..Ask::default() })
    }

    fn choose(&self) -> Result<Reservation, NoBackend> {
        self.backends.choose("default", &Ask::default())
    }
}

fn setup(pools: Vec<PoolSpec>) -> Setup {
    Setup {
        pools,
        networks: networks_of(&["127.0.0.0/8", "::1/128"]),
        bounds: Bounds { deaths_per_window: 2, ..Bounds::default() },
    }
}

fn networks_of(networks: &[&str]) -> Networks {
    Networks::new(networks.iter().map(|network| network.parse().unwrap()).collect())
}

fn pool(name: &str, probes: ProbeSettings) -> PoolSpec {
    PoolSpec { probes, ..PoolSpec::new(name) }
}

fn unprobed() -> ProbeSettings {
    ProbeSettings { interval: Duration::ZERO, ..ProbeSettings::default() }
}

fn spec(url: &str) -> BackendSpec {
    BackendSpec::new(url.parse().unwrap(), "default")
}

/// A backend of the default pool on some port that no test dials.
fn worker(port: u16) -> BackendSpec {
    spec(&format!("ws://127.0.0.1:{port}"))
}

fn leased(port: u16, seconds: u64) -> BackendSpec {
    BackendSpec { lease: Some(Duration::from_secs(seconds)), ..worker(port) }
}
