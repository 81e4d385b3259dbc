//! One pipe whose worker dies while another is ready, again and again: from SIGKILL to the answer of the next worker.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::admin::{ask, register};
use crate::generator::open;
use crate::holdline::Start;
use crate::peers::{Scratch, start_backend};
use crate::pipes::{Client, Shared};
use crate::stats::percentile;

const MESSAGE_BYTES: usize = 64;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Workers that die one after the other
    #[arg(long, default_value_t = 200)]
    pub times: usize,
    /// Prints the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// From SIGKILL to the answer to a message that was said right behind it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    pub times: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub last_ms: f64,
    pub doubled: u64,
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let figures = measure(&options).await?;
    if options.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        let Figures { times, p50_ms, p99_ms, last_ms, doubled } = figures;
        println!("one pipe, {times} workers killed, a spare ready each time: answered by the next worker after");
        println!("  p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, at most {last_ms:.2} ms; 0 lost, {doubled} doubled");
    }
    Ok(())
}

pub async fn measure(options: &Options) -> anyhow::Result<Figures> {
    let dir = Scratch::new("single")?;
    let (mut worker, address) = start_backend(1)?;
    let backends = [("w0", address)];
    let proxy = Start { backends: &backends, ..Start::new(&options.holdline, dir.path()) }.start()?;
    let seen = Shared::default();
    let mut took = Vec::with_capacity(options.times);
    for time in 1..=options.times {
        // A new one each time: a pipe whose messages are there when three workers die in a row is closed for it.
        let mut client = Client::new(open(proxy.public, "/echo").await?, MESSAGE_BYTES, seen.clone());
        client.greet().await?;
        let (spare, address) = start_backend(1)?;
        register(proxy.admin, &format!("w{time}"), address).await?;
        let began = Instant::now();
        worker.kill()?;
        client.greet().await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        worker = spare;
        if time > 1 {
            ask(proxy.admin, "DELETE", &format!("/v1/backends/w{}", time - 1), "").await?;
        }
    }
    took.sort_by(f64::total_cmp);
    let doubled = seen.borrow().doubled;
    Ok(Figures {
        times: options.times,
        p50_ms: percentile(&took, 0.5),
        p99_ms: percentile(&took, 0.99),
        last_ms: percentile(&took, 1.0),
        doubled,
    })
}
