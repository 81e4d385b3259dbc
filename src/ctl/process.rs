//! `holdline ctl events`, `config`, `log` and `drain`: the process as a whole.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};

use super::args::{Config, EventLevel, Events};
use super::ask::encode;
use super::output::{Output, View, pipes_in_all, text};
use super::table::{to_the_millisecond, to_the_second};
use super::{Client, Misuse, PATIENCE};
use crate::log::escaped;

/// How long one long poll of `events --follow` lasts.
const FOLLOW_WAIT: Duration = Duration::from_secs(25);
/// How the file is called that the process reads itself.
const ITS_OWN: &str = "the configuration of the process";
/// Bytes of a configuration that are read from stdin; more is not one.
const CONFIG_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub(super) async fn events(client: &Client, out: Output, wish: Events) -> anyhow::Result<()> {
    let follow = wish.follow || out.watch;
    let filter: String = [("type", wish.kinds.as_deref()), ("level", wish.level.map(EventLevel::as_str))]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", encode(value?))))
        .collect();
    let mut from = match (wish.after, &wish.since) {
        (_, Some(since)) => format!("since={}", encode(since)),
        (after, None) => format!("after={}", after.unwrap_or(0)),
    };
    let mut wait = Duration::ZERO;
    loop {
        let path = format!("/v1/events?{from}&limit=1000&wait={}s{filter}", wait.as_secs());
        let page = client.call_within(Method::GET, &path, None, wait + PATIENCE).await?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        for event in &items {
            out.print(&if out.json { format!("{event}\n") } else { event_line(event) })?;
        }
        let last = page["last"].as_u64().context("the answer has no `last`: is that the admin API of Holdline?")?;
        from = format!("after={last}");
        if items.is_empty() && !follow {
            return Ok(());
        }
        if follow {
            wait = FOLLOW_WAIT;
        }
    }
}

/// `12 2026-11-21T10:13:37.123Z pipe.interrupted level=warn pipe=… reason=reset`; a level of info goes without saying.
fn event_line(event: &Value) -> String {
    let mut line = format!("{} {} {}", event["seq"], to_the_millisecond(&text(&event["at"])), text(&event["type"]));
    for (name, value) in event.as_object().into_iter().flatten() {
        let is_said = matches!(name.as_str(), "seq" | "at" | "type") || (name == "level" && value == "info");
        if !is_said {
            let value = value.as_str().map_or_else(|| value.to_string(), escaped);
            let _ = write!(line, " {name}={value}");
        }
    }
    line + "\n"
}

pub(super) async fn config(client: &Client, out: Output, command: Config) -> anyhow::Result<()> {
    match command {
        Config::Show => out.show(client, &View::Config).await,
        Config::Validate { file } => validate(client, out, file.as_deref()).await,
        Config::Reload { force } => {
            let said = if force { json!({"force": true}) } else { json!({}) };
            let answer = client.call(Method::POST, "/v1/config/reload", Some(&said)).await?;
            out.done(&answer, reloaded(&answer).trim_end())
        }
    }
}

