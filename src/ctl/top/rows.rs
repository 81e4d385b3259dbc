//! What one look at the process brought, read out of its JSON once.

use std::collections::HashMap;

use serde_json::Value;

use crate::log::escaped;

/// One look.
#[derive(Clone, Default, Debug)]
pub(in crate::ctl) struct Look {
    /// Seconds on the looker's clock.
    pub(super) at: f64,
    pub(super) health: Health,
    pub(super) pools: Vec<Pool>,
    pub(super) backends: Vec<Backend>,
    /// At most a page of them.
    pub(super) pipes: Vec<Pipe>,
    pub(super) totals: Totals,
}

/// The process.
#[derive(Clone, Default, Debug)]
pub(super) struct Health {
    pub(super) version: String,
    pub(super) phase: String,
    pub(super) pipes: u64,
    pub(super) cpu_percent: f64,
    pub(super) rss_bytes: u64,
    pub(super) replay_bytes: u64,
}

/// Counters that only grow.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Totals {
    pub(super) up_messages: u64,
    pub(super) up_bytes: u64,
    pub(super) down_messages: u64,
    pub(super) down_bytes: u64,
    pub(super) interruptions: u64,
    pub(super) lost: u64,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) balance: String,
    pub(super) backends: u64,
    pub(super) eligible: u64,
    pub(super) pipes: u64,
    pub(super) waiting: u64,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Backend {
    pub(super) id: String,
    pub(super) pool: String,
    pub(super) state: String,
    pub(super) health: String,
    pub(super) lease: String,
    pub(super) is_eligible: bool,
    pub(super) pipes: u64,
    pub(super) url: String,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Pipe {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) route: String,
    pub(super) key: String,
    pub(super) client: String,
    pub(super) backend: String,
    pub(super) level: String,
    pub(super) buffered_bytes: u64,
    pub(super) interruptions: u64,
    pub(super) up: u64,
    pub(super) down: u64,
    /// Messages a second since the last look, each way.
    pub(super) up_rate: f64,
    pub(super) down_rate: f64,
}

/// The answers of one look, as they came.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) health: Value,
    pub(super) stats: Value,
    pub(super) pools: Vec<Value>,
    pub(super) backends: Vec<Value>,
    pub(super) pipes: Vec<Value>,
}

impl Look {
    /// What the answers say, at this time; rates are counted from the look before.
    pub(super) fn read(answers: &Answers, at: f64, before: Option<&Self>) -> Self {
        let pipes = answers.pipes.iter().map(Pipe::read).collect();
        let mut look = Self {
            at,
            health: Health::read(&answers.health, &answers.stats),
            pools: answers.pools.iter().map(Pool::read).collect(),
            backends: answers.backends.iter().map(Backend::read).collect(),
            pipes,
            totals: Totals::read(&answers.stats["counters"]),
        };
        if let Some(before) = before {
            look.count_rates(before);
        }
        look
    }

    fn count_rates(&mut self, before: &Self) {
        let old: HashMap<&str, &Pipe> = before.pipes.iter().map(|pipe| (pipe.id.as_str(), pipe)).collect();
        let seconds = self.at - before.at;
        for pipe in &mut self.pipes {
            if let Some(old) = old.get(pipe.id.as_str()) {
                (pipe.up_rate, pipe.down_rate) = (rate(old.up, pipe.up, seconds), rate(old.down, pipe.down, seconds));
            }
        }
    }
}

/// Growth a second; a counter that fell belongs to another process.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { now.saturating_sub(before) as f64 / seconds }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Null => "-".into(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => escaped(&value.to_string()),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

impl Health {
    fn read(health: &Value, stats: &Value) -> Self {
        Self {
            version: text(&health["version"]),
            phase: text(&health["phase"]),
            pipes: number(&health["pipes"]),
            cpu_percent: health["cpu_percent"].as_f64().unwrap_or(0.0),
            rss_bytes: number(&stats["memory"]["rss_bytes"]),
            replay_bytes: number(&stats["memory"]["replay_bytes"]),
        }
    }
}

impl Totals {
    fn read(counters: &Value) -> Self {
        let (up, down) = (&counters["up"], &counters["down"]);
        Self {
            up_messages: number(&up["messages_total"]),
            up_bytes: number(&up["message_bytes_total"]),
            down_messages: number(&down["messages_total"]),
            down_bytes: number(&down["message_bytes_total"]),
            interruptions: number(&counters["interruptions_total"]),
            lost: number(&up["lost_messages_total"]) + number(&down["lost_messages_total"]),
        }
    }
}

impl Pool {
    fn read(pool: &Value) -> Self {
        Self {
            name: text(&pool["name"]),
            balance: text(&pool["balance"]),
            backends: number(&pool["backends"]),
            eligible: number(&pool["eligible"]),
            pipes: number(&pool["pipes"]),
            waiting: number(&pool["waiting"]),
        }
    }
}

impl Backend {
    fn read(backend: &Value) -> Self {
        Self {
            id: text(&backend["id"]),
            pool: text(&backend["pool"]),
            state: text(&backend["state"]),
            health: text(&backend["health"]),
            lease: text(&backend["lease_state"]),
            is_eligible: backend["eligible"] == true,
            pipes: number(&backend["pipes"]),
            url: text(&backend["url"]),
        }
    }
}

impl Pipe {
    fn read(pipe: &Value) -> Self {
        let (up, down) = (&pipe["up"], &pipe["down"]);
        Self {
            id: text(&pipe["id"]),
            state: text(&pipe["state"]),
            route: text(&pipe["route"]),
            key: text(&pipe["key"]),
            client: text(&pipe["client"]),
            backend: text(&pipe["backend"]),
            level: text(&up["level"]),
            buffered_bytes: number(&up["buffered_bytes"]) + number(&down["buffered_bytes"]),
            interruptions: number(&pipe["interruptions"]),
            up: number(&up["accepted"]),
            down: number(&down["accepted"]),
            up_rate: 0.0,
            down_rate: 0.0,
        }
    }
}
