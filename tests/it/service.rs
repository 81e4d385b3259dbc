//! Started and stopped by a service manager: what it is told, what it hands over, and how a stop is hurried.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixDatagram};

use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, ask, eventually, within};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    files: TempDir,
}

impl Manager {
    fn listen() -> Self {
        let files = tempfile::tempdir().unwrap();
        Self { socket: UnixDatagram::bind(files.path().join("notify")).unwrap(), files }
    }

    fn start(&self, config: &str, watchdog_us: &str) -> Proxy {
        let socket = self.files.path().join("notify");
        Proxy::start_with(config, &[("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", watchdog_us)])
    }

    /// The next thing said that holds all of `words`.
    async fn hears(&self, words: &[&str]) -> String {
        within(&words.join(", "), async {
            loop {
                let mut said = [0; 4096];
                let length = self.socket.recv(&mut said).await.unwrap();
                let said = String::from_utf8_lossy(&said[..length]).into_owned();
                if words.iter().all(|word| said.contains(word)) {
                    return said;
                }
            }
        })
        .await
    }
}

#[tokio::test]
async fn a_service_manager_hears_that_we_are_ready_alive_and_what_we_do() {
    let manager = Manager::listen();
    let proxy = manager.start("", "200000");
    let ready = manager.hears(&["READY=1"]).await;
    assert_eq!(ready, "READY=1\nSTATUS=serving: 0 pipes holding 0 bytes, 0 of 0 backends eligible\n");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    manager.hears(&["WATCHDOG=1", "STATUS=serving: 1 pipes", "1 of 1 backends eligible"]).await;
}

#[tokio::test]
async fn st_09_a_stop_asks_for_time_while_it_lasts_and_a_second_signal_ends_it() {
    let manager = Manager::listen();
    let mut proxy = manager.start("[server]\nshutdown_grace = \"10m\"\nclose_spread = \"0s\"\n", "200000");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut willing = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(willing.exchange("hello").await, "hello");
    // never answers anything, not even a close frame
    let stuck = Wire::connect(proxy.public, "/ws/s1/echo", &[]).await;
    proxy.signal(Signal::TERM);
    manager.hears(&["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=stopping"]).await;
    assert!(matches!(willing.hear().await, Said::Close(1001, _)));
    assert_eq!(willing.hear().await, Said::Gone);
    for _ in 0..2 {
        manager.hears(&["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=stopping: 1 pipes"]).await;
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await.code(), Some(0));
    let report = proxy.logged("stopped", 1).await.remove(0);
    assert_eq!((&report["closed"], &report["failed"]), (&json!(1), &json!(1)), "{report}");
    drop(stuck);
}

#[tokio::test]
async fn st_09_who_connects_during_a_stop_is_refused_and_not_left_waiting() {
    let mut proxy = Proxy::start("[server]\nclose_spread = \"0s\"\n");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let stuck = Wire::connect(proxy.public, "/ws/s1/echo", &[]).await;
    proxy.signal(Signal::TERM);
    proxy.logged("stopping", 1).await;
    eventually("a refusal", async || {
        // one that comes with the signal may still be taken by the kernel, and reset
        let connected = TcpStream::connect(proxy.public).await;
        connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    assert_eq!(ask(proxy.admin, "GET", "/health/ready", &[], "").await.status, 503, "the admin API still answers");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await.code(), Some(0));
    drop(stuck);
}

#[tokio::test]
async fn st_09_a_client_whose_handshake_is_on_its_way_is_told_1001_too() {
    let mut proxy = Proxy::start("[server]\nclose_spread = \"0s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let address = proxy.public;
    let client = tokio::spawn(async move { Client::connect(address, "/ws").await.hear().await });
    let knock = worker.knock().await;
    proxy.signal(Signal::TERM);
    proxy.logged("stopping", 1).await;
    let mut wire = knock.upgrade().await;
    assert!(matches!(wire.hear().await, Said::Close(1001, _)));
    wire.close(1001, "").await;
    assert_eq!(within("1001", client).await.unwrap(), Said::Close(1001, "server is going away".into()));
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert_eq!(proxy.logged("stopped", 1).await[0]["closed"], 1);
}

/// A shell that gives its stdin and stdout to the program as the sockets called `names`, as systemd would.
fn handing_over(sockets: [OwnedFd; 2], names: &str) -> Command {
    let script = r#"exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_PID=$$; exec "$0" "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_holdline")]);
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    let [first, second] = sockets.map(Stdio::from);
    command.stdin(first).stdout(second);
    command
}

#[tokio::test]
async fn sockets_of_a_service_manager_take_the_place_of_our_own() {
    let files = tempfile::tempdir().unwrap();
    let (public, path) = (TcpListener::bind("127.0.0.1:0").unwrap(), files.path().join("admin.sock"));
    let (admin, address) = (UnixListener::bind(&path).unwrap(), public.local_addr().unwrap());
    let worker = DemoWorker::start("w", &[]);
    let config =
        format!("[[pools]]\nname = \"default\"\nbackends = [{{ id = \"w\", url = \"ws://{}\" }}]\n", worker.address);
    // a client connects before there is a process, and is served once there is one
    let early = tokio::spawn(async move { Client::connect(address, "/ws/s1/echo").await.exchange("early").await });
    let sockets = [public.try_clone().unwrap().into(), admin.try_clone().unwrap().into()];
    let mut proxy = Proxy::start_by(handing_over(sockets, "public:admin"), &config);
    assert_eq!(proxy.public, address);
    assert_eq!(within("the early one", early).await.unwrap(), "early");
    let target = format!("unix:{}", path.display());
    let health = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["healthcheck", "--admin", &target]).output();
    assert_eq!(String::from_utf8_lossy(&health.unwrap().stdout), "ready\n");
    let drained = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["ctl", "--admin", &target, "drain"]).output();
    assert!(drained.unwrap().status.success());
    for (more, code) in [(&[][..], 1), (&["--live"], 0)] {
        let check =
            Command::new(env!("CARGO_BIN_EXE_holdline")).args(["healthcheck", "--admin", &target]).args(more).output();
        assert_eq!(check.unwrap().status.code(), Some(code), "{more:?}: a proxy that is not ready is not dead");
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(path.exists(), "the file is the service manager's");
    // a client that comes between two processes waits for the next one
    TcpStream::connect(address).await.unwrap();
}

async fn refusal(sockets: [OwnedFd; 2], names: &str) -> String {
    let mut command = tokio::process::Command::from(handing_over(sockets, names));
    let process = command.arg("serve").stderr(Stdio::piped()).spawn().unwrap();
    let ended: Output = within("an exit", process.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    String::from_utf8(ended.stderr).unwrap()
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_refused_with_what_to_do() {
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let open = || OwnedFd::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let deaf = || OwnedFd::from(socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap());
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    for (sockets, names, said) in [
        ([tcp(), tcp()], "public:holdline.socket", "FileDescriptorName="),
        ([tcp(), tcp()], "admin:admin", "two sockets"),
        ([tcp(), open()], "public:admin", "admin.tokens_file"),
        ([deaf(), tcp()], "public:admin", "does not listen"),
        ([udp(), tcp()], "public:admin", "socket 1"),
    ] {
        let stderr = refusal(sockets, names).await;
        assert!(stderr.contains(said), "{names}: {stderr}");
    }
}
