//! Clients that number their messages (`holdline.v1`): what a message costs beside one that is not numbered, what a pipe
//! costs whose client is away, and what polls cost that wait.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin;
use crate::connection::{Connection, Heard, Outgoing, now_ns, numbers};
use crate::generator::{self, Shared, count, many, open, tally};
use crate::holdline::{Holdline, Start};
use crate::link::Link;
use crate::measure::{cpu_ns, pipes_max, resident_bytes};
use crate::peers::{Process, Scratch, start_backend};
use crate::stats::median;
use crate::wire::{self, TEXT};

/// What the comparison calls it.
pub const NAME: &str = "aware clients";

/// What a numbered message may cost, as a ratio to one that is not.
pub const RATIO_MAX: f64 = 1.15;
/// What a parked poll may occupy, and the share of a core that all of them may take.
pub const POLL_BYTES_MAX: f64 = 32.0 * 1024.0;
pub const CORE_SHARE_MAX: f64 = 0.01;

/// One run, from the first process to the last: a run that hangs fails.
const RUN_MAX: Duration = Duration::from_secs(120);
/// How long a count in the metrics may take to become what it should be.
const COUNT_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// From the last loss or poll to the look at the memory.
const REST: Duration = Duration::from_secs(1);
/// Windows in which parked polls are watched, of which the calmest counts: so many that were just opened have consequences.
const PARKED_WINDOWS: usize = 5;

/// After so many messages or bytes what came is acknowledged, as clients/js does.
const ACK_MESSAGES: u64 = 16;
const ACK_BYTES: usize = 64 << 10;

const ECHO_BYTES: usize = 64;
const ECHO_CLIENTS: usize = 50;
const VIDEO_BYTES: usize = 226_000;
const VIDEO_FPS: u32 = 10;
const VIDEO_CLIENTS: usize = 20;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Pipes whose clients are away
    #[arg(long, default_value_t = 10_000)]
    pub pipes: usize,
    /// Polls that wait
    #[arg(long, default_value_t = 1_000)]
    pub polls: usize,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of one measured window
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub echo: Pair,
    pub video: Pair,
    pub away: Away,
    pub parked: Parked,
}

/// CPU µs of the proxy for a message, without a number and with one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pair {
    pub plain_us: f64,
    pub aware_us: f64,
}

/// Resident bytes of a pipe whose client is away.
#[derive(Debug, Serialize, Deserialize)]
pub struct Away {
    pub pipes: usize,
    pub bytes: f64,
}

/// The share of a core that polls take while nothing is said, and the resident bytes of each with its pipe.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parked {
    pub polls: usize,
    pub core_share: f64,
    pub bytes: f64,
}

impl Pair {
    pub fn ratio(&self) -> f64 {
        self.aware_us / self.plain_us
    }
}

impl Figures {
    /// What is measured, the figure, the target, and whether it is met.
    pub fn lines(&self) -> Vec<(String, String, String, bool)> {
        let pair = |what: &str, pair: &Pair| {
            let name = format!("{what}: CPU µs/message without numbers, with, ratio");
            let figures = format!("{:.2}, {:.2}, {:.2}", pair.plain_us, pair.aware_us, pair.ratio());
            (name, figures, format!("{RATIO_MAX:.2}"), pair.ratio() <= RATIO_MAX)
        };
        let Away { pipes, bytes } = self.away;
        let Parked { polls, core_share, bytes: poll_bytes } = self.parked;
        let kib = POLL_BYTES_MAX / 1024.0;
        vec![
            pair("aware 64 B echo", &self.echo),
            pair("aware 226 KB video", &self.video),
            (
                format!("{pipes} pipes whose aware clients are away: bytes each"),
                format!("{bytes:.0}"),
                String::new(),
                true,
            ),
            (
                format!("{polls} parked polls: % of a core, KiB each with their pipes"),
                format!("{:.2}, {:.1}", core_share * 100.0, poll_bytes / 1024.0),
                format!("{:.0}, {kib:.0}", CORE_SHARE_MAX * 100.0),
                core_share < CORE_SHARE_MAX && poll_bytes <= POLL_BYTES_MAX,
            ),
        ]
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let echo = compare(&options, Talk::Echo).await.context("echo")?;
    let video = compare(&options, Talk::Video).await.context("video")?;
    let away = tokio::time::timeout(RUN_MAX, away(&options)).await.context("clients that are away")??;
    let parked = tokio::time::timeout(RUN_MAX, parked(&options)).await.context("parked polls")??;
    let figures = Figures { echo, video, away, parked };
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        for (name, figures, target, met) in figures.lines() {
            println!("{name}: {figures} (target {target}{})", if met { "" } else { ": above" });
        }
    }
    Ok(())
}

