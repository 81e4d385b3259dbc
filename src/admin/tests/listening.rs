//! The listener itself, over real sockets and through the client of `holdline ctl`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::Fixture;
use crate::admin::listen::{self, AdminListener};
use crate::config::Listen;
use crate::ctl::{CallError, Client, PATIENCE, Target};

struct Served {
    fixture: Fixture,
    address: String,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(listen: &str) -> Served {
    let fixture = Fixture::open();
    let listener = AdminListener::bind(&listen.parse::<Listen>().unwrap()).await.unwrap();
    let address = listener.to_string();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(listen::serve(listener, Arc::clone(&fixture.admin), stopped));
    Served { fixture, address, stop, task }
}

impl Served {
    fn client(&self) -> Client {
        Client::new(self.address.parse::<Target>().unwrap())
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn the_api_is_served_over_tcp_and_over_a_socket_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    for listen in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let served = serve(&listen).await;
        let client = served.client();
        let said = json!({"url": "ws://127.0.0.1:7001"});
        let made = client.call(Method::PUT, "/v1/backends/a", Some(&said)).await.unwrap();
        assert_eq!(made["id"], "a");
        assert_eq!(client.call(Method::DELETE, "/v1/backends/a", None).await.unwrap(), json!(null));
        let error = client.call(Method::GET, "/v1/backends/a", None).await.unwrap_err().to_string();
        assert!(error.contains("there is no backend \"a\"") && error.contains("[404 "), "{error}");
        let not_ready = client.ask(Method::GET, "/health/ready", None, PATIENCE).await.unwrap();
        assert_eq!(not_ready.status.as_u16(), 503);
        served.end().await;
    }
    assert!(!path.exists(), "the socket file goes with its listener");
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Listen::Unix(dir.path().join("admin.sock"));
    let Listen::Unix(path) = &listen else { unreachable!() };
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(path.exists());
    let _first = AdminListener::bind(&listen).await.unwrap();
    let error = AdminListener::bind(&listen).await.unwrap_err().to_string();
    assert!(error.contains("admin.listen unix:"), "{error}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_held_poll_does_not_keep_the_process_from_stopping() {
    let served = serve("127.0.0.1:0").await;
    let mut poll = tokio::net::TcpStream::connect(&served.address).await.unwrap();
    poll.write_all(b"GET /v1/events?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut idle = tokio::net::TcpStream::connect(&served.address).await.unwrap();
    while served.fixture.admin.process.metrics.families().connections.with_label_values(&["admin"]).get() < 2 {
        tokio::task::yield_now().await;
    }
    let metrics = Arc::clone(&served.fixture.admin.process.metrics);
    served.end().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(metrics.families().connections.with_label_values(&["admin"]).get(), 0);
}

#[tokio::test]
async fn the_client_says_what_to_do_next() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let client = Client::new(Target::Tcp(address));
    let error = client.call(Method::GET, "/v1/stats", None).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }));
    assert!(error.to_string().contains("holdline serve") && error.to_string().contains("--admin"), "{error}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(Target::Tcp(silent.local_addr().unwrap().to_string()));
    let error = client.ask(Method::GET, "/", None, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut(..)), "{error}");

    let served = serve("127.0.0.1:0").await;
    let tokens = crate::tokens::Tokens::parse(&format!("viewer {}\n", super::digest("see"))).unwrap();
    served.fixture.admin.process.tokens.store(Some(Arc::new(tokens)));
    let error = served.client().call(Method::GET, "/v1/stats", None).await.unwrap_err();
    assert!(error.to_string().contains("HOLDLINE_TOKEN"), "{error}");
    served.end().await;
}
