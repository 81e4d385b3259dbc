//! Supervised workers that fail in every way, and what is left of them.

use std::net::TcpListener;
use std::process::{Command, Output};

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::harness::crew::{demo, gone, group, pid, ports, settled, shell, workers};
use crate::harness::{Client, Proxy, Said, eventually};

/// The command of a demo worker as a shell writes it.
fn demo_in_shell() -> String {
    let words: Vec<String> = serde_json::from_str(&demo(&[])).unwrap();
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// A script as one word of another.
fn shell_quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

#[tokio::test]
async fn px_02_workers_that_crash_again_and_again_are_a_loop_that_is_told_and_not_a_busy_one() {
    let script = "echo it went wrong >&2; exit 3";
    let proxy = Proxy::start(&group(&shell(script), "restart_backoff = \"10ms..200ms\""));
    let event = proxy.event_of(0, "worker.crash_loop").await;
    assert_eq!((&event["worker"], &event["failures"]), (&json!("w-1"), &json!(5)), "{event}");
    let exited = proxy.event_of(0, "worker.exited").await;
    assert_eq!((&exited["status"], &exited["expected"]), (&json!("exit status 3"), &json!(false)), "{exited}");
    let said = proxy.logged("worker.output", 1).await.remove(0);
    assert_eq!(
        (&said["worker"], &said["stream"], &said["line"]),
        (&json!("w-1"), &json!("stderr"), &json!("it went wrong"))
    );
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("worker_crash_loops_total", &[("group", "w")]), 1.0);
    assert!(metrics.sum("worker_failures_total", &[("group", "w"), ("reason", "exited")]) >= 5.0);
    eventually("the next one waits", async || {
        let workers = workers(&proxy).await;
        (workers[0]["state"] == "waiting" && workers[0]["retry_at"].is_string()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed_with_all_that_it_has_started() {
    let script = format!("trap '' TERM; {} & while :; do sleep 1; done", demo_in_shell());
    let proxy = Proxy::start(&group(&shell(&script), "stop_timeout = \"300ms\""));
    let worker = settled(&proxy, "serving", 1).await.remove(0);
    proxy.api("PATCH", "/v1/workers/w", Some(json!({ "count": 0 }))).await.expect(200);
    proxy.event_of(0, "worker.killed").await;
    gone(pid(&worker)).await;
}

#[tokio::test]
async fn a_child_that_a_worker_leaves_behind_ends_with_it() {
    let script = format!("sleep 1000 & exec {}", demo_in_shell());
    let proxy = Proxy::start(&group(&shell(&script), ""));
    let worker = settled(&proxy, "serving", 1).await.remove(0);
    proxy.api("POST", "/v1/workers/w-1/recycle", Some(json!({}))).await.expect(202);
    gone(pid(&worker)).await;
    assert_ne!(settled(&proxy, "serving", 1).await[0]["pid"], worker["pid"]);
}

#[tokio::test]
async fn a_replacement_that_never_gets_ready_leaves_the_old_one_and_its_pipes_where_they_are() {
    let config = group(&demo(&[]), "restart_backoff = \"50ms..100ms\"");
    let proxy = Proxy::start(&config);
    let old = settled(&proxy, "serving", 1).await.remove(0);
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    let broken = config.replace(&demo(&[]), "[\"sleep\", \"1000\"]");
    proxy.rewrite(&format!("{broken}start_timeout = \"300ms\"\n"));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    let first = proxy.event_of(0, "worker.not_ready").await;
    proxy.event_of(first["seq"].as_u64().unwrap(), "worker.not_ready").await;
    assert_eq!(client.exchange("still there").await, "still there");
    let serving: Vec<_> = workers(&proxy).await.into_iter().filter(|worker| worker["state"] == "serving").collect();
    assert_eq!((serving.len(), &serving[0]["pid"]), (1, &old["pid"]));
    // What was wrong is mended, and the replacement goes on.
    proxy.rewrite(&config.replace("\"--command-ms\", \"0\"", "\"--command-ms\", \"1\""));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    gone(pid(&old)).await;
    assert_eq!(client.exchange("on the next").await, "on the next");
}

#[tokio::test]
async fn no_worker_outlives_a_proxy_that_was_killed_nor_does_a_grandchild() {
    // The one that listens is started by a child of the process that Holdline has started.
    let inner = shell_quoted(&format!("{} & sleep 1000 & wait", demo_in_shell()));
    let script = format!("sleep 1000 & sh -c {inner} & wait");
    let mut proxy = Proxy::start(&group(&shell(&script), "count = 2"));
    let workers = settled(&proxy, "serving", 2).await;
    proxy.signal(Signal::KILL);
    proxy.exited().await;
    for worker in &workers {
        gone(pid(worker)).await;
        let address = worker["url"].as_str().unwrap().strip_prefix("ws://").unwrap();
        eventually("its port is free", async || TcpListener::bind(address).ok().map(drop)).await;
    }
}

#[tokio::test]
async fn a_shutdown_closes_clients_first_and_ends_the_workers_then() {
    let mut proxy = Proxy::start(&format!("[server]\nclose_spread = \"0s\"\n{}", group(&demo(&[]), "")));
    let worker = settled(&proxy, "serving", 1).await.remove(0);
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    proxy.signal(Signal::TERM);
    assert!(matches!(client.hear().await, Said::Close(1001, _)));
    assert_eq!(client.hear().await, Said::Gone);
    assert_eq!(proxy.exited().await.code(), Some(0));
    gone(pid(&worker)).await;
    let log = proxy.log();
    let place = |what: &str| log.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}"));
    assert!(place("pipe.close") < place("worker.exited"), "{log:#?}");
    let exited = proxy.records("worker.exited").remove(0);
    assert_eq!((&exited["expected"], &exited["status"]), (&json!(true), &json!("exit status 0")), "{exited}");
}

#[tokio::test]
async fn ports_that_are_all_in_use_are_named() {
    let config = group(&demo(&[]), "restart_backoff = \"1h..1h\"");
    let range = config.split("ports = \"").nth(1).unwrap().split('"').next().unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
    let _all: Vec<_> = (first..=last).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
    let proxy = Proxy::start(&config);
    let event = proxy.event_of(0, "worker.start_failed").await;
    let expected = format!("no port of {range} is free: each is in use by another worker or by another process");
    assert_eq!(event["error"], expected);
    assert_eq!(proxy.metrics().await.sum("worker_failures_total", &[("reason", "not_started")]), 1.0);
}

#[tokio::test]
async fn a_command_that_is_gone_when_it_is_started_again_is_named_at_each_try() {
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("worker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_holdline"), &program).unwrap();
    let command = demo(&[]).replace(env!("CARGO_BIN_EXE_holdline"), program.to_str().unwrap());
    let proxy = Proxy::start(&group(&command, "restart_backoff = \"10ms..50ms\""));
    let worker = settled(&proxy, "serving", 1).await.remove(0);
    std::fs::remove_file(&program).unwrap();
    kill_process(pid(&worker), Signal::KILL).unwrap();
    let first = proxy.event_of(0, "worker.start_failed").await;
    let expected = format!("cannot run {:?}: No such file or directory (os error 2)", program.display().to_string());
    assert_eq!((&first["worker"], &first["error"]), (&json!("w-1"), &json!(expected)));
    proxy.event_of(first["seq"].as_u64().unwrap(), "worker.start_failed").await;
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_holdline"), &program).unwrap();
    settled(&proxy, "serving", 1).await;
}

#[test]
fn a_check_says_that_no_port_of_a_group_is_free_now() {
    let (first, _) = ports();
    let mut taken: Vec<_> = [first, first + 1].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).into();
    let config = format!("[[workers]]\nname = \"w\"\ncommand = [\"sh\"]\nports = \"{first}-{}\"\n", first + 1);
    let said = || {
        let done = check(&config);
        assert_eq!(done.status.code(), Some(0), "the group's own workers may have them: {done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let expected = format!(
        "workers[0].ports: no port of {first}-{} is free now: each is in use by another process, or by a worker of this \
         group that runs; free some, or use others",
        first + 1
    );
    assert!(said().contains(&expected), "{}", said());
    taken.pop();
    assert_eq!(said(), "");
}

fn check(config: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.arg("check").arg("-c").arg(file.path()).output().unwrap()
}

#[test]
fn what_cannot_be_run_is_said_by_a_check() {
    for (group, expected) in [
        ("command = [\"/no/such/worker\"]", "workers[0].command: there is no file \"/no/such/worker\""),
        ("command = [\"no-such-worker\"]", "workers[0].command: there is no command \"no-such-worker\" in PATH"),
        ("command = [\"/etc/passwd\"]", "workers[0].command: \"/etc/passwd\" is not executable"),
        ("command = []", "workers[0].command: names no program"),
        ("command = [\"sh\"]\ncwd = \"/no/such\"", "workers[0].cwd: there is no directory \"/no/such\""),
        ("command = [\"sh\"]\nuser = \"no-such-user\"", "workers[0].user: there is no user"),
        ("command = [\"sh\"]\npool = \"x\"", "workers[0].pool: there is no pool \"x\"; the pools are \"default\""),
        (
            "command = [\"sh\"]\ncount = 3\nports = \"9100-9102\"",
            "workers[0].ports: 9100-9102 has 3 ports, and 4 are needed",
        ),
        (
            "command = [\"sh\"]\nports = \"8000-8100\"",
            "workers[0].ports: 8000 is the port of a listener of this proxy itself",
        ),
        ("command = [\"sh\", \"{socket}\"]", "workers[0].command: {socket} is known only with listen = \"unix\""),
        ("command = [\"sh\"]\nstandby = 1\nreplace = \"after\"", "workers[0].standby: cannot be combined with replace"),
        ("command = [\"sh\"]\nrestart_backoff = \"2s..1s\"", "workers[0].restart_backoff: begins with a longer wait"),
        ("command = [\"sh\"]\nrecycle_jitter = 1.5", "workers[0].recycle_jitter: 1.5 is out of range; use 0 to 1"),
    ] {
        let done = check(&format!("[[workers]]\nname = \"w\"\n{group}\n"));
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{group}: {said}");
        assert!(said.contains(expected), "{group}: {said}");
    }
    let never =
        "[[pools]]\nname = \"default\"\nhealth.interval = \"0s\"\n[[workers]]\nname = \"w\"\ncommand = [\"sh\"]\n";
    let said = String::from_utf8(check(never).stderr).unwrap();
    assert!(said.contains("workers[0].pool: pool \"default\" probes never"), "{said}");
    let fine = check("[[workers]]\nname = \"w\"\ncommand = [\"sh\"]\nlisten = \"fd\"\n");
    assert_eq!(fine.status.code(), Some(0));
    let said = String::from_utf8(fine.stderr).unwrap();
    assert!(said.contains("a \"tcp\" probe of pool \"default\" succeeds before the worker runs"), "{said}");
}

#[tokio::test]
async fn more_output_than_the_log_takes_is_dropped_and_counted_and_a_long_line_is_cut() {
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; seq 5000; exec sleep 1000";
    let proxy = Proxy::start(&group(&shell(script), "start_timeout = \"1h\""));
    let lines = proxy.logged("worker.output", 1000).await;
    assert_eq!((lines[0]["line"].as_str().unwrap().len(), &lines[0]["cut"]), (8192, &json!(true)));
    eventually("what was dropped is counted", async || {
        (proxy.metrics().await.sum("worker_output_dropped_total", &[("group", "w")]) > 3000.0).then_some(())
    })
    .await;
}
