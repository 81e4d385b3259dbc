//! The admin listener under callers that say nothing, read nothing, or ask for everything: health is answered all the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Proxy, ask, eventually, within};
use crate::measure::alone;

/// When Docker's health check gives up.
const CHECK: Duration = Duration::from_secs(5);

async fn is_alive_soon(proxy: &Proxy) {
    let began = Instant::now();
    ask(proxy.admin, "GET", "/health/live", &[], "").await.expect(200);
    ask(proxy.admin, "GET", "/readyz", &[], "").await.expect(503);
    assert!(began.elapsed() < CHECK, "{:?}", began.elapsed());
}

/// A connection that has asked for this and reads nothing.
async fn asking(address: SocketAddr, path: &str, header: &str) -> TcpStream {
    let mut stream = within("connect", TcpStream::connect(address)).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn sockets_that_say_nothing_keep_no_health_check_out() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let mut silent = Vec::new();
    for _ in 0..1_100 {
        silent.push(within("connect", TcpStream::connect(proxy.admin)).await.unwrap());
    }
    is_alive_soon(&proxy).await;
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("connections", &[("listener", "admin")]) <= 513.0, "one address has its share");
    assert!(metrics.sum("connections_total", &[("listener", "admin"), ("result", "shed")]) >= 500.0);
    assert_eq!(within("the oldest is closed", silent[0].read(&mut [0; 1])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn streams_that_are_never_read_are_counted_and_leave_room_for_health() {
    let _alone = alone();
    let proxy = Proxy::start("[admin]\nmax_connections = 40\naddress_connections = 40\n");
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..60 {
        let mut stream = asking(proxy.admin, "/v1/events", "Accept: text/event-stream\r\n").await;
        let mut status = [0; 12];
        within("an answer", stream.read_exact(&mut status)).await.unwrap();
        refused += u32::from(status.ends_with(b"503"));
        streams.push(stream);
    }
    assert_eq!(refused, 20, "all seats are busy then");
    let busy = ask(proxy.admin, "GET", "/v1/pools", &[], "").await.expect(503);
    assert_eq!(busy.json()["type"], "urn:holdline:problem:busy");
    is_alive_soon(&proxy).await;
    drop(streams);
    eventually("room again", async || {
        (ask(proxy.admin, "GET", "/v1/pools", &[], "").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_takes_a_place_among_those_that_wait() {
    let _alone = alone();
    let proxy = Proxy::start("[admin]\naddress_connections = 1024\n");
    let mut streams = Vec::new();
    for _ in 0..800 {
        streams.push(asking(proxy.admin, "/v1/events", "Accept: text/event-stream\r\n").await);
    }
    eventually("a refused stream", async || {
        let refused = proxy.metrics().await.sum("admin_requests_total", &[("route", "/v1/events"), ("code", "503")]);
        (refused >= 1.0).then_some(())
    })
    .await;
    ask(proxy.admin, "GET", "/v1/pools", &[], "").await.expect(200);
    is_alive_soon(&proxy).await;
}

#[tokio::test]
async fn loops_on_metrics_leave_health_alone() {
    let _alone = alone();
    let proxy = Proxy::start("");
    let admin = proxy.admin;
    let loops: Vec<_> = (0..64)
        .map(|_| {
            tokio::spawn(async move {
                loop {
                    ask(admin, "GET", "/metrics", &[], "").await.expect(200);
                }
            })
        })
        .collect();
    for _ in 0..20 {
        is_alive_soon(&proxy).await;
    }
    loops.into_iter().for_each(|task| task.abort());
}
