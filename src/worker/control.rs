//! The control endpoint: commands are executed one after the other, and outlive the socket they came by.
//!
//! Queue style (default): the socket is read while a command runs, into a bounded queue, so pings are answered at once.
//! Pull style: the next message is read only when the last one is executed, and pings wait with it.
//! A queue is finished after the peer has gone and when the worker drains; orders to close at once drop it.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{
    faults::Order,
    sockets::{End, Peer, Sink, Source, restarting},
};

/// Commands that wait on one connection; then reading stops.
const QUEUE_MAX: usize = 1_024;

/// Serves a control socket until it has ended and its queue is empty.
pub(super) async fn serve(peer: &Peer<'_>, sink: &mut Sink, source: &mut Source) -> End {
    let pull = peer.query.flag("pull").unwrap_or(peer.app.options.pull);
    let echo = peer.query.flag("echo").unwrap_or(false);
    let room = if pull { 0 } else { QUEUE_MAX };
    let mut orders = peer.link.orders();
    let mut queue: VecDeque<Utf8Bytes> = VecDeque::new();
    let mut running: Option<Running<'_>> = None;
    let mut over = None;
    loop {
        if running.is_none() {
            running = queue.pop_front().map(|text| Running::new(peer, text));
        }
        if running.is_none()
            && let Some(end) = over
        {
            return end;
        }
        let reading = over.is_none() && (queue.len() < room || running.is_none());
        tokio::select! {
            biased;
            () = async { drop(orders.wait_for(|order| *order == Order::Drain).await) }, if over.is_none() => {
                over = Some(restarting());
            }
            done = Running::done(&mut running) => {
                running = None;
                if echo && over.is_none()
                    && let Err(end) = peer.send(sink, json!({ "ack": number(&done) }).to_string().into()).await
                {
                    over = Some(end);
                }
            }
            came = peer.next(source), if reading => match came {
                Ok(Message::Text(text)) => queue.push_back(text),
                // a real worker expects text; anything else is counted in the journal and ignored
                Ok(_) => {}
                Err(end) => over = Some(end),
            },
        }
    }
}

/// Executes one command: waits for its turn and time, moves the phone, journals it.
pub(super) async fn execute(peer: &Peer<'_>, text: &str) {
    let time = peer.query.get("command_ms").unwrap_or(peer.app.options.command_ms);
    peer.app.faults.may_execute().await;
    if time > 0 {
        sleep(Duration::from_millis(time)).await;
    }
    peer.app.faults.thawed(Some(peer.link)).await;
    let command: Value = serde_json::from_str(text).unwrap_or_default();
    match peer.app.journal.executed(&peer.page, text, command["n"].as_u64()) {
        Ok(()) => peer.device.execute(&command),
        Err(error) => {
            tracing::error!(%error, connection = peer.page.id(), "command not executed: no journal")
        }
    }
}

/// The command that is being executed.
struct Running<'a> {
    text: Utf8Bytes,
    work: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl<'a> Running<'a> {
    fn new(peer: &'a Peer<'_>, text: Utf8Bytes) -> Self {
        let command = text.clone();
        Self { text, work: Box::pin(async move { execute(peer, &command).await }) }
    }

    /// Resolves to the command's text once it is executed; never if there is none.
    async fn done(running: &mut Option<Self>) -> Utf8Bytes {
        match running {
            Some(running) => {
                running.work.as_mut().await;
                running.text.clone()
            }
            None => std::future::pending().await,
        }
    }
}

fn number(text: &str) -> Value {
    serde_json::from_str::<Value>(text).map(|command| command["n"].clone()).unwrap_or_default()
}
