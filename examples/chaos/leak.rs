//! Makes the proxy's things grow for real, so that a soak can be seen to fail: `--leak` is for nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use futures_util::StreamExt;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::client_async;

use crate::ask::ask;

/// From one thing too many to the next.
const EVERY: Duration = Duration::from_millis(70);
/// Labels that each leaked backend carries; a registration may have 64 of up to 1 KiB.
const LABELS: usize = 60;
const LABEL_BYTES: usize = 1000;

/// What is taken and never given back while the faults strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Leak {
    /// Pipes that stay: descriptors, tasks and memory
    Pipes,
    /// Backends in maintenance with long labels: memory alone; there is room for 4,096
    Backends,
}

impl Leak {
    /// Leaks until it is dropped; then its sockets are closed.
    pub async fn go_on(self, public: String, admin: String) {
        let mut pipes = JoinSet::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0_u64.. {
            ticks.tick().await;
            match self {
                Self::Pipes => {
                    pipes.spawn(stay(public.clone(), format!("ws://{public}/ws/leak-{number}/echo")));
                }
                Self::Backends => {
                    let label = "x".repeat(LABEL_BYTES);
                    let labels: BTreeMap<_, _> = (0..LABELS).map(|n| (format!("leak-{n}"), &label)).collect();
                    let body = json!({ "url": "ws://127.0.0.1:9", "state": "maint", "labels": labels });
                    // a proxy that does not answer has other worries, which the end of the run names
                    let path = format!("/v1/backends/zz-leak-{number}");
                    let _ = ask(&admin, "PUT", &path, &body.to_string()).await;
                }
            }
        }
    }
}

/// Opens a pipe and stays in it; one that finds no worker is simply not leaked.
async fn stay(public: String, url: String) {
    let Ok(tcp) = TcpStream::connect(public).await else { return };
    let Ok((mut socket, _)) = client_async(url, tcp).await else { return };
    while socket.next().await.is_some_and(|came| came.is_ok()) {}
}
