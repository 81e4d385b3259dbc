//! What one process knows and another one that takes over from it cannot find out: backends with their leases and rests,
//! the keys of resume tokens, and the time that its clock shows.
//!
//! Client names go with the pipes that have them. Invariant: taken in twice, it is as if it had been taken in once; so the
//! old process says it first before any pipe goes, and again at the end.

use std::collections::HashSet;

use holdline_core::time::Time;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sections::{Pieces, Sections};
use crate::admin::registration;
use crate::backends::{Expect, Origin, Standing};
use crate::clock::Clock;
use crate::process::Process;
use crate::resume::KeyRing;

/// The longest that a state is believed to have been on its way.
const WAY_MICROS_MAX: u64 = 3_600_000_000;

/// What CLOCK_MONOTONIC shows, in microseconds.
fn system_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap_or_default()
}

/// The state of a process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessState {
    /// What its clock showed when this was written, in microseconds.
    clock: u64,
    /// The same by the clock of the system, which both processes have.
    system_clock: u64,
    /// The keys of its resume tokens, where no file has them: secrets.
    resume_keys: Option<Vec<(String, String)>>,
    /// Whether it takes no new pipes because an operator said so.
    pub draining: bool,
    /// Descriptors that it is about to give.
    pub descriptors: usize,
    backends: Vec<BackendState>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendState {
    standing: Standing,
    /// What was said about it, unless the configuration says it.
    said: Option<Value>,
}

impl ProcessState {
    /// That of this process.
    #[must_use]
    pub fn of(process: &Process) -> Self {
        let config = process.config.load();
        let views = process.backends.list();
        let said = |standing: &Standing| {
            let view = views.iter().find(|view| view.key.0 == standing.key)?;
            (view.origin == Origin::Registered).then(|| registration::written(view))
        };
        let backends = process.backends.standings().into_iter();
        let backends = backends.map(|standing| BackendState { said: said(&standing), standing }).collect();
        let keys = config.resume.keys_file.is_none().then(|| process.resume_keys.load().to_words());
        Self {
            clock: process.clock.now().as_micros(),
            system_clock: system_micros(),
            resume_keys: keys,
            draining: process.phase.get() == crate::phase::Phase::Draining,
            descriptors: process.pipes.len() * 2,
            backends,
        }
    }

    /// The bytes that another process is given.
    ///
    /// # Errors
    /// None that is expected: all of it can be written.
    pub fn to_sections(&self) -> serde_json::Result<Sections> {
        let mut sections = Sections::default();
        sections.push(&serde_json::to_vec(self)?);
        Ok(sections)
    }

    /// What another process has given.
    ///
    /// # Errors
    /// Why it makes no sense.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let piece = Pieces(bytes).next().map_err(|error| error.to_string())?;
        serde_json::from_slice(piece).map_err(|error| error.to_string())
    }

    /// A clock that goes on from that of the other process.
    #[must_use]
    pub fn clock(&self) -> Option<Clock> {
        // Another namespace may have another clock of the system: what it says of the way here is no time then.
        let on_the_way = system_micros().checked_sub(self.system_clock).filter(|&micros| micros < WAY_MICROS_MAX);
        Clock::showing(Time::from_micros(self.clock + on_the_way.unwrap_or_default()))
    }

    /// The keys of the other process's tokens, if no file has them.
    #[must_use]
    pub fn resume_keys(&self) -> Option<KeyRing> {
        KeyRing::from_words(self.resume_keys.as_deref()?).ok()
    }

    /// Has `process` know it.
    pub fn take_in(self, process: &Process) {
        let known: HashSet<_> = self.backends.iter().map(|backend| backend.standing.id.clone()).collect();
        for BackendState { standing, said } in self.backends {
            let spec = match said.map(registration::of_written).transpose() {
                Ok(spec) => spec,
                Err(why) => {
                    tracing::warn!(backend = &*standing.id, why, "a backend of the old process makes no sense here");
                    continue;
                }
            };
            if !process.backends.resume(&standing, spec) {
                tracing::warn!(
                    backend = &*standing.id,
                    "a backend of the old process has no place in this configuration"
                );
            }
        }
        // Those of a state file that the old process had given up meanwhile.
        let gone = process.backends.list().into_iter().filter(|view| view.origin == Origin::Registered);
        for view in gone.filter(|view| !known.contains(&view.id)) {
            // One that is gone already is as good.
            let _ = process.backends.delete(&view.id, Expect::Anything);
        }
    }
}
