//! The drill: many pipes with numbered traffic, new processes that take over one after another, and workers that are killed
//! under them meanwhile. No client is closed, nothing is lost, and only what was in doubt when a worker died comes twice.
//!
//! `scripts/upgrade --long` runs it at its full length.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Client, Proxy, Said, StepWorker, eventually};

struct Drill {
    pipes: usize,
    upgrades: usize,
    every: Duration,
}

const SHORT: Drill = Drill { pipes: 120, upgrades: 4, every: Duration::from_millis(250) };
const LONG: Drill = Drill { pipes: 2000, upgrades: 24, every: Duration::from_secs(5) };

/// What comes between two messages of one client.
const PAUSE: Duration = Duration::from_millis(20);

const CONFIG: &str = "[limits]\nkey_connections = 0\nkey_rate = 0\naddress_connections = 0\naddress_rate = 0\n\
    [reattach]\ngrace = \"2m\"\ndials_per_minute = 0\n[[pools]]\nname = \"default\"\n\
    [[routes]]\nname = \"ws\"\npath = \"/ws/{n}\"\npool = \"default\"\n";

/// A worker that answers each message with the same one, and loses all its connections each time that `deaths` grows.
async fn serve(worker: StepWorker, deaths: watch::Receiver<u64>) {
    loop {
        let mut wire = worker.knock_unbounded().await.upgrade().await.mortal();
        let mut deaths = deaths.clone();
        deaths.mark_unchanged();
        tokio::spawn(async move {
            loop {
                let said = tokio::select! {
                    said = wire.hear_unbounded() => said,
                    _ = deaths.changed() => return wire.reset(),
                };
                let Said::Text(text) = said else { return };
                wire.text(&text).await;
            }
        });
    }
}

/// Numbers until it is told to end; how many came twice.
async fn converse(mut client: Client, end: watch::Receiver<bool>, rounds: Arc<AtomicU64>) -> u64 {
    let (mut number, mut doubles) = (0_u64, 0);
    while !*end.borrow() {
        client.text(number.to_string()).await;
        loop {
            let said: u64 = client.hear().await.text().parse().unwrap();
            if said == number {
                break;
            }
            assert!(said < number, "{said} before {number} was said");
            doubles += 1;
        }
        number += 1;
        rounds.fetch_add(1, SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    client.close(1000, "").await;
    doubles
}

/// Whether a process runs; one that only waits to be buried does not.
fn runs(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_closes_no_client_loses_nothing_and_leaves_no_old_process() {
    let is_long = std::env::var("HOLDLINE_UPGRADE_DRILL").is_ok_and(|form| form == "long");
    let Drill { pipes, upgrades, every } = if is_long { LONG } else { SHORT };
    let mut proxy = Proxy::start(CONFIG);
    let mut killers = Vec::new();
    for id in ["a", "b", "c"] {
        let worker = StepWorker::start().await;
        proxy.register_as(id, json!({"url": format!("ws://{}", worker.address)})).await;
        let (kill, deaths) = watch::channel(0);
        tokio::spawn(serve(worker, deaths));
        killers.push(kill);
    }
    let (end, ended) = watch::channel(false);
    let (mut clients, rounds) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for n in 0..pipes {
        let client = Client::connect(proxy.public, &format!("/ws/{n}")).await;
        clients.spawn(converse(client, ended.clone(), rounds.clone()));
    }
    let mut pids = vec![json!(proxy.pid())];
    for upgrade in 0..upgrades {
        tokio::time::sleep(every).await;
        killers[upgrade % killers.len()].send_modify(|deaths| *deaths += 1);
        let before = rounds.load(SeqCst);
        let report = proxy.upgrade().await;
        println!("upgrade {upgrade}: {report}");
        assert_eq!((&report["moved"], &report["left"]), (&pipes.into(), &0.into()), "{report}");
        pids.push(report["pid"].clone());
        let enough = before + pipes as u64;
        eventually("the traffic goes on", async || (rounds.load(SeqCst) > enough).then_some(())).await;
    }
    end.send(true).unwrap();
    let mut doubles = 0;
    while let Some(client) = clients.join_next().await {
        doubles += client.unwrap();
    }
    println!("{} rounds, {doubles} came twice", rounds.load(SeqCst));
    assert!(doubles <= (upgrades * pipes) as u64, "at most the one that was in doubt at each death");
    assert!(proxy.exited().await.success());
    let last = pids.pop().unwrap();
    for pid in pids {
        eventually("an old process has ended", async || (!runs(&pid)).then_some(())).await;
    }
    assert!(runs(&last));
    proxy.emptied().await;
}
