//! What one look at the process brought, read out of its JSON once.

use jiff::Timestamp;
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
    /// At most a page of them, sorted and chosen by the process.
    pub(super) pipes: Vec<Pipe>,
    /// Pipes that were asked for, on all pages.
    pub(super) matched: u64,
    pub(super) totals: Totals,
    pub(super) history: History,
}

/// The last ten minutes, step by step; the oldest first.
#[derive(Clone, Default, Debug)]
pub(super) struct History {
    pub(super) pipes: Vec<Option<f64>>,
    /// Messages a second, both ways.
    pub(super) messages: Vec<Option<f64>>,
    pub(super) reattach_p99_ms: Vec<Option<f64>>,
    pub(super) unplanned: u64,
    pub(super) planned: u64,
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
    /// For how long it has not been up, such as `4m`; empty while it is.
    pub(super) not_up_for: String,
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
    pub(super) bytes_per_second: u64,
    pub(super) memory_bytes: u64,
    pub(super) interruptions: u64,
}

/// The answers of one look, as they came.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) health: Value,
    pub(super) stats: Value,
    pub(super) history: Value,
    pub(super) pools: Vec<Value>,
    pub(super) backends: Vec<Value>,
    /// A page: `items` and `matched`.
    pub(super) pipes: Value,
    /// A page: `items` and `last`; nothing if those asked for are no longer kept.
    pub(super) events: Option<Value>,
}

impl Look {
    /// What the answers say, at this time.
    pub(super) fn read(answers: &Answers, at: f64) -> Self {
        let pipes: Vec<Pipe> = answers.pipes["items"].as_array().into_iter().flatten().map(Pipe::read).collect();
        Self {
            at,
            health: Health::read(&answers.health, &answers.stats),
            pools: answers.pools.iter().map(Pool::read).collect(),
            backends: answers.backends.iter().map(Backend::read).collect(),
            matched: answers.pipes["matched"].as_u64().unwrap_or(pipes.len() as u64),
            pipes,
            totals: Totals::read(&answers.stats["counters"]),
            history: History::read(&answers.history),
        }
    }
}

impl History {
    fn read(history: &Value) -> Self {
        let list = |name: &str| -> Vec<Option<f64>> {
            history[name].as_array().into_iter().flatten().map(Value::as_f64).collect()
        };
        let sum = |name: &str| history[name].as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
        let (up, down) = (list("up_messages_per_second"), list("down_messages_per_second"));
        Self {
            pipes: list("pipes"),
            messages: up.iter().zip(&down).map(|(up, down)| Some(up.unwrap_or(0.0) + down.unwrap_or(0.0))).collect(),
            reattach_p99_ms: list("reattach_p99_ms"),
            unplanned: sum("unplanned_interruptions"),
            planned: sum("planned_interruptions"),
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

/// How long ago a moment was, in its largest unit; empty if it is none.
fn age(moment: &Value) -> String {
    let Some(Ok(moment)) = moment.as_str().map(str::parse::<Timestamp>) else { return String::new() };
    let seconds = Timestamp::now().duration_since(moment).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
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
            not_up_for: if backend["health"] == "up" { String::new() } else { age(&backend["health_since"]) },
        }
    }
}

impl Pipe {
    fn read(pipe: &Value) -> Self {
        Self {
            id: text(&pipe["id"]),
            state: text(&pipe["state"]),
            route: text(&pipe["route"]),
            key: text(&pipe["key"]),
            client: text(&pipe["client"]),
            backend: text(&pipe["backend"]),
            level: text(&pipe["up"]["level"]),
            buffered_bytes: number(&pipe["buffered_bytes"]),
            bytes_per_second: number(&pipe["bytes_per_second"]),
            memory_bytes: number(&pipe["memory_bytes"]),
            interruptions: number(&pipe["interruptions"]),
        }
    }
}
