//! Named clients that come and vanish in quick succession, and those that are there.

use crate::harness::{Proxy, StepWorker, Wire, eventually};

fn config(limits: &str) -> String {
    format!(
        "{limits}[resume]\ngrace = \"10m\"\n[[pools]]\nname = \"default\"\n\
         [[routes]]\nname = \"ws\"\npath = \"/ws/{{client}}\"\npool = \"default\"\nclient_id = \"{{client}}\"\n"
    )
}

async fn started(limits: &str) -> Proxy {
    let proxy = Proxy::start(&config(limits));
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    tokio::spawn(async move {
        let mut served = Vec::new();
        loop {
            served.push(worker.knock_unbounded().await.upgrade().await);
        }
    });
    proxy
}

/// Opens a pipe under this name and vanishes.
async fn come_and_go(proxy: &Proxy, name: &str) {
    Wire::connect(proxy.public, &format!("/ws/{name}"), &[]).await.reset();
}

async fn lingering(proxy: &Proxy) -> usize {
    proxy.pipes().await.iter().filter(|pipe| pipe["state"] == "client_detached").count()
}

async fn until_lingering(proxy: &Proxy, count: usize) {
    eventually("so many pipes without their clients", async || (lingering(proxy).await == count).then_some(())).await;
}

#[tokio::test]
async fn pipes_whose_clients_are_away_make_room_for_clients_that_are_there() {
    const PLACES: usize = 60;
    let proxy = started(&format!("server.max_connections = {PLACES}\n")).await;
    for n in 0..PLACES {
        come_and_go(&proxy, &format!("gone-{n}")).await;
    }
    until_lingering(&proxy, PLACES).await;
    let mut back = Wire::connect(proxy.public, "/ws/gone-0", &[]).await;
    let mut others = Vec::new();
    for n in 0..PLACES / 2 {
        others.push(Wire::connect(proxy.public, &format!("/ws/new-{n}"), &[]).await);
    }
    back.close(1000, "").await;
    let closes = proxy.logged("pipe.close", PLACES / 2).await;
    assert!(closes.iter().filter(|close| close["reason"] == "its place was needed").count() >= PLACES / 2);
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("connections_total", &[("listener", "public"), ("result", "shed")]) >= (PLACES / 2) as f64);
    assert!(metrics.sum("connections_total", &[("listener", "public"), ("result", "refused")]) == 0.0);
}

#[tokio::test]
async fn an_address_has_so_many_pipes_without_clients_and_the_one_left_first_goes() {
    let proxy = started("limits.address_detached = 5\nlimits.address_rate = 0\n").await;
    for n in 0..12 {
        come_and_go(&proxy, &format!("gone-{n}")).await;
        until_lingering(&proxy, (n + 1).min(5)).await;
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("rate_limited_total", &[("route", "ws"), ("limit", "address_detached")]), 7.0);
    let last = Wire::connect(proxy.public, "/ws/gone-11", &[]).await;
    until_lingering(&proxy, 4).await;
    drop(last);
}
