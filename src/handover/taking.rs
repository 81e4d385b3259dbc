//! The side of the new process: it comes to the old one, takes what that gives, and serves.
//!
//! Invariants: nothing is accepted before the old process has said that it is done, or is dead; a pipe is run only after
//! `Commit`, or after the death of the old process, of which its pidfd tells: an end of the conversation alone means that
//! the old one goes on.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::batch::{self, Looked};
use super::estate::Estate;
use super::sections;
use super::state::ProcessState;
use super::wire::{Wire, WireError};
use super::words::{Hello, TalkError, Word, unexpected};
use crate::activation::Inherited;
use crate::clock::Clock;
use crate::events::Fact;
use crate::metrics::{UpgradePipe, UpgradeResult};
use crate::pipe::Thawed;
use crate::process::Process;
use crate::resume::KeyRing;
use crate::upgrade::{Pauses, Report, Step};

/// How long the old process may take for what it says first.
const MEET_PATIENCE: Duration = Duration::from_secs(30);

/// How long it may be silent between two batches.
const BATCH_PATIENCE: Duration = Duration::from_secs(120);

/// Seconds that the system takes at most to tell of a death behind the end of a conversation.
const DEATH_PATIENCE_S: i64 = 1;

/// Descriptors that the new process needs beside those that it is given.
const DESCRIPTORS_OWN: u64 = 64;

/// Why a process cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The old process cannot be reached.
    #[error(
        "the process to take over from cannot be reached at {0}: {1}; set upgrade.socket there, and run as its user"
    )]
    Unreachable(String, io::Error),
    /// The conversation broke.
    #[error("cannot take over: {0}")]
    Talk(#[from] TalkError),
    /// What came makes no sense, or has no place here.
    #[error("cannot take over: {0}")]
    Unfit(String),
    /// The system's.
    #[error("cannot take over: {0}")]
    Io(#[from] io::Error),
}

impl From<WireError> for TakeError {
    fn from(error: WireError) -> Self {
        Self::Talk(error.into())
    }
}

/// The way to the old process.
#[derive(Debug)]
pub struct Predecessor(Wire);

impl Predecessor {
    /// The one that has started this process, and given it one end of a conversation as its stdin.
    ///
    /// # Errors
    /// Stdin is no such thing.
    pub fn at_stdin() -> Result<Self, TakeError> {
        let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).map_err(io::Error::from)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
        Ok(Self(Wire::new(socket)?))
    }

    /// The one that listens at `path` (`upgrade.socket`).
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn at(path: &Path) -> Result<Self, TakeError> {
        Wire::connect(path).map(Self).map_err(|error| TakeError::Unreachable(path.display().to_string(), error))
    }

    /// Hears what the old process has to say before its pipes come.
    ///
    /// # Errors
    /// Why this process cannot take over.
    pub async fn meet(self, config_hash: String) -> Result<Heritage, TakeError> {
        let Self(wire) = self;
        let own = Hello::own(config_hash);
        wire.say(&Word::Hello(own.clone()), &[]).await?;
        let (word, death) = wire.hear(MEET_PATIENCE).await?;
        let Word::Hello(other) = word else { return Err(unexpected(&word).into()) };
        if let Err(reason) = other.fits(&own) {
            return Err(TakeError::Unfit(refuse(&wire, reason).await));
        }
        let death = death.into_iter().next().ok_or_else(|| TakeError::Unfit("there is no pidfd".to_owned()))?;
        let (word, descriptors) = wire.hear(MEET_PATIENCE).await?;
        let Word::Estate { descriptors: names } = word else { return Err(unexpected(&word).into()) };
        let inherited = Estate::of(names, descriptors).map_err(TakeError::Unfit)?.inherit();
        let (word, memory) = wire.hear(MEET_PATIENCE).await?;
        let Word::State { bytes } = word else { return Err(unexpected(&word).into()) };
        let state = read_state(memory, bytes)?;
        if let Err(reason) = has_room(state.descriptors) {
            return Err(TakeError::Unfit(refuse(&wire, reason).await));
        }
        let (inherited, state) = (Some(inherited), Some(state));
        Ok(Heritage { wire, death, pid: other.pid, inherited, state, draining: false, tally: Tally::default() })
    }
}

