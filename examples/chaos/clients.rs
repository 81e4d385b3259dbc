//! The clients: ordinary WebSockets that neither resume nor know of Holdline. Each message that comes is checked at once.

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::books::{Books, Pages, Talk};
use crate::dice::Dice;

/// From the dial to the 101; longer than the proxy's own search among workers that are stopped.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(60);
/// From our close frame to the proxy's.
const CLOSE_WAIT: Duration = Duration::from_secs(15);
/// Messages without an answer, after which a client waits.
const UNANSWERED_MAX: u64 = 48;
/// Every so many clients one leaves now and then.
const CLIENTS_PER_LEAVER: u64 = 4;

type Socket = WebSocketStream<TcpStream>;

/// What all clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Talk, leave, come back.
    Talk,
    /// Say nothing new, stay.
    Listen,
    /// Close in order.
    Close,
}

/// What a client is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control,
    Echo,
    Video,
    Logs,
}

/// How a conversation ended.
enum End {
    /// Everything is over.
    Over,
    /// We left on purpose.
    Left,
    /// The other side ended it.
    Closed { code: u16, reason: String },
    /// The socket broke.
    Broken(String),
}

/// One client, who comes back after each end.
pub struct Client {
    index: u64,
    proxy: String,
    books: Arc<Books>,
    dice: Dice,
    kind: Kind,
    /// The worker and number of the last log line.
    last_line: Option<(String, u64)>,
    /// The number of the last echo.
    last_echo: u64,
}

impl Client {
    pub fn new(index: u64, proxy: String, books: Arc<Books>, dice: Dice) -> Self {
        let kind = match index % 10 {
            0..=4 => Kind::Control,
            5..=7 => Kind::Echo,
            8 => Kind::Logs,
            _ => Kind::Video,
        };
        Self { index, proxy, books, dice, kind, last_line: None, last_echo: 0 }
    }

    /// Connects again and again until the phase says to close.
    pub async fn live(mut self, mut phases: watch::Receiver<Phase>) {
        let mut life = 0;
        while *phases.borrow_and_update() == Phase::Talk {
            life += 1;
            let session = format!("c{}-{life}", self.index);
            let opening = timeout(HANDSHAKE_WAIT, self.connect(&session));
            let opened = tokio::select! {
                opened = opening => opened,
                () = until_closing(&mut phases) => return,
            };
            let Ok(opened) = opened else {
                self.books.open().problem(format!("{session}: no answer to its handshake"));
                continue;
            };
            let Some(socket) = opened else {
                sleep(self.dice.millis(50, 500)).await;
                continue;
            };
            let leaves_at = self.index.is_multiple_of(CLIENTS_PER_LEAVER).then(|| self.dice.millis(3_000, 40_000));
            let end = self.talk(&session, socket, leaves_at, &mut phases).await;
            self.ended(&session, end);
            sleep(self.dice.millis(0, 1_000)).await;
        }
    }

    async fn connect(&mut self, session: &str) -> Option<Socket> {
        let path = match self.kind {
            Kind::Control => "control?echo=1&pull=1",
            Kind::Echo => "echo",
            Kind::Video => "video?fps=3&sha=1&big=10&big_bytes=300000",
            Kind::Logs => "logs?rate=5&bytes=800",
        };
        let url = format!("ws://{}/ws/{session}/{path}", self.proxy);
        let tcp = TcpStream::connect(&self.proxy).await;
        let opened = match tcp {
            Ok(tcp) => client_async(url, tcp).await,
            Err(error) => Err(Error::Io(error)),
        };
        let mut pages = self.books.open();
        match opened {
            Ok((socket, _)) => {
                (self.last_line, self.last_echo) = (None, 0);
                pages.opened += 1;
                let talk = Talk {
                    is_answered: matches!(self.kind, Kind::Control | Kind::Echo),
                    is_journalled: self.kind == Kind::Control,
                    ..Talk::default()
                };
                pages.talks.insert(session.to_owned(), talk);
                return Some(socket);
            }
            Err(Error::Http(answer)) => match answer.status().as_u16() {
                502..=504 => pages.excuse("a new client found no worker (502, 503, 504)"),
                status if pages.take_refusal(status) => pages.excuse("a worker was told to refuse a handshake"),
                status => pages.problem(format!("{session}: handshake answered {status}")),
            },
            Err(error) => pages.problem(format!("{session}: no handshake: {error}")),
        }
        None
    }

