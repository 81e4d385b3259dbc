//! The side of the old process: it starts the new one, or is come to by one, and gives it all it has.
//!
//! ```text
//!  Idle ──▶ Starting ──▶ Moving ──▶ Leaving: the new process serves
//!   ▲           │           │
//!   └───────────┴───────────┘ refused, or failed: this process serves on
//! ```
//! Invariants: until the new process could serve, nothing of this one is touched; a pipe is given up only with the word
//! `Commit`, and goes on here if that could not be said; while anything goes wrong, this process serves on with what it has.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use holdline_core::ids::PipeId;
use holdline_core::memory::Pressure;
use rustix::process::{PidfdFlags, getpid, getuid, pidfd_open};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::batch::{self, PIPES_MAX};
use super::estate::Estate;
use super::state::ProcessState;
use super::wire::{Listener, Wire};
use super::words::{Hello, TalkError, Word, unexpected};
use crate::events::Fact;
use crate::metrics::{UpgradePipe, UpgradeResult};
use crate::notify::main_process;
use crate::phase::Phase;
use crate::pipes::PipeEntry;
use crate::pipes::passport::{Answer, Freeze, Frozen, Unmovable, Verdict};
use crate::process::Process;
use crate::upgrade::{Ask, NotMovable, Pauses, Report, Step};

/// How long pipes may take to stand still. A thread that is busy for longer keeps its pipes.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// How long the new process may take to look at a batch, and to start it.
const BATCH_PATIENCE: Duration = Duration::from_secs(10);

/// How long handshakes that are under way are waited for at the end. What is opened later is closed as at a shutdown.
const OPENING_PATIENCE: Duration = Duration::from_secs(1);

/// How long a new process that has failed may take to end by itself, before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// After a failed accept (out of descriptors), so that it doesn't fail a million times a second.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The permission bits of those who are not the owner, to write.
const OTHERS_WRITE: u32 = 0o022;

/// How the new process is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program of this process, where it was when this started.
    pub own: PathBuf,
    /// The arguments, but for the one that says that it takes over.
    pub arguments: Vec<OsString>,
}

/// What an upgrade comes to nothing for.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    /// Before anything was touched.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke.
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// The system's.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// There are no descriptors to copy sockets with.
    #[error("this process is out of descriptors: raise its limit (LimitNOFILE, ulimit -n)")]
    Descriptors,
}

impl From<serde_json::Error> for GiveError {
    fn from(error: serde_json::Error) -> Self {
        Self::Io(error.into())
    }
}

/// Gives all that a process has to another one.
#[derive(Debug)]
pub struct Giver {
    /// The process.
    pub process: Arc<Process>,
    /// Its listeners.
    pub estate: Estate,
    /// How the new one is started.
    pub program: Program,
    /// A digest of its configuration.
    pub config_hash: String,
}

/// What has come of the pipes so far.
#[derive(Default)]
struct Tally {
    moved: HashSet<PipeId>,
    left: HashSet<PipeId>,
    not_movable: NotMovable,
    pauses: Vec<u64>,
    batches: u64,
}

impl Tally {
    fn leave(&mut self, pipe: PipeId, why: Option<Unmovable>) {
        if self.left.insert(pipe) {
            self.not_movable.count(why);
        }
    }

    fn report(&self, phase: Step, left: usize) -> Report {
        Report {
            phase,
            moved: self.moved.len() as u64,
            left: left as u64,
            not_movable: self.not_movable,
            pause_ms: Pauses::of(self.pauses.clone()),
            pid: None,
            reason: None,
        }
    }
}

impl Giver {
    /// Carries out what is asked for, and what other processes ask for at `listener`, until one has taken over, or the
    /// process stops: its listeners are closed only once no second handle on them is here.
    pub async fn run(self, mut asks: mpsc::Receiver<Ask>, listener: Option<Listener>, gone: oneshot::Sender<()>) {
        let mut phase = self.process.phase.watch();
        loop {
            let stopping = async { drop(phase.wait_for(|&phase| phase == Phase::Stopping).await) };
            let over = tokio::select! {
                () = stopping => return,
                ask = asks.recv() => match ask {
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                comer = accept(listener.as_ref()) => self.come_to(comer).await,
            };
            if over {
                // The one that waits for it may be on its way down already.
                let _ = gone.send(());
                return;
            }
        }
    }

    /// Carries out a wish; whether the new process serves.
    async fn asked(&self, ask: Ask) -> bool {
        let Ask { binary, answer, turn } = ask;
        let outcome = self.upgrade(binary).await;
        let over = outcome.is_ok();
        // The one that asked may have given up.
        let _ = answer.send(outcome);
        drop(turn);
        over
    }

    /// Gives all to a process that has come; whether it serves.
    async fn come_to(&self, comer: std::io::Result<Wire>) -> bool {
        let wire = match comer {
            Ok(wire) => wire,
            Err(error) => {
                tracing::warn!(%error, "a process that wants to take over could not be met");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return false;
            }
        };
        let Some(_turn) = self.process.upgrade.begin() else {
            return self.turn_away(&wire, "an upgrade is under way already").await;
        };
        let own = getuid().as_raw();
        let peer = wire.peer().ok().filter(|peer| peer.uid() == own);
        let Some(peer) = peer else {
            let reason = format!("only a process of the user {own} may take over; run it as that user");
            return self.turn_away(&wire, &reason).await;
        };
        match self.give(&wire).await {
            Ok(report) => {
                self.given(&report);
                // One of another namespace has no number here.
                if let Some(pid) = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0) {
                    main_process(pid);
                }
                true
            }
            Err(error) => {
                self.failed(&error, error.to_string());
                self.turn_away(&wire, &error.to_string()).await
            }
        }
    }

