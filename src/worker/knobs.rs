//! The knobs that make this worker misbehave, and its journal.
//!
//! Every knob takes `?session=` and `?path=` (`control`, `video`, …) to mean only those WebSockets, and answers
//! `{"ok":true,"connections":n}` on a connection that closes afterwards. Fields it doesn't know are refused.
//!
//! | request | does |
//! |---|---|
//! | `GET /__journal` | what was executed and seen (`?session=`); with `?commands=`, `?connections=`, `?closed=`, `?messages=`, `?requests=`, `?ended=` it waits until there are so many, `?wait_ms=` at most (then 408) |
//! | `DELETE /__journal` | forgets it |
//! | `POST /__freeze?ms=` | no reading, writing, accepting, executing and answering pings for that time |
//! | `POST /__hold`, `/__step?n=`, `/__release` | commands wait, so many go on, all go on |
//! | `POST /__term` | the orderly stop of SIGTERM |
//! | `POST /__kill` | the process aborts; no answer |
//! | `POST /__fin` | TCP connections end without a close frame |
//! | `POST /__mute?mode=on` | new WebSockets are accepted and dead: not even pings are answered (`off` ends it) |
//! | `POST /__reject?mode=silent` | new WebSockets: accepted and never told anything (pings are answered), or `drop`, `4004`, `403`, `429`; `off` ends it; `count=` only the next ones |
//! | `POST /__halfopen` | sockets stay, nothing is read or written any more |
//! | `POST /__close?code=&reason=` | close frames, at once |
//! | `POST /__slow?bps=` | reads so many bytes a second; 0 ends it |

use std::{sync::Arc, time::Duration};

use http::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    App,
    faults::{Link, Order, RejectMode, Scope},
    journal::Wanted,
    rest::{Body, json_response},
    sockets::Query,
};

/// The longest freeze.
const FREEZE_MAX: Duration = Duration::from_secs(600);
/// How long a reader of the journal waits, and the longest it may ask for.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(120);

/// `GET` and `DELETE /__journal`.
pub(super) async fn journal(app: &App, method: &Method, query: &Query) -> Response<Body> {
    if method == Method::DELETE {
        app.journal.clear();
        return json_response(StatusCode::OK, &json!({ "ok": true }));
    }
    if method != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "GET or DELETE");
    }
    if let Some(name) =
        unknown(query, &["session", "commands", "connections", "closed", "messages", "requests", "ended", "wait_ms"])
    {
        return refused(StatusCode::BAD_REQUEST, &format!("unknown field {name}"));
    }
    let session: Option<String> = query.get("session");
    let wanted = Wanted {
        commands: query.get("commands").unwrap_or(0),
        connections: query.get("connections").unwrap_or(0),
        closed: query.get("closed").unwrap_or(0),
        messages: query.get("messages").unwrap_or(0),
        requests: query.get("requests").unwrap_or(0),
        ended: query.get("ended").unwrap_or(0),
    };
    let wait = query.get("wait_ms").map_or(WAIT, Duration::from_millis).min(WAIT_MAX);
    let reached = timeout(wait, app.journal.reached(session.as_deref(), wanted)).await.is_ok();
    let status = if reached { StatusCode::OK } else { StatusCode::REQUEST_TIMEOUT };
    json_response(status, &app.journal.snapshot(session.as_deref()))
}

/// `POST /__NAME`.
pub(super) fn turn(app: &App, link: &Arc<Link>, name: &str, method: &Method, query: &Query) -> Response<Body> {
    if method != Method::POST {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "knobs are turned with POST");
    }
    let Some(knob) = KNOBS.iter().find(|knob| knob.name == name) else {
        return refused(StatusCode::NOT_FOUND, "no such knob");
    };
    if let Some(field) = unknown(query, knob.fields) {
        return refused(StatusCode::BAD_REQUEST, &format!("unknown field {field}"));
    }
    link.exempt();
    let scope = Scope { session: query.get("session"), path: query.get("path") };
    tracing::warn!(knob = name, ?scope, "knob turned");
    match (knob.turn)(app, scope, query) {
        Ok(connections) => closing(json_response(StatusCode::OK, &json!({ "ok": true, "connections": connections }))),
        Err(why) => refused(StatusCode::BAD_REQUEST, why),
    }
}

