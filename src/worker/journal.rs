//! What this worker saw and did, for tests and demos to compare with what clients sent.
//!
//! Everything is bounded: the oldest entries go first and are counted. A command counts as executed only after its
//! line is in the journal file, so the file of a killed worker holds every command that was executed.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::lock;

/// Executed commands kept.
pub(super) const COMMANDS_MAX: usize = 100_000;
/// Connections kept, open and closed ones.
pub(super) const CONNECTIONS_MAX: usize = 10_000;
/// Plain HTTP requests kept.
pub(super) const REQUESTS_MAX: usize = 10_000;
/// Messages kept of a connection that asked for it (`?record=1`).
pub(super) const RECORDED_MAX: usize = 4_096;
/// Bytes of a command's text that are kept.
const TEXT_BYTES_MAX: usize = 256;

/// The journal of one worker.
pub(super) struct Journal {
    inner: Mutex<Inner>,
    file: Option<Mutex<File>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    commands: VecDeque<Value>,
    commands_total: u64,
    connections: VecDeque<Arc<Connection>>,
    connections_total: u64,
    requests: VecDeque<Arc<Mutex<Map<String, Value>>>>,
    requests_total: u64,
}

/// The handshake of a connection, as it came.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The session's id in the path.
    pub session: String,
    /// `control`, `video`, …
    pub channel: String,
    /// The path as it came.
    pub path: String,
    /// The query as it came, without the question mark.
    pub query: String,
    /// `Holdline-Pipe`, if the proxy sent it.
    pub pipe: Option<String>,
    /// `Holdline-Attach`, if the proxy sent it.
    pub attach: Option<u64>,
    /// All headers.
    pub headers: Value,
    /// Keep each message's kind, length and digest.
    pub record: bool,
}

/// One WebSocket connection's page of the journal.
pub(super) struct Connection {
    id: u64,
    opened: Opened,
    opened_ms: i64,
    traffic: Mutex<Traffic>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Traffic {
    messages: u64,
    bytes: u64,
    digest: Sha256,
    pings: u64,
    recorded: Vec<Value>,
    sent_messages: u64,
    sent_bytes: u64,
    closed: Option<Value>,
}

/// How many of what a reader of the journal waits for.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wanted {
    /// Executed commands.
    pub commands: usize,
    /// Connections, open or closed.
    pub connections: usize,
    /// Connections that are closed.
    pub closed: usize,
    /// Messages received over all connections.
    pub messages: u64,
    /// Plain HTTP requests, open or over.
    pub requests: usize,
    /// Plain HTTP requests that are over.
    pub ended: usize,
}

impl Journal {
    /// An empty journal, with the file that executed commands are appended to.
    pub(super) fn new(file: Option<File>) -> Self {
        Self { inner: Mutex::default(), file: file.map(Mutex::new), version: watch::Sender::new(0) }
    }

    /// Opens a page for a new WebSocket.
    pub(super) fn open(&self, opened: Opened) -> Arc<Connection> {
        let mut inner = lock(&self.inner);
        inner.connections_total += 1;
        let connection = Arc::new(Connection {
            id: inner.connections_total,
            opened,
            opened_ms: now_ms(),
            traffic: Mutex::default(),
            version: self.version.clone(),
        });
        push(&mut inner.connections, connection.clone(), CONNECTIONS_MAX);
        drop(inner);
        bump(&self.version);
        connection
    }

