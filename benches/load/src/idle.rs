//! Connections that do nothing, and connections that do nothing but come and go.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::generator::{Options, Outcome, open, tally, window};
use crate::measure::resident_bytes;

/// Connections that are opened at once.
const OPENING_MAX: usize = 64;
/// From the last connection to the look at the memory, and as long again after they have closed.
const REST: Duration = Duration::from_secs(1);
const REST_AFTER: Duration = Duration::from_secs(10);

/// Resident memory of `count` idle pipes, and what is left of it when they have gone (full runs only).
pub async fn run(options: &Options, count: usize) -> anyhow::Result<Outcome> {
    let before = resident_bytes(&options.pids) as f64;
    let places = Rc::new(Semaphore::new(OPENING_MAX));
    let mut opening = Vec::new();
    for _ in 0..count {
        let (places, target) = (places.clone(), options.target);
        opening.push(tokio::task::spawn_local(async move {
            let _place = places.acquire().await?;
            open(target, "/echo").await
        }));
    }
    let mut connections = Vec::new();
    for connection in opening {
        connections.push(connection.await??);
    }
    tokio::time::sleep(REST).await;
    let during = resident_bytes(&options.pids) as f64;
    let mut closing = Vec::new();
    for mut connection in connections {
        closing.push(tokio::task::spawn_local(async move {
            connection.put_close();
            connection.flush()?;
            while !connection.closed {
                connection.step(None, |_, _| Ok(())).await?;
            }
            anyhow::Ok(())
        }));
    }
    for connection in closing {
        connection.await??;
    }
    let mut left = 0.0;
    if options.seconds >= 2.0 {
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
    let mut tasks = Vec::new();
    for _ in 0..concurrency {
        let (tally, target) = (tally.clone(), options.target);
        tasks.push(tokio::task::spawn_local(async move {
            loop {
                let began = std::time::Instant::now();
                let mut connection = open(target, "/echo").await?;
                let upgraded = began.elapsed();
                connection.put_close();
                connection.flush()?;
                while !connection.closed {
                    connection.step(None, |_, _| Ok(())).await?;
                }
                let mut tally = tally.borrow_mut();
                if tally.measuring {
                    tally.messages += 1;
                    tally.latency.saturating_record(u64::try_from(upgraded.as_nanos()).unwrap_or(u64::MAX));
                }
            }
            #[allow(unreachable_code)]
            anyhow::Ok(())
        }));
    }
    let outcome = window(options, &tally).await;
    for task in tasks {
        if task.is_finished() {
            task.await??;
        } else {
            task.abort();
        }
    }
    Ok(outcome)
}