struct Knob {
    name: &'static str,
    fields: &'static [&'static str],
    turn: fn(&App, Scope, &Query) -> Result<usize, &'static str>,
}

static KNOBS: [Knob; 12] = [
    Knob { name: "freeze", fields: &["ms", "session", "path"], turn: freeze },
    Knob { name: "hold", fields: &[], turn: |app, _, _| done(|| app.faults.hold(true)) },
    Knob { name: "step", fields: &["n"], turn: |app, _, query| done(|| app.faults.step(query.get("n").unwrap_or(1))) },
    Knob { name: "release", fields: &[], turn: |app, _, _| done(|| app.faults.hold(false)) },
    Knob { name: "term", fields: &[], turn: |app, _, _| done(|| app.stop.send_modify(|stop| *stop = true)) },
    Knob { name: "kill", fields: &[], turn: |_, _, _| std::process::abort() },
    Knob { name: "fin", fields: &["session", "path"], turn: |app, scope, _| Ok(app.faults.order(&scope, &Order::Fin)) },
    Knob { name: "mute", fields: &["mode", "session", "path"], turn: mute },
    Knob { name: "reject", fields: &["mode", "count", "session", "path"], turn: reject },
    Knob { name: "halfopen", fields: &["session", "path"], turn: |app, scope, _| Ok(app.faults.half_open(&scope)) },
    Knob { name: "close", fields: &["code", "reason", "session", "path"], turn: close },
    Knob { name: "slow", fields: &["bps", "session", "path"], turn: slow },
];

fn done(act: impl FnOnce()) -> Result<usize, &'static str> {
    act();
    Ok(0)
}

fn freeze(app: &App, scope: Scope, query: &Query) -> Result<usize, &'static str> {
    let time = Duration::from_millis(query.get("ms").ok_or("ms is missing")?);
    Ok(app.faults.freeze(&scope, time.min(FREEZE_MAX)))
}

fn mute(app: &App, scope: Scope, query: &Query) -> Result<usize, &'static str> {
    let scope = match query.0.get("mode").map(String::as_str) {
        None | Some("on") => Some(scope),
        Some("off") => None,
        Some(_) => return Err("mode is on or off"),
    };
    app.faults.mute(scope);
    Ok(0)
}

fn reject(app: &App, scope: Scope, query: &Query) -> Result<usize, &'static str> {
    let mode = match query.0.get("mode").map(String::as_str) {
        Some("silent") => Some(RejectMode::Silent),
        Some("drop") => Some(RejectMode::Drop),
        Some("4004") => Some(RejectMode::NotFound),
        Some("403") => Some(RejectMode::Forbidden),
        Some("429") => Some(RejectMode::TooMany),
        Some("off") => None,
        Some(_) | None => return Err("mode is silent, drop, 4004, 403, 429 or off"),
    };
    app.faults.reject(mode, scope, query.get("count"));
    Ok(0)
}

fn close(app: &App, scope: Scope, query: &Query) -> Result<usize, &'static str> {
    let code = query.get("code").ok_or("code is missing")?;
    if !(1000..5000).contains(&code) {
        return Err("code is from 1000 to 4999");
    }
    let reason: String = query.get("reason").unwrap_or_default();
    // RFC 6455, section 5.5: a control frame holds 125 bytes, two of them are the code
    if reason.len() > 123 {
        return Err("reason is at most 123 bytes");
    }
    Ok(app.faults.order(&scope, &Order::Close { code, reason }))
}

fn slow(app: &App, scope: Scope, query: &Query) -> Result<usize, &'static str> {
    Ok(app.faults.slow(&scope, query.get("bps").ok_or("bps is missing")?))
}

fn unknown<'a>(query: &'a Query, known: &[&str]) -> Option<&'a str> {
    query.0.keys().map(String::as_str).find(|name| !known.contains(name))
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    json_response(status, &Value::from_iter([("error", why)]))
}

/// The connection that turned a knob ends with the answer, so that it isn't left out of later faults.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
