//! `holdline serve` as a process. A record of level ERROR in its log, or a panic, fails the test that did not expect it.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::metrics::Metrics;
use super::{Reply, ask, eventually, within};

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where clients connect by TLS, if anywhere.
    pub tls: SocketAddr,
    /// Where workers dial in, if anywhere.
    pub attach: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
    process: Child,
    log: watch::Receiver<Vec<String>>,
    reader: Option<JoinHandle<()>>,
    /// Messages of level ERROR that the test wants.
    errors: Vec<&'static str>,
    /// The processes that have taken over since, the last one of which serves.
    heirs: Vec<Pid>,
    /// Those of them that the test has started itself.
    kept: Vec<Child>,
    files: TempDir,
}

impl Proxy {
    /// A proxy with this configuration, listening on free ports.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with more environment.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command
            .env("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#)
            .env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        Self::start_by(command, config)
    }

    /// The same, started by a command that ends in `holdline` when it is given its arguments.
    pub fn start_by(mut command: Command, config: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("proxy.toml");
        std::fs::write(&file, config).unwrap();
        command.args(["serve", "-c"]).arg(&file);
        Self::listening(command, files)
    }

    /// A proxy by arguments alone, before workers at these URLs.
    pub fn start_to(urls: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0");
        command.args(urls.iter().flat_map(|url| ["--to", url])).stdin(Stdio::null());
        Self::listening(command, tempfile::tempdir().unwrap())
    }

