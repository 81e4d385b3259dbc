//! What one pipe costs beside many, and what many pipes wait for because of one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::tls::{TlsFiles, Tunnel, believing, params, signed_by_itself};
use crate::harness::wire::PING;
use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, within};
use crate::measure::{alone, percentiles};

async fn post(proxy: &Proxy, path: &str, body: Value) -> Value {
    proxy.api("POST", path, Some(body)).await.expect(200).json()
}

#[tokio::test]
async fn st_15_a_client_that_takes_nothing_is_counted_and_delays_nobody() {
    let _alone = alone();
    let proxy = Proxy::start("[replay]\nwindow = \"64KiB\"\nstall_max = \"45s\"\n");
    let worker = DemoWorker::start("w", &[]);
    proxy.register("w", worker.address).await;
    let stuck = Wire::connect(proxy.public, "/ws/stuck/echo", &[]).await;
    let id = proxy.pipes().await[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/pipes/{id}/messages");
    let words = json!({ "text": "x".repeat(48 << 10) });
    // the kernel takes some megabytes of it, and then the lane is full
    let told = within("a full lane", async {
        loop {
            let told = post(&proxy, &path, words.clone()).await;
            if told["reached"] == 0 {
                return told;
            }
        }
    })
    .await;
    assert_eq!(told["not_reached"]["full"], 1, "{told}");
    let mut others = Vec::new();
    for number in 0..20 {
        others.push(Client::connect(proxy.public, &format!("/ws/{number}/echo")).await);
    }
    let began = Instant::now();
    let told = post(&proxy, "/v1/broadcast", json!({ "text": "now" })).await;
    let took = began.elapsed();
    assert_eq!((&told["matched"], &told["reached"], &told["not_reached"]["full"]), (&json!(21), &json!(20), &json!(1)));
    assert!(took < Duration::from_secs(2), "{took:?}");
    for client in &mut others {
        assert_eq!(client.hear().await.text(), "now");
    }
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn st_02_one_stuck_peer_among_a_thousand_delays_nobodys_ping() {
    const PEERS: usize = 1_000;
    const INTERVAL: Duration = Duration::from_secs(2);
    let _alone = alone();
    let proxy = Proxy::start("[heartbeat]\nclient_interval = \"2s\"\nclient_timeout = \"60s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (stuck, mut flood) = tokio::join!(Wire::connect(proxy.public, "/ws/stuck", &[]), worker.accept());
    // far more than the stuck peer's socket takes
    let flooding = tokio::spawn(async move {
        let line = "x".repeat(64 << 10);
        loop {
            let frame = flood.encode(0x81, line.as_bytes());
            if flood.send_raw(&frame).await.is_err() {
                return;
            }
        }
    });
    let mut waits = Vec::new();
    let mut wires = Vec::new();
    for _ in 1..PEERS {
        let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        let opened = Instant::now();
        wires.push(wire);
        waits.push(tokio::spawn(async move {
            let ping = client.frame().await.unwrap();
            assert_eq!(ping.opcode, PING);
            opened.elapsed()
        }));
    }
    let mut times = Vec::new();
    for wait in waits {
        times.push(wait.await.unwrap());
    }
    let [half, last] = percentiles(&mut times, [50, 99]);
    println!("ST-02: the first ping after {half:?} (p50), {last:?} (p99), due after {INTERVAL:?}");
    assert!(half < INTERVAL + Duration::from_millis(250), "{half:?}");
    flooding.abort();
    drop(stuck);
}

#[tokio::test]
async fn a_pipe_that_waits_for_tokens_uses_no_cpu_to_speak_of() {
    let _alone = alone();
    let proxy = Proxy::start("[limits]\npipe_bytes = \"32KiB/s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut flooding = Vec::new();
    for n in 0..20 {
        let (mut client, mut wire) = {
            let path = format!("/ws/{n}");
            tokio::join!(Wire::connect(proxy.public, &path, &[]), worker.accept())
        };
        flooding.push(tokio::spawn(async move {
            let frame = client.encode(0x82, &[7; 8 << 10]);
            for _ in 0..12 {
                client.send_raw(&frame).await.unwrap();
            }
            client
        }));
        flooding.push(tokio::spawn(async move {
            for _ in 0..12 {
                assert!(matches!(wire.hear().await, Said::Binary(_)));
            }
            wire
        }));
    }
    let (began, cpu) = (Instant::now(), proxy.cpu_time());
    for task in flooding {
        task.await.unwrap();
    }
    let (took, used) = (began.elapsed(), proxy.cpu_time() - cpu);
    println!("20 pipes at 32 KiB/s used {used:?} in {took:?}");
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert!(used < took / 4, "{used:?} of {took:?}");
}

#[tokio::test]
async fn an_idle_pipe_over_tls_costs_little_more_than_one_without() {
    const PIPES: u64 = 300;
    let _alone = alone();
    let files = TlsFiles::new();
    let own = files.pair("own", &signed_by_itself(&params(&["example.test"])));
    let proxy = Proxy::start(&format!("[server]\ntls.listen = [\"127.0.0.1:0\"]\ntls.certificates = [{own}]\n"));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let tunnel = Tunnel::to(proxy.tls, "example.test", believing(None)).await;
    let mut each_kib = Vec::new();
    for address in [proxy.public, tunnel.address] {
        let warm = tokio::join!(Wire::connect(address, "/ws", &[]), worker.accept());
        let before = proxy.memory_kib("VmRSS");
        let mut pipes = vec![warm];
        for _ in 0..PIPES {
            pipes.push(tokio::join!(Wire::connect(address, "/ws", &[]), worker.accept()));
        }
        each_kib.push((proxy.memory_kib("VmRSS") - before) as f64 / PIPES as f64);
        for (client, wire) in &mut pipes {
            client.text("one message").await;
            assert_eq!(wire.hear().await.text(), "one message");
        }
    }
    println!("resident memory of an idle pipe, without TLS and with it, in KiB: {each_kib:.1?}");
    assert!(each_kib[1] < 24.0, "{each_kib:?}");
}
