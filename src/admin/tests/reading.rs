//! Reading: health, pipes, events, numbers, and the process itself.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Fixture, request};
use crate::events::{EVENTS_MAX, Fact};
use crate::metrics::{ListenerLabel, PipeState};

#[tokio::test]
async fn ready_tells_why_not() {
    let fixture = Fixture::open();
    assert_eq!(fixture.get("/health/live").await.status.as_u16(), 200);
    let answer = fixture.get("/health/ready").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reasons"]), (503, &json!(["no eligible backend"])));
    fixture.json(Method::POST, "/v1/backends", json!({"url": "ws://127.0.0.1:7001"})).await;
    for path in ["/health/ready", "/readyz", "/health"] {
        let answer = fixture.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("ok")), "{path}");
    }
    fixture.json(Method::PUT, "/v1/drain", json!({})).await;
    let answer = fixture.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reasons"]), (503, &json!(["draining"])));
    let back = fixture.json(Method::DELETE, "/v1/drain", json!({})).await;
    assert_eq!((back.status.as_u16(), &back.json()["phase"]), (200, &json!("serving")));
    assert_eq!(fixture.get("/livez").await.status.as_u16(), 200);
    fixture.admin.process.phase.stop();
    assert_eq!(fixture.get("/readyz").await.json()["phase"], "stopping");
    assert_eq!(fixture.json(Method::DELETE, "/v1/drain", json!({})).await.problem(), "conflict");
}

#[tokio::test]
async fn short_memory_makes_it_unready() {
    let fixture = Fixture::open();
    fixture.json(Method::POST, "/v1/backends", json!({"url": "ws://127.0.0.1:7001"})).await;
    let mut config = crate::config::Config::default();
    config.memory.process_max = 1024;
    fixture.admin.process.config.store(Arc::new(config));
    let answer = fixture.get("/health/ready").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reasons"]), (503, &json!(["memory is short"])));
    assert!(answer.json()["memory"]["percent"].as_f64().unwrap() > 100.0);
}

#[tokio::test]
async fn cpu_use_is_measured_and_not_made_up() {
    let fixture = Fixture::open();
    let begun = Instant::now();
    let mut sum = 0u64;
    while begun.elapsed() < Duration::from_millis(200) {
        sum = sum.wrapping_mul(31).wrapping_add(1);
    }
    assert!(std::hint::black_box(sum) != 3);
    let body = fixture.get("/health").await.json();
    assert!(body["cpu_percent"].as_f64().unwrap() > 1.0, "{body}");
    assert!(body["memory"]["rss_mb"].as_f64().unwrap() > 1.0, "{body}");
}

