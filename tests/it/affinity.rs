//! Which worker a client comes back to: by a cookie of ours, by its address, by a cookie of its application, and by keys
//! that workers make up.

use std::process::Command;

use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Proxy, Reply, StepWorker, Wire, ask, eventually};

/// No limits, and one pool.
const POOL: &str = "[limits]\nkey_connections = 0\nkey_rate = 0\n[[pools]]\nname = \"farm\"\n";

/// A worker that says its name in each answer, and makes up the keys that it is asked for.
struct Named {
    address: std::net::SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Named {
    async fn start(name: &'static str) -> Self {
        let worker = StepWorker::start().await;
        let address = worker.address;
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            for number in 0.. {
                let mut knock = worker.knock_unbounded().await;
                if knock.head.has("sec-websocket-key") {
                    open.push(knock.upgrade_with(&format!("X-Worker: {name}\r\n")).await);
                    continue;
                }
                assert!(!knock.head.line.starts_with("POST") || !knock.head.has("accept-encoding"), "it is to be read");
                let body = format!("{{\"value\": {{\"id\": \"{name}{number}\"}} }}\n");
                let head = format!("HTTP/1.1 201 Created\r\nX-Worker: {name}\r\nConnection: close\r\n");
                let (first, second) = body.split_at(9);
                // In chunks and in one piece.
                knock
                    .answer(&match number % 2 {
                        0 => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
                        _ => format!(
                            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
                            first.len(),
                            second.len()
                        ),
                    })
                    .await;
            }
        });
        Self { address, serving }
    }
}

async fn farm(config: &str) -> (Proxy, [Named; 2]) {
    let proxy = Proxy::start(&format!("{POOL}{config}"));
    let workers = [Named::start("a").await, Named::start("b").await];
    for (id, worker) in ["a", "b"].into_iter().zip(&workers) {
        proxy.register_as(id, json!({ "url": format!("ws://{}", worker.address), "pool": "farm" })).await;
    }
    (proxy, workers)
}

