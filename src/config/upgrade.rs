//! `[upgrade]`: how another process takes over from this one.

use std::path::PathBuf;
use std::time::Duration;

/// `[upgrade]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveUpgrade {
    /// Where a process comes that takes over by itself; nowhere if absent.
    pub socket: Option<PathBuf>,
    /// The program that takes over; the one that runs, if absent.
    pub binary: Option<PathBuf>,
    /// How long the new process may take until it could serve.
    pub ready_timeout: Duration,
    /// Pipes that go over at a time.
    pub batch: u32,
    /// How long the old process finishes what cannot go over; `server.shutdown_grace` if absent.
    pub drain_max: Option<Duration>,
}

impl Default for LiveUpgrade {
    fn default() -> Self {
        Self { socket: None, binary: None, ready_timeout: Duration::from_secs(30), batch: 100, drain_max: None }
    }
}
