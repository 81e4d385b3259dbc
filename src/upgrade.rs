//! A live upgrade as the rest of the process sees it: who asks for one, how far it has come, and who is let in meanwhile.
//!
//! Carried out it is elsewhere ([`crate::handover`]). Invariants: there is one at a time; while pipes go over, connections
//! wait in the backlog, which both processes have, so that no client comes to the process that is about to leave.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::pipes::passport::Unmovable;

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gate {
    /// All.
    Open,
    /// No further connection; requests on those that are there open pipes.
    Held,
    /// No further connection, not even of operators, and no further pipe.
    Shut,
    /// The same for good: another process has taken over.
    Gone,
}

/// How far an upgrade has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// There is none, and was none.
    #[default]
    None,
    /// The new process starts.
    Starting,
    /// Pipes go over.
    Moving,
    /// The new process has them; this one finishes what could not go.
    Leaving,
    /// This process has taken over from another one.
    Taken,
    /// It came to nothing; this process serves on.
    Failed,
}

/// Pipes that could not go over, by what kept them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct NotMovable {
    /// Clients that speak TLS 1.2.
    tls12: u64,
    /// Clients that speak TLS 1.3.
    tls13: u64,
    /// Clients on streams of HTTP/2.
    h2: u64,
    /// Clients on requests (`routes.http_fallback`).
    http: u64,
    /// Viewers of shared streams, and the streams.
    shared: u64,
    /// Conversations that end with a worker connection that cannot go over.
    worker: u64,
    /// Those that the new process refused, or that did not stand still in time.
    other: u64,
}

impl NotMovable {
    /// Counts one more.
    pub const fn count(&mut self, why: Option<Unmovable>) {
        let number = match why {
            Some(Unmovable::Tls12) => &mut self.tls12,
            Some(Unmovable::Tls13) => &mut self.tls13,
            Some(Unmovable::Http2) => &mut self.h2,
            Some(Unmovable::Http) => &mut self.http,
            Some(Unmovable::Shared) => &mut self.shared,
            Some(Unmovable::Worker) => &mut self.worker,
            Some(Unmovable::Ends | Unmovable::Descriptors) | None => &mut self.other,
        };
        *number += 1;
    }
}

/// For how long pipes stood still, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, JsonSchema)]
pub struct Pauses {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Pauses {
    /// The summary of pauses in microseconds.
    #[must_use]
    pub fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            let index = (micros.len() * percent).div_ceil(100).saturating_sub(1);
            micros.get(index).map_or(0.0, |&micros| micros as f64 / 1000.0)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// What an upgrade has come to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, JsonSchema)]
pub struct Report {
    /// How far it is.
    pub phase: Step,
    /// Pipes that went over.
    pub moved: u64,
    /// Pipes that are left, or were at the end.
    pub left: u64,
    /// Those that cannot go over.
    pub not_movable: NotMovable,
    /// For how long pipes stood still.
    pub pause_ms: Pauses,
    /// The number of the other process, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The right to carry out an upgrade, until it is dropped: there is one of them.
#[derive(Debug)]
pub struct Turn(Arc<watch::Sender<bool>>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// A wish for an upgrade.
#[derive(Debug)]
pub struct Ask {
    /// The program that takes over; the one that is configured if none is named.
    pub binary: Option<PathBuf>,
    /// Where it is said what came of it.
    pub answer: oneshot::Sender<Result<Report, String>>,
    /// The right to it.
    pub turn: Turn,
}

/// Why an upgrade cannot be asked for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotNow {
    /// There is one.
    #[error("an upgrade is under way already")]
    UnderWay,
    /// The process is starting, or on its way down.
    #[error("the process is starting or stopping")]
    NotServing,
}

/// The upgrade of one process.
#[derive(Debug)]
pub struct Upgrade {
    gate: watch::Sender<Gate>,
    under_way: Arc<watch::Sender<bool>>,
    /// The process is told to stop.
    abandoned: watch::Sender<bool>,
    report: Mutex<Report>,
    asks: Mutex<Option<mpsc::Sender<Ask>>>,
}

impl Default for Upgrade {
    fn default() -> Self {
        let (report, asks) = (Mutex::default(), Mutex::default());
        let under_way = Arc::new(watch::Sender::new(false));
        let abandoned = watch::Sender::new(false);
        Self { gate: watch::Sender::new(Gate::Open), under_way, abandoned, report, asks }
    }
}

impl Upgrade {
    /// Asks for one, with another program than the configured one if one is named; the answer comes when it is over.
    ///
    /// # Errors
    /// There can be none now.
    pub fn ask(&self, binary: Option<PathBuf>) -> Result<oneshot::Receiver<Result<Report, String>>, NotNow> {
        let asks = lock(&self.asks).clone().ok_or(NotNow::NotServing)?;
        let turn = self.begin().ok_or(NotNow::UnderWay)?;
        let (answer, answered) = oneshot::channel();
        asks.try_send(Ask { binary, answer, turn }).map_err(|_| NotNow::NotServing)?;
        Ok(answered)
    }

