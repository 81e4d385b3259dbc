//! A proxy process, raw backends and raw clients. Every wait ends with the awaited thing or, much later, in a panic.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// When a wait has failed; never reached in a good run.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const BASE: &str = "[log]\nformat = \"json\"\nlevel = \"debug\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";

/// A running `holdline serve`; killed when dropped.
pub struct Proxy {
    child: Child,
    /// Where clients connect; of a proxy that speaks TLS, a port that goes on to it by TLS.
    pub public: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// What serves that port.
    _tunnel: Option<Runtime>,
    _directory: tempfile::TempDir,
}

/// Where a process listens, as its log says.
#[derive(Default)]
struct Listening {
    public: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Listening {
    fn hear(&mut self, entry: &serde_json::Value) {
        let address = entry["address"].as_str().and_then(|address| address.parse().ok());
        match (entry["listener"].as_str(), entry["tls"] == true) {
            (Some("public"), false) => self.public = address,
            (Some("public"), true) => self.tls = address,
            (Some("admin"), _) => self.admin = address,
            _ => {}
        }
    }
}

impl Proxy {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more configuration; `[server]` lines come first, tables may follow.
    pub fn with(server: &str) -> Self {
        Self::launch("", server, None)
    }

    /// One whose clients come as they are, and one whose clients come by TLS.
    pub fn both_ways() -> [Self; 2] {
        [Self::start(), Self::secured()]
    }

    /// With clients that come by TLS.
    pub fn secured() -> Self {
        Self::by_tls("", &[])
    }

    /// With clients that come by TLS and speak HTTP/2 there.
    pub fn multiplexed() -> Self {
        Self::by_tls("http2 = true\n", &["h2"])
    }

    fn by_tls(server: &str, protocols: &[&str]) -> Self {
        let (files, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let own = CertificateParams::new(vec![SECURED_NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        let [cert, its_key] = ["own.pem", "own.key"].map(|name| files.path().join(name));
        std::fs::write(&cert, pem("CERTIFICATE", own.der())).unwrap();
        std::fs::write(&its_key, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        let tls =
            format!("tls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{{ cert = {cert:?}, key = {its_key:?} }}]");
        let (mut proxy, listening) = Self::run("", &format!("{server}{tls}"), None);
        let (address, runtime) = tunnel(listening.tls.unwrap(), own.der(), protocols);
        (proxy.public, proxy._tunnel) = (address, Some(runtime));
        proxy
    }

    /// With more configuration of the admin API.
    pub fn guarded(admin: &str) -> Self {
        Self::launch(admin, "", None)
    }

    /// With at most so many descriptors.
    pub fn limited(server: &str, descriptors: u32) -> Self {
        Self::launch("", server, Some(descriptors))
    }

    fn launch(admin: &str, server: &str, descriptors: Option<u32>) -> Self {
        Self::run(admin, server, descriptors).0
    }

    fn run(admin: &str, server: &str, descriptors: Option<u32>) -> (Self, Listening) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("proxy.toml");
        std::fs::write(&config, format!("{BASE}{admin}\n[server]\nlisten = [\"127.0.0.1:0\"]\n{server}\n")).unwrap();
        let limit = descriptors.map_or(String::new(), |count| format!("ulimit -n {count} && "));
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" serve -c \"$1\""), env!("CARGO_BIN_EXE_holdline")])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut listening, secured) = (Listening::default(), server.contains("tls.listen"));
        let log = Arc::new(Mutex::new(Vec::new()));
        while listening.public.is_none() || listening.admin.is_none() || listening.tls.is_some() != secured {
            let line = lines.next().expect("it says where it listens before it ends").unwrap();
            listening.hear(&serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")));
            log.lock().unwrap().push(line);
        }
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let (public, admin) = (listening.public.unwrap(), listening.admin.unwrap());
        (Self { child, public, admin, log, _tunnel: None, _directory: directory }, listening)
    }