/// What clients and worker say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    Echo,
    Video,
}

impl Talk {
    fn path(self) -> String {
        match self {
            Self::Echo => "/echo".to_owned(),
            // Nothing flows before all are there.
            Self::Video => format!("/wait/{VIDEO_BYTES}/{VIDEO_FPS}"),
        }
    }

    const fn clients(self) -> usize {
        match self {
            Self::Echo => ECHO_CLIENTS,
            Self::Video => VIDEO_CLIENTS,
        }
    }

    /// Bytes of a message, and how often it is relayed.
    const fn message(self) -> (usize, u64) {
        match self {
            Self::Echo => (ECHO_BYTES, 2),
            Self::Video => (VIDEO_BYTES, 1),
        }
    }
}

async fn compare(options: &Options, talk: Talk) -> anyhow::Result<Pair> {
    let (mut plain, mut aware) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        for (is_aware, runs) in [(false, &mut plain), (true, &mut aware)] {
            runs.push(tokio::time::timeout(RUN_MAX, once(options, talk, is_aware)).await.context("it hangs")??);
        }
    }
    Ok(Pair { plain_us: median(plain), aware_us: median(aware) })
}

/// CPU µs for a message.
async fn once(options: &Options, talk: Talk, aware: bool) -> anyhow::Result<f64> {
    let (proxy, _worker, _dir) = start(options, "")?;
    let target = proxy.public;
    let path = talk.path();
    let opened = many(talk.clients(), || {
        let path = path.clone();
        async move { if aware { open_aware(target, &path).await } else { open(target, &path).await } }
    });
    let tally = tally()?;
    let speak = |connection| tokio::task::spawn_local(Speaker::new(connection, aware).talk(talk, tally.clone()));
    let speakers: Vec<_> = opened.await?.into_iter().map(speak).collect();
    let window = generator::Options {
        target,
        load: String::new(),
        beside: None,
        seconds: options.seconds,
        warmup: 0.5,
        certificate: None,
        pids: vec![proxy.pid()],
        worker: None,
    };
    let outcome = generator::window(&window, &tally).await;
    for speaker in speakers {
        ensure!(!speaker.is_finished(), "a client was closed: {:?}", speaker.await);
        speaker.abort();
    }
    ensure!(outcome.messages > 0, "nothing came");
    Ok(outcome.cpu_ns as f64 / 1000.0 / outcome.messages as f64)
}

fn start(options: &Options, route: &str) -> anyhow::Result<(Holdline, Process, Scratch)> {
    let dir = Scratch::new("aware")?;
    let (worker, address) = start_backend(1)?;
    let backends = [("w", address)];
    let proxy = Start { backends: &backends, route, ..Start::new(&options.holdline, dir.path()) }.start()?;
    Ok((proxy, worker, dir))
}