    /// Writes down that a command was executed; when this returns, it counts.
    ///
    /// # Errors
    /// When the journal file can't be written; the command does not count then.
    pub(super) fn executed(&self, connection: &Connection, text: &str, number: Option<u64>) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let entry = json!({
            "index": inner.commands_total + 1, "at_ms": now_ms(), "n": number, "connection": connection.id,
            "session": connection.opened.session, "pipe": connection.opened.pipe, "attach": connection.opened.attach,
            "text": text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)),
        });
        if let Some(file) = &self.file {
            lock(file).write_all(format!("{entry}\n").as_bytes())?;
        }
        inner.commands_total += 1;
        push(&mut inner.commands, entry, COMMANDS_MAX);
        drop(inner);
        bump(&self.version);
        Ok(())
    }

    /// Writes down that a plain HTTP request has begun; hand the entry back to [`Journal::ended`].
    pub(super) fn began(&self, mut entry: Map<String, Value>) -> Arc<Mutex<Map<String, Value>>> {
        let mut inner = lock(&self.inner);
        inner.requests_total += 1;
        entry.insert("id".into(), inner.requests_total.into());
        entry.insert("outcome".into(), "open".into());
        let entry = Arc::new(Mutex::new(entry));
        push(&mut inner.requests, entry.clone(), REQUESTS_MAX);
        drop(inner);
        bump(&self.version);
        entry
    }

    /// Writes down that the request was answered with `status`, or given up by its client.
    pub(super) fn ended(&self, request: &Mutex<Map<String, Value>>, status: Option<u16>) {
        let mut entry = lock(request);
        let outcome = if status.is_some() { "answered" } else { "cancelled" };
        entry.insert("outcome".into(), outcome.into());
        entry.insert("status".into(), status.into());
        entry.insert("ended_ms".into(), now_ms().into());
        drop(entry);
        bump(&self.version);
    }

    /// Forgets everything; numbers go on.
    pub(super) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.commands.clear();
        inner.connections.retain(|connection| lock(&connection.traffic).closed.is_none());
        inner.requests.clear();
        drop(inner);
        bump(&self.version);
    }

    /// The journal, of one session or all.
    pub(super) fn snapshot(&self, session: Option<&str>) -> Value {
        let inner = lock(&self.inner);
        let commands: Vec<_> =
            inner.commands.iter().filter(|entry| session.is_none_or(|wanted| entry["session"] == wanted)).collect();
        let connections: Vec<_> = inner.of(session).map(|connection| connection.snapshot()).collect();
        let requests: Vec<_> = inner.requests.iter().map(|entry| lock(entry).clone()).collect();
        json!({
            "commands": commands, "commands_total": inner.commands_total,
            "commands_dropped": inner.commands.front().map_or(0, |first| first["index"].as_u64().unwrap_or(1) - 1),
            "connections": connections, "connections_total": inner.connections_total,
            "requests": requests, "requests_total": inner.requests_total,
        })
    }

    /// Returns once the journal holds what is wanted; the caller bounds the time.
    pub(super) async fn reached(&self, session: Option<&str>, wanted: Wanted) {
        let mut version = self.version.subscribe();
        while !self.holds(session, wanted) {
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    fn holds(&self, session: Option<&str>, wanted: Wanted) -> bool {
        let inner = lock(&self.inner);
        let commands =
            inner.commands.iter().filter(|entry| session.is_none_or(|wanted| entry["session"] == wanted)).count();
        let (mut connections, mut closed, mut messages) = (0, 0, 0);
        for connection in inner.of(session) {
            let traffic = lock(&connection.traffic);
            connections += 1;
            closed += usize::from(traffic.closed.is_some());
            messages += traffic.messages;
        }
        commands >= wanted.commands
            && connections >= wanted.connections
            && closed >= wanted.closed
            && messages >= wanted.messages
            && inner.requests.len() >= wanted.requests
            && inner.requests.iter().filter(|entry| lock(entry).contains_key("ended_ms")).count() >= wanted.ended
    }
}

impl Inner {
    fn of(&self, session: Option<&str>) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections
            .iter()
            .filter(move |connection| session.is_none_or(|wanted| connection.opened.session == wanted))
    }
}

impl Connection {
    /// The connection's number, counted from 1.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The session's id.
    pub(super) fn session(&self) -> &str {
        &self.opened.session
    }

    /// `control`, `video`, …
    pub(super) fn channel(&self) -> &str {
        &self.opened.channel
    }

    /// A text or binary message came. The digest runs over kind (1 text, 2 binary), length (8 bytes, big endian) and payload.
    pub(super) fn received(&self, text: bool, payload: &[u8]) {
        let mut traffic = lock(&self.traffic);
        traffic.messages += 1;
        traffic.bytes += payload.len() as u64;
        traffic.digest.update([if text { 1 } else { 2 }]);
        traffic.digest.update((payload.len() as u64).to_be_bytes());
        traffic.digest.update(payload);
        if self.opened.record && traffic.recorded.len() < RECORDED_MAX {
            let kind = if text { "text" } else { "binary" };
            let entry = json!({ "kind": kind, "bytes": payload.len(), "sha256": hex(&Sha256::digest(payload)) });
            traffic.recorded.push(entry);
        }
        drop(traffic);
        bump(&self.version);
    }

    /// A ping came.
    pub(super) fn pinged(&self) {
        lock(&self.traffic).pings += 1;
    }

    /// A message was handed to the socket.
    pub(super) fn sent(&self, bytes: usize) {
        let mut traffic = lock(&self.traffic);
        traffic.sent_messages += 1;
        traffic.sent_bytes += bytes as u64;
    }

