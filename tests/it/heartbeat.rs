//! The heartbeat of the client leg.

use std::time::{Duration, Instant};

use crate::harness::wire::{PING, PONG};
use crate::harness::{Proxy, Said, StepWorker, Wire};

#[tokio::test]
async fn st_01_a_client_is_pinged_and_dead_only_after_the_timeout_since_the_ping() {
    let proxy = Proxy::start("[heartbeat]\nclient_interval = \"300ms\"\nclient_timeout = \"5s\"\n");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.pongs = false;
    // three intervals without a pong, and no verdict yet
    assert!(client.is_quiet_for(Duration::from_millis(1_000)).await);
    assert!(client.pings.len() >= 2, "{:?}", client.pings);
    client.text("alive").await;
    let alive = Instant::now();
    assert_eq!(wire.hear().await.text(), "alive", "any byte is life");
    assert_eq!(client.hear().await, Said::Gone);
    assert!(alive.elapsed() >= Duration::from_millis(4_990), "{:?}", alive.elapsed());
    assert!(matches!(wire.hear().await, Said::Close(1001, _)), "its worker hears of it");
}

#[tokio::test]
async fn a_ping_of_either_peer_is_answered_by_the_proxy_and_not_passed_on() {
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    for (asking, other) in [(&mut client, &mut wire)] {
        asking.frame_out(true, PING, b"who is there").await;
        let pong = asking.frame().await.unwrap();
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"who is there"[..]));
        other.frame_out(true, PING, b"and there").await;
        let pong = other.frame().await.unwrap();
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"and there"[..]));
    }
}
