//! Workers that listen on a socket file.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Client, DemoWorker, Front, Proxy, StepWorker, Wire, ask};

/// A pool whose workers listen on the socket files `names` in `home`.
fn pool(home: &TempDir, names: &[&str]) -> String {
    let entry = |name: &&str| format!("[[pools.backends]]\nid = \"{name}\"\nurl = \"{}\"\n", url(home, name));
    let health = "health.interval = \"50ms\"\nhealth.kind = \"http\"\nhealth.path = \"/health\"\n";
    format!("[[pools]]\nname = \"default\"\n{health}{}", names.iter().map(entry).collect::<String>())
}

fn url(home: &TempDir, name: &str) -> String {
    format!("unix:{}", home.path().join(name).display())
}

async fn healthy(proxy: &Proxy, id: &str, health: &str) {
    proxy.event(0, health, |event| event["backend"] == id && event["type"] == format!("backend.{health}")).await;
}

#[tokio::test]
async fn pipes_and_plain_requests_and_probes_reach_a_worker_on_a_socket_file_and_survive_its_death() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (first, second) = (DemoWorker::start("first", &[]), DemoWorker::start("second", &[]));
    let front = Front::unix(&path("a"), first.address);
    let proxy = Proxy::start(&pool(&home, &["a", "b"]));
    healthy(&proxy, "a", "up").await;
    healthy(&proxy, "b", "down").await;

    let mut client = Client::connect(proxy.public, "/ws/s1/control").await;
    client.text(json!({ "t": "tap", "x": 1, "y": 2, "n": 1 }).to_string()).await;
    assert_eq!(first.executed(1).await, [1]);
    let reply = ask(proxy.public, "GET", "/api/sessions/s1/download", &[], "").await.expect(200);
    assert_eq!(reply.body.len(), 2_700_000);

    proxy.pipe_that("the first tap is confirmed", |pipe| pipe["up"]["confirmed"] == 1).await;
    drop(front);
    client.text(json!({ "t": "tap", "x": 1, "y": 2, "n": 2 }).to_string()).await;
    healthy(&proxy, "a", "down").await;
    let _front = Front::unix(&path("b"), second.address);
    assert_eq!(second.executed(1).await, [2], "the pipe went on at the other socket file");
    let pipe = proxy.pipe_that("it is attached", |pipe| pipe["backend"] == "b").await;
    assert_eq!(pipe["interruptions"], 1, "{pipe}");
    ask(proxy.public, "GET", "/health", &[], "").await.expect(200);

    let view = proxy.get("/v1/backends/a").await;
    assert_eq!(view["url"], url(&home, "a"));
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("backend_connects_total", &[("backend", "b"), ("result", "attached")]) >= 1.0);
}

#[tokio::test]
async fn a_worker_on_a_socket_file_gets_the_clients_host_and_the_path_of_its_url() {
    let home = tempfile::tempdir().unwrap();
    let worker = StepWorker::start().await;
    let _front = Front::unix(&home.path().join("w"), worker.address);
    let url = format!("{}:/inner/ws", url(&home, "w"));
    let proxy = Proxy::start(&format!(
        "[[pools]]\nname = \"default\"\nhealth.interval = 0\n[[pools.backends]]\nurl = \"{url}\"\n"
    ));
    let (client, accepted) = tokio::join!(Wire::connect(proxy.public, "/outer", &[]), worker.accept());
    assert_eq!(accepted.head.line, "GET /inner/ws HTTP/1.1");
    assert_eq!(accepted.head.header("host"), proxy.public.to_string());
    drop(client);
}

#[tokio::test]
async fn a_registration_may_name_a_socket_file_only_where_the_operator_allows_it() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = DemoWorker::start("w", &[]);
    let _fronts = ["w", "hidden"].map(|name| {
        let directory = if name == "w" { &home } else { &elsewhere };
        Front::unix(&directory.path().join(name), worker.address)
    });
    let proxy = Proxy::start(&format!("[admin]\nbackend_sockets = [\"{}\"]\n", home.path().display()));
    proxy.register_as("w", json!({ "url": url(&home, "w") })).await;
    Client::connect(proxy.public, "/ws/s1/echo").await;
    for (url, words) in [
        (url(&elsewhere, "hidden"), "admin.backend_sockets"),
        (format!("{}/../hidden", url(&home, "x")), "admin.backend_sockets"),
        ("unix:/run/docker.sock".to_owned(), "admin.backend_sockets"),
        ("unix:w.sock".to_owned(), "absolute path"),
        (format!("unix:/tmp/{}", "a".repeat(103)), "107 at most"),
    ] {
        let reply = proxy.api("POST", "/v1/backends", Some(json!({ "url": url }))).await;
        assert!(matches!(reply.status, 403 | 422), "{url}: {}", reply.text());
        assert!(reply.text().contains(words), "{url}: {}", reply.text());
    }
    // A link out of the directory is followed before it is judged.
    std::os::unix::fs::symlink(elsewhere.path().join("hidden"), home.path().join("link")).unwrap();
    proxy.register_as("link", json!({ "url": url(&home, "link") })).await;
    let down = proxy.event(0, "link is down", |event| event["backend"] == "link" && event["type"] == "backend.down");
    assert!(down.await["reason"].as_str().unwrap().contains("admin.backend_sockets"));
}

#[tokio::test]
async fn a_socket_file_on_which_the_proxy_itself_listens_is_no_worker() {
    let home = tempfile::tempdir().unwrap();
    let admin = home.path().join("admin.sock");
    std::os::unix::fs::symlink(&admin, home.path().join("link.sock")).unwrap();
    let file = admin.display();
    let backend = format!("[[pools]]\nname = \"default\"\n[[pools.backends]]\nid = \"w\"\nurl = \"unix:{file}\"\n");
    let config = home.path().join("proxy.toml");
    std::fs::write(&config, format!("[admin]\nlisten = \"unix:{file}\"\n{backend}")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_holdline")).args(["check", "-c"]).arg(&config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("is a listener of this proxy itself"), "{said}");

    // Behind a link it is found at the dial.
    let linked = backend.replace("admin.sock", "link.sock");
    let proxy = Proxy::start_with(&linked, &[("HOLDLINE_ADMIN__LISTEN", &format!("unix:{file}"))]);
    let reply = ask(proxy.public, "GET", "/v1/config", &[], "").await;
    assert!(matches!(reply.status, 503 | 508), "{}", reply.text());
    let refused = Wire::open(proxy.public, "/v1/events", &[]).await.unwrap_err();
    assert!(matches!(refused.status, 503 | 508), "{}", refused.text());
}
