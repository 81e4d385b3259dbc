//! A hand-over that goes wrong: at each step the pipes are with one process, and with one alone.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::between::{End, Meeting, pass};
use crate::harness::{KEYED, Proxy, Said, StepWorker, Wire, eventually};

/// A proxy that other processes may take over from, with one pipe.
struct Scene {
    proxy: Proxy,
    _worker: StepWorker,
    client: Wire,
    wire: Wire,
    home: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(KEYED).await
    }

    async fn with(routes: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("upgrade.sock");
        let proxy = Proxy::start(&format!("[upgrade]\nsocket = {socket:?}\nready_timeout = \"1h\"\n{routes}"));
        let worker = StepWorker::start().await;
        proxy.register("w", worker.address).await;
        let (client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), worker.accept());
        Self { proxy, _worker: worker, client, wire, home }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("upgrade.sock")
    }

    /// A process that comes and says its hello.
    async fn heir(&self) -> End {
        let heir = End::connect(&self.socket());
        let hello = heir.hear_a("hello").await;
        heir.tell(hello.word).await;
        heir
    }

    /// Both ends hear of each other.
    async fn converses(&mut self) {
        self.client.text("up").await;
        assert_eq!(self.wire.hear().await.text(), "up");
        self.wire.text("down").await;
        assert_eq!(self.client.hear().await.text(), "down");
    }

    async fn failed(&self) -> Value {
        eventually("the upgrade has failed", async || {
            let report = self.proxy.get("/v1/upgrade").await;
            (report["phase"] == "failed").then_some(report)
        })
        .await
    }
}

/// The conversation up to where the new process could serve.
const BEFORE: [&str; 2] = ["estate", "state"];

#[tokio::test]
async fn a_new_process_that_dies_at_any_step_before_the_commit_leaves_the_pipe_where_it_was() {
    for step in ["hello", "estate", "state", "ready", "batch"] {
        let mut scene = Scene::new().await;
        let heir = if step == "hello" { End::connect(&scene.socket()) } else { scene.heir().await };
        for word in BEFORE.into_iter().take_while(|_| step != "hello" && step != "estate") {
            heir.hear_a(word).await;
        }
        if step == "ready" || step == "batch" {
            heir.tell(json!({"say": "ready"})).await;
        }
        if step == "batch" {
            let batch = heir.hear_a("batch").await;
            assert_eq!((&batch.word["pipes"], batch.descriptors.len()), (&json!(1), 3), "{}", batch.word);
            scene.client.text("while it stood still").await;
            assert!(scene.wire.is_quiet_for(Duration::from_millis(50)).await, "it stands still");
        }
        drop(heir);
        let report = scene.failed().await;
        assert_eq!(report["moved"], 0, "{step}: {report}");
        if step == "batch" {
            assert_eq!(scene.wire.hear().await.text(), "while it stood still");
        }
        scene.converses().await;
        let report = scene.proxy.upgrade().await;
        assert_eq!(report["moved"], 1, "{step}: {report}");
        scene.converses().await;
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_reason_before_anything_stands_still() {
    let mut scene = Scene::new().await;
    for (key, value, reason) in [
        ("protocol", json!(99), "speaks form 99 of the hand-over"),
        ("snapshot_forms_read", json!([1, 2]), "reads no pipes in form"),
    ] {
        let heir = End::connect(&scene.socket());
        let mut hello = heir.hear_a("hello").await.word;
        hello[key] = value;
        heir.tell(hello).await;
        let refused = heir.hear_a("refused").await.word;
        assert!(refused["reason"].as_str().unwrap().contains(reason), "{refused}");
        assert!(scene.failed().await["reason"].as_str().unwrap().contains(reason));
        scene.converses().await;
    }
    let heir = scene.heir().await;
    let other = End::connect(&scene.socket());
    let reply = scene.proxy.api("POST", "/v1/upgrade", Some(json!({}))).await;
    assert_eq!(reply.status, 409, "one at a time: {}", reply.text());
    heir.tell(json!({"say": "refused", "reason": "a full table"})).await;
    let fits = |event: &Value| event["reason"].as_str().is_some_and(|reason| reason.contains("a full table"));
    scene.proxy.event(0, "its reason", fits).await;
    // The one that came meanwhile has its turn now.
    other.hear_a("hello").await;
    drop((heir, other));
    scene.converses().await;
}

#[tokio::test]
async fn a_process_without_room_for_the_descriptors_is_not_given_them() {
    let mut scene = Scene::new().await;
    let limited = format!("ulimit -n 60; exec {} serve -c $1 --take-over $2", env!("CARGO_BIN_EXE_holdline"));
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &limited, "sh"]).arg(scene.proxy.config_file()).arg(scene.socket());
    let ended = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("descriptors are needed and 60 may be open"), "{said}");
    assert!(scene.failed().await["reason"].as_str().unwrap().contains("descriptors are needed"));
    scene.converses().await;
}

