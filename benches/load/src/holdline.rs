//! Starts Holdline with the bench's one configuration, `benches/load/holdline.toml`, and finds out where it listens.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::peers::{Process, START_MAX, pinned, wait_for};
use crate::secured::Certificate;

/// What every run of the bench starts Holdline with.
const CONFIG: &str = include_str!("../holdline.toml");

/// How long it may take to start under another program.
const START_UNDER_MAX: Duration = Duration::from_secs(120);

/// A running Holdline.
pub struct Holdline {
    process: Process,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// What differs from run to run.
pub struct Start<'a> {
    pub binary: &'a Path,
    /// Backends from the start, by id.
    pub backends: &'a [(&'a str, SocketAddr)],
    /// The only core it may use.
    pub core: Option<usize>,
    /// A program with its arguments that runs it, and takes its time: valgrind.
    pub under: &'a [String],
    pub dir: &'a Path,
    /// What it shows to clients, which come by TLS then.
    pub shows: Option<&'a Certificate>,
    /// More keys of the route.
    pub route: &'a str,
    /// Other keys, as environment.
    pub environment: &'a [(&'a str, String)],
}

impl<'a> Start<'a> {
    pub fn new(binary: &'a Path, dir: &'a Path) -> Self {
        Self { binary, backends: &[], core: Some(0), under: &[], dir, shows: None, route: "", environment: &[] }
    }

    pub fn start(&self) -> anyhow::Result<Holdline> {
        let config = self.write_config()?;
        let log = self.dir.join("holdline.log");
        let binary = self.binary.to_string_lossy();
        let (program, arguments) = match self.under {
            [] => (&*binary, &[][..]),
            [under, arguments @ ..] => (under.as_str(), arguments),
        };
        let mut command = match self.core {
            Some(core) => pinned(core, program),
            None => Command::new(program),
        };
        command.args(arguments).args((!self.under.is_empty()).then_some(&*binary));
        command.args(["serve", "-c"]).arg(config).envs(self.environment.iter().map(|(key, value)| (key, value)));
        let child = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn().context("holdline")?;
        let process = Process::new(child);
        let patience = if self.under.is_empty() { START_MAX } else { START_UNDER_MAX };
        let (public, admin) = listening(&log, self.shows.is_some(), patience)?;
        wait_for(&process, public)?;
        Ok(Holdline { process, public, admin })
    }

    fn write_config(&self) -> anyhow::Result<PathBuf> {
        let path = self.dir.join("proxy.toml");
        let backend = |(id, address): &(&str, SocketAddr)| {
            format!("[[pools.backends]]\nid = \"{id}\"\nurl = \"ws://{address}\"\n")
        };
        let backends: String = self.backends.iter().map(backend).collect();
        let config = match self.shows {
            None => CONFIG.to_owned(),
            Some(Certificate { http2, cert, key, .. }) => {
                let tls = format!(
                    "http2 = {http2}\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{{ cert = {cert:?}, key = {key:?} }}]"
                );
                CONFIG.replacen("[server]\n", &format!("[server]\n{tls}\n"), 1)
            }
        };
        fs::write(&path, format!("{config}{}\n{backends}", self.route))?;
        Ok(path)
    }
}

impl Holdline {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn into_process(self) -> (Process, SocketAddr) {
        (self.process, self.public)
    }
}

/// The public address, by TLS if that is `secured`, and the admin one, once the log has both.
fn listening(log: &Path, secured: bool, patience: Duration) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(log)?;
        let address = |listener, secured| text.lines().find_map(|line| address_of(line, listener, secured));
        if let (Some(public), Some(admin)) = (address("public", secured), address("admin", false)) {
            return Ok((public, admin));
        }
        if began.elapsed() > patience {
            bail!("holdline did not start: {text}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn address_of(line: &str, listener: &str, secured: bool) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" || line["listener"] != listener || (line["tls"] == true) != secured {
        return None;
    }
    line["address"].as_str()?.parse().ok()
}