    async fn turn_away(&self, wire: &Wire, reason: &str) -> bool {
        tracing::warn!(reason, "a process that wants to take over was turned away");
        // It may have gone already.
        let _ = wire.say(&Word::Refused { reason: reason.to_owned() }, &[]).await;
        false
    }

    async fn upgrade(&self, binary: Option<PathBuf>) -> Result<Report, String> {
        let configured = self.process.config.load().upgrade.binary.clone();
        let is_named = binary.is_some();
        let binary = binary.or(configured).unwrap_or_else(|| self.program.own.clone());
        let started = if is_named { judge(&binary) } else { Ok(()) }.and_then(|()| self.start(&binary));
        let (wire, mut child) = match started {
            Ok(started) => started,
            Err(reason) => {
                self.failed(&GiveError::Refused(String::new()), reason.clone());
                return Err(reason);
            }
        };
        match self.give(&wire).await {
            Ok(report) => {
                let report = Report { pid: child.id(), ..report };
                self.given(&report);
                if let Some(pid) = child.id() {
                    main_process(pid);
                }
                Ok(report)
            }
            Err(error) => {
                // It ends with the conversation.
                drop(wire);
                let reason = match (&error, end(&mut child).await) {
                    (GiveError::Talk(TalkError::Wire(_)), Some(status)) if !status.success() => {
                        format!("{} ended with {status}, see the log: {error}", binary.display())
                    }
                    _ => error.to_string(),
                };
                self.failed(&error, reason.clone());
                Err(reason)
            }
        }
    }

    fn start(&self, binary: &Path) -> Result<(Wire, Child), String> {
        let (wire, childs) = Wire::pair().map_err(|error| format!("no socket for the new process: {error}"))?;
        let mut command = Command::new(binary);
        command.args(&self.program.arguments).arg("--take-over-stdin").stdin(Stdio::from(childs));
        // It is another process than the one that the service manager has started.
        command
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES");
        let child = command.spawn().map_err(|error| format!("{} cannot be started: {error}", binary.display()))?;
        Ok((wire, child))
    }

    /// Notes that the new process serves.
    fn given(&self, report: &Report) {
        self.process.metrics.upgrade(UpgradeResult::Done);
        let Report { moved, left, pid, .. } = *report;
        tracing::info!(moved, left, pid, "process.upgraded");
        self.process.events.push(Fact::Upgraded { pid, moved, left });
        self.process.metrics.upgrade_pipes(UpgradePipe::Left, report.left);
        self.process.upgrade.set_report(report.clone());
        self.process.upgrade.leave();
    }

    /// Notes that it came to nothing.
    fn failed(&self, error: &GiveError, reason: String) {
        let result = match error {
            GiveError::Refused(_) | GiveError::Talk(TalkError::Refused(_)) => UpgradeResult::Refused,
            GiveError::Talk(_) | GiveError::Io(_) | GiveError::Descriptors => UpgradeResult::Failed,
        };
        self.process.metrics.upgrade(result);
        tracing::warn!(reason, result = result.as_str(), "process.upgrade_failed");
        self.process.events.push(Fact::UpgradeFailed { reason: reason.clone() });
        let report = Report { phase: Step::Failed, reason: Some(reason), ..self.process.upgrade.report() };
        self.process.upgrade.set_report(report);
    }

