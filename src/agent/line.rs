//! One connection of an agent, from its being opened to its end.
//!
//! ```text
//!   opening ──▶ parked ── a first byte ──▶ taken ──▶ the end
//!      │           └── lost, or let go of ─────────────▲
//!      └── refused ────────────────────────────────────┘
//! ```
//! Invariant: each step is told once.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::proxy::{Failure, Parked, Proxy};
use super::tunnel::tunnel;
use super::worker::{Look, Worker};
use crate::net::{BackendStream, watch_spoken_on, watch_waiting};

/// An empty line, by which either end shows that it lives (RFC 9112 section 2.2).
const BLANK: &[u8] = b"\r\n";

/// Signs of life that may be missed before the proxy is given up.
const BEATS_MISSED_MAX: u32 = 3;

/// Bytes that are read of a request before they are passed on.
const FIRST_BYTES: usize = 16 * 1024;

/// The header that says how many to keep parked.
const WANT: &[u8] = b"\r\nholdline-parked-want:";

/// How a PROXY header of version 2 begins: by empty lines, and then by a byte that begins nothing else.
const PROXY_V2: (&[u8], u8) = (b"\r\n\r\n", 0);

/// What is common to all connections of an agent.
pub(super) struct Ends {
    /// The one end.
    pub proxy: Proxy,
    /// The other.
    pub worker: Worker,
    /// How long connecting to the worker may take.
    pub patience: Duration,
    /// Has the worker looked after at once.
    pub look: Notify,
}

/// What is told.
pub(super) enum Event {
    /// It is parked, and so many are wanted.
    Parked(Option<u32>),
    /// It could not be opened.
    Refused(Failure),
    /// It was lost while it was parked.
    Lost,
    /// It was closed here while it was parked.
    Closed,
    /// It was taken, and so many are wanted.
    Taken(Option<u32>),
    /// What a look at the worker found.
    Worker(Look),
}

/// How the wait of a parked connection ends.
enum Waited {
    /// By a request, which begins so.
    Taken(Vec<u8>),
    Lost,
    Closed,
}

/// Opens a connection, parks it until it is taken, and passes on what comes then. It is closed once `stays` says so.
pub(super) async fn run(ends: Arc<Ends>, stays: watch::Receiver<bool>, events: mpsc::Sender<Event>) {
    let mut parked = match ends.proxy.park().await {
        Ok(parked) => parked,
        Err(failure) => return tell(&events, Event::Refused(failure)).await,
    };
    tell(&events, Event::Parked(parked.want)).await;
    let first = match wait(&mut parked, stays).await {
        Waited::Taken(first) => first,
        Waited::Lost => return tell(&events, Event::Lost).await,
        Waited::Closed => return tell(&events, Event::Closed).await,
    };
    tell(&events, Event::Taken(wanted(&first))).await;
    if let Some(socket) = parked.stream.socket() {
        watch_spoken_on(socket);
    }
    // Closed without a byte, it is not counted against the worker; the proxy takes the next one, or finds none.
    match ends.worker.connect(ends.patience).await {
        Ok(worker) => tunnel(parked.stream, worker, first).await,
        Err(error) => {
            tracing::warn!("the worker does not take a connection: {error}");
            ends.look.notify_one();
        }
    }
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // The crew goes with the process.
    let _ = events.send(event).await;
}

async fn wait(parked: &mut Parked, mut stays: watch::Receiver<bool>) -> Waited {
    let Parked { stream, read, heartbeat, .. } = parked;
    let beat = *heartbeat;
    if stream.socket().is_some_and(|socket| watch_waiting(socket, beat).is_err()) {
        return Waited::Lost;
    }
    let mut beats = interval_at(Instant::now() + beat, beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_at = Instant::now() + beat * BEATS_MISSED_MAX;
    loop {
        if let Some(first) = spoken(std::mem::take(read)) {
            return Waited::Taken(first);
        }
        read.reserve(FIRST_BYTES);
        tokio::select! {
            biased;
            came = stream.read_buf(read) => match came {
                Ok(1..) => silent_at = Instant::now() + beat * BEATS_MISSED_MAX,
                Ok(0) | Err(_) => return Waited::Lost,
            },
            () = async { drop(stays.wait_for(|&stays| !stays).await) } => return Waited::Closed,
            _ = beats.tick() => match timeout(beat, say_that_we_live(stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Waited::Lost,
            },
            () = sleep_until(silent_at) => return Waited::Lost,
        }
    }
}

async fn say_that_we_live(stream: &mut BackendStream) -> std::io::Result<()> {
    stream.write_all(BLANK).await?;
    stream.flush().await
}

/// What was said, without the empty lines before it; nothing if there are only those.
fn spoken(mut read: Vec<u8>) -> Option<Vec<u8>> {
    let blank = read.iter().take_while(|byte| BLANK.contains(byte)).count();
    let first = *read.get(blank)?;
    let (lines, begins) = PROXY_V2;
    let kept: &[u8] = if first == begins { lines } else { &[] };
    read.splice(..blank, kept.iter().copied());
    Some(read)
}

/// How many connections are wanted, as far as the beginning of a request says so.
fn wanted(first: &[u8]) -> Option<u32> {
    let at = first.windows(WANT.len()).position(|window| window.eq_ignore_ascii_case(WANT))?;
    let value = first.get(at + WANT.len()..)?;
    let line = value.split(|&byte| byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_before_a_request_are_no_request() {
        assert_eq!(spoken(b"\r\n\r\n\r\n".to_vec()), None);
        assert_eq!(spoken(Vec::new()), None);
        assert_eq!(spoken(b"\r\n\r\nGET / HTTP/1.1\r\n".to_vec()).unwrap(), b"GET / HTTP/1.1\r\n");
    }

    #[test]
    fn a_proxy_header_of_version_2_is_passed_on_whole() {
        let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
        for before in [&b""[..], b"\r\n", b"\r\n\r\n"] {
            assert_eq!(spoken([before, header].concat()).unwrap(), header);
        }
    }

    #[test]
    fn how_many_are_wanted_stands_in_the_request() {
        assert_eq!(wanted(b"GET / HTTP/1.1\r\nHost: h\r\nHoldline-Parked-Want: 16\r\n\r\n"), Some(16));
        for silent in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHoldline-Parked-Want: many\r\n\r\n"] {
            assert_eq!(wanted(silent.as_bytes()), None);
        }
    }
}
