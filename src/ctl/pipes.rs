//! `holdline ctl pipes`, `pools` and `broadcast`.

use anyhow::bail;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::args::{Broadcast, Filter, Pipes, Pools, Words};
use super::ask::{Kind, List, Thing, encode};
use super::output::{Output, View};
use super::table::Column;
use super::{Client, Misuse};

/// The columns of a table of pipes, unless others are named.
const PIPE_COLUMNS: [Column; 12] = [
    ("ID", "/id"),
    ("STATE", "/state"),
    ("ROUTE", "/route"),
    ("KEY", "/key"),
    ("LABELS", "/labels"),
    ("CLIENT", "/client"),
    ("BACKEND", "/backend"),
    ("INTERRUPTIONS", "/interruptions"),
    ("UP", "/up/accepted"),
    ("DOWN", "/down/accepted"),
    ("RATE", "/bytes_per_second"),
    ("BUFFERED", "/buffered_bytes"),
];
/// Those that have to be named.
const MORE_PIPE_COLUMNS: [Column; 11] = [
    ("MEMORY", "/memory_bytes"),
    ("OPENED", "/opened_at"),
    ("ATTACHMENT", "/attachment"),
    ("GENERATION", "/generation"),
    ("HELD", "/held"),
    ("AWARE", "/aware"),
    ("COMPRESSION", "/compression"),
    ("CONVERSATION", "/conversation/kind"),
    ("SHARED", "/shared/role"),
    ("LOST-UP", "/up/lost"),
    ("LOST-DOWN", "/down/lost"),
];
const POOL_COLUMNS: [Column; 6] = [
    ("NAME", "/name"),
    ("BALANCE", "/balance"),
    ("BACKENDS", "/backends"),
    ("ELIGIBLE", "/eligible"),
    ("PIPES", "/pipes"),
    ("WAITING", "/waiting"),
];

pub(super) async fn run(client: &Client, out: Output, command: Pipes) -> anyhow::Result<()> {
    match command {
        Pipes::List(filter) => {
            let (columns, limit) = (columns(&filter.columns)?, filter.limit);
            let view = View::Table(List::new("/v1/pipes", query(filter)).limited(limit), columns);
            out.show_or_hint(client, &view, "no pipe; `holdline ctl events --follow` says when one opens").await
        }
        Pipes::Show { id } => out.show(client, &View::thing(Kind::Pipe, id)).await,
        Pipes::Move { id } => {
            let answer = pipe(&id).call(client, Method::POST, "/reattach", Some(&json!({}))).await?;
            out.done(&answer, &format!("pipe {id} is asked to move; see it with `holdline ctl pipes show {id}`"))
        }
        Pipes::Label { id, labels } => {
            let answer = pipe(&id).call(client, Method::PATCH, "", Some(&json!({"labels": relabel(&labels)}))).await?;
            out.done(&answer, &format!("pipe {id} has the labels {}", answer["labels"]))
        }
        Pipes::Close { id, code, reason } => {
            let query = format!("?code={code}&reason={}", encode(&reason));
            let answer = pipe(&id).call(client, Method::DELETE, &query, None).await?;
            out.done(&answer, &format!("pipe {id} is asked to close with {code}"))
        }
        Pipes::Say { id, words } => {
            let answer = pipe(&id).call(client, Method::POST, "/messages", Some(&body(&words))).await?;
            if answer["reached"] == 0 {
                bail!("pipe {id} has not taken it: {}", missed(&answer));
            }
            out.done(&answer, &format!("pipe {id} has taken it"))
        }
    }
}

fn query(filter: Filter) -> Vec<(&'static str, Option<String>)> {
    let Filter { route, pool, backend, key, label, state, q, sort, limit: _, columns: _ } = filter;
    vec![
        ("route", route),
        ("pool", pool),
        ("backend", backend),
        ("key", key),
        ("label", label),
        ("state", state),
        ("q", q),
        ("sort", sort.map(|sort| sort.as_str().to_owned())),
    ]
}

