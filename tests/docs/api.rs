//! `docs/api.md`, made of the OpenAPI document that the program gives out: every operation with what it takes, what it answers and
//! a line of curl, which `scripts/docs-check` runs.
//!
//! Invariant: the page is what [`page`] makes of the document, to the byte. `HOLDLINE_DOCS=write cargo test --test docs` writes it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Map, Value};

use super::{read, root};

const PAGE: &str = "docs/api.md";

/// Where the page says that the API is.
const BASE: &str = "http://127.0.0.1:9000";

/// What the lines of curl say in the place of an id, by the beginning of the path.
const IDS: [(&str, &str); 4] =
    [("/v1/backends/", "worker-1"), ("/v1/pipes/", "PIPE"), ("/v1/pools/", "default"), ("/v1/workers/", "api-1")];

/// Operations whose id is that of a group of workers.
const OF_A_GROUP: [&str; 2] = ["scaleWorkers", "restartWorkers"];

/// What the lines of curl ask with, and the bodies of operations that have one; a body of `{}` needs no entry.
const EXAMPLES: [(&str, &str); 15] = [
    ("listBackends", "?pool=default&limit=100"),
    ("listPipes", "?backend=worker-1&limit=100"),
    ("readEvents", "?after=0&wait=1s"),
    ("closePipe", "?code=4000&reason=bye"),
    ("registerBackend", r#"{"url": "ws://127.0.0.1:7002"}"#),
    ("putBackend", r#"{"url": "ws://127.0.0.1:7001", "lease": "15s"}"#),
    ("patchBackend", r#"{"weight": 2}"#),
    ("setBackendState", r#"{"state": "ready"}"#),
    ("patchPipe", r#"{"labels": {"room": "a"}}"#),
    ("commit", r#"{"attachment": 1, "seq": 0}"#),
    ("sendMessage", r#"{"text": "hello"}"#),
    ("broadcast", r#"{"route": "default", "text": "hello"}"#),
    ("validateConfig", r#"{"toml": "[limits]\nkey_rate = 0\n"}"#),
    ("setLog", r#"{"level": "debug", "for": "10m"}"#),
    ("scaleWorkers", r#"{"count": 2}"#),
];

/// Operations whose lines of curl are not run, and why.
const NOT_RUN: [(&str, &str); 1] =
    [("startUpgrade", "another process would take over from the one that the other lines ask")];

const HEAD: &str = "# The admin API

This page is made of `GET /openapi.json`, the document that other tools can read as well. There is a line of curl for each operation;
`worker-1` stands for a backend's id, `PIPE` for that of a pipe, `api` and `api-1` for a group of workers and one of them.

- **Roles**: a `viewer` reads, a `worker` registers and commits too, an `operator` may do everything. Where there is no
  `admin.tokens_file`, a listener on loopback asks for no token; where there is one, each line wants
  `-H \"Authorization: Bearer $HOLDLINE_TOKEN\"` besides.
- **Lists** come in pages: `limit` (1,000 at most), and `cursor`, which is `next_cursor` of the page before. They can be waited
  for: with the `index` of the last answer (`X-Holdline-Index`) and `wait=25s`, the answer comes as soon as something has changed.
- **Versions**: what has an `ETag` can be asked for with `If-None-Match` (304 if it is the same) and changed with `If-Match`
  (412 if it is another by now).
- **Refusals** are `application/problem+json` (RFC 9457): `type` is for programs, `detail` for people, and `errors` says where.
  [Troubleshooting](troubleshooting.md#answers-of-the-admin-api) has what helps.

`holdline ctl` does most of this from a terminal ([operations](operations.md#the-command-line)).
";

/// The program whose document is read.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself, which the test says otherwise.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Proxy {
    /// Starts it, and says where its admin listener is.
    fn start() -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdline"))
            .arg("serve")
            .env_clear()
            .env("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#)
            .env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0")
            .env("HOLDLINE_LOG__FORMAT", "json")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let proxy = Self(child);
        for line in said.lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if line["listener"] == "admin" {
                return (proxy, line["address"].as_str().unwrap().to_owned());
            }
        }
        panic!("it ended before it listened");
    }
}

fn document() -> Value {
    let (_proxy, address) = Proxy::start();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /openapi.json HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}

/// A schema that may be one of another name, looked up.
fn resolved<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// What a field is, in words.
fn kind(schema: &Value, document: &Value) -> String {
    let schema = resolved(schema, document);
    for several in ["anyOf", "oneOf"] {
        if let Some(options) = schema[several].as_array() {
            let words = options.iter().map(|option| kind(option, document)).filter(|word| word != "null");
            return words.collect::<Vec<_>>().join(", or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.as_str().unwrap_or_default())).collect();
        return values.join(", ");
    }
    if let Some(value) = schema["const"].as_str() {
        return format!("`{value}`");
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        other => vec![other.as_str().unwrap_or("any")],
    };
    match types.first().copied().unwrap_or("null") {
        "string" if schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms|s|m")) => {
            "a time: `500ms`, `15s`, `1m`".to_owned()
        }
        "integer" => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!("a number, {low} to {high}"),
            (Some(low), None) if low > 0 => format!("a number, at least {low}"),
            _ => "a number".to_owned(),
        },
        "array" => format!("a list of: {}", kind(&schema["items"], document)),
        "object" => match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("an object whose values are: {}", kind(values, document)),
            _ => "an object".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        "string" => "text".to_owned(),
        other => other.to_owned(),
    }
}

/// One line of a table for what an operation takes.
fn row(name: &str, place: &str, required: bool, schema: &Value, document: &Value) -> String {
    let own = resolved(schema, document);
    let about = [schema, own].into_iter().find_map(|schema| schema["description"].as_str()).unwrap_or_default();
    let default = schema.get("default").filter(|value| !value.is_null() && **value != "");
    let default = default.map(|value| format!(" (`{value}` if absent)")).unwrap_or_default();
    let needed = if required { ", required" } else { "" };
    let about = about.replace('\n', " ");
    format!("| `{name}` | {place}{needed} | {}{default} | {about} |\n", kind(schema, document))
}

fn body<'a>(operation: &'a Value, document: &'a Value) -> Option<&'a Value> {
    let schema = operation["requestBody"]["content"].get("application/json")?.get("schema")?;
    Some(resolved(schema, document))
}

/// The table of what an operation takes; nothing where it takes nothing.
fn takes(operation: &Value, document: &Value) -> String {
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] != "header") {
        let place = parameter["in"].as_str().unwrap();
        let required = parameter["required"].as_bool().unwrap_or(false);
        rows += &row(parameter["name"].as_str().unwrap(), place, required, &parameter["schema"], document);
    }
    if let Some(body) = body(operation, document) {
        let required: Vec<_> = body["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, schema) in body["properties"].as_object().into_iter().flatten() {
            rows += &row(name, "body", required.contains(&name.as_str()), schema, document);
        }
    }
    if rows.is_empty() { rows } else { format!("| takes | in | what | |\n|---|---|---|---|\n{rows}\n") }
}

fn example(id: &str) -> Option<&'static str> {
    EXAMPLES.iter().find(|(name, _)| *name == id).map(|(_, example)| *example)
}

/// The line of curl of an operation.
fn curl(method: &str, path: &str, operation: &Value) -> String {
    let id = operation["operationId"].as_str().unwrap();
    let stands_for = IDS.iter().find(|(start, _)| path.starts_with(start)).map_or("", |(_, id)| *id);
    let stands_for = if OF_A_GROUP.contains(&id) { "api" } else { stands_for };
    let path = path.replace("{id}", stands_for).replace("{name}", stands_for);
    let url = format!("{BASE}{path}");
    let example = example(id);
    let asked = method.to_uppercase();
    if !operation["requestBody"].is_object() {
        let verb = if asked == "GET" { String::new() } else { format!("-X {asked} ") };
        let url =
            example.filter(|query| !query.is_empty()).map_or_else(|| url.clone(), |query| format!("'{url}{query}'"));
        return format!("curl {verb}{url}\n");
    }
    let body = example.unwrap_or("{}");
    format!("curl -X {asked} {url} \\\n  -H 'Content-Type: application/json' -d '{body}'\n")
}

fn answers(operation: &Value, document: &Value) -> String {
    let mut good = Vec::new();
    let mut refusals = Vec::new();
    for (status, answer) in operation["responses"].as_object().unwrap() {
        if status.as_str() >= "400" && status != "503" || answer["content"].get("application/problem+json").is_some() {
            refusals.push(status.as_str());
            continue;
        }
        let content = answer["content"].as_object().cloned().unwrap_or_default();
        let mut of: Vec<_> = content.iter().map(|(media, answer)| held(media, &answer["schema"], document)).collect();
        of.sort();
        good.push((status.as_str(), of.join("; ")));
    }
    // Statuses that say the same are said together.
    let mut told = Vec::new();
    for (_, of) in &good {
        let statuses: Vec<_> = good.iter().filter(|(_, other)| other == of).map(|(status, _)| *status).collect();
        let of = if of.is_empty() { String::new() } else { format!(": {of}") };
        let line = format!("{}{of}", statuses.join(" or "));
        if !told.contains(&line) {
            told.push(line);
        }
    }
    let refusals = if refusals.is_empty() { String::new() } else { format!(" Refused with {}.", refusals.join(", ")) };
    format!("Answers {}.{refusals}\n", told.join(". "))
}

/// What an answer of one media type holds.
fn held(media: &str, schema: &Value, document: &Value) -> String {
    let fields = resolved(schema, document)["properties"].as_object().map(Map::keys);
    match fields {
        Some(fields) => {
            format!("an object with {}", fields.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
        None => format!("`{media}`"),
    }
}

/// The whole page.
fn page(document: &Value) -> String {
    let mut page = HEAD.to_owned();
    let mut tag = String::new();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "patch", "post", "delete"] {
            if let Some(operation) = methods.get(method) {
                operations.push((operation["tags"][0].as_str().unwrap_or("open").to_owned(), path, method, operation));
            }
        }
    }
    // Sorts are stable: within a tag they stay in the order of their paths.
    operations.sort_by(|left, right| left.0.cmp(&right.0));
    for (of, path, method, operation) in operations {
        if of != tag {
            page += &format!("\n## {of}\n");
            tag = of;
        }
        let role =
            operation["x-holdline-role"].as_str().map_or("Open to all.".to_owned(), |role| format!("Role `{role}`."));
        let summary = operation["summary"].as_str().unwrap();
        page += &format!("\n### {} {path}\n\n{summary}. {role}\n\n", method.to_uppercase());
        page += &takes(operation, document);
        let id = operation["operationId"].as_str().unwrap();
        let not_run = NOT_RUN.iter().find(|(name, _)| *name == id);
        page += &not_run.map(|(_, why)| format!("<!-- not run: {why} -->\n")).unwrap_or_default();
        page += &format!("```sh\n{}```\n\n{}", curl(method, path, operation), answers(operation, document));
    }
    page
}

#[test]
fn the_page_of_the_admin_api_is_what_the_program_describes() {
    let document = document();
    let made = page(&document);
    if std::env::var_os("HOLDLINE_DOCS").is_some_and(|word| word == "write") {
        std::fs::write(root().join(PAGE), &made).unwrap();
    }
    let line = made.lines().zip(read(PAGE).lines().map(str::to_owned)).position(|(made, stands)| made != stands);
    assert!(made == read(PAGE), "{PAGE} is old at line {line:?}: HOLDLINE_DOCS=write cargo test --test docs");
    let ids = document["paths"].as_object().unwrap().values().flat_map(|methods| {
        methods.as_object().unwrap().values().filter_map(|operation| operation["operationId"].as_str())
    });
    let ids: Vec<_> = ids.collect();
    let stale: Vec<_> = EXAMPLES.iter().filter(|(id, _)| !ids.contains(id)).collect();
    assert!(stale.is_empty(), "no such operations: {stale:?}");
}
