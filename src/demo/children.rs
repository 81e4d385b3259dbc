//! The processes that the demo runs, all of them this executable: one proxy, many workers.
//!
//! They die with the demo however it ends: their stdin is a pipe that closes with it, and dropping a child kills it.
//! Each is in a process group of its own, so that Ctrl-C reaches the demo alone, which then ends in order.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use super::board::Board;
use super::certificate::Certificate;

/// From the start of a process to its address.
const START_WAIT: Duration = Duration::from_secs(20);
/// The proxy's own end, once its clients are gone.
const PROXY_STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a demo command takes.
const COMMAND_MS: u64 = 10;
/// Bytes of a video message: enough to be cut in half by a kill, and little enough for two rows of six screens at
/// twelve frames a second, drawn by a debug build on two cores.
const FRAME_BYTES: u64 = 48_000;
/// The screens' size in pixels.
const SIZE: &str = "400x864";

/// A directory of our own, removed with everything in it when the demo ends.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that only we can read.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = env::temp_dir().join(format!("holdline-demo-{:016x}", rand::random::<u64>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what cannot be removed now is left to the system, which cleans the temporary directory
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The proxy's process.
pub(super) struct Proxy {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// The URL of its public listener, `ws://127.0.0.1:PORT`, or `wss://`.
    pub public: String,
    /// Its admin listener.
    pub admin: String,
}

impl Proxy {
    /// Starts `holdline serve` on free ports and learns them from its log; clients come by TLS if it has a certificate to
    /// show.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) async fn start(scratch: &Scratch, policy: &str, shows: Option<&Certificate>) -> anyhow::Result<Self> {
        let path = scratch.file("proxy.toml");
        std::fs::write(&path, config(policy, shows)).context("cannot write the proxy's configuration")?;
        let mut command = holdline()?;
        command.arg("serve").arg("-c").arg(&path).arg("--until-stdin-closes");
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start the proxy")?;
        let mut log = lines(child.stderr.take())?;
        let scheme = if shows.is_some() { "wss" } else { "ws" };
        let (mut public, mut admin) = (None, None);
        let listening = async {
            while let Some(line) = log.next_line().await? {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                let address = said["address"].as_str().filter(|_| said["message"] == "listening");
                match (said["listener"].as_str(), address) {
                    (Some("public"), Some(address)) => public = Some(format!("{scheme}://{address}")),
                    (Some("admin"), Some(address)) => admin = Some(address.to_owned()),
                    (_, _) => {}
                }
                if let (Some(public), Some(admin)) = (&public, &admin) {
                    return anyhow::Ok((public.clone(), admin.clone()));
                }
            }
            bail!("the proxy ended before it listened")
        };
        let (public, admin) = timeout(START_WAIT, listening).await.context("the proxy does not listen")??;
        Ok(Self { child, log, public, admin })
    }

    /// Reads the log to its end, which is the end of the process: errors are counted, and the first is told.
    pub(super) async fn watch(&mut self, board: &Board) {
        while let Ok(Some(line)) = self.log.next_line().await {
            if let Some(error) = error_in(&line) {
                let mut books = board.books();
                books.proxy.errors += 1;
                let first = books.proxy.errors == 1;
                drop(books);
                if first {
                    board.say(format!("the proxy says: {error}"));
                }
            }
        }
    }

    /// Stops it in order, or else at once.
    pub(super) async fn stop(mut self, board: &Board) {
        signal(&self.child, Signal::TERM);
        let ending = async {
            self.watch(board).await;
            // its status no longer matters
            let _ = self.child.wait().await;
        };
        let _ = timeout(PROXY_STOP_WAIT, ending).await;
    }
}

/// The message of a log line that is an error; text that is no JSON is a panic or the like.
fn error_in(line: &str) -> Option<String> {
    let Ok(said) = serde_json::from_str::<Value>(line) else {
        return (!line.trim().is_empty()).then(|| line.to_owned());
    };
    (said["level"] == "ERROR").then(|| said["message"].as_str().unwrap_or(line).to_owned())
}

/// What a worker is started with.
pub(super) struct WorkerStart<'a> {
    /// Its name and its id in the pool: never used twice.
    pub name: &'a str,
    /// Where it registers.
    pub admin: &'a str,
    /// Where it writes down what it executes.
    pub journal: &'a Path,
    /// Colour of its screens, in degrees.
    pub hue: u32,
}

