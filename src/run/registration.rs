//! The worker's place among Holdline's backends: taken, renewed, taken again when it was forgotten, and given back.
//!
//! A worker's token is enough for all of it (`HOLDLINE_TOKEN`).

use std::time::Duration;

use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::time::{sleep, timeout};

use super::Options;
use crate::config::parse_duration;
use crate::ctl::{CallError, Client};

/// How long the wait before another try may grow.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The wait before a second try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// From one look at what is left on a draining worker to the next.
const DRAIN_LOOK: Duration = Duration::from_millis(200);
/// How long giving the place back may take.
const GOODBYE_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Registration {
    client: Client,
    path: String,
    id: String,
    body: Value,
    /// Where the answer does not say.
    renew_after: Duration,
}

impl Registration {
    /// What is to be registered.
    ///
    /// # Errors
    /// When the admin API cannot be found, or the lease is no duration.
    pub(super) fn new(options: &Options, port: u16) -> anyhow::Result<Self> {
        let lease =
            parse_duration(&options.lease).map_err(|why| anyhow::anyhow!("--lease {}: {why}", options.lease))?;
        let id = options.id.clone().unwrap_or_else(|| format!("run-{port}"));
        let url = options.advertise.clone().unwrap_or_else(|| "ws://127.0.0.1:{port}".to_owned());
        let labels: Map<_, _> = options.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let serves: Map<_, _> = options
            .serves
            .iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry, entry)))
            .map(|(key, alias)| (key.to_owned(), json!(alias)))
            .collect();
        let body = json!({
            "url": url.replace("{port}", &port.to_string()), "pool": options.pool, "serves": serves, "labels": labels,
            "instance": format!("{:016x}", rand::random::<u64>()), "lease": options.lease,
        });
        let path = format!("/v1/backends/{id}");
        // Two renewals may fail before the lease ends.
        Ok(Self { client: options.at.client()?, path, id, body, renew_after: lease / 3 })
    }

    /// Registers, renews, and registers again when Holdline has forgotten it; never returns.
    pub(super) async fn keep(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.client.call(Method::PUT, &self.path, Some(&self.body)).await {
                Ok(_) => {
                    tracing::info!(id = self.id, "registered with {}", self.client.target());
                    pause = PAUSE_MIN;
                    self.renew().await;
                }
                Err(error) => tracing::warn!(id = self.id, "not registered: {error}"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Renews the lease until Holdline does not know of it.
    async fn renew(&self) {
        let path = format!("{}/lease", self.path);
        let mut after = self.renew_after;
        loop {
            sleep(after).await;
            after = match self.client.call(Method::PUT, &path, Some(&json!({}))).await {
                Ok(answer) => self.renew_after(&answer),
                Err(CallError::NotFound(_)) => {
                    return tracing::warn!("the lease is unknown, so it is registered again");
                }
                Err(error) => {
                    tracing::warn!("the lease was not renewed: {error}");
                    PAUSE_MAX.min(self.renew_after)
                }
            };
        }
    }

    fn renew_after(&self, answer: &Value) -> Duration {
        let told = answer["renew_after"].as_str().and_then(|text| parse_duration(text).ok());
        told.unwrap_or(self.renew_after).max(PAUSE_MIN)
    }

    /// Says that it takes no more pipes, until the last one has left.
    pub(super) async fn drain(&self) {
        let mut body = self.body.clone();
        body["state"] = json!("drain");
        loop {
            // Saying it again renews the lease, and is answered with what is left.
            match self.client.call(Method::PUT, &self.path, Some(&body)).await {
                Ok(answer) if answer["pipes"] == 0 && answer["requests"] == 0 => return,
                Ok(_) => {}
                Err(error) => tracing::warn!("Holdline does not say what is left: {error}"),
            }
            sleep(DRAIN_LOOK).await;
        }
    }

    /// Gives its place back.
    pub(super) async fn withdraw(&self) {
        let goodbye = self.client.call(Method::DELETE, &self.path, None);
        match timeout(GOODBYE_WAIT, goodbye).await {
            Ok(Ok(_)) => tracing::info!(id = self.id, "withdrawn"),
            Ok(Err(error)) => tracing::warn!(id = self.id, "not withdrawn: {error}"),
            Err(_) => tracing::warn!(id = self.id, "not withdrawn in time"),
        }
    }
}
