//! How each proxy is started, with the same resources: one worker thread, no access log, one backend.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::holdline::Start;
use crate::load::Way;
use crate::secured::Certificate;

pub const START_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Direct,
    Nginx,
    Nginx64k,
    HaProxy,
    Caddy,
    Pushpin,
    Holdline,
}

impl Peer {
    pub const ALL: [Self; 7] =
        [Self::Direct, Self::Nginx, Self::Nginx64k, Self::HaProxy, Self::Caddy, Self::Pushpin, Self::Holdline];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Nginx64k => "nginx 64k",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Pushpin => "pushpin",
            Self::Holdline => "holdline",
        }
    }
}

impl Peer {
    /// Idle pipes cost something everywhere, and Pushpin holds 2,000 as it is shipped. TLS is ended by proxies only, and
    /// nginx knows no WebSockets over HTTP/2.
    pub fn can(self, load: &str) -> bool {
        match Way::split(load).0 {
            Way::Plain => {}
            Way::Tls => return matches!(self, Self::Nginx | Self::Nginx64k | Self::HaProxy | Self::Holdline),
            Way::Http2 => return matches!(self, Self::HaProxy | Self::Holdline),
        }
        let idle = load.strip_prefix("idle:").and_then(|count| count.parse::<usize>().ok());
        match self {
            Self::Direct => idle.is_none(),
            Self::Pushpin => idle.is_none_or(|count| count < 2000),
            Self::Nginx | Self::Nginx64k | Self::HaProxy | Self::Caddy | Self::Holdline => true,
        }
    }
}

/// A child that goes with its guard, and its own children with it.
pub struct Process {
    child: Child,
    /// From SIGTERM to SIGKILL.
    patience: Duration,
}

/// What a killed process would still have said is not waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// Those whose own children outlive them if they are killed.
const PATIENCE_WITH_CHILDREN: Duration = Duration::from_secs(5);

