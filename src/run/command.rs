//! The worker's process: its own process group, what it writes where ours goes, and a guard beside it.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

use crate::workers::guard::Guard;

/// A worker that was started; it is killed with this.
pub(super) struct Command {
    child: Child,
    group: Pid,
    /// Ends the group if we are killed; its end of the pipe closes with this.
    _guard: Guard,
}

impl Command {
    /// Starts `words` for `port`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn start(words: &[String], port: u16) -> anyhow::Result<Self> {
        let words: Vec<String> = words.iter().map(|word| word.replace("{port}", &port.to_string())).collect();
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env("PORT", port.to_string()).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        // A worker has no business with our token.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDLINE_")) {
            command.env_remove(name);
        }
        let child = command.spawn().with_context(|| format!("cannot run {program:?}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it ended at once")?;
        let mut guard = Guard::default();
        guard.began(group).await.context("no guard")?;
        Ok(Self { child, group, _guard: guard })
    }

    /// Waits for its end; cancel-safe.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        self.child.wait().await.map(Ended)
    }

    pub(super) fn terminate(&self) {
        // It may have ended by itself a moment ago, which comes to the same.
        let _ = kill_process_group(self.group, Signal::TERM);
    }

    pub(super) fn kill(&self) {
        // As above.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// How a worker ended.
pub(super) struct Ended(ExitStatus);

impl Ended {
    /// Its exit code, or what a shell makes of its signal.
    pub(super) fn code(&self) -> ExitCode {
        let number = self.0.code().unwrap_or_else(|| 128 + self.0.signal().unwrap_or_default());
        ExitCode::from(u8::try_from(number).unwrap_or(1))
    }

    /// The same after it was asked to end: by its signal is as good as by itself.
    pub(super) fn as_asked(&self) -> ExitCode {
        match self.0.signal() {
            Some(signal) if signal == Signal::TERM.as_raw() => ExitCode::SUCCESS,
            _ => self.code(),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
