//! What becomes of messages when workers are lost.

use futures_util::FutureExt;
use rand::RngExt;
use serde_json::{Value, json};

use crate::harness::wire::BINARY;
use crate::harness::{Client, DemoWorker, Proxy, Said, StepWorker, Wire, eventually, within};

/// What the benchmark measures is what loses nothing: these tests break workers under its very configuration.
const BENCH: &str = include_str!("../../benches/load/holdline.toml");
const EAGER: &str = "[reattach]\ndials_per_minute = 0\n";

fn tap(n: u64) -> String {
    json!({ "t": "tap", "x": 1, "y": 2, "n": n }).to_string()
}

/// A video frame that shows whose it is from its first byte to its last.
fn video_frame(turn: usize, n: usize) -> String {
    let letter = char::from(b'a' + (turn % 26) as u8).to_string();
    let fill = letter.repeat(if n % 50 == 49 { 100_000 } else { 1_500 });
    json!({ "turn": turn, "n": n, "data": fill }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ib_02_ten_thousand_video_frames_over_more_than_ten_reattaches_all_parse_and_none_is_spliced() {
    const FRAMES: usize = 10_000;
    const EACH: usize = 800;
    let proxy = Proxy::start(EAGER);
    let mut worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Client::connect(proxy.public, "/ws/s1/video"), worker.accept());
    let talk = async {
        for turn in 0.. {
            for n in 0..EACH {
                wire.text(&video_frame(turn, n)).await;
            }
            // half a frame, and then the worker is gone
            let frame = wire.encode(0x81, video_frame(turn, EACH).as_bytes());
            wire.send_raw(&frame[..frame.len() / 2]).await.unwrap();
            let next = StepWorker::start().await;
            proxy.register(&format!("w{}", turn + 1), next.address).await;
            drop(std::mem::replace(&mut worker, next));
            if turn % 3 == 2 {
                wire.reset();
            } else {
                wire.fin().await;
            }
            wire = worker.accept().await;
        }
    };
    let watch = async {
        let (mut frames, mut last) = (0, (0, 0));
        while frames < FRAMES {
            let frame: Value = serde_json::from_str(&client.hear().await.text()).unwrap();
            let (turn, n) = (frame["turn"].as_u64().unwrap() as usize, frame["n"].as_u64().unwrap() as usize);
            assert_eq!(frame["data"], serde_json::from_str::<Value>(&video_frame(turn, n)).unwrap()["data"]);
            assert!(if n == 0 { turn == last.0 + usize::from(frames > 0) } else { (turn, n) == (last.0, last.1 + 1) });
            assert!(n > 0 || frames == 0 || last.1 == EACH - 1 || last.0 % 3 == 2, "frames of {last:?} are missing");
            (frames, last) = (frames + 1, (turn, n));
        }
    };
    tokio::select! {
        () = talk => unreachable!("it goes on for ever"),
        () = watch => {}
    }
    let pipe = proxy.pipes().await.remove(0);
    assert!(pipe["interruptions"].as_u64().unwrap() >= 10, "{pipe}");
}

#[tokio::test]
async fn ib_04_a_hundred_taps_sent_during_an_outage_arrive_in_order_as_exactly_a_hundred_messages() {
    let proxy = Proxy::start(BENCH);
    let mut first = DemoWorker::start("first", &[]);
    proxy.register("first", first.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/control").await;
    client.text(tap(0)).await;
    proxy.pipe_that("the first tap is confirmed", |pipe| pipe["up"]["confirmed"] == 1).await;
    first.kill();
    proxy.event_of(0, "pipe.interrupted").await;
    for n in 1..=100 {
        client.text(tap(n)).await;
    }
    proxy.pipe_that("all taps are taken", |pipe| pipe["up"]["accepted"] == 101).await;
    let second = DemoWorker::start("second", &[]);
    proxy.register("second", second.address).await;
    assert_eq!(second.executed(100).await, Vec::from_iter(1..=100));
    client.text(tap(101)).await;
    assert_eq!(second.executed(101).await, Vec::from_iter(1..=101), "nothing came twice behind them");
}

/// What two workers executed when the first was killed with commands 6 to 20 written to it and unread, and 21 to 30
/// were sent while there was none; and how many were in doubt.
async fn killed_amid_its_queue(policy: &str) -> (Vec<u64>, Vec<u64>, f64) {
    let proxy = Proxy::start(&format!("{BENCH}[replay]\npolicy = \"{policy}\"\n"));
    let journal = tempfile::NamedTempFile::new().unwrap();
    let mut first = DemoWorker::start("first", &["--pull", "--journal", journal.path().to_str().unwrap()]);
    first.knob("hold").await;
    proxy.register("first", first.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/control").await;
    for n in 1..=20 {
        client.text(tap(n)).await;
    }
    proxy.pipe_that("all are sent", |pipe| pipe["up"]["sent"] == 20).await;
    first.knob("step?n=5").await;
    first.executed(5).await;
    first.kill();
    proxy.event_of(0, "pipe.interrupted").await;
    for n in 21..=30 {
        client.text(tap(n)).await;
    }
    let second = DemoWorker::start("second", &[]);
    proxy.register("second", second.address).await;
    let on_second = eventually("the last command", async || {
        let executed = second.executed(0).await;
        (executed.last() == Some(&30)).then_some(executed)
    })
    .await;
    let lines = std::fs::read_to_string(journal.path()).unwrap();
    let on_first = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap());
    let in_doubt = proxy.metrics().await.sum("in_doubt_messages_total", &[("lane", "up")]);
    (on_first.collect(), on_second, in_doubt)
}

#[tokio::test]
async fn ib_05_unconfirmed_loses_nothing_when_a_worker_is_killed_and_says_how_much_was_in_doubt() {
    let (first, second, in_doubt) = killed_amid_its_queue("unconfirmed").await;
    assert_eq!(first, Vec::from_iter(1..=5));
    assert!(second[0] <= 6, "command 6 was lost: {second:?}");
    assert_eq!(second, Vec::from_iter(second[0]..=30), "in order, each once on the second worker");
    assert!(in_doubt > 0.0);
    assert!(in_doubt >= (21 - second[0]) as f64, "what came again was in doubt");
}

#[tokio::test]
async fn ib_05_unsent_executes_nothing_twice_when_a_worker_is_killed_and_says_how_much_was_in_doubt() {
    let (first, second, in_doubt) = killed_amid_its_queue("unsent").await;
    assert_eq!(first, Vec::from_iter(1..=5));
    assert_eq!(second, Vec::from_iter(21..=30), "what was sent to the first worker is not sent again");
    assert!(in_doubt >= 15.0, "{in_doubt}");
}

#[tokio::test]
async fn ib_05_a_worker_that_stops_in_order_finishes_its_queue_and_nothing_comes_twice() {
    let proxy = Proxy::start(BENCH);
    let journal = tempfile::NamedTempFile::new().unwrap();
    let arguments = ["--journal", journal.path().to_str().unwrap(), "--command-ms", "5"];
    let first = DemoWorker::start("first", &arguments);
    proxy.register("first", first.address).await;
    let mut client = Client::connect(proxy.public, "/ws/s1/control").await;
    for n in 1..=40 {
        client.text(tap(n)).await;
    }
    proxy.pipe_that("all are confirmed", |pipe| pipe["up"]["confirmed"] == 40).await;
    first.signal(rustix::process::Signal::TERM);
    proxy.event_of(0, "pipe.interrupted").await;
    let second = DemoWorker::start("second", &[]);
    proxy.register("second", second.address).await;
    client.text(tap(41)).await;
    assert_eq!(second.executed(1).await, [41]);
    let lines = std::fs::read_to_string(journal.path()).unwrap();
    let on_first = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_u64().unwrap());
    assert_eq!(Vec::from_iter(on_first), Vec::from_iter(1..=40));
}

fn random_message(rng: &mut impl RngExt, n: usize) -> Said {
    let size = if rng.random_ratio(1, 20) { rng.random_range(10_000..70_000) } else { rng.random_range(0..400) };
    if rng.random() {
        Said::Text(format!("{n}:{}", "x".repeat(size)))
    } else {
        Said::Binary((0..size + 4).map(|index| (index + n) as u8).collect())
    }
}

const MESSAGES: usize = 1_500;
const OUTAGES: usize = 20;

/// The workers, one after the other: what they have read together, and how they die.
struct Workers<'a> {
    proxy: &'a Proxy,
    worker: StepWorker,
    wire: Wire,
    journal: Vec<Said>,
    last_attach: u64,
    /// Whether they speak first and after every message.
    talk: bool,
}

