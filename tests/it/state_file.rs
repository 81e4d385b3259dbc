//! What was registered survives the process that it was registered with, however that process ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, DemoWorker, Proxy, StepWorker, eventually};

struct Kept {
    directory: TempDir,
    more: String,
}

impl Kept {
    fn new(more: &str) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), more: more.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("backends.json")
    }

    fn aside(&self) -> PathBuf {
        self.directory.path().join("backends.json.aside")
    }

    fn config(&self) -> String {
        format!("[admin]\nstate_file = {:?}\n{}", self.file().to_str().unwrap(), self.more)
    }

    fn start(&self) -> Proxy {
        Proxy::start(&self.config())
    }
}

async fn kill(mut proxy: Proxy) {
    proxy.signal(Signal::KILL);
    assert!(!proxy.exited().await.success());
}

async fn ids(proxy: &Proxy) -> Vec<String> {
    let list = proxy.get("/v1/backends?limit=1000").await;
    list["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_killed_process_comes_back_with_its_backends_as_they_were_said_and_steered() {
    let kept = Kept::new("[[pools]]\nname = \"default\"\n[[pools]]\nname = \"farm\"\n");
    let proxy = kept.start();
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let said = json!({
        "url": "ws://127.0.0.1:7001/ws?token=s3cret", "pool": "farm", "weight": 3, "max_pipes": 5,
        "serves": {"udid": "session", "plain": "plain"}, "labels": {"rack": "7"}, "instance": "i1", "lease": "1h",
        "health": {"type": "http", "path": "/ok", "interval": "30s", "timeout": "2s"},
    });
    proxy.register_as("rich", said).await;
    proxy.api("PUT", "/v1/backends/rich/state", Some(json!({"state": "maint"}))).await.expect(200);
    proxy.register_as("gone", json!({"url": "ws://127.0.0.1:7002"})).await;
    proxy.api("DELETE", "/v1/backends/gone", None).await.expect(204);
    let made_up =
        proxy.api("POST", "/v1/backends", Some(json!({"url": "ws://127.0.0.1:7003"}))).await.expect(201).json();
    let patch = proxy.api("PATCH", "/v1/backends/rich", Some(json!({"labels": {"rack": "8"}}))).await;
    patch.expect(200);
    let before = proxy.get("/v1/backends/rich").await;
    kill(proxy).await;
    assert_eq!(mode(&kept.file()), 0o600, "addresses may hold secrets");
    let proxy = kept.start();
    let mut expected = vec![made_up["id"].as_str().unwrap().to_owned(), "rich".to_owned(), "w".to_owned()];
    expected.sort();
    assert_eq!(ids(&proxy).await, expected);
    let after = proxy.get("/v1/backends/rich").await;
    for field in ["url", "pool", "weight", "max_pipes", "serves", "labels", "instance", "lease", "state", "lease_state"]
    {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!((&after["state"], &after["labels"]["rack"]), (&json!("maint"), &json!("8")));
    assert_eq!(Client::connect(proxy.public, "/ws/1/echo").await.exchange("served").await, "served");
    assert!(!proxy.log().join("\n").contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_acknowledged_before_a_kill_is_there_afterwards() {
    const WRITERS: usize = 8;
    let kept = Kept::new("");
    let mut known: Vec<String> = Vec::new();
    for round in 0..5 {
        let proxy = kept.start();
        let found = ids(&proxy).await;
        for id in &known {
            assert!(found.contains(id), "round {round}: {id} was acknowledged");
        }
        let count = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (admin, count) = (proxy.admin, count.clone());
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        let id = format!("r{round}-w{writer}-{number}");
                        let body = json!({"url": format!("ws://127.0.0.1:7{writer:03}/{id}")}).to_string();
                        let Some(status) = try_put(admin, &format!("/v1/backends/{id}"), body).await else { break };
                        assert_eq!(status, 201);
                        acknowledged.push(id);
                        count.fetch_add(1, Relaxed);
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("some registrations", async || (count.load(Relaxed) >= 20 + 7 * round).then_some(())).await;
        kill(proxy).await;
        for writer in writers {
            known.extend(writer.await.unwrap());
        }
    }
    assert!(known.len() >= 100, "{}", known.len());
}

/// The status of a PUT; nothing if the process went away before it answered.
async fn try_put(admin: std::net::SocketAddr, path: &str, body: String) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(admin).await.ok()?;
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_set_aside_and_said_so() {
    for nonsense in [
        "{\"holdline_state\": 1, \"backends\": {\"a\": {\"url\"",
        "",
        "\0\0\0",
        "{\"holdline_state\": 9, \"backends\": {}}",
    ] {
        let kept = Kept::new("");
        std::fs::write(kept.file(), nonsense).unwrap();
        let mut proxy = kept.start();
        proxy.expects_error("the state file makes no sense and was set aside; workers must register again");
        let said =
            &proxy.logged("the state file makes no sense and was set aside; workers must register again", 1).await[0];
        assert_eq!(said["file"], kept.file().to_str().unwrap());
        assert_eq!(said["aside"], kept.aside().to_str().unwrap());
        assert_eq!(std::fs::read_to_string(kept.aside()).unwrap(), nonsense);
        proxy.register("a", "127.0.0.1:7001").await;
        kill(proxy).await;
        assert_eq!(ids(&kept.start()).await, ["a"]);
    }
}

#[tokio::test]
async fn what_no_longer_fits_the_configuration_is_named_and_the_file_kept() {
    let mut kept = Kept::new("[[pools]]\nname = \"default\"\n[[pools]]\nname = \"farm\"\n");
    let proxy = kept.start();
    proxy.register("stays", "127.0.0.1:7001").await;
    proxy.register_as("lost", json!({"url": "ws://127.0.0.1:7002", "pool": "farm"})).await;
    proxy.register("fixed", "127.0.0.1:7003").await;
    kill(proxy).await;
    let before = std::fs::read_to_string(kept.file()).unwrap();
    kept.more =
        "[[pools]]\nname = \"default\"\n[[pools.backends]]\nid = \"fixed\"\nurl = \"ws://127.0.0.1:7009\"\n".into();
    let proxy = kept.start();
    assert_eq!(ids(&proxy).await, ["fixed", "stays"]);
    let refused = proxy.logged("a backend of the state file was not restored", 2).await;
    let refused: Vec<&Value> = refused.iter().map(|record| &record["backend"]).collect();
    assert_eq!(refused, ["fixed", "lost"]);
    assert_eq!(proxy.get("/v1/backends/fixed").await["url"], "ws://127.0.0.1:7009");
    assert_eq!(std::fs::read_to_string(kept.aside()).unwrap(), before);
    let now: Value = serde_json::from_slice(&std::fs::read(kept.file()).unwrap()).unwrap();
    assert_eq!(now["backends"].as_object().unwrap().len(), 1, "what the configuration says is not kept a second time");
}

#[tokio::test]
async fn a_worker_that_restarted_as_well_gets_its_id_back_and_a_live_one_keeps_it() {
    let kept = Kept::new("");
    let proxy = kept.start();
    let worker = StepWorker::start().await;
    let said = |instance: &str| json!({"url": format!("ws://{}", worker.address), "instance": instance, "lease": "1h"});
    proxy.register_as("w", said("first")).await;
    kill(proxy).await;
    let proxy = kept.start();
    proxy.register_as("w", said("second")).await;
    let refused = proxy.api("PUT", "/v1/backends/w", Some(said("third"))).await.expect(409).json();
    assert_eq!(refused["type"], "urn:holdline:problem:instance-conflict");
    kill(proxy).await;
    let proxy = kept.start();
    proxy.api("PUT", "/v1/backends/w/lease", Some(json!({}))).await.expect(200);
    proxy.api("PUT", "/v1/backends/w", Some(said("third"))).await.expect(409);
}

#[tokio::test]
async fn a_disk_that_fails_is_an_answer_that_fails_and_what_was_said_is_in_force() {
    let kept = Kept::new("");
    let inner = kept.directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let file = inner.join("backends.json");
    let proxy = Proxy::start(&format!("[admin]\nstate_file = {:?}\n", file.to_str().unwrap()));
    std::fs::rename(&inner, kept.directory.path().join("away")).unwrap();
    let said = json!({"url": "ws://127.0.0.1:7001"});
    let refused = proxy.api("PUT", "/v1/backends/a", Some(said.clone())).await.expect(507).json();
    assert_eq!(refused["type"], "urn:holdline:problem:not-kept");
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("in force") && detail.contains("admin.state_file was not written: No such file"),
        "{detail}"
    );
    proxy.logged("the state file can't be written; what is registered now would not survive a restart", 1).await;
    assert_eq!(ids(&proxy).await, ["a"]);
    proxy.api("PUT", "/v1/backends/a", Some(said)).await.expect(200);
    proxy.api("PUT", "/v1/backends/a/state", Some(json!({"state": "maint"}))).await.expect(507);
    std::fs::create_dir(&inner).unwrap();
    proxy.logged("the state file is written again", 1).await;
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("127.0.0.1:7001") && kept.contains("maint"), "{kept}");
}

#[tokio::test]
async fn registrations_are_bounded_and_an_operators_maintenance_survives_as_many_as_there_may_be() {
    let kept = Kept::new("registry_bytes_max = \"1MiB\"\n");
    let proxy = kept.start();
    let mut registered = 0;
    let refused = loop {
        let keys: Vec<String> = (0..300).map(|key| format!("backend-{registered}-key-{key}")).collect();
        let said = json!({"url": format!("ws://127.0.0.1:7001/{registered}"), "serves": keys});
        let reply = proxy.api("PUT", &format!("/v1/backends/b{registered}"), Some(said)).await;
        if reply.status != 201 {
            break reply.expect(507).json();
        }
        registered += 1;
        assert!(registered < 100, "there is no bound");
    };
    assert_eq!(refused["type"], "urn:holdline:problem:registry-full");
    assert!(registered > 5, "{registered}");
    let held = proxy.metrics().await.sum("memory_bytes", &[("kind", "backends")]);
    assert!(held > 900_000.0 && held <= 1_048_576.0, "{held}");
    proxy.api("PUT", "/v1/backends/b0/state", Some(json!({"state": "maint"}))).await.expect(200);
    kill(proxy).await;
    let proxy = kept.start();
    assert_eq!(ids(&proxy).await.len(), registered);
    assert_eq!(proxy.get("/v1/backends/b0").await["state"], "maint");
    let mut seen = 0;
    let mut cursor = String::new();
    loop {
        let page = proxy.get(&format!("/v1/backends?limit=2{cursor}")).await;
        seen += page["items"].as_array().unwrap().len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, registered);
}

/// What a process says that is started with this state file, and how it ends.
fn refused_start(kept: &Kept) -> String {
    let config = kept.directory.path().join("second.toml");
    std::fs::write(&config, kept.config()).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_holdline"))
        .env("HOLDLINE_SERVER__LISTEN", r#"["127.0.0.1:0"]"#)
        .env("HOLDLINE_ADMIN__LISTEN", "127.0.0.1:0")
        .args(["serve", "-c"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn two_processes_do_not_share_a_state_file() {
    let kept = Kept::new("");
    let first = kept.start();
    let said = refused_start(&kept);
    assert!(said.contains("admin.state_file") && said.contains("another process has it"), "{said}");
    first.register("a", "127.0.0.1:7001").await;
    kill(first).await;
    assert_eq!(ids(&kept.start()).await, ["a"], "the lock goes with its process");
}

#[test]
fn a_pipe_is_no_state_file() {
    let kept = Kept::new("");
    assert!(std::process::Command::new("mkfifo").arg(kept.file()).status().unwrap().success());
    let said = refused_start(&kept);
    assert!(said.contains("admin.state_file") && said.contains("not a regular file"), "{said}");
}

#[test]
fn a_state_file_that_cannot_be_is_a_reason_not_to_start() {
    let kept = Kept::new("");
    std::fs::create_dir(kept.file()).unwrap();
    let said = refused_start(&kept);
    assert!(said.contains("admin.state_file") && said.contains(kept.file().to_str().unwrap()), "{said}");
}