#[tokio::test]
async fn pipes_are_listed_filtered_and_shown() {
    let fixture = Fixture::open();
    let pipes: Vec<_> = (1..=3).map(|n| fixture.pipe(n, if n == 2 { "s2" } else { "s1" })).collect();
    let first = fixture.get("/v1/pipes?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    let rest = fixture.get(&format!("/v1/pipes?limit=2&cursor={cursor}")).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    let count =
        async |query: &str| fixture.get(&format!("/v1/pipes?{query}")).await.json()["items"].as_array().unwrap().len();
    for (query, found) in [
        ("key=s1", 2),
        ("key=s2&route=screens&pool=default&state=attached", 1),
        ("route=other", 0),
        ("pool=other", 0),
        ("backend=b", 0),
        ("state=detached", 0),
    ] {
        assert_eq!(count(query).await, found, "{query}");
    }
    let id = pipes[0].entry().id.to_string();
    let body = fixture.get(&format!("/v1/pipes/{id}")).await.json();
    assert_eq!((&body["id"], &body["route"], &body["key"]), (&json!(id), &json!("screens"), &json!("s1")));
    for field in ["accepted", "sent", "confirmed", "level", "buffered_bytes", "in_doubt", "lost"] {
        assert!(!body["up"][field].is_null() && !body["down"][field].is_null(), "{field}");
    }
    drop(pipes);
    assert_eq!(count("").await, 0);
    assert_eq!(fixture.get(&format!("/v1/pipes/{id}")).await.problem(), "not-found");
}

/// The ids of a list, page by page, and what each page counted.
async fn listed(fixture: &Fixture, query: &str) -> (Vec<String>, Vec<(u64, u64)>) {
    let (mut ids, mut counts, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = fixture.get(&format!("/v1/pipes?{query}{cursor}")).await.json();
        ids.extend(page["items"].as_array().unwrap().iter().map(|pipe| pipe["id"].as_str().unwrap().to_owned()));
        counts.push((page["total"].as_u64().unwrap(), page["matched"].as_u64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { return (ids, counts) };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test]
async fn a_sorted_list_joins_its_pages_to_the_whole_while_pipes_come_and_go() {
    use std::sync::atomic::Ordering::Relaxed;
    let fixture = Fixture::open();
    let mut pipes: Vec<_> = (1..=9).map(|n| fixture.pipe(n, "s1")).collect();
    let now = fixture.admin.process.clock.now();
    for (n, pipe) in (0..).zip(&pipes) {
        let entry = pipe.entry();
        // three values, so that ids decide within each
        entry.rate.moved(n % 3 * 5000, now);
        entry.interruptions.store(n % 3, Relaxed);
        entry.memory_bytes.store(n % 3, Relaxed);
        entry.up.buffered_bytes.store(n % 3, Relaxed);
    }
    let id = |n: usize, pipes: &[crate::pipes::Registration]| pipes[n].entry().id.to_string();
    let by_value: Vec<String> = [2, 5, 8, 1, 4, 7, 0, 3, 6].map(|n| id(n, &pipes)).into();
    for sort in ["-buffered", "-interruptions", "-memory"] {
        let (ids, counts) = listed(&fixture, &format!("sort={sort}&limit=2")).await;
        assert_eq!((&ids, counts), (&by_value, vec![(9, 9); 5]), "{sort}");
    }
    assert_eq!(listed(&fixture, "sort=-rate").await.0, by_value);
    assert_eq!(listed(&fixture, "sort=age&limit=4").await.0, (0..9).map(|n| id(n, &pipes)).collect::<Vec<_>>());
    let first = fixture.get("/v1/pipes?sort=-memory&limit=4").await.json();
    assert_eq!((&first["items"][0]["memory_bytes"], &first["items"][0]["buffered_bytes"]), (&json!(2), &json!(2)));
    // what was given out goes, and so does what was to come: the others stay in their places
    let rest: Vec<String> = [7, 0, 6].map(|n| id(n, &pipes)).into();
    for gone in [5, 4, 3] {
        drop(pipes.remove(gone));
    }
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = listed(&fixture, &format!("sort=-memory&cursor={cursor}")).await;
    assert_eq!(second, (rest, vec![(6, 6)]));
    for query in [format!("cursor={cursor}"), format!("sort=age&cursor={cursor}"), "sort=rate".into(), "sort=".into()] {
        assert_eq!(fixture.get(&format!("/v1/pipes?{query}")).await.problem(), "invalid", "{query}");
    }
    let refused = fixture.get("/v1/pipes?sort=speed").await.json();
    let told = refused["errors"][0].to_string();
    for word in ["/query/sort", "-rate", "-buffered", "-interruptions", "-memory", "age"] {
        assert!(told.contains(word), "{told}");
    }
}

#[tokio::test]
async fn words_find_a_pipe_behind_the_first_page() {
    let fixture = Fixture::open();
    let pipes: Vec<_> = (0..200).map(|n| fixture.pipe(n, &format!("Android-{n}"))).collect();
    let wanted = pipes[199].entry().id.to_string();
    for query in ["q=android-199", "q=ANDROID-199&limit=1", &format!("q={wanted}")] {
        assert_eq!(listed(&fixture, query).await, (vec![wanted.clone()], vec![(200, 1)]), "{query}");
    }
    let (ids, counts) = listed(&fixture, "q=android-19&sort=-rate&limit=5").await;
    assert_eq!((ids.len(), counts), (11, vec![(200, 11); 3]));
    for (query, found) in [("q=screens", 200), ("q=127.0.0.1", 200), ("q=", 200), ("q=iphone", 0)] {
        assert_eq!(listed(&fixture, query).await.0.len(), found, "{query}");
    }
}

/// A task that is woken in vain.
struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[tokio::test]
async fn one_pipe_is_moved_and_closed() {
    let fixture = Fixture::open();
    let pipe = fixture.pipe(1, "s1");
    let path = format!("/v1/pipes/{}", pipe.entry().id);
    assert_eq!(fixture.json(Method::POST, &format!("{path}/reattach"), json!({})).await.status.as_u16(), 202);
    for query in ["code=1005", "code=999", "code=x", "colour=1", &format!("reason={}", "x".repeat(124))] {
        assert_eq!(
            fixture.json(Method::DELETE, &format!("{path}?{query}"), json!({})).await.problem(),
            "invalid",
            "{query}"
        );
    }
    let closed = fixture.json(Method::DELETE, &format!("{path}?code=4000&reason=moved%20away"), json!({})).await;
    assert_eq!(closed.status.as_u16(), 204);
    let orders = pipe.entry().take_orders(&Waker::from(Arc::new(Task)));
    let text = format!("{orders:?}");
    assert!(text.contains("Reattach") && text.contains("4000") && text.contains("moved away"), "{text}");
    for _ in 0..crate::pipes::COMMANDS_MAX {
        fixture.json(Method::POST, &format!("{path}/reattach"), json!({})).await;
    }
    assert_eq!(fixture.json(Method::POST, &format!("{path}/reattach"), json!({})).await.problem(), "conflict");
    assert_eq!(fixture.json(Method::POST, "/v1/pipes/x/reattach", json!({})).await.problem(), "not-found");
}

fn fact() -> Fact {
    Fact::ProcessDrainStarted
}

#[tokio::test]
async fn a_long_poll_wakes_within_ten_milliseconds_and_misses_nothing() {
    let fixture = Fixture::open();
    let events = Arc::clone(&fixture.admin.process.events);
    let pusher = std::thread::spawn(move || {
        let mut pushed = Vec::new();
        for _ in 0..20 {
            pushed.push(Instant::now());
            events.push(fact());
            std::thread::yield_now();
        }
        pushed
    });
    let (mut after, mut seen) = (0, Vec::new());
    while seen.len() < 20 {
        let page = fixture.get(&format!("/v1/events?after={after}&wait=25s")).await.json();
        let items = page["items"].as_array().unwrap().clone();
        assert!(!items.is_empty());
        seen.extend(items.iter().map(|event| event["seq"].as_u64().unwrap()));
        after = page["last"].as_u64().unwrap();
    }
    assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
    pusher.join().unwrap();

    let waiting = fixture.get("/v1/events?after=20&wait=25s");
    let push = async {
        tokio::task::yield_now().await;
        fixture.admin.process.events.push(fact());
        Instant::now()
    };
    let (page, pushed) = tokio::join!(waiting, push);
    assert!(pushed.elapsed() < Duration::from_millis(10));
    assert_eq!(page.json()["items"][0]["seq"], 21);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_empty_when_its_patience_does() {
    let fixture = Fixture::open();
    let begun = tokio::time::Instant::now();
    let page = fixture.get("/v1/events?wait=25s").await.json();
    assert_eq!(page, json!({"items": [], "next_cursor": null, "last": 0}));
    assert_eq!(begun.elapsed().as_secs(), 25);
    assert_eq!(fixture.get("/v1/events?wait=soon").await.problem(), "invalid");
}

#[tokio::test]
async fn what_is_no_longer_kept_is_gone() {
    let fixture = Fixture::open();
    for _ in 0..=EVENTS_MAX + 1 {
        fixture.admin.process.events.push(fact());
    }
    let answer = fixture.get("/v1/events?after=1&wait=25s").await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (410, "gone"));
    assert_eq!(fixture.get("/v1/events?after=2&limit=1").await.json()["items"][0]["seq"], 3);
    assert_eq!(fixture.get("/v1/events?after=999999999").await.problem(), "gone");
}

#[tokio::test]
async fn a_stream_sends_each_event_once_and_resumes() {
    let fixture = Fixture::open();
    for _ in 0..3 {
        fixture.admin.process.events.push(fact());
    }
    let ask = request(Method::GET, "/v1/events?after=0", None).header("accept", "text/event-stream");
    let ask = ask.header("last-event-id", "1").body(Body::empty()).unwrap();
    let response = fixture.admin.router().oneshot(ask).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut text = String::new();
    while !text.contains("id: 4\n") {
        if text.contains("id: 3\n") && fixture.admin.process.events.newest() == 3 {
            fixture.admin.process.events.push(fact());
        }
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["2", "3", "4"]);
    assert!(text.contains("data: {\"seq\":2,"), "{text}");
}

#[tokio::test]
async fn events_are_asked_for_by_type_by_level_and_from_now_on() {
    let fixture = Fixture::open();
    let events = &fixture.admin.process.events;
    for n in 0..5 {
        events.push(Fact::BackendDown { pool: "p".into(), backend: n.to_string().into(), reason: String::new() });
        events.push(fact());
    }
    let seqs = async |query: &str| {
        let page = fixture.get(&format!("/v1/events?{query}")).await.json();
        let seqs: Vec<u64> =
            page["items"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        (seqs, page["last"].as_u64().unwrap())
    };
    assert_eq!(seqs("type=backend.down").await, (vec![1, 3, 5, 7, 9], 10));
    assert_eq!(seqs("type=process,pipe.ended&limit=2").await, (vec![2, 4], 4));
    assert_eq!(seqs("level=warn&after=4").await, (vec![5, 7, 9], 10));
    assert_eq!(seqs("type=backend&level=error").await, (vec![], 10));
    assert_eq!(seqs("since=now").await, (vec![], 10));
    assert_eq!(seqs("since=1h&limit=1").await, (vec![1], 1));
    for query in ["type=backend.fell", "type=", "level=loud", "since=soon", "since=now&after=1"] {
        assert_eq!(fixture.get(&format!("/v1/events?{query}")).await.problem(), "invalid", "{query}");
    }
}

#[tokio::test]
async fn a_stream_of_some_events_begins_at_the_newest_and_passes_over_the_others() {
    let fixture = Fixture::open();
    let events = Arc::clone(&fixture.admin.process.events);
    events.push(fact());
    let ask = request(Method::GET, "/v1/events?since=now&type=process", None).header("accept", "text/event-stream");
    let response = fixture.admin.router().oneshot(ask.body(Body::empty()).unwrap()).await.unwrap();
    events.push(Fact::BackendUp { pool: "p".into(), backend: "b".into() });
    events.push(fact());
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    let text = std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    assert!(text.contains("id: 3\n") && text.contains(r#""level":"info""#), "{text}");
}

#[tokio::test]
async fn a_long_poll_for_some_events_waits_on_when_others_come() {
    let fixture = Fixture::open();
    let events = Arc::clone(&fixture.admin.process.events);
    let pushes = async {
        for _ in 0..3 {
            // the poll looks at each of them
            tokio::task::yield_now().await;
            events.push(fact());
        }
        tokio::task::yield_now().await;
        events.push(Fact::BackendUp { pool: "p".into(), backend: "b".into() });
    };
    let (page, ()) = tokio::join!(fixture.get("/v1/events?type=backend&wait=25s"), pushes);
    let page = page.json();
    assert_eq!((&page["items"][0]["seq"], page["items"].as_array().unwrap().len()), (&json!(4), 1), "{page}");
}

#[tokio::test]
async fn stats_say_what_the_metrics_say() {
    let fixture = Fixture::open();
    fixture.json(Method::PUT, "/v1/backends/a", json!({"url": "ws://127.0.0.1:7001"})).await;
    let _connection = fixture.admin.process.metrics.connection(ListenerLabel::Public);
    let route = fixture.admin.process.metrics.route("screens");
    let _pipes = [fixture.pipe(1, "s1"), fixture.pipe(2, "s1")];
    let _gauges = [route.open_pipe(PipeState::Attached), route.open_pipe(PipeState::Detached)];
    route.up.messages.inc_by(7);
    route.down.bytes.inc_by(99);
    let text = fixture.get("/metrics").await.text;
    let sample = |series: &str| -> f64 {
        let line =
            text.lines().find(|line| line.starts_with(&format!("{series} "))).unwrap_or_else(|| panic!("{series}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    for path in ["/stats", "/v1/stats"] {
        let stats = fixture.get(path).await.json();
        let pick =
            |pointer: &str| stats.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"));
        for (pointer, series) in [
            ("/connections/public", "holdline_connections{listener=\"public\"}"),
            ("/pipes/attached", "holdline_pipes{route=\"screens\",state=\"attached\"}"),
            ("/pipes/detached", "holdline_pipes{route=\"screens\",state=\"detached\"}"),
            ("/counters/pipes_total", "holdline_pipes_total{route=\"screens\"}"),
            ("/counters/up/messages_total", "holdline_messages_total{lane=\"up\",route=\"screens\"}"),
            ("/counters/down/message_bytes_total", "holdline_message_bytes_total{lane=\"down\",route=\"screens\"}"),
            ("/memory/limit_bytes", "holdline_memory_limit_bytes"),
            ("/memory/total_bytes", "holdline_memory_bytes{kind=\"pipes\"}"),
            ("/services/0/clients", "holdline_backend_pipes{backend=\"a\",pool=\"default\"}"),
        ] {
            assert!((pick(pointer) - sample(series)).abs() < f64::EPSILON, "{pointer}");
        }
        assert_eq!((&stats["total_sessions"], &stats["total_connections"]), (&json!(1), &json!(2)));
        assert_eq!(stats["connections"]["by_route"]["screens"], 2);
        assert_eq!(stats["connections"]["by_key"]["s1"], 2);
    }
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let fixture = Fixture::open();
    assert_eq!(fixture.get("/v1/log").await.json(), json!({"level": "info", "until": null, "then": null}));
    let answer = fixture.json(Method::PUT, "/v1/log", json!({"level": "debug"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["level"]), (200, &json!("debug")));
    assert_eq!(fixture.get("/v1/log").await.json()["level"], "debug");
    let answer = fixture.json(Method::PUT, "/v1/log", json!({"level": "trace", "for": "10m"})).await.json();
    assert_eq!((&answer["level"], &answer["then"]), (&json!("trace"), &json!("debug")));
    assert!(answer["until"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    for bad in ["0s", "25h", "soon"] {
        let answer = fixture.json(Method::PUT, "/v1/log", json!({"level": "trace", "for": bad})).await;
        assert_eq!(answer.json()["errors"][0]["pointer"], "/for", "{bad}");
    }
    let answer = fixture.json(Method::PUT, "/v1/log", json!({"level": "loud"})).await;
    assert_eq!(answer.json()["errors"][0]["pointer"], "/level");
}

#[tokio::test]
async fn info_names_the_process() {
    let info = Fixture::open().get("/v1/info").await.json();
    assert_eq!((&info["name"], &info["version"]), (&json!("holdline"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(info["pid"], std::process::id());
}

#[tokio::test]
async fn the_configuration_is_shown_and_a_candidate_judged() {
    let fixture = Fixture::open();
    assert_eq!(fixture.get("/v1/config").await.json()["admin"]["listen"], "127.0.0.1:9000");
    let judge =
        async |toml: &str| fixture.json(Method::POST, "/v1/config/validate", json!({"toml": toml})).await.json();
    let fine = judge("[reattach]\ngrace = \"5s\"\n").await;
    assert_eq!((&fine["valid"], &fine["changes"][0]["key"]), (&json!(true), &json!("reattach.grace")), "{fine}");
    let bad = judge("[reattach]\ngraze = \"5s\"\n").await;
    assert_eq!((&bad["valid"], &bad["errors"][0]["line"]), (&json!(false), &json!(2)), "{bad}");
    assert_eq!(fixture.get("/v1/config").await.json()["reattach"]["grace"], "30s");
}