impl Workers<'_> {
    /// What the last worker had read and not confirmed comes again, and nothing is left out.
    fn begin(&mut self, turn: usize) {
        let head = &self.wire.head;
        let first: usize = head.header("holdline-first-seq").parse().unwrap_or(1);
        assert!(first <= self.journal.len() + 1, "a hole before message {first}");
        assert!(turn == 0 || head.header("holdline-gap") == "none", "{head:?}");
        let attach: u64 = head.header("holdline-attach").parse().unwrap();
        assert!(attach > self.last_attach, "an attach number came again: {head:?}");
        self.last_attach = attach;
        self.journal.truncate(first - 1);
    }

    /// Reads until the joint journal has `enough` messages, and something new is confirmed: three workers that die
    /// with the same message first would have it blamed for that.
    async fn read(&mut self, turn: usize, enough: usize) {
        let before = self.journal.len() as u64;
        let mut said = 0;
        if self.talk {
            self.wire.text(&format!("{turn} {said}")).await;
            said += 1;
        }
        while self.journal.len() < enough || self.wire.pings.is_empty() {
            let Some(came) = within("a message or a ping", self.wire.hear_or_ping()).await else { continue };
            self.journal.push(came);
            if self.talk {
                self.wire.text(&format!("{turn} {said}")).await;
                said += 1;
            }
        }
        let moved = |pipe: &Value| pipe["up"]["confirmed"].as_u64().is_some_and(|confirmed| confirmed > before);
        self.proxy.pipe_that("something is confirmed", moved).await;
    }

    /// The worker dies, and then there is another.
    async fn replace(mut self, turn: usize, reset: bool) -> Self {
        self.worker = StepWorker::start().await;
        if reset {
            self.wire.reset();
        } else {
            self.wire.fin().await;
        }
        self.proxy.register(&format!("w{}", turn + 1), self.worker.address).await;
        self.wire = self.worker.accept().await;
        self
    }
}