/// The columns of these names, in upper or lower case; the usual ones if none is named.
fn columns(names: &[String]) -> Result<Vec<Column>, Misuse> {
    if names.is_empty() {
        return Ok(PIPE_COLUMNS.into());
    }
    let all = || PIPE_COLUMNS.iter().chain(&MORE_PIPE_COLUMNS);
    let find = |name: &String| {
        let found = all().find(|(heading, _)| heading.eq_ignore_ascii_case(name.trim()));
        found.copied().ok_or_else(|| {
            let known: Vec<String> = all().map(|(heading, _)| heading.to_ascii_lowercase()).collect();
            Misuse(format!("there is no column {name:?}; there are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

pub(super) async fn pools(client: &Client, out: Output, command: Pools) -> anyhow::Result<()> {
    match command {
        Pools::List => out.show(client, &View::Table(List::new("/v1/pools", Vec::new()), POOL_COLUMNS.into())).await,
        Pools::Show { name } => out.show(client, &View::thing(Kind::Pool, name)).await,
        Pools::Rebalance { name } => {
            let pool = Thing::new(Kind::Pool, &name);
            let answer = pool.call(client, Method::POST, "/rebalance", Some(&json!({}))).await?;
            let line = match answer["moves"].as_u64() {
                Some(0) => format!("pool {name} is even already"),
                _ => format!("pool {name}: {} pipes move, {} a second", answer["moves"], answer["per_second"]),
            };
            out.done(&answer, &line)
        }
    }
}

pub(super) async fn broadcast(client: &Client, out: Output, wish: Broadcast) -> anyhow::Result<()> {
    let mut body = body(&wish.words);
    for (name, value) in [("route", wish.route), ("key", wish.key), ("pool", wish.pool), ("label", wish.label)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    body["exclude"] = json!(wish.exclude);
    let answer = client.call(Method::POST, "/v1/broadcast", Some(&body)).await?;
    let (reached, matched) = (&answer["reached"], &answer["matched"]);
    let missed = if reached == matched { String::new() } else { format!(" ({})", missed(&answer)) };
    out.done(&answer, &format!("{reached} of {matched} clients reached{missed}"))?;
    match (reached.as_u64(), matched.as_u64()) {
        (_, Some(0)) => {
            bail!("no client was told: there is none of that kind; `holdline ctl pipes` lists those that are there")
        }
        (Some(0), _) => bail!("no client has taken it"),
        (Some(_) | None, _) => Ok(()),
    }
}

/// The merge-patch that `NAME=VALUE`, `NAME` and `NAME=` are.
fn relabel(labels: &[String]) -> Map<String, Value> {
    let pairs = labels.iter().map(|label| match label.split_once('=') {
        None => (label.clone(), json!("")),
        Some((name, "")) => (name.to_owned(), Value::Null),
        Some((name, value)) => (name.to_owned(), json!(value)),
    });
    pairs.collect()
}

fn pipe(id: &str) -> Thing {
    Thing::new(Kind::Pipe, id)
}

fn body(words: &Words) -> Value {
    match (&words.text, &words.base64) {
        (Some(text), _) => json!({"text": text}),
        (None, base64) => json!({"base64": base64}),
    }
}

/// Why it was not taken, by how often: `2 full, 1 closing`.
fn missed(told: &Value) -> String {
    let reasons = told["not_reached"].as_object().into_iter().flatten();
    let missed = reasons.filter(|(_, count)| count.as_u64() != Some(0)).map(|(why, count)| format!("{count} {why}"));
    missed.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_emptied_and_taken_by_how_they_are_written() {
        let written = ["room=a=b", "vip", "user="].map(str::to_owned);
        assert_eq!(Value::from(relabel(&written)), json!({"room": "a=b", "vip": "", "user": null}));
    }

    #[test]
    fn columns_are_named_in_their_order_and_an_unknown_one_is_told_the_others() {
        let named = columns(&["memory", "ID", " key"].map(str::to_owned)).unwrap();
        assert_eq!(named, [("MEMORY", "/memory_bytes"), ("ID", "/id"), ("KEY", "/key")]);
        assert_eq!(columns(&[]).unwrap(), PIPE_COLUMNS);
        let refused = columns(&["speed".to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("no column \"speed\"") && refused.contains("id, state,"), "{refused}");
    }

    #[test]
    fn who_was_not_reached_is_told_by_why() {
        let told = json!({"matched": 3, "reached": 0, "not_reached": {"full": 2, "gone": 0, "closing": 1}});
        assert_eq!(missed(&told), "1 closing, 2 full");
    }
}
