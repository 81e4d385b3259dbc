//! `holdline ctl pipes`, `pools` and `broadcast`.

use anyhow::bail;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::Client;
use super::args::{Broadcast, Filter, Pipes, Pools, Words};
use super::ask::{Kind, List, Thing, encode};
use super::output::{Output, View};
use super::table::Column;

const PIPE_COLUMNS: [Column; 11] = [
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
    ("BUFFERED", "/up/buffered_bytes"),
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
        Pipes::List(Filter { route, pool, backend, key, label, state }) => {
            let query = vec![
                ("route", route),
                ("pool", pool),
                ("backend", backend),
                ("key", key),
                ("label", label),
                ("state", state),
            ];
            let view = View::Table(List::new("/v1/pipes", query), &PIPE_COLUMNS);
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

pub(super) async fn pools(client: &Client, out: Output, command: Pools) -> anyhow::Result<()> {
    match command {
        Pools::List => out.show(client, &View::Table(List::new("/v1/pools", Vec::new()), &POOL_COLUMNS)).await,
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
    fn who_was_not_reached_is_told_by_why() {
        let told = json!({"matched": 3, "reached": 0, "not_reached": {"full": 2, "gone": 0, "closing": 1}});
        assert_eq!(missed(&told), "1 closing, 2 full");
    }
}
