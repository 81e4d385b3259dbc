//! A rolling restart of every worker under traffic: each is drained, waited for, stopped, started anew and registered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Client, DemoWorker, KEYED, Proxy, Said, eventually, within};

const WORKERS: usize = 4;
const PIPES: usize = 200;

/// Commands that one client sends at once.
const BURST: u64 = 2;

/// The traffic's own rhythm.
const BEAT: Duration = Duration::from_millis(250);

/// Commands of one client that may be unanswered.
const UNANSWERED_MAX: u64 = 30;

/// Sends numbered commands until it is told to stop, and checks that each is answered once and in its order; how many.
pub async fn talk(proxy: Arc<Proxy>, name: usize, mut stop: watch::Receiver<bool>) -> u64 {
    let path = format!("/ws/s{name}/control?pull=1&echo=1&command_ms=0");
    let mut client = Client::connect(proxy.public, &path).await;
    let (mut sent, mut answered) = (0, 0);
    let mut beats = tokio::time::interval(BEAT);
    while !*stop.borrow() || answered < sent {
        tokio::select! {
            _ = beats.tick(), if !*stop.borrow() && sent - answered < UNANSWERED_MAX => {
                for _ in 0..BURST {
                    sent += 1;
                    client.text(json!({ "t": "tap", "n": sent }).to_string()).await;
                }
            }
            said = client.hear_unbounded() => {
                answered += 1;
                match said {
                    Said::Text(text) => {
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        assert_eq!(answer["ack"], answered, "s{name}: nothing lost and nothing twice on the way down");
                    }
                    other => panic!("s{name}: {other:?} after {answered} of {sent}"),
                }
            }
            _ = stop.changed() => {}
        }
    }
    client.close(1000, "").await;
    sent
}

fn start(proxy: &Proxy, number: usize, journal: &std::path::Path) -> DemoWorker {
    let (name, admin) = (format!("w{number}"), format!("http://{}", proxy.admin));
    DemoWorker::start(&name, &["--register", &admin, "--journal", journal.to_str().unwrap()])
}

async fn ready(proxy: &Proxy, number: usize) {
    eventually("the worker is registered", async || {
        let reply = proxy.api("GET", &format!("/v1/backends/w{number}"), None).await;
        (reply.status == 200 && reply.json()["eligible"] == true).then_some(())
    })
    .await;
}

/// Drains a worker, waits for its pipes to have gone, and puts a new process in its place.
async fn restart(proxy: &Proxy, number: usize, worker: &mut DemoWorker, journal: &std::path::Path) {
    let path = format!("/v1/backends/w{number}");
    let drain = json!({ "state": "drain" });
    let moved = proxy.api("PUT", &format!("{path}/state"), Some(drain)).await;
    assert!(matches!(moved.status, 200 | 202), "{}", moved.text());
    eventually("its pipes have gone", async || (proxy.get(&path).await["pipes"] == 0).then_some(())).await;
    worker.signal(rustix::process::Signal::TERM);
    worker.exited().await;
    *worker = start(proxy, number, journal);
    ready(proxy, number).await;
}

/// The numbers of the commands that were executed, by session and in their order.
pub fn executed(journals: &[std::path::PathBuf]) -> BTreeMap<String, Vec<u64>> {
    let mut by_session: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for journal in journals {
        for line in std::fs::read_to_string(journal).unwrap().lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let session = entry["session"].as_str().unwrap().to_owned();
            let at = (entry["attach"].as_u64().unwrap(), entry["n"].as_u64().unwrap());
            by_session.entry(session).or_default().push(at);
        }
    }
    let numbers = |mut entries: Vec<(u64, u64)>| {
        // within one attachment they stand in the order of the file
        entries.sort_by_key(|&(attachment, _)| attachment);
        entries.into_iter().map(|(_, number)| number).collect()
    };
    by_session.into_iter().map(|(session, entries)| (session, numbers(entries))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn px_03_four_workers_restart_one_by_one_under_200_pipes_and_nothing_is_closed_lost_or_doubled() {
    let proxy = Arc::new(Proxy::start(KEYED));
    let files = tempfile::tempdir().unwrap();
    let journals: Vec<_> = (0..WORKERS).map(|number| files.path().join(format!("w{number}.jsonl"))).collect();
    let mut workers: Vec<_> = (0..WORKERS).map(|number| start(&proxy, number, &journals[number])).collect();
    for number in 0..WORKERS {
        ready(&proxy, number).await;
    }
    let (stop, stopped) = watch::channel(false);
    let talks: Vec<_> = (0..PIPES).map(|name| tokio::spawn(talk(proxy.clone(), name, stopped.clone()))).collect();
    eventually("all talk", async || {
        (proxy.metrics().await.sum("pipes", &[("state", "attached")]) == PIPES as f64).then_some(())
    })
    .await;
    for (number, worker) in workers.iter_mut().enumerate() {
        restart(&proxy, number, worker, &journals[number]).await;
    }
    stop.send(true).unwrap();
    let mut sent = Vec::new();
    for talk in talks {
        sent.push(within("a client's last answer", talk).await.unwrap());
    }
    let executed = executed(&journals);
    for (name, &count) in sent.iter().enumerate() {
        let numbers = &executed[&format!("s{name}")];
        assert_eq!(*numbers, Vec::from_iter(1..=count), "s{name}: each once, in order");
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("moves_total", &[("result", "moved")]) >= PIPES as f64, "every pipe was moved");
    for counter in ["in_doubt_messages_total", "lost_messages_total", "replayed_messages_total"] {
        assert_eq!(metrics.sum(counter, &[]), 0.0, "{counter}");
    }
    assert_eq!(metrics.sum("pipe_closes_total", &[("side", "client")]), PIPES as f64);
    println!("PX-03: {} commands over {WORKERS} restarts", sent.iter().sum::<u64>());
}