/// Says everything as fast as `released` allows; what was heard meanwhile.
async fn speak(client: &mut Client, sent: &[Said], mut released: tokio::sync::watch::Receiver<usize>) -> Vec<String> {
    let mut heard = Vec::new();
    for (n, message) in sent.iter().enumerate() {
        released.wait_for(|&allowed| n < allowed).await.unwrap();
        match message {
            Said::Text(text) => client.text(text.clone()).await,
            Said::Binary(bytes) => client.binary(bytes.clone()).await,
            Said::Close(..) | Said::Gone => unreachable!("not among the messages"),
        }
        while let Some(said) = client.hear_unbounded().now_or_never() {
            heard.push(said.text());
        }
    }
    heard
}

/// Twenty workers die one after the other while a client sends its messages; what it said, what they read, and what it
/// heard of them.
async fn twenty_outages(talk: bool) {
    let proxy = Proxy::start(BENCH);
    let worker = StepWorker::start().await;
    proxy.register("w0", worker.address).await;
    let (mut client, wire) = tokio::join!(Client::connect(proxy.public, "/ws"), worker.accept());
    let mut workers = Workers { proxy: &proxy, worker, wire, journal: Vec::new(), last_attach: 0, talk };
    let mut rng = rand::rng();
    let sent: Vec<Said> = (0..MESSAGES).map(|n| random_message(&mut rng, n)).collect();
    // the client goes on as the outages do, so that each of them finds something under way
    let (release, released) = tokio::sync::watch::channel(0);
    let work = async {
        for turn in 0..OUTAGES {
            workers.begin(turn);
            let allowed = MESSAGES * (turn + 1) / (OUTAGES + 1);
            release.send_replace(allowed);
            workers.read(turn, allowed.min(workers.journal.len() + rng.random_range(1..100))).await;
            workers = workers.replace(turn, rng.random()).await;
        }
        workers.begin(OUTAGES);
        release.send_replace(MESSAGES);
        workers.read(OUTAGES, MESSAGES).await;
        if talk {
            workers.wire.text("over").await;
        }
        workers
    };
    let (workers, mut heard) = tokio::join!(work, speak(&mut client, &sent, released));
    if talk {
        while heard.last().is_none_or(|said| said != "over") {
            heard.push(client.hear().await.text());
        }
        check_talk(&heard[..heard.len() - 1]);
    }
    assert_eq!(workers.journal.len(), sent.len());
    let wrong = workers.journal.iter().zip(&sent).position(|(got, wanted)| got != wanted);
    assert_eq!(wrong, None, "the first message that differs");
}

