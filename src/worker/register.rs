//! Telling Holdline's admin API that this worker is here, and keeping the lease alive.
//!
//! A lease that Holdline doesn't know (404) means that it has restarted or given us up: we register again.
//! Nothing here is fatal; a proxy that isn't there yet is asked again, with a growing pause.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{App, WorkerError, journal::hex, options::Options};

/// One request to the admin API, from connect to the last byte.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Taking ourselves off the list when stopping.
const GOODBYE_WAIT: Duration = Duration::from_secs(2);
/// Pause after the first failure, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Renew after this, if neither Holdline nor the lease that was asked for says when.
const RENEW_AFTER: Duration = Duration::from_secs(5);
/// Bounds on what Holdline may say.
const RENEW_MIN: Duration = Duration::from_millis(50);
const RENEW_MAX: Duration = Duration::from_secs(3_600);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const USER_AGENT: &str = concat!("holdline-worker/", env!("CARGO_PKG_VERSION"));

/// Where and as what we are registered.
pub(super) struct Registration {
    authority: String,
    path: String,
    token: Option<String>,
    body: Value,
    renew_after: Duration,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("no valid request: {0}")]
    Request(#[from] http::Error),
    #[error("answer unreadable")]
    Answer,
    #[error("no answer in time")]
    Late,
}

