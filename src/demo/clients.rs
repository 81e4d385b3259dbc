//! The clients: ordinary WebSockets that send numbered commands, and every fourth watches a screen.
//!
//! None of them resumes or reconnects: a socket that closes stays closed and is counted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::board::Board;
use crate::net::{BackendStream, TlsClient, TlsPeer};

/// Of so many clients, the first watches a screen.
pub(super) const CLIENTS_PER_SCREEN: u64 = 4;
/// Commands come in bursts, as from a finger that drags.
const BURST_EVERY: Duration = Duration::from_millis(250);
const BURST_MAX: u64 = 5;
/// Commands of one client that may be unanswered: on a machine that can't keep up, the finger waits for the screen.
const UNANSWERED_MAX: u64 = 25;
/// Frames a second of a watched screen.
const FPS: u32 = 4;
/// From the dial to the 101, and from our close frame to the answer.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Send and receive.
    Send,
    /// Receive only.
    Listen,
    /// Close the socket.
    Close,
}

type Socket = WebSocketStream<BackendStream>;

/// The session of client number `index`.
fn session_of(index: usize) -> String {
    format!("phone-{}", index + 1)
}

/// The client that a session belongs to; `None` for the page's screens.
pub(super) fn client_of(session: &str) -> Option<usize> {
    session.strip_prefix("phone-")?.parse::<usize>().ok()?.checked_sub(1)
}

/// Connects every client, by TLS if there is some; they run until `orders` says to close.
///
/// # Errors
/// When one of them gets no WebSocket.
pub(super) async fn connect(
    board: &Arc<Board>,
    count: u64,
    orders: &watch::Receiver<Order>,
    tls: Option<&TlsClient>,
) -> anyhow::Result<JoinSet<()>> {
    let mut clients = JoinSet::new();
    for index in 0..count as usize {
        let session = session_of(index);
        let control = open(board, &format!("/ws/{session}/control?echo=1"), tls).await?;
        clients.spawn(command(board.clone(), index, control, orders.clone()));
        if (index as u64).is_multiple_of(CLIENTS_PER_SCREEN) {
            let screen = index / CLIENTS_PER_SCREEN as usize;
            let video = open(board, &format!("/ws/{session}/video?fps={FPS}&sha=1"), tls).await?;
            clients.spawn(watch_screen(board.clone(), screen, session, video, orders.clone()));
        }
    }
    Ok(clients)
}

async fn open(board: &Board, path: &str, tls: Option<&TlsClient>) -> anyhow::Result<Socket> {
    let (_, address) = board.proxy.split_once("://").context("the proxy's URL has no scheme")?;
    let opening = async {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let socket = match tls {
            None => BackendStream::Tcp(socket),
            Some(tls) => BackendStream::Tls(Box::new(TlsPeer::named("localhost", tls).secure(socket).await?)),
        };
        let (socket, _) = client_async(format!("{}{path}", board.proxy), socket).await?;
        anyhow::Ok(socket)
    };
    timeout(HANDSHAKE_WAIT, opening)
        .await
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("no WebSocket at {path}"))
}

async fn command(board: Arc<Board>, index: usize, mut socket: Socket, mut orders: watch::Receiver<Order>) {
    let mut bursts = interval(BURST_EVERY);
    bursts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = index as u64;
    loop {
        let order = *orders.borrow_and_update();
        let ended = tokio::select! {
            came = socket.next() => answered(&board, index, came),
            _ = bursts.tick(), if order == Order::Send => {
                count += 1;
                burst(&board, index, 1 + count % BURST_MAX, &mut socket).await
            }
            _ = orders.changed() => None,
        };
        if let Some(why) = ended {
            return board.client_closed(&session_of(index), &why);
        }
        if *orders.borrow() == Order::Close {
            return close(socket).await;
        }
    }
}

