//! The demo's viewer page: live simulated screens, and what the page wants to know.
//!
//! The page is served by the demo; it asks `GET /demo/state` four times a second for a [`State`] until the phase is
//! [`Phase::Finished`], says that it knows by asking for `GET /demo/state?seen=finished`, and its buttons send
//! `POST /demo/workers/{index}/kill`, `…/drain` and `/demo/kill-all` (JSON body `{}`, any 2xx is fine). Its upper screens
//! are plain browser WebSockets to `{proxy}/ws/{session}/video`, and taps go to `…/control`; the lower ones show the same
//! sessions through the tunnel of the worker that the upper one is on.

use serde::Serialize;

/// The page, whole: no other file is loaded.
pub const VIEWER_HTML: &str = include_str!("viewer.html");

/// What `GET /demo/state` answers.
#[derive(Debug, Clone, Serialize)]
pub struct State {
    /// Base URL of the proxy's public listener, `ws://HOST:PORT`.
    pub proxy: String,
    /// The proxy's dashboard, `http://HOST:PORT/`.
    pub dashboard: String,
    /// The sessions whose screens the page shows.
    pub screens: Vec<String>,
    /// Where the demo is.
    pub phase: Phase,
    /// Seconds on the clock, which may wait for the first viewer.
    pub elapsed_s: f64,
    /// How long the demo runs; 0 is until it is stopped.
    pub seconds: u64,
    /// Clients of the demo itself, without this page's.
    pub clients: u64,
    /// Counts over all clients.
    pub totals: Totals,
    /// How long clients were without a worker.
    pub reattach_ms: ReattachMs,
    /// The workers, by their index in the buttons' paths.
    pub workers: Vec<WorkerState>,
    /// When the page's screens got another worker, oldest first.
    pub moves: Vec<Move>,
    /// What happened, oldest first; the page shows the last fifty.
    pub events: Vec<Event>,
    /// Whether the promises were kept, once that is known.
    pub verdict: Option<Verdict>,
}

/// Where the demo is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Proxy and workers come up.
    Starting,
    /// Clients are connected, and the clock waits for the page's first viewer.
    Waiting,
    /// Workers are killed.
    Running,
    /// Nothing is killed any more; what is on its way arrives.
    Settling,
    /// The verdict is there, and the viewer may go on killing.
    Encore,
    /// The verdict is there; the page asks no more and no longer minds closing sockets.
    Finished,
}

/// Counts over all clients of the demo.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Totals {
    /// Commands sent.
    pub sent: u64,
    /// Commands executed, once each.
    pub received: u64,
    /// Commands that no worker executed.
    pub lost: u64,
    /// Commands that were executed more than once.
    pub duplicated: u64,
    /// Messages that the proxy counted as in doubt.
    pub in_doubt: u64,
    /// Video frames that arrived whole.
    pub frames: u64,
    /// Times that a client was without its worker.
    pub interruptions: u64,
    /// Workers killed.
    pub kills: u64,
    /// Workers drained or told to stop.
    pub drains: u64,
    /// Client sockets that closed: the promise is none.
    pub client_closes: u64,
}

/// Milliseconds from losing a worker to having the next one; `None` before the first.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ReattachMs {
    /// Half were faster.
    pub p50: Option<f64>,
    /// All but one in a hundred were faster.
    pub p99: Option<f64>,
    /// The slowest.
    pub max: Option<f64>,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerState {
    /// Its name, as on its screens.
    pub name: String,
    /// What it is doing.
    pub state: WorkerPhase,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// Pipes that it serves.
    pub pipes: u64,
    /// How often it was started.
    pub starts: u64,
    /// The colour of its screens, in degrees.
    pub hue: u32,
    /// The plain tunnel to it, `ws://HOST:PORT`.
    pub tunnel: String,
}

/// One of the page's screens got another worker.
#[derive(Debug, Clone, Serialize)]
pub struct Move {
    /// It counts from 1.
    pub number: u64,
    /// The screen's session.
    pub screen: String,
    /// The worker that it was on.
    pub from: String,
    /// What became of that worker: it was `killed`, `stopped` or `drained`.
    pub why: &'static str,
    /// Milliseconds without a worker.
    pub took_ms: f64,
}

/// What a worker is doing; only one that is up can be killed or drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// Its process was started and is not serving yet.
    Starting,
    /// It serves.
    Up,
    /// It finishes its queue.
    Draining,
    /// It has no process.
    Down,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Seconds since the clients were connected.
    pub at_s: f64,
    /// One sentence for people.
    pub text: String,
}

/// How the demo ended.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// No promise was broken.
    pub ok: bool,
    /// One sentence for people.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn sample() -> State {
        State {
            proxy: "ws://127.0.0.1:8000".into(),
            dashboard: "http://127.0.0.1:9000/".into(),
            screens: vec!["phone-1".into()],
            phase: Phase::Running,
            elapsed_s: 1.5,
            seconds: 20,
            clients: 20,
            totals: Totals::default(),
            reattach_ms: ReattachMs::default(),
            workers: vec![WorkerState {
                name: "w".into(),
                state: WorkerPhase::Up,
                pid: None,
                pipes: 1,
                starts: 1,
                hue: 210,
                tunnel: "ws://127.0.0.1:7000".into(),
            }],
            moves: vec![Move { number: 1, screen: "phone-1".into(), from: "w".into(), why: "killed", took_ms: 1.0 }],
            events: vec![Event { at_s: 1.0, text: "t".into() }],
            verdict: Some(Verdict { ok: true, text: "t".into() }),
        }
    }

    fn fields(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    found.push(name.clone());
                    fields(value, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn the_page_shows_every_field_of_the_state() {
        let mut found = Vec::new();
        fields(&serde_json::to_value(sample()).unwrap(), &mut found);
        for field in found {
            assert!(VIEWER_HTML.contains(&format!(".{field}")), "{field} is not used");
        }
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=\"", "@import", ": url("] {
            assert!(!VIEWER_HTML.contains(outside), "{outside}");
        }
    }
}