    /// Started by a whole command, once it listens.
    fn listening(mut command: Command, files: TempDir) -> Self {
        command.env("HOLDLINE_LOG__FORMAT", "json").stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (lines, log) = watch::channel(Vec::new());
        let stderr = process.stderr.take().unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || read_log(stderr, &lines, &said));
        let mut proxy = Self {
            public: SocketAddr::from(([0; 4], 0)),
            tls: SocketAddr::from(([0; 4], 0)),
            attach: SocketAddr::from(([0; 4], 0)),
            admin: SocketAddr::from(([0; 4], 0)),
            process,
            log,
            reader: Some(reader),
            errors: Vec::new(),
            heirs: Vec::new(),
            kept: Vec::new(),
            files,
        };
        while proxy.public.port() == 0 || proxy.admin.port() == 0 {
            let line = heard.recv_timeout(super::PATIENCE).unwrap_or_else(|_| panic!("no start: {:?}", proxy.log()));
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "listening" {
                // a socket file has no address to be told
                let address = line["address"].as_str().unwrap().parse().unwrap_or(super::SOCKET_FILE);
                if line["tls"] == true && line["listener"] == "public" {
                    proxy.tls = address;
                } else if line["listener"] == "public" {
                    proxy.public = address;
                } else if line["listener"] == "attach" {
                    proxy.attach = address;
                } else {
                    proxy.admin = address;
                }
            }
        }
        proxy
    }

    /// A record of level ERROR with this message is what the test is about.
    pub fn expects_error(&mut self, message: &'static str) {
        self.errors.push(message);
    }

    /// Its configuration file.
    pub fn config_file(&self) -> std::path::PathBuf {
        self.files.path().join("proxy.toml")
    }

    /// Changes its configuration file, which changes nothing by itself.
    pub fn rewrite(&self, config: &str) {
        std::fs::write(self.config_file(), config).unwrap();
    }

    /// Asks the admin API; a body goes as JSON.
    pub async fn api(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let headers: &[_] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        ask(self.admin, method, path, headers, body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    /// The JSON of an admin path.
    pub async fn get(&self, path: &str) -> Value {
        self.api("GET", path, None).await.expect(200).json()
    }

    /// Registers a worker in the default pool.
    pub async fn register(&self, id: &str, address: impl Display) {
        self.register_as(id, json!({ "url": format!("ws://{address}") })).await;
    }

    /// Registers a worker with these words.
    pub async fn register_as(&self, id: &str, body: Value) {
        let reply = self.api("PUT", &format!("/v1/backends/{id}"), Some(body)).await;
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    }

    /// The live pipes.
    pub async fn pipes(&self) -> Vec<Value> {
        self.get("/v1/pipes?limit=1000").await["items"].as_array().unwrap().clone()
    }

    /// The only live pipe, once it fits.
    pub async fn pipe_that(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || self.pipes().await.into_iter().find(&fits)).await
    }

    /// Waits until no pipe lives.
    pub async fn emptied(&self) {
        eventually("no live pipe", async || self.pipes().await.is_empty().then_some(())).await;
    }

    /// Waits until no client is connected: what counted it has forgotten it by then.
    pub async fn idle(&self) {
        eventually("no connection", async || {
            let open = self.metrics().await.sum("connections", &[("listener", "public")]);
            (open == 0.0).then_some(())
        })
        .await;
    }

    /// A reading of `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&ask(self.admin, "GET", "/metrics", &[], "").await.expect(200).text())
    }

    /// The first event after number `after` that fits; its `seq` is where to go on.
    pub async fn event(&self, after: u64, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        within(what, async {
            let mut after = after;
            loop {
                let page = self.get(&format!("/v1/events?after={after}&wait=25s")).await;
                if let Some(found) = page["items"].as_array().unwrap().iter().find(|event| fits(event)) {
                    return found.clone();
                }
                after = page["last"].as_u64().unwrap();
            }
        })
        .await
    }

    /// The first event of this type after number `after`.
    pub async fn event_of(&self, after: u64, kind: &str) -> Value {
        self.event(after, kind, |event| event["type"] == kind).await
    }

    /// The log so far, one record a line.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// The records of the log with this message.
    pub fn records(&self, message: &str) -> Vec<Value> {
        let parsed = self.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        parsed.filter(|record| record["message"] == message).collect()
    }

    /// Waits until there are so many records with this message.
    pub async fn logged(&self, message: &str, count: usize) -> Vec<Value> {
        let mut log = self.log.clone();
        within(message, async {
            loop {
                log.borrow_and_update();
                let found = self.records(message);
                if found.len() >= count {
                    return found;
                }
                log.changed().await.unwrap();
            }
        })
        .await
    }

    /// Has a new process take over; what it came to. The new one logs to the same place.
    pub async fn upgrade(&mut self) -> Value {
        let report = self.api("POST", "/v1/upgrade", Some(json!({}))).await.expect(200).json();
        self.is_replaced_by(&report["pid"]);
        report
    }

    /// A process that comes to `socket` to take over, with the same configuration and the same log.
    pub fn comer(&self, socket: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["serve", "-c"]).arg(self.config_file()).arg("--take-over").arg(socket);
        command.env("HOLDLINE_LOG__FORMAT", "json").stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Ends a process with this one.
    pub fn keeps(&mut self, process: Child) {
        self.kept.push(process);
    }

    /// Notes that the process of this number has taken over.
    pub fn is_replaced_by(&mut self, pid: &Value) {
        let pid = pid.as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        self.heirs.push(pid.expect("the number of the new process"));
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for the process to exit.
    pub async fn exited(&mut self) -> ExitStatus {
        within("the exit of the proxy", async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
            }
        })
        .await
    }

    /// CPU time that the process has used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // utime and stime, in hundredths of a second on every Linux that matters
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// A field of the process's status in KiB: `VmRSS`, `VmHWM`.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// File descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

fn read_log(stderr: ChildStderr, lines: &watch::Sender<Vec<String>>, said: &std::sync::mpsc::Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // the channel has no reader any more once the proxy has started
        let _ = said.send(line.clone());
        lines.send_modify(|lines| lines.push(line));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // a process that has gone already is as good as killed
        for heir in &self.heirs {
            let _ = kill_process(*heir, Signal::KILL);
        }
        for process in self.kept.iter_mut().chain([&mut self.process]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let log = self.log();
        if std::thread::panicking() {
            let tail = log.len().saturating_sub(40);
            eprintln!("the proxy's last words:\n{}", log[tail..].join("\n"));
            return;
        }
        let is_wrong = |line: &&String| {
            let is_error = line.contains("\"level\":\"ERROR\"") && !self.errors.iter().any(|text| line.contains(text));
            is_error || line.contains("panicked at")
        };
        let wrong: Vec<_> = log.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "the proxy's log has errors: {wrong:#?}");
    }
}
