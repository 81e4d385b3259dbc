//! One HTTP request on one connection, bounded in time: knobs of workers, the admin API, metrics.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take; a worker that is stopped answers nothing.
const WAIT: Duration = Duration::from_secs(5);

/// Asks `address` and returns the status and the body.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn ask(address: &str, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(WAIT, exchange).await.with_context(|| format!("no answer to {method} {path}"))??;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("half an answer to {method} {path}") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("an answer without a status")?, body.to_owned()))
}
