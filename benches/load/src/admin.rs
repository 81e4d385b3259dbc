//! Holdline's admin API, as far as the bench needs it: one request on one connection, answered in full.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ANSWER_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Asks for `path`; the body of an answer that is a success.
pub async fn ask(admin: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_MAX, exchange).await.context("no answer")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{method} {path} was answered {status}: {body}");
    Ok(body.to_owned())
}

/// Registers a worker in the pool and waits until pipes may go there.
pub async fn register(admin: SocketAddr, id: &str, worker: SocketAddr) -> anyhow::Result<()> {
    let path = format!("/v1/backends/{id}");
    ask(admin, "PUT", &path, &format!("{{\"url\": \"ws://{worker}\"}}")).await?;
    let began = Instant::now();
    loop {
        let body: serde_json::Value = serde_json::from_str(&ask(admin, "GET", &path, "").await?)?;
        if body["eligible"] == true {
            return Ok(());
        }
        if began.elapsed() > ANSWER_MAX {
            bail!("{id} does not become eligible: {body}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub async fn metrics(admin: SocketAddr) -> anyhow::Result<Metrics> {
    Ok(Metrics(ask(admin, "GET", "/metrics", "").await?))
}

/// One reading of `/metrics`.
pub struct Metrics(String);

impl Metrics {
    /// All series of `holdline_{family}` whose labels contain each of `labels`, added up.
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        self.0
            .lines()
            .filter_map(|line| {
                let (series, value) = line.strip_prefix("holdline_")?.rsplit_once(' ')?;
                let (name, rest) = series.split_once('{').unwrap_or((series, ""));
                let fits = name == family && labels.iter().all(|label| rest.contains(label));
                fits.then(|| value.parse().unwrap_or(0.0))
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_family_and_labels() {
        let metrics = Metrics(
            "# HELP holdline_a x\nholdline_a{b=\"1\",c=\"2\"} 3\nholdline_a{b=\"2\"} 4\nholdline_ab 5\n".to_owned(),
        );
        assert_eq!(metrics.sum("a", &[]), 7.0);
        assert_eq!(metrics.sum("a", &["b=\"1\""]), 3.0);
        assert_eq!(metrics.sum("ab", &[]), 5.0);
    }
}
