//! How each proxy is started, with the same resources: one worker thread, no access log, one backend.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const START_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Direct,
    Nginx,
    Nginx64k,
    HaProxy,
    Holdline,
}

impl Peer {
    pub const ALL: [Self; 5] = [Self::Direct, Self::Nginx, Self::Nginx64k, Self::HaProxy, Self::Holdline];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Nginx64k => "nginx 64k",
            Self::HaProxy => "haproxy",
            Self::Holdline => "holdline",
        }
    }
}

/// A child that goes with its guard, and its own children with it.
pub struct Process(Child);

impl Process {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM, because nginx's workers outlive a master that is killed.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `program` on one core.
pub fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// The backend and its address.
pub fn start_backend(core: usize) -> anyhow::Result<(Process, SocketAddr)> {
    let own = std::env::current_exe()?;
    let mut child =
        pinned(core, &own.to_string_lossy()).arg("backend").stdout(Stdio::piped()).spawn().context("backend")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let process = Process(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening ").context("the backend did not start")?.parse()?;
    Ok((process, address))
}

/// The proxy and its address; no process for `Peer::Direct`.
pub fn start(
    peer: Peer,
    holdline: &Path,
    backend: SocketAddr,
    core: usize,
    dir: &Path,
) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    match peer {
        Peer::Direct => Ok((None, backend)),
        Peer::Nginx => nginx("", backend, core, dir),
        Peer::Nginx64k => {
            nginx("proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;", backend, core, dir)
        }
        Peer::HaProxy => haproxy(backend, core, dir),
        Peer::Holdline => serve(holdline, &[backend], core, dir),
    }
}

/// For those that cannot say which port they got.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(process: Process, address: SocketAddr) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > START_MAX {
            bail!("nobody listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((Some(process), address))
}

fn nginx(buffers: &str, backend: SocketAddr, core: usize, dir: &Path) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    let address = free_address()?;
    let config = dir.join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {pid}; error_log {log} crit;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; proxy_read_timeout 1h; proxy_send_timeout 1h; {buffers}\n\
         upstream b {{ server {backend}; }}\n\
         server {{ listen {address} backlog=4096; location / {{ proxy_pass http://b; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; }} }} }}\n",
        pid = dir.join("nginx.pid").display(),
        log = dir.join("nginx.log").display(),
    );
    fs::write(&config, text)?;
    let child = pinned(core, "nginx").arg("-c").arg(&config).stderr(Stdio::null()).spawn().context("nginx")?;
    wait_for(Process(child), address)
}

fn haproxy(backend: SocketAddr, core: usize, dir: &Path) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    let address = free_address()?;
    let config = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 9900\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\n  timeout tunnel 1h\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  server s {backend}\n"
    );
    fs::write(&config, text)?;
    let child = pinned(core, "haproxy")
        .args(["-q", "-db", "-f"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()
        .context("haproxy")?;
    wait_for(Process(child), address)
}

/// Holdline with its default settings, one data thread.
pub fn serve(
    binary: &Path,
    backends: &[SocketAddr],
    core: usize,
    dir: &Path,
) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    serve_with(binary, backends, core, dir, "")
}

/// The same with more keys for its route.
pub fn serve_with(
    binary: &Path,
    backends: &[SocketAddr],
    core: usize,
    dir: &Path,
    keys: &str,
) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    let config = dir.join("proxy.toml");
    let backends: String =
        backends.iter().map(|backend| format!("[[pools.backends]]\nurl = \"ws://{backend}\"\n")).collect();
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [[pools]]\nname = \"default\"\n{backends}\
         [[routes]]\nname = \"default\"\npath = \"/{{*path}}\"\npool = \"default\"\n{keys}"
    );
    fs::write(&config, text)?;
    let log = dir.join("holdline.log");
    let child = pinned(core, &binary.to_string_lossy())
        .args(["serve", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()
        .context("holdline")?;
    let process = Process(child);
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(&log)?;
        if let Some(address) = text.lines().find_map(public_address) {
            return wait_for(process, address);
        }
        if began.elapsed() > START_MAX {
            bail!("holdline did not start: {text}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn public_address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" || line["listener"] != "public" {
        return None;
    }
    line["address"].as_str()?.parse().ok()
}
