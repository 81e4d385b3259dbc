//! `holdline ctl backends`.

use anyhow::bail;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::args::{Add, BackendFilter, Backends, Set, State, Wish};
use super::ask::{Kind, List, Thing};
use super::output::{Left, Output, View, text};
use super::table::Column;
use super::{CallError, Client, Misuse};

const BACKEND_COLUMNS: [Column; 11] = [
    ("ID", "/id"),
    ("POOL", "/pool"),
    ("URL", "/url"),
    ("STATE", "/state"),
    ("HEALTH", "/health"),
    ("LEASE", "/lease_state"),
    ("ELIGIBLE", "/eligible"),
    ("PIPES", "/pipes"),
    ("PARKED", "/parked"),
    ("WEIGHT", "/weight"),
    ("COUNTS", "/weight_percent"),
];

pub(super) async fn run(client: &Client, out: Output, command: Backends) -> anyhow::Result<()> {
    match command {
        Backends::List(BackendFilter { pool, state }) => {
            let query = vec![("pool", pool), ("state", state.map(|state| state.as_str().to_owned()))];
            let view = View::Table(List::new("/v1/backends", query), BACKEND_COLUMNS.into());
            out.show_or_hint(client, &view, "no backend; `holdline ctl backends add URL` registers one").await
        }
        Backends::Show { id } => out.show(client, &View::thing(Kind::Backend, id)).await,
        Backends::Add(add) => self::add(client, out, &add).await,
        Backends::Set(set) => self::set(client, out, &set).await,
        Backends::Drain { id, pipes, deadline } => {
            let mut wish = wish(State::Drain, pipes);
            wish["deadline"] = json!(deadline);
            set_state(client, out, id, &wish).await
        }
        Backends::Maint { id, pipes } => set_state(client, out, id, &wish(State::Maint, pipes)).await,
        Backends::Ready { id } => set_state(client, out, id, &json!({"state": State::Ready.as_str()})).await,
        Backends::Remove { id } => {
            let backend = Thing::new(Kind::Backend, id);
            let answer = backend.call(client, Method::DELETE, "", None).await?;
            let line = if answer.is_null() { "removed".to_owned() } else { leaving(&answer) };
            out.done(&answer, &format!("backend {}: {line}", backend.name))?;
            let is_left = !answer.is_null();
            if is_left && out.count_down(async || pipes_on(client, &backend).await).await? == Left::Gone {
                out.done(&json!({"pipes": 0}), &format!("backend {}: removed", backend.name))?;
            }
            Ok(())
        }
    }
}

async fn add(client: &Client, out: Output, add: &Add) -> anyhow::Result<()> {
    let body = registration(add);
    let answer = match &add.id {
        Some(id) => client.call(Method::PUT, &Thing::new(Kind::Backend, id).path(), Some(&body)).await?,
        None => client.call(Method::POST, "/v1/backends", Some(&body)).await?,
    };
    out.done(&answer, &format!("backend {} is in pool {}", text(&answer["id"]), text(&answer["pool"])))
}

async fn set(client: &Client, out: Output, set: &Set) -> anyhow::Result<()> {
    let patch = patch(set)?;
    let answer = Thing::new(Kind::Backend, &set.id).call(client, Method::PATCH, "", Some(&patch)).await?;
    let names: Vec<&str> = patch.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    out.done(&answer, &format!("backend {}: {} set", set.id, names.join(", ")))
}

fn wish(state: State, pipes: Wish) -> Value {
    json!({"state": state.as_str(), "pipes": pipes.as_str()})
}

fn leaving(backend: &Value) -> String {
    let requests = backend["requests"].as_u64().unwrap_or_default();
    format!("{} pipes and {requests} requests are on it still; --watch waits for them", backend["pipes"])
}

async fn set_state(client: &Client, out: Output, id: String, wish: &Value) -> anyhow::Result<()> {
    let backend = Thing::new(Kind::Backend, id);
    let answer = backend.call(client, Method::PUT, "/state", Some(wish)).await?;
    let state = text(&answer["state"]);
    let line = if state == State::Ready.as_str() { "takes pipes".to_owned() } else { leaving(&answer) };
    out.done(&answer, &format!("backend {} is in state {state}: {line}", backend.name))?;
    match out.count_down(async || pipes_on(client, &backend).await).await? {
        Left::Nothing => Ok(()),
        Left::Gone => bail!(
            "backend {} is not there any more: it was removed, or its lease has ended; where its pipes are, `holdline ctl pipes` says",
            backend.name
        ),
    }
}

async fn pipes_on(client: &Client, backend: &Thing) -> Result<Option<u64>, CallError> {
    match client.call(Method::GET, &backend.path(), None).await {
        Ok(body) => Ok(body["pipes"].as_u64().map(|pipes| pipes + body["requests"].as_u64().unwrap_or_default())),
        Err(CallError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn serves(entries: &[String]) -> Value {
    let mut serves = Map::new();
    for entry in entries.iter().filter(|entry| !entry.is_empty()) {
        let (key, alias) = entry.split_once('=').unwrap_or((entry, entry));
        serves.insert(key.to_owned(), json!(alias));
    }
    serves.into()
}

fn registration(add: &Add) -> Value {
    let mut body = json!({"url": add.url, "pool": add.pool, "weight": add.weight, "serves": serves(&add.serves)});
    if let Some(max_pipes) = add.max_pipes {
        body["max_pipes"] = json!(max_pipes);
    }
    body
}

/// The merge-patch (RFC 7396) that makes a backend what is wanted.
fn patch(set: &Set) -> Result<Value, Misuse> {
    let mut patch = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| patch.insert(name.to_owned(), value));
    put("url", set.url.as_ref().map(|url| json!(url)));
    put("pool", set.pool.as_ref().map(|pool| json!(pool)));
    put("weight", set.weight.map(|weight| json!(weight)));
    put("max_pipes", set.max_pipes.map(|max| json!(max)));
    // A list takes the place of what was there, where an object would be laid over it.
    let keys = || match serves(&set.serves) {
        Value::Object(keys) if keys.iter().all(|(key, alias)| alias == key) => json!(keys.keys().collect::<Vec<_>>()),
        keys => keys,
    };
    put("serves", (!set.serves.is_empty()).then(keys));
    let mut labels = Map::new();
    for label in &set.labels {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| Misuse(format!("--label {label}: write NAME=VALUE, or NAME= to drop it")))?;
        labels.insert(name.to_owned(), if value.is_empty() { Value::Null } else { json!(value) });
    }
    put("labels", (!labels.is_empty()).then(|| labels.into()));
    if patch.is_empty() {
        return Err(Misuse("nothing to set: see `holdline ctl backends set --help`".into()));
    }
    Ok(patch.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn nothing() -> Set {
        Set { id: "w".into(), url: None, pool: None, weight: None, max_pipes: None, serves: vec![], labels: vec![] }
    }

    #[test]
    fn a_patch_says_only_what_was_named() {
        let set = Set { weight: Some(2), labels: vec!["a=b".into(), "gone=".into()], ..nothing() };
        assert_eq!(patch(&set).unwrap(), json!({"weight": 2, "labels": {"a": "b", "gone": null}}));
        let any = Set { serves: vec![String::new()], ..nothing() };
        assert_eq!(patch(&any).unwrap(), json!({"serves": []}));
        assert!(patch(&nothing()).is_err());
        assert!(patch(&Set { labels: vec!["a".into()], ..nothing() }).is_err());
    }
}
