//! `holdline ctl` as its users meet it: a process, its output and its exit code.

use std::process::Stdio;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, StepWorker, Wire, eventually, within};

/// What a command said and how it ended.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn fine(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    fn fails(self, code: i32, with: &str) {
        assert!(self.code == code && self.err.contains(with), "{with}: {self:?}");
    }
}

fn command(admin: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.arg("ctl").args(arguments).env("HOLDLINE_ADMIN", admin).env_remove("HOLDLINE_TOKEN");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn finish(mut command: Command) -> Done {
    let ended = within("the end of a command", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: ended.status.code().unwrap(), out: text(ended.stdout), err: text(ended.stderr) }
}

async fn ctl(proxy: &Proxy, arguments: &[&str]) -> Done {
    finish(command(&proxy.admin.to_string(), arguments)).await
}

/// The JSON that a command answers.
async fn json_of(proxy: &Proxy, arguments: &[&str]) -> Value {
    let out = ctl(proxy, &[arguments, &["--json"]].concat()).await.fine();
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[tokio::test]
async fn backends_are_added_changed_drained_and_removed() {
    let proxy = Proxy::start("");
    let worker = DemoWorker::start("w", &[]);
    let url = format!("ws://{}", worker.address);
    let out = ctl(&proxy, &["backends", "add", &url, "--id", "w-1", "--serves", "s1=x"]).await.fine();
    assert_eq!(out, "backend w-1 is in pool default\n");
    let table = ctl(&proxy, &["backends"]).await.fine();
    assert!(table.starts_with("ID   POOL") && table.contains(&url) && table.lines().count() == 2, "{table}");
    let out =
        ctl(&proxy, &["backends", "set", "w-1", "--weight", "3", "--label", "rack=7", "--serves", ""]).await.fine();
    assert_eq!(out, "backend w-1: labels, serves, weight set\n");
    let shown = json_of(&proxy, &["backends", "show", "w-1"]).await;
    assert_eq!((&shown["weight"], &shown["labels"]["rack"]), (&json!(3), &json!("7")), "{shown}");
    assert_eq!(shown["serves"], json!({}), "{shown}");
    let workers = ctl(&proxy, &["workers"]).await.fine();
    assert!(workers.starts_with("ID   POOL     STATE  INSTANCE") && workers.contains("rack"), "{workers}");
    let out = ctl(&proxy, &["backends", "drain", "w-1", "--deadline", "1m"]).await.fine();
    assert!(out.starts_with("backend w-1 is in state drain"), "{out}");
    assert_eq!(json_of(&proxy, &["backends", "list", "--state", "drain"]).await["items"][0]["id"], "w-1");
    assert!(ctl(&proxy, &["backends", "maint", "w-1"]).await.fine().contains("in state maint"));
    assert!(ctl(&proxy, &["backends", "ready", "w-1"]).await.fine().contains("takes pipes"));
    assert_eq!(ctl(&proxy, &["backends", "remove", "w-1"]).await.fine(), "backend w-1: removed\n");
    assert_eq!(ctl(&proxy, &["backends"]).await.fine().lines().count(), 1);
}

#[tokio::test]
async fn pipes_are_shown_spoken_to_moved_and_closed() {
    let proxy = Proxy::start("");
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    proxy.register("a", workers[0].address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    let mut other = Client::connect(proxy.public, "/ws/s2/echo").await;
    assert_eq!(client.exchange("hello").await, "hello");
    let pipes = json_of(&proxy, &["pipes", "list", "--backend", "a"]).await;
    let id = |n: usize| pipes["items"][n]["id"].as_str().unwrap().to_owned();
    let pipe = if pipes["items"][0]["up"]["accepted"] == 1 { id(0) } else { id(1) };
    assert!(ctl(&proxy, &["pipes", "show", &pipe]).await.fine().contains("up.accepted"));
    let out = ctl(&proxy, &["pipes", "label", &pipe, "room=a", "vip", "gone="]).await.fine();
    assert!(out.contains(r#"{"room":"a","vip":""}"#), "{out}");
    let listed = json_of(&proxy, &["pipes", "list", "--label", "room:a"]).await;
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["id"]), (1, &pipe.clone().into()));
    let none = ctl(&proxy, &["broadcast", "--text", "hello", "--label", "room:b"]).await;
    assert_eq!(none.out, "0 of 0 clients reached\n");
    none.fails(1, "no client was told: there is none of that kind");
    let out = ctl(&proxy, &["pipes", "say", &pipe, "--text", "to you"]).await.fine();
    assert_eq!(out, format!("pipe {pipe} has taken it\n"));
    assert_eq!(client.hear().await, Said::Text("to you".into()));
    let out = ctl(&proxy, &["broadcast", "--base64", "AAE=", "--exclude", &pipe]).await.fine();
    assert_eq!(out, "1 of 1 clients reached\n");
    assert_eq!(other.hear().await, Said::Binary(vec![0, 1]));
    proxy.register("b", workers[1].address).await;
    assert!(ctl(&proxy, &["pipes", "move", &pipe]).await.fine().contains("asked to move"));
    proxy.pipe_that("it is on b", |shown| shown["id"] == *pipe && shown["backend"] == "b").await;
    let pools = ctl(&proxy, &["pools"]).await.fine();
    assert!(pools.starts_with("NAME     BALANCE      BACKENDS") && pools.contains("least_pipes"), "{pools}");
    assert!(ctl(&proxy, &["pools", "show", "default"]).await.fine().contains("eligible"));
    assert!(ctl(&proxy, &["pools", "rebalance", "default"]).await.fine().contains("is even already"));
    assert!(
        ctl(&proxy, &["pipes", "close", &pipe, "--code", "4321", "--reason", "go away"]).await.fine().contains("4321")
    );
    assert_eq!(client.hear().await, Said::Close(4321, "go away".into()));
}

#[tokio::test]
async fn pipes_are_looked_for_sorted_and_shown_by_the_columns_that_are_named() {
    let proxy = Proxy::start(KEYED);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let mut clients = Vec::new();
    for key in ["s1", "s2", "t3"] {
        clients.push(Client::connect(proxy.public, &format!("/ws/{key}/echo")).await);
        proxy.pipe_that("a pipe of this key", |pipe| pipe["key"] == key).await;
    }
    let table = ctl(&proxy, &["pipes", "list", "--sort", "age", "--columns", "key,rate"]).await.fine();
    assert_eq!(table, "KEY  RATE\ns1   0 B/s\ns2   0 B/s\nt3   0 B/s\n");
    let arguments = ["pipes", "list", "--q", "S", "--sort", "age", "--limit", "1", "--columns", "KEY"];
    assert_eq!(ctl(&proxy, &arguments).await.fine(), "KEY\ns1\n1 of 3\n", "the route has the letter too");
    let found = json_of(&proxy, &["pipes", "list", "--q", "t3", "--sort", "-rate"]).await;
    assert_eq!((&found["matched"], &found["total"], &found["items"][0]["key"]), (&json!(1), &json!(3), &json!("t3")));
    for (arguments, told) in [
        (["--sort", "speed"], "-interruptions"),
        (["--limit", "0"], "--limit"),
        (["--columns", "speed"], "there is no column \"speed\"; there are id, state"),
    ] {
        ctl(&proxy, &[&["pipes", "list"], arguments.as_slice()].concat()).await.fails(2, told);
    }
}

#[tokio::test]
async fn the_process_is_read_and_steered() {
    let proxy = Proxy::start("");
    assert!(ctl(&proxy, &["stats"]).await.fine().contains("total_sessions"));
    assert_eq!(json_of(&proxy, &["info"]).await["name"], "holdline");
    assert!(ctl(&proxy, &["config"]).await.fine().contains("\n[replay]\npolicy = "));
    let files = tempfile::tempdir().unwrap();
    let (good, bad) = (files.path().join("good.toml"), files.path().join("bad.toml"));
    std::fs::write(&good, "[log]\nlevel = \"debug\"\n").unwrap();
    std::fs::write(&bad, "[log]\nlevle = \"debug\"\n").unwrap();
    let out = ctl(&proxy, &["config", "validate", good.to_str().unwrap()]).await.fine();
    assert!(out.contains("good.toml: ok\n") && out.contains("changes log.level\n"), "{out}");
    let done = ctl(&proxy, &["config", "validate", bad.to_str().unwrap()]).await;
    assert!(done.out.contains("bad.toml:2:1: log.levle"), "{done:?}");
    done.fails(2, "would not be taken");
    let out = ctl(&proxy, &["config", "validate"]).await.fine();
    assert_eq!(out, "the configuration of the process: ok\nchanges nothing\n");
    assert!(ctl(&proxy, &["log", "debug"]).await.fine().contains("the log's level is debug"));
    assert_eq!(json_of(&proxy, &["log"]).await["level"], "debug");
    assert!(ctl(&proxy, &["drain"]).await.fine().starts_with("draining"));
    assert_eq!(json_of(&proxy, &["info"]).await["phase"], "draining");
    assert!(ctl(&proxy, &["drain", "--cancel"]).await.fine().starts_with("serving"));
    assert!(ctl(&proxy, &["events"]).await.fine().contains("drain"));
}

#[tokio::test]
async fn a_reload_says_what_changed_what_to_know_and_what_waits_for_a_restart() {
    let proxy = Proxy::start("");
    let file = proxy.config_file().display().to_string();
    proxy.rewrite(
        "[server]\nthreads = 7\nmax_connections = 77\n[[pools]]\nbalance = \"hash\"\n[[routes]]\npool = \"default\"\n",
    );
    let foreseen = ctl(&proxy, &["config", "validate"]).await.fine();
    let out = ctl(&proxy, &["config", "reload"]).await.fine();
    for said in [&foreseen, &out] {
        assert!(said.contains(&format!("warning: {file}:7:8: routes[0].pool: ")), "{said}");
        assert!(said.contains("changes server.max_connections\n"), "{said}");
        assert!(said.contains("changes server.threads, after a restart only\n"), "{said}");
    }
    assert!(out.contains("in force\n") && out.ends_with("restart the process for server.threads\n"), "{out}");
    assert_eq!(json_of(&proxy, &["config", "reload"]).await["needs_restart"], json!(["server.threads"]));
    proxy.rewrite("[log]\nlevel = \"loud\"\n[server]\nthreads = \"many\"\n");
    let refused = ctl(&proxy, &["config", "validate"]).await;
    assert!(refused.out.contains(&format!("{file}:2:9: log.level: ")), "{refused:?}");
    refused.fails(2, "the configuration of the process would not be taken");
    let refused = ctl(&proxy, &["config", "reload"]).await;
    assert!(refused.err.contains(&format!("{file}:4:11: server.threads: ")), "{refused:?}");
    refused.fails(2, &format!("{file}:2:9: log.level: "));
}

#[tokio::test]
async fn px_07_what_workers_report_of_themselves_is_a_column() {
    let proxy = Proxy::start(
        "[[pools]]\nname = \"default\"\nweight_from = \"memory\"\n\
         health = { kind = \"http\", path = \"/health\", interval = \"50ms\", timeout = \"5s\" }\n",
    );
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    eventually("its report", async || {
        proxy.get("/v1/backends/w").await["reported"]["memory_bytes"].is_u64().then_some(())
    })
    .await;
    let table = ctl(&proxy, &["workers"]).await.fine();
    let cell = |heading: &str| {
        let mut lines = table.lines();
        let at = lines.next().unwrap().find(heading).unwrap();
        lines.next().unwrap()[at..].split("  ").next().unwrap().to_owned()
    };
    assert!(cell("MEMORY").ends_with(" MiB") && cell("LIMIT") == "2.0 GiB" && cell("CPU") == "-", "{table}");
    let backends = ctl(&proxy, &["backends"]).await.fine();
    assert!(backends.lines().next().unwrap().ends_with("WEIGHT  COUNTS"), "{backends}");
    assert!(backends.lines().nth(1).unwrap().ends_with(" %"), "{backends}");
}

#[tokio::test]
async fn errors_say_what_to_do_next() {
    finish(command("127.0.0.1:1", &["pipes"])).await.fails(1, "--admin");
    let proxy = Proxy::start("[[routes]]\nwait = 0\n");
    for asked in [&["pipes"][..], &["pools", "rebalance", "default"]] {
        finish(command(&proxy.public.to_string(), asked)).await.fails(1, "is that the public listener?");
    }
    proxy.register("worker-1", "127.0.0.1:7001").await;
    ctl(&proxy, &["backends", "show", "wroker-1"]).await.fails(1, "did you mean \"worker-1\"?");
    ctl(&proxy, &["backends", "drain", "zebra"]).await.fails(1, "`holdline ctl backends` lists what there is");
    ctl(&proxy, &["pools", "show", "defualt"]).await.fails(1, "did you mean \"default\"?");
    ctl(&proxy, &["log", "loud"]).await.fails(2, "must be one of");
    ctl(&proxy, &["backends", "add", "ws://127.0.0.1:7002", "--watch"]).await.fails(2, "--watch is for");
    ctl(&proxy, &["backends", "set", "worker-1"]).await.fails(2, "nothing to set");
    ctl(&proxy, &["pipes", "say", "x"]).await.fails(2, "--text");
    ctl(&proxy, &["bakends"]).await.fails(2, "backends");
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_holdline"));
    wrong.args(["ctl", "-c", "/nowhere/proxy.toml", "pipes"]).env_remove("HOLDLINE_ADMIN");
    finish(wrong).await.fails(2, "/nowhere/proxy.toml");
}

#[tokio::test]
async fn a_missing_token_a_wrong_one_and_a_weak_one_are_told_apart() {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    let digest: String = Sha256::digest("see").iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&tokens, format!("viewer {digest} wall\n")).unwrap();
    let proxy = Proxy::start(&format!("[admin]\ntokens_file = {:?}\n", tokens.to_str().unwrap()));
    ctl(&proxy, &["pipes"]).await.fails(1, "put one into HOLDLINE_TOKEN");
    let mut wrong = command(&proxy.admin.to_string(), &["pipes"]);
    wrong.env("HOLDLINE_TOKEN", "guess");
    finish(wrong).await.fails(1, "does not know the token in HOLDLINE_TOKEN");
    let mut weak = command(&proxy.admin.to_string(), &["drain"]);
    weak.env("HOLDLINE_TOKEN", "see");
    finish(weak).await.fails(1, "use a token of another role");
}

#[tokio::test]
async fn what_is_watched_is_shown_again_when_it_changes() {
    let proxy = Proxy::start("");
    let mut watching = command(&proxy.admin.to_string(), &["backends", "--watch", "--json"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = within("another line", lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    assert_eq!(next().await["items"], json!([]));
    proxy.register("w", "127.0.0.1:7001").await;
    assert_eq!(next().await["items"][0]["id"], "w");
    watching.kill().await.unwrap();
}

#[tokio::test]
async fn a_watched_drain_ends_when_the_last_pipe_has_gone() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let arguments = ["backends", "drain", "w", "--pipes", "keep", "--watch"];
    let mut draining = command(&proxy.admin.to_string(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(draining.stdout.take().unwrap()).lines();
    let mut next = async || within("another line", lines.next_line()).await.unwrap();
    assert!(next().await.unwrap().contains("in state drain"));
    assert_eq!(next().await.unwrap(), "1 pipes are left");
    client.close(1000, "").await;
    wire.hear().await;
    wire.close(1000, "").await;
    assert_eq!(next().await.unwrap(), "0 pipes are left");
    assert!(within("the end", draining.wait()).await.unwrap().success());
}

async fn holdline(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.args(arguments);
    finish(command).await.fine()
}

/// The subcommands that a help page lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let first =
        |line: &str| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned()).filter(|name| !name.is_empty());
    listed.filter_map(first).filter(|name| name != "help").collect()
}

#[tokio::test]
async fn completions_and_manual_know_every_command() {
    let (all, ctl) = (commands(&holdline(&["--help"]).await), commands(&holdline(&["ctl", "--help"]).await));
    assert!(all.len() > 7 && ctl.len() > 10, "{all:?} {ctl:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = holdline(&["completions", shell]).await;
        for name in all.iter().chain(&ctl) {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
        }
    }
    let page = holdline(&["man"]).await;
    assert!(page.contains(".TH holdline 1"), "{page}");
    let files = tempfile::tempdir().unwrap();
    holdline(&["man", "--dir", files.path().to_str().unwrap()]).await;
    for name in &all {
        assert!(page.contains(&format!("holdline\\-{name}(1)")), "{name}: {page}");
        assert!(files.path().join(format!("holdline-{name}.1")).exists(), "{name}");
    }
    for name in &ctl {
        assert!(files.path().join(format!("holdline-ctl-{name}.1")).exists(), "{name}");
    }
}
