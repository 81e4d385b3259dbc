//! The first minutes with Holdline: started without a file, at a terminal, and with the mistakes that people make.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Client, DemoWorker, Proxy, StepWorker, within};
use crate::top::Terminal;

/// The output of a command: its exit code, stdout and stderr.
async fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let ended = within("the end of a command", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

fn holdline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.args(arguments).env_remove("HOLDLINE_CONFIG").env_remove("HOLDLINE_ADMIN").env_remove("HOLDLINE_TOKEN");
    command
}

fn ctl(proxy: &Proxy, arguments: &[&str]) -> Command {
    let mut command = holdline(&["ctl"]);
    command.args(arguments).env("HOLDLINE_ADMIN", proxy.admin.to_string());
    command
}

#[tokio::test]
async fn two_workers_are_served_without_a_file_and_a_socket_outlives_one() {
    let mut workers = vec![DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let urls: Vec<String> = workers.iter().map(|worker| format!("ws://{}", worker.address)).collect();
    let proxy = Proxy::start_to(&[&urls[0], &urls[1]]);
    let mut client = Client::connect(proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("one").await, "one");
    let on = proxy.pipe_that("it is confirmed", |pipe| pipe["up"]["confirmed"] == 1).await["backend"]
        .as_str()
        .unwrap()
        .to_owned();
    drop(workers.remove(if on == "default-1" { 0 } else { 1 }));
    proxy.pipe_that("it is on the other", |pipe| pipe["state"] == "attached" && pipe["backend"] != on).await;
    assert_eq!(client.exchange("two").await, "two");
    let reloaded = proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200).json();
    assert_eq!(reloaded["changes"], json!([]), "the arguments are read again");
    let (_, shown, _) = said(&mut ctl(&proxy, &["config", "show"])).await;
    assert!(shown.contains(&format!("url = \"{}\"  # --to\n", urls[0])), "{shown}");
}

#[tokio::test]
async fn arguments_take_the_place_of_a_file_that_the_environment_names_and_clash_with_one_that_is_named() {
    let (code, _, error) = said(&mut holdline(&["serve", "--to", "ws://a:1", "-c", "x.toml"])).await;
    assert!(code == Some(2) && error.contains("cannot be used with"), "{error}");
    let (code, _, error) = said(&mut holdline(&["serve", "--listen", "127.0.0.1:0"])).await;
    assert!(code == Some(2) && error.contains("--to"), "{error}");
    let (code, _, error) = said(holdline(&["serve", "--to", "localhost:1"]).env("HOLDLINE_CONFIG", "/nowhere")).await;
    assert!(code == Some(2) && error.starts_with("--to: pools[0].backends[0].url: "), "{error}");
}

#[tokio::test]
async fn a_start_at_a_terminal_says_where_everything_is() {
    let mut command = holdline(&["serve", "--to", "ws://127.0.0.1:9", "--listen", "127.0.0.1:0"]);
    command.env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0");
    let terminal = Terminal::start(command);
    for words in ["configured by its arguments", "/{*path}  to pool default: 1 backend", "dashboard  http://127.0.0.1:"]
    {
        terminal.shows(words).await;
    }
    terminal.shows("ctl --admin http://127.0.0.1:").await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_once_with_who_has_it() {
    let taken = StepWorker::start().await;
    for format in ["text", "json"] {
        let mut command = holdline(&["serve", "--to", "ws://127.0.0.1:9", "--listen", &taken.address.to_string()]);
        command.env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0").env("HOLDLINE_LOG__FORMAT", format);
        let (code, _, error) = said(&mut command).await;
        assert_eq!((code, error.matches("in use").count()), (Some(1), 1), "{error}");
        let holder =
            format!("(process {}) listens there: stop it, or use another port in server.listen", std::process::id());
        assert!(error.contains(&holder), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_exit_two_and_what_is_not_there_is_exit_one() {
    let proxy = Proxy::start("");
    for arguments in [
        ["pipes", "list", "--state", "foo"].as_slice(),
        &["log", "loud"],
        &["log", "debug", "--for", "soon"],
        &["backends", "add", "http://a:1"],
        &["pipes", "--route", "a", "list"],
    ] {
        let (code, _, error) = said(&mut ctl(&proxy, arguments)).await;
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
    }
    let (code, _, error) = said(&mut ctl(&proxy, &["backends", "show", "w"])).await;
    assert_eq!(code, Some(1), "{error}");
}

#[tokio::test]
async fn lists_are_filtered_by_their_short_form_and_say_what_to_do_when_they_are_empty() {
    let proxy = Proxy::start("");
    let (code, out, hint) = said(&mut ctl(&proxy, &["backends"])).await;
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    assert_eq!(hint, "no backend; `holdline ctl backends add URL` registers one\n");
    proxy.register("w", "127.0.0.1:9").await;
    for (arguments, count) in [
        (["backends", "--state", "ready"], 1),
        (["backends", "--state", "drain"], 0),
        (["workers", "--pool", "default"], 1),
        (["workers", "--pool", "other"], 0),
        (["pipes", "--backend", "w"], 0),
    ] {
        let (code, out, error) = said(ctl(&proxy, &arguments).arg("--json")).await;
        assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
        let items: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(items["items"].as_array().map(Vec::len), Some(count), "{arguments:?}: {out}");
    }
}

#[tokio::test]
async fn an_empty_address_of_the_admin_api_is_none() {
    let proxy = Proxy::start("");
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("proxy.toml");
    std::fs::write(&file, format!("admin.listen = \"{}\"\n", proxy.admin)).unwrap();
    let mut command = holdline(&["ctl", "info"]);
    command.env("HOLDLINE_ADMIN", "").env("HOLDLINE_CONFIG", &file).env("HOLDLINE_ADMIN_CA", "");
    let (code, out, error) = said(&mut command).await;
    assert!(code == Some(0) && out.contains("holdline"), "{error}");
    let (code, _, error) = said(holdline(&["ctl", "info"]).env("HOLDLINE_ADMIN", "9000")).await;
    assert!(
        code == Some(2) && error.contains("HOLDLINE_ADMIN is no address of an admin API; write it like"),
        "{error}"
    );
}