impl Process {
    pub const fn new(child: Child) -> Self {
        Self { child, patience: PATIENCE }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM: has it say good-bye, and waits until it has.
    pub fn end(mut self, patience: Duration) -> anyhow::Result<()> {
        self.ask_to_end();
        self.is_over_within(patience)?.then_some(()).context("it does not end")
    }

    fn ask_to_end(&self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
    }

    fn is_over_within(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > patience {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    /// SIGKILL: it has no chance to say good-bye. Does not wait until the kernel has closed its sockets.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Because nginx's workers outlive a master that is killed.
        self.ask_to_end();
        if matches!(self.is_over_within(self.patience), Ok(true)) {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `program` on one core.
pub fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// This program in another role, on one core.
pub fn own(core: usize, role: &str) -> anyhow::Result<Command> {
    let mut command = pinned(core, &std::env::current_exe()?.to_string_lossy());
    command.arg(role);
    Ok(command)
}

/// The backend and its address.
pub fn start_backend(core: usize) -> anyhow::Result<(Process, SocketAddr)> {
    start_backend_with(core, &[])
}

/// The same with more arguments.
pub fn start_backend_with(core: usize, arguments: &[&str]) -> anyhow::Result<(Process, SocketAddr)> {
    let mut child = own(core, "backend")?.args(arguments).stdout(Stdio::piped()).spawn().context("backend")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let process = Process::new(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening ").context("the backend did not start")?.parse()?;
    Ok((process, address))
}

/// A directory of this process below the system's temporary one, removed with its guard.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("holdline-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where a proxy runs, and the certificate that it shows, if it speaks TLS.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub core: usize,
    pub dir: &'a Path,
    pub shows: Option<&'a Certificate>,
}

/// The proxy and its address; no process for `Peer::Direct`.
pub fn start(
    peer: Peer,
    holdline: &Path,
    backend: SocketAddr,
    place: Place<'_>,
) -> anyhow::Result<(Option<Process>, SocketAddr)> {
    let Place { core, dir, shows } = place;
    let (process, address) = match peer {
        Peer::Direct => return Ok((None, backend)),
        Peer::Nginx => nginx("", backend, place)?,
        Peer::Nginx64k => {
            nginx("proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;", backend, place)?
        }
        Peer::HaProxy => haproxy(backend, place)?,
        Peer::Caddy => caddy(backend, core, dir)?,
        Peer::Pushpin => pushpin(backend, core, dir)?,
        Peer::Holdline => {
            let backends = [("w", backend)];
            let start = Start { backends: &backends, core: Some(core), shows, ..Start::new(holdline, dir) };
            start.start()?.into_process()
        }
    };
    Ok((Some(process), address))
}

/// For those that cannot say which port they got.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until a process listens there; the process is borrowed so that it lives for as long.
pub fn wait_for(_process: &Process, address: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > START_MAX {
            bail!("nobody listens on {address}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Starts a proxy that takes its configuration from a file and says nothing.
fn quiet(mut command: Command, address: SocketAddr) -> anyhow::Result<(Process, SocketAddr)> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().with_context(|| format!("{command:?}"))?;
    let process = Process { child, patience: PATIENCE_WITH_CHILDREN };
    wait_for(&process, address)?;
    Ok((process, address))
}

fn nginx(buffers: &str, backend: SocketAddr, place: Place<'_>) -> anyhow::Result<(Process, SocketAddr)> {
    let Place { core, dir, shows } = place;
    let address = free_address()?;
    let config = dir.join("nginx.conf");
    let (secured, files) = match shows {
        None => ("", String::new()),
        Some(Certificate { cert, key, .. }) => {
            (" ssl", format!("ssl_certificate {}; ssl_certificate_key {};", cert.display(), key.display()))
        }
    };
    let text = format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {pid}; error_log {log} crit;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3; proxy_read_timeout 1h; proxy_send_timeout 1h; {buffers}\n\
         upstream b {{ server {backend}; }}\n\
         server {{ listen {address}{secured} backlog=4096; {files} location / {{ proxy_pass http://b; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; }} }} }}\n",
        pid = dir.join("nginx.pid").display(),
        log = dir.join("nginx.log").display(),
    );
    fs::write(&config, text)?;
    let mut command = pinned(core, "nginx");
    command.arg("-c").arg(&config);
    quiet(command, address)
}

fn haproxy(backend: SocketAddr, place: Place<'_>) -> anyhow::Result<(Process, SocketAddr)> {
    let Place { core, dir, shows } = place;
    let address = free_address()?;
    let secured = shows.map(|shows| {
        let alpn = if shows.http2 { " alpn h2" } else { "" };
        format!(" ssl crt {}{alpn}", shows.both.display())
    });
    let secured = secured.unwrap_or_default();
    let config = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 9950\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\n  timeout tunnel 1h\nfrontend f\n  bind {address}{secured}\n  default_backend b\nbackend b\n  server s {backend}\n"
    );
    fs::write(&config, text)?;
    let mut command = pinned(core, "haproxy");
    command.args(["-q", "-db", "-f"]).arg(&config);
    quiet(command, address)
}

/// It counts the cores that it may use, and has a thread of Go's for each.
fn caddy(backend: SocketAddr, core: usize, dir: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let config = dir.join("Caddyfile");
    let text = format!(
        "{{\n admin off\n auto_https off\n persist_config off\n}}\nhttp://{address} {{\n reverse_proxy {backend}\n}}\n"
    );
    fs::write(&config, text)?;
    let mut command = pinned(core, "caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
    command.env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
    quiet(command, address)
}

/// Five processes that talk over sockets in a directory; what Debian ships points them to `/var/run`.
fn pushpin(backend: SocketAddr, core: usize, dir: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let (address, control) = (free_address()?, free_address()?);
    let run = dir.join("pushpin");
    fs::create_dir_all(&run)?;
    let at = format!("ipc://{}/", run.display());
    let shipped = fs::read_to_string("/usr/lib/pushpin/internal.conf").context("pushpin is not installed")?;
    let internal = shipped.replace("ipc://{rundir}/{ipc_prefix}", &at).replace("ipc:///var/run/zurl/", &at);
    fs::write(run.join("internal.conf"), internal)?;
    fs::write(run.join("routes"), format!("* {backend}\n"))?;
    let config = run.join("pushpin.conf");
    let text = format!(
        "[global]\ninclude={run}/internal.conf\nrundir={run}\nipc_prefix=\nport_offset=0\n\
         [runner]\nservices=condure,zurl,pushpin-proxy,pushpin-handler\nhttp_port={address}\nlogdir={run}\nlog_level=0\n\
         client_buffer_size=65536\nclient_maxconn=20000\n[proxy]\nroutesfile={run}/routes\n\
         [handler]\npush_in_spec={at}push\npush_in_sub_specs={at}sub\npush_in_http_port={control}\ncommand_spec={at}command\n\
         stats_spec={at}stats\n",
        run = run.display(),
        control = control.port(),
    );
    fs::write(&config, text)?;
    let mut command = pinned(core, "pushpin");
    command.arg(format!("--config={}", config.display()));
    quiet(command, address)
}