fn cookie_of(reply: &Reply) -> Option<String> {
    Some(reply.headers.get("set-cookie")?.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_cookie_of_ours_brings_a_client_back_to_its_worker() {
    let (proxy, workers) = farm("[[routes]]\npool = \"farm\"\nsticky = \"cookie\"\n").await;
    let first = ask(proxy.public, "GET", "/", &[], "").await;
    let own = first.header("x-worker").to_owned();
    let cookie = cookie_of(&first).unwrap();
    let (pair, rest) = cookie.split_once(';').unwrap();
    assert!(pair.starts_with("holdline-farm=") && pair.len() == "holdline-farm=".len() + 24, "{cookie}");
    assert_eq!(rest, " Path=/; HttpOnly; SameSite=Lax", "the client came without TLS");
    let mut open = Vec::new();
    for _ in 0..4 {
        let reply = ask(proxy.public, "GET", "/", &[("cookie", pair)], "").await;
        assert_eq!((reply.header("x-worker"), cookie_of(&reply)), (&*own, None), "it is not told again");
        let sent = format!("other=1; {pair}");
        let client = Wire::connect(proxy.public, "/ws", &[("cookie", &sent)]).await;
        assert_eq!((client.head.header("x-worker"), client.head.has("set-cookie")), (&*own, false));
        open.push(client);
    }
    let client = Wire::connect(proxy.public, "/ws", &[]).await;
    assert_ne!(client.head.header("x-worker"), own, "the one with fewer pipes");
    assert!(client.head.header("set-cookie").starts_with("holdline-farm="), "a 101 sets it too");
    for forged in
        ["holdline-farm=a", "holdline-farm=", &format!("holdline-farm={}", "0".repeat(24)), "holdline-other=a"]
    {
        let reply = ask(proxy.public, "GET", "/", &[("cookie", forged)], "").await;
        assert!(cookie_of(&reply).is_some(), "{forged}");
    }
    drop(open);
    proxy.api("PUT", &format!("/v1/backends/{own}/state"), Some(json!({ "state": "drain" }))).await;
    // Up to then the worker has pipes, and its sessions with them.
    let reply = eventually("it takes nothing new", async || {
        let reply = ask(proxy.public, "GET", "/", &[("cookie", pair)], "").await;
        (reply.header("x-worker") != own).then_some(reply)
    })
    .await;
    assert_ne!(cookie_of(&reply).unwrap(), cookie, "and the client is told of the new one");
    drop(workers);
}

#[tokio::test]
async fn behind_tls_the_cookie_is_secure() {
    let config = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[[routes]]\npool = \"farm\"\nsticky = \"cookie\"\n";
    let (proxy, _workers) = farm(config).await;
    let reply = ask(proxy.public, "GET", "/", &[("x-forwarded-proto", "https")], "").await;
    assert!(cookie_of(&reply).unwrap().ends_with("; Secure"), "{reply:?}");
}

#[tokio::test]
async fn a_key_that_a_worker_makes_up_brings_its_requests_and_sockets_to_that_worker() {
    let routes = "[[routes]]\nname = \"kernels\"\npath = \"/api/kernels\"\npool = \"farm\"\n\
         learn = [{ path = \"/other\", json = \"/x\" }, { path = \"/api/kernels\", json = \"/value/id\" }]\n\
         [[routes]]\nname = \"kernel\"\npath = \"/api/kernels/{kernel}/{*rest}\"\nkey = \"{kernel}\"\npool = \"farm\"\n";
    let (proxy, _workers) = farm(routes).await;
    let mut makers = std::collections::BTreeSet::new();
    let mut open = Vec::new();
    for _ in 0..8 {
        let made = ask(proxy.public, "POST", "/api/kernels", &[("accept-encoding", "gzip")], "{}").await.expect(201);
        let maker = made.header("x-worker").to_owned();
        let id = made.json()["value"]["id"].as_str().unwrap().to_owned();
        let client = Wire::connect(proxy.public, &format!("/api/kernels/{id}/channels"), &[]).await;
        assert_eq!(client.head.header("x-worker"), maker, "{id}");
        open.push(client);
        let reply = ask(proxy.public, "GET", &format!("/api/kernels/{id}/state"), &[], "").await;
        assert_eq!(reply.header("x-worker"), maker, "{id}");
        makers.insert(maker);
    }
    assert_eq!(makers.len(), 2, "both were asked");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("learned_keys_total", &[("route", "kernels"), ("result", "learned")]), 8.0);
    assert_eq!(metrics.sum("learned_keys_total", &[]), 8.0);
}

#[tokio::test]
async fn an_answer_without_the_key_is_passed_on_and_counted() {
    let routes = "[[routes]]\nname = \"kernels\"\npath = \"/api/kernels\"\npool = \"farm\"\n\
         learn = [{ path = \"/api/kernels\", json = \"/no/such\" }]\n";
    let (proxy, _workers) = farm(routes).await;
    let made = ask(proxy.public, "POST", "/api/kernels", &[], "{}").await.expect(201);
    assert!(made.json()["value"]["id"].is_string());
    assert_eq!(proxy.metrics().await.sum("learned_keys_total", &[("result", "absent")]), 1.0);
}

#[tokio::test]
async fn the_key_of_a_pipe_may_be_its_clients_address_and_a_cookie_of_its_application() {
    let (proxy, _workers) = farm("[[routes]]\npool = \"farm\"\nkey = \"{client}/{cookie.sid}\"\n").await;
    let _client = Wire::connect(proxy.public, "/ws", &[("cookie", "a=1; sid=s1")]).await;
    assert_eq!(proxy.pipes().await[0]["key"], "127.0.0.1/s1");
}

#[test]
fn check_says_what_is_wrong_with_a_rule_that_learns() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.toml");
    for (line, wanted) in [
        ("learn = [{ path = \"api\", json = \"/id\" }]", "routes[0].learn: `api` is no plain path"),
        ("learn = [{ path = \"/api\", json = \"id\" }]", "routes[0].learn: `id` is no JSON pointer"),
        ("learn = [{ path = \"/api\" }]", "routes[0].learn: cannot use"),
        ("learn = [{ path = \"/api\", jason = \"/id\" }]", "routes[0].learn: unknown key \"jason\""),
    ] {
        std::fs::write(&file, format!("[[routes]]\n{line}\n")).unwrap();
        let check = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["check", "-c"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted) && said.contains("proxy.toml:2:"), "{said}");
    }
}
