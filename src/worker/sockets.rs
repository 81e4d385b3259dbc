//! The WebSocket endpoints: one task per connection reads and writes side by side, so pings are answered while a frame waits.
//!
//! Orders from the knobs end any endpoint at once; `control` alone finishes its queue when the worker drains.

use std::{collections::HashMap, future::poll_fn, str::FromStr, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::{
    App, control,
    device::Device,
    faults::{Link, Order, RejectMode},
    gate::Gate,
    journal::{Connection, now_ms},
};

/// The last part of the paths that are WebSockets.
pub(super) const CHANNELS: [&str; 6] = ["control", "video", "screenshot", "logs", "webrtc", "echo"];
/// The longest message that a client may send.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What is read from a socket at once.
const READ_BYTES: usize = 32 << 10;
/// How long the peer may take to answer our close frame, and to let go of the TCP connection.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The most frames and log lines a second that may be asked for.
const FPS_MAX: f64 = 60.0;
const LOG_RATE_MAX: f64 = 1_000.0;
/// The longest frame or log line that may be asked for.
const PADDED_BYTES_MAX: usize = 16 << 20;

/// A WebSocket that is about to begin.
pub(super) struct Upgrade {
    /// Resolves to the raw stream once our 101 is out.
    pub on: OnUpgrade,
    /// Its page in the journal, opened before the 101 so that a client that has seen the 101 finds it.
    pub page: Arc<Connection>,
    /// The query's fields.
    pub query: Query,
    /// Refused after the upgrade, in this way.
    pub reject: Option<RejectMode>,
    /// Dead from the start.
    pub mute: bool,
}

/// The fields of a query; a repeated one has its last value.
#[derive(Debug, Default, Clone)]
pub(super) struct Query(pub HashMap<String, String>);

impl Query {
    /// The field's value, if it is there and makes sense.
    pub(super) fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    /// Whether the field is `1` or `true`; `None` without it.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|value| value == "1" || value == "true")
    }
}

/// How a WebSocket ends.
#[derive(Debug)]
pub(super) enum End {
    /// The peer sent a close frame.
    Peer { code: Option<u16>, reason: String },
    /// EOF, RST or a broken stream.
    Broken,
    /// We close.
    Close { code: u16, reason: String },
    /// We end the TCP connection without a word.
    Fin,
}

/// 1012: the worker restarts.
pub(super) fn restarting() -> End {
    End::Close { code: 1012, reason: "Service Restart".into() }
}

pub(super) type Sink = SplitSink<WebSocketStream<Gate>, Message>;
pub(super) type Source = SplitStream<WebSocketStream<Gate>>;

/// What an endpoint works with, besides its socket.
pub(super) struct Peer<'a> {
    /// The worker.
    pub app: &'a Arc<App>,
    /// The TCP connection's knobs.
    pub link: &'a Link,
    /// The connection's page in the journal.
    pub page: Arc<Connection>,
    /// The handshake's query.
    pub query: Query,
    /// The phone that the session stands for.
    pub device: Arc<Device>,
    /// The session's id.
    pub session: String,
}