async fn validate(client: &Client, out: Output, file: Option<&Path>) -> anyhow::Result<()> {
    let (name, candidate) = match file {
        Some(file) => {
            let name = file.display().to_string();
            let toml = read(file).map_err(|error| Misuse(format!("{name}: {error}")))?;
            (Some(name), json!({"toml": toml}))
        }
        None => (None, json!({})),
    };
    let verdict = client.call(Method::POST, "/v1/config/validate", Some(&candidate)).await?;
    out.done(&verdict, judged(name.as_deref(), &verdict).trim_end())?;
    if verdict["valid"] == true {
        return Ok(());
    }
    Err(Misuse(format!("{} would not be taken", name.as_deref().unwrap_or(ITS_OWN))).into())
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().take(CONFIG_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A verdict as lines: errors and warnings with their places, then what would change.
fn judged(name: Option<&str>, verdict: &Value) -> String {
    let mut lines = notices("", name, &verdict["errors"]) + &notices("warning: ", name, &verdict["warnings"]);
    if verdict["valid"] == true {
        let _ = writeln!(lines, "{}: ok", name.unwrap_or(ITS_OWN));
    }
    lines + &changes(verdict)
}

/// What a reload did, what its author should know, and what is left to do.
fn reloaded(answer: &Value) -> String {
    let mut lines = notices("warning: ", None, &answer["warnings"]) + "in force\n" + &changes(answer);
    let waiting: Vec<String> = answer["needs_restart"].as_array().into_iter().flatten().map(text).collect();
    if !waiting.is_empty() {
        let _ = writeln!(lines, "restart the process for {}", waiting.join(", "));
    }
    lines
}

/// Each notice with its place: a line of the file `name`, or of the one that the process names, or a variable.
fn notices(kind: &str, name: Option<&str>, notices: &Value) -> String {
    let mut lines = String::new();
    for notice in notices.as_array().into_iter().flatten() {
        let file = name.map_or_else(|| text(&notice["file"]), str::to_owned);
        let place = match (notice["line"].as_u64(), notice["column"].as_u64(), notice["variable"].as_str()) {
            (Some(line), Some(column), _) => format!("{file}:{line}:{column}: "),
            (_, _, Some(variable)) => format!("{}: ", escaped(variable)),
            (Some(_) | None, _, None) => String::new(),
        };
        let _ = writeln!(lines, "{kind}{place}{}: {}", text(&notice["key"]), text(&notice["message"]));
    }
    lines
}

fn changes(answer: &Value) -> String {
    let mut lines = String::new();
    let changes = answer["changes"].as_array();
    for change in changes.into_iter().flatten() {
        let when = if change["needs_restart"] == true { ", after a restart only" } else { "" };
        let _ = writeln!(lines, "changes {}{when}", text(&change["key"]));
    }
    if changes.is_some_and(Vec::is_empty) && answer["valid"] != false {
        lines.push_str("changes nothing\n");
    }
    lines
}

pub(super) async fn log(
    client: &Client,
    out: Output,
    level: Option<String>,
    time: Option<String>,
) -> anyhow::Result<()> {
    let Some(level) = level else {
        return out.show(client, &View::page("/v1/log")).await;
    };
    let mut body = json!({"level": level});
    if let Some(time) = time {
        body["for"] = json!(time);
    }
    let answer = client.call(Method::PUT, "/v1/log", Some(&body)).await?;
    let until =
        answer["until"].as_str().map(|at| format!(" until {}", to_the_second(&escaped(at)))).unwrap_or_default();
    out.done(&answer, &format!("the log's level is {}{until}", text(&answer["level"])))
}

pub(super) async fn drain(client: &Client, out: Output, cancel: bool) -> anyhow::Result<()> {
    if cancel {
        let answer = client.call(Method::DELETE, "/v1/drain", None).await?;
        return out.done(&answer, "serving: new pipes are taken again");
    }
    let answer = client.call(Method::PUT, "/v1/drain", Some(&json!({}))).await?;
    out.done(&answer, "draining: no new pipes; `holdline ctl drain --cancel` takes it back")?;
    // The process itself cannot be gone and answer.
    out.count_down(async || pipes_in_all(client).await).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_one_line() {
        let event = json!({"seq": 3, "at": "2026-11-21T00:00:00Z", "type": "x.y", "reason": "a\nb", "n": 1});
        assert_eq!(event_line(&event), "3 2026-11-21T00:00:00Z x.y n=1 reason=a\\nb\n");
        for (fraction, shown) in [("1", "100"), ("123456789", "123"), ("0129", "012")] {
            let event = json!({"seq": 3, "at": format!("2026-11-21T00:00:00.{fraction}Z"), "type": "x.y"});
            assert_eq!(event_line(&event), format!("3 2026-11-21T00:00:00.{shown}Z x.y\n"));
        }
    }

    #[test]
    fn a_verdict_names_places_and_changes() {
        let good = json!({"valid": true, "errors": [], "warnings": [], "changes": [
            {"key": "server.threads", "needs_restart": true}, {"key": "log.level", "needs_restart": false},
        ]});
        let text = "f: ok\nchanges server.threads, after a restart only\nchanges log.level\n";
        assert_eq!(judged(Some("f"), &good), text);
        let bad = json!({"valid": false, "warnings": [], "changes": [], "errors": [
            {"line": 2, "column": 5, "variable": null, "key": "a.b", "message": "no"},
            {"line": null, "column": null, "variable": "HOLDLINE_A__B", "key": "a.b", "message": "no"},
        ]});
        assert_eq!(judged(Some("f"), &bad), "f:2:5: a.b: no\nHOLDLINE_A__B: a.b: no\n");
    }

    #[test]
    fn a_reload_says_what_is_in_force_what_to_know_and_what_is_left_to_do() {
        let warning = json!({"file": "p", "line": 1, "column": 2, "variable": null, "key": "a.b", "message": "odd"});
        let changes = json!([{"key": "log.level", "needs_restart": false}, {"key": "x", "needs_restart": true}]);
        let answer = json!({"changes": changes, "needs_restart": ["x"], "warnings": [warning]});
        let text = "warning: p:1:2: a.b: odd\nin force\nchanges log.level\nchanges x, after a restart only\n\
                    restart the process for x\n";
        assert_eq!(reloaded(&answer), text);
    }
}