    /// Gives everything to the process at the other end of `wire`.
    async fn give(&self, wire: &Wire) -> Result<Report, GiveError> {
        self.may_begin()?;
        self.tell(&Tally::default(), Step::Starting);
        tracing::info!(pipes = self.process.pipes.len(), "process.upgrade_started");
        let upgrade = &self.process.upgrade;
        let pid = tokio::select! {
            met = self.meet(wire) => met?,
            () = upgrade.abandoned() => return Err(GiveError::Refused("the process is told to stop".to_owned())),
        };
        upgrade.hold();
        let mut tally = Tally::default();
        let outcome = self.move_all(wire, &mut tally).await;
        if outcome.is_err() {
            upgrade.let_in();
            self.tell(&tally, Step::Failed);
        }
        outcome?;
        Ok(Report { pid: Some(pid), ..tally.report(Step::Leaving, self.left(&tally)) })
    }

    fn tell(&self, tally: &Tally, step: Step) {
        self.process.upgrade.set_report(tally.report(step, self.left(tally)));
    }

    /// Pipes that are here still; those that have gone may not have ended yet.
    fn left(&self, tally: &Tally) -> usize {
        self.process.pipes.list().iter().filter(|pipe| !tally.moved.contains(&pipe.id)).count()
    }

    fn may_begin(&self) -> Result<(), GiveError> {
        let refused = |reason: &str| Err(GiveError::Refused(reason.to_owned()));
        if !matches!(self.process.phase.get(), Phase::Serving | Phase::Draining) {
            return refused("the process is starting or stopping");
        }
        if self.process.memory.pressure() > Pressure::Low {
            return refused("memory is short, and two processes need more of it; see memory.process_max");
        }
        if !self.process.config.load().workers.is_empty() {
            return refused(
                "the workers that this process runs ([[workers]]) cannot go to another one yet; restart instead",
            );
        }
        Ok(())
    }

    /// Meets the new process, and gives it what it needs to be able to serve; its number, as it knows that itself.
    async fn meet(&self, wire: &Wire) -> Result<u32, GiveError> {
        let deadline = Instant::now() + self.process.config.load().upgrade.ready_timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let own = Hello::own(self.config_hash.clone());
        // By which the new process hears of the death of this one, whatever namespace it lives in.
        let death = pidfd_open(getpid(), PidfdFlags::empty()).map_err(std::io::Error::from)?;
        wire.say(&Word::Hello(own.clone()), &[death.as_fd()]).await?;
        let (word, _) = wire.hear(left()).await?;
        let Word::Hello(other) = word else { return Err(unexpected(&word).into()) };
        own.fits(&other).map_err(GiveError::Refused)?;
        if other.config_hash != own.config_hash {
            tracing::info!("the new process has another configuration than this one");
        }
        wire.say(&Word::Estate { descriptors: self.estate.names() }, &self.estate.descriptors()).await?;
        self.say_state(wire, |bytes| Word::State { bytes }).await?;
        match wire.hear(left()).await? {
            (Word::Ready {}, _) => Ok(other.pid),
            (word, _) => Err(unexpected(&word).into()),
        }
    }

    async fn say_state(&self, wire: &Wire, word: impl FnOnce(usize) -> Word) -> Result<(), GiveError> {
        let sections = ProcessState::of(&self.process).to_sections()?;
        let bytes = sections.len();
        let memory = sections.into_memory()?;
        Ok(wire.say_with(&word(bytes), &memory, &[]).await?)
    }

    /// Gives all pipes that can go, until the new process serves.
    async fn move_all(&self, wire: &Wire, tally: &mut Tally) -> Result<(), GiveError> {
        self.rounds(wire, tally).await?;
        // Those whose handshakes were under way.
        self.process.upgrade.shut();
        // What takes longer is closed as at a shutdown.
        let _ = timeout(OPENING_PATIENCE, self.process.pipes.expected()).await;
        self.rounds(wire, tally).await?;
        self.say_state(wire, |bytes| Word::Done { bytes }).await?;
        let patience = self.process.config.load().upgrade.ready_timeout;
        match wire.hear(patience).await? {
            (Word::Serving {}, _) => Ok(()),
            (word, _) => Err(unexpected(&word).into()),
        }
    }

    /// Gives pipes until there is none that was not asked.
    async fn rounds(&self, wire: &Wire, tally: &mut Tally) -> Result<(), GiveError> {
        let batch_max = (self.process.config.load().upgrade.batch as usize).min(PIPES_MAX);
        loop {
            let is_new = |pipe: &Arc<PipeEntry>| !tally.moved.contains(&pipe.id) && !tally.left.contains(&pipe.id);
            let pipes: Vec<_> = self.process.pipes.list().into_iter().filter(is_new).collect();
            if pipes.is_empty() {
                return Ok(());
            }
            for pipes in pipes.chunks(batch_max) {
                self.move_some(wire, pipes, tally).await?;
                self.tell(tally, Step::Moving);
            }
        }
    }

