//! Workers die by SIGKILL, one after the other, under the bench's loads and with its very configuration: no message may be
//! lost, and no frame of a stream may be cut or missing between one worker's first and its last.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::task::JoinHandle;

use crate::admin::{self, register};
use crate::connection::{Connection, Heard, Outgoing, numbers};
use crate::generator::open_many;
use crate::holdline::{Holdline, Start};
use crate::peers::{Process, Scratch, start_backend};
use crate::pipes::{Crowd, Orders};

/// Bytes of a message, clients, and how often each says one.
const CROWDS: [(usize, usize, Duration); 3] =
    [(64, 50, Duration::from_millis(5)), (1024, 20, Duration::from_millis(5)), (65_536, 10, Duration::from_millis(20))];
const FRAME_BYTES: usize = 226_000;
const FRAMES_PER_SECOND: u32 = 15;
const VIEWERS: usize = 3;

#[derive(clap::Args)]
pub struct Options {
    /// The binary to break workers under
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Workers that die
    #[arg(long, default_value_t = 8)]
    pub deaths: usize,
    /// From one death to the next, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub every_ms: u64,
}

/// What the viewers of streams saw.
#[derive(Default)]
struct Stream {
    frames: u64,
    /// Streams that began anew, each with another worker.
    begun: u64,
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let dir = Scratch::new("crash")?;
    let mut workers = vec![start_backend(1)?, start_backend(1)?];
    let backends = [("w0", workers[0].1), ("w1", workers[1].1)];
    let start = Start { backends: &backends, core: None, ..Start::new(&options.holdline, dir.path()) };
    let proxy = start.start()?;
    let mut crowds = Vec::new();
    for (size, count, every) in CROWDS {
        let crowd = Crowd::open(proxy.public, count, size).await?;
        crowd.tell(Orders::Speak { every });
        crowds.push(crowd);
    }
    let stream = Rc::new(RefCell::new(Stream::default()));
    let path = format!("/push/{FRAME_BYTES}/{FRAMES_PER_SECOND}");
    let watching = |connection| tokio::task::spawn_local(watch(connection, stream.clone()));
    let viewers: Vec<_> = open_many(proxy.public, &path, VIEWERS).await?.into_iter().map(watching).collect();
    break_workers(&options, &proxy, &mut workers).await?;
    let (messages, doubled) = settle(crowds).await?;
    end(viewers).await?;
    let stream = std::mem::take(&mut *stream.borrow_mut());
    judge(&options, &proxy, messages, doubled, &stream).await
}

/// Kills the oldest worker as soon as the next is ready.
async fn break_workers(
    options: &Options,
    proxy: &Holdline,
    workers: &mut Vec<(Process, std::net::SocketAddr)>,
) -> anyhow::Result<()> {
    for death in 0..options.deaths {
        tokio::time::sleep(Duration::from_millis(options.every_ms)).await;
        let next = start_backend(1)?;
        register(proxy.admin, &format!("next{death}"), next.1).await?;
        workers.push(next);
        workers.remove(0).0.kill()?;
    }
    tokio::time::sleep(Duration::from_millis(options.every_ms)).await;
    Ok(())
}

/// All that was said must have been answered; how much, and how many answers came twice.
async fn settle(crowds: Vec<Crowd>) -> anyhow::Result<(u64, u64)> {
    let (mut messages, mut doubled) = (0, 0);
    for crowd in crowds {
        let seen = crowd.end().await?;
        messages += seen.borrow().messages;
        doubled += seen.borrow().doubled;
    }
    Ok((messages, doubled))
}

/// A viewer that has ended has seen something wrong.
async fn end(viewers: Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    for viewer in viewers {
        if viewer.is_finished() {
            viewer.await??;
        } else {
            viewer.abort();
        }
    }
    Ok(())
}

async fn judge(
    options: &Options,
    proxy: &Holdline,
    messages: u64,
    doubled: u64,
    stream: &Stream,
) -> anyhow::Result<()> {
    let metrics = admin::metrics(proxy.admin).await?;
    let lost = metrics.sum("lost_messages_total", &["lane=\"up\""]);
    let interruptions = metrics.sum("interruptions_total", &[]);
    ensure!(lost == 0.0, "holdline says that it lost {lost} messages");
    ensure!(interruptions >= options.deaths as f64, "{interruptions} interruptions: nobody was there to lose anything");
    ensure!(stream.begun > VIEWERS as u64, "no stream was interrupted");
    println!(
        "{} workers killed, {interruptions} pipes interrupted: {messages} messages, 0 lost, {doubled} doubled; {} frames of \
         {} streams whole and in order",
        options.deaths, stream.frames, stream.begun
    );
    Ok(())
}

/// Each frame must be whole and follow the one before, unless another worker begins anew.
async fn watch(mut connection: Connection, stream: Rc<RefCell<Stream>>) -> anyhow::Result<()> {
    let mut next = 0;
    loop {
        let hear = |_: &mut Outgoing<'_>, heard: Heard<'_>| {
            let Heard::Data(payload) = heard else { return Ok(()) };
            let (seq, _) = numbers(payload)?;
            ensure!(payload.len() == FRAME_BYTES, "a frame of {} bytes", payload.len());
            ensure!(seq == next || seq == 0, "frame {seq} came where {next} was to come");
            ensure!(payload[16..].iter().all(|&byte| byte == b'.'), "frame {seq} holds something else");
            next = seq + 1;
            let mut stream = stream.borrow_mut();
            stream.frames += 1;
            stream.begun += u64::from(seq == 0);
            Ok(())
        };
        connection.step(None, hear).await.context("a viewer")?;
        ensure!(!connection.closed, "a viewer was closed: {}", connection.farewell);
    }
}
