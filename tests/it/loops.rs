//! Backends that lead back to the proxy itself: straight, by a name, through a forwarder, through a second Holdline.

use std::net::SocketAddr;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Proxy, Wire, ask, within};

const UNPROBED: &str = "[[pools]]\nname = \"default\"\nhealth.interval = \"0s\"\n";

/// What one request may take for a moment: its own connection, one to a backend, and one that a loop came back by.
const DESCRIPTORS_OF_A_REQUEST: usize = 8;

/// Asks for a page and for a WebSocket; both are told of the loop, and nothing piles up.
async fn is_refused_as_a_loop(proxy: &Proxy) {
    let before = proxy.descriptors();
    let page = ask(proxy.public, "GET", "/x", &[], "").await.expect(508);
    assert!(page.text().contains("leads back to this proxy"), "{}", page.text());
    let socket = Wire::open(proxy.public, "/x", &[]).await.expect_err("a loop opens no pipe");
    assert_eq!(socket.status, 508, "{}", socket.text());
    let after = proxy.descriptors();
    assert!(after <= before + DESCRIPTORS_OF_A_REQUEST, "{before} descriptors before, {after} after");
    proxy.idle().await;
}

/// A proxy that knows nothing of HTTP: what comes goes on to `to`.
async fn forwarder(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                // however it ends, it is over
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_listener_of_our_own_is_not_registered_under_any_of_its_names() {
    let proxy = Proxy::start("[[routes]]\nwait = 0\n");
    for port in [proxy.public.port(), proxy.admin.port()] {
        for host in ["127.0.0.1", "localhost", "localhost.", "[::ffff:127.0.0.1]"] {
            let body = json!({ "url": format!("ws://{host}:{port}/v1/config") });
            for (method, path) in [("POST", "/v1/backends"), ("PUT", "/v1/backends/loop")] {
                let reply = proxy.api(method, path, Some(body.clone())).await.expect(403).json();
                assert_eq!(reply["type"], "urn:holdline:problem:own-listener");
                assert_eq!(reply["errors"][0]["pointer"], "/url");
                let detail = reply["detail"].as_str().unwrap();
                assert!(detail.contains("is a listener of this proxy itself"), "{detail}");
            }
        }
    }
    assert!(proxy.get("/v1/backends").await["items"].as_array().unwrap().is_empty());
    ask(proxy.public, "GET", "/v1/config", &[], "").await.expect(503);
}

#[tokio::test]
async fn a_configured_backend_that_is_a_listener_of_our_own_is_never_dialled() {
    let proxy = Proxy::start(UNPROBED);
    for (port, path) in [(proxy.public.port(), ""), (proxy.admin.port(), "/v1/config")] {
        // a port that the system chose is in no file, so the file cannot be refused for it
        let backend = format!("[[pools.backends]]\nurl = \"ws://localhost:{port}{path}\"\n");
        proxy.rewrite(&format!("{UNPROBED}{backend}"));
        proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
        is_refused_as_a_loop(&proxy).await;
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("backend_connects_total", &[("result", "forbidden")]) >= 2.0);
}

#[tokio::test]
async fn a_probe_says_of_a_listener_of_our_own_what_it_is() {
    let config = |more: &str| format!("[[pools]]\nname = \"default\"\nhealth.interval = \"1s\"\n{more}");
    let proxy = Proxy::start(&config(""));
    proxy.rewrite(&config(&format!("[[pools.backends]]\nurl = \"ws://{}\"\n", proxy.admin)));
    proxy.api("POST", "/v1/config/reload", Some(json!({}))).await.expect(200);
    let down = proxy.event_of(0, "backend.down").await;
    assert!(down["reason"].as_str().unwrap().contains("a listener of this proxy itself"), "{down}");
}

#[tokio::test]
async fn a_loop_through_a_forwarder_is_seen_when_it_comes_back() {
    let proxy = Proxy::start(UNPROBED);
    proxy.register("loop", forwarder(proxy.public).await).await;
    is_refused_as_a_loop(&proxy).await;
    let refused = proxy.metrics().await.sum("handshakes_total", &[("route", "none"), ("code", "508")]);
    assert!(refused >= 2.0, "{refused}");
}

#[tokio::test]
async fn a_loop_through_a_second_holdline_is_seen_when_it_comes_back() {
    let (first, second) = (Proxy::start(UNPROBED), Proxy::start(UNPROBED));
    first.register("second", second.public).await;
    second.register("first", first.public).await;
    is_refused_as_a_loop(&first).await;
    is_refused_as_a_loop(&second).await;
}

#[tokio::test]
async fn a_probe_that_comes_back_to_us_finds_its_backend_unfit() {
    let config = "[[pools]]\nname = \"default\"\nhealth.kind = \"http\"\nhealth.interval = \"1s\"\nhealth.fall = 1\n";
    let proxy = Proxy::start(config);
    proxy.register("loop", forwarder(proxy.public).await).await;
    let down = proxy.event_of(0, "backend.down").await;
    assert_eq!(down["reason"], "answered 508", "{down}");
}

#[tokio::test]
async fn a_request_goes_through_two_holdlines_in_a_row_and_says_so() {
    let (outer, inner) = (Proxy::start(UNPROBED), Proxy::start(UNPROBED));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    inner.register("worker", listener.local_addr().unwrap()).await;
    outer.register("inner", inner.public).await;
    let hops = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = crate::harness::wire::read_head(&mut stream, &mut bytes::BytesMut::new()).await.unwrap();
        let of = |(name, value): &(String, String)| name.eq_ignore_ascii_case("holdline-hops").then(|| value.clone());
        head.headers.iter().filter_map(of).collect::<Vec<_>>()
    });
    let public = outer.public;
    let asked = tokio::spawn(async move { ask(public, "GET", "/x", &[], "").await.status });
    let hops = within("the request", hops).await.unwrap();
    assert_eq!(hops.len(), 2, "{hops:?}");
    assert_ne!(hops[0], hops[1]);
    assert_eq!(within("its end", asked).await.unwrap(), 502);
    for forged in ["x", "0123456789abcdef,", &"0123456789abcdef,".repeat(20)] {
        ask(inner.public, "GET", "/x", &[("holdline-hops", forged)], "").await.expect(400);
    }
    let long = vec!["0123456789abcdef"; 17].join(",");
    ask(inner.public, "GET", "/x", &[("holdline-hops", &long)], "").await.expect(508);
}