/// The old process and a new one, and the test between them: the new one has taken a batch, which the old one has not heard.
/// The batch was on its way for so long.
async fn between(proxy: &Proxy, home: &TempDir, on_the_way: Duration) -> (End, End, Child) {
    let path = home.path().join("between.sock");
    let meeting = Meeting::at(&path);
    let new = proxy.comer(&path);
    let (to_new, to_old) = (meeting.comes().await, End::connect(&home.path().join("upgrade.sock")));
    pass(&to_old, &to_new, "hello").await;
    pass(&to_new, &to_old, "hello").await;
    for word in BEFORE {
        pass(&to_old, &to_new, word).await;
    }
    pass(&to_new, &to_old, "ready").await;
    let batch = to_old.hear_a("batch").await;
    tokio::time::sleep(on_the_way).await;
    to_new.say(&batch).await;
    let taken = to_new.hear_a("taken").await.word;
    assert_eq!(taken["refused"], json!([]), "{taken}");
    (to_old, to_new, new)
}

#[tokio::test]
async fn a_batch_that_was_taken_is_the_new_ones_if_the_old_one_is_killed_before_the_commit() {
    let mut scene = Scene::new().await;
    let (to_old, to_new, new) = between(&scene.proxy, &scene.home, Duration::ZERO).await;
    scene.client.text("while neither had it").await;
    scene.proxy.signal(Signal::KILL);
    scene.proxy.exited().await;
    drop((to_old, to_new));
    assert_eq!(scene.wire.hear().await.text(), "while neither had it");
    scene.converses().await;
    scene.proxy.keeps(new);
    let report = eventually("the new one serves", async || {
        let report = scene.proxy.get("/v1/upgrade").await;
        (report["phase"] == "taken").then_some(report)
    })
    .await;
    assert_eq!(report["moved"], 1, "{report}");
}

#[tokio::test]
async fn a_batch_that_was_taken_is_the_old_ones_if_the_conversation_alone_ends_before_the_commit() {
    let mut scene = Scene::new().await;
    let (to_old, to_new, mut new) = between(&scene.proxy, &scene.home, Duration::ZERO).await;
    scene.client.text("while neither had it").await;
    drop((to_old, to_new));
    scene.failed().await;
    let status = eventually("the new one gives up", async || new.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(scene.wire.hear().await.text(), "while neither had it");
    scene.converses().await;
}

#[tokio::test]
async fn the_time_that_the_way_to_another_process_takes_counts_for_a_client_that_is_away() {
    const ON_THE_WAY: Duration = Duration::from_millis(1500);
    let route = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"r\"\npath = \"/ws/{client}/control\"\npool = \"default\"\nclient_id = \"{client}\"\n";
    let Scene { mut proxy, _worker, client, wire: _wire, home } = Scene::with(route).await;
    client.reset();
    proxy.pipe_that("it is away", |pipe| pipe["state"] == "client_detached").await;
    let (to_old, to_new, new) = between(&proxy, &home, ON_THE_WAY).await;
    to_old.tell(json!({"say": "taken", "number": 1, "refused": []})).await;
    pass(&to_old, &to_new, "commit").await;
    pass(&to_new, &to_old, "started").await;
    pass(&to_old, &to_new, "done").await;
    pass(&to_new, &to_old, "serving").await;
    proxy.keeps(new);
    let _client = Wire::connect(proxy.public, "/ws/s1/control", &[]).await;
    let back = proxy.event_of(0, "pipe.client_attached").await;
    assert!(back["away_ms"].as_u64().unwrap() >= 1500, "{back}");
}

#[tokio::test]
async fn a_stop_gives_up_an_upgrade_that_has_touched_nothing() {
    let mut scene = Scene::new().await;
    let heir = scene.heir().await;
    for word in BEFORE {
        heir.hear_a(word).await;
    }
    scene.proxy.signal(Signal::TERM);
    assert!(heir.hear_a("refused").await.word["reason"].as_str().unwrap().contains("told to stop"));
    assert!(matches!(scene.client.hear().await, Said::Close(1001, _)));
    scene.client.close(1001, "").await;
    assert!(scene.proxy.exited().await.success());
}
