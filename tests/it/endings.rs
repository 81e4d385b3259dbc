//! What ends a pipe, and with which words.

use crate::harness::wire::CLOSE;
use crate::harness::{KEYED, Proxy, Said, StepWorker, Wire};

#[tokio::test]
async fn ib_07_codes_that_end_reach_the_client_with_their_reason_and_are_nobodys_failure() {
    const CODES: [u16; 12] = [4004, 4000, 4999, 3000, 1000, 1002, 1003, 1007, 1008, 1009, 1010, 4404];
    let proxy = Proxy::start("");
    let [worker, spare] = [StepWorker::start().await, StepWorker::start().await];
    proxy.register("w", worker.address).await;
    for code in CODES {
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        if code == CODES[0] {
            proxy.api("PUT", "/v1/backends/w/state", Some(serde_json::json!({ "state": "ready" }))).await.expect(200);
        }
        let reason = format!("because of {code} — ünïcode");
        wire.text("last words").await;
        wire.close(code, &reason).await;
        assert_eq!(client.hear().await.text(), "last words", "{code}");
        assert_eq!(client.hear().await, Said::Close(code, reason.clone()));
        client.close(code, &reason).await;
        assert!(matches!(wire.hear().await, Said::Close(answered, _) if answered == code));
    }
    proxy.emptied().await;
    proxy.register("spare", spare.address).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("interruptions_total", &[]), 0.0);
    assert_eq!(metrics.sum("backend_ejections_total", &[]), 0.0);
    assert_eq!(metrics.sum("backend_connects_total", &[]), CODES.len() as f64);
    assert_eq!(metrics.sum("pipe_closes_total", &[("side", "backend")]), CODES.len() as f64);
    assert_eq!(proxy.get("/v1/backends/w").await["eligible"], true);
}

#[tokio::test]
async fn a_close_without_a_code_is_the_workers_last_word_and_1006_is_none() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.text("wrong password").await;
    assert_eq!(wire.hear().await.text(), "wrong password");
    wire.frame_out(true, CLOSE, b"").await;
    assert_eq!(client.hear().await, Said::Close(1005, String::new()), "as the worker sent it");
    assert_eq!(wire.hear().await, Said::Close(1005, String::new()), "and answered in the same way");
    client.frame_out(true, CLOSE, b"").await;
    assert_eq!(client.hear().await, Said::Gone);
    proxy.emptied().await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("interruptions_total", &[]), 0.0);
    assert_eq!(metrics.sum("backend_connects_total", &[]), 1.0, "it was not tried again");
    assert_eq!(metrics.sum("pipe_closes_total", &[("side", "backend"), ("code", "1005")]), 1.0);
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    wire.fin().await;
    let mut wire = worker.accept().await;
    wire.text("still here").await;
    assert_eq!(client.hear().await.text(), "still here");
}

#[tokio::test]
async fn a_route_may_have_a_close_without_a_code_interrupt() {
    let proxy = Proxy::start(&format!("{KEYED}interrupt_codes = [1005]\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws/s1/control", &[]), worker.accept());
    wire.frame_out(true, CLOSE, b"").await;
    let mut wire = worker.accept().await;
    wire.text("still here").await;
    assert_eq!(client.hear().await.text(), "still here");
}

#[tokio::test]
async fn iw_14_the_clients_close_code_and_reason_reach_the_worker() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    for code in [1000, 1001, 1003, 1007, 1008, 1011, 3000, 4321] {
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        client.text("last words").await;
        client.close(code, "tschüß").await;
        assert_eq!(wire.hear().await.text(), "last words", "{code}");
        assert_eq!(wire.hear().await, Said::Close(code, "tschüß".into()));
        wire.close(code, "tschüß").await;
        assert!(matches!(client.hear().await, Said::Close(answered, _) if answered == code));
        assert_eq!(client.hear().await, Said::Gone);
    }
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.frame_out(true, CLOSE, b"").await;
    assert_eq!(wire.hear().await, Said::Close(1005, String::new()), "no code stays no code");
    wire.frame_out(true, CLOSE, b"").await;
    assert_eq!(client.hear().await, Said::Close(1005, String::new()));
    proxy.emptied().await;
}

#[tokio::test]
async fn iw_14_a_client_that_vanishes_is_1001_to_the_worker() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.text("said before").await;
    assert_eq!(wire.hear().await.text(), "said before");
    client.reset();
    assert!(matches!(wire.hear().await, Said::Close(1001, _)));
    proxy.emptied().await;
}