    /// Registers a backend, for good.
    pub fn register(&self, address: SocketAddr) {
        let body = format!("{{\"url\":\"ws://{address}\"}}");
        let (status, answer) = self.admin("POST", "/v1/backends", &[("Content-Type", "application/json")], &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// One request to the admin API, with `headers` beside Host and Content-Length.
    pub fn admin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut client = Raw::to(self.admin);
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request += &format!("Host: {}\r\n", self.admin);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        client.send(format!("{request}Content-Length: {}\r\n\r\n{body}", body.len()));
        let (status, head) = client.head();
        (status, head + &String::from_utf8_lossy(&client.rest()))
    }

    pub fn metrics(&self) -> String {
        self.admin("GET", "/metrics", &[], "").1
    }

    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The process still runs, and nothing that happened was an error of ours.
    pub fn assert_sound(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "holdline has ended: {:?}", self.log());
        assert_eq!(self.admin("GET", "/health/live", &[], "").0, 200);
        for line in self.log() {
            assert!(!line.contains("\"ERROR\""), "{line}");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a proxy that speaks TLS is called.
const SECURED_NAME: &str = "app.example";

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A port whose connections go on to `to` by TLS, where `certificate` is shown and one of `protocols` is agreed on, for as
/// long as the runtime is there.
fn tunnel(to: SocketAddr, certificate: &CertificateDer<'static>, protocols: &[&str]) -> (SocketAddr, Runtime) {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(to).await.unwrap();
                let mut secured = connector.connect(SECURED_NAME.try_into().unwrap(), stream).await.unwrap();
                // An end that breaks breaks the other.
                let _ = copy_bidirectional(&mut plain, &mut secured).await;
            });
        }
    });
    (address, runtime)
}

/// The rhythm of a slow writer.
const BETWEEN_BYTES: Duration = Duration::from_millis(40);

/// Writes a byte at a time, and listens in between, until the peer has had enough; how long it took.
pub fn drip(peer: &Raw, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = peer.stream();
    stream.set_read_timeout(Some(BETWEEN_BYTES)).unwrap();
    for byte in bytes.iter().cycle() {
        assert!(began.elapsed() < PATIENCE, "it is still listened to");
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        match stream.read(&mut [0; 1024]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    began.elapsed()
}

/// Waits for what nothing announces, such as a count in another process.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        std::thread::yield_now();
    }
}

/// A listener that gives each connection that says something to a script of ours.
pub struct Backend {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
}

impl Backend {
    /// `script` gets each connection behind its request head, with the head and the connection's number from 0.
    pub fn start(script: impl Fn(Raw, &str, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, accepted) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (kept, count, script) = (heads.clone(), accepted.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, SeqCst);
                let (kept, script) = (kept.clone(), script.clone());
                std::thread::spawn(move || {
                    let mut peer = Raw::new(stream);
                    // A health probe says nothing and leaves.
                    let Some(head) = peer.try_head() else { return };
                    let number = {
                        let mut heads = kept.lock().unwrap();
                        heads.push(head.clone());
                        heads.len() - 1
                    };
                    script(peer, &head, number);
                });
            }
        });
        Self { address, heads, accepted }
    }

    /// Upgrades every client and sends every frame back as it came, unmasked.
    pub fn echo() -> Self {
        Self::start(|mut peer, head, _| {
            peer.upgrade(head);
            peer.echo();
        })
    }

    /// Answers every request with these bytes and keeps reading until the peer leaves.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |mut peer, _, _| {
            peer.send(&answer);
            peer.rest();
        })
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// TCP connections, health probes included.
    pub fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

