//! The admin API as its callers meet it: over a socket, with tokens, and in the log.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Proxy, ask};

#[tokio::test]
async fn each_write_leaves_an_audit_line_without_its_body() {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    let digest = |token: &str| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(&tokens, format!("worker {} farm\nviewer {} wall\n", digest("work"), digest("see"))).unwrap();
    let proxy = Proxy::start(&format!("[admin]\ntokens_file = {:?}\n", tokens.to_str().unwrap()));
    for (method, token, body) in [
        ("PUT", Some("work"), r#"{"url":"ws://127.0.0.1:7001/?password=hunter2"}"#),
        ("PUT", Some("see"), r#"{"url":"ws://127.0.0.1:7001/?password=hunter2"}"#),
        ("PUT", None, "{}"),
        ("GET", Some("see"), ""),
    ] {
        let bearer = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
        let mut headers = vec![("content-type", "application/json"), ("x-request-id", "r-1")];
        headers.extend(token.is_some().then_some(("authorization", bearer.as_str())));
        ask(proxy.admin, method, "/v1/backends/a", &headers, body).await;
    }
    // the log is read in order, so a last write that is logged says that the ones before it were
    ask(proxy.admin, "DELETE", "/v1/backends/a", &[], "").await.expect(401);
    let audit: Vec<Value> = proxy.logged("admin write", 4).await;
    let told: Vec<_> =
        audit.iter().map(|line| (line["who"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("farm", 201), ("wall", 403), ("-", 401), ("-", 401)]);
    assert_eq!((&audit[0]["route"], &audit[0]["request_id"]), (&json!("/v1/backends/{id}"), &json!("r-1")));
    assert_eq!(audit[0]["path"], "/v1/backends/a");
    assert!(audit.iter().all(|line| line["target"] == "audit"), "{audit:?}");
    let log = proxy.log().join("\n");
    assert!(!log.contains("hunter2") && !log.contains("Bearer"), "{log}");
}
