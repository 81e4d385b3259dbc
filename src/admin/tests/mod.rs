//! The admin API as its callers see it: through the router, without a socket.

mod backends;
mod guards;
mod listening;
mod reading;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use holdline_core::ids::PipeId;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{Admin, Locality};
use crate::clock::Clock;
use crate::config::{Config, Loaded, LogLevel, PoolsTls};
use crate::log::LogHandle;
use crate::pipes::{PipeFacts, Registration, Sharing};
use crate::process::{Judged, Process};
use crate::reload::Reload;
use crate::routes::RouteTable;
use crate::rules::Rules;
use crate::tls::Sets;
use crate::tokens::Tokens;

struct Fixture {
    admin: Arc<Admin>,
    files: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    response: axum::http::response::Parts,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.response.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The slug of the problem that this must be.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert!(body["title"].is_string() && body["detail"].is_string());
        body["type"].as_str().unwrap().strip_prefix("urn:holdline:problem:").unwrap().to_owned()
    }
}

fn digest(token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Fixture {
    fn open() -> Self {
        Self::new(Locality::Loopback, false)
    }

    fn with_tokens() -> Self {
        Self::new(Locality::Network, true)
    }

    fn new(locality: Locality, tokens: bool) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut text = String::new();
        if tokens {
            let file = files.path().join("tokens");
            let lines = [("viewer", "see"), ("worker", "work"), ("operator", "rule")]
                .map(|(role, token)| format!("{role} {} {role}-1\n", digest(token)));
            std::fs::write(&file, lines.concat()).unwrap();
            text = format!("[admin]\ntap = true\ntokens_file = {:?}\n", file.to_str().unwrap());
        }
        let file = files.path().join("proxy.toml");
        std::fs::write(&file, text).unwrap();
        let Loaded { config, sources, .. } = Config::load(Some(&file)).unwrap();
        let tokens = config.admin.tokens_file.as_deref().map(|path| Tokens::load(path).unwrap());
        let rules = Rules::from_config(&config).unwrap();
        let log = Arc::new(LogHandle::detached(LogLevel::Info));
        let judged = Judged {
            config,
            rules,
            tokens,
            resume_keys: None,
            hooks_secret: None,
            tls: PoolsTls::default(),
            shown: Sets::default(),
        };
        let process = Arc::new(Process::new(judged, log, 1000, Clock::start()).0);
        process.phase.started();
        let reload = Arc::new(Reload::new(process.clone(), sources));
        Self { admin: Admin::new(process, reload, None, locality), files }
    }

    fn pipe(&self, n: u8, key: &str) -> Registration {
        let spec = crate::routes::tests::spec("screens", "/{*path}");
        let table = RouteTable::compile(vec![spec]).unwrap();
        let route = Arc::clone(table.iter().next().unwrap());
        let facts = PipeFacts {
            id: PipeId::from_bytes([n; 16]),
            route,
            key: Some(key.into()),
            client: "127.0.0.1:5000".to_owned(),
            named: false,
            protocol: None,
            aware: false,
            compression: crate::handshake::deflate::Compression::Off(crate::routes::Uncompressed::Client),
            sharing: Sharing::Alone,
            request_id: String::new(),
        };
        self.admin.process.pipes.open(facts)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.admin.router().oneshot(request).await.unwrap();
        let (response, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: response.status, response, text: String::from_utf8(bytes.into()).unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, None).body(Body::empty()).unwrap()).await
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = request(method, path, None).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string().into()).unwrap()).await
    }
}

fn request(method: Method, path: &str, token: Option<&str>) -> axum::http::request::Builder {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:9000");
    match token {
        Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}