    async fn move_some(&self, wire: &Wire, pipes: &[Arc<PipeEntry>], tally: &mut Tally) -> Result<(), GiveError> {
        let frozen = self.freeze(pipes, tally).await?;
        if frozen.is_empty() {
            return Ok(());
        }
        tally.batches += 1;
        let number = tally.batches;
        let refused = offer(wire, number, &frozen).await?;
        wire.say(&Word::Commit { number }, &[]).await?;
        // From here on they are the new process's.
        for pipe in frozen {
            let id = pipe.pipe;
            let verdict = if refused.contains(&id) { Verdict::Stays } else { Verdict::Gone };
            if verdict == Verdict::Gone {
                tally.moved.insert(id);
                self.process.metrics.upgrade_pipes(UpgradePipe::Moved, 1);
            } else {
                tally.leave(id, None);
            }
            // A pipe whose thread is gone needs no verdict.
            let _ = pipe.verdict.send(verdict);
        }
        match wire.hear(BATCH_PATIENCE).await? {
            (Word::Started { number: same, pauses }, _) if same == number => tally.pauses.extend(pauses),
            (word, _) => return Err(unexpected(&word).into()),
        }
        Ok(())
    }

    /// Has `pipes` stand still. Those that cannot go, and those that do not in time, stay.
    async fn freeze(&self, pipes: &[Arc<PipeEntry>], tally: &mut Tally) -> Result<Vec<Box<Frozen>>, GiveError> {
        let (answer, mut answers) = mpsc::channel::<Answer>(pipes.len());
        for pipe in pipes {
            pipe.order_to_freeze(Freeze { answer: answer.clone() });
        }
        drop(answer);
        let (mut frozen, deadline) = (Vec::with_capacity(pipes.len()), Instant::now() + FREEZE_PATIENCE);
        let mut asked: HashSet<_> = pipes.iter().map(|pipe| pipe.id).collect();
        loop {
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some(Ok(pipe))) => {
                    asked.remove(&pipe.pipe);
                    frozen.push(pipe);
                }
                Ok(Some(Err((_, Unmovable::Descriptors)))) => return Err(GiveError::Descriptors),
                Ok(Some(Err((pipe, why)))) => {
                    asked.remove(&pipe);
                    tally.leave(pipe, Some(why));
                }
                // The others have ended meanwhile.
                Ok(None) => return Ok(frozen),
                Err(_) => break,
            }
        }
        asked.into_iter().for_each(|pipe| tally.leave(pipe, None));
        Ok(frozen)
    }
}

/// Offers a batch; the pipes of it that the new process refuses.
async fn offer(wire: &Wire, number: u64, frozen: &[Box<Frozen>]) -> Result<HashSet<PipeId>, GiveError> {
    let sections = batch::written(frozen)?;
    let word = Word::Batch { number, pipes: frozen.len(), bytes: sections.len() };
    wire.say_with(&word, &sections.into_memory()?, &batch::sockets(frozen)).await?;
    match wire.hear(BATCH_PATIENCE).await? {
        (Word::Taken { number: same, refused }, _) if same == number => {
            for (pipe, why) in &refused {
                tracing::warn!(pipe, why, "the new process cannot go on with a pipe");
            }
            Ok(refused.iter().filter_map(|(pipe, _)| PipeId::parse(pipe)).collect())
        }
        (word, _) => Err(unexpected(&word).into()),
    }
}

async fn accept(listener: Option<&Listener>) -> std::io::Result<Wire> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Judges a program that a caller has named.
fn judge(binary: &Path) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{}: {why}", binary.display()));
    if !binary.is_absolute() {
        return refused("the new binary must be named by an absolute path");
    }
    let found = match std::fs::metadata(binary) {
        Ok(found) => found,
        Err(error) => return refused(&error.to_string()),
    };
    let mode = found.permissions().mode();
    if !found.is_file() || mode & 0o111 == 0 {
        return refused("is no program");
    }
    let owners = [0, getuid().as_raw()];
    if mode & OTHERS_WRITE != 0 || !owners.contains(&found.uid()) {
        return refused(
            "others may change it: it must belong to root or to the user of this process, and be writable by its owner alone",
        );
    }
    Ok(())
}

/// Waits for a new process that has failed, or kills it; how it ended.
async fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(ended) = timeout(END_PATIENCE, child.wait()).await {
        return ended.ok();
    }
    // It is waited for next.
    let _ = child.start_kill();
    let _ = child.wait().await;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_others_may_change_is_not_started() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("holdline");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            judge(&path)
        };
        assert!(with(0o644).unwrap_err().ends_with("is no program"));
        assert_eq!(with(0o755), Ok(()));
        assert!(with(0o775).unwrap_err().contains("others may change it"));
        assert!(judge(Path::new("holdline")).unwrap_err().contains("absolute path"));
        assert!(judge(&home.path().join("gone")).is_err());
    }
}
