//! Looking on at a pipe: only where it is allowed and by whom, what is seen, and that the pipe waits for none of it.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::metrics::Metrics;
use crate::harness::{Client, DemoWorker, Proxy, Reply, ask, eventually, within};

/// A proxy whose operators may look on, with one worker.
struct Tapped {
    proxy: Proxy,
    _worker: DemoWorker,
    _tokens: TempDir,
}

impl Tapped {
    fn start() -> Self {
        let (worker, files) = (DemoWorker::start("w", &[]), tempfile::tempdir().unwrap());
        let tokens = files.path().join("tokens");
        let line = |role: &str| {
            let digest: String = Sha256::digest(role.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{role} {digest} {role}-1\n")
        };
        std::fs::write(&tokens, ["viewer", "operator"].map(line).concat()).unwrap();
        let proxy = Proxy::start(&config(worker.address, tokens.to_str().unwrap()));
        Self { proxy, _worker: worker, _tokens: files }
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> Reply {
        let token = format!("Bearer {token}");
        let headers = [("authorization", &*token), ("content-type", "application/json")];
        ask(self.proxy.admin, method, path, &headers, if method == "GET" { String::new() } else { body.to_string() })
            .await
    }

    /// The id of the only pipe.
    async fn pipe(&self) -> String {
        let found = eventually("a pipe", async || {
            let page = self.ask("viewer", "GET", "/v1/pipes", Value::Null).await.expect(200).json();
            page["items"][0]["id"].as_str().map(str::to_owned)
        });
        found.await
    }

    /// `holdline ctl tap`, which looks on already.
    async fn looker(&self, pipe: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
        command.args(["ctl", "--json", "tap", pipe, "--bytes", "8", "--for", "1h"]).env("HOLDLINE_TOKEN", "operator");
        command.env("HOLDLINE_ADMIN", self.proxy.admin.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut looker = command.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(looker.stdout.take().unwrap()).lines();
        let first = line(&mut lines).await;
        assert_eq!(
            (&first["pipe"], &first["bytes_max"], &first["for_ms"]),
            (&json!(pipe), &json!(8), &json!(3_600_000))
        );
        (looker, lines)
    }
}

fn config(worker: SocketAddr, tokens: &str) -> String {
    format!(
        "[admin]\ntokens_file = {tokens:?}\ntap = true\ntap_bytes_max = \"64KiB\"\ntap_time_max = \"1h\"\n\
         [limits]\nkey_connections = 0\nkey_rate = 0\n[[pools]]\nname = \"default\"\n[[pools.backends]]\nid = \"w\"\n\
         url = \"ws://{worker}\"\n[[routes]]\npool = \"default\"\n"
    )
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = within("a line of the tap", lines.next_line()).await.unwrap().unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn an_operator_sees_how_messages_begin_both_ways_until_the_pipe_ends_and_leaves_a_trace() {
    let tapped = Tapped::start();
    let mut client = Client::connect(tapped.proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    let pipe = tapped.pipe().await;
    let (mut looker, mut lines) = tapped.looker(&pipe).await;
    assert_eq!(client.exchange("hi").await, "hi");
    assert_eq!(client.exchange("Grüße an alle").await, "Grüße an alle");
    for (lane, seq, payload_bytes, said, cut) in [
        ("up", 2, 2, "hi", false),
        ("down", 2, 2, "hi", false),
        ("up", 3, 15, "Grüße", true),
        ("down", 3, 15, "Grüße", true),
    ] {
        let told = line(&mut lines).await;
        let fields = (&told["lane"], &told["seq"], &told["payload_bytes"], &told["kind"]);
        assert_eq!(fields, (&json!(lane), &json!(seq), &json!(payload_bytes), &json!("text")), "{told}");
        assert!(told["text"].as_str().unwrap().starts_with(said) && (told["cut"] == true) == cut, "{told}");
    }
    let again = tapped.ask("operator", "POST", &format!("/v1/pipes/{pipe}/tap"), json!({})).await.expect(409);
    assert!(again.text().contains("another operator"), "{}", again.text());
    client.close(1000, "").await;
    assert_eq!(line(&mut lines).await, json!({"end": "pipe"}));
    assert!(within("the end of the command", looker.wait()).await.unwrap().success());
    let events = tapped.ask("viewer", "GET", "/v1/events?type=pipe.tapped", Value::Null).await.expect(200).json();
    assert_eq!(
        (&events["items"][0]["pipe"], &events["items"][0]["by"]),
        (&json!(pipe), &json!("operator-1")),
        "{events}"
    );
    let audited = tapped.proxy.logged("admin write", 1).await;
    assert!(audited.iter().any(|record| record["who"] == "operator-1" && record["status"] == 200), "{audited:?}");
    for record in tapped.proxy.log() {
        assert!(!record.contains("Grüße"), "a payload in the log: {record}");
    }
}

#[tokio::test]
async fn only_operators_look_on_and_only_where_it_is_allowed() {
    let tapped = Tapped::start();
    let mut client = Client::connect(tapped.proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("hi").await, "hi");
    let path = format!("/v1/pipes/{}/tap", tapped.pipe().await);
    tapped.ask("viewer", "POST", &path, json!({})).await.expect(403);
    tapped.ask("nonsense", "POST", &path, json!({})).await.expect(401);
    for body in [json!({"bytes": 65_537}), json!({"for": "61m"}), json!({"for": "soon"})] {
        tapped.ask("operator", "POST", &path, body).await.expect(422);
    }
    tapped.ask("operator", "POST", "/v1/pipes/AAAAAAAAAAAAAAAAAAAAAA/tap", json!({})).await.expect(404);

    let proxy = Proxy::start("");
    let refused = proxy.api("POST", "/v1/pipes/AAAAAAAAAAAAAAAAAAAAAA/tap", Some(json!({}))).await.expect(403);
    assert!(refused.text().contains("tap-forbidden") && refused.text().contains("admin.tap"), "{}", refused.text());
}

#[tokio::test]
async fn who_looks_on_and_does_not_read_slows_no_pipe_and_is_told_how_much_was_missed() {
    const ROUNDS: u64 = 300;
    let tapped = Tapped::start();
    let mut client = Client::connect(tapped.proxy.public, "/ws/s1/echo").await;
    assert_eq!(client.exchange("before").await, "before");
    let path = format!("/v1/pipes/{}/tap", tapped.pipe().await);
    let mut looker = TcpStream::connect(tapped.proxy.admin).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer operator\r\nContent-Type: application/json\r\n\
         Content-Length: 12\r\n\r\n{{\"for\":\"1h\"}}"
    );
    looker.write_all(request.as_bytes()).await.unwrap();
    let mut begun = vec![0; 16];
    within("the head of the answer", looker.read_exact(&mut begun)).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));
    // far more than sockets and the queue hold; nothing of it is read
    let payload = "x".repeat(64 * 1024);
    for _ in 0..ROUNDS {
        assert_eq!(client.exchange(&payload).await.len(), payload.len());
    }
    client.close(1000, "").await;
    let mut rest = Vec::new();
    let ended = async {
        let mut buffer = vec![0; 1 << 20];
        while !rest.ends_with(b"0\r\n\r\n") {
            let read = looker.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the answer broke off");
            rest.extend_from_slice(&buffer[..read]);
        }
    };
    within("the end of the answer", ended).await;
    let text = String::from_utf8(rest).unwrap();
    let told = text.matches("\"payload_bytes\":65536").count() as u64;
    let missed: u64 =
        text.split("{\"missed\":").skip(1).map(|rest| rest.split('}').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!(missed > 0 && told > 0, "{told} told, {missed} missed");
    assert_eq!(told + missed, 2 * ROUNDS, "each message is told or counted");
    let metrics = Metrics::parse(&tapped.ask("viewer", "GET", "/metrics", Value::Null).await.expect(200).text());
    assert_eq!(metrics.sum("tap_messages_total", &[("result", "missed")]), missed as f64);
}
