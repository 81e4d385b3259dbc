//! What each `holdline ctl` command asks, and how the answer reads.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::table::{self, Column};
use super::{Add, Backends, CallError, Client, Command, Filter, Options, PATIENCE, Pipes, State, Wish};
use crate::log::escaped;

/// Pages of a list that are fetched at most; at 1000 items each, more than there can be.
const PAGES_MAX: usize = 1000;
/// How long one long poll of `events --follow` lasts.
const FOLLOW_WAIT: Duration = Duration::from_secs(25);

const BACKEND_COLUMNS: [Column; 9] = [
    ("ID", "/id"),
    ("POOL", "/pool"),
    ("URL", "/url"),
    ("STATE", "/state"),
    ("HEALTH", "/health"),
    ("LEASE", "/lease_state"),
    ("ELIGIBLE", "/eligible"),
    ("PIPES", "/pipes"),
    ("WEIGHT", "/weight"),
];
const PIPE_COLUMNS: [Column; 10] = [
    ("ID", "/id"),
    ("STATE", "/state"),
    ("ROUTE", "/route"),
    ("KEY", "/key"),
    ("CLIENT", "/client"),
    ("BACKEND", "/backend"),
    ("INTERRUPTIONS", "/interruptions"),
    ("UP", "/up/accepted"),
    ("DOWN", "/down/accepted"),
    ("BUFFERED", "/up/buffered_bytes"),
];
const POOL_COLUMNS: [Column; 4] =
    [("NAME", "/name"), ("BACKENDS", "/backends"), ("ELIGIBLE", "/eligible"), ("PIPES", "/pipes")];

/// Runs one command and prints its answer.
///
/// # Errors
/// What went wrong, with what to do next.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = options.at.client()?;
    match runtime.block_on(command(&client, options.command, options.json)) {
        // Whoever read our output has had enough, which is how `| head` ends.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn command(client: &Client, command: Command, json: bool) -> anyhow::Result<()> {
    let out = Output { json };
    match command {
        Command::Backends { command } => {
            backends(client, out, command.unwrap_or(Backends::List { pool: None, state: None })).await
        }
        Command::Pools => out.list(&POOL_COLUMNS, all(client, "/v1/pools", &[]).await?),
        Command::Pipes { command } => pipes(client, out, command.unwrap_or(Pipes::List(Filter::default()))).await,
        Command::Events { after, follow } => events(client, out, after, follow).await,
        Command::Stats => out.object(&client.call(Method::GET, "/v1/stats", None).await?),
        Command::Config => out.object(&client.call(Method::GET, "/v1/config", None).await?),
        Command::Drain { cancel: false } => {
            let answer = client.call(Method::PUT, "/v1/drain", Some(&json!({}))).await?;
            out.done(&answer, "draining: no new pipes; `holdline ctl drain --cancel` takes it back")
        }
        Command::Drain { cancel: true } => {
            let answer = client.call(Method::DELETE, "/v1/drain", None).await?;
            out.done(&answer, "serving: new pipes are taken again")
        }
    }
}

async fn backends(client: &Client, out: Output, command: Backends) -> anyhow::Result<()> {
    match command {
        Backends::List { pool, state } => {
            let query = [("pool", pool), ("state", state.map(|state| state.as_str().to_owned()))];
            out.list(&BACKEND_COLUMNS, all(client, "/v1/backends", &query).await?)
        }
        Backends::Show { id } => out.object(&client.call(Method::GET, &at("backends", &id), None).await?),
        Backends::Add(add) => {
            let (method, path) = match &add.id {
                Some(id) => (Method::PUT, at("backends", id)),
                None => (Method::POST, "/v1/backends".to_owned()),
            };
            let answer = client.call(method, &path, Some(&registration(&add))).await?;
            let line = format!("backend {} is in pool {}", text(&answer["id"]), text(&answer["pool"]));
            out.done(&answer, &line)
        }
        Backends::Drain { id, pipes, deadline } => {
            let mut wish = wish(State::Drain, pipes);
            wish["deadline"] = json!(deadline);
            set_state(client, out, &id, &wish).await
        }
        Backends::Maint { id, pipes } => set_state(client, out, &id, &wish(State::Maint, pipes)).await,
        Backends::Ready { id } => set_state(client, out, &id, &json!({"state": State::Ready.as_str()})).await,
        Backends::Remove { id } => {
            let answer = client.call(Method::DELETE, &at("backends", &id), None).await?;
            let line = if answer.is_null() { "gone".to_owned() } else { leaving(&answer) };
            out.done(&answer, &format!("backend {id}: {line}"))
        }
    }
}

fn wish(state: State, pipes: Wish) -> Value {
    json!({"state": state.as_str(), "pipes": pipes.as_str()})
}

fn leaving(backend: &Value) -> String {
    format!("{} pipes are on it still; watch it with `holdline ctl backends`", backend["pipes"])
}

async fn set_state(client: &Client, out: Output, id: &str, wish: &Value) -> anyhow::Result<()> {
    let path = format!("{}/state", at("backends", id));
    let answer = client.call(Method::PUT, &path, Some(wish)).await?;
    let state = text(&answer["state"]);
    let line = if state == State::Ready.as_str() { "takes pipes".to_owned() } else { leaving(&answer) };
    out.done(&answer, &format!("backend {id} is in state {state}: {line}"))
}

