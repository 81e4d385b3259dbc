//! The worker behind the proxies. The path says what it does: `/echo`, `/sink/SIZE`, `/push/SIZE/FPS` (0 is flat out), or
//! `/wait/SIZE/FPS`, which pushes from the text message `go` on.
//!
//! At the text message `end` it says how much went through its hands: `COUNT`.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::connection::{Connection, Heard, OUTPUT_BYTES_MAX, now_ns, numbers};
use crate::wire::{self, BINARY, TEXT};

#[derive(Clone, Copy)]
enum Work {
    Echo,
    Sink { size: usize },
    Push { size: usize, every: Option<Duration>, waits: bool },
}

fn work(path: &str) -> anyhow::Result<Work> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match parts[..] {
        ["echo"] => Work::Echo,
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
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = serve_one(stream).await
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

async fn serve_one(mut stream: TcpStream) -> anyhow::Result<()> {
    let (path, rest) = wire::answer(&mut stream).await?;
    let work = work(&path).context(path)?;
    let mut connection = Connection::new(stream, rest, false);
    let mut count = 0u64;
    let mut ended = false;
    let mut waits = matches!(work, Work::Push { waits: true, .. });
    let mut due = Instant::now();
    while !connection.closed {
        let mut until = None;
        if let Work::Push { size, every, .. } = work
            && !ended
            && !waits
        {
            match every {
                None => {
                    connection.eager = true;
                    while connection.pending() < OUTPUT_BYTES_MAX {
                        connection.put_data(count, now_ns(), size);
                        count += 1;
                    }
                }
                Some(every) => {
                    while due <= Instant::now() {
                        let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(0);
                        connection.put_data(count, now_ns() - late, size);
                        count += 1;
                        due += every;
                    }
                    until = Some(due);
                }
            }
            connection.flush()?;
        }
        connection
            .step(until, |out, heard| {
                match heard {
                    Heard::Data(payload) => match work {
                        Work::Echo => {
                            count += 1;
                            out.put(BINARY, payload);
                        }
                        Work::Sink { size } => {
                            ensure!(payload.len() == size && numbers(payload)?.0 == count, "message {count} is wrong");
                            count += 1;
                        }
                        Work::Push { .. } => bail!("nothing was expected"),
                    },
                    Heard::Command(b"go") => {
                        due = if waits { Instant::now() } else { due };
                        waits = false;
                    }
                    Heard::Command(_) => {
                        ended = true;
                        out.put(TEXT, count.to_string().as_bytes());
                    }
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}