/// Each worker's words came in order and without a hole; the first thing from each was its first word.
fn check_talk(heard: &[String]) {
    let mut last: Option<(usize, usize)> = None;
    for said in heard {
        let (turn, n) = said.split_once(' ').unwrap();
        let (turn, n): (usize, usize) = (turn.parse().unwrap(), n.parse().unwrap());
        match last {
            Some((before, count)) if before == turn => assert_eq!(n, count + 1, "{said}"),
            Some((before, _)) => assert!(turn > before && n == 0, "{said} after a word of {before}"),
            None => assert_eq!((turn, n), (0, 0)),
        }
        last = Some((turn, n));
    }
    assert_eq!(last.unwrap().0, OUTAGES);
}

#[tokio::test]
async fn iw_03_over_twenty_outages_the_workers_joint_journal_is_the_clients() {
    twenty_outages(false).await;
}

#[tokio::test]
async fn iw_04_over_twenty_outages_with_workers_that_talk_all_the_time_the_journals_are_equal_too() {
    twenty_outages(true).await;
}

#[tokio::test]
async fn a_message_that_was_half_sent_when_its_worker_died_arrives_whole_at_the_next() {
    let proxy = Proxy::start(BENCH);
    let first = StepWorker::start().await;
    proxy.register("first", first.address).await;
    let (mut client, wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), first.accept());
    let payload = vec![7; 100_000];
    let bytes = client.encode(0x80 | BINARY, &payload);
    client.send_raw(&bytes[..50_000]).await.unwrap();
    drop(first);
    wire.reset();
    proxy.event_of(0, "pipe.interrupted").await;
    let second = StepWorker::start().await;
    proxy.register("second", second.address).await;
    let mut wire = second.accept().await;
    client.send_raw(&bytes[50_000..]).await.unwrap();
    assert!(wire.hear().await == Said::Binary(payload));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_said_before_its_reset_reaches_the_worker_though_a_write_to_the_client_fails_first() {
    const ROUNDS: usize = 60;
    let proxy = Proxy::start("");
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let mut lost = Vec::new();
    for round in 0..ROUNDS {
        let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
        let frame = wire.encode(0x82, &[b'.'; 1000]);
        let last = format!("last of {round}");
        let leaving = last.clone();
        // It leaves while the proxy writes to it, so that a write is what finds the reset.
        let client = tokio::spawn(async move {
            for _ in 0..=round {
                client.hear().await;
            }
            client.text(&leaving).await;
            client.reset();
        });
        // The proxy may end the connection amid the flood.
        for _ in 0..20 {
            let _ = wire.send_raw(&frame.repeat(20)).await;
        }
        client.await.unwrap();
        let heard = wire.hear().await;
        if heard != Said::Text(last) {
            lost.push((round, heard));
        }
    }
    assert!(lost.is_empty(), "{} of {ROUNDS} are lost: {lost:?}", lost.len());
}

#[tokio::test]
async fn three_quick_cuts_of_one_message_by_the_network_are_no_poison() {
    let proxy = Proxy::start(EAGER);
    let worker = StepWorker::start().await;
    proxy.register("w", worker.address).await;
    let (mut client, mut wire) = tokio::join!(Wire::connect(proxy.public, "/ws", &[]), worker.accept());
    client.text("sound").await;
    for _ in 0..4 {
        wire.pongs = false;
        assert_eq!(wire.hear().await.text(), "sound");
        wire.reset();
        wire = worker.accept().await;
    }
    assert_eq!(wire.hear().await.text(), "sound");
    wire.text("heard").await;
    assert_eq!(client.hear().await.text(), "heard");
}
