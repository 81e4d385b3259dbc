//! `holdline ctl workers`: the processes behind the backends, and those of them that Holdline runs itself.

use hyper::Method;
use serde_json::{Value, json};

use super::Client;
use super::args::{BackendFilter, Workers};
use super::ask::{Kind, List, Thing};
use super::output::{Output, View, text};
use super::table::Column;

const BACKEND_COLUMNS: [Column; 13] = [
    ("ID", "/id"),
    ("POOL", "/pool"),
    ("STATE", "/state"),
    ("INSTANCE", "/instance"),
    ("LABELS", "/labels"),
    ("SERVES", "/serves"),
    ("LEASE", "/lease_state"),
    ("EXPIRES", "/lease_expires_at"),
    ("MEMORY", "/reported/memory_bytes"),
    ("LIMIT", "/reported/memory_limit_bytes"),
    ("CPU", "/reported/cpu_percent"),
    ("PROBED", "/last_probe/at"),
    ("PROBLEM", "/last_probe/problem"),
];
const SUPERVISED_COLUMNS: [Column; 11] = [
    ("ID", "/id"),
    ("GROUP", "/group"),
    ("STATE", "/state"),
    ("PID", "/pid"),
    ("URL", "/url"),
    ("PIPES", "/pipes"),
    ("HAD", "/pipes_total"),
    ("RSS", "/rss_bytes"),
    ("STARTED", "/started_at"),
    ("DUE", "/due"),
    ("FAILURES", "/failures"),
];

/// The processes behind the backends, as they registered and as probes found them.
pub(super) async fn behind_backends(client: &Client, out: Output, filter: BackendFilter) -> anyhow::Result<()> {
    let query = vec![("pool", filter.pool), ("state", filter.state.map(|state| state.as_str().to_owned()))];
    let view = View::Table(List::new("/v1/backends", query), BACKEND_COLUMNS.into());
    out.show_or_hint(client, &view, "no worker; `holdline run -- COMMAND` starts and registers one").await
}

pub(super) async fn run(client: &Client, out: Output, command: Workers) -> anyhow::Result<()> {
    match command {
        Workers::List { group } => {
            let list = List::new("/v1/workers", vec![("group", group)]);
            let hint = "no worker that Holdline runs; [[workers]] in the configuration names some";
            out.show_or_hint(client, &View::Table(list, SUPERVISED_COLUMNS.into()), hint).await
        }
        Workers::Show { id } => out.show(client, &View::thing(Kind::Worker, id)).await,
        Workers::Restart { group } => {
            let answer = write(client, Method::POST, &group, "/restart", &json!({})).await?;
            let line = format!("group {group}: {} workers are replaced, one after another", answer["due"]);
            out.done(&answer, &line)
        }
        Workers::Recycle { id } => {
            let answer = write(client, Method::POST, &id, "/recycle", &json!({})).await?;
            out.done(&answer, &format!("worker {}: is replaced, and its pipes move", text(&answer["id"])))
        }
        Workers::Scale { group, count } => {
            let answer = write(client, Method::PATCH, &group, "", &json!({ "count": count })).await?;
            out.done(&answer, &format!("group {group}: {count} workers should serve"))
        }
    }
}

async fn write(client: &Client, method: Method, name: &str, below: &str, body: &Value) -> anyhow::Result<Value> {
    Thing::new(Kind::Worker, name).call(client, method, below, Some(body)).await
}