fn registration(add: &Add) -> Value {
    let mut serves = Map::new();
    for entry in &add.serves {
        let (key, alias) = entry.split_once('=').unwrap_or((entry, entry));
        serves.insert(key.to_owned(), json!(alias));
    }
    let mut body = json!({"url": add.url, "pool": add.pool, "weight": add.weight, "serves": serves});
    if let Some(max_pipes) = add.max_pipes {
        body["max_pipes"] = json!(max_pipes);
    }
    body
}

async fn pipes(client: &Client, out: Output, command: Pipes) -> anyhow::Result<()> {
    match command {
        Pipes::List(Filter { route, pool, backend, key, state }) => {
            let query = [("route", route), ("pool", pool), ("backend", backend), ("key", key), ("state", state)];
            out.list(&PIPE_COLUMNS, all(client, "/v1/pipes", &query).await?)
        }
        Pipes::Show { id } => out.object(&client.call(Method::GET, &at("pipes", &id), None).await?),
        Pipes::Move { id } => {
            let path = format!("{}/reattach", at("pipes", &id));
            let answer = client.call(Method::POST, &path, Some(&json!({}))).await?;
            out.done(&answer, &format!("pipe {id} is asked to move; see it with `holdline ctl pipes show {id}`"))
        }
        Pipes::Close { id, code, reason } => {
            let path = format!("{}?code={code}&reason={}", at("pipes", &id), encode(&reason));
            let answer = client.call(Method::DELETE, &path, None).await?;
            out.done(&answer, &format!("pipe {id} is asked to close with {code}"))
        }
    }
}

async fn events(client: &Client, out: Output, mut after: u64, follow: bool) -> anyhow::Result<()> {
    let mut wait = Duration::ZERO;
    loop {
        let path = format!("/v1/events?after={after}&limit=1000&wait={}s", wait.as_secs());
        let page = client.call_within(Method::GET, &path, None, wait + PATIENCE).await?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        for event in &items {
            out.print(&if out.json { format!("{event}\n") } else { event_line(event) })?;
        }
        after = page["last"].as_u64().context("the answer has no `last`: is that the admin API of Holdline?")?;
        if items.is_empty() && !follow {
            return Ok(());
        }
        if follow {
            wait = FOLLOW_WAIT;
        }
    }
}

/// `12 2026-11-21T10:13:37Z pipe.interrupted pipe=… reason=reset`.
fn event_line(event: &Value) -> String {
    let mut line = format!("{} {} {}", event["seq"], text(&event["at"]), text(&event["type"]));
    for (name, value) in event.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "seq" | "at" | "type") {
            let value = value.as_str().map_or_else(|| value.to_string(), escaped);
            let _ = write!(line, " {name}={value}");
        }
    }
    line + "\n"
}

/// Every item of a list, page by page.
async fn all(client: &Client, path: &str, query: &[(&str, Option<String>)]) -> Result<Vec<Value>, CallError> {
    let mut path = format!("{path}?limit=1000");
    for (name, value) in query {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encode(value));
        }
    }
    let (mut items, mut cursor) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let mut page = client.call(Method::GET, &format!("{path}{cursor}"), None).await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={}", encode(next));
    }
    Ok(items)
}

fn at(kind: &str, id: &str) -> String {
    format!("/v1/{kind}/{}", encode(id))
}

/// Everything but the unreserved characters of RFC 3986 section 2.3, percent-encoded.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), escaped)
}

/// How answers are printed.
#[derive(Clone, Copy)]
struct Output {
    json: bool,
}

impl Output {
    fn list(self, columns: &[Column], items: Vec<Value>) -> anyhow::Result<()> {
        if self.json {
            return self.print(&format!("{}\n", json!({"items": items, "next_cursor": null})));
        }
        self.print(&table::render(columns, &items))
    }

    fn object(self, object: &Value) -> anyhow::Result<()> {
        self.print(&if self.json { format!("{object}\n") } else { table::describe(object) })
    }

    /// A write's answer, or what it means.
    fn done(self, answer: &Value, line: &str) -> anyhow::Result<()> {
        self.print(&if self.json { format!("{answer}\n") } else { format!("{line}\n") })
    }

    fn print(self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_reasons_are_encoded() {
        assert_eq!(at("backends", "a/b c?d"), "/v1/backends/a%2Fb%20c%3Fd");
        assert_eq!(encode("é&="), "%C3%A9%26%3D");
    }

    #[test]
    fn keys_may_have_aliases() {
        let add = Add {
            url: "ws://x:1".into(),
            id: None,
            pool: "p".into(),
            weight: 2,
            max_pipes: None,
            serves: vec!["a".into(), "b=c".into()],
        };
        assert_eq!(registration(&add)["serves"], json!({"a": "a", "b": "c"}));
    }

    #[test]
    fn an_event_reads_as_one_line() {
        let event = json!({"seq": 3, "at": "2026-11-21T00:00:00Z", "type": "x.y", "reason": "a\nb", "n": 1});
        assert_eq!(event_line(&event), "3 2026-11-21T00:00:00Z x.y n=1 reason=a\\nb\n");
    }
}
