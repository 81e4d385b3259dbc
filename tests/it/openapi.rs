//! The document of the admin API against the process that gives it out: who may do what, and which answers there are.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::harness::{Client, DemoWorker, Proxy, Reply, ask};

/// Operations that every caller may use.
const OPEN: [&str; 7] = ["/", "/health", "/health/live", "/health/ready", "/livez", "/metrics", "/readyz"];

/// Documented answers that this walk does not get, and why.
const NOT_SEEN: [(&str, u16, &str); 24] = [
    ("listBackends", 503, "768 requests would have to wait; a unit test of the admin API lets them"),
    ("listPools", 503, "the same"),
    ("listPipes", 503, "the same"),
    ("listWorkers", 503, "the same"),
    ("readEvents", 503, "the same"),
    ("registerBackend", 507, "4096 backends would have to be registered"),
    ("putBackend", 507, "the same"),
    ("patchBackend", 507, "a disk would have to fail; a test of the state file lets one"),
    ("removeBackend", 507, "the same"),
    ("setBackendState", 507, "the same"),
    ("closePipe", 409, "the mailbox of a pipe would have to be full"),
    ("reattachPipe", 409, "the same"),
    ("patchPipe", 409, "the same"),
    ("patchPipe", 503, "a pipe would have to hang"),
    ("commit", 503, "the same"),
    ("tapPipe", 409, "another operator would have to look on; a test of the tap lets one"),
    ("tapPipe", 503, "eight others would have to look on"),
    ("broadcast", 503, "eight others would have to be under way"),
    ("drain", 409, "the process would have to be stopping"),
    ("undrain", 409, "the same"),
    ("restartWorkers", 409, "the same"),
    ("scaleWorkers", 409, "the same"),
    ("startUpgrade", 200, "a new process would have to take over; tests of that have one do it"),
    ("startUpgrade", 409, "another one would have to be under way"),
];

struct Api {
    proxy: Proxy,
    document: Value,
    seen: BTreeSet<(String, u16)>,
    _tokens: TempDir,
}

struct Described<'a> {
    id: &'a str,
    method: String,
    path: &'a str,
    about: &'a Value,
}

impl Described<'_> {
    fn role(&self) -> Option<&str> {
        self.about["x-holdline-role"].as_str()
    }

    fn statuses(&self) -> BTreeSet<u16> {
        self.about["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect()
    }
}

fn operations(document: &Value) -> Vec<Described<'_>> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, about) in methods.as_object().unwrap() {
            let id = about["operationId"].as_str().unwrap();
            all.push(Described { id, method: method.to_uppercase(), path, about });
        }
    }
    all
}

impl Api {
    async fn start(config: &str) -> Self {
        let tokens = tempfile::tempdir().unwrap();
        let line = |role: &str| {
            let digest: String =
                Sha256::digest(format!("{role}-token")).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{role} {digest}\n")
        };
        let file = tokens.path().join("tokens");
        std::fs::write(&file, ["viewer", "worker", "operator"].map(line).concat()).unwrap();
        let proxy = Proxy::start(&format!("[admin]\ntokens_file = {:?}\n{config}", file.to_str().unwrap()));
        let document = ask(proxy.admin, "GET", "/openapi.json", &[], "").await.expect(200).json();
        Self { proxy, document, seen: BTreeSet::new(), _tokens: tokens }
    }

    async fn send(&self, method: &str, path: &str, role: Option<&str>, headers: &[(&str, &str)], body: &str) -> Reply {
        let bearer = role.map(|role| format!("Bearer {role}-token"));
        let mut headers = headers.to_vec();
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        ask(self.proxy.admin, method, path, &headers, body.to_owned()).await
    }

