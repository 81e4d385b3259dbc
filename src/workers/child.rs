//! One worker's process: how it is started, told to end, and found to have ended.
//!
//! It leads a process group of its own, and signals go to the whole group. Invariant: the group is killed while its
//! leader is a zombie that was not waited for, so that the number of the group cannot be another's by then.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::listening::Place;
use super::template::filled;
use crate::config::{StopSignal, WorkerGroup};
use crate::unix_user::UnixUser;

/// Variables of Holdline's own that mean something else to a child: sockets and messages of a service manager.
const NOT_INHERITED: [&str; 7] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID"];

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program:?}: {source}")]
pub(super) struct SpawnError {
    program: String,
    source: io::Error,
}

/// A process that was started.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

/// A process that has not been waited for.
pub(super) struct Process {
    child: Child,
    end: AsyncFd<OwnedFd>,
    group: Pid,
}

impl Process {
    /// Starts the worker `index` of `group` for `place`.
    ///
    /// # Errors
    /// What the system says, with the program.
    pub(super) fn start(
        group: &WorkerGroup,
        index: u32,
        place: Place,
        user: Option<UnixUser>,
    ) -> Result<Started, SpawnError> {
        let program = group.command.first().cloned().unwrap_or_default();
        let started = command(group, index, place, user).and_then(Self::spawn);
        started.map_err(|source| SpawnError { program, source })
    }

    fn spawn(mut command: Command) -> io::Result<Started> {
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let group = pid.ok_or_else(|| io::Error::other("it ended at once"))?;
        let end = pidfd_open(group, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; a descriptor that lives in here is closed by nothing else"
        )]
        let end = AsyncFd::new(end)?;
        Ok(Started { process: Self { child, end, group }, stdout, stderr })
    }

    /// The number of the process and of its group.
    pub(super) const fn group(&self) -> Pid {
        self.group
    }

    /// Waits for its end, and ends what it has left behind in its group.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        // A descriptor that cannot be waited for leaves the child itself.
        let _ = self.end.readable().await;
        signal(self.group, Signal::KILL);
        self.child.wait().await
    }
}

/// Tells a whole group.
pub(super) fn signal(group: Pid, signal: Signal) {
    // It may have ended by itself a moment ago, which comes to the same.
    let _ = kill_process_group(group, signal);
}

/// The signal that asks a process to end.
pub(super) const fn stop_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
    }
}

fn command(group: &WorkerGroup, index: u32, place: Place, user: Option<UnixUser>) -> io::Result<Command> {
    let words: Vec<String> = group.command.iter().map(|word| filled(word, index, &place.address)).collect();
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = match place.socket {
        // A small step in between gives it the socket at the descriptor that it expects.
        Some(socket) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("launch").arg("--").arg(program).stdin(socket);
            command
        }
        None => {
            let mut command = Command::new(program);
            command.stdin(Stdio::null());
            command
        }
    };
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_own(name)) {
        command.env_remove(name);
    }
    if let Some(port) = place.address.port() {
        command.env("PORT", port.to_string());
    }
    for (name, value) in &group.env {
        command.env(name, filled(value, index, &place.address));
    }
    if let Some(directory) = &group.cwd {
        command.current_dir(directory);
    }
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

/// Whether a variable is for Holdline alone: its settings may be secrets.
fn is_own(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("HOLDLINE_") || NOT_INHERITED.contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::template::Address;
    use tokio::io::AsyncReadExt;

    fn shell(script: &str) -> WorkerGroup {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let env = [("NAME".to_owned(), "w{index}".to_owned())].into();
        WorkerGroup { command, env, ..WorkerGroup::default() }
    }

    fn start(group: &WorkerGroup) -> Started {
        let place = Place { address: Address::Port(7), socket: None };
        Process::start(group, 2, place, None).unwrap_or_else(|error| panic!("{error}"))
    }

    #[tokio::test]
    async fn a_process_is_told_what_it_is_and_its_end_is_seen() {
        let Started { mut process, stdout, .. } =
            start(&shell("echo $NAME $PORT {port} ${NOTIFY_SOCKET-none}; exit 7"));
        let mut said = String::new();
        stdout.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "w2 7 7 none\n");
        assert_eq!(process.ended().await.unwrap().code(), Some(7));
    }

    #[tokio::test]
    async fn what_it_leaves_behind_in_its_group_ends_with_it() {
        let Started { mut process, stdout, .. } = start(&shell("sleep 1000 & echo started"));
        process.ended().await.unwrap();
        // The child that was left held the pipe open.
        let mut said = String::new();
        stdout.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "started\n");
    }

    #[tokio::test]
    async fn a_command_that_does_not_exist_is_named() {
        let group = WorkerGroup { command: vec!["/no/such/command".into()], ..WorkerGroup::default() };
        let place = Place { address: Address::Port(7), socket: None };
        let error = Process::start(&group, 1, place, None).map(|_| ()).expect_err("it does not exist");
        assert_eq!(error.to_string(), "cannot run \"/no/such/command\": No such file or directory (os error 2)");
    }
}
