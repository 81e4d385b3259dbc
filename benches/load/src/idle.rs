//! Connections that do nothing, and connections that do nothing but come and go.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::connection::Connection;
use crate::generator::{Options, Outcome, Shared, open, open_many, tally, window};
use crate::link::Target;
use crate::measure::resident_bytes;

/// From the last connection to the look at the memory, and as long again after they have closed.
const REST: Duration = Duration::from_secs(1);
const REST_AFTER: Duration = Duration::from_secs(10);
/// A run with shorter windows has no time for that.
const SECONDS_OF_A_FULL_RUN: f64 = 0.5;

/// Resident memory of `count` idle pipes, and what is left of it when they have gone (full runs only).
pub async fn run(options: &Options, count: usize) -> anyhow::Result<Outcome> {
    let before = resident_bytes(&options.pids) as f64;
    let connections = open_many(options.way(true)?, "/echo", count).await?;
    tokio::time::sleep(REST).await;
    let during = resident_bytes(&options.pids) as f64;
    let closing: Vec<_> = connections
        .into_iter()
        .map(|mut connection| tokio::task::spawn_local(async move { close(&mut connection).await }))
        .collect();
    for connection in closing {
        connection.await??;
    }
    let mut left = 0.0;
    if options.seconds >= SECONDS_OF_A_FULL_RUN {
        tokio::time::sleep(REST_AFTER).await;
        left = resident_bytes(&options.pids) as f64 - before;
    }
    Ok(Outcome {
        messages: count as u64,
        resident_bytes: (during - before) / count as f64,
        left_bytes: left,
        ..Outcome::default()
    })
}

/// Connect, upgrade, close: as many as `concurrency` connections do one after the other.
pub async fn cycles(options: &Options, concurrency: usize) -> anyhow::Result<Outcome> {
    let tally = tally()?;
    let target = options.way(true)?;
    let tasks: Vec<_> =
        (0..concurrency).map(|_| tokio::task::spawn_local(come_and_go(target.clone(), tally.clone()))).collect();
    let outcome = window(options, &tally).await;
    end(tasks).await?;
    Ok(outcome)
}

/// Ends those that come and go.
///
/// # Errors
/// One of them had ended before, which it does only by an error.
pub async fn end(tasks: Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    for task in tasks {
        if task.is_finished() {
            task.await??;
        } else {
            task.abort();
        }
    }
    Ok(())
}

async fn come_and_go(target: Target, tally: Shared) -> anyhow::Result<()> {
    loop {
        let began = Instant::now();
        let mut connection = open(target.clone(), "/echo").await?;
        let upgraded = began.elapsed();
        close(&mut connection).await?;
        let mut tally = tally.borrow_mut();
        if tally.measuring {
            tally.messages += 1;
            tally.latency.saturating_record(u64::try_from(upgraded.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Says goodbye, and hears the other's.
pub async fn close(connection: &mut Connection) -> anyhow::Result<()> {
    connection.put_close();
    connection.flush()?;
    while !connection.closed {
        connection.step(None, |_, _| Ok(())).await?;
    }
    Ok(())
}
