//! Evening out a pool: pipes above a backend's share move to others, a few at a time.
//!
//! Which pipes have to go is decided once, when it is asked for; a pipe that has left its backend meanwhile is left
//! alone, and so is one whose conversation ends with its worker. Pipes of one route key move together or not at all. Each move is the planned one, so nothing is lost by it.
//! Invariant: one rebalancing of a pool at a time, and none outlives the process's control part.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdline_core::ids::BackendKey;
use tokio::task::JoinHandle;

use crate::backends::{Leave, LeaveCause, LeaveHow};
use crate::pipes::{Command, PipeEntry};

/// Pipes of one pool that are told to move in a second.
pub const MOVES_PER_SECOND: u32 = 100;

const PAUSE: Duration = Duration::from_millis(1000 / MOVES_PER_SECOND as u64);

/// The rebalancings under way, by pool.
#[derive(Debug, Default)]
pub struct Rebalances(Mutex<HashMap<Arc<str>, Moving>>);

/// Ends with its owner: orders that were not given yet are not given.
#[derive(Debug)]
struct Moving(JoinHandle<()>);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A rebalancing of the pool is under way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay;

impl Rebalances {
    /// Begins to move `surplus` pipes off each backend; how many will be told to.
    ///
    /// # Errors
    /// [`UnderWay`] until an earlier one of this pool has told its last pipe.
    pub fn start(
        &self,
        pool: &Arc<str>,
        surplus: &[(BackendKey, u32)],
        pipes: &[Arc<PipeEntry>],
    ) -> Result<usize, UnderWay> {
        let mut moving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moving.retain(|_, task| !task.0.is_finished());
        if moving.contains_key(pool) {
            return Err(UnderWay);
        }
        let moves: Vec<_> = surplus
            .iter()
            .flat_map(|&(key, count)| movers(pipes, key, count).into_iter().map(move |p| (key, p)))
            .collect();
        let count = moves.len();
        if count > 0 {
            moving.insert(pool.clone(), Moving(tokio::spawn(give_orders(moves))));
        }
        Ok(count)
    }
}

async fn give_orders(moves: Vec<(BackendKey, Arc<PipeEntry>)>) {
    let mut ticks = tokio::time::interval(PAUSE);
    let leave = Leave { how: LeaveHow::Reattach, cause: LeaveCause::Rebalance };
    for (backend, pipe) in moves {
        ticks.tick().await;
        // A full mailbox belongs to a pipe that has other things to do.
        pipe.order(Command::Leave(backend, leave));
    }
}

/// At most `count` of the pipes on `backend`: single ones, and whole keys that fit.
fn movers(pipes: &[Arc<PipeEntry>], backend: BackendKey, count: u32) -> Vec<Arc<PipeEntry>> {
    let mut keyed: BTreeMap<&str, Vec<&Arc<PipeEntry>>> = BTreeMap::new();
    let mut movers = Vec::new();
    let count = count as usize;
    let placed = |pipe: &&Arc<PipeEntry>| {
        pipe.has_place() && pipe.moves() && pipe.backend().is_some_and(|(key, _)| key == backend)
    };
    for pipe in pipes.iter().filter(placed) {
        match &pipe.key {
            Some(key) => keyed.entry(key).or_default().push(pipe),
            None if movers.len() < count => movers.push(pipe.clone()),
            None => {}
        }
    }
    for group in keyed.into_values() {
        if movers.len() + group.len() <= count {
            movers.extend(group.into_iter().cloned());
        }
    }
    movers
}