/// Sends the next `length` commands in one go; why the socket is closed, if it is.
async fn burst(board: &Board, index: usize, length: u64, socket: &mut Socket) -> Option<String> {
    for _ in 0..length {
        let number = {
            let mut books = board.books();
            let commands = &mut books.clients[index];
            if commands.answered.missing(commands.sent) >= UNANSWERED_MAX {
                break;
            }
            commands.sent += 1;
            commands.sent
        };
        let (x, y) = (40 + number * 37 % 440, 120 + number * 53 % 900);
        let text = json!({ "t": "tap", "x": x, "y": y, "n": number }).to_string();
        if let Err(error) = socket.feed(Message::text(text)).await {
            return Some(error.to_string());
        }
    }
    socket.flush().await.err().map(|error| error.to_string())
}

#[derive(Deserialize)]
struct Answer {
    ack: u64,
}

/// Books an answer; why the socket is closed, if it is.
fn answered(board: &Board, index: usize, came: Option<Result<Message, Error>>) -> Option<String> {
    let text = match text_of(came) {
        Ok(text) => text?,
        Err(why) => return Some(why),
    };
    let mut books = board.books();
    let commands = &mut books.clients[index];
    // what is no answer is booked as one to a command that was never sent
    let number = serde_json::from_str(&text).map_or(u64::MAX, |answer: Answer| answer.ack);
    commands.answered.note(number);
    None
}

/// A text message, `None` for what is of no interest.
///
/// # Errors
/// Why the socket is closed.
fn text_of(came: Option<Result<Message, Error>>) -> Result<Option<String>, String> {
    match came {
        Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
        Some(Ok(Message::Close(Some(frame)))) => Err(format!("close {} {}", u16::from(frame.code), frame.reason)),
        Some(Ok(Message::Close(None))) => Err("a close frame without a code".into()),
        Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("end of stream".into()),
    }
}

async fn watch_screen(
    board: Arc<Board>,
    screen: usize,
    session: String,
    mut socket: Socket,
    mut orders: watch::Receiver<Order>,
) {
    loop {
        tokio::select! {
            came = socket.next() => match text_of(came) {
                Ok(Some(text)) => frame(&board, screen, &session, &text),
                Ok(None) => {}
                Err(why) => return board.client_closed(&format!("{session}'s screen"), &why),
            },
            _ = orders.changed() => if *orders.borrow_and_update() == Order::Close {
                return close(socket).await;
            }
        }
    }
}

/// A frame as the worker sends it.
#[derive(Deserialize)]
struct Frame<'a> {
    session: &'a str,
    worker: &'a str,
    seq: u64,
    data: &'a str,
    sha: &'a str,
}

fn frame(board: &Board, screen: usize, session: &str, text: &str) {
    let whole = serde_json::from_str(text).ok().filter(|frame| is_whole(frame, session));
    let mut books = board.books();
    match whole {
        Some(frame) => books.screens[screen].came(frame.worker, frame.seq),
        None => books.screens[screen].lost += 1,
    }
}

/// Whether it is this session's picture, every byte of it.
fn is_whole(frame: &Frame<'_>, session: &str) -> bool {
    let picture = STANDARD.decode(frame.data).unwrap_or_default();
    let digest: String = Sha256::digest(&picture).iter().map(|byte| format!("{byte:02x}")).collect();
    frame.session == session && digest == frame.sha
}

/// Says goodbye and waits for the answer, so that the proxy books a normal end.
async fn close(mut socket: Socket) {
    let goodbye = async {
        socket.close(None).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<(), Error>(())
    };
    // a socket that does not close in order is cut off; nothing is counted any more
    let _ = timeout(CLOSE_WAIT, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_name_their_clients() {
        assert_eq!(client_of(&session_of(41)), Some(41));
        for other in ["phone-0", "phone-", "screen-1", "phone-x"] {
            assert_eq!(client_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_frame_is_whole_when_every_byte_is_there() {
        let sha: String = Sha256::digest(b"picture").iter().map(|byte| format!("{byte:02x}")).collect();
        let data = STANDARD.encode(b"picture");
        let frame = Frame { session: "phone-1", worker: "w", seq: 1, data: &data, sha: &sha };
        assert!(is_whole(&frame, "phone-1"));
        assert!(!is_whole(&frame, "phone-2"));
        assert!(!is_whole(&Frame { data: &data[..8], ..frame }, "phone-1"));
    }
}