impl Registration {
    /// What to register, if the options say so.
    ///
    /// # Errors
    /// When the admin URL isn't `http://HOST:PORT`.
    pub(super) fn new(options: &Options, name: &str, address: SocketAddr) -> Result<Option<Self>, WorkerError> {
        let Some(url) = &options.register else {
            return Ok(None);
        };
        let wrong = || WorkerError::Register { url: url.clone() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let id = options.id.as_deref().unwrap_or(name);
        let path = format!("{}/v1/backends/{id}", uri.path().trim_end_matches('/'));
        let labels: Map<_, _> = options.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let body = json!({
            "url": options.advertise.clone().unwrap_or_else(|| format!("ws://{address}")),
            "pool": options.pool, "serves": serves(options), "labels": labels,
            "instance": hex(&rand::random::<[u8; 8]>()), "lease": options.lease,
        });
        let token = std::env::var("HOLDLINE_TOKEN").ok().filter(|token| !token.is_empty());
        // two renewals may fail before the lease ends
        let renew_after = duration(&options.lease).map_or(RENEW_AFTER, |lease| lease / 3);
        Ok(Some(Self { authority, path, token, body, renew_after }))
    }

    /// Registers and renews until the worker stops, then takes it off the list.
    pub(super) async fn keep(self, app: Arc<App>) {
        let mut stop = app.stop.subscribe();
        tokio::select! {
            () = self.stay(&app) => {}
            _ = stop.wait_for(|stopping| *stopping) => {}
        }
        let goodbye = self.ask(Method::DELETE, &self.path, None);
        match timeout(GOODBYE_WAIT, goodbye).await {
            Ok(Ok((status, _))) => tracing::info!(%status, "deregistered"),
            Ok(Err(error)) => tracing::warn!(%error, "not deregistered"),
            Err(_) => tracing::warn!("not deregistered in time"),
        }
    }

    async fn stay(&self, app: &App) {
        let mut pause = PAUSE_MIN;
        loop {
            app.faults.thawed(None).await;
            match self.ask(Method::PUT, &self.path, Some(&self.body)).await {
                Ok((status, answer)) if status.is_success() => {
                    tracing::info!(%status, admin = self.authority, "registered");
                    pause = PAUSE_MIN;
                    self.renew(app, self.renew_after(&answer)).await;
                }
                Ok((status, _)) => tracing::warn!(%status, "registration refused"),
                Err(error) => tracing::warn!(%error, "registration failed"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn renew_after(&self, answer: &Value) -> Duration {
        told_renewal(answer).unwrap_or(self.renew_after).max(RENEW_MIN)
    }

    /// Returns when Holdline has forgotten us.
    async fn renew(&self, app: &App, first: Duration) {
        let path = format!("{}/lease", self.path);
        let mut after = first;
        loop {
            sleep(after).await;
            app.faults.thawed(None).await;
            after = match self.ask(Method::PUT, &path, Some(&json!({}))).await {
                Ok((StatusCode::NOT_FOUND, _)) => {
                    return tracing::warn!("lease unknown, registering again");
                }
                Ok((status, answer)) if status.is_success() => self.renew_after(&answer),
                Ok((status, _)) => {
                    tracing::warn!(%status, "lease not renewed");
                    PAUSE_MAX.min(first)
                }
                Err(error) => {
                    tracing::warn!(%error, "lease not renewed");
                    PAUSE_MAX.min(first)
                }
            };
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), AskError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        timeout(REQUEST_WAIT, exchange(&self.authority, request)).await.map_err(|_| AskError::Late)?
    }
}

/// A list where keys and sessions are the same words, else a map from key to session; empty is any key.
fn serves(options: &Options) -> Value {
    let served = &options.serves;
    if served.iter().all(|served| served.key == served.session) {
        return served.iter().map(|served| json!(served.key)).collect();
    }
    json!(options.aliases())
}

async fn exchange(authority: &str, request: Request<Full<Bytes>>) -> Result<(StatusCode, Value), AskError> {
    let socket = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|_| AskError::Answer)?;
        Ok((status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default()))
    };
    // the connection moves the bytes, and has nothing to say that the exchange doesn't
    tokio::join!(exchange, connection).0
}

/// When to renew: `renew_after` as seconds, a duration ("5s", "500ms") or a time.
fn told_renewal(answer: &Value) -> Option<Duration> {
    let told = match &answer["renew_after"] {
        Value::Number(seconds) => seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        Value::String(text) => duration(text).or_else(|| {
            let at: Timestamp = text.parse().ok()?;
            at.duration_since(Timestamp::now()).max(SignedDuration::ZERO).try_into().ok()
        }),
        _ => None,
    };
    told.map(|told| told.clamp(RENEW_MIN, RENEW_MAX))
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit_s).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renew_after_is_read_in_every_form() {
        let at = |value: Value| told_renewal(&json!({ "renew_after": value }));
        assert_eq!(at(json!(2.5)), Some(Duration::from_millis(2_500)));
        assert_eq!(at(json!("500ms")), Some(Duration::from_millis(500)));
        assert_eq!(at(json!("5s")), Some(Duration::from_secs(5)));
        let soon = (Timestamp::now() + SignedDuration::from_secs(9)).to_string();
        assert!((7..=9).contains(&at(json!(soon)).unwrap().as_secs()));
        for nonsense in [json!(null), json!("soon"), json!(-3), json!([])] {
            assert_eq!(at(nonsense), None);
        }
        assert_eq!(at(json!(1e-9)), Some(RENEW_MIN));
    }

    #[test]
    fn a_registration_names_what_it_serves() {
        let mut options = Options { register: Some("http://127.0.0.1:9000/".into()), ..Options::default() };
        options.serves = vec!["udid=s1".parse().unwrap()];
        let registration = Registration::new(&options, "w-1", ([127, 0, 0, 1], 4000).into()).unwrap().unwrap();
        assert_eq!(registration.authority, "127.0.0.1:9000");
        assert_eq!(registration.path, "/v1/backends/w-1");
        assert_eq!(registration.renew_after(&json!({})), Duration::from_secs(5));
        assert_eq!(registration.body["url"], "ws://127.0.0.1:4000");
        assert_eq!(registration.body["serves"], json!({ "udid": "s1" }));
        options.serves = vec!["s1".parse().unwrap()];
        assert_eq!(serves(&options), json!(["s1"]));
        options.register = Some("https://example.com".into());
        assert!(Registration::new(&options, "w-1", ([127, 0, 0, 1], 4000).into()).is_err());
    }
}