/// A socket with just enough HTTP and WebSocket to break both.
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    pub fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// How much came that was not asked for yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Sends; a peer that has gone meanwhile is what some tests wait for.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Nothing has come that was not read, and nothing waits in the socket.
    pub fn assert_silent(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_nonblocking(false).unwrap();
        assert!(self.buffer.is_empty(), "{:?}", self.buffer);
        assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{read:?}");
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("waited for the peer in vain: {error}"),
        }
    }

    pub fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(head.iter().map(|&byte| char::from(byte)).collect());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The status and the whole head of an answer.
    pub fn head(&mut self) -> (u16, String) {
        let head = self.try_head().expect("an answer's head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head)
    }

    /// A body of the length that `head` tells.
    pub fn body(&mut self, head: &str) -> Vec<u8> {
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
        let length: usize = length.trim().parse().unwrap();
        while self.buffer.len() < length {
            assert!(self.fill(), "the body is cut");
        }
        self.buffer.drain(..length).collect()
    }

    /// The next bytes, so many; nothing when the connection ends before.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill() {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Everything until the peer closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// The next frame's first byte and its payload, unmasked if need be; `None` when the connection ends instead.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut need = 2;
        loop {
            while self.buffer.len() < need {
                if !self.fill() {
                    return None;
                }
            }
            let masked = self.buffer[1] & 0x80 != 0;
            let (length, mut at) = match self.buffer[1] & 0x7f {
                126 if self.buffer.len() < 4 => {
                    need = 4;
                    continue;
                }
                126 => (usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]])), 4),
                127 if self.buffer.len() < 10 => {
                    need = 10;
                    continue;
                }
                127 => (u64::from_be_bytes(self.buffer[2..10].try_into().unwrap()) as usize, 10),
                length => (usize::from(length), 2),
            };
            let whole = at + length + if masked { 4 } else { 0 };
            if self.buffer.len() < whole {
                need = whole;
                continue;
            }
            let mut mask = [0; 4];
            if masked {
                mask.copy_from_slice(&self.buffer[at..at + 4]);
                at += 4;
            }
            let payload =
                (self.buffer[at..whole].iter().zip(mask.iter().cycle())).map(|(byte, key)| byte ^ key).collect();
            let first = self.buffer[0];
            self.buffer.drain(..whole);
            return Some((first, payload));
        }
    }

    /// The next frame that is no ping; pings are answered (`masked` as a client does).
    pub fn talk(&mut self, masked: bool) -> Option<(u8, Vec<u8>)> {
        loop {
            let (first, payload) = self.frame()?;
            match first & 0x0f {
                9 => {
                    self.send(frame(0x8a, &payload, masked));
                }
                10 => {}
                _ => return Some((first, payload)),
            }
        }
    }

    /// The code of the close frame that comes, other frames before it skipped; `None` for an end without one.
    pub fn close_code(&mut self, masked: bool) -> Option<u16> {
        loop {
            let (first, payload) = self.talk(masked)?;
            if first & 0x0f == 8 {
                return Some(payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]])));
            }
        }
    }

    /// Answers a handshake's head with a proper 101.
    pub fn upgrade(&mut self, head: &str) {
        self.send(switching(head, ""));
    }

    /// Sends every data frame back until the peer leaves, and answers its close.
    pub fn echo(&mut self) {
        while let Some((first, payload)) = self.talk(false) {
            self.send(frame(first, &payload, false));
            if first & 0x0f == 8 {
                return;
            }
        }
    }
}

/// A proper 101 to `head`, with more header lines.
pub fn switching(head: &str, more: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key).next();
    let accept = derive_accept_key(key.expect("a key").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// A frame; masked as a client does with a key that is not zero.
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(mask_bit | length as u8),
        length @ 126..=65535 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x5a, 0x01, 0xc3, 0x77];
        out.extend_from_slice(&key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

/// A proper handshake for `path`, with more header lines (each ending in CRLF).
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: app.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// A client with its 101 behind it.
pub fn connected(proxy: &Proxy) -> Raw {
    let mut client = Raw::to(proxy.public);
    client.send(handshake("/ws/x", ""));
    let (status, head) = client.head();
    assert_eq!(status, 101, "{head}");
    client
}
