//! `holdline run`: a worker that something else starts, registered while it lives.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{Client, Proxy, eventually, within};

const ID: &str = "r1";

/// A demo worker under `holdline run`, with more arguments for that.
struct Run {
    child: Child,
    said: tokio::task::JoinHandle<Vec<String>>,
}

impl Run {
    fn start(proxy: &Proxy, more: &[&str], command: &[&str]) -> Self {
        let mut run = Command::new(env!("CARGO_BIN_EXE_holdline"));
        run.args(["run", "--pool", "default", "--id", ID, "--lease", "1s"]).args(more).arg("--").args(command);
        run.env("HOLDLINE_ADMIN", proxy.admin.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = run.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = tokio::spawn(async move {
            let mut said = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                said.push(line);
            }
            said
        });
        Self { child, said }
    }

    fn demo(proxy: &Proxy, more: &[&str]) -> Self {
        let own = env!("CARGO_BIN_EXE_holdline");
        let listen = ["--listen", "127.0.0.1:{port}", "--size", "160x160", "--command-ms", "0"];
        Self::start(proxy, more, &[&[own, "worker"], &listen[..]].concat())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap() as i32).unwrap(), signal).unwrap();
    }

    /// Its exit code and what it said.
    async fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = within("the end of holdline run", self.child.wait()).await.unwrap();
        (status.code(), within("the end of what it says", self.said).await.unwrap())
    }
}

async fn eligible(proxy: &Proxy) {
    eventually("the worker is registered", async || {
        let reply = proxy.api("GET", &format!("/v1/backends/{ID}"), None).await;
        (reply.status == 200 && reply.json()["eligible"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_is_registered_while_it_lives_and_drained_before_it_is_stopped() {
    let proxy = Proxy::start("");
    let first = Run::demo(&proxy, &["--label", "rack=7", "--serves", "s1", "--serves", "s2=other"]);
    eligible(&proxy).await;
    let backend = proxy.get(&format!("/v1/backends/{ID}")).await;
    assert_eq!((&backend["labels"]["rack"], &backend["serves"]["s2"]), (&json!("7"), &json!("other")), "{backend}");
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    let second = crate::harness::DemoWorker::start("second", &[]);
    proxy.register("second", second.address).await;
    first.signal(Signal::TERM);
    let (code, said) = first.ended().await;
    assert_eq!(code, Some(0), "{said:#?}");
    let place =
        |what: &str| said.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {said:#?}"));
    assert!(place("drained") < place("withdrawn") && place("withdrawn") < place("worker stops"), "{said:#?}");
    assert_eq!(client.exchange("moved").await, "moved");
    proxy.api("GET", &format!("/v1/backends/{ID}"), None).await.expect(404);
}

#[tokio::test]
async fn a_worker_that_was_forgotten_registers_again() {
    let proxy = Proxy::start("");
    let run = Run::demo(&proxy, &[]);
    eligible(&proxy).await;
    let deleted = proxy.api("DELETE", &format!("/v1/backends/{ID}"), Some(json!({}))).await;
    assert_eq!(deleted.status, 204);
    eligible(&proxy).await;
    drop(run);
}

#[tokio::test]
async fn a_worker_that_ends_by_itself_is_withdrawn_and_its_exit_code_is_passed_on() {
    let proxy = Proxy::start("");
    let run = Run::demo(&proxy, &[]);
    eligible(&proxy).await;
    let url = proxy.get(&format!("/v1/backends/{ID}")).await["url"].as_str().unwrap().to_owned();
    let address = url.trim_start_matches("ws://").parse().unwrap();
    crate::harness::ask(address, "POST", "/__term", &[], "").await;
    let (code, said) = run.ended().await;
    assert_eq!(code, Some(0), "{said:#?}");
    assert!(said.iter().any(|line| line.contains("has ended by itself")), "{said:#?}");
    eventually("it is withdrawn", async || {
        (proxy.api("GET", &format!("/v1/backends/{ID}"), None).await.status == 404).then_some(())
    })
    .await;
    let failing = Run::start(&proxy, &[], &["sh", "-c", "exit 7"]).ended().await;
    assert_eq!(failing.0, Some(7), "{:#?}", failing.1);
}

#[tokio::test]
async fn what_cannot_be_run_or_does_not_listen_is_said() {
    let proxy = Proxy::start("");
    let (code, said) = Run::start(&proxy, &[], &["/no/such/worker"]).ended().await;
    assert_eq!(code, Some(1));
    assert!(said.concat().contains("cannot run \"/no/such/worker\": No such file or directory"), "{said:?}");
    let deaf = Run::start(&proxy, &["--start-timeout", "300ms", "--port", "18"], &["sleep", "1000"]);
    let (code, said) = deaf.ended().await;
    assert_eq!(code, Some(1));
    assert!(said.concat().contains("the worker does not listen at 127.0.0.1:18 within 300ms"), "{said:?}");
}

#[tokio::test]
async fn a_port_that_another_process_has_is_said_and_that_one_is_not_registered() {
    let proxy = Proxy::start("");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let (code, said) = Run::start(&proxy, &["--port", &port], &["sleep", "1000"]).ended().await;
    assert_eq!(code, Some(1));
    let expected = format!("port {port} is in use by another process; name another with --port, or leave it out");
    assert!(said.concat().contains(&expected), "{said:?}");
    proxy.api("GET", &format!("/v1/backends/{ID}"), None).await.expect(404);
}

#[tokio::test]
async fn no_command_outlives_a_run_that_was_killed_nor_does_what_it_has_started() {
    let proxy = Proxy::start("");
    let own = env!("CARGO_BIN_EXE_holdline");
    let demo = format!("'{own}' worker --listen 127.0.0.1:$PORT --size 160x160");
    let script = format!("sh -c \"{demo} & wait\" & wait");
    let mut run = Run::start(&proxy, &[], &["sh", "-c", &script]);
    eligible(&proxy).await;
    let url = proxy.get(&format!("/v1/backends/{ID}")).await["url"].as_str().unwrap().to_owned();
    run.signal(Signal::KILL);
    within("its end", run.child.wait()).await.unwrap();
    let address = url.trim_start_matches("ws://");
    eventually("the port is free", async || std::net::TcpListener::bind(address).ok().map(drop)).await;
}