    /// Uses an operation as `role`, and holds the answer to what is documented.
    async fn try_as(
        &mut self,
        role: Option<&str>,
        id: &str,
        target: (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let operations = operations(&self.document);
        let operation = operations.iter().find(|operation| operation.id == id).unwrap_or_else(|| panic!("{id}"));
        let (about, query) = target;
        let path = operation.path.replace("{id}", about).replace("{name}", about) + query;
        let reply = self.send(&operation.method, &path, role, headers, body).await;
        let documented = &operation.about["responses"][reply.status.to_string()];
        assert!(documented.is_object(), "{id} {path}: {} is not documented: {}", reply.status, reply.text());
        let media_type = reply.header("content-type").split(';').next().unwrap().to_owned();
        match documented["content"].as_object() {
            Some(content) => assert!(content.contains_key(&media_type), "{id} {}: {media_type}", reply.status),
            None => assert_eq!((&*media_type, reply.body.len()), ("", 0), "{id} {}", reply.status),
        }
        for header in documented["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(!reply.header(header).is_empty(), "{id} {}: {header}", reply.status);
        }
        self.seen.insert((id.to_owned(), reply.status));
        reply
    }

    async fn get(&mut self, id: &str, target: (&str, &str)) -> Reply {
        self.try_as(Some("operator"), id, target, &[], "").await
    }

    async fn write(&mut self, id: &str, about: &str, body: Value) -> Reply {
        let headers = [("content-type", "application/json")];
        self.try_as(Some("operator"), id, (about, ""), &headers, &body.to_string()).await
    }
}

#[tokio::test]
async fn px_06_every_operation_of_the_document_refuses_whoever_has_no_token_for_it() {
    let api = Api::start("tap = true\n").await;
    let (mut open, mut closed) = (BTreeSet::new(), 0);
    for operation in operations(&api.document) {
        let path = operation.path.replace("{id}", "x").replace("{name}", "x");
        let headers = [("content-type", "application/json")];
        let send = async |role: Option<&str>| api.send(&operation.method, &path, role, &headers, "").await.status;
        let Some(role) = operation.role() else {
            assert_eq!(operation.about["security"], json!([]), "{}", operation.id);
            assert!(![401, 403].contains(&send(None).await), "{}", operation.id);
            open.insert(operation.path);
            continue;
        };
        assert_eq!(operation.about["security"], json!([{ "token": [] }]), "{}", operation.id);
        assert_eq!((send(None).await, send(Some("no")).await), (401, 401), "{}", operation.id);
        for other in ["viewer", "worker", "operator"] {
            let refused = other != role && other != "operator";
            if operation.id == "startUpgrade" && !refused {
                // It would, and the next question would be for another process.
                continue;
            }
            assert_eq!(send(Some(other)).await == 403, refused, "{} by a {other}", operation.id);
        }
        closed += 1;
    }
    assert_eq!(open, OPEN.into());
    assert!(closed >= 28, "{closed}");
}

/// Asks each operation for every refusal that its place in the table makes possible.
async fn refusals(api: &mut Api, pipe: &str) {
    let document = api.document.clone();
    for operation in operations(&document) {
        let about = match operation.path.split('/').nth(2) {
            Some("pools") => "default",
            Some("pipes") => pipe,
            _ => "spare",
        };
        let fine = match operation.id {
            "putBackend" => r#"{"url":"ws://127.0.0.1:7009"}"#,
            "setBackendState" => r#"{"state":"ready"}"#,
            "patchPipe" => r#"{"labels":{}}"#,
            _ => "{}",
        };
        let body = if operation.about["requestBody"].is_object() { fine } else { "" };
        let json = ("content-type", "application/json");
        let query = operation.about["parameters"].as_array().unwrap().iter().any(|one| one["in"] == "query");
        let other = if operation.role() == Some("viewer") { "worker" } else { "viewer" };
        for status in operation.statuses() {
            let (role, target, headers, body) = match status {
                400 => (Some("operator"), (about, ""), vec![json], "{".to_owned()),
                401 => (None, (about, ""), vec![json], body.to_owned()),
                403 => (Some(other), (about, ""), vec![json], body.to_owned()),
                404 => (Some("operator"), ("%ff", ""), vec![json], body.to_owned()),
                412 => (Some("operator"), (about, ""), vec![json, ("if-match", "\"x\"")], body.to_owned()),
                413 => (Some("operator"), (about, ""), vec![json], format!("\"{}\"", "x".repeat(64 << 10))),
                415 => (Some("operator"), (about, ""), vec![("content-type", "text/plain")], "x".to_owned()),
                422 if query => (Some("operator"), (about, "?colour=red"), vec![json], body.to_owned()),
                422 => (Some("operator"), (about, ""), vec![json], r#"{"colour":"red"}"#.to_owned()),
                304 => (Some("operator"), (about, ""), vec![("if-none-match", "*")], String::new()),
                _ => continue,
            };
            let headers: &[_] = if operation.method == "GET" && status != 304 { &[] } else { &headers };
            let reply = api.try_as(role, operation.id, target, headers, &body).await;
            assert_eq!(reply.status, status, "{}: {}", operation.id, reply.text());
            if status >= 400 {
                let problem = reply.json();
                assert_eq!(
                    (&problem["status"], problem["request_id"].is_string()),
                    (&json!(status), true),
                    "{problem}"
                );
            }
        }
    }
}

async fn backends(api: &mut Api) {
    let url = json!({ "url": "ws://127.0.0.1:7001" });
    let made = api.write("registerBackend", "", url.clone()).await.expect(201);
    assert!(made.header("location").starts_with("/v1/backends/"));
    api.write("registerBackend", "", url).await.expect(409);
    let spare = json!({ "url": "ws://127.0.0.1:7002", "lease": "1h" });
    api.write("putBackend", "spare", spare.clone()).await.expect(201);
    api.write("putBackend", "spare", spare).await.expect(200);
    api.write("putBackend", "fixed", json!({ "url": "ws://127.0.0.1:7003" })).await.expect(409);
    api.write("patchBackend", "spare", json!({ "weight": 2 })).await.expect(200);
    api.write("patchBackend", "fixed", json!({ "weight": 2 })).await.expect(409);
    api.write("renewLease", "spare", json!({})).await.expect(200);
    api.write("renewLease", "fixed", json!({})).await.expect(409);
    api.write("setBackendState", "spare", json!({ "state": "maint" })).await.expect(200);
    api.write("removeBackend", "fixed", json!({})).await.expect(409);
    api.write("removeBackend", "absent", json!({})).await.expect(204);
    api.get("readBackend", ("spare", "")).await.expect(200);
    for (list, about) in [("listBackends", ""), ("listPools", ""), ("listPipes", "")] {
        api.get(list, (about, "?limit=2")).await.expect(200);
    }
    api.get("readPool", ("default", "")).await.expect(200);
    api.get("readEvents", ("", "?limit=1")).await.expect(200);
    api.get("readEvents", ("", "?after=99999")).await.expect(410);
}

/// What takes pipes: moving, draining, saying something.
async fn pipes(api: &mut Api, pipe: &str, other: &DemoWorker) {
    api.get("readPipe", (pipe, "")).await.expect(200);
    api.write("patchPipe", pipe, json!({ "labels": { "room": "a" } })).await.expect(200);
    api.write("tapPipe", pipe, json!({ "for": "1ms" })).await.expect(200);
    api.write("sendMessage", pipe, json!({ "text": "hello" })).await.expect(200);
    api.write("broadcast", "", json!({ "text": "hello" })).await.expect(200);
    api.write("commit", pipe, json!({ "attachment": 1, "seq": 0 })).await.expect(200);
    api.write("commit", pipe, json!({ "attachment": 99, "seq": 0 })).await.expect(409);
    api.write("rebalancePool", "hashed", json!({})).await.expect(409);
    api.write("rebalancePool", "default", json!({})).await.expect(200);
    let second = json!({ "url": format!("ws://{}", other.address) });
    api.write("putBackend", "second", second).await.expect(201);
    api.write("rebalancePool", "default", json!({})).await.expect(202);
    let keep = json!({ "state": "drain", "pipes": "keep" });
    api.write("setBackendState", "first", keep).await.expect(202);
    api.write("reattachPipe", pipe, json!({})).await.expect(202);
}

async fn process(api: &mut Api) {
    for id in ["dashboard", "health", "healthLive", "healthReady", "livez", "metrics", "readyz"] {
        api.try_as(None, id, ("", ""), &[], "").await.expect(200);
    }
    for id in ["stats", "readStats", "readHistory", "readInfo", "readConfig", "readLog", "readTls", "readUpgrade"] {
        api.get(id, ("", "")).await.expect(200);
    }
    api.write("validateConfig", "", json!({ "toml": "[log]\nlevel = \"loud\"\n" })).await.expect(200);
    api.write("setLog", "", json!({ "level": "debug", "for": "1h" })).await.expect(200);
    api.write("reloadConfig", "", json!({})).await.expect(200);
    let text = std::fs::read_to_string(api.proxy.config_file()).unwrap();
    api.proxy.rewrite("");
    api.write("reloadConfig", "", json!({})).await.expect(409);
    api.proxy.rewrite(&text);
    // It runs workers, which cannot go to another process.
    api.proxy.expects_error("cannot take over: the other process has ended the conversation");
    api.write("startUpgrade", "", json!({})).await.expect(500);
    api.write("drain", "", json!({})).await.expect(200);
    for id in ["health", "healthReady", "readyz"] {
        api.try_as(None, id, ("", ""), &[], "").await.expect(503);
    }
    api.write("undrain", "", json!({})).await.expect(200);
}

/// A process that is not ready is a worker as well.
async fn workers(api: &mut Api) {
    api.get("listWorkers", ("", "?group=w")).await.expect(200);
    api.get("readWorker", ("w-1", "")).await.expect(200);
    api.write("recycleWorker", "w-1", json!({})).await.expect(202);
    api.write("recycleWorker", "w-1", json!({})).await.expect(409);
    api.write("restartWorkers", "w", json!({})).await.expect(202);
    api.write("scaleWorkers", "w", json!({ "count": 0 })).await.expect(200);
}

#[tokio::test]
async fn px_06_each_operation_gives_every_answer_that_is_documented_and_no_other() {
    let config = "tap = true\n[[pools]]\nname = \"default\"\n[[pools.backends]]\nid = \"fixed\"\nurl = \"ws://127.0.0.1:1\"\nstate = \"maint\"\n\
                  [[pools]]\nname = \"hashed\"\nbalance = \"hash\"\n\
                  [[workers]]\nname = \"w\"\ncommand = [\"sh\", \"-c\", \"trap '' TERM; sleep 1000\"]\nstop_timeout = \"1h\"\n";
    let mut api = Api::start(config).await;
    let [worker, other] = ["a", "b"].map(|name| DemoWorker::start(name, &[]));
    api.write("putBackend", "first", json!({ "url": format!("ws://{}", worker.address) })).await.expect(201);
    let mut clients = Vec::new();
    for number in 0..4 {
        clients.push(Client::connect(api.proxy.public, &format!("/ws/{number}/echo")).await);
    }
    let list = api.get("listPipes", ("", "")).await.expect(200).json();
    let pipe = list["items"][0]["id"].as_str().unwrap().to_owned();
    workers(&mut api).await;
    backends(&mut api).await;
    process(&mut api).await;
    refusals(&mut api, &pipe).await;
    pipes(&mut api, &pipe, &other).await;
    // a pipe that has nowhere to go keeps its worker from going
    api.write("setBackendState", "second", json!({ "state": "drain", "pipes": "keep" })).await;
    let removed = api.write("removeBackend", "first", json!({})).await;
    if removed.status == 204 {
        // all of them had moved already
        api.write("removeBackend", "second", json!({})).await.expect(202);
    }
    let list = api.get("listPipes", ("", "")).await.expect(200).json();
    let pipe = list["items"][0]["id"].as_str().unwrap().to_owned();
    api.write("closePipe", &pipe, json!({})).await.expect(204);
    let documented: BTreeSet<_> = operations(&api.document)
        .iter()
        .flat_map(|operation| operation.statuses().into_iter().map(|status| (operation.id.to_owned(), status)))
        .collect();
    let excused: BTreeSet<_> = NOT_SEEN.map(|(id, status, _)| (id.to_owned(), status)).into();
    let missing: Vec<_> = documented.difference(&api.seen).collect();
    assert_eq!(missing, excused.iter().collect::<Vec<_>>(), "documented, and not seen");
}
