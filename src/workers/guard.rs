//! The guard: a small process at the other end of a pipe, which ends the workers' process groups when Holdline is gone.
//!
//! Holdline tells it each group that begins and ends, a line for each (`+ID`, `-ID`). The end of the pipe is the
//! end of Holdline, however it came; groups that are known then get SIGTERM and, after [`PATIENCE`], SIGKILL. The
//! kernel's own way (PDEATHSIG) fires when the thread ends that has started the child, and is lost by a change of user.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

/// How long groups have to end in order.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the guard, which is started with the first group.
#[derive(Debug, Default)]
pub struct Guard {
    process: Option<(Child, ChildStdin)>,
    groups: Vec<Pid>,
}

impl Guard {
    /// A process group begins.
    ///
    /// # Errors
    /// When there can be no guard.
    pub async fn began(&mut self, group: Pid) -> io::Result<()> {
        self.groups.push(group);
        if self.tell('+', group).await.is_ok() {
            return Ok(());
        }
        // A guard that was killed has forgotten what it knew.
        self.process = Some(start()?);
        for group in self.groups.clone() {
            self.tell('+', group).await?;
        }
        Ok(())
    }

    /// A process group has ended.
    pub async fn ended(&mut self, group: Pid) {
        self.groups.retain(|known| *known != group);
        // A guard that is gone has no group to end.
        let _ = self.tell('-', group).await;
    }

    async fn tell(&mut self, sign: char, group: Pid) -> io::Result<()> {
        let Some((_, stdin)) = &mut self.process else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        stdin.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes()).await
    }
}

fn start() -> io::Result<(Child, ChildStdin)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guard").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, stdin))
}

/// The guard itself: reads `told` to its end, and ends what is left then.
pub fn run(told: impl Read) {
    let mut groups: BTreeMap<i32, (Pid, Option<OwnedFd>)> = BTreeMap::new();
    for line in BufReader::new(told).lines() {
        // What cannot be read any more has ended.
        let Ok(line) = line else { break };
        let (sign, number) = line.split_at_checked(1).unwrap_or(("", ""));
        let Some(group) = number.parse().ok().and_then(Pid::from_raw) else { continue };
        match sign {
            "+" => {
                drop(groups.insert(group.as_raw_nonzero().get(), (group, pidfd_open(group, PidfdFlags::empty()).ok())))
            }
            _ => drop(groups.remove(&group.as_raw_nonzero().get())),
        }
    }
    end(groups.into_values().collect());
}

fn end(groups: Vec<(Pid, Option<OwnedFd>)>) {
    for (group, _) in &groups {
        // It may have ended by itself a moment ago, which comes to the same.
        let _ = kill_process_group(*group, Signal::TERM);
    }
    let deadline = Instant::now() + PATIENCE;
    for leader in groups.iter().filter_map(|(_, leader)| leader.as_ref()) {
        wait(leader, deadline.saturating_duration_since(Instant::now()));
    }
    for (group, _) in &groups {
        // What its leader has left behind goes too.
        let _ = kill_process_group(*group, Signal::KILL);
    }
}

fn wait(leader: &OwnedFd, patience: Duration) {
    let timeout = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    // An error means that there is nothing to wait for.
    let _ = poll(&mut [PollFd::new(leader, PollFlags::IN)], Some(&timeout));
}
