//! Serves the viewer page and its state, and takes its orders; on loopback only.
//!
//! A foreign page in a browser can send requests to a loopback port, so orders must come from a page that was loaded
//! from here: the `Host` is a loopback name (no DNS rebinding), an `Origin` is that host, and the body is declared as
//! JSON (no form, no `fetch` without a preflight).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path, Request, State};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::board::Board;
use super::page::VIEWER_HTML;
use super::workers::{Deed, Workers};

/// A page that asked within this time is still open and is told how it ended.
const OPEN_PAGE: Duration = Duration::from_secs(3);
/// How long such a page may take to ask once more.
const FAREWELL_WAIT: Duration = Duration::from_secs(3);

/// The running viewer.
pub(super) struct Viewer {
    /// Where people point their browsers.
    pub url: String,
    asked: watch::Receiver<Asked>,
    task: JoinHandle<()>,
}

/// When a page last asked for the state, and whether it has seen the verdict.
#[derive(Clone, Copy, Default)]
struct Asked {
    at: Option<Instant>,
    knows_the_end: bool,
}

struct App {
    board: Arc<Board>,
    workers: Workers,
    asked: watch::Sender<Asked>,
}

impl Viewer {
    /// Binds and serves.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub(super) async fn start(listen: SocketAddr, board: &Arc<Board>, workers: &Workers) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (sender, asked) = watch::channel(Asked::default());
        let app = Arc::new(App { board: board.clone(), workers: workers.clone(), asked: sender });
        let router = Router::new()
            .route("/", get(Html(VIEWER_HTML)))
            .route("/demo/state", get(state))
            .route("/demo/workers/{index}/{deed}", post(order))
            .route("/demo/kill-all", post(kill_all))
            .with_state(app)
            .layer(from_fn(guard));
        let task = tokio::spawn(async move {
            // it ends with the task
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, asked, task })
    }

    /// Lets an open page learn the verdict, and ends.
    pub(super) async fn finish(mut self) {
        let is_open = self.asked.borrow().at.is_some_and(|at| at.elapsed() < OPEN_PAGE);
        if is_open {
            // a page that was closed meanwhile never asks
            let _ = timeout(FAREWELL_WAIT, self.asked.wait_for(|asked| asked.knows_the_end)).await;
        }
        self.task.abort();
    }
}

/// With `?seen=finished` the page says that it was told how it ended.
async fn state(State(app): State<Arc<App>>, uri: Uri) -> Response {
    let knows_the_end = uri.query() == Some("seen=finished");
    app.board.viewed();
    app.asked.send_replace(Asked { at: Some(Instant::now()), knows_the_end });
    ([(header::CACHE_CONTROL, "no-store")], Json(app.board.state())).into_response()
}

async fn order(State(app): State<Arc<App>>, Path((index, deed)): Path<(usize, String)>) -> StatusCode {
    let deed = match deed.as_str() {
        "kill" => Deed::Kill,
        "drain" => Deed::Drain,
        _ => return StatusCode::NOT_FOUND,
    };
    if app.workers.order(&app.board, index, deed) { StatusCode::ACCEPTED } else { StatusCode::CONFLICT }
}

async fn kill_all(State(app): State<Arc<App>>) -> StatusCode {
    match app.workers.kill_all(&app.board) {
        0 => StatusCode::CONFLICT,
        count => {
            app.board.say(format!("all {count} workers that are up are killed at once"));
            StatusCode::ACCEPTED
        }
    }
}

async fn guard(request: Request, next: Next) -> Response {
    match check(request.headers(), !request.method().is_safe()) {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_response(),
    }
}

fn check(headers: &HeaderMap, writes: bool) -> Result<(), StatusCode> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).filter(|host| is_loopback_name(host)).ok_or(StatusCode::FORBIDDEN)?;
    if !writes {
        return Ok(());
    }
    if headers.contains_key(header::ORIGIN) && text(header::ORIGIN) != Some(&format!("http://{host}")) {
        return Err(StatusCode::FORBIDDEN);
    }
    let media_type = text(header::CONTENT_TYPE).unwrap_or("").split(';').next().unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(StatusCode::UNSUPPORTED_MEDIA_TYPE) }
}

/// Whether `host`, with or without a port, can only mean this machine.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_this_page_may_give_orders() {
        let own = [("host", "127.0.0.1:81"), ("origin", "http://127.0.0.1:81"), ("content-type", "application/json")];
        assert_eq!(check(&headers(&own), true), Ok(()));
        assert_eq!(check(&headers(&[own[0], own[2]]), true), Ok(()), "curl has no origin");
        let foreign = [own[0], ("origin", "http://evil.example"), own[2]];
        assert_eq!(check(&headers(&foreign), true), Err(StatusCode::FORBIDDEN));
        assert_eq!(check(&headers(&own[..2]), true), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }

    #[test]
    fn a_rebound_name_reads_nothing() {
        for host in ["localhost:81", "[::1]:81", "127.0.0.1"] {
            assert_eq!(check(&headers(&[("host", host)]), false), Ok(()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:81", "10.0.0.1", ""] {
            assert_eq!(check(&headers(&[("host", host)]), false), Err(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(check(&HeaderMap::new(), false), Err(StatusCode::FORBIDDEN));
    }
}
