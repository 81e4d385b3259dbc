//! `holdline agent` as a process, and a box in the middle that forgets idle flows.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Proxy, eventually, within};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    said: watch::Receiver<Vec<String>>,
    reader: JoinHandle<()>,
}

impl Agent {
    /// An agent that dials in at `to` for the worker at `forward`, as `id`, with more arguments.
    pub fn start(to: &str, forward: &str, id: &str, more: &[&str]) -> Self {
        Self::start_with(to, forward, id, more, &[])
    }

    /// The same with more environment.
    pub fn start_with(to: &str, forward: &str, id: &str, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["agent", "--to", to, "--forward", forward, "--id", id]).args(more);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (say, said) = watch::channel(Vec::new());
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                say.send_modify(|said: &mut Vec<String>| said.push(line));
            }
        });
        Self { child, said, reader }
    }

    /// The same for an agent of this proxy's.
    pub fn of(proxy: &Proxy, forward: SocketAddr, id: &str) -> Self {
        Self::start(&format!("http://{}", proxy.attach), &forward.to_string(), id, &[])
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap() as i32).unwrap(), signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) {
        within("the end of a killed agent", self.child.kill()).await.unwrap();
    }

    /// Its exit code and what it said.
    pub async fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = within("the end of the agent", self.child.wait()).await.unwrap();
        within("the end of what it says", self.reader).await.unwrap();
        (status.code(), self.said.borrow().clone())
    }

    /// Waits until it says this.
    pub async fn says(&mut self, what: &str) {
        let found = self.said.wait_for(|said| said.iter().any(|line| line.contains(what)));
        drop(within(what, found).await.unwrap());
    }
}

/// The backend `id`, once it fits.
pub async fn backend_that(proxy: &Proxy, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let reply = proxy.api("GET", &format!("/v1/backends/{id}"), None).await;
        (reply.status == 200).then(|| reply.json()).filter(&fits)
    })
    .await
}

/// The backend `id`, once it may get pipes and has so many connections parked, or more.
pub async fn parked(proxy: &Proxy, id: &str, least: u64) -> Value {
    let what = format!("{id} has {least} connections parked");
    let has = |backend: &Value| backend["parked"].as_u64() >= Some(least);
    backend_that(proxy, id, &what, |backend| backend["eligible"] == true && has(backend)).await
}

/// A box in the middle: a flow on which no byte has come for a while is forgotten, and neither end is told.
#[derive(Debug)]
pub struct MiddleBox {
    pub address: SocketAddr,
    pub forgotten: Arc<AtomicUsize>,
    pub flows: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl MiddleBox {
    /// Passes on to `to`, and forgets what is idle for `patience`.
    pub async fn start(to: SocketAddr, patience: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (forgotten, flows) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (forgets, counts) = (forgotten.clone(), flows.clone());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                counts.fetch_add(1, Relaxed);
                passing.spawn(pass(from, to, patience, forgets.clone()));
            }
        });
        Self { address, forgotten, flows, _accepting: accepting }
    }
}

async fn pass(mut from: TcpStream, to: SocketAddr, patience: Duration, forgotten: Arc<AtomicUsize>) {
    let Ok(mut to) = TcpStream::connect(to).await else { return };
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        let read = tokio::select! {
            read = from.read(&mut up) => (read, true),
            read = to.read(&mut down) => (read, false),
            () = tokio::time::sleep(patience) => {
                forgotten.fetch_add(1, Relaxed);
                // both ends stay open, and nothing passes any more
                return std::future::pending().await;
            }
        };
        let written = match read {
            (Ok(bytes @ 1..), true) => to.write_all(&up[..bytes]).await,
            (Ok(bytes @ 1..), false) => from.write_all(&down[..bytes]).await,
            (Ok(0) | Err(_), _) => return,
        };
        if written.is_err() {
            return;
        }
    }
}
