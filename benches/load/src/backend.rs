//! The worker behind the proxies. The path says what it does: `/echo`, `/sink/SIZE`, `/push/SIZE/FPS` (0 is flat out),
//! `/wait/SIZE/FPS`, which pushes from the text message `go` on, or `/report`, which says who dialled.
//!
//! At the text message `end` it says how much went through its hands: `COUNT`, or its [`Dials`] as JSON.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::connection::{Connection, Heard, OUTPUT_BYTES_MAX, Outgoing, now_ns, numbers};
use crate::link::Link;
use crate::wire::{self, BINARY, TEXT};

const REPORT: &str = "/report";

#[derive(clap::Args)]
pub struct Options {
    /// Answers handshakes, and reads nothing from then on
    #[arg(long)]
    deaf: bool,
}

/// The dials that a worker saw.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Dials {
    /// Taken and not answered yet, now and at most.
    at_once: u64,
    pub at_once_max: u64,
    /// That broke before their answer; probes, which say nothing, are among them.
    pub broken: u64,
    /// When each was answered, in nanoseconds since the epoch.
    pub answered_at_ns: Vec<u64>,
}

type Seen = Rc<RefCell<Dials>>;

#[derive(Clone, Copy)]
enum Work {
    Echo,
    Sink { size: usize },
    Push { size: usize, every: Option<Duration>, waits: bool },
    Report,
}

fn work(path: &str) -> anyhow::Result<Work> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match parts[..] {
        ["echo"] => Work::Echo,
        ["report"] => Work::Report,
        ["sink", size] => Work::Sink { size: size.parse()? },
        [kind @ ("push" | "wait"), size, fps] => {
            let fps: u32 = fps.parse()?;
            let every = (fps > 0).then(|| Duration::from_secs(1) / fps);
            Work::Push { size: size.parse()?, every, waits: kind == "wait" }
        }
        _ => bail!("no such work: {path}"),
    })
}

/// Serves until it is killed.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    let seen = Seen::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        {
            let mut seen = seen.borrow_mut();
            seen.at_once += 1;
            seen.at_once_max = seen.at_once_max.max(seen.at_once);
        }
        let (seen, deaf) = (seen.clone(), options.deaf);
        tokio::task::spawn_local(async move {
            if let Err(error) = serve_one(stream, &seen, deaf).await
                && !is_a_hang_up(&error)
            {
                eprintln!("backend: {error:#}");
            }
        });
    }
}

/// Probes connect and leave without a word; killed proxies reset.
fn is_a_hang_up(error: &anyhow::Error) -> bool {
    error.to_string().contains("closed amid a handshake") || error.downcast_ref::<std::io::Error>().is_some()
}

async fn serve_one(stream: TcpStream, seen: &Seen, deaf: bool) -> anyhow::Result<()> {
    let mut link = Link::from(stream);
    let answered = wire::answer(&mut link).await;
    {
        let mut seen = seen.borrow_mut();
        seen.at_once -= 1;
        match &answered {
            Ok((path, _)) if path != REPORT => seen.answered_at_ns.push(now_ns()),
            Ok(_) => {}
            Err(_) => seen.broken += 1,
        }
    }
    let (path, rest) = answered?;
    let work = work(&path).context(path)?;
    if deaf {
        std::future::pending::<()>().await;
    }
    Serving::new(Connection::new(link, rest, false), work, seen.clone()).run().await
}

/// One conversation.
struct Serving {
    connection: Connection,
    books: Books,
}

/// What one conversation has come to.
struct Books {
    work: Work,
    count: u64,
    ended: bool,
    waits: bool,
    due: Instant,
    seen: Seen,
}

impl Serving {
    fn new(connection: Connection, work: Work, seen: Seen) -> Self {
        let waits = matches!(work, Work::Push { waits: true, .. });
        let books = Books { work, count: 0, ended: false, waits, due: Instant::now(), seen };
        Self { connection, books }
    }

    async fn run(mut self) -> anyhow::Result<()> {
        while !self.connection.closed {
            let mut until = None;
            if let Work::Push { size, every, .. } = self.books.work
                && !self.books.ended
                && !self.books.waits
            {
                until = self.books.push(&mut self.connection, size, every);
                self.connection.flush()?;
            }
            let books = &mut self.books;
            self.connection.step(until, |out, heard| books.hear(out, &heard)).await?;
        }
        Ok(())
    }
}

impl Books {
    /// Queues what is due; when the next message is.
    fn push(&mut self, connection: &mut Connection, size: usize, every: Option<Duration>) -> Option<Instant> {
        let Some(every) = every else {
            connection.eager = true;
            while connection.pending() < OUTPUT_BYTES_MAX {
                connection.put_data(self.count, now_ns(), size);
                self.count += 1;
            }
            return None;
        };
        while self.due <= Instant::now() {
            let late = u64::try_from(self.due.elapsed().as_nanos()).unwrap_or(0);
            connection.put_data(self.count, now_ns() - late, size);
            self.count += 1;
            self.due += every;
        }
        Some(self.due)
    }

    fn hear(&mut self, out: &mut Outgoing<'_>, heard: &Heard<'_>) -> anyhow::Result<()> {
        match (heard, self.work) {
            (Heard::Data(payload), Work::Echo) => {
                self.count += 1;
                out.put(BINARY, payload);
            }
            (Heard::Data(payload), Work::Sink { size }) => {
                let count = self.count;
                ensure!(payload.len() == size && numbers(payload)?.0 == count, "message {count} is wrong");
                self.count += 1;
            }
            (Heard::Data(_), Work::Push { .. } | Work::Report) => bail!("nothing was expected"),
            (Heard::Command(b"go"), _) => {
                self.due = if self.waits { Instant::now() } else { self.due };
                self.waits = false;
            }
            (Heard::Command(_), Work::Report) => out.put(TEXT, &serde_json::to_vec(&*self.seen.borrow())?),
            (Heard::Command(_), Work::Echo | Work::Sink { .. } | Work::Push { .. }) => {
                self.ended = true;
                out.put(TEXT, self.count.to_string().as_bytes());
            }
        }
        Ok(())
    }
}

/// Asks a worker whom it saw dial.
pub async fn report(worker: std::net::SocketAddr) -> anyhow::Result<Dials> {
    let mut connection = crate::generator::open(worker, REPORT).await?;
    connection.put(TEXT, b"end");
    connection.flush()?;
    let mut dials = None;
    while dials.is_none() {
        let hear = |_: &mut Outgoing<'_>, heard: Heard<'_>| {
            if let Heard::Command(said) = heard {
                dials = Some(serde_json::from_slice(said)?);
            }
            Ok(())
        };
        connection.step(None, hear).await?;
        ensure!(!connection.closed, "closed before its report");
    }
    dials.context("no report")
}