/// What the old process leaves.
#[derive(Debug)]
pub struct Heritage {
    wire: Wire,
    /// Its pidfd, which tells of its death.
    death: OwnedFd,
    pid: u32,
    inherited: Option<Inherited>,
    state: Option<ProcessState>,
    /// Whether an operator wants no new pipes.
    draining: bool,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    moved: u64,
    refused: u64,
    pauses: Vec<u64>,
}

impl Heritage {
    /// Its listeners, once.
    #[must_use]
    pub fn inherited(&mut self) -> Inherited {
        self.inherited.take().unwrap_or_default()
    }

    /// A clock that goes on from that of the old process.
    ///
    /// # Errors
    /// This machine has not run for as long as the old process.
    pub fn clock(&self) -> Result<Clock, TakeError> {
        let unfit = || TakeError::Unfit("the clock of this machine has not run for so long".to_owned());
        self.state.as_ref().and_then(ProcessState::clock).ok_or_else(unfit)
    }

    /// The keys of the old process's resume tokens, if no file has them.
    #[must_use]
    pub fn resume_keys(&self) -> Option<KeyRing> {
        self.state.as_ref()?.resume_keys()
    }

    /// Has `process` know what the old one knows.
    pub fn take_in(&mut self, process: &Process) {
        if let Some(state) = self.state.take() {
            self.draining = state.draining;
            state.take_in(process);
        }
    }

    /// Says that this process could serve, and takes the pipes that come then; they run on `threads`.
    ///
    /// # Errors
    /// The old process does not go through with it: it serves on.
    pub async fn take_pipes(&mut self, process: &Arc<Process>, threads: &[Handle]) -> Result<(), TakeError> {
        self.wire.say(&Word::Ready {}, &[]).await?;
        loop {
            let (word, descriptors) = match self.wire.hear(BATCH_PATIENCE).await {
                Ok(heard) => heard,
                Err(error) => return self.unless_dead(error.into()).await,
            };
            match word {
                Word::Batch { number, pipes, bytes } => {
                    if self.take_batch((number, pipes, bytes), descriptors, process, threads).await? == Old::Dead {
                        return Ok(());
                    }
                }
                Word::Done { bytes } => {
                    self.state = Some(read_state(descriptors, bytes)?);
                    self.take_in(process);
                    return Ok(());
                }
                word => return Err(unexpected(&word).into()),
            }
        }
    }

    /// Says that connections are accepted, and notes what it came to.
    pub async fn serves(self, process: &Process) {
        let Tally { moved, refused, pauses } = self.tally;
        if self.draining {
            process.phase.drain();
        }
        process.metrics.upgrade(UpgradeResult::Taken);
        let report = Report {
            phase: Step::Taken,
            moved,
            left: refused,
            pause_ms: Pauses::of(pauses),
            pid: Some(self.pid),
            ..Report::default()
        };
        tracing::info!(moved, refused, pid = self.pid, "process.taken_over");
        process.events.push(Fact::TakenOver { pid: self.pid, moved, refused });
        process.upgrade.set_report(report);
        // The old process may be dead.
        let _ = self.wire.say(&Word::Serving {}, &[]).await;
    }

    async fn take_batch(
        &mut self,
        (number, pipes, bytes): (u64, usize, usize),
        descriptors: Vec<OwnedFd>,
        process: &Arc<Process>,
        threads: &[Handle],
    ) -> Result<Old, TakeError> {
        let mut descriptors = descriptors.into_iter();
        let memory = descriptors.next().ok_or_else(|| TakeError::Unfit("a batch without memory".to_owned()))?;
        let all = sections::read(memory, bytes).map_err(|error| error.to_string());
        let looked = all.and_then(|all| batch::look(&all, pipes, descriptors.collect(), process));
        let Looked { thawed, refused } = match looked {
            Ok(looked) => looked,
            Err(reason) => {
                return Err(TakeError::Unfit(refuse(&self.wire, format!("a batch of pipes: {reason}")).await));
            }
        };
        for (pipe, why) in &refused {
            tracing::warn!(pipe, why, "a pipe of the old process cannot go on here");
        }
        self.tally.refused += refused.len() as u64;
        process.metrics.upgrade_pipes(UpgradePipe::Refused, refused.len() as u64);
        self.wire.say(&Word::Taken { number, refused }, &[]).await?;
        let old = match self.wire.hear(BATCH_PATIENCE).await {
            Ok((Word::Commit { number: same }, _)) if same == number => Old::Lives,
            Ok((word, _)) => return Err(unexpected(&word).into()),
            Err(error) => {
                self.unless_dead(error.into()).await?;
                Old::Dead
            }
        };
        let pauses = start(thawed, process, threads).await;
        self.tally.moved += pauses.len() as u64;
        self.tally.pauses.extend(&pauses);
        if old == Old::Lives {
            // If it dies now, the next word does not come.
            let _ = self.wire.say(&Word::Started { number, pauses }, &[]).await;
        }
        Ok(old)
    }