    /// The connection is over; `by` is `client`, `worker` or `broken`. Only the first word counts.
    pub(super) fn closed(&self, by: &str, code: Option<u16>, reason: &str) {
        lock(&self.traffic)
            .closed
            .get_or_insert_with(|| json!({ "by": by, "code": code, "reason": reason, "at_ms": now_ms() }));
        bump(&self.version);
    }

    fn snapshot(&self) -> Value {
        let traffic = lock(&self.traffic);
        let opened = &self.opened;
        json!({
            "id": self.id, "session": opened.session, "channel": opened.channel, "path": opened.path, "query": opened.query,
            "pipe": opened.pipe, "attach": opened.attach, "headers": opened.headers, "opened_ms": self.opened_ms,
            "messages": traffic.messages, "bytes": traffic.bytes, "sha256": hex(&traffic.digest.clone().finalize()),
            "pings": traffic.pings, "recorded": traffic.recorded,
            "sent_messages": traffic.sent_messages, "sent_bytes": traffic.sent_bytes, "closed": traffic.closed,
        })
    }
}

/// Request headers as JSON: repeated ones joined with `", "`, credentials as their digest.
pub(super) fn headers_json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let joined = values.join(", ");
        let secret = matches!(name.as_str(), "authorization" | "proxy-authorization" | "cookie");
        let shown = if secret { format!("sha256:{}", hex(&Sha256::digest(&joined))) } else { joined };
        object.insert(name.as_str().into(), shown.into());
    }
    Value::Object(object)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

fn push<T>(queue: &mut VecDeque<T>, entry: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(entry);
}

fn bump(version: &watch::Sender<u64>) {
    version.send_modify(|version| *version = version.wrapping_add(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(session: &str) -> Opened {
        Opened {
            session: session.into(),
            channel: "control".into(),
            path: format!("/ws/{session}/control"),
            query: String::new(),
            pipe: None,
            attach: Some(2),
            headers: json!({}),
            record: true,
        }
    }

    #[test]
    fn the_oldest_connection_goes_when_the_journal_is_full() {
        let journal = Journal::new(None);
        for _ in 0..CONNECTIONS_MAX {
            journal.open(opened("s"));
        }
        assert_eq!(journal.snapshot(None)["connections"][0]["id"], 1);
        journal.open(opened("s"));
        let snapshot = journal.snapshot(None);
        assert_eq!(snapshot["connections"].as_array().unwrap().len(), CONNECTIONS_MAX);
        assert_eq!((&snapshot["connections"][0]["id"], &snapshot["connections_total"]), (&json!(2), &json!(10_001)));
    }

    #[test]
    fn boundaries_and_kinds_are_part_of_the_digest() {
        let journal = Journal::new(None);
        let digest = |messages: &[(bool, &str)]| {
            let connection = journal.open(opened("s"));
            messages.iter().for_each(|(text, payload)| connection.received(*text, payload.as_bytes()));
            connection.snapshot()["sha256"].clone()
        };
        let plain = digest(&[(true, "ab"), (true, "c")]);
        assert_eq!(plain, digest(&[(true, "ab"), (true, "c")]));
        assert_ne!(plain, digest(&[(true, "a"), (true, "bc")]));
        assert_ne!(plain, digest(&[(true, "ab"), (false, "c")]));
    }

    #[test]
    fn an_executed_command_is_in_the_file_before_it_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let journal = Journal::new(Some(file.reopen().unwrap()));
        let connection = journal.open(opened("s1"));
        journal.executed(&connection, r#"{"t":"tap","n":17}"#, Some(17)).unwrap();
        let line: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
        assert_eq!((&line["n"], &line["attach"]), (&json!(17), &json!(2)));
        assert_eq!(journal.snapshot(Some("s1"))["commands"], json!([line]));
        assert_eq!(journal.snapshot(Some("s2"))["commands"], json!([]));
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes_when_enough_has_come() {
        let journal = Arc::new(Journal::new(None));
        let connection = journal.open(opened("s"));
        let wanted = Wanted { messages: 2, ..Wanted::default() };
        let waiting = tokio::spawn({
            let journal = journal.clone();
            async move { journal.reached(Some("s"), wanted).await }
        });
        connection.received(true, b"1");
        connection.received(true, b"2");
        waiting.await.unwrap();
    }

    #[test]
    fn credentials_are_not_shown() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Basic c2VjcmV0".parse().unwrap());
        headers.append("x-forwarded-for", "1.2.3.4".parse().unwrap());
        headers.append("x-forwarded-for", "5.6.7.8".parse().unwrap());
        let json = headers_json(&headers);
        assert_eq!(json["x-forwarded-for"], "1.2.3.4, 5.6.7.8");
        assert!(!json.to_string().contains("c2VjcmV0"));
    }
}
