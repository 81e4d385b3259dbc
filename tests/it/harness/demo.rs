//! `holdline worker` as a process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Reply, ask, eventually};

/// A running demo worker.
#[derive(Debug)]
pub struct DemoWorker {
    pub address: SocketAddr,
    process: Child,
}

impl DemoWorker {
    /// A worker called `name` that executes commands at once, unless the arguments say otherwise.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["worker", "--until-stdin-closes", "--name", name]).args(arguments);
        if !arguments.contains(&"--command-ms") {
            command.args(["--command-ms", "0"]);
        }
        if !arguments.contains(&"--size") {
            command.args(["--size", "160x160", "--frame-bytes", "4000"]);
        }
        // its stdin ends with the test, and it with its stdin
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = streams.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        Self { address: line["listening"].as_str().unwrap().parse().unwrap(), process }
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// SIGSTOP, and waits until all of the process stands still.
    pub async fn stop(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.process.id());
        eventually("the worker stands still", async || {
            let mut stats = std::fs::read_dir(&threads).unwrap().map(|thread| {
                // a thread that has just ended stands still too
                std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_else(|_| ") T".into())
            });
            stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))).then_some(())
        })
        .await;
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until the process has exited by itself.
    pub async fn exited(&mut self) {
        eventually("the exit of the worker", async || self.process.try_wait().unwrap()).await;
    }

    /// Turns a knob, such as `freeze?ms=100`.
    pub async fn knob(&self, knob: &str) {
        ask(self.address, "POST", &format!("/__{knob}"), &[], "").await.expect(200);
    }

    /// The journal, once it holds what the query wants (`commands=5`).
    pub async fn journal(&self, query: &str) -> Value {
        let reply: Reply = ask(self.address, "GET", &format!("/__journal?wait_ms=30000&{query}"), &[], "").await;
        reply.expect(200).json()
    }

    /// The numbers of the commands that it has executed, in order, once there are `wanted` of them.
    pub async fn executed(&self, wanted: usize) -> Vec<u64> {
        let journal = self.journal(&format!("commands={wanted}")).await;
        journal["commands"].as_array().unwrap().iter().map(|command| command["n"].as_u64().unwrap()).collect()
    }
}

impl Drop for DemoWorker {
    fn drop(&mut self) {
        // a process that has gone already is as good as killed
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
