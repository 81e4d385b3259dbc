//! The processes: one proxy and its workers, which die with us because they watch their stdin.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::ask::ask;

/// How long a process may take to say where it listens.
const START_WAIT: Duration = Duration::from_secs(30);
/// How long the proxy may take to end after SIGTERM, its close spread included.
const STOP_WAIT: Duration = Duration::from_secs(15);

/// Short waits, so that a minute holds many of them.
const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
threads = 2
shutdown_grace = "5s"
close_spread = "1s"
backend_connect_timeout = "1s"
backend_handshake_timeout = "2s"
[admin]
listen = "127.0.0.1:0"
[heartbeat]
backend_interval = "1s"
backend_timeout = "4s"
[reattach]
grace = "60s"
backoff_max = "500ms"
dials_per_minute = 0
move_timeout = "3s"
[log]
format = "json"
[[pools]]
name = "default"
health.interval = "1s"
health.timeout = "2s"
"#;

/// The proxy and its workers.
pub struct Fleet {
    /// Where clients connect.
    pub public: String,
    /// Where the admin API is.
    pub admin: String,
    /// The places for workers; one is empty between a death and a birth.
    pub places: Vec<Place>,
    program: PathBuf,
    directory: PathBuf,
    proxy: Child,
}

/// One place for a worker.
pub struct Place {
    /// The worker, if one stands here.
    pub worker: Option<Worker>,
    /// How many stood here.
    pub births: u32,
}

/// One worker process.
pub struct Worker {
    /// Its id in the pool.
    pub id: String,
    /// Where it listens.
    pub address: String,
    child: Child,
}

impl Fleet {
    /// Starts the proxy and waits until every worker is registered.
    ///
    /// # Errors
    /// When a process does not start.
    pub async fn start(program: &Path, directory: &Path, workers: usize) -> anyhow::Result<Self> {
        let config = directory.join("proxy.toml");
        std::fs::write(&config, CONFIG)?;
        let log = directory.join("proxy.log");
        let proxy = Command::new(program)
            .arg("serve")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (public, admin) = timeout(START_WAIT, listening(&log)).await.context("the proxy does not listen")??;
        let places = (0..workers).map(|_| Place { worker: None, births: 0 }).collect();
        let mut fleet = Self { public, admin, places, program: program.into(), directory: directory.into(), proxy };
        for place in 0..workers {
            fleet.bear(place, true).await?;
        }
        fleet.all_eligible().await?;
        Ok(fleet)
    }

    /// Starts a worker at an empty place, under the id of the one before it or under a new one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn bear(&mut self, place: usize, same_id: bool) -> anyhow::Result<()> {
        let births = self.places[place].births + 1;
        self.places[place].births = births;
        let name = format!("w{place}-{births}");
        let id = if same_id { format!("w{place}") } else { name.clone() };
        let mut child = Command::new(&self.program)
            .args(["worker", "--until-stdin-closes", "--size", "160x160", "--frame-bytes", "20000"])
            .args(["--command-ms", "5", "--lease", "5s", "--drain-ms", "5000", "--name", &name, "--id", &id])
            .args(["--register", &format!("http://{}", self.admin)])
            .arg("--journal")
            .arg(self.directory.join(format!("{name}.journal")))
            .env("HOLDLINE_WORKER_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.directory.join(format!("{name}.log")))?)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("a worker without stdout")?;
        let mut line = String::new();
        timeout(START_WAIT, BufReader::new(stdout).read_line(&mut line)).await.context("a worker says nothing")??;
        let said: Value = serde_json::from_str(&line)?;
        let address = said["listening"].as_str().context("a worker without an address")?.to_owned();
        self.places[place].worker = Some(Worker { id, address, child });
        Ok(())
    }

    /// Sends a signal to the worker at `place`; true if one stands there.
    pub fn signal(&self, place: usize, signal: Signal) -> bool {
        let pid = self.places[place].worker.as_ref().and_then(|worker| worker.child.id());
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        // a worker that has ended by itself is as good
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Takes the worker from its place; it is waited for in the background, and killed if it stays too long.
    pub fn take(&mut self, place: usize) {
        if let Some(mut worker) = self.places[place].worker.take() {
            tokio::spawn(async move {
                if timeout(STOP_WAIT, worker.child.wait()).await.is_err() {
                    // it has ended in between, or ends now
                    let _ = worker.child.start_kill();
                }
            });
        }
    }

    /// Turns a knob of the worker at `place`; a worker that is stopped or gone answers nothing, which is fine.
    pub async fn turn(&self, place: usize, knob: &str) {
        if let Some(worker) = &self.places[place].worker {
            let _ = timeout(Duration::from_millis(500), ask(&worker.address, "POST", knob, "")).await;
        }
    }

    /// Writes to the worker's entry in the pool.
    ///
    /// # Errors
    /// When the proxy does not answer, or calls the request wrong.
    pub async fn write(&self, place: usize, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let Some(worker) = &self.places[place].worker else { return Ok(()) };
        let path = format!("/v1/backends/{}{path}", worker.id);
        let (status, answer) = ask(&self.admin, method, &path, body).await?;
        // 404: its lease has expired, or it is not registered yet
        ensure!(matches!(status, 200..=299 | 404), "{method} {path} {body}: {status} {answer}");
        Ok(())
    }

    /// Waits until every place has a worker that takes pipes.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn all_eligible(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_WAIT;
        loop {
            let (_, pool) = ask(&self.admin, "GET", "/v1/backends?limit=1000", "").await?;
            let listed: Value = serde_json::from_str(&pool).unwrap_or_default();
            let listed = listed["items"].as_array().cloned().unwrap_or_default();
            let ids: Vec<&str> = self.places.iter().flat_map(|place| &place.worker).map(|worker| &*worker.id).collect();
            let eligible = |id: &&str| listed.iter().any(|item| item["id"] == **id && item["eligible"] != false);
            if ids.len() == self.places.len() && ids.iter().all(eligible) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("workers do not come back: {pool}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// # Errors
    /// When the proxy has ended.
    pub fn check_proxy(&mut self) -> anyhow::Result<()> {
        match self.proxy.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the proxy ended with {status}; see {}", self.directory.join("proxy.log").display()),
        }
    }

    /// The journals of every worker that ever stood anywhere.
    pub fn journals(&self) -> Vec<PathBuf> {
        let names = self.places.iter().enumerate();
        names
            .flat_map(|(place, it)| (1..=it.births).map(move |birth| format!("w{place}-{birth}.journal")))
            .map(|name| self.directory.join(name))
            .collect()
    }

    /// Ends the proxy in order; `None` if it does not end in time.
    pub async fn stop(mut self) -> Option<ExitStatus> {
        if let Some(pid) = self.proxy.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // if it is gone already, its exit status says so
            let _ = kill_process(pid, Signal::TERM);
        }
        timeout(STOP_WAIT, self.proxy.wait()).await.ok()?.ok()
    }
}

/// The addresses that the proxy says it listens on: public and admin.
async fn listening(log: &Path) -> anyhow::Result<(String, String)> {
    loop {
        let text = std::fs::read_to_string(log)?;
        let lines = || text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = |listener: &str| {
            lines().find(|line| line["message"] == "listening" && line["listener"] == listener)?["address"]
                .as_str()
                .map(str::to_owned)
        };
        if let (Some(public), Some(admin)) = (address("public"), address("admin")) {
            return Ok((public, admin));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