    async fn talk(
        &mut self,
        session: &str,
        mut socket: Socket,
        leaves: Option<Duration>,
        phases: &mut watch::Receiver<Phase>,
    ) -> End {
        let mut ticks =
            interval(if self.kind == Kind::Control { self.dice.millis(300, 600) } else { self.dice.millis(150, 300) });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let leaves_at = Instant::now() + leaves.unwrap_or_default();
        loop {
            let phase = *phases.borrow_and_update();
            if phase == Phase::Close {
                return say_goodbye(socket).await;
            }
            let may_leave = leaves.is_some() && phase == Phase::Talk;
            let ended = tokio::select! {
                came = socket.next() => self.came(session, came),
                _ = ticks.tick(), if phase == Phase::Talk => self.send(session, &mut socket).await,
                () = sleep_until(leaves_at), if may_leave => return self.leave(session, socket).await,
                _ = phases.changed() => None,
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Sends the next message, unless too many wait for an answer.
    async fn send(&mut self, session: &str, socket: &mut Socket) -> Option<End> {
        let number = {
            let mut pages = self.books.open();
            let talk = pages.talks.get_mut(session).filter(|talk| talk.is_answered)?;
            if talk.unanswered() >= UNANSWERED_MAX {
                return None;
            }
            talk.sent += 1;
            let number = talk.sent;
            pages.sent += 1;
            number
        };
        let text = if self.kind == Kind::Control {
            json!({ "t": "tap", "x": number % 100, "y": 7, "n": number }).to_string()
        } else {
            spoken(session, number)
        };
        // a broken socket shows itself, with its reason, at the next read
        let _ = socket.send(Message::text(text)).await;
        None
    }

    fn came(&mut self, session: &str, came: Option<Result<Message, Error>>) -> Option<End> {
        let text = match came {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return None,
            Some(Ok(Message::Binary(_))) => {
                self.books.open().problem(format!("{session}: a binary message that was never sent"));
                return None;
            }
            Some(Ok(Message::Close(frame))) => {
                let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                return Some(End::Closed { code, reason });
            }
            Some(Err(error)) => return Some(End::Broken(error.to_string())),
            None => return Some(End::Broken("end of stream".into())),
        };
        let wrong = match self.kind {
            Kind::Control | Kind::Echo => self.answered(session, &text),
            Kind::Video => wrong_frame(session, &text),
            Kind::Logs => self.wrong_line(session, &text),
        };
        let mut pages = self.books.open();
        pages.received += 1;
        if let Some(wrong) = wrong {
            pages.problem(format!("{session}: {wrong}"));
        }
        None
    }

    /// Books an answer; what is wrong with it, if anything.
    fn answered(&mut self, session: &str, text: &str) -> Option<String> {
        let number = if self.kind == Kind::Control {
            serde_json::from_str::<Value>(text).ok().and_then(|answer| answer["ack"].as_u64())
        } else {
            serde_json::from_str::<Value>(text).ok().and_then(|answer| answer["n"].as_u64())
        };
        let Some(number) = number else { return Some(format!("not an answer: {}", start_of(text))) };
        if self.kind == Kind::Echo {
            if text != spoken(session, number) {
                return Some(format!("echo {number} came back changed: {}", start_of(text)));
            }
            // after a reattach the worker may be told again what it was told before; it must never skip
            let highest = self.last_echo;
            self.last_echo = highest.max(number);
            if number > highest + 1 {
                return Some(format!("echo {number} came after {highest}"));
            }
        }
        let mut pages = self.books.open();
        let Pages { talks, answers, again, .. } = &mut *pages;
        let talk = talks.get_mut(session)?;
        let times = talk.answers.entry(number).or_default();
        *times += 1;
        *answers += 1;
        *again += u64::from(*times > 1);
        (number == 0 || number > talk.sent).then(|| format!("an answer to {number}, which was never sent"))
    }

    /// Lines count on within an attachment and begin at 1 with each new one.
    fn wrong_line(&mut self, session: &str, text: &str) -> Option<String> {
        let Ok(line) = serde_json::from_str::<Value>(text) else { return Some(format!("no JSON: {}", start_of(text))) };
        let worker = line["worker"].as_str().unwrap_or_default().to_owned();
        let number = line["seq"].as_u64().unwrap_or_default();
        let before = self.last_line.replace((worker.clone(), number));
        let follows = match before {
            Some((last, count)) => number == 1 || (last == worker && number == count + 1),
            None => number == 1,
        };
        let is_ours = line["session"] == session;
        (!follows || !is_ours).then(|| format!("log line {number} of {worker} for {} is out of place", line["session"]))
    }

    /// Leaves in one of three ways, none of which is the proxy's fault.
    async fn leave(&mut self, session: &str, socket: Socket) -> End {
        self.leaves(session);
        match self.dice.below(3) {
            0 => {
                return if let End::Over = say_goodbye(socket).await {
                    End::Left
                } else {
                    End::Broken("no answer to our close frame".into())
                };
            }
            1 => drop(socket),
            _ => {
                // a reset instead of a FIN; a socket that refuses the option ends with a FIN
                let _ = socket2::SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO));
            }
        }
        End::Left
    }

    fn leaves(&self, session: &str) {
        if let Some(talk) = self.books.open().talks.get_mut(session) {
            talk.ended_early = true;
        }
    }

    /// Judges how a conversation ended.
    fn ended(&self, session: &str, end: End) {
        let mut pages = self.books.open();
        let told = |pages: &Pages, code| pages.told_to_close.get(session).is_some_and(|codes| codes.contains(&code));
        match end {
            End::Over => return,
            End::Left => pages.excuse("the client left"),
            End::Closed { code, reason } if told(&pages, code) && reason == crate::faults::CLOSE_REASON => {
                pages.excuse("a worker was told to close with a code that ends");
            }
            End::Closed { code: 4004, .. } if pages.take_refusal(4004) => pages.excuse("a worker said 4004"),
            End::Closed { code: 1008, .. } if pages.take_refusal(403) => {
                pages.excuse("a worker refused a reattach with 403")
            }
            End::Closed { code: 1011, reason } if reason.ends_with("in a row") => {
                pages.excuse("a message was there when three workers died (1011)");
            }
            End::Closed { code, reason } => pages.problem(format!("{session}: closed with {code} `{reason}`")),
            End::Broken(why) => pages.problem(format!("{session}: its socket broke: {why}")),
        }
        if let Some(talk) = pages.talks.get_mut(session) {
            talk.ended_early = true;
        }
    }
}

async fn until_closing(phases: &mut watch::Receiver<Phase>) {
    // an error means that the run is over
    let _ = phases.wait_for(|phase| *phase != Phase::Talk).await;
}

async fn say_goodbye(mut socket: Socket) -> End {
    let goodbye = async {
        socket.close(None).await?;
        while let Some(came) = socket.next().await {
            came?;
        }
        Ok::<(), Error>(())
    };
    match timeout(CLOSE_WAIT, goodbye).await {
        Ok(Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => End::Over,
        Ok(Err(error)) => End::Broken(format!("after our close frame: {error}")),
        Err(_) => End::Broken("no answer to our close frame".into()),
    }
}

/// What is said as number `number`: its length and letters follow from it, so that a splice shows.
fn spoken(session: &str, number: u64) -> String {
    let length = if number.is_multiple_of(40) { 90_000 } else { number * 7919 % 1_900 };
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or(0));
    let pad = letter.to_string().repeat(usize::try_from(length).unwrap_or(0));
    json!({ "n": number, "session": session, "pad": pad }).to_string()
}

/// What is wrong with a video frame; `None` if it is this session's and every byte is there.
fn wrong_frame(session: &str, text: &str) -> Option<String> {
    let Ok(frame) = serde_json::from_str::<Value>(text) else { return Some(format!("no JSON: {}", start_of(text))) };
    let picture = STANDARD.decode(frame["data"].as_str().unwrap_or_default()).unwrap_or_default();
    let digest: String = Sha256::digest(&picture).iter().map(|byte| format!("{byte:02x}")).collect();
    let is_whole = frame["session"] == session && frame["sha"] == digest.as_str();
    (!is_whole).then(|| format!("frame {} of {} is not whole", frame["seq"], frame["worker"]))
}

fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}
