//! Where the process is in its life, as far as others need to know.
//!
//! ```text
//! Starting ──▶ Serving ◀──▶ Draining
//!     │           │            │
//!     └───────────┴────────────┴──▶ Stopping
//! ```
//! Only `Serving` takes new pipes; nothing leads out of `Stopping`.

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

/// A phase of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Listeners are not all bound yet.
    Starting,
    /// Takes new pipes.
    Serving,
    /// An operator wants no new pipes here; live ones go on.
    Draining,
    /// On the way to the exit.
    Stopping,
}

impl Phase {
    /// Its name in JSON and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// The phase, to be read and awaited from any thread.
#[derive(Debug)]
pub struct PhaseCell(watch::Sender<Phase>);

impl Default for PhaseCell {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl PhaseCell {
    /// The phase now.
    #[must_use]
    pub fn get(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether a new pipe may be opened.
    #[must_use]
    pub fn takes_pipes(&self) -> bool {
        self.get() == Phase::Serving
    }

    /// The phase and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Waits until the process takes nothing new.
    pub fn leaves(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phase = self.watch();
        async move {
            // A sender that is gone means the same.
            drop(phase.wait_for(|phase| matches!(phase, Phase::Draining | Phase::Stopping)).await);
        }
    }

    /// The listeners are bound.
    pub fn started(&self) {
        self.step(Phase::Starting, Phase::Serving);
    }

    /// No new pipes from now on; false if that changed nothing.
    pub fn drain(&self) -> bool {
        self.step(Phase::Serving, Phase::Draining)
    }

    /// New pipes again; false if that changed nothing.
    pub fn undrain(&self) -> bool {
        self.step(Phase::Draining, Phase::Serving)
    }

    /// The process is about to exit; false if it was already.
    pub fn stop(&self) -> bool {
        self.0.send_if_modified(|phase| {
            let changed = *phase != Phase::Stopping;
            *phase = Phase::Stopping;
            changed
        })
    }

    fn step(&self, from: Phase, to: Phase) -> bool {
        self.0.send_if_modified(|phase| {
            let changed = *phase == from;
            if changed {
                *phase = to;
            }
            changed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_can_be_taken_back_and_a_stop_cannot() {
        let phase = PhaseCell::default();
        assert!(!phase.drain(), "nothing to drain before the start");
        phase.started();
        assert!(phase.takes_pipes() && phase.drain() && !phase.drain());
        assert!(!phase.takes_pipes() && phase.undrain() && phase.takes_pipes());
        assert!(phase.stop() && !phase.stop() && !phase.undrain());
        assert_eq!(phase.get(), Phase::Stopping);
    }
}