/// A client that has been welcomed.
pub async fn open_aware(target: SocketAddr, path: &str) -> anyhow::Result<Connection> {
    let mut link = Link::connect(&target.into()).await?;
    let rest = wire::ask_for(&mut link, path, "Sec-WebSocket-Protocol: holdline.v1\r\n").await?;
    let mut connection = Connection::new(link, rest, true);
    connection.put(TEXT, br#"!{"t":"hello","v":1}"#);
    connection.flush()?;
    let mut welcomed = false;
    while !welcomed {
        let hear = |_: &mut Outgoing<'_>, heard: Heard<'_>| match heard {
            Heard::Command(word) => {
                welcomed |= is_word(word, "welcome");
                Ok(())
            }
            Heard::Data(_) => bail!("a message before its client was welcomed"),
        };
        connection.step(None, hear).await?;
        ensure!(!connection.closed, "not welcomed: {}", connection.farewell);
    }
    Ok(connection)
}

/// Whether a control word is called `name`.
fn is_word(word: &[u8], name: &str) -> bool {
    let word = word.strip_prefix(b"!").and_then(|json| serde_json::from_slice::<Value>(json).ok());
    word.is_some_and(|word| word["t"] == name)
}

/// A client, with numbers or without.
pub struct Speaker {
    connection: Connection,
    books: Books,
}

struct Books {
    aware: bool,
    /// Messages that were said, and that came.
    sent: u64,
    received: u64,
    /// What came since the last acknowledgement.
    unacked: u64,
    unacked_bytes: usize,
}

impl Speaker {
    pub const fn new(connection: Connection, aware: bool) -> Self {
        let books = Books { aware, sent: 0, received: 0, unacked: 0, unacked_bytes: 0 };
        Self { connection, books }
    }

    /// Talks until it is aborted.
    async fn talk(mut self, talk: Talk, tally: Shared) -> anyhow::Result<()> {
        let (size, relayed) = talk.message();
        if talk == Talk::Video {
            let go: &[u8] = if self.books.aware { b"1;go" } else { b"go" };
            self.connection.put(TEXT, go);
        }
        loop {
            if talk == Talk::Echo && self.books.sent == self.books.received {
                self.say(size);
            }
            self.connection.flush()?;
            let books = &mut self.books;
            let hear = |out: &mut Outgoing<'_>, heard: Heard<'_>| books.hear(out, &heard, (size, relayed), &tally);
            self.connection.step(None, hear).await?;
            ensure!(!self.connection.closed, "closed amid the talk: {}", self.connection.farewell);
        }
    }

    /// Has so many `rounds` of `batch` messages echoed, one after the other.
    pub async fn echo(&mut self, rounds: usize, batch: usize, size: usize, tally: &Shared) -> anyhow::Result<()> {
        for _ in 0..rounds {
            (0..batch).for_each(|_| self.say(size));
            self.connection.flush()?;
            while self.books.received < self.books.sent {
                let books = &mut self.books;
                let hear = |out: &mut Outgoing<'_>, heard: Heard<'_>| books.hear(out, &heard, (size, 2), tally);
                self.connection.step(None, hear).await?;
                ensure!(!self.connection.closed, "closed amid the echo: {}", self.connection.farewell);
            }
        }
        Ok(())
    }

    fn say(&mut self, size: usize) {
        let seq = self.books.sent;
        self.books.sent += 1;
        if self.books.aware {
            self.connection.put_numbered(seq, now_ns(), size);
        } else {
            self.connection.put_data(seq, now_ns(), size);
        }
    }
}

impl Books {
    fn hear(
        &mut self,
        out: &mut Outgoing<'_>,
        heard: &Heard<'_>,
        (size, relayed): (usize, u64),
        tally: &Shared,
    ) -> anyhow::Result<()> {
        let payload = match *heard {
            Heard::Data(payload) if self.aware => self.unnumbered(payload)?,
            Heard::Data(payload) => payload,
            Heard::Command(word) if self.aware && !is_word(word, "gap") && !is_word(word, "fin") => return Ok(()),
            Heard::Command(word) => bail!("{} was said", String::from_utf8_lossy(word)),
        };
        let (seq, at) = numbers(payload)?;
        ensure!(seq == self.received && payload.len() == size, "message {seq} came instead of {}", self.received);
        self.received += 1;
        count(tally, relayed, size * relayed as usize, Some(now_ns().saturating_sub(at)));
        if self.aware {
            self.acknowledge(out, size);
        }
        Ok(())
    }

    /// The payload behind the next number.
    fn unnumbered<'a>(&self, message: &'a [u8]) -> anyhow::Result<&'a [u8]> {
        let prefix = wire::number(self.received + 1);
        message.strip_prefix(&*prefix).with_context(|| format!("message {} has another number", self.received + 1))
    }

    fn acknowledge(&mut self, out: &mut Outgoing<'_>, size: usize) {
        self.unacked += 1;
        self.unacked_bytes += size;
        if self.unacked >= ACK_MESSAGES || self.unacked_bytes >= ACK_BYTES {
            out.put(TEXT, format!(r#"!{{"t":"ack","n":{}}}"#, self.received).as_bytes());
            (self.unacked, self.unacked_bytes) = (0, 0);
        }
    }
}

async fn away(options: &Options) -> anyhow::Result<Away> {
    let pipes = pipes_max(options.pipes, 2);
    let (proxy, _worker, _dir) = start(options, "")?;
    let target = proxy.public;
    let before = resident_bytes(&[proxy.pid()]) as f64;
    // A connection that ends without a `fin` is an interruption.
    drop(many(pipes, || open_aware(target, "/echo")).await?);
    becomes(&proxy, "pipes", &["state=\"client_detached\""], pipes).await?;
    tokio::time::sleep(REST).await;
    Ok(Away { pipes, bytes: (resident_bytes(&[proxy.pid()]) as f64 - before) / pipes as f64 })
}

async fn parked(options: &Options) -> anyhow::Result<Parked> {
    let polls = pipes_max(options.polls, 2);
    let (proxy, _worker, _dir) = start(options, "http_fallback = true\n")?;
    let target = proxy.public;
    let root = [proxy.pid()];
    let before = resident_bytes(&root) as f64;
    let parked = many(polls, || park(target)).await?;
    becomes(&proxy, "polls_parked", &[], polls).await?;
    tokio::time::sleep(REST).await;
    let bytes = (resident_bytes(&root) as f64 - before) / polls as f64;
    let mut core_share = f64::INFINITY;
    for _ in 0..PARKED_WINDOWS {
        let (began, cpu) = (Instant::now(), cpu_ns(&root));
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        core_share = core_share.min((cpu_ns(&root) - cpu) as f64 / began.elapsed().as_nanos() as f64);
    }
    becomes(&proxy, "polls_parked", &[], polls).await.context("a poll was answered")?;
    drop(parked);
    Ok(Parked { polls, core_share, bytes })
}

/// Opens a pipe without a socket and asks what it has to say, which is nothing.
async fn park(target: SocketAddr) -> anyhow::Result<Link> {
    const HELLO: &str = r#"{"t":"hello","v":1}"#;
    let mut link = Link::connect(&target.into()).await?;
    let hello = format!(
        "POST /echo HTTP/1.1\r\nHost: bench\r\nContent-Type: application/vnd.holdline+json\r\nContent-Length: {}\r\n\r\n{HELLO}",
        HELLO.len()
    );
    link.write_all(hello.as_bytes()).await?;
    let (head, mut body) = wire::read_head(&mut link).await?;
    ensure!(head.starts_with("HTTP/1.1 200"), "no pipe: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("an answer without a length")?;
    while body.len() < length {
        ensure!(link.read_more(&mut body).await? > 0, "half an answer");
    }
    let welcome: Value = serde_json::from_slice(&body)?;
    let word = |name: &str| welcome[name].as_str().with_context(|| format!("no {name} in {welcome}"));
    let poll = format!(
        "GET /echo?pipe={}&after=0&wait=30s HTTP/1.1\r\nHost: bench\r\nAuthorization: Holdline {}\r\n\r\n",
        word("id")?,
        word("token")?
    );
    link.write_all(poll.as_bytes()).await?;
    Ok(link)
}

/// Waits until a sum in the metrics is so much.
async fn becomes(proxy: &Holdline, family: &str, labels: &[&str], wanted: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let is = admin::metrics(proxy.admin).await?.sum(family, labels);
        if is == wanted as f64 {
            return Ok(());
        }
        ensure!(began.elapsed() < COUNT_MAX, "{family} is {is} and not {wanted}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