/// A worker's process.
pub(super) struct Worker {
    child: Child,
    /// Held here, because waiting for a child closes the stdin that it holds.
    _stdin: Option<ChildStdin>,
}

impl Worker {
    /// Starts `holdline worker`, which registers by itself.
    ///
    /// # Errors
    /// When there can be no process.
    pub(super) fn start(start: &WorkerStart<'_>) -> anyhow::Result<Self> {
        let mut command = holdline()?;
        command
            .args(["worker", "--until-stdin-closes", "--pull", "--name", start.name, "--id", start.name])
            .args(["--register", &format!("http://{}", start.admin), "--lease", "10s", "--drain-ms", "5000"])
            .args(["--command-ms", &COMMAND_MS.to_string(), "--frame-bytes", &FRAME_BYTES.to_string()])
            .args(["--size", SIZE, "--hue", &start.hue.to_string()])
            .arg("--journal")
            .arg(start.journal)
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start a worker")?;
        Ok(Self { _stdin: child.stdin.take(), child })
    }

    /// Its process id, while it has one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        // It may have ended by itself a moment ago, which comes to the same.
        let _ = self.child.start_kill();
    }

    /// SIGTERM.
    pub(super) fn terminate(&self) {
        signal(&self.child, Signal::TERM);
    }

    /// Resolves when the process has ended and its journal is complete.
    pub(super) async fn ended(&mut self) {
        // An error here means that there is nothing to wait for.
        let _ = self.child.wait().await;
    }
}

/// A child that was not waited for keeps its id, so this reaches no stranger.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended by itself a moment ago, which comes to the same.
        let _ = kill_process(pid, signal);
    }
}

/// This executable again, untouched by the configuration of the user who runs the demo.
fn holdline() -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe().context("cannot find this executable")?);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDLINE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

fn lines<R: AsyncRead + Unpin>(from: Option<R>) -> anyhow::Result<Lines<BufReader<R>>> {
    Ok(BufReader::new(from.context("no pipe to the child")?).lines())
}

fn config(policy: &str, shows: Option<&Certificate>) -> String {
    let listen = match shows {
        None => "listen = [\"127.0.0.1:0\"]".to_owned(),
        Some(Certificate { cert, key }) => format!(
            "listen = []\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{{ cert = {cert:?}, key = {key:?} }}]"
        ),
    };
    format!(
        "[server]\n{listen}\nshutdown_grace = \"2s\"\nclose_spread = \"0s\"\n\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\n[replay]\npolicy = \"{policy}\"\n\n[log]\nformat = \"json\"\n\n\
         [limits]\nkey_connections = 0\nkey_rate = \"0\"\n\n[[pools]]\nname = \"default\"\n{ROUTES}"
    )
}

/// Video has a route of its own, so that events tell a screen from the rest. The key has video and control of one screen
/// meet at one worker, which draws the taps that it got.
const ROUTES: &str = r#"
[[routes]]
name = "video"
path = "/ws/{session}/video"
pool = "default"
key = "{session}"

[[routes]]
name = "control"
path = "/ws/{session}/{*channel}"
pool = "default"
key = "{session}"

[[routes]]
name = "default"
path = "/{*path}"
pool = "default"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_configuration_is_valid_under_each_policy() {
        let scratch = Scratch::new().unwrap();
        let certificate = Certificate::make(&scratch).unwrap();
        for (policy, shows) in [("unconfirmed", None), ("none", None), ("unconfirmed", Some(&certificate))] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), config(policy, shows)).unwrap();
            let loaded = crate::config::Config::load(Some(file.path())).unwrap();
            assert_eq!(loaded.warnings.len(), 0);
            let (_, concerns) = crate::tls::Sets::load(&loaded).unwrap();
            assert_eq!(concerns, []);
        }
        certificate.client().unwrap();
    }

    #[test]
    fn only_errors_of_the_log_are_told() {
        assert_eq!(error_in(r#"{"level":"WARN","message":"hm"}"#), None);
        assert_eq!(error_in(r#"{"level":"ERROR","message":"oops"}"#), Some("oops".into()));
        assert_eq!(error_in("thread 'main' panicked"), Some("thread 'main' panicked".into()));
        assert_eq!(error_in(""), None);
    }

    #[test]
    fn the_scratch_directory_goes_with_its_files() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.file("a");
        std::fs::write(&file, "a").unwrap();
        drop(scratch);
        assert!(!file.parent().unwrap().exists());
    }
}
