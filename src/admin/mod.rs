//! The admin API: who may ask what, and what it answers. It runs on the control runtime and never on a data thread.
//!
//! | method and path | access | does |
//! |---|---|---|
//! | `GET /health`, `/health/live`, `/livez`, `/health/ready`, `/readyz` | open | `health` |
//! | `GET /metrics` | open | Prometheus text |
//! | `GET /openapi.json` | open | this table for programs, OpenAPI 3.1 |
//! | `GET /` | open | the dashboard, a page without data of its own |
//! | `GET /v1/backends`, `GET /v1/backends/{id}` | viewer | reads backends |
//! | `POST /v1/backends` | worker | registers a URL, the id is made up |
//! | `PUT /v1/backends/{id}` | worker | registers or replaces |
//! | `PATCH /v1/backends/{id}` | worker | merge-patch |
//! | `PUT /v1/backends/{id}/lease` | worker | renews |
//! | `DELETE /v1/backends/{id}` | worker | drains, then removes |
//! | `PUT /v1/backends/{id}/state` | operator | ready, drain, maint |
//! | `GET /v1/pools`, `GET /v1/pools/{name}` | viewer | reads pools |
//! | `POST /v1/pools/{name}/rebalance` | operator | moves pipes off backends that have more than their share |
//! | `GET /v1/workers`, `GET /v1/workers/{id}` | viewer | reads the workers that Holdline runs |
//! | `POST /v1/workers/{id}/recycle` | operator | replaces one |
//! | `POST /v1/workers/{group}/restart`, `PATCH /v1/workers/{group}` | operator | replaces all of a group, one by one; changes how many there are |
//! | `GET /v1/pipes`, `GET /v1/pipes/{id}` | viewer | reads pipes |
//! | `PATCH /v1/pipes/{id}` | worker | changes the groups that one belongs to |
//! | `POST /v1/pipes/{id}/reattach`, `DELETE /v1/pipes/{id}` | operator | moves or closes one |
//! | `POST /v1/pipes/{id}/messages`, `POST /v1/broadcast` | operator | says something to clients |
//! | `POST /v1/pipes/{id}/commit` | worker | what its application has committed |
//! | `POST /v1/pipes/{id}/tap` | operator | shows its messages as they come, where `admin.tap` allows it |
//! | `GET /v1/events` | viewer | `events`: page, long poll, stream |
//! | `GET /v1/stats`, `GET /stats` | viewer | `stats` |
//! | `GET /v1/history` | viewer | the last ten minutes in steps |
//! | `GET /v1/info`, `GET /v1/config`, `POST /v1/config/validate`, `GET /v1/log` | operator | `system` |
//! | `GET /v1/tls` | viewer | certificates, and when they end |
//! | `POST /v1/config/reload` | operator | reads the configuration again and puts it in force |
//! | `PUT /v1/log`, `PUT` and `DELETE /v1/drain` | operator | `system` |
//! | `GET /v1/upgrade` | viewer | how far a live upgrade is |
//! | `POST /v1/upgrade` | operator | has a new process take over, and answers when it serves |
//!
//! Every request passes `gate`. Errors are [`problem`]s. Roles and tokens are described in [`crate::tokens`]. An endpoint
//! that is not in the table of `endpoints` does not exist, so none can be reached that has no access rule.

mod backends;
mod body;
mod condition;
mod configuration;
mod dashboard;
mod duration;
mod endpoints;
mod events;
mod gate;
mod health;
mod history;
mod labels;
pub mod list;
pub mod listen;
mod messages;
mod openapi;
mod pipe_list;
mod pipes;
mod pools;
pub mod problem;
pub mod registration;
mod scrape;
mod seats;
pub mod state_file;
mod stats;
mod streams;
mod system;
mod tap;
mod tls;
mod upgrade;
mod workers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use axum::Router;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::process::CpuMeter;
use crate::process::Process;
use crate::rebalance::Rebalances;
use crate::reload::Reload;

use condition::Tags;
use endpoints::AccessRules;
use problem::{Kind, Problem};
use scrape::Scrape;
use state_file::StateFile;

/// Requests that wait for a change at once (long polls, blocking lists, streams of events); more are answered 503, so that those that ask
/// and go always find a connection.
pub const WAITERS_MAX: usize = 768;

/// From where the listener can be reached, which decides what guards it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// TCP on a loopback address: by any process and any browser page of this machine.
    Loopback,
    /// A socket file: by whom its permissions allow.
    Unix,
    /// Any other address.
    Network,
}

/// The admin API of one process.
#[derive(Debug)]
pub struct Admin {
    process: Arc<Process>,
    /// The way to another configuration.
    reload: Arc<Reload>,
    /// Where what is registered outlives the process, if anywhere.
    state_file: Option<Arc<StateFile>>,
    locality: Locality,
    access: AccessRules,
    started: Instant,
    started_at: Timestamp,
    cpu: Mutex<CpuMeter>,
    tags: Tags,
    /// Places of those that wait, streams of events included.
    waiting: Arc<Semaphore>,
    scrape: Scrape,
    history: history::Ring,
    rebalances: Rebalances,
    broadcasting: Semaphore,
    /// Places of operators who look on at pipes.
    taps: Arc<Semaphore>,
}

impl Admin {
    /// The API of `process`, on a listener of that `locality`.
    #[must_use]
    pub fn new(
        process: Arc<Process>,
        reload: Arc<Reload>,
        state_file: Option<Arc<StateFile>>,
        locality: Locality,
    ) -> Arc<Self> {
        Arc::new(Self {
            process,
            reload,
            state_file,
            locality,
            access: endpoints::access_rules(),
            started: Instant::now(),
            started_at: Timestamp::now(),
            cpu: Mutex::default(),
            tags: Tags::new(),
            waiting: Arc::new(Semaphore::new(WAITERS_MAX)),
            scrape: Scrape::default(),
            history: history::Ring::default(),
            rebalances: Rebalances::default(),
            broadcasting: Semaphore::new(messages::BROADCASTS_MAX),
            taps: Arc::new(Semaphore::new(tap::TAPS_MAX)),
        })
    }

    /// The routes, guarded.
    pub fn router(self: &Arc<Self>) -> Router {
        endpoints::router(self)
    }

    /// A place among those that wait.
    fn place_to_wait(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.waiting
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::new(Kind::Busy, "as many requests as may wait already"))
    }

    /// Waits until what was just changed about the backend `id` survives a restart, where anything does.
    ///
    /// # Errors
    /// When it would not; it is in force all the same.
    async fn kept(&self, id: &str) -> Result<(), Problem> {
        let Some(file) = &self.state_file else { return Ok(()) };
        let index = *self.process.backends.index().borrow();
        file.catch_up(index).await.map_err(|why| {
            let detail = format!(
                "what was said about {id:?} is in force, but would not survive a restart: admin.state_file was not written: {why}"
            );
            Problem::named("not-kept", 507, detail)
        })
    }

    fn cpu_percent(&self) -> f64 {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner).percent()
    }

    fn end_step(&self) {
        self.history.read(self);
    }

    fn sample_cpu(&self) {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner).sample();
    }
}

/// A moment as answers have it: RFC 3339 in UTC.
fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests;