    /// What it means that nothing more came: all that is here is this process's if the old one is dead.
    async fn unless_dead(&self, error: TakeError) -> Result<(), TakeError> {
        let death = self.death.try_clone()?;
        if tokio::task::spawn_blocking(move || has_died(&death)).await.unwrap_or(false) {
            tracing::warn!(pid = self.pid, "the old process died amid the hand-over; this one has what it had given");
            return Ok(());
        }
        Err(error)
    }
}

/// What became of the old process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Old {
    Lives,
    Dead,
}

/// Whether the process of this pidfd is dead. The end of a conversation is seen a moment before the death that it is a part of.
fn has_died(process: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: DEATH_PATIENCE_S, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// Starts pipes, each on one of `threads`; for how long each stood still, in microseconds.
async fn start(thawed: Vec<Thawed>, process: &Arc<Process>, threads: &[Handle]) -> Vec<u64> {
    let (tell, mut told) = mpsc::channel(thawed.len().max(1));
    for (pipe, thread) in thawed.into_iter().zip(threads.iter().cycle()) {
        let (process, tell) = (process.clone(), tell.clone());
        thread.spawn(async move {
            let frozen_at = pipe.frozen_at();
            let driver = pipe.begin(&process);
            let pause = process.clock.now().since(frozen_at);
            process.metrics.upgrade_pause(pause);
            // There is room for each.
            let _ = tell.try_send(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
            drop(tell);
            driver.await;
        });
    }
    drop(tell);
    let mut pauses = Vec::new();
    while let Some(pause) = told.recv().await {
        pauses.push(pause);
    }
    process.metrics.upgrade_pipes(UpgradePipe::Taken, pauses.len() as u64);
    pauses
}

fn read_state(descriptors: Vec<OwnedFd>, bytes: usize) -> Result<ProcessState, TakeError> {
    let memory = descriptors.into_iter().next().ok_or_else(|| TakeError::Unfit("a state without memory".to_owned()))?;
    let state = ProcessState::from_bytes(&sections::read(memory, bytes)?);
    state.map_err(|why| TakeError::Unfit(format!("what the old process knows makes no sense here: {why}")))
}

/// Whether so many descriptors can come.
fn has_room(descriptors: usize) -> Result<(), String> {
    // It is raised as far as it may be.
    let Some(limit) = getrlimit(Resource::Nofile).maximum else { return Ok(()) };
    let needed = descriptors as u64 + DESCRIPTORS_OWN;
    if needed <= limit {
        return Ok(());
    }
    Err(format!("{needed} descriptors are needed and {limit} may be open: raise the limit (LimitNOFILE, ulimit -n)"))
}

/// Tells the old process why this one cannot take over.
async fn refuse(wire: &Wire, reason: String) -> String {
    // It may have gone already.
    let _ = wire.say(&Word::Refused { reason: reason.clone() }, &[]).await;
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_descriptors_than_may_be_open_are_refused_before_they_come() {
        assert_eq!(has_room(0), Ok(()));
        let Some(limit) = getrlimit(Resource::Nofile).maximum else { return };
        let reason = has_room(usize::try_from(limit).unwrap_or(usize::MAX)).unwrap_err();
        assert!(reason.contains("descriptors are needed"), "{reason}");
    }
}
