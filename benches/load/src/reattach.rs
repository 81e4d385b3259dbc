//! One of two workers dies under many pipes: how long until the last of them talks to the other.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use crate::connection::{Connection, Heard, numbers};
use crate::generator::open;
use crate::measure::{cpu_ns, resident_bytes};
use crate::peers::{serve, start_backend};

/// Pipes that are opened at once.
const OPENING_MAX: usize = 64;
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Options {
    /// The binary to measure
    #[arg(long, default_value = "target/release/holdline")]
    pub holdline: PathBuf,
    /// Pipes, half of which lose their worker
    #[arg(long, default_value_t = 8000)]
    pub pipes: usize,
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("holdline-reattach-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let (dying, first) = start_backend(1)?;
    let (spare, second) = start_backend(1)?;
    let (proxy, address) = serve(&options.holdline, &[first, second], 0, &dir)?;
    let pid = proxy.as_ref().context("no proxy")?.pid();
    let mut connections = Vec::new();
    while connections.len() < options.pipes {
        let batch: Vec<_> = (0..OPENING_MAX.min(options.pipes - connections.len()))
            .map(|_| tokio::task::spawn_local(async move { open(address, "/echo").await }))
            .collect();
        for connection in batch {
            connections.push(connection.await??);
        }
    }
    let (cpu, memory) = (cpu_ns(&[pid]), resident_bytes(&[pid]));
    drop(dying);
    let died = Instant::now();
    let asking: Vec<_> =
        connections.into_iter().map(|connection| tokio::task::spawn_local(ask(connection, died))).collect();
    let mut took = Vec::new();
    for answer in asking {
        took.push(answer.await??);
    }
    took.sort_unstable();
    let moved = &took[took.len() / 2..];
    let at = |share: f64| moved[((moved.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{} pipes moved of {}: p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms; {:.0} µs of CPU a pipe, memory {:+.1} MB",
        moved.len(),
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        (cpu_ns(&[pid]) - cpu) as f64 / 1000.0 / moved.len() as f64,
        (resident_bytes(&[pid]) as f64 - memory as f64) / 1e6,
    );
    drop((proxy, spare));
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Says one message and waits for its echo, which only a live worker can give.
async fn ask(mut connection: Connection, died: Instant) -> anyhow::Result<Duration> {
    connection.put_data(0, 0, 64);
    connection.flush()?;
    let mut answered = None;
    let exchange = async {
        while answered.is_none() {
            connection
                .step(None, |_, heard| {
                    if let Heard::Data(payload) = heard {
                        ensure!(numbers(payload)?.0 == 0 && payload.len() == 64, "a wrong echo");
                        answered = Some(died.elapsed());
                    }
                    Ok(())
                })
                .await?;
            ensure!(!connection.closed, "closed amid the outage");
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ANSWER_MAX, exchange).await.context("no echo")??;
    answered.context("no echo")
}
