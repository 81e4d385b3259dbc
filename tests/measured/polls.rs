//! What polls cost that their workers hold.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::step::Knock;
use crate::harness::{Proxy, StepWorker};
use crate::measure::{alone, calm, percent_of_a_core};

const ROUTES: &str = "[[pools]]\nname = \"default\"\n[[routes]]\nname = \"rest\"\npath = \"/{*path}\"\nwait = 0\n";

/// So many polls that their worker holds.
async fn park(proxy: &Proxy, worker: &StepWorker, count: usize) -> Vec<(TcpStream, Knock)> {
    let mut parked = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = TcpStream::connect(proxy.public).await.unwrap();
        let head = "GET /poll?camera=7 HTTP/1.1\r\nHost: cam\r\nUser-Agent: poller/1.0\r\nAccept: */*\r\n\
                    Authorization: Basic ZGVtbzpkZW1v\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        parked.push((client, worker.knock().await));
    }
    parked
}

#[tokio::test]
async fn lp_02_a_thousand_parked_polls_take_32_kib_each_no_cpu_and_stand_in_the_books() {
    const POLLS: usize = 1000;
    let _alone = alone();
    let proxy = Proxy::start(ROUTES);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    drop(park(&proxy, &worker, 100).await);
    proxy.idle().await;
    let before = proxy.memory_kib("VmRSS");
    let parked = park(&proxy, &worker, POLLS).await;
    let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
    // Tasks take more memory, and what the process does by itself more time, where nothing is optimized.
    let (kib_max, percent_max) = if cfg!(debug_assertions) { (34, 3.0) } else { (32, 1.0) };
    calm(&proxy).await;
    let used = percent_of_a_core(&proxy, percent_max).await;
    println!("LP-02: {POLLS} parked polls take {grown} KiB and {used:.2} % of a core");
    assert!(grown < kib_max * POLLS as u64, "{grown} KiB");
    assert!(used <= percent_max, "{used} % of a core");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("polls_parked", &[("route", "rest")]), POLLS as f64);
    assert_eq!(metrics.sum("http_requests", &[("route", "rest")]), POLLS as f64);
    let booked = proxy.get("/v1/stats").await["memory"]["total_bytes"].as_u64().unwrap() / 1024;
    assert!(grown <= booked * 13 / 10, "{grown} KiB resident, {booked} KiB in the books");
    drop(parked);
    proxy.idle().await;
    assert_eq!(proxy.get("/v1/stats").await["memory"]["requests_bytes"], 0);
}
