//! A reader of the log that stands still: pipes and answers go on, and what is missing is said.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::metrics::Metrics;
use crate::harness::{StepWorker, Wire, ask, eventually};

/// A proxy whose log is read only as far as its test reads it.
struct Unread {
    child: Child,
    stderr: BufReader<ChildStderr>,
    public: SocketAddr,
    admin: SocketAddr,
    _files: tempfile::TempDir,
}

impl Unread {
    fn start(config: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("proxy.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdline"))
            .args(["serve", "-c"])
            .arg(&file)
            .env("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#)
            .env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0")
            .env("HOLDLINE_LOG__FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::with_capacity(1024, child.stderr.take().unwrap());
        let mut address = |listener: &str| loop {
            let record = record(&mut stderr).expect("it says where it listens");
            if record["listener"] == listener {
                return record["address"].as_str().unwrap().parse().unwrap();
            }
        };
        let (public, admin) = (address("public"), address("admin"));
        Self { child, stderr, public, admin, _files: files }
    }

    async fn dropped(&self) -> f64 {
        Metrics::parse(&ask(self.admin, "GET", "/metrics", &[], "").await.expect(200).text())
            .sum("log_dropped_total", &[])
    }

    /// Has the process stop, and reads all that it has said.
    fn read_to_the_end(mut self) -> (Vec<Value>, bool) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let records: Vec<Value> = std::iter::from_fn(|| record(&mut self.stderr)).collect();
        (records, self.child.wait().unwrap().success())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn record(stderr: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    (stderr.read_line(&mut line).unwrap() > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
}

#[tokio::test]
async fn a_log_that_is_not_read_holds_up_no_pipe_and_says_later_what_is_missing() {
    let proxy = Unread::start("[log]\nqueue_bytes_max = \"64KiB\"\naccess = \"json\"\n[limits]\naddress_rate = 0\n");
    let worker = StepWorker::start().await;
    let body = format!(r#"{{"url":"ws://{}"}}"#, worker.address);
    ask(proxy.admin, "PUT", "/v1/backends/w", &[("content-type", "application/json")], body).await.expect(201);
    let (mut client, mut served) = tokio::join!(Wire::connect(proxy.public, "/before", &[]), worker.accept());
    // Each answer is a line of the access log: the pipe to us is full after some hundred, the queue soon after.
    let mut asked = 0;
    eventually("a dropped record", async || {
        for _ in 0..50 {
            ask(proxy.public, "POST", "/nowhere", &[("upgrade", "websocket")], "").await.expect(405);
            asked += 1;
        }
        (proxy.dropped().await > 0.0).then_some(())
    })
    .await;
    client.text("still there").await;
    assert_eq!(served.hear().await.text(), "still there");
    let _after = tokio::join!(Wire::connect(proxy.public, "/after", &[]), worker.accept());
    ask(proxy.admin, "GET", "/health/live", &[], "").await.expect(200);
    let dropped = proxy.dropped().await;
    let (records, ended_well) = proxy.read_to_the_end();
    assert!(ended_well);
    let missing: Vec<_> = records.iter().filter(|record| record["dropped"].is_u64()).collect();
    let told: u64 = missing.iter().map(|record| record["dropped"].as_u64().unwrap()).sum();
    assert!(told as f64 >= dropped, "{dropped} were dropped, {told} are said to be missing after {asked} requests");
    assert!(missing.iter().all(|record| record["level"] == "WARN"), "{missing:?}");
    assert_eq!(records.last().unwrap()["message"], "stopped", "the last record is written before the end");
}