/// Serves a WebSocket until it is over.
pub(super) async fn run(app: &Arc<App>, link: &Link, upgrade: Upgrade, gate: Gate, early: Vec<u8>) {
    if upgrade.mute {
        link.half_open();
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_partially_read(gate, early, Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    let page = upgrade.page;
    let (session, channel) = (page.session().to_owned(), page.channel().to_owned());
    let end = if upgrade.reject == Some(RejectMode::NotFound) || !app.options.owns(&session) {
        End::Close { code: 4004, reason: "Session not found".into() }
    } else if let Some(device) = app.devices.of(&session) {
        let peer = Peer { app, link, page: page.clone(), query: upgrade.query, device, session };
        let channel = if upgrade.reject.is_some() { "silent" } else { &channel };
        tokio::select! {
            biased;
            end = told(link.orders(), channel != "control") => end,
            end = peer.serve(channel, &mut sink, &mut source) => end,
        }
    } else {
        End::Close { code: 1013, reason: "Too many sessions".into() }
    };
    finish(end, sink, source, &page).await;
}

/// Resolves when an order ends the connection at once.
async fn told(mut orders: watch::Receiver<Order>, drain: bool) -> End {
    let ends = |order: &Order| match order {
        Order::Run => false,
        Order::Drain => drain,
        Order::Close { .. } | Order::Fin => true,
    };
    let order = orders.wait_for(ends).await.map(|order| order.clone());
    match order {
        Ok(Order::Close { code, reason }) => End::Close { code, reason },
        Ok(Order::Fin) => End::Fin,
        Ok(Order::Run | Order::Drain) | Err(_) => restarting(),
    }
}

async fn finish(end: End, mut sink: Sink, mut source: Source, page: &Connection) {
    match end {
        End::Peer { code, reason } => page.closed("client", code, &reason),
        End::Broken => return page.closed("broken", None, ""),
        End::Close { code, reason } => {
            page.closed("worker", Some(code), &reason);
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            let close = sink.send(Message::Close(Some(frame)));
            if !matches!(timeout(CLOSE_WAIT, close).await, Ok(Ok(()))) {
                return;
            }
        }
        End::Fin => {
            page.closed("worker", None, "fin");
            return fin(sink, source).await;
        }
    }
    // the peer's answer; leaving with unread bytes would turn our close frame into a reset
    let quiet = async { while let Some(Ok(_)) = source.next().await {} };
    // a peer that doesn't answer is left alone
    let _ = timeout(CLOSE_WAIT, quiet).await;
}

async fn fin(sink: Sink, source: Source) {
    let Ok(socket) = sink.reunite(source) else {
        return;
    };
    let mut gate = socket.into_inner();
    let let_go = async {
        gate.shutdown().await?;
        let mut rest = [0; 4096];
        while gate.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // whatever the peer does about it, the socket is dropped next
    let _ = timeout(CLOSE_WAIT, let_go).await;
}

impl Peer<'_> {
    async fn serve(&self, channel: &str, sink: &mut Sink, source: &mut Source) -> End {
        match channel {
            "control" => control::serve(self, sink, source).await,
            "video" => self.beside(source, self.video(sink)).await,
            "screenshot" => self.screenshot(sink, source).await,
            "logs" => self.beside(source, self.logs(sink)).await,
            "webrtc" => self.webrtc(sink, source).await,
            "echo" => self.echo(sink, source).await,
            _ => self.listen(source).await,
        }
    }

    /// The next text or binary message; journals it.
    pub(super) async fn next(&self, source: &mut Source) -> Result<Message, End> {
        loop {
            let message = match source.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(end_of(&error)),
                None => return Err(End::Broken),
            };
            match &message {
                Message::Text(text) => self.page.received(true, text.as_bytes()),
                Message::Binary(bytes) => self.page.received(false, bytes),
                Message::Ping(_) => {
                    self.page.pinged();
                    continue;
                }
                Message::Close(frame) => {
                    let code = frame.as_ref().map(|frame| frame.code.into());
                    let reason = frame.as_ref().map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Err(End::Peer { code, reason });
                }
                Message::Pong(_) | Message::Frame(_) => continue,
            }
            return Ok(message);
        }
    }

    /// Sends a message; journals it.
    pub(super) async fn send(&self, sink: &mut Sink, text: Utf8Bytes) -> Result<(), End> {
        let bytes = text.len();
        sink.send(Message::Text(text)).await.map_err(|error| end_of(&error))?;
        self.page.sent(bytes);
        Ok(())
    }

    async fn beside(&self, source: &mut Source, talk: impl Future<Output = Result<(), End>>) -> End {
        tokio::select! {
            end = self.listen(source) => end,
            said = talk => said.err().unwrap_or(End::Close { code: 1011, reason: "No picture".into() }),
        }
    }

    async fn listen(&self, source: &mut Source) -> End {
        loop {
            if let Err(end) = self.next(source).await {
                return end;
            }
        }
    }

    /// Ends only with an error, or when there is no picture.
    async fn video(&self, sink: &mut Sink) -> Result<(), End> {
        let fps = self.query.get("fps").unwrap_or(self.app.options.fps);
        let fps = if fps > 0.0 { f64::clamp(fps, 0.01, FPS_MAX) } else { 1.0 };
        let sha = self.query.flag("sha").unwrap_or(false);
        let big_every = self.query.get("big").filter(|percent| *percent > 0).map(|percent: u64| (100 / percent).max(1));
        let big_bytes = self.query.get("big_bytes").unwrap_or(1_200_000).min(PADDED_BYTES_MAX);
        for count in 1_u64.. {
            sleep(self.app.devices.until_next(fps)).await;
            self.app.faults.thawed(Some(self.link)).await;
            let Some(frame) = self.app.devices.frame(&self.device).await else {
                break;
            };
            let big = big_every.is_some_and(|every| count.is_multiple_of(every));
            self.send(sink, frame.message(sha, if big { big_bytes } else { 0 })).await?;
        }
        Ok(())
    }

    async fn logs(&self, sink: &mut Sink) -> Result<(), End> {
        let rate = self.query.get("rate").unwrap_or(20.0);
        let rate = if rate > 0.0 { f64::clamp(rate, 0.01, LOG_RATE_MAX) } else { 1.0 };
        let bytes = self.query.get("bytes").unwrap_or(800).min(PADDED_BYTES_MAX);
        let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for seq in 1_u64.. {
            ticks.tick().await;
            self.app.faults.thawed(Some(self.link)).await;
            let line = json!({
                "type": "log", "session": self.session, "worker": self.app.name, "seq": seq, "ts": now_ms(),
                "level": "info", "process": "SpringBoard", "message": "",
            });
            self.send(sink, padded(&line.to_string(), "detail", bytes).into()).await?;
        }
        Ok(())
    }

    async fn screenshot(&self, sink: &mut Sink, source: &mut Source) -> End {
        loop {
            self.app.faults.thawed(Some(self.link)).await;
            let Some(frame) = self.app.devices.frame(&self.device).await else {
                return End::Close { code: 1011, reason: "No picture".into() };
            };
            let shown = async {
                self.send(sink, frame.message(self.query.flag("sha").unwrap_or(false), 0)).await?;
                self.next(source).await
            };
            match shown.await {
                Ok(Message::Text(text)) if text.contains("\"tap\"") => control::execute(self, &text).await,
                Ok(_) => {}
                Err(end) => return end,
            }
        }
    }

    async fn webrtc(&self, sink: &mut Sink, source: &mut Source) -> End {
        let mut offered = false;
        loop {
            let message = match self.next(source).await {
                Ok(message) => message,
                Err(end) => return end,
            };
            let said: Value =
                message.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            let answer = match said["type"].as_str() {
                Some("offer") => {
                    offered = true;
                    json!({ "type": "answer", "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\n", "worker": self.app.name })
                }
                Some("ice-candidate") if offered => {
                    json!({ "type": "ice-candidate", "candidate": said["candidate"] })
                }
                Some("ice-candidate") => json!({ "type": "error", "message": "no offer yet" }),
                _ => json!({ "type": "error", "message": "unknown type" }),
            };
            if let Err(end) = self.send(sink, answer.to_string().into()).await {
                return end;
            }
        }
    }

    /// Everything that has come already goes back before a flush, so that a busy echo costs few writes.
    async fn echo(&self, sink: &mut Sink, source: &mut Source) -> End {
        loop {
            let mut next = Some(self.next(source).await);
            while let Some(came) = next {
                let message = match came {
                    Ok(message) => message,
                    Err(end) => return end,
                };
                let bytes = message.len();
                // the second step takes it out of the sink's own slot: a pong to the peer's next ping must go out behind it
                if sink.feed(message).await.is_err() || poll_fn(|cx| sink.poll_ready_unpin(cx)).await.is_err() {
                    return End::Broken;
                }
                self.page.sent(bytes);
                next = self.next(source).now_or_never();
            }
            if sink.flush().await.is_err() {
                return End::Broken;
            }
        }
    }
}

/// A JSON object with a field of `x`s that makes it `bytes` long; unchanged if it is longer already.
pub(super) fn padded(object: &str, field: &str, bytes: usize) -> String {
    let envelope = object.len() + field.len() + ",\"\":\"\"".len();
    let Some(missing) = bytes.checked_sub(envelope) else {
        return object.into();
    };
    let open = object.strip_suffix('}').unwrap_or(object);
    format!("{open},\"{field}\":\"{}\"}}", "x".repeat(missing))
}

fn end_of(error: &Error) -> End {
    let close = |code, reason: &str| End::Close { code, reason: reason.into() };
    match error {
        Error::Capacity(_) => close(1009, "Message too big"),
        Error::Utf8(_) => close(1007, "Not UTF-8"),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Broken
        }
        Error::Protocol(_) => close(1002, "Protocol error"),
        _ => End::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_reaches_the_length_and_stays_json() {
        for bytes in [0, 30, 100, 5_000] {
            let text = padded(r#"{"a":1,"b":"two"}"#, "pad", bytes);
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["a"], 1);
            assert_eq!(text.len(), bytes.max(17));
        }
    }
}