    /// The right to carry one out, unless one is carried out.
    #[must_use]
    pub fn begin(&self) -> Option<Turn> {
        let is_free = self.under_way.send_if_modified(|under_way| !std::mem::replace(under_way, true));
        is_free.then(|| Turn(self.under_way.clone()))
    }

    /// Gives up one that has not touched anything yet: the process is told to stop.
    pub fn abandon(&self) {
        self.abandoned.send_replace(true);
    }

    /// Waits until the process is told to stop.
    pub async fn abandoned(&self) {
        // The sender lives as long as `self`.
        drop(self.abandoned.subscribe().wait_for(|&abandoned| abandoned).await);
    }

    /// Waits until none is under way.
    pub async fn idle(&self) {
        drop(self.under_way.subscribe().wait_for(|&under_way| !under_way).await);
    }

    /// The wishes that are asked for from now on.
    pub fn asks(&self) -> mpsc::Receiver<Ask> {
        let (sender, asks) = mpsc::channel(1);
        *lock(&self.asks) = Some(sender);
        asks
    }

    /// What the last one has come to so far.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Notes what it has come to.
    pub fn set_report(&self, report: Report) {
        *lock(&self.report) = report;
    }

    /// Lets further connections wait.
    pub fn hold(&self) {
        self.gate.send_replace(Gate::Held);
    }

    /// Lets no further pipe in either.
    pub fn shut(&self) {
        self.gate.send_replace(Gate::Shut);
    }

    /// Another process has taken over.
    pub fn leave(&self) {
        self.gate.send_replace(Gate::Gone);
    }

    /// Lets all in again.
    pub fn let_in(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// Whether a pipe may be opened.
    #[must_use]
    pub fn takes_pipes(&self) -> bool {
        match *self.gate.borrow() {
            Gate::Open | Gate::Held => true,
            Gate::Shut | Gate::Gone => false,
        }
    }

    /// Who is let in, and its changes.
    #[must_use]
    pub fn watch(&self) -> GateWatch {
        GateWatch(self.gate.subscribe())
    }
}

/// Hears whether connections are accepted.
#[derive(Debug)]
pub struct GateWatch(watch::Receiver<Gate>);

impl GateWatch {
    /// Waits until no further connection of a client is accepted.
    pub async fn held(&mut self) {
        self.until(|gate| gate != Gate::Open).await;
    }

    /// Waits until no further connection is accepted.
    pub async fn shut(&mut self) {
        self.until(|gate| matches!(gate, Gate::Shut | Gate::Gone)).await;
    }

    /// Waits until another process has taken over.
    pub async fn gone(&mut self) {
        self.until(|gate| gate == Gate::Gone).await;
    }

    /// Waits until all connections are accepted.
    pub async fn open(&mut self) {
        self.until(|gate| gate == Gate::Open).await;
    }

    /// Whether another process has taken over.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self.0.borrow() == Gate::Gone
    }

    async fn until(&mut self, is_so: impl Fn(Gate) -> bool) {
        if self.0.wait_for(|&gate| is_so(gate)).await.is_err() {
            // The process is gone.
            std::future::pending::<()>().await;
        }
    }
}

/// A lock whose holder panicked still guards what is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_summed_up_by_their_ranks() {
        assert_eq!(Pauses::of(Vec::new()), Pauses::default());
        assert_eq!(Pauses::of(vec![5000]), Pauses { p50: 5.0, p99: 5.0, max: 5.0 });
        let hundred = (1..=100).rev().map(|n| n * 1000).collect();
        assert_eq!(Pauses::of(hundred), Pauses { p50: 50.0, p99: 99.0, max: 100.0 });
    }

    #[test]
    fn a_second_upgrade_is_refused_while_one_is_asked_for() {
        let upgrade = Upgrade::default();
        let ask = || upgrade.ask(None).map(drop);
        assert_eq!(ask(), Err(NotNow::NotServing), "nothing carries one out");
        let mut asks = upgrade.asks();
        assert_eq!((ask(), ask()), (Ok(()), Err(NotNow::UnderWay)));
        let carried_out = asks.try_recv().unwrap();
        assert_eq!(ask(), Err(NotNow::UnderWay));
        drop(carried_out);
        assert_eq!(ask(), Ok(()));
        drop(asks);
        assert_eq!(ask(), Err(NotNow::NotServing));
    }

    #[tokio::test]
    async fn who_waits_for_the_gate_hears_of_each_change() {
        let upgrade = Upgrade::default();
        let mut gate = upgrade.watch();
        gate.open().await;
        upgrade.hold();
        gate.held().await;
        assert!(upgrade.takes_pipes());
        upgrade.shut();
        gate.shut().await;
        assert!(!upgrade.takes_pipes());
        upgrade.let_in();
        gate.open().await;
        assert!(!gate.is_gone());
        upgrade.leave();
        gate.gone().await;
        assert!(gate.is_gone() && !upgrade.takes_pipes());
    }
}
