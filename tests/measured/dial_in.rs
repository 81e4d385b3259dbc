//! How soon pipes find another worker where workers dial in.

use crate::harness::agent::{Agent, parked};
use crate::harness::{Client, DemoWorker, Proxy, eventually};
use crate::measure::alone;

const PIPES: usize = 1000;

const CONFIG: &str = "[attach]\nlisten = [\"127.0.0.1:0\"]\n[limits]\naddress_rate = 0\naddress_connections = 0\n\
    key_rate = 0\n[[pools]]\nname = \"default\"\n";

/// What 99 of 100 reattaches may take, as the label of a bucket, in seconds: below 2, where the build is optimized.
const P99_SECONDS_MAX: &str = if cfg!(debug_assertions) { "5" } else { "1" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pipes_whose_agent_is_killed_are_soon_at_another_one() {
    let _alone = alone();
    let proxy = Proxy::start(CONFIG);
    let workers = [DemoWorker::start("a", &[]), DemoWorker::start("b", &[])];
    let mut first = Agent::of(&proxy, workers[0].address, "a");
    parked(&proxy, "a", 8).await;
    let mut clients = Vec::new();
    for _ in 0..PIPES {
        clients.push(Client::connect(proxy.public, "/ws/s1/echo").await);
    }
    let _second = Agent::of(&proxy, workers[1].address, "b");
    parked(&proxy, "b", 8).await;
    first.kill().await;
    let took = async |le: &str| proxy.metrics().await.sum("reattach_duration_seconds_bucket", &[("le", le)]);
    eventually("all are attached again", async || (took("+Inf").await >= PIPES as f64).then_some(())).await;
    let (all, prompt) = (took("+Inf").await, took(P99_SECONDS_MAX).await);
    let (half, one, more) = (took("0.5").await, took("1").await, took("2.5").await);
    println!("{PIPES} pipes of a killed agent: {half} within 0.5 s, {one} within 1, {more} within 2.5");
    assert!(prompt >= all * 0.99, "{prompt} of {all}");
    for client in &mut clients {
        assert_eq!(client.exchange("still there").await, "still there");
    }
}
