//! What the process holds for a pipe as long as the pipe lives, whether a driver runs it or not.
//!
//! Invariant: dropped, it says first that the pipe is over, then takes it out of the registry, and gives back last what
//! its client was let in with.

use std::sync::Arc;

use super::report::Reporter;
use crate::clients::Claim;
use crate::limits::{Admission, Slot};
use crate::metrics::GaugeGuard;
use crate::pipes::{PipeEntry, Registration};

/// What a client was let in with.
#[expect(dead_code, reason = "they are held for what their drop gives back")]
pub struct Guards {
    /// Its hold on its name.
    pub name: Option<Box<Claim>>,
    /// Its place among the connections.
    pub slot: Slot,
    /// Its places in the limits.
    pub admission: Admission,
    /// Its connection in the gauge, which goes last: when it shows zero, every place is free.
    pub connection: GaugeGuard,
}

/// The books of one pipe.
pub struct Books {
    /// Says what happens to it.
    pub report: Reporter,
    /// Its place in the registry.
    pub registration: Registration,
    /// Nothing before its client is answered, and where the pipe is a stream's.
    pub guards: Option<Guards>,
}

impl Books {
    /// What others see of the pipe.
    pub const fn entry(&self) -> &Arc<PipeEntry> {
        self.registration.entry()
    }
}
