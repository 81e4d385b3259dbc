//! What a client may not pass off on a worker, or on our limits.

use tokio::io::AsyncReadExt;

use crate::harness::wire::{BINARY, TEXT};
use crate::harness::{DemoWorker, Proxy, Said, StepWorker, Wire, ask};

const BY_QUERY: &str = r#"
[[pools]]
name = "default"
[[routes]]
name = "v"
path = "/v"
key = "{query.udid}"
pool = "default"
[[routes]]
name = "rest"
path = "/{*path}"
pool = "default"
"#;

#[tokio::test]
async fn a_key_that_a_worker_may_read_in_another_way_is_400_for_pipes_and_for_plain_requests() {
    let proxy = Proxy::start(BY_QUERY);
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    for path in ["/v?udid=a&udid=V", "/v?udid=&udid=V", "/v?udid=V&%75did=a", "/v?udid=%ff", "/v?udid=V%"] {
        let refused = Wire::open(proxy.public, path, &[]).await.unwrap_err();
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        assert!(refused.text().contains("the query parameter `udid`"), "{path}: {}", refused.text());
        ask(proxy.public, "GET", path, &[], "").await.expect(400);
    }
    assert!(proxy.pipes().await.is_empty());
}

#[tokio::test]
async fn leaving_the_key_out_is_no_way_around_the_limits() {
    let proxy = Proxy::start(&format!("[limits]\nkey_connections = 2\nkey_rate = 0\n{BY_QUERY}"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut inside = Vec::new();
    for path in ["/v", "/v?udid=", "/v?udid=a", "/v?udid=a"] {
        let (client, accepted) = tokio::join!(Wire::connect(proxy.public, path, &[]), worker.accept());
        inside.push((client, accepted));
    }
    for path in ["/v", "/v?", "/v?udid=", "/v?other=1", "/v?udid=a"] {
        let refused = Wire::open(proxy.public, path, &[]).await.unwrap_err();
        assert_eq!(refused.status, 429, "{path}: {}", refused.text());
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_goes_on_unless_its_route_wants_it_checked() {
    let route = |check: bool| {
        format!(
            "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"r\"\npath = \"/{{*path}}\"\npool = \"default\"\ncheck_utf8 = {check}\n"
        )
    };
    let worker = StepWorker::start().await;
    let strict = Proxy::start(&route(true));
    strict.register("w", worker.address).await;
    let (mut client, mut accepted) = tokio::join!(Wire::connect(strict.public, "/ws", &[]), worker.accept());
    client.frame_out(false, TEXT, "ü".as_bytes().split_at(1).0).await;
    client.frame_out(true, 0, "ü".as_bytes().split_at(1).1).await;
    assert_eq!(accepted.hear().await.text(), "ü");
    client.frame_out(true, BINARY, b"\xFF").await;
    assert_eq!(accepted.hear().await, Said::Binary(vec![0xFF]));
    client.frame_out(true, TEXT, b"caf\xE9").await;
    assert_eq!(client.hear().await, Said::Close(1007, "text is not UTF-8".to_owned()));

    let lax = Proxy::start(&route(false));
    lax.register("w", worker.address).await;
    let (mut client, mut accepted) = tokio::join!(Wire::connect(lax.public, "/ws", &[]), worker.accept());
    let frame = client.encode(0x81, b"caf\xE9");
    client.send_raw(&frame).await.unwrap();
    let mut came = vec![0; frame.len()];
    accepted.stream.read_exact(&mut came).await.unwrap();
    assert_eq!(came, frame);
}

#[tokio::test]
async fn a_clients_own_mask_goes_on_and_what_we_say_ourselves_has_another() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut accepted) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    let request = b"GET /evil HTTP/1.1\r\nHost: victim\r\n\r\n";
    let mut frames = Vec::new();
    for mask in [[0; 4], [0xA5, 1, 2, 3]] {
        frames.extend_from_slice(&[0x82, 0x80 | request.len() as u8]);
        frames.extend_from_slice(&mask);
        frames.extend(request.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    client.send_raw(&frames).await.unwrap();
    let mut came = vec![0; frames.len()];
    accepted.stream.read_exact(&mut came).await.unwrap();
    assert_eq!(came, frames, "byte for byte, and read by their lengths alone");
    // The ping behind them asks what the worker has read; its key is ours.
    let mut ping = [0; 6];
    accepted.stream.read_exact(&mut ping).await.unwrap();
    assert_eq!((ping[0], ping[1] & 0x80), (0x89, 0x80));
    assert_ne!(ping[2..], [0; 4], "a random key: zero once in four thousand million runs");
}
